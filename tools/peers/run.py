"""Run one measurement of one peer. tools/bench.py starts this script with the Python of the peer.

The script prints lines for bench.py: `phase NAME` at the start of each phase, and `result JSON` at the end. A run is
either timed or `--watched`. In a watched run bench.py measures the memory of this process, and the pixels of an epoch
are compared. Both slow it down.
"""

from __future__ import annotations

import argparse
import collections
import importlib
import json
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING

from job import Job

if TYPE_CHECKING:
    import numpy as np

MAX_EPOCHS = 50
OUTPUT = os.dup(1)

Load = Callable[[int], Iterable[tuple[object, object]]]


def send(*words: str) -> None:
    """Send a line to bench.py. This uses a copy of standard output, because libraries may print."""
    os.write(OUTPUT, (" ".join(words) + "\n").encode())


@dataclass
class Tally:
    """A summary of the rows that an epoch delivered.

    Attributes:
        rows: Number of images.
        labels: Number of images of each class.
        corner: Sum of the first byte of every image. It shows that pixels were delivered.
        first: Time of the first batch, by time.monotonic().
        shape: Shape of the first batch.
        dtype: Type of the first batch.
    """

    rows: int = 0
    labels: collections.Counter[int] = field(default_factory=collections.Counter)
    corner: float = 0.0
    first: float = 0.0
    shape: tuple[int, ...] = ()
    dtype: str = ""

    def add(self, images: np.ndarray, labels: np.ndarray, whole: bool = False) -> None:
        """Count a batch. Read the first byte of each image, or all pixels if `whole`."""
        import numpy as np

        if whole:
            images.max()
        self.rows += len(images)
        self.corner += float(images[:, 0, 0, 0].sum(dtype=np.float64))
        for label, count in enumerate(np.bincount(labels).tolist()):
            self.labels[label] += count
        if not self.first:
            self.first, self.shape, self.dtype = time.monotonic(), images.shape, str(images.dtype)


def run_epoch(load: Load, number: int, whole: bool = False) -> Tally:
    import numpy as np

    tally = Tally()
    for images, labels in load(number):
        tally.add(np.asarray(images), np.asarray(labels), whole)
    return tally


def count_multiplicities(load: Load, number: int) -> dict[str, int]:
    """Return how many images came once, twice and so on. Images are compared by digests of their pixels."""
    import hashlib

    import numpy as np

    seen: collections.Counter[bytes] = collections.Counter()
    for images, _ in load(number):
        for row in np.ascontiguousarray(images):
            seen[hashlib.blake2b(row.tobytes(), digest_size=8).digest()] += 1
    return {str(times): count for times, count in sorted(collections.Counter(seen.values()).items())}


def measure_load(module: ModuleType, job: Job, started: float, watched: bool) -> dict[str, object]:
    """Open, and run a first epoch. Then run timed epochs.

    If `watched`, run epochs for bench.py to measure memory instead, and one whose pixels are compared.
    """
    importlib.import_module("numpy")  # needed to check batches; its import must not count for the first batch
    send("phase open")
    opening = time.monotonic()
    load: Load = module.load(job)
    first = run_epoch(load, 0)
    opened = time.monotonic()
    tallies = [first]
    seconds: list[float] = []
    read_seconds: list[float] = []
    if watched and job.epochs:
        watched_epochs(load, job.seconds, tallies)
    elif job.epochs:
        seconds = timed_epochs(load, job.epochs, job.seconds, tallies, whole=False)
        read_seconds = timed_epochs(load, 1, job.seconds, tallies, whole=True)
    send("phase check")
    return {
        "imports": opening - started,
        "first_batch": first.first - opening,
        "first_batch_with_imports": first.first - started,
        "first_epoch": opened - opening,
        "epochs": seconds,
        "read_epochs": read_seconds,
        "rows": [tally.rows for tally in tallies],
        "labels": [dict(tally.labels) for tally in tallies],
        "corner": first.corner / max(first.rows, 1),
        "shape": first.shape,
        "dtype": first.dtype,
        "multiplicities": count_multiplicities(load, len(tallies)) if watched else None,
    }


def watched_epochs(load: Load, least_seconds: float, tallies: list[Tally]) -> None:
    """Run epochs for long enough that bench.py can sample the memory several times."""
    send("phase memory")
    begin = time.monotonic()
    before = len(tallies)
    while len(tallies) == before or time.monotonic() - begin < least_seconds:
        tallies.append(run_epoch(load, len(tallies)))


def timed_epochs(load: Load, least: int, least_seconds: float, tallies: list[Tally], whole: bool) -> list[float]:
    seconds: list[float] = []
    while len(seconds) < least or (sum(seconds) < least_seconds and len(seconds) < MAX_EPOCHS):
        begin = time.perf_counter()
        tallies.append(run_epoch(load, len(tallies), whole))
        seconds.append(time.perf_counter() - begin)
    return seconds


def measure_pack(module: ModuleType, job: Job, started: float) -> dict[str, object]:
    send("phase pack")
    begin = time.monotonic()
    module.pack(job)
    return {"imports": begin - started, "seconds": time.monotonic() - begin}


def measure_fit(module: ModuleType, job: Job, started: float, watched: bool) -> dict[str, object]:
    from fitting import fit

    send("phase open")
    begin = time.monotonic()
    data, options = module.fit_data(job)
    return {"imports": begin - started, **fit(data, options, job, (lambda: send("phase memory")) if watched else None)}


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure one peer (for tools/bench.py).")
    parser.add_argument("command", choices=["pack", "load", "fit"])
    parser.add_argument("module")
    parser.add_argument("job", help="the fields of a Job as JSON")
    parser.add_argument("--started", type=float, required=True, help="time.monotonic() when this process was started")
    parser.add_argument("--watched", action="store_true", help="measure memory and compare pixels instead of timing")
    arguments = parser.parse_args()
    os.dup2(2, 1)  # send output of libraries to standard error
    job = Job(**json.loads(arguments.job))
    module = importlib.import_module(arguments.module)
    if arguments.command == "pack":
        measured = measure_pack(module, job, arguments.started)
    elif arguments.command == "load":
        measured = measure_load(module, job, arguments.started, arguments.watched)
    else:
        measured = measure_fit(module, job, arguments.started, arguments.watched)
    send("result", json.dumps(measured))


if __name__ == "__main__":
    main()
