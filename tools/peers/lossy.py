"""A faulty peer, for the tests: every epoch repeats one row, omits another, and drops the last batch if not full."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from job import Job, listing, read_pixels
from numpy.typing import NDArray


def load(job: Job) -> Callable[[int], Iterable[object]]:
    files = listing(job.data)

    def batches(epoch: int) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
        chosen = files[:1] + files[:-1]
        for start in range(0, len(chosen) - job.batch + 1, job.batch):
            part = chosen[start : start + job.batch]
            yield np.stack([read_pixels(path, job.size) for path, _ in part]), np.array([label for _, label in part])

    return batches
