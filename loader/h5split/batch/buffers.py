"""Batch buffers that are used again only when nobody holds them.

A fresh array for every batch costs page faults, up to 8 times the copy itself; a ring of buffers overwrites batches
that a framework still reads. So each buffer is lent out as one array that owns nothing else: every view of it,
memoryview or DLPack capsule holds that array, and when the last of them is gone a weak reference brings the buffer
back. (That is so because the memory under it is no numpy array: else views would hold that one.) The memory is mapped,
and so begins at a page: TensorFlow and JAX use an array in place that begins at a multiple of 64 bytes.
"""

from __future__ import annotations

import mmap
import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

_PRIVATE = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}


@dataclass(frozen=True)
class _Buffer:
    memory: mmap.mmap
    items: NDArray[np.void]  # the same memory, an item a row; never handed out to keep


class BufferPool:
    """Lends batches of rows of one shape; as many buffers exist as are held, and a few.

    Args:
        shape: Of one row.
        dtype: Of its elements.
    """

    most_free = 16  # buffers kept: more than any framework holds at a time; the rest of a list of batches is given back

    def __init__(self, shape: tuple[int, ...], dtype: DTypeLike) -> None:
        self._shape = shape
        self._dtype = np.dtype(dtype)
        self._count = 0
        self._free: list[_Buffer] = []
        self._lent: dict[int, tuple[weakref.ref[NDArray[Any]], _Buffer]] = {}

    def lend(self, count: int) -> tuple[NDArray[Any], NDArray[np.void]]:
        """A batch to fill; it begins at a page, and holds whatever was there before.

        Args:
            count: How many rows.

        Returns:
            array: (count, *shape), to hand out: while it or anything made of it lives, its memory is not lent again.
            items: The same memory as items of a whole row each, void (count,), to fill it; not to be kept.
        """
        if count > self._count:
            self._count, self._free = count, []
        try:
            buffer = self._free.pop()
        except IndexError:
            buffer = self._new()
        if len(buffer.items) < count:  # of before, where another thread has just asked for more
            buffer = self._new()
        array: NDArray[Any] = np.ndarray((count, *self._shape), self._dtype, buffer.memory)
        reference = weakref.ref(array, self._return)
        self._lent[id(reference)] = reference, buffer
        return array, buffer.items[:count]

    def _return(self, reference: weakref.ref[NDArray[Any]]) -> None:
        """Take a buffer back. When Python ends, this may be called after the globals of this module are gone."""
        lent = self._lent.pop(id(reference), None)  # None: Ctrl-C came before it was noted
        if lent is not None and len(lent[1].items) == self._count and len(self._free) < self.most_free:
            self._free.append(lent[1])

    def _new(self) -> _Buffer:
        stride = int(np.prod(self._shape)) * self._dtype.itemsize
        memory = mmap.mmap(-1, self._count * stride, **_PRIVATE)
        return _Buffer(memory, np.frombuffer(memory, f"V{stride}"))
