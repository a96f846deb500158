"""Choose the pool of workers for a run."""

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
    """Open a pool on the given executor, or else with worker processes of this machine.

    Args:
        workers: Number of processes; one per core if None. Ignored if there is an executor.
        executor: The caller's executor.

    Raises:
        PackError: `workers` is less than 1.
    """
    if executor is not None:
        from pack_images.run.executors import ExecutorPool

        with ExecutorPool(_wrap_dask(executor)) as elsewhere:
            yield elsewhere
        return
    count = cores() if workers is None else workers
    if count < 1:
        raise PackError(f"workers: expected 1 or more, found {count}")
    with LocalPool(count) as pool:
        yield pool


def _wrap_dask(executor: Executor) -> Executor:
    """Replace Dask's own executor by ours; return any other unchanged.

    Futures of Dask's executor may stay unresolved for ever when workers die.
    """
    if sys.modules.get("distributed") is not None:
        from distributed.cfexecutor import ClientExecutor

        if isinstance(executor, ClientExecutor):
            from pack_images.run.cluster import ClusterExecutor

            return ClusterExecutor(executor._client)
    return executor
