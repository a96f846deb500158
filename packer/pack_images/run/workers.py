"""Who does the tasks: worker processes of this machine, or any executor.

A worker process is forked from a server process that has loaded the decoders and nothing else (never from this one:
it may have threads), and ends when its parent does, however that ends. A worker that dies, of a decoder that crashes
or for want of memory, takes the whole `ProcessPoolExecutor` with it; so the tasks that were in flight are done again,
alone, in halves if that kills again, until the file that does it stands alone and is left out. A picture that takes
minutes of processor time, as one made to do so can, ends its worker too.
"""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import multiprocessing.context
import os
import resource
import signal
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import forkserver, resource_tracker
from typing import TYPE_CHECKING, Any, Self

from h5split.system.interrupts import interrupts_held
from pack_images.errors import UnfinishedError
from pack_images.run.pool import wait_for

if TYPE_CHECKING:
    from pack_images.plan import Filled, Task

_IN_FLIGHT = 4  # tasks for each worker: enough that none waits for the parent
_KILLED = "its worker process died, or took too long, twice, while decoding it"
_DESCRIPTORS = 64  # that this process may have open, by itself
_DESCRIPTORS_A_WORKER = 8
_LONGEST_FOLDER = 70  # bytes: of the 104 of a socket's address, less those of the names in it
_SHORT_FOLDER = "/tmp"
_SECONDS = 60  # of processor time that a picture may take, and one more for every million of pixels it may have


class LocalPool:
    """Worker processes of this machine, replaced when they die.

    The server they are forked from loads while the parent loads and scans; they start with the first task.

    Args:
        workers: How many.
        do: What they do with a task.
    """

    def __init__(self, workers: int, do: Callable[[Task], Filled] | None = None) -> None:
        self.in_flight = _IN_FLIGHT * workers
        self.remote = False
        self._workers = workers
        self._do = do or _do_in_time
        self._processes: _Processes | None = None
        _allow_descriptors(_DESCRIPTORS + _DESCRIPTORS_A_WORKER * workers)
        _start_server()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._processes is not None:
            self._processes.close()

    def submit(self, task: Task) -> Future[Filled]:
        """Have a task done."""
        if self._processes is None:
            with interrupts_held():  # or semaphores are left that nobody knows
                self._processes = _Processes(self._workers, self._do)
        return self._processes.submit(task)

    def result(self, task: Task, future: Future[Filled]) -> Filled:
        """What became of a task."""
        return future.result()

    def recover(self, lost: list[Task]) -> Iterator[Filled]:
        """Do the tasks that were in flight when a worker died, one at a time, then go on with new workers."""
        if self._processes is not None:
            self._processes.close()  # whether or not they had started: one may have been killed before
            self._processes = None
        for task in lost:
            yield from _alone(task, self._do)

    def give_up(self, pending: Iterable[Future[Filled]]) -> None:
        """Nothing: all is called off, and waited for, where the pool is closed.

        (A `ProcessPoolExecutor` whose workers have died stumbles over futures that somebody else called off.)
        """


def _alone(task: Task, do: Callable[[Task], Filled], deaths: int = 0) -> Iterator[Filled]:
    """Do one task in a process of its own; in halves if that dies, down to one file that is left out."""
    with interrupts_held():
        processes = _Processes(1, do)
    try:
        future = processes.submit(task)
        wait_for([future])
        yield future.result()
        return
    except BrokenExecutor:
        processes.check_started()
    finally:
        processes.close()
    if smaller := _halves(task):
        for half in smaller:
            yield from _alone(half, do)
    elif deaths == 0:
        yield from _alone(task, do, 1)
    else:
        yield _left_out(task)


def _halves(task: Task) -> list[Task]:
    """Two tasks in place of one; none if it is of one file."""
    middle = len(task.paths) // 2
    if middle == 0:
        return []
    second = replace(task, first=task.first + middle, paths=task.paths[middle:])
    return [replace(task, paths=task.paths[:middle]), second]


def _left_out(task: Task) -> Filled:
    """The outcome of a task of one file that kills whoever does it."""
    from pack_images.plan import Filled

    return Filled(1, 0, 0, ((task.first, _KILLED),))


