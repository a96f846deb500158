"""LitData: optimized chunks of raw pixels, read by processes.

Its cache folders are set to ones inside the job's folder: the default one is deleted wholesale.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from functools import partial

import numpy as np
from job import Job, listing, read_pixels


def own_caches(folder: str) -> None:
    """Before LitData is imported."""
    for name in ("DATA_OPTIMIZER_CACHE_FOLDER", "DATA_OPTIMIZER_DATA_CACHE_FOLDER"):
        os.environ[name] = os.path.join(folder, name.lower())


def read(file: tuple[str, int], size: int) -> dict[str, object]:
    path, label = file
    return {"image": read_pixels(path, size), "label": label}


def pack(job: Job) -> None:
    own_caches(job.folder)
    import litdata

    litdata.optimize(
        fn=partial(read, size=job.size),
        inputs=listing(job.data),
        output_dir=os.path.join(job.folder, "packed"),
        num_workers=job.workers,
        chunk_bytes="64MB",
    )


def load(job: Job) -> Callable[[int], Iterable[object]]:
    own_caches(job.folder)
    import litdata

    data = litdata.StreamingDataset(os.path.join(job.folder, "packed"), shuffle=True, drop_last=False)
    loader = litdata.StreamingDataLoader(data, batch_size=job.batch, num_workers=job.workers)

    def batches(epoch: int) -> Iterable[tuple[object, object]]:
        for batch in loader:
            yield batch["image"], np.asarray(batch["label"])

    return batches
