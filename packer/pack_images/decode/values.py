"""Decode a file whose values are kept: uint16, float32, every band, or numbers. `decode.row` documents the result.

Each reader gives the samples as the file has them, and `bands` makes a row of them.
"""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from h5split.errors import ArgumentError
from h5split.file.losses import INTEGERS, TRANSPARENCY, Loss, with_kinds
from h5split.system.arrays import plain
from pack_images.decode.bands import row_of
from pack_images.decode.depth import Depth, depth_of, full_samples
from pack_images.decode.geotiff import read_tiff
from pack_images.decode.guards import check_bytes, check_pixels, limits, open_image
from pack_images.decode.heif import heif_samples, is_heif
from pack_images.decode.npy import read_array
from pack_images.decode.picture import converted, errors_explained, jpeg_picture, loaded, orientation_of, upright
from pack_images.decode.picture import decoded as decoded_by_pillow
from pack_images.decode.png import without_notes
from pack_images.decode.samples import Alpha, Samples, samples_of
from pack_images.decode.strips import read_strips
from pack_images.decode.tiff import is_tiff
from pack_images.decode.turning import turned
from pack_images.errors import DecodeError
from pack_images.functions import Decoder, describe_error
from pack_images.settings import DTYPES, Pixels

_NUMBERED = ("1", "L", "P", "PA", "F")  # modes of Pillow's of one band, and those that begin with I
_LOW, _MANY_BANDS = 4, 16  # pictures lower than a quarter of their width, and of more bands than this, are rare
_JPEG = b"\xff\xd8"
_BYTE = 8  # bits
_FULL_8, _FULL_16 = 255, 0xFFFF
_PPM_ARGUMENTS = 2  # rawmode and largest value
_WITH_LARGEST = (b"P2", b"P3", b"P5", b"P6")  # kinds of PGM and PPM, whose third number is the value of white
_GREY_PNG = 0  # colour type


def decoded(data: bytes, how: Pixels) -> tuple[NDArray[Any], Loss | None]:
    """Decode a file and fit it to the stored size: (H, W, C) of the stored type, and what was lost.

    Raises:
        DecodeError: It cannot be decoded, or the row cannot hold its values.
    """
    if how.decoder is None:
        return row_of(_samples(data, how), how)
    samples = _by_user(data, how, how.decoder)
    return _as_usual(data, how, how.decoder) if samples is None else row_of(samples, how)


def _as_usual(data: bytes, how: Pixels, decoder: Decoder) -> tuple[NDArray[Any], Loss | None]:
    """Decode a file that the user's decoder has returned None for, as if there were no such decoder."""
    usual = replace(how, decoder=None)
    try:
        if usual.keeps_values or usual.range is not None:
            return row_of(_samples(data, usual), usual)
        return decoded_by_pillow(data, usual)
    except DecodeError as error:
        raise DecodeError(f"{decoder.name} returned None, so it was decoded as usual: {error}") from error


def samples_of_image(image: Image.Image, how: Pixels) -> Samples:
    """Return the samples of a picture that Pillow has loaded, upright."""
    if image.mode == "F" or image.mode.startswith("I"):
        return samples_of(turned(np.asarray(image)[:, :, np.newaxis], orientation_of(image)))
    return _of_picture(upright(image), None, how)


def bits_of(data: bytes, how: Pixels) -> int:
    """Return the bits per sample that a file has, 8 for fewer; 0 if that is not known, as with the user's decoder."""
    if how.decoder is not None or is_heif(data):
        return 0
    if data.startswith(_JPEG):
        return _BYTE
    try:
        with limits(how):
            if (array := read_array(data, how)) is not None:
                return array.bits
            depth = depth_of(open_image(io.BytesIO(without_notes(data))), data)
    except Exception:  # the row is made already: only its depth remains unknown
        return 0
    return _BYTE if depth is None else depth.bits


def _samples(data: bytes, how: Pixels) -> Samples:
    with limits(how):  # numpy and tifffile warn of oddities
        samples = read_array(data, how)
        if samples is not None:
            _check_bands_last(samples.values.shape, how)
        elif is_tiff(data):
            samples = read_strips(data, how) or read_tiff(data, how)
    if samples is not None:
        return samples
    with errors_explained(data, how):
        return _by_libheif(data, how) or _by_pillow(data, how)


