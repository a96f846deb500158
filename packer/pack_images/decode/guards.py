"""Guards against hostile files: refuse those that would take far more memory or time than their pixels justify.

Each check is cheap and runs before the step that it protects.
"""

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

from h5split.system.files import read_at
from pack_images.decode.jpeg import jpeg_outline
from pack_images.decode.tiff import directories
from pack_images.errors import DecodeError
from pack_images.foreign import by_content
from pack_images.settings import Pixels

# The formats that belong to `sources.EXTENSIONS`. Pillow opens more formats, but some run another program (EPS runs
# Ghostscript), some are containers whose content is not checked (IPTC), and some can only be identified.
_FORMAT_NAMES = """
    AVIF BMP CUR DCX DDS DIB FLI FTEX GIF ICNS ICO IM JPEG JPEG2000 MPO MSP PCX PNG PPM PSD QOI SGI SUN TGA TIFF WEBP
    XBM XPM
"""
FORMATS = frozenset(_FORMAT_NAMES.split())
_MAX_SCANS = 500  # per JPEG; a progressive one has about ten
_MAX_EXIF_PIECES = 100  # per JPEG; a piece holds up to 64 KiB
_JPEG_MARKER = re.compile(rb"\xff+([^\x00\xff])")
_EXIF_PREFIX = b"Exif\0\0"
# JPEG markers after which Pillow reads no length
_MARKERS_WITHOUT_LENGTH = frozenset((0xC8, *range(0xD0, 0xDA), *range(0xF0, 0xFE)))
_JPEG2000_HEADER = re.compile(rb"\xff\x4f\xff\x51.{4}(.{32})(..)", re.DOTALL)  # geometry, components
_PIXELS_PER_TILE = 128  # one tile of one component takes as much memory as this many pixels
_MIN_TILE_LIMIT = 1 << 20  # pixels that tiles may always have, even if `max_pixels` is smaller
_TILE_WIDTH, _TILE_LENGTH = 322, 323  # TIFF tags
# The largest file accepted has 256 MB plus 32 bytes per pixel. Four samples of 32 bits take 16 bytes, and decimal
# digits (PPM) take more. The rest is for more pages, reduced copies and metadata.
_BASE_FILE_BYTES = 256 << 20
_FILE_BYTES_PER_PIXEL = 32
_FILE_BYTES_PER_SAMPLE = 4  # where every value is kept, and other decoders than Pillow's read the file
_BYTES_PER_PIXEL = 16  # of all bands together, where every value is kept
_PREFIX_BYTES = 16  # that Pillow tells a format by
_HEADER_BYTES = 64 << 20  # bytes that Pillow may read to identify a file
_MIN_TAG_LIMIT = 1 << 18  # bytes of tags always accepted: even if they overlap, they cost only some megabytes


@contextlib.contextmanager
def limits(how: Pixels) -> Iterator[None]:
    """Silence Pillow's warnings and replace its pixel limit by `how.max_pixels`, until the block ends.

    The warnings are about oddities in files that are decoded all the same. Pillow's limit guards pictures inside a
    file, such as those of an icon: their size is not known before Pillow loads them.

    Limit and warnings belong to the whole process, so only the main thread may set and restore them. Other threads
    keep Pillow's settings, which `open_image` passes over where it can; `ExecutorPool.result` tries the files that they
    leave out once more.
    """
    if not is_main_thread():
        yield
        return
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = how.max_pixels  # Pillow raises an error from twice this number on
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def open_image(file: IO[bytes], formats: list[str] | None = None) -> Image.Image:
    """Open a picture like `Image.open`, in other threads too if it is larger than Pillow's own limit.

    There, the plugin of its format opens it, without Pillow's check of its size. `check_pixels` must follow.

    Args:
        file: Open for reading.
        formats: Pillow's names of the formats to try. None: all.

    Raises:
        DecompressionBombError: It is larger than the limit that holds in this thread.
    """
    try:
        return Image.open(file, formats=formats)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        if is_main_thread():
            raise
        file.seek(0)
        prefix = file.read(_PREFIX_BYTES)
        for name in Image.ID if formats is None else formats:
            factory, accepts = Image.OPEN[name]
            if name in FORMATS and (accepts is None or accepts(prefix) is True):
                file.seek(0)
                with contextlib.suppress(SyntaxError, IndexError, TypeError, struct.error):  # as Image.open does
                    return factory(file, "")
        raise


