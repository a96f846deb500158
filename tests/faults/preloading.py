"""Faults at a chosen system call: compiles the library preload.c and controls it through shared memory."""

from __future__ import annotations

import mmap
import shutil
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from fault_campaign import PATIENCE, MissedError, UnavailableError

_STATE = struct.Struct("<qqqq")  # number of calls, first process, number of faults, release
EVERY = 1 << 40  # value of `times` that no command reaches


def compiled(folder: Path) -> Path:
    """Compile the library in a folder and return its path.

    Raises:
        UnavailableError: There is no compiler, or the system is not Linux.
    """
    compiler, library = shutil.which("cc"), folder / "preload.so"
    if compiler is None:
        raise UnavailableError("needs a C compiler, cc")
    source = Path(__file__).with_name("preload.c")
    done = subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], capture_output=True, text=True
    )
    if done.returncode:
        raise UnavailableError(f"needs to compile preload.c: {done.stderr.strip().splitlines()[0]}")
    return library


class Trap:
    """A fault that happens at a system call.

    Args:
        library: From `compiled`.
        folder: Where the file shared by the processes goes.
        call: Name of the call, such as `read`; see preload.c.
        text: Text in the path of the file.
        action: The fault; see preload.c.
        value: Argument of the action.
        first: Number of the first call that fails.
        times: Number of calls that fail.
    """

    def __init__(
        self,
        library: Path,
        folder: Path,
        call: str,
        text: str,
        action: str,
        value: int = 0,
        *,
        first: int = 1,
        times: int = 1,
    ) -> None:
        path = folder / "state"
        path.write_bytes(bytes(64))
        path.chmod(0o666)
        with open(path, "r+b") as file:
            self._state = mmap.mmap(file.fileno(), 64)
        self.env = {
            "LD_PRELOAD": str(library),
            "FAULT": f"{call},{text},{first},{times},{action},{value}",
            "FAULT_STATE": str(path),
        }

    @property
    def calls(self) -> int:
        """Number of matching calls so far."""
        return int(_STATE.unpack_from(self._state)[0])

    @property
    def sprung(self) -> bool:
        """Whether the fault has happened."""
        return bool(_STATE.unpack_from(self._state)[2])

    def await_call(self, running: Callable[[], bool]) -> None:
        """Wait until a process has reached the call and waits for `release`.

        Raises:
            MissedError: The command ended without the call.
        """
        deadline = time.monotonic() + PATIENCE
        while not self.sprung:
            if not running() or time.monotonic() > deadline:
                raise MissedError
            time.sleep(0.001)

    def release(self) -> None:
        """Let the call proceed, and all later ones."""
        struct.pack_into("<q", self._state, 24, 1)
