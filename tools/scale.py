"""Pack a great many files and watch the parent: its memory, and the time until the first row.

    python tools/scale.py --count 1000000

The files are hard links to a few small images (a directory of inodes costs more than the images do), 10,000 to a
folder. Two runs are made, of a tenth and of the whole, to show that cost per file stays the same.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import time

import numpy as np
from PIL import Image

from h5split import PackedImages
from pack_images import pack

_PER_FOLDER = 10_000
_LINKS = 20_000  # to one file: ext4 allows 65,000


def make(folder: str, count: int, side: int) -> None:
    rng = np.random.default_rng(0)
    for index in range(count):
        if index % _PER_FOLDER == 0:
            below = f"{folder}/class-{index // _PER_FOLDER:04}"
            os.makedirs(below)
        if index % _LINKS == 0:
            original = f"{below}/{index:08}.jpg"
            Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8)).save(original)
        else:
            os.link(original, f"{below}/{index:08}.jpg")


def run(folder: str, count: int, side: int, workers: int) -> None:
    make(f"{folder}/images", count, side)
    first: list[float] = []
    start = time.monotonic()

    def progress(done: int, total: int, left_out: int) -> None:
        if not first:
            first.append(time.monotonic() - start)

    summary = pack([f"{folder}/images"], f"{folder}/out.h5", size=side, workers=workers, progress=progress)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    assert summary.rows == len(PackedImages(f"{folder}/out.h5")) == count
    print(
        f"{count:9,} files: first rows after {first[0]:6.2f} s ({first[0] / count * 1e5:.2f} s per 100,000), "
        f"all after {summary.seconds:7.1f} s ({count / summary.seconds:,.0f}/s), "
        f"peak memory of the parent {peak:,.0f} MB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Pack a great many files and watch the parent.")
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--side", type=int, default=8, help="of an image, in pixels (%(default)s)")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    for count in (arguments.count // 10, arguments.count):
        child = os.fork()  # a process of its own for each, so that each has a peak of its own
        if child == 0:
            with tempfile.TemporaryDirectory() as folder:
                run(folder, count, arguments.side, arguments.workers)
            os._exit(0)
        if os.waitpid(child, 0)[1]:
            sys.exit(1)


if __name__ == "__main__":
    main()
