"""Names and columns that a user gives with pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from h5split.system.arrays import brief
from pack_images.errors import PackError
from pack_images.find.values import length_of, text_of, values_of

SOURCE = "source"  # the column that every pack has

_FILENAMES = "filenames"


@dataclass(frozen=True)
class Described:
    """Names and columns as they were given.

    Attributes:
        filenames: A name for each picture. None: they get names.
        columns: Column name -> a value for each picture.
    """

    filenames: Any
    columns: Mapping[str, Any]

    def check(self, count: int | None) -> None:
        """Check everything that has a length, before the pictures are taken.

        Args:
            count: The number of pictures, if that is known.

        Raises:
            PackError: A value is none, or there are more or fewer than pictures.
        """
        for name, values in self._with_length():
            number = len(values) if count is None else count
            texts = _texts(name, values, number)
            if values is self.filenames:
                _check_names(texts)

    def check_room(self, index: int) -> None:
        """Check that there is a value for picture `index` in everything that has a length.

        Raises:
            PackError: There is none.
        """
        for name, values in self._with_length():
            if len(values) <= index:
                raise PackError(f"{name}: expected a value for each image, found {len(values):,} and more images")

    def names(self, count: int) -> list[str] | None:
        """Return the names of `count` pictures; None if none are given.

        Raises:
            PackError: There are more or fewer, or one is empty or occurs twice.
        """
        if self.filenames is None:
            return None
        names = _texts(_FILENAMES, self.filenames, count)
        _check_names(names)
        return names

    def texts(self, count: int) -> dict[str, list[str]]:
        """Return the columns of `count` pictures as texts.

        Raises:
            PackError: There are more or fewer values, or one is neither a text nor a number.
        """
        return {name: _texts(name, values, count) for name, values in self.columns.items()}

    def _with_length(self) -> list[tuple[str, Any]]:
        given = (
            [*self.columns.items()] if self.filenames is None else [(_FILENAMES, self.filenames), *self.columns.items()]
        )
        return [(name, values) for name, values in given if length_of(values) is not None]


def described(filenames: Any, columns: Any) -> Described:
    """Return the names and columns that a user gives.

    Args:
        filenames: A name for each picture, or None.
        columns: Column name -> values, such as a dict or a pandas DataFrame, or None.

    Raises:
        PackError: They are of another kind, or a column has the name of one that every pack has.
    """
    if columns is None:
        columns = {}
    if not hasattr(columns, "keys"):
        raise PackError(f"columns: expected a dict of name -> values, found {brief(columns)}; give {{'name': values}}")
    found = {}
    for name in columns.keys():  # noqa: SIM118 - a DataFrame is no mapping
        if not isinstance(name, str) or not name:
            raise PackError(f"columns: expected texts as names, found {name!r}; give {str(name) or 'a name'!r}")
        if name == SOURCE:
            raise PackError("columns: expected another name than source, which says what the pictures came from")
        found[str(name)] = values_of(name, columns[name])
    return Described(None if filenames is None else values_of(_FILENAMES, filenames), found)


def _texts(name: str, values: Iterable[Any], count: int) -> list[str]:
    texts = [text_of(name, value) for value in values]
    if len(texts) != count:
        raise PackError(f"{name}: expected a value for each of {count:,} images, found {len(texts):,}")
    return texts


def _check_names(names: Sequence[str]) -> None:
    times = Counter(names)
    name = next((name for name in times if not name or times[name] > 1), None)
    if name is not None:
        found = f"{name!r} {times[name]} times" if name else "an empty one"
        raise PackError(f"{_FILENAMES}: expected a name for each image, each once, found {found}")
