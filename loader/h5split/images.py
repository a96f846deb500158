"""PackedImages: the file as rows."""

from __future__ import annotations

import contextlib
import mmap
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any, overload

import numpy as np
import xxhash
from numpy.typing import NDArray

from h5split import format as pack_format
from h5split.format import Block, FormatError, Header, decode
from h5split.lazy import lazy
from h5split.losses import LOSSES, described
from h5split.rows import located

READ_SIZE = 8 << 20  # bytes; large enough for a disk to stream
_TEXTS = 1024  # decoded at a time when all are
_WRITE_SECONDS = 10  # that one call may take to write, which has the time of its beginning


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
            raise IndexError(f"expected rows from 0 to {len(self) - 1}, found {rows.min()} to {rows.max()}")
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

    It is a map-style data set: `len`, indexing, and `__getitems__` for a batch. It pickles as a path.

    Args:
        path: A file made by pack-images.

    Attributes:
        path: As given.
        inode: (device, inode) of the file that is mapped, whatever becomes of its path.
        header: Where everything is in the file, and its settings.
        images: uint8 (N, H, W, C), read-only; a slice of it is a view of the file.
        labels: int32 (N,), indices into `class_names`.
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
        descriptor, self.header = pack_format.read(self.path)
        try:
            self._map = _map(descriptor, self.header)
            status = os.fstat(descriptor)
            self.inode = status.st_dev, status.st_ino
            self._modified = status.st_mtime_ns
            self._settling = self._modified, 0.0
        finally:
            os.close(descriptor)
        header = self.header
        self.images: NDArray[np.uint8] = self._array(header.images)
        self.labels: NDArray[np.int32] = self._array(header.labels)
        self.class_names = header.class_names
        self.filenames = Texts(self._array(header.filenames))
        self.columns: Mapping[str, Texts] = {name: Texts(self._array(block)) for name, block in header.columns.items()}
        self.digests: NDArray[np.uint8] = self._array(header.digests)
        self.checksums: NDArray[np.uint64] = self._array(header.checksums)
        if self.labels.min() < 0 or self.labels.max() >= len(self.class_names):
            raise FormatError(
                f"{self.path}: labels: expected 0 to {len(self.class_names) - 1}, "
                f"found {self.labels.min()} to {self.labels.max()}; copy the file again, or pack again"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> tuple[NDArray[np.uint8], int]:
        self.check_unchanged()
        return self.images[row], int(self.labels[row])

    def __getitems__(self, rows: Sequence[int]) -> list[tuple[NDArray[np.uint8], int]]:
        """The rows of a batch, as `(uint8 (H, W, C), label)` each, gathered in one go."""
        at = np.asarray(rows, np.int64)
        self.check_unchanged()
        return list(zip(self.images[at], self.labels[at].tolist(), strict=True))

    def __iter__(self) -> Iterator[tuple[NDArray[np.uint8], int]]:
        return (self[row] for row in range(len(self)))

    def __repr__(self) -> str:
        return f"PackedImages({self.path!r}): {len(self)} images {self.shape}, {len(self.class_names)} classes"

    def __reduce__(self) -> tuple[type[PackedImages], tuple[str]]:
        return PackedImages, (self.path,)

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
        return Texts(self._array(self.header.skipped_filenames)), Texts(self._array(self.header.skipped_reasons))

    @lazy
    def loss_table(self) -> NDArray[np.void]:
        """Rows whose picture lost something, and what: `losses.LOSSES` (L,), ascending."""
        blocks = self.header.losses
        table = np.empty(blocks["rows"].shape if blocks else 0, LOSSES)
        for name, block in blocks.items():
            table[name] = self._array(block)
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

    def check_whole(self) -> None:
        """See that the file is as long as it says; this takes 0.4 us.

        Reading a map beyond the end of its file ends the process (SIGBUS). So it still does where the file is cut short
        between this and the reading.

        Raises:
            FormatError: It was cut short since it was opened.
        """
        size = self._map.size()
        if size < self.header.size:
            raise FormatError(
                f"{self.path}: expected {self.header.size} bytes, found {size}: the file was cut short while it was "
                "read; copy it again, or pack again"
            )

    def check_unchanged(self) -> None:
        """See that nobody has written to the file: a map shows what is written, and names would not be those of it.

        A time stamp that is another one is no reason to end, if all but the pixels has its checksum still.

        Raises:
            FormatError: It was cut short or written to since it was opened.
        """
        self.check_whole()
        with contextlib.suppress(OSError):  # whoever took the file's name away took it from those who could write to it
            status = os.stat(self.path)
            if (status.st_dev, status.st_ino) == self.inode and status.st_mtime_ns != self._modified:
                if self._tables_checksum() != self.header.tables_checksum:
                    raise FormatError(
                        f"{self.path}: another program wrote to it while it was read; open it again, and replace a "
                        "pack in use by renaming, as pack-images does"
                    )
                self._settle(status.st_mtime_ns)

    def _settle(self, modified: int) -> None:
        """Take a time stamp for the file's own when it has stood for longer than the write may last that set it."""
        now = time.monotonic()
        if modified != self._settling[0]:
            self._settling = modified, now
        elif now - self._settling[1] > _WRITE_SECONDS:
            self._modified = modified

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
        try:
            with open(self.path, "rb", buffering=0) as file:
                for start in self.starts(rows).tolist():
                    os.preadv(file.fileno(), [bytearray(1)], start, os.RWF_NOWAIT)
        except BlockingIOError:
            return False
        except (OSError, AttributeError):  # the file system, or the system, knows no such flag
            return None
        return True

    def will_need(self, start: int, length: int) -> None:
        """Have the system read bytes of the file into the page cache, without waiting for it."""
        if hasattr(mmap, "MADV_WILLNEED"):
            first = start - start % mmap.PAGESIZE
            self._map.madvise(mmap.MADV_WILLNEED, first, min(start + length, self.header.size) - first)

    def preload(self, pieces: NDArray[np.int64], progress: Callable[[int], object] | None = None) -> int:
        """Read pieces of the file once, front to back, so that they are in the page cache.

        Args:
            pieces: From `pieces`.
            progress: Called with the number of bytes just read.

        Returns:
            Bytes read.

        Raises:
            OSError: The file cannot be read, or is not there any more.
        """
        scratch = memoryview(bytearray(READ_SIZE))
        done = 0
        with open(self.path, "rb", buffering=0) as file:
            for piece in pieces.tolist():
                file.seek(piece * READ_SIZE)
                count = file.readinto(scratch)
                done += count
                if progress is not None:
                    progress(count)
        return done

    def _tables_checksum(self) -> int | None:
        """The XXH3-64 of all that is in the map but the pixels; None if the file has none to compare with."""
        if self.header.tables_checksum is None:
            return None
        checksum = xxhash.xxh3_64()
        for block in self.header.tables.values():
            checksum.update(memoryview(self._map)[block.offset : block.offset + block.nbytes])
        return checksum.intdigest()

    def _array(self, block: Block) -> NDArray[Any]:
        count = block.nbytes // block.dtype.itemsize
        if count == 0:
            return np.empty(block.shape, block.dtype)
        return np.frombuffer(self._map, block.dtype, count, block.offset).reshape(block.shape)


def _map(descriptor: int, header: Header) -> mmap.mmap:
    """Map the file that the header was read from; the lock that keeps writers off it lasts as long as the map."""
    return mmap.mmap(descriptor, header.size, access=mmap.ACCESS_READ)
