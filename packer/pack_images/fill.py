"""A range of rows: read, hash, decode, write at its offset. Any `concurrent.futures.Executor` can run it."""

from __future__ import annotations

import errno
import hashlib
import math
import os
import stat
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xxhash
from numpy.typing import NDArray

from h5split.file.losses import Loss, losses_of
from h5split.order.rows import digest_keys
from pack_images.decode.row import decode
from pack_images.errors import DecodeError, SizeError, UnfinishedError
from pack_images.find.sources import PackedRow, PackFile, file_stamp, pack_file, stamp
from pack_images.journal import (
    RECORD,
    has_name,
    is_of,
    pack_record,
    read_into,
    read_records,
    share,
    sync_data,
    write_all,
    write_records,
)
from pack_images.plan import Filled, Task
from pack_images.settings import Pixels, Shape

if TYPE_CHECKING:
    from h5split.file.images import PackedImages

_PASSING = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE)  # faults that are not the file's
_AROUND_CACHES = 32  # bytes: of the vectors that libjpeg-turbo writes
_UNSEEN = 16 << 20  # bytes of a file that are read without a look at what it is
_Recorded = tuple[int, int, bytes, Loss | None]  # checksum, stamp, digest, loss: as `pack_record` takes them
_Outcome = Literal["decoded", "copied", "kept"]


def fill(task: Task, *, flush: bool = False, before_each: Callable[[], object] = lambda: None) -> Filled:
    """Do a task. Doing it again is harmless, and quick: rows whose journal and pixels agree are kept.

    Args:
        task: What to do.
        flush: Have everything on disk, and so on the server of a network file system, before it is said to be done.
        before_each: Called before every row that is made.

    Raises:
        SizeError: A picture is not of the stored size, and none was asked for.
        UnfinishedError: The run that this task is of was given up, or a pack has changed since it was found.
        OSError: The output cannot be written, as on a full disk, or the system is out of descriptors or memory.
    """
    how = os.O_RDWR | os.O_NOFOLLOW
    pixels = os.open(task.place.pixels, how)  # first: where these are of another run, so is the journal
    journal = os.open(task.place.journal, how)
    try:
        if not is_of(journal, task.place.identity):
            raise UnfinishedError(f"{task.place.journal} is of another plan by now; the run of this task was given up")
        return _fill(task, pixels, journal, flush, before_each)
    finally:
        os.close(pixels)
        os.close(journal)


def _fill(task: Task, pixels: int, journal: int, flush: bool, before_each: Callable[[], object]) -> Filled:
    count = len(task.paths)
    offset = task.place.offset + task.first * task.place.stride
    block = _empty_rows(count, task.shape)
    records = read_records(journal, task.first, count)
    if any(np.frombuffer(records, RECORD)["done"]):
        read_into(pixels, block.reshape(-1).data, offset)
    became, failures = _make(task, block, records, before_each)
    _check_unchanged(task, became["copied"])
    share(pixels)  # or a worker that was left behind would write to what is published meanwhile
    if not has_name(pixels, task.place.pixels):
        raise UnfinishedError(f"{task.place.pixels} is another file by now; the run of this task has ended")
    if became["kept"] < count:
        write_all(pixels, block.data, offset)
        write_records(journal, task.first, records)
    if flush:
        sync_data(pixels)
        sync_data(journal)
    return Filled(count, became["kept"], became["copied"], tuple(failures))


