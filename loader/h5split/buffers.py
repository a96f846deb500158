"""Batch buffers that are used again only when nobody holds them.

A fresh array for every batch costs page faults, up to 8 times the copy itself; a ring of buffers overwrites batches
that a framework still reads. So each buffer is lent out as one array that owns nothing else: every view of it,
memoryview or DLPack capsule holds that array, and when the last of them is gone a weak reference brings the buffer
back.
"""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MOST_FREE = 16  # more than any framework holds at a time; what a list of batches held is given back
_ALIGNMENT = 64  # what TensorFlow and JAX need to use an array in place


class BufferPool:
    """Lends buffers of one size; as many exist as are held, and a few."""

    def __init__(self) -> None:
        self._size = 0
        self._free: list[memoryview] = []
        self._lent: dict[int, tuple[weakref.ref[NDArray[np.uint8]], memoryview]] = {}

    def lend(self, size: int) -> NDArray[np.uint8]:
        """An array of at least `size` bytes, 64-byte aligned, not cleared: uint8 (>= size,)."""
        if size > self._size:
            self._size, self._free = size, []
        try:
            memory = self._free.pop()
        except IndexError:
            memory = _aligned(self._size)
        array: NDArray[np.uint8] = np.frombuffer(memory, np.uint8)
        reference = weakref.ref(array, self._return)
        self._lent[id(reference)] = reference, memory
        return array

    def _return(self, reference: weakref.ref[NDArray[Any]]) -> None:
        _, memory = self._lent.pop(id(reference))
        if len(memory) == self._size and len(self._free) < _MOST_FREE:
            self._free.append(memory)


def _aligned(size: int) -> memoryview:
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size].data
