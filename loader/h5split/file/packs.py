"""Packs: the rows of several packs as one sequence."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, chain
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from h5split.errors import ArgumentError
from h5split.file.classes import Classes, one_form, renumbered, sorted_classes
from h5split.file.images import PackedImages
from h5split.file.losses import described
from h5split.file.pieces import located
from h5split.file.texts import Joined, Texts
from h5split.system.lazy import lazy
from h5split.system.text import count, listed

_MAX_ROW_BYTES = (1 << 31) - 1  # the largest item of a numpy array


class Packs:
    """A concatenation of packs: row 0 of the second pack is row `len(first)` here.

    Classes are merged by name, in whatever Unicode form (see `file.classes`). If all packs have the same classes in the
    same order, that order is kept; else the classes are sorted. For the rows of a pack without a column that others
    have, the column holds empty texts.

    Args:
        packs: One or more packs whose images have one shape and one type.
        classes: The classes in place of those of the packs, from `checked_classes`.

    Attributes:
        packs: The packs as given.
        classes: As given.
        shape: (H, W, C) of one image.
        dtype: The type of its samples: uint8, uint16 or float32.
        class_names: K names.
        labels: int32 (N,), indices into `class_names`; -1 for rows whose class is not among `classes`.

    Raises:
        ValueError: Image shapes or types differ, an image has 2 GB or more, or a file is given twice.
    """

    def __init__(self, packs: Sequence[PackedImages], classes: Classes | None = None) -> None:
        self.packs = tuple(packs)
        self.classes = classes
        self.shape = self.packs[0].shape
        self.dtype = self.packs[0].dtype
        self._check()
        self._bounds = [0, *accumulate(map(len, self.packs))]
        self._items = [pack.items for pack in self.packs]
        names = self._names_by_pack()
        self.class_names = list(names[0]) if len(set(names)) == 1 else sorted_classes(chain.from_iterable(names))
        self.labels: NDArray[np.int32] = self._merged_labels(names)
        if classes is not None:
            self.class_names, numbers = renumbered(self.class_names, classes)
            self.labels = np.array(numbers, np.int32)[self.labels]

    def __len__(self) -> int:
        return self._bounds[-1]

    def __repr__(self) -> str:
        return ", ".join(repr(pack.path) for pack in self.packs)

    @property
    def stride(self) -> int:
        """The number of bytes of a row."""
        return self.packs[0].stride

    @property
    def settings(self) -> Mapping[str, Any]:
        """The settings that the first pack was packed with."""
        return self.packs[0].settings

    @lazy
    def filenames(self) -> Texts:
        """N paths."""
        return Texts(self._joined([pack.filenames.raw() for pack in self.packs]))

    @lazy
    def columns(self) -> Mapping[str, Texts]:
        """Name -> N texts."""
        names = dict.fromkeys(name for pack in self.packs for name in pack.columns)
        return {name: Texts(self._joined([_column(pack, name) for pack in self.packs])) for name in names}

    @lazy
    def _digests(self) -> Any:
        return self._joined([pack.digests for pack in self.packs])

    @lazy
    def fingerprint(self) -> str:
        """A hash of the labels and pixels of all rows, in hexadecimal. It reads 12 bytes a row, once."""
        self.check_whole()
        digest = xxhash.xxh3_64(repr(self.class_names).encode(errors="surrogateescape"))
        for pack in self.packs:
            digest.update(np.ascontiguousarray(pack.checksums).data)
        digest.update(np.ascontiguousarray(self.labels).data)
        if self.dtype != np.uint8:  # the same bytes are other pixels
            digest.update(self.dtype.str.encode())
        return digest.hexdigest()

    def check_classes(self, rows: NDArray[np.int64]) -> None:
        """Check that these rows have a class.

        Raises:
            ValueError: Some have one that is not among `classes`.
        """
        if self.classes is None:
            return
        lost = rows[self.labels[rows] < 0]
        if len(lost):
            pack, local = next(self.by_pack(np.asarray(lost[:1])))
            name = pack.class_names[pack.numbers[local[0]]]
            raise ArgumentError(
                f"classes: expected every class that has images, found {count(len(lost), 'image')} of others, such as "
                f"{name!r}; add it, or leave them out by select(label=...) before"
            )

    def digests(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The SHA-256 of each row's source file: uint8 (M, 32)."""
        self.check_whole()
        found: NDArray[np.uint8] = self._digests[rows]
        return found

    def checksums(self, rows: NDArray[np.int64]) -> NDArray[np.uint64]:
        """The XXH3-64 of the pixels of each row: uint64 (M,)."""
        self.check_whole()
        found: NDArray[np.uint64] = self._joined([pack.checksums for pack in self.packs])[rows]
        return found

    def losses(self, rows: NDArray[np.int64]) -> list[tuple[str, str]]:
        """(filename, text) of each loss in packing of the pictures at `rows`, in the order of the packs."""
        found = []
        for pack, local in self.by_pack(np.sort(rows)):
            table = pack.loss_table[np.isin(pack.loss_table["rows"], local)]
            found += described(table, list(pack.filenames.take(table["rows"])))
        return found

    def view(self, first: int, count: int) -> NDArray[Any] | None:
        """A view of consecutive rows in a file: (count, H, W, C), read-only; None if they are in two files.

        Raises:
            FormatError: The file was truncated since it was opened.
        """
        if len(self.packs) == 1:
            return self.packs[0].view(first, count)
        part = bisect_right(self._bounds, first) - 1
        start = first - self._bounds[part]
        return self.packs[part].view(start, count) if start + count <= len(self.packs[part]) else None

    def take(self, rows: NDArray[np.int64], out: NDArray[np.void]) -> None:
        """Copy rows into `out`.

        Args:
            rows: int64 (M,), each from 0 to N - 1. This is not checked.
            out: void (M,), one item per row.

        Raises:
            FormatError: A file was truncated since it was opened.
        """
        if len(self._items) == 1:
            self.packs[0].need(rows)
            self._items[0].take(rows, out=out, mode="clip")  # mode="raise" would copy everything twice
            return
        for part, where, local in located(self._bounds, rows):
            self.packs[part].need(local)
            if isinstance(where, slice):
                self._items[part].take(local, out=out, mode="clip")
            else:
                out[where] = self._items[part].take(local, mode="clip")

    def pixels(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """A copy of rows: (M, H, W, C), of the type `dtype`.

        Args:
            rows: int64 (M,), each from 0 to N - 1. This is not checked.
        """
        images = np.empty((len(rows), *self.shape), self.dtype)
        if len(rows):
            self.take(rows, images.reshape(len(rows), -1).view(self._items[0].dtype)[:, 0])
        return images

    def check_same(self, parts: Mapping[str, Packs]) -> None:
        """Check that each row number means the same row in all parts as it does here.

        Args:
            parts: Name of each part -> its packs.

        Raises:
            ValueError: A part has other packs.
        """
        for name, packs in parts.items():
            if packs.class_names != self.class_names:
                raise ArgumentError(
                    f"part {name!r}: expected the classes {listed(self.class_names)}, found "
                    f"{listed(packs.class_names)}; give it the same by set(classes=...)"
                )
            if packs is not self and packs.fingerprint != self.fingerprint:
                raise ArgumentError(f"part {name!r}: expected rows of {self!r}, found rows of {packs!r}")

    def check_whole(self) -> None:
        """Raise if a file was cut short since it was opened: reading its map would end the process.

        Raises:
            FormatError: A file was truncated.
        """
        for pack in self.packs:
            pack.check_whole()

    def check_tables(self) -> None:
        """Raise if labels, names or other tables in a file do not match their checksum.

        Raises:
            FormatError: They do not match.
            OSError: They cannot be read.
        """
        for pack in self.packs:
            pack.check_tables()

    def check_unchanged(self) -> None:
        """Raise if a file was written to since it was opened.

        Raises:
            FormatError: A file was truncated or written to.
        """
        for pack in self.packs:
            pack.check_unchanged()

    def plan(self, rows: NDArray[np.int64]) -> bool:
        """Begin to fetch the pixels of rows that are elsewhere, in this order. Return whether there are any.

        Raises:
            OSError: The disk has too little space for them.
        """
        if all(pack.is_here for pack in self.packs):
            return False
        coming = [pack.plan(local) for pack, local in self.by_pack(rows)]
        return any(coming)

    def by_pack(self, rows: NDArray[np.int64]) -> Iterator[tuple[PackedImages, NDArray[np.int64]]]:
        """Yield each pack that has some of `rows`, with the numbers of these rows within the pack."""
        if len(rows):
            for part, _, local in located(self._bounds, rows.astype(np.int64)):
                yield self.packs[part], local

    def _check(self) -> None:
        if np.prod(self.shape, dtype=object) * self.dtype.itemsize > _MAX_ROW_BYTES:
            raise ArgumentError(
                f"{self.packs[0].path}: expected images of up to {_MAX_ROW_BYTES:,} bytes, found {self.shape}"
            )
        for index, pack in enumerate(self.packs):
            if pack.shape != self.shape:
                raise ArgumentError(
                    f"expected packs of one image shape, found {self.shape} in {self.packs[0].path} "
                    f"and {pack.shape} in {pack.path}"
                )
            if pack.dtype != self.dtype:
                raise ArgumentError(
                    f"expected packs of one type of pixels, found {self.dtype} in {self.packs[0].path} "
                    f"and {pack.dtype} in {pack.path}"
                )
            if any(pack.inode == other.inode for other in self.packs[:index]):
                raise ArgumentError(f"{pack.path} is there already; its rows would count twice")

    def _names_by_pack(self) -> list[tuple[str, ...]]:
        """The class names of each pack, in one Unicode form."""
        known = one_form(pack.class_names for pack in self.packs)
        return [tuple(known[name] for name in pack.class_names) for pack in self.packs]

    def _merged_labels(self, names: Sequence[Sequence[str]]) -> NDArray[np.int32]:
        if len(self.packs) == 1:
            return self.packs[0].numbers
        number = {name: index for index, name in enumerate(self.class_names)}
        numbers = [np.array([number[name] for name in own], np.int32) for own in names]
        return np.concatenate([new[pack.numbers] for new, pack in zip(numbers, self.packs, strict=True)])

    def _joined(self, parts: Sequence[NDArray[Any]]) -> Any:
        return parts[0] if len(parts) == 1 else Joined(parts)


def _column(pack: PackedImages, name: str) -> NDArray[np.bytes_]:
    """A column of a pack. If the pack lacks it: one empty text per row, which take no memory."""
    return pack.columns[name].raw() if name in pack.columns else np.broadcast_to(np.array(b"", "S1"), len(pack))
