"""Verifies that a pack is unchanged since it was written, and its source files since they were packed.

Pixels are read into memory, not mapped. So a bad sector or a file that is cut short gives a result or an error; access
through a map would kill the process.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Literal

import numpy as np
import xxhash
from numpy.typing import NDArray

from h5split.file.format import Block
from h5split.file.images import PackedImages
from h5split.file.mapped import READ_SIZE, MappedFile
from h5split.system.machine import cores

Progress = Callable[[int, int], object]
SourceState = Literal["same", "changed", "missing", "unreadable", "no file"]

_FILES_PER_TASK = 64


@dataclass(frozen=True)
class Verification:
    """The result of the verification of a pack.

    Attributes:
        bad_rows: int64 (M,), ascending: the rows whose pixels do not match their checksum or cannot be read.
        tables: Whether everything except the pixels (labels, names and so on) matches its checksum; None if the file
            has no such checksum.
    """

    bad_rows: NDArray[np.int64]
    tables: bool | None

    @property
    def intact(self) -> bool:
        """Whether no damage was found. Tables without a checksum count as undamaged."""
        return len(self.bad_rows) == 0 and self.tables is not False


def verify(images: PackedImages, *, workers: int | None = None, progress: Progress | None = None) -> Verification:
    """Read a pack front to back and compare every checksum in it.

    Args:
        images: The pack.
        workers: The number of threads; None for one per core.
        progress: Called with (bytes read, bytes in total).

    Raises:
        OSError: The tables cannot be read.
        FormatError: The file was cut short meanwhile.
    """
    images.fetch()
    images.check_whole()
    tables = _tables_intact(images)
    expected: NDArray[np.uint64] = _take(images.file, images.header.checksums, 0, len(images))
    step = min(len(images), max(1, READ_SIZE // images.stride))
    workers = min(workers or cores(), -(-len(images) // step))
    buffers: SimpleQueue[bytearray] = SimpleQueue()
    for _ in range(workers):
        buffers.put(bytearray(step * images.stride))

    def bad_rows(start: int) -> NDArray[np.int64]:
        buffer = buffers.get()
        try:
            return _bad_rows(images, expected[start : start + step], start, buffer)
        finally:
            buffers.put(buffer)

    found = [np.empty(0, np.int64)]
    with ThreadPoolExecutor(workers) as executor:
        for start, bad in zip(
            range(0, len(images), step), executor.map(bad_rows, range(0, len(images), step)), strict=True
        ):
            found.append(bad)
            if progress is not None:
                progress(min(start + step, len(images)) * images.stride, images.header.images.nbytes)
    images.check_whole()  # the caller will read the names of bad rows from the map
    return Verification(np.concatenate(found), tables)


def verify_sources(
    images: PackedImages,
    *,
    root: str | os.PathLike[str] = ".",
    workers: int | None = None,
    progress: Progress | None = None,
) -> list[SourceState]:
    """Compare the source file of every row with its SHA-256. Return one state for each row.

    Args:
        images: The pack.
        root: The folder that relative file names start from.
        workers: The number of threads; None for one per core.
        progress: Called with (files read, files in total).

    Returns:
        For each row: `same`; `changed` if the bytes differ; `missing` if there is no such file; `unreadable` if it
        cannot be read; `no file` if the row was made of an array, so that its digest is that of its pixels.

    Raises:
        OSError: The tables cannot be read.
        FormatError: The file was cut short meanwhile.
    """
    folder = os.fsencode(root)

    def states(start: int) -> list[SourceState]:
        stop = min(start + _FILES_PER_TASK, len(images))
        names = _take(images.file, images.header.filenames, start, stop)
        digests = _take(images.file, images.header.digests, start, stop)
        found = [
            _source_state(os.path.join(folder, bytes(name)), digest.tobytes())
            for name, digest in zip(names, digests, strict=True)
        ]
        return [
            "no file" if state != "same" and _is_digest_of_row(images, row, digest.tobytes()) else state
            for row, (state, digest) in enumerate(zip(found, digests, strict=True), start=start)
        ]

    images.check_whole()
    found: list[SourceState] = []
    workers = min(workers or cores(), -(-len(images) // _FILES_PER_TASK))
    with ThreadPoolExecutor(workers) as executor:
        for part in executor.map(states, range(0, len(images), _FILES_PER_TASK)):
            found += part
            if progress is not None:
                progress(len(found), len(images))
    images.check_whole()
    return found


def _take(file: MappedFile, block: Block, start: int, stop: int) -> NDArray[Any]:
    """Items `start` to `stop` of a table. They are read from the file, not from the map."""
    items = np.empty((stop - start, *block.shape[1:]), block.dtype)
    if items.nbytes:
        file.read(items.view(np.uint8).reshape(-1).data, block.offset + start * (items.nbytes // len(items)))
    return items


def _bad_rows(images: PackedImages, expected: NDArray[np.uint64], first: int, buffer: bytearray) -> NDArray[np.int64]:
    """The damaged rows among `len(expected)` rows, beginning with row `first`: int64 (M,).

    Args:
        images: The pack.
        expected: uint64, the checksums of these rows.
        first: The number of the first row.
        buffer: Memory to read the pixels into.
    """
    stride = images.stride
    whole = memoryview(buffer)[: len(expected) * stride]
    start = images.header.images.offset + first * stride
    try:
        images.file.read(whole, start)
    except OSError:
        if len(expected) > 1:  # read the rows one by one to find those that cannot be read
            parts = range(len(expected))
            return np.concatenate([_bad_rows(images, expected[at : at + 1], first + at, buffer) for at in parts])
        return np.array([first])
    found = [xxhash.xxh3_64_intdigest(whole[at : at + stride]) for at in range(0, len(whole), stride)]
    return first + np.flatnonzero(np.array(found, np.uint64) != expected)


def _tables_intact(images: PackedImages) -> bool | None:
    if images.header.tables_checksum is None:
        return None
    try:
        return images.file.tables_checksum() == images.header.tables_checksum
    except OSError:
        return False


def _is_digest_of_row(images: PackedImages, row: int, digest: bytes) -> bool:
    pixels = bytearray(images.stride)
    try:
        images.file.read(memoryview(pixels), images.header.images.offset + row * images.stride)
    except OSError:
        return False
    return hashlib.sha256(pixels).digest() == digest


def _source_state(path: bytes, digest: bytes) -> SourceState:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # open() of a pipe waits for a writer; a device may have no end
            return "missing"
        with open(path, "rb", buffering=0) as file:
            return "same" if hashlib.file_digest(file, "sha256").digest() == digest else "changed"
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a NUL character in the name
        return "missing"
    except OSError:
        return "unreadable"
