"""The settings `targets` and `weights`: what a user gives, checked, copied, and bound to the rows of a sequence.

What is bound means the same wherever it goes: tags have their names, and arrays know the rows that they belong to. So
parts, copies and pickles of a sequence learn what the sequence learns.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from h5split.errors import ArgumentError
from h5split.file.classes import is_unlabelled
from h5split.file.images import PackedImages
from h5split.file.packs import Packs
from h5split.file.texts import Texts, column_of
from h5split.order.rows import Rows
from h5split.order.settings import Settings
from h5split.system.arrays import brief, plain

LABEL = "label"  # stands for the class

# The labels of a table become classes, and are no column of the pack.
_TAKEN = "; if it was the column of labels, pack the table with --labels none to keep it"
_PACK = "; PackedImages({!r}) has the pictures of a pack"
_MAX_TAGS = 10_000  # more are hardly tags: the column holds something else
_MAX_TAG_BYTES = 1 << 30  # of the table with a line for each distinct text, and an element for each tag
_NUMBERS = "fiu"  # kinds of numpy's dtypes
_VALUES = "biufcSU"  # numbers and texts, not objects, dates and records


@dataclass(frozen=True)
class Tags:
    """Targets from a column of tags, such as "COVID-19, ARDS": float32 (B, K), 1 for each tag that an image has.

    Attributes:
        column: The column. Spaces around a tag are removed; an empty text has no tags.
        separator: The text between tags.
        names: The tags in the order of their numbers. None: those of all rows of the sequence that it is set on,
            sorted. Parts and copies of that sequence keep them.
    """

    column: str
    separator: str = ","
    names: Sequence[str] | None = None


@dataclass(frozen=True, eq=False)
class PerRow:
    """Values for the rows of a sequence, given by the user.

    Attributes:
        values: (N, ...), read-only.
        rows: The rows of the packs that they belong to: int (N,).
        packs: The checksums of the packs, in their order.
    """

    values: NDArray[Any]
    rows: Rows
    packs: tuple[int, ...]

    def __post_init__(self) -> None:
        values = self.values.view()
        values.flags.writeable = False
        object.__setattr__(self, "values", values)

    def __reduce__(self) -> tuple[Any, ...]:
        return PerRow, (self.values, self.rows, self.packs)

    def check_packs(self, what: str, packs: Packs) -> None:
        """Raise if the rows are those of other packs than these, or of other packs than the first of these.

        Raises:
            ValueError: They are.
        """
        if checksums(packs)[: len(self.packs)] != self.packs:
            raise ArgumentError(
                f"{what}: expected values for rows of {packs!r}, found an array that was set on a sequence of other "
                "packs; give an array with a value for each row of this sequence"
            )


def checksums(packs: Packs | None) -> tuple[int, ...]:
    """What tells packs apart: the checksum of the tables of each."""
    return () if packs is None else tuple(pack.tables_checksum for pack in packs.packs)


def bound(settings: Settings, packs: Packs | None, rows: Rows) -> Settings:
    """Return settings whose targets and weights are bound to the rows of a sequence. Bound ones stay as they are.

    Args:
        settings: The settings.
        packs: The packs of the sequence; None if it has none.
        rows: Its rows.

    Raises:
        ValueError: Targets or weights are none, or do not fit the packs or the rows.
    """
    targets = settings.targets
    if isinstance(targets, str) and targets == LABEL and packs is not None and LABEL not in packs.columns:
        targets = None
    elif targets is not None:
        targets = _bound_targets(targets, packs, rows)
    return replace(settings, targets=targets, weights=_bound_weights(settings.weights, packs, rows))


def texts_of(what: str, column: str, packs: Packs, rows: Rows) -> Texts:
    """Return the texts of a column for the rows of a sequence.

    Args:
        what: The name of the setting.
        column: The column.
        packs: The packs of the sequence.
        rows: Its rows.

    Raises:
        ValueError: There is no such column, or one of the packs that the rows are of has none.
    """
    is_of_targets = what == "targets" and not is_unlabelled(packs.class_names)
    advice = _PACK.format(column) if column.endswith(".h5") else _TAKEN if is_of_targets else ""
    texts = column_of(packs.columns, column, f"{what}: ", advice)
    if any(column not in pack.columns for pack in packs.packs):
        for pack, _ in packs.by_pack(rows):
            if column not in pack.columns:
                raise ArgumentError(
                    f"{what}: expected a column {column} in every pack, found none in {pack.path}; "
                    "pack it with the column, or leave its rows out by select()"
                )
    return texts.take(rows)


def pictures_in(given: Any) -> tuple[PackedImages, ...]:
    """The packs of pictures that a target means, if it is one pack or a list of packs; else none."""
    many = given if isinstance(given, (list, tuple)) else (given,)
    return tuple(many) if all(isinstance(one, PackedImages) for one in many) else ()


def tags_in(text: str, separator: str) -> list[str]:
    """The tags of one text."""
    return [tag.strip() for tag in text.split(separator) if tag.strip()]


def _bound_targets(given: Any, packs: Packs | None, rows: Rows, *, is_named: bool = False) -> Any:
    """Bind targets, or those of one name in a dict."""
    if isinstance(given, np.ndarray):
        return _bound_array("targets", given, packs, rows)
    if isinstance(given, Tags):
        return _bound_tags(given, packs, rows)
    if pictures := pictures_in(given):
        return pictures
    if isinstance(given, Mapping):
        if not given or not all(isinstance(name, str) for name in given):
            _refuse_targets(given)
        return OrderedDict((name, _bound_targets(one, packs, rows, is_named=True)) for name, one in given.items())
    if isinstance(given, (list, tuple)):
        return _bound_columns(given)
    if not isinstance(given, (str, PerRow)):
        _refuse_targets(given)
    if is_named and isinstance(given, str) and given == LABEL and packs is not None and LABEL in packs.columns:
        raise ArgumentError(
            "targets: expected 'label' to mean one thing, found a column label beside the class; give ['label'] for "
            "the column, or sequence.classes for the class"
        )
    return given


def _bound_columns(given: Sequence[Any]) -> tuple[str, ...]:
    if not given or not all(isinstance(name, str) for name in given):
        _refuse_targets(given)
    _check_once("column", given)
    return tuple(given)


def _bound_tags(given: Tags, packs: Packs | None, rows: Rows) -> Tags:
    """Tags with their names; without, if there are no packs yet."""
    if not isinstance(given.column, str):
        raise ArgumentError(f"targets: expected a column of tags, found {brief(given.column)}")
    if not isinstance(given.separator, str) or not given.separator:
        found = "an empty one" if given.separator == "" else brief(given.separator)
        raise ArgumentError(f"targets: expected a text between tags, such as ',', found {found}")
    names = given.names
    if names is not None:
        names = _checked_names(names, given.separator)
    elif packs is not None:
        names = _found_names(given, packs, rows)
    return Tags(given.column, given.separator, names)


def _checked_names(given: object, separator: str) -> tuple[str, ...]:
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise ArgumentError(f"targets: expected a list of the names of tags, found {brief(given)}")
    names = tuple(given)
    if not names:
        raise ArgumentError("targets: expected names of tags, found none")
    wrong = next((name for name in names if not isinstance(name, str) or tags_in(name, separator) != [name]), None)
    if wrong is not None:
        raise ArgumentError(
            f"targets: expected names of tags, without {separator!r} and spaces around them, found {brief(wrong)}"
        )
    _check_once("tag", names)
    return names


def _found_names(given: Tags, packs: Packs, rows: Rows) -> tuple[str, ...]:
    distinct = Texts(np.unique(texts_of("targets", given.column, packs, rows).raw()))
    names = sorted({tag for text in distinct for tag in tags_in(text, given.separator)})
    if not names:
        raise ArgumentError(f"targets: expected tags; found none in the column {given.column}")
    if len(names) > _MAX_TAGS or len(names) * len(distinct) > _MAX_TAG_BYTES:
        raise ArgumentError(
            f"targets: expected a column of tags, found {len(names):,} different ones in {len(distinct):,} different "
            f"texts of the column {given.column}; if they are tags, give Tags their names"
        )
    return tuple(names)


def _bound_weights(given: Any, packs: Packs | None, rows: Rows) -> Any:
    if isinstance(given, np.ndarray):
        return _bound_array("weights", _checked_weights(given), packs, rows)
    if isinstance(given, PerRow):
        weights = _checked_weights(given.values)
        return given if given.values.dtype == weights.dtype else replace(given, values=weights)
    if given is None or isinstance(given, str):
        return given
    raise ArgumentError(_expected_weights(given))


def _bound_array(what: str, given: NDArray[Any], packs: Packs | None, rows: Rows) -> PerRow:
    values = plain(what, given)
    if values.dtype.kind not in _VALUES:
        raise ArgumentError(f"{what}: expected an array of numbers or texts, found {values.dtype}")
    if values.ndim == 0 or len(values) != len(rows):
        raise ArgumentError(f"{what}: expected a value for each of {len(rows)} rows, found shape {values.shape}")
    if packs is not None:
        _check_repeated(what, values, packs, rows)
    return PerRow(values.copy(), rows, checksums(packs))


def _check_repeated(what: str, values: NDArray[Any], packs: Packs, rows: Rows) -> None:
    """Raise if a row that is in the sequence several times has different values."""
    place = np.zeros(len(packs), np.int64)
    place[rows] = np.arange(len(rows))  # of a row that is there several times: one of its places
    repeated = np.flatnonzero(place[rows] != np.arange(len(rows)))
    one, other = values[repeated], values[place[rows[repeated]]]
    differ = (one != other) & ((one == one) | (other == other))  # two NaN do not differ
    wrong = np.flatnonzero(differ.reshape(len(repeated), int(np.prod(values.shape[1:]))).any(axis=1))
    if len(wrong):
        raise ArgumentError(
            f"{what}: expected one value for each image, found different ones for "
            f"{packs.filenames[int(rows[repeated[wrong[0]]])]}, which is in the sequence several times; "
            "set them before select() repeats rows"
        )


def _checked_weights(given: NDArray[Any]) -> NDArray[np.float32]:
    values = plain("weights", given)
    if values.ndim != 1 or values.dtype.kind not in _NUMBERS:
        raise ArgumentError(_expected_weights(given))
    with np.errstate(over="ignore"):
        weights = values.astype(np.float32)
    wrong = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))
    if len(wrong):
        at = wrong[0]
        raise ArgumentError(
            f"weights: expected numbers of 0 or more that float32 holds, found {values[at]} at position {at}"
        )
    return weights


def _expected_weights(found: object) -> str:
    return f"weights: expected a column, or an array with a number for each row, found {brief(found)}{_advice(found)}"


def _refuse_targets(found: object) -> NoReturn:
    raise ArgumentError(
        "targets: expected a column, a list of columns, Tags, PackedImages of masks, an array with a value for each "
        f"row, or a dict of these, found {brief(found)}{_advice(found)}"
    )


def _advice(found: object) -> str:
    """How to make an array of something like one."""
    is_like_one = hasattr(found, "__len__") and not isinstance(found, (str, bytes, Mapping, np.ndarray)) and len(found)
    return "; np.asarray(...) makes an array of it" if is_like_one else ""


def _check_once(what: str, names: Sequence[str]) -> None:
    twice = next((name for name, number in Counter(names).items() if number > 1), None)
    if twice is not None:
        raise ArgumentError(f"targets: expected each {what} once, found {twice!r} twice")
