"""Batches of scattered rows are gathered several at a time, and ahead of a consumer that takes time for them.

Relative to `take` in memory, shuffled batches of 64x64 come at this speed, with two threads:

=====  ==========  ==============  ==============
batch  one by one  4 MB at a time  8 MB at a time
=====  ==========  ==============  ==============
32     0.72        0.92            1.04
256    1.02        1.04            1.10
=====  ==========  ==============  ==============

A consumer such as a GPU is busy with one batch while the next one is gathered: with a consumer that takes as long as
the gathering, 256 images of 64x64 are delivered in 0.6 of the time. A loop that does nothing with them would be a
tenth slower with the thread, so none is started unless the consumer takes a quarter of the time of the gathering.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from h5split.order.epochs import Order
from h5split.system.threads import Answers, Threads, answer

_BYTES = 8 << 20  # that are gathered at once
_ALIGNMENT = 64  # bytes; TensorFlow and JAX use an array without a copy if it begins at a multiple of it
_MIN_USE = 0.25  # of the time to gather batches, from which on a consumer is worth gathering ahead of

_Gather = Callable[[int, int], Any]  # (number of a batch, how many from there on) -> these batches as one


class Several:
    """The batches of a pass, one after another.

    The number that is gathered at once doubles from call to call, so the first one comes as soon as one alone. Batches
    of consecutive rows are single, as views of the file need no copy.

    Args:
        order: The order of the pass.
        first: Its first batch.
        stride: The bytes of an image.
        gather: Called to gather batches, in any thread.
    """

    def __init__(self, order: Order, first: int, stride: int, gather: _Gather) -> None:
        self._order = order
        self._first = first
        nbytes = order.size * stride
        self._most = 1 if nbytes % _ALIGNMENT else max(1, _BYTES // nbytes)
        self._gather = gather
        self._at, self._end = first, first  # the batches that are gathered
        self._found: Any = None
        self._settings: object = None
        self._learned: object = None
        self._ahead = _Ahead(gather)
        self._gathering = self._gathered_at = 0.0  # seconds that it took, and when it ended

    def __call__(self, batch: int, settings: object, learned: object) -> Any:
        """The batch after the one before.

        Args:
            batch: Its number.
            settings: What it is made with. If it is another object than before, what was gathered is not used.
            learned: Likewise.
        """
        is_same = settings is self._settings and learned is self._learned
        if batch >= self._end or not is_same:
            self._found = None  # its buffer may be used again
            self._settings, self._learned = settings, learned
            if self._order.is_run(batch):
                self._end = batch
                return self._gather(batch, 1)
            count = self._count(batch)
            self._at, self._end = batch, batch + count
            found = self._scattered(batch, count, is_same)
            if count == 1:
                return found
            self._found = found
        start = (batch - self._at) * self._order.size
        return _cut(self._found, start, start + self._order.size)

    def _scattered(self, batch: int, count: int, is_same: bool) -> Any:
        """Batches that have to be copied: gathered ahead, or now. If the consumer takes time, the next ones follow."""
        used = time.perf_counter() - self._gathered_at
        found = self._ahead.take(batch)
        if found is None or not is_same:
            start = time.perf_counter()
            found = self._gather(batch, count)
            self._gathering = time.perf_counter() - start
        is_worth_it = self._gathered_at > 0 and used > _MIN_USE * self._gathering and not sys.is_finalizing()
        if is_worth_it and self._end < self._order.batches and not self._order.is_run(self._end):
            self._ahead.begin(self._end, self._count(self._end))
        self._gathered_at = time.perf_counter()
        return found

    def _count(self, batch: int) -> int:
        """How many batches to gather at once, from `batch` on, whose rows are scattered."""
        most = min(self._most, 1 + batch - self._first, self._order.batches - batch)
        return next((count for count in range(1, most) if self._order.is_run(batch + count)), most)


class _Ahead:
    """A thread that gathers the next batches. It starts when it is needed, and ends with the pass.

    Args:
        gather: Called to gather batches.
    """

    def __init__(self, gather: _Gather) -> None:
        self._gather = gather
        self._thread: Threads | None = None
        self._begun: tuple[int, Threads, Answers] | None = None

    def begin(self, batch: int, count: int) -> None:
        """Begin to gather batches."""
        if self._thread is None or not self._thread.are_alive:
            self._thread = Threads(1)
        self._begun = batch, self._thread, self._thread.call(self._gather, batch, count)

    def take(self, batch: int) -> Any:
        """The batches from `batch` on, if they were begun; else None."""
        begun, self._begun = self._begun, None
        if begun is None or begun[0] != batch or not begun[1].are_alive:
            return None
        return answer(begun[2])


def _cut(batch: Any, start: int, stop: int) -> Any:
    """Rows of a batch, in its structure: views of its arrays."""
    if isinstance(batch, tuple):
        return tuple([_cut(part, start, stop) for part in batch])
    if isinstance(batch, dict):
        return {name: _cut(part, start, stop) for name, part in batch.items()}
    return batch[start:stop]
