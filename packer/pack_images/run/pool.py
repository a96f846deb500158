"""Having tasks done: what a pool of workers must do, and how its tasks are handed out. It knows no kind of worker."""

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
    """What `run` needs."""

    in_flight: int
    remote: bool  # workers may be on other machines

    def submit(self, task: Task) -> Future[Filled]:
        """Have a task done."""

    def result(self, task: Task, future: Future[Filled]) -> Filled:
        """What became of a task that is done."""

    def recover(self, lost: list[Task]) -> Iterator[Filled]:
        """Do the tasks that were in flight when workers died."""

    def give_up(self, pending: Iterable[Future[Filled]]) -> None:
        """See to it that what still writes does not meet whatever comes next."""


def run(tasks: Iterable[Task], pool: Pool) -> Generator[Filled]:
    """Have all tasks done, a bounded number at a time; results come as they are ready.

    Raises:
        PackError: As `fill` does, or the workers are gone for good.
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
                done = SimpleQueue()
                yield from pool.recover(sorted(lost, key=lambda task: task.first))
    finally:
        pool.give_up(pending)


def wait_for(futures: Iterable[Future[Any]]) -> None:
    """Wait until all are done.

    `concurrent.futures.wait` and `Future.result` lock a future; Ctrl-C meanwhile can leave it so, and whoever resolves
    it waiting for ever.
    """
    awaited = list(futures)
    done: SimpleQueue[Future[Any]] = SimpleQueue()
    with interrupts_held():
        for future in awaited:
            future.add_done_callback(done.put)
    for _ in awaited:
        done.get()
