"""Campaigns: run many faults, each in its own folder, and print one line of JSON at the end.

A fault is a function that uses a random number generator to make something go wrong, and asserts what must still
hold. Its kind is its name in the counts. The seed and the number N determine a fault completely:
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
TRACKER = "resource_tracker"  # a process of multiprocessing that cleans up after the others; never killed


class UnavailableError(Exception):
    """This machine lacks something that the fault needs."""


class MissedError(Exception):
    """The fault came too late to have an effect."""


Fault = Callable[[Path, random.Random], None]


@dataclass
class Result:
    """Result of a campaign.

    Attributes:
        campaign: Name of the campaign.
        faults: Kind -> number of faults that happened and were survived.
        failures: Kind -> failures, with the options that repeat them.
        missed: Kind -> number of faults that came too late.
        skipped: Kind -> what this machine lacks for the fault.
        noted: Other observations -> count.
    """

    campaign: str
    faults: Counter[str] = field(default_factory=Counter)
    failures: dict[str, list[str]] = field(default_factory=dict)
    missed: Counter[str] = field(default_factory=Counter)
    skipped: dict[str, str] = field(default_factory=dict)
    noted: Counter[str] = field(default_factory=Counter)

    def as_json(self) -> str:
        """The result as one line of JSON."""
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
    """Run faults, cycling through the kinds.

    Args:
        result: Where faults are counted.
        kinds: Kind -> fault.
        folder: Each fault gets a folder in it, which is removed unless the fault fails.
        faults: Number of faults.
        seed: Seed of the campaign.
        first: Number of the first fault.
        jobs: Number of faults at a time.
        only: Kinds to run; all if empty.

    Raises:
        SystemExit: A kind in `only` does not exist.
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
    """Return an argument parser with the options that all campaigns share."""
    made = argparse.ArgumentParser(description=text)
    made.add_argument("--faults", type=int, default=faults, help="how many (%(default)s)")
    made.add_argument("--seed", type=int, default=0, help="of them (%(default)s)")
    made.add_argument("--first", type=int, default=0, help="the number of the first, to repeat one (%(default)s)")
    made.add_argument("--only", metavar="KIND", action="append", default=[], help="a kind of fault; may be repeated")
    made.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="faults at a time (%(default)s)")
    return made


def command(text: str, faults: int, campaign: Callable[..., Result]) -> int:
    """Run a campaign that has no options of its own, as the command line says. Return the exit status."""
    given = parser(text, faults).parse_args()
    with open_folder() as folder:
        return report(campaign(folder, **vars(given)))


def report(result: Result) -> int:
    """Print the result as one line and return the exit status."""
    print(result.as_json(), flush=True)
    return 1 if result.failures else 0


class open_folder:  # noqa: N801
    """A temporary folder with a short path, as paths of sockets are limited in length."""

    def __enter__(self) -> Path:
        self._folder = tempfile.mkdtemp(prefix="faults-")
        return Path(self._folder)

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


def environment(**more: str) -> dict[str, str]:
    """Environment of child processes: they import these sources, not an installed version."""
    paths = [str(ROOT / name) for name in ("packer", "loader", "tests", "tests/faults")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": "1", **more}


class Command:
    """A command in its own process group, with its output in files.

    Args:
        argv: Command line.
        folder: Where its output and temporary files go.
        env: Variables added to `environment`.
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
        """The stdout of the command so far."""
        return (self._folder / "stdout").read_text(errors="replace")

    @property
    def err(self) -> str:
        """The stderr of the command so far."""
        return (self._folder / "stderr").read_text(errors="replace")

    def send(self, number: int, everyone: bool = False) -> None:
        """Send a signal to the command, or to all its processes except the resource tracker."""
        victims = [pid for pid, name in self.processes() if TRACKER not in name] if everyone else [self.pid]
        for victim in victims:
            try:
                os.kill(victim, number)
            except ProcessLookupError:
                continue

    def processes(self) -> list[tuple[int, str]]:
        """The (id, command line) of each process in the group."""
        found = []
        for pid in processes_of(self.pid):
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as file:
                    found.append((pid, file.read().replace(b"\0", b" ").decode(errors="replace")))
            except OSError:
                continue
        return found

    def wait(self) -> int:
        """Wait until all processes of the command have ended, and return its exit status."""
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
        """Kill the processes that still run."""
        if self._process.poll() is None or processes_of(self.pid):
            self.send(signal.SIGKILL, everyone=True)
            self._process.wait()
