"""Measure packs that are read over a network: nginx and an S3 server on this machine, behind a link of 50 ms.

    python tools/remote.py serve FOLDER                  serve a folder, until Ctrl-C; each subfolder is a bucket
    python tools/remote.py link                          round trip, rate and CPU of the link itself
    python tools/remote.py big large.h5 --rows 1000000   a pack of 12.3 GB, most of it a hole, whose rows verify
    python tools/remote.py measure eurosat.h5            first batch and epochs over HTTP and S3 beside a local pack
    python tools/remote.py measure eurosat.h5 --plain    the same objects with fsspec's cat_file only, as a bound
    python tools/remote.py measure eurosat.h5 --peers DATA    beside LitData and MosaicML Streaming

The link (remote_link/link.py) has --rtt-ms 50 and --rate 100e6 bytes a second, unless others are given. Every figure
comes from a fresh process with an empty cache folder, and its seconds start after imports. Runs are interleaved, and
medians are printed. remote_link/servers.py says which S3 server and why. Needs fsspec, aiohttp, s3fs, localbucket,
uvloop, and nginx from Debian.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from http.client import HTTPConnection
from typing import Any

from benchmark import children
from benchmark.children import ROOT
from benchmark.environments import PEERS, python_of, read_versions
from remote_link import servers
from remote_link.servers import BUCKET, Link

READER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "remote_link", "reader.py")
PACK_SECONDS = 1800
MB = 1e6


@dataclass
class Runs:
    """The runs of one row of the table.

    Attributes:
        task: What reader.py is told.
        python: The interpreter that runs it.
        link: The link that it reads through, or None.
        found: What each run answered, with the counts of the link.
    """

    task: dict[str, Any]
    python: str = sys.executable
    link: Link | None = None
    found: list[dict[str, Any]] = field(default_factory=list)

    def run(self, limit: float, environment: dict[str, str]) -> None:
        """Run once, with an empty cache folder."""
        with tempfile.TemporaryDirectory(prefix="remote-", ignore_cleanup_errors=True) as folder:
            task = {**self.task, "cache": os.path.join(folder, "cache")}
            os.mkdir(task["cache"])
            if self.link is not None:
                self.link.tell(reset=True)
                before = servers.cpu_seconds(self.link.pid)
            found = read(self.python, task, {**environment, "TMPDIR": folder}, limit)
            if self.link is not None:
                found |= self.link.tell(reset=True)
                found["link_cpu"] = servers.cpu_seconds(self.link.pid) - before
            self.found.append(found)

    def median(self, value: Any) -> float:
        """Return the median over the runs that did not fail of value(run); NaN if there is none."""
        values = [value(run) for run in self.found if "failed" not in run]
        return statistics.median(values) if values else float("nan")


def read(python: str, task: dict[str, Any], environment: dict[str, str], limit: float) -> dict[str, Any]:
    """Run reader.py. Return its answer, or {"failed": the reason}."""
    paths = [os.path.join(ROOT, "packer"), os.path.join(ROOT, "loader"), PEERS]
    process = subprocess.Popen(
        [python, READER, json.dumps(task)],
        env={**os.environ, **environment, "PYTHONPATH": os.pathsep.join(paths)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        return {"failed": f"stopped after {limit:.0f} s"}
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.returncode != 0 or not output:
        return {"failed": children.last_line(errors) or f"ended with status {process.returncode}"}
    return dict(json.loads(output))


@contextlib.contextmanager
def served(folder: str, rtt_ms: float, rate: float, ports: tuple[int, int] = (0, 0)) -> Iterator[dict[str, Link]]:
    """Serve a folder over HTTP and S3, each behind a link of its own."""
    with contextlib.ExitStack() as stack:
        http_port, s3_port = stack.enter_context(servers.nginx(folder)), stack.enter_context(servers.s3(folder))
        for bucket in sorted(os.listdir(folder)):
            for name in sorted(os.listdir(os.path.join(folder, bucket))):
                if os.path.isfile(os.path.join(folder, bucket, name)):
                    servers.warm(s3_port, f"{bucket}/{name}")
        http = stack.enter_context(servers.link_to(http_port, rtt_ms=rtt_ms, rate=rate, listen=ports[0]))
        s3 = stack.enter_context(servers.link_to(s3_port, rtt_ms=rtt_ms, rate=rate, listen=ports[1]))
        yield {"http": http, "s3": s3}


@contextlib.contextmanager
def folder_with(pack: str) -> Iterator[str]:
    """Return a temporary folder with one bucket, which holds the pack. It is linked, not copied."""
    pack = os.path.abspath(pack)
    with tempfile.TemporaryDirectory(prefix=".remote-", dir=os.path.dirname(pack)) as folder:
        os.mkdir(os.path.join(folder, BUCKET))
        os.link(os.path.realpath(pack), os.path.join(folder, BUCKET, os.path.basename(pack)))
        yield folder


def address(kind: str, link: Link, name: str) -> str:
    return f"http://127.0.0.1:{link.port}/{BUCKET}/{name}" if kind == "http" else f"s3://{BUCKET}/{name}"


def serve(arguments: argparse.Namespace) -> None:
    with served(arguments.folder, arguments.rtt_ms, arguments.rate, tuple(arguments.ports)) as links:
        print(f"http://127.0.0.1:{links['http'].port}/")
        for name, value in servers.s3_environment(links["s3"].port).items():
            print(f"export {name}={value}")
        print(
            "A line as `http harm cut 0.1` or `s3 harm` changes a link; `http` or `s3` prints its counts.", flush=True
        )
        for line in sys.stdin:
            kind, *words = line.split() or ["http"]
            if kind not in links or words[:1] not in ([], ["harm"]):
                print(f"expected http or s3, and harm, found {line.strip()!r}")
                continue
            harm = {"harm": words[1] if words[1:] else None, "share": float(words[2]) if words[2:] else 1.0}
            print(links[kind].tell(reset=True, **harm if words else {}), flush=True)


def measure(arguments: argparse.Namespace) -> None:
    """Print a table of runs over each kind of URL, beside a local pack."""
    name = os.path.basename(arguments.pack)
    size = os.path.getsize(arguments.pack)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(folder_with(arguments.pack))
        peers = add_peers(arguments, folder) if arguments.peers else {}
        links = stack.enter_context(served(folder, arguments.rtt_ms, arguments.rate))
        base = {"run": "ours", "batch": arguments.batch, "epochs": arguments.epochs}
        rows: dict[str, Runs] = {}
        for kind in arguments.kinds:
            task = {**base, "url": address(kind, links[kind], name)}
            if arguments.plain:
                rows[f"{kind}: cat_file in threads"] = Runs({**task, "run": "plain"}, link=links[kind])
                continue
            for title, order in (("file", False), ("block", "block"), ("full", True)):
                first = {**task, "order": order, "epochs": 0}
                rows[f"{kind}, {title}: first batch"] = Runs(first, link=links[kind])
                if not arguments.first:
                    rows[f"{kind}, {title}: epochs"] = Runs({**task, "order": order}, link=links[kind])
        for title, runs in peers.items():
            rows[title] = replace(runs, link=links["s3"])
        if not arguments.plain and not arguments.first:
            for title, order in (("file", False), ("block", "block"), ("full", True)):
                rows[f"local, {title}: epochs"] = Runs({**base, "url": arguments.pack, "order": order})
        environment = servers.s3_environment(links["s3"].port)
        environment["S3_ENDPOINT_URL"] = environment["AWS_ENDPOINT_URL"]  # MosaicML Streaming reads this one
        run_all(rows, arguments.repeats, arguments.limit, environment)
    print(f"{name}, {size / MB:,.0f} MB, {arguments.rtt_ms:g} ms, {arguments.rate / MB:g} MB/s: medians of", end=" ")
    print(f"{arguments.repeats}, batch {arguments.batch}")
    for title, runs in rows.items():
        local = rows.get(f"local{title[title.find(',') :]}") if title.endswith("epochs") else None
        report(title, runs, size / arguments.rate, local)


def run_all(rows: dict[str, Runs], repeats: int, limit: float, environment: dict[str, str]) -> None:
    """Run every row in turn, `repeats` times."""
    for number in range(repeats):
        for title, runs in rows.items():
            print(f"\r{number + 1}/{repeats} {title:<40}", end="", file=sys.stderr, flush=True)
            runs.run(limit, environment)
    print("\r" + " " * 50 + "\r", end="", file=sys.stderr, flush=True)


def report(title: str, runs: Runs, ideal: float, local: Runs | None = None) -> None:
    """Print a row. `ideal` is how long the link takes for all bytes."""
    failed = [run["failed"] for run in runs.found if "failed" in run]
    if failed:
        print(f"  {title:<28} {len(failed)} of {len(runs.found)} failed: {failed[0]}")
    if len(failed) == len(runs.found):
        return
    parts = [f"first batch {runs.median(lambda run: run['first']):.3f} s"]
    most = max(len(run.get("epochs", [])) for run in runs.found)
    if most:
        seconds = runs.median(lambda run: run["epochs"][0])
        parts.append(f"first epoch {seconds:.2f} s")
        if runs.link is not None:
            parts[-1] += f", {ideal / seconds:.2f} of the link"
        found = {count for run in runs.found for count in run.get("rows", [])}
        parts.append(f"rows {', '.join(f'{count:,}' for count in sorted(found))}" if found != {0} else "")
    if most > 1:
        later = runs.median(lambda run: statistics.median(run["epochs"][1:]))
        parts.append(f"later epochs {later:.3f} s")
        if local is not None and local is not runs:
            parts[-1] += f", {local.median(lambda run: statistics.median(run['epochs'][1:])) / later:.2f} of local"
    if runs.link is not None:
        parts.append(
            f"{runs.median(lambda run: run['requests']):.0f} requests on "
            f"{runs.median(lambda run: run['connections']):.0f} connections, "
            f"{runs.median(lambda run: run['bytes_down']) / MB:,.1f} MB"
        )
    print(f"  {title:<28} {'; '.join(part for part in parts if part)}")


def add_peers(arguments: argparse.Namespace, folder: str) -> dict[str, Runs]:
    """Pack DATA with each peer, once, and link it into a bucket of its own. Return a row for each, without a link."""
    peers, environments = read_versions()
    kept = os.path.abspath(os.path.join(arguments.environments, "remote"))
    os.makedirs(kept, exist_ok=True)
    rows = {}
    for name in ("litdata", "streaming"):
        python = python_of(environments[name], os.path.abspath(arguments.environments))
        packed = os.path.join(kept, name)
        if not os.path.exists(packed):
            os.mkdir(packed)
            job = {"data": os.path.abspath(arguments.peers), "folder": packed, "size": arguments.size}
            done = children.measure(python, "pack", peers[name], job, PACK_SECONDS, watched=False)
            if done.failed:
                shutil.rmtree(packed)
                raise SystemExit(f"{name}: {done.failed}")
        shutil.copytree(packed, os.path.join(folder, name), copy_function=os.link)
        task = {"run": name, "batch": arguments.batch, "epochs": arguments.epochs, "workers": arguments.workers}
        url = f"s3://{name}" + "/packed" * (name == "litdata")
        rows[f"s3, {peers[name].title}: epochs"] = Runs({**task, "url": url}, python)
    return rows


def check_link(arguments: argparse.Namespace) -> None:
    """Print round trip, rate and CPU of the link, for several numbers of connections."""
    with tempfile.TemporaryDirectory(prefix="remote-") as folder:
        with open(os.path.join(folder, "data"), "wb") as file:
            file.write(bytes(256 << 20))
        with servers.nginx(folder) as port:
            for rtt_ms, rate in ((0.0, 0.0), (arguments.rtt_ms, arguments.rate)):
                with servers.link_to(port, rtt_ms=rtt_ms, rate=rate) as link:
                    print(f"{rtt_ms:g} ms, {rate / MB:g} MB/s (0: without limit)")
                    for threads, length in ((1, 1), (16, 1), (1, 128 << 20), (16, 1 << 20), (64, 1 << 20)):
                        check_ranges(link, threads, length)


def check_ranges(link: Link, threads: int, length: int) -> None:
    """Read ranges of one length with many connections, one request at a time on each."""
    count = max(2, (256 << 20) // length) if length > 1 else 20 * threads
    local = threading.local()
    seconds: list[float] = []

    def fetch(number: int) -> None:
        begin = time.perf_counter()
        if not hasattr(local, "connection"):
            local.connection = HTTPConnection("127.0.0.1", link.port)
            local.buffer = bytearray(length)
        start = number * length % (256 << 20)
        local.connection.request("GET", "/data", headers={"Range": f"bytes={start}-{start + length - 1}"})
        answer = local.connection.getresponse()
        view = memoryview(local.buffer)
        while view and (got := answer.readinto(view)):
            view = view[got:]
        answer.read()
        seconds.append(time.perf_counter() - begin)

    cpu, begin = servers.cpu_seconds(link.pid), time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(fetch, range(count)))
    wall = time.perf_counter() - begin
    share = (servers.cpu_seconds(link.pid) - cpu) / wall
    print(
        f"  {threads:>2} connections, ranges of {length:>11,} bytes: {count * length / wall / MB:7.1f} MB/s, a request "
        f"{statistics.median(seconds) * 1e3:.1f} ms, the first {seconds[0] * 1e3:.1f} ms, {share:.0%} of a core"
    )


def make_big(arguments: argparse.Namespace) -> None:
    from remote_link.packs import make_big

    make_big(arguments.output, arguments.rows)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure packs that are read over a network.")
    commands = parser.add_subparsers(required=True)

    def add(name: str, run: Any, about: str, *, link: bool = True) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=about)
        command.set_defaults(run=run)
        if link:
            command.add_argument("--rtt-ms", type=float, default=50, help="round trip (50)")
            command.add_argument("--rate", type=float, default=100e6, help="bytes a second (100e6)")
        return command

    command = add("serve", serve, "serve a folder over HTTP and S3")
    command.add_argument("folder", help="a folder of folders; each of these is a bucket")
    command.add_argument("--ports", type=int, nargs=2, default=[0, 0], help="ports for HTTP and S3 (free ones)")
    add("link", check_link, "round trip, rate and CPU of the link")
    command = add("big", make_big, "make a large sparse pack whose rows verify", link=False)
    command.add_argument("output")
    command.add_argument("--rows", type=int, default=1_000_000)
    command = add("measure", measure, "first batch and epochs of a pack")
    command.add_argument("pack", help="a file made by pack-images")
    command.add_argument("--batch", type=int, default=256)
    command.add_argument("--epochs", type=int, default=3)
    command.add_argument("--repeats", type=int, default=3)
    command.add_argument("--limit", type=float, default=600, help="seconds after which a run is stopped")
    command.add_argument("--kinds", nargs="+", choices=["http", "s3"], default=["http", "s3"])
    command.add_argument("--first", action="store_true", help="measure first batches only")
    command.add_argument("--plain", action="store_true", help="read with fsspec's cat_file only")
    command.add_argument("--peers", metavar="DATA", help="also LitData and Streaming, with these class folders")
    command.add_argument("--size", type=int, default=64, help="of the images of the peers")
    command.add_argument("--workers", type=int, default=2, help="of MosaicML Streaming (2); LitData has 1")
    command.add_argument("--environments", default=os.path.join(ROOT, ".bench"), help="of the peers (.bench)")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers are ended too
    arguments.run(arguments)


if __name__ == "__main__":
    main()
