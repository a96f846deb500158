"""Chooses the mistakes that a page shows, if there are too many to show all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

MOST_TILES = 300  # mistakes that are shown at most
_MOST_CONFIDENT = 120  # mistakes that are shown because of their confidence
_PER_GROUP = 6  # mistakes that are shown of each group


def chosen_mistakes(mistakes: int, groups: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """The indices of the mistakes to show: the most confident ones, and some of each group.

    Without the latter, a rare kind of mistake would have no picture on the page.

    Args:
        mistakes: The number of mistakes, which are ordered by confidence.
        groups: The indices of the mistakes of each kind, the most important kind first.
    """
    chosen = set(range(min(_MOST_CONFIDENT, mistakes)))
    for members in groups:
        if len(chosen) + _PER_GROUP > MOST_TILES:
            break
        chosen.update(members[:_PER_GROUP].tolist())
    return np.array(sorted(chosen), np.int64)


def as_score(score: float, *, is_share: bool) -> str:
    """A score as text: a percentage if all scores are shares from 0 to 1."""
    return f"{score:.1%}" if is_share else f"score {score:.3g}"
