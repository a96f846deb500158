"""Who does the work of a run."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from concurrent.futures import Executor

from h5split.system.machine import cores
from pack_images.errors import PackError
from pack_images.run.pool import Pool
from pack_images.run.workers import LocalPool


@contextlib.contextmanager
def open_pool(workers: int | None, executor: Executor | None) -> Iterator[Pool]:
    """Whoever does the work: the executor given, or as many worker processes of this machine.

    Raises:
        PackError: `workers` is less than 1.
    """
    if executor is not None:
        from pack_images.run.executors import ExecutorPool

        with ExecutorPool(_trusted(executor)) as elsewhere:
            yield elsewhere
        return
    count = cores() if workers is None else workers
    if count < 1:
        raise PackError(f"workers: expected 1 or more, found {count}")
    with LocalPool(count) as pool:
        yield pool


def _trusted(executor: Executor) -> Executor:
    """The same, unless it is Dask's: its futures may stay unresolved for ever when workers die."""
    if sys.modules.get("distributed") is not None:
        from distributed.cfexecutor import ClientExecutor

        if isinstance(executor, ClientExecutor):
            from pack_images.run.cluster import ClusterExecutor

            return ClusterExecutor(executor._client)
    return executor
