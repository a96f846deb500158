"""Rows that are numbered through several packs, or parts of a table: which one each row is in."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray


def located(
    bounds: Sequence[int], rows: NDArray[np.int64]
) -> Iterator[tuple[int, slice | NDArray[np.int64], NDArray[np.int64]]]:
    """Yield, for each part, which of the rows lie in it.

    Args:
        bounds: P + 1 numbers: part p is rows `bounds[p]` to `bounds[p + 1] - 1`.
        rows: int (M,), at least one.

    Yields:
        The number of a part, the positions in `rows` of the rows in it, and their row numbers within the part.
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
