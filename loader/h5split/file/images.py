"""PackedImages: a pack as a data set of rows."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from h5split.errors import FormatError
from h5split.file import format as pack_format
from h5split.file.looks import Shown
from h5split.file.losses import LOSSES, described
from h5split.file.mapped import READ_SIZE, MappedFile, Stamp
from h5split.file.texts import Texts
from h5split.system.lazy import lazy
from h5split.system.text import count, other_type

# The longest time that one write call may take. The system stamps a write with the time when it began.
_WRITE_SECONDS = 10
_SAMPLE_ROWS = 16  # rows whose pixels are checked if a file may have been written to


class PackedImages(Shown):
    """A pack as memory-mapped arrays. Pixels are read from disk at first use.

    It is a map-style data set: it has `len`, indexing, and `__getitems__` for a batch. Items are writable copies. It is
    pickled as a path. Another process opens the path again, and raises an error if another pack is there now.

    The arrays are read-only views of the file. Torch may write to them, which changes nothing else. Give it a copy.

    Args:
        path: A file made by pack-images.

    Attributes:
        path: The path as given, for messages. The file is opened again by its full path.
        inode: (device, inode) of the mapped file. It stays the same if the path is given to another file.
        header: The places of all arrays in the file, and the settings.
        images: uint8, uint16 or float32 (N, H, W, C), read-only; a slice of it is a view of the file.
        labels: int32 (N,), indices into `class_names`.
        numbers: The same in the read-only map, for internal use. Give users `labels`.
        class_names: K names, in the order of their numbers.
        filenames: N paths, decoded when they are read.
        columns: Name -> N texts.
        digests: uint8 (N, 32), SHA-256 of each source file.
        checksums: uint64 (N,), XXH3-64 of the pixels of each row.
        tables_checksum: XXH3-64 of all tables, which tells packs, and changes of a pack, apart.
        skipped: (filename, reason) of each file that was left out.
        losses: (filename, text) of each loss of a picture in packing, in the order of rows.
        loss_table: The losses as numbers: `losses.LOSSES` (L,).

    Raises:
        FileNotFoundError: The file does not exist.
        FormatError: The file is not a pack, is damaged, or has a newer format version.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        descriptor, header = pack_format.read(self.path)
        self.file, self.header = MappedFile(descriptor, header), header
        # Not abspath(): it removes "..", which leads to another folder if the name before it is a link.
        self._full_path = self.path if os.path.isabs(self.path) else os.path.join(os.getcwd(), self.path)
        self.inode = self.header.status.st_dev, self.header.status.st_ino
        self._stamp = Stamp.of(self.header.status)
        self._settling = self._stamp, 0.0
        self.images: NDArray[Any] = self.file.array(header.images)
        self._pixels: NDArray[Any] = self.file.array(header.images, pristine=True)
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
        # Only small files that were made by hand lack it.
        self.tables_checksum = header.tables_checksum or self.file.tables_checksum()
        self._own_names = frozenset(vars(self))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> tuple[NDArray[Any], int]:
        self.check_unchanged()
        return self._pixels[row].copy(), int(self.numbers[row])

    def __getitems__(self, rows: Sequence[int]) -> list[tuple[NDArray[Any], int]]:
        """Read the rows of a batch at once: `(pixels (H, W, C), label)` for each."""
        at = np.asarray(rows, np.int64)
        self.check_unchanged()
        return list(zip(self._pixels[at], self.numbers[at].tolist(), strict=True))

    def __iter__(self) -> Iterator[tuple[NDArray[Any], int]]:
        return (self[row] for row in range(len(self)))

    def __repr__(self) -> str:
        image = f"{self.shape}{other_type(self.dtype)}"
        classes = count(len(self.class_names), "class", "classes")
        return f"PackedImages({self.path!r}): {len(self)} images {image}, {classes}"

    def __getstate__(self) -> dict[str, Any]:
        """The path of the pack, its stamp and checksum to recognize it, and attributes of a subclass; no pixels.

        Raises:
            FormatError: The file was written to since it was opened, or another pack is at its path now.
            FileNotFoundError: There is no file at its path any more.
        """
        self.check_unchanged()
        state: dict[str, Any] = {"paths": (self.path, self._full_path), "stamp": self._stamp}
        state["tables"] = self.tables_checksum
        state["added"] = {name: vars(self)[name] for name in vars(self).keys() - self._own_names - {"_own_names"}}
        try:
            status = os.stat(self._full_path)
            is_there = (status.st_dev, status.st_ino) == self.inode
        except OSError:
            is_there = False
        if not is_there:  # fail here if unpickling would fail: an error in a worker process is less clear
            PackedImages.__new__(PackedImages).__setstate__(state)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        given, full = state["paths"]
        use_given = not os.path.exists(full) and os.path.exists(given)  # another machine may have another folder
        PackedImages.__init__(self, given if use_given else full)
        self.path = given
        if self._stamp != state["stamp"] and not self._has_contents(state["tables"]):
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
        """(filename, reason) of each file that was left out of the pack."""
        return list(zip(*self.skipped_texts, strict=True))

    @property
    def skipped_texts(self) -> tuple[Texts, Texts]:
        """The names of the files that were left out, and the reasons. Both are decoded when they are read."""
        blocks = self.header.skipped_filenames, self.header.skipped_reasons
        return Texts(self.file.array(blocks[0])), Texts(self.file.array(blocks[1]))

    @lazy
    def loss_table(self) -> NDArray[np.void]:
        """The losses of pictures in packing, in ascending order of rows: `losses.LOSSES` (L,)."""
        blocks = self.header.losses
        table = np.empty(blocks["rows"].shape if blocks else 0, LOSSES)
        for name, block in blocks.items():
            table[name] = self.file.array(block)
        return table

    @property
    def losses(self) -> list[tuple[str, str]]:
        """(filename, text) of each loss of a picture in packing, in the order of rows.

        The text is a line such as `16 bits cut to 8: 16 of 64 levels kept`. A picture with two losses appears twice.
        """
        table = self.loss_table
        return described(table, list(self.filenames.take(table["rows"])))

    @property
    def stride(self) -> int:
        """The number of bytes of a row."""
        return int(np.prod(self.shape)) * self.dtype.itemsize

    @property
    def items(self) -> NDArray[np.void]:
        """The pixels with one item per row, to copy rows from: void (N,). Give users `images` instead."""
        items: NDArray[np.void] = self._pixels.reshape(len(self), -1).view(f"V{self.stride}")[:, 0]
        return items

    def check_whole(self) -> None:
        """Raise if the file is shorter than when it was opened. This takes 0.4 us.

        Reading a map beyond the end of its file kills the process (SIGBUS). This still happens if the file is truncated
        between this check and the reading.

        Raises:
            FormatError: The file was truncated since it was opened.
        """
        size = self.file.size()
        if size < self.header.size:
            raise FormatError(
                f"{self.path}: expected {self.header.size} bytes, found {size}: the file was cut short while it was "
                "read; copy it again, or pack again"
            )

    def check_unchanged(self) -> None:
        """Raise if the file was written to in place: mapped pixels would no longer match the names read.

        Comparing the size and times of the file takes 1 us. If they differ, a sample of pixels is compared, and the
        tables, which hold the checksum of every row. If these are equal, the file was only touched, linked or removed.

        Raises:
            FormatError: The file was truncated or written to since it was opened.
        """
        stamp = self.file.stamp()
        if stamp == self._stamp:
            return
        self.check_whole()
        if not self._has_contents(self.tables_checksum):
            raise FormatError(
                f"{self.path}: another program wrote to it while it was read; open it again, and replace a "
                "pack in use by renaming, as pack-images does"
            )
        self._settle(stamp)

    def _has_contents(self, tables_sum: int) -> bool:
        """Whether the tables in the file have this checksum, and a sample of pixels agrees with the tables.

        The sample is needed because the tables come after the pixels: overwriting a large file takes minutes.
        """
        expected: NDArray[np.uint64] = self.file.array(self.header.checksums, pristine=True)
        for row in sorted({(len(self) - 1) * part // (_SAMPLE_ROWS - 1) for part in range(_SAMPLE_ROWS)}):
            pixels = bytearray(self.stride)
            self.file.read(memoryview(pixels), self.header.images.offset + row * self.stride)
            if xxhash.xxh3_64_intdigest(pixels) != expected[row]:
                return False
        return self.file.tables_checksum() == tables_sum

    def _settle(self, stamp: Stamp) -> None:
        """Accept a changed stamp once it has been stable for longer than one write can take."""
        now = time.monotonic()
        if stamp != self._settling[0]:
            self._settling = stamp, now
        elif now - self._settling[1] > _WRITE_SECONDS:
            self._stamp = stamp

    def starts(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The byte at which each of `rows` begins in the file: int64 (M,)."""
        return self.header.images.offset + rows.astype(np.int64) * self.stride

    def pieces(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The numbers of the 8 MB pieces of the file that contain pixels of `rows`: int64, ascending."""
        first = self.starts(rows)
        change = np.zeros(self.header.size // READ_SIZE + 2, np.int64)  # in the number of rows, from piece to piece
        np.add.at(change, first // READ_SIZE, 1)
        np.add.at(change, (first + self.stride - 1) // READ_SIZE + 1, -1)
        return np.flatnonzero(np.cumsum(change))

    def is_cached(self, rows: NDArray[np.int64]) -> bool | None:
        """Whether the first byte of each of these rows is in the page cache; None if the system cannot say."""
        return self.file.is_cached(self.starts(rows))

    def preload(self, pieces: NDArray[np.int64], progress: Callable[[int], object] | None = None) -> int:
        """Read pieces of the file into the page cache, front to back.

        Args:
            pieces: The numbers of the pieces, from the method `pieces`.
            progress: A function to call after each piece with the number of bytes read.

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


def _check_labels(path: str, labels: NDArray[np.int32], classes: int) -> None:
    """Raise if a label is not the number of a class."""
    if labels.view(np.uint32).max() >= classes:  # one look at the memory: a negative number is a large one here
        lowest, highest = labels.min(), labels.max()
        raise FormatError(
            f"{path}: labels: expected 0 to {classes - 1}, found {lowest} to {highest}; "
            "copy the file again, or pack again"
        )
