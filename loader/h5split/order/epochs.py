"""The order of an epoch: which rows it has, in which order, in which batches. Pure, a function of its number."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from h5split.order import rows as row_math
from h5split.order.rows import Rows
from h5split.order.settings import Settings
from h5split.system.lazy import lazy


@dataclass(frozen=True)
class Shard:
    """Rank `index` of `count`."""

    index: int
    count: int


class Order:
    """The rows of an epoch, in order, cut into batches.

    Args:
        rows: int (N,).
        size: Rows of a batch.
        drop_remainder: Leave out a last batch that is not full.

    Attributes:
        rows: As given.
        size: As given.
        batches: How many batches there are.
    """

    def __init__(self, rows: Rows, size: int, *, drop_remainder: bool = False) -> None:
        self.rows = rows
        self.size = size
        self.batches = len(rows) // size if drop_remainder else -(-len(rows) // size)
        self._labels: tuple[NDArray[np.int32], NDArray[np.int32]] | None = None

    @property
    def delivered(self) -> Rows:
        """The rows that all batches together have, in order: int (M,)."""
        return self.rows[: self.batches * self.size]

    @lazy
    def runs(self) -> bytes:
        """For each batch, whether its rows are consecutive."""
        return row_math.runs(self.rows, self.size).tobytes()

    def labels(self, every: NDArray[np.int32]) -> NDArray[np.int32]:
        """The class of each of `rows`: int32 (N,); all at once, as a batch at a time misses caches.

        Args:
            every: int32, of every row there is now; `add_file` may have numbered the classes anew.
        """
        known = self._labels
        if known is None or known[0] is not every:
            known = self._labels = every, every[self.rows]
        return known[1]


class Epochs:
    """The order of every epoch: a function of its number and of what is given here, alone.

    Args:
        rows: int (N,), of the whole sequence.
        labels: int32, the class of every row there is.
        settings: Cap, order, seed and batches.
        shard: Of each batch of all ranks, the part that this one has; None for all.
    """

    def __init__(self, rows: Rows, labels: NDArray[np.int32], settings: Settings, shard: Shard | None) -> None:
        self._rows = rows
        self._labels = labels
        self._settings = settings
        self._shard = shard
        self._kept: tuple[int, Order] | None = None
        if settings.auto_shuffle:
            # numpy loads it at first use. In a pass, a fork may come while another thread is loading it, and leave its
            # lock held for ever in the child.
            import numpy.random  # noqa: F401

    def order(self, epoch: int) -> Order:
        """The order of an epoch, 0 or more; the same one as long as the same epoch is asked for.

        Without `auto_shuffle` all epochs have one order.
        """
        epoch = epoch if self._settings.auto_shuffle else 0
        kept = self._kept
        if kept is None or kept[0] != epoch:
            kept = self._kept = epoch, self._made(epoch)
        return kept[1]

    def _made(self, epoch: int) -> Order:
        settings, shard, rows, size = self._settings, self._shard, self._rows, self._settings.batch_size
        if settings.max_per_class_and_epoch is not None:
            turn = epoch if settings.auto_shuffle else None
            rows = row_math.window(rows, self._labels[rows], settings.max_per_class_and_epoch, settings.seed, turn)
        if settings.auto_shuffle == "block":
            rows = row_math.blocks(rows, size * (shard.count if shard else 1), settings.seed, epoch)
        elif settings.auto_shuffle:
            rows = rows[row_math.permutation(len(rows), settings.seed, epoch)]
        if shard is not None:
            rows = row_math.shard(rows, size, shard.index, shard.count)
        return Order(rows, size, drop_remainder=bool(settings.drop_remainder))