def _make(
    task: Task, block: NDArray[np.uint8], records: bytearray, before_each: Callable[[], object]
) -> tuple[Counter[_Outcome], list[tuple[int, str]]]:
    """Make every row that an earlier run has not made, in `block` and `records`.

    Returns:
        How many had which outcome; and (row, reason) of each that cannot be made.
    """
    earlier = np.frombuffer(bytes(records), RECORD)
    done = earlier["done"].tolist()
    old = None if task.reuse is None or _has_changed(task.reuse) else _opened(task.reuse)
    became = Counter[_Outcome]()
    failures = []
    for index, (path, row) in enumerate(zip(task.paths, block, strict=True)):
        is_whole = done[index] and _is_whole(earlier[index], row)
        if is_whole and _is_of(earlier[index], path):
            became["kept"] += 1
            continue
        before_each()
        try:
            known = earlier[index]["digest"].tobytes() if is_whole else b""
            outcome, recorded = _fill_row(row, path, task.how, old, known)
        except DecodeError as error:
            pack_record(records, index)
            failures.append((task.first + index, str(error)))
            continue
        except SizeError as error:
            height, width, _ = task.shape
            raise SizeError(
                f"{path} is {error}, other images are {width}x{height}; give --size to scale them"
            ) from None
        became[outcome] += 1
        if recorded is not None:
            pack_record(records, index, *recorded)
    return became, failures


