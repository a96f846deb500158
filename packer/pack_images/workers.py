"""Who does the tasks: worker processes of this machine, or any executor.

A worker process is started afresh (not forked: the parent may have threads), and ends when its parent does, however
that ends. A worker that dies, of a decoder that crashes or for want of memory, takes the whole
`ProcessPoolExecutor` with it; so the tasks that were in flight are done again, alone, in halves if that kills again,
until the file that does it stands alone and is left out.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, ProcessPoolExecutor, wait
from dataclasses import replace
from itertools import islice
from typing import Protocol, Self

from pack_images.errors import PackError
from pack_images.fill import Filled, Task, fill

_IN_FLIGHT = 4  # tasks for each worker: enough that none waits for the parent
_KILLED = "its worker process died, twice, while decoding it"


class Pool(Protocol):
    """What `run` needs."""

    in_flight: int

    def submit(self, task: Task) -> Future[Filled]:
        """Have a task done."""

    def recover(self, lost: list[Task]) -> Iterator[Filled]:
        """Do the tasks that were in flight when workers died."""


def run(tasks: Iterable[Task], pool: Pool) -> Iterator[Filled]:
    """Have all tasks done, a bounded number at a time; results come as they are ready.

    Raises:
        PackError: As `fill` does, or the workers are gone for good.
        OSError: The output cannot be written.
    """
    remaining = iter(tasks)
    pending: dict[Future[Filled], Task] = {}
    try:
        while True:
            lost = []
            for task in islice(remaining, pool.in_flight - len(pending)):
                try:
                    pending[pool.submit(task)] = task
                except BrokenExecutor:
                    lost.append(task)
            if not pending and not lost:
                return
            for future in wait(pending, return_when=FIRST_COMPLETED).done:
                task = pending.pop(future)
                try:
                    yield future.result()
                except BrokenExecutor:
                    lost.append(task)
            if lost:
                lost.extend(pending.values())
                pending.clear()
                yield from pool.recover(sorted(lost, key=lambda task: task.first))
    finally:
        for future in pending:
            future.cancel()


class ForeignPool:
    """An executor somebody else made and looks after."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self.in_flight = _IN_FLIGHT * max(os.cpu_count() or 1, getattr(executor, "_max_workers", 1))

    def submit(self, task: Task) -> Future[Filled]:
        """Have a task done."""
        return self._executor.submit(fill, task)

    def recover(self, lost: list[Task]) -> Iterator[Filled]:
        """An executor that is broken cannot be mended from here."""
        raise PackError(
            f"the executor broke with {len(lost)} tasks in flight; what is done is kept: "
            "the same call with a new executor continues"
        )


class LocalPool:
    """Worker processes of this machine, replaced when they die.

    They start at once, so that they get ready while the parent scans.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self.in_flight = _IN_FLIGHT * workers
        self._executor, self._ready = _started(workers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)

    def submit(self, task: Task) -> Future[Filled]:
        """Have a task done."""
        return self._executor.submit(fill, task)

    def recover(self, lost: list[Task]) -> Iterator[Filled]:
        """Do the tasks that were in flight when a worker died, one at a time, then go on with new workers."""
        self._executor.shutdown(wait=True, cancel_futures=True)
        _check_started(self._ready)
        for task in lost:
            yield from _alone(task)
        self._executor, self._ready = _started(self._workers)


def _alone(task: Task, deaths: int = 0) -> Iterator[Filled]:
    """Do one task in a process of its own; in halves if that dies, down to one file that is left out."""
    executor, ready = _started(1)
    with executor:
        _check_started(ready)
        try:
            yield executor.submit(fill, task).result()
            return
        except BrokenExecutor:
            pass
    if len(task.paths) > 1:
        middle = len(task.paths) // 2
        yield from _alone(replace(task, paths=task.paths[:middle]))
        yield from _alone(replace(task, first=task.first + middle, paths=task.paths[middle:]))
    elif deaths == 0:
        yield from _alone(task, 1)
    else:
        yield Filled(1, 0, ((task.first, _KILLED),))


def _started(workers: int) -> tuple[ProcessPoolExecutor, Future[None]]:
    """New worker processes, and a future that is done when the first of them is ready."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise SystemExit(1)  # a worker that imports a main script without a guard; the parent says so
    executor = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _prepare)
    with _interrupts_held():
        return executor, executor.submit(_do_nothing)


def _check_started(ready: Future[None]) -> None:
    """Tell workers that cannot start from workers that died of a file."""
    if isinstance(ready.exception(), BrokenExecutor):
        raise PackError(
            "worker processes cannot start: they import the main script again, which must call pack() under "
            '`if __name__ == "__main__":`'
        )


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Processes started here never see Ctrl-C; the parent does, when it is through."""
    held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)


def _prepare() -> None:
    """In a new worker: keep C libraries quiet, and end when the parent does."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    os.close(null)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _do_nothing() -> None:
    """Do nothing, in a process that has imported this module to do it."""
