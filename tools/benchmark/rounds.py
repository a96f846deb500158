"""Measure in rounds: every peer once, then every peer again. The delivered rows are checked."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from benchmark import files
from benchmark.children import ROOT, Outcome, measure
from benchmark.environments import PEERS, NotInstalledError, Peer, python_of, read_versions
from benchmark.files import Data
from benchmark.report import Row


@dataclass(frozen=True)
class Setup:
    """The options of tools/bench.py that affect a measurement."""

    environments: str
    here: bool
    size: int
    batch: int
    workers: int
    repeats: int
    epochs: int
    seconds: float
    limit: float


def run_rounds(kind: str, peers: Sequence[Peer], data: Data, setup: Setup) -> list[Row]:
    """Measure all peers in turns. A peer that fails is not tried again.

    Args:
        kind: pack, load, cold or fit.
        peers: The peers to measure.
        data: The images to measure with.
        setup: The options.
    """
    outcomes: dict[str, list[Outcome]] = {peer.name: [] for peer in peers}
    for repeat in range(setup.repeats):
        for peer in peers:
            if not any(outcome.failed for outcome in outcomes[peer.name]):
                outcome = attempt(kind, peer, data, setup, first=repeat == 0)
                outcomes[peer.name].append(outcome)
                print(f"  {repeat + 1}/{setup.repeats} {peer.name}: {outcome.failed or 'done'}", file=sys.stderr)
    rows = [row_of(kind, peer, outcomes[peer.name], data, setup) for peer in peers]
    mark_odd_pixels(rows)
    return rows


def attempt(kind: str, peer: Peer, data: Data, setup: Setup, first: bool) -> Outcome:
    """Make the environment and the packed files if they are missing, then measure once.

    The first time, a separate run comes before, which only measures memory and checks rows, because both take time.
    """
    try:
        if kind != "pack":
            prepare(peer, data, setup)
        watched = run_once(kind, peer, data, setup, watched=True) if first else Outcome()
        if watched.failed:
            return watched
        outcome = run_once(kind, peer, data, setup, watched=False)
    except (NotInstalledError, NotPackedError) as error:
        return Outcome(failed=str(error))
    return replace(outcome, memory=watched.memory, seen=watched.result)


def run_once(kind: str, peer: Peer, data: Data, setup: Setup, watched: bool) -> Outcome:
    if kind == "pack":
        return pack(peer, data, setup, watched)
    command = "load" if kind == "cold" else kind
    job = job_of(peer, data, setup) | ({"epochs": 0} if kind == "cold" else {})
    (files.drop if kind == "cold" else files.warm)(read_by(peer, data, setup))
    return measure(interpreter(peer, setup), command, peer, job, setup.limit, watched=watched)


class NotPackedError(Exception):
    """The files that a peer reads could not be packed."""


def pack(peer: Peer, data: Data, setup: Setup, watched: bool = False) -> Outcome:
    """Pack into a new folder, and keep it for `load`. If `watched`, also check an epoch read from it."""
    job, folder = job_of(peer, data, setup), folder_of(peer, data, setup)
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):
        os.remove(f"{folder}.json")
    os.makedirs(folder)
    os.sync()  # flush files of the previous peer before this one is timed
    outcome = measure(interpreter(peer, setup), "pack", peer, job, setup.limit, watched=watched)
    begin = time.monotonic()
    files.flush(folder)
    outcome.result["flush"] = time.monotonic() - begin
    if watched and "load" in peer.commands and not outcome.failed:
        job = job | {"epochs": 0}
        epoch = measure(interpreter(peer, setup), "load", peer, job, setup.limit, watched=True)
        outcome.result |= epoch.result
        outcome.failed = f"what it packed cannot be read: {epoch.failed}" if epoch.failed else ""
    if outcome.failed:
        shutil.rmtree(folder, ignore_errors=True)
        return outcome
    outcome.result["disk"] = files.bytes_below(folder)
    with open(f"{folder}.json", "w", encoding="utf-8") as file:
        file.write(pack_inputs(peer, data, setup))
    return outcome


def pack_inputs(peer: Peer, data: Data, setup: Setup) -> str:
    """Return a description of everything that affects packed files. If it changes, they are packed again."""
    names = [os.path.join(PEERS, f"{name}.py") for name in (peer.module, "job")]
    if peer.module == "ours":
        names += sorted(glob.glob(os.path.join(ROOT, "packer", "pack_images", "*.py")))
    sources = []
    for name in names:
        with open(name, encoding="utf-8") as file:
            sources.append(file.read())
    pins = read_versions()[1][peer.environment]
    return json.dumps([asdict(data), asdict(peer), asdict(pins), sys.version, setup.here, setup.workers, sources])


def prepare(peer: Peer, data: Data, setup: Setup) -> None:
    """Pack the files that the peer reads, unless they exist and are up to date."""
    packer = read_versions()[0][peer.packed]
    if "pack" not in packer.commands:
        return
    folder = folder_of(packer, data, setup)
    try:
        with open(f"{folder}.json", encoding="utf-8") as file:
            if file.read() == pack_inputs(packer, data, setup):
                return
    except FileNotFoundError:
        pass
    outcome = pack(packer, data, setup)
    if outcome.failed:
        raise NotPackedError(f"could not pack: {outcome.failed}")


def folder_of(peer: Peer, data: Data, setup: Setup) -> str:
    """Return the folder for a peer's packed files. They depend on the number of workers."""
    return os.path.join(setup.environments, "packed", f"{data.key}-{setup.size}-w{setup.workers}", peer.packed)


