"""Predictions of numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from h5split.batch.mistakes import numbers_like
from h5split.commands.view.gallery import Gallery, Tile
from h5split.commands.view.limits import CLASSES
from h5split.commands.view.predictions.chosen import MOST_TILES
from h5split.errors import ArgumentError

if TYPE_CHECKING:
    from h5split.batches import SplitSequence

_MAX_PICTURED = 12  # targets with a chart and tiles
_MAX_TILES = 120  # the tiles of one target
_BINS = 24  # of a chart, along each axis
_FAINTEST = 0.25  # the opacity of a cell of a chart that holds hardly any image


def of_numbers(sequence: SplitSequence, given: NDArray[Any], gallery: Gallery) -> dict[str, Any]:
    """The errors of each target, a chart of predicted against true values, and the images with the largest errors.

    Args:
        sequence: The predicted rows. Their targets are numbers.
        given: The return value of `predict`: (M, K), or (M, 1) or (M,) for one target.
        gallery: Makes the tiles.

    Raises:
        ValueError: As `mistakes`.
    """
    targets = sequence.get_targets()
    if not targets.size:
        raise ArgumentError(f"report: expected targets, found an array of shape {targets.shape}")
    predicted = numbers_like(targets, given).reshape(len(targets), -1)
    true = targets.reshape(len(targets), -1).astype(np.float64)
    names = _names(sequence, true.shape[1])
    worst = np.argsort(_quality(predicted, true), kind="stable")
    pictured = np.sort(worst[:_MAX_PICTURED]).tolist()
    each = min(_MAX_TILES, MOST_TILES // len(pictured))
    return {
        "count": len(true),
        "wrong": int((predicted != true).any(axis=1).sum()),
        "worst": _scores(names[worst[0]], predicted[:, worst[0]], true[:, worst[0]]),
        "targets": [_scores(names[at], predicted[:, at], true[:, at]) for at in np.sort(worst[:CLASSES]).tolist()],
        "all_targets": len(names),
        "charts": [{"name": names[at], **_chart(predicted[:, at], true[:, at])} for at in pictured],
        "groups": [
            {"name": names[at], "tiles": _tiles(sequence, names[at], predicted[:, at], true[:, at], each, gallery)}
            for at in pictured
        ],
    }


def mean_absolute_error(predicted: NDArray[np.float64], true: NDArray[np.float64]) -> float:
    """The mean of the absolute errors.

    Args:
        predicted: (N,).
        true: (N,).
    """
    return float(np.abs(predicted - true).mean())


def root_mean_squared_error(predicted: NDArray[np.float64], true: NDArray[np.float64]) -> float:
    """The square root of the mean of the squared errors, of arrays (N,) each."""
    return float(np.sqrt(np.square(predicted - true).mean()))


def r_squared(predicted: NDArray[np.float64], true: NDArray[np.float64]) -> float | None:
    """The coefficient of determination, of arrays (N,) each; None if all true values are the same.

    It is 1 for perfect predictions, and 0 for predictions that are as good as the mean of the true values.
    """
    spread = np.square(true - true.mean()).sum()
    if true.min() == true.max() or not spread:
        return None
    return float(1 - np.square(predicted - true).sum() / spread)


def _names(sequence: SplitSequence, count: int) -> list[str]:
    """The names of targets. Those of an array have none, and are numbered."""
    return sequence.target_names or (["target"] if count == 1 else [f"target {at}" for at in range(count)])


def _quality(predicted: NDArray[np.float64], true: NDArray[np.float64]) -> NDArray[np.float64]:
    """R² of each target, to find the worst ones; constant targets count as perfect: (K,)."""
    found = [r_squared(*columns) for columns in zip(predicted.T, true.T, strict=True)]
    return np.array([1.0 if one is None else one for one in found])


def _scores(name: str, predicted: NDArray[np.float64], true: NDArray[np.float64]) -> dict[str, Any]:
    """The line of the table about a target, as texts."""
    quality = r_squared(predicted, true)
    return {
        "name": name,
        "range": f"{true.min():g}" if true.min() == true.max() else f"{true.min():g} to {true.max():g}",
        "mean_absolute_error": f"{mean_absolute_error(predicted, true):.4g}",
        "root_mean_squared_error": f"{root_mean_squared_error(predicted, true):.4g}",
        "largest_error": f"{np.abs(predicted - true).max():.4g}",
        "r_squared": None if quality is None else f"{quality:.3f}" if quality > -1000 else f"{quality:.3g}",
    }


def _chart(predicted: NDArray[np.float64], true: NDArray[np.float64]) -> dict[str, Any]:
    """A histogram of (true, predicted) values. Both axes have the same range.

    Returns:
        bins: The number of bins along each axis.
        low: The lower end of the axes, as text.
        high: The upper end of the axes, as text.
        cells: The cells that hold images: the bin of the true value, that of the predicted value, the number of images,
            and an opacity.
    """
    low, high = min(predicted.min(), true.min()), max(predicted.max(), true.max())
    width = (high - low) or 1.0
    at, up = (np.clip(((values - low) / width * _BINS).astype(np.int64), 0, _BINS - 1) for values in (true, predicted))
    counts = np.bincount(at * _BINS + up, minlength=_BINS**2)
    most = counts.max()
    return {
        "bins": _BINS,
        "low": f"{low:.4g}",
        "high": f"{high:.4g}",
        "cells": [
            (cell // _BINS, cell % _BINS, int(counts[cell]), _FAINTEST + (1 - _FAINTEST) * counts[cell] / most)
            for cell in np.flatnonzero(counts).tolist()
        ],
    }


def _tiles(
    sequence: SplitSequence,
    name: str,
    predicted: NDArray[np.float64],
    true: NDArray[np.float64],
    most: int,
    gallery: Gallery,
) -> list[Tile]:
    """The images with the largest errors of a target; none with a perfect prediction."""
    errors = predicted - true
    largest = np.argsort(-np.abs(errors), kind="stable")[:most]
    largest = largest[errors[largest] != 0]
    notes = [f"true {true[at]:.7g}, predicted {predicted[at]:.7g}, error {errors[at]:+.3g}" for at in largest.tolist()]
    return gallery.tiles(sequence.delivered[largest], notes, labels=[name] * len(largest))
