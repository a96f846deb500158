"""An epoch's order, and one pass over it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from h5split.order import rows as row_math
from h5split.order.rows import Rows
from h5split.order.settings import Settings
from h5split.system.lazy import lazy

if TYPE_CHECKING:
    from h5split.readahead import ReadAhead


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
    """

    def __init__(self, rows: Rows, size: int) -> None:
        self.rows = rows
        self.size = size
        self._labels: tuple[NDArray[np.int32], NDArray[np.int32]] | None = None

    def __len__(self) -> int:
        """Batches, one that is not full included."""
        return -(-len(self.rows) // self.size)

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
        ahead: Told of each batch, where rows are still to be read from disk.
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
        ahead: ReadAhead | None = None,
    ) -> None:
        self.epoch = epoch
        self.order = order
        self.batches = batches
        self.first = first
        self.ahead = ahead
        self._counts = counts
        self._complete = complete
        self._seen: set[int] = set()

    @property
    def complete(self) -> bool:
        """Whether all its batches were asked for; never, if there are none."""
        return self._complete or (self._counts and 0 < self.batches <= len(self._seen))

    @property
    def begun(self) -> bool:
        """Whether any of its batches were asked for."""
        return bool(self._seen)

    @property
    def asked(self) -> int:
        """How many batches were asked for, if they were the first ones and no look ahead; else 0."""
        count = len(self._seen) if self._counts else 0
        return count if count == 0 or max(self._seen) == count - 1 else 0

    def ask(self, first: int, count: int = 1) -> None:
        """Note that batches are asked for, and have those after them read ahead."""
        if count == 1:
            self._seen.add(first)
        else:
            self._seen.update(range(first, first + count))
        if self.ahead is not None:
            self.ahead.before(first, count)

    def skip(self, count: int) -> None:
        """Note that the first batches were asked for in an earlier run."""
        self._seen.update(range(count))
