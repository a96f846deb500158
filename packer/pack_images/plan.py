"""Sources and settings -> what will be written where. Pure: nothing is read, nothing written."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import gcd
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from h5split.rows import Rows, stratified_order
from pack_images import MAX_PIXELS
from pack_images.errors import PackError
from pack_images.scan import Labels
from pack_images.sources import PackedRow, PackFile, Sources

CHANNELS = {"rgb": 3, "grayscale": 1, "rgba": 4}
FITS = ("stretch", "crop", "pad")
INTERPOLATIONS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
ORDERS = ("stratified", "sorted")
_TASK_BYTES = 4 << 20  # of pixels: a fraction of a second's work, so that workers end together
_LEAST_TASKS = 64
_REMOTE_TASK_BYTES = 16 << 20  # a scheduler takes 4 ms for a task
_LEAST_REMOTE_TASKS = 32
PAGE = 4096
_ROW_TABLE_BYTES = 4 + 8 + 32 + 16  # a row's label, checksum, digest, and what its picture lost
_HASHED_TOGETHER = 10_000
_HEADING_BYTES = 1 << 16  # for names of classes, settings and HDF5's own

Fit = Literal["stretch", "crop", "pad"]
Interpolation = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
Color = Literal["rgb", "grayscale", "rgba"]
Order = Literal["stratified", "sorted"]
Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Pixels:
    """How a picture becomes a row.

    Attributes:
        size: (width, height) stored; None where every image has the same size already.
        fit: How another aspect ratio is fitted: `stretch`, `crop` (centred) or `pad` (with black).
        interpolation: One of Pillow's filters, antialiased.
        color: `rgb`, `grayscale` or `rgba`.
        exact: Never decode at a reduced size.
        max_pixels: A picture of more pixels is refused.
    """

    size: tuple[int, int] | None = None
    fit: Fit = "stretch"
    interpolation: Interpolation = "bilinear"
    color: Color = "rgb"
    exact: bool = False
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        _check_known("fit", self.fit, FITS)
        _check_known("interpolation", self.interpolation, INTERPOLATIONS)
        _check_known("color", self.color, tuple(CHANNELS))
        if self.size is not None and not (
            len(self.size) == 2 and all(isinstance(side, int) and 0 < side < 1 << 16 for side in self.size)
        ):
            raise PackError(f"size: expected a width and a height from 1 to 65535, found {self.size!r}")
        if self.max_pixels < 1:
            raise PackError(f"max_pixels: expected 1 or more, found {self.max_pixels}")

    @property
    def shape(self) -> Shape | None:
        """(H, W, C) of a row; None where the size is that of the images."""
        return None if self.size is None else (self.size[1], self.size[0], CHANNELS[self.color])


@dataclass(frozen=True)
class Settings:
    """Everything a user chose that decides what the file holds; kept in it as JSON."""

    pixels: Pixels
    labels: Labels = "auto"
    order: Order = "stratified"
    seed: int = 0

    def __post_init__(self) -> None:
        _check_known("order", self.order, ORDERS)
        if not isinstance(self.seed, int) or self.seed < 0:
            raise PackError(f"seed: expected a whole number of 0 or more, found {self.seed!r}")

    def as_json(self) -> dict[str, Any]:
        """The settings by name, those of the pixels among them."""
        values = asdict(self)
        pixels: dict[str, Any] = values.pop("pixels")
        return pixels | values


@dataclass(frozen=True)
class Place:
    """Where rows go: picklable, and all that a worker needs to know of the file.

    Attributes:
        pixels: Path of the partial file.
        journal: Path of the journal.
        identity: Of the plan, which the journal must be of.
        offset: Of row 0 in the partial file.
        stride: Bytes of a row.
    """

    pixels: str
    journal: str
    identity: str
    offset: int
    stride: int


@dataclass(frozen=True)
class Task:
    """Rows `first` to `first + len(paths)`: picklable, and without a pixel in it.

    Attributes:
        place: Where rows go.
        first: The first row.
        paths: The source of each row: a file to decode, or a row of a pack to copy.
        how: How a picture becomes a row.
        shape: (H, W, C) of a row.
        reuse: A pack of the same settings: rows of it are copied where a source file's digest is the same.
    """

    place: Place
    first: int
    paths: tuple[str | PackedRow, ...]
    how: Pixels
    shape: Shape
    reuse: PackFile | None

    def absolute(self, folder: str) -> Task:
        """The same for a worker with another working directory: relative paths begin at `folder`."""
        place = replace(
            self.place,
            pixels=os.path.join(folder, self.place.pixels),
            journal=os.path.join(folder, self.place.journal),
        )
        paths = tuple(
            path._replace(pack=path.pack.absolute(folder))
            if isinstance(path, PackedRow)
            else os.path.join(folder, path)
            for path in self.paths
        )
        reuse = None if self.reuse is None else self.reuse.absolute(folder)
        return replace(self, place=place, paths=paths, reuse=reuse)


@dataclass(frozen=True)
class Filled:
    """What became of a task.

    Attributes:
        rows: How many rows it had.
        kept: How many of them an interrupted run had written already.
        copied: How many came out of a pack.
        failures: (row, reason) of each that cannot be decoded.
    """

    rows: int
    kept: int
    copied: int
    failures: tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class Plan:
    """The rows of the file in the order they will have.

    Attributes:
        sources: N images.
        labels: int32 (N,), indices into `class_names`.
        class_names: Sorted.
        shape: (H, W, C) of a row.
        settings: What decided all this.
        missing: Files of tables that are not there, and will be left out.
    """

    sources: Sources
    labels: NDArray[np.int32]
    class_names: Sequence[str]
    shape: Shape
    settings: Settings
    missing: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.sources)

    @property
    def stride(self) -> int:
        """Bytes of a row."""
        height, width, channels = self.shape
        return height * width * channels

    @property
    def table_bytes(self) -> int:
        """About so many bytes come after the pixels."""
        texts = [self.sources.filenames, *self.sources.columns.values()]
        longest = sum(max(len(text.encode("utf-8", "surrogateescape")) for text in column) for column in texts)
        return len(self) * (longest + _ROW_TABLE_BYTES) + _HEADING_BYTES

    @property
    def counts(self) -> dict[str, int]:
        """Class name -> rows planned."""
        counts = np.bincount(self.labels, minlength=len(self.class_names)).tolist()
        return dict(zip(self.class_names, counts, strict=True))

    def tasks(self, place: Place, reuse: PackFile | None = None, *, remote: bool = False) -> Iterator[Task]:
        """The work: ranges of rows of a few megabytes that begin on page boundaries where rows allow.

        Args:
            place: Where rows go.
            reuse: As for `Task`.
            remote: Fewer and larger ones, for a scheduler.
        """
        most, least = (_REMOTE_TASK_BYTES, _LEAST_REMOTE_TASKS) if remote else (_TASK_BYTES, _LEAST_TASKS)
        whole_pages = PAGE // gcd(PAGE, self.stride)
        size = max(1, min(most // self.stride, -(-len(self) // least)))
        size = -(-size // whole_pages) * whole_pages if size >= whole_pages else size
        for first in range(0, len(self), size):
            paths = tuple(self.sources.paths[first : first + size])
            yield Task(place, first, paths, self.settings.pixels, self.shape, reuse)

    def identity(self, packed_by: Mapping[str, str]) -> str:
        """A digest of all that decides the bytes of the file, but for the sources' own bytes."""
        digest = hashlib.sha256()
        columns = sorted(self.sources.columns.items())
        names = [name for name, _ in columns]
        facts = [self.settings.as_json(), self.shape, self.class_names, dict(packed_by), names]
        digest.update(json.dumps(facts, sort_keys=True).encode())
        digest.update(self.labels.tobytes())
        for texts in (self.sources.filenames, *(texts for _, texts in columns)):
            for first in range(0, len(texts), _HASHED_TOGETHER):
                digest.update("\0".join(texts[first : first + _HASHED_TOGETHER]).encode("utf-8", "surrogateescape"))
        for path, filename in zip(self.sources.paths, self.sources.filenames, strict=True):
            if path != filename:
                where = path if isinstance(path, str) else (path.pack.path, path.row)
                digest.update(repr(where).encode("utf-8", "surrogateescape"))
        return digest.hexdigest()


