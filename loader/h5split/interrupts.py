"""Ctrl-C and its like, kept from what must not be half done."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def interrupts_held() -> Iterator[None]:
    """Let Ctrl-C, and what a command takes for it, wait: an executor interrupted while it starts or stops never ends.

    Processes started here do not see Ctrl-C at all, nor that their terminal is closed; the parent does, when it is
    through, and ends them.
    """
    caught: list[int] = []
    handlers = {}
    if threading.current_thread() is threading.main_thread():
        handlers = {number: signal.getsignal(number) for number in INTERRUPTS}
    # A blocked signal still comes through another thread, and then interrupts the main one: hence both.
    handled = [number for number, handler in handlers.items() if callable(handler)]
    for number in handled:
        signal.signal(number, lambda number, frame: caught.append(number))
    held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
        for number in handled:
            signal.signal(number, handlers[number])
        for each in caught:
            signal.raise_signal(each)  # to whoever handles it, also where it made what was done here fail
