"""Batch buffers that are reused once no reference to the batch remains.

A new array for every batch causes page faults, which take up to 8 times as long as the copy itself. A ring of buffers
would overwrite batches that a framework still reads. So each buffer is lent as a numpy array with a weak reference to
it. Every view, memoryview or DLPack capsule made from the array keeps the array alive. When the last of them is gone,
the callback of the weak reference returns the buffer to the pool.

This works because the memory belongs to an mmap object. Were it a numpy array, views would refer to that array and not
to the lent one. A map also begins at a page boundary, and TensorFlow and JAX use an array without a copy if it begins
at a multiple of 64 bytes.
"""

from __future__ import annotations

import mmap
import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from h5split.system.files import anonymous


@dataclass(frozen=True)
class _Buffer:
    memory: mmap.mmap
    items: NDArray[np.void]  # the same memory, one item per row; a caller must not keep it


class BufferPool:
    """Lends buffers for batches of rows of one shape. There is one buffer per batch in use, plus a few free ones.

    Args:
        shape: The shape of one row.
        dtype: The type of its elements.
    """

    # The largest number of free buffers to keep: no framework holds more batches at a time. When a user drops a long
    # list of batches, the memory of the other buffers is released.
    most_free = 16

    def __init__(self, shape: tuple[int, ...], dtype: DTypeLike) -> None:
        self._shape = shape
        self._dtype = np.dtype(dtype)
        self._count = 0
        self._free: list[_Buffer] = []
        self._lent: dict[int, tuple[weakref.ref[NDArray[Any]], _Buffer]] = {}

    def lend(self, count: int) -> tuple[NDArray[Any], NDArray[np.void]]:
        """Lend a batch to fill. It begins at a page boundary and holds the data of an earlier batch.

        Args:
            count: The number of rows.

        Returns:
            array: (count, *shape), for the user. Its memory is not lent again while the array or a view of it is alive.
            items: void (count,), the same memory with one item per row, to fill it. Do not keep it.
        """
        if count > self._count:
            self._count, self._free = count, []
        try:
            buffer = self._free.pop()
        except IndexError:
            buffer = self._new()
        if len(buffer.items) < count:  # another thread asked for a larger batch meanwhile
            buffer = self._new()
        array: NDArray[Any] = np.ndarray((count, *self._shape), self._dtype, buffer.memory)
        reference = weakref.ref(array, self._return)
        self._lent[id(reference)] = reference, buffer
        return array, buffer.items[:count]

    def _return(self, reference: weakref.ref[NDArray[Any]]) -> None:
        """Return a buffer to the pool.

        While Python exits, this may be called after the globals of this module are deleted, so it uses none.
        """
        lent = self._lent.pop(id(reference), None)  # None: Ctrl-C came before `lend` stored it
        if lent is not None and len(lent[1].items) == self._count and len(self._free) < self.most_free:
            self._free.append(lent[1])

    def _new(self) -> _Buffer:
        stride = int(np.prod(self._shape)) * self._dtype.itemsize
        memory = anonymous(self._count * stride)
        return _Buffer(memory, np.frombuffer(memory, f"V{stride}"))
