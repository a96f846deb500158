"""Pixel statistics of rows and classes."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from h5split.alike.content import is_blank
from h5split.file.levels import WHITE, Levels
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
        means: float64 (M, C), the mean of each channel within a row, of the finite values; NaN if there are none.
        deviations: float64 (M, C), the standard deviation of each channel within a row, likewise.
        how: How pixels are shown.
        not_finite: bool (M,), whether a value of a row is NaN or infinite.
        blank: bool (M,), whether all pixels of a row are the same.
        is_grey: Whether there are three colours, which are equal in every pixel of every row.
        levels: The lowest and the highest value of a pixel of uint8 in the channels shown, without the alpha channel.
        mean_images: Label -> the return value of `thumbnail` for the mean of all images of the class.
    """

    rows: Rows
    labels: NDArray[np.int32]
    means: NDArray[np.float64]
    deviations: NDArray[np.float64]
    how: Levels
    not_finite: NDArray[np.bool_]
    blank: NDArray[np.bool_]
    is_grey: bool
    levels: tuple[int, int]
    mean_images: Mapping[int, str]

    @lazy
    def brightness(self) -> NDArray[np.float64]:
        """The brightness of each row, the mean of the channels shown without the alpha channel: float64 (M,).

        It is from 0 to 255 for uint8, and in the values stored for other types.
        """
        brightness: NDArray[np.float64] = self.means[:, list(self.how.colors)].mean(axis=1)
        return brightness if self.how.is_stretched else brightness.clip(0, WHITE)

    @lazy
    def contrast(self) -> NDArray[np.float64]:
        """The contrast of each row, which is the largest deviation of its channels, in grey levels: float64 (M,)."""
        deviations = np.nan_to_num(self.deviations) * (WHITE / self.how.ranges)
        contrast: NDArray[np.float64] = deviations.max(axis=1)
        return contrast

    def members(self, label: int) -> slice:
        """The slice of the arrays that holds the rows of a class."""
        start, end = np.searchsorted(self.labels, [label, label + 1]).tolist()
        return slice(start, end)

    def of_class(self, label: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and standard deviation of all pixels of a class: float64 (C,) each."""
        members = self.members(label)
        means, deviations = self.means[members], self.deviations[members]
        mean = _mean_of_finite(means)
        return mean, np.sqrt(_mean_of_finite(deviations**2 + (means - mean) ** 2))


def look_at(
    packs: Packs,
    rows: Rows,
    levels: Levels,
    thumbnail: Callable[[NDArray[Any]], str],
    pictured: Container[int],
    progress: Callable[[int, int], object] | None = None,
) -> Statistics:
    """Compute the statistics of rows.

    Rows are read class by class, so that only one mean image is in memory at a time.

    Args:
        packs: The packs that hold the rows.
        rows: int64 (M,).
        levels: How pixels are shown.
        thumbnail: A function that converts a mean image, (H, W, C) of uint8 or else of float64, to the text to keep.
        pictured: The labels of the classes whose mean image is kept.
        progress: Called with (rows examined, rows in total).
    """
    order = np.argsort(packs.labels[rows], kind="stable")
    rows = rows[order]
    labels = packs.labels[rows]
    channels = packs.shape[2]
    means, deviations = np.empty((len(rows), channels)), np.empty((len(rows), channels))
    blank, not_finite = np.zeros(len(rows), np.bool_), np.zeros(len(rows), np.bool_)
    colors = _Colors(channels, levels)
    moments_of = _moments_of_floats if packs.dtype.kind == "f" else _moments_of_integers(packs.shape)
    mean_images: dict[int, str] = {}
    starts = np.flatnonzero(np.diff(labels, prepend=-1))
    step = max(1, _CHUNK_BYTES // packs.packs[0].stride)
    for start, end in zip(starts.tolist(), [*starts[1:].tolist(), len(rows)], strict=True):
        mean_image = _MeanImage(packs.shape)
        for first in range(start, end, step):
            chosen = slice(first, min(first + step, end))
            pixels = packs.pixels(rows[chosen])
            found = moments_of(pixels)
            means[chosen], deviations[chosen] = found.means, found.deviations
            not_finite[chosen] = False if found.finite is None else ~found.finite.all(axis=(1, 2, 3))
            blank[chosen] = _blank(pixels, deviations[chosen])
            colors.add(pixels)
            mean_image.add(found)
            if progress is not None:
                progress(chosen.stop, len(rows))
        label = int(labels[start])
        if label in pictured:
            mean_images[label] = thumbnail(mean_image.of_type(packs.dtype))
    return Statistics(
        rows, labels, means, deviations, levels, not_finite, blank, colors.is_grey, colors.levels, mean_images
    )


class _Colors:
    """Collects the facts about colours that hold for all rows.

    Args:
        channels: The number of channels of a row.
        levels: How pixels are shown.
    """

    def __init__(self, channels: int, levels: Levels) -> None:
        self._shown = levels.colors
        self.is_grey = channels == 3
        self.levels = 255, 0

    def add(self, pixels: NDArray[Any]) -> None:
        """Take account of rows: (M, H, W, C)."""
        if pixels.dtype == np.uint8:
            bands = [pixels[..., band] for band in self._shown]
            self.levels = (
                min(self.levels[0], *(int(band.min()) for band in bands)),
                max(self.levels[1], *(int(band.max()) for band in bands)),
            )
        if self.is_grey:
            self.is_grey = all(np.array_equal(pixels[..., 0], pixels[..., at]) for at in (1, 2))


class _Moments(NamedTuple):
    """Of some rows: means and deviations of each channel, (M, C); the sum of all rows, (H, W, C); which values count.

    `finite` is bool (M, H, W, C); None if all count.
    """

    means: NDArray[Any]
    deviations: NDArray[Any]
    summed: NDArray[Any]
    finite: NDArray[np.bool_] | None


class _MeanImage:
    """The mean of all images of a class.

    Args:
        shape: (H, W, C) of an image.
    """

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self._total = np.zeros(shape)
        self._counts: Any = 0  # int, or int64 (H, W, C) of floats

    def add(self, moments: _Moments) -> None:
        """Take account of rows."""
        self._total += moments.summed
        self._counts += len(moments.means) if moments.finite is None else moments.finite.sum(axis=0)

    def of_type(self, dtype: np.dtype[Any]) -> NDArray[Any]:
        """The mean: uint8 (H, W, C) for pixels of uint8; else float64, and NaN where no image has a finite value."""
        with np.errstate(invalid="ignore"):
            mean: NDArray[Any] = self._total / self._counts
        return mean.round().astype(np.uint8) if dtype == np.uint8 else mean


def _moments_of_integers(shape: tuple[int, int, int]) -> Callable[[NDArray[Any]], _Moments]:
    """A function for the moments of rows of integers.

    The first pixel of a row is subtracted from the others, so that rounding does not spoil the deviation of an image
    that hardly varies. Means over pixels are matrix products: numpy computes them ten times as fast as means over the
    axes of an array whose last axis has length 3.
    """
    height, width, channels = shape
    averaging = np.tile(np.eye(channels, dtype=np.float32), (height * width, 1)) / np.float32(height * width)

    def moments(pixels: NDArray[Any]) -> _Moments:
        first = pixels[:, :1, :1].astype(np.float32)
        values = (pixels - first).reshape(len(pixels), -1)
        summed = values.sum(axis=0).reshape(shape) + first.sum(axis=0)
        means = values @ averaging
        values *= values
        deviations = np.sqrt(np.maximum(values @ averaging - means**2, 0))
        return _Moments(first[:, 0, 0] + means, deviations, summed, None)

    return moments


def _moments_of_floats(pixels: NDArray[np.float32]) -> _Moments:
    """The moments of rows of floats. NaN and infinity do not count."""
    finite = np.isfinite(pixels)
    values = np.where(finite, pixels, 0).astype(np.float64)
    numbers = finite.sum(axis=(1, 2))
    with np.errstate(invalid="ignore", divide="ignore"):  # of rows without a finite value
        means = values.sum(axis=(1, 2)) / numbers
        squares = np.where(finite, values - means[:, None, None], 0) ** 2
        deviations = np.sqrt(squares.sum(axis=(1, 2)) / numbers)
    return _Moments(means, deviations, values.sum(axis=0), finite)


def _mean_of_finite(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean of the finite values of each column; NaN of a column without one: float64 (C,)."""
    finite = np.isfinite(values)
    numbers = finite.sum(axis=0)
    return np.where(numbers, np.where(finite, values, 0).sum(axis=0) / np.maximum(numbers, 1), np.nan)


def _blank(pixels: NDArray[Any], deviations: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether all pixels of each row are the same: bool (M,)."""
    blank: NDArray[np.bool_] = np.all(np.nan_to_num(deviations) < _MAYBE_BLANK, axis=1)
    for row in np.flatnonzero(blank).tolist():
        blank[row] = is_blank(pixels[row])
    return blank
