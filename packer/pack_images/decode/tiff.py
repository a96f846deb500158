"""Read the tags in the directories of a TIFF or of EXIF data, without decoding anything.

The input may be damaged or hostile: reading stops where the data ends, and never loops.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import takewhile
from typing import NamedTuple

_MAX_DIRECTORIES = 64  # stop after this many
_MAX_TAGS = 4096  # per directory after the first; about thirty are usual
_BYTES_BY_TYPE = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}
_DESCRIPTION = 270  # tag
_INTEGERS = {  # (byte order, type) -> layout
    (order, kind): struct.Struct(order + letter)
    for order in "<>"
    for kind, letter in {1: "B", 3: "H", 4: "L", 13: "L", 16: "Q"}.items()
}


_MARKS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


class Tag(NamedTuple):
    """An entry of a directory.

    Attributes:
        number: The number that identifies the tag.
        nbytes: Size of its value in bytes.
        value: The value, if it is a single whole number; else None.
        at: Byte offset of the value, if it has no room in the directory.
    """

    number: int
    nbytes: int
    value: int | None
    at: int


def is_tiff(data: bytes) -> bool:
    """Return whether a file is a TIFF or a BigTIFF."""
    return data[:4] in _MARKS


def description(data: bytes) -> bytes:
    """Return the text of the first directory that describes the picture; empty if there is none."""
    tags = takewhile(lambda tag: tag.number <= _DESCRIPTION, next(directories(data), iter(())))  # they are in order
    return next((data[tag.at : tag.at + tag.nbytes] for tag in tags if tag.number == _DESCRIPTION), b"")


def directories(data: bytes) -> Iterator[Iterator[Tag]]:
    """Yield the tags of each directory that the file contains.

    Each directory comes once and their number is limited, because links between directories may form a loop.
    """
    if data[:2] not in (b"II", b"MM"):
        return
    order = "<" if data[:2] == b"II" else ">"
    is_big = data[2:3] == b"+"  # as in Pillow, which reads a big-endian BigTIFF as a plain TIFF
    place, number, entry = (8, "Q", "HHQ8s") if is_big else (4, "L", "HHL4s")
    seen: set[int] = set()
    try:
        start = struct.unpack_from(order + number, data, place)[0]
        while start not in seen and len(seen) < _MAX_DIRECTORIES:
            seen.add(start)
            count = struct.unpack_from(order + ("Q" if is_big else "H"), data, start)[0]
            if len(seen) > 1 and count > _MAX_TAGS:
                return
            first, size = start + (8 if is_big else 2), struct.calcsize("=" + entry)
            whole = data[first : first + count * size]
            whole = whole[: len(whole) // size * size]
            yield (_tag(order, *fields) for fields in struct.iter_unpack(order + entry, whole))
            if not (start := struct.unpack_from(order + number, data, first + count * size)[0]):
                return
    except struct.error:  # beyond the end of the file
        return


def _tag(order: str, number: int, kind: int, count: int, field: bytes) -> Tag:
    layout = _INTEGERS.get((order, kind)) if count == 1 else None
    value = layout.unpack_from(field)[0] if layout is not None and layout.size <= len(field) else None
    at = int.from_bytes(field, "little" if order == "<" else "big")
    return Tag(number, _BYTES_BY_TYPE.get(kind, 0) * count, value, at)
