"""Read a source file as a whole, and notice if it is written to meanwhile."""

from __future__ import annotations

import errno
import os
import stat

from h5split.system.files import BINARY, NO_WAIT, read_at
from pack_images.errors import DecodeError
from pack_images.find.sources import file_stamp, stamp
from pack_images.settings import Pixels

# Errors that are caused by the system, not by the file.
_TRANSIENT_ERRORS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE)
_UNCHECKED_BYTES = 16 << 20  # larger files are checked by their header before they are read


def read(path: str, how: Pixels) -> tuple[bytes, int]:
    """Read a whole file. Return its bytes and its `file_stamp`.

    Args:
        path: Path of the file.
        how: Gives the limit on pixels, which bounds the size of a file.

    Raises:
        DecodeError: The file cannot be read, is too large for a picture, or changed while it was read.
        OSError: The fault lies with the system and not with the file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | BINARY | NO_WAIT)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise DecodeError("cannot be read (not a regular file)")
            if status.st_size > _UNCHECKED_BYTES:
                from pack_images.decode.guards import check_file  # loads Pillow, which small JPEGs do not need

                check_file(descriptor, status.st_size, how)
            mark = file_stamp(status)  # before reading, so that a later change shows
            data = _read_all(descriptor, status.st_size)
            mark = _checked(descriptor, status, data, mark)
        finally:
            os.close(descriptor)
    except DecodeError:
        raise
    except MemoryError as error:
        raise DecodeError(f"cannot be read ({status.st_size:,} bytes are more than memory)") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        if getattr(error, "errno", None) in _TRANSIENT_ERRORS:
            raise
        raise DecodeError(f"cannot be read ({getattr(error, 'strerror', None) or error})") from error
    return data, mark


def _read_all(descriptor: int, size: int) -> bytes:
    """Read a file of `size` bytes from its beginning. If the file has grown, return one byte more as a sign."""
    data = read_at(descriptor, size + 1, 0)
    while len(data) < size and (more := read_at(descriptor, size + 1 - len(data), len(data))):
        data += more
    return data


def _checked(descriptor: int, before: os.stat_result, data: bytes, mark: int) -> int:
    """Refuse a file that was written to while it was read. Return its stamp, or 0 if no stamp is reliable.

    A writer can set back the modification time (mtime), but not the inode change time (ctime). The ctime also changes
    when the file is renamed or its permissions change, and it may be too coarse to show a change (`mark` is 0). In
    these cases the file is read again and must have the same bytes.
    """
    after = os.fstat(descriptor)
    is_same = len(data) == after.st_size and before.st_mtime_ns == after.st_mtime_ns
    if is_same and mark and before.st_ctime_ns == after.st_ctime_ns:
        return mark
    if not is_same or _read_all(descriptor, after.st_size) != data or stamp(os.fstat(descriptor)) != stamp(after):
        raise DecodeError("changed while it was read")
    return 0
