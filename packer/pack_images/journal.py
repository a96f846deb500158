"""The journal, a file that records which rows of the partial file have been written.

The journal begins with a mark and the identity of the plan. This heading takes a page. After it, each row has a
`RECORD` of 64 bytes.

Many processes write both files at the same time. Each has its own range of rows, so their writes do not overlap. It
writes the records of its rows after the pixels, because a record claims that its pixels are there.

`fill` writes the records, and `partial` the heading. This module also has what both files need of a descriptor: locks,
and reading whole.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct

import numpy as np

from h5split.file.losses import Loss
from h5split.system.files import write_all

RECORD = np.dtype(
    [
        ("checksum", "<u8"),  # XXH3-64 of the row's pixels
        ("stamp", "<i8"),  # `file_stamp` of the source; 0 for none
        ("digest", "u1", 32),  # SHA-256 of the source file
        ("done", "u1"),  # 1 when the row is written
        ("kinds", "u1"),  # kinds of loss, as in `h5split.file.losses`; 0 for none
        ("bits", "u1"),
        ("kept", "<u2"),
        ("levels", "<u4"),
        ("depth", "u1"),  # bits per sample of the source, if a run counts them; see `decode.values.bits_of`
        ("", "V6"),
    ]
)
HEADING = 4096  # bytes before the first record
MARKS = b"pack-images journal "  # common to all versions
MARK = MARKS + b"2\n"
sync_data = getattr(os, "fdatasync", os.fsync)  # macOS has no fdatasync
_LOCKS_UNSUPPORTED = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)  # errors of file systems without locks
_RECORD_STRUCT = struct.Struct("<Qq32s?BBHIB6x")  # the same layout as RECORD


def read_records(journal: int, first: int, count: int) -> bytearray:
    """Read `count` RECORDs, starting at row `first`."""
    records = bytearray(count * RECORD.itemsize)
    read_into(journal, records, HEADING + first * RECORD.itemsize)
    return records


def pack_record(
    records: bytearray,
    index: int,
    checksum: int = 0,
    stamp: int = 0,
    digest: bytes = b"",
    loss: Loss | None = None,
    depth: int = 0,
) -> None:
    """Set one record. A digest marks the row as done; without one, the row is marked as not done."""
    lost = (loss.kinds, loss.bits, loss.kept, loss.levels) if loss else (0, 0, 0, 0)
    _RECORD_STRUCT.pack_into(records, index * _RECORD_STRUCT.size, checksum, stamp, digest, bool(digest), *lost, depth)


def write_records(journal: int, first: int, records: bytearray) -> None:
    """Write records, starting at row `first`."""
    write_all(journal, records, HEADING + first * RECORD.itemsize)


def read_into(descriptor: int, out: bytearray | memoryview, offset: int) -> None:
    """Fill `out` with the bytes at `offset`. If the file ends early, the rest of `out` stays unchanged."""
    view = memoryview(out)
    while view and (count := os.preadv(descriptor, [view], offset)):
        view, offset = view[count:], offset + count


def has_name(descriptor: int, path: str) -> bool:
    """Return whether `path` is the open file itself, and neither another file nor a symbolic link."""
    try:
        return descriptor >= 0 and os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


def share(pixels: int) -> None:
    """Take a shared lock on the partial file until it is closed. Publishing takes an exclusive lock, so it waits."""
    lock(pixels, fcntl.LOCK_SH)


def lock(descriptor: int, how: int) -> None:
    """Lock a file. Do nothing if its file system has no locks."""
    try:
        fcntl.flock(descriptor, how)
    except OSError as error:
        if error.errno not in _LOCKS_UNSUPPORTED:
            raise


def is_of(journal: int, identity: str) -> bool:
    """Return whether a journal belongs to the plan with this identity."""
    mark = marked(MARK, identity)
    found = bytearray(len(mark))
    read_into(journal, found, 0)
    return found == mark


def marked(mark: bytes, identity: str) -> bytes:
    """Return the first bytes of a file with this mark that belongs to the plan with this identity."""
    return mark + identity.encode() + b"\n"
