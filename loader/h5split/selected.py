"""What a sequence says of its rows, and how it is cut into parts: all that needs no epoch."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from h5split.alike.grouping import resolved
from h5split.batch.mapping import Function, check_function
from h5split.batch.targets import Learned
from h5split.errors import ArgumentError
from h5split.file.packs import Packs
from h5split.file.texts import Texts
from h5split.order.rows import Rows
from h5split.order.selection import Selection
from h5split.order.settings import Settings
from h5split.preloading import preload


class Selected:
    """A selection of rows with settings: the base of `SplitSequence`."""

    _selection: Selection
    _settings: Settings
    _learned: Learned
    _functions: tuple[Function, ...] = ()  # that batches go through

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C) of one image: a network's `input_shape`.

        Raises:
            ValueError: The sequence is empty.
        """
        return self.packs.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the pixels in the packs: uint8, uint16 or float32. The setting `scale` makes batches float32."""
        return self.packs.dtype

    @property
    def classnames(self) -> list[str]:
        """The name of each class number."""
        packs = self._selection.packs
        return [] if packs is None else list(packs.class_names)

    @property
    def class_names(self) -> list[str]:
        """The same as `classnames`."""
        return self.classnames

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.classnames)

    @property
    def filenames(self) -> Sequence[str]:
        """The source file of every row, in the order of the sequence (not of an epoch); read when asked for."""
        return self._selection.filenames

    @property
    def packs(self) -> Packs:
        """The packs it reads, as one list of rows.

        Raises:
            ValueError: The sequence is empty.
        """
        return self._selection.opened

    @property
    def rows(self) -> Rows:
        """The rows of the packs, one after another, that the sequence is of: int (N,); another array after a change."""
        return self._selection.rows

    @property
    def classes(self) -> NDArray[np.int32]:
        """The class number of every row, in the order of the sequence: int32 (N,)."""
        return self._selection.classes

    @property
    def columns(self) -> Mapping[str, Texts]:
        """Every other column of the packs, in the order of the sequence."""
        return self._selection.columns

    @property
    def digests(self) -> NDArray[np.uint8]:
        """The SHA-256 of every row's source file, in the order of the sequence: uint8 (N, 32)."""
        return self._selection.digests

    @property
    def settings(self) -> Settings:
        """What `set` set."""
        return self._settings

    def add_file(self, *paths: str | os.PathLike[str]) -> Self:
        """Open packs, and add their rows after those there are; classes are merged by name.

        Class numbers may change; those of parts that were split off before do not.

        Raises:
            ValueError: The shape or the type of images differs, or a file is there already.
            TypeError: Something is no path, such as a list of them.
        """
        if paths:
            settings = self._settings
            self._use(self._selection.added(paths, settings.classes, settings.cache, settings.cache_limit))
        return self

    def shuffle(self, seed: int | None = None) -> Self:
        """Put the rows into a new order, file names following.

        Args:
            seed: Of the order; the setting `seed` when None.

        Raises:
            ValueError: The seed is not a whole number of 0 or more.
        """
        self._use(self._selection.shuffled(self._settings.seed if seed is None else seed))
        return self

    def preload(self) -> Self:
        """Read the pixels once, front to back, into the page cache; with `verbose`, under a progress bar.

        So are those of pictures that are targets. Passed over with a warning where they do not fit in free memory.
        """
        if self._selection.packs is not None:
            others = [(packs, partners[self.rows]) for packs, partners in self._learned.pictures]
            for packs, rows in [(self._selection.packs, self.rows), *others]:
                preload(packs, rows, verbose=self._settings.verbose)
        return self

    def split(
        self,
        *points: float,
        stratify: bool = True,
        groups: str | Sequence[str] | ArrayLike | None = None,
        stable: bool = False,
    ) -> list[Self]:
        """Cut the current order at fractions of all rows.

        `split(0.2, 0.4)` gives three parts: 20 %, 20 % and 60 %. Equal points give an empty part. Every part has each
        class in its share, to within two rows. In the row order that packs have by default, parts are slices.

        Args:
            points: Where to cut, from 0 to 1, not decreasing.
            stratify: Cut each class if slices do not have the classes in their shares. False: slices.
            groups: Rows of equal value stay in one part: the name of a column, an array (N,), `"content"`, which is
                identical files or identical pixels, or `"near"`, which is near-identical pictures as well; see
                docs/guides. Several of these names, such as `["patient", "near"]`: rows that have any of them in common
                stay in one part. Every row needs a value. Classes have their shares as nearly as that allows. A column
                that is called content or near is `groups=sequence.columns["near"]`.
            stable: The part of a row depends on the setting `seed` and on its group alone, so images that are added
                later move none. The group is `"content"` (of the pixels) unless `groups` says otherwise. Sizes and
                shares vary by chance.

        Returns:
            len(points) + 1 sequences with the same settings.

        Raises:
            ValueError: Points outside [0, 1] or decreasing, an unknown column, rows without a value in `groups`, or
                `"near"` or several names with `stable`.
        """
        groups = resolved(groups, self.packs if len(self.rows) else None, self.rows, self.columns, stable=stable)
        parts = self._selection.split(points, stratify=stratify, groups=groups, stable=stable, seed=self._settings.seed)
        return [self._part(part) for part in parts]

    def split_by(self, column: str) -> dict[str, Self]:
        """One part for each value of a column: `split_by("split")["train"]`.

        Raises:
            ValueError: There is no such column; the message lists those there are.
        """
        return {text: self._part(rows) for text, rows in self._selection.split_by(column).items()}

    def read_split(self, path: str | os.PathLike[str]) -> dict[str, Self]:
        """One part for each split in a table that `write_split` made: a CSV with the columns `filename` and `split`.

        The rows of a part are in the order of the table. Rows that it does not name are in no part.

        Raises:
            ValueError: It is another table, names files that are not in the sequence, or puts one in two parts.
        """
        return {split: self._part(rows) for split, rows in self._selection.read_split(path).items()}

    def shard(self, index: int, count: int) -> Self:
        """The part of every epoch that rank `index` of `count` trains on.

        Batch *b* of all ranks together is batch *b* of an unsharded sequence whose `batch_size` is `count` times as
        large; so with a `batch_size` that is divided by it, the same global batches come out for any `count`. Ranks
        have equally many rows and batches: up to `count - 1` rows in the end of each epoch's order are left out, others
        in each epoch that is shuffled.

        `filenames`, `classes` and `columns` are those of the whole sequence, as every epoch gives a rank other rows.

        Raises:
            ValueError: Not 0 <= index < count, or the sequence is a shard already.
        """
        return self._part(self._selection.sharded(index, count))

    def select(
        self,
        rows: ArrayLike | None = None,
        *,
        label: str | Sequence[str] | None = None,
        **columns: str | Sequence[str],
    ) -> Self:
        """The part with these rows, or with the rows of some classes or values: `select(label="cat", split="train")`.

        Args:
            rows: Positions in the order of the sequence, int (M,), or a mask, bool (N,); so any splitter works.
            label: One class name, or several.
            columns: For each column, one value or several. A row is taken if it has one of them in every column.

        Raises:
            IndexError: A position is not in [0, N), or a mask has another length.
            ValueError: There is no such class, column or value; or both rows and values are given.
        """
        if rows is None:
            return self._part(self._selection.matching(label, columns))
        if label is not None or columns:
            raise ArgumentError("select: expected rows, or a label and columns, found both; select one after the other")
        return self._part(self._selection.select(rows))

    def map(self, function: Function) -> Self:
        """The same rows and the same next epoch, but batches go through a function, however they are asked for.

        For example:

            def flip(images, targets, rng):
                chosen = rng.random(len(images)) < 0.5
                images[chosen] = images[chosen, :, ::-1]
                return images, targets

            train = train.map(flip)

        Args:
            function: `function(images, targets, rng) -> (images, targets)`. Images and targets are as a batch has them;
                the function may write to them. Targets are None with `label_mode=None`; if it returns targets all the
                same, batches have them. What it returns has as many rows, in the same order: arrays, tensors, lists of
                rows, or dicts or tuples of these; batches have arrays. `rng` depends on (seed, epoch, batch) alone, so
                batches are the same after `restore`. Ranks of `shard` have the same `rng`. `rng.spawn(len(images))`
                gives a generator for each image, which is the same for any number of ranks.

        Raises:
            TypeError: It is no function.
        """
        check_function(function)
        part = copy.copy(self)
        part._functions = (*self._functions, function)
        return part

    def _part(self, selection: Selection) -> Self:
        """A sequence of other rows, equal in all else: settings, and what a subclass or a user added to it."""
        part = object.__new__(type(self))  # not by __init__, which a subclass may give arguments of its own
        part._take(self._values())
        part._reset(selection)
        return part

    def _values(self) -> dict[str, Any]:
        """The value of every attribute, also of those in ``__slots__`` of a subclass."""
        state: Any = object.__getstate__(self)
        values, slots = state if isinstance(state, tuple) else (state, {})
        return {**values, **slots}

    def _take(self, values: Mapping[str, Any]) -> None:
        """Have these values as attributes."""
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _use(self, selection: Selection) -> None:
        """Be a sequence of these rows from now on."""
        raise NotImplementedError

    def _reset(self, selection: Selection) -> None:
        """Be a new sequence of these rows, at its first epoch."""
        raise NotImplementedError
