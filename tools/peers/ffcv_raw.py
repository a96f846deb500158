"""FFCV: raw pixels, read through the page cache (`os_cache`). Compiled code in worker threads assembles batches.

The writer waits for ever if a file cannot be decoded. bench.py kills it after the time limit.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator

from ffcv.fields import IntField, RGBImageField
from ffcv.fields.basics import IntDecoder
from ffcv.fields.decoders import SimpleRGBImageDecoder
from ffcv.loader import Loader, OrderOption
from ffcv.transforms import ToTensor
from ffcv.writer import DatasetWriter
from job import Job, listing, read_pixels


class Files:
    """The indexed data set that the writer's processes read."""

    def __init__(self, job: Job) -> None:
        self.files, self.size = listing(job.data), job.size

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[object, int]:
        path, label = self.files[index]
        return read_pixels(path, self.size), label


def pack(job: Job) -> None:
    fields = {"image": RGBImageField(write_mode="raw"), "label": IntField()}
    DatasetWriter(packed(job), fields, num_workers=job.workers).from_indexed_dataset(Files(job))


def load(job: Job) -> Callable[[int], Iterable[object]]:
    loader = Loader(
        packed(job),
        batch_size=job.batch,
        num_workers=job.workers,
        order=OrderOption.RANDOM,
        os_cache=True,
        drop_last=False,
        pipelines={"image": [SimpleRGBImageDecoder(), ToTensor()], "label": [IntDecoder(), ToTensor()]},
    )

    def batches(epoch: int) -> Iterator[tuple[object, object]]:
        for images, labels in loader:
            yield images, labels[:, 0]

    return batches


def packed(job: Job) -> str:
    return os.path.join(job.folder, "packed.beton")
