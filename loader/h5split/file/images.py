"""PackedImages: a pack as a data set of rows."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from h5split.errors import ArgumentError, FormatError
from h5split.file import format as pack_format
from h5split.file.format import Block
from h5split.file.looks import Shown
from h5split.file.losses import LOSSES, described
from h5split.file.mapped import READ_SIZE, MappedFile, Stamp
from h5split.file.texts import Texts
from h5split.system.lazy import lazy
from h5split.system.places import is_url
from h5split.system.text import count, other_type

if TYPE_CHECKING:
    from h5split.remote.copying import Copy

# The longest time that one write call may take. The system stamps a write with the time when it began.
_WRITE_SECONDS = 10
_SAMPLE_ROWS = 16  # rows whose pixels are checked if a file may have been written to


class PackedImages(Shown):
    """A pack as memory-mapped arrays. Pixels are read from disk at first use.

    It is a map-style data set: it has `len`, indexing, and `__getitems__` for a batch. Items are writable copies. It is
    pickled as a path. Another process opens the path again, and raises an error if another pack is there now.

    The arrays are read-only views of the file. Torch may write to them, which changes nothing else. Give it a copy.

    Args:
        path: A file made by pack-images, or its address in an object store or on a web server, such as
            s3://bucket/eurosat.h5. Its bytes are then fetched into a copy on this machine as they are needed, once.
        cache: The folder of such copies. None for the cache folder of this user.
        cache_limit: How many bytes the copies in it may have. A new copy that would exceed them removes copies that no
            process uses, those that were used longest ago first. None for no limit.

    Attributes:
        path: The path as given, for messages. The file is opened again by its full path.
        inode: (device, inode) of the mapped file. It stays the same if the path is given to another file.
        header: The places of all arrays in the file, and the settings.
        labels: int32 (N,), indices into `class_names`.
        numbers: The same in the read-only map, for internal use. Give users `labels`.
        class_names: K names, in the order of their numbers.
        tables_checksum: XXH3-64 of all tables, which tells packs, and changes of a pack, apart.
        skipped: (filename, reason) of each file that was left out.
        losses: (filename, text) of each loss of a picture in packing, in the order of rows.
        loss_table: The losses as numbers: `losses.LOSSES` (L,).
        copy: The copy on this machine, of a pack that is elsewhere; else None.

    Raises:
        FileNotFoundError: The file does not exist.
        FormatError: The file is not a pack, is damaged, or has a newer format version.
        ImportError: The package that reads such addresses is not installed.
        OSError: The file cannot be read.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        cache: str | os.PathLike[str] | None = None,
        cache_limit: int | None = None,
    ) -> None:
        self.path = os.fspath(path)
        self.copy: Copy | None = None
        self._cache: tuple[str | None, int | None] = None, None
        if is_url(self.path):
            from h5split.file.elsewhere import open_copy  # here, because few packs are elsewhere

            self._full_path = self.path
            self.copy, descriptor, status, header = open_copy(self.path, cache, cache_limit)
            self._cache = self.copy.place.cache, cache_limit
        else:
            descriptor, status, header = pack_format.read(self.path)
            # Not abspath(): it removes "..", which leads to another folder if the name before it is a link.
            self._full_path = self.path if os.path.isabs(self.path) else os.path.join(os.getcwd(), self.path)
        self.file, self.header = MappedFile(descriptor, header), header
        if self.copy is not None:
            self.copy.check_when_whole(partial(_check_tables, self.path, self.file, header))
        self.inode = status.st_dev, status.st_ino
        self._stamp = Stamp.of(status)
        self._is_filling = not self.is_here  # a copy, which changes until all of it is here
        self._settling = self._stamp, 0.0
        self._images: NDArray[Any] = self.file.array(header.images)
        self._pixels: NDArray[Any] = self.file.array(header.images, pristine=True)
        self.labels: NDArray[np.int32] = self._table(header.labels)
        self.numbers: NDArray[np.int32] = self.file.array(header.labels, pristine=True)
        self.class_names = header.class_names
        _check_labels(self.path, self.labels, len(self.class_names))
        # Only small files that were made by hand lack it.
        self.tables_checksum = header.tables_checksum or self._tables_checksum_now()
        self._own_names = frozenset(vars(self)) | _LAZY

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> tuple[NDArray[Any], int]:
        self.check_unchanged()
        pixels = self._pixels[row]
        if self.copy is not None:
            self.need(np.array([row % len(self)]))
        return pixels.copy(), int(self.numbers[row])

    def __getitems__(self, rows: Sequence[int]) -> list[tuple[NDArray[Any], int]]:
        """Read the rows of a batch at once: `(pixels (H, W, C), label)` for each."""
        at = np.asarray(rows, np.int64)
        self.check_unchanged()
        self.need(at % len(self))  # they may count from the end
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
        state["tables"], state["cache"] = self.tables_checksum, self._cache
        state["added"] = {name: vars(self)[name] for name in vars(self).keys() - self._own_names - {"_own_names"}}
        if self.copy is not None:
            return state
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
        cache, limit = state["cache"]
        PackedImages.__init__(self, given if use_given else full, cache=cache, cache_limit=limit)
        self.path = given
        if not self._is_same(state["stamp"], state["tables"]):
            raise FormatError(
                f"{self._full_path}: expected the pack that was open where this was pickled, or copied, found another "
                "one there; open it again"
            )
        vars(self).update(state["added"])

    @property
    def images(self) -> NDArray[Any]:
        """uint8, uint16 or float32 (N, H, W, C), read-only; a slice of it is a view of the file.

        Raises:
            ValueError: The pack is elsewhere, and not all of its pixels have come.
        """
        if self.copy is not None and not self.is_here:
            raise ArgumentError(
                f"{self.path}: images: expected a pack whose pixels are all on this machine, found one elsewhere of "
                f"which {self.copy.missing_bytes()} bytes have not come; pack[row] and batches fetch what they need, "
                f"and fetch() all"
            )
        return self._images

    @lazy
    def filenames(self) -> Texts:
        """N paths, decoded when they are read."""
        return Texts(self._table(self.header.filenames))

    @lazy
    def columns(self) -> Mapping[str, Texts]:
        """Name -> N texts."""
        return {name: Texts(self._table(block)) for name, block in self.header.columns.items()}

    @lazy
    def digests(self) -> NDArray[np.uint8]:
        """uint8 (N, 32), SHA-256 of each source file."""
        return self._table(self.header.digests)

    @lazy
    def checksums(self) -> NDArray[np.uint64]:
        """uint64 (N,), XXH3-64 of the pixels of each row."""
        return self._table(self.header.checksums)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C) of one image."""
        height, width, channels = self._images.shape[1:]
        return height, width, channels

    @property
    def skipped(self) -> list[tuple[str, str]]:
        """(filename, reason) of each file that was left out of the pack."""
        return list(zip(*self.skipped_texts, strict=True))

    @property
    def skipped_texts(self) -> tuple[Texts, Texts]:
        """The names of the files that were left out, and the reasons. Both are decoded when they are read."""
        blocks = self.header.skipped_filenames, self.header.skipped_reasons
        return Texts(self._table(blocks[0])), Texts(self._table(blocks[1]))

    @lazy
    def loss_table(self) -> NDArray[np.void]:
        """The losses of pictures in packing, in ascending order of rows: `losses.LOSSES` (L,)."""
        blocks = self.header.losses
        table = np.empty(blocks["rows"].shape if blocks else 0, LOSSES)
        for name, block in blocks.items():
            table[name] = self._table(block)
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

    def view(self, first: int, count: int) -> NDArray[Any]:
        """A view of consecutive rows: (count, H, W, C), read-only.

        Raises:
            FormatError: The file was truncated since it was opened.
            OSError: They are elsewhere, and cannot be fetched.
        """
        self.need(range(first, first + count))
        return self._images[first : first + count]

    @property
    def is_here(self) -> bool:
        """Whether all of it is on this machine."""
        return self.copy is None or self.copy.is_whole

    def need(self, rows: NDArray[np.int64] | range) -> None:
        """Wait until the pixels of rows are on this machine. Of a file here, check only that it was not truncated.

        Raises:
            FormatError: The file was truncated since it was opened.
            OSError: They are elsewhere, and cannot be fetched.
        """
        self.check_whole()
        if self.copy is not None and not self.copy.is_whole:
            self.copy.need(self.copy.layout.pieces_of(rows))

    def plan(self, rows: NDArray[np.int64]) -> bool:
        """Begin to fetch the pixels of rows that are elsewhere, in this order. Return whether there are any.

        Raises:
            OSError: The disk has too little space for them.
        """
        if self.copy is None or self.copy.is_whole:
            return False
        layout = self.copy.layout  # tables come last: when all is here, they are compared with their checksum
        return self.copy.plan(np.concatenate([layout.of_rows(rows), np.arange(layout.tables, layout.count), [0]]))

    def fetch(self, progress: Callable[[int, int], object] | None = None) -> None:
        """Fetch all of a pack that is elsewhere, and check it. Then it is on this machine as any other.

        Args:
            progress: Called with (bytes that are here, bytes in total).

        Raises:
            FormatError: It is damaged, or was replaced.
            OSError: It cannot be fetched, or the disk has too little space.
        """
        if self.copy is not None:
            self.copy.fetch(progress)

    def check_tables(self) -> None:
        """Raise if labels, names or other tables do not match their checksum.

        Raises:
            FormatError: They do not match.
            OSError: They cannot be read.
        """
        for block in self.header.tables.values():
            self._table(block)
        _check_tables(self.path, self.file, self.header)

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
        if self._is_filling:
            if self.is_here:
                self._stamp, self._is_filling = self.file.stamp(), False
            return
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

    def _is_same(self, stamp: Stamp, tables_sum: int) -> bool:
        """Whether this is the pack that had this stamp, and this checksum of its tables."""
        if not self.is_here:
            return self.tables_checksum == tables_sum
        return self._stamp == stamp or self._has_contents(tables_sum)

    def _tables_checksum_now(self) -> int:
        """The checksum of all tables, once they are on this machine."""
        for block in self.header.tables.values():
            self._table(block)
        return self.file.tables_checksum()

    def _table(self, block: Block) -> NDArray[Any]:
        """A table, once it is on this machine."""
        if self.copy is not None:
            self.copy.need_bytes(block.offset, block.nbytes)
        return self.file.array(block)

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
        done = 0
        for piece in pieces.tolist():
            count = self.file.load(piece * READ_SIZE)
            done += count
            if progress is not None:
                progress(count)
        return done


_LAZY = frozenset(name for name, value in vars(PackedImages).items() if isinstance(value, lazy))


def _check_tables(path: str, file: MappedFile, header: pack_format.Header) -> None:
    """Raise if tables do not match their checksum, where the pack has one."""
    if header.tables_checksum is not None and file.tables_checksum() != header.tables_checksum:
        raise FormatError(
            f"{path}: labels, names or other tables are not as they were packed; h5split verify says what is damaged; "
            "copy the file again, or pack again"
        )


def _check_labels(path: str, labels: NDArray[np.int32], classes: int) -> None:
    """Raise if a label is not the number of a class."""
    if labels.view(np.uint32).max() >= classes:  # one look at the memory: a negative number is a large one here
        lowest, highest = labels.min(), labels.max()
        raise FormatError(
            f"{path}: labels: expected 0 to {classes - 1}, found {lowest} to {highest}; "
            "copy the file again, or pack again"
        )
