"""Targets: what a network learns from each image, in place of its class; and the weights of images in the loss.

The settings `targets` and `weights`, once they are bound (`batch.given`), say what they are. `Learned` makes a `Target`
of each for the rows of a sequence. A target holds a value for every row of the packs, so that parts of the sequence can
share it; rows outside the sequence have no meaningful value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from h5split.batch.given import LABEL, PerRow, Tags, pictures_in, tags_in, texts_of
from h5split.errors import ArgumentError
from h5split.file.packs import Packs
from h5split.file.pairs import partners
from h5split.file.texts import Texts
from h5split.order.rows import Rows
from h5split.system.text import listed

_MAX_NUMBERS_AXES = 2

Kind = Literal["class", "tags", "numbers", "pictures", "other"]  # numbers are (N,) or (N, K)


class Makers(NamedTuple):
    """How a sequence makes the targets that are no arrays in memory.

    Attributes:
        labels: Makes the encoded labels of the rows that are asked for.
        pixels: Makes the pictures of rows of other packs: (M, H, W, C).
    """

    labels: Callable[[], NDArray[Any]]
    pixels: Callable[[Packs, Rows], NDArray[Any]]


@dataclass(frozen=True)
class Spec:
    """The shape of an array without its first axis, which counts rows, and its dtype."""

    shape: tuple[int, ...]
    dtype: Any


class Meaning(NamedTuple):
    """What the numbers of a target mean.

    Attributes:
        kind: What they are.
        names: The names of classes, tags or columns; none for an array of the user.
    """

    kind: Kind
    names: tuple[str, ...]


Meanings = Meaning | dict[str, Any]  # of several targets: name -> Meanings


class Target(Protocol):
    """A value for each row."""

    names: list[str]  # of its last axis, if the user gave names; else empty
    kind: Kind

    def take(self, rows: Rows, make: Makers) -> Any:
        """Return the values of rows: (M, ...), or a dict of such arrays."""

    def spec(self, label: Spec) -> Any:
        """Return the spec of the values, or a dict of these.

        Args:
            label: The spec of encoded labels.
        """

    def meaning(self, class_names: Sequence[str]) -> Meanings:
        """Return what the values mean."""


class _Class:
    """The class of each row."""

    kind: Kind = "class"

    def __init__(self) -> None:
        self.names: list[str] = []

    def take(self, rows: Rows, make: Makers) -> NDArray[Any]:
        return make.labels()

    def spec(self, label: Spec) -> Spec:
        return label

    def meaning(self, class_names: Sequence[str]) -> Meaning:
        return Meaning(self.kind, tuple(class_names))


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

    def take(self, rows: Rows, make: Makers) -> NDArray[Any]:
        at = rows if self._places is None else self._places[rows]
        return self._values[at].astype(self._dtype, copy=False)

    def spec(self, label: Spec) -> Spec:
        return Spec(self._values.shape[1:], self._dtype)

    def meaning(self, class_names: Sequence[str]) -> Meaning:
        return Meaning(self.kind, tuple(self.names))


class _Pictures:
    """The picture of each row in other packs. They stay in the files until they are asked for.

    Args:
        packs: The other packs.
        partners: The row there of each row here.
    """

    kind: Kind = "pictures"

    def __init__(self, packs: Packs, partners: Rows) -> None:
        self.names: list[str] = []
        self.packs = packs
        self.partners = partners

    def take(self, rows: Rows, make: Makers) -> NDArray[Any]:
        return make.pixels(self.packs, self.partners[rows])

    def spec(self, label: Spec) -> Spec:
        return Spec(self.packs.shape, self.packs.dtype)

    def meaning(self, class_names: Sequence[str]) -> Meaning:
        return Meaning(self.kind, ())


class _Named:
    """Several targets, by name."""

    kind: Kind = "other"

    def __init__(self, targets: Mapping[str, Target]) -> None:
        self.names = list(targets)
        self.targets = targets

    def take(self, rows: Rows, make: Makers) -> dict[str, Any]:
        return {name: target.take(rows, make) for name, target in self.targets.items()}

    def spec(self, label: Spec) -> dict[str, Any]:
        return {name: target.spec(label) for name, target in self.targets.items()}

    def meaning(self, class_names: Sequence[str]) -> dict[str, Any]:
        return {name: target.meaning(class_names) for name, target in self.targets.items()}


class Learned:
    """What a network learns from the rows of a sequence: targets, and weights in the loss.

    Args:
        packs: The packs of the sequence; None if it has none.
        rows: Its rows.
        targets: The setting `targets`, bound.
        weights: The setting `weights`, bound.

    Raises:
        ValueError: They do not fit the packs or the rows.
    """

    def __init__(self, packs: Packs | None, rows: Rows, targets: Any, weights: Any) -> None:
        self.packs = packs
        self.targets: Target = _Class()
        self.weights: Target | None = None
        if packs is not None and targets is not None:
            self.targets = _target_of(targets, packs, rows)
        if packs is not None and weights is not None:
            self.weights = _weights_of(weights, packs, rows)
        self.is_class = self.targets.kind == "class"
        self.is_class_alone = self.is_class and self.weights is None

    @property
    def pictures(self) -> list[tuple[Packs, Rows]]:
        """Other packs that batches have pictures of, each with the row there of each row here."""
        return [(one.packs, one.partners) for one in _each(self.targets) if isinstance(one, _Pictures)]

    def with_images(self, images: NDArray[Any], rows: Rows, make: Makers, *, is_unlabelled: bool) -> Any:
        """Return a batch: images, (images, targets) or (images, targets, weights).

        Args:
            images: The images of the rows.
            rows: int (M,).
            make: Makes the targets of these rows.
            is_unlabelled: Whether the class is no target.
        """
        if self.is_class and is_unlabelled:
            return images
        targets = self.targets.take(rows, make)
        return (images, targets) if self.weights is None else (images, targets, self.weights.take(rows, make))

    def spec(self, image: Spec, label: Spec | None) -> Any:
        """Return the specs of a batch, in the structure that `with_images` gives it."""
        if self.is_class and label is None:
            return image
        label = label or Spec((), np.int32)
        targets = self.targets.spec(label)
        return (image, targets) if self.weights is None else (image, targets, self.weights.spec(label))

    def meaning(self) -> Meanings:
        """Return what the targets mean."""
        return self.targets.meaning(() if self.packs is None else self.packs.class_names)


def differing(one: Meanings, other: Meanings) -> tuple[Meanings, Meanings] | None:
    """Return the first parts of two meanings that differ; None if there are none. An array may mean anything."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return next(filter(None, (differing(one[name], other[name]) for name in one)), None)
    is_unknown = any(isinstance(each, Meaning) and not each.names for each in (one, other))
    return None if is_unknown or one == other else (one, other)


