"""Read a pack pass after pass, in one way of several, and prove every row; what fault_training.py has things happen to.

    python tests/faults/reading.py shuffled PACK STOP

It says `ready` when it has gone over the pack once, goes on until there is a file STOP, goes over it twice more, and
says how often it did. Pixels, labels and names are compared with sums taken when the pack was opened, so what is read
is of that file. Exit status: 0 all was as it should be; 3 a FormatError said that it is not the file it was; 4 so it
did, after one pass with rows of another file; 1 rows of another file and no word of it.
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
    """What a pack held when it was opened.

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
        """Each row comes once, with its own pixels, its label and its name."""
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
        """Names, and the sum of the pixels and the label of each."""
        assert sorted(names) == sorted(self.names), "another set of names"
        for name, (checksum, label) in zip(names, found, strict=True):
            row = self._row_of[name]
            assert checksum == self._sums[row], f"{name} has other pixels"
            assert label == self.labels[row], f"{name} has another label"


class Until:
    """Passes until there is a file, and two more.

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
    """Pass after pass of one sequence."""

    def way(proof: Proof, until: Until) -> None:
        sequence = SplitSequence(proof.path, **settings)
        for _ in until:
            try:
                proof.of_a_pass(sequence, iter(sequence))
            except AssertionError:
                next(iter(sequence))  # says what the pass before could not know
                raise

    return way


def items(proof: Proof, until: Until) -> None:
    """As torch and Grain read: rows of a batch, from the pack itself."""
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
            pack[0]  # says what the rows before could not know
            raise


def interrupted(proof: Proof, until: Until) -> None:
    """Ctrl-C in the middle of passes; the next one is whole."""
    sequence = SplitSequence(proof.path, auto_shuffle=True, batch_size=8)
    rng = random.Random(0)
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    for _ in until:
        try:
            signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-5, 2e-3))
            for _ in range(100):  # Python drops an interrupt that comes while a weak reference is called back
                for _ in sequence:
                    pass
        except KeyboardInterrupt:
            proof.of_a_pass(sequence, iter(sequence))


def without_descriptors(proof: Proof, until: Until) -> None:
    """The process has no descriptor left: an open pack needs none."""
    import resource

    sequence = SplitSequence(proof.path, auto_shuffle=True)
    number = os.open(os.devnull, os.O_RDONLY)
    resource.setrlimit(resource.RLIMIT_NOFILE, (number, number))
    for _ in until:
        proof.of_a_pass(sequence, iter(sequence))


def threads(proof: Proof, until: Until) -> None:
    """Threads, each with a part of one sequence in orders of its own."""
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
    """Processes forked with the sequence, while a thread goes over it."""
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
