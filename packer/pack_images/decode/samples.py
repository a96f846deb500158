"""The samples of a picture as its file has them, whatever decoder they come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from h5split.file.losses import Loss
from pack_images.errors import DecodeError

Alpha = Literal["", "straight", "premultiplied"]

_KINDS = "buif"  # numpy's kinds of numbers that a picture may have
_MAX_NAMED = 1 << 16  # bands; more are surely no picture


@dataclass(frozen=True)
class Samples:
    """The samples of a picture that stands upright.

    Attributes:
        values: (H, W, C), of any type of integers or floats.
        bits: Bits per sample of the file; 0 for floats.
        alpha: Whether the last band is transparency, and whether it is multiplied into the others already.
        loss: What reading the file has lost.
    """

    values: NDArray[Any]
    bits: int
    alpha: Alpha = ""
    loss: Loss | None = None


def samples_of(array: NDArray[Any], alpha: Alpha = "", loss: Loss | None = None) -> Samples:
    """Return an array (H, W) or (H, W, C) as samples in the byte order of this machine.

    Raises:
        DecodeError: It is no picture.
    """
    if array.ndim == 2:
        array = array[:, :, np.newaxis]
    if array.ndim != 3 or 0 in array.shape or array.shape[2] > _MAX_NAMED:
        raise DecodeError(f"expected an array (H, W) or (H, W, C), found shape {array.shape}")
    if array.dtype.kind not in _KINDS:
        raise DecodeError(f"expected integers or floats, found {array.dtype}")
    if array.dtype.kind == "b":
        array = array.astype(np.uint8)
    if array.dtype.kind == "f" and array.dtype.itemsize not in (4, 8):  # float16, and the long floats of a machine
        array = array.astype(np.float32 if array.dtype.itemsize < 4 else np.float64)
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    return Samples(array, 0 if array.dtype.kind == "f" else 8 * array.dtype.itemsize, alpha, loss)
