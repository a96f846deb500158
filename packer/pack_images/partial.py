"""The unfinished output: two files beside the output that hold pixels and a journal until the pack is complete.

``OUT.partial`` becomes the output: it holds the pixels, and HDF5 metadata is written around them at the end
(`h5split.file.format`). ``OUT.journal`` names the plan and records what was written of each row (`journal`). The
processes of a run share nothing but these two files. If a run ends early, the next one verifies what the journal
claims and continues.

Both files begin with a mark. HDF5's own signature finally overwrites the mark of the pixels, in the last write of all.
So at any time the file either has the mark or is a complete pack. A file at one of the two paths that is neither
belongs to another program: it is left alone, and the run is refused. A run locks the journal while it uses it, so a
second run with the same output is refused too.
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
from h5split.system.files import write_all
from h5split.system.interrupts import interrupts_held
from h5split.writing.replace import check_replaceable, sync_folder
from pack_images.errors import PackError, UnfinishedError
from pack_images.find.sources import is_pack
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
)
from pack_images.plan import Place

_PIXELS_MARK = b"pack-images partial 1\n"
_MAX_IDENTITY_BYTES = 256
_SEALED = "whole"
_FLUSH_SECONDS = 0.05  # pause between two flushes
_HOLD_SECONDS = 60  # how long to wait for workers that still write
_CHECK_BYTES = 4 << 20
_COPY_BYTES = 64 << 20


class Partial:
    """The two files of an unfinished output, locked by this process.

    Args:
        output: Path of the output.
        identity: Identity of the plan. Files of another plan are discarded.
        rows: Number of rows.
        offset: Byte offset of row 0.
        stride: Bytes per row.
        extra: Bytes to reserve after the pixels.

    Attributes:
        place: The location of the rows, for workers.
        continues: Whether an earlier run of the same plan left rows here.
        restarts: Whether an earlier run of another plan left rows here. They are discarded.

    Raises:
        UnfinishedError: Another run uses this output, or the disk has too little room.
        PackError: A file of another program has the name of one of the two files.
        OSError: The folder cannot be written to.
    """

    def __init__(self, output: str, identity: str, rows: int, offset: int, stride: int, extra: int) -> None:
        self._output = output
        self._rows = rows
        self.place = Place(f"{output}.partial", f"{output}.journal", identity, offset, stride)
        self._pixels = -1
        self._journal = _open_journal(self.place.journal, output)
        try:
            is_new = os.fstat(self._journal).st_size == 0
            left = _identity_of_leftover(self.place.pixels, is_new)
            self.continues = left in (identity, _SEALED) and is_of(self._journal, identity)
            self.restarts = left is not None and not is_new and not self.continues
            if not self.continues:
                self._start_new_files()
            self._open_pixels()
            self._reserve(offset + rows * stride + extra)
        except BaseException:
            self._close_after_error()
            raise

    @property
    def descriptor(self) -> int:
        """Descriptor of the partial file, open for reading and writing."""
        return self._pixels

    def records(self) -> NDArray[np.void]:
        """Read the journal records of all rows: RECORD (N,)."""
        return np.frombuffer(read_records(self._journal, 0, self._rows), RECORD)

    @contextlib.contextmanager
    def flushed_behind(self) -> Iterator[None]:
        """Flush pixels to disk in the background until the block ends, so that the final flush is short.

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
        """Take an exclusive lock on the partial file, before its rows are moved, sealed and published.

        Raises:
            UnfinishedError: Some worker still writes rows, or was stopped while it wrote.
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
        """Copy row `rows[i]` to row `i` for every `i`, in ascending order.

        Args:
            rows: int64 (M,). Either `rows[i] >= i`, or the old content of row `i` is not needed.
        """
        place = self.place
        # In ascending order, no row is overwritten before it has been copied.
        for row in np.flatnonzero(rows != np.arange(len(rows))).tolist():
            source, target = (place.offset + at * place.stride for at in (int(rows[row]), row))
            for start in range(0, place.stride, _COPY_BYTES):
                data = bytearray(min(_COPY_BYTES, place.stride - start))
                read_into(self._pixels, data, source + start)
                write_all(self._pixels, data, target + start)

    def damaged(self) -> Rows:
        """Read all pixels back. Return the rows that are not done or do not match their checksum: int64, ascending.

        Both files are opened again by path: a network file system looks for the writes of other machines on opening.
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
        """Rename the finished file to the output, and remove the journal.

        Raises:
            UnfinishedError: The file is no readable pack, or another program has put a file at one of the paths.
            OSError: The file cannot be written to disk.
        """
        from h5split.file.format import header_of  # loaded by now, by the module that seals the file

        os.fsync(self._pixels)  # before the rename: after a power cut, the new name must not show an incomplete file
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
        """Remove both files."""
        for path, descriptor in ((self.place.pixels, self._pixels), (self.place.journal, self._journal)):
            if has_name(descriptor, path):
                os.unlink(path)
        self.close()

    def close(self) -> None:
        """Close and unlock both files. Another run may continue them."""
        with interrupts_held():  # an interrupt in between would let them be closed twice
            for descriptor in (self._pixels, self._journal):
                if descriptor >= 0:
                    with contextlib.suppress(OSError):
                        # Closing would not unlock: forked processes share the lock and may live on.
                        fcntl.flock(descriptor, fcntl.LOCK_UN)
                    os.close(descriptor)
            self._pixels = self._journal = -1

    def _start_new_files(self) -> None:
        """Replace both files by new ones.

        The old files are unlinked, not emptied: a worker of an earlier run may still write to them.
        """
        while os.path.lexists(self.place.pixels) or os.fstat(self._journal).st_size:
            is_new = os.fstat(self._journal).st_size == 0
            for path, proves in ((self.place.pixels, _pixels_check(is_new)), (self.place.journal, _is_journal)):
                _check_ours(path, proves)
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
            with interrupts_held():
                os.close(self._journal)
                self._journal = -1
            self._journal = _open_journal(self.place.journal, self._output)  # another run may take it first

    def _open_pixels(self) -> None:
        new = 0 if self.continues else os.O_CREAT | os.O_EXCL
        try:
            self._pixels = os.open(self.place.pixels, os.O_RDWR | os.O_NOFOLLOW | new, 0o666)
        except FileExistsError:
            found = "expected nothing there, found a file that another program has just made"
            raise PackError(f"{self.place.pixels}: {found}; remove it, or give another --output") from None

    def _reserve(self, size: int) -> None:
        """Mark both files and reserve their disk space, so that a full disk is noticed before anything is decoded."""
        identity = self.place.identity
        try:
            for descriptor, mark, total in (
                (self._journal, MARK, HEADING + self._rows * RECORD.itemsize),
                (self._pixels, _PIXELS_MARK, size),
            ):
                write_all(descriptor, marked(mark, identity), 0)
                sync_data(descriptor)  # without its mark, a file could not be recognised after a power cut
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

    def _close_after_error(self) -> None:
        """Close the files after an error, and remove the journal if it is still empty."""
        with contextlib.suppress(OSError):
            if os.fstat(self._journal).st_size == 0 and has_name(self._journal, self.place.journal):
                os.unlink(self.place.journal)
        self.close()


