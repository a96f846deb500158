"""Open files and memory maps: every call that systems have in different forms, or do not have at all.

The functions of POSIX read and write at an offset, and leave the position of the file alone. Windows has none of them.
There, a file is read and written at its position, and threads take turns. `docs/windows.md` says what else differs.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import sys
import threading

# Large writes are slow because Linux looks for contiguous memory of the same size. A row of 12 KB takes 17 us with
# 4 MB per call, and 2 to 3 us with 256 KB.
_WRITE_BYTES = 256 << 10

if sys.platform == "win32":
    BINARY = os.O_BINARY  # without it, Windows translates newlines
    NO_LINKS = 0  # fail if the path is a symbolic link
    NO_WAIT = 0  # do not wait for the writer of a pipe
    FOLDER = os.O_RDONLY  # flags to open a folder; Windows opens none
    _turns = threading.Lock()  # all descriptors share it: few are read at once, and a lock for each would need a table

    def read_at(descriptor: int, count: int, offset: int) -> bytes:
        """Read up to `count` bytes of an open file, from byte `offset` on; fewer at its end."""
        with _turns:
            os.lseek(descriptor, offset, os.SEEK_SET)
            return os.read(descriptor, count)

    def read_into(descriptor: int, into: memoryview, offset: int) -> int:
        """Read bytes into `into`, from byte `offset` on. Return their number, which is 0 at the end of the file."""
        data = read_at(descriptor, len(into), offset)
        into[: len(data)] = data
        return len(data)

    def load(descriptor: int, count: int, offset: int) -> int:
        """Read bytes of a file into the page cache. Return their number; it is smaller at the end of the file."""
        return len(read_at(descriptor, count, offset))

    def write_at(descriptor: int, data: bytes | memoryview, offset: int) -> int:
        """Write bytes at `offset`. Return their number, which may be smaller than that of `data`."""
        with _turns:
            os.lseek(descriptor, offset, os.SEEK_SET)
            return os.write(descriptor, data)

    def is_cached(descriptor: int, offset: int) -> bool | None:
        """Whether the byte at `offset` is in the page cache; None if the system cannot say."""
        return None

    def lock_shared(descriptor: int) -> None:
        """Take a shared lock, without waiting. Windows has no locks that HDF5 knows.

        Raises:
            BlockingIOError: Another process holds an exclusive lock.
        """

    def lock_alone(descriptor: int) -> bool:
        """Take an exclusive lock, without waiting. Return whether it was taken."""
        return True  # Windows itself refuses to remove a file that is open

    def lock_bytes(descriptor: int, start: int, count: int) -> bool:
        """Take an exclusive lock of bytes of a file, without waiting. Return whether it was taken."""
        return True  # without locks, two processes may do the same work

    def unlock_bytes(descriptor: int, start: int, count: int) -> None:
        """Let a lock of bytes go."""

    def reserve(descriptor: int, size: int) -> None:
        """Reserve disk space for the first `size` bytes of a file, if the system can.

        Raises:
            OSError: There is too little.
        """

    def will_need(mapped: mmap.mmap, start: int, length: int) -> None:
        """Ask the system to read bytes of a map into the page cache. This does not wait for the disk."""

    def copy_on_write(descriptor: int, size: int) -> mmap.mmap | None:
        """A map of a file whose modified pages are private to this process; None if the system refuses it.

        Windows would set memory aside for the whole file at once.
        """
        return None

    def anonymous(size: int) -> mmap.mmap:
        """A map of new memory that belongs to this process alone."""
        return mmap.mmap(-1, size)

else:
    import fcntl

    BINARY = 0
    NO_LINKS = os.O_NOFOLLOW
    NO_WAIT = os.O_NONBLOCK
    FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
    # Linux refuses a copy-on-write map of a file larger than memory unless MAP_NORESERVE is set. Python has had a name
    # for the flag since version 3.12. For earlier versions, its value is given here for the processors where it is
    # known.
    _IS_KNOWN = sys.platform == "linux" and os.uname().machine in {"x86_64", "aarch64"}
    _NO_RESERVE: int = getattr(mmap, "MAP_NORESERVE", 0x4000 if _IS_KNOWN else 0)

    def read_at(descriptor: int, count: int, offset: int) -> bytes:
        """Read up to `count` bytes of an open file, from byte `offset` on; fewer at its end."""
        return os.pread(descriptor, count, offset)

    def read_into(descriptor: int, into: memoryview, offset: int) -> int:
        """Read bytes into `into`, from byte `offset` on. Return their number, which is 0 at the end of the file."""
        return os.preadv(descriptor, [into], offset)

    def load(descriptor: int, count: int, offset: int) -> int:
        """Read bytes of a file into the page cache. Return their number; it is smaller at the end of the file.

        Linux sends them to nowhere, which saves the copy: with it, a first epoch from disk takes a tenth longer.
        """
        if sys.platform == "linux":
            with contextlib.suppress(OSError), open(os.devnull, "wb", buffering=0) as nowhere:
                return os.sendfile(nowhere.fileno(), descriptor, offset, count)
        return len(read_at(descriptor, count, offset))  # also where the file system cannot send, or the disk fails

    def write_at(descriptor: int, data: bytes | memoryview, offset: int) -> int:
        """Write bytes at `offset`. Return their number, which may be smaller than that of `data`."""
        return os.pwrite(descriptor, data, offset)

    def is_cached(descriptor: int, offset: int) -> bool | None:
        """Whether the byte at `offset` is in the page cache; None if the system cannot say."""
        try:
            os.preadv(descriptor, [bytearray(1)], offset, os.RWF_NOWAIT)
        except BlockingIOError:
            return False
        except (OSError, AttributeError):  # the system or the file system does not support the flag
            return None
        return True

    def lock_shared(descriptor: int) -> None:
        """Take a shared lock, without waiting. Do nothing if the file system has no locks.

        Raises:
            BlockingIOError: Another process holds an exclusive lock.
        """
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:
            pass

    def lock_alone(descriptor: int) -> bool:
        """Take an exclusive lock, without waiting. Return whether it was taken."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def lock_bytes(descriptor: int, start: int, count: int) -> bool:
        """Take an exclusive lock of bytes of a file, without waiting. Return whether it was taken.

        On Linux it belongs to the open file, which forked processes share. It ends when the last of them closes it.
        Elsewhere it belongs to this process, and ends when it closes any descriptor of the file.
        """
        try:
            _lock_bytes(descriptor, fcntl.F_WRLCK, start, count)
        except (BlockingIOError, PermissionError):
            return False
        except OSError:  # the file system has no locks: two processes may do the same work
            return True
        return True

    def unlock_bytes(descriptor: int, start: int, count: int) -> None:
        """Let a lock of bytes go."""
        with contextlib.suppress(OSError):
            _lock_bytes(descriptor, fcntl.F_UNLCK, start, count)

    def _lock_bytes(descriptor: int, kind: int, start: int, count: int) -> None:
        if sys.platform == "linux" and sys.maxsize > 1 << 32:
            lock = struct.pack("hhqqi4x", kind, os.SEEK_SET, start, count, 0)  # a struct flock
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, lock)
        else:
            of_process = fcntl.LOCK_UN if kind == fcntl.F_UNLCK else fcntl.LOCK_EX | fcntl.LOCK_NB
            fcntl.lockf(descriptor, of_process, count, start)

    def reserve(descriptor: int, size: int) -> None:
        """Reserve disk space for the first `size` bytes of a file, if the system can.

        Raises:
            OSError: There is too little.
        """
        if hasattr(os, "posix_fallocate"):  # macOS has none
            os.posix_fallocate(descriptor, 0, size)

    def will_need(mapped: mmap.mmap, start: int, length: int) -> None:
        """Ask the system to read bytes of a map into the page cache. This does not wait for the disk."""
        first = start - start % mmap.PAGESIZE
        mapped.madvise(mmap.MADV_WILLNEED, first, min(start + length, len(mapped)) - first)

    def copy_on_write(descriptor: int, size: int) -> mmap.mmap | None:
        """A map of a file whose modified pages are private to this process; None if the system refuses it."""
        flags, access = mmap.MAP_PRIVATE | _NO_RESERVE, mmap.PROT_READ | mmap.PROT_WRITE
        try:
            return mmap.mmap(descriptor, size, flags=flags, prot=access)
        except OSError:  # strict memory overcommit, or a memory limit
            return None

    def anonymous(size: int) -> mmap.mmap:
        """A map of new memory that belongs to this process alone."""
        return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def write_all(descriptor: int, data: bytes | bytearray | memoryview, offset: int) -> None:
    """Write all bytes at `offset`, in pieces. One call of `write_at` may write fewer than it is given.

    Raises:
        OSError: The disk is full, or the file system reports another error.
    """
    view = memoryview(data).cast("B")
    while view:
        count = write_at(descriptor, view[:_WRITE_BYTES], offset)
        view, offset = view[count:], offset + count
