"""Grain reading ArrayRecord files: raw pixels with the label before them, shuffled globally, read in worker processes."""

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


class Parse(grain.MapTransform):
    """A record to pixels and label."""

    def __init__(self, size: int) -> None:
        self.shape = (size, size, 3)

    def map(self, record: bytes) -> tuple[NDArray[np.uint8], int]:
        return np.frombuffer(record, np.uint8, offset=4).reshape(self.shape), int.from_bytes(record[:4], "little")


def load(job: Job) -> Callable[[int], Iterable[object]]:
    source = grain.ArrayRecordDataSource([packed(job)])

    def epoch_of(epoch: int) -> Iterable[object]:
        return grain.DataLoader(
            data_source=source,
            sampler=grain.IndexSampler(len(source), grain.NoSharding(), shuffle=True, num_epochs=1, seed=epoch),
            operations=[Parse(job.size), grain.Batch(job.batch)],
            worker_count=job.workers,
        )

    return epoch_of


def packed(job: Job) -> str:
    return os.path.join(job.folder, "packed.array_record")
