"""PackedImages: the file as rows."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any, overload

import numpy as np
import xxhash
from numpy.typing import NDArray

from h5split.errors import FormatError, PositionError
from h5split.file import format as pack_format
from h5split.file.format import decode
from h5split.file.losses import LOSSES, described
from h5split.file.mapped import READ_SIZE, MappedFile, Stamp
from h5split.file.pieces import located
from h5split.system.lazy import lazy

_TEXTS = 1024  # decoded at a time when all are
_WRITE_SECONDS = 10  # that one call may take to write, which has the time of its beginning
_SAMPLE = 16  # rows whose pixels are looked at where a file may have been written to


class Joined:
    """Arrays one after another, as one; nothing is copied until rows are asked for.

    Args:
        parts: (N, ...) each, of one kind.
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
    """Fixed-length text in files, decoded when an element is asked for.

    Args:
        raw: bytes_ (N,), usually a view of the map.
        rows: Which of them, in which order; all when None.
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
    def __getitem__(self, index: int | slice) -> str | list[str]:
        at = index if self._rows is None else self._rows[index]
        if isinstance(index, slice):
            return [decode(raw) for raw in self._raw[at].tolist()]
        return decode(bytes(self._raw[at]))

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), _TEXTS):
            yield from self[start : start + _TEXTS]

    def __repr__(self) -> str:
        return f"<{len(self)} texts, the first {self[0]!r}>" if len(self) else "<no texts>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # as every sequence that compares by its elements

    def take(self, rows: NDArray[np.int64]) -> Texts:
        """The same texts in the order of `rows`: int64 (M,)."""
        return Texts(self._raw, rows if self._rows is None else self._rows[rows])

    def raw(self) -> NDArray[np.bytes_]:
        """The bytes in the files: bytes_ (N,)."""
        found: NDArray[np.bytes_] = self._raw[slice(None) if self._rows is None else self._rows]
        return found


class PackedImages:
    """A pack as arrays, mapped into memory; nothing is read until it is looked at.

    It is a map-style data set: `len`, indexing, and `__getitems__` for a batch. Items are copies that may be written
    to. It pickles as a path: another process opens the pack again, and refuses one that became another meanwhile.

    The arrays are read-only views of the file. torch takes no notice of that: what it writes into them in place is not
    in the file, nor in items and batches, but stays in the array; give it a copy.

    Args:
        path: A file made by pack-images.

    Attributes:
        path: As given, for messages; the working folder may change, as whatever opens it again goes by its full path.
        inode: (device, inode) of the file that is mapped, whatever becomes of its path.
        header: Where everything is in the file, and its settings.
        images: uint8 (N, H, W, C), read-only; a slice of it is a view of the file.
        labels: int32 (N,), indices into `class_names`.
        numbers: The same, to copy from. Not to be handed out: `labels` is for that.
        class_names: K names, in the order of their numbers.
        filenames: N paths, decoded when asked for.
        columns: Name -> N texts.
        digests: uint8 (N, 32), SHA-256 of each source file.
        checksums: uint64 (N,), XXH3-64 of each row's pixels.
        skipped: (filename, reason) of each file that was left out.
        losses: (filename, text) of what pictures lost when they were packed, in the order of rows.
        loss_table: The same in numbers: `losses.LOSSES` (L,).

    Raises:
        FileNotFoundError: There is no such file.
        FormatError: It is no pack, is damaged, or is of a newer version.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        descriptor, header = pack_format.read(self.path)
        self.file, self.header = MappedFile(descriptor, header), header
        # Not abspath(): links in the path may lead elsewhere before a ".." that it would take out.
        self._full_path = self.path if os.path.isabs(self.path) else os.path.join(os.getcwd(), self.path)
        self.inode = self.header.status.st_dev, self.header.status.st_ino
        self._stamp = Stamp.of(self.header.status)
        self._settling = self._stamp, 0.0
        self.images: NDArray[np.uint8] = self.file.array(header.images)
        self._pixels: NDArray[np.uint8] = self.file.array(header.images, pristine=True)
        self.labels: NDArray[np.int32] = self.file.array(header.labels)
        self.numbers: NDArray[np.int32] = self.file.array(header.labels, pristine=True)
        self.class_names = header.class_names
        self.filenames = Texts(self.file.array(header.filenames))
        self.columns: Mapping[str, Texts] = {
            name: Texts(self.file.array(block)) for name, block in header.columns.items()
        }
        self.digests: NDArray[np.uint8] = self.file.array(header.digests)
        self.checksums: NDArray[np.uint64] = self.file.array(header.checksums)
        _check_labels(self.path, self.labels, len(self.class_names))
        # What the file must go on to hold. One that does not say is read for it; such are made by hand, and small.
        self._tables = self.file.tables_checksum() if header.tables_checksum is None else header.tables_checksum
        self._opened = frozenset(vars(self))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> tuple[NDArray[np.uint8], int]:
        self.check_unchanged()
        return self._pixels[row].copy(), int(self.numbers[row])

    def __getitems__(self, rows: Sequence[int]) -> list[tuple[NDArray[np.uint8], int]]:
        """The rows of a batch, as `(uint8 (H, W, C), label)` each, read in one go."""
        at = np.asarray(rows, np.int64)
        self.check_unchanged()
        return list(zip(self._pixels[at], self.numbers[at].tolist(), strict=True))

    def __iter__(self) -> Iterator[tuple[NDArray[np.uint8], int]]:
        return (self[row] for row in range(len(self)))

    def __repr__(self) -> str:
        return f"PackedImages({self.path!r}): {len(self)} images {self.shape}, {len(self.class_names)} classes"

    def __getstate__(self) -> dict[str, Any]:
        """Where the pack is, what tells it from every other, and what a subclass added; no pixels.

        Raises:
            FormatError: It was written to since it was opened, or its path is another pack's by now.
            FileNotFoundError: There is no such file any more.
        """
        self.check_unchanged()
        state: dict[str, Any] = {"paths": (self.path, self._full_path), "stamp": self._stamp, "tables": self._tables}
        state["added"] = {name: vars(self)[name] for name in vars(self).keys() - self._opened - {"_opened"}}
        try:
            status = os.stat(self._full_path)
            there = (status.st_dev, status.st_ino) == self.inode
        except OSError:
            there = False
        if not there:  # the other process would not say so as plainly
            PackedImages.__new__(PackedImages).__setstate__(state)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        given, full = state["paths"]
        elsewhere = not os.path.exists(full) and os.path.exists(given)  # on a machine that has it in another folder
        PackedImages.__init__(self, given if elsewhere else full)
        self.path = given
        if self._stamp != state["stamp"] and not self._holds(state["tables"]):
            raise FormatError(
                f"{self._full_path}: expected the pack that was open where this was pickled, or copied, found another "
                "one there; open it again"
            )
        vars(self).update(state["added"])

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C) of one image."""
        height, width, channels = self.images.shape[1:]
        return height, width, channels

    @property
    def skipped(self) -> list[tuple[str, str]]:
        """(filename, reason) of each file that was left out."""
        return list(zip(*self.skipped_texts, strict=True))

    @property
    def skipped_texts(self) -> tuple[Texts, Texts]:
        """File names and reasons of the files that were left out, decoded when they are asked for."""
        return Texts(self.file.array(self.header.skipped_filenames)), Texts(
            self.file.array(self.header.skipped_reasons)
        )

    @lazy
    def loss_table(self) -> NDArray[np.void]:
        """Rows whose picture lost something, and what: `losses.LOSSES` (L,), ascending."""
        blocks = self.header.losses
        table = np.empty(blocks["rows"].shape if blocks else 0, LOSSES)
        for name, block in blocks.items():
            table[name] = self.file.array(block)
        return table

    @property
    def losses(self) -> list[tuple[str, str]]:
        """(filename, text) of what pictures lost when they were packed, in the order of rows.

        The text is a line such as `16 bits cut to 8: 16 of 64 levels kept`; a picture that lost two things is there
        twice.
        """
        table = self.loss_table
        return described(table, list(self.filenames.take(table["rows"])))

    @property
    def stride(self) -> int:
        """Bytes of a row."""
        return int(np.prod(self.shape))

    @property
    def items(self) -> NDArray[np.void]:
        """The pixels to copy rows from, an item each: void (N,). Not to be handed out; `images` is for that."""
        items: NDArray[np.void] = self._pixels.reshape(len(self), -1).view(f"V{self.stride}")[:, 0]
        return items

    def check_whole(self) -> None:
        """See that the file is as long as it says; this takes 0.4 us.

        Reading a map beyond the end of its file ends the process (SIGBUS). So it still does where the file is cut short
        between this and the reading.

        Raises:
            FormatError: It was cut short since it was opened.
        """
        size = self.file.size()
        if size < self.header.size:
            raise FormatError(
                f"{self.path}: expected {self.header.size} bytes, found {size}: the file was cut short while it was "
                "read; copy it again, or pack again"
            )

    def check_unchanged(self) -> None:
        """Raise if the file was written to in place: mapped pixels would no longer match the names read.

        Its size and times tell, which takes 1 us. Where they are others, but the file still holds the tables that were
        opened (the checksum of every row among them) and a sample of pixels, it was only touched, linked or removed.

        Raises:
            FormatError: It was cut short or written to since it was opened.
        """
        stamp = self.file.stamp()
        if stamp == self._stamp:
            return
        self.check_whole()
        if not self._holds(self._tables):
            raise FormatError(
                f"{self.path}: another program wrote to it while it was read; open it again, and replace a "
                "pack in use by renaming, as pack-images does"
            )
        self._settle(stamp)

    def _holds(self, tables: int) -> bool:
        """Whether the file now holds the tables of this checksum, and pixels that agree with them, by a sample.

        A large file takes minutes to be written over, and its tables lie behind the pixels.
        """
        expected: NDArray[np.uint64] = self.file.array(self.header.checksums, pristine=True)
        for row in sorted({(len(self) - 1) * part // (_SAMPLE - 1) for part in range(_SAMPLE)}):
            pixels = bytearray(self.stride)
            self.file.read(memoryview(pixels), self.header.images.offset + row * self.stride)
            if xxhash.xxh3_64_intdigest(pixels) != expected[row]:
                return False
        return self.file.tables_checksum() == tables

    def _settle(self, stamp: Stamp) -> None:
        """Accept a changed stamp once it has been stable for longer than one write can take."""
        now = time.monotonic()
        if stamp != self._settling[0]:
            self._settling = stamp, now
        elif now - self._settling[1] > _WRITE_SECONDS:
            self._stamp = stamp

    def starts(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where rows begin in the file: int64 (M,), in bytes."""
        return self.header.images.offset + rows.astype(np.int64) * self.stride

    def pieces(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The pieces of 8 MB of the file that hold pixels of `rows`: int64, ascending."""
        first = self.starts(rows)
        depth = np.zeros(self.header.size // READ_SIZE + 2, np.int64)  # of rows over each piece, as differences
        np.add.at(depth, first // READ_SIZE, 1)
        np.add.at(depth, (first + self.stride - 1) // READ_SIZE + 1, -1)
        return np.flatnonzero(np.cumsum(depth))

    def is_cached(self, rows: NDArray[np.int64]) -> bool | None:
        """Whether the first byte of each of these rows is in the page cache; None where the system does not tell."""
        return self.file.is_cached(self.starts(rows))

    def preload(self, pieces: NDArray[np.int64], progress: Callable[[int], object] | None = None) -> int:
        """Read pieces of the file once, front to back, so that they are in the page cache.

        Args:
            pieces: From `pieces`.
            progress: Called with the number of bytes just read.

        Returns:
            Bytes read.

        Raises:
            OSError: The file cannot be read.
        """
        scratch = memoryview(bytearray(READ_SIZE))
        done = 0
        for piece in pieces.tolist():
            count = self.file.read_some(scratch, piece * READ_SIZE)
            done += count
            if progress is not None:
                progress(count)
        return done


def _check_labels(path: str, labels: NDArray[np.int32], classes: int) -> None:
    """Check that each label is the number of a class."""
    lowest, highest = labels.min(), labels.max()
    if lowest < 0 or highest >= classes:
        raise FormatError(
            f"{path}: labels: expected 0 to {classes - 1}, found {lowest} to {highest}; "
            "copy the file again, or pack again"
        )
