"""Gathering: the rows of a batch as arrays."""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from h5split.buffers import BufferPool
from h5split.machine import cores
from h5split.packs import Packs
from h5split.passes import Order
from h5split.rows import Rows, runs
from h5split.settings import Settings

Batch = tuple[NDArray[np.uint8] | NDArray[np.float32], NDArray[np.float32] | NDArray[np.int32]]

_MOST_IN_TABLE = 1024  # classes whose one-hot labels are kept as a table, of 4 MB
_A_THREAD = 1 << 20  # bytes of a batch for each thread: handing over costs as much as copying 300 KB
_MOST_THREADS = 4  # which take what memory gives


class Gatherer:
    """Makes batches of packs: consecutive rows are a view of the file, others one gather into a buffer.

    Args:
        packs: Where the rows are.
    """

    def __init__(self, packs: Packs) -> None:
        self._packs = packs
        self._buffers = BufferPool(packs.shape, np.uint8)
        self._float_buffers = BufferPool(packs.shape, np.float32)
        count = len(packs.class_names)
        self._one_hot = np.eye(count, dtype=np.float32) if count <= _MOST_IN_TABLE else None
        self._cores = cores()
        self._threads: tuple[int, ThreadPoolExecutor] | None = None  # and the process they are in

    def batches(self, order: Order, first: int, count: int, settings: Settings, writable: bool) -> Batch:
        """Batches that follow one another, as one.

        Args:
            order: Of the epoch.
            first: The first of them.
            count: How many.
            settings: The scale and the kind of labels.
            writable: No view of the file, which is read-only, but a copy.
        """
        rows = order.rows[first * order.size : (first + count) * order.size]
        if order.runs[first] if count == 1 else runs(rows, len(rows))[0]:
            start = int(rows[0])
            pixels = self._consecutive(start, rows, writable and settings.scale is None)
            labels = self._packs.labels[start : start + len(rows)]
        else:
            pixels = self._gathered(rows)
            labels = order.labels(self._packs.labels)[first * order.size : (first + count) * order.size]
        return self._scaled(pixels, settings.scale), self._encoded(labels, settings.label_mode)

    def _consecutive(self, start: int, rows: Rows, copied: bool) -> NDArray[np.uint8]:
        view = None if copied else self._packs.view(start, len(rows))
        return self._gathered(rows) if view is None else view

    def _gathered(self, rows: Rows) -> NDArray[np.uint8]:
        pixels, items = self._buffers.lend(len(rows))
        rows = rows.astype(np.int64, copy=False)
        parts = min(_MOST_THREADS, self._cores, pixels.nbytes // _A_THREAD) or 1
        bounds = [len(rows) * part // parts for part in range(parts + 1)]
        others = [self._handed_over(rows[start:end], items[start:end], pixels) for start, end in pairwise(bounds[1:])]
        self._packs.gather(rows[: bounds[1]], items[: bounds[1]])
        for other in others:
            other.result()
        return pixels

    def _handed_over(self, rows: Rows, items: NDArray[np.void], pixels: NDArray[np.uint8]) -> Future[None]:
        """Have a thread gather; it holds `pixels`, so that their buffer is not lent again before it is done."""
        if self._threads is None or self._threads[0] != os.getpid():  # threads are not there any more after a fork
            self._threads = os.getpid(), ThreadPoolExecutor(_MOST_THREADS - 1)
        try:
            return self._threads[1].submit(self._gather, rows, items, pixels)
        except RuntimeError:  # the interpreter is about to end
            self._gather(rows, items, pixels)
            done: Future[None] = Future()
            done.set_result(None)
            return done

    def _gather(self, rows: Rows, items: NDArray[np.void], pixels: NDArray[np.uint8]) -> None:
        """The rows into the items, which are in the memory of `pixels`."""
        self._packs.gather(rows, items)

    def _scaled(self, pixels: NDArray[np.uint8], scale: float | None) -> NDArray[np.uint8] | NDArray[np.float32]:
        if scale is None:
            return pixels
        scaled: NDArray[np.float32] = self._float_buffers.lend(len(pixels))[0]
        return np.multiply(pixels, np.float32(scale), out=scaled, dtype=np.float32)

    def _encoded(self, labels: NDArray[np.int32], mode: str) -> NDArray[np.float32] | NDArray[np.int32]:
        if mode == "int":
            return labels.copy()
        if mode == "binary":
            return labels.astype(np.float32)[:, np.newaxis]
        if self._one_hot is not None:
            return self._one_hot.take(labels, axis=0)
        one_hot = np.zeros((len(labels), len(self._packs.class_names)), np.float32)
        one_hot[np.arange(len(labels)), labels] = 1
        return one_hot
