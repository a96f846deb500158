"""Texts of a pack: file names and columns, one for each row, decoded when they are read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from h5split.errors import ArgumentError, ArgumentTypeError, PositionError
from h5split.file.format import decode, encode
from h5split.file.pieces import located
from h5split.system.arrays import brief, positions

_TEXTS_PER_CHUNK = 1024  # texts that are decoded at a time when a user iterates over all
_COUNTED_PER_CHUNK = 1 << 16  # texts that are counted at a time


class Joined:
    """A concatenation of arrays. Nothing is copied until rows are read.

    Args:
        parts: The arrays, (N, ...) each. Their shapes differ only in N, and their kind of dtype is the same.
    """

    def __init__(self, parts: Sequence[NDArray[Any]]) -> None:
        self._parts = parts
        self._bounds = [0, *accumulate(map(len, parts))]

    def __len__(self) -> int:
        return self._bounds[-1]

    def __getitem__(self, at: int | slice | NDArray[np.int64]) -> Any:
        if isinstance(at, slice):
            at = np.arange(*at.indices(len(self)))
        rows = np.atleast_1d(np.asarray(at, np.int64))
        if len(rows) and not -len(self) <= rows.min() <= rows.max() < len(self):
            raise PositionError(f"expected rows from 0 to {len(self) - 1}, found {rows.min()} to {rows.max()}")
        found = np.empty((len(rows), *self._parts[0].shape[1:]), np.result_type(*self._parts))
        if len(rows):
            for part, where, local in located(self._bounds, rows % len(self)):
                found[where] = self._parts[part][local]
        return found if np.ndim(at) else found[0]


class Texts(Sequence[str]):
    """Fixed-length texts in files. An element is decoded when it is read.

    Args:
        raw: bytes_ (N,), usually a view of the file.
        rows: Indices into `raw`, in the order of the texts; None for all of them.
    """

    def __init__(self, raw: NDArray[np.bytes_] | Joined, rows: NDArray[np.int64] | None = None) -> None:
        self._raw = raw
        self._rows = rows

    def __len__(self) -> int:
        return len(self._raw) if self._rows is None else len(self._rows)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    @overload
    def __getitem__(self, index: ArrayLike) -> list[str]: ...
    def __getitem__(self, index: Any) -> str | list[str]:
        if isinstance(index, slice):
            at = index if self._rows is None else self._rows[index]
            return [decode(raw) for raw in self._raw[at].tolist()]
        if np.ndim(index):
            rows = positions(index, len(self))
            return [decode(raw) for raw in self._raw[rows if self._rows is None else self._rows[rows]].tolist()]
        row = _whole(index)
        return decode(bytes(self._raw[row if self._rows is None else self._rows[row]]))

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), _TEXTS_PER_CHUNK):
            yield from self[start : start + _TEXTS_PER_CHUNK]

    def __repr__(self) -> str:
        return f"<{len(self)} texts, the first {self[0]!r}>" if len(self) else "<no texts>"

    def __eq__(self, other: object) -> Any:
        if isinstance(other, str):
            return self.raw() == encode(other)
        if isinstance(other, (int, float, np.number)):
            raise ArgumentTypeError(
                f"expected a text to compare texts with, found {other!r}; columns hold texts: numbers() gives numbers"
            )
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    def __ne__(self, other: object) -> Any:
        same = self == other
        return ~same if isinstance(same, np.ndarray) else not same

    __hash__ = None  # type: ignore[assignment]  # not hashable: it equals lists of the same texts, which have no hash

    def take(self, rows: NDArray[np.int64]) -> Texts:
        """The texts at `rows`, int64 (M,), in that order."""
        return Texts(self._raw, rows if self._rows is None else self._rows[rows])

    def isin(self, texts: Iterable[str]) -> NDArray[np.bool_]:
        """Whether each text is one of `texts`: bool (N,)."""
        wanted = [encode(text) for text in checked_texts("isin", texts)]
        values, place = np.unique(self.raw(), return_inverse=True)
        found: NDArray[np.bool_] = np.isin(values, np.array(wanted, np.bytes_))[place]
        return found

    def numbers(self) -> NDArray[np.float64]:
        """The texts as numbers: float64 (N,).

        Raises:
            ValueError: One of them is not a finite number.
        """
        values, at = self.parsed()
        if at is not None:
            raise ArgumentError(f"expected numbers, found {self[at]!r} at position {at}")
        return values

    def parsed(self) -> tuple[NDArray[np.float64], int | None]:
        """The texts as numbers, and the position of the first text that is not a finite number; None if all are."""
        try:
            values = self.raw().astype(np.float64)
        except ValueError:
            values = np.array([_number(text) for text in self])
        bad = np.flatnonzero(~np.isfinite(values))
        return values, int(bad[0]) if len(bad) else None

    def counts(self, most: int) -> dict[str, int] | None:
        """Text -> how many rows have it, the most frequent text first; None if there are more than `most` texts.

        Bytes are counted and only the distinct ones are decoded, as decoding every row takes longer.
        """
        found: Counter[bytes] = Counter()
        for start in range(0, len(self), _COUNTED_PER_CHUNK):
            part = slice(start, start + _COUNTED_PER_CHUNK)
            found.update(self._raw[part if self._rows is None else self._rows[part]].tolist())
            if len(found) > most:
                return None
        return {decode(value): number for value, number in found.most_common()}

    def raw(self) -> NDArray[np.bytes_]:
        """The texts as bytes, as they are in the files: bytes_ (N,)."""
        found: NDArray[np.bytes_] = self._raw[slice(None) if self._rows is None else self._rows]
        return found


def column_of(columns: Mapping[str, Texts], name: str, about: str = "", advice: str = "") -> Texts:
    """A column.

    Args:
        columns: All there are.
        name: Its name.
        about: What the message of an error begins with.
        advice: What it ends with.

    Raises:
        ValueError: There is no such column; the message lists those there are.
    """
    if not isinstance(name, str) or name not in columns:
        raise ArgumentError(
            f"{about}expected one of the columns {', '.join(columns) or '(there are none)'}, found {name!r}{advice}"
        )
    return columns[name]


def checked_texts(what: str, given: object) -> list[str]:
    """Return one text, or several, as a list.

    Args:
        what: What the message of an error begins with.
        given: One text, or several.

    Raises:
        ValueError: It is something else.
    """
    texts: list[Any] = [given] if isinstance(given, str) or not isinstance(given, Iterable) else [*given]
    wrong = next((text for text in texts if not isinstance(text, str)), "")
    if wrong != "":
        raise ArgumentError(
            f"{what}: expected a text or several, found {brief(wrong)}; columns hold texts: numbers() gives numbers"
        )
    return texts


def _whole(index: Any) -> int:
    """A position that is not a list.

    Raises:
        IndexError: It is no whole number.
    """
    if isinstance(index, (bool, np.bool_)) or not hasattr(index, "__index__"):
        raise PositionError(f"expected a position, a slice, positions or a mask, found {brief(index)}")
    return int(index)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")
