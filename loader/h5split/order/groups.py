"""The groups of rows that stay in one part of a split, as users give them: checked, and numbered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from h5split.errors import ArgumentError
from h5split.file.texts import Texts, column_of
from h5split.system.arrays import plain


def grouped(
    given: str | ArrayLike, columns: Mapping[str, Texts], filenames: Sequence[str]
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the different values of groups, in ascending order, and the number of the value of each row: int64 (N,).

    Args:
        given: The name of a column, or an array (N,).
        columns: Name -> N texts.
        filenames: N names.

    Raises:
        ValueError: There is no such column; or a row has no value, which would put all such rows into one part; or
            values cannot be sorted.
    """
    if isinstance(given, str):
        values, place = column_of(columns, given, "groups: ").raw(), f" in the column {given}"
    else:
        values, place = plain("groups", given), ""
        if isinstance(given, (list, tuple)) and values.dtype.kind in "SU":
            values = np.array(given, object)  # as numpy makes a text of NaN, too, if the other values are texts
    if values.shape != (len(filenames),):
        raise ArgumentError(f"groups: expected a value for each of {len(filenames)} rows, found shape {values.shape}")
    missing = np.flatnonzero(_is_missing(values))
    if len(missing):
        raise ArgumentError(
            f"groups: expected a value for each row, found none{place} for {len(missing):,} of {len(values):,} rows, "
            f"such as {filenames[int(missing[0])]!r}; leave them out by select(), or give an array in which they have "
            "values"
        )
    try:
        distinct, number = np.unique(values, return_inverse=True)
    except TypeError:
        kinds = sorted({type(value).__name__ for value in values.tolist()})
        raise ArgumentError(f"groups: expected all numbers or all texts, found {' and '.join(kinds)}") from None
    return distinct, number


def _is_missing(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether each value says that there is none, such as NaN, None or an empty text: bool (N,)."""
    if values.dtype.kind == "O":
        return np.array([_is_none(value) for value in values.tolist()], np.bool_)
    if values.dtype.kind in "SU":
        return np.asarray(values == values.dtype.type())
    return np.asarray(values != values)


def _is_none(value: object) -> bool:
    try:
        return value is None or value == "" or bool(value != value)
    except TypeError:  # pandas.NA is neither equal to itself nor different
        return True
