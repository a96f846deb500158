"""Tests of interrupts_held: every deferred signal reaches the program's own handler exactly once."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from types import SimpleNamespace

import pytest

from h5split.system.interrupts import INTERRUPTS, interrupts_held


@pytest.fixture
def own():
    """A program with its own handler of SIGTERM, the calls to that handler, and a second thread."""
    before = {number: signal.getsignal(number) for number in INTERRUPTS}
    called = []
    program = SimpleNamespace(handler=lambda number, frame: called.append(number), called=called)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, program.handler)
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    thread.start()
    yield program
    over.set()
    thread.join()
    for number, handler in before.items():
        signal.signal(number, handler)


def send(number):
    """Send this process a signal, and wait until it is delivered, perhaps to another thread."""
    os.kill(os.getpid(), number)
    while number in signal.sigpending():
        time.sleep(0.001)
    time.sleep(0.01)  # time for the thread that received it to notify Python


@pytest.mark.parametrize("numbers", [(signal.SIGINT, signal.SIGTERM), (signal.SIGTERM, signal.SIGINT)])
def test_every_handler_is_called_even_if_one_raises(own, numbers):
    with pytest.raises(KeyboardInterrupt), interrupts_held():  # noqa: PT012 - the test is about the block
        for number in numbers:
            send(number)
        seen = list(own.called)
    assert (seen, own.called) == ([], [signal.SIGTERM])
    assert signal.getsignal(signal.SIGTERM) is own.handler
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()


def test_a_held_interrupt_takes_precedence_over_an_error_of_the_block(own):
    with pytest.raises(KeyboardInterrupt), interrupts_held():  # noqa: PT012 - the test is about the block
        send(signal.SIGINT)
        raise RuntimeError("a process that was started is gone")


def test_a_nested_hold_waits_for_the_outer_one(own):
    with interrupts_held():
        with interrupts_held():
            send(signal.SIGTERM)
        assert own.called == []
    assert own.called == [signal.SIGTERM]


def test_a_handler_of_asyncio_is_called_once(own):
    async def hold():
        called = []
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, called.append, 1)
        with interrupts_held():
            send(signal.SIGTERM)
        while not called:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)  # time for a second call, which would be wrong
        return called

    assert asyncio.run(hold()) == [1]
