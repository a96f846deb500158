"""Run tasks on an executor that the caller made: threads, MPI or a Dask cluster, perhaps on other machines.

The workers must share a file system with this process, but they cannot be trusted to. So:

- Every worker first checks that its versions are those of this process.
- A worker flushes its rows before it reports them as done.
- Files that a worker leaves out, or that kill it, are tried again in a process of this machine, and that result counts.
  A worker may have less memory, stale files, or the limits of a thread (`guards.limits`).
- In the end, all pixels are read back and compared with their checksums (`Partial.damaged`).
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from dataclasses import replace
from typing import Self

from h5split.system.interrupts import interrupts_held
from pack_images.errors import DecodeError, PackError, UnfinishedError
from pack_images.find.sources import PackedRow
from pack_images.plan import Filled, Task
from pack_images.run.pool import run, wait_for
from pack_images.run.workers import LocalPool
from pack_images.versions import packed_by, used

_IN_FLIGHT = 256  # tasks: four for each of 64 workers; they hold paths, not pixels


class ExecutorPool:
    """A pool around an executor that the caller made, and that the caller shuts down.

    Args:
        executor: Any executor whose workers see the same files at the same paths.
    """

    in_flight = _IN_FLIGHT
    remote = True

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._folder = os.getcwd()
        self._local_pool: LocalPool | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._local_pool is not None:
            self._local_pool.__exit__(*error)

    def submit(self, task: Task) -> Future[Filled]:
        """Hand a task to the executor."""
        try:
            versions = _versions_for(task)
            return self._executor.submit(fill_elsewhere, task.absolute(self._folder), versions)
        except BrokenExecutor:
            raise
        except RuntimeError as error:  # shut down
            raise UnfinishedError(f"the executor takes no more tasks ({error}); what is done is kept") from error

    def result(self, task: Task, future: Future[Filled]) -> Filled:
        """Return the result of a task.

        Raises:
            UnfinishedError: The executor was lost, or a worker cannot read a file that this process can read.
            BrokenExecutor: The executor broke; the caller must call `recover`.
        """
        try:
            with interrupts_held():  # see wait_for
                filled = future.result()
        except CancelledError as error:
            raise UnfinishedError(
                "the executor, or the scheduler behind it, gave up tasks that it had; what is done is kept: "
                "the same call continues"
            ) from error
        except (BrokenExecutor, PackError):
            raise
        except Exception as error:
            if isinstance(error, _worker_killed_errors()):
                return self._repeat_here(task)
            if (
                isinstance(error, OSError) and error.errno is not None
            ):  # the output or the machine is at fault, not a picture
                raise
            raise UnfinishedError(_unexpected_result(task, f"{type(error).__name__} {error}".strip())) from error
        if not isinstance(filled, Filled):
            raise UnfinishedError(_unexpected_result(task, f"a result of {type(filled).__name__}"))
        if not filled.failures:
            return filled
        for row, reason in filled.failures:
            _check_same_files(task, task.paths[row - task.first], reason)
        return replace(filled, failures=self._repeat_here(task).failures)

    def _repeat_here(self, task: Task) -> Filled:
        """Do a task again in a process of this machine. Rows that are done already are kept."""
        if self._local_pool is None:
            self._local_pool = LocalPool(1)
        parts = list(run([task], self._local_pool))
        return Filled(
            sum(part.rows for part in parts),
            sum(part.kept for part in parts),
            sum(part.copied for part in parts),
            tuple(failure for part in parts for failure in part.failures),
        )

    def recover(self, lost: list[Task]) -> Iterator[Filled]:
        """Raise UnfinishedError: only the caller can replace a broken executor."""
        raise UnfinishedError(
            f"the executor broke with {len(lost)} tasks in flight; what is done is kept: "
            "the same call with a new executor continues"
        )

    def give_up(self, pending: Iterable[Future[Filled]]) -> None:
        """Cancel the tasks that have not begun, and wait for the others."""
        with interrupts_held():  # see wait_for
            begun = [future for future in pending if not future.cancel()]
        wait_for(begun)


def _worker_killed_errors() -> tuple[type[Exception], ...]:
    """Return the errors that mean a task killed every worker that tried it: Dask's, if Dask is loaded."""
    distributed = sys.modules.get("distributed")
    return (distributed.KilledWorker,) if distributed is not None else ()


def _unexpected_result(task: Task, found: str) -> str:
    return (
        f"{task.paths[0]} and the {len(task.paths) - 1} after it: expected the executor to do them, found {found}; "
        "what is done is kept: the same call continues"
    )


def fill_elsewhere(task: Task, versions: Mapping[str, str]) -> Filled:
    """Do a task in a worker that may be on another machine, and flush the rows to disk.

    Args:
        task: The task, with absolute paths.
        versions: Versions in the process that made the plan.

    Raises:
        UnfinishedError: The versions of this worker differ, or it does not see the partial file.
    """
    from pack_images.fill import fill  # here, because it loads the decoders, which only workers need

    check_versions(versions, _versions_for(task), f"the worker on {platform.node()}")
    try:
        return fill(task, flush=True)
    except FileNotFoundError as error:
        raise UnfinishedError(
            f"expected a worker on {platform.node()} that shares the file system of the output, found no "
            f"{error.filename} there"
        ) from None


def _versions_for(task: Task) -> dict[str, str]:
    """Return the versions of the decoders that the files of a task need. Rows of packs need none."""
    return packed_by(used(task.how, (path for path in task.paths if isinstance(path, str))))


def check_versions(wanted: Mapping[str, str], found: Mapping[str, str], where: str) -> None:
    """Check that a worker has the same versions as this process, so that both decode to the same bytes.

    Raises:
        UnfinishedError: Some versions differ. The message names both.
    """
    differing = [name for name in sorted({*wanted, *found}) if wanted.get(name) != found.get(name)]
    if differing:
        here = ", ".join(f"{name} {wanted.get(name, 'not installed')}" for name in differing)
        there = ", ".join(f"{name} {found.get(name, 'not installed')}" for name in differing)
        raise UnfinishedError(f"{where}: expected {here} as on this machine, found {there}; install the same versions")


def _check_same_files(task: Task, path: str | PackedRow, reason: str) -> None:
    """Raise if a worker could not read a file that this process can read: they see different file systems."""
    if isinstance(path, PackedRow) or not reason.startswith("cannot be read"):
        return
    from pack_images.reading import read

    try:
        read(path, task.how)
    except DecodeError:
        return  # it cannot be read here either
    raise UnfinishedError(
        f"{path}: a worker says it {reason}, and this machine can read it; "
        "expected workers that see the same files at the same paths"
    )
