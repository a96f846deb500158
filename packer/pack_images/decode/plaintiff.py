"""TIFFs whose samples lie in the file as they are: not compressed, pixel after pixel, one strip after another.

EuroSAT's are of this kind. They are read in a fifth of the time that tifffile takes to open them, to the same values.
Anything unusual is left to tifffile.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from h5split.file.losses import PAGES, Loss
from pack_images.decode.guards import check_bytes, check_pixels
from pack_images.decode.pages import tiff_has_more_pages
from pack_images.decode.samples import Samples, samples_of
from pack_images.decode.turning import turned
from pack_images.settings import Pixels

_MARKS = {b"II*\0": "<", b"MM\0*": ">"}
_FORMATS = {1: "B", 3: "H", 4: "L"}  # types of tags: one, two and four bytes
_MAX_TAGS = 100
_MAX_VALUES = 4096
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_FILL_ORDER, _OFFSETS, _ORIENTATION, _SAMPLES, _NBYTES, _PLANAR = 266, 273, 274, 277, 279, 284
_PREDICTOR, _TILE_WIDTH, _KIND = 317, 322, 339
_NEEDED = (_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _OFFSETS, _NBYTES)
_PALETTE = 3
_MUST_BE_ONE = (_COMPRESSION, _FILL_ORDER, _PLANAR, _PREDICTOR)  # none, the usual order, pixel after pixel, none
_KINDS = {1: "u", 2: "i", 3: "f"}
_WIDTHS = frozenset(("u1", "i1", "u2", "i2", "f2", "u4", "i4", "f4", "f8"))

_Tags = dict[int, tuple[int, ...]]


def read_plain_tiff(data: bytes, how: Pixels) -> Samples | None:
    """Return every band of a plain TIFF; None if the file is another, or colours or pages are asked for."""
    order = _MARKS.get(data[:4])
    if order is None or how.color != "all" or how.pages != "first":
        return None
    try:
        tags = _tags(data, order)
    except struct.error:  # beyond the end of the file
        return None
    if not all(tags.get(name) for name in _NEEDED) or _TILE_WIDTH in tags or tags[_PHOTOMETRIC][0] == _PALETTE:
        return None
    if not (tags.setdefault(_SAMPLES, (1,)) and tags.setdefault(_ORIENTATION, (1,))):
        return None
    dtype = _dtype(tags, order)
    if dtype is None or any(tags.get(name, (1,)) != (1,) for name in _MUST_BE_ONE):
        return None
    shape = (tags[_HEIGHT][0], tags[_WIDTH][0], tags[_SAMPLES][0])
    size = shape[0] * shape[1] * shape[2]
    check_pixels(shape[1], shape[0], how)
    check_bytes(size * dtype.itemsize, how)
    if not size or not _is_contiguous(tags, size * dtype.itemsize, len(data)):
        return None
    values = np.frombuffer(data, dtype, size, tags[_OFFSETS][0]).reshape(shape)
    lost = Loss(PAGES) if tiff_has_more_pages(data) else None
    return samples_of(turned(values, tags[_ORIENTATION][0]), "", lost)


def _tags(data: bytes, order: str) -> _Tags:
    """Read the first directory. A tag of another type, with very many values or twice is empty."""
    start = struct.unpack_from(order + "L", data, 4)[0]
    count = min(struct.unpack_from(order + "H", data, start)[0], _MAX_TAGS)
    found: _Tags = {}
    for number, kind, many, field in struct.iter_unpack(order + "HHL4s", data[start + 2 : start + 2 + 12 * count]):
        letter = _FORMATS.get(kind, "")
        if not letter or not 0 < many <= _MAX_VALUES or number in found:
            found[number] = ()
            continue
        layout = f"{order}{many}{letter}"
        is_here = struct.calcsize(layout) <= len(field)
        at = 0 if is_here else struct.unpack(order + "L", field)[0]
        found[number] = struct.unpack_from(layout, field if is_here else data, at)
    return found


def _dtype(tags: _Tags, order: str) -> np.dtype[Any] | None:
    """Return the type of all samples; None if they differ, or numpy has none like it."""
    bits, kinds = set(tags[_BITS]), set(tags.get(_KIND, (1,)))
    if len(bits) != 1 or len(kinds) != 1 or len(tags[_BITS]) not in (1, tags[_SAMPLES][0]):
        return None
    name = f"{_KINDS.get(kinds.pop(), '')}{bits.pop() / 8:g}"
    return np.dtype(order + name) if name in _WIDTHS else None


def _is_contiguous(tags: _Tags, size: int, end: int) -> bool:
    """Return whether the strips lie one behind the other, and hold the samples exactly."""
    offsets, nbytes = tags[_OFFSETS], tags[_NBYTES]
    if len(offsets) != len(nbytes) or sum(nbytes) != size or offsets[0] + size > end:
        return False
    return all(at + length == following for at, length, following in zip(offsets, nbytes, offsets[1:], strict=False))
