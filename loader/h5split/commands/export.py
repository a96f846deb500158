"""Rows back to folders of PNG, with a table from which the same rows can be packed again."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TextIO

import numpy as np
from numpy.typing import NDArray

from h5split.commands.pictures import check_channels, picture
from h5split.order.rows import Rows
from h5split.system.machine import check_names, cores
from h5split.writing.newfolder import NewFolder
from h5split.writing.tables import write_table

if TYPE_CHECKING:
    from h5split.batches import SplitSequence
    from h5split.file.packs import Packs

MANIFEST = "manifest.csv"
CLASSES = "classes.txt"

_LONGEST = 120  # bytes of a name, before what tells it from another; every file system takes 255
_RESERVED = {"CON", "PRN", "AUX", "NUL", *(f"{name}{n}" for name in ("COM", "LPT") for n in range(10))}
_SUFFIX = re.compile(r"\.(apng|avif|bmp|gif|jfif|jp2|jpe?g?|p[bgnp]m|png|tga|tiff?|webp)$", re.IGNORECASE)
_TASK = 64  # files


@dataclass
class _Folder:
    """Names that are taken, so that no two files share one, on any file system."""

    taken: set[str] = field(default_factory=set)

    def place(self, text: str, number: int, suffix: str = "") -> str:
        """A name for `text` that is safe and free; `number` tells it from another."""
        stem = name = _safe(text)
        while (key := unicodedata.normalize("NFKC", name).casefold()) in self.taken:
            name, number = f"{stem}-{number}", number + 1
        self.taken.add(key)
        return name + suffix


def export(
    sequence: SplitSequence,
    folder: str | os.PathLike[str],
    *,
    parts: Mapping[str, SplitSequence] | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> int:
    """Write the rows of a sequence as PNG files, into a folder for each class.

    `manifest.csv` beside them comes last. It holds path, label and stored file name of each, the split and every other
    column, in the order of the sequence: `pack-images --manifest FOLDER/manifest.csv --name-column filename --order
    sorted` makes the same rows of it again. If the table alone would number the classes differently (a class has no
    rows, or the order is not sorted), `classes.txt` lists them: add `--classes FOLDER/classes.txt`.

    File names are made of the stored ones: their last part, without what is no letter of a file name anywhere, cut to
    120 bytes; where two would be the same, the row's number follows. Nothing is written outside the folder, whoever
    plants links or swaps folders in it meanwhile, and nothing is replaced.

    If it fails or is interrupted, the pictures that are there stay, and there is no `manifest.csv`; a note on the
    exception (`__notes__`) says how many there are.

    Args:
        sequence: What to write.
        folder: A new or empty one.
        parts: Split -> sequence: a folder for each, which holds those for classes. Rows in no part are not written.
        workers: Threads; one for each core when None.
        progress: Called with (images written, images in all).

    Returns:
        Images written.

    Raises:
        ValueError: The folder is not empty, the rows have other than 1, 3 or 4 channels, parts are of other packs, or
            somebody else has put another folder in place of one that was made, or names of files are not UTF-8 in this
            locale.
        OSError: A file cannot be written.
    """
    check_names()
    packs = sequence.packs
    check_channels(packs.shape)
    packs.check_same({name: part.packs for name, part in (parts or {}).items()})
    rows, splits = _rows_and_splits(sequence, parts)
    paths = _paths(packs, rows, splits)
    written: list[int] = []

    def write(start: int) -> None:
        chosen = slice(start, start + _TASK)
        for pixels, path in zip(packs.pixels(rows[chosen]), paths[chosen], strict=True):
            tree.write(path, _png(pixels))
            written.append(1)

    tells_numbers = sorted({packs.class_names[label] for label in np.unique(packs.labels[rows])}) == list(
        packs.class_names
    )
    with NewFolder(folder) as tree:
        try:
            for path in sorted({os.path.dirname(path) for path in paths}):
                tree.make(path)
            _in_threads(write, len(rows), workers, progress)
            if not tells_numbers:
                tree.write(CLASSES, _class_list(packs.class_names))
            with tree.last(MANIFEST) as file:
                _write_manifest(file, packs, rows, paths, splits)
        except BaseException as error:
            done = f"{len(written):,} of {len(rows):,} images"
            error.add_note(f"{tree.path} holds {done}, and no {MANIFEST} that lists them; remove it, or name another")
            raise
    return len(rows)


def _in_threads(
    write: Callable[[int], None], rows: int, workers: int | None, progress: Callable[[int, int], object] | None
) -> None:
    """Call `write` with the first row of each task; after an error, with no more."""
    with (
        ThreadPoolExecutor(workers or cores()) as executor,
        contextlib.closing(executor.map(write, range(0, rows, _TASK))) as tasks,  # type: ignore[type-var]  # a generator
    ):
        for number, _ in enumerate(tasks, start=1):
            if progress is not None:
                progress(min(number * _TASK, rows), rows)


def _png(pixels: NDArray[np.uint8]) -> bytes:
    data = io.BytesIO()
    picture(pixels).save(data, "PNG", compress_level=3)
    return data.getvalue()


def _rows_and_splits(
    sequence: SplitSequence, parts: Mapping[str, SplitSequence] | None
) -> tuple[Rows, list[str] | None]:
    """The rows to write, in the order of the sequence, and the part that each is in."""
    if parts is None:
        return sequence.rows, None
    part_of = np.full(len(sequence.packs), -1)
    for number, part in enumerate(parts.values()):
        part_of[part.rows] = number
    rows = sequence.rows[part_of[sequence.rows] >= 0]
    names = list(parts)
    return rows, [names[number] for number in part_of[rows].tolist()]


def _paths(packs: Packs, rows: Rows, splits: list[str] | None) -> list[str]:
    """Where each row goes, below the folder."""
    top = _Folder({MANIFEST, CLASSES})
    folders: dict[tuple[str | None, str], tuple[str, _Folder]] = {}
    tops: dict[str | None, tuple[str, _Folder]] = {None: ("", top)}
    paths = []
    labels = packs.labels[rows].tolist()
    for position, (row, name) in enumerate(zip(rows.tolist(), packs.filenames.take(rows), strict=True)):
        split, label = None if splits is None else splits[position], packs.class_names[labels[position]]
        if (split, label) not in folders:
            if split not in tops:
                tops[split] = (top.place(str(split), len(tops)) + "/", _Folder())
            above, siblings = tops[split]
            folders[split, label] = (above + siblings.place(label, labels[position]) + "/", _Folder())
        path, siblings = folders[split, label]
        paths.append(path + siblings.place(_stem(name), row, ".png"))
    return paths


def _stem(filename: str) -> str:
    return _SUFFIX.sub("", filename.rpartition("/")[2])


def _safe(text: str) -> str:
    """A file name for any system: no separators, nothing hidden, reserved, invisible or long."""
    kept = "".join(char if char.isprintable() and char not in '<>:"/\\|?*' else "_" for char in text)
    kept = kept.encode()[:_LONGEST].decode(errors="ignore").strip(" .")
    return kept if kept and kept.partition(".")[0].upper() not in _RESERVED else f"_{kept}"


def _class_list(names: Sequence[str]) -> bytes:
    """A name a line, as `pack-images --classes` reads them."""
    lines = [name if _is_plain(name) else json.dumps(name) for name in names]
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")


def _is_plain(name: str) -> bool:
    return (
        bool(name) and name == name.strip() and not {"\n", "\r"} & {*name} and not name.startswith((chr(34), "\ufeff"))
    )


def _write_manifest(file: TextIO, packs: Packs, rows: Rows, paths: list[str], splits: list[str] | None) -> None:
    """The table of what was written; `source` is left out, as the table is the source of what is packed from it."""
    names = [packs.class_names[label] for label in packs.labels[rows].tolist()]
    header, columns = ["path", "label", "filename"], [paths, names, packs.filenames.take(rows)]
    if splits is not None:
        header.append("split")
        columns.append(splits)
    for name, column in packs.columns.items():
        if name != "source" and not (name == "split" and splits is not None):
            header.append(name)
            columns.append(column.take(rows))
    write_table(file, header, zip(*columns, strict=True))
