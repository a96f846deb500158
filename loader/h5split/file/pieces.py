"""Rows of several pieces that lie one after another: which piece each is in."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray


def located(
    bounds: Sequence[int], rows: NDArray[np.int64]
) -> Iterator[tuple[int, slice | NDArray[np.int64], NDArray[np.int64]]]:
    """Where rows of several parts in a row are.

    Args:
        bounds: P + 1 numbers: part p is rows `bounds[p]` to `bounds[p + 1] - 1`.
        rows: int (M,), at least one.

    Yields:
        A part, the places in `rows` of those that lie in it, and their numbers within it.
    """
    part = bisect_right(bounds, int(rows[0])) - 1
    local = rows - bounds[part]
    if len(bounds) == 2 or (int(local.min()) >= 0 and int(local.max()) < bounds[part + 1] - bounds[part]):
        yield part, slice(None), local
        return
    parts = np.searchsorted(bounds, rows, side="right") - 1
    for part in np.unique(parts).tolist():
        at = np.flatnonzero(parts == part)
        yield part, at, rows[at] - bounds[part]