def _identity_of_leftover(path: str, is_new: bool) -> str | None:
    """Return the plan identity in a partial file that an earlier run left.

    Args:
        path: Path of the partial file.
        is_new: Whether the journal is new, so that an earlier run left none.

    Returns:
        The identity; `_SEALED` if the file was sealed but not published; None if there is no file.
    """
    _check_ours(path, _pixels_check(is_new))
    try:
        with open(path, "rb", buffering=0) as file:
            head = file.read(len(_PIXELS_MARK) + _MAX_IDENTITY_BYTES)
    except FileNotFoundError:
        return None
    if head and not head.startswith(_PIXELS_MARK):
        return _SEALED
    return head[len(_PIXELS_MARK) :].partition(b"\n")[0].decode("ascii", "replace")


def _check_ours(path: str, proves: Callable[[BinaryIO], bool]) -> None:
    """Check that a path is free or holds a file that an earlier run left.

    Args:
        path: Path of the pixels or the journal.
        proves: Returns whether an open file is from an earlier run.

    Raises:
        PackError: The file belongs to another program.
    """
    try:
        check_replaceable(path, "what an interrupted run of pack-images left", proves)
    except ValueError as error:
        raise PackError(str(error)) from error


def _pixels_check(is_new: bool) -> Callable[[BinaryIO], bool]:
    """Return a function that recognises our partial file: one with our mark, or a sealed pack beside a journal."""

    def is_partial(file: BinaryIO) -> bool:
        return file.read(len(_PIXELS_MARK)) == _PIXELS_MARK or (not is_new and is_pack(file))

    return is_partial


def _is_journal(file: BinaryIO) -> bool:
    return file.read(len(MARKS)) == MARKS


def _open_journal(path: str, output: str) -> int:
    """Open or create the journal at `path`, and lock it.

    Another run may remove the file before the lock is taken. Then try again.

    Raises:
        UnfinishedError: Another run has locked it, or its folder does not exist or takes no files.
        PackError: The file belongs to another program.
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
