"""Hugging Face datasets: an Arrow file of uint8 arrays, mapped; shuffled by indices, batches in numpy format."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator

import datasets
from datasets import Array3D, ClassLabel, Dataset, Features
from job import Job, listing, read_pixels

datasets.disable_progress_bars()


def generate(files: list[tuple[str, int]], size: int) -> Iterator[dict[str, object]]:
    for path, label in files:
        yield {"image": read_pixels(path, size), "label": label}


def pack(job: Job) -> None:
    files = listing(job.data)
    classes = max(label for _, label in files) + 1
    features = Features({"image": Array3D((job.size, job.size, 3), "uint8"), "label": ClassLabel(num_classes=classes)})
    data = Dataset.from_generator(
        generate,
        features=features,
        gen_kwargs={"files": files, "size": job.size},
        num_proc=job.workers,
        cache_dir=os.path.join(job.folder, "cache"),
    )
    data.save_to_disk(os.path.join(job.folder, "packed"))
    data.cleanup_cache_files()


def load(job: Job) -> Callable[[int], Iterable[object]]:
    data = datasets.load_from_disk(os.path.join(job.folder, "packed")).with_format("numpy")

    def batches(epoch: int) -> Iterator[tuple[object, object]]:
        for batch in data.shuffle(seed=epoch, keep_in_memory=True).iter(job.batch):
            yield batch["image"], batch["label"]

    return batches
