"""One measurement in a process of its own: how long it took, and the memory of it and its children."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from benchmark.environments import PEERS, Peer

ROOT = os.path.dirname(os.path.dirname(PEERS))
KINDS = ("Pss", "Pss_Anon", "Pss_Shmem", "Pss_File")
SAMPLE_SECONDS = 0.1
GRACE_SECONDS = 10

Memory = dict[str, int]


@dataclass
class Outcome:
    """What came of it.

    Attributes:
        result: What the child reports.
        failed: Why it reports nothing.
        wall: Seconds from start to exit, imports and all.
        seen: What the watched run before it delivered.
        memory: Phase -> the bytes there were when most were used: Pss is all; Pss_Anon and Pss_Shmem are memory that is
            taken, Pss_File pages of files (of libraries and of mapped data, which the system takes back at will).
    """

    result: dict[str, object] = field(default_factory=dict)
    failed: str = ""
    wall: float = 0.0
    seen: dict[str, object] = field(default_factory=dict)
    memory: dict[str, Memory] = field(default_factory=dict)

    @property
    def peak(self) -> Memory:
        """The largest of all phases."""
        return max(self.memory.values(), key=lambda memory: memory["Pss"], default=dict.fromkeys(KINDS, 0))


def measure(
    python: str,
    command: str,
    peer: Peer,
    job: Mapping[str, object],
    limit: float,
    *,
    watched: bool,
) -> Outcome:
    """Run one peer; whatever it leaves running is ended, and it ends within `limit` seconds.

    Args:
        python: The peer's.
        command: pack, load or fit.
        peer: Whom to measure.
        job: What it is asked to do.
        limit: Seconds.
        watched: Look at its memory, and have it compare the pixels of an epoch, which takes time from it; else it is
            timed and left alone.
    """
    paths = os.pathsep.join(os.path.join(ROOT, name) for name in ("packer", "loader"))
    environment = {**os.environ, "PYTHONPATH": paths, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    environment["PYTHONPYCACHEPREFIX"] = os.path.join(os.path.dirname(str(job["folder"])), "bytecode")
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # whoever installs a program has it compiled once
    started = time.monotonic()
    line = [python, os.path.join(PEERS, "run.py"), command, peer.module, json.dumps(job), "--started", str(started)]
    own = tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True)  # some leave files there behind
    environment["TMPDIR"] = own.name
    with own, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            line + ["--watched"] * watched,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment,
            start_new_session=True,
        )
        try:
            outcome = watch(process, started, limit, watched)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if not outcome.result and not outcome.failed:
            errors.seek(0)
            outcome.failed = last_line(errors.read()) or f"ended with status {process.returncode} and no result"
    return outcome


def watch(process: subprocess.Popen[bytes], started: float, limit: float, watched: bool) -> Outcome:
    """Read what the child says, look at its memory where that is wanted, until its time is over."""
    outcome = Outcome()
    phase = ["start"]
    listener = threading.Thread(target=listen, args=(process, phase, outcome), daemon=True)
    listener.start()
    deadline = started + limit
    while process.poll() is None:
        if watched and phase[0] != "check":
            sample(process.pid, phase[0], outcome.memory)
        if phase[0] == "done":
            deadline = min(deadline, time.monotonic() + GRACE_SECONDS)
            phase[0] = "check"
        if time.monotonic() > deadline:
            outcome.failed = "" if outcome.result else f"stopped after {limit:.0f} s, while it was at: {phase[0]}"
            break
        wait(process, SAMPLE_SECONDS)
    outcome.wall = time.monotonic() - started
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    listener.join(GRACE_SECONDS)
    return outcome


def wait(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Until it ends, so that its time is known well, or so long."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)


def listen(process: subprocess.Popen[bytes], phase: list[str], outcome: Outcome) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        word, _, rest = line.decode().strip().partition(" ")
        if word == "phase":
            phase[0] = rest
        elif word == "result":
            outcome.result = json.loads(rest)
            phase[0] = "done"


def sample(root: int, phase: str, peaks: dict[str, Memory]) -> None:
    """Add up the memory of a process and all below it; keep it if it is the most of this phase."""
    total = dict.fromkeys(KINDS, 0)
    for pid in family(root):
        try:
            with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
                for line in file:
                    name, _, rest = line.partition(":")
                    if name in total:
                        total[name] += int(rest.split()[0]) * 1024
        except (OSError, ValueError):  # it has ended
            continue
    if total["Pss"] > peaks.get(phase, {"Pss": 0})["Pss"]:
        peaks[phase] = total


def family(root: int) -> list[int]:
    """A process and all below it."""
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        try:
            for task in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as file:
                    waiting += [int(child) for child in file.read().split()]
        except OSError:
            continue
    return found


def last_line(text: bytes) -> str:
    """The last line of an error message that says something."""
    lines = [line.strip() for line in text.decode(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if "Error" in line or "error" in line]
    return (errors or lines or [""])[-1][:200]
