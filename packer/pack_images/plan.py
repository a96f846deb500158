"""Sources and settings -> what will be written where. Pure: nothing is read, nothing written."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from h5split.order.rows import Rows, stratified_order
from pack_images.errors import PackError
from pack_images.find.sources import PackedRow, PackFile, Sources
from pack_images.settings import Order, Pixels, Settings, Shape

_TASK_BYTES = 4 << 20  # of pixels: a fraction of a second's work, so that workers end together
_LEAST_TASKS = 64
_REMOTE_TASK_BYTES = 16 << 20  # a scheduler takes 4 ms for a task
_LEAST_REMOTE_TASKS = 32
PAGE = 4096
_ROW_TABLE_BYTES = 4 + 8 + 32 + 16  # a row's label, checksum, digest, and what its picture lost
_TOGETHER = 10_000  # texts that are looked at at once
_MOST_COLUMNS = 10_000  # with _MOST_COLUMN_BYTES what h5split.file.hdf5 reads: 14 of 16 MB of metadata
_MOST_COLUMN_BYTES = 1 << 20
_LONGEST = (1 << 31) - 1  # bytes of a row and of a text, as numpy's items have no more
_MUCH_TEXT = 16_000_000  # bytes that a column may take without a word
_TIMES = 4  # as many as its texts have
_NAMED = 10  # of a list that may be long
_SHOWN = 40  # characters of a text
_HEADING_BYTES = 1 << 16  # for names of classes, settings and HDF5's own


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
        class_names: As `settings` give them, as a pack among the sources has them, or else sorted.
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
        longest = sum(map(_longest, self._texts().values()))
        return len(self) * (longest + _ROW_TABLE_BYTES) + _HEADING_BYTES

    @property
    def warnings(self) -> list[str]:
        """What a user should know before it is packed, a line each."""
        return [*self.sources.notes, *self._class_warnings(), *self._size_warnings()]

    def _class_warnings(self) -> Iterator[str]:
        empty = [name for name, count in self.counts.items() if not count]
        if empty:
            yield f"classes without images, which keep their numbers: {_some(empty)}"
        others = self.sources.other_classes
        if others:
            number = sum(others.values())
            images = "image" if number == 1 else "images"
            yield f"passed over: {number:,} {images} of classes that were not asked for: {_some([*others])}"

    def _size_warnings(self) -> Iterator[str]:
        """Each row of a column takes as much room as the longest."""
        for name, texts in self._texts().items():
            longest = _longest(texts)
            room = len(texts) * longest
            if room <= max(_MUCH_TEXT, _TIMES * sum(map(len, texts))):  # characters, which are no more than the bytes
                continue
            sizes = [*map(_nbytes, texts)]
            if room > _TIMES * sum(sizes):
                longest_of = self.sources.filenames[sizes.index(longest)]
                yield (
                    f"{name}: {room / 1e6:,.0f} MB in the file for {sum(sizes) / 1e6:,.1f} MB of text, as every row "
                    f"has room for the longest, the {longest:,} bytes of {longest_of}; "
                    "shorten it, or leave the column out"
                )

    def _texts(self) -> dict[str, list[str]]:
        """What is stored as text of every row, by names for people."""
        columns = {f"column {name!r}": texts for name, texts in self.sources.columns.items()}
        return {"the names of files": self.sources.filenames, **columns}

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
        whole_pages = PAGE // math.gcd(PAGE, self.stride)
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
            for first in range(0, len(texts), _TOGETHER):
                digest.update("\0".join(texts[first : first + _TOGETHER]).encode("utf-8", "surrogateescape"))
        for path, filename in zip(self.sources.paths, self.sources.filenames, strict=True):
            if path != filename:
                where = path if isinstance(path, str) else (path.pack.path, path.row)
                digest.update(repr(where).encode("utf-8", "surrogateescape"))
        return digest.hexdigest()


def plan(sources: Sources, settings: Settings, shape: Shape, missing: Sequence[str] = ()) -> Plan:
    """Decide the order of the rows and the number of each class.

    Raises:
        PackError: The file cannot hold a text, so many columns or such large images, or packs number the classes
            differently.
    """
    if math.prod(shape) > _LONGEST:
        raise PackError(
            f"expected images of up to {_LONGEST:,} bytes, found {math.prod(shape):,}; give a smaller --size"
        )
    class_names = _class_names(sources, settings)
    _check_columns(sources.columns)
    _check_class_names(class_names)
    _check_texts("name of the file", sources.filenames, sources)
    for name, texts in sources.columns.items():
        _check_texts(f"column {name!r}", texts, sources)
    number = {name: index for index, name in enumerate(class_names)}
    labels = np.fromiter((number[name] for name in sources.labels), np.int32, len(sources.labels))
    rows = np.arange(len(labels)) if settings.order == "sorted" else stratified_order(labels, settings.seed)
    return Plan(sources.take(rows.tolist()), labels[rows], class_names, shape, settings, missing)


def _class_names(sources: Sources, settings: Settings) -> list[str]:
    """Every class in the order of its number."""
    if settings.classes is not None:
        return [*settings.classes]
    names = sorted({*sources.labels, *sources.class_names})
    for path, order in sources.class_orders:
        first, agreed = sources.class_orders[0]
        if order != agreed:
            raise PackError(
                f"{first} and {path} have their classes in different orders; "
                f"--classes {shlex.quote(first)} takes that of the first"
            )
        if missing := set(names).difference(order):
            raise PackError(
                f"{path} has its classes in an order of its own, and {min(missing)!r} is not among them; "
                "--classes gives the order of all"
            )
    return [*sources.class_orders[0][1]] if sources.class_orders else names


def _check_columns(columns: Iterable[str]) -> None:
    """What `h5split` would refuse to read, as metadata that have no end."""
    names = [name.encode("utf-8", "surrogateescape") for name in columns]
    if len(names) > _MOST_COLUMNS + 1:  # `source` comes on top
        raise PackError(f"expected up to {_MOST_COLUMNS:,} columns, found {len(names) - 1:,}; leave some out")
    if sum(map(len, names)) > _MOST_COLUMN_BYTES:
        raise PackError(
            f"expected names of columns of up to {_MOST_COLUMN_BYTES >> 20} MB together, found "
            f"{sum(map(len, names)) / 2**20:.1f} MB; give them shorter names"
        )


def _check_class_names(names: Sequence[str]) -> None:
    stored: dict[bytes, str] = {}
    for name in names:
        raw = _stored(name)
        if raw is None:
            raise PackError(f"class {name!r}: expected text, found half a surrogate pair; give it another name")
        if (other := stored.setdefault(raw, name)) != name:
            raise PackError(f"classes {other!r} and {name!r} would be stored as one; give one of them another name")
        if name.endswith("\0"):
            raise PackError(f"class {name!r}: expected no NUL character at its end; give it another name")


def _check_texts(what: str, texts: Sequence[str], sources: Sources) -> None:
    """Refuse what is stored as another text than it is, if at all."""
    for first in range(0, len(texts), _TOGETHER):
        chunk = texts[first : first + _TOGETHER]
        joined = "".join(chunk)
        if "\0" not in joined and _stored(joined) is not None and max(map(len, chunk)) <= _LONGEST:
            continue
        for row, text in enumerate(chunk, start=first):
            if text.endswith("\0") or _stored(text) is None or _nbytes(text) > _LONGEST:
                raise PackError(
                    f"{what} of {sources.filenames[row]!r}: expected text of up to {_LONGEST:,} bytes without a "
                    f"NUL character at its end and half surrogate pairs, found {text[:_SHOWN]!r}; change it"
                )


def _stored(text: str) -> bytes | None:
    """A text as it will be read again; None if it cannot be stored."""
    try:
        return text.encode("utf-8", "surrogateescape").rstrip(b"\0")
    except UnicodeEncodeError:
        return None


def _longest(texts: Sequence[str]) -> int:
    """Bytes of the longest text; of ASCII, which is seen at a glance for many, that is its length."""
    found = 0
    for first in range(0, len(texts), _TOGETHER):
        chunk = texts[first : first + _TOGETHER]
        found = max(found, *map(len if "".join(chunk).isascii() else _nbytes, chunk))
    return found


def _nbytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogateescape"))


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else "")


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
