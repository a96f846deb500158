"""What a network makes of the rows: the section of a page about predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from h5split.console import shown
from h5split.mistakes import find_mistakes, scores_of
from h5split.packs import Packs
from h5split.rows import Rows
from h5split.view.gallery import Gallery

_MISTAKES = 120
_CONFUSIONS = 20
_MATRIX_CLASSES = 40


def predictions(packs: Packs, rows: Rows, given: NDArray[Any], gallery: Gallery) -> dict[str, Any]:
    """How right they are, which classes are confused, and the mistakes, most confident first.

    Args:
        packs: The rows' own.
        rows: Those that were predicted, in that order: int64 (M,).
        given: What `predict` returned: (M, K), or (M, 1) or (M,) for two classes.
        gallery: Makes tiles.

    Raises:
        ValueError: As `mistakes`.
    """
    labels, names = packs.labels[rows], packs.class_names
    scores = scores_of(given, len(rows), len(names))
    predicted = scores.argmax(axis=1)
    confidence = scores[np.arange(len(rows)), predicted]
    matrix = np.zeros((len(names), len(names)), np.int64)
    np.add.at(matrix, (labels, predicted), 1)
    mistakes = find_mistakes(given, labels, packs.filenames.take(rows), names)
    first = mistakes[:_MISTAKES]
    return {
        "count": len(rows),
        "wrong": len(mistakes),
        "accuracy": 1 - len(mistakes) / len(rows),
        "names": names,
        "matrix": matrix.tolist() if len(names) <= _MATRIX_CLASSES else None,
        "classes": _scores_by_class(matrix, names),
        "confusions": _confusions(matrix, names),
        "confidence": _confidence(confidence, predicted == labels),
        "tiles": gallery.tiles(
            rows[np.array([mistake.position for mistake in first], np.int64)],
            [f"taken for {shown(mistake.predicted)}, {mistake.confidence:.1%}" for mistake in first],
            [mistake.predicted for mistake in first],
        ),
    }


def _scores_by_class(matrix: NDArray[np.int64], names: Sequence[str]) -> list[dict[str, Any]]:
    right, of_class, as_class = np.diagonal(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    return [
        {
            "name": name,
            "count": int(of_class[label]),
            "recall": right[label] / of_class[label] if of_class[label] else None,
            "precision": right[label] / as_class[label] if as_class[label] else None,
        }
        for label, name in enumerate(names)
    ]


def _confusions(matrix: NDArray[np.int64], names: Sequence[str]) -> list[dict[str, Any]]:
    """The pairs of classes that are taken for one another, the most frequent first."""
    off = matrix - np.diag(np.diagonal(matrix))
    order = np.argsort(-off, axis=None, kind="stable")[:_CONFUSIONS]
    pairs = [divmod(at, len(names)) for at in order.tolist()]
    return [
        {"label": names[label], "predicted": names[predicted], "count": int(off[label, predicted])}
        for label, predicted in pairs
        if off[label, predicted]
    ]


def _confidence(confidence: NDArray[Any], right: NDArray[np.bool_]) -> list[dict[str, float]]:
    """How many predictions of each confidence are right and wrong: tenths of it from 0 to 1."""
    tenth = np.clip((confidence * 10).astype(np.int64), 0, 9)
    of_right, of_wrong = np.bincount(tenth[right], minlength=10), np.bincount(tenth[~right], minlength=10)
    most = int((of_right + of_wrong).max())
    return [
        {"right": yes, "wrong": no, "right_share": yes / most, "wrong_share": no / most}
        for yes, no in zip(of_right.tolist(), of_wrong.tolist(), strict=True)
    ]
