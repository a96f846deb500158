"""The order of an epoch: its rows, their order, and their batches. It is a pure function of the epoch's number."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from h5split.order import rows as row_math
from h5split.order.rows import Rows
from h5split.order.settings import Settings

_BATCHES_PER_PART = 256  # which are looked at together


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
        self._runs: dict[int, bytes] = {}  # for a part of the batches, one byte for each: whether its rows follow

    @property
    def delivered(self) -> Rows:
        """The rows of all batches, in order: int (M,). A remainder that is left out is not among them."""
        return self.rows[: self.batches * self.size]

    def is_run(self, batch: int) -> bool:
        """Whether the rows of a batch are consecutive. It is found out for many batches at a time."""
        part, at = divmod(batch, _BATCHES_PER_PART)
        found = self._runs.get(part)
        if found is None:
            step = _BATCHES_PER_PART * self.size
            found = self._runs[part] = row_math.runs(self.rows[part * step : (part + 1) * step], self.size).tobytes()
        return found[at] == 1


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
            rows = row_math.permuted(rows, settings.seed, epoch)
        if shard is not None:
            rows = row_math.shard(rows, size, shard.index, shard.count)
        return Order(rows, size, drop_remainder=bool(settings.drop_remainder), seed=int(settings.seed))
