"""Passes: where the epoch is. A state machine that knows orders of rows, and no file.

A pass is one way through the batches of one epoch. Everyone who asks for batches goes through a pass of their own: an
iterator, a loop inside Keras, a ``tf.data`` pipeline, or a loop over ``sequence[i]``. So passes may be interleaved and
nested, and each keeps its order to its end. `Passes` decides three things:

==================  ===================================================================================================
which pass          An iterator and a pipeline hold theirs. A loop of Keras or of torch's DataLoader is told by its
                    `Loop`. All other items belong to the one loop over ``sequence[i]``.
which epoch         Every pass that begins is the next epoch. A look at a batch, to learn its shape, begins none.
what was delivered  The pass that was asked last. A pass whose batches are fetched ahead counts when all of them were
                    asked for, or when it ended: until then nobody knows which have arrived.
==================  ===================================================================================================

Nobody says where a loop over ``sequence[i]`` begins and ends, so `_Items` concludes it from what is asked for:

- It is over when all its batches were asked for, when the order changes, when a whole pass of others came since, or
  when `Passes.end_loop` is called. The next item begins the next pass; but after a whole pass of others, it shows that
  pass once more, so that one can look at what was predicted.
- Whatever happened, a loop that asks for batches 0, 1, 2, ... goes on with the one that follows. So it keeps its order
  when settings change or `evaluate` runs within it, also if one of its batches was looked at before.
- A batch that is asked for twice in a row is the same batch: ``sequence[i][0]`` and ``sequence[i][1]`` belong together.
  If it was the last one, and somebody has counted the batches in between, a loop over a single batch begins anew.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import NamedTuple

from h5split.errors import PositionError
from h5split.order.epochs import Order

_MOST_LOOPS = 8  # of Keras and torch that are remembered; those that are under way are nested in each other

Told = Callable[[int, int], None]  # (first, count) of batches that are asked for


class Loop(NamedTuple):
    """A loop that asks for items by itself, apart from the loops of others, and is one pass.

    Attributes:
        owner: Who runs it: one after another, an owner may run several.
        key: Tells it from other loops.
    """

    owner: object
    key: object


class Pass:
    """One way through the batches of an epoch.

    Args:
        epoch: Its number.
        order: Its order.
        first: The batch it goes on from; those before it were asked for in an earlier run.
        is_ahead: Whether its batches are fetched before they are wanted.
        is_loop: Whether it is of a loop over items.
        is_shown_again: Whether it shows a pass that was delivered before.
        told: Called with the batches that are asked for.

    Attributes:
        asked_for: The batches that were asked for.
        has_ended: Whether its owner said that it is over.
    """

    def __init__(
        self,
        epoch: int,
        order: Order,
        *,
        first: int = 0,
        is_ahead: bool = False,
        is_loop: bool = False,
        is_shown_again: bool = False,
        told: Told | None = None,
    ) -> None:
        self.epoch = epoch
        self.order = order
        self.first = first
        self.is_ahead = is_ahead
        self.is_loop = is_loop
        self.is_shown_again = is_shown_again
        self.has_ended = False
        self.told = told
        self.asked_for = set(range(first))

    @property
    def is_complete(self) -> bool:
        """Whether all its batches were asked for; never, if there are none."""
        return 0 < self.order.batches <= len(self.asked_for)

    @property
    def is_under_way(self) -> bool:
        """Whether more batches are to be asked for, as far as is known."""
        return not (self.is_complete or self.has_ended)

    @property
    def asked(self) -> int:
        """How many batches were asked for."""
        return len(self.asked_for)

    @property
    def is_in_order(self) -> bool:
        """Whether the batches asked for are the first ones."""
        return not self.asked_for or max(self.asked_for) == len(self.asked_for) - 1


class _Items:
    """The loop over items: which pass it is, and whether what is asked for next belongs to it.

    Attributes:
        current: Its pass.
    """

    def __init__(self, current: Pass) -> None:
        self.current = current
        self._last = -1  # the batch asked for last
        self._run = 0  # how many batches, from 0 on, were asked for one after another until now
        self._is_counted = False  # since the last batch was asked for

    def note(self, batch: int) -> None:
        """Note that a batch is asked for."""
        if batch == self._run:
            self._run += 1
        elif batch != self._last:
            self._run = int(batch == 0)
        self._last = batch
        self._is_counted = False

    def note_count(self) -> None:
        """Note that somebody counts batches, as ``for i in range(len(sequence))`` does."""
        self._is_counted = True

    def has(self, batch: int, last: Pass | None) -> bool:
        """Whether a batch that is asked for is of this loop.

        Args:
            batch: The batch.
            last: The pass that was asked last, by anybody; None if the order has changed since.
        """
        if self._run > 1 and batch == self._run:
            return True
        if last is not self.current and (last is None or last.is_complete or self.current.is_shown_again):
            return False
        if not self.current.is_complete:
            return True
        # Threads may have asked in another order, and may begin the next pass with any batch, also with the last one.
        is_in_order = self._run == self.current.order.batches
        return batch == self._last and is_in_order and not self._is_counted


class Passes:
    """The passes over one sequence.

    Args:
        order_of: The order of an epoch; it has as many batches in every epoch.
        start: Called with the order of each pass before it begins. It returns what is to be told of the batches asked
            for; if it raises, no pass begins.
        epoch: Of the first pass.
        first: The batch at which the first pass goes on.
    """

    def __init__(
        self,
        order_of: Callable[[int], Order],
        start: Callable[[Order], Told | None] = lambda _: None,
        *,
        epoch: int = 0,
        first: int = 0,
    ) -> None:
        self._order_of = order_of
        self._start = start
        self._next_epoch = epoch
        self._first = first
        self._count: int | None = None  # of batches, kept as the order of the next epoch takes memory
        self._current: Pass | None = None  # asked last; None where the next pass does not follow it
        self._delivered: Pass | None = None
        self._items: _Items | None = None
        self._loops: dict[Loop, Pass] = {}
        self._before: tuple[Pass | None, Pass | None] = None, None  # what was asked and delivered before the last pass
        self._locks: dict[int, threading.Lock] = {}  # of this process, and of those it was forked from

    @property
    def upcoming(self) -> Order:
        """The order of the pass that begins next."""
        return self._order_of(self._next_epoch)

    @property
    def delivered(self) -> Order:
        """The order of what was delivered; before anything was, of what comes next."""
        return self.upcoming if self._delivered is None else self._delivered.order

    @property
    def epoch(self) -> int:
        """Of the pass that was asked last; where the next pass does not follow one, of the next."""
        return self._next_epoch if self._current is None else self._current.epoch

    @property
    def next(self) -> tuple[int, int]:
        """(epoch, first batch) of the pass that begins next."""
        return self._next_epoch, self._first

    @property
    def state(self) -> tuple[int, int]:
        """(epoch, batch) to go on from. The batch is 0 where batches were not asked for in their order."""
        current = self._current
        if current is None or current.is_complete or current.is_shown_again:
            return self.next
        return current.epoch, current.asked if current.is_in_order else 0

    def go_to(self, epoch: int, first: int = 0) -> None:
        """Have the next pass be of this epoch, whatever came before. Passes that have begun go on as they are.

        Args:
            epoch: 0 or more.
            first: The batch at which it goes on, if `begin` begins it; it has one more at least.
        """
        with self._lock:
            self._next_epoch, self._first = epoch, first
            self._current = self._items = None

    def change_order(
        self, order_of: Callable[[int], Order], start: Callable[[Order], Told | None] = lambda _: None
    ) -> None:
        """Have passes that begin from now on take other orders; those that have begun keep theirs."""
        with self._lock:
            self._order_of, self._start = order_of, start
            self._first, self._current, self._count = 0, None, None

    def count(self) -> int:
        """Batches of the pass that begins next."""
        with self._lock:
            if self._items is not None:
                self._items.note_count()
            if self._count is None:
                self._count = self.upcoming.batches
            return self._count

    def begin(self, *, is_ahead: bool = False) -> Pass:
        """Begin a pass, whose batches are asked for with `ask`. One that is ahead begins with its first batch."""
        with self._lock:
            return self._begin(first=0 if is_ahead else self._first, is_ahead=is_ahead)

    def ask(self, current: Pass, first: int, count: int = 1) -> None:
        """Note that batches of a pass are asked for."""
        if count == 1:
            current.asked_for.add(first)
        else:
            current.asked_for.update(range(first, first + count))
        if current.told is not None:
            current.told(first, count)
        self._current = current
        if not current.is_ahead or current.is_complete:
            self._delivered = current

    def item(self, index: int, loop: Loop | None = None, *, is_ahead: bool = False) -> tuple[Pass, int]:
        """Ask for an item: the pass it is of, and its batch there.

        Args:
            index: From 0, or from -1 backwards from the end.
            loop: That it is asked for in; None is the loop over items.
            is_ahead: Whether that loop fetches ahead.

        Raises:
            IndexError: There is no such batch; no pass has begun.
        """
        with self._lock:
            current = self._pass_of_items(index) if loop is None else self._loops.get(loop)
            batch = checked(index, self.upcoming if current is None else current.order)
            if current is None:
                self._forget(loop)
                current = self._begin(is_ahead=is_ahead, is_loop=loop is None)
            if loop is None:
                self._note_item(current, batch)
            else:
                self._remember(loop, current)
        self.ask(current, batch)
        return current, batch

    def look(self, index: int) -> tuple[Pass, int]:
        """The pass that comes next, which does not begin, and a batch of it.

        Raises:
            IndexError: There is no such batch.
        """
        upcoming = Pass(self._next_epoch, self.upcoming)
        return upcoming, checked(index, upcoming.order)

    def end_loop(self) -> None:
        """End the loop over items, though not all were asked for: the next item begins the next pass."""
        with self._lock:
            self._items = None

    def end(self, owner: object) -> None:
        """Say that the loop that an owner ran last is over, or pauses: what it asked for has been delivered."""
        with self._lock:
            for loop, last in reversed(self._loops.items()):
                if loop.owner is owner:
                    last.has_ended = True
                    self._delivered = last
                    return

    def take_back(self, owner: object) -> None:
        """Undo a pass that turns out to be a look: its owner begins anew without having ended it.

        It asked for one batch, or for more if a subclass makes an item of several. The next pass is of the same epoch.
        """
        with self._lock:
            for loop, looked in [*self._loops.items()]:
                is_look = loop.owner is owner and not looked.has_ended
                if is_look and looked.epoch == self._next_epoch - 1:
                    del self._loops[loop]
                    self._next_epoch = looked.epoch
                    if self._current is looked:
                        self._current, self._delivered = self._before

    def _begin(self, *, first: int = 0, is_ahead: bool = False, is_loop: bool = False) -> Pass:
        self._before = self._current, self._delivered  # lets go of the order before, whose memory the next one takes
        order = self.upcoming
        begun = Pass(self._next_epoch, order, first=first, is_ahead=is_ahead, is_loop=is_loop, told=self._start(order))
        self._next_epoch, self._first = begun.epoch + 1, 0
        self._current, self._count = begun, order.batches
        return begun

    def _pass_of_items(self, index: int) -> Pass | None:
        """The pass that the next item is of; None of one that is to begin."""
        items, last = self._items, self._current
        if items is not None and items.has(_from_0(index, items.current.order), last):
            return items.current
        if last is not None and last.is_complete and not last.is_loop:
            return Pass(last.epoch, last.order, is_loop=True, is_shown_again=True)
        return None

    def _note_item(self, current: Pass, batch: int) -> None:
        if self._items is None or self._items.current is not current:
            self._items = _Items(current)
        self._items.note(batch)

    def _forget(self, coming: Loop | None) -> None:
        """Forget the loops of an owner that are over, but the last one, before another begins: orders take memory."""
        over = [loop for loop, its in self._loops.items() if coming and loop.owner is coming.owner and its.is_complete]
        for loop in over[:-1]:
            del self._loops[loop]

    def _remember(self, loop: Loop, current: Pass) -> None:
        """Keep the pass of a loop; of too many forget the oldest, a whole one or one that has ended if there is any."""
        self._loops.pop(loop, None)
        if len(self._loops) >= _MOST_LOOPS:
            del self._loops[min(self._loops, key=lambda one: self._loops[one].is_under_way)]
        self._loops[loop] = current
        current.has_ended = False  # it had paused

    @property
    def _lock(self) -> threading.Lock:
        """A lock of this process: a fork may come while a thread that it leaves behind holds the lock of the parent."""
        return self._locks.setdefault(os.getpid(), threading.Lock())


def checked(index: int, order: Order) -> int:
    """The number of a batch, from 0 on.

    Args:
        index: From 0, or from -1 backwards from the end.
        order: That it is of.

    Raises:
        IndexError: There is no such batch.
    """
    count = order.batches
    batch = _from_0(index, order)
    if not 0 <= batch < count:
        raise PositionError(f"batch {index}: expected {f'0 to {count - 1}' if count else 'none: there are none'}")
    return batch


def _from_0(index: int, order: Order) -> int:
    return index + order.batches if index < 0 else index