def _by_user(data: bytes, how: Pixels, decoder: Decoder) -> Samples | None:
    """Call the user's decoder, and check what it returns. None if it returns None."""
    found = _found_by_user(decoder, data)
    if found is None:
        return None
    array = _array_of_user(decoder, found)
    if array.dtype.name not in DTYPES or array.ndim not in (2, 3) or 0 in array.shape:
        what = f"{array.dtype} of shape {array.shape}" if isinstance(found, np.ndarray) else type(found).__name__
        raise DecodeError(
            f"{decoder.name}: expected an array (H, W) or (H, W, C) of uint8, uint16 or float32, found {what}"
        )
    check_pixels(array.shape[1], array.shape[0], how)
    _check_bands_last(array.shape, how)
    return samples_of(array, "straight" if how.color == "rgba" and array.shape[2:] in ((2,), (4,)) else "")


def _found_by_user(decoder: Decoder, data: bytes) -> Any:
    try:
        return decoder(data)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # also SystemExit, and the panics of libraries written in Rust
        raise _raised(decoder, error) from error


def _array_of_user(decoder: Decoder, found: Any) -> NDArray[Any]:
    """Return what a decoder has returned as an array.

    Raises:
        DecodeError: It is none, or hides some values behind a mask.
    """
    try:
        return plain(decoder.name, found)
    except ArgumentError as error:
        raise DecodeError(str(error)) from error
    except Exception as error:  # an object of a library's makes an array of itself
        raise _raised(decoder, error) from error


def _raised(decoder: Decoder, error: BaseException) -> DecodeError:
    return DecodeError(f"{decoder.name} raised {' '.join(describe_error(error, full_path=False).split())}")


def _check_bands_last(shape: tuple[int, ...], how: Pixels) -> None:
    """Refuse an array of every band that rather is (C, H, W): low, wide, of as many bands as a picture has columns.

    A TIFF says itself what its axes are.
    """
    if how.color != "all" or len(shape) != 3:
        return
    height, width, bands = shape
    is_low = _LOW * height < min(width, bands) or height < width == bands
    if is_low and bands > _MANY_BANDS:
        raise DecodeError(
            f"{shape}: bands first? expected (H, W, C); array.transpose(1, 2, 0), or a TIFF if it is right"
        )


def _by_libheif(data: bytes, how: Pixels) -> Samples | None:
    """Return HEIC of more than 8 bits; None for any other file."""
    found = heif_samples(data, how) if is_heif(data) else None
    if found is None:
        return None
    values, bits, mode, loss = found
    alpha: Alpha = "premultiplied" if mode.startswith("RGBa") else "straight" if mode.startswith("RGBA") else ""
    return replace(samples_of(values, alpha, loss), bits=bits)


def _by_pillow(data: bytes, how: Pixels) -> Samples:
    """Return the samples of a picture that Pillow opens."""
    if (jpeg := jpeg_picture(data, replace(how, exact=True) if how.color == "index" else how)) is not None:
        return _of_picture(*jpeg, how)
    image, depth, loss = loaded(data, how)
    fine = None if depth is None else full_samples(depth, image, data)
    if depth is None or fine is None:
        loss = loss if depth is None else _unread(depth, loss)
        _check_range(depth, how)
        unscaled = _unscaled(image, data, how)
        picture = upright(image)
        return _of_picture(picture, loss, how) if unscaled is None else _turned(unscaled, image, 8, "", loss)
    check_bytes(fine.nbytes, how)
    fine, alpha = _with_key(_unscaled_ppm(fine, image, data), image, how)
    if how.color == "all":
        alpha = ""
    return _turned(fine, image, depth.bits, alpha, loss)


def _turned(values: NDArray[Any], image: Image.Image, bits: int, alpha: Alpha, loss: Loss | None) -> Samples:
    found = samples_of(values, alpha, loss)
    return Samples(turned(found.values, orientation_of(image)), bits, alpha, loss)


def _unread(depth: Depth, loss: Loss | None) -> Loss:
    """Return the loss of a picture of which Pillow gives 8 bits alone."""
    return Loss(INTEGERS | (loss.kinds if loss else 0), depth.bits)


def _check_range(depth: Depth | None, how: Pixels) -> None:
    if depth is not None and how.range is not None:
        raise DecodeError(f"{depth.bits} bits, of which only 8 can be read: expected all for --range")


