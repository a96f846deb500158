"""Bounds to compare peers with. There is one bound for each variant.

decode: the same number of processes, which read, decode and scale, and store nothing.
take:   take(out=) of shuffled rows from an array in memory, into one buffer.
read:   read the file of pixels front to back into one buffer. Rows are not shuffled.
ram:    for fit: tf.data on an array in memory.
pixels: pack the files that the other variants read.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from job import Job, in_workers, listing, shares
from numpy.typing import NDArray
from PIL import Image


def pack(job: Job) -> None:
    """Decode all files. The variant `pixels` also writes a file of pixels and a file of labels."""
    pixels = None if job.variant == "decode" else os.path.join(job.folder, "images.npy")
    files = listing(job.data)
    if pixels:
        shape = (len(files), job.size, job.size, 3)
        np.lib.format.open_memmap(pixels, "w+", np.uint8, shape)
        np.save(os.path.join(job.folder, "labels.npy"), np.array([label for _, label in files]))
    tasks = [(share, job.size, pixels, worker, job.workers) for worker, share in enumerate(shares(job))]
    in_workers(decode, tasks, job)


def decode(task: tuple[list[tuple[str, int]], int, str | None, int, int]) -> None:
    """Decode a share of the files. Its rows are start, start + step and so on."""
    files, size, output, start, step = task
    rows = np.load(output, mmap_mode="r+")[start::step] if output else None
    memory = np.empty(size * size * 3 + 32, np.uint8)
    begin = (16 - memory.ctypes.data) % 32  # libjpeg-turbo is slower if the address is a multiple of 32
    buffer = memory[begin : begin + size * size * 3].reshape(size, size, 3)
    for index, (path, _) in enumerate(files):
        with open(path, "rb", buffering=0) as file:
            data = file.read()
        decode_into(data, size, buffer)
        if rows is not None:
            rows[index] = buffer


def decode_into(data: bytes, size: int, buffer: NDArray[np.uint8]) -> None:
    import simplejpeg

    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
        if (height, width) == (size, size):
            simplejpeg.decode_jpeg(data, buffer=buffer)
            return
        image = Image.fromarray(simplejpeg.decode_jpeg(data, min_height=3 * size, min_width=3 * size))
    except ValueError:  # not a JPEG, or one that only Pillow decodes
        image = Image.open(io.BytesIO(data)).convert("RGB")
    buffer[...] = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))


def load(job: Job) -> Callable[[int], Iterable[tuple[NDArray[np.uint8], NDArray[np.int64]]]]:
    labels = np.load(os.path.join(job.folder, "labels.npy"))
    if job.variant == "read":
        return lambda epoch: read(job, labels)
    images = np.load(os.path.join(job.folder, "images.npy"))
    items = images.reshape(len(images), -1).view(f"V{images[0].nbytes}")[:, 0]
    return lambda epoch: take(items, images.shape[1:], labels, job.batch, epoch)


def take(
    items: NDArray[np.void], shape: tuple[int, ...], labels: NDArray[np.int64], batch: int, epoch: int
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
    order = np.random.default_rng(epoch).permutation(len(items))
    out = np.empty(batch, items.dtype)
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        items.take(rows, out=out[: len(rows)], mode="clip")
        yield out[: len(rows)].view(np.uint8).reshape(-1, *shape), labels[rows]


def read(job: Job, labels: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
    stride = job.size * job.size * 3
    buffer = np.empty((job.batch, job.size, job.size, 3), np.uint8)
    path = os.path.join(job.folder, "images.npy")
    with open(path, "rb", buffering=0) as file:
        file.seek(os.path.getsize(path) - len(labels) * stride)
        for start in range(0, len(labels), job.batch):
            rows = labels[start : start + job.batch]
            file.readinto(memoryview(buffer[: len(rows)]).cast("B"))
            yield buffer[: len(rows)], rows


def fit_data(job: Job) -> tuple[object, dict[str, object]]:
    import tensorflow as tf

    arrays = tuple(np.load(os.path.join(job.folder, f"{name}.npy")) for name in ("images", "labels"))
    data = tf.data.Dataset.from_tensor_slices(arrays)
    return data.shuffle(len(arrays[0])).batch(job.batch).prefetch(tf.data.AUTOTUNE), {}
