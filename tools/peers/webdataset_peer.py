"""WebDataset: tar files of raw pixels, some for each worker, read by processes; order by shards and a shuffle buffer.

Pixels are .npy, which its decoder knows: nothing has to be decoded. Every shard goes to one worker, so that an epoch is
each row once; the shuffle is not a full one.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable

import webdataset as wds
from job import Job, read_pixels, shares

SHARDS_A_WORKER = 8


def write(task: tuple[str, list[tuple[str, int]], int]) -> None:
    path, files, size = task
    with wds.TarWriter(path) as writer:
        for row, (name, label) in enumerate(files):
            writer.write({"__key__": f"{row:09}", "npy": read_pixels(name, size), "cls": label})


def pack(job: Job) -> None:
    parts = [part[shard::SHARDS_A_WORKER] for part in shares(job) for shard in range(SHARDS_A_WORKER)]
    tasks = [(os.path.join(job.folder, f"{number:03}.tar"), part, job.size) for number, part in enumerate(parts)]
    with multiprocessing.get_context("spawn").Pool(job.workers) as pool:
        pool.map(write, tasks, chunksize=1)


def load(job: Job) -> Callable[[int], Iterable[object]]:
    shards = [os.path.join(job.folder, f"{number:03}.tar") for number in range(job.workers * SHARDS_A_WORKER)]
    data = wds.WebDataset(shards, shardshuffle=len(shards), nodesplitter=None).shuffle(1000)
    data = data.decode().to_tuple("npy", "cls").batched(64)
    loader = wds.WebLoader(data, batch_size=None, num_workers=job.workers, persistent_workers=True)
    return lambda epoch: loader.unbatched().shuffle(1000).batched(job.batch)
