"""Hugging Face datasets: mapped Arrow files with raw pixels as bytes, shuffled by indices. One process reads.

Bytes are read 6 times faster than an Array3D feature, and packed 10 times faster than a list of uint8. Batches are
Arrow tables, and the buffer of their bytes is used as the batch. With Python objects it takes 3 times as long.
ArrowWriter writes the data once, but Dataset.from_generator and save_to_disk write it twice.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from datasets import ClassLabel, Dataset, Features, Value, concatenate_datasets
from datasets.arrow_writer import ArrowWriter
from job import Job, in_workers, listing, read_pixels, shares
from numpy.typing import NDArray


def write(task: tuple[str, list[tuple[str, int]], int, Features]) -> None:
    name, files, size, features = task
    with ArrowWriter(path=name, features=features) as writer:
        for path, label in files:
            writer.write({"image": read_pixels(path, size).tobytes(), "label": label})
        writer.finalize()


def pack(job: Job) -> None:
    classes = max(label for _, label in listing(job.data)) + 1
    features = Features({"image": Value("binary"), "label": ClassLabel(num_classes=classes)})
    tasks = [(name, part, job.size, features) for name, part in zip(names(job), shares(job), strict=True)]
    in_workers(write, tasks, job)


def load(job: Job) -> Callable[[int], Iterable[object]]:
    data = concatenate_datasets([Dataset.from_file(name) for name in names(job)]).with_format("arrow")
    item = job.size * job.size * 3

    def batches(epoch: int) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
        for batch in data.shuffle(seed=epoch, keep_in_memory=True).iter(job.batch):
            images = batch["image"].combine_chunks()
            pixels = np.frombuffer(images.buffers()[2], np.uint8, len(images) * item, images.offset * item)
            yield pixels.reshape(-1, job.size, job.size, 3), batch["label"].to_numpy()

    return batches


def names(job: Job) -> list[str]:
    return [os.path.join(job.folder, f"{worker}.arrow") for worker in range(job.workers)]
