"""The order of an epoch: its rows, their order, and their batches. It is a pure function of the epoch's number."""

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
    """One rank of a distributed training: number `index`, from 0 to `count` - 1, of `count` ranks."""

    index: int
    count: int


class Order:
    """The rows of an epoch, in order, cut into batches.

    Args:
        rows: int (N,).
        size: The number of rows in a batch.
        drop_remainder: Leave out the last batch if it is not full.
        seed: The seed of the order, and of random numbers for its batches.

    Attributes:
        rows: The rows as given.
        seed: As given.
        size: The number of rows in a batch.
        batches: The number of batches.
    """

    def __init__(self, rows: Rows, size: int, *, drop_remainder: bool = False, seed: int = 0) -> None:
        self.rows = rows
        self.seed = seed
        self.size = size
        self.batches = len(rows) // size if drop_remainder else -(-len(rows) // size)
        self._labels: tuple[NDArray[np.int32], NDArray[np.int32]] | None = None

    @property
    def delivered(self) -> Rows:
        """The rows of all batches, in order: int (M,). A remainder that is left out is not among them."""
        return self.rows[: self.batches * self.size]

    @lazy
    def runs(self) -> bytes:
        """Whether the rows of each batch are consecutive: one byte, 0 or 1, for each batch."""
        return row_math.runs(self.rows, self.size).tobytes()

    def labels(self, every: NDArray[np.int32]) -> NDArray[np.int32]:
        """The class of each of `rows`: int32 (N,).

        All are looked up at once and kept, because a lookup for each batch would miss the processor's cache.

        Args:
            every: int32, the class of every row of the packs. `add_file` may have renumbered the classes, so labels
                that were looked up in another array are not used.
        """
        cached = self._labels
        if cached is None or cached[0] is not every:
            cached = self._labels = every, every[self.rows]
        return cached[1]


class Epochs:
    """The order of every epoch. It depends only on the arguments here and on the number of the epoch.

    Args:
        rows: int (N,), the rows of the whole sequence.
        labels: int32, the class of every row of the packs.
        settings: The settings, which have the cap of rows per class, the kind of shuffle, the seed and the batch size.
        shard: The rank whose part of each global batch is used; None for whole batches.
    """

    def __init__(self, rows: Rows, labels: NDArray[np.int32], settings: Settings, shard: Shard | None) -> None:
        self._rows = rows
        self._labels = labels
        self._settings = settings
        self._shard = shard
        self._cached: tuple[int, Order] | None = None
        if settings.auto_shuffle:
            # Import it now, not at first use in a pass. If the process is forked while another thread imports it, the
            # import lock stays locked forever in the child.
            import numpy.random  # noqa: F401

    def order(self, epoch: int) -> Order:
        """The order of an epoch, 0 or more. The last one is kept, so asking again gives the same object.

        Without `auto_shuffle`, all epochs have the same order.
        """
        epoch = epoch if self._settings.auto_shuffle else 0
        cached = self._cached
        if cached is None or cached[0] != epoch:
            cached = self._cached = epoch, self._compute(epoch)
        return cached[1]

    def _compute(self, epoch: int) -> Order:
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
        return Order(rows, size, drop_remainder=bool(settings.drop_remainder), seed=int(settings.seed))
