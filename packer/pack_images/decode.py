"""The bytes of one file become one uint8 (H, W, C) row: the only module that knows pixels.

What a row holds is a function of the file's bytes and `Pixels` alone, and is what Pillow makes of the file:

=========================  ============================================================================================
the file                   the row
=========================  ============================================================================================
EXIF orientation           applied: the picture stands upright
1-bit, grey, palette       expanded to the channels stored; 1-bit to 0 and 255
transparency               composited on black, wherever it comes from (RGBA, LA, a palette with alpha, a transparent
                           colour); with ``--color rgba`` it is the fourth channel, and opaque images have 255 there
16-bit grey and RGB        the high byte of each sample, so 65535 becomes 255; nothing saturates (Pillow rounds a PPM
                           instead). So too for 32-bit integers, whose range is taken to be that of 16 bits, as a
                           16-bit PGM has it
float grey                 rounded, taken to lie in 0 to 255; what lies outside is clipped, NaN is 0
CMYK, YCCK, YCbCr, HSV     converted to RGB by Pillow's formulas; Adobe's inverted CMYK is known
LAB                        converted to sRGB through LittleCMS
colour to grey             ITU-R 601-2 luma, of the RGB picture
ICC profiles               ignored: numbers are taken as they are stored
GIF, APNG, TIFF, MPO, ...  the first frame
a wrong extension          no matter: the content decides
12-bit JPEG                not decoded by libjpeg-turbo's 8-bit interface: left out
=========================  ============================================================================================

Then the picture is fitted to the stored size. A JPEG that is at least 6, 12 or 24 times the stored size in both
directions is decoded at a half, a quarter or an eighth of its size (libjpeg's scaled decoding), which leaves at least
three times the stored size for the filter: 2.4 times faster or more, and 0.2 to 0.7 grey levels away on average.
`Pixels.exact` turns that off.

JPEGs are decoded by simplejpeg (libjpeg-turbo), whose pixels are Pillow's at twice its speed. It is stricter than
Pillow and knows no CMYK and no EXIF: whatever it objects to, Pillow gets.
"""

from __future__ import annotations

import contextlib
import io
import re
import threading
import warnings

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from pack_images.errors import DecodeError, SizeError
from pack_images.packing import MAX_PIXELS
from pack_images.plan import CHANNELS, Pixels, Shape

_MODES = {"rgb": "RGB", "grayscale": "L", "rgba": "RGBA"}
_SCALES = (8, 4, 2)  # of libjpeg's scaled decoding that Pillow offers too
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


def shape_of(data: bytes, how: Pixels) -> Shape:
    """The (H, W, C) that a file's picture has by itself, or the one stored if `how` has a size.

    Raises:
        DecodeError: It cannot be decoded.
    """
    if how.size is not None:
        return how.size[1], how.size[0], CHANNELS[how.color]
    height, width, channels = _decoded(data, how).shape
    return height, width, channels


def decode(data: bytes, how: Pixels, out: NDArray[np.uint8]) -> None:
    """Decode a file into a row.

    Args:
        data: The whole file.
        how: Size, colours and so on.
        out: uint8 (H, W, C), contiguous; written whole or, after an error, in part.

    Raises:
        DecodeError: It cannot be decoded.
        SizeError: The picture is not of the size of `out` and `how.size` is None.
    """
    if _decode_in_place(data, how, out):
        return
    pixels = _decoded(data, how)
    if pixels.shape != out.shape:
        raise SizeError(f"{pixels.shape[1]}x{pixels.shape[0]}")
    out[...] = pixels


def _decode_in_place(data: bytes, how: Pixels, out: NDArray[np.uint8]) -> bool:
    """The shortest way: a JPEG of the stored size, decoded where its row is."""
    plain = _plain_jpeg(data)
    if plain is None or how.color != "rgb" or plain[:2] != out.shape[:2] or plain[0] * plain[1] > how.max_pixels:
        return False
    try:
        simplejpeg.decode_jpeg(data, "RGB", buffer=out)
    except ValueError:
        return False
    return True


def _plain_jpeg(data: bytes) -> tuple[int, int, str] | None:
    """(height, width, colour space) of a JPEG that simplejpeg decodes to Pillow's pixels, upright as it is."""
    if not data.startswith(b"\xff\xd8"):
        return None
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
    except (ValueError, KeyError):  # KeyError: a chroma subsampling that it has no name for
        return None
    return None if space in ("CMYK", "YCCK") or _has_app1(data) else (height, width, space)


def _decoded(data: bytes, how: Pixels) -> NDArray[np.uint8]:
    """Decode and fit: uint8 (H, W, C)."""
    try:
        with _quietly():
            image = _jpeg(data, how) or _upright(data, how)
            return _array(_fitted(_colored(image, how.color), how))
    except DecodeError:
        raise
    except UnidentifiedImageError:
        raise DecodeError("not an image that Pillow knows") from None
    except Exception as error:  # what Pillow raises on broken files has no common base, MemoryError included
        raise DecodeError(_one_line(error)) from error


