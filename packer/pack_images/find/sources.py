"""What is to be packed: a table of images, a row each."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

_TICK_NS = 2_500_000_000  # longer than the longest tick, of FAT
_HDF5 = b"\x89HDF\r\n\x1a\n"


class PackFile(NamedTuple):
    """A pack that rows are copied from, as it was when it was found."""

    path: str
    stamp: int

    def absolute(self, folder: str) -> PackFile:
        """The same for another working directory: a relative path begins at `folder`."""
        return self._replace(path=os.path.join(folder, self.path))


class PackedRow(NamedTuple):
    """An image that a pack holds already: its pixels are copied, not decoded."""

    pack: PackFile
    row: int


@dataclass(frozen=True)
class Sources:
    """The images to pack.

    Attributes:
        filenames: As stored: the path as given, `/` as separator.
        labels: The class name of each.
        paths: Where to find each: a file to open, or a row of a pack.
        columns: Name -> a text for each; `source` is the SOURCE, as given.
        passed_over: (path, reason) of what was found and is not packed.
        class_names: Classes that were found, with images or without; those of `labels` need not be among them.
        class_orders: (pack, its class names) of each pack whose classes are in another order than the sorted one.
        other_classes: Class name -> images that are no rows here, as only some classes were asked for.
        notes: What a user should know of how they were found, a line each.
    """

    filenames: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    paths: list[str | PackedRow] = field(default_factory=list)
    columns: dict[str, list[str]] = field(default_factory=lambda: {"source": []})
    passed_over: list[tuple[str, str]] = field(default_factory=list)
    class_names: list[str] = field(default_factory=list)
    class_orders: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    other_classes: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.filenames)

    def take(self, rows: Sequence[int]) -> Sources:
        """The same images in the order of `rows`."""
        return replace(
            self,
            filenames=[self.filenames[row] for row in rows],
            labels=[self.labels[row] for row in rows],
            paths=[self.paths[row] for row in rows],
            columns={name: [column[row] for row in rows] for name, column in self.columns.items()},
        )

    def of_classes(self, names: Sequence[str]) -> Sources:
        """The images of these classes alone; the others are counted."""
        wanted = set(names)
        rows = [row for row, label in enumerate(self.labels) if label in wanted]
        others = Counter(label for label in self.labels if label not in wanted)
        return replace(self.take(rows) if others else self, other_classes=dict(sorted(others.items())))

    def extend(self, other: Sources) -> None:
        """Append the images of another table; a column that one of them lacks is empty there."""
        for name in other.columns.keys() - self.columns.keys():
            self.columns[name] = [""] * len(self)
        for name, column in self.columns.items():
            column.extend(other.columns.get(name) or [""] * len(other))
        self.filenames.extend(other.filenames)
        self.labels.extend(other.labels)
        self.paths.extend(other.paths)
        self.passed_over.extend(other.passed_over)
        self.class_names.extend(other.class_names)
        self.class_orders.extend(other.class_orders)


def stamp(status: os.stat_result) -> int:
    """A number of 64 bits that is another one after a file was changed, or another one took its name.

    The time at which a file was modified can be set to anything, in any century; the time its inode changed cannot be
    set. (The hash of numbers is the same in every process of one Python; in another, files count as changed.) The
    device is left out: its number differs from machine to machine.
    """
    return hash((status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))


def file_stamp(status: os.stat_result) -> int:
    """The same of a source file on this machine; 0, which stands for no stamp, where it may change unseen from now on.

    Clocks of file systems tick: every 4 ms on a Linux disk, every 2 seconds on FAT. Two writes within a tick leave the
    same time, so a file must have stood for longer. A time in the future is no proof either.
    """
    age = time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns)
    return hash((status.st_dev, stamp(status))) if age > _TICK_NS else 0


def pack_file(path: str) -> PackFile:
    """The pack at a path.

    Raises:
        OSError: There is none.
    """
    return PackFile(path, stamp(os.stat(path)))


def is_hdf5(path: str) -> bool:
    """Whether a file is there that begins as HDF5 does."""
    if not os.path.isfile(path):
        return False
    with open(path, "rb") as file:
        return file.read(len(_HDF5)) == _HDF5
