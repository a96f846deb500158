"""A web server with ranges, on this machine, that fails when it is told to, and notes what it sent."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

_RANGE = re.compile(r"bytes=(\d+)-(\d+)")


@dataclass(frozen=True)
class Sent:
    """One request: what was asked for, and what was answered.

    Attributes:
        path: Of the object.
        start: The first byte.
        stop: The byte behind the last one.
        fault: What went wrong with it; None if nothing did.
    """

    path: str
    start: int
    stop: int
    fault: str | None


Fault = Callable[[Sent], str | None]


class RangeServer:
    """A server of objects.

    A fault is a status such as `503`, or one of these: `cut` closes the connection in the middle of the answer, `short`
    sends less than it was asked for and says so, `shift` sends another range and says so, `corrupt` changes a byte,
    `whole` sends the whole object with status 200, and `hang` does not answer while the server runs.

    Attributes:
        objects: Path -> (bytes, ETag).
        fault: Called with each request; returns the fault to answer it with, or None.
        delay: Seconds before each answer.
        turn: A lock for answers to wait for, one at a time; None for all at once.
        requests: Every one, in the order in which they were answered.
        busy: How many are being answered.
    """

    def __init__(self) -> None:
        self.objects: dict[str, tuple[bytes, str]] = {}
        self.fault: Fault = lambda request: None
        self.delay = 0.0
        self.turn: threading.Lock | None = None
        self.requests: list[Sent] = []
        self.busy = 0
        self.lock = threading.Lock()
        self.is_over = threading.Event()
        self._server = _Server(self)

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.is_over.set()
        self._server.shutdown()
        self._server.server_close()

    def put(self, path: str, data: bytes | Path, version: str = "one") -> str:
        """Have an object at a path, in place of the one that is there. Return its address.

        Args:
            path: The path.
            data: The object, or the file that has it.
            version: Its ETag; empty for an answer without one.
        """
        self.objects[path] = data.read_bytes() if isinstance(data, Path) else data, version and f'"{version}"'
        return f"http://127.0.0.1:{self._server.server_address[1]}/{path}"

    def fail(self, fault: str, times: int = 1 << 30, *, of: Callable[[Sent], bool] = lambda request: True) -> None:
        """Answer the next requests of a kind with a fault."""
        left = [times]

        def next_fault(request: Sent) -> str | None:
            with self.lock:
                if not left[0] or not of(request):
                    return None
                left[0] -= 1
                return fault

        self.fault = next_fault

    def forget(self) -> None:
        """Begin to note requests anew."""
        self.requests = []

    def sent(self, path: str) -> Iterator[Sent]:
        """The answers that were right, for one object."""
        return (request for request in self.requests if request.path == path and request.fault is None)

    def times_sent(self, path: str, start: int, stop: int) -> Counter[int]:
        """How many of the bytes from `start` to `stop` were sent how many times: times -> bytes."""
        edges = Counter({start: 0, stop: 0})
        for request in self.sent(path):
            first, end = max(start, request.start), min(stop, request.stop)
            if first < end:
                edges.update({first: 1})
                edges.subtract({end: 1})
        found: Counter[int] = Counter()
        times = 0
        places = sorted(edges)
        for place, following in pairwise(places):
            times += edges[place]
            found[times] += following - place
        return found


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 100

    def __init__(self, owner: RangeServer) -> None:
        self.owner = owner
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that went away."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        owner = self.server.owner  # type: ignore[attr-defined]
        with owner.lock:
            owner.busy += 1
        try:
            self._answer_get(owner)
        finally:
            with owner.lock:
                owner.busy -= 1

    def _answer_get(self, owner: RangeServer) -> None:
        path = self.path.lstrip("/")
        found = _RANGE.fullmatch(self.headers.get("Range", ""))
        start, stop = (int(found[1]), int(found[2]) + 1) if found else (0, 1 << 60)
        with owner.turn or contextlib.nullcontext():
            fault = owner.fault(Sent(path, start, stop, None))
            time.sleep(owner.delay)
            data, version = owner.objects.get(path, (None, ""))
        stop = min(stop, len(data or b""))
        if data is None or (fault or "").isdigit():
            fault = fault or "404"
        elif start >= stop:
            fault = "416"
        with owner.lock:
            owner.requests.append(Sent(path, start, stop, fault))
        if fault is not None and fault.isdigit():
            self._answer(int(fault), b"<html>", {})
        elif fault == "hang":
            owner.is_over.wait()
            self.close_connection = True
        elif fault == "whole" or not found:
            self._answer(200, data, {"ETag": version})
        else:
            self._send_range(data, start, stop, fault, version)

    def _send_range(self, data: bytes, start: int, stop: int, fault: str | None, version: str) -> None:
        if fault == "shift":
            start, stop = start + 1, min(stop + 1, len(data))
        body = data[start:stop]
        if fault == "corrupt":
            middle = len(body) // 2
            body = body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]
        headers = {"ETag": version, "Content-Range": f"bytes {start}-{stop - 1}/{len(data)}"}
        if fault == "short":
            self._answer(206, body[: len(body) // 2], headers)
        elif fault == "cut":
            self._answer(206, body[: len(body) // 2], headers, length=len(body))
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
        else:
            self._answer(206, body, headers)

    def _answer(self, status: int, body: bytes, headers: dict[str, str], length: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if value:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, *given: object) -> None:
        """Print nothing."""
