"""Ctrl-C and its like, kept from what must not be half done."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def interrupts_held() -> Iterator[None]:
    """Let Ctrl-C, and what a command takes for it, wait: an executor interrupted while it starts or stops never ends.

    Processes and threads started here do not see Ctrl-C at all, nor that their terminal is closed; the parent does,
    when it is through, and ends them.
    """
    handlers: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        handlers = {number: signal.getsignal(number) for number in INTERRUPTS}
    caught: list[int] = []
    with contextlib.ExitStack() as stack:  # undone from the last to the first, whatever is raised meanwhile
        stack.callback(_pass_on, caught, handlers)
        # A blocked signal still comes through another thread, and then interrupts the main one: hence both. Ctrl-C is
        # the first to be held and the last to be let through, or it would come while others are half done.
        for number, handler in handlers.items():
            if callable(handler):
                stack.callback(signal.signal, number, handler)
                signal.signal(number, lambda number, frame: caught.append(number))
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
        stack.callback(signal.pthread_sigmask, signal.SIG_SETMASK, blocked)
        yield


def _pass_on(caught: list[int], handlers: dict[int, Any]) -> None:
    """Tell every signal's own handler, though others raise; also where a signal made what was held fail."""
    with contextlib.ExitStack() as stack:
        for number in reversed(caught):
            stack.callback(handlers[number], number, None)
