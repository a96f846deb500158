"""Rows as pictures: with packs.py's pixels in, Pillow's images out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def picture(pixels: NDArray[np.uint8]) -> Image.Image:
    """A row as an image of Pillow's.

    Args:
        pixels: uint8 (H, W, C), C being 1, 3 or 4.

    Raises:
        ValueError: There are other channels than these.
    """
    from PIL import Image

    channels = pixels.shape[2]
    if channels not in _MODES:
        raise ValueError(f"expected images of 1, 3 or 4 channels, found {channels}; there is no picture of such")
    shape: tuple[Any, ...] = pixels.shape[:2] if channels == 1 else pixels.shape
    return Image.fromarray(np.ascontiguousarray(pixels).reshape(shape))
