"""Decode hundreds of thousands of hostile images: each gives pixels or a DecodeError, in bounded time and memory.

    python tests/faults/fuzz_images.py --inputs 200000 --seed 0 --workers 2 --seeds FOLDER...

Valid images (`image_seeds`, and those of the folders) are mutated (`image_mutations`) and decoded with random settings,
in child processes started like the workers of packing. These are failures: an exception other than DecodeError, a
message of several lines, a row that is incomplete or differs between two runs, any output, the death of the process,
ten seconds without an answer, or more memory than `allowed_bytes`. The seed, n and the valid images determine input n:
``--first n --inputs 1`` repeats it. Every failing input is kept as a file.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import resource
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Self

import numpy as np

from image_mutations import Corpus, corpus_of, mutated
from image_seeds import seeds
from pack_images.decode.row import decode, shape_of
from pack_images.errors import DecodeError
from pack_images.settings import FITS, INTERPOLATIONS, Pixels

DECODED = "decoded"
REFUSED = "refused"

_PATIENCE = 10  # seconds for one image
_PER_PIXEL = 64  # bytes: 16 temporary copies of an image with 4 bytes a pixel, for decoders and conversions
_FIXED = 96 << 20  # bytes: libraries, Pillow's limit of 64 MiB for texts of a PNG, memory that malloc keeps
_HIDDEN_FRAME = 2 << 30  # bytes: an AVIF may hold a frame larger than declared; its decoder allows 16384 x 16384 pixels
_ADDRESSES = 4 << 30  # bytes of address space a child may add, so that a runaway does not exhaust the machine
_RENEWED = 5_000  # number of inputs after which a child is replaced


@dataclass(frozen=True)
class Verdict:
    """Result of decoding an image.

    Attributes:
        kind: DECODED, REFUSED, or the kind of failure.
        detail: The message of a refusal, or details of a failure.
        seconds: Time to decode it twice.
        grown: Peak memory of the process beyond its memory at the start, in bytes.
    """

    kind: str
    detail: str = ""
    seconds: float = 0.0
    grown: int = 0

    @property
    def is_failure(self) -> bool:
        return self.kind not in (DECODED, REFUSED)


def allowed_bytes(data: bytes, how: Pixels) -> int:
    """Bytes that decoding may add to a process: proportional to the pixel limit, the file and the row."""
    width, height = how.size or (0, 0)
    hidden = _HIDDEN_FRAME if data[4:8] == b"ftyp" else 0
    return _FIXED + hidden + _PER_PIXEL * how.max_pixels + 8 * len(data) + 4 * 4 * width * height


class Judge:
    """Decodes images in a child process and returns a verdict on each."""

    def __init__(self) -> None:
        self._process: multiprocessing.process.BaseProcess | None = None
        self._pipe: Connection
        self._judged = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stop()

    def verdict(self, data: bytes, how: Pixels) -> Verdict:
        """Decode a file as packing does."""
        if self._process is None or self._judged >= _RENEWED:
            self._stop()
            self._start()
        self._judged += 1
        self._pipe.send((data, how))
        try:
            if not self._pipe.poll(_PATIENCE):
                self._stop()
                return Verdict("hang", f"no answer in {_PATIENCE} s")
            answer: Verdict = self._pipe.recv()
        except (EOFError, ConnectionError):
            assert self._process is not None
            self._process.join()
            code = self._process.exitcode or 0
            self._stop()
            return Verdict("crash", signal.Signals(-code).name if code < 0 else f"exit status {code}")
        if answer.is_failure:
            others = self._judged - 1
            self._stop()  # so that its leftovers are not blamed on the next input
            if answer.kind == "memory" and others:  # earlier inputs may have used the memory: try again in a new child
                return self.verdict(data, how)
        return answer

    def _start(self) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["fuzz_images", "pack_images.decode.picture"])
        self._pipe, childs = context.Pipe()
        self._process = context.Process(target=_serve, args=(childs,), daemon=True)
        self._process.start()
        childs.close()
        self._judged = 0

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._pipe.close()
            self._process = None


def _serve(pipe: Connection) -> None:
    """Run in the child: answer requests until the pipe is closed."""
    from PIL import Image

    Image.init()  # load all plugins first, so that their memory is not blamed on a file
    addresses = _status("VmSize") + _ADDRESSES
    resource.setrlimit(resource.RLIMIT_AS, (addresses, addresses))
    warnings.simplefilter("always")
    with tempfile.TemporaryFile("w+") as printed, open(os.devnull, "w") as nowhere:
        os.dup2(printed.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)  # discard output of C libraries, as the workers of packing do
        sys.stderr = printed
        before = _status("VmRSS")
        while True:
            try:
                data, how = pipe.recv()
            except EOFError:
                return
            pipe.send(_measured(data, how, before, printed.fileno()))


def _measured(data: bytes, how: Pixels, before: int, printed: int) -> Verdict:
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # reset the peak memory
    start = time.monotonic()
    kind, detail = _decoded(data, how)
    seconds = time.monotonic() - start
    grown = _status("VmHWM") - before
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    if os.fstat(printed).st_size:
        kind, detail = "printed", os.pread(printed, 2000, 0).decode(errors="replace")
    elif grown > allowed_bytes(data, how) and kind in (DECODED, REFUSED):
        kind, detail = "memory", f"{grown:,} bytes; {kind}: {detail}"
    return Verdict(kind, detail, seconds, grown)


def _decoded(data: bytes, how: Pixels) -> tuple[str, str]:
    """Decode a file into two buffers of different content: a completely written row is the same both times."""
    try:
        shape = shape_of(data, how)
        if how.size is None and shape[0] * shape[1] > how.max_pixels:
            return "too large", f"{shape} with max_pixels={how.max_pixels}"
        rows = [np.full(shape, background, how.dtype) for background in (77, 78)]
        for row in rows:
            decode(data, how, row)
    except DecodeError as error:
        return ("message of several lines" if "\n" in str(error) else REFUSED), str(error)
    except BaseException as error:
        return f"exception: {type(error).__name__}", str(error)
    is_same = np.array_equal(rows[0], rows[1], equal_nan=how.dtype == "float32")
    return (DECODED, "") if is_same else ("written in part", str(shape))


def _status(field: str) -> int:
    """A field of /proc/self/status, in bytes."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith(field))