class _Processes:
    """Worker processes that live and die together."""

    def __init__(self, workers: int, do: Callable[[Task], Filled]) -> None:
        if getattr(multiprocessing.current_process(), "_inheriting", False):
            raise SystemExit(1)  # a worker that imports a main script without a guard; the parent says so
        self._do = do
        with _shared_memory_named():
            self._executor = ProcessPoolExecutor(workers, _start_server(), _prepare)
        self._ready = self._submit(_do_nothing)

    def submit(self, task: Task) -> Future[Filled]:
        return self._submit(self._do, task)

    def _submit(self, do: Callable[..., Any], *given: object) -> Future[Any]:
        with interrupts_held():
            try:
                return self._executor.submit(do, *given)
            except (EOFError, OSError) as error:  # the server of workers was killed, or it closes as a worker was
                if not isinstance(error, (EOFError, ConnectionError)) and error.errno != errno.EBADF:
                    raise
                broken: Future[Any] = Future()
                broken.set_exception(BrokenExecutor(str(error)))
                return broken

    def close(self) -> None:
        with interrupts_held():
            self._executor.shutdown(wait=True, cancel_futures=True)

    def check_started(self) -> None:
        """Tell workers that cannot start from workers that died of a file."""
        wait_for([self._ready])
        if isinstance(self._ready.exception(), BrokenExecutor):
            raise UnfinishedError(
                "worker processes cannot start: they import the main script again, "
                'which must be a file and call pack() under `if __name__ == "__main__":`'
            )


def _allow_descriptors(wanted: int) -> None:
    """Raise the limit of open files, where it is lower and may be raised.

    Raises:
        UnfinishedError: It may not.
    """
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed == resource.RLIM_INFINITY or allowed >= wanted:
        return
    if most != resource.RLIM_INFINITY and most < wanted:
        raise UnfinishedError(
            f"worker processes: expected a limit of {wanted} open files or more, found {most}; ask for more by "
            f"ulimit -n {wanted}, or give fewer --workers"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def _start_server() -> multiprocessing.context.BaseContext:
    """The server that workers are forked from, loading; it is one for the whole process and needs no stopping."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pack_images.fill", "pack_images.run.workers"])
    start_tracker()
    with interrupts_held(), _short_folder():
        forkserver.ensure_running()
    return context


@contextlib.contextmanager
def _short_folder() -> Iterator[None]:
    """Have multiprocessing make its folder in `/tmp` where TMPDIR is too long for the addresses of its sockets."""
    before = tempfile.tempdir
    if len(os.fsencode(tempfile.gettempdir())) > _LONGEST_FOLDER:
        tempfile.tempdir = _SHORT_FOLDER
    try:
        yield
    except OSError as error:
        raise UnfinishedError(
            f"worker processes cannot start: expected a short TMPDIR that can be written to, found "
            f"{tempfile.gettempdir()} ({error.strerror or error}); export TMPDIR={_SHORT_FOLDER}"
        ) from error
    finally:
        tempfile.tempdir = before


@contextlib.contextmanager
def _shared_memory_named() -> Iterator[None]:
    """Say of what there is too little for worker processes; by itself the error would be taken for the output's."""
    try:
        yield
    except OSError as error:
        what = "room in shared memory (/dev/shm)" if error.errno == errno.ENOSPC else "the means to start"
        raise UnfinishedError(
            f"worker processes: expected {what}, found {error.strerror or error}; provide for it, and try again"
        ) from error


def start_tracker() -> None:
    """Start multiprocessing's tracker of what processes share, before others that hold interrupts would start it.

    Held by itself, as starting it lets Ctrl-C through again.
    """
    with interrupts_held():
        resource_tracker.ensure_running()


def _prepare() -> None:
    """In a new worker: keep C libraries quiet, leave Ctrl-C to the parent, and end when it does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    os.close(null)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _do(task: Task) -> Filled:
    from pack_images.fill import fill  # loads decoders, which only workers need

    return fill(task)


def _do_in_time(task: Task) -> Filled:
    return do_within(task, _SECONDS + task.how.max_pixels // 1_000_000)


def do_within(task: Task, seconds: float) -> Filled:
    """Do a task in a process that ends when one picture takes more processor time than that."""
    from pack_images.fill import fill

    try:  # by the signal of a timer that nobody handles: a decoder that is lost in a loop lets no Python run
        return fill(task, before_each=lambda: signal.setitimer(signal.ITIMER_PROF, seconds))
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _do_nothing() -> None:
    """Do nothing, in a process that has imported this module to do it."""
