"""pack-images: one memory-mapped HDF5 file. The training process itself gathers uint8 batches."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

from job import Job


def pack(job: Job) -> None:
    """Run the command pack-images."""
    from pack_images.cli import main

    options = ["--size", str(job.size), "--workers", str(job.workers), "--quiet"]
    if main([job.data, "-o", packed(job), *options]) != 0:
        raise SystemExit("pack-images failed")


def load(job: Job) -> Callable[[int], Iterable[object]]:
    """Load with one gathering thread per worker. h5split uses one per core, so the process is limited to that many."""
    from h5split import SplitSequence

    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: job.workers])
    sequence = SplitSequence(packed(job), batch_size=job.batch, label_mode="int", auto_shuffle=shuffle(job))
    return lambda epoch: sequence


def fit_data(job: Job) -> tuple[object, dict[str, object]]:
    from h5split import H5SplitSequence

    sequence = H5SplitSequence(packed(job), batch_size=job.batch, label_mode="int", auto_shuffle=shuffle(job))
    if job.variant.startswith("sequence"):
        return sequence, {"shuffle": job.variant == "sequence"}
    return sequence.as_tf_dataset(), {}


def packed(job: Job) -> str:
    return os.path.join(job.folder, "packed.h5")


def shuffle(job: Job) -> bool | str:
    return "block" if job.variant.endswith("block") else True
