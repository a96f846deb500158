"""Reading ahead: pixels are asked of the disk before their batches are.

A shuffled pass over a file that is not in memory would request one small row at a time, and wait for each. Two ways are
faster:

- If all pixels of the files fit into memory, and the pass needs a good part of them, the system is asked for the files
  front to back. Next to asking for the 128 KB around each row, an epoch from disk takes 0.88 of the time.
- Else, the system is asked for the rows of the next batches, so that it reads many at once.

If the file is in memory already, a request would cost 1 us a row and gain nothing.
"""

from __future__ import annotations

import contextlib
import weakref
from collections import deque
from collections.abc import Callable, Sequence

import numpy as np

from h5split.file.images import PackedImages
from h5split.file.mapped import READ_SIZE
from h5split.file.packs import Packs
from h5split.order.epochs import Order
from h5split.order.rows import Rows
from h5split.system.machine import free_memory
from h5split.system.threads import Threads

_Told = Callable[[int, int], None]  # called with a batch and how many from there on are wanted now

_BYTES_AHEAD = 32 << 20  # of rows that are asked for before they are wanted
_BATCHES_AHEAD = 8  # at least
_MIN_SHARE = 0.25  # of the pixels, from which on reading all of them is faster than to ask for rows
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
        packs, size = self._packs.packs, len(self._packs) * self._packs.packs[0].stride
        free = free_memory()
        if free is not None and size < free and len(order.rows) > _MIN_SHARE * len(self._packs):
            return FrontToBack(packs)
        return RowsAhead(self._packs, order)


class FrontToBack:
    """A thread that asks for all of the files of packs. It stops when this object is garbage collected.

    It starts with the second batch, as the first one would have to wait behind what it asks for.

    Args:
        packs: The packs.
    """

    def __init__(self, packs: Sequence[PackedImages]) -> None:
        pieces = ((pack, start) for pack in packs for start in range(0, pack.header.size, READ_SIZE))
        self._left = deque(pieces)
        weakref.finalize(self, self._left.clear).atexit = False
        self._thread: Threads | None = None

    def __call__(self, first: int, count: int = 1) -> None:
        """Begin, unless it has begun."""
        if self._thread is None:
            self._thread = Threads(1)
            self._thread.call(_ask_for, self._left)


def _ask_for(left: deque[tuple[PackedImages, int]]) -> None:
    """Ask for pieces of files until none is left. Each call waits while the disk has enough to do."""
    with contextlib.suppress(IndexError):
        while True:
            pack, start = left.popleft()
            pack.file.read_ahead(start, READ_SIZE)


class RowsAhead:
    """Asks the system for the rows of each batch of a pass once, before it is wanted.

    Args:
        packs: The packs that contain the rows.
        order: The order of the pass.
    """

    def __init__(self, packs: Packs, order: Order) -> None:
        self._packs = packs
        self._order = order
        self._ahead = max(_BATCHES_AHEAD, _BYTES_AHEAD // (order.size * packs.packs[0].stride))
        self._end = 0  # batches that were asked for end here

    def __call__(self, first: int, count: int = 1) -> None:
        """Ask the system for batches that are wanted now, and for those after them."""
        end = min(first + count + self._ahead, self._order.batches)
        rows = self._order.rows[max(first, self._end) * self._order.size : end * self._order.size]
        self._end = max(self._end, end)
        for pack, local in self._packs.by_pack(rows):
            for start in pack.starts(local).tolist():
                pack.file.will_need(start, pack.stride)
