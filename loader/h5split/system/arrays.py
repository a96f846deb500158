"""Arrays, positions and other values that users give."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from h5split.errors import ArgumentError, PositionError

_MAX_SHOWN = 80  # characters of a value in a message


def plain(what: str, given: ArrayLike) -> NDArray[Any]:
    """Return an array of numpy's own class, in the byte order of the machine: frameworks ignore both.

    Args:
        what: What the message of an error begins with.
        given: Anything that numpy makes an array of. A masked array must mask nothing.

    Raises:
        ValueError: Values are masked, or lists have different lengths.
    """
    if isinstance(given, np.ndarray) and type(given) is not np.ndarray and np.ma.is_masked(given):
        raise ArgumentError(
            f"{what}: expected values, found a masked array that hides some; fill them with filled(), or leave them out"
        )
    try:
        array = np.asarray(given)
    except ValueError as error:
        raise ArgumentError(f"{what}: expected an array, or lists of equal lengths, found {brief(given)}") from error
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def positions(given: ArrayLike, count: int) -> NDArray[np.int64]:
    """Return positions as whole numbers: int64 (M,). Negative ones count from the end, and stay negative.

    Args:
        given: Whole numbers (M,), or a mask, bool (N,).
        count: N.

    Raises:
        IndexError: It is something else, or a position is out of range.
        ValueError: Values are masked.
    """
    at = plain("positions", given)
    at = at if at.size else at.astype(np.int64)
    if at.dtype.kind not in "iub" or at.ndim != 1 or (at.dtype == np.bool_ and len(at) != count):
        raise PositionError(f"expected positions, or a mask of {count} rows, found {at.dtype} of shape {at.shape}")
    if at.dtype == np.bool_:
        return np.flatnonzero(at)
    if len(at) and not -count <= int(at.min()) <= int(at.max()) < count:
        found = at.min() if at.min() < -count else at.max()
        raise PositionError(f"expected positions from 0 to {count - 1}, found {found}")
    return at.astype(np.int64)


def brief(found: object) -> str:
    """A value as a few words on one line, for a message."""
    shape, name = getattr(found, "shape", None), type(found).__name__
    if isinstance(shape, tuple):
        return f"{name} of {getattr(found, 'dtype', 'values')} and shape {shape}"
    if isinstance(found, (list, tuple)) and found:
        return f"a {name} of {len(found):,} values, the first {brief(found[0])}"
    return _cut(found)


def _cut(found: object) -> str:
    text = " ".join(repr(found).split())
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 3] + "..."
