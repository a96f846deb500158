"""The task given to a peer, and functions that peers share: listing files, and decoding in worker processes.

A peer is a module with up to three functions, each of which takes a Job:

    pack(job) -> None                            pack the image files into the peer's format, in job.folder
    load(job) -> Callable[[int], Iterable]       open the packed files, and return a function: it takes the number of
                                                 an epoch and returns its shuffled batches (images, labels)
    fit_data(job) -> (data, options)             return the data and keyword arguments for `model.fit`

A label is the number of a class folder in sorted order. Functions that decode import numpy and Pillow themselves.
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
        folder: The peer's folder for packed files.
        size: Side of the stored images, in pixels.
        batch: Images in a batch.
        workers: Number of processes, or of threads if the peer uses threads.
        variant: The variant of the module, if it has several.
        epochs: Least number of timed epochs; 0 runs only the first epoch, which is not one of them.
        seconds: Least duration of the timed epochs, and of those for memory.
    """

    data: str
    folder: str
    size: int
    batch: int = 256
    workers: int = 2
    variant: str = ""
    epochs: int = 3
    seconds: float = 1.0


def listing(data: str) -> list[tuple[str, int]]:
    """Return every file with the number of its class folder."""
    classes = sorted(entry.name for entry in os.scandir(data) if entry.is_dir())
    return [
        (os.path.join(data, name, file), label)
        for label, name in enumerate(classes)
        for file in sorted(os.listdir(os.path.join(data, name)))
    ]


def shares(job: Job) -> list[list[tuple[str, int]]]:
    """Divide the files evenly among the workers. Each share has every class."""
    files = listing(job.data)
    return [files[worker :: job.workers] for worker in range(job.workers)]


def read_image(path: str, size: int) -> Image.Image:
    """Decode a file with Pillow, to RGB and the given size."""
    from PIL import Image

    with Image.open(path) as image:
        image.draft("RGB", (3 * size, 3 * size))  # decode large JPEGs at a scale of 1/2 to 1/8, as pack-images does
        whole = image.convert("RGB")
    return whole if whole.size == (size, size) else whole.resize((size, size), Image.Resampling.BILINEAR)


def read_pixels(path: str, size: int) -> NDArray[np.uint8]:
    """Decode a file to an array, uint8 (size, size, 3)."""
    import numpy as np

    return np.array(read_image(path, size))


def decode_one(task: tuple[str, int, int]) -> tuple[NDArray[np.uint8], int]:
    """Decode one file in a pool: (path, label, size) -> (pixels, label)."""
    path, label, size = task
    return read_pixels(path, size), label


def decoded(job: Job) -> Iterator[tuple[NDArray[np.uint8], int]]:
    """Decode all files in worker processes, and yield them in order."""
    tasks = [(path, label, job.size) for path, label in listing(job.data)]
    with multiprocessing.get_context("fork").Pool(job.workers) as pool:
        yield from pool.imap(decode_one, tasks, chunksize=64)


def in_workers(write: Callable[..., None], tasks: Sequence[object], job: Job) -> None:
    """Run tasks in forked workers, which write the images they decode. Forking saves importing modules again."""
    with multiprocessing.get_context("fork").Pool(job.workers) as pool:
        pool.map(write, tasks, chunksize=1)
