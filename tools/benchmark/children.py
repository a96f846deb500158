"""Run one measurement in a child process: measure its time, and the memory of it and its descendants."""

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
    """The result of one measurement.

    Attributes:
        result: The report of the child; empty if it failed.
        failed: The reason for a failure, or "".
        wall: Seconds from start to exit, imports included.
        seen: The report of the watched run that came before.
        memory: Phase -> bytes at the moment of its largest Pss. Pss is the total. Pss_Anon and Pss_Shmem are memory
            taken. Pss_File is pages of files (libraries and mapped data), which the system can take back at any time.
    """

    result: dict[str, object] = field(default_factory=dict)
    failed: str = ""
    wall: float = 0.0
    seen: dict[str, object] = field(default_factory=dict)
    memory: dict[str, Memory] = field(default_factory=dict)

    @property
    def peak(self) -> Memory:
        """The memory of the phase with the largest Pss."""
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
    """Run one peer for at most `limit` seconds, and kill all processes that it leaves running.

    Args:
        python: The interpreter of the peer.
        command: pack, load or fit.
        peer: The peer to measure.
        job: The fields of its Job.
        limit: Seconds after which it is killed.
        watched: Measure memory, and let the peer compare the pixels of an epoch. Both slow it down, so its times do not
            count. If False, the run is timed and not disturbed.
    """
    paths = os.pathsep.join(os.path.join(ROOT, name) for name in ("packer", "loader"))
    environment = {**os.environ, "PYTHONPATH": paths, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    environment.setdefault("PYTHONPYCACHEPREFIX", os.path.join(os.path.dirname(str(job["folder"])), "bytecode"))
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed program is compiled only once
    started = time.monotonic()
    line = [python, os.path.join(PEERS, "run.py"), command, peer.module, json.dumps(job), "--started", str(started)]
    temporary = tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True)  # some peers leave files there
    environment["TMPDIR"] = temporary.name
    with temporary, tempfile.TemporaryFile() as errors:
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
    """Read the output of the child, and sample its memory if `watched`, until it ends or its time is up."""
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
    """Wait until the process ends, but at most `seconds`. Its end is noticed at once, so its time is exact."""
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
    """Add up the memory of a process and its descendants. Keep the sum if it is the largest of this phase."""
    total = dict.fromkeys(KINDS, 0)
    for pid in process_tree(root):
        try:
            with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
                for line in file:
                    name, _, rest = line.partition(":")
                    if name in total:
                        total[name] += int(rest.split()[0]) * 1024
        except (OSError, ValueError):  # the process has ended
            continue
    if total["Pss"] > peaks.get(phase, {"Pss": 0})["Pss"]:
        peaks[phase] = total


def process_tree(root: int) -> list[int]:
    """Return the ids of a process and its descendants."""
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
    """Return the last line that names an error, or else the last line that is not empty."""
    lines = [line.strip() for line in text.decode(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if "Error" in line or "error" in line]
    return (errors or lines or [""])[-1][:200]
