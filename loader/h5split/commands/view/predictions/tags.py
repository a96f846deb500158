"""Predictions of tags."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from h5split.batch.mistakes import numbers_like, predicted_tags, rows_with_wrong_tags
from h5split.commands.view.gallery import Gallery, Tile
from h5split.commands.view.limits import CLASSES, brief
from h5split.commands.view.predictions.chosen import as_score, chosen_mistakes

if TYPE_CHECKING:
    from h5split.batches import SplitSequence

_MAX_NAMED = 5  # tags that are named of one image
_NO_TAGS = "no tags"


def of_tags(sequence: SplitSequence, given: NDArray[Any], gallery: Gallery, threshold: float) -> dict[str, Any]:
    """Precision and recall of each tag, and the images with a wrong tag, most confident first.

    Args:
        sequence: The predicted rows. Their targets are tags.
        given: The return value of `predict`: scores (M, K).
        gallery: Makes the tiles.
        threshold: The score from which on a tag counts as predicted.

    Raises:
        ValueError: As `mistakes`.
    """
    names, there = sequence.target_names, sequence.get_targets() > 0
    scores = numbers_like(there, given)
    predicted = predicted_tags(scores, threshold)
    wrong, _ = rows_with_wrong_tags(scores, there, predicted)
    shown = wrong[chosen_mistakes(len(wrong), _by_tag(there[wrong] != predicted[wrong]))]
    labels = [_listed(names, tags) for tags in there[shown]]
    taken_for = [_listed(names, tags) for tags in predicted[shown]]
    are_shares = bool(scores.min() >= 0 and scores.max() <= 1)
    texts = [[as_score(score, is_share=are_shares) for score in line] for line in scores[shown].tolist()]
    notes = _notes(names, texts, there[shown], predicted[shown])
    tiles: list[Tile] = gallery.tiles(sequence.delivered[shown], notes, taken_for, labels)
    return {
        "count": len(there),
        "wrong": len(wrong),
        "accuracy": 1 - len(wrong) / len(there),
        "threshold": f"{threshold:g}",
        "tags": _scores_by_tag(scores, there, predicted, names),
        "all_tags": len(names),
        "labels": sorted(set(labels)),
        "taken_for": sorted(set(taken_for)),
        "tiles": tiles,
    }


def average_precision(scores: NDArray[np.float64], there: NDArray[np.bool_]) -> float | None:
    """The mean precision over all thresholds, each weighted by the recall that it adds; None if no image has the tag.

    This is the definition of scikit-learn's `average_precision_score`. Equal scores count as one threshold.

    Args:
        scores: (N,).
        there: bool (N,), whether each image has the tag.
    """
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], np.cumsum(there[order])
    if not hits[-1]:
        return None
    last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))  # the last image of each threshold
    added = np.diff(hits[last], prepend=0)
    return float((added * hits[last] / (last + 1)).sum() / hits[-1])


def _scores_by_tag(
    scores: NDArray[np.float64], there: NDArray[np.bool_], predicted: NDArray[np.bool_], names: Sequence[str]
) -> list[dict[str, Any]]:
    """Precision, recall, F1 and average precision of each tag. If there are too many, those with the lowest F1."""
    have, found, right = (mask.sum(axis=0) for mask in (there, predicted, there & predicted))
    f1 = 2 * right / np.maximum(have + found, 1)
    lowest = np.argsort(np.where(have + found > 0, f1, np.inf), kind="stable")
    return [
        {
            "name": names[tag],
            "count": int(have[tag]),
            "predicted": int(found[tag]),
            "precision": right[tag] / found[tag] if found[tag] else None,
            "recall": right[tag] / have[tag] if have[tag] else None,
            "f1": float(f1[tag]) if have[tag] + found[tag] else None,
            "average_precision": average_precision(scores[:, tag], there[:, tag]),
        }
        for tag in np.sort(lowest[:CLASSES]).tolist()
    ]


def _by_tag(is_wrong: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    """For each tag, the indices of the images that have it wrong; the tag that is wrong most often comes first."""
    most = np.argsort(-is_wrong.sum(axis=0), kind="stable")[:CLASSES]
    return [np.flatnonzero(is_wrong[:, tag]) for tag in most.tolist()]


def _notes(
    names: Sequence[str], scores: Sequence[Sequence[str]], there: NDArray[np.bool_], predicted: NDArray[np.bool_]
) -> list[str]:
    """For each image, the tags that are predicted wrongly or missed, with their scores.

    Args:
        names: K names.
        scores: The scores of each of M images, K texts each.
        there: bool (M, K), the tags that each image has.
        predicted: bool (M, K), the tags that are predicted.
    """
    briefs = [brief(name) for name in names]
    notes = []
    for texts, has, found in zip(scores, there, predicted, strict=True):
        scored = [f"{name} ({text})" for name, text in zip(briefs, texts, strict=True)]
        parts = (("predicted wrongly", found & ~has), ("missed", has & ~found))
        notes.append("; ".join(f"{what}: {_listed(scored, tags)}" for what, tags in parts if tags.any()))
    return notes


def _listed(names: Sequence[str], mask: NDArray[np.bool_]) -> str:
    """The names where the mask is true. The last ones of many are only counted."""
    there = np.flatnonzero(mask).tolist()
    more = len(there) - _MAX_NAMED
    return ", ".join([names[at] for at in there[:_MAX_NAMED]] + ([f"{more:,} more"] if more > 0 else [])) or _NO_TAGS
