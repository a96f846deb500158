"""Describes the contents of a pack. Pixels are read only to find identical images and the numbers in masks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from h5split.alike.content import content_of
from h5split.file.format import decode
from h5split.file.images import PackedImages
from h5split.file.losses import loss_lines
from h5split.file.packs import Packs
from h5split.file.texts import Texts
from h5split.system.text import SHOWN, class_lines, count, dimensions, duplicates_line, other_type, shown

_BAR_LENGTH = 30  # characters
_MAX_DISTINCT = 10_000  # different values of a column that are counted
_MAX_SHOWN = 60  # characters of a value on the screen
_MAX_NUMBERS = 20  # numbers in masks that are listed on the screen
_SAMPLE_BYTES = 64 << 20  # of masks that are read for their numbers


@dataclass(frozen=True)
class Info:
    """The contents of a pack.

    Attributes:
        path: The path as given.
        rows: The number of images.
        shape: (H, W, C) of each image.
        dtype: The type of its pixels.
        nbytes: The size of the file in bytes.
        classes: Class name -> number of images.
        columns: Column name -> value -> number of images, the most frequent value first. None for a column with more
            than 10,000 values.
        ranges: Column name -> its lowest and its highest number, as they are written, for each column of numbers. Empty
            texts do not count.
        settings: The settings that it was packed with.
        packed_by: Program or library -> version.
        skipped: (filename, reason) of each file that was left out.
        losses: (filename, text) of each loss of a picture when it was packed.
        duplicates: The file names of each group of images whose files or pixels are identical. Groups with different
            labels come first.
        conflicting: The number of groups with different labels.
        blank: The number of images of one colour that have the pixels of another; see `h5split.alike.content`.
        numbers: The numbers in the masks of a pack made with `--color index`, ascending; None for other packs, and for
            float32.
        numbers_in: The number of images that they were looked for in. It is less than `rows` for more than 64 MB.
        copy: The folder of the copy on this machine, of a pack that is elsewhere; else None.
        bytes_to_come: How many bytes are not in that copy yet.
    """

    path: str
    rows: int
    shape: tuple[int, int, int]
    dtype: str
    nbytes: int
    classes: Mapping[str, int]
    columns: Mapping[str, Mapping[str, int] | None]
    ranges: Mapping[str, tuple[str, str]]
    settings: Mapping[str, Any]
    packed_by: Mapping[str, str]
    skipped: list[tuple[str, str]]
    losses: list[tuple[str, str]]
    duplicates: list[tuple[str, ...]]
    conflicting: int
    blank: int
    numbers: list[int] | None
    numbers_in: int
    copy: str | None
    bytes_to_come: int

    def as_json(self) -> dict[str, Any]:
        """The same contents as lists and dicts, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        """A summary that fits on one screen."""
        return "\n".join(
            [
                f"{shown(self.path)}: {count(self.rows, 'image')}, {dimensions(self.shape)}{other_type(self.dtype)}, "
                f"{self.nbytes / 1e6:,.1f} MB",
                *self._copy_lines(),
                *class_lines(self.classes, _BAR_LENGTH),
                *self._number_lines(),
                *self._column_lines(),
                *self._packing_lines(),
                *self._duplicate_lines(),
                *self._blank_lines(),
                *self._skipped_lines(),
                *loss_lines(self.losses, scaled="range" in self.settings),
            ]
        )

    def _copy_lines(self) -> list[str]:
        if self.copy is None:
            return []
        here = "all" if self.bytes_to_come == 0 else f"{(self.nbytes - self.bytes_to_come) / 1e6:,.1f} MB"
        return [f"copy: {here} of it in {shown(self.copy)}"]

    def _number_lines(self) -> list[str]:
        if self.numbers is None:
            return []
        more = len(self.numbers) - _MAX_NUMBERS
        listed = ", ".join(map(str, self.numbers[:_MAX_NUMBERS]))
        others = f" and {more:,} more, up to {self.numbers[-1]}" if more > 0 else ""
        sample = "" if self.numbers_in == self.rows else f" (in {self.numbers_in:,} of {self.rows:,} images)"
        return [f"numbers: {listed}{others}{sample}"]

    def _column_lines(self) -> list[str]:
        lines = ["columns"] if self.columns else []
        for name, counts in self.columns.items():
            number = f"more than {_MAX_DISTINCT:,} values" if counts is None else count(len(counts), "value")
            lines.append(f"  {_brief(name)}: {number}{_described(counts, self.ranges.get(name))}")
        return lines

    def _packing_lines(self) -> list[str]:
        settings = ", ".join(f"{name} {_plain(name, value)}" for name, value in self.settings.items())
        versions = ", ".join(f"{name} {version}" for name, version in self.packed_by.items())
        return [f"packed with {shown(settings) or 'nothing said'}", f"by {shown(versions) or 'nothing said'}"]

    def _duplicate_lines(self) -> list[str]:
        if not self.duplicates:
            return ["duplicates: none"]
        return [
            duplicates_line(self.duplicates, self.conflicting),
            *(f"  {', '.join(map(shown, group[:3]))}" for group in self.duplicates[:3]),
        ]

    def _blank_lines(self) -> list[str]:
        return [f"blank: {count(self.blank, 'image')} of one colour, alike in pixels"] if self.blank else []

    def _skipped_lines(self) -> list[str]:
        if not self.skipped:
            return ["left out: none"]
        lines = [f"left out: {len(self.skipped):,}"]
        lines += [f"  {shown(name)}: {shown(reason)}" for name, reason in self.skipped[:SHOWN]]
        more = len(self.skipped) - SHOWN
        return [*lines, f"  ... and {more:,} more; --json lists all"] if more > 0 else lines


