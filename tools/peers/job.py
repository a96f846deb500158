"""What a peer is asked to do, and what peers share: the list of files, decoding in worker processes.

A peer is a module with up to three functions of one Job:

    pack(job) -> None                            files to whatever the peer trains from, in job.folder
    load(job) -> Callable[[int], Iterable]       opened once; called with the number of each epoch, it gives shuffled
                                                 batches (images, labels)
    fit_data(job) -> (data, options)             what `model.fit` is given

Labels are numbers of the class folders in sorted order. numpy and Pillow are loaded by whoever decodes.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image


@dataclass(frozen=True)
class Job:
    """One measurement.

    Attributes:
        data: A folder of class folders.
        folder: The peer's own, for what it packs.
        size: Side in pixels that images get.
        batch: Images in a batch.
        workers: Processes, or threads where the peer has those.
        variant: Which of the ways the module knows.
        epochs: How many are timed, at least; 0: none but the first.
    """

    data: str
    folder: str
    size: int
    batch: int = 256
    workers: int = 2
    variant: str = ""
    epochs: int = 3


def listing(data: str) -> list[tuple[str, int]]:
    """Every file with the number of its class folder."""
    classes = sorted(entry.name for entry in os.scandir(data) if entry.is_dir())
    return [
        (os.path.join(data, name, file), label)
        for label, name in enumerate(classes)
        for file in sorted(os.listdir(os.path.join(data, name)))
    ]


def shares(job: Job) -> list[list[tuple[str, int]]]:
    """The files in as many equal parts as there are workers, each with every class."""
    files = listing(job.data)
    return [files[worker :: job.workers] for worker in range(job.workers)]


def read_image(path: str, size: int) -> Image.Image:
    """With Pillow, as RGB and of the size wanted."""
    from PIL import Image

    with Image.open(path) as image:
        image.draft("RGB", (3 * size, 3 * size))  # a large JPEG at 1/2 to 1/8, by the rule of pack-images
        whole = image.convert("RGB")
    return whole if whole.size == (size, size) else whole.resize((size, size), Image.Resampling.BILINEAR)


def read_pixels(path: str, size: int) -> NDArray[np.uint8]:
    """The same as an array, uint8 (size, size, 3)."""
    import numpy as np

    return np.array(read_image(path, size))


def decode_one(task: tuple[str, int, int]) -> tuple[NDArray[np.uint8], int]:
    """For a pool: path, label, size -> pixels, label."""
    path, label, size = task
    return read_pixels(path, size), label


def decoded(job: Job) -> Iterator[tuple[NDArray[np.uint8], int]]:
    """Every file in turn, decoded in worker processes and handed over."""
    tasks = [(path, label, job.size) for path, label in listing(job.data)]
    with multiprocessing.get_context("fork").Pool(job.workers) as pool:
        yield from pool.imap(decode_one, tasks, chunksize=64)


def in_workers(write: Callable[..., None], tasks: Sequence[object], job: Job) -> None:
    """Every task in a worker process: what it decodes it also writes. Forked, so that nothing is imported again."""
    with multiprocessing.get_context("fork").Pool(job.workers) as pool:
        pool.map(write, tasks, chunksize=1)
