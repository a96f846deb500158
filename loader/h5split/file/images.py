"""PackedImages: one pack as a sequence of rows."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any, overload

import numpy as np
import xxhash
from numpy.typing import NDArray

from h5split.file import format as pack_format
from h5split.file.format import FormatError, decode
from h5split.file.losses import LOSSES, described
from h5split.file.mapped import READ_SIZE, MappedFile, Stamp
from h5split.file.pieces import located
from h5split.system.lazy import lazy

_TEXTS_PER_CHUNK = 1024  # texts decoded at a time in a loop over all of them
# The longest time that one write() is assumed to take. The mtime it sets is the time when it begins.
_MAX_WRITE_SECONDS = 10
_SAMPLE_ROWS = 16  # rows whose pixels are compared when a file may have been modified


class Joined:
    """Several arrays as one, concatenated along their first axis. Only the rows that are asked for are copied.

    Args:
        parts: Arrays (N, ...) of one kind; N may differ.
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
            raise IndexError(f"expected rows from 0 to {len(self) - 1}, found {rows.min()} to {rows.max()}")
        found = np.empty((len(rows), *self._parts[0].shape[1:]), np.result_type(*self._parts))
        if len(rows):
            for part, where, local in located(self._bounds, rows % len(self)):
                found[where] = self._parts[part][local]
        return found if np.ndim(at) else found[0]


