"""Mutations of image files that respect their structure.

Whole chunks, segments and entries are added, removed and changed. Lengths and checksums are then corrected, so that
decoders read on instead of stopping at them.
"""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from image_seeds import Seed, png_chunk

Parts = list[bytes]

_NUMBERS = (0, 1, 2, 3, 4, 5, 7, 8, 12, 15, 16, 17, 24, 31, 32, 33, 64, 127, 128, 255, 256, 257, 511, 1000, 1024, 4095)
_NUMBERS += (8191, 16384, 32767, 32768, 34712, 65000, 65535, 65536, 1 << 20, 1 << 24, 1 << 30, (1 << 31) - 1, 1 << 31)
_NUMBERS += ((1 << 32) - 2, (1 << 32) - 1)
_WEIGHTS = {
    "JPEG": 8,
    "PNG": 8,
    "TIFF": 8,
    "TIFF of bands": 8,
    "arrays": 2,
    "HEIC": 2,
    "GIF": 4,
    "WEBP": 4,
    "BMP": 3,
    "JPEG2000": 4,
    "AVIF": 3,
    "ICO": 2,
    "ICNS": 2,
}
_LARGEST = 1 << 20  # largest mutated file, in bytes
_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8"
_CODESTREAM = b"\xff\x4f\xff\x51"
_ALONE = frozenset((0x01, 0x4F, 0x93, *range(0xD0, 0xDA)))  # markers without a length, of JPEG and JPEG 2000


@dataclass(frozen=True)
class Parsed:
    """A file split into parts.

    Attributes:
        parts: The parts that mutations move and change.
        join: Joins parts into a file.
    """

    parts: Parts
    join: Callable[[Parts], bytes]


Corpus = dict[str, list[Parsed]]


def corpus_of(seeds: Sequence[Seed]) -> Corpus:
    """Return the files split into parts, by format."""
    corpus: Corpus = {}
    for kind, data in seeds:
        corpus.setdefault(kind, []).append(_parsed(data))
    return corpus


