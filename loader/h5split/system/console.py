"""Functions that the commands of both packages share: streams, signals, progress bars, error messages, arguments."""

from __future__ import annotations

import argparse
import atexit
import io
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from h5split.system.interrupts import INTERRUPTS, interrupts_held
from h5split.system.text import shown

_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def prepare() -> None:
    """Set up the process for a command.

    All standard streams are open, and stdout can print any file name. SIGTERM and SIGHUP act as Ctrl-C, unless they are
    ignored.
    """
    for descriptor in range(3):
        _open_if_closed(descriptor)
    sys.stdout, sys.stderr = _stream_or_null(sys.stdout), _stream_or_null(sys.stderr)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file name that is not UTF-8 must not fail
    for number in set(INTERRUPTS) - {signal.SIGINT}:
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores SIGHUP
            signal.signal(number, signal.default_int_handler)


class Bar:
    """A progress bar of tqdm, created at the first progress. Errors of the terminal are ignored.

    Args:
        unit: The noun for the items that are counted, such as ` images`; it follows the number directly.
        quiet: Show no bar.
        leave: Keep the bar on the screen after it is closed.
    """

    def __init__(self, unit: str, *, quiet: bool, leave: bool = False) -> None:
        self._options = {"unit": unit, "leave": leave, "unit_scale": True}
        self._quiet = quiet
        self._bar: Any = None

    def show(self, done: int, total: int, left_out: int = 0) -> None:
        """Show that `done` of `total` items are done, and that `left_out` of the done items were left out."""
        if self._quiet:
            return
        with suppress(OSError):
            if self._bar is None:
                self._bar = self._start(total)
            if left_out:
                self._bar.set_postfix_str(f"{left_out} left out", refresh=False)
            self._bar.update(done - self._bar.n)

    def _start(self, total: int) -> Any:
        from tqdm import tqdm  # imported late: pack-images does it while its workers decode

        # No monitor thread: if an interrupt leaves a lock locked, the thread waits for it forever. The thread lowers
        # miniters when updates become rare. Without it, miniters=1 makes tqdm consider every update.
        tqdm.monitor_interval = 0
        with interrupts_held():  # a half-constructed bar prints a traceback when it is garbage collected
            return tqdm(total=total, miniters=1, **self._options)

    def close(self) -> None:
        """Close the bar."""
        if self._bar is not None:
            with suppress(OSError):
                self._bar.close()


def finish() -> None:
    """Ignore interrupts while Python exits. Call this at the end of a command, after success and after failure."""
    atexit.register(end_quietly)  # functions registered last run first


def end_quietly() -> None:
    """Ignore interrupts from now on, so that none interrupts the cleanup."""
    for number in INTERRUPTS:
        signal.signal(number, signal.SIG_IGN)
    # If a KeyboardInterrupt is raised inside exec(), for instance while a dataclass is created, Python records it as
    # unhandled, even if it is handled later. `python -m` then ends by SIGINT instead of an exit status. Another exec()
    # resets the record.
    exec("")


def complain(program: str, text: str) -> None:
    """Print one line on stderr."""
    print(f"{program}: {text}", file=sys.stderr)


@contextmanager
def reader_may_leave() -> Iterator[None]:
    """Ignore a broken pipe in the block: the reader of stdout, such as head, may close it before the end.

    Raises:
        OSError: Standard output cannot be written for another reason.
    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        discard_output()
    except OSError as error:
        discard_output(1)
        raise OSError(error.errno, error.strerror, "standard output") from error


def discard_output(*descriptors: int) -> None:
    """Redirect descriptors (default: stdout and stderr) to /dev/null, because flushing them at exit would fail."""
    for descriptor in descriptors or (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)


def error_line(error: Exception) -> str:
    """An error and its notes as one line."""
    if isinstance(error, ImportError) and "\n" in str(error).strip():  # numpy's message has many lines
        error = ImportError(f"a library cannot be loaded: {error.__cause__ or error}")
    if isinstance(error, MemoryError):
        details = f" ({error})" if str(error) else ""
        return with_notes(f"too little memory{details}; end other programs, or use a machine that has more", error)
    if isinstance(error, OSError) and error.strerror:
        line = f"{shown(str(error.filename))}: {error.strerror}" if error.filename else error.strerror
    else:
        line = shown(" ".join(str(error).split()))
    return with_notes(line, error)


def with_notes(line: str, error: BaseException) -> str:
    """Append the notes of an error (`__notes__`) to a line about it."""
    return "; ".join([line, *map(shown, getattr(error, "__notes__", ()))])


def size(text: str) -> int:
    """A number of bytes, such as 500GB, for argparse.

    Raises:
        ArgumentTypeError: It is none.
    """
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) *([kMGT]?)B?", text)
    if found is None or not (number := int(float(found[1]) * _UNITS[found[2]])):
        raise argparse.ArgumentTypeError(f"expected a size such as 500GB, found {text!r}")
    return number


def whole(least: int) -> Callable[[str], int]:
    """A type for argparse that accepts whole numbers of at least `least`."""

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if number < least:
            raise argparse.ArgumentTypeError(f"expected a whole number of {least} or more, found {text!r}")
        return number

    return parse


def _stream_or_null(stream: TextIO | None) -> TextIO:
    """The stream, or one to /dev/null: Python sets a stream to None if its descriptor was closed at the start."""
    return open(os.devnull, "w", encoding="utf-8") if stream is None else stream


def _open_if_closed(descriptor: int) -> None:
    """Open /dev/null for a closed standard descriptor, because the next opened file would get its number and output."""
    try:
        os.fstat(descriptor)
    except OSError:
        os.open(os.devnull, os.O_RDWR)
