"""Kill a run at random moments, run it again, and compare the file with an undisturbed one.

    python tools/interrupt.py ../shared/data/eurosat --times 20

Each time the whole process group gets a signal at a moment drawn between the start and the end of an undisturbed run,
and must end within ten seconds; then the same command runs to its end. The SHA-256 of every file must be the same, and
no row may be decoded that had been done before the kill: as the journal says, but for the ranges in flight.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np

from pack_images.partial import HEADING, RECORD


def digest(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def done_in(journal: str) -> int:
    """How many rows a journal says are done."""
    if not os.path.exists(journal):
        return 0
    with open(journal, "rb") as file:
        raw = file.read()[HEADING:]
    return int(np.frombuffer(raw[: len(raw) // RECORD.itemsize * RECORD.itemsize], RECORD)["done"].sum())


def main() -> None:
    parser = argparse.ArgumentParser(description="Kill packing at random moments and compare what comes out.")
    parser.add_argument("data", help="a folder of class folders")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--signal", default="SIGKILL", help="SIGKILL, SIGINT or SIGTERM (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pack_images.cli", arguments.data, "--size", str(arguments.size)]
        command += ["--workers", str(arguments.workers), "-o"]
        start = time.monotonic()
        subprocess.run([*command, f"{folder}/whole.h5", "--quiet"], check=True)
        seconds = time.monotonic() - start
        expected = digest(f"{folder}/whole.h5")
        print(f"undisturbed: {expected}, {seconds:.2f} s")
        same = killed = 0
        for number in range(arguments.times):
            output = f"{folder}/out.h5"
            moment = rng.uniform(0.1, seconds)
            process = subprocess.Popen([*command, output, "--quiet"], start_new_session=True)
            time.sleep(moment)
            os.killpg(process.pid, signal.Signals[arguments.signal])
            finished = process.wait(timeout=10) == 0
            done = done_in(f"{output}.journal")
            again = subprocess.run([*command, output], check=True, capture_output=True, text=True).stdout
            continued = re.search(r"continued an interrupted run: ([\d,]+) images", again)
            kept = int(continued[1].replace(",", "")) if continued else 0
            good = digest(output) == expected and (finished or kept == done)
            same, killed = same + good, killed + (not finished)
            print(
                f"{number + 1:3}: killed after {moment:.2f} s{' (it had finished)' if finished else ''}, "
                f"{done:6} rows done, "
                f"{kept:6} taken over: {'the same' if good else 'DIFFERENT'}"
            )
            left = sorted(os.listdir(folder))
            assert left == ["out.h5", "whole.h5"], left
            os.unlink(output)
    print(f"{same} of {arguments.times} the same; {killed} were killed before they finished")
    sys.exit(same != arguments.times)


if __name__ == "__main__":
    main()
