"""How much a page shows of what there may be any number of: a browser must open it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from h5split.system.text import shown

CLASSES = 1000  # in a chart or a table
PARTS = 20  # of a split
NAMES = 10  # in one line
LISTED = 500  # lines of names
_CHARACTERS = 300  # of a name
_TAIL = 100  # of those, from its end


def brief(text: str) -> str:
    """A name on one line, without the middle of a very long one."""
    text = shown(text)
    left_out = len(text) - _CHARACTERS
    if left_out <= 0:
        return text
    return f"{text[: _CHARACTERS - _TAIL]} [{left_out:,} more characters] {text[-_TAIL:]}"


def extremes(numbers: NDArray[np.int64], most: int = CLASSES) -> NDArray[np.int64]:
    """Where the largest and the smallest numbers are, half of each, ascending; everywhere if there are few.

    Args:
        numbers: (K,).
        most: How many to choose.

    Returns:
        int64 (min(K, most),), indices.
    """
    if len(numbers) <= most:
        return np.arange(len(numbers))
    order = np.argsort(-numbers, kind="stable")
    return np.sort(np.concatenate([order[: most - most // 2], order[-(most // 2) :]]))
