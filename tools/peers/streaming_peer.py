"""MosaicML Streaming: MDS shards of raw pixels, one group per packing worker. torch's worker processes read them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

import cpu_torchvision  # noqa: F401 - before torchvision, which streaming imports
from job import Job, in_workers, read_pixels, shares
from streaming import MDSWriter, StreamingDataset
from streaming.base.util import clean_stale_shared_memory, merge_index
from torch.utils.data import DataLoader


def write(task: tuple[str, list[tuple[str, int]], int]) -> None:
    folder, files, size = task
    columns = {"image": f"ndarray:uint8:{size},{size},3", "label": "int"}
    with MDSWriter(out=folder, columns=columns) as writer:
        for path, label in files:
            writer.write({"image": read_pixels(path, size), "label": label})


def pack(job: Job) -> None:
    tasks = [(os.path.join(job.folder, str(number)), part, job.size) for number, part in enumerate(shares(job))]
    in_workers(write, tasks, job)
    merge_index(job.folder, keep_local=True)


def load(job: Job) -> Callable[[int], Iterable[object]]:
    clean_stale_shared_memory()
    data = StreamingDataset(local=job.folder, shuffle=True, batch_size=job.batch, num_canonical_nodes=1)
    loader = DataLoader(data, job.batch, num_workers=job.workers, persistent_workers=True)

    def batches(epoch: int) -> Iterable[tuple[object, object]]:
        for batch in loader:
            yield batch["image"], batch["label"]

    return batches
