"""Worker processes of this machine, and recovery when one of them dies.

Workers are forked from a server process that has loaded the decoders and nothing else. They are never forked from this
process, which may have threads. A worker ends when its parent ends, even if the parent is killed.

A worker may die because a decoder crashes or memory runs out. That breaks the whole `ProcessPoolExecutor`. The tasks in
flight are then repeated one at a time, each in a process of its own. A task that kills its process again is halved
until a single file remains. If this kills two processes by itself, it is left out. A malicious picture could take
minutes of processor time to decode; a time limit then ends its worker, with the same consequences.
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

_TASKS_PER_WORKER = 4  # enough that no worker waits for the parent
_LEFT_OUT_REASON = "its worker process died, or took too long, twice, while decoding it"
_OWN_DESCRIPTORS = 64  # open files of this process, without workers
_DESCRIPTORS_PER_WORKER = 8
_MAX_FOLDER_BYTES = 70  # the address of a socket has 104 bytes, and multiprocessing appends names to the folder
_SHORT_FOLDER = "/tmp"
_BASE_SECONDS = 60  # limit of processor time per picture; one second more per million pixels of `max_pixels`


class LocalPool:
    """A pool of worker processes on this machine. Workers that die are replaced.

    The server process starts at once, so that it loads while the parent loads and scans. The workers start with the
    first task.

    Args:
        workers: Number of processes.
        do: The function that does a task. The default decodes it within the time limit.
    """

    def __init__(self, workers: int, do: Callable[[Task], Filled] | None = None) -> None:
        self.in_flight = _TASKS_PER_WORKER * workers
        self.remote = False
        self._workers = workers
        self._do = do or _do_in_time
        self._processes: _Processes | None = None
        _allow_descriptors(_OWN_DESCRIPTORS + _DESCRIPTORS_PER_WORKER * workers)
        _start_server()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._processes is not None:
            self._processes.close()

    def submit(self, task: Task) -> Future[Filled]:
        """Hand a task to the workers."""
        if self._processes is None:
            with interrupts_held():  # an interrupt in between would leak semaphores
                self._processes = _Processes(self._workers, self._do)
        return self._processes.submit(task)

    def result(self, task: Task, future: Future[Filled]) -> Filled:
        """Return the result of a task."""
        return future.result()

    def recover(self, lost: list[Task]) -> Iterator[Filled]:
        """Repeat the tasks that were in flight when a worker died, one at a time. The next task starts new workers."""
        if self._processes is not None:
            self._processes.close()  # even if some had not started: they may have been killed at start
            self._processes = None
        for task in lost:
            yield from _do_alone(task, self._do)

    def give_up(self, pending: Iterable[Future[Filled]]) -> None:
        """Do nothing: closing the pool cancels the pending tasks and waits for the running ones.

        A `ProcessPoolExecutor` whose workers have died fails on futures that were cancelled by others.
        """


def _do_alone(task: Task, do: Callable[[Task], Filled], deaths: int = 0) -> Iterator[Filled]:
    """Do one task in a process of its own. If the process dies, halve the task; leave out a file that kills it twice.

    Args:
        task: What to do.
        do: The function that does a task.
        deaths: Number of processes that this task of one file has killed before.
    """
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
            yield from _do_alone(half, do)
    elif deaths == 0:
        yield from _do_alone(task, do, 1)
    else:
        yield _left_out(task)


def _halves(task: Task) -> list[Task]:
    """Split a task into two; return an empty list if it has only one file."""
    middle = len(task.paths) // 2
    if middle == 0:
        return []
    second = replace(task, first=task.first + middle, paths=task.paths[middle:])
    return [replace(task, paths=task.paths[:middle]), second]


def _left_out(task: Task) -> Filled:
    """Return the result of a task whose only file killed its worker twice."""
    from pack_images.plan import Filled

    return Filled(1, 0, 0, ((task.first, _LEFT_OUT_REASON),))


class _Processes:
    """Worker processes that share one `ProcessPoolExecutor`: if one dies, all end."""

    def __init__(self, workers: int, do: Callable[[Task], Filled]) -> None:
        if getattr(multiprocessing.current_process(), "_inheriting", False):
            raise SystemExit(1)  # a worker that imports an unguarded main script: the parent reports it
        self._do = do
        with _explain_shortage():
            self._executor = ProcessPoolExecutor(workers, _start_server(), _prepare_worker)
            # All processes start with the first task. Otherwise one that starts while another dies is not ended by the
            # executor, which then waits for it for ever: in Python 3.11, `terminate_broken` takes no lock.
            self._executor._safe_to_dynamically_spawn_children = False  # type: ignore[attr-defined]
            self._ready = self._submit(_do_nothing)

    def submit(self, task: Task) -> Future[Filled]:
        return self._submit(self._do, task)

    def _submit(self, do: Callable[..., Any], *given: object) -> Future[Any]:
        with interrupts_held():
            try:
                return self._executor.submit(do, *given)
            except (EOFError, OSError) as error:  # the server or a worker was killed, or means are short
                for process in self._executor._processes.values():  # which no executor ends that has not begun
                    process.terminate()
                if not isinstance(error, (EOFError, ConnectionError)) and error.errno != errno.EBADF:
                    raise
                broken: Future[Any] = Future()
                broken.set_exception(BrokenExecutor(str(error)))
                return broken

    def close(self) -> None:
        with interrupts_held():
            self._executor.shutdown(wait=True, cancel_futures=True)

    def check_started(self) -> None:
        """Raise if the workers could not start at all, as opposed to dying while they decoded a file."""
        wait_for([self._ready])
        if isinstance(self._ready.exception(), BrokenExecutor):
            raise UnfinishedError(
                "worker processes cannot start: they import the main script again, "
                'which must be a file and call pack() under `if __name__ == "__main__":`'
            )


def _allow_descriptors(wanted: int) -> None:
    """Raise the limit of open files to `wanted` if it is lower.

    Raises:
        UnfinishedError: The system does not allow it.
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
    """Start the server process that workers are forked from, and return its context.

    Calls after the first do nothing. The server ends with this process, so nothing has to stop it.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pack_images.fill", "pack_images.run.workers"])
    start_tracker()
    with interrupts_held(), _short_socket_folder():
        forkserver.ensure_running()
    return context


@contextlib.contextmanager
def _short_socket_folder() -> Iterator[None]:
    """Let multiprocessing create its folder in `/tmp` if TMPDIR is too long for the address of a socket."""
    before = tempfile.tempdir
    if len(os.fsencode(tempfile.gettempdir())) > _MAX_FOLDER_BYTES:
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
def _explain_shortage() -> Iterator[None]:
    """Name the resource that is too scarce for worker processes. A plain OSError would seem to be about the output."""
    try:
        yield
    except OSError as error:
        what = "room in shared memory (/dev/shm)" if error.errno == errno.ENOSPC else "the means to start"
        raise UnfinishedError(
            f"worker processes: expected {what}, found {error.strerror or error}; provide for it, and try again"
        ) from error


def start_tracker() -> None:
    """Start multiprocessing's resource tracker now, before code that defers interrupts would start it.

    Starting the tracker lets Ctrl-C through again, so it needs an `interrupts_held` block of its own.
    """
    with interrupts_held():
        resource_tracker.ensure_running()


def _prepare_worker() -> None:
    """Prepare a new worker: silence C libraries on stderr, leave Ctrl-C to the parent, and end when the parent ends."""
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


def _do_in_time(task: Task) -> Filled:
    return do_within(task, _BASE_SECONDS + task.how.max_pixels // 1_000_000)


def do_within(task: Task, seconds: float) -> Filled:
    """Do a task, and end this process if a single picture takes too much processor time.

    Args:
        task: What to do.
        seconds: Limit of processor time for each picture.
    """
    from pack_images.fill import fill  # here, because it loads the decoders, which only workers need

    # Nothing handles the timer's signal, so it kills the process. A handler in Python would not run while a decoder
    # loops in C.
    try:
        return fill(task, before_each=lambda: signal.setitimer(signal.ITIMER_PROF, seconds))
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _do_nothing() -> None:
    """Do nothing. If a worker can run this, it has started and imported this module."""
