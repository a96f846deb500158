"""What a notebook shows of rows: their numbers by class and by part, and a few of their images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from h5split.file.format import Header
from h5split.file.levels import Levels, levels_of
from h5split.file.levels import Source as Pixels
from h5split.file.texts import Texts
from h5split.notebook.card import Counts, Tile, card, or_text
from h5split.notebook.png import data_uri, thinned
from h5split.system.text import count

_PARTS = "split", "source"  # columns that tell parts
_LISTED = 10  # values in a table
_MAX_VALUES = 10_000  # different values of a column that are counted
_MAX_ROWS = 2_000_000  # of a column that is counted, which takes 0.4 s a million
_CHUNK_ROWS = 1 << 20  # that are counted at a time
_TILES = 8  # pictures
_SIDE = 64  # pixels of a picture, and of its place on the page


class Source(Pixels, Protocol):
    """What is used here of a pack, or of several."""

    @property
    def labels(self) -> NDArray[np.int32]: ...  # noqa: D102  # documented in PackedImages, as all that follow
    @property
    def class_names(self) -> Sequence[str]: ...  # noqa: D102
    @property
    def filenames(self) -> Texts: ...  # noqa: D102
    @property
    def columns(self) -> Mapping[str, Texts]: ...  # noqa: D102
    def check_unchanged(self) -> None: ...  # noqa: D102


class _Pack(Source, Protocol):
    path: str
    header: Header

    @property
    def skipped_texts(self) -> tuple[Texts, Texts]: ...


class Shown:
    """The methods of `PackedImages` that a look at it needs."""

    @property
    def dtype(self: _Pack) -> np.dtype[Any]:
        """The type of the samples: uint8, uint16 or float32."""
        return self.header.images.dtype

    @property
    def settings(self: _Pack) -> Mapping[str, Any]:
        """The settings that it was packed with."""
        return self.header.settings

    def _repr_html_(self: _Pack) -> str:
        """What a notebook shows of it: counts, and a few of its images, which alone are read."""
        return or_text(self, lambda: _look_at(self))


def look(
    source: Source, rows: NDArray[Any] | None, name: str, lines: Sequence[str], *, counts: Sequence[Counts] = ()
) -> str:
    """Rows as HTML. Their labels and parts are counted; pixels are read only of the few that are shown.

    Args:
        source: The pack, or the packs, that the rows are of.
        rows: int (M,), the rows; None for all.
        name: What they are called.
        lines: What else there is to say. The first line goes beside the name.
        counts: Tables of numbers beside those by class and by part.

    Raises:
        FormatError: A file was truncated or written to since it was opened.
    """
    source.check_unchanged()
    total = len(source) if rows is None else len(rows)
    tables = [_by_class(source, rows), *_by_part(source.columns, rows), *counts]
    positions = np.unique(np.linspace(0, total - 1, min(total, _TILES)).astype(np.int64))
    pictures = tiles(source, rows, positions, _SIDE, levels_of(source)) if total else ()
    return card(name, lines, tables, pictures, _SIDE)


def summary_line(images: int, shape: tuple[int, int, int], dtype: str, classes: int) -> str:
    """The numbers of images and classes, and what an image is."""
    return f"{count(images, 'image')} {shape} {dtype}, {count(classes, 'class', 'classes')}"


def tiles(
    source: Source,
    rows: NDArray[Any] | None,
    positions: NDArray[np.int64],
    side: int,
    levels: Levels,
    *,
    labels: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> list[Tile]:
    """Small pictures of rows.

    Args:
        source: The pack, or the packs, that the rows are of.
        rows: int (M,), the rows that positions are counted in; None for all.
        positions: int64, of each picture.
        side: The largest width and height of a picture in pixels.
        levels: How pixels are shown.
        labels: The label of each; empty for its class.
        notes: A further line for each; empty for none.

    Raises:
        FormatError: A file was truncated since it was opened.
    """
    found = []
    for at, position in enumerate(positions.tolist()):
        row = position if rows is None else int(rows[position])
        pixels = source.view(row, 1)
        assert pixels is not None  # a single row is in one file
        label = labels[at] if labels else source.class_names[source.labels[row]]
        note = notes[at] if notes else ""
        picture = data_uri(levels.picture(thinned(pixels[0], side)), side)
        found.append(Tile(source.filenames[row], label, position, picture, note))
    return found


def _look_at(pack: _Pack) -> str:
    left_out = len(pack.skipped_texts[0])
    lines = [pack.path, summary_line(len(pack), pack.shape, str(pack.dtype), len(pack.class_names))]
    lines += [f"{count(left_out, 'file')} left out in packing"] if left_out else []
    return look(pack, None, type(pack).__name__, lines)


def _by_class(source: Source, rows: NDArray[Any] | None) -> Counts:
    """Count rows by class. Memory does not grow with their number."""
    names = source.class_names
    numbers = np.zeros(len(names), np.int64)
    for start in range(0, len(source) if rows is None else len(rows), _CHUNK_ROWS):
        part = slice(start, start + _CHUNK_ROWS)
        numbers += np.bincount(source.labels[part if rows is None else rows[part]], minlength=len(names))
    listed = np.arange(len(names)) if len(names) <= _LISTED else np.argsort(-numbers, kind="stable")[:_LISTED]
    found = [(names[number], int(numbers[number])) for number in listed.tolist()]
    return Counts("class", "classes", found, len(names) - len(found))


def _by_part(columns: Mapping[str, Texts], rows: NDArray[Any] | None) -> list[Counts]:
    """Count rows by the columns that tell parts, if they have several values and do not take long to count."""
    found = []
    for name in _PARTS:
        column = columns.get(name)
        if column is None:
            continue
        column = column if rows is None else column.take(rows)
        numbers = column.counts(_MAX_VALUES) if len(column) <= _MAX_ROWS else None
        if numbers is not None and len(numbers) > 1:
            listed = sorted(numbers.items(), key=lambda item: (-item[1], item[0]))[:_LISTED]
            found.append(Counts(name, f"{name}s", listed, len(numbers) - len(listed)))
    return found
