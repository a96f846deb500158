"""A range of rows: read, hash, decode, write at its offset. Any `concurrent.futures.Executor` can run it."""

from __future__ import annotations

import hashlib
import os
import stat
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from pack_images.decode import decode
from pack_images.errors import DecodeError, SizeError
from pack_images.partial import read_records, write_all, write_records
from pack_images.plan import Filled, Pixels, Task


def fill(task: Task) -> Filled:
    """Do a task. Doing it again is harmless, and quick: rows whose journal and pixels agree are kept.

    Raises:
        SizeError: A picture is not of the stored size, and none was asked for.
        OSError: The output cannot be written, as on a full disk.
    """
    journal = os.open(task.place.journal, os.O_RDWR)
    pixels = os.open(task.place.pixels, os.O_RDWR)
    try:
        return _fill(task, pixels, journal)
    finally:
        os.close(pixels)
        os.close(journal)


def _fill(task: Task, pixels: int, journal: int) -> Filled:
    count = len(task.paths)
    offset = task.place.offset + task.first * task.place.stride
    block = np.empty((count, *task.shape), np.uint8)
    records = read_records(journal, task.first, count)
    if records["done"].any():
        os.preadv(pixels, [block.reshape(-1).data], offset)
    kept = 0
    failures = []
    for index, path in enumerate(task.paths):
        if records[index]["done"] and _is_kept(records[index], path, block[index]):
            kept += 1
            continue
        try:
            records[index] = _fill_row(block[index], path, task.how)
        except DecodeError as error:
            records[index]["done"] = 0
            failures.append((task.first + index, str(error)))
        except SizeError as error:
            height, width, _ = task.shape
            raise SizeError(
                f"{path} is {error}, other images are {width}x{height}; give --size to scale them"
            ) from None
    if kept < count:
        write_all(pixels, block.data, offset)
        write_records(journal, task.first, records)
    return Filled(count, kept, tuple(failures))


def _fill_row(row: NDArray[np.uint8], path: str, how: Pixels) -> tuple[Any, ...]:
    """Decode a file into its row; its record."""
    data, status = read(path)
    decode(data, how, row)
    digest = np.frombuffer(hashlib.sha256(data).digest(), np.uint8)
    return xxhash.xxh3_64_intdigest(row.data), status.st_size, status.st_mtime_ns, digest, 1, b""


def read(path: str) -> tuple[bytes, os.stat_result]:
    """The whole file, and its status when it was opened.

    Raises:
        DecodeError: It cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe must not be waited for
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise DecodeError("not a regular file")
            data = os.read(descriptor, status.st_size + 1)
            while len(data) < status.st_size and (more := os.read(descriptor, status.st_size)):
                data += more
        finally:
            os.close(descriptor)
    except OSError as error:
        raise DecodeError(f"cannot be read ({error.strerror})") from error
    return data, status


def _is_kept(record: Any, path: str, row: NDArray[np.uint8]) -> bool:
    """Whether a row is what the journal says, of a source that has not changed since."""
    try:
        status = os.stat(path)
    except OSError:
        return False
    return bool(
        record["size"] == status.st_size
        and record["modified"] == status.st_mtime_ns
        and record["checksum"] == xxhash.xxh3_64_intdigest(row.data)
    )
