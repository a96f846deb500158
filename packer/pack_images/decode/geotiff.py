"""TIFFs whose values are kept: any number of bands, tiled, compressed, planar or chunky, with tifffile (extra `tiff`).

Only the first page is a picture, unless the user says that pages are bands. What only photographs have, JPEG
compression and colours such as CMYK, is left to Pillow.
"""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from h5split.file.losses import PAGES, Loss
from pack_images.decode.guards import check_bytes, check_pixels, check_tags
from pack_images.decode.pages import is_stack, tiff_has_more_pages
from pack_images.decode.samples import Alpha, Samples, samples_of
from pack_images.decode.turning import turned
from pack_images.errors import DecodeError, reason
from pack_images.settings import Pixels

if TYPE_CHECKING:
    from tifffile import TiffPage

# None, LZW, deflate (three numbers), PackBits, LZMA, Zstandard (two numbers). Their decoders are told how many bytes to
# expect, so a small file cannot make them take more.
_COMPRESSIONS = frozenset((1, 5, 8, 32946, 50013, 32773, 34925, 34926, 50000))
_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB = 0, 1, 2  # photometric interpretations
_ALPHAS: dict[int, Alpha] = {1: "premultiplied", 2: "straight"}  # by the tag ExtraSamples
_ORIENTATION = 274  # tag
_MIN_SEGMENTS = 4096  # strips and tiles that are always accepted
_MIN_SEGMENT_BYTES = 64  # else the size of each on average: decoding one takes 20 us
_MAX_PAGES = 4096
_MIN_TILE_LIMIT = 1 << 20  # pixels that a tile may always have
_NEEDED = "a TIFF whose values are kept: expected tifffile and imagecodecs; pip install 'pack-images[tiff]'"

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # no log on stderr: the DecodeError names the fault


def read_tiff(data: bytes, how: Pixels) -> Samples | None:
    """Return the samples of a TIFF. None if Pillow is to read it.

    Raises:
        DecodeError: It is damaged, too large, or of a kind that cannot be read.
    """
    check_tags(data)
    try:
        from tifffile import TiffFile  # here, because few files need it
    except ImportError:
        raise DecodeError(_NEEDED) from None
    try:
        with TiffFile(io.BytesIO(data)) as file:
            return _read(file, data, how)
    except DecodeError:
        raise
    except Exception as error:  # tifffile and imagecodecs raise unrelated types on damaged files
        raise DecodeError(f"tifffile: {reason(error)[:200]}") from error


def _read(file: Any, data: bytes, how: Pixels) -> Samples | None:
    first = file.pages.first
    if not _is_ours(first, how):
        if how.pages == "bands" and tiff_has_more_pages(data):
            raise DecodeError(
                "pages as bands: expected grey values as they are, or compressed by LZW, deflate, Zstandard, LZMA or "
                f"PackBits, found {first.photometric.name} compressed by {first.compression.name}"
            )
        return None
    pages = list(_pages(file, how)) if how.pages == "bands" else [first]
    if how.pages == "bands" and len(pages) == 1 and is_stack(data):
        raise DecodeError("pages as bands: expected a directory for each page, found one directory for several")
    check_bytes(sum(_nbytes(page) for page in pages), how)
    parts = [_values(page, how) for page in pages]
    values = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)
    lost = Loss(PAGES) if how.pages == "first" and tiff_has_more_pages(data) else None
    found = samples_of(turned(values, _orientation(first)), _alpha(first), lost)
    return Samples(found.values, _bits(first) if found.bits else 0, found.alpha, found.loss)


def _is_ours(page: TiffPage, how: Pixels) -> bool:
    """Return whether tifffile is to read a file, rather than Pillow."""
    if page.compression not in _COMPRESSIONS:
        return False
    if how.color in ("all", "index"):
        return page.photometric != 3 or how.color == "index"  # a palette is shown in its colours
    is_deep = page.dtype is None or page.dtype.itemsize > 1
    return is_deep and page.photometric in (_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB)


