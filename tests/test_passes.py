"""Passes without a file: any sequence of operations against a model of what each may deliver."""

from __future__ import annotations

import os

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


class Passing(RuleBasedStateMachine):
    """The model: every pass is the rows of the epoch that followed when it began, and remembers what it gave."""

    held = Bundle("held")

    @initialize(size=st.integers(1, ROWS + 1))
    def new(self, size):
        self.orders = orders_of(size)
        self.passes = Passes(self.orders)
        self.epoch = 0  # of the next pass
        self.first = 0  # its first batch
        self.loops = {}  # loop -> [epoch, orders, batches given]; None is the loop over items
        self.last = None  # (epoch, orders) delivered last
        self.whole = None  # a whole pass that items show again

    def begins(self, first=0):
        begun = [self.epoch, self.orders, [*range(first)]]
        self.epoch, self.first = self.epoch + 1, 0
        return begun

    def gives(self, model, order, batch):
        """Check a batch, and note it."""
        epoch, orders, given = model
        assert rows_of(order, batch) == rows_of(orders(epoch), batch)
        given.append(batch)
        self.last = epoch, orders

    def is_whole(self, model):
        epoch, orders, given = model[:3]
        return set(given) == set(range(orders(epoch).batches))

    @rule(target=held)
    def iterate(self):
        current = self.passes.begin()
        self.whole = None
        return current, self.begins(self.first)

    @rule(one=held)
    def next_of_an_iterator(self, one):
        current, model = one
        batch = len(model[2])
        if batch < current.order.batches:
            self.passes.ask(current, batch)
            self.gives(model, current.order, batch)
            self.whole = model if self.is_whole(model) else None

    @rule(index=st.integers(0, ROWS - 1), loop=st.sampled_from([None, "a", "b"]))
    def item(self, index, loop):
        model = self.loops.get(loop)
        if model is not None and self.is_whole(model):
            model = None
        if loop is None and self.whole is not None and (model is None or model[3:]):
            if model is None or model[3] is not self.whole:
                model = [*self.whole[:2], [], self.whole]
        elif loop is None and model is not None and model[3:]:
            model = None
        count = (self.orders if model is None else model[1])(0).batches
        if index >= count:
            with pytest.raises(IndexError, match=f"expected 0 to {count - 1}"):
                self.passes.item(index, loop and Loop("owner", loop))
            return
        model = self.begins() if model is None else model
        order, batch = self.passes.item(index, loop and Loop("owner", loop))
        assert batch == index
        self.gives(model[:3], order, batch)
        self.loops[loop] = model
        if loop is None:
            self.whole = model[3] if model[3:] and not self.is_whole(model) else None
        else:
            self.whole = model if self.is_whole(model) else None

    @rule()
    def end_the_loop_over_items(self):
        self.passes.end_loop()
        self.loops.pop(None, None)

    @rule(size=st.integers(1, ROWS + 1))
    def change_settings(self, size):
        self.orders = orders_of(size)
        self.passes.change_order(self.orders)
        self.first, self.whole = 0, None
        self.loops.pop(None, None)

    @rule(epoch=st.integers(0, 20), first=st.integers(0, 2))
    def restore(self, epoch, first):
        first = min(first, self.orders(0).batches - 1)
        self.passes.go_to(epoch, first)
        self.epoch, self.first, self.whole = epoch, first, None
        self.loops.pop(None, None)
        assert self.passes.state == (epoch, first)

    @rule()
    def look(self):
        assert rows_of(self.passes.upcoming, 0) == rows_of(self.orders(self.epoch), 0)

    @rule()
    def a_look_of_keras_is_taken_back(self):
        self.passes.item(0, Loop("looker", object()))
        self.passes.take_back("looker")
        self.first = 0

    @precondition(lambda self: self.last is not None)
    @invariant()
    def names_are_of_what_was_delivered(self):
        epoch, orders = self.last
        assert self.passes.delivered.rows.tolist() == orders(epoch).rows.tolist()

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
        order, batch = passes.item(1)
        assert rows_of(order, batch) == rows_of(orders_of(5)(epoch), 1)


def test_a_loop_that_is_under_way_goes_on_after_another_whole_pass():
    passes = Passes(orders_of(5))
    passes.item(0)
    current = passes.begin()
    for batch in range(current.order.batches):
        passes.ask(current, batch)
    assert [rows_of(*passes.item(index)) for index in (1, 2)] == [rows_of(orders_of(5)(0), index) for index in (1, 2)]


def test_a_loop_is_not_forgotten_for_any_number_of_loops_within_it():
    passes = Passes(orders_of(5))
    outer = Loop("fit", object())
    first, _ = passes.item(0, outer)
    passes.end("fit")  # as Keras does where `steps_per_epoch` is short; the loop goes on
    passes.item(1, outer)
    for number in range(30):
        inner = Loop(f"evaluate {number}", object())
        for batch in range(first.batches if number % 2 else 1):
            passes.item(batch, inner)
        passes.end(inner.owner)
    order, batch = passes.item(2, outer)
    assert rows_of(order, batch) == rows_of(orders_of(5)(0), 2)
