"""Whatever is not a JPEG of the stored size: decode, colour, fit. The docstring of `decode` says what comes out."""

from __future__ import annotations

import io
import logging
import re
from dataclasses import replace

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from h5split.file.losses import PAGES, TRANSPARENCY, Loss
from pack_images.decode.depth import depth_loss, depth_of, floats_to_8, integers_to_8
from pack_images.decode.guards import (
    check_exif,
    check_opened,
    check_pixels,
    check_profile,
    check_scans,
    check_tags,
    limits,
)
from pack_images.decode.jpeg import jpeg_header, jpeg_outline
from pack_images.decode.pages import has_more_pages
from pack_images.decode.png import without_notes
from pack_images.errors import DecodeError
from pack_images.foreign import by_content
from pack_images.settings import Pixels

_MODES = {"rgb": "RGB", "grayscale": "L", "rgba": "RGBA"}
_EIGHTHS = (1, 2, 3, 4)  # of the whole size: libjpeg's scaled decodings that are faster than a whole one
_OVERSAMPLING = 3  # times the stored size that scaled decoding leaves to the filter
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION = 0x0112  # the EXIF tag

logging.getLogger("PIL").addHandler(logging.NullHandler())  # what is wrong with a file, its DecodeError says


def decoded(data: bytes, how: Pixels) -> tuple[NDArray[np.uint8], Loss | None]:
    """Decode and fit a file: uint8 (H, W, C), and what the picture lost.

    Raises:
        DecodeError: It cannot be decoded.
    """
    try:
        with limits(how):
            check_scans(data)
            check_exif(data)
            image, loss = _jpeg(data, how) or _upright(data, how)
            colored, is_hidden = _colored(image, how.color)
            if is_hidden:
                loss = _with(loss, TRANSPARENCY)
            return _array(_fitted(colored, how)), loss
    except DecodeError:
        raise
    except UnidentifiedImageError:
        raise DecodeError(by_content(data) or "not an image that Pillow knows") from None
    except Image.DecompressionBombError as error:
        raise DecodeError(f"more than {how.max_pixels} pixels; --max-pixels allows more") from error
    except Exception as error:  # what Pillow raises on broken files has no common base, MemoryError included
        raise DecodeError(by_content(data) or _one_line(error)) from error


