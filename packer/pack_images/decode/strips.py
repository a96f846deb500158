"""TIFFs whose samples lie in strips, as they are or compressed without a predictor.

EuroSAT's are of this kind. They are read without what tifffile needs to open a file and to place each strip, 0.1 to
0.3 ms, to the same values. Anything unusual is left to tifffile.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from h5split.file.losses import PAGES, Loss
from pack_images.decode.guards import check_bytes, check_pixels
from pack_images.decode.pages import tiff_has_more_pages
from pack_images.decode.samples import Samples, samples_of
from pack_images.decode.turning import turned
from pack_images.settings import Pixels

_MARKS = {b"II*\0": "<", b"MM\0*": ">"}
_FORMATS = {3: "H", 4: "L"}  # types of tags: two and four bytes
_MAX_TAGS = 100
_MAX_VALUES = 4096
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_FILL_ORDER, _OFFSETS, _ORIENTATION, _SAMPLES, _STRIP_HEIGHT, _NBYTES, _PLANAR = 266, 273, 274, 277, 278, 279, 284
_PREDICTOR, _KIND = 317, 339
_TILES = frozenset(range(322, 326))  # size, offsets, sizes in bytes
_NEEDED = (_BITS, _OFFSETS, _NBYTES)
_PALETTE = 3
_MUST_BE_ONE = (_FILL_ORDER, _PREDICTOR)  # the usual order of bits, no predictor
_NOT_COMPRESSED = 1
_PIXEL_AFTER_PIXEL, _PLANE_AFTER_PLANE = 1, 2
_SINGLE: dict[int, tuple[int, ...]] = {  # tags of one value, with what they are where they are missing
    _WIDTH: (),
    _HEIGHT: (),
    _PHOTOMETRIC: (),
    _COMPRESSION: (_NOT_COMPRESSED,),
    _ORIENTATION: (1,),
    _SAMPLES: (1,),
    _STRIP_HEIGHT: (2**32 - 1,),
    _PLANAR: (_PIXEL_AFTER_PIXEL,),
}
_DECODERS = {5: "lzw_decode", 8: "deflate_decode", 32946: "deflate_decode", 50000: "zstd_decode"}  # of imagecodecs
_KINDS = {1: "u", 2: "i", 3: "f"}
_WIDTHS = frozenset(("u1", "i1", "u2", "i2", "f2", "u4", "i4", "f4", "f8"))

_Tags = dict[int, tuple[int, ...]]


def read_strips(data: bytes, how: Pixels) -> Samples | None:
    """Return every band of a TIFF in strips; None if the file is another, or colours or pages are asked for."""
    order = _MARKS.get(data[:4])
    if order is None or how.color != "all" or how.pages != "first":
        return None
    try:
        tags = _tags(data, order)
    except struct.error:  # beyond the end of the file
        return None
    dtype = _dtype(tags, order) if _is_plain(tags) else None
    if dtype is None:
        return None
    height, width, bands = tags[_HEIGHT][0], tags[_WIDTH][0], tags[_SAMPLES][0]
    check_pixels(width, height, how)
    check_bytes(height * width * bands * dtype.itemsize, how)
    found = _bytes(data, tags, dtype.itemsize)
    if not found:
        return None
    is_planar = tags[_PLANAR][0] == _PLANE_AFTER_PLANE
    values = np.frombuffer(found, dtype).reshape((bands, height, width) if is_planar else (height, width, bands))
    lost = Loss(PAGES) if tiff_has_more_pages(data) else None
    upright = turned(values.transpose(1, 2, 0) if is_planar else values, tags[_ORIENTATION][0])
    return samples_of(upright, "", lost)


def _is_plain(tags: _Tags) -> bool:
    """Return whether the tags are those of numbers in strips without a predictor. Adds those that are missing."""
    if not all(tags.get(name) for name in _NEEDED) or _TILES & tags.keys():
        return False
    if any(len(tags.setdefault(name, default)) != 1 for name, default in _SINGLE.items()):
        return False
    if any(tags.get(name, (1,)) != (1,) for name in _MUST_BE_ONE) or tags[_PHOTOMETRIC][0] == _PALETTE:
        return False
    return tags[_PLANAR][0] in (_PIXEL_AFTER_PIXEL, _PLANE_AFTER_PLANE)


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


def _bytes(data: bytes, tags: _Tags, itemsize: int) -> bytes | memoryview | None:
    """Return the samples in the order of the file; None unless each strip holds exactly what it should."""
    sizes = _sizes(tags, itemsize)
    offsets, nbytes = tags[_OFFSETS], tags[_NBYTES]
    if sizes is None or not len(offsets) == len(nbytes) == len(sizes) or 0 in offsets:  # 0: left out by its writer
        return None
    whole = memoryview(data)
    strips: list[bytes | memoryview] = [whole[at : at + length] for at, length in zip(offsets, nbytes, strict=True)]
    if tags[_COMPRESSION][0] != _NOT_COMPRESSED:
        if any(len(strip) != length for strip, length in zip(strips, nbytes, strict=True)):  # the file is cut short
            return None
        decode = _decoder(tags[_COMPRESSION][0])
        if decode is None:
            return None
        try:
            strips = [decode(strip, out=size) for strip, size in zip(strips, sizes, strict=True)]
        except Exception:  # damaged: imagecodecs has an error of its own for each kind, and tifffile says what it is
            return None
    if [len(strip) for strip in strips] != sizes:
        return None
    return strips[0] if len(strips) == 1 else b"".join(strips)


def _sizes(tags: _Tags, itemsize: int) -> list[int] | None:
    """Return how many bytes each strip should hold; None if their number cannot be that of the file."""
    height, rows = tags[_HEIGHT][0], tags[_STRIP_HEIGHT][0]
    is_planar = tags[_PLANAR][0] == _PLANE_AFTER_PLANE
    planes, samples = (tags[_SAMPLES][0], 1) if is_planar else (1, tags[_SAMPLES][0])
    if not rows or planes * -(-height // rows) != len(tags[_OFFSETS]):
        return None
    row = tags[_WIDTH][0] * samples * itemsize
    return planes * [row * min(rows, height - top) for top in range(0, height, rows)]


def _decoder(compression: int) -> Callable[..., bytes] | None:
    name = _DECODERS.get(compression, "")
    try:
        import imagecodecs  # here, because few files need it
    except ImportError:
        return None
    return getattr(imagecodecs, name, None)