def settings(rng: random.Random) -> Pixels:
    """Return random settings for decoding."""
    color = rng.choice(("rgb", "grayscale", "rgba", "index", "all", "all"))
    dtype = rng.choice(("uint8", "uint8", "uint16", "float32"))
    return Pixels(
        size=rng.choice((None, (8, 8), (20, 13), (64, 64), (3, 40), (200, 7))),
        fit=rng.choice(FITS),  # type: ignore[arg-type]
        interpolation="nearest" if color == "index" else rng.choice(INTERPOLATIONS),  # type: ignore[arg-type]
        color=color,  # type: ignore[arg-type]
        exact=rng.random() < 0.3,
        max_pixels=rng.choices((1_000_000, 100_000, 10_000, 100), (16, 2, 1, 1))[0],
        dtype=dtype,  # type: ignore[arg-type]
        range=(10, 4000) if dtype == "uint8" and color != "index" and rng.random() < 0.2 else None,
        background=rng.choice((None, "#808080")),
        allow_truncated=rng.random() < 0.2,
        pages="bands" if color == "all" and rng.random() < 0.3 else "first",
    )


def made(corpus: Corpus, seed: int, number: int) -> tuple[str, bytes, Pixels]:
    """Return format, file and settings of input `number`."""
    rng = random.Random(f"{seed}/{number}")
    kind, data = mutated(corpus, rng)
    return kind, data, settings(rng)


def campaign(numbers: range, seed: int, workers: int, folders: Sequence[Path], keep: Path) -> dict[str, object]:
    """Judge the inputs with these numbers and return the report to print."""
    corpus = corpus_of(seeds(folders))
    with ThreadPoolExecutor(workers) as pool:
        shares = [numbers[index::workers] for index in range(workers)]
        tables = list(pool.map(lambda share: _judge_all(corpus, seed, share, keep), shares))
    return _report([line for table in tables for line in table])


def _judge_all(corpus: Corpus, seed: int, numbers: Iterable[int], keep: Path) -> list[tuple[str, Verdict]]:
    verdicts = []
    with Judge() as judge:
        for number in numbers:
            kind, data, how = made(corpus, seed, number)
            verdict = judge.verdict(data, how)
            verdicts.append((kind, Verdict(verdict.kind, "", verdict.seconds, verdict.grown)))
            if verdict.is_failure:
                _keep(keep / f"{seed}-{number}", data, {"settings": asdict(how), "verdict": asdict(verdict)})
    return verdicts


def _keep(path: Path, data: bytes, facts: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".image").write_bytes(data)
    path.with_suffix(".json").write_text(json.dumps(facts, indent=1))
    print(f"failure: {facts['verdict']}, kept as {path}.image", file=sys.stderr)


def _report(judged: Sequence[tuple[str, Verdict]]) -> dict[str, object]:
    by_format: dict[str, Counter[str]] = {}
    for kind, verdict in judged:
        by_format.setdefault(kind, Counter())["failed" if verdict.is_failure else verdict.kind] += 1
    kinds = Counter(verdict.kind for _, verdict in judged)
    return {
        "campaign": "images",
        "tried": len(judged),
        "decoded": kinds.pop(DECODED, 0),
        "refused": kinds.pop(REFUSED, 0),
        "by_format": {kind: dict(sorted(counts.items())) for kind, counts in sorted(by_format.items())},
        "failures": dict(sorted(kinds.items())),
        "slowest_seconds": round(max((verdict.seconds for _, verdict in judged), default=0), 3),
        "most_memory_bytes": max((verdict.grown for _, verdict in judged), default=0),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Decode hostile pictures by the hundred thousand.")
    parser.add_argument("--inputs", type=int, default=200_000)
    parser.add_argument("--first", type=int, default=0, help="the number of the first input (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seeds", type=Path, nargs="*", default=(), help="folders of more pictures to begin with")
    parser.add_argument("--keep", type=Path, default=Path("build/hostile-images"), help="for failures (%(default)s)")
    arguments = parser.parse_args()
    numbers = range(arguments.first, arguments.first + arguments.inputs)
    report = campaign(numbers, arguments.seed, arguments.workers, arguments.seeds, arguments.keep)
    print(json.dumps(report))
    sys.exit(bool(report["failures"]))


if __name__ == "__main__":
    main()
