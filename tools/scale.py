"""Pack many files, and measure the memory of the main process and the time until the first row.

    python tools/scale.py --count 1000000

The files are hard links to a few small images, because a million inodes would take more space than the images. Each
folder has 10,000. There are two runs, with a tenth of the files and with all, to show that the cost per file stays the
same.
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
_LINKS_PER_FILE = 20_000  # ext4 allows 65,000


def make(folder: str, count: int, side: int) -> None:
    rng = np.random.default_rng(0)
    for index in range(count):
        if index % _PER_FOLDER == 0:
            class_folder = f"{folder}/class-{index // _PER_FOLDER:04}"
            os.makedirs(class_folder)
        if index % _LINKS_PER_FILE == 0:
            original = f"{class_folder}/{index:08}.jpg"
            Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8)).save(original)
        else:
            os.link(original, f"{class_folder}/{index:08}.jpg")


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
    parser = argparse.ArgumentParser(description="Pack many files, and measure the memory of the main process.")
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--side", type=int, default=8, help="side of an image, in pixels (%(default)s)")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    for count in (arguments.count // 10, arguments.count):
        child = os.fork()  # one process per run, so that each has its own peak of memory
        if child == 0:
            with tempfile.TemporaryDirectory() as folder:
                run(folder, count, arguments.side, arguments.workers)
            os._exit(0)
        if os.waitpid(child, 0)[1]:
            sys.exit(1)


if __name__ == "__main__":
    main()
