"""Read-ahead: tells the system which rows a pass will need, if the file is not in the page cache.

A shuffled pass asks the disk for one small row at a time and waits for each. If the system is told some batches before,
it reads many rows at once. With 64x64 rows this reaches 0.5 of the speed of a sequential read. It reaches 0.7 if the
system is told of the 128 KB around each row, once; if the file fits into memory, the whole file is read in the end
anyway. Rows of more than 128 KB reach full speed one by one.

If the file is already in the page cache, the advice costs 1 us a row and gains nothing. So it is not given then.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from h5split.file.images import PackedImages
from h5split.file.packs import Packs
from h5split.order.epochs import Order
from h5split.system.machine import free_memory

_BATCHES_AHEAD = 8
_PIECE_BYTES = 128 << 10
_SAMPLE_ROWS = 32  # checked in the page cache, to judge whether the rest is in it


def is_cold(packs: Packs, order: Order) -> bool | None:
    """Whether some rows of a pass are not in the page cache, judged by a sample; None if the system cannot say."""
    if len(order.rows) == 0:
        return False
    sample = order.rows[np.linspace(0, len(order.rows) - 1, _SAMPLE_ROWS, dtype=np.int64)]
    found = {pack.is_cached(local) for pack, local in packs.by_pack(sample)}
    return True if False in found else None if None in found else False


class Reading:
    """Decides for each pass over some packs whether the system is told which rows come next.

    Args:
        packs: The packs that hold the rows.
    """

    def __init__(self, packs: Packs) -> None:
        self._packs = packs
        self._has_begun = False

    def start(self, order: Order) -> ReadAhead | None:
        """Begin a pass: return its read-ahead, or None if the rows are in the page cache.

        If the system cannot say whether they are, only the first pass reads ahead: it fills the page cache.

        Raises:
            FormatError: A file was modified after it was opened.
        """
        self._packs.check_unchanged()
        cold = is_cold(self._packs, order)
        is_first, self._has_begun = not self._has_begun, True
        return ReadAhead(self._packs, order) if (is_first if cold is None else cold) else None


class ReadAhead:
    """The read-ahead of one pass. It tells the system of each batch once, and of each piece of a file once.

    Args:
        packs: The packs that hold the rows.
        order: The order of the pass.
    """

    def __init__(self, packs: Packs, order: Order) -> None:
        self._packs = packs
        self._order = order
        self._batches: set[int] = set()
        stride, free = packs.packs[0].stride, free_memory()
        # For each file, the pieces that the system was told of. None: it is told of single rows, not of pieces. That
        # is so if rows are larger than pieces, or if the packs do not fit into memory: pieces read too early would be
        # evicted and read again.
        self._told: dict[tuple[int, int], NDArray[np.bool_]] | None = None
        if stride < _PIECE_BYTES and free is not None and len(packs) * stride < free:
            self._told = {pack.inode: np.zeros(pack.header.size // _PIECE_BYTES + 1, np.bool_) for pack in packs.packs}

    def __call__(self, first: int, count: int = 1) -> None:
        """Tell the system of `count` batches from `first` on, which are needed now, and of the batches after them."""
        for number in range(first, min(first + count + _BATCHES_AHEAD, self._order.batches)):
            if number not in self._batches:
                self._batches.add(number)
                rows = self._order.rows[number * self._order.size : (number + 1) * self._order.size]
                for pack, local in self._packs.by_pack(rows):
                    self._tell(pack, local)

    def _tell(self, pack: PackedImages, rows: NDArray[np.int64]) -> None:
        starts = pack.starts(rows)
        if self._told is None:
            for start in starts.tolist():
                pack.file.will_need(start, pack.stride)
            return
        told = self._told[pack.inode]
        pieces = np.concatenate([starts, starts + pack.stride - 1]) // _PIECE_BYTES
        # Not np.unique: it imports a module, and a fork during an import can deadlock the child.
        for piece in sorted({*pieces[~told[pieces]].tolist()}):
            pack.file.will_need(piece * _PIECE_BYTES, _PIECE_BYTES)
        told[pieces] = True
