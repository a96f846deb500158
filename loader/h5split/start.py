"""Where the commands begin: Ctrl-C while the rest is still being loaded is one line, too."""

from __future__ import annotations

import sys
from importlib import import_module


def h5split() -> int:
    """Run `h5split`."""
    return start("h5split", "h5split.cli")


def start(program: str, module: str) -> int:
    """Load a command and run it.

    Args:
        program: Its name.
        module: Where its `main` is.

    Returns:
        Its exit status; 130 if it was interrupted before it began.
    """
    try:
        status: int = import_module(module).main()
    except KeyboardInterrupt:  # `main` says so itself
        import signal

        signal.signal(signal.SIGINT, signal.SIG_IGN)
        sys.stderr.write(f"{program}: interrupted\n")
        return 130
    return status
