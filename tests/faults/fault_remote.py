"""Faults while packs elsewhere are read: every row is right, or there is a one-line error, and the next pass is right.

    python tests/faults/fault_remote.py --faults 200

Several processes read one pack from a web server through one folder of copies, in random orders. Meanwhile they are
killed, the server fails in the ways of range_server.py, the pack is replaced, or the copy is damaged or removed. Each
process compares every row with its name. Afterwards a reader without faults must get every row, and all pixels and
tables of the whole copy must be those of the pack.
"""

from __future__ import annotations

import random
import shutil
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # conftest.py

from fault_campaign import Command, Fault, Result, command, run
from range_server import RangeServer, Sent

from conftest import names_in, write_pack
from h5split.file.images import PackedImages

SHAPE, ROWS = (40, 40, 3), 2500  # 12 MB, of which 4 MB come when it is opened
PROCESSES = 3
FAULTS = ("500", "503", "cut", "short", "corrupt", "whole")
TOLD = 3  # status of a reader that got an error of this package

READ = """
import hashlib, os, sys
from h5split import H5SplitError, SplitSequence
from h5split.remote import objects
objects._FIRST_WAIT = 0.005
url, cache, seed, order = sys.argv[1:]
try:
    sequence = SplitSequence(url, cache=cache, seed=int(seed), auto_shuffle={"rows": True, "block": "block"}.get(order))
    images, labels = [], []
    for batch, numbers in sequence:
        images += [image.tobytes() for image in batch]
        labels += [sequence.classnames[number] for number in numbers.argmax(1)]
except (H5SplitError, OSError) as error:
    assert len(str(error).splitlines()) == 1, error
    print(type(error).__name__, error, file=sys.stderr)
    sys.exit(3)
names = sequence.get_filenames(range(len(images)))
assert len({*names}) == len(names) == int(os.environ["ROWS"]), len({*names})
for name, label, image in zip(names, labels, images, strict=True):
    assert image == hashlib.shake_256(os.path.basename(name).encode()).digest(len(image)), name
    assert label == name.split("/")[-2], name
"""


