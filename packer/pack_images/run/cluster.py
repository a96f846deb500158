"""A Dask cluster as an executor."""

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

_ADDRESS = re.compile(r"((tcp|tls|wss?)://)?[^/\s]+:\d{1,5}")  # others by `pack(executor=client.get_executor())`
_CONNECT_SECONDS = 10
_WORKERS_SECONDS = 60
_RESULT_SECONDS = 5


@contextlib.contextmanager
def connect(address: str) -> Iterator[Executor]:
    """An executor for `pack`, whose tasks a Dask cluster does; its workers are checked to have the same versions.

    Args:
        address: A scheduler's, such as `tcp://10.0.0.1:8786`, or `local:N` for a cluster of N processes of this
            machine, which lives as long as the executor.

    Raises:
        PackError: Dask is not installed, or there is no such cluster.
        UnfinishedError: It has no workers, or they have other versions.
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
        except Exception as error:  # it is gone again
            raise PackError(_no_scheduler(address, f"none that answers ({error})")) from error
        stack.callback(_close, client)
        _check_workers(client, address)
        yield ClusterExecutor(client)


class ClusterExecutor(Executor):
    """Tasks done by the cluster of a client.

    `Client.get_executor` is not enough: a future of its is never resolved when the worker that holds a result dies, and
    doing the task again kills others.
    """

    def __init__(self, client: Client) -> None:
        from distributed.comm import CommClosedError

        self._client = client
        self._closed = CommClosedError

    def submit(self, function: Callable[..., Any], /, *given: object, **named: object) -> Future[Any]:
        """Have something done; futures can be called off until they are done."""
        asked = self._client.submit(function, *given, pure=False, **named)
        outcome: Future[Any] = Future()
        outcome.add_done_callback(lambda outcome: asked.cancel() if outcome.cancelled() and not asked.done() else None)
        asked.add_done_callback(partial(self._pass_on, outcome))
        return outcome

    def _pass_on(self, outcome: Future[Any], asked: Any) -> None:
        """Resolve a future as Dask's was; not if it was called off meanwhile.

        That is looked at every few seconds, as a wait by a client that was closed meanwhile would never end.
        """
        with contextlib.suppress(InvalidStateError):
            while not outcome.done():
                is_over = asked.status == "error" or self._client.status == "closed"
                try:
                    result = asked.result(timeout=_RESULT_SECONDS)
                except self._closed as error:  # the scheduler is gone, which calls off what is not done, too
                    outcome.set_exception(CancelledError(str(error)))
                    return
                except BaseException as error:
                    if is_over or not isinstance(error, TimeoutError):  # or the task's own
                        outcome.set_exception(error)
                        return
                else:
                    outcome.set_result(result)
                    return


def quieten() -> None:
    """Keep Dask from writing to stderr what an error will say; for commands."""
    with contextlib.suppress(ImportError):
        import distributed  # noqa: F401 - which sets these levels itself when it is loaded
    for name in ("distributed", "distributed.client", "tornado.application"):  # the last speaks of what is called off
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


@contextlib.contextmanager
def _local_cluster(address: str) -> Iterator[Any]:
    from distributed import LocalCluster

    count = address.removeprefix("local:")
    if not (count.isascii() and count.isdigit() and int(count) > 0):
        raise PackError(f"--dask {address}: expected local:N with a number of processes, such as local:4")
    start_tracker()
    with contextlib.ExitStack() as stack:
        with interrupts_held():  # also in what is started here: this process ends it
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="pack-images-dask-"))
            try:
                cluster = LocalCluster(
                    n_workers=int(count),
                    threads_per_worker=2,  # one decodes while the other waits for the disk
                    dashboard_address="127.0.0.1:0",
                    local_directory=folder,
                    memory_limit=0,
                    config={"distributed.worker.profile.enabled": False},  # a tenth of the time
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
    """See to it that a scheduler answers; a client would wait for one without limit, and not give up at once."""
    from distributed import Security

    if not _ADDRESS.fullmatch(address):
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
        raise PackError(_no_scheduler(address, f"none that answers in {_CONNECT_SECONDS} seconds")) from error
    except Exception as error:  # of a kind that depends on the scheme, and on what answers
        raise PackError(_no_scheduler(address, f"none that answers ({error})")) from error
    if kind != "Scheduler":
        raise PackError(_no_scheduler(address, f"a {kind.lower()}"))


def _no_scheduler(address: str, found: str) -> str:
    return f"--dask {address}: expected a scheduler there, found {found}"


async def _identity(address: str, security: Security) -> dict[str, Any]:
    """What a part of a cluster says of itself."""
    from distributed.core import connect, send_recv

    async with asyncio.timeout(_CONNECT_SECONDS):
        comm = await connect(address, timeout=_CONNECT_SECONDS, **security.get_connection_args("client"))
        try:
            found: dict[str, Any] = await send_recv(comm, op="identity")
        finally:
            comm.abort()
    return found


def _check_workers(client: Client, address: str) -> None:
    """Have every worker that is there name its versions; those that come later are asked with each task."""
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
    """What must be the same on both sides: what decides bytes, and what tasks travel by."""
    import distributed

    python = ".".join(platform.python_version_tuple()[:2])
    return {**packed_by(), "python": python, "distributed": distributed.__version__}


def _close(client: Client) -> None:
    with contextlib.suppress(OSError, TimeoutError):  # of a scheduler that is gone
        client.close(timeout=2)
