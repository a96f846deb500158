"""Tasks done by an executor that somebody else made: threads, MPI, a Dask cluster; maybe on other machines.

Its workers share a file system with this process, or claim to. So every worker says first that its versions are those
of this process, and flushes what it wrote before it reports it done; what it leaves out, or dies of, is tried again by
a process of this machine, whose word counts: a worker may have less memory, stale files, or a thread's limits. In the
end the pixels are read back and compared with their checksums (`Partial.damaged`).
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
from pack_images.versions import packed_by

_IN_FLIGHT = 256  # tasks: four for each of 64 workers; they hold paths, not pixels


class ExecutorPool:
    """An executor that somebody else looks after.

    Args:
        executor: Any; what it runs must see the same files at the same paths.
    """

    in_flight = _IN_FLIGHT
    remote = True

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._folder = os.getcwd()
        self._versions = packed_by()
        self._here: LocalPool | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._here is not None:
            self._here.__exit__(*error)

    def submit(self, task: Task) -> Future[Filled]:
        """Have a task done."""
        try:
            return self._executor.submit(fill_elsewhere, task.absolute(self._folder), self._versions)
        except BrokenExecutor:
            raise
        except RuntimeError as error:  # shut down
            raise UnfinishedError(f"the executor takes no more tasks ({error}); what is done is kept") from error

    def result(self, task: Task, future: Future[Filled]) -> Filled:
        """What became of a task.

        Raises:
            UnfinishedError: The executor was lost, or a worker cannot read what this process can.
            BrokenExecutor: `recover` is to be asked.
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
            if isinstance(error, _deadly()):
                return self._again(task)
            if isinstance(error, OSError) and error.errno is not None:  # of the output, or of a whole machine
                raise
            raise UnfinishedError(_unexpected(task, f"{type(error).__name__} {error}".strip())) from error
        if not isinstance(filled, Filled):
            raise UnfinishedError(_unexpected(task, f"a result of {type(filled).__name__}"))
        if not filled.failures:
            return filled
        for row, reason in filled.failures:
            _check_unreadable(task, task.paths[row - task.first], reason)
        return replace(filled, failures=self._again(task).failures)

    def _again(self, task: Task) -> Filled:
        """What becomes of a task in a process of this machine, which keeps the rows that are done."""
        if self._here is None:
            self._here = LocalPool(1)
        parts = list(run([task], self._here))
        return Filled(
            sum(part.rows for part in parts),
            sum(part.kept for part in parts),
            sum(part.copied for part in parts),
            tuple(failure for part in parts for failure in part.failures),
        )

    def recover(self, lost: list[Task]) -> Iterator[Filled]:
        """An executor that is broken cannot be mended from here."""
        raise UnfinishedError(
            f"the executor broke with {len(lost)} tasks in flight; what is done is kept: "
            "the same call with a new executor continues"
        )

    def give_up(self, pending: Iterable[Future[Filled]]) -> None:
        """Call off what has not begun, and wait for what has."""
        with interrupts_held():  # see wait_for
            begun = [future for future in pending if not future.cancel()]
        wait_for(begun)


def _deadly() -> tuple[type[Exception], ...]:
    """What the future of a task raises that killed every worker which tried it: Dask's own, if Dask is there."""
    distributed = sys.modules.get("distributed")
    return (distributed.KilledWorker,) if distributed is not None else ()


def _unexpected(task: Task, found: str) -> str:
    return (
        f"{task.paths[0]} and the {len(task.paths) - 1} after it: expected the executor to do them, found {found}; "
        "what is done is kept: the same call continues"
    )


def fill_elsewhere(task: Task, versions: Mapping[str, str]) -> Filled:
    """Do a task in a worker that may be on another machine, and flush it.

    Args:
        task: With absolute paths.
        versions: Of the process that planned it.

    Raises:
        UnfinishedError: This worker would make other bytes, or does not see the file in the making.
    """
    from pack_images.fill import fill  # loads decoders, which only workers need

    check_versions(versions, packed_by(), f"the worker on {platform.node()}")
    try:
        return fill(task, flush=True)
    except FileNotFoundError as error:
        raise UnfinishedError(
            f"expected a worker on {platform.node()} that shares the file system of the output, found no "
            f"{error.filename} there"
        ) from None


def check_versions(wanted: Mapping[str, str], found: Mapping[str, str], where: str) -> None:
    """See to it that all make the same bytes.

    Raises:
        UnfinishedError: Some versions differ; both are named.
    """
    differing = [name for name in sorted({*wanted, *found}) if wanted.get(name) != found.get(name)]
    if differing:
        here = ", ".join(f"{name} {wanted.get(name, 'not installed')}" for name in differing)
        there = ", ".join(f"{name} {found.get(name, 'not installed')}" for name in differing)
        raise UnfinishedError(f"{where}: expected {here} as on this machine, found {there}; install the same versions")


def _check_unreadable(task: Task, path: str | PackedRow, reason: str) -> None:
    if isinstance(path, PackedRow) or not reason.startswith("cannot be read"):
        return
    from pack_images.fill import read

    try:
        read(path, task.how)
    except DecodeError:
        return  # nor can it be read here
    raise UnfinishedError(
        f"{path}: a worker says it {reason}, and this machine can read it; "
        "expected workers that see the same files at the same paths"
    )
