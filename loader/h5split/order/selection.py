"""Selection: packs, row numbers and a shard as one immutable value. Every change gives a new selection."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import xxhash
from numpy.typing import ArrayLike, NDArray

from h5split.errors import ArgumentError, ArgumentTypeError, PositionError
from h5split.file.classes import Classes
from h5split.file.format import encode
from h5split.file.images import PackedImages
from h5split.file.packs import Packs
from h5split.file.texts import Texts, checked_texts, column_of
from h5split.order import rows as row_math
from h5split.order.epochs import Shard
from h5split.order.groups import grouped
from h5split.order.rows import Rows
from h5split.order.settings import check_whole
from h5split.order.splits import read_rows
from h5split.system.arrays import plain
from h5split.system.text import listed

_EMPTY = "the sequence is empty; add_file(path) opens a pack"


@dataclass(frozen=True)
class Selection:
    """An ordered selection of rows of packs.

    Attributes:
        packs: The packs that contain the rows; None if no pack was added.
        rows: int (N,), row numbers. They count the rows of all packs, one pack after another.
        shard: The rank whose part of every epoch is used; None for the whole epoch.
    """

    packs: Packs | None = None
    rows: Rows = field(default_factory=lambda: np.empty(0, np.int64))
    shard: Shard | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __getstate__(self) -> dict[str, Any]:
        """The packs and rows, without pixels. Packs are pickled as paths, and a range of rows as two numbers."""
        is_range = row_math.are_consecutive(self.rows)
        return {
            "packs": () if self.packs is None else self.packs.packs,
            "classes": None if self.packs is None else self.packs.classes,
            "rows": (int(self.rows[0]), int(self.rows[-1]) + 1) if is_range else self.rows,
            "shard": self.shard,
        }

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        packs = Packs(state["packs"], state["classes"]) if state["packs"] else None
        rows = np.arange(*state["rows"]) if isinstance(state["rows"], tuple) else state["rows"]
        self.__dict__.update(packs=packs, rows=_compact(rows, packs), shard=state["shard"])

    @property
    def opened(self) -> Packs:
        """The packs.

        Raises:
            ValueError: No pack was added.
        """
        if self.packs is None:
            raise ArgumentError(_EMPTY)
        return self.packs

    @property
    def filenames(self) -> Sequence[str]:
        """The source file of each row. A name is decoded when it is read."""
        if self.packs is None:
            return []
        self.packs.check_whole()
        return self.packs.filenames.take(self.rows)

    @property
    def classes(self) -> NDArray[np.int32]:
        """The class number of each row: int32 (N,)."""
        return np.empty(0, np.int32) if self.packs is None else self.packs.labels[self.rows]

    @property
    def columns(self) -> Mapping[str, Texts]:
        """The columns of the packs: name -> N texts."""
        if self.packs is None:
            return {}
        return {name: column.take(self.rows) for name, column in self.packs.columns.items()}

    @property
    def digests(self) -> NDArray[np.uint8]:
        """The SHA-256 of each row's source file: uint8 (N, 32)."""
        return np.empty((0, 32), np.uint8) if self.packs is None else self.packs.digests(self.rows)

    def fingerprint(self, order_key: object) -> str:
        """A checksum of everything that determines the orders of all epochs, in hexadecimal.

        Args:
            order_key: The settings that determine them, from `Settings.order_key`.
        """
        content = "" if self.packs is None else self.packs.fingerprint
        digest = xxhash.xxh3_64(f"{order_key} {self.shard} {content}".encode())
        digest.update(np.ascontiguousarray(self.rows).data)
        return digest.hexdigest()

    def of(self, rows: Rows) -> Selection:
        """A selection of other rows of the same packs."""
        return replace(self, rows=_compact(rows, self.packs))

    def added(
        self,
        paths: Sequence[str | os.PathLike[str]],
        classes: Classes | None = None,
        cache: str | os.PathLike[str] | None = None,
        cache_limit: int | None = None,
    ) -> Selection:
        """A selection that also has the rows of more packs, at the end. `Settings` documents the last arguments.

        Raises:
            ValueError: An image shape differs, or a pack is in the selection already.
            TypeError: An argument is not a path but, for instance, a list of paths.
        """
        for path in paths:
            if not isinstance(path, (str, os.PathLike)):
                raise ArgumentTypeError(
                    f"expected paths one by one, as in SplitSequence(first, second), found {path!r}"
                )
        before = () if self.packs is None else self.packs.packs
        packs = Packs([*before, *(PackedImages(path, cache=cache, cache_limit=cache_limit) for path in paths)], classes)
        new = row_math.every(sum(map(len, before)), len(packs))
        rows = np.concatenate([self.rows, new]) if before else new
        packs.check_classes(rows)
        return replace(self, packs=packs, rows=_compact(rows, packs))

    def with_classes(self, classes: Classes | None) -> Selection:
        """The same rows with other classes, or with those of the packs if `classes` is None.

        Raises:
            ValueError: A row has a class that is not among them.
        """
        if self.packs is None:
            return self
        packs = Packs(self.packs.packs, classes)
        packs.check_classes(self.rows)
        return replace(self, packs=packs)

    def shuffled(self, seed: int) -> Selection:
        """A selection of the same rows in a seeded random order.

        Raises:
            ValueError: The seed is not a whole number of 0 or more.
        """
        check_whole("seed", seed, 0)
        return self.of(row_math.permuted(self.rows, seed))

    def split(
        self, points: Sequence[float], *, stratify: bool, groups: str | ArrayLike | None, stable: bool, seed: int
    ) -> list[Selection]:
        """Cut at fractions of all rows. `SplitSequence.split` documents the arguments."""
        for point in points:
            if not isinstance(point, (int, float, np.integer, np.floating)):
                raise ArgumentTypeError(f"split: expected numbers one by one, as in split(0.2, 0.4), found {point!r}")
        strata = self._strata() if stratify else None
        if stable:
            parts = row_math.split_hashed(self.rows, self._keys(groups), points, seed)
        elif groups is not None:
            parts = row_math.split_groups(self.rows, self._groups(groups)[1], points, strata)
        elif strata is not None:
            parts = row_math.split_strata(self.rows, strata, points)
        else:
            parts = row_math.split(self.rows, points)
        return [self.of(rows) for rows in parts]

    def split_by(self, column: str) -> dict[str, Selection]:
        """One part for each value of a column.

        Raises:
            ValueError: The column does not exist. The message lists the columns.
        """
        values, part = np.unique(column_of(self.columns, column).raw(), return_inverse=True)
        order = np.argsort(part, kind="stable")
        ends = np.cumsum(np.bincount(part, minlength=len(values))).tolist()
        starts = [0, *ends[:-1]]
        members = (self.rows[order[start:end]] for start, end in zip(starts, ends, strict=False))
        return {text: self.of(rows) for text, rows in zip(Texts(values), members, strict=True)}

    def read_split(self, path: str | os.PathLike[str]) -> dict[str, Selection]:
        """One part for each split in a table. `SplitSequence.read_split` documents the table."""
        return {split: self.of(self.rows[rows]) for split, rows in read_rows(path, self.filenames).items()}

    def sharded(self, index: int, count: int) -> Selection:
        """The part of every epoch for rank `index` of `count`.

        Raises:
            ValueError: `index` is not from 0 to count - 1, or this selection is a shard already.
        """
        check_whole("shard: count", count, 1)
        if isinstance(index, bool) or not isinstance(index, (int, np.integer)) or not 0 <= index < count:
            raise ArgumentError(f"shard: expected an index from 0 to {count - 1}, found {index!r}")
        if self.shard is not None:
            raise ArgumentError(
                f"shard: expected a whole sequence, found rank {self.shard.index} of {self.shard.count}"
            )
        return replace(self, shard=Shard(int(index), int(count)))

    def select(self, rows: ArrayLike) -> Selection:
        """A selection of some of the rows.

        Args:
            rows: Positions in this selection, int (M,), or a mask, bool (N,).

        Raises:
            IndexError: A position is not in [0, N), or the mask has another length.
        """
        chosen = plain("select", rows)
        if chosen.ndim != 1:
            raise PositionError(f"select: expected one dimension, found shape {chosen.shape}")
        if chosen.dtype == np.bool_:
            if chosen.shape != self.rows.shape:
                raise PositionError(f"select: expected a mask of {len(self)} rows, found shape {chosen.shape}")
            return self.of(self.rows[chosen])
        if chosen.size and chosen.dtype.kind not in "iu":
            raise PositionError(f"select: expected whole numbers or a mask, found {chosen.dtype}")
        chosen = chosen.astype(np.int64)
        if chosen.size and (chosen.min() < 0 or chosen.max() >= len(self)):
            found = chosen.min() if chosen.min() < 0 else chosen.max()
            raise PositionError(f"select: expected positions from 0 to {len(self) - 1}, found {found}")
        return self.of(self.rows[chosen])

    def matching(self, label: str | Sequence[str] | None, columns: Mapping[str, str | Sequence[str]]) -> Selection:
        """The rows of these classes that have these values in columns, as `SplitSequence.select` says."""
        mask = np.ones(len(self), np.bool_)
        if label is not None:
            names = self.opened.class_names
            wanted = checked_texts("select: label", label)
            _check_known("label", wanted, names)
            mask &= np.isin(self.classes, [number for number, name in enumerate(names) if name in wanted])
        for name, values in columns.items():
            texts = column_of(self.columns, name)
            wanted = checked_texts(f"select: {name}", values)
            _check_known(name, wanted, Texts(np.unique(texts.raw())))
            mask &= texts.isin(wanted)
        return self.of(self.rows[mask])

    def _strata(self) -> NDArray[np.int32]:
        """The class number of each row, which may be a view: int32 (N,)."""
        if self.packs is None or not row_math.are_consecutive(self.rows):
            return self.classes
        first = int(self.rows[0])
        return self.packs.labels[first : first + len(self.rows)]

    def _groups(self, groups: str | ArrayLike) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """The different groups in ascending order, and the number of the group of each row: int64 (N,)."""
        return grouped(groups, self.columns, self.filenames)

    def _keys(self, groups: str | ArrayLike | None) -> NDArray[np.uint64]:
        """A hash of the group of each row that other rows do not change: uint64 (N,). Without groups, of the pixels."""
        if groups is None:
            return np.empty(0, np.uint64) if self.packs is None else self.packs.checksums(self.rows)
        values, number = self._groups(groups)
        texts = [value if isinstance(value, bytes) else encode(str(value)) for value in values.tolist()]
        return np.array([xxhash.xxh3_64_intdigest(text) for text in texts], np.uint64)[number]


def _check_known(what: str, wanted: Sequence[str], known: Sequence[str]) -> None:
    unknown = next((value for value in wanted if value not in known), None)
    if unknown is not None:
        raise ArgumentError(f"select: expected {what} to be among {listed(known)}; found {unknown!r}")


def _compact(rows: Rows, packs: Packs | None) -> Rows:
    return row_math.compact(rows, 0 if packs is None else len(packs))