def plan(sources: Sources, settings: Settings, shape: Shape, missing: Sequence[str] = ()) -> Plan:
    """Decide the order of the rows and the number of each class."""
    class_names = sorted(set(sources.labels))
    number = {name: index for index, name in enumerate(class_names)}
    labels = np.fromiter((number[name] for name in sources.labels), np.int32, len(sources.labels))
    rows = np.arange(len(labels)) if settings.order == "sorted" else stratified_order(labels, settings.seed)
    return Plan(sources.take(rows.tolist()), labels[rows], class_names, shape, settings, missing)


def survivors(count: int, failed: Sequence[int], order: Order) -> Rows:
    """Which planned row each final row holds when some could not be written: int64 (count - len(failed),).

    In stratified order the last rows move into the gaps, so that one broken file costs one row's copy; in sorted order
    all rows move up.

    Args:
        count: Rows planned.
        failed: Those that could not be written.
        order: Of the plan.
    """
    if order == "sorted":
        return np.delete(np.arange(count), np.asarray(failed, np.int64))
    rows = np.arange(count - len(failed))
    gone = np.zeros(count, np.bool_)
    gone[np.asarray(failed, np.int64)] = True
    rows[gone[: len(rows)]] = len(rows) + np.flatnonzero(~gone[len(rows) :])
    return rows


def _check_known(name: str, value: object, known: Sequence[str]) -> None:
    if value not in known:
        raise PackError(f"{name}: expected one of {', '.join(known)}, found {value!r}")
