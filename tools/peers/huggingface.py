"""Hugging Face datasets: an Arrow file of raw pixels as bytes, mapped, shuffled by indices; one process reads.

Bytes are read 6 times faster than its Array3D feature, and packed 10 times faster than a list of uint8.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator

import datasets
import numpy as np
from datasets import ClassLabel, Dataset, Features, Value
from job import Job, listing, read_pixels

datasets.disable_progress_bars()


def generate(files: list[tuple[str, int]], size: int) -> Iterator[dict[str, object]]:
    for path, label in files:
        yield {"image": read_pixels(path, size).tobytes(), "label": label}


def pack(job: Job) -> None:
    files = listing(job.data)
    classes = max(label for _, label in files) + 1
    features = Features({"image": Value("binary"), "label": ClassLabel(num_classes=classes)})
    cache = os.path.join(job.folder, "cache")
    data = Dataset.from_generator(
        generate,
        features=features,
        gen_kwargs={"files": files, "size": job.size},
        num_proc=job.workers,
        cache_dir=cache,
    )
    data.save_to_disk(os.path.join(job.folder, "packed"), num_proc=job.workers)
    shutil.rmtree(cache)


def load(job: Job) -> Callable[[int], Iterable[object]]:
    data = datasets.load_from_disk(os.path.join(job.folder, "packed"))
    shape = (job.size, job.size, 3)

    def batches(epoch: int) -> Iterator[tuple[object, object]]:
        for batch in data.shuffle(seed=epoch, keep_in_memory=True).iter(job.batch):
            pixels = [np.frombuffer(image, np.uint8).reshape(shape) for image in batch["image"]]
            yield np.stack(pixels), np.array(batch["label"])

    return batches
