"""The open file of a pack: mapped and read through one descriptor, whatever happens to its path.

A path may be relative, and the working folder may change; it may also be given to another file. So after opening,
everything goes by the descriptor, and only other processes open the path again.

The file is mapped twice. Batches and items are copied from a map that nothing can write to. What is handed out as a
view comes from the other one, which is copy-on-write: torch takes no notice of numpy's read-only flag, and a store into
a read-only map ends the process (SIGSEGV). Such a store now changes a page of this process alone: not the file, and no
batch that is copied later.
"""

from __future__ import annotations

import mmap
import os
import sys
import weakref
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from h5split.file.format import Block, Header

READ_SIZE = 8 << 20  # bytes; large enough for a disk to stream
# Python has a name for it since 3.12. Without it, Linux refuses a copy-on-write map of a file larger than its memory.
_USUAL = {"x86_64", "aarch64"} if sys.platform == "linux" else set()
_NO_RESERVE: int = getattr(mmap, "MAP_NORESERVE", 0x4000 if _USUAL and os.uname().machine in _USUAL else 0)


class Stamp(NamedTuple):
    """What changes when a file is written to; times in nanoseconds. No program can set the change time."""

    inode: int
    size: int
    modified: int
    changed: int

    @classmethod
    def of(cls, status: os.stat_result) -> Stamp:
        """The stamp that a file has."""
        return cls(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class MappedFile:
    """The file that a header was read from; it is closed when nobody holds this any more.

    Its lock, which keeps HDF5's writers off, lasts until the last array on it is gone too.

    Args:
        descriptor: From `format.read`; not to be used by anybody else.
        header: From `format.read`, too.

    Attributes:
        size: A function: the size of the file now, in bytes; a call takes 0.4 us.
    """

    def __init__(self, descriptor: int, header: Header) -> None:
        self._descriptor = descriptor
        weakref.finalize(self, os.close, descriptor).atexit = False
        self._header = header
        self._pristine = mmap.mmap(descriptor, header.size, access=mmap.ACCESS_READ)
        self.size = self._pristine.size
        self._private = _copy_on_write(descriptor, header.size) or self._pristine

    def stamp(self) -> Stamp:
        """The stamp, now."""
        return Stamp.of(os.fstat(self._descriptor))

    def array(self, block: Block, *, pristine: bool = False) -> NDArray[Any]:
        """A block as a read-only array, which is a view of the file.

        Args:
            block: Its place and type.
            pristine: Use the map that nothing can write to; such an array must not be handed out.
        """
        count = block.nbytes // block.dtype.itemsize
        if count == 0:
            return np.empty(block.shape, block.dtype)
        memory = memoryview(self._pristine if pristine else self._private).toreadonly()
        return np.frombuffer(memory, block.dtype, count, block.offset).reshape(block.shape)

    def will_need(self, start: int, length: int) -> None:
        """Have the system read bytes into the page cache, without waiting for it."""
        if hasattr(mmap, "MADV_WILLNEED"):
            first = start - start % mmap.PAGESIZE
            self._pristine.madvise(mmap.MADV_WILLNEED, first, min(start + length, self._header.size) - first)

    def is_cached(self, starts: NDArray[np.int64]) -> bool | None:
        """Whether these bytes are in the page cache; None where the system does not tell."""
        try:
            for start in starts.tolist():
                os.preadv(self._descriptor, [bytearray(1)], start, os.RWF_NOWAIT)
        except BlockingIOError:
            return False
        except (OSError, AttributeError):  # the file system, or the system, knows no such flag
            return None
        return True

    def read_some(self, into: memoryview, start: int) -> int:
        """Fill as much of `into` as one call gives, from byte `start` on; 0 at the end of the file."""
        return os.preadv(self._descriptor, [into], start)

    def read(self, into: memoryview, start: int) -> None:
        """Fill `into` with bytes from `start` on. Unlike a map, this survives a bad sector and a file cut short.

        Raises:
            OSError: They cannot be read, or the file ends before.
        """
        while into:
            count = self.read_some(into, start)
            if count == 0:
                raise OSError("the file was cut short while it was read; copy it again, or pack again")
            into, start = into[count:], start + count

    def tables_checksum(self) -> int:
        """The XXH3-64 of every block but the pixels, as the file holds them now.

        Raises:
            OSError: They cannot be read.
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


def _copy_on_write(descriptor: int, size: int) -> mmap.mmap | None:
    """A map whose pages become this process' own when they are written to; None where the system refuses."""
    try:
        flags, access = mmap.MAP_PRIVATE | _NO_RESERVE, mmap.PROT_READ | mmap.PROT_WRITE
        return mmap.mmap(descriptor, size, flags=flags, prot=access)
    except (OSError, AttributeError):  # strict accounting of memory, a limit of it, or a system without such maps
        return None
