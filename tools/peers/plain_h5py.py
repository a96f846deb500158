"""The simplest code with h5py: a dataset filled row by row, and batches by fancy indexing. The main process reads."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator

import h5py
import numpy as np
from job import Job, decoded, listing
from numpy.typing import NDArray


def pack(job: Job) -> None:
    count = len(listing(job.data))
    with h5py.File(os.path.join(job.folder, "packed.h5"), "w") as file:
        images = file.create_dataset("images", (count, job.size, job.size, 3), np.uint8)
        labels = file.create_dataset("labels", (count,), np.int64)
        for row, (pixels, label) in enumerate(decoded(job)):
            images[row] = pixels
            labels[row] = label


def load(job: Job) -> Callable[[int], Iterable[object]]:
    file = h5py.File(os.path.join(job.folder, "packed.h5"))
    return lambda epoch: batches(file, job.batch, epoch)


def batches(file: h5py.File, batch: int, epoch: int) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
    images, labels = file["images"], file["labels"][:]
    order = np.random.default_rng(epoch).permutation(len(labels))
    for start in range(0, len(order), batch):
        rows = np.sort(order[start : start + batch])  # h5py requires ascending row numbers
        yield images[rows], labels[rows]