def _parsed(data: bytes) -> Parsed:
    """Split a file into parts; a file of unknown structure is cut into a few pieces."""
    try:
        if data.startswith(_PNG):
            return Parsed(list(_png_parts(data)), _png_of)
        if data.startswith((_JPEG, _CODESTREAM)):
            return Parsed(list(_marker_parts(data)), _markers_of)
        if data.startswith(b"GIF8"):
            return Parsed(list(_gif_parts(data)), b"".join)
        if data.startswith(b"RIFF"):
            return Parsed(list(_riff_parts(data)), _riff_of)
        if data.startswith((b"II*\0", b"MM\0*")):
            return _tiff(data)
        if data[4:8] in (b"ftyp", b"jP  "):
            return Parsed(list(_box_parts(data)), _boxes_of)
    except (struct.error, IndexError):  # the seed itself is broken
        pass
    step = max(1, -(-len(data) // 6))
    return Parsed([data[at : at + step] for at in range(0, len(data), step)], b"".join)


def mutated(corpus: Corpus, rng: random.Random) -> Seed:
    """Return a mutated file of the corpus: its format and its bytes."""
    kinds = list(corpus)
    kind = rng.choices(kinds, [_WEIGHTS.get(kind, 1) for kind in kinds])[0]
    source = rng.choice(corpus[kind])
    parts = source.parts.copy()
    for _ in range(1 + min(int(rng.expovariate(1)), 8)):
        donor = source if rng.random() < 0.5 else rng.choice(corpus[kind])
        _change(parts, donor.parts, rng)
    data = source.join(parts)
    chance = rng.random()
    if chance < 0.1:
        data = data[: rng.randrange(len(data) + 1)]
    elif chance < 0.2:
        data = _edited(data, rng)
    elif chance < 0.23:
        other = rng.choice(corpus[rng.choice(kinds)])
        data = data[: rng.randrange(len(data) + 1)] + other.join(other.parts)[rng.randrange(200) :]
    return kind, data[:_LARGEST]


def _change(parts: Parts, donor: Parts, rng: random.Random) -> None:
    if not parts or not donor:
        parts.append(rng.randbytes(rng.randrange(64)))
        return
    at = rng.randrange(len(parts))
    match rng.choices(("edit", "drop", "repeat", "move", "insert", "replace", "flood"), (12, 1, 1, 1, 2, 2, 0.2))[0]:
        case "edit":
            parts[at] = _edited_within(parts[at], rng)
        case "drop":
            del parts[at]
        case "repeat":
            parts.insert(rng.randrange(len(parts) + 1), parts[at])
        case "move":
            parts.insert(rng.randrange(len(parts)), parts.pop(at))
        case "insert":
            parts.insert(at, rng.choice(donor))
        case "replace":
            parts[at] = rng.choice(donor)
        case "flood":
            times = 2 ** rng.randrange(4, 13)
            parts[at:at] = [parts[at]] * min(times, (_LARGEST >> 2) // max(1, len(parts[at])))


def _edited_within(part: bytes, rng: random.Random) -> bytes:
    """Return a changed part. Compressed data is sometimes decompressed, changed and compressed again."""
    if part[:4] in (b"IDAT", b"zTXt", b"iCCP", b"fdAT") and rng.random() < 0.5:
        head = 4 if part[4:5] == b"\x78" else part.find(b"\0\0\x78") + 2
        try:
            plain = zlib.decompressobj().decompress(part[head:], _LARGEST)
        except zlib.error:
            return _edited(part, rng)
        return part[:head] + zlib.compress(_edited(plain, rng), 1)
    return _edited(part, rng)


def _edited(data: bytes, rng: random.Random) -> bytes:
    """Return the bytes with one place changed, most often near the start, where headers are."""
    file = bytearray(data)
    at = int(len(file) * rng.random() ** rng.choice((1, 3)))
    match rng.randrange(8):
        case 0:
            file[at : at + 1] = bytes([rng.randrange(256)])
        case 1 if at < len(file):
            file[at] ^= 1 << rng.randrange(8)
        case 2 | 3:
            file[at : at + 2] = struct.pack(rng.choice("<>") + "H", rng.choice(_NUMBERS) & 0xFFFF)
        case 4 | 5:
            file[at : at + 4] = struct.pack(rng.choice("<>") + "I", rng.choice(_NUMBERS))
        case 6:
            file[at : at + rng.randrange(20)] = rng.randbytes(rng.randrange(20))
        case 7:
            file[at:at] = file[at : at + 2 ** rng.randrange(12)]
    return bytes(file)


def _png_parts(data: bytes) -> Iterator[bytes]:
    at = len(_PNG)
    while at + 8 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4])
        yield data[at + 4 : end]
        at = end + 4


def _png_of(parts: Parts) -> bytes:
    return _PNG + b"".join(png_chunk(part[:4], part[4:]) for part in parts)


def _marker_parts(data: bytes) -> Iterator[bytes]:
    """Return segments without their lengths, and the coded data between them."""
    at = 0
    while at < len(data):
        if data[at] != 0xFF or data[at + 1] == 0:
            end = _next_marker(data, at + 1)
            yield data[at:end]
        elif data[at + 1] in _ALONE:
            end = at + 2
            yield data[at:end]
        else:
            end = at + 2 + int.from_bytes(data[at + 2 : at + 4])
            yield data[at : at + 2] + data[at + 4 : end]
        at = end


def _next_marker(data: bytes, start: int) -> int:
    at = data.find(b"\xff", start)
    while 0 <= at < len(data) - 1 and (data[at + 1] < 0x90 or 0xD0 <= data[at + 1] < 0xD8):
        at = data.find(b"\xff", at + 1)
    return len(data) if at < 0 or at == len(data) - 1 else at


def _markers_of(parts: Parts) -> bytes:
    file = bytearray()
    for part in parts:
        if len(part) > 1 and part[0] == 0xFF and part[1] != 0 and part[1] not in _ALONE:
            part = part[: 1 << 16]
            file += part[:2] + min(len(part), 0xFFFF).to_bytes(2) + part[2:]
        else:
            file += part
    return bytes(file)


def _gif_parts(data: bytes) -> Iterator[bytes]:
    """Return the screen descriptor, then extensions, frame headers and frame pixels."""
    at = 13 + _color_table(data[10])
    yield data[:at]
    while at < len(data) and data[at] != 0x3B:
        if data[at] == 0x2C:
            end = at + 10 + _color_table(data[at + 9])
            yield data[at:end]
            at, end = end, end + 1
        else:
            end = at + 2
        while data[end]:
            end += 1 + data[end]
        yield data[at : end + 1]
        at = end + 1
    yield data[at:]


def _color_table(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _riff_parts(data: bytes) -> Iterator[bytes]:
    at = 12
    while at + 8 <= len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        yield data[at : at + 4] + data[at + 8 : at + 8 + size]
        at += 8 + size + size % 2


def _riff_of(parts: Parts) -> bytes:
    chunks = (
        part[:4] + struct.pack("<I", len(part) - 4) + part[4:] + bytes(len(part) % 2) for part in parts if part[3:]
    )
    body = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _box_parts(data: bytes) -> Iterator[bytes]:
    at = 0
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4]) or len(data) - at
        yield data[at + 4 : at + size]
        at += max(size, 8)


def _boxes_of(parts: Parts) -> bytes:
    return b"".join(struct.pack(">I", 4 + len(part)) + part for part in parts)


def _tiff(data: bytes) -> Parsed:
    """Split off the entries of the first directory. Joining writes the directory at the end, where there is room."""
    order = "<" if data[:1] == b"I" else ">"
    start = struct.unpack_from(order + "L", data, 4)[0]
    count = struct.unpack_from(order + "H", data, start)[0]
    entries = [data[start + 2 + 12 * index : start + 14 + 12 * index] for index in range(count)]

    def join(parts: Parts) -> bytes:
        directory = struct.pack(order + "H", len(parts) & 0xFFFF) + b"".join(
            part[:12].ljust(12, b"\0") for part in parts
        )
        return data[:4] + struct.pack(order + "L", len(data)) + data[8:] + directory + bytes(4)

    return Parsed(entries, join)