class Packs:
    """The pack, and another one of its size.

    Args:
        folder: Where they are written.
        ends: How readers ended, for the result.
    """

    def __init__(self, folder: Path, ends: Counter[str]) -> None:
        self.ends = ends
        counts = {"cat": ROWS // 2, "dog": ROWS // 2}
        self.one, self.other = (
            write_pack(folder / f"{name}.h5", names_in(name, counts), shape=SHAPE).read_bytes()
            for name in ("one", "two")
        )


def reader(url: str, folder: Path, rng: random.Random) -> Command:
    """Start a process that reads a pack in a random order."""
    place = folder / f"reader-{rng.getrandbits(40)}"
    place.mkdir()
    order = rng.choice(["rows", "block", "file"])
    argv = [sys.executable, "-c", READ, url, str(folder / "cache"), str(rng.randrange(9)), order]
    return Command(argv, place, {"ROWS": str(ROWS)})


def random_faults(server: RangeServer, rng: random.Random, share: float) -> None:
    """Have a share of the requests fail, each in a random way."""
    lock = threading.Lock()

    def fault(request: Sent) -> str | None:
        with lock:
            return rng.choice(FAULTS) if rng.random() < share else None

    server.fault = fault


def assert_whole(server: RangeServer, url: str, folder: Path, data: bytes) -> None:
    """Check that a reader without faults gets every row, and that the copy becomes the pack."""
    server.fault, server.delay = lambda request: None, 0.0
    for attempt in range(3):  # what a fault damaged is fetched again after it was told
        last = reader(url, folder, random.Random(attempt))
        status = last.wait()
        if status == 0:
            break
        assert status == TOLD, last.err
    assert status == 0, last.err
    pack = PackedImages(url, cache=str(folder / "cache"))
    pack.fetch()
    assert pack.copy is not None
    copy = Path(pack.copy.place.pack).read_bytes()
    assert len(copy) == len(data)
    for block in (pack.header.images, *pack.header.tables.values()):
        part = slice(block.offset, block.offset + block.nbytes)
        assert copy[part] == data[part], block


def disturbed(
    packs: Packs, folder: Path, rng: random.Random, *, act: Callable[[RangeServer, Packs, Path, random.Random], bytes]
) -> None:
    """Processes read while something happens; all of them end with right rows, an error, or the signal they got."""
    with RangeServer() as server:
        url = server.put("one.h5", packs.one)
        server.delay = rng.uniform(0, 0.03)
        readers = [reader(url, folder, rng) for _ in range(PROCESSES)]
        try:
            time.sleep(rng.uniform(0.2, 1.2))
            data = act(server, packs, folder, rng)
            for number in range(len(readers)):
                if act is kill and number:
                    readers[number].send(signal.SIGKILL)
                    time.sleep(rng.uniform(0, 0.3))
            for process in readers:
                status = process.wait()
                assert status in (0, TOLD, -signal.SIGKILL), f"status {status}: {process.err}"
                packs.ends[{0: "every row", TOLD: "an error"}.get(status, "killed")] += 1
        finally:
            for process in readers:
                process.end()
        assert_whole(server, url, folder, data)


def kill(server: RangeServer, packs: Packs, folder: Path, rng: random.Random) -> bytes:
    """All processes but one are killed, one after another."""
    return packs.one


def fail(server: RangeServer, packs: Packs, folder: Path, rng: random.Random) -> bytes:
    """The server fails from time to time."""
    random_faults(server, random.Random(rng.random()), rng.choice([0.05, 0.3]))
    return packs.one


def break_down(server: RangeServer, packs: Packs, folder: Path, rng: random.Random) -> bytes:
    """The server fails for good."""
    server.fail(rng.choice(FAULTS))
    return packs.one


def replace(server: RangeServer, packs: Packs, folder: Path, rng: random.Random) -> bytes:
    """Another pack takes the place of the one that is read."""
    server.put("one.h5", packs.other, "two")
    return packs.other


def swap(server: RangeServer, packs: Packs, folder: Path, rng: random.Random) -> bytes:
    """Two packs take turns, while the server fails from time to time."""
    random_faults(server, random.Random(rng.random()), 0.1)
    for number in range(10):
        server.put("one.h5", (packs.one, packs.other)[number % 2], str(number % 2))
        time.sleep(rng.uniform(0, 0.1))
    return packs.other


def damage(server: RangeServer, packs: Packs, folder: Path, rng: random.Random) -> bytes:
    """Pixels of the copy are lost, before any process reads them."""
    offset, count = 4096, SHAPE[0] * SHAPE[1] * SHAPE[2]
    random_faults(server, random.Random(0), 1)  # nobody comes further
    for place in (folder / "cache").glob("[0-9a-f]*"):
        if not (place / "whole").exists():
            with open(place / "pack.h5", "r+b") as file:
                file.seek(offset + rng.randrange(ROWS // 2) * count)
                file.write(bytes(count * 100))
    return packs.one


def after_a_kill(packs: Packs, folder: Path, rng: random.Random) -> None:
    """All processes are killed, and pixels of the copy are lost, as in a power failure. The next ones get every row."""
    with RangeServer() as server:
        url = server.put("one.h5", packs.one)
        server.delay = 0.02
        for _ in range(2):
            readers = [reader(url, folder, rng) for _ in range(PROCESSES)]
            time.sleep(rng.uniform(0.3, 1))
            for process in readers:
                process.send(signal.SIGKILL)
            for process in readers:
                process.wait()
            damage(server, packs, folder, rng)
            server.fault = lambda request: None
        assert_whole(server, url, folder, packs.one)


def removed(packs: Packs, folder: Path, rng: random.Random) -> None:
    """The folder of copies vanishes between passes, or while nobody but a dead process has used it."""
    with RangeServer() as server:
        url = server.put("one.h5", packs.one)
        process = reader(url, folder, rng)
        time.sleep(rng.uniform(0.3, 0.8))
        process.send(signal.SIGKILL)
        process.wait()
        shutil.rmtree(folder / "cache", ignore_errors=True)
        assert_whole(server, url, folder, packs.one)


def kinds_of(packs: Packs) -> dict[str, Fault]:
    """Return all kinds of faults."""
    acts = {"killed": kill, "failures": fail, "breakdown": break_down, "replaced": replace, "taking turns": swap}
    kinds: dict[str, Callable[..., None]] = {
        **{name: partial(disturbed, act=act) for name, act in acts.items()},
        "power failure": after_a_kill,
        "folder removed": removed,
    }
    return {name: partial(fault, packs) for name, fault in kinds.items()}


def campaign(
    folder: Path, *, faults: int, seed: int = 0, first: int = 0, only: Collection[str] = (), jobs: int = 1
) -> Result:
    """Run a campaign of faults in a folder."""
    result = Result("remote")
    kinds = kinds_of(Packs(folder, result.noted))
    return run(result, kinds, folder, faults=faults, seed=seed, first=first, only=only, jobs=jobs)


if __name__ == "__main__":
    sys.exit(command("Have things go wrong while packs elsewhere are read, and compare what is read.", 200, campaign))
