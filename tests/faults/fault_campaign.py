"""Campaigns: many faults, each in a folder of its own, and one line of JSON in the end.

A fault is a function of a random number generator that makes something go wrong and asserts what must hold
nevertheless; its kind is what it is called in the counts. Fault N of a seed is the same fault every time:
``--seed S --first N --faults 1`` repeats it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from conftest import PATIENCE, processes_of

ROOT = Path(__file__).parents[2]
TRACKER = "resource_tracker"  # of multiprocessing; it cleans up after the others, so it is never killed


class UnavailableError(Exception):
    """This machine lacks what a fault needs."""


class MissedError(Exception):
    """The fault came too late to do anything."""


Fault = Callable[[Path, random.Random], None]


@dataclass
class Result:
    """What became of a campaign.

    Attributes:
        campaign: Its name.
        faults: Kind -> how many happened and were borne.
        failures: Kind -> what was found, and how to repeat it.
        missed: Kind -> how many came too late.
        skipped: Kind -> what this machine lacks.
        noted: What else there is to tell, counted.
    """

    campaign: str
    faults: Counter[str] = field(default_factory=Counter)
    failures: dict[str, list[str]] = field(default_factory=dict)
    missed: Counter[str] = field(default_factory=Counter)
    skipped: dict[str, str] = field(default_factory=dict)
    noted: Counter[str] = field(default_factory=Counter)

    def as_json(self) -> str:
        """One line."""
        return json.dumps(
            {name: value for name, value in vars(self).items() if value or name in ("faults", "failures")}
        )


def run(
    result: Result,
    kinds: Mapping[str, Fault],
    folder: Path,
    *,
    faults: int,
    seed: int = 0,
    first: int = 0,
    jobs: int = 1,
    only: Collection[str] = (),
) -> Result:
    """Have faults happen, of every kind in turn.

    Args:
        result: Where they are counted.
        kinds: What there is.
        folder: Each fault gets a folder in it, which is removed when all is well.
        faults: How many.
        seed: Of them all.
        first: The number of the first.
        jobs: How many at a time.
        only: The kinds to try; all when there are none.

    Raises:
        SystemExit: There is no such kind.
    """
    for name in only:
        if name not in kinds:
            raise SystemExit(f"--only: expected some of {', '.join(kinds)}, found {name}")
    names = list(only or kinds)
    lock = threading.Lock()

    def one(number: int) -> None:
        name = names[number % len(names)]
        place = folder / str(number)
        place.mkdir()
        try:
            kinds[name](place, random.Random(f"{seed} {number}"))
            with lock:
                result.faults[name] += 1
        except UnavailableError as reason:
            result.skipped[name] = str(reason)
        except MissedError:
            with lock:
                result.missed[name] += 1
        except Exception as error:
            repeat = f"--seed {seed} --first {number} --faults 1" + "".join(f" --only {name!r}" for name in only)
            with lock:
                result.failures.setdefault(name, []).append(f"{repeat}: {type(error).__name__}: {error}"[:2000])
            print(f"{name} ({repeat}), in {place}", file=sys.stderr)
            traceback.print_exc()
            return
        shutil.rmtree(place, ignore_errors=True)

    with ThreadPoolExecutor(jobs) as executor:
        list(executor.map(one, range(first, first + faults)))
    return result


def parser(text: str, faults: int) -> argparse.ArgumentParser:
    """The options that campaigns have in common."""
    made = argparse.ArgumentParser(description=text)
    made.add_argument("--faults", type=int, default=faults, help="how many (%(default)s)")
    made.add_argument("--seed", type=int, default=0, help="of them (%(default)s)")
    made.add_argument("--first", type=int, default=0, help="the number of the first, to repeat one (%(default)s)")
    made.add_argument("--only", metavar="KIND", action="append", default=[], help="a kind of fault; may be repeated")
    made.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="faults at a time (%(default)s)")
    return made


def report(result: Result) -> int:
    """Print the line; the exit status."""
    print(result.as_json(), flush=True)
    return 1 if result.failures else 0


class open_folder:  # noqa: N801
    """A folder with a short name: sockets lie in it."""

    def __enter__(self) -> Path:
        self._folder = tempfile.mkdtemp(prefix="faults-")
        return Path(self._folder)

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


def environment(**more: str) -> dict[str, str]:
    """What child processes get: these sources, whatever is installed."""
    paths = [str(ROOT / name) for name in ("packer", "loader", "tests", "tests/faults")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": "1", **more}


class Command:
    """A command in a process group of its own, its output in files.

    Args:
        argv: What to run.
        folder: For its output and its temporary files.
        env: On top of `environment`.
    """

    def __init__(self, argv: Sequence[str], folder: Path, env: Mapping[str, str] | None = None) -> None:
        self._folder = folder
        temporary = folder / "tmp"
        temporary.mkdir(exist_ok=True)
        with open(folder / "stdout", "wb") as out, open(folder / "stderr", "wb") as err:
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
                cwd=folder,
                env=environment(TMPDIR=str(temporary), **(env or {})),
            )
        self.pid = self._process.pid

    @property
    def running(self) -> bool:
        """Whether the command itself still runs."""
        return self._process.poll() is None

    @property
    def out(self) -> str:
        """What it wrote to stdout."""
        return (self._folder / "stdout").read_text(errors="replace")

    @property
    def err(self) -> str:
        """What it wrote to stderr."""
        return (self._folder / "stderr").read_text(errors="replace")

    def send(self, number: int, everyone: bool = False) -> None:
        """A signal to the command, or to all of its processes but the one that cleans up."""
        victims = [pid for pid, name in self.processes() if TRACKER not in name] if everyone else [self.pid]
        for victim in victims:
            try:
                os.kill(victim, number)
            except ProcessLookupError:
                continue

    def processes(self) -> list[tuple[int, str]]:
        """(id, command line) of all its processes."""
        found = []
        for pid in processes_of(self.pid):
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as file:
                    found.append((pid, file.read().replace(b"\0", b" ").decode(errors="replace")))
            except OSError:
                continue
        return found

    def wait(self) -> int:
        """Its exit status, when all of its processes have ended."""
        deadline = time.monotonic() + PATIENCE
        try:
            status = self._process.wait(PATIENCE)
            while processes_of(self.pid):
                assert time.monotonic() < deadline, f"processes that did not end: {self.processes()}"
                time.sleep(0.005)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it did not end in {PATIENCE:.0f} s: {self.processes()}; {self.err}") from None
        finally:
            self.end()
        return status

    def end(self) -> None:
        """Kill what is left of it."""
        if self._process.poll() is None or processes_of(self.pid):
            self.send(signal.SIGKILL, everyone=True)
            self._process.wait()
