"""The journal of a file in the making, which says what was written of each row; and how many processes write both.

The journal begins with a mark and the identity of the plan. After a page of heading each row has a `RECORD` of 64
bytes. A process that is given a range of rows writes its pixels, then its records, at offsets of its own.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct

import numpy as np

from h5split.file.losses import Loss

RECORD = np.dtype(
    [
        ("checksum", "<u8"),  # XXH3-64 of the row's pixels
        ("stamp", "<i8"),  # of the source file's status
        ("digest", "u1", 32),  # SHA-256 of its bytes
        ("done", "u1"),  # 1 when the row is written
        ("kinds", "u1"),  # what its picture lost, as `h5split.file.losses` has it: 0 for nothing
        ("bits", "u1"),
        ("kept", "<u2"),
        ("levels", "<u4"),
        ("", "V7"),
    ]
)
HEADING = 4096  # bytes before the first record
MARKS = b"pack-images journal "  # of any version
MARK = MARKS + b"2\n"
sync_data = getattr(os, "fdatasync", os.fsync)  # macOS has no fdatasync
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)  # of a file system that has none
_PACKED = struct.Struct("<Qq32s?BBHI7x")  # a RECORD
# A write of megabytes makes Linux look for megabytes of contiguous memory: 17 us a row of 12 KB at 4 MB a call, 2 to 3
# at 256 KB.
_WRITE_BYTES = 256 << 10


def read_records(journal: int, first: int, count: int) -> bytearray:
    """The bytes of `count` RECORDs from row `first` on."""
    records = bytearray(count * RECORD.itemsize)
    read_into(journal, records, HEADING + first * RECORD.itemsize)
    return records


def pack_record(
    records: bytearray, index: int, checksum: int = 0, stamp: int = 0, digest: bytes = b"", loss: Loss | None = None
) -> None:
    """Set the record of a row that is done, or, without a digest, of one that is not."""
    lost = (loss.kinds, loss.bits, loss.kept, loss.levels) if loss else (0, 0, 0, 0)
    _PACKED.pack_into(records, index * _PACKED.size, checksum, stamp, digest, bool(digest), *lost)


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


def has_name(descriptor: int, path: str) -> bool:
    """Whether a file that is open has this name, itself and not by a link."""
    try:
        return descriptor >= 0 and os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


def share(pixels: int) -> None:
    """Lock the pixels together with all who write rows, until they are closed; whoever publishes them waits for it."""
    lock(pixels, fcntl.LOCK_SH)


def lock(descriptor: int, how: int) -> None:
    """Lock a file, where its file system has locks."""
    try:
        fcntl.flock(descriptor, how)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise


def is_of(journal: int, identity: str) -> bool:
    """Whether a journal is that of the plan with this identity."""
    mark = marked(MARK, identity)
    found = bytearray(len(mark))
    read_into(journal, found, 0)
    return found == mark


def marked(mark: bytes, identity: str) -> bytes:
    """How a file begins that has this mark and is of the plan with this identity."""
    return mark + identity.encode() + b"\n"
