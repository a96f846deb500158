"""Converts rows to images of Pillow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image


def picture(pixels: NDArray[np.uint8]) -> Image.Image:
    """A row as an image of Pillow.

    Args:
        pixels: uint8 (H, W, C), where C is 1, 3 or 4.
    """
    from PIL import Image

    shape: tuple[Any, ...] = pixels.shape[:2] if pixels.shape[2] == 1 else pixels.shape
    return Image.fromarray(np.ascontiguousarray(pixels).reshape(shape))