def _jpeg(data: bytes, how: Pixels) -> tuple[Image.Image, Loss | None] | None:
    """A JPEG through simplejpeg, and what it lost, or None for Pillow to try."""
    header = jpeg_header(data)
    if header is None:
        return None
    height, width, space = header
    check_pixels(width, height, how)
    orientation, loss = 1, None
    if jpeg_outline(data)[0]:
        image: Image.Image = Image.open(io.BytesIO(data))
        orientation, loss = _orientation(image), _with(None, PAGES) if has_more_pages(image, data) else None
    eighths = _eighths(width, height, orientation, how)
    least = {"min_height": -(-height * eighths // 8), "min_width": -(-width * eighths // 8)}
    try:
        pixels = simplejpeg.decode_jpeg(data, "GRAY" if space == "Gray" else "RGB", **least)
    except ValueError:
        return None
    return _turned(Image.fromarray(pixels[:, :, 0] if space == "Gray" else pixels), orientation), loss


def _upright(data: bytes, how: Pixels) -> tuple[Image.Image, Loss | None]:
    """Any file through Pillow: its first frame, as the camera was held, and what it lost."""
    data = without_notes(data)
    check_tags(data)
    image: Image.Image = Image.open(io.BytesIO(data))
    check_opened(image, data, how)
    width, height = image.size
    if image.format in ("JPEG", "MPO"):
        eighths = _eighths(width, height, _orientation(image), how)
        if eighths < 8:
            image.draft(image.mode, (width * eighths // 8, height * eighths // 8))
    depth = depth_of(image, data)
    image.load()
    check_pixels(*image.size, how)  # an icon's is that of the picture in it
    loss = None if depth is None else depth_loss(depth, image, data)
    if has_more_pages(image, data):
        loss = _with(loss, PAGES)
    return _turned(image, _orientation(image)), loss  # now: loading turns a TIFF, and asking earlier loads a PNG


def _with(loss: Loss | None, kind: int) -> Loss:
    """A loss, and one of another kind with it."""
    return Loss(kind) if loss is None else replace(loss, kinds=loss.kinds | kind)


def _orientation(image: Image.Image) -> int:
    try:
        check_profile(image)
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # a picture is not lost for a broken note beside it, and the parser raises anything
        return 1


def _turned(image: Image.Image, orientation: int) -> Image.Image:
    turn = _TRANSPOSE.get(orientation)
    return image if turn is None else image.transpose(turn)


def _eighths(width: int, height: int, orientation: int, how: Pixels) -> int:
    """The least scale, in eighths, that leaves three times the stored size in both directions."""
    if how.exact or how.size is None:
        return 8
    wide, high = (_OVERSAMPLING * side for side in how.size)
    if orientation >= 5:  # turned by 90 degrees
        wide, high = high, wide
    return next((n for n in _EIGHTHS if width * n >= 8 * wide and height * n >= 8 * high), 8)


def _colored(image: Image.Image, color: str) -> tuple[Image.Image, bool]:
    """Any mode to the one stored, and whether nothing is seen any more of what there was to see."""
    mode, is_hidden = _MODES[color], False
    if image.mode.startswith("I"):
        image = _high_byte(image)
    elif image.mode == "F":
        image = Image.fromarray(floats_to_8(np.asarray(image)))
    elif image.mode == "LAB":
        image = _lab_to_rgb(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if color != "rgba":
            black = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image).convert("RGB")
            image, is_hidden = black, _is_hidden(image, black)
    elif color != "rgba" or image.mode not in ("L", "RGB"):
        image = image if image.mode in (mode, "L") else image.convert("RGB")
    return image if image.mode == mode else image.convert(mode), is_hidden


def _is_hidden(image: Image.Image, black: Image.Image) -> bool:
    """Whether a picture is of one colour once it lies on black, and had something to see before."""
    if any(map(_varies, black.split())):
        return False
    *colors, alpha = image.split()
    return _varies(alpha) or (alpha.getpixel((0, 0)) != 0 and any(map(_varies, colors)))


def _varies(band: Image.Image) -> bool:
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
    from PIL import ImageCms  # loads LittleCMS, for a mode hardly ever met

    profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, *profiles, outputMode="RGB")
    assert converted is not None  # inPlace is off
    return converted


def _fitted(image: Image.Image, how: Pixels) -> Image.Image:
    if how.size is None or image.size == how.size:
        return image
    method = Image.Resampling[how.interpolation.upper()]
    if how.fit == "crop":
        return ImageOps.fit(image, how.size, method)
    if how.fit == "pad":
        return _padded(image, how.size, method)
    return image.resize(how.size, method)


def _padded(image: Image.Image, size: tuple[int, int], method: Image.Resampling) -> Image.Image:
    """Scale into `size`, centred on black: as `ImageOps.pad`, which makes nothing of a picture that is thin."""
    width = min(size[0], max(1, round(image.width / image.height * size[1])))
    height = min(size[1], max(1, round(image.height / image.width * size[0])))
    padded = Image.new(image.mode, size)
    padded.paste(image.resize((width, height), method), (round((size[0] - width) / 2), round((size[1] - height) / 2)))
    return padded


def _array(image: Image.Image) -> NDArray[np.uint8]:
    pixels = np.asarray(image)
    return pixels if pixels.ndim == 3 else pixels[:, :, np.newaxis]


def _one_line(error: Exception) -> str:
    """What went wrong, without what differs from run to run: addresses in memory."""
    text = re.sub(r"<[^>]* at 0x[0-9a-f]+>", "the file", " ".join(str(error).split()))
    return text[:200] if text else type(error).__name__
