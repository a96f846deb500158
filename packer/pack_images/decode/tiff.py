"""Reads the tags in the directories of a TIFF, or of EXIF. A damaged file gives the tags before the damage."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

_MOST_DIRECTORIES = 64  # to read of one file
_MOST_TAGS = 4096  # of each directory after the first; thirty are usual
_VALUE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}  # by type
_SMALL = {1: "B", 3: "H", 4: "L", 13: "L", 16: "Q"}


class Tag(NamedTuple):
    """An entry of a directory.

    Attributes:
        number: Which tag.
        nbytes: Size of its value.
        value: Its value if that is one whole number, else None.
    """

    number: int
    nbytes: int
    value: int | None


def directories(data: bytes) -> Iterator[Iterator[Tag]]:
    """The tags of each directory of a file. Each directory is read once, and their number is limited."""
    if data[:2] not in (b"II", b"MM"):
        return
    order = "<" if data[:2] == b"II" else ">"
    is_big = data[2:3] == b"+"  # as Pillow does, which takes a big-endian BigTIFF for a plain TIFF
    place, number, entry = (8, "Q", "HHQ8s") if is_big else (4, "L", "HHL4s")
    seen: set[int] = set()
    try:
        start = struct.unpack_from(order + number, data, place)[0]
        while start not in seen and len(seen) < _MOST_DIRECTORIES:
            seen.add(start)
            count = struct.unpack_from(order + ("Q" if is_big else "H"), data, start)[0]
            if len(seen) > 1 and count > _MOST_TAGS:
                return
            first, size = start + (8 if is_big else 2), struct.calcsize("=" + entry)
            whole = data[first : first + count * size]
            whole = whole[: len(whole) // size * size]
            yield (_tag(order, *fields) for fields in struct.iter_unpack(order + entry, whole))
            if not (start := struct.unpack_from(order + number, data, first + count * size)[0]):
                return
    except struct.error:  # an offset points beyond the end of the file
        return


def _tag(order: str, number: int, kind: int, count: int, field: bytes) -> Tag:
    format_ = _SMALL.get(kind, "")
    is_here = format_ and count == 1 and struct.calcsize("=" + format_) <= len(field)
    value = struct.unpack_from(order + format_, field)[0] if is_here else None
    return Tag(number, _VALUE_BYTES.get(kind, 0) * count, value)
