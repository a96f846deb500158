"""Removes colour profiles, texts and dates from a PNG before Pillow opens it.

None of them changes a row, and Pillow refuses files in which they are large.
"""

from __future__ import annotations

import struct
import zlib

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PICTURE = frozenset((b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"eXIf", b"acTL", b"fcTL", b"fdAT"))
_HEAD = struct.Struct(">I4s")  # length and kind of a chunk
_TEXTS = frozenset((b"tEXt", b"zTXt", b"iTXt"))
_ABOUT_THE_CAMERA = (b"Raw profile type exif\0", b"XML:com.adobe.xmp\0")  # texts that may hold the orientation
_LONGEST_PACKED = 1 << 20  # bytes of one text once unpacked; Pillow refuses more
_ALL_TEXTS = 32 << 20  # bytes of all texts together


def without_notes(data: bytes) -> bytes:
    """A PNG without the chunks that do not change its picture; any other file unchanged."""
    if not data.startswith(_SIGNATURE):
        return data
    parts, start, budget = [], 0, _ALL_TEXTS
    for at, end, kind in _notes(data):
        size = _kept_text(data, kind, at, end)
        if size is not None and size <= budget:
            budget -= size
            continue
        parts.append(data[start:at])
        start = end
    return b"".join((*parts, data[start:])) if start else data


def _notes(data: bytes) -> list[tuple[int, int, bytes]]:
    """(start, end, kind) of each complete chunk that is not part of the picture."""
    found, at, last = [], len(_SIGNATURE), len(data) - 12
    while at <= last:
        length, kind = _HEAD.unpack_from(data, at)
        end = at + 12 + length
        if kind not in _PICTURE and end <= len(data) and kind[:1].islower():  # a capital letter marks a critical chunk
            found.append((at, end, kind))
        at = end
    return found


def _kept_text(data: bytes, kind: bytes, at: int, end: int) -> int | None:
    """Unpacked size of a text that may hold the orientation; None of any other chunk, or if the text is too long."""
    name = next((name for name in _ABOUT_THE_CAMERA if data.startswith(name, at + 8)), None)
    if kind not in _TEXTS or name is None:
        return None
    start, stop = at + 8 + len(name), end - 4
    if kind == b"tEXt" or (kind == b"iTXt" and data[start : start + 1] != b"\1"):
        return stop - start
    if kind == b"iTXt":  # two texts about its language come first
        start = data.find(b"\0", data.find(b"\0", start + 2, stop) + 1, stop)
    try:
        unpacked = zlib.decompressobj().decompress(data[start + 1 : stop], _LONGEST_PACKED + 1)
    except zlib.error:
        return None
    return len(unpacked) if len(unpacked) < _LONGEST_PACKED else None
