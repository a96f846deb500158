"""pack-images: one memory-mapped HDF5 file, uint8 batches gathered by the training process itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

from job import Job

from h5split import SplitSequence


def pack(job: Job) -> None:
    from pack_images import pack as pack_images

    pack_images([job.data], packed(job), size=job.size, workers=job.workers)


def load(job: Job) -> Callable[[int], Iterable[object]]:
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
