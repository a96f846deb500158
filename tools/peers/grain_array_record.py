"""Grain reading an ArrayRecord file: raw pixels with the label before them, shuffled globally, read in threads.

Workers are threads, as records need no decoding: with as many processes (mp_prefetch, or DataLoader) it is slower.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

import grain.python as grain
import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter
from job import Job, decoded
from numpy.typing import NDArray


def pack(job: Job) -> None:
    writer = ArrayRecordWriter(packed(job), "group_size:1,uncompressed")
    for pixels, label in decoded(job):
        writer.write(label.to_bytes(4, "little") + pixels.tobytes())
    writer.close()


def load(job: Job) -> Callable[[int], Iterable[object]]:
    source = grain.ArrayRecordDataSource([packed(job)])
    shape = (job.size, job.size, 3)
    options = grain.ReadOptions(num_threads=job.workers, prefetch_buffer_size=4 * job.workers)

    def parse(record: bytes) -> tuple[NDArray[np.uint8], int]:
        pixels = np.frombuffer(record, np.uint8, offset=4).reshape(shape)
        return pixels, int.from_bytes(record[:4], "little")

    def epoch_of(epoch: int) -> Iterable[object]:
        data = grain.MapDataset.source(source).shuffle(seed=epoch).map(parse)
        return data.batch(job.batch).to_iter_dataset(options)

    return epoch_of


def packed(job: Job) -> str:
    return os.path.join(job.folder, "packed.array_record")
