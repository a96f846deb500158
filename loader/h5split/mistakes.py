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
    scores = _scores(predictions, len(labels), len(class_names))
    bad = int((~np.isfinite(scores)).any(axis=1).sum())
    if bad:
        raise ValueError(f"predictions: expected numbers, found NaN or infinity in {bad} of {len(labels)} rows")
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


def _scores(predictions: NDArray[Any], count: int, classes: int) -> NDArray[Any]:
    found = predictions.shape
    if classes == 2 and found in {(count,), (count, 1)}:
        positive = predictions.reshape(count)
        return np.stack([1 - positive, positive], axis=1)
    if found != (count, classes):
        raise ValueError(
            f"predictions: expected shape {(count, classes)}, found {found}; "
            "they are what predict returns for this very sequence"
        )
    return predictions
