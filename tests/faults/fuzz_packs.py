"""A campaign of hostile packs: whatever the bytes, they are read correctly or refused with FormatError.

    python tests/faults/fuzz_packs.py --inputs 100000 --seed 0 --workers 2
    python tests/faults/fuzz_packs.py --only 4711

Input number i is decided by `--seed` + i alone. Each is opened and read in full, through everything that reads packs,
in a child process that has 5 seconds and 1 GB of memory for it. The last line is JSON; status 1 tells of failures.
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
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path

from pack_mutations import Base, Damaged, bases, damaged

from h5split import FormatError, PackedImages, SplitSequence
from h5split.info import describe
from h5split.verify import verify

SECONDS = 5
MEMORY = 1 << 30  # bytes
_A_LIFE = 2000  # inputs of a child, so that what HDF5 leaks is not taken for the fault of one


class Wrong(Exception):  # noqa: N818  # what it is called in the report
    """A pack was read, and not correctly."""


# --- one input -------------------------------------------------------------------------------------------------------


def examine(path: str, where: str = "metadata") -> str:
    """`opened`, `refused`, or what went wrong.

    Args:
        path: A pack, perhaps.
        where: What was damaged, as in `Damaged`.
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
    """Look at everything in a pack in every way there is.

    Raises:
        FormatError: It is refused.
        Wrong: There is less in it than it says, or damage that is not found.
    """
    pack = PackedImages(path)
    rows = len(pack)
    texts = (pack.filenames, *pack.columns.values())
    lengths = {len(array.copy()) for array in (pack.images, pack.labels, pack.digests, pack.checksums)}
    if lengths | {len(list(names)) for names in texts} != {rows}:
        raise Wrong("lengths disagree")
    if [len(pack[row][0].copy()) for row in range(min(rows, 50))] != [pack.shape[0]] * min(rows, 50):
        raise Wrong("rows of another shape")
    repr((pack, pack.skipped, pack.class_names))
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


def _serve(connection: Connection, files: dict[str, Base], folder: str) -> None:
    """Examine inputs whose seeds come in, until there are no more."""
    limit = _resident() + MEMORY
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (16 * MEMORY, 16 * MEMORY))  # the machine is not to suffer
    path = os.path.join(folder, f"{os.getpid()}.h5")
    with suppress(EOFError):
        while True:
            case = damaged(files, connection.recv())
            Path(path).write_bytes(case.content)
            outcome = examine(path, case.where)
            if _resident() > limit:
                outcome = f"memory: {outcome}"
            connection.send(outcome)


def _resident() -> int:
    """The most memory that this process ever had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@dataclass
class Child:
    """A process that examines inputs, and one that takes its place when it dies."""

    files: dict[str, Base]
    folder: str
    seed: int | None = None
    since: float = 0.0
    served: int = 0
    _process: multiprocessing.Process = field(init=False)
    connection: Connection = field(init=False)

    def __post_init__(self) -> None:
        context = multiprocessing.get_context("fork")
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self.files, self.folder), daemon=True)
        self._process.start()
        theirs.close()
        self.served = 0

    def examine(self, seed: int) -> None:
        if self.served == _A_LIFE:
            self.replace()
        self.served += 1
        self.seed, self.since = seed, time.monotonic()
        self.connection.send(seed)

    def answer(self) -> str | None:
        """What became of the input; None while it is being examined."""
        if self.connection.poll():
            with suppress(EOFError, ConnectionResetError):
                outcome = self.connection.recv()
                if outcome.startswith("memory"):
                    self.replace()
                return outcome
            self._process.join()
            code = self._process.exitcode or 0
            self.replace()
            return f"crash: {signal.Signals(-code).name if code < 0 else code}"
        if time.monotonic() - self.since > SECONDS:
            self.replace()
            return "hang"
        return None

    def replace(self) -> None:
        self.end()
        self.__post_init__()

    def end(self) -> None:
        self._process.kill()
        self._process.join()
        self.connection.close()


def outcomes(seeds: range, workers: int, files: dict[str, Base]) -> Iterator[tuple[int, str]]:
    """What becomes of each input: (seed, outcome), in no order."""
    ahead = iter(seeds)
    with tempfile.TemporaryDirectory() as folder:
        children = [Child(files, folder) for _ in range(workers)]
        for child, seed in zip(children, ahead, strict=False):
            child.examine(seed)
        busy = [child for child in children if child.seed is not None]
        while busy:
            wait([child.connection for child in busy], timeout=0.2)
            for child in list(busy):
                outcome = child.answer()
                if outcome is None:
                    continue
                yield child.seed or 0, outcome
                seed = next(ahead, None)
                if seed is None:
                    busy.remove(child)
                else:
                    child.examine(seed)
        for child in children:
            child.end()


def campaign(seeds: range, workers: int, keep: str, report: Callable[[str], object]) -> dict[str, object]:
    """Examine inputs and sum up; those that fail are kept in a folder.

    Returns:
        campaign, tried, opened, refused, and failures by their kind.
    """
    files = bases()
    counts: Counter[str] = Counter()
    for seed, outcome in outcomes(seeds, workers, files):
        counts[outcome] += 1
        if outcome in ("opened", "refused"):
            continue
        case = damaged(files, seed)
        os.makedirs(keep, exist_ok=True)
        path = Path(keep, f"{seed}.h5")
        path.write_bytes(case.content)
        report(f"{outcome}; seed {seed}: {case.how}; {path}")
    opened, refused = counts.pop("opened", 0), counts.pop("refused", 0)
    failures = dict(sorted(counts.items()))
    return {"campaign": "packs", "tried": len(seeds), "opened": opened, "refused": refused, "failures": failures}


# --- argv ------------------------------------------------------------------------------------------------------------


def main() -> int:
    """Run the campaign that argv asks for; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=100_000, help="how many (default 100000)")
    parser.add_argument("--seed", type=int, default=0, help="of the first; the next has the next (default 0)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="child processes (default: all cores)")
    parser.add_argument("--keep", default="hostile-packs", help="folder for inputs that fail (default hostile-packs)")
    parser.add_argument("--only", type=int, metavar="SEED", help="examine one input in this process, and keep it")
    options = parser.parse_args()
    if options.only is not None:
        return _only(options.only, options.keep)
    seeds = range(options.seed, options.seed + options.inputs)
    result = campaign(seeds, options.workers, options.keep, lambda line: print(line, file=sys.stderr))
    print(json.dumps(result))
    return 1 if result["failures"] else 0


def _only(seed: int, keep: str) -> int:
    case: Damaged = damaged(bases(), seed)
    os.makedirs(keep, exist_ok=True)
    path = os.path.join(keep, f"{seed}.h5")
    Path(path).write_bytes(case.content)
    print(f"{path}: {case.how}", flush=True)
    try:
        read_everything(path, case.where)
    except FormatError as error:
        print(f"refused: {error}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
