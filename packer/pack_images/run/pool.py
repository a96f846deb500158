"""The interface of a pool of workers, and the loop that hands out tasks. It works with any kind of worker."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Future
from itertools import islice
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Protocol

from h5split.system.interrupts import interrupts_held

if TYPE_CHECKING:
    from pack_images.plan import Filled, Task


class Pool(Protocol):
    """A pool of workers, as `run` uses it."""

    in_flight: int  # most tasks to be pending at a time
    remote: bool  # workers may be on other machines

    def submit(self, task: Task) -> Future[Filled]:
        """Hand a task to the workers."""

    def result(self, task: Task, future: Future[Filled]) -> Filled:
        """Return the result of a task that is done."""

    def recover(self, lost: list[Task]) -> Iterator[Filled]:
        """Repeat the tasks that were in flight when workers died."""

    def give_up(self, pending: Iterable[Future[Filled]]) -> None:
        """Cancel or await pending tasks, so that no worker still writes when the run ends."""


def run(tasks: Iterable[Task], pool: Pool) -> Generator[Filled]:
    """Do all tasks, with a bounded number in flight. Yield each result as soon as it is ready, in any order.

    Raises:
        PackError: As `fill` does, or the workers cannot be replaced.
        OSError: The output cannot be written.
    """
    remaining = iter(tasks)
    pending: dict[Future[Filled], Task] = {}
    done: SimpleQueue[Future[Filled]] = SimpleQueue()
    try:
        while True:
            lost = []
            for task in islice(remaining, pool.in_flight - len(pending)):
                try:
                    future = pool.submit(task)
                    with interrupts_held():  # see wait_for
                        pending[future] = task
                        future.add_done_callback(done.put)
                except BrokenExecutor:
                    lost.append(task)
            if not pending and not lost:
                return
            if pending:
                future = done.get()
                task = pending.pop(future)
                try:
                    yield pool.result(task, future)
                except BrokenExecutor:
                    lost.append(task)
            if lost:
                lost.extend(pending.values())
                pending.clear()
                done = SimpleQueue()  # futures of the broken workers may still arrive in the old queue
                yield from pool.recover(sorted(lost, key=lambda task: task.first))
    finally:
        pool.give_up(pending)


def wait_for(futures: Iterable[Future[Any]]) -> None:
    """Wait until all futures are done, and stay open to Ctrl-C meanwhile.

    `concurrent.futures.wait` and `Future.result` lock a future. An interrupt at that moment can leave it locked, and
    then the thread that resolves it waits for ever.
    """
    awaited = list(futures)
    done: SimpleQueue[Future[Any]] = SimpleQueue()
    with interrupts_held():
        for future in awaited:
            future.add_done_callback(done.put)
    for _ in awaited:
        done.get()
