"""A campaign of hostile packs: each is read correctly or refused with FormatError.

    python tests/faults/fuzz_packs.py --inputs 100000 --seed 0 --workers 2
    python tests/faults/fuzz_packs.py --only 4711

The seed alone determines an input, and consecutive inputs have consecutive seeds. A child process opens each input and
reads it completely with every function that reads packs. It has 5 seconds and 1 GB of memory for an input. Failing
inputs are kept and named on stderr. The last line is JSON; the exit status is 1 if there were failures.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path

from pack_mutations import Base, Damaged, bases, damaged

from h5split import FormatError, PackedImages, SplitSequence
from h5split.commands.info import describe
from h5split.commands.verify import verify

SECONDS = 5
MEMORY = 1 << 30  # bytes
A_LIFE = 2000  # inputs per child, so that leaks of HDF5 are not blamed on one input


Look = Callable[[str, str], str]  # (path, where) -> outcome


class Wrong(Exception):  # noqa: N818  # its name appears in the report
    """A pack was accepted but read incorrectly."""


# --- one input -------------------------------------------------------------------------------------------------------


def examine(path: str, where: str = "metadata") -> str:
    """Read a file that may be a pack; return `opened`, `refused`, or the kind of failure.

    Args:
        path: The file.
        where: The damaged part, as in `Damaged`.
    """
    try:
        read_everything(path, where)
    except FormatError as error:
        if where == "pixels":
            return "wrong: pixels are damaged, and it is not read"
        one_line = str(error).startswith(f"{path}: ") and str(error).isprintable()
        return "refused" if one_line else f"wrong: message {str(error)!r}"
    except Wrong as error:
        return f"wrong: {error}"
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        return f"exception: {type(error).__name__} in {last.name}"
    return "opened"


def read_everything(path: str, where: str = "metadata") -> None:
    """Read everything in a pack with every function that reads packs.

    Raises:
        FormatError: The file is refused.
        Wrong: It holds less than it declares, or `verify` misses damage.
    """
    pack = PackedImages(path)
    rows = len(pack)
    texts = (pack.filenames, *pack.columns.values())
    lengths = {len(array.copy()) for array in (pack.images, pack.labels, pack.digests, pack.checksums)}
    if lengths | {len(list(names)) for names in texts} != {rows}:
        raise Wrong("lengths disagree")
    if [len(pack[row][0].copy()) for row in range(min(rows, 50))] != [pack.shape[0]] * min(rows, 50):
        raise Wrong("rows of another shape")
    repr((pack, pack.skipped, pack.losses, pack.class_names))
    if sum(len(labels) for _, labels in SplitSequence(path, label_mode="int")) != rows:
        raise Wrong("a pass has another number of rows")
    str(describe(pack))
    json.dumps(describe(pack).as_json())
    found = verify(pack, workers=1)
    if where == "pixels" and not len(found.bad_rows):
        raise Wrong("verify found no bad row")
    if where == "tables" and found.tables:
        raise Wrong("verify found no bad table")


# --- many, in children -----------------------------------------------------------------------------------------------


def _serve(connection: Connection, files: dict[str, Base], folder: str, look: Look) -> None:
    """Run in the child: examine inputs whose seeds come through the connection, until it is closed."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (16 * MEMORY, 16 * MEMORY))  # protects the machine
    limit = _most_memory() + MEMORY
    path = os.path.join(folder, f"{os.getpid()}.h5")
    with suppress(EOFError):
        while True:
            case = damaged(files, connection.recv())
            Path(path).write_bytes(case.content)
            outcome = look(path, case.where)
            connection.send(outcome if _most_memory() < limit else f"memory: {outcome}")


