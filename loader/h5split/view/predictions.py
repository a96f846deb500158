"""What a network makes of the rows: the section of a page about predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from h5split.console import shown
from h5split.mistakes import Mistake, find_mistakes, scores_of
from h5split.packs import Packs
from h5split.rows import Rows
from h5split.view.gallery import Gallery

_MISTAKES = 120
_OF_A_PAIR = 6  # mistakes that are shown of each pair of classes, if need be
MOST_TILES = 300
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
    mistakes = find_mistakes(scores, labels, packs.filenames.take(rows), names)
    confusions = _confusions(matrix, names)
    are_shares = scores.min() >= 0 and scores.max() <= 1
    chosen = _chosen(mistakes, confusions)
    sure = [f"{mistake.confidence:.1%}" if are_shares else f"score {mistake.confidence:.3g}" for mistake in chosen]
    return {
        "count": len(rows),
        "wrong": len(mistakes),
        "accuracy": 1 - len(mistakes) / len(rows),
        "names": names,
        "matrix": matrix.tolist() if len(names) <= _MATRIX_CLASSES else None,
        "classes": _scores_by_class(matrix, names),
        "confusions": confusions[:_CONFUSIONS],
        "confidence": _confidence(confidence, predicted == labels) if are_shares else None,
        "tiles": gallery.tiles(
            rows[np.array([mistake.position for mistake in chosen], np.int64)],
            [f"taken for {shown(mistake.predicted)}, {score}" for mistake, score in zip(chosen, sure, strict=True)],
            [mistake.predicted for mistake in chosen],
        ),
    }


def _chosen(mistakes: Sequence[Mistake], confusions: Sequence[dict[str, Any]]) -> list[Mistake]:
    """The most confident mistakes, and the first of each pair of classes, so that there is something to see of it."""
    of_pair: dict[tuple[str, str], list[int]] = {}
    for number, mistake in enumerate(mistakes):
        of_pair.setdefault((mistake.label, mistake.predicted), []).append(number)
    chosen = set(range(min(_MISTAKES, len(mistakes))))
    for pair in confusions:
        if len(chosen) + _OF_A_PAIR <= MOST_TILES:
            chosen.update(of_pair[pair["label"], pair["predicted"]][:_OF_A_PAIR])
    return [mistakes[number] for number in sorted(chosen)]


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
    order = np.argsort(-off, axis=None, kind="stable")[: np.count_nonzero(off)]
    return [
        {"label": names[label], "predicted": names[predicted], "count": int(off[label, predicted])}
        for label, predicted in (divmod(at, len(names)) for at in order.tolist())
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
