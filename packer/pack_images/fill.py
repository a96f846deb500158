"""Do a task: read, hash and decode its files, and write the rows. Any `concurrent.futures.Executor` can run `fill`."""

from __future__ import annotations

import hashlib
import math
import os
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xxhash
from numpy.typing import NDArray

from h5split.file.losses import Loss, losses_of
from h5split.order.rows import digest_keys
from h5split.system.files import write_all
from pack_images.decode.row import decode
from pack_images.errors import DecodeError, SizeError, UnfinishedError
from pack_images.find.sources import PackedRow, PackFile, file_stamp, pack_file
from pack_images.journal import (
    RECORD,
    has_name,
    is_of,
    pack_record,
    read_into,
    read_records,
    share,
    sync_data,
    write_records,
)
from pack_images.plan import Filled, Task
from pack_images.reading import read
from pack_images.settings import Pixels, Shape

if TYPE_CHECKING:
    from h5split.file.images import PackedImages

_VECTOR_BYTES = 32  # size of the vectors that libjpeg-turbo writes
# checksum, stamp, digest, loss, bits per sample: the arguments of `pack_record`
_Recorded = tuple[int, int, bytes, Loss | None, int]
_Outcome = Literal["decoded", "copied", "kept"]


def fill(task: Task, *, flush: bool = False, before_each: Callable[[], object] = lambda: None) -> Filled:
    """Do a task. Repeating a task is harmless and quick: rows whose pixels agree with the journal are kept.

    Args:
        task: What to do.
        flush: Flush the rows to disk, and so to the server of a network file system, before returning.
        before_each: Called before every row that is made. A worker restarts its timer here.

    Raises:
        SizeError: A picture has another size than the rest, and the user gave no size.
        UnfinishedError: The run that this task belongs to was given up, or a pack has changed since it was found.
        OSError: The output cannot be written, for example because the disk is full; or the system is out of
            descriptors or memory.
    """
    flags = os.O_RDWR | os.O_NOFOLLOW
    pixels = os.open(task.place.pixels, flags)  # first: if this is the file of another run, the journal is too
    journal = os.open(task.place.journal, flags)
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
    block = _empty_rows(count, task.shape, np.dtype(task.how.dtype))
    records = read_records(journal, task.first, count)
    if any(np.frombuffer(records, RECORD)["done"]):
        read_into(pixels, block.reshape(-1).view(np.uint8).data, offset)
    became, failures = _make_rows(task, block, records, before_each)
    _check_unchanged(task, became["copied"])
    share(pixels)  # or a worker left from an ended run might write to a published file
    if not has_name(pixels, task.place.pixels):
        raise UnfinishedError(f"{task.place.pixels} is another file by now; the run of this task has ended")
    if became["kept"] < count:
        write_all(pixels, block.data, offset)
        write_records(journal, task.first, records)
    if flush:
        sync_data(pixels)
        sync_data(journal)
    return Filled(count, became["kept"], became["copied"], tuple(failures))


def _make_rows(
    task: Task, block: NDArray[Any], records: bytearray, before_each: Callable[[], object]
) -> tuple[Counter[_Outcome], list[tuple[int, str]]]:
    """Make every row that an earlier run has not made. The results go into `block` and `records`.

    Returns:
        The number of rows by outcome, and (row, reason) of each row that cannot be made.
    """
    earlier = np.frombuffer(bytes(records), RECORD)  # a copy, because the loop overwrites the records
    done = earlier["done"].tolist()
    old = None if task.reuse is None or _has_changed(task.reuse) else _open_pack(task.reuse)
    became = Counter[_Outcome]()
    failures = []
    for index, (path, row) in enumerate(zip(task.paths, block, strict=True)):
        is_whole = done[index] and _is_whole(earlier[index], row)
        if is_whole and _is_current(earlier[index], path):
            became["kept"] += 1
            continue
        before_each()
        try:
            known = earlier[index]["digest"].tobytes() if is_whole else b""
            outcome, recorded = _make_row(row, path, task.how, old, known)
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


