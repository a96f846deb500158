"""Compare the speed of packing TIFFs of 13 bands with that of tifffile alone, measured in the same run.

    python tools/bands.py --images 8000
    python tools/bands.py --images 8000 --compression lzw --planar

The files are like EuroSAT's: 64x64 pixels of 13 bands of 16 bits. The whole command (start, scan, digests, checksums,
sync to disk and all) is compared with the same number of processes that only call `tifffile.imread`, and both orders of
the samples are possible. Runs are interleaved. Prints medians and their ratios.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile

import numpy as np
import tifffile
from packing import medians, timed

_SIDE, _BANDS = 64, 13
_ALONE = "import sys, tifffile\nfor path in sys.stdin.read().split('\\0'): tifffile.imread(path)"


def made(folder: str, images: int, compression: str | None, planar: bool) -> list[str]:
    """Write smooth pictures with some noise, in ten classes. Return their paths."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(800, 3000, _SIDE)
    paths = []
    for number in range(images):
        bands = ramp[:, None, None] + ramp[None, :, None] * rng.random(_BANDS) + rng.normal(0, 40, (_SIDE, _SIDE, 1))
        array = np.ascontiguousarray(bands.astype(np.uint16))
        path = f"{folder}/{number % 10}/{number}.tif"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        tifffile.imwrite(
            path,
            np.ascontiguousarray(array.transpose(2, 0, 1)) if planar else array,
            photometric="minisblack",
            planarconfig="separate" if planar else "contig",
            compression=compression,
        )
        paths.append(path)
    return paths


def compare(arguments: argparse.Namespace, folder: str) -> None:
    paths = made(f"{folder}/data", arguments.images, arguments.compression, arguments.planar)
    shares = [paths[worker :: arguments.workers] for worker in range(arguments.workers)]
    command = [sys.executable, "-m", "pack_images.cli", f"{folder}/data", "--color", "all", "--dtype", "uint16"]

    def pack() -> float:
        """Time a run into an empty folder, so that no old output is reused."""
        with tempfile.TemporaryDirectory(dir=folder) as empty:
            more = ["--quiet", "-o", f"{empty}/out.h5", "--workers", str(arguments.workers)]
            return timed(lambda: subprocess.run([*command, *more], check=True))

    def alone() -> None:
        processes = [subprocess.Popen([sys.executable, "-c", _ALONE], stdin=subprocess.PIPE, text=True) for _ in shares]
        for process, share in zip(processes, shares, strict=True):
            assert process.stdin is not None
            process.stdin.write("\0".join(share))
            process.stdin.close()
        assert all(process.wait() == 0 for process in processes)

    order = "plane after plane" if arguments.planar else "pixel after pixel"
    print(f"{len(paths)} TIFFs of {_BANDS} bands, {arguments.compression or 'not compressed'}, {order}:")
    found = medians({"tifffile alone": lambda: timed(alone), "pack-images, the whole command": pack}, arguments.repeats)
    seconds = found["pack-images, the whole command"]
    print(f"  {len(paths) / seconds:,.0f} images/s; of the speed of tifffile {found['tifffile alone'] / seconds:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Time packing of 13 bands against tifffile alone.")
    parser.add_argument("--images", type=int, default=8000)
    parser.add_argument("--compression", choices=("lzw", "zlib", "zstd"), help="of the files (none)")
    parser.add_argument("--planar", action="store_true", help="bands lie plane after plane")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", default=None, help="folder for files and packs (the folder for temporary files)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        compare(arguments, folder)


if __name__ == "__main__":
    main()
