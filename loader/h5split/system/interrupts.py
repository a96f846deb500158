"""Deferring Ctrl-C, SIGTERM and SIGHUP during work that must not be interrupted halfway."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

if sys.platform == "win32":  # it has no SIGHUP, and signals cannot be blocked
    INTERRUPTS = (signal.SIGINT, signal.SIGTERM)
else:
    INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def interrupts_held() -> Iterator[None]:
    """Defer SIGINT, SIGTERM and SIGHUP until the block ends: an executor interrupted during start-up or shutdown hangs.

    Processes and threads that start inside the block never receive SIGINT or SIGHUP, except on Windows. The main
    process handles these signals after the block, and ends the other processes.
    """
    handlers: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        handlers = {number: signal.getsignal(number) for number in INTERRUPTS}
    caught: list[int] = []
    with contextlib.ExitStack() as stack:  # undoes in reverse order, whatever is raised meanwhile
        stack.callback(_pass_on, caught, handlers)
        # Handlers are replaced and signals blocked: another thread may still receive a blocked signal, and Python then
        # runs its handler in the main thread. SIGINT is deferred first and restored last, so that it cannot interrupt
        # the handling of the others.
        for number, handler in handlers.items():
            if callable(handler):
                stack.callback(signal.signal, number, handler)
                signal.signal(number, lambda number, frame: caught.append(number))
        if sys.platform != "win32":
            blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
            stack.callback(signal.pthread_sigmask, signal.SIG_SETMASK, blocked)
        yield


def _pass_on(caught: list[int], handlers: dict[int, Any]) -> None:
    """Call the handler of every signal that was deferred, even if another handler, or the block, has raised."""
    with contextlib.ExitStack() as stack:
        for number in reversed(caught):
            stack.callback(handlers[number], number, None)
