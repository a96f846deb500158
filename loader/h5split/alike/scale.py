"""How near different images are: the scale that two images must be far below to count as near-identical.

No fixed distance serves all data: two digits are nearer than two landscapes that are photographed twice. So each image
is compared with a random sample. Where the distances grow by a power law, as they do around a point in a space of some
number of dimensions, the sample tells how many images to expect within a smaller distance by chance.

The nearest images of the sample are passed over, because they may be near-identical themselves.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from h5split.alike.features import Floats, Frequencies
from h5split.order.rows import Rows, permutation

_SAMPLE = 150, 2000  # the smallest and the largest sample
_ROWS_FOR_EACH = 4  # rows for each row of the sample, between these limits
_PASSED_OVER = 10  # the nearest images of a sample that are passed over, at most
LEAST_ROWS = 40  # for fewer rows there is nothing to learn from
_FEW = 0.02, 5.0  # the scale of so few: distance, and half the dimensions
_MOST = 0.5  # of the reach: beyond it, details alone would have to tell near-identical images from others
_FLOOR = 0.25  # of the median distance: in a dense group of near-identical images the sample shows only these


@dataclass(frozen=True)
class Scale:
    """How many images to expect near each image by chance: (distance / reach) ** power.

    Attributes:
        reach: float32 (N,), the distance within which one different image is expected.
        power: float32 (N,), half the number of dimensions.
    """

    reach: Floats
    power: Floats

    def limits(self, chance: float) -> Floats:
        """The distance within which so many images are expected by chance, but at most half the reach: float32 (N,)."""
        return self.reach * np.minimum(np.float32(chance) ** (1 / self.power), np.float32(_MOST))

    def chances(self, one: Rows, other: Rows, distances: Floats) -> NDArray[np.float64]:
        """How many images are expected by chance as near as each pair, around the row with more: float64 (M,)."""
        return np.maximum(
            *((distances / self.reach[rows]).astype(np.float64) ** self.power[rows] for rows in (one, other))
        )


def sample_of(count: int) -> Rows:
    """The rows that all are compared with: int64 (S,), of `count` rows."""
    least, most = _SAMPLE
    return np.sort(permutation(count, 0, count)[: int(np.clip(count // _ROWS_FOR_EACH, least, most))])


def spread_of(
    frequencies: Frequencies, rows: Rows, features: Floats, sample: Rows, sampled: Floats
) -> tuple[Floats, Floats]:
    """How the number of sampled images around each row grows with the distance.

    If it grows by a power law, `j * log(d[j + 1] / d[j])` is distributed exponentially with a mean of 1 / power, where
    `d[j]` is the distance of the j-th neighbour.

    Args:
        frequencies: The frequencies that features have.
        rows: int64 (M,).
        features: float32 (M, F), those of the rows.
        sample: int64 (S,), the rows of the sample.
        sampled: float32 (S, F), their features.

    Returns:
        The distance of the first neighbour that counts, float32 (M,), and the power, float32 (M,).
    """
    first, last = ranks(len(sample))
    distances = frequencies.distances(features, sampled)
    distances[rows[:, None] == sample] = 2
    nearest = np.sort(np.partition(distances, last - 1, axis=1)[:, :last], axis=1)[:, first - 1 :]
    logs = np.log(np.maximum(nearest, np.float32(1e-6)))
    growth = np.maximum(np.diff(logs, axis=1) @ np.arange(first, last, dtype=np.float32), np.float32(1e-3))
    return np.exp(logs[:, 0]), np.divide(last - first, growth, dtype=np.float32)


def scale_of(count: int, spreads: Iterable[tuple[Floats, Floats]]) -> Scale:
    """The scale of each row.

    Args:
        count: N, the number of rows.
        spreads: The results of `spread_of` for all rows, in pieces.
    """
    if count < LEAST_ROWS:
        return Scale(*(np.full(count, value, np.float32) for value in _FEW))
    base, power = (np.concatenate(values) for values in zip(*spreads, strict=True))
    power = np.minimum(power, np.median(power))
    size = len(sample_of(count))
    reach = base * np.float32(size / (ranks(size)[0] * count)) ** (1 / power)
    return Scale(np.maximum(reach, np.float32(_FLOOR) * np.median(reach)), power)


def ranks(size: int) -> tuple[int, int]:
    """The first and the last neighbour, counted from 1, that tell the scale."""
    first = max(1, min(_PASSED_OVER, size // 20))
    return first, min(4 * first, size - 1)