def describe(images: PackedImages) -> Info:
    """Describe a pack.

    Pixels are read of rows with equal checksums, to count identical images, and of up to 64 MB of masks.
    """
    counts = np.bincount(images.labels, minlength=len(images.class_names)).tolist()
    content = content_of([(Packs([images]), np.arange(len(images)))])
    mixed, plain = content.mixed(images.labels)
    are_masks = images.settings.get("color") == "index" and images.dtype.kind == "u"
    numbers, numbers_in = _numbers(images) if are_masks else (None, 0)
    return Info(
        path=images.path,
        rows=len(images),
        shape=images.shape,
        dtype=str(images.dtype),
        nbytes=images.header.size,
        classes=dict(zip(images.class_names, counts, strict=True)),
        columns={name: column.counts(_MAX_DISTINCT) for name, column in images.columns.items()},
        ranges={name: found for name, column in images.columns.items() if (found := _range(column)) is not None},
        settings=images.header.settings,
        packed_by=images.header.packed_by,
        skipped=images.skipped,
        losses=images.losses,
        duplicates=[tuple(images.filenames.take(group)) for group in (*mixed, *plain)],
        conflicting=len(mixed),
        blank=len(content.blank),
        numbers=numbers,
        numbers_in=numbers_in,
        copy=None if images.copy is None else images.copy.place.folder,
        bytes_to_come=0 if images.copy is None else images.copy.missing_bytes(),
    )


def _numbers(images: PackedImages) -> tuple[list[int], int]:
    """The numbers in masks, ascending, and the number of masks that were read: all, or some from everywhere."""
    most = max(1, _SAMPLE_BYTES // images.stride)
    rows = np.unique(np.linspace(0, len(images) - 1, min(most, len(images))).astype(np.int64))
    found = {number for row in rows.tolist() for number in np.unique(images.view(row, 1)).tolist()}
    return sorted(found), len(rows)


def _range(column: Texts) -> tuple[str, str] | None:
    """The lowest and the highest number of a column, as they are written; None if a text is no number."""
    raw = column.raw()
    written = raw[raw != b""]
    try:
        numbers = written.astype(np.float64)
    except ValueError:
        return None
    if not len(numbers) or not np.isfinite(numbers).all():
        return None
    return decode(bytes(written[numbers.argmin()])), decode(bytes(written[numbers.argmax()]))


def _described(counts: Mapping[str, int] | None, numbers: tuple[str, str] | None) -> str:
    """The end of the line about a column: its values, or from where to where many numbers are.

    Args:
        counts: Value -> number of images; None if there are too many values.
        numbers: The lowest and the highest number; None for a column of texts.
    """
    is_listed = counts is not None and len(counts) <= SHOWN
    are_different = counts is not None and len(counts) > 1 and max(counts.values()) == 1
    facts = [", all different"] if are_different else []
    if numbers is not None and not is_listed:
        facts.append(f", numbers from {_brief(numbers[0])} to {_brief(numbers[1])}")
        if counts is not None and counts.get(""):
            facts.append(f", {counts['']:,} empty")
    if facts or counts is None:
        return "".join(facts)
    values = [f'"{_brief(value)}" {number:,}' for value, number in list(counts.items())[:SHOWN]]
    more = [f"and {len(counts) - SHOWN:,} more"] if len(counts) > SHOWN else []
    return f": {', '.join(values + more)}"


def _brief(value: str) -> str:
    """A value, shortened if it is long. `--json` has the whole value."""
    return shown(value) if len(value) <= _MAX_SHOWN else f"{shown(value[:_MAX_SHOWN])}..."


def _plain(name: str, value: Any) -> str:
    """The value of a setting as its option has it."""
    if isinstance(value, list):
        return (":" if name == "range" else "x").join(map(str, value))
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)