def _empty_rows(count: int, shape: Shape, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Allocate rows at an address halfway between two multiples of 32.

    At a multiple of 32, libjpeg-turbo writes past the caches. The checksum and the system then have to fetch the row
    from memory, which takes 6 us more for 12 KB, a sixth of the decoding time.
    """
    size = count * math.prod(shape) * dtype.itemsize
    memory = np.empty(size + _VECTOR_BYTES, np.uint8)
    start = (_VECTOR_BYTES // 2 - memory.__array_interface__["data"][0]) % _VECTOR_BYTES
    return memory[start : start + size].view(dtype).reshape(count, *shape)


def _make_row(
    row: NDArray[Any], path: str | PackedRow, how: Pixels, old: _OldPack | None, known: bytes
) -> tuple[_Outcome, _Recorded | None]:
    """Make a row from its source. Return the outcome, and the journal record or None if it stays as it is.

    Args:
        row: The row to write: (H, W, C), of the stored type.
        path: The source.
        how: How a picture becomes a row.
        old: A pack whose rows were made with the same settings, if there is one.
        known: Digest of the source that the current content of the row was made from; empty if there is none. The row
            is kept if the source still has this digest.
    """
    if isinstance(path, PackedRow):
        return "copied", _copy_from_pack(row, path)
    data, mark = read(path, how)
    digest = hashlib.sha256(data).digest()
    if digest == known:
        return "kept", None
    found = None if old is None else old.copy(digest, row)
    loss = decode(data, how, row) if old is None or found is None else old.loss(found)
    recorded = xxhash.xxh3_64_intdigest(row.data), mark, digest, loss, _depth(data, how)
    return "decoded" if found is None else "copied", recorded


def _depth(data: bytes, how: Pixels) -> int:
    """Return the bits per sample of a file where 8 bits are widened; else 0, as where they are not known."""
    if not how.widens:
        return 0
    from pack_images.decode.values import bits_of  # here, because it loads Pillow

    return bits_of(data, how)


def _is_whole(record: Any, row: NDArray[Any]) -> bool:
    """Return whether the pixels of a row match the checksum in the journal."""
    return bool(record["checksum"] == xxhash.xxh3_64_intdigest(row.data))


def _is_current(record: Any, path: str | PackedRow) -> bool:
    """Return whether a row was made from its source in its present state.

    The source is not read: only digests in packs and stamps of files are compared. False if that proves nothing.
    """
    if isinstance(path, PackedRow):
        images = _open_pack(path.pack).images
        digest, checksum = images.digests[path.row], images.checksums[path.row]
        return bool(record["checksum"] == checksum and (record["digest"] == digest).all())
    try:
        now = file_stamp(os.stat(path))
    except (OSError, ValueError):
        return False
    return bool(now and record["stamp"] == now)


def _copy_from_pack(row: NDArray[Any], source: PackedRow) -> _Recorded:
    """Copy a row of a pack that is a SOURCE. Return the values for its journal record."""
    old = _open_pack(source.pack)
    if not old.copy_row(source.row, row):
        raise DecodeError(f"row {source.row} of {source.pack.path} is damaged: its checksum does not agree")
    digest = old.images.digests[source.row].tobytes()
    return xxhash.xxh3_64_intdigest(row.data), 0, digest, old.loss(source.row), 0


def _check_unchanged(task: Task, copied: int) -> None:
    """Raise if a pack was changed or replaced since it was found: its rows may now belong to other files."""
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
    """A pack to copy rows from, with an index of its rows by digest."""

    def __init__(self, images: PackedImages) -> None:
        self.images = images
        self._keys = digest_keys(images.digests)
        self._order = np.argsort(self._keys)
        self._keys = self._keys[self._order]
        self._lossy = np.ascontiguousarray(images.loss_table["rows"])

    def copy(self, digest: bytes, row: NDArray[Any]) -> int | None:
        """Copy the row whose source file has this digest. Return its index; None if there is none or it is damaged."""
        key = np.uint64(int.from_bytes(digest[:8], "little"))
        at = int(self._keys.searchsorted(key))
        if at == len(self._keys) or self._keys[at] != key:
            return None
        found = int(self._order[at])
        return found if self.images.digests[found].tobytes() == digest and self.copy_row(found, row) else None

    def copy_row(self, index: int, row: NDArray[Any]) -> bool:
        """Copy a row. Return False if its pixels do not match their checksum."""
        row[...] = self.images.images[index]
        return xxhash.xxh3_64_intdigest(row.data) == int(self.images.checksums[index])

    def loss(self, index: int) -> Loss | None:
        """Return what was lost when the row was decoded; None if nothing was."""
        at = int(self._lossy.searchsorted(index))
        if at == len(self._lossy) or self._lossy[at] != index:
            return None
        return next(losses_of(self.images.loss_table[at : at + 1]))


@lru_cache(maxsize=4)
def _open_pack(pack: PackFile) -> _OldPack:
    """Open and index a pack, once in each worker: sorting a million digests takes longer than a task."""
    from h5split.file.images import PackedImages  # here, because few tasks need it

    _check_same(pack)
    old = _OldPack(PackedImages(pack.path))
    _check_same(pack)
    return old