def _each(target: Target) -> Iterator[Target]:
    """Yield a target, and those in it if it is several."""
    yield target
    if isinstance(target, _Named):
        for one in target.targets.values():
            yield from _each(one)


def _target_of(given: Any, packs: Packs, rows: Rows) -> Target:
    """Return the target that a bound setting means, or one name in a dict of several.

    Raises:
        ValueError: There is no such column, a text in it is no number, or values are missing for some rows.
    """
    if isinstance(given, str):
        return _Values(_numbers("targets", given, packs, rows), [given])
    if isinstance(given, Tags):
        return _tags(given, packs, rows)
    if isinstance(given, PerRow):
        return _per_row("targets", given, packs, rows)
    if pictures := pictures_in(given):
        others = Packs(pictures)
        return _Pictures(others, partners(packs, rows, others))
    if isinstance(given, Mapping):
        return _Named(
            {
                name: _Class() if isinstance(one, str) and one == LABEL else _target_of(one, packs, rows)
                for name, one in given.items()
            }
        )
    return _Values(np.stack([_numbers("targets", name, packs, rows) for name in given], axis=1), given)


def _weights_of(given: str | PerRow, packs: Packs, rows: Rows) -> Target:
    if isinstance(given, PerRow):
        return _per_row("weights", given, packs, rows)
    return _Values(_numbers("weights", given, packs, rows, least=0))


def _numbers(what: str, column: str, packs: Packs, rows: Rows, least: float = -np.inf) -> NDArray[np.float32]:
    """A column as numbers: float32, for each row of the packs; NaN for those that are not in `rows`."""
    texts = texts_of(what, column, packs, rows)
    exact, _ = texts.parsed()
    with np.errstate(over="ignore"):
        numbers = exact.astype(np.float32)
    wrong = np.flatnonzero(~(np.isfinite(numbers) & (numbers >= least)))
    if len(wrong):
        at = int(wrong[0])
        reason = ", which float32 cannot hold" if np.isfinite(exact[at]) and np.isinf(numbers[at]) else ""
        raise ArgumentError(
            f"{what}: expected numbers{'' if least < 0 else f' of {least:g} or more'} in the column {column}, found "
            f"{texts[at]!r} for {packs.filenames[int(rows[at])]}{reason}; leave such rows out by select(), or "
            "take texts by Tags"
        )
    values = np.full(len(packs), np.nan, np.float32)
    values[rows] = numbers
    return values


def _tags(given: Tags, packs: Packs, rows: Rows) -> Target:
    texts = texts_of("targets", given.column, packs, rows)
    distinct, at = np.unique(texts.raw(), return_inverse=True)
    of_text = [tags_in(text, given.separator) for text in Texts(distinct)]
    number = {name: index for index, name in enumerate(given.names or ())}
    unknown = min({tag for tags in of_text for tag in tags}.difference(number), default=None)
    if unknown is not None:
        raise ArgumentError(
            f"targets: expected {listed([*number])}; found {unknown!r} in the column {given.column}; "
            f"set targets to Tags({given.column!r}) again to take all tags there are"
        )
    lines = np.zeros((len(distinct), len(number)), np.uint8)
    for line, tags in zip(lines, of_text, strict=True):
        line[[number[tag] for tag in tags]] = 1
    places = np.zeros(len(packs), np.int64)
    places[rows] = at
    return _Values(lines, [*number], places=places, kind="tags")


def _per_row(what: str, given: PerRow, packs: Packs, rows: Rows) -> Target:
    given.check_packs(what, packs)
    places = np.full(len(packs), -1, np.int64)
    places[given.rows] = np.arange(len(given.rows))
    if (places[rows] < 0).any():
        raise ArgumentError(
            f"{what}: expected a value for each of {len(rows)} rows, found an array of {len(given.rows)} from a "
            "sequence of other rows, or from before packs were added; set it again"
        )
    is_numbers = given.values.ndim <= _MAX_NUMBERS_AXES and given.values.dtype.kind in "fiu"
    return _Values(given.values, places=places, kind="numbers" if is_numbers else "other")
