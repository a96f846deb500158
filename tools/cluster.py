"""Compare packing on a local Dask cluster with packing in worker processes: the same images, in turns; medians.

    python tools/cluster.py data/eurosat --size 64

The times include the start of the worker processes, but not the start of the cluster.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import statistics
import tempfile
import time
from concurrent.futures import Executor
from typing import Any

from pack_images import pack
from pack_images.run.cluster import connect


def digest_of(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seconds(sources: list[str], output: str, options: dict[str, Any]) -> tuple[float, str]:
    """Pack to a new file. Return the seconds taken, and the file's SHA-256."""
    if os.path.exists(output):
        os.unlink(output)
    started = time.perf_counter()
    pack(sources, output, **options)
    return time.perf_counter() - started, digest_of(output)


def compare(arguments: argparse.Namespace, executor: Executor, output: str) -> dict[str, list[tuple[float, str]]]:
    """Return (seconds, digest) of every run of both ways."""
    ways: dict[str, dict[str, Any]] = {"processes": {"workers": arguments.workers}, "Dask": {"executor": executor}}
    seconds(
        arguments.data, output, {**ways["Dask"], "size": arguments.size}
    )  # warm up: Dask's workers import their modules
    found: dict[str, list[tuple[float, str]]] = {name: [] for name in ways}
    for _ in range(arguments.repeats):
        for name, options in ways.items():
            found[name].append(seconds(arguments.data, output, {**options, "size": arguments.size}))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, connect(f"local:{arguments.workers}") as executor:
        found = compare(arguments, executor, os.path.join(folder, "out.h5"))
    middle = {name: statistics.median(seconds for seconds, _ in runs) for name, runs in found.items()}
    for name, runs in found.items():
        times = [seconds for seconds, _ in runs]
        print(f"{name}: {middle[name]:.2f} s ({min(times):.2f} to {max(times):.2f})")
    print(f"Dask takes {middle['Dask'] / middle['processes']:.2f} times as long")
    same = len({digest for runs in found.values() for _, digest in runs}) == 1
    print("all files are the same" if same else "FILES DIFFER")
    if not same:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
