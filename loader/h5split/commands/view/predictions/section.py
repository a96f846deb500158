"""The section of a page about the predictions of a network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from h5split.commands.view.predictions.classes import of_classes
from h5split.commands.view.predictions.numbers import of_numbers
from h5split.commands.view.predictions.tags import of_tags
from h5split.errors import ArgumentError
from h5split.system.arrays import plain

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from h5split.batches import SplitSequence
    from h5split.commands.view.gallery import Gallery


def predictions(sequence: SplitSequence, given: ArrayLike, gallery: Gallery, threshold: float) -> dict[str, Any]:
    """The quality of predictions and the mistakes, the worst first.

    Args:
        sequence: The predicted rows and their targets.
        given: The return value of `predict`.
        gallery: Makes the tiles.
        threshold: The score from which on a tag counts as predicted.

    Returns:
        What `of_classes`, `of_tags` or `of_numbers` returns, with the kind of the targets as `kind`.

    Raises:
        ValueError: As `mistakes`; or the epoch has no rows.
    """
    kind, rows = sequence.target_kind, sequence.delivered
    if kind in ("pictures", "other"):
        is_dict = kind == "other" and isinstance(sequence.get_targets([]), dict)
        raise ArgumentError(_advice(is_dict, "pictures" if kind == "pictures" else "text or an array of more axes"))
    if not len(rows):
        raise ArgumentError("predictions: expected an epoch with images, found none")
    found = plain("predictions", given)
    if kind == "class":
        section = of_classes(sequence.packs, rows, found, gallery)
    elif kind == "tags":
        section = of_tags(sequence, found, gallery, threshold)
    else:
        section = of_numbers(sequence, found, gallery)
    return {"kind": kind, **section}


def _advice(is_dict: bool, found: str) -> str:
    if is_dict:
        return (
            "report: expected classes, tags or numbers as targets, found a dict; write a page for each target: "
            "set(targets=...) to one of them, and give its predictions"
        )
    return (
        f"report: expected classes, tags or numbers as targets, found {found}; "
        "give None as predictions, or set(targets=...) to numbers"
    )
