"""Finds the rows that a network gets wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from h5split.errors import ArgumentError
from h5split.file.classes import NO_LABELS, is_unlabelled

_LEAST_PLAIN, _MOST_PLAIN = 1e-4, 1e16  # numbers between these are written without an exponent, as Python does


@dataclass(frozen=True)
class Mistake:
    """A row that the network gets wrong.

    Label and prediction are texts for people, also of numbers: "79" and "0.37989157". For numbers to compute with, take
    `sequence.get_targets()` and the predictions at `position`.

    Attributes:
        filename: The file name of the source image.
        label: Its class, its tags, or its numbers, as text, joined by ", ".
        predicted: The class with the highest score, the tags from the threshold on, or the predicted numbers, as text.
        confidence: The score of that class; the score of a wrong tag (1 less the score of a tag that is missing), the
            highest of them. For predictions of numbers, it is no confidence: it is the absolute error, the largest one
            if there are several numbers, in the unit of the column.
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
        ValueError: The images have no labels; or the predictions have another shape, or are not finite.
    """
    scores = scores_of(predictions, len(labels), class_names)
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


def find_wrong_tags(
    predictions: NDArray[Any],
    targets: NDArray[np.float32],
    filenames: Sequence[str],
    tags: Sequence[str],
    threshold: float,
) -> list[Mistake]:
    """Return the rows with wrong tags, most confident first.

    Args:
        predictions: Scores (N, K).
        targets: float32 (N, K), 0 or 1.
        filenames: N names.
        tags: K names.
        threshold: The score from which on a tag counts as predicted.

    Raises:
        ValueError: The predictions have another shape, or are not finite; or the threshold is not finite.
    """
    scores = numbers_like(targets, predictions)
    there, predicted = targets > 0, predicted_tags(scores, threshold)
    wrong, confidence = rows_with_wrong_tags(scores, there, predicted)
    return [
        Mistake(
            filename=filenames[position],
            label=_joined(tags, there[position]),
            predicted=_joined(tags, predicted[position]),
            confidence=sure,
            position=position,
        )
        for position, sure in zip(wrong.tolist(), confidence.tolist(), strict=True)
    ]


def find_errors(predictions: NDArray[Any], targets: NDArray[Any], filenames: Sequence[str]) -> list[Mistake]:
    """Return all rows, largest absolute error first.

    Args:
        predictions: (N, K), or for one number a row also (N, 1) or (N,).
        targets: (N, K) or (N,).
        filenames: N names.

    Raises:
        ValueError: The predictions have another shape; or predictions or targets are not finite.
    """
    errors = np.abs(numbers_like(targets, predictions) - targets)
    given = predictions.reshape(targets.shape)
    largest = errors.max(axis=_all_but_rows(errors), initial=0)
    return [
        Mistake(
            filename=filenames[position],
            label=_written(targets[position]),
            predicted=_written(given[position]),
            confidence=float(largest[position]),
            position=position,
        )
        for position in np.argsort(-largest, kind="stable").tolist()
    ]


def numbers_like(targets: NDArray[Any], predictions: NDArray[Any]) -> NDArray[np.float64]:
    """Check predictions, and return them in the shape of the targets.

    Args:
        targets: (N, K) or (N,).
        predictions: (N, K), or for one number a row also (N, 1) or (N,).

    Raises:
        ValueError: The predictions have another shape; or predictions or targets are not finite.
    """
    _check_numbers(predictions)
    rows = len(targets)
    is_single = targets.size == rows
    if predictions.shape != targets.shape and not (is_single and predictions.shape in ((rows, 1), (rows,))):
        raise ArgumentError(
            f"predictions: expected shape {targets.shape}, found {predictions.shape}; "
            "they are what predict returns for this very sequence or part"
        )
    _check_finite("predictions", predictions)
    _check_finite("targets", targets, "; leave such rows out by select()")
    return predictions.reshape(targets.shape).astype(np.float64)


def predicted_tags(scores: NDArray[np.float64], threshold: float) -> NDArray[np.bool_]:
    """Return which tags count as predicted: bool (N, K).

    Args:
        scores: (N, K).
        threshold: The score from which on a tag counts.

    Raises:
        ValueError: The threshold is not finite.
    """
    if not np.isfinite(threshold):
        raise ArgumentError(f"threshold: expected a number such as 0.5, found {threshold}")
    return scores >= threshold


def rows_with_wrong_tags(
    scores: NDArray[np.float64], there: NDArray[np.bool_], predicted: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The positions of rows with wrong tags, most confident first, and the confidence of each: (M,) each.

    The confidence in a wrong tag is its score, or 1 less the score of a tag that is missing. That of a row is the
    highest of them.

    Args:
        scores: (N, K).
        there: bool (N, K), the tags that each row has.
        predicted: bool (N, K), the tags that are predicted.
    """
    is_wrong = there != predicted
    wrong = np.flatnonzero(is_wrong.any(axis=1))
    confidence = np.where(is_wrong, np.where(predicted, scores, 1 - scores), -np.inf)[wrong].max(
        axis=1, initial=-np.inf
    )
    order = np.argsort(-confidence, kind="stable")
    return wrong[order], confidence[order]


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


def scores_of(predictions: NDArray[Any], count: int, class_names: Sequence[str]) -> NDArray[Any]:
    """Convert predictions to one score for each row and class: (N, K).

    Args:
        predictions: As for `find_mistakes`.
        count: N, the number of rows.
        class_names: K names.

    Raises:
        ValueError: The images have no labels; or the predictions have another shape, or are not finite.
    """
    if is_unlabelled(class_names):
        raise ArgumentError(f"predictions: expected labels to compare them with, found none: {NO_LABELS}")
    _check_numbers(predictions)
    found, classes = predictions.shape, len(class_names)
    if classes == 2 and found in {(count,), (count, 1)}:
        positive = predictions.reshape(count)
        predictions = np.stack([1 - positive, positive], axis=1)
    elif found != (count, classes):
        raise ArgumentError(
            f"predictions: expected shape {(count, classes)}, found {found}; "
            "they are what predict returns for this very sequence or part"
        )
    _check_finite("predictions", predictions)
    return predictions


def _joined(names: Sequence[str], mask: NDArray[np.bool_]) -> str:
    return ", ".join(name for name, is_there in zip(names, mask.tolist(), strict=True) if is_there)


def _written(numbers: Any) -> str:
    return ", ".join(map(_all_digits, np.atleast_1d(numbers)))


def _all_digits(number: Any) -> str:
    """A number with all digits that tell it from others of its dtype."""
    if not isinstance(number, np.floating):
        return str(number)
    is_plain = number == 0 or _LEAST_PLAIN <= abs(number) < _MOST_PLAIN
    return (np.format_float_positional if is_plain else np.format_float_scientific)(number, trim="-")


def _check_numbers(predictions: NDArray[Any]) -> None:
    if predictions.dtype.kind not in "fiu":
        raise ArgumentError(f"predictions: expected numbers, found {predictions.dtype}")


def _check_finite(what: str, numbers: NDArray[Any], advice: str = "") -> None:
    bad = np.count_nonzero(~np.isfinite(numbers).all(axis=_all_but_rows(numbers)))
    if bad:
        raise ArgumentError(f"{what}: expected numbers, found NaN or infinity in {bad} of {len(numbers)} rows{advice}")


def _all_but_rows(array: NDArray[Any]) -> tuple[int, ...]:
    """The axes of an array but the first; a reshape to two axes would fail for no rows."""
    return tuple(range(1, array.ndim))
