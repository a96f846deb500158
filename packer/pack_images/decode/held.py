"""Pictures that are in memory already: arrays, and images of Pillow's, which may still have their file."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from h5split.file.losses import TRANSPARENCY, Loss
from h5split.system.arrays import plain
from pack_images.decode.bands import row_of
from pack_images.decode.guards import FORMATS
from pack_images.decode.picture import fitted
from pack_images.decode.row import decoded
from pack_images.decode.samples import samples_of
from pack_images.decode.values import samples_of_image
from pack_images.errors import DecodeError, reason
from pack_images.settings import CHANNELS, DTYPES, Color, Pixels

Picture = NDArray[Any] | Image.Image  # arrays of uint8, uint16 or float32

_COLOR_OF_MODE: dict[str, Color] = {"L": "grayscale", "RGB": "rgb", "RGBA": "rgba"}
COLOR_OF_CHANNELS: dict[int, Color] = {1: "grayscale", 3: "rgb", 4: "rgba"}
_PNG_MODES = frozenset(("1", "L", "LA", "P", "RGB", "RGBA", "I;16"))  # of Pillow's, that a PNG stores without a loss
_STORED_MODES = {"HSV": "RGB", "RGBa": "RGBA", "La": "LA", "I;16N": "I"}  # of modes that no file stores
_ORIENTATION_TAG = 0x0112  # EXIF tag


def as_picture(given: Any, *, any_bands: bool = False) -> Picture:
    """Return an image of Pillow's as it is, and anything else as an array: uint8, uint16 or float32 (H, W, C).

    Args:
        given: By the user.
        any_bands: Whether C may be any number. Else 8 channels are rather an array (C, H, W) of a picture 8 wide.

    Raises:
        DecodeError: It is no picture, or its pixels are of another type.
    """
    if isinstance(given, Image.Image):
        if 0 in given.size:
            raise _no_picture(f"an image of {given.width}x{given.height}")
        return given
    try:
        array = plain("pixels", given)
    except Exception as error:  # libraries raise any type, and numpy has no array for a tuple of unlike things
        many = f" of {len(given)}" if isinstance(given, tuple | list) else f" ({reason(error)})"
        raise _no_picture(f"a {type(given).__name__}{many}") from error
    if array.ndim == 2:
        array = array[:, :, np.newaxis]
    if array.ndim != 3 or 0 in array.shape or not (any_bands or array.shape[2] in COLOR_OF_CHANNELS):
        raise _no_picture(f"shape {array.shape}" if array.dtype != object else type(given).__name__)
    if array.dtype.name not in DTYPES:
        raise DecodeError(
            f"expected uint8 pixels, 0 to 255, found {array.dtype}; of 0.0 to 1.0 make them by "
            "(image * 255).round().astype('uint8'), or keep them by image.astype('float32')"
        )
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _no_picture(found: str) -> DecodeError:
    return DecodeError(
        f"expected an image of Pillow's, or an array (H, W) or (H, W, C) with 1, 3 or 4 channels, found {found}; "
        "color='all' takes any number"
    )


def _file_of(picture: Image.Image) -> bytes | None:
    """Return the file of a picture that Pillow has opened, unless it was loaded or changed since.

    The file tells more than the picture: Pillow cuts colours of 16 bits to 8, and packing may decode a JPEG at a
    reduced size.
    """
    if not isinstance(picture, ImageFile.ImageFile) or picture.format not in FORMATS:
        return None
    file = picture.fp
    if file is None or file.closed:
        return None
    if not picture.tile or picture.decoderconfig or picture.tell():  # loaded, reduced, or another frame
        return None
    before = file.tell()
    file.seek(0)
    data = file.read()
    file.seek(before)
    return data


def color_of(picture: Picture) -> Color:
    """Return the setting `color` that stores a picture as it is.

    Raises:
        DecodeError: There is none.
    """
    if not isinstance(picture, Image.Image):
        return COLOR_OF_CHANNELS.get(picture.shape[2], "all")
    if picture.mode not in _COLOR_OF_MODE:
        raise DecodeError(
            f"expected a picture in mode L, RGB or RGBA, as no color is given, found {picture.mode}; give "
            f"color={' or '.join(map(repr, CHANNELS))}"
        )
    return _COLOR_OF_MODE[picture.mode]


def decode_held(picture: Picture, how: Pixels) -> tuple[NDArray[Any], Loss | None]:
    """Return the row that packing a file with this picture would make, (H, W, C), and what was lost.

    Raises:
        DecodeError: Pillow cannot load it, or the row cannot hold its bands and values.
    """
    if not isinstance(picture, Image.Image):
        return _array_held(picture, how)
    try:
        if (data := _file_of(picture)) is not None:
            return decoded(data, how)
        picture.load()
        if how.keeps_values or how.range is not None:
            return row_of(samples_of_image(picture, how), how)
        is_plain = picture.mode in _COLOR_OF_MODE and picture.getexif().get(_ORIENTATION_TAG, 1) == 1
        data = None if is_plain else _bytes_of(picture)
    except DecodeError:
        raise
    except Exception as error:  # Pillow raises unrelated types on broken files
        raise DecodeError(f"Pillow cannot load it ({reason(error)})") from error
    return _fitted(picture, how) if data is None else decoded(data, how)


def is_stored_as_it_is(shape: tuple[int, ...], dtype: np.dtype[Any], how: Pixels) -> bool:
    """Return whether the row of an array (H, W, C) is the array itself."""
    is_kind = dtype == how.dtype and (how.color == "all" or CHANNELS.get(how.color, 1) == shape[2])
    return is_kind and how.size in (None, (shape[1], shape[0]))


def _array_held(picture: NDArray[Any], how: Pixels) -> tuple[NDArray[Any], Loss | None]:
    if is_stored_as_it_is(picture.shape, picture.dtype, how):
        return picture, None
    bands = picture.shape[2]
    if picture.dtype == np.uint8 and not how.keeps_values and bands in COLOR_OF_CHANNELS:
        return _fitted(Image.fromarray(picture[:, :, 0] if bands == 1 else picture), how)
    return row_of(samples_of(picture, "straight" if how.color != "all" and bands in (2, 4) else ""), how)


def _fitted(picture: Image.Image, how: Pixels) -> tuple[NDArray[np.uint8], Loss | None]:
    pixels, is_hidden = fitted(picture, how)
    return pixels, Loss(TRANSPARENCY) if is_hidden else None


def _bytes_of(picture: Image.Image) -> bytes:
    """Return a file with an image of Pillow's, without a loss."""
    file = io.BytesIO()
    exif = picture.getexif()
    if picture.mode in _STORED_MODES:
        picture = picture.convert(_STORED_MODES[picture.mode])
    picture.save(file, "PNG" if picture.mode in _PNG_MODES else "TIFF", **({"exif": exif} if exif else {}))
    return file.getvalue()
