"""Faults while training: readers get the rows of the pack they opened, or a one-line error.

    python tests/faults/fault_training.py --faults 200

Processes read a pack pass after pass, in every way of reading.py. Meanwhile it is replaced, removed, packed again,
overwritten or cut short. Other faults are many readers at once, little memory, interrupts and forks. Every pixel, label
and name is compared with the content of the pack when it was opened.

Two effects cannot be prevented and are counted under `noted`. Truncation between the check of the file size and the
access to the map ends the process (SIGBUS). Overwritten bytes show in the current pass, and the next pass reports them.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Self

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # conftest.py

from fault_campaign import (
    PATIENCE,
    Command,
    Fault,
    Result,
    UnavailableError,
    command,
    run,
)
from reading import READERS, TOLD, TOLD_LATE, WAYS

from conftest import assert_rows_are_who_they_say, names_in, write_classes, write_pack
from h5split import FormatError, PackedImages
from pack_images import pack

COUNTS = {"cat": 60, "dog": 100, "emu": 40}
LARGE_ROWS, LARGE_SIDE = 6000, 64  # 74 MB
LITTLE_MEMORY = 72 << 20  # bytes: enough for a reader and a part of that file
OF_ONE_THREAD = ("views", "shuffled", "blocks", "capped", "items")


class Packs:
    """Original packs; faults are tried on copies of them.

    Args:
        folder: Where the packs are written.
    """

    def __init__(self, folder: Path) -> None:
        self.data = write_classes(folder / "data", COUNTS)
        self.one, self.same_size, self.other = (folder / f"{name}.h5" for name in ("one", "same-size", "other"))
        with ThreadPoolExecutor(1) as executor:
            pack([self.data], self.one, executor=executor)
            pack([self.data], self.same_size, seed=7, executor=executor)
        write_pack(self.other, names_in("elsewhere", {"yak": 500}))
        opened = PackedImages(self.one)
        labels = [opened.class_names[label] for label in opened.labels]
        assert_rows_are_who_they_say(opened.images, labels, opened.filenames)
        assert os.path.getsize(self.one) == os.path.getsize(self.same_size)
        self._folder = folder
        self._large: Path | None = None
        self._lock = threading.Lock()

    @property
    def large(self) -> Path:
        """A pack larger than the memory limit of `little_memory`."""
        with self._lock:
            if self._large is None:
                rng, shape = np.random.default_rng(0), (LARGE_SIDE, LARGE_SIDE, 3)
                pixels = list(rng.integers(0, 256, (LARGE_ROWS, *shape), np.uint8))
                names = names_in("large", {"cat": LARGE_ROWS // 2, "dog": LARGE_ROWS // 2})
                self._large = write_pack(self._folder / "large.h5", names, shape=shape, pixels=pixels)
            return self._large


class Reader:
    """A process that reads a pack.

    Args:
        way: Name of a way to read; see reading.py.
        path: The pack.
        folder: Where its output goes.
        prefix: Put before its command line.
    """

    def __init__(self, way: str, path: Path, folder: Path, prefix: tuple[str, ...] = ()) -> None:
        folder.mkdir(exist_ok=True)
        self._stop = folder / "stop"
        script = str(Path(__file__).with_name("reading.py"))
        self.command = Command([*prefix, sys.executable, script, way, str(path), str(self._stop)], folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.command.end()

    def await_ready(self) -> None:
        """Wait until it has finished its first pass."""
        deadline = time.monotonic() + PATIENCE
        while "ready" not in self.command.out and self.command.running:
            assert time.monotonic() < deadline, f"it did not begin in {PATIENCE:.0f} s: {self.command.err}"
            time.sleep(0.002)

    def end(self) -> int:
        """Let it make two more passes and end; return its exit status."""
        self._stop.touch()
        return self.command.wait()


def own(packs: Packs, folder: Path) -> Path:
    return Path(shutil.copy(packs.one, folder / "own.h5"))


# --- replaced and removed packs ---------------------------------------------------------------------------------------


def replace(path: Path, packs: Packs) -> None:
    shutil.copy(packs.other, path.with_name("new.h5"))
    os.replace(path.with_name("new.h5"), path)


def remove(path: Path, packs: Packs) -> None:
    path.unlink(missing_ok=True)


def pack_over(path: Path, packs: Packs) -> None:
    argv = [sys.executable, "-m", "pack_images.cli", str(packs.data), "-o", str(path), "--seed", "7", "--quiet"]
    command = Command(argv, path.parent)
    assert command.wait() == 0, command.err


def renamed(packs: Packs, folder: Path, rng: random.Random, *, act: Callable[[Path, Packs], None]) -> None:
    """A pack is replaced or removed: readers continue with the rows of the file they opened."""
    path = own(packs, folder)
    way = rng.choice(sorted(WAYS))
    with Reader(way, path, folder / "reader") as reader:
        reader.await_ready()
        for _ in range(rng.randint(1, 3)):
            time.sleep(rng.uniform(0, 0.05))
            act(path, packs)
        status = reader.end()
    assert status == 0, f"{way}: status {status}: {reader.command.err}"


# --- packs modified in place ------------------------------------------------------------------------------------------


def cut(path: Path, packs: Packs, rng: random.Random) -> None:
    os.truncate(path, rng.randrange(path.stat().st_size))


def copy_over(path: Path, packs: Packs, rng: random.Random) -> None:
    """Overwrite the pack in the way of `cp` and `scp`."""
    shutil.copyfile(packs.same_size, path)


def write_over(path: Path, packs: Packs, rng: random.Random) -> None:
    """Overwrite the pack in the way of `rsync --inplace`: the file is never shorter."""
    with open(path, "r+b") as file:
        file.write(packs.same_size.read_bytes())


def write_over_with_the_old_time(path: Path, packs: Packs, rng: random.Random) -> None:
    """Overwrite the pack in the way of `cp -p`, from a file with the same mtime."""
    status = path.stat()
    write_over(path, packs, rng)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def assert_refused(path: Path) -> None:
    """Assert that a truncated file is refused as a pack."""
    try:
        PackedImages(path)
    except FormatError:
        return
    raise AssertionError("a file that was cut short can be opened")


def written(
    packs: Packs,
    folder: Path,
    rng: random.Random,
    *,
    act: Callable[[Path, Packs, random.Random], None],
    noted: Counter[str],
) -> None:
    """A pack is modified in place: readers raise an error at the next batch or the next pass."""
    path = own(packs, folder)
    way = rng.choice(OF_ONE_THREAD)
    with Reader(way, path, folder / "reader") as reader:
        reader.await_ready()
        time.sleep(rng.uniform(0, 0.05))
        act(path, packs, rng)
        status = reader.end()
    told = {TOLD: "told at once", TOLD_LATE: "told by the next pass", -signal.SIGBUS: "SIGBUS"}
    assert status in told, f"{way}: status {status}: {reader.command.err}"
    assert status == -signal.SIGBUS or "FormatError" in reader.command.err.splitlines()[-1]
    noted[f"{act.__name__}: {told[status]}"] += 1
    if act is cut:
        assert_refused(path)


# --- many readers, little memory, interrupts --------------------------------------------------------------------------


def at_once(packs: Packs, folder: Path, rng: random.Random) -> None:
    """Many processes read one pack, each in another way."""
    with contextlib.ExitStack() as stack:
        readers = [
            stack.enter_context(Reader(rng.choice(sorted(WAYS)), packs.one, folder / str(number)))
            for number in range(READERS)
        ]
        for reader in readers:
            reader.await_ready()
        for reader in readers:
            status = reader.end()
            assert status == 0, f"status {status}: {reader.command.err}"


def in_one_way(packs: Packs, folder: Path, rng: random.Random, *, way: str, large: bool = False) -> None:
    """One process reads a pack in a difficult way, such as threads, forks or interrupts."""
    with Reader(way, packs.large if large else packs.one, folder / "reader") as reader:
        reader.await_ready()
        time.sleep(rng.uniform(0, 0.3))
        status = reader.end()
    assert status == 0, f"status {status}: {reader.command.err}"


@contextlib.contextmanager
def memory_group(limit: int) -> Iterator[Path]:
    """Make a control group with a memory limit, which includes the page cache."""
    with open("/proc/self/cgroup", encoding="ascii") as file:
        lines = [line.rstrip("\n").split(":", 2) for line in file]
    of_memory = next((path for _, kinds, path in lines if "memory" in kinds.split(",")), None)
    if of_memory is not None:
        parent, name = Path("/sys/fs/cgroup/memory" + of_memory), "memory.limit_in_bytes"
    else:
        parent, name = Path("/sys/fs/cgroup" + next(path for _, kinds, path in lines if not kinds)), "memory.max"
    group = parent / f"faults-{os.getpid()}-{threading.get_ident()}"
    try:
        group.mkdir()
        (group / name).write_text(str(limit))
    except OSError as error:
        with contextlib.suppress(OSError):
            group.rmdir()
        raise UnavailableError(f"needs a control group of memory: {error.strerror}") from None
    try:
        yield group
    finally:
        group.rmdir()


def little_memory(packs: Packs, folder: Path, rng: random.Random) -> None:
    """The page cache is too small for the whole pack."""
    way = rng.choice(["shuffled", "large batches", "views", "blocks"])
    path = Path(shutil.copy(packs.large, folder / "large.h5"))
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    with memory_group(LITTLE_MEMORY) as group:
        enter = ("sh", "-c", f'echo $$ >{group}/cgroup.procs; exec "$@"', "sh")
        with Reader(way, path, folder / "reader", enter) as reader:
            reader.await_ready()
            status = reader.end()
    assert status == 0, f"{way}: status {status}: {reader.command.err}"


WRITES = (cut, copy_over, write_over, write_over_with_the_old_time)


def kinds_of(packs: Packs, noted: Counter[str]) -> dict[str, Fault]:
    """Return all kinds of faults."""
    kinds: dict[str, Callable[..., None]] = {
        **{f"pack: {act.__name__}": partial(renamed, act=act) for act in (replace, remove, pack_over)},
        f"{READERS} processes": at_once,
        "threads": partial(in_one_way, way="threads"),
        **{f"pack: {act.__name__}": partial(written, act=act, noted=noted) for act in WRITES},
        "forks while a thread reads": partial(in_one_way, way="forks"),
        "interrupts": partial(in_one_way, way="interrupted"),
        "no descriptors left": partial(in_one_way, way="without descriptors"),
        "batches that several threads gather": partial(in_one_way, way="large batches", large=True),
        "little memory": little_memory,
    }
    return {name: partial(fault, packs) for name, fault in kinds.items()}


def campaign(
    folder: Path, *, faults: int, seed: int = 0, first: int = 0, only: Collection[str] = (), jobs: int = 1
) -> Result:
    """Run a campaign of faults in a folder."""
    result = Result("training")
    kinds = kinds_of(Packs(folder), result.noted)
    return run(result, kinds, folder, faults=faults, seed=seed, first=first, only=only, jobs=jobs)


if __name__ == "__main__":
    sys.exit(command("Have things go wrong while a pack is read, and compare what is read.", 200, campaign))
