"""Read a pack pass after pass in one of several ways and check every row; the process that fault_training.py disturbs.

    python tests/faults/reading.py shuffled PACK STOP

It prints `ready` after the first pass, continues until a file STOP exists, makes two more passes, and prints the number
of passes. Pixels, labels and names are compared with checksums taken when the pack was opened. Exit status:

0   every row was correct
1   rows of another file were read without an error
3   a FormatError reported that the file changed
4   a FormatError reported it, after one pass with rows of another file
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import xxhash

from h5split import FormatError, PackedImages, SplitSequence

TOLD, TOLD_LATE = 3, 4
READERS = 8
Way = Callable[["Proof", "Until"], None]


class Proof:
    """The content of a pack when it was opened.

    Args:
        path: The pack.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        pack = PackedImages(path)
        self.names = list(pack.filenames)
        self.labels = [pack.class_names[label] for label in pack.labels]
        self._row_of = {name: row for row, name in enumerate(self.names)}
        self._sums = pack.checksums.tolist()

    def of_a_pass(self, sequence: SplitSequence, batches: Iterator[Any]) -> None:
        """Assert that each row comes once in a pass, with its own pixels, label and name."""
        rows = 0
        found: list[tuple[int, str]] = []
        for images, labels in batches:
            numbers = labels if labels.ndim == 1 else labels.argmax(axis=1)
            found += [
                (xxhash.xxh3_64_intdigest(np.ascontiguousarray(image)), sequence.classnames[number])
                for image, number in zip(images, numbers, strict=True)
            ]
            rows += len(images)
        names = sequence.get_filenames(range(rows))
        self.of_rows(names, found)

    def of_rows(self, names: list[str], found: list[tuple[int, str]]) -> None:
        """Assert that each name has the right checksum of pixels and the right label."""
        assert sorted(names) == sorted(self.names), "another set of names"
        for name, (checksum, label) in zip(names, found, strict=True):
            row = self._row_of[name]
            assert checksum == self._sums[row], f"{name} has other pixels"
            assert label == self.labels[row], f"{name} has another label"


class Until:
    """Iterate over passes until a file exists, then over two more.

    Args:
        path: The file.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self.passes = 0

    def __iter__(self) -> Iterator[None]:
        more = 2
        while more:
            more -= os.path.exists(self._path)
            yield
            self.passes += 1
            if self.passes == 1:
                print("ready", flush=True)


def sequences(**settings: Any) -> Way:
    """Return a way to read pass after pass of one sequence."""

    def way(proof: Proof, until: Until) -> None:
        sequence = SplitSequence(proof.path, **settings)
        for _ in until:
            try:
                proof.of_a_pass(sequence, iter(sequence))
            except AssertionError:
                next(iter(sequence))  # raises if the file changed during the last pass
                raise

    return way


def items(proof: Proof, until: Until) -> None:
    """Read rows of a batch from the pack itself, as torch and Grain do."""
    pack = PackedImages(proof.path)
    for _ in until:
        order = np.random.default_rng(until.passes).permutation(len(pack))
        found = []
        for start in range(0, len(order), 16):
            rows = order[start : start + 16].tolist()
            found += [(xxhash.xxh3_64_intdigest(image), label) for image, label in pack.__getitems__(rows)]
        labels = [(checksum, pack.class_names[label]) for checksum, label in found]
        try:
            proof.of_rows([pack.filenames[row] for row in order.tolist()], labels)
        except AssertionError:
            pack[0]  # raises if the file changed during the last rows
            raise


def interrupted(proof: Proof, until: Until) -> None:
    """Interrupt passes by SIGINT; the next pass is complete."""
    sequence = SplitSequence(proof.path, auto_shuffle=True, batch_size=8)
    rng = random.Random(0)
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    for _ in until:
        try:
            signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-5, 2e-3))
            for _ in range(100):  # retry, as Python drops an interrupt during the callback of a weak reference
                for _ in sequence:
                    pass
        except KeyboardInterrupt:
            proof.of_a_pass(sequence, iter(sequence))


def without_descriptors(proof: Proof, until: Until) -> None:
    """Read with no free descriptor: an open pack needs none."""
    import resource

    sequence = SplitSequence(proof.path, auto_shuffle=True)
    number = os.open(os.devnull, os.O_RDONLY)
    resource.setrlimit(resource.RLIMIT_NOFILE, (number, number))
    for _ in until:
        proof.of_a_pass(sequence, iter(sequence))


def threads(proof: Proof, until: Until) -> None:
    """Read in threads, each with its own part of one sequence, in its own orders."""
    whole = SplitSequence(proof.path, auto_shuffle=True, batch_size=8)
    parts = [whole.split()[0].set(seed=number) for number in range(READERS)]
    for _ in until:
        _all([threading.Thread(target=_guarded, args=(proof, part)) for part in parts])


def _guarded(proof: Proof, part: SplitSequence) -> None:
    try:
        proof.of_a_pass(part, iter(part))
    except BaseException as error:
        os._exit(_status(error))


def _all(workers: list[threading.Thread]) -> None:
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def forks(proof: Proof, until: Until) -> None:
    """Read in forked processes, while a thread of the parent iterates over the sequence."""
    sequence = SplitSequence(proof.path, auto_shuffle=True, batch_size=8)
    threading.Thread(target=_for_ever, args=(sequence,), daemon=True).start()
    for _ in until:
        children = [_forked(proof, sequence) for _ in range(READERS)]
        statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        if any(statuses):
            raise SystemExit(max(statuses, key=abs))


def _for_ever(sequence: SplitSequence) -> None:
    while True:
        for _ in sequence:
            pass


def _forked(proof: Proof, sequence: SplitSequence) -> int:
    child = os.fork()
    if child == 0:
        status = 1
        try:
            proof.of_a_pass(sequence, iter(sequence))
            status = 0
        except BaseException as error:
            status = _status(error)
        finally:
            os._exit(status)
    return child


def _status(error: BaseException) -> int:
    print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
    return TOLD if isinstance(error, FormatError) else 1


WAYS: dict[str, Way] = {
    "views": sequences(),
    "shuffled": sequences(auto_shuffle=True, batch_size=16),
    "blocks": sequences(auto_shuffle="block", label_mode="int"),
    "capped": sequences(max_per_class_and_epoch=10**6, batch_size=7),
    "large batches": sequences(auto_shuffle=True, batch_size=256),
    "items": items,
    "interrupted": interrupted,
    "without descriptors": without_descriptors,
    "threads": threads,
    "forks": forks,
}


def main() -> int:
    name, path, stop = sys.argv[1:]
    proof, until = Proof(path), Until(stop)
    try:
        WAYS[name](proof, until)
    except FormatError as error:
        print(f"FormatError: {error}", file=sys.stderr)
        return TOLD_LATE if isinstance(error.__context__, AssertionError) else TOLD
    print(f"passes {until.passes}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