def _most_memory() -> int:
    """Peak memory of this process, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class Child:
    """A process that examines inputs one by one; it is restarted if an input kills it.

    Args:
        arguments: The arguments files, folder and look of `_serve`.
        seconds: Time limit of an input.
    """

    def __init__(self, arguments: tuple[dict[str, Base], str, Look], seconds: float) -> None:
        self.seed = 0
        self._arguments = arguments
        self._seconds = seconds
        self._start()

    def examine(self, seed: int) -> None:
        """Start to examine an input."""
        if self._done == A_LIFE:
            self._restart()
        self._done += 1
        self.seed = seed
        self._deadline = time.monotonic() + self._seconds
        self.connection.send(seed)

    def answer(self) -> str | None:
        """Return the outcome of the input, or None if it is not finished."""
        if self.connection.poll():
            try:
                outcome: str = self.connection.recv()
            except (EOFError, ConnectionResetError):
                self._process.join()
                outcome = f"crash: {_name_of(self._process.exitcode)}"
        elif time.monotonic() > self._deadline:
            outcome = "hang"
        else:
            return None
        if outcome.startswith(("crash", "hang", "memory")):
            self._restart()
        return outcome

    def end(self) -> None:
        self._process.kill()
        self._process.join()
        self.connection.close()

    def _start(self) -> None:
        context = multiprocessing.get_context("fork")
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, *self._arguments), daemon=True)
        self._process.start()
        theirs.close()
        self._done = 0

    def _restart(self) -> None:
        self.end()
        self._start()


def _name_of(code: int | None) -> str:
    return signal.Signals(-code).name if code is not None and code < 0 else f"status {code}"


def outcomes(
    seeds: range, workers: int, files: dict[str, Base], look: Look = examine, seconds: float = SECONDS
) -> Iterator[tuple[int, str]]:
    """Yield (seed, outcome) of each input as it finishes."""
    ahead = iter(seeds)
    with tempfile.TemporaryDirectory() as folder:
        children = [Child((files, folder, look), seconds) for _ in range(min(workers, len(seeds)))]
        try:
            busy = list(children)
            for child in busy:
                child.examine(next(ahead))
            while busy:
                wait([child.connection for child in busy], timeout=0.2)
                for child in list(busy):
                    if (outcome := child.answer()) is None:
                        continue
                    yield child.seed, outcome
                    if (seed := next(ahead, None)) is None:
                        busy.remove(child)
                    else:
                        child.examine(seed)
        finally:
            for child in children:
                child.end()


def campaign(
    seeds: range, workers: int, keep: str, look: Look = examine, seconds: float = SECONDS
) -> dict[str, object]:
    """Examine inputs and return a summary: campaign, tried, opened, refused, and failures by kind.

    Args:
        seeds: Seeds of the inputs.
        workers: Number of children.
        keep: A folder for failing inputs.
        look: Function that examines an input.
        seconds: Time limit of an input.
    """
    files = bases()
    counts: Counter[str] = Counter()
    for seed, outcome in outcomes(seeds, workers, files, look, seconds):
        counts[outcome] += 1
        if outcome not in ("opened", "refused"):
            print(f"{outcome}; {_kept(damaged(files, seed), seed, keep)}", file=sys.stderr)
    opened, refused = counts.pop("opened", 0), counts.pop("refused", 0)
    failures = dict(sorted(counts.items()))
    return {"campaign": "packs", "tried": len(seeds), "opened": opened, "refused": refused, "failures": failures}


def _kept(case: Damaged, seed: int, folder: str) -> str:
    os.makedirs(folder, exist_ok=True)
    path = Path(folder, f"{seed}.h5")
    path.write_bytes(case.content)
    return f"--only {seed}: {case.how}; {path}"


# --- argv ------------------------------------------------------------------------------------------------------------


def main() -> int:
    """Run the campaign with the options of argv and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=100_000, help="how many (default 100000)")
    parser.add_argument("--seed", type=int, default=0, help="of the first; the next has the next (default 0)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="child processes (default: all cores)")
    parser.add_argument("--keep", default="hostile-packs", help="folder for inputs that fail (default hostile-packs)")
    parser.add_argument("--only", type=int, metavar="SEED", help="examine one input in this process, and keep it")
    options = parser.parse_args()
    if options.only is not None:
        return _only(options.only, options.keep)
    result = campaign(range(options.seed, options.seed + options.inputs), options.workers, options.keep)
    print(json.dumps(result))
    return 1 if result["failures"] else 0


def _only(seed: int, keep: str) -> int:
    case = damaged(bases(), seed)
    print(_kept(case, seed, keep), flush=True)  # printed first, as examining it may crash
    try:
        read_everything(os.path.join(keep, f"{seed}.h5"), case.where)
    except FormatError as error:
        print(f"refused: {error}")
    else:
        print("opened")
    return 0


if __name__ == "__main__":
    sys.exit(main())
