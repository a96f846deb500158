"""The entry points of the commands.

They import little, so that Ctrl-C during the slow imports of a command also prints one line and no traceback.
"""

from __future__ import annotations

import sys
from importlib import import_module


def h5split() -> int:
    """Run `h5split`."""
    return start("h5split", "h5split.cli")


def start(program: str, module: str) -> int:
    """Import a command and run it.

    Args:
        program: The name of the command.
        module: The module with its `main` function.

    Returns:
        The exit status of the command; 130 if it was interrupted before it began.
    """
    try:
        status: int = import_module(module).main()
    except KeyboardInterrupt:  # during the import; `main` handles its own
        import signal

        signal.signal(signal.SIGINT, signal.SIG_IGN)
        sys.stderr.write(f"{program}: interrupted\n")
        return 130
    return status
