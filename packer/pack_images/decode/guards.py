"""What a picture may cost: files that would take far more memory or time than their pixels are refused unseen."""

from __future__ import annotations

import contextlib
import io
import os
import re
import struct
import threading
import warnings
from collections.abc import Iterator
from typing import IO, cast

from PIL import Image, UnidentifiedImageError

from pack_images.decode.jpeg import jpeg_outline
from pack_images.decode.tiff import directories
from pack_images.errors import DecodeError
from pack_images.foreign import by_content
from pack_images.settings import Pixels

# Those that `scan.EXTENSIONS` are of. Pillow opens more: what it hands to other programs (EPS, to Ghostscript), wraps
# unseen (IPTC) or knows by name alone.
_NAMES = """
    AVIF BMP CUR DCX DDS DIB FLI FTEX GIF ICNS ICO IM JPEG JPEG2000 MPO MSP PCX PNG PPM PSD QOI SGI SUN TGA TIFF WEBP
    XBM XPM
"""
FORMATS = frozenset(_NAMES.split())
_MOST_SCANS = 500  # of a JPEG; progressive ones have about ten
_MOST_PIECES = 100  # of the EXIF of a JPEG; one has 64 KiB
_MARKER = re.compile(rb"\xff+([^\x00\xff])")
_EXIF = b"Exif\0\0"
_NO_LENGTH = frozenset((0xC8, *range(0xD0, 0xDA), *range(0xF0, 0xFE)))  # JPEG markers that Pillow reads none after
_CODESTREAM = re.compile(rb"\xff\x4f\xff\x51.{4}(.{32})(..)", re.DOTALL)  # JPEG 2000: its geometry and components
_PIXELS_PER_TILE = 128  # so many cost the memory that one tile of one component does
_LEAST_LIMIT = 1 << 20  # pixels that tiles may cost, however few a picture may have
_TILE_WIDTH, _TILE_LENGTH = 322, 323  # TIFF tags
# A file may have 256 MB, and 32 bytes more for each pixel of its picture: four samples of 32 bits take 16, decimal
# digits (PPM) some more. The rest is for further pages, copies of reduced size and notes.
_ANY_PICTURE = 256 << 20
_BYTES_PER_PIXEL = 32
_GLIMPSE = 64 << 20  # bytes that Pillow may read to say what a file is
_SHARED_BYTES = 1 << 18  # of tags that may lie over each other: they cost some megabytes, whatever they are


