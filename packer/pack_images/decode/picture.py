"""Decode any picture: read it, convert its colours, fit it to the stored size. `decode.row` documents the result.

`decode.row` itself handles only the fast case, a JPEG that already has the stored size.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
from collections.abc import Iterator

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from h5split.file.losses import BANDS, PAGES, TRANSPARENCY, Loss, with_kinds
from pack_images.decode.depth import Depth, depth_loss, depth_of, floats_to_8, full_samples, integers_to_8
from pack_images.decode.fitting import fitted_picture
from pack_images.decode.guards import (
    check_exif,
    check_opened,
    check_pixels,
    check_profile,
    check_scans,
    check_tags,
    limits,
    open_image,
    too_large,
)
from pack_images.decode.heif import heif_picture, is_heif
from pack_images.decode.jpeg import jpeg_header, jpeg_outline
from pack_images.decode.pages import has_more_pages
from pack_images.decode.png import without_notes
from pack_images.decode.tiff import is_tiff
from pack_images.errors import DecodeError
from pack_images.foreign import by_content
from pack_images.settings import Pixels

_PILLOW_MODES = {"rgb": "RGB", "grayscale": "L", "rgba": "RGBA"}
_SCALES = (1, 2, 3, 4)  # in eighths: libjpeg's scaled decodings that are faster than decoding at full size
_OVERSAMPLING = 3  # scaled decoding must leave this many times the stored size, so that the filter has enough pixels
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION_TAG = 0x0112  # EXIF tag
_SAMPLES_PER_PIXEL, _PHOTOMETRIC = 277, 262  # TIFF tags
_WHITE_IS_ZERO = 0
_PNG_BITS = 24  # where a PNG says its bits per sample
_UNKNOWN = "not an image that Pillow knows"
_UNKNOWN_TIFF = "a TIFF that Pillow does not know, such as one of many bands; --color all takes every band"
_UNREAD_TIFF = (
    "a TIFF that cannot be read: expected its samples as they are, or compressed by LZW, deflate, Zstandard, LZMA or "
    "PackBits; a --decoder of yours can read any"
)

logging.getLogger("PIL").addHandler(logging.NullHandler())  # no log on stderr: the DecodeError names the fault


def decoded(data: bytes, how: Pixels) -> tuple[NDArray[np.uint8], Loss | None]:
    """Decode a file and fit it to the stored size: uint8 (H, W, C), and what was lost.

    Raises:
        DecodeError: It cannot be decoded.
    """
    with errors_explained(data, how):
        image, loss = jpeg_picture(data, how) or _decode_with_pillow(data, how)
        pixels, is_hidden = fitted(image, how)
        return pixels, with_kinds(loss, TRANSPARENCY) if is_hidden else loss


@contextlib.contextmanager
def errors_explained(data: bytes, how: Pixels) -> Iterator[None]:
    """Check a file before it is decoded, limit what its decoding takes, and give any error as a DecodeError.

    Args:
        data: The bytes of the file.
        how: Gives the limit on pixels.

    Raises:
        DecodeError: The file is refused, or the block failed.
    """
    try:
        with limits(how):
            check_scans(data)
            check_exif(data)
            yield
    except DecodeError:
        raise
    except UnidentifiedImageError:
        raise DecodeError(by_content(data) or _unknown(data, how)) from None
    except Image.DecompressionBombError as error:
        raise too_large(how) from error
    except Exception as error:  # Pillow raises unrelated types on broken files, even MemoryError
        foreign = None if is_heif(data) else by_content(data)
        raise DecodeError(foreign or _one_line(error)) from error


def fitted(image: Image.Image, how: Pixels) -> tuple[NDArray[np.uint8], bool]:
    """Convert a picture to the stored channels and size: uint8 (H, W, C).

    Return also whether its content has become invisible on the background.
    """
    colored, is_hidden = converted(image, how)
    return _to_array(fitted_picture(colored, how)), is_hidden


def jpeg_picture(data: bytes, how: Pixels) -> tuple[Image.Image, Loss | None] | None:
    """Decode a JPEG with simplejpeg. Return the picture and what was lost, or None if Pillow should try."""
    header = jpeg_header(data)
    if header is None:
        return None
    height, width, space = header
    check_pixels(width, height, how)
    orientation, loss = 1, None
    if jpeg_outline(data)[1]:
        image: Image.Image = open_image(io.BytesIO(data))
        orientation, loss = orientation_of(image), Loss(PAGES) if has_more_pages(image, data) else None
    eighths = _jpeg_scale(width, height, orientation, how)
    least = {"min_height": -(-height * eighths // 8), "min_width": -(-width * eighths // 8)}
    try:
        pixels = simplejpeg.decode_jpeg(data, "GRAY" if space == "Gray" else "RGB", **least)
    except ValueError:
        return None
    return _apply_orientation(Image.fromarray(pixels[:, :, 0] if space == "Gray" else pixels), orientation), loss


def _decode_with_pillow(data: bytes, how: Pixels) -> tuple[Image.Image, Loss | None]:
    """Decode the first frame of any file with Pillow, and turn it upright. Return the picture and what was lost."""
    image, depth, loss = loaded(data, how)
    lost = None if depth is None else depth_loss(depth, image, data)
    if lost is not None and loss is not None:
        lost = with_kinds(lost, loss.kinds)
    if depth is not None:
        _apply_key(image, depth, data)
    picture = upright(image)
    return _turned_around(picture) if _is_white_zero(image) else picture, lost or loss


def _is_white_zero(image: Image.Image) -> bool:
    """Return whether white is zero in a TIFF of 16 bits. Pillow turns only fewer bits around."""
    tags = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
    return image.mode.startswith("I;16") and tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO


def _turned_around(image: Image.Image) -> Image.Image:
    return Image.fromarray(0xFFFF - np.asarray(image))


def loaded(data: bytes, how: Pixels) -> tuple[Image.Image, Depth | None, Loss | None]:
    """Load the first frame of any file with Pillow. Call `upright` afterwards.

    Return the picture, its depth if it has more than 8 bits, and what was lost apart from its depth.
    """
    if is_heif(data):
        image, loss = heif_picture(data, how)
        return image, None, loss
    data = without_notes(data)
    check_tags(data)
    image = open_image(io.BytesIO(data))
    check_opened(image, data, how)
    width, height = image.size
    if image.format in ("JPEG", "MPO"):
        eighths = _jpeg_scale(width, height, orientation_of(image), how)
        if eighths < 8:
            image.draft(image.mode, (width * eighths // 8, height * eighths // 8))
    depth = depth_of(image, data)
    image.load()
    _scale_key(image, data)
    check_pixels(*image.size, how)  # again: the size of an icon is known only after loading
    loss = Loss(PAGES) if has_more_pages(image, data) else None
    return image, depth, with_kinds(loss, BANDS) if _has_more_bands(image) else loss


def _scale_key(image: Image.Image, data: bytes) -> None:
    """Multiply the transparent value of a grey PNG of 2 or 4 bits, as Pillow multiplies its samples up to 255."""
    key = image.info.get("transparency")
    if image.format == "PNG" and image.mode == "L" and data[_PNG_BITS] < 8 and isinstance(key, int):
        most = (1 << data[_PNG_BITS]) - 1
        image.info["transparency"] = (key & most) * (0xFF // most)


def _apply_key(image: Image.Image, depth: Depth, data: bytes) -> None:
    """Make the transparent colour of a PNG of 16 bits transparent, which Pillow looks for among high bytes alone."""
    key = image.info.get("transparency")
    fine = full_samples(depth, image, data) if image.mode == "RGB" and isinstance(key, tuple) else None
    if fine is not None:
        image.putalpha(Image.fromarray(np.where((fine == key).all(axis=2), 0, 0xFF).astype(np.uint8)))
        del image.info["transparency"]


def _has_more_bands(image: Image.Image) -> bool:
    """Return whether a TIFF has bands that Pillow leaves out, such as infrared behind red, green and blue."""
    said = getattr(image, "tag_v2", {}).get(_SAMPLES_PER_PIXEL, 1) if image.format == "TIFF" else 1
    return isinstance(said, int) and said > len(image.getbands())


def upright(image: Image.Image) -> Image.Image:
    """Turn a loaded picture as its orientation says.

    The orientation is read last. Loading turns a TIFF by itself, and reading it earlier would load a PNG.
    """
    return _apply_orientation(image, orientation_of(image))


def orientation_of(image: Image.Image) -> int:
    """Return the orientation that a picture says it has, from 1 to 8; 1 if it says none."""
    try:
        check_profile(image)
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # broken metadata is no reason to refuse a picture, and the parser raises any type
        return 1


def _apply_orientation(image: Image.Image, orientation: int) -> Image.Image:
    turn = _TRANSPOSE.get(orientation)
    return image if turn is None else image.transpose(turn)


def _jpeg_scale(width: int, height: int, orientation: int, how: Pixels) -> int:
    """Return the smallest scale for decoding a JPEG, in eighths of its size.

    The scaled picture must still be three times as large as the stored size in both directions. 8 is full size.
    """
    if how.exact or how.size is None:
        return 8
    wide, high = (_OVERSAMPLING * side for side in how.size)
    if orientation >= 5:  # turned by 90 degrees
        wide, high = high, wide
    return next((n for n in _SCALES if width * n >= 8 * wide and height * n >= 8 * high), 8)


def converted(image: Image.Image, how: Pixels) -> tuple[Image.Image, bool]:
    """Convert a picture to `rgb`, `grayscale` or `rgba`. Return also whether the background has hidden its content."""
    color = how.color
    mode, is_hidden = _PILLOW_MODES[color], False
    if image.mode.startswith("I"):
        image = _high_byte(image)
    elif image.mode == "F":
        image = Image.fromarray(floats_to_8(np.asarray(image)))
    elif image.mode == "LAB":
        image = _lab_to_rgb(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if color != "rgba":
            laid = Image.alpha_composite(Image.new("RGBA", image.size, (*how.fill, 255)), image).convert("RGB")
            image, is_hidden = laid, _is_hidden(image, laid)
    elif color != "rgba" or image.mode not in ("L", "RGB"):
        image = image if image.mode in (mode, "L") else image.convert("RGB")
    return image if image.mode == mode else image.convert(mode), is_hidden


def _is_hidden(image: Image.Image, laid: Image.Image) -> bool:
    """Return whether a transparent picture had visible content but is a single colour on the background.

    Args:
        image: The picture with transparency, RGBA.
        laid: The same picture composited on the background, RGB.
    """
    if any(map(_has_contrast, laid.split())):
        return False
    *colors, alpha = image.split()
    return _has_contrast(alpha) or (alpha.getpixel((0, 0)) != 0 and any(map(_has_contrast, colors)))


def _has_contrast(band: Image.Image) -> bool:
    least, most = band.getextrema()
    return least != most


def _high_byte(image: Image.Image) -> Image.Image:
    key = image.info.get("transparency")
    samples = np.asarray(image)
    gray = Image.fromarray(integers_to_8(samples))
    if not isinstance(key, int):
        return gray
    gray.putalpha(Image.fromarray(np.where(np.clip(samples, 0, 0xFFFF) == key, 0, 255).astype(np.uint8)))
    return gray


def _lab_to_rgb(image: Image.Image) -> Image.Image:
    from PIL import ImageCms  # here, because it loads LittleCMS for a very rare mode

    profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, *profiles, outputMode="RGB")
    assert converted is not None  # inPlace is off
    return converted


def _to_array(image: Image.Image) -> NDArray[np.uint8]:
    pixels = np.asarray(image)
    return pixels if pixels.ndim == 3 else pixels[:, :, np.newaxis]


def _unknown(data: bytes, how: Pixels) -> str:
    """Return what to say of a file that Pillow does not identify."""
    if not is_tiff(data):
        return _UNKNOWN
    return _UNREAD_TIFF if how.color == "all" else _UNKNOWN_TIFF


def _one_line(error: Exception) -> str:
    """Return the message on one line, without memory addresses: they would differ from run to run."""
    text = re.sub(r"<[^>]* at 0x[0-9a-f]+>", "the file", " ".join(str(error).split()))
    return text[:200] if text else type(error).__name__
