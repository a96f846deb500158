"""Compare the speed of packing with its limit, measured in the same run.

    python tools/packing.py ../shared/data/eurosat --size 64
    python tools/packing.py ../shared/data/photos --size 224 --copies 19

The whole command (start, scan, digests, checksums, sync to disk and all) is compared with the same number of processes
that only read and decode the files, and with a plain Pillow loop. Runs are interleaved. Prints medians and their
ratios. `loading.py` does the same for reading packs.
"""

from __future__ import annotations

import argparse
import inspect
import io
import multiprocessing
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import simplejpeg
from benchmark.files import multiplied
from PIL import Image

from pack_images.find.scan import scan


def bare(paths: list[str], size: int) -> None:
    """Read each file and decode it into one buffer. Scale images of another size."""
    memory = np.empty(size * size * 3 + 32, np.uint8)
    begin = (16 - memory.ctypes.data) % 32  # libjpeg-turbo is slower if the address is a multiple of 32
    buffer = memory[begin : begin + size * size * 3].reshape(size, size, 3)
    for path in paths:
        with open(path, "rb", buffering=0) as file:
            data = file.read()
        try:
            height, width, _, _ = simplejpeg.decode_jpeg_header(data)
            if (height, width) == (size, size):
                simplejpeg.decode_jpeg(data, buffer=buffer)
                continue
            image = Image.fromarray(simplejpeg.decode_jpeg(data))
        except ValueError:
            image = Image.open(io.BytesIO(data)).convert("RGB")
        buffer[...] = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))


def pillow(paths: list[str], size: int) -> None:
    """The simplest loop with Pillow: open, convert, resize, make an array."""
    for path in paths:
        image = Image.open(path).convert("RGB")
        if image.size != (size, size):
            image = image.resize((size, size), Image.Resampling.BILINEAR)
        np.asarray(image)


def medians(runs: dict[str, Callable[[], float]], repeats: int) -> dict[str, float]:
    """Take turns, after one round to warm up. Print and return the median seconds of each run."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats + 1):
        for name, run in runs.items():
            seconds = run()
            if repeat:
                times[name].append(seconds)
    for name, taken in times.items():
        print(f"  {name:<48} {statistics.median(taken):8.3f} s   ({min(taken):.3f} to {max(taken):.3f})")
    return {name: statistics.median(taken) for name, taken in times.items()}


def timed(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def compare_packing(arguments: argparse.Namespace, data: str) -> None:
    paths = scan([data]).filenames
    shares = [paths[worker :: arguments.workers] for worker in range(arguments.workers)]
    sizes = [arguments.size] * arguments.workers
    command = [sys.executable, "-m", "pack_images.cli", data, "--size", str(arguments.size), "--quiet"]

    def pack(*options: str) -> float:
        """Time a run into an empty folder, so that no old output is reused."""
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            output = ["-o", f"{folder}/out.h5", "--workers", str(arguments.workers)]
            return timed(lambda: subprocess.run([*command, *output, *options], check=True))

    def timed_with_start(function: Callable[[list[str], int], None]) -> float:
        """Time the function in new processes, including their start and imports."""
        code = "import io, sys\nimport numpy as np\nimport simplejpeg\nfrom PIL import Image\n"
        code += inspect.getsource(function)
        code += f"{function.__name__}(sys.stdin.read().split('\\0'), {arguments.size})"

        def run() -> None:
            processes = [
                subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, text=True) for _ in shares
            ]
            for process, share in zip(processes, shares, strict=True):
                assert process.stdin is not None
                process.stdin.write("\0".join(share))
                process.stdin.close()
            assert all(process.wait() == 0 for process in processes)

        return timed(run)

    print(f"{len(paths)} images to {arguments.size}x{arguments.size}, {arguments.workers} processes:")
    with ProcessPoolExecutor(arguments.workers, multiprocessing.get_context("spawn")) as executor:
        found = medians(
            {
                "bare read + decode (+ resize)": lambda: timed(lambda: list(executor.map(bare, shares, sizes))),
                "bare, process start and imports counted": lambda: timed_with_start(bare),
                "Pillow loop, process start and imports counted": lambda: timed_with_start(pillow),
                "Pillow loop": lambda: timed(lambda: list(executor.map(pillow, shares, sizes))),
                "pack-images, the whole command": pack,
                "pack-images --exact": lambda: pack("--exact"),
            },
            arguments.repeats,
        )
    command_seconds = found["pack-images, the whole command"]
    print(f"  {len(paths) / command_seconds:,.0f} images/s; of the speed of")
    for name, seconds in found.items():
        if not name.startswith("pack-images,"):
            print(f"    {name:<48} {seconds / command_seconds:5.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Time pack-images against bare decoding.")
    parser.add_argument("data", help="a folder of class folders")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--copies", type=int, default=1, help="number of names for each file")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", default=None, help="folder for the packs (the folder for temporary files)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        many = arguments.data if arguments.copies == 1 else multiplied(arguments.data, folder, arguments.copies)
        compare_packing(arguments, many)


if __name__ == "__main__":
    main()
