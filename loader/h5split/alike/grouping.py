"""Which rows must stay in one part of a split: those that are alike, or that have several things in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain

import numpy as np
from numpy.typing import ArrayLike, NDArray

from h5split.alike.content import CONTENT, Content, content_of, joined
from h5split.alike.near import NEAR, near_of
from h5split.errors import ArgumentError
from h5split.file.packs import Packs
from h5split.file.texts import Texts, column_of
from h5split.order.rows import Rows

_MAY_JOIN = "images that are added later can join two groups, and then rows would have to move"

Groups = str | Sequence[str] | ArrayLike | None


def resolved(groups: Groups, packs: Packs | None, rows: Rows, columns: Mapping[str, Texts], *, stable: bool) -> Groups:
    """Return the argument `groups` of a split with numbers in place of what is alike and of several names.

    A column or an array is returned as it is; None with `stable` means the content.

    Args:
        groups: As `SplitSequence.split` has it.
        packs: The packs; None if there are no rows.
        rows: int64 (N,), the rows of the packs.
        columns: Name -> N texts.
        stable: Whether images that are added later may move none.
    """
    if isinstance(groups, (list, tuple)) and _are_names(groups, columns):
        if stable:
            raise ArgumentError(f"split: expected one name with stable=True, found {groups!r}; {_MAY_JOIN}")
        return _connected([_numbers(name, packs, rows, columns) for name in groups], len(rows))
    if not isinstance(groups, str) or groups not in (CONTENT, NEAR):
        return groups
    if not stable:
        return _numbers(groups, packs, rows, columns)
    if groups == NEAR:
        raise ArgumentError(f"split: expected groups='content' or a column with stable=True, found 'near'; {_MAY_JOIN}")
    return None


def _are_names(groups: Sequence[object], columns: Mapping[str, Texts]) -> bool:
    """Whether a list is one of names of columns and of kinds of likeness; else it has a value for each row."""
    return len(groups) > 0 and all(isinstance(name, str) and name in (CONTENT, NEAR, *columns) for name in groups)


def _numbers(name: str, packs: Packs | None, rows: Rows, columns: Mapping[str, Texts]) -> Rows:
    """A number for each row, equal for rows that are alike or have the same text in a column: int64 (N,).

    An empty text is a value of its own: such a row has nothing in common with others.
    """
    selections = [] if packs is None else [(packs, rows)]
    if name == NEAR:
        return near_of(selections).numbers
    if name == CONTENT:
        return content_of(selections).numbers
    raw = column_of(columns, name).raw()
    numbers: NDArray[np.int64] = np.unique(raw, return_inverse=True)[1].astype(np.int64)
    is_empty = raw == b""
    numbers[is_empty] = len(rows) + np.flatnonzero(is_empty)
    return numbers


def _connected(numbers: Sequence[Rows], count: int) -> Rows:
    """A number for each row, equal for rows that are connected by equal numbers: int64 (N,)."""
    groups = joined(count, chain.from_iterable(map(_members, numbers)))
    return Content(count, groups, np.empty(0, np.int64)).numbers


def _members(numbers: Rows) -> list[Rows]:
    """The rows of each number that two or more rows have."""
    order = np.argsort(numbers, kind="stable")
    pieces = np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1)
    return [piece for piece in pieces if len(piece) > 1]
