"""Maps row numbers of several concatenated packs or arrays to rows of the single ones."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray


def located(
    bounds: Sequence[int], rows: NDArray[np.int64]
) -> Iterator[tuple[int, slice | NDArray[np.int64], NDArray[np.int64]]]:
    """Yield the rows of each part.

    Args:
        bounds: P + 1 ascending numbers. Part p has the rows `bounds[p]` to `bounds[p + 1] - 1`.
        rows: int64 (M,), row numbers in any order; at least one.

    Yields:
        For each part with at least one row: the number of the part, the positions in `rows` of its rows, and their
        row numbers within the part.
    """
    part = bisect_right(bounds, int(rows[0])) - 1
    local = rows - bounds[part]
    # The usual case, all rows in one part, needs no search.
    if len(bounds) == 2 or (int(local.min()) >= 0 and int(local.max()) < bounds[part + 1] - bounds[part]):
        yield part, slice(None), local
        return
    parts = np.searchsorted(bounds, rows, side="right") - 1
    for part in np.unique(parts).tolist():
        at = np.flatnonzero(parts == part)
        yield part, at, rows[at] - bounds[part]
