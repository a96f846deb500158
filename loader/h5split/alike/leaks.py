"""Find images that are in several parts of a split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from h5split.alike.content import content_of
from h5split.alike.near import near_of
from h5split.errors import ArgumentTypeError
from h5split.file.packs import Packs
from h5split.order.rows import Rows


class Part(Protocol):
    """The attributes of a sequence that are used here."""

    @property
    def filenames(self) -> Sequence[str]: ...  # noqa: D102  # documented in SplitSequence

    @property
    def packs(self) -> Packs: ...  # noqa: D102

    @property
    def rows(self) -> Rows: ...  # noqa: D102


def leaks(*sequences: Part, near: bool = False) -> list[tuple[list[str], ...]]:
    """Find images that are in two or more sequences: identical files, or identical pixels.

    Images of a single colour count only if their files are identical; arrays, which have no files, never.

    For example:

        for in_train, in_val in leaks(train, val):
            print(in_train, "=", in_val)  # two lists of file names

    Args:
        sequences: The sequences, such as the parts of a split.
        near: Also find near-identical pictures: the same one after compression, rescaling, a change of brightness or
            contrast, a reflection or a turn. Sequences of different sizes are compared as well.

    Returns:
        A tuple for each content that is in several sequences, or with `near`, for each group of pictures that are
        connected by near-identical pairs. It has a list of file names for each sequence, in the order of the sequences.
        The list of a sequence that does not have the content is empty.
    """
    for sequence in sequences:
        if not hasattr(sequence, "rows"):
            raise ArgumentTypeError(
                f"leaks: expected sequences one by one, as in leaks(train, val), found {sequence!r}"
            )
    bounds = np.cumsum([0, *(len(sequence.rows) for sequence in sequences)])
    selections = [(sequence.packs, sequence.rows) for sequence in sequences if len(sequence.rows)]
    found = []
    for group in near_of(selections).groups if near else content_of(selections).groups:
        where = np.searchsorted(bounds, group, side="right") - 1
        if where[0] == where[-1]:
            continue
        names: tuple[list[str], ...] = tuple([] for _ in sequences)
        for sequence, row in zip(where.tolist(), group.tolist(), strict=True):
            names[sequence].append(sequences[sequence].filenames[row - int(bounds[sequence])])
        found.append(names)
    return found
