"""Read-ahead: asks the system for the rows of the next batches before they are used.

A shuffled pass over a file that is not in memory requests one small row at a time from the disk, and waits for each.
If the system knows the rows of the next batches, it reads many at once. With rows of 64x64 pixels, this reaches 0.5 of
the speed of reading the file front to back.

It reaches 0.7 if the system is asked for the 128 KB piece around each row, once per piece. If the file fits into
memory, this reads no more in total. Rows larger than a piece are read at full speed one by one.

If the file is in memory already, the requests would cost 1 us a row and gain nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from h5split.file.images import PackedImages
from h5split.file.packs import Packs
from h5split.order.epochs import Order
from h5split.order.rows import Rows
from h5split.system.machine import free_memory

_BATCHES_AHEAD = 8
_PIECE_BYTES = 128 << 10
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

    def start(self, order: Order) -> ReadAhead | None:
        """Begin a pass: return its read-ahead, or None if its rows are in memory.

        If the system cannot say whether they are in memory, the first pass reads ahead and later passes do not.

        Raises:
            FormatError: A file was written to since it was opened.
        """
        self._packs.check_unchanged()
        if self._partners is not None:
            order = Order(self._partners[order.delivered], order.size)
        cold = is_cold(self._packs, order)
        is_first, self._has_begun = not self._has_begun, True
        return ReadAhead(self._packs, order) if (is_first if cold is None else cold) else None


class ReadAhead:
    """The read-ahead of one pass. It asks the system for each batch once, and for each piece of a file once.

    Args:
        packs: The packs that contain the rows.
        order: The order of the pass.
    """

    def __init__(self, packs: Packs, order: Order) -> None:
        self._packs = packs
        self._order = order
        self._requested_batches: set[int] = set()
        stride, free = packs.packs[0].stride, free_memory()
        # For each file, whether each of its pieces was requested. None: single rows are requested.
        self._requested_pieces: dict[tuple[int, int], NDArray[np.bool_]] | None = None
        if stride < _PIECE_BYTES and free is not None and len(packs) * stride < free:
            self._requested_pieces = {
                pack.inode: np.zeros(pack.header.size // _PIECE_BYTES + 1, np.bool_) for pack in packs.packs
            }

    def __call__(self, first: int, count: int = 1) -> None:
        """Ask the system for batches that are used now, and for those after them."""
        for batch in range(first, min(first + count + _BATCHES_AHEAD, self._order.batches)):
            if batch not in self._requested_batches:
                self._requested_batches.add(batch)
                rows = self._order.rows[batch * self._order.size : (batch + 1) * self._order.size]
                for pack, local in self._packs.by_pack(rows):
                    self._request(pack, local)

    def _request(self, pack: PackedImages, rows: NDArray[np.int64]) -> None:
        starts = pack.starts(rows)
        if self._requested_pieces is None:
            for start in starts.tolist():
                pack.file.will_need(start, pack.stride)
            return
        requested = self._requested_pieces[pack.inode]
        pieces = np.concatenate([starts, starts + pack.stride - 1]) // _PIECE_BYTES
        # Not np.unique: it imports a module at its first call, and a fork during an import leaves its lock locked.
        for piece in sorted({*pieces[~requested[pieces]].tolist()}):
            pack.file.will_need(piece * _PIECE_BYTES, _PIECE_BYTES)
        requested[pieces] = True
