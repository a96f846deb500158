"""Finds the pairs of images that are nearer than a limit, without comparing all images with each other.

Some random images are centres, and each image belongs to the cell of the nearest one. An image is compared with the
images in the cells of its eight nearest centres. A pair that is much nearer than its cells are wide is nearly always
found. Centres are as dense as images are, so cells have about equal numbers of images. Up to some thousand images there
are so few cells that all images are compared.

The distance to centres is that of magnitudes, which symmetries do not change.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from h5split.alike.features import Floats, Frequencies, product
from h5split.order.rows import Rows, permutation

_CELL = 400  # rows in a cell, on average
_PROBES = 8  # cells that a row is compared with
_BLOCK = 1 << 17  # distances that are computed at a time
_KEPT = 4  # pairs of one row that are kept of each cell, most alike first

Features = NDArray[np.float16]  # (N, F); half the memory, and exact enough


@dataclass(frozen=True)
class Cells:
    """Which rows are compared with which.

    Attributes:
        members: For each cell, the rows that belong to it.
        visitors: For each cell, the rows that are compared with its members. They include the members.
    """

    members: list[Rows]
    visitors: list[Rows]


def centres_of(frequencies: Frequencies, features: Features) -> Floats:
    """The magnitudes of the rows that are centres: float32 (C, G)."""
    count = len(features)
    chosen = np.sort(permutation(count, 1, count)[: -(-count // _CELL)])
    return frequencies.magnitudes(features[chosen].astype(np.float32))


def probes_of(frequencies: Frequencies, features: Features, centres: Floats) -> NDArray[np.int32]:
    """The nearest centres of rows, the nearest first: int32 (M, P)."""
    magnitudes = frequencies.magnitudes(features.astype(np.float32))
    distances = (centres * centres).sum(axis=1) - 2 * product(magnitudes, centres)
    count = min(_PROBES, len(centres))
    nearest = np.argpartition(distances, count - 1, axis=1)[:, :count]
    order = np.argsort(np.take_along_axis(distances, nearest, axis=1), axis=1, kind="stable")
    return np.take_along_axis(nearest, order, axis=1).astype(np.int32)


def cells_of(probes: NDArray[np.int32], centres: int) -> Cells:
    """The members and visitors of each cell.

    Args:
        probes: int32 (N, P), the nearest centres of each row, the nearest first.
        centres: The number of centres.
    """

    def divided(cells: NDArray[np.int32], each: int) -> list[Rows]:
        order = np.argsort(cells, kind="stable")
        return np.split(order // each, np.cumsum(np.bincount(cells, minlength=centres))[:-1])

    return Cells(divided(probes[:, 0], 1), divided(probes.reshape(-1), probes.shape[1]))


def pairs_in(
    frequencies: Frequencies, features: Features, limits: Floats, members: Rows, visitors: Rows
) -> tuple[Rows, Rows]:
    """The pairs of one cell that are nearer than the limits of both rows; of each visitor the most alike.

    Returns:
        int64 (M,) and int64 (M,): the smaller and the larger row of each pair.
    """
    found = [np.empty((0, 2), np.int64)]
    for pairs, distances in _blocks(frequencies, features, limits, members, visitors):
        order = np.lexsort((pairs[:, 1], distances, pairs[:, 0]))
        pairs = pairs[order]
        starts = np.flatnonzero(np.append(True, np.diff(pairs[:, 0]) != 0)) if len(pairs) else np.empty(0, np.int64)
        rank = np.arange(len(pairs)) - np.repeat(starts, np.diff(np.append(starts, len(pairs))))
        found.append(np.sort(pairs[rank < _KEPT], axis=1))
    pairs = np.concatenate(found)
    return pairs[:, 0], pairs[:, 1]


def distinct(count: int, found: Iterable[tuple[Rows, Rows]]) -> tuple[Rows, Rows]:
    """The pairs of all cells, each once, ascending.

    Args:
        count: The number of rows.
        found: The pairs of each cell.
    """
    keys = [one * count + other for one, other in found]
    return np.divmod(np.unique(np.concatenate(keys)), count)


def _blocks(
    frequencies: Frequencies, features: Features, limits: Floats, members: Rows, visitors: Rows
) -> Iterator[tuple[NDArray[np.int64], Floats]]:
    """Yield the pairs (visitor, member) below the limits of both, int64 (M, 2), and their distances."""
    width = min(len(members), _BLOCK >> 9) or 1
    step = max(1, _BLOCK // width)
    for first in range(0, len(members), width):
        here = members[first : first + width]
        there = features[here].astype(np.float32)
        for start in range(0, len(visitors), step):
            rows = visitors[start : start + step]
            distances = frequencies.distances(features[rows].astype(np.float32), there)
            below = (distances < limits[rows][:, None]) & (distances < limits[here])
            below &= rows[:, None] != here
            at, of = np.nonzero(below)
            yield np.stack([rows[at], here[of]], axis=1), distances[at, of]
