"""A table of the images to pack, one row for each; and stamps that show whether a file has changed."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import BinaryIO, NamedTuple

from h5split.file.classes import UNLABELLED
from pack_images.settings import Pixels

_MAX_CLOCK_TICK_NS = 2_500_000_000  # longer than the tick of any file system; FAT's is the longest, 2 s
_NAMES = """
    apng avif avifs bmp bw cur dcx dds dib flc fli ftc ftu gif icb icns ico im j2c j2k jfif jp2 jpc jpe jpeg jpf jpg jpx
    mpo msp pbm pcx pfm pgm png pnm ppm psd qoi ras rgb rgba sgi tga tif tiff vda vst webp xbm xpm
"""
EXTENSIONS = frozenset(_NAMES.split())
_HEIF = frozenset(("heic", "heics", "heif", "heifs", "hif"))  # with pillow-heif
_ARRAYS = frozenset(("npy", "npz"))  # where values are stored as they are
_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


class PackFile(NamedTuple):
    """A pack to copy rows from, with its stamp at the time when it was found."""

    path: str
    stamp: int

    def absolute(self, folder: str) -> PackFile:
        """Return it with an absolute path, for another working directory. A relative path starts at `folder`."""
        return self._replace(path=os.path.join(folder, self.path))


class PackedRow(NamedTuple):
    """An image in a pack. Its pixels are copied, not decoded."""

    pack: PackFile
    row: int


@dataclass(frozen=True)
class Sources:
    """The images to pack.

    Attributes:
        filenames: The file name to store for each image: the path as given, with `/` as separator.
        labels: The class name of each image.
        paths: The location of each image: a file to open, or a row of a pack.
        columns: Column name -> a text for each image. `source` is the SOURCE, as given.
        passed_over: (path, reason) of everything found that is not packed.
        class_names: Classes that were found, with or without images. The names in `labels` may be missing here.
        class_numbers: (SOURCE, class name -> number) of each SOURCE that numbers its classes itself: a pack whose class
            names are not sorted, or a folder that the user's own reader lists.
        labelled: The SOURCES that bring labels of their own, so that no rule for folders applies to them: packs, tables
            with labels, and folders that the user's own reader lists.
        other_classes: Class name -> number of images left out because the user asked for other classes.
        notes: What the user should know about the search, one line each.
        lacking: (filename, reason) of each row of another pack that has no file here; see `find.like`.
    """

    filenames: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    paths: list[str | PackedRow] = field(default_factory=list)
    columns: dict[str, list[str]] = field(default_factory=lambda: {"source": []})
    passed_over: list[tuple[str, str]] = field(default_factory=list)
    class_names: list[str] = field(default_factory=list)
    class_numbers: list[tuple[str, dict[str, int]]] = field(default_factory=list)
    labelled: list[str] = field(default_factory=list)
    other_classes: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    lacking: list[tuple[str, str]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.filenames)

    def take(self, rows: Sequence[int]) -> Sources:
        """Return the images of `rows`, in that order."""
        return replace(
            self,
            filenames=[self.filenames[row] for row in rows],
            labels=[self.labels[row] for row in rows],
            paths=[self.paths[row] for row in rows],
            columns={name: [column[row] for row in rows] for name, column in self.columns.items()},
        )

    def of_classes(self, names: Sequence[str]) -> Sources:
        """Return only the images of these classes. The others are counted in `other_classes`."""
        wanted = set(names)
        rows = [row for row, label in enumerate(self.labels) if label in wanted]
        others = Counter(label for label in self.labels if label not in wanted)
        return replace(self.take(rows) if others else self, other_classes=dict(sorted(others.items())))

    def unlabelled(self) -> Sources:
        """Return the same images without labels: all are of the one class `unlabelled`."""
        return replace(self, labels=[UNLABELLED] * len(self), class_names=[], class_numbers=[])

    def extend(self, other: Sources) -> None:
        """Append the images of another table. A column that one of the tables lacks becomes empty texts there."""
        for name in other.columns.keys() - self.columns.keys():
            self.columns[name] = [""] * len(self)
        for name, column in self.columns.items():
            column.extend(other.columns.get(name) or [""] * len(other))
        self.filenames.extend(other.filenames)
        self.labels.extend(other.labels)
        self.paths.extend(other.paths)
        self.passed_over.extend(other.passed_over)
        self.class_names.extend(other.class_names)
        self.class_numbers.extend(other.class_numbers)
        self.labelled.extend(other.labelled)
        self.notes.extend(other.notes)


def extensions_of(how: Pixels) -> frozenset[str] | None:
    """Return the extensions of files that can be packed, in lower case. None: any file, as the user's decoder may."""
    if how.decoder is not None:
        return None
    heif = _HEIF if find_spec("pillow_heif") else frozenset()
    return EXTENSIONS | heif | (_ARRAYS if how.keeps_values or how.range else frozenset())


def has_image_extension(name: str, extensions: Collection[str] | None = EXTENSIONS) -> bool:
    """Return whether a file has the extension of an image that can be packed. `extensions` None: any has."""
    return extensions is None or name.rpartition(".")[2].lower() in extensions


def stamp(status: os.stat_result) -> int:
    """Return a 64-bit number that changes when a file is modified or replaced by another of the same name.

    A user can set the modification time of a file to anything, but not the change time of its inode, so both are used.
    The number of the device is not used, because it differs between machines. The hash of integers is the same in every
    process of one Python; in another Python, files count as changed.
    """
    return hash((status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))


def file_stamp(status: os.stat_result) -> int:
    """Return the stamp of a source file on this machine; 0 (no stamp) if a later change might not show.

    The clock of a file system ticks every 4 ms on a Linux disk and every 2 seconds on FAT. Two writes within one tick
    leave the same time. So a file gets a stamp only if it has been unchanged for longer than a tick. A time in the
    future proves nothing either.
    """
    modified, changed = status.st_mtime_ns, status.st_ctime_ns
    if max(modified, changed) > time.time_ns() - _MAX_CLOCK_TICK_NS:
        return 0
    return hash((status.st_dev, status.st_ino, status.st_size, modified, changed))


def pack_file(path: str) -> PackFile:
    """Return the pack at a path, with its present stamp.

    Raises:
        OSError: There is no file.
    """
    return PackFile(path, stamp(os.stat(path)))


def is_pack(file: BinaryIO) -> bool:
    """Return whether an open file is a pack. The reader of packs, which takes 10 ms to load, is loaded for it."""
    from h5split.file.format import is_pack as is_pack_file

    return is_pack_file(file)


def is_hdf5(path: str) -> bool:
    """Return whether a path is a file with the signature of HDF5."""
    if not os.path.isfile(path):
        return False
    with open(path, "rb") as file:
        return file.read(len(_HDF5_SIGNATURE)) == _HDF5_SIGNATURE
