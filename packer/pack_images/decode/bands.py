"""Samples become a row: the bands asked for, the type asked for, the size asked for.

The filters work on each band by itself: on bytes for uint8, and on floats for uint16 and float32, so that nothing is
rounded to 8 bits on the way. A NaN makes every stored pixel NaN that its filter reaches.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from h5split.file.losses import TRANSPARENCY, Loss, with_kinds
from h5split.system.text import count
from pack_images.decode.depth import counted_loss, floats_to_8, integers_to_8
from pack_images.decode.fitting import fitted_picture
from pack_images.decode.samples import Samples
from pack_images.errors import DecodeError
from pack_images.settings import Pixels

_LUMA = (0.299, 0.587, 0.114)  # ITU-R 601-2, as Pillow has it
_MAX_8, _MAX_16 = 255, 0xFFFF
_WIDENED = 257  # times which 255 is 65535
_GREYS, _COLORS = (1, 2), (3, 4)  # bands, without and with transparency


def row_of(samples: Samples, how: Pixels) -> tuple[NDArray[Any], Loss | None]:
    """Return the row that samples become, (H, W, C) of the stored type, and what was lost.

    Raises:
        DecodeError: The picture has other bands than `how.color` needs, or values that `how.dtype` cannot hold.
    """
    with np.errstate(all="ignore"):  # infinity and NaN are values like others
        values, is_hidden = _colored(samples, how)
        stored, loss = _typed(values, samples, how)
    if is_hidden:
        loss = with_kinds(loss, TRANSPARENCY)
    return _fitted(stored, how, _white(samples)), loss


def _colored(samples: Samples, how: Pixels) -> tuple[NDArray[Any], bool]:
    """Return the bands to store, and whether transparency has hidden all content."""
    values, bands = samples.values, samples.values.shape[2]
    if how.color == "all":
        return values, False
    if how.color == "index":
        if bands != 1:
            raise DecodeError(f"{count(bands, 'band')}: expected one of palette numbers or grey values")
        return values, False
    if bands not in (_COLORS if bands > 2 else _GREYS) or (bands in (2, 4) and not samples.alpha):
        raise DecodeError(f"{count(bands, 'band')}: expected grey or three colours; --color all takes every band")
    colors = values
    is_hidden = False
    if samples.alpha:
        colors, is_hidden = _opaque(samples, how) if how.color != "rgba" else (_straight(samples), False)
    return _as_channels(colors, how.color, bool(samples.alpha), _white(samples)), is_hidden


def _as_channels(colors: NDArray[Any], color: str, has_alpha: bool, white: float) -> NDArray[Any]:
    """Return grey or colours, perhaps with transparency behind them, as the channels of `color`."""
    alpha = colors[..., -1:] if color == "rgba" and has_alpha else None
    if alpha is not None:
        colors = colors[..., :-1]
    if color == "grayscale":
        if colors.shape[2] == 1:
            return colors
        return _rounded_as(colors.dtype, (colors.astype(np.float64) @ np.array(_LUMA))[..., np.newaxis])
    if colors.shape[2] == 1:
        colors = np.repeat(colors, 3, axis=2)
    if color == "rgba":
        full = np.full((*colors.shape[:2], 1), white, colors.dtype) if alpha is None else alpha
        colors = np.concatenate((colors, full), axis=2)
    return colors


def _opaque(samples: Samples, how: Pixels) -> tuple[NDArray[Any], bool]:
    """Lay a picture with transparency on the background. Return it, and whether that has hidden all content."""
    values, white = samples.values.astype(np.float64), _white(samples)
    alpha = values[..., -1:] / white
    colors = values[..., :-1] if samples.alpha == "premultiplied" else values[..., :-1] * alpha
    below = np.array(how.fill if colors.shape[2] == 3 else [_grey(how.fill)]) / 255 * white
    laid = _rounded_as(samples.values.dtype, colors + below * (1 - alpha))
    return laid, not np.ptp(laid, axis=(0, 1)).any() and bool(np.ptp(samples.values, axis=(0, 1)).any())


def _straight(samples: Samples) -> NDArray[Any]:
    """Return samples with transparency that is not multiplied into the colours."""
    if samples.alpha == "straight":
        return samples.values
    values, white = samples.values.astype(np.float64), _white(samples)
    alpha = values[..., -1:] / white
    colors = np.divide(values[..., :-1], alpha, out=np.zeros_like(values[..., :-1]), where=alpha > 0)
    return _rounded_as(samples.values.dtype, np.concatenate((colors, values[..., -1:]), axis=2))


def _white(samples: Samples) -> float:
    """The value that is white or opaque."""
    if samples.values.dtype.kind == "f":
        return 1.0
    return (1 << samples.bits) - 1 if 8 < samples.bits < 16 else int(np.iinfo(samples.values.dtype).max)


def _rounded_as(dtype: np.dtype[Any], values: NDArray[np.float64]) -> NDArray[Any]:
    if dtype.kind == "f":
        return values.astype(dtype)
    limits = np.iinfo(dtype)
    return np.clip(np.rint(values), limits.min, limits.max).astype(dtype)


def _typed(values: NDArray[Any], samples: Samples, how: Pixels) -> tuple[NDArray[Any], Loss | None]:
    """Return the values in the stored type, and what that lost, beside what reading the file has lost."""
    if how.dtype == "uint16":
        return _as_uint16(values, how), samples.loss
    if how.dtype == "float32":
        return _as_float32(values), samples.loss
    if values.dtype == np.uint8:
        return values, samples.loss
    if how.color == "index" or (values.dtype == np.int8 and how.range is None):  # 8 bits have no high byte
        return _checked_integers(values, np.uint8, "uint16"), samples.loss
    eight = _scaled(values, *how.range) if how.range else _to_8(values)
    lost = counted_loss(values, eight, samples.bits)
    if lost is not None and samples.loss is not None:
        lost = with_kinds(lost, samples.loss.kinds)
    return eight, lost or samples.loss


def _to_8(values: NDArray[Any]) -> NDArray[np.uint8]:
    return floats_to_8(values) if values.dtype.kind == "f" else integers_to_8(values)


def _scaled(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """Scale values so that `low` becomes 0 and `high` 255."""
    return floats_to_8((values.astype(np.float64) - low) * 255 / (high - low))


def _as_uint16(values: NDArray[Any], how: Pixels) -> NDArray[np.uint16]:
    if values.dtype == np.uint8:
        return values.astype(np.uint16) * (_WIDENED if how.widens else 1)
    return _checked_integers(values, np.uint16, "float32")


def _checked_integers(values: NDArray[Any], dtype: type[np.integer[Any]], larger: str) -> NDArray[Any]:
    """Return integers in a smaller type, if it holds them all."""
    if values.dtype.kind == "f":
        raise DecodeError("floats: expected integers; --dtype float32 keeps them")
    if values.dtype == dtype:
        return values
    most, least = np.iinfo(dtype).max, int(values.min())
    if least < 0 or int(values.max()) > most:
        raise DecodeError(
            f"values from {least} to {values.max()}: expected 0 to {most}; --dtype "
            f"{larger if least >= 0 else 'float32'} holds more"
        )
    return values.astype(dtype, copy=False)


def _as_float32(values: NDArray[Any]) -> NDArray[np.float32]:
    stored = values.astype(np.float32, copy=False)
    if values.dtype.kind != "f" and values.dtype.itemsize > 2 and not _has_integers(stored, values):
        raise DecodeError(
            "integers that float32 cannot hold exactly: expected up to 16,777,216; --decoder can scale them"
        )
    if values.dtype.itemsize > 4 and not np.array_equal(np.isfinite(stored), np.isfinite(values)):
        raise DecodeError("floats that are too large for float32; --decoder can scale them")
    return stored


def _has_integers(stored: NDArray[np.float32], values: NDArray[Any]) -> bool:
    """Return whether floats are equal to integers. They are compared as integers: float64 rounds those of 64 bits."""
    beyond = 2.0 ** np.iinfo(values.dtype).max.bit_length()  # the first number that the type does not hold
    is_within = stored < beyond
    return bool(is_within.all() and (stored.astype(values.dtype) == values).all())


def _fitted(values: NDArray[Any], how: Pixels, white: float) -> NDArray[Any]:
    """Fit values to the stored size, band by band; with transparency, colours count as much as they are opaque.

    Args:
        values: (H, W, C) of the stored type.
        how: Gives size, fit and background.
        white: The value that was white in the file.
    """
    if how.size is None or values.shape[1::-1] == how.size:
        return values
    if values.dtype == np.uint8 and how.color != "all":
        image = Image.fromarray(values[:, :, 0] if values.shape[2] == 1 else values)
        return np.asarray(fitted_picture(image, how)).reshape(how.size[1], how.size[0], -1)
    if how.color == "rgba" and how.interpolation != "nearest":
        return _fitted_rgba(values, how, white)
    return _rounded_bands(_resized(values, how, white), values.dtype)


def _fitted_rgba(values: NDArray[Any], how: Pixels, white: float) -> NDArray[Any]:
    colors, alpha = values[..., :3].astype(np.float64), values[..., 3:].astype(np.float64)
    most = _MAX_16 if values.dtype == np.uint16 else 255.0
    weighted = np.concatenate((colors * (alpha / most), alpha), axis=2).astype(np.float32)
    fitted = _resized(weighted, how, white)
    shares = fitted[..., 3:] / most
    np.divide(fitted[..., :3], shares, out=fitted[..., :3], where=shares > 0)
    return _rounded_bands(fitted, values.dtype)


def _resized(values: NDArray[Any], how: Pixels, white: float) -> NDArray[Any]:
    """Fit each band with a filter: uint8 as it is, anything else as floats."""
    fills = _fills(values.shape[2], how, white)
    bands = []
    for at, fill in enumerate(fills):
        band = values[:, :, at] if values.dtype == np.uint8 else values[:, :, at].astype(np.float32)
        bands.append(np.asarray(fitted_picture(Image.fromarray(np.ascontiguousarray(band)), how, fill)))
    return np.stack(bands, axis=2)


def _rounded_bands(values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    if dtype != np.uint16:
        return values
    rounded: NDArray[Any] = np.clip(np.rint(values), 0, _MAX_16)
    return rounded.astype(dtype)


def _fills(bands: int, how: Pixels, white: float) -> list[float]:
    """What `pad` fills each band with."""
    if how.color in ("all", "index"):
        return [float(how.fill[0])] * bands
    if how.dtype == "uint16":
        white = _MAX_16 if white == _MAX_8 else min(white, _MAX_16)  # 8 bits are widened
    scale = 1.0 if how.dtype == "uint8" else white / _MAX_8
    colors = [_grey(how.fill)] if bands == 1 else [*how.fill]
    opaque = [] if bands < 4 else [255.0 if how.background else 0.0]
    return [scale * value for value in (*colors, *opaque)]


def _grey(color: tuple[int, int, int]) -> float:
    return float(round(sum(part * share for part, share in zip(color, _LUMA, strict=True))))
