"""Limits for the length of lists and names on a page. Without them, a large data set makes a page too large to open."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from h5split.system.text import shown

CLASSES = 1000  # classes in a chart or a table
PARTS = 20  # parts of a split
NAMES = 10  # names in one line
LISTED = 500  # lines in a list of names
_MAX_CHARACTERS = 300  # of a name
_TAIL = 100  # of these, the characters that are taken from the end of the name


def brief(text: str) -> str:
    """A name as one printable line. The middle of a very long name is left out, and an empty one says so."""
    text = shown(text) or "(empty)"
    left_out = len(text) - _MAX_CHARACTERS
    if left_out <= 0:
        return text
    return f"{text[: _MAX_CHARACTERS - _TAIL]} [{left_out:,} more characters] {text[-_TAIL:]}"


def extremes(numbers: NDArray[np.int64], most: int = CLASSES) -> NDArray[np.int64]:
    """The indices of the largest and the smallest numbers, half of each; all indices if there are few numbers.

    Args:
        numbers: int64 (K,).
        most: The largest number of indices to return.

    Returns:
        int64 (min(K, most),), ascending.
    """
    if len(numbers) <= most:
        return np.arange(len(numbers))
    order = np.argsort(-numbers, kind="stable")
    return np.sort(np.concatenate([order[: most - most // 2], order[-(most // 2) :]]))
