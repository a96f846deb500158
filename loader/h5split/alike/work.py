"""Work in several threads, whose progress is counted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

Progress = Callable[[int, int], object]

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass
class Work:
    """Threads, and a counter of steps.

    Attributes:
        executor: The threads.
        total: The number of steps.
        progress: Called with (steps done, steps in total).
        done: The number of steps done.
    """

    executor: ThreadPoolExecutor
    total: int
    progress: Progress | None
    done: int = 0

    def map(self, function: Callable[[_Item], _Result], items: Iterable[_Item], *, steps: int = 0) -> Iterator[_Result]:
        """Call a function for each item, in several threads. Results come in the order of the items.

        Args:
            function: numpy lets other threads run while it computes.
            items: The items.
            steps: The steps that each item counts for.
        """
        for result in self.executor.map(function, items):
            if steps:
                self.advance(steps)
            yield result

    def advance(self, steps: int) -> None:
        """Count steps that are done."""
        self.done = min(self.done + steps, self.total)
        if self.progress is not None:
            self.progress(self.done, self.total)
