"""Remove metadata from PNG files: colour profiles, texts, dates.

Metadata does not change a row, but Pillow refuses a file whose metadata is too large.
"""

from __future__ import annotations

import struct
import zlib

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PICTURE_CHUNKS = frozenset((b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"eXIf", b"acTL", b"fcTL", b"fdAT"))
_CHUNK_HEADER = struct.Struct(">I4s")  # length and kind of a chunk
_TEXT_CHUNKS = frozenset((b"tEXt", b"zTXt", b"iTXt"))
_ORIENTATION_TEXTS = (b"Raw profile type exif\0", b"XML:com.adobe.xmp\0")  # texts that may contain the orientation
_MAX_UNPACKED_BYTES = 1 << 20  # Pillow's limit for one text after decompression
_MAX_TOTAL_BYTES = 32 << 20  # limit for all texts of a file together


def without_notes(data: bytes) -> bytes:
    """Remove the chunks of a PNG that affect neither pixels nor orientation. Other files are returned unchanged."""
    if not data.startswith(_SIGNATURE):
        return data
    parts, start, budget = [], 0, _MAX_TOTAL_BYTES
    for at, end, kind in _metadata_chunks(data):
        size = _orientation_text_size(data, kind, at, end)
        if size is not None and size <= budget:
            budget -= size
            continue
        parts.append(data[start:at])
        start = end
    return b"".join((*parts, data[start:])) if start else data


def _metadata_chunks(data: bytes) -> list[tuple[int, int, bytes]]:
    """Return (start, end, kind) of each complete chunk that can be removed."""
    found, at, last = [], len(_SIGNATURE), len(data) - 12
    while at <= last:
        length, kind = _CHUNK_HEADER.unpack_from(data, at)
        end = at + 12 + length
        if (
            kind not in _PICTURE_CHUNKS and end <= len(data) and kind[:1].islower()
        ):  # capital letter: a chunk that decoders need
            found.append((at, end, kind))
        at = end
    return found


def _orientation_text_size(data: bytes, kind: bytes, at: int, end: int) -> int | None:
    """Return the size of a text that may contain the orientation; None for any other chunk, or if it is too long."""
    name = next((name for name in _ORIENTATION_TEXTS if data.startswith(name, at + 8)), None)
    if kind not in _TEXT_CHUNKS or name is None:
        return None
    start, stop = at + 8 + len(name), end - 4
    if kind == b"tEXt" or (kind == b"iTXt" and data[start : start + 1] != b"\1"):
        return stop - start
    if kind == b"iTXt":  # the text follows the language tag and the translated keyword
        start = data.find(b"\0", data.find(b"\0", start + 2, stop) + 1, stop)
    try:
        unpacked = zlib.decompressobj().decompress(data[start + 1 : stop], _MAX_UNPACKED_BYTES + 1)
    except zlib.error:
        return None
    return len(unpacked) if len(unpacked) < _MAX_UNPACKED_BYTES else None