def _quietly() -> contextlib.AbstractContextManager[object]:
    """Without Pillow's warnings, about what is odd in a file and yet decoded; only the main thread may set that."""
    if threading.current_thread() is threading.main_thread():
        return warnings.catch_warnings(action="ignore")
    return contextlib.nullcontext()


def _jpeg(data: bytes, how: Pixels) -> Image.Image | None:
    """A JPEG through simplejpeg, or None for Pillow to try."""
    plain = _plain_jpeg(data)
    if plain is None:
        return None
    height, width, space = plain
    _check_pixels(width, height, how)
    scale = _scale(width, height, how)
    least = {"min_height": -(-height // scale), "min_width": -(-width // scale)}
    try:
        if space == "Gray":
            return Image.fromarray(simplejpeg.decode_jpeg(data, "GRAY", **least)[:, :, 0])
        return Image.fromarray(simplejpeg.decode_jpeg(data, "RGB", **least))
    except ValueError:
        return None


def _upright(data: bytes, how: Pixels) -> Image.Image:
    """Any file through Pillow: its first frame, as the camera was held."""
    if how.max_pixels > MAX_PIXELS and Image.MAX_IMAGE_PIXELS is not None:
        Image.MAX_IMAGE_PIXELS = None  # the limit asked for is checked here, so Pillow's must not come first
    image: Image.Image = Image.open(io.BytesIO(data))
    width, height = image.size
    _check_pixels(width, height, how)
    if image.format in ("JPEG", "MPO"):
        scale = _scale(*((height, width) if _orientation(image) >= 5 else (width, height)), how)
        if scale > 1:
            image.draft(image.mode, (width // scale, height // scale))
    image.load()
    turn = _TRANSPOSE.get(_orientation(image))  # now, because loading turns a TIFF, and asking earlier loads a PNG
    return image if turn is None else image.transpose(turn)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # a picture is not lost for a broken note beside it, and the parser raises anything
        return 1


def _scale(width: int, height: int, how: Pixels) -> int:
    """The largest reduction that leaves three times the stored size in both directions."""
    if how.exact or how.size is None:
        return 1
    wide, high = (_OVERSAMPLING * side for side in how.size)
    return next((scale for scale in _SCALES if width >= scale * wide and height >= scale * high), 1)


def _check_pixels(width: int, height: int, how: Pixels) -> None:
    if width * height > how.max_pixels:
        raise DecodeError(f"{width}x{height} is more than {how.max_pixels} pixels; --max-pixels allows more")


def _has_app1(data: bytes) -> bool:
    """Whether a JPEG has an APP1 segment, where EXIF and XMP say which way is up."""
    at = 2
    with contextlib.suppress(IndexError):
        while data[at] == 0xFF:
            marker = data[at + 1]
            if marker == 0xE1:
                return True
            if marker == 0xDA:  # the picture itself begins
                return False
            at += 2 + (data[at + 2] << 8 | data[at + 3])
    return b"\xff\xe1" in data  # not a plain list of segments: be careful


def _colored(image: Image.Image, color: str) -> Image.Image:
    """Any mode to the one stored."""
    mode = _MODES[color]
    if image.mode.startswith("I"):
        image = _high_byte(image)
    elif image.mode == "F":
        image = Image.fromarray(np.clip(np.rint(np.nan_to_num(np.asarray(image), nan=0)), 0, 255).astype(np.uint8))
    elif image.mode == "LAB":
        image = _lab_to_rgb(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if color != "rgba":
            image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image).convert("RGB")
    elif color != "rgba" or image.mode not in ("L", "RGB"):
        image = image if image.mode in (mode, "L") else image.convert("RGB")
    return image if image.mode == mode else image.convert(mode)


def _high_byte(image: Image.Image) -> Image.Image:
    key = image.info.get("transparency")
    wide = np.clip(np.asarray(image).astype(np.int64), 0, 0xFFFF)
    gray = Image.fromarray((wide >> 8).astype(np.uint8))
    if not isinstance(key, int):
        return gray
    gray.putalpha(Image.fromarray(np.where(wide == key, 0, 255).astype(np.uint8)))
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
        return ImageOps.pad(image, how.size, method, color=0)
    return image.resize(how.size, method)


def _array(image: Image.Image) -> NDArray[np.uint8]:
    pixels = np.asarray(image)
    return pixels if pixels.ndim == 3 else pixels[:, :, np.newaxis]


def _one_line(error: Exception) -> str:
    """What went wrong, without what differs from run to run: addresses in memory."""
    text = re.sub(r"<[^>]* at 0x[0-9a-f]+>", "the file", " ".join(str(error).split()))
    return text[:200] if text else type(error).__name__