def _empty_rows(count: int, shape: Shape) -> NDArray[np.uint8]:
    """Memory for rows that begins between two multiples of 32 bytes.

    From a multiple of 32 on, libjpeg-turbo writes past the caches, and the checksum and the system have to fetch the
    row from memory: 6 us more for 12 KB, a sixth of its decoding.
    """
    size = count * math.prod(shape)
    memory = np.empty(size + _AROUND_CACHES, np.uint8)
    start = (_AROUND_CACHES // 2 - memory.__array_interface__["data"][0]) % _AROUND_CACHES
    return memory[start : start + size].reshape(count, *shape)


def _fill_row(
    row: NDArray[np.uint8], path: str | PackedRow, how: Pixels, old: _OldPack | None, known: bytes
) -> tuple[_Outcome, _Recorded | None]:
    """Make a row of its source; what was done for it, and what is to be recorded of it.

    Args:
        row: uint8 (H, W, C), to write to.
        path: The source.
        how: How a picture becomes a row.
        old: A pack with rows of the same settings.
        known: The digest of the source that the row is of as it is, so that it can be kept; none when empty.
    """
    if isinstance(path, PackedRow):
        return "copied", _copy(row, path)
    data, mark = read(path, how)
    digest = hashlib.sha256(data).digest()
    if digest == known:
        return "kept", None
    found = None if old is None else old.copy(digest, row)
    loss = decode(data, how, row) if old is None or found is None else old.loss(found)
    recorded = xxhash.xxh3_64_intdigest(row.data), mark, digest, loss
    return "decoded" if found is None else "copied", recorded


def read(path: str, how: Pixels) -> tuple[bytes, int]:
    """The whole file, and its `file_stamp`.

    Args:
        path: Of the file.
        how: What a picture may cost.

    Raises:
        DecodeError: It cannot be read, is too large for a picture, or somebody writes to it.
        OSError: The system, and not the file, is the reason.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe must not be waited for
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise DecodeError("cannot be read (not a regular file)")
            if status.st_size > _UNSEEN:
                from pack_images.decode.guards import check_file  # Pillow, which small JPEGs do without

                check_file(descriptor, status.st_size, how)
            mark = file_stamp(status)  # as it is before it is read
            data = _read_all(descriptor, status.st_size)
            mark = _checked(descriptor, status, data, mark)
        finally:
            os.close(descriptor)
    except DecodeError:
        raise
    except MemoryError as error:
        raise DecodeError(f"cannot be read ({status.st_size:,} bytes are more than memory)") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        if getattr(error, "errno", None) in _PASSING:
            raise
        raise DecodeError(f"cannot be read ({getattr(error, 'strerror', None) or error})") from error
    return data, mark


def _read_all(descriptor: int, size: int) -> bytes:
    """A file from its beginning, which should have so many bytes; one more if it has grown."""
    data = os.pread(descriptor, size + 1, 0)
    while len(data) < size and (more := os.pread(descriptor, size + 1 - len(data), len(data))):
        data += more
    return data


def _checked(descriptor: int, before: os.stat_result, data: bytes, mark: int) -> int:
    """The stamp of a file after it was read, or 0 for none; a file that somebody wrote to meanwhile is refused.

    Who writes can set the time of the content back, but not that of the inode. The latter also changes with the name or
    the permissions, and may be too coarse to tell (no stamp). In both cases the file is read again, and must be the
    same bytes.
    """
    after = os.fstat(descriptor)
    is_same = (len(data), before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
    if is_same and mark and before.st_ctime_ns == after.st_ctime_ns:
        return mark
    if not is_same or _read_all(descriptor, after.st_size) != data or stamp(os.fstat(descriptor)) != stamp(after):
        raise DecodeError("changed while it was read")
    return 0


def _is_whole(record: Any, row: NDArray[np.uint8]) -> bool:
    """Whether a row is what the journal says."""
    return bool(record["checksum"] == xxhash.xxh3_64_intdigest(row.data))


def _is_of(record: Any, path: str | PackedRow) -> bool:
    """Whether a row that is what the journal says is of this source as it is now, as far as can be told unread."""
    if isinstance(path, PackedRow):
        images = _opened(path.pack).images
        digest, checksum = images.digests[path.row], images.checksums[path.row]
        return bool(record["checksum"] == checksum and (record["digest"] == digest).all())
    try:
        now = file_stamp(os.stat(path))
    except (OSError, ValueError):
        return False
    return bool(now and record["stamp"] == now)


def _copy(row: NDArray[np.uint8], source: PackedRow) -> _Recorded:
    old = _opened(source.pack)
    if not old.copy_row(source.row, row):
        raise DecodeError(f"row {source.row} of {source.pack.path} is damaged: its checksum does not agree")
    digest = old.images.digests[source.row].tobytes()
    return xxhash.xxh3_64_intdigest(row.data), 0, digest, old.loss(source.row)


def _check_unchanged(task: Task, copied: int) -> None:
    """Refuse rows of a pack that was written to, or replaced, since it was found: they may be of other files."""
    packs = {path.pack for path in task.paths if isinstance(path, PackedRow)}
    if copied and task.reuse is not None:
        packs.add(task.reuse)
    for pack in packs:
        _check_same(pack)


def _check_same(pack: PackFile) -> None:
    if _has_changed(pack):
        raise UnfinishedError(f"{pack.path} has changed since this run began to copy from it; run the same again")


def _has_changed(pack: PackFile) -> bool:
    try:
        return pack_file(pack.path) != pack
    except OSError:
        return True


class _OldPack:
    """A pack that rows are copied from."""

    def __init__(self, images: PackedImages) -> None:
        self.images = images
        self._keys = digest_keys(images.digests)
        self._order = np.argsort(self._keys)
        self._keys = self._keys[self._order]
        self._lossy = np.ascontiguousarray(images.loss_table["rows"])

    def copy(self, digest: bytes, row: NDArray[np.uint8]) -> int | None:
        """Copy the row whose source file has this digest, and say which; None when there is none, or it is damaged."""
        key = np.uint64(int.from_bytes(digest[:8], "little"))
        at = int(self._keys.searchsorted(key))
        if at == len(self._keys) or self._keys[at] != key:
            return None
        found = int(self._order[at])
        return found if self.images.digests[found].tobytes() == digest and self.copy_row(found, row) else None

    def copy_row(self, index: int, row: NDArray[np.uint8]) -> bool:
        """Copy a row; False when its pixels are not what their checksum says."""
        row[...] = self.images.images[index]
        return xxhash.xxh3_64_intdigest(row.data) == int(self.images.checksums[index])

    def loss(self, index: int) -> Loss | None:
        """What the picture of a row lost."""
        at = int(self._lossy.searchsorted(index))
        if at == len(self._lossy) or self._lossy[at] != index:
            return None
        return next(losses_of(self.images.loss_table[at : at + 1]))


@lru_cache(maxsize=4)
def _opened(pack: PackFile) -> _OldPack:
    """A pack, opened and indexed once by each worker: sorting a million digests takes longer than a task."""
    from h5split.file.images import PackedImages  # which few tasks need

    _check_same(pack)
    old = _OldPack(PackedImages(pack.path))
    _check_same(pack)
    return old
