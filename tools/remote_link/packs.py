"""Make a large pack whose rows are cheap and verify. The file is sparse where the file system allows it."""

from __future__ import annotations

import os

import numpy as np
import xxhash

from h5split.file.sealing import Tables, images_offset, seal

SHAPE = (64, 64, 3)
STRIDE = 64 * 64 * 3
DISTINCT = 256  # rows that are not all zeros, at both ends of the file and in between


def make_big(path: str, rows: int) -> None:
    """Make a pack of 64x64 images. All are zeros but DISTINCT, which hold random bytes.

    Args:
        path: The new file; an earlier one is replaced.
        rows: Number of images. A million are 12.3 GB.
    """
    filled = np.unique(np.linspace(0, rows - 1, min(rows, DISTINCT)).astype(np.int64))
    pixels = np.random.default_rng(0).integers(0, 256, (len(filled), STRIDE), np.uint8)
    checksums = np.full(rows, xxhash.xxh3_64_intdigest(bytes(STRIDE)), np.uint64)
    checksums[filled] = [xxhash.xxh3_64_intdigest(row.data) for row in pixels]
    labels = (np.arange(rows) % 10).astype(np.int32)
    digests = np.zeros((rows, 32), np.uint8)
    digests[:, :8] = np.arange(rows, dtype="<u8")[:, np.newaxis].view(np.uint8)
    temporary = f"{path}.part"
    with open(temporary, "w+b") as file:
        begin = images_offset(STRIDE)
        os.ftruncate(file.fileno(), begin + rows * STRIDE)
        for row, data in zip(filled.tolist(), pixels, strict=True):
            os.pwrite(file.fileno(), data, begin + row * STRIDE)
        tables = Tables(
            labels=labels,
            class_names=[f"class-{number}" for number in range(10)],
            filenames=[f"data/class-{row % 10}/image-{row:09}.jpg" for row in range(rows)],
            columns={"source": ["data"] * rows},
            digests=digests,
            checksums=checksums,
            settings={},
            packed_by={},
        )
        seal(file.fileno(), (rows, *SHAPE), tables)
    os.replace(temporary, path)
