"""The method of the blog post this project grew from: decode once, keep float32 arrays in a dictionary by file name.

The post loads images with Keras' load_img, which uses Pillow. This module calls Pillow directly. It packs nothing and
has one process. The post scales its float32 pixels by 1/255. Here they stay 0 to 255, to be compared with other peers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from job import Job, listing, read_image
from numpy.typing import NDArray


def load(job: Job) -> Callable[[int], Iterable[object]]:
    cache: dict[str, NDArray[np.float32]] = {}
    files = listing(job.data)

    def read(path: str) -> NDArray[np.float32]:
        if path not in cache:
            cache[path] = np.asarray(read_image(path, job.size), dtype=np.float32)
        return cache[path]

    def batches(epoch: int) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
        order = np.random.default_rng(epoch).permutation(len(files)).tolist()
        for start in range(0, len(order), job.batch):
            chosen = [files[row] for row in order[start : start + job.batch]]
            yield np.array([read(path) for path, _ in chosen]), np.array([label for _, label in chosen])

    return batches
