"""What pixels say about rows and classes."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from h5split.file.packs import Packs
from h5split.order.rows import Rows

_CHUNK = 4 << 20  # bytes of pixels looked at together
_MAYBE_BLANK = 1.0  # grey levels of deviation, below which pixels are compared one by one


@dataclass(frozen=True)
class Statistics:
    """Of the rows that were looked at, ordered by label.

    Attributes:
        rows: int64 (M,).
        labels: int32 (M,), ascending.
        means: float64 (M, C), of each channel, in grey levels from 0 to 255.
        deviations: float64 (M, C), the standard deviation of each channel within a row.
        blank: bool (M,), whether all pixels of a row are the same.
        mean_images: Label -> what was made of the mean of its images.
    """

    rows: Rows
    labels: NDArray[np.int32]
    means: NDArray[np.float64]
    deviations: NDArray[np.float64]
    blank: NDArray[np.bool_]
    mean_images: Mapping[int, str]

    @property
    def brightness(self) -> NDArray[np.float64]:
        """Of each row, from 0 to 255: float64 (M,); transparency does not count."""
        colors = self.means[:, :3] if self.means.shape[1] > 2 else self.means[:, :1]
        brightness: NDArray[np.float64] = colors.mean(axis=1).clip(0, 255)
        return brightness

    @property
    def contrast(self) -> NDArray[np.float64]:
        """The deviation of each row's most varied channel: float64 (M,)."""
        contrast: NDArray[np.float64] = self.deviations.max(axis=1)
        return contrast

    def members(self, label: int) -> slice:
        """Where the rows of a class are."""
        start, end = np.searchsorted(self.labels, [label, label + 1]).tolist()
        return slice(start, end)

    def of_class(self, label: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and standard deviation of all pixels of a class: float64 (C,) each."""
        members = self.members(label)
        means, deviations = self.means[members], self.deviations[members]
        mean = means.mean(axis=0)
        return mean, np.sqrt((deviations**2 + (means - mean) ** 2).mean(axis=0))


def look_at(
    packs: Packs,
    rows: Rows,
    thumbnail: Callable[[NDArray[np.uint8]], str],
    pictured: Container[int],
    progress: Callable[[int, int], object] | None = None,
) -> Statistics:
    """Look at rows, class by class, so that there is one mean image at a time, however many classes there are.

    Args:
        packs: The rows' own.
        rows: int64 (M,).
        thumbnail: What to keep of a mean image, uint8 (H, W, C).
        pictured: Labels of the classes whose mean image is kept.
        progress: Called with (rows looked at, rows in all).
    """
    order = np.argsort(packs.labels[rows], kind="stable")
    rows = rows[order]
    labels = packs.labels[rows]
    channels = packs.shape[2]
    means, deviations = np.empty((len(rows), channels)), np.empty((len(rows), channels))
    blank = np.zeros(len(rows), np.bool_)
    mean_images: dict[int, str] = {}
    starts = np.flatnonzero(np.diff(labels, prepend=-1))
    step = max(1, _CHUNK // packs.packs[0].stride)
    pick = _pick(packs.shape)
    for start, end in zip(starts.tolist(), [*starts[1:].tolist(), len(rows)], strict=True):
        total = np.zeros(packs.shape)
        for first in range(start, end, step):
            chosen = slice(first, min(first + step, end))
            pixels = packs.pixels(rows[chosen])
            means[chosen], deviations[chosen], summed = _moments(pixels, pick)
            blank[chosen] = _blank(pixels, deviations[chosen])
            total += summed
            if progress is not None:
                progress(chosen.stop, len(rows))
        label = int(labels[start])
        if label in pictured:
            mean_images[label] = thumbnail((total / (end - start)).round().astype(np.uint8))
    return Statistics(rows, labels, means, deviations, blank, mean_images)


def _pick(shape: tuple[int, int, int]) -> NDArray[Any]:
    """The matrix by which a row's pixels are multiplied for the mean of each channel: float32 (H * W * C, C)."""
    height, width, channels = shape
    return np.tile(np.eye(channels, dtype=np.float32), (height * width, 1)) / np.float32(height * width)


def _moments(
    pixels: NDArray[np.uint8], pick: NDArray[Any]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Mean and deviation of each row's channels, and the sum of all rows.

    Values are taken from the row's first pixel on, so that what hardly varies loses nothing to rounding. Sums over
    pixels are products with `pick`, which numpy computes ten times as fast as sums over an inner axis of three.
    """
    count, height, width, channels = pixels.shape
    first = pixels[:, :1, :1].astype(np.float32)
    values = (pixels - first).reshape(count, -1)
    summed = values.sum(axis=0).reshape(height, width, channels) + first.sum(axis=0)
    means = values @ pick
    values *= values
    return first[:, 0, 0] + means, np.sqrt(np.maximum(values @ pick - means**2, 0)), summed


def _blank(pixels: NDArray[np.uint8], deviations: NDArray[np.float64]) -> NDArray[np.bool_]:
    blank: NDArray[np.bool_] = np.all(deviations < _MAYBE_BLANK, axis=1)
    maybe = np.flatnonzero(blank)
    blank[maybe] = (pixels[maybe] == pixels[maybe][:, :1, :1]).all(axis=(1, 2, 3))
    return blank
