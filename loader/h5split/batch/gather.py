"""Gathers the rows of a batch into arrays.

A batch of consecutive rows can be a read-only view of the file, without a copy. If torch is loaded, batches are always
copies: torch makes a writable tensor even of a read-only array, and a change of it in place would show in all later
batches.
"""

from __future__ import annotations

import sys
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from h5split.batch.buffers import BufferPool
from h5split.batch.targets import Learned, Makers
from h5split.file.packs import Packs
from h5split.order.epochs import Order
from h5split.order.rows import Rows, are_consecutive
from h5split.order.settings import LabelMode, Settings
from h5split.system.lazy import lazy
from h5split.system.machine import cores
from h5split.system.threads import Threads, answer

# (images, labels) by default. The settings `label_mode`, `targets` and `weights` can make it images alone, put other
# arrays or a dict of arrays in place of labels, or add weights.
Batch = Any

_MAX_TABLE_CLASSES = 1024  # for up to this many classes, the one-hot labels are kept as a table of at most 4 MB
_BYTES_PER_THREAD = 1 << 20  # handing work to a thread costs as much as copying 150 KB
_MAX_THREADS = 4  # four saturate memory bandwidth


class Gatherer:
    """Makes batches of rows. Consecutive rows become a view of the file; other rows are copied into a buffer.

    Args:
        packs: The packs that contain the rows.

    Attributes:
        packs: As given.
    """

    def __init__(self, packs: Packs) -> None:
        self.packs = packs
        self._buffers = BufferPool(packs.shape, packs.dtype)
        self._float_buffers = BufferPool(packs.shape, np.float32)
        self._cores = cores()
        self._threads: Threads | None = None
        self._others: dict[Packs, Gatherer] = {}  # of pictures that are targets

    @lazy
    def _one_hot(self) -> NDArray[np.float32] | None:
        """The one-hot label of each class: float32 (K, K); None if there are too many classes.

        It is created with the first batch, because a user may create very many parts that never make one.
        """
        count = len(self.packs.class_names)
        return np.eye(count, dtype=np.float32) if count <= _MAX_TABLE_CLASSES else None

    def batches(
        self, order: Order, first: int, count: int, settings: Settings, learned: Learned, writable: bool
    ) -> Batch:
        """Make one batch of several consecutive ones.

        Args:
            order: The order of the epoch.
            first: The number of the first batch.
            count: The number of batches.
            settings: The scale of the pixels and the kind of labels.
            learned: The targets and weights of the rows.
            writable: Return a copy, never a read-only view of the file. If torch is loaded, this is always so.
        """
        rows = order.rows[first * order.size : (first + count) * order.size]
        if order.is_run(first) and (count == 1 or are_consecutive(rows)):
            start = int(rows[0])
            must_copy = (writable or sys.modules.get("torch") is not None) and settings.scale is None
            pixels = self._consecutive(start, rows, must_copy)
            labels = self.packs.labels[start : start + len(rows)]
        else:
            pixels = self._gathered(rows)
            labels = self.packs.labels[rows]
        images = self._scaled(pixels, settings.scale)
        if learned.is_class_alone and settings.label_mode is not None:
            return images, self.encoded(labels, settings.label_mode)
        return self._with_targets(images, rows, labels, settings.label_mode, learned, writable)

    def pixels(self, rows: Rows, *, writable: bool) -> NDArray[Any]:
        """Make the pictures of rows alone: (M, H, W, C). Consecutive rows are a view, where `writable` allows it."""
        if not are_consecutive(rows):
            return self._gathered(rows)
        return self._consecutive(int(rows[0]), rows, writable or sys.modules.get("torch") is not None)

    def beside(self, packs: Packs) -> Gatherer:
        """The gatherer of other packs, for targets. It is kept, so that its buffers are used again."""
        found = self._others.get(packs)
        if found is None:
            found = self._others[packs] = Gatherer(packs)
        return found

    def _with_targets(
        self,
        images: NDArray[Any],
        rows: Rows,
        labels: NDArray[np.int32],
        mode: LabelMode | None,
        learned: Learned,
        writable: bool,
    ) -> Batch:
        """Make a batch with other targets than classes. Apart from `batches`, which a closure would slow down."""
        make = Makers(
            lambda: self.encoded(labels, mode or "int"),
            lambda packs, at: self.beside(packs).pixels(at, writable=writable),
        )
        return learned.with_images(images, rows, make, is_unlabelled=mode is None)

    def _consecutive(self, start: int, rows: Rows, must_copy: bool) -> NDArray[Any]:
        view = None if must_copy else self.packs.view(start, len(rows))
        return self._gathered(rows) if view is None else view

    def _gathered(self, rows: Rows) -> NDArray[Any]:
        pixels, items = self._buffers.lend(len(rows))
        rows = rows.astype(np.int64, copy=False)
        parts = min(_MAX_THREADS, self._cores, pixels.nbytes // _BYTES_PER_THREAD) or 1
        if parts == 1 or sys.is_finalizing():  # threads do not run any more while Python exits
            self.packs.take(rows, items)
            return pixels
        if self._threads is None or not self._threads.are_alive:
            self._threads = Threads(min(_MAX_THREADS, self._cores) - 1)
        bounds = [len(rows) * part // parts for part in range(parts + 1)]
        copied = [
            self._threads.call(_copy, self.packs, rows[start:end], items[start:end], pixels)
            for start, end in pairwise(bounds[1:])
        ]
        self.packs.take(rows[: bounds[1]], items[: bounds[1]])
        for one in copied:
            answer(one)
        return pixels

    def _scaled(self, pixels: NDArray[Any], scale: float | None) -> NDArray[Any]:
        if scale is None:
            return pixels
        scaled: NDArray[np.float32] = self._float_buffers.lend(len(pixels))[0]
        np.multiply(pixels, np.float32(scale), out=scaled, dtype=np.float32)
        return scaled

    def encoded(self, labels: NDArray[np.int32], mode: str) -> NDArray[np.float32] | NDArray[np.int32]:
        """Return labels as `label_mode` says.

        Args:
            labels: int32 (M,).
            mode: `categorical`, `int` or `binary`.
        """
        if mode == "int":
            return labels.copy()
        if mode == "binary":
            return labels.astype(np.float32)[:, np.newaxis]
        if self._one_hot is not None:
            return self._one_hot.take(labels, axis=0)
        one_hot = np.zeros((len(labels), len(self.packs.class_names)), np.float32)
        one_hot[np.arange(len(labels)), labels] = 1
        return one_hot


def _copy(packs: Packs, rows: Rows, items: NDArray[np.void], _: NDArray[Any]) -> None:
    """Copy rows. The reference to their batch keeps its buffer from being lent again before that."""
    packs.take(rows, items)
