"""Reading ahead: pixels are requested from the disk before their batches are needed.

A shuffled pass over a file that is not in memory would request one small row at a time, and wait for each. Two ways are
faster:

- If all pixels of the files fit into memory, and the pass needs a good part of them, the files are read front to back
  first, and the first two batches wait for that, for some seconds at most. An epoch from disk then takes 1.1 to 1.2
  times as long as reading them. If batches were delivered meanwhile, it would take twice as long, because scattered
  reads slow the disk down.
- Else, the system is asked for the rows of the next batches, so that it reads many at once. Batches of consecutive rows
  are read by a thread.

If the file is in memory already, a request would cost 1 us a row and gain nothing.
"""

from __future__ import annotations

import contextlib
import sys
import weakref
from collections import deque
from collections.abc import Callable
from queue import Empty

import numpy as np

from h5split.file.images import PackedImages
from h5split.file.mapped import READ_SIZE
from h5split.file.packs import Packs
from h5split.order.epochs import Order
from h5split.order.rows import Rows
from h5split.system.machine import free_memory
from h5split.system.threads import Answers, Threads

_Told = Callable[[int, int], None]  # called with the first batch that is wanted now, and the number of batches

_BYTES_AHEAD = 32 << 20  # of rows that are asked for before they are wanted
_BATCHES_AHEAD = 8  # at least
_MIN_RUN_BYTES = 128 << 10  # of consecutive rows, from which on a thread reads them
_MIN_SHARE = 0.25  # of the pixels, from which on reading all of them is faster than to ask for rows
_WAITS = (0.5, 5.0)  # seconds that the first two batches wait at most while all is read
_SAMPLE_ROWS = 32  # the number of rows of a pass that are checked for being in memory


def is_cold(packs: Packs, order: Order) -> bool | None:
    """Whether some rows of a pass must be read from disk, judged by a sample; None if the system cannot say."""
    if len(order.rows) == 0:
        return False
    sample = order.rows[np.linspace(0, len(order.rows) - 1, _SAMPLE_ROWS, dtype=np.int64)]
    found = {pack.is_cached(local) for pack, local in packs.by_pack(sample)}
    return True if False in found else None if None in found else False


class Reading:
    """Decides for each pass over packs whether it reads ahead.

    Args:
        packs: The packs that contain the rows.
        partners: If they are other packs than those of the order: the row there of each row that the order has.
    """

    def __init__(self, packs: Packs, partners: Rows | None = None) -> None:
        self._packs = packs
        self._partners = partners
        self._has_begun = False

    def start(self, order: Order) -> _Told | None:
        """Begin a pass: return its read-ahead, or None if its rows are in memory.

        If the system cannot say whether they are in memory, the first pass reads ahead and later passes do not.

        Raises:
            FormatError: A file was written to since it was opened.
        """
        self._packs.check_unchanged()
        if self._partners is not None:
            order = Order(self._partners[order.delivered], order.size)
        if self._packs.plan(order.rows):  # they come from elsewhere, through the page cache
            return None
        cold = is_cold(self._packs, order)
        is_first, self._has_begun = not self._has_begun, True
        if not (is_first if cold is None else cold):
            return None
        size, free = len(self._packs) * self._packs.packs[0].stride, free_memory()
        is_much = len(order.rows) > _MIN_SHARE * len(self._packs)
        if free is not None and size < free and is_much and not sys.is_finalizing():  # no thread starts any more then
            return FrontToBack(self._packs, order)
        return RowsAhead(self._packs, order)


class FrontToBack:
    """A thread that reads all of the files of packs. It stops when this object is garbage collected.

    The first batch waits for it for up to half a second, so that a look at a large pack is quick, and the second one
    for up to 5 seconds. If that is too short, rows of the next batches are asked for while the rest is read.

    Args:
        packs: The packs that contain the rows.
        order: The order of the pass.
    """

    def __init__(self, packs: Packs, order: Order) -> None:
        self._rows = RowsAhead(packs, order)
        starts = ((pack, start) for pack in packs.packs for start in range(0, pack.header.size, READ_SIZE))
        self._left = deque((pack, start, READ_SIZE) for pack, start in starts)
        weakref.finalize(self, self._left.clear).atexit = False
        self._waits = iter(_WAITS)
        self._thread = Threads(1)
        self._done = self._thread.call(_load, self._left)

    def __call__(self, first: int, count: int = 1) -> None:
        """Wait for the files, or ask for the rows of batches."""
        if self._left and self._thread.are_alive:
            with contextlib.suppress(Empty):
                self._done.put(self._done.get(timeout=next(self._waits, 0)))  # other threads may wait for it too
        if self._left:
            self._rows(first, count)


def _load(left: deque[tuple[PackedImages, int, int]]) -> None:
    """Read pieces of files into the page cache until none is left: the pack, where a piece begins, and its bytes.

    An error is left to the batches that it concerns.
    """
    try:
        while True:
            pack, start, count = left.popleft()
            pack.file.load(start, count)
    except (IndexError, OSError):
        left.clear()


class RowsAhead:
    """Asks for each batch of a pass once, before it is wanted. Of scattered rows, the system is asked for each.

    Batches of many consecutive rows are read by a thread, one after another, and wait for it: from disk they come at
    0.8 to 0.9 of its full speed. Pages that are read when they are used come at half of it.

    Args:
        packs: The packs that contain the rows.
        order: The order of the pass.
    """

    def __init__(self, packs: Packs, order: Order) -> None:
        self._packs = packs
        self._order = order
        self._ahead = max(_BATCHES_AHEAD, _BYTES_AHEAD // (order.size * packs.packs[0].stride))
        self._end = 0  # batches that were asked for end here
        self._thread: Threads | None = None
        self._coming: dict[int, Answers] = {}  # the batches that the thread reads

    def __call__(self, first: int, count: int = 1) -> None:
        """Ask for batches that are wanted now, and for those after them."""
        end = min(first + count + self._ahead, self._order.batches)
        for batch in range(max(first, self._end), end):
            self._ask(batch)
        self._end = max(self._end, end)
        for batch in range(first, first + count):
            coming = self._coming.pop(batch, None)
            if coming is not None and self._thread is not None and self._thread.are_alive:
                coming.get()

    def _ask(self, batch: int) -> None:
        rows = self._order.rows[batch * self._order.size : (batch + 1) * self._order.size]
        places = [(pack, pack.starts(local)) for pack, local in self._packs.by_pack(rows)]
        is_large = len(rows) * self._packs.packs[0].stride >= _MIN_RUN_BYTES
        if is_large and self._order.is_run(batch) and not sys.is_finalizing():  # no thread starts any more then
            runs = deque((pack, int(starts[0]), len(starts) * pack.stride) for pack, starts in places)
            self._thread = self._thread or Threads(1)
            self._coming[batch] = self._thread.call(_load, runs)
            return
        for pack, starts in places:
            for start in starts.tolist():
                pack.file.will_need(start, pack.stride)
