"""The files of a copy: the bytes of a pack, and the notes of which pieces of it are there.

After a power failure, a noted piece may be missing on the disk. Rows can be compared with their checksums, which is
done before a process uses a piece for the first time (`fetching`). Tables have no checksums of their own: they are on
the disk before they are noted.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import time
import weakref
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from h5split.errors import FormatError, RemoteError
from h5split.remote.folder import Place
from h5split.system import files

_LOCK_SECONDS = 30  # to wait for another process; after that, both fetch a piece
_POLL_SECONDS = 0.005  # between attempts to lock
_SMALL_TABLES = 8 << 20  # bytes, whose checksum takes a millisecond


class Store:
    """The files of a copy: its bytes, and the notes of which pieces are there.

    Args:
        place: The copy.

    Attributes:
        is_whole: Whether all pieces are there and were checked.
        check: Called when all pieces are there. It raises a FormatError if the tables are not as they were packed.
        broken: What it raised.

    Raises:
        FileNotFoundError: It was removed.
        OSError: It is not whole, and belongs to another user.
    """

    def __init__(self, place: Place) -> None:
        self.place, self.layout = place, place.layout
        self.is_whole = place.is_whole
        self.check: Callable[[], None] = lambda: None
        self.broken: FormatError | None = None
        self._pack = self._open(place.pack)
        self._use()
        self._process = 0
        self.use_in_this_process()
        access = mmap.ACCESS_READ  # notes are written, so that a full disk is an error and not the end of the process
        self._noted = np.frombuffer(mmap.mmap(self._notes, self.layout.count, access=access), np.uint8)

    def use_in_this_process(self) -> None:
        """Open the notes, unless this process has: a forked one would share the locks of its parent."""
        if self._process != os.getpid():
            self._notes = self._open(self.place.pieces)
            self._process = os.getpid()

    def _open(self, path: str) -> int:
        """Open a file of the copy: for reading if it is whole, else for writing too."""
        try:
            descriptor = os.open(path, (os.O_RDONLY if self.is_whole else os.O_RDWR) | files.BINARY)
        except PermissionError as error:
            raise RemoteError(
                f"{self.place.folder}: expected a copy that this user may write to, found one of another user; give "
                "another folder with the setting cache"
            ) from error
        weakref.finalize(self, os.close, descriptor).atexit = False
        return descriptor

    def _use(self) -> None:
        """Keep other processes from removing the copy. One may have done so since it was found."""
        try:
            files.lock_shared(self._pack)
            is_there = os.fstat(self._pack).st_nlink > 0
        except BlockingIOError:
            is_there = False
        if not is_there:
            raise FileNotFoundError(errno.ENOENT, "the copy was removed", self.place.pack)

    def is_noted(self, piece: int) -> bool:
        """Whether a piece was written by any process."""
        return bool(self._noted[piece])

    def is_complete(self) -> bool:
        """Whether all pieces were written."""
        return bool(self._noted.all())

    @property
    def has_small_tables(self) -> bool:
        """Whether fetching and checking all tables takes no time that anybody would notice."""
        return self.layout.size - self.layout.end_of_pixels <= _SMALL_TABLES

    def check_tables(self) -> None:
        """Check the tables. If they are not right, they are fetched again at the next opening.

        Raises:
            FormatError: They are not right.
        """
        try:
            self.check()
        except FormatError:
            self.forget(range(self.layout.tables, self.layout.count))
            self.forget(range(1))  # it has the place of each table
            raise

    def forget(self, pieces: range) -> None:
        """Take back the notes of pieces."""
        self._write(self._notes, bytes(len(pieces)), pieces.start)

    def missing(self, pieces: NDArray[np.int64]) -> int:
        """The bytes of pieces that were not written, or a few more."""
        return self.layout.bytes_of(pieces[self._noted[pieces] == 0])

    @contextlib.contextmanager
    def locked(self, run: range) -> Iterator[None]:
        """Keep other processes from fetching these pieces. Waits while one of them does."""
        until = time.monotonic() + _LOCK_SECONDS
        while not files.lock_bytes(self._notes, run.start, len(run)) and time.monotonic() < until:
            time.sleep(_POLL_SECONDS)
        try:
            yield
        finally:
            files.unlock_bytes(self._notes, run.start, len(run))

    def read(self, start: int, stop: int) -> bytes:
        """Bytes of the copy."""
        return files.read_at(self._pack, stop - start, start)

    def write(self, run: range, data: bytes | memoryview) -> None:
        """Write pieces that follow each other.

        Raises:
            OSError: The disk is full, or the file system reports another error.
        """
        start = self.layout.start(run.start)
        self._write(self._pack, memoryview(data)[: self.layout.start(run.stop) - start], start)

    def note(self, run: range) -> None:
        """Note pieces that were written. Raises what `write` does."""
        if not self.layout.is_pixels(run.start):
            os.fsync(self._pack)
        self._write(self._notes, b"\1" * len(run), run.start)

    def finish(self) -> None:
        """Check the tables, once all pieces are there; then the copy is whole."""
        try:
            self.check_tables()
        except FormatError as error:
            self.broken = error
            return
        os.fsync(self._pack)
        with contextlib.suppress(FileNotFoundError):  # somebody has removed the copy that this process still reads
            self.place.mark_whole()
        self.is_whole = True

    def _write(self, descriptor: int, data: bytes | memoryview, offset: int) -> None:
        try:
            files.write_all(descriptor, data, offset)
        except OSError as error:
            raise RemoteError(
                f"{self.place.folder}: expected room for the copy of a pack, found {error.strerror}; free some, or "
                "give another folder with the setting cache"
            ) from error
