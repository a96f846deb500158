"""The file in the making: pixels and a journal beside the output, until both are whole.

``OUT.partial`` is the output itself before HDF5 is laid around its pixels (`h5split.format`). ``OUT.journal`` says
which plan it follows and, for each row, what was written: 64 bytes a row behind a page of heading. Any process that
is given a range of rows writes its pixels and then its records, at offsets of its own, so nothing is shared but the
two files, and a run that ends early is continued by one that verifies what the journal claims.

The journal is locked while a run uses it, so a second run at the same output is refused.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
import threading
import time
from collections.abc import Iterator

import numpy as np
import xxhash
from numpy.typing import NDArray

from h5split.interrupts import interrupts_held
from h5split.rows import Rows
from pack_images.errors import UnfinishedError
from pack_images.plan import Place

RECORD = np.dtype(
    [
        ("checksum", "<u8"),  # XXH3-64 of the row's pixels
        ("stamp", "<i8"),  # of the source file's status
        ("digest", "u1", 32),  # SHA-256 of its bytes
        ("done", "u1"),  # 1 when the row is written
        ("", "V15"),
    ]
)
HEADING = 4096  # bytes before the first record

sync_data = getattr(os, "fdatasync", os.fsync)  # macOS has no fdatasync
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)  # of a file system that has none
_PACKED = struct.Struct("<Qq32s?15x")  # a RECORD
_MAGIC = b"pack-images journal 1\n"
_FLUSH_SECONDS = 0.05
_HOLD_SECONDS = 60
# A write of megabytes makes Linux look for megabytes of contiguous memory: 17 us a row of 12 KB at 4 MB a call, 2 to 3
# at 256 KB.
_WRITE_BYTES = 256 << 10
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
        OSError: The folder cannot be written to.
    """

    def __init__(self, output: str, identity: str, rows: int, offset: int, stride: int, extra: int) -> None:
        self._output = output
        self._rows = rows
        self.place = Place(f"{output}.partial", f"{output}.journal", identity, offset, stride)
        self._journal = _locked(self.place.journal, output)
        self._pixels = -1
        try:
            magic = bytearray(len(_MAGIC))
            read_into(self._journal, magic, 0)
            if magic.rstrip(b"\0") not in (b"", _MAGIC):
                raise UnfinishedError(
                    f"{output}: expected no {self.place.journal}, or a journal of pack-images, found something else; "
                    "remove it, or give another --output"
                )
            is_there = os.path.exists(self.place.pixels)
            self.continues = is_there and is_of(self._journal, identity)
            self.restarts = is_there and not self.continues and os.fstat(self._journal).st_size > 0
            if not self.continues:
                self._begin_anew()
            self._pixels = os.open(self.place.pixels, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
            self._reserve(offset + rows * stride + extra)
            write_all(self._journal, _heading(identity), 0)
        except BaseException:
            self.close()
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
            OSError: Writing failed; the system tells once, so whoever hears it first must pass it on.
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
                return _lock(self._pixels, fcntl.LOCK_EX | fcntl.LOCK_NB)
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
        """Give the finished file its name, whole, and remove the journal."""
        os.fsync(self._pixels)
        os.replace(self.place.pixels, self._output)
        _sync_folder(self._output)
        os.unlink(self.place.journal)
        self.close()

    def discard(self) -> None:
        """Remove what was made."""
        for path in (self.place.pixels, self.place.journal):
            with contextlib.suppress(FileNotFoundError):
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
        while os.fstat(self._journal).st_size or os.path.lexists(self.place.pixels):  # another run may come between
            for path in (self.place.pixels, self.place.journal):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
            with interrupts_held():
                os.close(self._journal)
                self._journal = -1
            self._journal = _locked(self.place.journal, self._output)

    def _reserve(self, size: int) -> None:
        """Take the disk space now, so that a full disk is noticed before anything is decoded."""
        try:
            for descriptor, total in (
                (self._journal, HEADING + self._rows * RECORD.itemsize),
                (self._pixels, size),
            ):
                os.ftruncate(descriptor, max(total, os.fstat(descriptor).st_size))
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(descriptor, 0, total)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            if not self.continues:
                self.discard()
            system = os.statvfs(os.path.dirname(os.path.abspath(self._output)))
            free = system.f_bavail * system.f_frsize
            raise UnfinishedError(
                f"{self._output}: expected room for {size:,} bytes, found {free:,} bytes free ({error.strerror}); "
                "make room, or give another --output"
            ) from error


def share(pixels: int) -> None:
    """Lock the pixels together with all who write rows, until they are closed; whoever publishes them waits for it."""
    _lock(pixels, fcntl.LOCK_SH)


def _lock(descriptor: int, how: int) -> None:
    """Lock a file, where its file system has locks."""
    try:
        fcntl.flock(descriptor, how)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise


def is_of(journal: int, identity: str) -> bool:
    """Whether a journal is that of the plan with this identity."""
    heading = _heading(identity)
    found = bytearray(len(heading))
    read_into(journal, found, 0)
    return found == heading


def _heading(identity: str) -> bytes:
    return _MAGIC + identity.encode() + b"\n"


def read_records(journal: int, first: int, count: int) -> bytearray:
    """The bytes of `count` RECORDs from row `first` on."""
    records = bytearray(count * RECORD.itemsize)
    read_into(journal, records, HEADING + first * RECORD.itemsize)
    return records


def pack_record(records: bytearray, index: int, checksum: int = 0, stamp: int = 0, digest: bytes = b"") -> None:
    """Set the record of a row that is done, or, without a digest, of one that is not."""
    _PACKED.pack_into(records, index * _PACKED.size, checksum, stamp, digest, bool(digest))


def write_records(journal: int, first: int, records: bytearray) -> None:
    """Write records from row `first` on."""
    write_all(journal, records, HEADING + first * RECORD.itemsize)


def write_all(descriptor: int, data: bytes | bytearray | memoryview, offset: int) -> None:
    """Write all of `data` at `offset`, in pieces."""
    view = memoryview(data).cast("B")
    while view:
        count = os.pwrite(descriptor, view[:_WRITE_BYTES], offset)
        view, offset = view[count:], offset + count


def read_into(descriptor: int, out: bytearray | memoryview, offset: int) -> None:
    """Fill `out` from `offset` on; a call may give less. What the file is too short for stays as it is."""
    view = memoryview(out)
    while view and (count := os.preadv(descriptor, [view], offset)):
        view, offset = view[count:], offset + count


def _locked(path: str, output: str) -> int:
    """A locked descriptor of the journal at `path`, and not of one that was removed meanwhile."""
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        except FileNotFoundError:
            folder = os.path.dirname(output) or "."
            found = "one that takes no files" if os.path.isdir(folder) else "nothing there"
            raise UnfinishedError(f"{output}: expected a folder {folder} to write to, found {found}") from None
        try:
            _lock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise UnfinishedError(
                f"{output}: another run is packing to it ({path} is locked); wait for it, or give another --output"
            ) from None
        except OSError:
            os.close(descriptor)
            raise
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        os.close(descriptor)


def _sync_folder(path: str) -> None:
    try:
        descriptor = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY)
    except PermissionError:  # a folder that takes files and does not show them
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
