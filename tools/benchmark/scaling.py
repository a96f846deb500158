"""Measure whether the cost per image stays the same from a thousand images to a million."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace

from benchmark import files
from benchmark.children import Outcome
from benchmark.environments import PEERS, read_versions
from benchmark.report import Row
from benchmark.rounds import Setup, attempt

DISTINCT_FILES = 5000


def run_scale(setup: Setup, counts: Sequence[int], batches: Sequence[int]) -> list[Row]:
    """For every number of images, with 1 and 2 workers: pack, then load with each batch size."""
    peer = read_versions()[0]["ours"]
    rows: list[Row] = []
    for count in counts:
        data = files.look_at(make_many(setup, count), setup.size)
        runs = []
        for workers in (1, 2):
            runs.append(("pack", replace(setup, workers=workers)))
            runs += [("load", replace(setup, workers=workers, batch=batch)) for batch in batches]
        for kind, one in runs:
            found = [attempt(kind, peer, data, one, first=repeat == 0) for repeat in range(setup.repeats)]
            rows.append(scale_row(kind, data, one, found))
            print(f"  {count:,} images, {kind}: {rows[-1]['failed'] or 'done'}", file=sys.stderr)
    return rows


def make_many(setup: Setup, count: int) -> str:
    """Make `count` images. Beyond DISTINCT_FILES, more names are linked to the same files."""
    base = os.path.join(setup.environments, "images", f"made-{setup.size}-{min(count, DISTINCT_FILES)}")
    if not os.path.isdir(base):
        script = os.path.join(os.path.dirname(PEERS), "make_images.py")
        line = [sys.executable, script, base, "--count", str(min(count, DISTINCT_FILES)), "--roots", "1"]
        subprocess.run([*line, "--size", str(setup.size)], check=True, stdout=subprocess.DEVNULL)
    single = os.path.join(base, "root-1")
    if count <= DISTINCT_FILES:
        return single
    many = os.path.join(setup.environments, "images", f"made-{setup.size}-{count}")
    if not os.path.isdir(many):
        files.link_many(single, f"{many}.partial", count)
        os.rename(f"{many}.partial", many)
    return many


def scale_row(kind: str, data: files.Data, setup: Setup, found: Sequence[Outcome]) -> Row:
    failed = next((outcome.failed for outcome in found if outcome.failed), "")
    row: Row = {"name": "ours", "title": f"pack-images, {kind}", "limit": False, "ours": True, "failed": failed}
    row |= {"images": data.rows, "workers": setup.workers, "batch": 0, "values": {}, "faults": ""}
    if failed:
        return row
    memories = [outcome.memory.get("memory", outcome.peak) for outcome in found if outcome.memory]
    row["values"] = {name: [memory[kind] for memory in memories] for name, kind in KINDS.items()}
    epochs = [found[0].seen] + [outcome.result for outcome in found if kind == "load"]
    row["faults"] = files.faults(epochs, data, setup.batch)
    if kind == "pack":
        row["values"]["cost"] = [outcome.wall / data.rows for outcome in found]
        return row
    row["batch"] = setup.batch
    row["values"]["cost"] = [seconds / data.rows for outcome in found for seconds in outcome.result["epochs"]]
    row["values"]["first_batch"] = [outcome.result["first_batch"] for outcome in found]
    return row


KINDS = {"memory": "Pss", "memory_files": "Pss_File"}
