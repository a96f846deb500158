"""Properties of this machine: processors, memory, and the encoding of file names."""

from __future__ import annotations

import os
import sys

from h5split.errors import ArgumentError


def cores() -> int:
    """The number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_can_pack() -> None:
    """Raise unless this system can pack folders of images.

    Worker processes are forked, files are locked, and an open file is renamed. Windows has none of these.

    Raises:
        ValueError: It cannot.
    """
    if sys.platform == "win32":
        raise ArgumentError(
            "packing files: expected Linux, macOS or WSL, found Windows; `wsl --install` installs WSL, where the same "
            "command works; Windows reads packs, trains from them, and makes packs of arrays with pack_images.write()"
        )


def check_names() -> None:
    """Raise unless Python decodes file names as UTF-8, the encoding in packs.

    In a locale with another encoding, Python would decode the bytes of a name to the wrong letters.

    Raises:
        ValueError: Python uses another encoding for file names.
    """
    found = sys.getfilesystemencoding()
    if found.lower() not in ("utf-8", "utf8"):
        raise ArgumentError(
            f"expected file names in UTF-8, found the encoding {found} of this locale, in which other names would be "
            "stored or written; set PYTHONUTF8=1, or LC_ALL=C.UTF-8, in the environment and run it again"
        )


def free_memory() -> int | None:
    """The memory in bytes that the page cache can use without swapping; None if the system cannot say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            lines = dict(line.split(":") for line in file)
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None
