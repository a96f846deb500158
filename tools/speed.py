"""How near packing and loading come to their limits, each measured beside its limit in one run.

    python tools/speed.py pack ../shared/data/eurosat --size 64
    python tools/speed.py load eurosat.h5

`pack` times the whole command (start, scan, digests, checksums, sync to disk and all) against as many processes that
do nothing but read and decode the same files, and against a plain Pillow loop. `load` times epochs against
`take(out=, mode="clip")` on the same pixels in memory. Runs are interleaved; medians, and their ratios, are printed.
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
from PIL import Image

from h5split import PackedImages, SplitSequence
from pack_images.scan import scan


def bare(paths: list[str], size: int) -> None:
    """Read and decode into one buffer; scale what has another size."""
    buffer = np.empty((size, size, 3), np.uint8)
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
    """What one writes first: open, convert, resize, to an array."""
    for path in paths:
        image = Image.open(path).convert("RGB")
        if image.size != (size, size):
            image = image.resize((size, size), Image.Resampling.BILINEAR)
        np.asarray(image)


def medians(runs: dict[str, Callable[[], float]], repeats: int) -> dict[str, float]:
    """The median seconds of each, taken in turns after one round to warm up; all are printed."""
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


def compare_packing(arguments: argparse.Namespace) -> None:
    paths = scan([arguments.data]).filenames
    shares = [paths[worker :: arguments.workers] for worker in range(arguments.workers)]
    sizes = [arguments.size] * arguments.workers
    command = [sys.executable, "-m", "pack_images.cli", arguments.data, "--size", str(arguments.size), "--quiet"]

    def pack(*options: str) -> float:
        """A run into an empty folder: no old output to replace."""
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            output = ["-o", f"{folder}/out.h5", "--workers", str(arguments.workers)]
            return timed(lambda: subprocess.run([*command, *output, *options], check=True))

    def started(function: Callable[[list[str], int], None]) -> float:
        """The same as a command: processes and imports counted."""
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
                "bare, process start and imports counted": lambda: started(bare),
                "Pillow loop, process start and imports counted": lambda: started(pillow),
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


def compare_loading(arguments: argparse.Namespace) -> None:
    images = np.array(PackedImages(arguments.pack).images)
    items = images.reshape(len(images), -1).view(f"V{images[0].nbytes}")[:, 0]
    for batch in arguments.batch:
        sequence = SplitSequence(arguments.pack, batch_size=batch, label_mode="int", drop_remainder=True)
        shuffled = SplitSequence(
            arguments.pack, batch_size=batch, label_mode="int", drop_remainder=True, auto_shuffle=True
        )
        order = np.random.default_rng(0).permutation(len(images))
        out = np.empty(batch, items.dtype)
        count = len(sequence)

        def limit(count: int = count, batch: int = batch, out: np.ndarray = out, order: np.ndarray = order) -> None:
            for start in range(0, count * batch, batch):
                items.take(order[start : start + batch], out=out, mode="clip")

        def epoch(sequence: SplitSequence) -> None:
            for _ in sequence:
                pass

        print(f"batch {batch}, {count * batch} rows of {images[0].nbytes} bytes:")
        found = medians(
            {
                "take(out=, mode='clip') in memory": lambda limit=limit: timed(limit),
                "shuffled epoch": lambda shuffled=shuffled: timed(lambda: epoch(shuffled)),
                "consecutive batches": lambda sequence=sequence: timed(lambda: epoch(sequence)),
            },
            arguments.repeats,
        )
        take, scattered, views = found.values()
        print(f"  shuffled: {take / scattered:.2f} of take; {count * batch / scattered:,.0f} images/s")
        print(f"  consecutive: {views / count * 1e6:.1f} us a batch")


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure packing and loading beside their limits.")
    commands = parser.add_subparsers(required=True)
    packing = commands.add_parser("pack", help="the command against bare decoding")
    packing.add_argument("data", help="a folder of class folders")
    packing.add_argument("--size", type=int, default=64)
    packing.add_argument("--workers", type=int, default=2)
    packing.add_argument("--repeats", type=int, default=5)
    packing.add_argument("--folder", default=None, help="where packs are made (the folder for temporary files)")
    packing.set_defaults(run=compare_packing)
    loading = commands.add_parser("load", help="epochs against take() in memory")
    loading.add_argument("pack", help="a file made by pack-images")
    loading.add_argument("--batch", type=int, nargs="+", default=[32, 128, 256])
    loading.add_argument("--repeats", type=int, default=9)
    loading.set_defaults(run=compare_loading)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
