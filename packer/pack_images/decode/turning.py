"""Turn an array upright, as the orientation of EXIF and TIFF says."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_TRANSPOSED = frozenset((5, 6, 7, 8))  # rows and columns change places first
_UPSIDE_DOWN = frozenset((3, 4, 7, 8))  # then the rows are reversed
_MIRRORED = frozenset((2, 3, 6, 7))  # then the columns are


def turned(values: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Return (H, W, C) upright.

    Args:
        values: (H, W, C) as stored.
        orientation: From 1 (upright) to 8; anything else is taken for 1.
    """
    if orientation in _TRANSPOSED:
        values = values.swapaxes(0, 1)
    if orientation in _UPSIDE_DOWN:
        values = values[::-1]
    if orientation in _MIRRORED:
        values = values[:, ::-1]
    return np.ascontiguousarray(values)