@contextlib.contextmanager
def limits(how: Pixels) -> Iterator[None]:
    """Pillow without warnings, of what is odd in a file and yet decoded, and with the limit asked for, not its own.

    Its limit is what guards the picture in a picture, as in an icon. It is of the whole process, as warnings are: only
    the main thread may set and restore them. (What another thread leaves out is tried again: `ExecutorPool.result`.)
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = how.max_pixels  # an error from twice as many on
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def check_pixels(width: int, height: int, how: Pixels) -> None:
    """Refuse a picture of more pixels than were asked for."""
    if width * height > how.max_pixels:
        raise DecodeError(f"{width}x{height} is more than {how.max_pixels} pixels; --max-pixels allows more")


def check_file(descriptor: int, size: int, how: Pixels) -> None:
    """Refuse a large file that is no picture, or far larger than its picture can be, before it is read.

    Args:
        descriptor: Of the file.
        size: Its bytes.
        how: Says how many pixels a picture may have.

    Raises:
        DecodeError: It is not to be read.
        OSError: It cannot be read.
    """
    width = height = 0
    try:
        with limits(how):
            image = Image.open(cast("IO[bytes]", _Glimpse(descriptor, size)))
        _check_format(image)
        width, height = image.size
        check_pixels(width, height, how)
    except UnidentifiedImageError:
        raise DecodeError(by_content(os.pread(descriptor, 1 << 10, 0)) or "not an image that Pillow knows") from None
    except (DecodeError, OSError):
        raise
    except Image.DecompressionBombError:
        raise DecodeError(f"more than {how.max_pixels} pixels; --max-pixels allows more") from None
    except Exception:  # of a file that Pillow reads whole to open it, or that it cannot open: decoding says why
        width = height = 0
    most = _ANY_PICTURE + _BYTES_PER_PIXEL * width * height
    if size > most:
        about = f"of {width}x{height}" if width else "of any size"
        raise DecodeError(f"{size:,} bytes are too many for a picture {about}: expected {most:,} at most")


class _Glimpse(io.RawIOBase):
    """A file of which no more can be read than says what it is.

    Args:
        descriptor: Open for reading; stays where it is.
        size: Of the file.
    """

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor = descriptor
        self._size = size
        self._at = 0
        self._left = _GLIMPSE

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        wanted = max(0, self._size - self._at) if size is None or size < 0 else size
        self._left -= wanted
        if self._left < 0:
            raise MemoryError("more than says what a file is")
        data = os.pread(self._descriptor, wanted, self._at)
        self._at += len(data)
        return data


def check_scans(data: bytes) -> None:
    """Refuse a JPEG of very many scans, each of which goes over the whole picture: its few bytes would take hours."""
    if data.startswith(b"\xff\xd8") and jpeg_outline(data)[1] and data.count(b"\xff\xda") > _MOST_SCANS:
        raise DecodeError(f"a JPEG of more than {_MOST_SCANS} scans")


def check_tags(data: bytes) -> None:
    """Refuse a TIFF, or EXIF, whose tags lie over each other and are read each: together they are far more than it."""
    if not data.startswith((b"II", b"MM")):
        return
    tags = next(directories(data), ())
    if sum(tag.nbytes for tag in tags if tag.nbytes <= len(data)) > max(2 * len(data), _SHARED_BYTES):
        raise DecodeError("tags that lie over each other")


def check_exif(data: bytes) -> None:
    """Refuse a JPEG whose EXIF is in very many pieces, or of tags that lie over each other.

    Pillow joins the pieces one by one, and before version 13 reads every tag, as soon as it opens the file.
    """
    pieces = list(_exif_pieces(data)) if data.startswith(b"\xff\xd8") else []
    if len(pieces) > _MOST_PIECES:
        raise DecodeError(f"a JPEG whose EXIF is in more than {_MOST_PIECES} pieces")
    check_tags(b"".join(pieces))


def check_profile(image: Image.Image) -> None:
    """Refuse EXIF, as Pillow finds it beside a picture, of tags that lie over each other."""
    exif = image.info.get("exif")
    if exif is None:  # ImageMagick's way, in hexadecimal digits behind three lines
        exif = bytes.fromhex("".join(image.info.get("Raw profile type exif", "").split("\n")[3:]))
    check_tags(exif.removeprefix(_EXIF))


def check_opened(image: Image.Image, data: bytes, how: Pixels) -> None:
    """Refuse what Pillow has opened and should not load."""
    _check_format(image)
    check_pixels(*image.size, how)
    if image.format == "TIFF":
        _check_tile(image, data, max(how.max_pixels, _LEAST_LIMIT))
    elif image.format in ("JPEG2000", "ICNS"):
        _check_tiles(data, max(how.max_pixels, _LEAST_LIMIT))


def _check_format(image: Image.Image) -> None:
    if image.format not in FORMATS:
        raise DecodeError(f"{image.format} is none of the formats that are packed")


def _check_tile(image: Image.Image, data: bytes, limit: int) -> None:
    """Refuse a TIFF of a tile that is larger than a picture may be: libtiff decodes all of it.

    Only whole numbers that are there once are sure to be what libtiff reads. It knows two types that Pillow leaves out
    (SLONG8, IFD8), and of two entries it may take the other; Pillow also has texts and fractions.
    """
    known = getattr(image, "tag_v2", {})
    there = [tag.number for tag in next(directories(data), ()) if tag.number in (_TILE_WIDTH, _TILE_LENGTH)]
    if len(there) > len(set(there)) or not all(isinstance(known.get(tag), int) for tag in there):
        raise DecodeError("a TIFF of tiles whose size is not clear")
    width, height = (known.get(tag, 0) for tag in (_TILE_WIDTH, _TILE_LENGTH))
    if width * height > limit:
        raise DecodeError(f"tiles of {width}x{height} are more than {limit} pixels; --max-pixels allows more")


def _check_tiles(data: bytes, limit: int) -> None:
    """Refuse a JPEG 2000 of very many tiles: OpenJPEG keeps kilobytes for each, however small."""
    for geometry, components in _CODESTREAM.findall(data):
        right, bottom, _, _, width, height, left, top = struct.unpack(">8L", geometry)
        tiles = -(-(right - left) // max(1, width)) * -(-(bottom - top) // max(1, height))
        if tiles * int.from_bytes(components) * _PIXELS_PER_TILE > limit:
            raise DecodeError(f"{tiles} tiles are too many for {limit} pixels; --max-pixels allows more")


def _exif_pieces(data: bytes) -> Iterator[bytes]:
    """What Pillow joins to the EXIF of a JPEG: it goes from marker to marker, over whatever else is between them."""
    at = 2
    while (found := _MARKER.search(data, at)) and found[1] != b"\xda":
        at = found.end()
        if found[1][0] not in _NO_LENGTH:
            end = at + max(2, int.from_bytes(data[at : at + 2]))
            if found[1] == b"\xe1" and data.startswith(_EXIF, at + 2, end):
                yield data[at + 2 + len(_EXIF) : end]
            at = end
