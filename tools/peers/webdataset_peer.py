"""WebDataset: tar files (shards) of raw pixels, several per worker, shuffled by shard and in a shuffle buffer.

Pixels are stored as bytes, and the bytes of a batch are joined. With .npy files, which WebDataset can decode, it takes
1.5 times as long. Each shard goes to one worker process, so an epoch has each row once. The shuffle is not a full one.
Workers make the batches, so the last batch of each worker may be short.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence

import torch
import webdataset as wds
from job import Job, in_workers, read_pixels, shares

SHARDS_A_WORKER = 8


def write(task: tuple[str, list[tuple[str, int]], int]) -> None:
    path, files, size = task
    with wds.TarWriter(path) as writer:
        for row, (name, label) in enumerate(files):
            writer.write({"__key__": f"{row:09}", "bin": read_pixels(name, size).tobytes(), "cls": label})


def pack(job: Job) -> None:
    parts = [part[shard::SHARDS_A_WORKER] for part in shares(job) for shard in range(SHARDS_A_WORKER)]
    tasks = [(os.path.join(job.folder, f"{number:03}.tar"), part, job.size) for number, part in enumerate(parts)]
    in_workers(write, tasks, job)


def load(job: Job) -> Callable[[int], Iterable[object]]:
    def together(samples: Sequence[tuple[bytes, bytes]]) -> tuple[torch.Tensor, torch.Tensor]:
        pixels = torch.frombuffer(bytearray().join(image for image, _ in samples), dtype=torch.uint8)
        return pixels.reshape(-1, job.size, job.size, 3), torch.tensor([int(label) for _, label in samples])

    shards = [os.path.join(job.folder, f"{number:03}.tar") for number in range(job.workers * SHARDS_A_WORKER)]
    data = wds.WebDataset(shards, shardshuffle=len(shards), nodesplitter=None).shuffle(1000)
    data = data.to_tuple("bin", "cls").batched(job.batch, collation_fn=together)
    loader = wds.WebLoader(data, batch_size=None, num_workers=job.workers, persistent_workers=True)
    return lambda epoch: loader
