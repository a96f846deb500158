"""Plan the output: which image goes into which row, and which tasks fill the rows. Nothing is read or written here."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from h5split.file.classes import sorted_classes
from h5split.order.rows import Rows, stratified_order
from pack_images.errors import PackError
from pack_images.find.sources import PackedRow, PackFile, Sources
from pack_images.settings import Order, Pixels, Settings, Shape

# Pixels per task. Small tasks, a fraction of a second of work each, let all workers finish at about the same time.
_TASK_BYTES = 4 << 20
_MIN_TASKS = 64  # a small data set is divided too, so that every worker gets a share
_REMOTE_TASK_BYTES = 16 << 20  # larger, because a scheduler spends 4 ms on each task
_MIN_REMOTE_TASKS = 32
PAGE = 4096
_ROW_TABLE_BYTES = 4 + 8 + 32 + 16  # per row: label, checksum, digest, loss
_CHUNK = 10_000  # texts joined and checked at once: one call for many is faster, and memory stays bounded
# h5split.file.hdf5 reads at most 16 MB of metadata. These two limits together allow 14 MB.
_MAX_COLUMNS = 10_000
_MAX_COLUMN_NAME_BYTES = 1 << 20
_MAX_ITEM_BYTES = (1 << 31) - 1  # limit of numpy's item size, for a row and for a text
# A text column is padded to its longest text. A warning comes when it is larger than both limits.
_NO_WARNING_BYTES = 16_000_000
_MAX_PADDING_RATIO = 4  # bytes in the file per byte of text
_MAX_NAMES = 10  # in a message, of a list that may be long
_MAX_TEXT_SHOWN = 40  # characters in a message, of a text that may be long
_FIXED_TABLE_BYTES = 1 << 16  # class names, settings and HDF5 metadata


@dataclass(frozen=True)
class Place:
    """The location of the rows on disk. Picklable; workers need to know nothing else about the file.

    Attributes:
        pixels: Path of the partial file.
        journal: Path of the journal.
        identity: Identity of the plan. The journal must have the same one.
        offset: Byte offset of row 0 in the partial file.
        stride: Bytes per row.
    """

    pixels: str
    journal: str
    identity: str
    offset: int
    stride: int


@dataclass(frozen=True)
class Task:
    """The work on rows `first` to `first + len(paths)`. Picklable and small: it holds paths, no pixels.

    Attributes:
        place: Where the rows are written.
        first: The first row.
        paths: The source of each row: a file to decode, or a row of a pack to copy.
        how: How a picture becomes a row.
        shape: (H, W, C) of a row.
        reuse: A pack with the same settings. Its rows are copied instead of decoding files that have the same digest.
    """

    place: Place
    first: int
    paths: tuple[str | PackedRow, ...]
    how: Pixels
    shape: Shape
    reuse: PackFile | None

    def absolute(self, folder: str) -> Task:
        """Return the task with absolute paths, for a worker with another working directory.

        Args:
            folder: Relative paths start here.
        """
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
    """The result of a task.

    Attributes:
        rows: Number of rows in the task.
        kept: Number of rows that an interrupted run had already written.
        copied: Number of rows copied from a pack.
        failures: (row, reason) of each row whose source cannot be decoded.
    """

    rows: int
    kept: int
    copied: int
    failures: tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class Plan:
    """All rows of the output, in their final order.

    Attributes:
        sources: N images.
        labels: int32 (N,), indices into `class_names`.
        class_names: In the order given by `settings`, else by the numbers that packs or readers among the sources
            give, else sorted.
        shape: (H, W, C) of a row.
        settings: The user's choices that led to this plan.
        missing: Files that a table names but that do not exist. They will be left out.
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
        """Bytes per row."""
        return math.prod(self.shape) * self.settings.pixels.itemsize

    @property
    def table_bytes(self) -> int:
        """Estimated size of everything stored after the pixels."""
        longest = sum(map(_longest_nbytes, self._text_columns().values()))
        return len(self) * (longest + _ROW_TABLE_BYTES) + _FIXED_TABLE_BYTES

    @property
    def warnings(self) -> list[str]:
        """What the user should know before packing starts, one line each."""
        return [*self.sources.notes, *self._class_warnings(), *self._size_warnings()]

    def _class_warnings(self) -> Iterator[str]:
        numbers = sorted({number for _, numbers in self.sources.class_numbers for number in numbers.values()})
        if self.settings.classes is None and numbers != [*range(len(numbers))]:
            yield (
                f"classes are numbered from 0 without gaps, in the order of the reader's numbers "
                f"{_abbreviated([*map(str, numbers)])}"
            )
        empty = [name for name, count in self.counts.items() if not count]
        if empty:
            yield f"classes without images, which keep their numbers: {_abbreviated(empty)}"
        others = self.sources.other_classes
        if others:
            number = sum(others.values())
            images = "image" if number == 1 else "images"
            yield f"passed over: {number:,} {images} of classes that were not asked for: {_abbreviated([*others])}"

    def _size_warnings(self) -> Iterator[str]:
        """Warn of text columns that are mostly padding: every row takes as much room as the longest text."""
        for name, texts in self._text_columns().items():
            longest = _longest_nbytes(texts)
            room = len(texts) * longest
            # A quick test first, without encoding: a text never has more characters than bytes.
            if room <= max(_NO_WARNING_BYTES, _MAX_PADDING_RATIO * sum(map(len, texts))):
                continue
            sizes = [*map(_nbytes, texts)]
            if room > _MAX_PADDING_RATIO * sum(sizes):
                longest_of = self.sources.filenames[sizes.index(longest)]
                yield (
                    f"{name}: {room / 1e6:,.0f} MB in the file for {sum(sizes) / 1e6:,.1f} MB of text, as every row "
                    f"has room for the longest, the {longest:,} bytes of {longest_of}; "
                    "shorten it, or leave the column out"
                )

    def _text_columns(self) -> dict[str, list[str]]:
        """The texts stored for every row, by the name that a message gives them."""
        columns = {f"column {name!r}": texts for name, texts in self.sources.columns.items()}
        return {"the names of files": self.sources.filenames, **columns}

    @property
    def counts(self) -> dict[str, int]:
        """Class name -> number of planned rows."""
        counts = np.bincount(self.labels, minlength=len(self.class_names)).tolist()
        return dict(zip(self.class_names, counts, strict=True))

    def tasks(self, place: Place, reuse: PackFile | None = None, *, remote: bool = False) -> Iterator[Task]:
        """Divide the rows into tasks of a few megabytes.

        Tasks begin on page boundaries where the row size allows it.

        Args:
            place: Where the rows are written.
            reuse: As for `Task`.
            remote: Make fewer and larger tasks, for a scheduler.
        """
        most, least = (_REMOTE_TASK_BYTES, _MIN_REMOTE_TASKS) if remote else (_TASK_BYTES, _MIN_TASKS)
        whole_pages = PAGE // math.gcd(PAGE, self.stride)
        size = max(1, min(most // self.stride, -(-len(self) // least)))
        size = -(-size // whole_pages) * whole_pages if size >= whole_pages else size
        for first in range(0, len(self), size):
            paths = tuple(self.sources.paths[first : first + size])
            yield Task(place, first, paths, self.settings.pixels, self.shape, reuse)

    def identity(self, packed_by: Mapping[str, str]) -> str:
        """Return a digest of everything that decides the bytes of the output, except the contents of the source files.

        An interrupted run is continued only if its plan has the same identity.
        """
        digest = hashlib.sha256()
        columns = sorted(self.sources.columns.items())
        names = [name for name, _ in columns]
        facts = [self.settings.as_json(), self.shape, self.class_names, dict(packed_by), names]
        if (decoder := self.settings.pixels.decoder) is not None:
            facts.append(decoder.digest)  # a function that was changed keeps its name
        digest.update(json.dumps(facts, sort_keys=True).encode())
        digest.update(self.labels.tobytes())
        for texts in (self.sources.filenames, *(texts for _, texts in columns)):
            for first in range(0, len(texts), _CHUNK):
                digest.update("\0".join(texts[first : first + _CHUNK]).encode("utf-8", "surrogateescape"))
        for path, filename in zip(self.sources.paths, self.sources.filenames, strict=True):
            if path != filename:
                where = path if isinstance(path, str) else (path.pack.path, path.row)
                digest.update(repr(where).encode("utf-8", "surrogateescape"))
        return digest.hexdigest()


def plan(sources: Sources, settings: Settings, shape: Shape, missing: Sequence[str] = ()) -> Plan:
    """Decide the order of the rows and the number of each class.

    Raises:
        PackError: The file format cannot hold one of the texts, that many columns or such large images; or two sources
            number the classes differently.
    """
    stride = math.prod(shape) * settings.pixels.itemsize
    if stride > _MAX_ITEM_BYTES:
        raise PackError(f"expected images of up to {_MAX_ITEM_BYTES:,} bytes, found {stride:,}; give a smaller --size")
    class_names = _class_names(sources, settings)
    check_columns(sources.columns)
    _check_names("class", class_names)
    _check_texts("name of the file", sources.filenames, sources)
    for name, texts in sources.columns.items():
        _check_texts(f"column {name!r}", texts, sources)
    number = {name: index for index, name in enumerate(class_names)}
    labels = np.fromiter((number[name] for name in sources.labels), np.int32, len(sources.labels))
    rows = np.arange(len(labels)) if settings.order == "sorted" else stratified_order(labels, settings.seed)
    return Plan(sources.take(rows.tolist()), labels[rows], class_names, shape, settings, missing)


def _class_names(sources: Sources, settings: Settings) -> list[str]:
    """Return all class names, in the order of the class numbers."""
    if settings.classes is not None:
        return [*settings.classes]
    names = {*sources.labels, *sources.class_names}
    if not sources.class_numbers:
        return sorted_classes(names)
    numbers = _agreed_numbers(sources.class_numbers)
    if missing := names.difference(numbers):
        where = sources.class_numbers[0][0]
        raise PackError(
            f"{where} numbers its classes itself, and {min(missing)!r} is not among them; "
            "--classes gives the order of all, by names or by a pack that has it"
        )
    return sorted(numbers, key=numbers.__getitem__)


def _agreed_numbers(given: Sequence[tuple[str, Mapping[str, int]]]) -> dict[str, int]:
    """Return class name -> number if no two sources contradict each other.

    Raises:
        PackError: A class has two numbers, or a number two classes.
    """
    number_of: dict[str, tuple[int, str]] = {}
    name_of: dict[int, tuple[str, str]] = {}
    for where, numbers in given:
        for name, number in numbers.items():
            other, first = number_of.setdefault(name, (number, where))
            if other != number:
                raise PackError(
                    f"class {name!r} is number {other} in {first} and number {number} in {where}; "
                    "--classes gives the order of all, by names or by a pack that has it"
                )
            taken, first = name_of.setdefault(number, (name, where))
            if taken != name:
                raise PackError(
                    f"class number {number} is {taken!r} in {first} and {name!r} in {where}; "
                    "--classes gives the order of all, by names or by a pack that has it"
                )
    return {name: number for name, (number, _) in number_of.items()}


def check_columns(columns: Collection[str]) -> None:
    """Refuse columns that `h5split` could not read back, because it limits the size of the metadata.

    Raises:
        PackError: There are too many, or their names cannot be stored.
    """
    _check_names("column", columns)
    names = [name.encode("utf-8", "surrogateescape") for name in columns]
    if len(names) > _MAX_COLUMNS + 1:  # one more: `source` is always there
        raise PackError(f"expected up to {_MAX_COLUMNS:,} columns, found {len(names) - 1:,}; leave some out")
    if sum(map(len, names)) > _MAX_COLUMN_NAME_BYTES:
        raise PackError(
            f"expected names of columns of up to {_MAX_COLUMN_NAME_BYTES >> 20} MB together, found "
            f"{sum(map(len, names)) / 2**20:.1f} MB; give them shorter names"
        )


def _check_names(of: str, names: Iterable[str]) -> None:
    stored: dict[bytes, str] = {}
    for name in names:
        raw = _as_stored(name)
        if raw is None:
            raise PackError(f"{of} {name!r}: expected text, found half a surrogate pair; give it another name")
        if (other := stored.setdefault(raw, name)) != name:
            of_both = {"class": "classes"}.get(of, f"{of}s")
            raise PackError(f"{of_both} {other!r} and {name!r} would be stored as one; give one of them another name")
        if name.endswith("\0"):
            raise PackError(f"{of} {name!r}: expected no NUL character at its end; give it another name")


def _check_texts(what: str, texts: Sequence[str], sources: Sources) -> None:
    """Refuse texts that cannot be stored, or that would be read back as another text."""
    for first in range(0, len(texts), _CHUNK):
        chunk = texts[first : first + _CHUNK]
        joined = "".join(chunk)
        if "\0" not in joined and _as_stored(joined) is not None and max(map(len, chunk)) <= _MAX_ITEM_BYTES:
            continue
        for row, text in enumerate(chunk, start=first):
            if text.endswith("\0") or _as_stored(text) is None or _nbytes(text) > _MAX_ITEM_BYTES:
                raise PackError(
                    f"{what} of {sources.filenames[row]!r}: expected text of up to {_MAX_ITEM_BYTES:,} bytes without a "
                    f"NUL character at its end and half surrogate pairs, found {text[:_MAX_TEXT_SHOWN]!r}; change it"
                )


def _as_stored(text: str) -> bytes | None:
    """Return a text as it will be read back (HDF5 drops NULs at the end); None if it cannot be stored."""
    try:
        return text.encode("utf-8", "surrogateescape").rstrip(b"\0")
    except UnicodeEncodeError:
        return None


def _longest_nbytes(texts: Sequence[str]) -> int:
    """Return the size of the longest text in bytes.

    ASCII texts have one byte per character, and one call tells whether a whole chunk is ASCII, so few are encoded.
    """
    found = 0
    for first in range(0, len(texts), _CHUNK):
        chunk = texts[first : first + _CHUNK]
        found = max(found, *map(len if "".join(chunk).isascii() else _nbytes, chunk))
    return found


def _nbytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogateescape"))


def _abbreviated(names: Sequence[str]) -> str:
    return ", ".join(names[:_MAX_NAMES]) + (f" and {len(names) - _MAX_NAMES:,} more" if len(names) > _MAX_NAMES else "")


def spread(count: int, most: int) -> list[int]:
    """Return up to `most` row numbers that lie evenly among `count` rows, with the first and the last."""
    if count <= most:
        return [*range(count)]
    return [at * (count - 1) // (most - 1) for at in range(most)]


def survivors(count: int, failed: Sequence[int], order: Order) -> Rows:
    """Close the gaps that failed rows leave: return the planned row that each final row holds.

    In stratified order, the last rows move into the gaps, so one broken file costs the copy of only one row. In sorted
    order, every row after a gap moves up, which keeps the order.

    Args:
        count: Number of planned rows.
        failed: The rows that could not be written.
        order: The row order of the plan.

    Returns:
        int64 (count - len(failed),).
    """
    if order == "sorted":
        return np.delete(np.arange(count), np.asarray(failed, np.int64))
    rows = np.arange(count - len(failed))
    gone = np.zeros(count, np.bool_)
    gone[np.asarray(failed, np.int64)] = True
    # There are as many gaps in the part that stays as rows that survive after it.
    rows[gone[: len(rows)]] = len(rows) + np.flatnonzero(~gone[len(rows) :])
    return rows
