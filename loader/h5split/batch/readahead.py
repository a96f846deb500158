"""Tell the system which rows a pass over a cold file comes to, some batches ahead.

A shuffled pass asks a disk for one small row at a time, and waits for each. Told of the rows some batches ahead, the
system reads many at once: with 64x64 rows this reaches 0.5 of the speed of reading the file front to back. It reaches
0.7 when the system is told of the 128 KB around each row, once; where the file fits into memory, that is no more to
read in the end. Larger rows are read at full speed one by one. When the file is in memory already, the advice would
cost 1 us a row and gain nothing.
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
_SAMPLE_ROWS = 32  # rows of a pass that are looked for in memory


def is_cold(packs: Packs, order: Order) -> bool | None:
    """Whether some rows of a pass must be read from disk, judged by a sample; None where the system does not tell."""
    if len(order.rows) == 0:
        return False
    sample = order.rows[np.linspace(0, len(order.rows) - 1, _SAMPLE_ROWS, dtype=np.int64)]
    found = {pack.is_cached(local) for pack, local in packs.by_pack(sample)}
    return True if False in found else None if None in found else False


class Reading:
    """How the passes over packs read: whether each tells the system which rows it comes to.

    Args:
        packs: Where the rows are.
    """

    def __init__(self, packs: Packs) -> None:
        self._packs = packs
        self._has_begun = False

    def start(self, order: Order) -> ReadAhead | None:
        """Begin a pass: what is to be told of its batches, for rows that are not in memory.

        Where the system does not say whether they are, the first pass tells.

        Raises:
            FormatError: Somebody has written to a file since it was opened.
        """
        self._packs.check_unchanged()
        cold = is_cold(self._packs, order)
        is_first, self._has_begun = not self._has_begun, True
        return ReadAhead(self._packs, order) if (is_first if cold is None else cold) else None


class ReadAhead:
    """What the system was told of in one pass; each batch, and each piece of a file, once.

    Args:
        packs: Where the rows are.
        order: Of the pass.
    """

    def __init__(self, packs: Packs, order: Order) -> None:
        self._packs = packs
        self._order = order
        self._batches: set[int] = set()
        stride, free = packs.packs[0].stride, free_memory()
        self._told: dict[tuple[int, int], NDArray[np.bool_]] | None = (
            None  # the pieces of each file, where they are told of whole
        )
        if stride < _PIECE_BYTES and free is not None and len(packs) * stride < free:
            self._told = {pack.inode: np.zeros(pack.header.size // _PIECE_BYTES + 1, np.bool_) for pack in packs.packs}

    def __call__(self, first: int, count: int = 1) -> None:
        """Tell the system of batches that are wanted now, and of those after them."""
        for near in range(first, min(first + count + _BATCHES_AHEAD, self._order.batches)):
            if near not in self._batches:
                self._batches.add(near)
                rows = self._order.rows[near * self._order.size : (near + 1) * self._order.size]
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
        for piece in sorted({*pieces[~told[pieces]].tolist()}):  # np.unique imports a module: not where a fork may come
            pack.file.will_need(piece * _PIECE_BYTES, _PIECE_BYTES)
        told[pieces] = True