class Texts(Sequence[str]):
    """Fixed-length texts in files, as a sequence of str. Each is decoded when it is asked for.

    Args:
        raw: bytes_ (N,), usually a view of the map.
        rows: int64 (M,), the elements of `raw` to use, in this order; None for all.
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
        for start in range(0, len(self), _TEXTS_PER_CHUNK):
            yield from self[start : start + _TEXTS_PER_CHUNK]

    def __repr__(self) -> str:
        return f"<{len(self)} texts, the first {self[0]!r}>" if len(self) else "<no texts>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # not hashable, as every sequence that compares by its elements

    def take(self, rows: NDArray[np.int64]) -> Texts:
        """The same texts in the order of `rows`: int64 (M,)."""
        return Texts(self._raw, rows if self._rows is None else self._rows[rows])

    def raw(self) -> NDArray[np.bytes_]:
        """The bytes in the files: bytes_ (N,)."""
        found: NDArray[np.bytes_] = self._raw[slice(None) if self._rows is None else self._rows]
        return found


class PackedImages:
    """A pack as arrays that are mapped into memory. The system reads a part of the file when it is accessed.

    This is a map-style data set for torch: it has `len`, indexing, and `__getitems__` for a batch. Items are copies
    that may be modified. It is pickled as a path. Another process opens the pack again, and raises an error if the path
    holds another pack by then.

    The arrays are read-only views of the file. torch ignores that: an in-place operation changes the array, but not the
    file, nor later items and batches. Give torch a copy.

    Args:
        path: A file made by pack-images.

    Attributes:
        path: The path as given, for messages. The pack is opened again by its full path, so the working folder may
            change.
        inode: (device, inode) of the mapped file. It stays the same when the path is given to another file.
        header: The place of every array in the file, and the settings.
        images: uint8 (N, H, W, C), read-only. A slice of it is a view of the file.
        labels: int32 (N,), indices into `class_names`.
        numbers: The same labels for internal use: no user can modify them. Copy from them, and give users `labels`.
        class_names: K names, in the order of their numbers.
        filenames: N paths, each decoded when it is asked for.
        columns: Name -> N texts.
        digests: uint8 (N, 32), SHA-256 of each source file.
        checksums: uint64 (N,), XXH3-64 of each row's pixels.
        skipped: (filename, reason) of each file that was left out.
        losses: (filename, text) of each loss of a picture when it was packed, in the order of rows.
        loss_table: The losses as numbers: `losses.LOSSES` (L,).

    Raises:
        FileNotFoundError: There is no such file.
        FormatError: The file is not a pack, is damaged, or has a newer version.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        descriptor, self.header = pack_format.read(self.path)
        self.file = MappedFile(descriptor, self.header)
        # Not abspath(): it removes "..", which is wrong if the folder before it is a symbolic link.
        self._full_path = self.path if os.path.isabs(self.path) else os.path.join(os.getcwd(), self.path)
        self.inode = self.header.status.st_dev, self.header.status.st_ino
        self._stamp = Stamp.of(self.header.status)
        self._settling = self._stamp, 0.0
        header = self.header
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
        if self.labels.min() < 0 or self.labels.max() >= len(self.class_names):
            raise FormatError(
                f"{self.path}: labels: expected 0 to {len(self.class_names) - 1}, "
                f"found {self.labels.min()} to {self.labels.max()}; copy the file again, or pack again"
            )
        # The checksum that shows later whether the tables are still the same. If the file has none, it is computed
        # now; pack-images always writes one, so such files are made by other means, and small.
        self._tables = self.file.tables_checksum() if header.tables_checksum is None else header.tables_checksum
        self._opened = frozenset(vars(self))  # all other attributes were added by a subclass

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> tuple[NDArray[np.uint8], int]:
        self.check_unchanged()
        return self._pixels[row].copy(), int(self.numbers[row])

    def __getitems__(self, rows: Sequence[int]) -> list[tuple[NDArray[np.uint8], int]]:
        """The rows of a batch as a list of `(uint8 (H, W, C), label)`. All pixels are copied in one call."""
        at = np.asarray(rows, np.int64)
        self.check_unchanged()
        return list(zip(self._pixels[at], self.numbers[at].tolist(), strict=True))

    def __iter__(self) -> Iterator[tuple[NDArray[np.uint8], int]]:
        return (self[row] for row in range(len(self)))

    def __repr__(self) -> str:
        return f"PackedImages({self.path!r}): {len(self)} images {self.shape}, {len(self.class_names)} classes"

    def __getstate__(self) -> dict[str, Any]:
        """The path of the pack, its stamp and checksum to identify it, and attributes of a subclass; no pixels.

        Raises:
            FormatError: The file was modified after it was opened, or its path now leads to another pack.
            FileNotFoundError: The file is gone.
        """
        self.check_unchanged()
        state: dict[str, Any] = {"paths": (self.path, self._full_path), "stamp": self._stamp, "tables": self._tables}
        state["added"] = {name: vars(self)[name] for name in vars(self).keys() - self._opened - {"_opened"}}
        try:
            status = os.stat(self._full_path)
            there = (status.st_dev, status.st_ino) == self.inode
        except OSError:
            there = False
        # Fail here, not in the other process: an error there is harder to find. A copy with the same contents is fine.
        if not there:
            PackedImages.__new__(PackedImages).__setstate__(state)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        given, full = state["paths"]
        # On another machine the working folder may differ; then the full path is gone, but a relative one may exist.
        elsewhere = not os.path.exists(full) and os.path.exists(given)
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
        """The file names and the reasons of the files that were left out, each decoded when it is asked for."""
        return Texts(self.file.array(self.header.skipped_filenames)), Texts(
            self.file.array(self.header.skipped_reasons)
        )

    @lazy
    def loss_table(self) -> NDArray[np.void]:
        """The losses of the rows that have one, in ascending order of rows: `losses.LOSSES` (L,)."""
        blocks = self.header.losses
        table = np.empty(blocks["rows"].shape if blocks else 0, LOSSES)
        for name, block in blocks.items():
            table[name] = self.file.array(block)
        return table

    @property
    def losses(self) -> list[tuple[str, str]]:
        """(filename, text) of each loss of a picture when it was packed, in the order of rows.

        The text is a line such as `16 bits cut to 8: 16 of 64 levels kept`. A picture with losses of two kinds appears
        twice.
        """
        table = self.loss_table
        return described(table, list(self.filenames.take(table["rows"])))

    @property
    def stride(self) -> int:
        """The size of a row in bytes."""
        return int(np.prod(self.shape))

    @property
    def items(self) -> NDArray[np.void]:
        """The pixels with one item per row, to copy rows from: void (N,). For internal use; give users `images`."""
        items: NDArray[np.void] = self._pixels.reshape(len(self), -1).view(f"V{self.stride}")[:, 0]
        return items

    def check_whole(self) -> None:
        """Raise if the file is shorter than when it was opened. This takes 0.4 us.

        Access to a map beyond the end of its file kills the process with SIGBUS. This check makes that unlikely, but
        not impossible: the file may be cut short between the check and the access.

        Raises:
            FormatError: The file was cut short after it was opened.
        """
        size = self.file.size()
        if size < self.header.size:
            raise FormatError(
                f"{self.path}: expected {self.header.size} bytes, found {size}: the file was cut short while it was "
                "read; copy it again, or pack again"
            )

    def check_unchanged(self) -> None:
        """Raise if the file was modified in place: mapped pixels would no longer match the names read.

        The size and the times of the file are compared, which takes 1 us. If they differ, the tables, which include the
        checksum of every row, and a sample of the pixels are compared too. If these are still the same, the file was
        only touched, linked or removed, and that is no error.

        Raises:
            FormatError: The file was cut short or modified after it was opened.
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
        """Whether the file now has tables with this checksum, and a sample of pixels that match the row checksums.

        The tables alone do not suffice: they follow the pixels, and overwriting the pixels of a large file takes
        minutes.
        """
        expected: NDArray[np.uint64] = self.file.array(self.header.checksums, pristine=True)
        for row in sorted({(len(self) - 1) * part // (_SAMPLE_ROWS - 1) for part in range(_SAMPLE_ROWS)}):
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
        elif now - self._settling[1] > _MAX_WRITE_SECONDS:
            self._stamp = stamp

    def starts(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The byte of the file where each of `rows` begins: int64 (M,)."""
        return self.header.images.offset + rows.astype(np.int64) * self.stride

    def pieces(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The numbers of the 8 MB pieces of the file that hold pixels of `rows`: int64, ascending."""
        first = self.starts(rows)
        # The rows in each piece, as a difference array: a row adds 1 at its first piece and -1 after its last piece.
        depth = np.zeros(self.header.size // READ_SIZE + 2, np.int64)
        np.add.at(depth, first // READ_SIZE, 1)
        np.add.at(depth, (first + self.stride - 1) // READ_SIZE + 1, -1)
        return np.flatnonzero(np.cumsum(depth))

    def is_cached(self, rows: NDArray[np.int64]) -> bool | None:
        """Whether the first byte of each of these rows is in the page cache; None if the system cannot say."""
        return self.file.is_cached(self.starts(rows))

    def preload(self, pieces: NDArray[np.int64], progress: Callable[[int], object] | None = None) -> int:
        """Read pieces of the file in the given order, so that they are in the page cache.

        Args:
            pieces: Numbers of pieces, as `pieces` returns them.
            progress: Called with the number of bytes just read.

        Returns:
            The number of bytes read.

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
