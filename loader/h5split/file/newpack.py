"""A new pack from rows that are made already: nothing is decoded, and no worker takes part.

The file appears under its name when it is whole. Until then, a pack that is there stays as it is.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np
import xxhash
from numpy.typing import DTypeLike, NDArray

from h5split.errors import ArgumentError
from h5split.file.format import is_pack, stored_dtype
from h5split.system import files
from h5split.writing.replace import is_stream, target, written

if TYPE_CHECKING:
    from h5split.file.sealing import Tables

Shape = tuple[int, int, int]

CHUNK_BYTES = 16 << 20  # pixels that are read and written at once


class NewPack:
    """A pack in the making. Rows are appended, then `seal` writes everything else around them.

    Args:
        descriptor: A descriptor of a new file, open for reading and writing.
        shape: (H, W, C) of a row.
        offset: The byte where the pixels begin.
        dtype: The type of the samples: uint8, uint16 or float32.

    Attributes:
        rows: The number of rows so far.
    """

    def __init__(self, descriptor: int, shape: Shape, offset: int, dtype: np.dtype[Any]) -> None:
        self.rows = 0
        self._descriptor = descriptor
        self._shape = shape
        self._dtype = dtype
        self._end = offset

    def append(self, images: NDArray[Any]) -> NDArray[np.uint64]:
        """Write rows after those that are there, and return the XXH3-64 of each: uint64 (M,).

        Args:
            images: (M, H, W, C), contiguous, of the type of the pack.

        Raises:
            ValueError: They are of another shape or type.
            OSError: The disk is full, or the file system reports another error.
        """
        if images.shape[1:] != self._shape or images.dtype != self._dtype:
            raise ArgumentError(
                f"expected rows of {self._dtype} {self._shape}, found {images.dtype} {images.shape[1:]}"
            )
        rows = images.reshape(len(images), -1).view(np.uint8)
        data = rows.reshape(-1).data
        files.write_all(self._descriptor, data, self._end)
        self._end += len(data)
        self.rows += len(images)
        return np.fromiter((xxhash.xxh3_64_intdigest(row.data) for row in rows), np.uint64, len(images))

    def seal(self, tables: Tables) -> None:
        """Write the tables, which have a row for each row that was appended.

        Raises:
            OSError: The disk is full, or the file system reports another error.
        """
        from h5split.file.sealing import seal

        seal(self._descriptor, (self.rows, *self._shape), tables, self._dtype)


@contextlib.contextmanager
def new_pack(path: str | os.PathLike[str], shape: Shape, rows: int, dtype: DTypeLike = np.uint8) -> Iterator[NewPack]:
    """Make a pack, which appears at `path` when the block ends. If the block fails, nothing is left.

    Args:
        path: The path of the pack. An earlier pack is replaced. Links are followed, but not those of other users.
        shape: (H, W, C) of a row.
        rows: How many rows it will have. Their space is reserved at once.
        dtype: The type of the samples: uint8, uint16 or float32.

    Raises:
        ValueError: There is something else at the path, which is not replaced; or the samples are of another type.
        OSError: The folder takes no files, or the disk is full.
    """
    from h5split.file.sealing import images_offset  # loads h5py, which readers do without

    if is_stream(target(path)):
        raise ArgumentError(f"{os.fspath(path)}: expected a file to write, found a pipe or a device; name a file")
    stored = stored_dtype(dtype)
    stride = int(np.prod(shape)) * stored.itemsize
    offset = images_offset(stride)
    with written(path, "a pack", is_pack) as file:
        _reserve(file, offset + rows * stride)
        yield NewPack(file.fileno(), shape, offset, stored)


def _reserve(file: TextIO, size: int) -> None:
    """Reserve space, so that a full disk is noticed at once."""
    try:
        files.reserve(file.fileno(), size)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise OSError(error.errno, f"{error.strerror}: expected room for {size:,} bytes") from error
