"""The open file of a pack. It is mapped and read through one descriptor.

After the file is opened, its path is not used any more: the working folder may change, and another file may get the
path. Only other processes open the path again.

The file is mapped twice. The first map is read-only, and batches and items are copied from it. The second map is
copy-on-write, and users get views of it. The reason is torch, which ignores numpy's read-only flag: a write to a
read-only map would kill the process with SIGSEGV. A write to the copy-on-write map changes a page of this process
only. It does not reach the file, nor the batches that are copied later.
"""

from __future__ import annotations

import mmap
import os
import weakref
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from h5split.file.format import Block, Header
from h5split.system import files

READ_SIZE = 8 << 20  # bytes; large enough for the full sequential speed of a disk


class Stamp(NamedTuple):
    """Properties of a file that change when it is written to. Times are in nanoseconds.

    A program can set the modification time (mtime) to any value, but not the change time (ctime).
    """

    inode: int
    size: int
    modified: int
    changed: int

    @classmethod
    def of(cls, status: os.stat_result) -> Stamp:
        """The stamp in the result of a stat call."""
        return cls(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class MappedFile:
    """The open file of a pack. It is closed when this object is garbage collected.

    The lock that keeps HDF5 from writing to the file lasts longer. It ends with the last array that is a view of the
    file.

    Args:
        descriptor: The descriptor from `format.read`. This object owns it.
        header: The header from `format.read`.

    Attributes:
        size: A function that returns the present size of the file in bytes. A call takes 0.4 us.
    """

    def __init__(self, descriptor: int, header: Header) -> None:
        self._descriptor = descriptor
        weakref.finalize(self, os.close, descriptor).atexit = False
        self._header = header
        self._pristine = mmap.mmap(descriptor, header.size, access=mmap.ACCESS_READ)
        self.size = self._pristine.size
        self._private = files.copy_on_write(descriptor, header.size) or self._pristine

    def stamp(self) -> Stamp:
        """The present stamp of the file."""
        return Stamp.of(os.fstat(self._descriptor))

    def array(self, block: Block, *, pristine: bool = False) -> NDArray[Any]:
        """A block as a read-only array that is a view of the file.

        Args:
            block: The place and type of the array.
            pristine: Use the read-only map. Never give such an array to users: writing to it kills the process.
        """
        count = block.nbytes // block.dtype.itemsize
        if count == 0:
            return np.empty(block.shape, block.dtype)
        memory = memoryview(self._pristine if pristine else self._private).toreadonly()
        return np.frombuffer(memory, block.dtype, count, block.offset).reshape(block.shape)

    def will_need(self, start: int, length: int) -> None:
        """Ask the system to read bytes into the page cache. This does not wait for the disk."""
        files.will_need(self._pristine, start, length)

    def load(self, start: int, count: int = READ_SIZE) -> int:
        """Read up to `count` bytes of the file into the page cache, from byte `start` on. Return how many there are.

        Raises:
            OSError: They cannot be read.
        """
        return files.load(self._descriptor, count, start)

    def is_cached(self, starts: NDArray[np.int64]) -> bool | None:
        """Whether the bytes at all `starts` are in the page cache; None if the system cannot say."""
        for start in starts.tolist():
            found = files.is_cached(self._descriptor, start)
            if not found:
                return found
        return True

    def read_some(self, into: memoryview, start: int) -> int:
        """Read bytes into `into`, from byte `start` of the file on. It may read fewer than fit.

        Returns:
            The number of bytes read; 0 at the end of the file.
        """
        return files.read_into(self._descriptor, into, start)

    def read(self, into: memoryview, start: int) -> None:
        """Fill `into` with bytes, from byte `start` of the file on.

        A bad sector or a truncated file raises an error here. Access through a map would kill the process.

        Raises:
            OSError: The bytes cannot be read, or the file ends too early.
        """
        while into:
            count = self.read_some(into, start)
            if count == 0:
                raise OSError("the file was cut short while it was read; copy it again, or pack again")
            into, start = into[count:], start + count

    def tables_checksum(self) -> int:
        """The XXH3-64 of all blocks except the pixels, as they are in the file now.

        Raises:
            OSError: The blocks cannot be read.
        """
        checksum = xxhash.xxh3_64()
        for block in self._header.tables.values():
            for piece in self._pieces(block):
                checksum.update(piece)
        return checksum.intdigest()

    def _pieces(self, block: Block) -> Iterator[memoryview]:
        buffer = memoryview(bytearray(min(READ_SIZE, block.nbytes)))
        for start in range(0, block.nbytes, READ_SIZE):
            piece = buffer[: block.nbytes - start]
            self.read(piece, block.offset + start)
            yield piece
