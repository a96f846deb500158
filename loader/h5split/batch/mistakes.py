"""Finds the rows that a network classifies wrongly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from h5split.errors import ArgumentError


@dataclass(frozen=True)
class Mistake:
    """A row that the network classifies wrongly.

    Attributes:
        filename: The file name of the source image.
        label: The class of the row according to its label.
        predicted: The class with the highest score.
        confidence: The score of that class.
        position: The position of the row in the predicted epoch.
    """

    filename: str
    label: str
    predicted: str
    confidence: float
    position: int


def find_mistakes(
    predictions: NDArray[Any], labels: NDArray[np.int32], filenames: Sequence[str], class_names: Sequence[str]
) -> list[Mistake]:
    """The wrong predictions, most confident first.

    Args:
        predictions: Scores (N, K). For two classes also (N, 1) or (N,), the score of the second class from 0 to 1.
        labels: int32 (N,).
        filenames: N names.
        class_names: K names.

    Raises:
        ValueError: The predictions have another shape, or are not finite.
    """
    scores = scores_of(predictions, len(labels), len(class_names))
    wrong, predicted, confidence = wrong_rows(scores, labels)
    return [
        Mistake(
            filename=filenames[position],
            label=class_names[labels[position]],
            predicted=class_names[taken_for],
            confidence=float(score),
            position=position,
        )
        for position, taken_for, score in zip(wrong.tolist(), predicted.tolist(), confidence.tolist(), strict=True)
    ]


def wrong_rows(
    scores: NDArray[Any], labels: NDArray[np.int32]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[Any]]:
    """The positions of wrong rows, most confident first; their predicted classes; the scores of these: (M,) each.

    Args:
        scores: (N, K), as `scores_of` returns them.
        labels: int32 (N,).
    """
    predicted = scores.argmax(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    confidence = scores[wrong, predicted[wrong]]
    order = np.argsort(-confidence, kind="stable")
    return wrong[order], predicted[wrong[order]], confidence[order]


def scores_of(predictions: NDArray[Any], count: int, classes: int) -> NDArray[Any]:
    """Convert predictions to one score for each row and class: (N, K).

    Args:
        predictions: As for `find_mistakes`.
        count: N, the number of rows.
        classes: K, the number of classes.

    Raises:
        ValueError: The predictions have another shape, or are not finite.
    """
    if predictions.dtype.kind not in "fiu":
        raise ArgumentError(f"predictions: expected numbers, found {predictions.dtype}")
    found = predictions.shape
    if classes == 2 and found in {(count,), (count, 1)}:
        positive = predictions.reshape(count)
        predictions = np.stack([1 - positive, positive], axis=1)
    elif found != (count, classes):
        raise ArgumentError(
            f"predictions: expected shape {(count, classes)}, found {found}; "
            "they are what predict returns for this very sequence"
        )
    bad = int((~np.isfinite(predictions)).any(axis=1).sum())
    if bad:
        raise ArgumentError(f"predictions: expected numbers, found NaN or infinity in {bad} of {count} rows")
    return predictions
