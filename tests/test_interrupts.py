"""Ctrl-C and its like, held: nothing that a program's own handlers wait for is lost, doubled, or kept."""

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
    """A program with a handler of its own for SIGTERM, what that was called with, and another thread."""
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
    """Send this process a signal, and wait until it has come, maybe through another thread."""
    os.kill(os.getpid(), number)
    while number in signal.sigpending():
        time.sleep(0.001)
    time.sleep(0.01)  # the thread that has taken it tells Python


@pytest.mark.parametrize("numbers", [(signal.SIGINT, signal.SIGTERM), (signal.SIGTERM, signal.SIGINT)])
def test_each_handler_is_told_though_one_raises(own, numbers):
    with pytest.raises(KeyboardInterrupt), interrupts_held():  # noqa: PT012 - what is held is what is tested
        for number in numbers:
            send(number)
        seen = list(own.called)
    assert (seen, own.called) == ([], [signal.SIGTERM])
    assert signal.getsignal(signal.SIGTERM) is own.handler
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()


def test_an_interrupt_is_told_where_it_made_what_was_held_fail(own):
    with pytest.raises(KeyboardInterrupt), interrupts_held():  # noqa: PT012 - what is held is what is tested
        send(signal.SIGINT)
        raise RuntimeError("a process that was started is gone")


def test_one_hold_within_another_waits_for_it(own):
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
        await asyncio.sleep(0.05)  # in which it would be called again
        return called

    assert asyncio.run(hold()) == [1]
