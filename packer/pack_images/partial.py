"""The file in the making: pixels and a journal beside the output, until both are whole.

``OUT.partial`` is the output itself before HDF5 is laid around its pixels (`h5split.file.format`). ``OUT.journal`` says
which plan it follows and, for each row, what was written (`journal`). So processes share nothing but the two files, and
a run that ends early is continued by one that verifies what the journal claims.

Both begin with a mark. Where the pixels' mark is, HDF5's own will be: it is written last of all, so the file is marked
or a whole pack at any time. A file at one of these paths that is neither is somebody else's: it is left alone, and the
run refused. The journal is locked while a run uses it, so a second run at the same output is refused too.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import BinaryIO

import numpy as np
import xxhash
from numpy.typing import NDArray

from h5split.order.rows import Rows
from h5split.system.interrupts import interrupts_held
from h5split.writing.replace import check_replaceable, sync_folder
from pack_images.errors import PackError, UnfinishedError
from pack_images.journal import (
    HEADING,
    MARK,
    MARKS,
    RECORD,
    has_name,
    is_of,
    lock,
    marked,
    read_into,
    read_records,
    sync_data,
    write_all,
)
from pack_images.plan import Place

_PIXELS = b"pack-images partial 1\n"
_LONGEST_IDENTITY = 256
_WHOLE = "whole"
_FLUSH_SECONDS = 0.05
_HOLD_SECONDS = 60
_CHECK_BYTES = 4 << 20
_COPY_BYTES = 64 << 20


class Partial:
    """An output in the making, locked for this process.

    Args:
        output: The path it will have.
        identity: Of the plan; a journal of another one is started afresh.
        rows: How many.
        offset: Of row 0.
        stride: Bytes of a row.
        extra: Bytes to reserve behind the pixels.

    Attributes:
        place: For workers.
        continues: Whether an earlier run of the same plan left rows here.
        restarts: Whether an earlier run of another plan left rows here, which are given up.

    Raises:
        UnfinishedError: Another run is at this output, or the disk has too little room.
        PackError: Somebody else's file is where one of the two is to be.
        OSError: The folder cannot be written to.
    """

    def __init__(self, output: str, identity: str, rows: int, offset: int, stride: int, extra: int) -> None:
        self._output = output
        self._rows = rows
        self.place = Place(f"{output}.partial", f"{output}.journal", identity, offset, stride)
        self._pixels = -1
        self._journal = _locked(self.place.journal, output)
        try:
            is_new = os.fstat(self._journal).st_size == 0
            left = _identity_left(self.place.pixels, is_new)
            self.continues = left in (identity, _WHOLE) and is_of(self._journal, identity)
            self.restarts = left is not None and not is_new and not self.continues
            if not self.continues:
                self._begin_anew()
            self._open_pixels()
            self._lay_out(offset + rows * stride + extra)
        except BaseException:
            self._close_unused()
            raise

    @property
    def descriptor(self) -> int:
        """Of the partial file, open for reading and writing."""
        return self._pixels

    def records(self) -> NDArray[np.void]:
        """What the journal says of every row: RECORD (N,)."""
        return np.frombuffer(read_records(self._journal, 0, self._rows), RECORD)

    @contextlib.contextmanager
    def flushed_behind(self) -> Iterator[None]:
        """Have pixels written to disk while more are made, so that little is left to wait for in the end.

        Raises:
            OSError: Writing failed. The kernel reports a write error only once, so it must be raised again.
        """
        stop = threading.Event()
        descriptor = os.dup(self._pixels)
        errors: list[OSError] = []

        def flush() -> None:
            try:
                while not stop.wait(_FLUSH_SECONDS):
                    sync_data(descriptor)
            except OSError as error:
                errors.append(error)
            finally:
                os.close(descriptor)

        thread = threading.Thread(target=flush, daemon=True)
        try:
            with interrupts_held():
                thread.start()
            yield
        finally:
            with interrupts_held():
                stop.set()
                if thread.is_alive():
                    thread.join()
        if errors:
            raise errors[0]

    def hold(self) -> None:
        """Lock the pixels for this process alone, to move, seal and publish them.

        Raises:
            UnfinishedError: A worker that was left behind still writes rows, or is stopped in the midst of it.
        """
        deadline = time.monotonic() + _HOLD_SECONDS
        while True:
            try:
                return lock(self._pixels, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise UnfinishedError(
                        f"{self._output}: expected workers to be through, found one that still has {self.place.pixels} "
                        f"after {_HOLD_SECONDS} seconds; end it, and the same call continues"
                    ) from None
            time.sleep(0.02)

    def move(self, rows: Rows) -> None:
        """Have row *i* hold what row `rows[i]` held: int64 (M,), where `rows[i] >= i`, or row `i` is given up."""
        place = self.place
        for row in np.flatnonzero(rows != np.arange(len(rows))).tolist():
            source, target = (place.offset + at * place.stride for at in (int(rows[row]), row))
            for start in range(0, place.stride, _COPY_BYTES):
                data = bytearray(min(_COPY_BYTES, place.stride - start))
                read_into(self._pixels, data, source + start)
                write_all(self._pixels, data, target + start)

    def damaged(self) -> Rows:
        """Rows whose pixels, read back, are not what the journal says, or that it does not have: int64, ascending.

        Both are opened again by path, because that is when a network file system looks for what others wrote.
        """
        place = self.place
        records = np.empty(self._rows, RECORD)
        wrong = np.ones(self._rows, np.bool_)
        together = max(1, _CHECK_BYTES // place.stride)
        rows = np.empty((together, place.stride), np.uint8)
        with open(place.journal, "rb", buffering=0) as journal, open(place.pixels, "rb", buffering=0) as pixels:
            read_into(journal.fileno(), records.view(np.uint8).data, HEADING)
            for first in range(0, self._rows, together):
                block = rows[: self._rows - first]
                read_into(pixels.fileno(), block.reshape(-1).data, place.offset + first * place.stride)
                found = np.fromiter(map(xxhash.xxh3_64_intdigest, block), np.uint64, len(block))
                wrong[first : first + together] = found != records["checksum"][first : first + together]
        wrong |= records["done"] == 0
        return np.flatnonzero(wrong)

    def publish(self) -> None:
        """Give the finished file its name, whole, and remove the journal.

        Raises:
            UnfinishedError: It cannot be read, or somebody else's file has come to one of its names meanwhile.
            OSError: It cannot be written to disk.
        """
        from h5split.file.format import header_of, is_pack  # loaded by now, with what seals the file

        os.fsync(self._pixels)
        try:
            header_of(self._pixels, self.place.pixels)
            check_replaceable(self._output, "a pack", is_pack)
        except ValueError as error:
            raise UnfinishedError(f"{error}; what is done is kept in {self.place.pixels}") from error
        if not has_name(self._pixels, self.place.pixels):
            raise UnfinishedError(
                f"{self.place.pixels}: expected what this run made, found that it is another file now"
            )
        os.replace(self.place.pixels, self._output)
        sync_folder(os.path.dirname(self._output) or os.curdir)
        if has_name(self._journal, self.place.journal):
            os.unlink(self.place.journal)
        self.close()

    def discard(self) -> None:
        """Remove what was made."""
        for path, descriptor in ((self.place.pixels, self._pixels), (self.place.journal, self._journal)):
            if has_name(descriptor, path):
                os.unlink(path)
        self.close()

    def close(self) -> None:
        """Let go of the files; another run may continue them."""
        with interrupts_held():  # or they are closed twice
            for descriptor in (self._pixels, self._journal):
                if descriptor >= 0:
                    with contextlib.suppress(OSError):
                        fcntl.flock(
                            descriptor, fcntl.LOCK_UN
                        )  # processes that were forked hold it too, and may live on
                    os.close(descriptor)
            self._pixels = self._journal = -1

    def _begin_anew(self) -> None:
        """New files, not emptied ones: whoever still writes to the old ones writes to nothing."""
        while os.path.lexists(self.place.pixels) or os.fstat(self._journal).st_size:
            is_new = os.fstat(self._journal).st_size == 0
            for path, proves in ((self.place.pixels, _proof_of(is_new)), (self.place.journal, _is_journal)):
                _check_ours(path, proves)
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
            with interrupts_held():
                os.close(self._journal)
                self._journal = -1
            self._journal = _locked(self.place.journal, self._output)  # another run may come between

    def _open_pixels(self) -> None:
        new = 0 if self.continues else os.O_CREAT | os.O_EXCL
        try:
            self._pixels = os.open(self.place.pixels, os.O_RDWR | os.O_NOFOLLOW | new, 0o666)
        except FileExistsError:
            found = "expected nothing there, found a file that another program has just made"
            raise PackError(f"{self.place.pixels}: {found}; remove it, or give another --output") from None

    def _lay_out(self, size: int) -> None:
        """Mark both files, and take the disk space now, so that a full disk is noticed before anything is decoded."""
        identity = self.place.identity
        try:
            for descriptor, mark, total in (
                (self._journal, MARK, HEADING + self._rows * RECORD.itemsize),
                (self._pixels, _PIXELS, size),
            ):
                write_all(descriptor, marked(mark, identity), 0)
                sync_data(descriptor)  # or the file is, after a power cut, nobody's
                os.ftruncate(descriptor, max(total, os.fstat(descriptor).st_size))
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(descriptor, 0, total)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise OSError(error.errno, error.strerror, self._output) from error
            if not self.continues:
                self.discard()
            system = os.statvfs(os.path.dirname(os.path.abspath(self._output)))
            free = system.f_bavail * system.f_frsize
            raise UnfinishedError(
                f"{self._output}: expected room for {size:,} bytes, found {free:,} bytes free ({error.strerror}); "
                "make room, or give another --output"
            ) from error

    def _close_unused(self) -> None:
        """Let go of the files, without a journal that says nothing."""
        with contextlib.suppress(OSError):
            if os.fstat(self._journal).st_size == 0 and has_name(self._journal, self.place.journal):
                os.unlink(self.place.journal)
        self.close()


def _identity_left(path: str, is_new: bool) -> str | None:
    """The identity of the plan that pixels left here are of: `_WHOLE` of a file that was sealed; None of no file.

    Args:
        path: Of the pixels.
        is_new: Whether there was no journal beside them.
    """
    _check_ours(path, _proof_of(is_new))
    try:
        with open(path, "rb", buffering=0) as file:
            head = file.read(len(_PIXELS) + _LONGEST_IDENTITY)
    except FileNotFoundError:
        return None
    if head and not head.startswith(_PIXELS):
        return _WHOLE
    return head[len(_PIXELS) :].partition(b"\n")[0].decode("ascii", "replace")


def _check_ours(path: str, proves: Callable[[BinaryIO], bool]) -> None:
    """Check that there is nothing at a path of ours, or what an earlier run left.

    Raises:
        PackError: It is somebody else's.
    """
    try:
        check_replaceable(path, "what an interrupted run of pack-images left", proves)
    except ValueError as error:
        raise PackError(str(error)) from error


def _proof_of(is_new: bool) -> Callable[[BinaryIO], bool]:
    """What proves that pixels are ours: their mark, or, beside a journal, that they were sealed."""

    def is_partial(file: BinaryIO) -> bool:
        from h5split.file.format import is_pack  # takes 10 ms to load, while workers wait

        return file.read(len(_PIXELS)) == _PIXELS or (not is_new and is_pack(file))

    return is_partial


def _is_journal(file: BinaryIO) -> bool:
    return file.read(len(MARKS)) == MARKS


def _locked(path: str, output: str) -> int:
    """A locked descriptor of the journal at `path`, and not of one that was removed meanwhile.

    Raises:
        UnfinishedError: Another run has it, or there is no folder for it.
        PackError: It is somebody else's file.
    """
    while True:
        try:
            _check_ours(path, _is_journal)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        except FileNotFoundError:
            folder = os.path.dirname(output) or "."
            found = "one that takes no files" if os.path.isdir(folder) else "nothing there"
            raise UnfinishedError(f"{output}: expected a folder {folder} to write to, found {found}") from None
        try:
            lock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise UnfinishedError(
                f"{output}: another run is packing to it ({path} is locked); wait for it, or give another --output"
            ) from None
        except OSError:
            os.close(descriptor)
            raise
        if has_name(descriptor, path):
            return descriptor
        os.close(descriptor)
