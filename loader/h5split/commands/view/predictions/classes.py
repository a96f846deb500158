"""Predictions of classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from h5split.batch.mistakes import scores_of, wrong_rows
from h5split.commands.view.gallery import Gallery, Tile
from h5split.commands.view.limits import CLASSES, LISTED, brief
from h5split.commands.view.predictions.chosen import as_score, chosen_mistakes
from h5split.file.packs import Packs
from h5split.order.rows import Rows

_MAX_CONFUSIONS = 20  # pairs of classes in the list
_MAX_MATRIX_CLASSES = 40  # a larger confusion matrix is not readable


def of_classes(packs: Packs, rows: Rows, given: NDArray[Any], gallery: Gallery) -> dict[str, Any]:
    """Accuracy, confused classes, and the mistakes, most confident first.

    Args:
        packs: The packs that hold the rows.
        rows: int64 (M,), the predicted rows in the order of the predictions.
        given: The return value of `predict`: (M, K), or (M, 1) or (M,) for two classes.
        gallery: Makes the tiles.

    Raises:
        ValueError: As `mistakes`.
    """
    labels, names = packs.labels[rows], packs.class_names
    scores = scores_of(given, len(rows), names)
    wrong, taken_for, sure = wrong_rows(scores, labels)
    pairs = labels[wrong].astype(np.int64) * len(names) + taken_for
    frequent = _by_frequency(pairs)
    chosen = chosen_mistakes(len(wrong), [members for _, members in frequent])
    are_shares = scores.min() >= 0 and scores.max() <= 1
    predicted = scores.argmax(axis=1)
    tiles = _tiles(packs, rows[wrong[chosen]], taken_for[chosen], sure[chosen], are_shares, gallery)
    pictured = {(tile.label, tile.predicted) for tile in tiles}
    in_matrix = _most_confused(labels, predicted, len(names))
    return {
        "count": len(rows),
        "wrong": len(wrong),
        "accuracy": 1 - len(wrong) / len(rows),
        "names": names if len(names) <= _MAX_MATRIX_CLASSES else sorted({tile.label for tile in tiles}),
        "taken_for": names if len(names) <= _MAX_MATRIX_CLASSES else sorted({tile.predicted for tile in tiles}),
        "matrix": _matrix(labels, predicted, in_matrix).tolist(),
        "pictured": pictured,
        "has_all_pictured": len(pictured) == len(np.unique(pairs)),
        "matrix_names": [names[label] for label in in_matrix.tolist()],
        "classes": _scores_by_class(labels, predicted, names),
        "all_classes": len(names),
        "confusions": [
            {"label": names[pair // len(names)], "predicted": names[pair % len(names)], "count": len(members)}
            for pair, members in frequent[:_MAX_CONFUSIONS]
        ],
        "confidence": _confidence(scores[np.arange(len(rows)), predicted], predicted == labels) if are_shares else None,
        "tiles": tiles,
    }


def _by_frequency(pairs: NDArray[np.int64]) -> list[tuple[int, NDArray[np.int64]]]:
    """The most frequent pairs of confused classes, each with the indices of its mistakes.

    Args:
        pairs: int64 (M,), the pair of each mistake, most confident first, as the number label * K + prediction.
    """
    order = np.argsort(pairs, kind="stable")
    found, starts, counts = np.unique(pairs[order], return_index=True, return_counts=True)
    most = np.argsort(-counts, kind="stable")[:LISTED].tolist()
    return [(int(found[at]), order[starts[at] : starts[at] + counts[at]]) for at in most]


def _tiles(
    packs: Packs,
    rows: Rows,
    taken_for: NDArray[np.int64],
    sure: NDArray[Any],
    are_shares: bool,
    gallery: Gallery,
) -> list[Tile]:
    names = [packs.class_names[label] for label in taken_for.tolist()]
    scores = [as_score(score, is_share=are_shares) for score in sure.tolist()]
    notes = [f"taken for {brief(name)}, {score}" for name, score in zip(names, scores, strict=True)]
    return gallery.tiles(rows, notes, names)


def _most_confused(labels: NDArray[np.int32], predicted: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """The classes with the most mistakes, as label or as prediction, as many as a matrix can show: int64, ascending."""
    wrong = labels != predicted
    mistakes = sum(np.bincount(found[wrong], minlength=classes) for found in (labels, predicted))
    return np.sort(np.argsort(-np.asarray(mistakes), kind="stable")[:_MAX_MATRIX_CLASSES])


def _matrix(labels: NDArray[np.int32], predicted: NDArray[np.int64], classes: NDArray[np.int64]) -> NDArray[np.int64]:
    """The confusion matrix of some classes: rows are true classes, columns are predicted classes: int64 (K, K).

    Args:
        labels: int32 (M,).
        predicted: int64 (M,).
        classes: int64 (K,), ascending. Rows of other classes are not counted.
    """
    inside = np.isin(labels, classes) & np.isin(predicted, classes)
    matrix = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(matrix, (np.searchsorted(classes, labels[inside]), np.searchsorted(classes, predicted[inside])), 1)
    return matrix


def _scores_by_class(
    labels: NDArray[np.int32], predicted: NDArray[np.int64], names: Sequence[str]
) -> list[dict[str, Any]]:
    """Recall and precision of each class. If there are too many classes, those with the lowest recall are taken."""
    of_class, as_class = (np.bincount(found, minlength=len(names)) for found in (labels, predicted))
    right = np.bincount(labels[labels == predicted], minlength=len(names))
    lowest = np.argsort(np.where(of_class > 0, right / np.maximum(of_class, 1), np.inf), kind="stable")
    return [
        {
            "name": names[label],
            "count": int(of_class[label]),
            "recall": right[label] / of_class[label] if of_class[label] else None,
            "precision": right[label] / as_class[label] if as_class[label] else None,
        }
        for label in np.sort(lowest[:CLASSES]).tolist()
    ]


def _confidence(confidence: NDArray[Any], right: NDArray[np.bool_]) -> list[dict[str, float]]:
    """A histogram of the confidence with ten bins from 0 to 1: the right and the wrong predictions in each bin."""
    tenth = np.clip((confidence * 10).astype(np.int64), 0, 9)
    of_right, of_wrong = np.bincount(tenth[right], minlength=10), np.bincount(tenth[~right], minlength=10)
    most = int((of_right + of_wrong).max())
    return [
        {"right": yes, "wrong": no, "right_share": yes / most, "wrong_share": no / most}
        for yes, no in zip(of_right.tolist(), of_wrong.tolist(), strict=True)
    ]