def too_large(how: Pixels) -> DecodeError:
    """Return the error for a picture that is larger than Pillow's limit in this thread."""
    if is_main_thread() or Image.MAX_IMAGE_PIXELS is None:
        return DecodeError(f"more than {how.max_pixels} pixels; --max-pixels allows more")
    return DecodeError(
        f"more than {2 * Image.MAX_IMAGE_PIXELS} pixels, Pillow's limit outside the main thread; decode it in the main "
        "thread, or set PIL.Image.MAX_IMAGE_PIXELS"
    )


def _check_size(size: int, most: int) -> None:
    if size > most:
        raise DecodeError(
            f"{size:,} bytes are too many for a file: expected {most:,} at most; --max-pixels allows more"
        )


def is_main_thread() -> bool:
    """Return whether this is the thread that may change what belongs to the whole process."""
    return threading.current_thread() is threading.main_thread()


def check_pixels(width: int, height: int, how: Pixels) -> None:
    """Refuse a picture with more pixels than `how.max_pixels`."""
    if width * height > how.max_pixels:
        raise DecodeError(f"{width}x{height} is more than {how.max_pixels} pixels; --max-pixels allows more")


def check_bytes(size: int, how: Pixels) -> None:
    """Refuse a picture whose samples take far more memory than `how.max_pixels` pixels of colours."""
    most = _BYTES_PER_PIXEL * max(how.max_pixels, _MIN_TILE_LIMIT)
    if size > most:
        raise DecodeError(f"{size:,} bytes of samples are more than {most:,}; --max-pixels allows more")


def check_file(descriptor: int, size: int, how: Pixels) -> None:
    """Refuse a large file before it is read, if it is no picture or far larger than its picture can be.

    Args:
        descriptor: The open file.
        size: Size of the file in bytes.
        how: Gives the limit on pixels.

    Raises:
        DecodeError: The file is refused.
        OSError: The file cannot be read.
    """
    width = height = 0
    if how.decoder is not None or how.keeps_values:
        _check_size(size, _BASE_FILE_BYTES + _FILE_BYTES_PER_SAMPLE * how.max_pixels)
        return
    try:
        with limits(how):
            image = open_image(cast("IO[bytes]", _HeaderOnly(descriptor, size)))
        _check_format(image)
        width, height = image.size
        check_pixels(width, height, how)
    except UnidentifiedImageError:
        raise DecodeError(by_content(read_at(descriptor, 1 << 10, 0)) or "not an image that Pillow knows") from None
    except (DecodeError, OSError):
        raise
    except Image.DecompressionBombError:
        raise too_large(how) from None
    except Exception:  # Pillow needs the whole file, or cannot open it: if the size is fine, decoding gives the reason
        width = height = 0
    most = _BASE_FILE_BYTES + _FILE_BYTES_PER_PIXEL * width * height
    if size > most:
        about = f"of {width}x{height}" if width else "of any size"
        raise DecodeError(f"{size:,} bytes are too many for a picture {about}: expected {most:,} at most")


class _HeaderOnly(io.RawIOBase):
    """A file object that refuses to read more than `_HEADER_BYTES`: identifying a picture should need no more.

    Args:
        descriptor: Open for reading. Its file position does not change.
        size: Size of the file in bytes.
    """

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor = descriptor
        self._size = size
        self._at = 0
        self._left = _HEADER_BYTES

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
        data = read_at(self._descriptor, wanted, self._at)
        self._at += len(data)
        return data


def check_scans(data: bytes) -> None:
    """Refuse a JPEG with very many scans. Every scan visits the whole picture, so a small file could take hours."""
    if data.startswith(b"\xff\xd8") and jpeg_outline(data)[2] and data.count(b"\xff\xda") > _MAX_SCANS:
        raise DecodeError(f"a JPEG of more than {_MAX_SCANS} scans")


def check_tags(data: bytes) -> None:
    """Refuse a TIFF, or EXIF data, with overlapping tags.

    Every tag is read separately, so overlapping tags can take far more memory than the file has bytes.
    """
    if not data.startswith((b"II", b"MM")):
        return
    tags = next(directories(data), ())
    if sum(tag.nbytes for tag in tags if tag.nbytes <= len(data)) > max(2 * len(data), _MIN_TAG_LIMIT):
        raise DecodeError("tags that lie over each other")


