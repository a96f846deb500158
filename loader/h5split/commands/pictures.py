"""Converts rows to images of Pillow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from h5split.errors import ArgumentError

if TYPE_CHECKING:
    from PIL import Image


def check_channels(shape: tuple[int, int, int]) -> None:
    """Check that rows of this shape can be shown as pictures.

    Args:
        shape: (H, W, C) of a row.

    Raises:
        ValueError: The number of channels is not 1, 3 or 4.
    """
    if shape[2] not in (1, 3, 4):
        raise ArgumentError(f"expected images of 1, 3 or 4 channels, found {shape[2]}; there is no picture of such")


def picture(pixels: NDArray[np.uint8]) -> Image.Image:
    """A row as an image of Pillow.

    Args:
        pixels: uint8 (H, W, C), where C is 1, 3 or 4.
    """
    from PIL import Image

    shape: tuple[Any, ...] = pixels.shape[:2] if pixels.shape[2] == 1 else pixels.shape
    return Image.fromarray(np.ascontiguousarray(pixels).reshape(shape))
