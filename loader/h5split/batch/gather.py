"""Makes batches: copies the rows of a batch into an array, or takes a view of the file.

If torch is loaded, no batch is a view of the file. torch ignores numpy's read-only flag, so an in-place operation on
the tensor would change the mapped pixels, and with them every later batch that is a view of the same rows.
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
from itertools import pairwise
from queue import SimpleQueue

import numpy as np
from numpy.typing import NDArray

from h5split.batch.buffers import BufferPool
from h5split.file.packs import Packs
from h5split.order.epochs import Order
from h5split.order.rows import Rows, runs
from h5split.order.settings import Settings
from h5split.system.lazy import lazy
from h5split.system.machine import cores

Batch = tuple[NDArray[np.uint8] | NDArray[np.float32], NDArray[np.float32] | NDArray[np.int32]]

_MAX_ONE_HOT_CLASSES = 1024  # an identity matrix of this size takes 4 MB
_BYTES_PER_THREAD = 1 << 20  # starting a task on another thread takes as long as copying 150 KB
_MAX_THREADS = 4  # four saturate memory bandwidth

# A thread reports here: None when its part is copied, or the exception.
_Done = SimpleQueue[BaseException | None]
# One part of a batch: the rows to copy, their destination, the whole batch, and the queue to report to. The task holds
# the batch so that its buffer is not lent again while a thread still writes to it.
_Task = tuple[Rows, NDArray[np.void], NDArray[np.uint8], _Done]


class Gatherer:
    """Makes batches from packs.

    A batch of consecutive rows is a view of the file. Other rows are copied into a buffer, by several threads if the
    batch is large.

    Args:
        packs: The packs that hold the rows.
    """

    def __init__(self, packs: Packs) -> None:
        self._packs = packs
        self._buffers = BufferPool(packs.shape, np.uint8)
        self._float_buffers = BufferPool(packs.shape, np.float32)
        self._cores = cores()
        self._threads: _Threads | None = None

    @lazy
    def _one_hot(self) -> NDArray[np.float32] | None:
        """The one-hot label of each class: float32 (K, K); None if there are too many classes.

        It is computed with the first batch: a split may have thousands of parts that never deliver one.
        """
        count = len(self._packs.class_names)
        return np.eye(count, dtype=np.float32) if count <= _MAX_ONE_HOT_CLASSES else None

    def batches(self, order: Order, first: int, count: int, settings: Settings, writable: bool) -> Batch:
        """One batch, or several successive batches joined into one.

        Args:
            order: The order of the epoch.
            first: The number of the first batch.
            count: The number of batches.
            settings: The settings; the scale and the label mode are used.
            writable: Copy the pixels, as a view of the file is read-only. If torch is loaded, they are always copied.
        """
        rows = order.rows[first * order.size : (first + count) * order.size]
        if order.runs[first] if count == 1 else runs(rows, len(rows))[0]:
            start = int(rows[0])
            copied = (writable or sys.modules.get("torch") is not None) and settings.scale is None
            pixels = self._consecutive(start, rows, copied)
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
        parts = min(_MAX_THREADS, self._cores, pixels.nbytes // _BYTES_PER_THREAD) or 1
        if parts == 1 or sys.is_finalizing():  # no other thread runs while Python exits
            self._packs.gather(rows, items)
            return pixels
        if self._threads is None or self._threads.process != os.getpid():  # a forked process has no threads
            self._threads = _Threads(self._packs, min(_MAX_THREADS, self._cores) - 1)
        bounds = [len(rows) * part // parts for part in range(parts + 1)]
        done: _Done = SimpleQueue()
        for start, end in pairwise(bounds[1:]):
            self._threads.tasks.put((rows[start:end], items[start:end], pixels, done))
        self._packs.gather(rows[: bounds[1]], items[: bounds[1]])  # this thread copies the first part
        # Wait for all threads before an error is raised: none may write to the buffer after it is returned.
        for error in [done.get() for _ in range(parts - 1)]:
            if error is not None:
                raise error
        return pixels

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


class _Threads:
    """Threads that copy rows. They end when this object is garbage collected.

    A ThreadPoolExecutor would be simpler, but its futures cost 10 % of the images a second.
    """

    def __init__(self, packs: Packs, count: int) -> None:
        self.process = os.getpid()
        self.tasks: SimpleQueue[_Task | None] = SimpleQueue()
        for _ in range(count):
            threading.Thread(target=_copy_rows_of_tasks, args=(packs, self.tasks), daemon=True).start()
            # One None ends one thread. At exit the threads are daemons and need no end.
            weakref.finalize(self, self.tasks.put, None).atexit = False


def _copy_rows_of_tasks(packs: Packs, tasks: SimpleQueue[_Task | None]) -> None:
    while (task := tasks.get()) is not None:
        rows, items, _, done = task
        error = None
        try:
            packs.gather(rows, items)
        except BaseException as caught:
            error = caught
        del task, rows, items, _  # otherwise the waiting thread holds the batch, and its buffer, until the next task
        done.put(error)
