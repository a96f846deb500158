"""Rows as pictures: pixels in, Pillow's images out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from h5split.errors import ArgumentError

if TYPE_CHECKING:
    from PIL import Image


def check_channels(shape: tuple[int, int, int]) -> None:
    """Whether there are pictures of such rows.

    Args:
        shape: (H, W, C) of a row.

    Raises:
        ValueError: There are other than 1, 3 or 4 channels.
    """
    if shape[2] not in (1, 3, 4):
        raise ArgumentError(f"expected images of 1, 3 or 4 channels, found {shape[2]}; there is no picture of such")


def picture(pixels: NDArray[np.uint8]) -> Image.Image:
    """A row as an image of Pillow's.

    Args:
        pixels: uint8 (H, W, C), C being 1, 3 or 4.
    """
    from PIL import Image

    shape: tuple[Any, ...] = pixels.shape[:2] if pixels.shape[2] == 1 else pixels.shape
    return Image.fromarray(np.ascontiguousarray(pixels).reshape(shape))