def read_by(peer: Peer, data: Data, setup: Setup) -> str:
    """Return the folder that epochs of a peer read: the packed files, or the images."""
    folder = folder_of(peer, data, setup)
    return folder if os.path.isdir(folder) else data.path


def job_of(peer: Peer, data: Data, setup: Setup) -> dict[str, object]:
    return {
        "data": data.path,
        "folder": folder_of(peer, data, setup),
        "size": setup.size,
        "batch": setup.batch,
        "workers": setup.workers,
        "variant": peer.variant,
        "epochs": setup.epochs,
        "seconds": setup.seconds,
    }


def interpreter(peer: Peer, setup: Setup) -> str:
    if setup.here:
        return sys.executable
    return python_of(read_versions()[1][peer.environment], setup.environments)


def row_of(kind: str, peer: Peer, outcomes: Sequence[Outcome], data: Data, setup: Setup) -> Row:
    """Return one row of a table, from all repeats of a peer."""
    failed = next((outcome.failed for outcome in outcomes if outcome.failed), "")
    row: Row = {"name": peer.name, "title": peer.title, "limit": peer.limit, "ours": peer.module == "ours"}
    row |= {"order": peer.order, "failed": failed, "faults": "", "values": {}}
    row["raw"] = [asdict(outcome) for outcome in outcomes]
    if failed:
        return row
    results, seen = [outcome.result for outcome in outcomes], outcomes[0].seen
    row["values"] = values_of(kind, outcomes, data.rows)
    if "corner" in seen:
        epochs = [seen] if kind == "pack" else [seen, *results]
        row["faults"] = files.faults(epochs, data, setup.batch)
        row["kind"] = str(seen["dtype"]) + ("" if seen["shape"][-1] == 3 else ", channels first")
        row["corner"] = seen["corner"]
    if kind == "cold":
        row["values"]["disk"] = [float(files.bytes_below(read_by(peer, data, setup)))]
    if kind == "fit" and any(result["steps"] != -(-data.rows // setup.batch) for result in results):
        row["faults"] = f"{results[0]['steps']} steps an epoch"
    return row


def values_of(kind: str, outcomes: Sequence[Outcome], rows: int) -> dict[str, list[float]]:
    """Return the measured values by name: one per repeat, or one per epoch for load and fit."""
    results = [outcome.result for outcome in outcomes]
    memories = [outcome.memory.get("memory", outcome.peak) for outcome in outcomes if outcome.memory]
    values = {
        "memory": [memory["Pss"] for memory in memories],
        "memory_files": [memory["Pss_File"] for memory in memories],
        "memory_peak": [outcome.peak["Pss"] for outcome in outcomes if outcome.memory],
    }
    if kind == "pack":
        values["rate"] = [rows / outcome.wall for outcome in outcomes]
        values["seconds"] = [outcome.wall for outcome in outcomes]
        values["on_disk"] = [outcome.wall + result["flush"] for outcome, result in zip(outcomes, results, strict=True)]
        values["rate_inside"] = [rows / result["seconds"] for result in results]
        values["disk"] = [result["disk"] for result in results]
        return values
    epochs = [seconds for result in results for seconds in result["epochs"]]
    values["rate"] = [rows / seconds for seconds in epochs]  # empty if cold
    values["rate_read"] = [rows / seconds for result in results for seconds in result.get("read_epochs", [])]
    values |= {name: [result[name] for result in results] for name in first_times(results)}
    values["rate_first"] = [rows / result["first_epoch"] for result in results]
    if kind == "fit":
        values["step"] = [seconds / result["steps"] for result in results for seconds in result["epochs"]]
    return values


def first_times(results: Sequence[Mapping[str, object]]) -> list[str]:
    return [name for name in ("first_batch", "first_batch_with_imports", "first_epoch") if name in results[0]]


def mark_odd_pixels(rows: Sequence[Row], tolerance: float = 4.0) -> None:
    """Report a fault if the mean first byte of a peer's images differs from that of most peers."""
    corners = sorted(row["corner"] for row in rows if "corner" in row)
    for row in rows:
        if "corner" in row and abs(row["corner"] - corners[len(corners) // 2]) > tolerance and not row["faults"]:
            row["faults"] = f"other pixels: {row['corner']:.0f} on average, {corners[len(corners) // 2]:.0f} elsewhere"
