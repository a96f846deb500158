"""The rows that a network gets wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Mistake:
    """A row that the network gets wrong.

    Attributes:
        filename: Of the source image.
        label: The class it is said to be.
        predicted: The class the network takes it for.
        confidence: What the network gave that class.
        position: In the epoch predicted.
    """

    filename: str
    label: str
    predicted: str
    confidence: float
    position: int


def find_mistakes(
    predictions: NDArray[Any], labels: NDArray[np.int32], filenames: Sequence[str], class_names: Sequence[str]
) -> list[Mistake]:
    """The mistakes among predictions, most confident first.

    Args:
        predictions: (N, K); or (N, 1) or (N,), the second class' share of two.
        labels: int32 (N,).
        filenames: N.
        class_names: K.

    Raises:
        ValueError: Predictions are of another shape, or not finite.
    """
    scores = scores_of(predictions, len(labels), len(class_names))
    predicted = scores.argmax(axis=1)
    confidence = scores[np.arange(len(labels)), predicted]
    wrong = np.flatnonzero(predicted != labels)
    wrong = wrong[np.argsort(-confidence[wrong], kind="stable")]
    return [
        Mistake(
            filename=filenames[position],
            label=class_names[labels[position]],
            predicted=class_names[predicted[position]],
            confidence=float(confidence[position]),
            position=position,
        )
        for position in wrong.tolist()
    ]


def scores_of(predictions: NDArray[Any], count: int, classes: int) -> NDArray[Any]:
    """Predictions as a score for each class: (N, K).

    Args:
        predictions: As for `find_mistakes`.
        count: N.
        classes: K.

    Raises:
        ValueError: Predictions are of another shape, or not finite.
    """
    if predictions.dtype.kind not in "fiu":
        raise ValueError(f"predictions: expected numbers, found {predictions.dtype}")
    found = predictions.shape
    if classes == 2 and found in {(count,), (count, 1)}:
        positive = predictions.reshape(count)
        predictions = np.stack([1 - positive, positive], axis=1)
    elif found != (count, classes):
        raise ValueError(
            f"predictions: expected shape {(count, classes)}, found {found}; "
            "they are what predict returns for this very sequence"
        )
    bad = int((~np.isfinite(predictions)).any(axis=1).sum())
    if bad:
        raise ValueError(f"predictions: expected numbers, found NaN or infinity in {bad} of {count} rows")
    return predictions