def _pages(file: Any, how: Pixels) -> Iterator[TiffPage]:
    """Yield the pages that are bands: all but reduced copies and masks."""
    first = file.pages.first
    budget = 0
    for number, page in enumerate(file.pages):
        if number == _MAX_PAGES:
            raise DecodeError(f"more than {_MAX_PAGES:,} pages: expected a page for each band")
        if page.is_reduced or page.is_mask:
            continue
        if page.shape != first.shape or page.dtype != first.dtype:
            raise DecodeError(
                f"pages of one kind: expected {first.dtype} {first.shape}, found {page.dtype} {page.shape}"
            )
        budget += _nbytes(page)
        check_bytes(budget, how)
        yield page


def _values(page: TiffPage, how: Pixels) -> NDArray[Any]:
    """Return the samples of a page: (H, W, C)."""
    _check_page(page, how)
    planes, depth, _, _, _ = page.shaped
    if depth != 1:
        raise DecodeError(f"a TIFF of {depth} layers: expected one")
    found = page.asarray(squeeze=False, maxworkers=1)
    values = found[:, 0, :, :, 0].transpose(1, 2, 0) if planes > 1 else found[0, 0]
    if page.photometric == _MIN_IS_WHITE and how.color not in ("all", "index"):
        values = np.concatenate((_inverted(values[..., :1], _bits(page)), values[..., 1:]), axis=2)
    return values


def _inverted(grey: NDArray[Any], bits: int) -> NDArray[Any]:
    """Return grey values in which white is the highest number, of those in which it is the lowest."""
    return (1 << bits) - 1 - grey if grey.dtype.kind == "u" else -grey


def _check_page(page: TiffPage, how: Pixels) -> None:
    """Refuse a page that would take far more memory or time than its pixels justify."""
    if page.dtype is None or 0 in page.shaped:
        raise DecodeError(f"a TIFF of samples that are no numbers: {page.bitspersample} bits")
    check_pixels(page.imagewidth, page.imagelength, how)
    if page.is_tiled and page.tilewidth * page.tilelength > max(how.max_pixels, _MIN_TILE_LIMIT):
        raise DecodeError(f"tiles of {page.tilewidth}x{page.tilelength} are more than {how.max_pixels} pixels")
    if page.is_tiled:
        check_bytes(page.tilewidth * page.tilelength * page.samplesperpixel * page.dtype.itemsize, how)
    expected = math.prod(page.chunked)
    if expected > max(_MIN_SEGMENTS, _nbytes(page) // _MIN_SEGMENT_BYTES) or len(page.dataoffsets) > expected:
        raise DecodeError(f"{max(expected, len(page.dataoffsets)):,} strips or tiles are too many for its pixels")
    if page.compression != 1:
        _check_whole(page, expected)


def _check_whole(page: TiffPage, expected: int) -> None:
    """Refuse compressed samples that are not all there: decoders may make something of what there is."""
    if len(page.dataoffsets) < expected:
        raise DecodeError(f"expected {expected:,} strips or tiles, found {len(page.dataoffsets):,}")
    end = max(map(sum, zip(page.dataoffsets, page.databytecounts, strict=False)), default=0)
    if end > page.parent.filehandle.size:
        raise DecodeError(f"cut short: expected {end:,} bytes or more, found {page.parent.filehandle.size:,}")


def _nbytes(page: TiffPage) -> int:
    return math.prod(page.shaped) * (page.dtype.itemsize if page.dtype is not None else 1)


def _bits(page: TiffPage) -> int:
    bits = page.bitspersample
    return int(max(bits) if isinstance(bits, tuple) else bits)


def _alpha(page: TiffPage) -> Alpha:
    """Return what the last band is, if it is transparency: the tag ExtraSamples says so."""
    colors = {_RGB: 3, _MIN_IS_BLACK: 1, _MIN_IS_WHITE: 1}.get(int(page.photometric), 0)
    extra = tuple(page.extrasamples or ())
    if len(extra) != 1 or page.samplesperpixel != colors + 1:
        return ""
    return _ALPHAS.get(int(extra[0]), "")


def _orientation(page: TiffPage) -> int:
    found = page.tags.valueof(_ORIENTATION)
    return int(found) if isinstance(found, int) else 1