def _of_picture(image: Image.Image, loss: Loss | None, how: Pixels) -> Samples:
    """Return the samples of a picture with 8 bits, in the bands that `how.color` needs."""
    if how.color == "index":
        return samples_of(_numbers(image), "", loss)
    if how.color == "all":
        return samples_of(np.asarray(_with_bands(image)), "", loss)
    picture, is_hidden = converted(image, how)
    if is_hidden:
        loss = with_kinds(loss, TRANSPARENCY)
    has_alpha = picture.mode == "RGBA"
    return samples_of(np.asarray(picture), "straight" if has_alpha else "", loss)


def _numbers(image: Image.Image) -> NDArray[Any]:
    """Return palette numbers or grey values."""
    if image.mode not in _NUMBERED and not image.mode.startswith("I"):
        raise DecodeError(f"{image.mode}: expected palette numbers or grey values for --color index")
    values = np.asarray(image)
    return values[:, :, 0] if image.mode == "PA" else values


def _with_bands(image: Image.Image) -> Image.Image:
    """Return a picture in a mode whose bands are those of the file. A palette becomes its colours."""
    if image.mode in ("P", "PA"):
        return image.convert("RGBA" if image.has_transparency_data else "RGB")
    return image.convert({"RGBa": "RGBA", "La": "LA"}[image.mode]) if image.mode in ("RGBa", "La") else image


def _unscaled(image: Image.Image, data: bytes, how: Pixels) -> NDArray[Any] | None:
    """Return values of fewer than 8 bits as the file has them: Pillow multiplies them up to 255.

    None if the values are those of the file already, or colours are asked for.
    """
    if how.color not in ("index", "all") or image.mode not in ("L", "RGB"):
        return None
    if image.format == "PNG" and data[25] == _GREY_PNG and data[24] < 8:
        return np.asarray(image) // np.uint8(_FULL_8 // ((1 << data[24]) - 1))
    if image.format == "PPM" and (most := _largest_of_ppm(data)) and most < _FULL_8:
        return np.rint(np.asarray(image) * (most / _FULL_8)).astype(np.uint8)
    return None


def _unscaled_ppm(values: NDArray[Any], image: Image.Image, data: bytes) -> NDArray[Any]:
    """Return the values of a PGM of more than 8 bits as the file has them: Pillow multiplies them up to 65535."""
    most = _largest_of_ppm(data) if image.format == "PPM" and image.mode == "I" else 0
    return np.rint(values * (most / _FULL_16)).astype(np.int32) if _FULL_8 < most < _FULL_16 else values


def _largest_of_ppm(data: bytes) -> int:
    """Return the value that is white in a PGM or PPM; 0 if its heading does not say."""
    words: list[bytes] = []
    for line in data[:4096].split(b"\n"):
        words += line.partition(b"#")[0].split()
        if len(words) > 3:
            break
    return int(words[3]) if len(words) > 3 and words[0] in _WITH_LARGEST and words[3].isdigit() else 0


def _with_key(values: NDArray[Any], image: Image.Image, how: Pixels) -> tuple[NDArray[Any], Alpha]:
    """Add transparency to a picture in which one value is transparent, where colours are asked for."""
    if image.mode == "CMYK" and how.color not in ("index", "all"):
        return _rgb_of_inks(values), ""
    if values.ndim == 3 and values.shape[2] in (2, 4):
        return values, "straight"
    key = image.info.get("transparency")
    if how.color in ("index", "all") or key is None or isinstance(key, bytes):
        return values, ""
    values = values if values.ndim == 3 else values[:, :, np.newaxis]
    is_clear = (values == np.atleast_1d(key)).all(axis=2, keepdims=True)
    alpha = np.where(is_clear, 0, _FULL_16).astype(values.dtype)
    return np.concatenate((values, alpha), axis=2), "straight"


def _rgb_of_inks(values: NDArray[Any]) -> NDArray[np.uint16]:
    """Return CMYK of 16 bits as RGB, by the formula that Pillow has for 8 bits."""
    light = 1 - values / _FULL_16
    rgb: NDArray[Any] = np.rint(light[..., :3] * light[..., 3:] * _FULL_16)
    return rgb.astype(np.uint16)
