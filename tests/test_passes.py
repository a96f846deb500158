"""Passes without a file: any sequence of operations against a model of what each may deliver."""

from __future__ import annotations

import gc
import itertools
import os
import weakref

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule

from h5split.order.epochs import Order
from h5split.order.passes import Loop, Passes

ROWS = 12


def orders_of(size):
    """Another order of all rows for each epoch, which says which epoch it is of."""
    return lambda epoch: Order(np.roll(np.arange(ROWS), epoch) + 100 * epoch, size)


def rows_of(order, batch):
    return order.rows[batch * order.size : (batch + 1) * order.size].tolist()


class Model:
    """A pass: its epoch, its orders, the batches it gave, and whether it is of the loop over items."""

    def __init__(self, epoch, orders, given=(), is_items=False, is_shown=False):
        self.epoch, self.orders, self.given = epoch, orders, [*given]
        self.is_items, self.is_shown = is_items, is_shown

    @property
    def order(self):
        return self.orders(self.epoch)

    @property
    def is_whole(self):
        return set(self.given) == set(range(self.order.batches))


class Passing(RuleBasedStateMachine):
    """The model: every pass is the rows of the epoch that followed when it began, and remembers what it gave."""

    held = Bundle("held")

    @initialize(size=st.integers(1, ROWS + 1))
    def new(self, size):
        self.orders = orders_of(size)
        self.passes = Passes(self.orders)
        self.epoch = 0  # of the next pass
        self.first = 0  # its first batch
        self.loops = {}
        self.items = None  # the pass of the loop over items
        self.is_counted = False  # whether the batches were counted since the last item
        self.last = None  # the pass that gave a batch last; None after the order changed
        self.delivered = None

    def begins(self, first=0, **options):
        self.epoch, self.first = self.epoch + 1, 0
        return Model(self.epoch - 1, self.orders, range(first), **options)

    def gives(self, model, order, batch):
        """Check a batch, and note it."""
        assert rows_of(order, batch) == rows_of(model.order, batch)
        model.given.append(batch)
        self.last = self.delivered = model

    @rule(target=held)
    def iterate(self):
        current = self.passes.begin()
        self.last = model = self.begins(self.first)
        return current, model

    @rule(one=held)
    def next_of_an_iterator(self, one):
        current, model = one
        batch = len(model.given)
        if batch < current.order.batches:
            self.passes.ask(current, batch)
            self.gives(model, current.order, batch)

    def asks(self, model, index, loop=None):
        """Ask for an item that is of a pass, or of the next one; returns its pass, or None if there is no such item."""
        count = (model.order if model else self.orders(0)).batches
        if index >= count:
            with pytest.raises(IndexError, match=f"expected 0 to {count - 1}"):
                self.passes.item(index, loop)
            return None
        model = model or self.begins(is_items=loop is None)
        current, batch = self.passes.item(index, loop)
        assert batch == index
        assert current.epoch == model.epoch
        self.gives(model, current.order, batch)
        return model

    @rule(index=st.integers(0, ROWS - 1), name=st.sampled_from(["a", "b"]))
    def item_of_a_loop(self, index, name):
        self.loops[name] = self.asks(self.loops.get(name), index, Loop("owner", name)) or self.loops.get(name)

    def has(self, model, index):
        """Whether the loop over items has this one."""
        asked = [batch for batch, _ in itertools.groupby(model.given)]
        if index > 1 and asked[-index:] == [*range(index)]:
            return True
        if self.last is not model and (self.last is None or self.last.is_whole or model.is_shown):
            return False
        count = model.order.batches
        is_in_order = asked[-count:] == [*range(count)]
        return not model.is_whole or (asked[-1] == index and is_in_order and not self.is_counted)

    @rule(index=st.integers(0, ROWS - 1))
    def item(self, index):
        model, last = self.items, self.last
        if model is None or not self.has(model, index):
            is_shown = last is not None and last.is_whole and not last.is_items
            model = Model(last.epoch, last.orders, is_items=True, is_shown=True) if is_shown else None
        model = self.asks(model, index)
        if model is not None:
            self.items, self.is_counted = model, False

    @rule(count=st.integers(2, ROWS))
    def items_from_the_first_on(self, count):
        for index in range(count):
            self.item(index)

    @rule()
    def count(self):
        assert self.passes.count() == self.orders(0).batches
        self.is_counted = True

    @rule()
    def end_the_loop_over_items(self):
        self.passes.end_loop()
        self.items = None

    @rule(size=st.integers(1, ROWS + 1))
    def change_settings(self, size):
        self.orders = orders_of(size)
        self.passes.change_order(self.orders)
        self.first, self.last = 0, None

    @rule(epoch=st.integers(0, 20), first=st.integers(0, 2))
    def restore(self, epoch, first):
        first = min(first, self.orders(0).batches - 1)
        self.passes.go_to(epoch, first)
        self.epoch, self.first, self.last, self.items = epoch, first, None, None
        assert self.passes.state == (epoch, first)

    @rule()
    def look(self):
        assert rows_of(self.passes.upcoming, 0) == rows_of(self.orders(self.epoch), 0)

    @rule()
    def a_look_of_keras_is_taken_back(self):
        self.passes.item(0, Loop("looker", object()))
        self.passes.take_back("looker")
        self.first = 0

    @precondition(lambda self: self.delivered is not None)
    @invariant()
    def names_are_of_what_was_delivered(self):
        assert self.passes.delivered.rows.tolist() == self.delivered.order.rows.tolist()

    @invariant()
    def the_next_pass_is_the_next_epoch(self):
        assert self.passes.next == (self.epoch, self.first)


