"""An epoch's order, and one pass over it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from h5split import rows as row_math
from h5split.rows import Rows
from h5split.settings import Settings

_AHEAD = 8  # batches that a disk is told of before they are wanted


@dataclass(frozen=True)
class Shard:
    """Rank `index` of `count`."""

    index: int
    count: int


class Order:
    """The rows of an epoch, in order.

    Args:
        rows: int (N,).
        size: Rows of a batch.

    Attributes:
        rows: As given.
        size: As given.
        runs: For each batch, whether its rows are consecutive.
    """

    def __init__(self, rows: Rows, size: int) -> None:
        self.rows = rows
        self.size = size
        self.runs = row_math.runs(rows, size).tobytes()
        self._labels: tuple[NDArray[np.int32], NDArray[np.int32]] | None = None

    def __len__(self) -> int:
        """Batches, one that is not full included."""
        return len(self.runs)

    def labels(self, every: NDArray[np.int32]) -> NDArray[np.int32]:
        """The class of each of `rows`: int32 (N,); all at once, as a batch at a time misses caches.

        Args:
            every: int32, of every row there is now; `add_file` may have numbered the classes anew.
        """
        known = self._labels
        if known is None or known[0] is not every:
            known = self._labels = every, every[self.rows]
        return known[1]


def epoch_order(rows: Rows, labels: NDArray[np.int32], settings: Settings, epoch: int, part: Shard | None) -> Order:
    """The order of an epoch: a function of its arguments alone.

    Args:
        rows: int (N,), of the whole sequence.
        labels: int32, of every row there is.
        settings: Cap, order, seed and batches.
        epoch: 0 or more; of no effect without `auto_shuffle`.
        part: Of each batch of all ranks, the part that this one has.
    """
    size = settings.batch_size
    if settings.max_per_class_and_epoch is not None:
        turn = epoch if settings.auto_shuffle else None
        rows = row_math.window(rows, labels[rows], settings.max_per_class_and_epoch, settings.seed, turn)
    if settings.auto_shuffle == "block":
        rows = row_math.blocks(rows, size * (part.count if part else 1), settings.seed, epoch)
    elif settings.auto_shuffle:
        rows = rows[row_math.permutation(len(rows), settings.seed, epoch)]
    if part is not None:
        rows = row_math.shard(rows, size, part.index, part.count)
    return Order(rows, size)


class Pass:
    """One pass over the data: the order of an epoch, and which of its batches were asked for.

    Args:
        epoch: Its number.
        order: Its order.
        batches: How many of the batches of `order` there are.
        first: The batch it goes on from.
        counts: Whether it can become complete; a look ahead cannot.
        complete: Whether it is so already.
        cold: Whether its rows are still to be read from disk.
    """

    def __init__(
        self,
        epoch: int,
        order: Order,
        batches: int,
        *,
        first: int = 0,
        counts: bool = True,
        complete: bool = False,
        cold: bool = False,
    ) -> None:
        self.epoch = epoch
        self.order = order
        self.batches = batches
        self.first = first
        self.cold = cold
        self._counts = counts
        self._complete = complete
        self._seen: set[int] = set()
        self._told: set[int] = set()

    @property
    def complete(self) -> bool:
        """Whether all its batches were asked for; never, if there are none."""
        return self._complete or (self._counts and 0 < self.batches <= len(self._seen))

    @property
    def asked(self) -> int:
        """How many batches were asked for, if they were the first ones and no look ahead; else 0."""
        count = len(self._seen) if self._counts else 0
        return count if count == 0 or max(self._seen) == count - 1 else 0

    def mark(self, first: int, count: int = 1) -> None:
        """Note that batches were asked for."""
        if count == 1:
            self._seen.add(first)
        else:
            self._seen.update(range(first, first + count))

    def to_tell(self, batch: int) -> list[int]:
        """The batches that a cold disk is to be told of when this one is wanted; each once a pass."""
        new = [near for near in range(batch, min(batch + _AHEAD, self.batches)) if near not in self._told]
        self._told.update(new)
        return new
