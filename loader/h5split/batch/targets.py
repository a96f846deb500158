"""Targets: what a network learns from each image, in place of its class; and the weights of images in the loss.

The setting `targets` says what they are, and `targets_of` turns it into a `Target` for the rows of a sequence. A target
holds a value for every row of the packs, so that parts of the sequence can share it; rows outside the sequence have no
meaningful value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from h5split.errors import ArgumentError
from h5split.file.packs import Packs
from h5split.file.texts import Texts, column_of
from h5split.order.rows import Rows
from h5split.system.text import listed

LABEL = "label"  # stands for the class, as `label_mode` encodes it
_MAX_NUMBERS_AXES = 2

Kind = Literal["class", "tags", "numbers", "other"]  # numbers are (N,) or (N, K)
Labels = Callable[[], NDArray[Any]]  # makes the encoded labels of the rows


@dataclass(frozen=True)
class Spec:
    """The shape of an array without its first axis, which counts rows, and its dtype."""

    shape: tuple[int, ...]
    dtype: Any


@dataclass(frozen=True)
class Tags:
    """Targets from a column of tags, such as "COVID-19, ARDS": float32 (B, K), 1 for each tag that an image has.

    Attributes:
        column: The column. Spaces around a tag are removed; an empty text has no tags.
        separator: The text between tags.
        names: The tags in the order of their numbers. None: those of all rows of the sequence, sorted.
    """

    column: str
    separator: str = ","
    names: Sequence[str] | None = None


@dataclass(frozen=True, eq=False)
class PerRow:
    """Values for the rows of a sequence, given by the user.

    Attributes:
        values: (N, ...).
        rows: The rows of the packs that they belong to: int (N,).
    """

    values: NDArray[Any]
    rows: Rows


class Target(Protocol):
    """A value for each row."""

    names: list[str]  # of its last axis, if the user gave names; else empty
    kind: Kind

    def take(self, rows: Rows, labels: Labels) -> Any:
        """Return the values of rows: (M, ...), or a dict of such arrays."""

    def spec(self, label: Spec) -> Any:
        """Return the spec of the values, or a dict of these.

        Args:
            label: The spec of encoded labels.
        """


class _Class:
    """The class of each row."""

    kind: Kind = "class"

    def __init__(self) -> None:
        self.names: list[str] = []

    def take(self, rows: Rows, labels: Labels) -> NDArray[Any]:
        return labels()

    def spec(self, label: Spec) -> Spec:
        return label


class _Values:
    """An array with a value for each row.

    Args:
        values: (N, ...), for all rows of the packs, or for some of them.
        names: The names of its last axis.
        places: If `values` are for some rows: the place of each row of the packs in it.
        kind: What they are.
    """

    def __init__(
        self,
        values: NDArray[Any],
        names: Sequence[str] = (),
        *,
        places: Rows | None = None,
        kind: Kind = "numbers",
    ) -> None:
        self.kind = kind
        self.names = list(names)
        self._values = values
        self._places = places
        self._dtype = np.dtype(np.float32) if kind == "tags" else values.dtype  # tags take a quarter of the memory

    def take(self, rows: Rows, labels: Labels) -> NDArray[Any]:
        at = rows if self._places is None else self._places[rows]
        return self._values[at].astype(self._dtype, copy=False)

    def spec(self, label: Spec) -> Spec:
        return Spec(self._values.shape[1:], self._dtype)


class _Named:
    """Several targets, by name."""

    kind: Kind = "other"

    def __init__(self, targets: Mapping[str, Target]) -> None:
        self.names = list(targets)
        self._targets = targets

    def take(self, rows: Rows, labels: Labels) -> dict[str, Any]:
        return {name: target.take(rows, labels) for name, target in self._targets.items()}

    def spec(self, label: Spec) -> dict[str, Any]:
        return {name: target.spec(label) for name, target in self._targets.items()}


class Learned:
    """What a network learns from the rows of a sequence: targets, and weights in the loss.

    Args:
        packs: The packs of the sequence; None if it has none.
        rows: Its rows.
        targets: The setting `targets`.
        weights: The setting `weights`.

    Raises:
        ValueError: They do not fit the packs or the rows.
    """

    def __init__(self, packs: Packs | None, rows: Rows, targets: Any, weights: Any) -> None:
        self.packs = packs
        self.targets: Target = _Class()
        self.weights: Target | None = None
        if packs is not None and targets is not None:
            self.targets = targets_of(targets, packs, rows)
        if packs is not None and weights is not None:
            self.weights = _weights_of(weights, packs, rows)
        self.is_class = self.targets.kind == "class"
        self.is_class_alone = self.is_class and self.weights is None

    def with_images(self, images: NDArray[Any], rows: Rows, labels: Labels, *, is_unlabelled: bool) -> Any:
        """Return a batch: images, (images, targets) or (images, targets, weights).

        Args:
            images: The images of the rows.
            rows: int (M,).
            labels: Makes the encoded labels of the rows.
            is_unlabelled: Whether the class is no target.
        """
        if self.is_class and is_unlabelled:
            return images
        targets = self.targets.take(rows, labels)
        return (images, targets) if self.weights is None else (images, targets, self.weights.take(rows, labels))

    def spec(self, image: Spec, label: Spec | None) -> Any:
        """Return the specs of a batch, in the structure that `with_images` gives it."""
        if self.is_class and label is None:
            return image
        label = label or Spec((), np.int32)
        targets = self.targets.spec(label)
        return (image, targets) if self.weights is None else (image, targets, self.weights.spec(label))


def bound(what: str, given: Any, rows: Rows) -> Any:
    """Return a setting with arrays in it bound to the rows of a sequence; anything else as it is.

    Args:
        what: The name of the setting.
        given: The setting.
        rows: The rows of the sequence.

    Raises:
        ValueError: An array has another length.
    """
    if isinstance(given, Mapping):
        return {name: bound(what, one, rows) for name, one in given.items()}
    if not isinstance(given, np.ndarray):
        return list(given) if isinstance(given, tuple) else given
    if given.ndim == 0 or len(given) != len(rows):
        raise ArgumentError(f"{what}: expected a value for each of {len(rows)} rows, found shape {given.shape}")
    return PerRow(given.copy(), rows)


def targets_of(given: Any, packs: Packs, rows: Rows) -> Target:
    """Return the targets that a setting means.

    Args:
        given: The setting, after `bound`.
        packs: The packs of the sequence.
        rows: Its rows.

    Raises:
        ValueError: There is no such column, a text in it is no number, or the setting is something else.
    """
    if isinstance(given, str):
        return _Class() if given == LABEL else _Values(_numbers("targets", given, packs, rows), [given])
    if isinstance(given, Tags):
        return _tags(given, packs, rows)
    if isinstance(given, PerRow):
        return _per_row("targets", given, packs, rows)
    if isinstance(given, Mapping) and given and all(isinstance(name, str) for name in given):
        return _Named({name: targets_of(one, packs, rows) for name, one in given.items()})
    if isinstance(given, list) and given and all(isinstance(name, str) for name in given):
        return _Values(np.stack([_numbers("targets", name, packs, rows) for name in given], axis=1), given)
    raise ArgumentError(
        "targets: expected a column, a list of columns, Tags, an array with a value for each row, or a dict of these, "
        f"found {given!r}"
    )


def _weights_of(given: Any, packs: Packs, rows: Rows) -> Target:
    if isinstance(given, str) and given != LABEL:
        return _Values(_numbers("weights", given, packs, rows))
    if isinstance(given, PerRow) and given.values.ndim == 1 and given.values.dtype.kind in "fiu":
        return _per_row("weights", PerRow(given.values.astype(np.float32), given.rows), packs, rows)
    raise ArgumentError(f"weights: expected a column, or an array with a number for each row, found {given!r}")


def _numbers(what: str, column: str, packs: Packs, rows: Rows) -> NDArray[np.float32]:
    """A column as numbers: float32, for each row of the packs; NaN for those that are not in `rows`."""
    texts = column_of(packs.columns, column, f"{what}: ").take(rows)
    numbers, wrong = texts.parsed()
    if wrong is not None:
        raise ArgumentError(
            f"{what}: expected numbers in the column {column}, found {texts[wrong]!r} for "
            f"{packs.filenames[int(rows[wrong])]}; leave such rows out by select()"
        )
    values = np.full(len(packs), np.nan, np.float32)
    values[rows] = numbers
    return values


def _tags(given: Tags, packs: Packs, rows: Rows) -> Target:
    texts = column_of(packs.columns, given.column, "targets: ").take(rows)
    if not given.separator:
        raise ArgumentError("targets: expected a text between tags, such as ',', found an empty one")
    distinct, at = np.unique(texts.raw(), return_inverse=True)
    of_text = [[tag.strip() for tag in text.split(given.separator) if tag.strip()] for text in Texts(distinct)]
    there = {tag for tags in of_text for tag in tags}
    names = sorted(there) if given.names is None else list(given.names)
    unknown = sorted(there.difference(names))
    if unknown or not names:
        found = f"{unknown[0]!r} in the column {given.column}" if unknown else f"none in the column {given.column}"
        raise ArgumentError(f"targets: expected {listed(names) or 'tags'}; found {found}")
    number = {name: index for index, name in enumerate(names)}
    lines = np.zeros((len(distinct), len(names)), np.uint8)
    for line, tags in zip(lines, of_text, strict=True):
        line[[number[tag] for tag in tags]] = 1
    values = np.zeros((len(packs), len(names)), np.uint8)
    values[rows] = lines[at]
    return _Values(values, names, kind="tags")


def _per_row(what: str, given: PerRow, packs: Packs, rows: Rows) -> Target:
    places = np.full(len(packs), -1, np.int64)
    places[given.rows] = np.arange(len(given.rows))
    if (places[rows] < 0).any():
        raise ArgumentError(
            f"{what}: expected a value for each of {len(rows)} rows, found an array of {len(given.rows)} from before "
            "packs were added; set it again"
        )
    is_numbers = given.values.ndim <= _MAX_NUMBERS_AXES and given.values.dtype.kind in "fiu"
    return _Values(given.values, places=places, kind="numbers" if is_numbers else "other")
