"""Pixel statistics of rows and classes."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from h5split.file.packs import Packs
from h5split.order.rows import Rows
from h5split.system.lazy import lazy

_CHUNK_BYTES = 4 << 20  # pixels that are examined at a time
_MAYBE_BLANK = 1.0  # grey levels; only rows with a lower deviation are compared pixel by pixel


@dataclass(frozen=True)
class Statistics:
    """The statistics of the examined rows, ordered by label.

    Attributes:
        rows: int64 (M,), the row numbers.
        labels: int32 (M,), ascending.
        means: float64 (M, C), the mean of each channel within a row, in grey levels from 0 to 255.
        deviations: float64 (M, C), the standard deviation of each channel within a row.
        blank: bool (M,), whether all pixels of a row are the same.
        is_grey: Whether there are three colours, which are equal in every pixel of every row.
        levels: The lowest and the highest value of a pixel, without the alpha channel.
        mean_images: Label -> the return value of `thumbnail` for the mean of all images of the class.
    """

    rows: Rows
    labels: NDArray[np.int32]
    means: NDArray[np.float64]
    deviations: NDArray[np.float64]
    blank: NDArray[np.bool_]
    is_grey: bool
    levels: tuple[int, int]
    mean_images: Mapping[int, str]

    @lazy
    def brightness(self) -> NDArray[np.float64]:
        """The brightness of each row, from 0 to 255, without the alpha channel: float64 (M,)."""
        colors = self.means[:, :3] if self.means.shape[1] > 2 else self.means[:, :1]
        brightness: NDArray[np.float64] = colors.mean(axis=1).clip(0, 255)
        return brightness

    @lazy
    def contrast(self) -> NDArray[np.float64]:
        """The contrast of each row, which is the largest deviation of its channels: float64 (M,)."""
        contrast: NDArray[np.float64] = self.deviations.max(axis=1)
        return contrast

    def members(self, label: int) -> slice:
        """The slice of the arrays that holds the rows of a class."""
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
    """Compute the statistics of rows.

    Rows are read class by class, so that only one mean image is in memory at a time.

    Args:
        packs: The packs that hold the rows.
        rows: int64 (M,).
        thumbnail: A function that converts a mean image, uint8 (H, W, C), to the text to keep.
        pictured: The labels of the classes whose mean image is kept.
        progress: Called with (rows examined, rows in total).
    """
    order = np.argsort(packs.labels[rows], kind="stable")
    rows = rows[order]
    labels = packs.labels[rows]
    channels = packs.shape[2]
    means, deviations = np.empty((len(rows), channels)), np.empty((len(rows), channels))
    blank = np.zeros(len(rows), np.bool_)
    colors = _Colors(channels)
    mean_images: dict[int, str] = {}
    starts = np.flatnonzero(np.diff(labels, prepend=-1))
    step = max(1, _CHUNK_BYTES // packs.packs[0].stride)
    averaging = _averaging_matrix(packs.shape)
    for start, end in zip(starts.tolist(), [*starts[1:].tolist(), len(rows)], strict=True):
        total = np.zeros(packs.shape)
        for first in range(start, end, step):
            chosen = slice(first, min(first + step, end))
            pixels = packs.pixels(rows[chosen])
            means[chosen], deviations[chosen], summed = _moments(pixels, averaging)
            blank[chosen] = _blank(pixels, deviations[chosen])
            colors.add(pixels)
            total += summed
            if progress is not None:
                progress(chosen.stop, len(rows))
        label = int(labels[start])
        if label in pictured:
            mean_images[label] = thumbnail((total / (end - start)).round().astype(np.uint8))
    return Statistics(rows, labels, means, deviations, blank, colors.is_grey, colors.levels, mean_images)


class _Colors:
    """Collects the facts about colours that hold for all rows.

    Args:
        channels: The number of channels of a row.
    """

    def __init__(self, channels: int) -> None:
        self._count = min(channels, 3) if channels > 2 else 1  # without the alpha channel
        self.is_grey = channels == 3
        self.levels = 255, 0

    def add(self, pixels: NDArray[np.uint8]) -> None:
        """Take account of rows: uint8 (M, H, W, C)."""
        colors = pixels[..., : self._count]
        self.levels = min(self.levels[0], int(colors.min())), max(self.levels[1], int(colors.max()))
        if self.is_grey:
            self.is_grey = all(np.array_equal(colors[..., 0], colors[..., at]) for at in (1, 2))


def _averaging_matrix(shape: tuple[int, int, int]) -> NDArray[Any]:
    """A matrix for the mean of each channel, to multiply the pixels of a row by: float32 (H * W * C, C)."""
    height, width, channels = shape
    return np.tile(np.eye(channels, dtype=np.float32), (height * width, 1)) / np.float32(height * width)


def _moments(
    pixels: NDArray[np.uint8], averaging: NDArray[Any]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """The mean and the standard deviation of each channel of each row, and the sum of all rows.

    The first pixel of a row is subtracted from the others, so that rounding does not spoil the deviation of an image
    that hardly varies. Means over pixels are matrix products with `averaging`: numpy computes them ten times as fast as
    means over the axes of an array whose last axis has length 3.
    """
    count, height, width, channels = pixels.shape
    first = pixels[:, :1, :1].astype(np.float32)
    values = (pixels - first).reshape(count, -1)
    summed = values.sum(axis=0).reshape(height, width, channels) + first.sum(axis=0)
    means = values @ averaging
    values *= values
    return first[:, 0, 0] + means, np.sqrt(np.maximum(values @ averaging - means**2, 0)), summed


def _blank(pixels: NDArray[np.uint8], deviations: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether all pixels of each row are the same: bool (M,)."""
    blank: NDArray[np.bool_] = np.all(deviations < _MAYBE_BLANK, axis=1)
    maybe = np.flatnonzero(blank)
    blank[maybe] = (pixels[maybe] == pixels[maybe][:, :1, :1]).all(axis=(1, 2, 3))
    return blank
