"""Use a Dask cluster as an executor."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import platform
import re
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Executor, Future, InvalidStateError
from functools import partial
from typing import TYPE_CHECKING, Any

from h5split.system.interrupts import interrupts_held
from pack_images.errors import PackError, UnfinishedError
from pack_images.run.executors import check_versions
from pack_images.run.workers import start_tracker
from pack_images.versions import packed_by

if TYPE_CHECKING:
    from distributed import Client, Security

# For other kinds of address, users can call `pack(executor=client.get_executor())`.
_SCHEDULER_ADDRESS = re.compile(r"((tcp|tls|wss?)://)?[^/\s]+:\d{1,5}")
_CONNECT_SECONDS = 10
_WORKERS_SECONDS = 60
_RESULT_SECONDS = 5  # how often a waiting thread looks whether the client was closed


@contextlib.contextmanager
def connect(address: str) -> Iterator[Executor]:
    """Connect to a Dask cluster, check the versions of its workers, and yield an executor for `pack`.

    Args:
        address: Address of a scheduler, such as `tcp://10.0.0.1:8786`; or `local:N` to start a cluster of N processes
            on this machine, which ends with the block.

    Raises:
        PackError: Dask is not installed, or there is no such cluster.
        UnfinishedError: The cluster has no workers, or their versions differ.
    """
    try:
        import distributed
    except ImportError as error:
        raise PackError(
            f"--dask: expected Dask to be installed, found that it is not ({error}); "
            'python -m pip install "pack-images[dask]"'
        ) from error
    with contextlib.ExitStack() as stack:
        if address.startswith("local:"):
            scheduler = stack.enter_context(_local_cluster(address))
        else:
            _check_scheduler(address)
            scheduler = address
        try:
            client = distributed.Client(scheduler, timeout=_CONNECT_SECONDS, set_as_default=False)
        except Exception as error:  # the scheduler answered a moment ago, and is gone
            raise PackError(_no_scheduler_message(address, f"none that answers ({error})")) from error
        stack.callback(_close, client)
        _check_workers(client, address)
        yield ClusterExecutor(client)


class ClusterExecutor(Executor):
    """An executor that runs tasks on the cluster of a Dask client.

    `Client.get_executor` is not enough. If the worker that holds a result dies, Dask repeats the task; if that kills
    more workers, the future is never resolved.
    """

    def __init__(self, client: Client) -> None:
        from distributed.comm import CommClosedError

        self._client = client
        self._connection_lost = CommClosedError

    def submit(self, function: Callable[..., Any], /, *given: object, **named: object) -> Future[Any]:
        """Run a function on the cluster. The future can be cancelled until it is done."""
        asked = self._client.submit(function, *given, pure=False, **named)
        outcome: Future[Any] = Future()
        outcome.add_done_callback(lambda outcome: asked.cancel() if outcome.cancelled() and not asked.done() else None)
        asked.add_done_callback(partial(self._copy_result, outcome))
        return outcome

    def _copy_result(self, outcome: Future[Any], asked: Any) -> None:
        """Copy the result or error of Dask's future to ours, unless ours was cancelled meanwhile.

        The wait has a time limit and is repeated, because waiting on a client that is closed meanwhile never ends.
        """
        with contextlib.suppress(InvalidStateError):
            while not outcome.done():
                is_over = asked.status == "error" or self._client.status == "closed"
                try:
                    result = asked.result(timeout=_RESULT_SECONDS)
                except self._connection_lost as error:  # the scheduler is gone, and unfinished tasks with it
                    outcome.set_exception(CancelledError(str(error)))
                    return
                except BaseException as error:
                    if is_over or not isinstance(error, TimeoutError):  # is_over: the TimeoutError is the task's own
                        outcome.set_exception(error)
                        return
                else:
                    outcome.set_result(result)
                    return


def quieten() -> None:
    """Silence Dask's log on stderr, for commands: an error message will say the same."""
    with contextlib.suppress(ImportError):
        import distributed  # noqa: F401 - loaded first, because it sets these levels itself
    for name in ("distributed", "distributed.client", "tornado.application"):  # the last one logs cancelled tasks
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


