"""What the commands of both packages have in common: streams, signals, progress, errors on one line, whole numbers."""

from __future__ import annotations

import argparse
import atexit
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from h5split.system.interrupts import INTERRUPTS, interrupts_held
from h5split.system.text import shown


def prepare() -> None:
    """Make the process a command: it can print any name; SIGTERM and SIGHUP, unless ignored, act as Ctrl-C."""
    for descriptor in range(3):
        _open_if_closed(descriptor)
    sys.stdout, sys.stderr = _there(sys.stdout), _there(sys.stderr)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file name is no reason to fail
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as SIGHUP is under nohup
            signal.signal(number, signal.default_int_handler)


class Bar:
    """Progress as a tqdm bar, made when there is something to show; errors of the terminal are ignored.

    Args:
        unit: What is counted.
        quiet: Show no bar.
        leave: Leave the bar on the screen when it is closed.
    """

    def __init__(self, unit: str, *, quiet: bool, leave: bool = False) -> None:
        self._options = {"unit": unit, "leave": leave, "unit_scale": True}
        self._quiet = quiet
        self._bar: Any = None

    def show(self, done: int, total: int, left_out: int = 0) -> None:
        """Show that `done` of `total` are done, `left_out` of them left out."""
        if self._quiet:
            return
        with suppress(OSError):
            if self._bar is None:
                self._bar = self._start(total)
            if left_out:
                self._bar.set_postfix_str(f"{left_out} left out", refresh=False)
            self._bar.update(done - self._bar.n)

    def _start(self, total: int) -> Any:
        from tqdm import tqdm  # loaded late: pack-images has the time while its workers decode

        # No monitor thread: it may wait for ever for a lock that an interrupt has left locked. That thread lowers
        # miniters when updates become rare; miniters=1 makes every update count instead.
        tqdm.monitor_interval = 0
        with interrupts_held():  # a half-made bar prints a traceback when it is collected
            return tqdm(total=total, miniters=1, **self._options)

    def close(self) -> None:
        """Stop drawing."""
        if self._bar is not None:
            with suppress(OSError):
                self._bar.close()


def finish() -> None:
    """Call this when the work is over, well or badly: interrupts are ignored while Python exits."""
    atexit.register(end_quietly)  # functions registered last run first


def end_quietly() -> None:
    """Ignore interrupts from now on, so that none disturbs the cleaning up."""
    for number in INTERRUPTS:
        signal.signal(number, signal.SIG_IGN)
    # Python remembers a KeyboardInterrupt raised inside exec(), as where a dataclass is made, as unhandled even if it
    # was handled, and `python -m` then ends by SIGINT and not with a status. Another exec() resets that.
    exec("")


def complain(program: str, text: str) -> None:
    """Print one line on stderr."""
    print(f"{program}: {text}", file=sys.stderr)


@contextmanager
def reader_may_leave() -> Iterator[None]:
    """Print in the block; a reader such as head may close the pipe before the end."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        discard_output()
    except OSError as error:
        discard_output(1)
        raise OSError(error.errno, error.strerror, "standard output") from error


def discard_output(*descriptors: int) -> None:
    """Discard what is still written to these descriptors (stdout and stderr): else Python complains when it exits."""
    for descriptor in descriptors or (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)


def error_line(error: Exception) -> str:
    """An error as one line, with its notes."""
    if isinstance(error, ImportError) and "\n" in str(error).strip():  # numpy's is an essay
        error = ImportError(f"a library cannot be loaded: {error.__cause__ or error}")
    if isinstance(error, MemoryError):
        what = f" ({error})" if str(error) else ""
        return with_notes(f"too little memory{what}; end other programs, or use a machine that has more", error)
    if isinstance(error, OSError) and error.strerror:
        line = f"{shown(str(error.filename))}: {error.strerror}" if error.filename else error.strerror
    else:
        line = shown(" ".join(str(error).split()))
    return with_notes(line, error)


def with_notes(line: str, error: BaseException) -> str:
    """A line about an error, and the notes that were added to it."""
    return "; ".join([line, *map(shown, getattr(error, "__notes__", ()))])


def whole(least: int) -> Callable[[str], int]:
    """A type for argparse: whole numbers of `least` or more."""

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if number < least:
            raise argparse.ArgumentTypeError(f"expected a whole number of {least} or more, found {text!r}")
        return number

    return parse


def _there(stream: TextIO | None) -> TextIO:
    """The stream, or one that discards: Python has none for a descriptor that was closed at the start."""
    return open(os.devnull, "w", encoding="utf-8") if stream is None else stream


def _open_if_closed(descriptor: int) -> None:
    """Open /dev/null as a standard stream that is closed: else the next file opened would take its number."""
    try:
        os.fstat(descriptor)
    except OSError:
        os.open(os.devnull, os.O_RDWR)