def exif_pieces(data: bytes) -> Iterator[bytes]:
    """Find the pieces that Pillow joins to the EXIF data of a JPEG.

    Like Pillow, go from marker to marker and skip any other bytes between them.
    """
    at = 2
    while (found := _JPEG_MARKER.search(data, at)) and found[1] != b"\xda":
        at = found.end()
        if found[1][0] not in _MARKERS_WITHOUT_LENGTH:
            end = at + max(2, int.from_bytes(data[at : at + 2]))
            if found[1] == b"\xe1" and data.startswith(_EXIF_PREFIX, at + 2, end):
                yield data[at + 2 + len(_EXIF_PREFIX) : end]
            at = end


def check_exif(data: bytes) -> None:
    """Refuse a JPEG whose EXIF data is in very many pieces or has overlapping tags.

    This has to happen before Pillow opens the file: opening joins the pieces one by one, and before version 13 it also
    reads every tag.
    """
    pieces = list(exif_pieces(data)) if data.startswith(b"\xff\xd8") else []
    if len(pieces) > _MAX_EXIF_PIECES:
        raise DecodeError(f"a JPEG whose EXIF is in more than {_MAX_EXIF_PIECES} pieces")
    check_tags(b"".join(pieces))


def check_profile(image: Image.Image) -> None:
    """Refuse a picture whose EXIF data, as Pillow found it, has overlapping tags."""
    exif = image.info.get("exif")
    if exif is None:  # ImageMagick writes EXIF into a PNG text: three lines, then hexadecimal digits
        exif = bytes.fromhex("".join(image.info.get("Raw profile type exif", "").split("\n")[3:]))
    check_tags(exif.removeprefix(_EXIF_PREFIX))


def check_opened(image: Image.Image, data: bytes, how: Pixels) -> None:
    """Refuse an opened picture that Pillow should not load: wrong format, too many pixels, or too many tiles."""
    _check_format(image)
    check_pixels(*image.size, how)
    if image.format == "TIFF":
        _check_tiff_tiles(image, data, max(how.max_pixels, _MIN_TILE_LIMIT))
    elif image.format in ("JPEG2000", "ICNS"):
        _check_jpeg2000_tiles(data, max(how.max_pixels, _MIN_TILE_LIMIT))


def _check_format(image: Image.Image) -> None:
    if image.format not in FORMATS:
        raise DecodeError(f"{image.format} is none of the formats that are packed")


def _check_tiff_tiles(image: Image.Image, data: bytes, limit: int) -> None:
    """Refuse a TIFF whose tiles are larger than a picture may be: libtiff decodes whole tiles.

    The check reads the tile size with Pillow, and libtiff must read the same. That is certain only for whole numbers
    in a tag that occurs once. libtiff knows two types that Pillow skips (SLONG8, IFD8), and may use the other one of
    two entries. Pillow also accepts texts and fractions.
    """
    known = getattr(image, "tag_v2", {})
    there = [tag.number for tag in next(directories(data), ()) if tag.number in (_TILE_WIDTH, _TILE_LENGTH)]
    if len(there) > len(set(there)) or not all(isinstance(known.get(tag), int) for tag in there):
        raise DecodeError("a TIFF of tiles whose size is not clear")
    width, height = (known.get(tag, 0) for tag in (_TILE_WIDTH, _TILE_LENGTH))
    if width * height > limit:
        raise DecodeError(f"tiles of {width}x{height} are more than {limit} pixels; --max-pixels allows more")


def _check_jpeg2000_tiles(data: bytes, limit: int) -> None:
    """Refuse a JPEG 2000 with very many tiles: OpenJPEG allocates kilobytes for every tile, even the smallest."""
    for geometry, components in _JPEG2000_HEADER.findall(data):
        right, bottom, _, _, width, height, left, top = struct.unpack(">8L", geometry)
        tiles = -(-(right - left) // max(1, width)) * -(-(bottom - top) // max(1, height))
        if tiles * int.from_bytes(components) * _PIXELS_PER_TILE > limit:
            raise DecodeError(f"{tiles} tiles are too many for {limit} pixels; --max-pixels allows more")