@contextlib.contextmanager
def _local_cluster(address: str) -> Iterator[Any]:
    from distributed import LocalCluster

    count = address.removeprefix("local:")
    if not (count.isascii() and count.isdigit() and int(count) > 0):
        raise PackError(f"--dask {address}: expected local:N with a number of processes, such as local:4")
    start_tracker()
    with contextlib.ExitStack() as stack:
        with interrupts_held():  # processes started here never receive Ctrl-C: this process ends them
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="pack-images-dask-"))
            try:
                cluster = LocalCluster(
                    n_workers=int(count),
                    threads_per_worker=2,  # one decodes while the other waits for the disk
                    dashboard_address="127.0.0.1:0",
                    local_directory=folder,
                    memory_limit=0,
                    config={"distributed.worker.profile.enabled": False},  # the profiler takes a tenth of the time
                    silence_logs=logging.CRITICAL + 1,
                )
            except RuntimeError as error:
                raise PackError(f"--dask {address}: expected its processes to start, found that {error}") from error
            stack.enter_context(cluster)
        try:
            yield cluster
        finally:
            with interrupts_held():
                stack.close()


def _check_scheduler(address: str) -> None:
    """Check that a scheduler answers. A Dask client would wait without limit, and not fail at once."""
    from distributed import Security

    if not _SCHEDULER_ADDRESS.fullmatch(address):
        raise PackError(f"--dask {address}: expected a scheduler's address, such as tcp://10.0.0.1:8786, or local:N")
    security = Security()
    if address.startswith(("tls:", "wss:")) and security.get_tls_config_for_role("client").get("ssl_context") is None:
        raise PackError(
            f"--dask {address}: expected certificates in Dask's configuration, found none; "
            "see distributed.comm.tls in its documentation"
        )
    try:
        kind = asyncio.run(_identity(address, security))["type"]
    except TimeoutError as error:
        raise PackError(_no_scheduler_message(address, f"none that answers in {_CONNECT_SECONDS} seconds")) from error
    except Exception as error:  # its type depends on the scheme of the address, and on the program that answers
        raise PackError(_no_scheduler_message(address, f"none that answers ({error})")) from error
    if kind != "Scheduler":
        raise PackError(_no_scheduler_message(address, f"a {kind.lower()}"))


def _no_scheduler_message(address: str, found: str) -> str:
    return f"--dask {address}: expected a scheduler there, found {found}"


async def _identity(address: str, security: Security) -> dict[str, Any]:
    """Ask the server at an address for its identity, which says whether it is a scheduler."""
    from distributed.core import connect, send_recv

    async with asyncio.timeout(_CONNECT_SECONDS):
        comm = await connect(address, timeout=_CONNECT_SECONDS, **security.get_connection_args("client"))
        try:
            found: dict[str, Any] = await send_recv(comm, op="identity")
        finally:
            comm.abort()
    return found


def _check_workers(client: Client, address: str) -> None:
    """Compare the versions of all present workers. Workers that join later are checked with each task."""
    try:
        client.wait_for_workers(1, timeout=_WORKERS_SECONDS)
    except TimeoutError as error:
        raise UnfinishedError(
            f"--dask {address}: expected workers, found none in {_WORKERS_SECONDS} seconds; "
            f"start some: dask worker {address}"
        ) from error
    for worker, found in client.run(_versions, on_error="return").items():
        if isinstance(found, BaseException):
            raise UnfinishedError(
                f"--dask {address}: the worker {worker}: expected pack-images {packed_by()['pack-images']} as on this "
                f"machine, found that it cannot be loaded there ({found}); install the same version"
            )
        check_versions(_versions(), found, f"--dask {address}: the worker {worker}")


def _versions() -> dict[str, str]:
    """Return the versions that must be the same on both sides.

    Decoders decide the bytes of a row; Python and distributed decide how a task is pickled and sent.
    """
    import distributed

    python = ".".join(platform.python_version_tuple()[:2])
    return {**packed_by(), "python": python, "distributed": distributed.__version__}


def _close(client: Client) -> None:
    with contextlib.suppress(OSError, TimeoutError):  # the scheduler may be gone
        client.close(timeout=2)
