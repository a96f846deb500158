"""Threads that call functions.

These are no executor of concurrent.futures. Its locks are Python code, in which Ctrl-C gives another error than
KeyboardInterrupt, or leaves them locked. Here, starting a thread and each step of a queue are single calls of C. And
batches that several threads copy come 10 % faster.
"""

from __future__ import annotations

import _thread
import os
import sys
import weakref
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

Answers = SimpleQueue[tuple[Any, BaseException | None]]  # of one call: its result, or its error
_Calls = SimpleQueue[tuple[Callable[..., Any], tuple[Any, ...], Answers] | None]


class Threads:
    """Threads that call functions. They end when this object is garbage collected, and do not keep Python from exiting.

    Args:
        count: The number of threads.
    """

    def __init__(self, count: int) -> None:
        self._process = os.getpid()
        self._calls: _Calls = SimpleQueue()
        for _ in range(count):
            _thread.start_new_thread(_work, (self._calls,))
            weakref.finalize(self, self._calls.put, None).atexit = False

    @property
    def are_alive(self) -> bool:
        """Whether there are threads that run: a forked process has none, and none runs any more while Python exits."""
        return self._process == os.getpid() and not sys.is_finalizing()

    def call(self, function: Callable[..., Any], *arguments: Any) -> Answers:
        """Have a thread call a function; `answer` waits for its result."""
        answers: Answers = SimpleQueue()
        self._calls.put((function, arguments, answers))
        return answers


def answer(answers: Answers) -> Any:
    """Wait for the result of a call. An error of the function is raised here."""
    result, error = answers.get()
    if error is not None:
        raise error
    return result


def _work(calls: _Calls) -> None:
    while (call := calls.get()) is not None:
        function, arguments, answers = call
        result = error = None
        try:
            result = function(*arguments)
        except BaseException as caught:
            error = caught
        del call, function, arguments  # they would keep a batch alive until the next call
        answers.put((result, error))
        del answers, result, error
