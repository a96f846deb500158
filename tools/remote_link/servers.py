"""Start the link, nginx, and an S3 server as child processes, each on a free port of this machine.

S3 servers from the registries, measured with 16 threads that read ranges of 1 MiB of a pack of 336 MB, on 2 cores that
the clients share:

    server              MB/s   CPU seconds a GB   from
    localbucket 1.2.1    698   1.0                PyPI
    hadro 0.7.1          509   1.6                PyPI; reads only
    nanio 0.1.7          314   2.3                PyPI; no ETag of a file that it did not store itself
    s3rver 3.7.1         158   4.7                npm
    moto 5.2.5             4   232                PyPI; measured with 1 thread, as 16 took too long

localbucket is the one used: it is the fastest, it serves a folder as it is (each subfolder is a bucket), and it takes
uploads in parts. It computes an ETag when it first sees a file, which takes 2.5 s a GB. Start it with `warm`, so that
no measurement waits for that. It does not check credentials. rclone of Debian 12 is too old for `rclone serve s3`.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

BUCKET = "packs"
START_SECONDS = 20

NGINX = """
daemon off;
worker_processes 1;
pid {prefix}/nginx.pid;
error_log {prefix}/error.log;
{user}
events {{ worker_connections 1024; }}
http {{
    access_log off;
    sendfile on;
    keepalive_requests 1000000;
    client_body_temp_path {prefix}/body;
    proxy_temp_path {prefix}/proxy;
    fastcgi_temp_path {prefix}/fastcgi;
    uwsgi_temp_path {prefix}/uwsgi;
    scgi_temp_path {prefix}/scgi;
    default_type application/octet-stream;
    server {{
        listen 127.0.0.1:{port};
        root {folder};
    }}
}}
"""


class Link:
    """A running link. See remote_link/link.py for the commands that it obeys.

    Attributes:
        port: The port that clients connect to.
        pid: The id of its process.
    """

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.port = port
        self.pid = process.pid
        self._process = process

    def tell(self, **command: object) -> dict[str, Any]:
        """Send a command, as `reset=True` or `harm="cut", share=0.1`. Return the counts so far."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return dict(json.loads(self._process.stdout.readline()))


@contextlib.contextmanager
def link_to(port: int, *, rtt_ms: float, rate: float, listen: int = 0) -> Iterator[Link]:
    """Put a link before a port of this machine."""
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "link.py")
    line = [sys.executable, script, str(port), "--rtt-ms", str(rtt_ms), "--rate", str(rate), "--listen", str(listen)]
    process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)
    with ended(process):
        assert process.stdout is not None
        answer = process.stdout.readline()
        if not answer:
            raise SystemExit("the link did not start")
        yield Link(process, int(answer))


@contextlib.contextmanager
def nginx(folder: str, port: int = 0) -> Iterator[int]:
    """Serve a folder over HTTP with ranges, and return the port. nginx writes only to a temporary folder."""
    program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        raise SystemExit("nginx is missing: install the Debian package nginx-light")
    port = port or free_port()
    with tempfile.TemporaryDirectory(prefix="remote-") as prefix:
        path = os.path.join(prefix, "nginx.conf")
        user = "user root;" if os.geteuid() == 0 else ""  # else its workers may not read the folder
        with open(path, "w", encoding="utf-8") as file:
            file.write(NGINX.format(prefix=prefix, port=port, folder=os.path.abspath(folder), user=user))
        line = [program, "-p", prefix, "-c", path, "-e", os.path.join(prefix, "error.log")]
        with ended(subprocess.Popen(line, start_new_session=True)):
            await_port(port, "nginx")
            yield port


@contextlib.contextmanager
def s3(folder: str, port: int = 0) -> Iterator[int]:
    """Serve the subfolders of a folder as buckets of S3, and return the port."""
    program = shutil.which("localbucket", path=f"{os.path.dirname(sys.executable)}:{os.environ.get('PATH', '')}")
    if program is None:
        raise SystemExit("the S3 server is missing: pip install localbucket")
    port = port or free_port()
    line = [program, "--host", "127.0.0.1", "--port", str(port), os.path.abspath(folder)]
    quiet = subprocess.DEVNULL
    with ended(subprocess.Popen(line, stdout=quiet, stderr=quiet, start_new_session=True)):
        await_port(port, "localbucket")
        yield port


def warm(port: int, path: str) -> None:
    """Let the S3 server compute the ETag of an object, given as bucket/name."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    connection.request("HEAD", f"/{path}")
    answer = connection.getresponse()
    connection.close()
    if answer.status != 200:
        raise SystemExit(f"{path}: the S3 server answered {answer.status}, expected 200")


def s3_environment(port: int) -> dict[str, str]:
    """Return the environment variables that lead boto3, s3fs and fsspec to this server."""
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def cpu_seconds(pid: int) -> float:
    """Return the CPU seconds that a process has used."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def await_port(port: int, name: str) -> None:
    """Wait until a server accepts connections."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise SystemExit(f"{name} did not start within {START_SECONDS} s")


@contextlib.contextmanager
def ended(process: subprocess.Popen[Any]) -> Iterator[None]:
    """End a process, and those it has started, with the block."""
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(2)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