Passing.TestCase.settings = settings(
    max_examples=int(os.environ.get("PASSES", "200")), stateful_step_count=40, deadline=None
)
TestPassing = Passing.TestCase


def test_items_show_the_whole_pass_that_was_delivered_last():
    passes = Passes(orders_of(5))
    for epoch in range(3):
        current = passes.begin()
        for batch in range(current.order.batches):
            passes.ask(current, batch)
        current, batch = passes.item(1)
        assert current.epoch == epoch
        assert rows_of(current.order, batch) == rows_of(orders_of(5)(epoch), 1)


def test_a_loop_that_is_under_way_goes_on_after_another_whole_pass():
    passes = Passes(orders_of(4))
    passes.item(0)
    passes.item(1)
    current = passes.begin()
    for batch in range(current.order.batches):
        passes.ask(current, batch)
    current, batch = passes.item(2)
    assert rows_of(current.order, batch) == rows_of(orders_of(4)(0), 2)


def test_a_loop_is_not_forgotten_for_any_number_of_loops_within_it():
    passes = Passes(orders_of(5))
    outer = Loop("fit", object())
    first, _ = passes.item(0, outer)
    passes.end("fit")  # as Keras does where `steps_per_epoch` is short; the loop goes on
    passes.item(1, outer)
    for number in range(30):
        inner = Loop(f"evaluate {number}", object())
        for batch in range(first.order.batches if number % 2 else 1):
            passes.item(batch, inner)
        passes.end(inner.owner)
    current, batch = passes.item(2, outer)
    assert rows_of(current.order, batch) == rows_of(orders_of(5)(0), 2)


@pytest.mark.parametrize("loop", [None, "one"])
def test_the_orders_of_passes_that_are_over_are_let_go(loop):
    """Those of the pass under way and of the one delivered remain, and of the one before while the next begins."""
    alive = weakref.WeakSet()

    def order_of(epoch):
        order = orders_of(5)(epoch)
        alive.add(order)
        return order

    passes = Passes(order_of)
    for number in range(10):
        for index in range(passes.count()):
            passes.item(index, None if loop is None else Loop(loop, number))
        gc.collect()
        assert len(alive) <= 2
