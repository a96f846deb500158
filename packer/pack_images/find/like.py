"""Give each row of another pack its file: to a photograph its mask, or the other picture of a pair.

The file of a row is the one with the same path below its SOURCE, extension aside: `masks/cat/1.png` below `masks` is of
the row of `photos/cat/1.jpg` below `photos`. The SOURCE of a table is the folder that all its files are in. Where there
are several SOURCES, the name of the SOURCE may be part of the path; if the path means one row with that name and
another one without it, that is an error. A file whose name is the file name of a row, such
as a table gives it by `--name-column`, belongs to that row.

What comes out has the rows of the other pack in its order, with its labels and columns. The column `paired_with` holds
the file name of each row in the other pack. By it, and not by its place, `h5split` finds the picture of a row again. So
a row that has no file, or one that cannot be decoded, shifts no other.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from typing import TYPE_CHECKING
from unicodedata import normalize

from h5split.system.text import count
from pack_images.errors import PackError
from pack_images.find.sources import Sources
from pack_images.settings import Pixels

if TYPE_CHECKING:
    from h5split.file.images import PackedImages

_TABLE = "if files have other names, give a table of them whose --name-column has the file name of each row"


def check_alone(like: object, others: Mapping[str, object]) -> None:
    """Refuse options that say what `like` says already.

    Args:
        like: The other pack, as the user gives it; None if there is none.
        others: Name of each such option -> what the user chose; None if nothing.

    Raises:
        PackError: One of them is chosen, or `like` is no path.
    """
    if like is None:
        return
    if not isinstance(like, str | os.PathLike):
        raise PackError(f"like: expected the path of a pack, found {type(like).__name__}; give its path")
    chosen = next((name for name, value in others.items() if value is not None), None)
    if chosen is not None:
        raise PackError(
            f"--{chosen}: expected none beside --like, found one: order, labels and columns are those of "
            f"{os.fspath(like)}; leave --{chosen} out"
        )


def rows_like(like: str | os.PathLike[str], found: Sources, how: Pixels, output: str | None) -> Sources:
    """Return the files that belong to rows of a pack, in the order of these rows.

    Args:
        like: The pack.
        found: All files.
        how: How pictures are fitted. A note says if those of the pack show another part of their pictures.
        output: Path of the output.

    Raises:
        PackError: The pack is the output; two files belong to one row, or one file to two; or half of the rows or more
            have no file.
        FormatError: It is no pack.
    """
    pack = _opened(os.fspath(like), output)
    filenames = pack.filenames[:]
    file_of = _matched(pack, filenames, found)
    lacking = [name for row, name in enumerate(filenames) if row not in file_of]
    _check_most_found(pack, lacking, found)
    rows = sorted(file_of)
    files = found.take([file_of[row] for row in rows])
    return replace(
        _with_tables(pack, rows, files),
        notes=[*found.notes, *_notes(pack, found, {*file_of.values()}, how)],
        lacking=[(name, f"no file for this row of {pack.path}") for name in lacking],
    )


def _opened(path: str, output: str | None) -> PackedImages:
    from h5split.file.images import PackedImages  # here, because few runs need it
    from h5split.file.packs import Packs

    if output is not None and os.path.exists(output) and os.path.exists(path) and os.path.samefile(path, output):
        raise PackError(f"--like {path}: expected another file than the output, found the same; give another --output")
    pack = PackedImages(path)
    Packs([pack]).check_tables()
    return pack


def _matched(pack: PackedImages, filenames: Sequence[str], found: Sources) -> dict[int, int]:
    """Return row -> index of its file.

    Raises:
        PackError: Two files belong to one row, or one file to two rows.
    """
    sources = pack.columns["source"][:] if "source" in pack.columns else [""] * len(pack)
    rows_of = _Lookup(filenames, *_paths_below(filenames, sources))
    paths = zip(*_paths_below(found.filenames, found.columns["source"]), strict=True)
    file_of: dict[int, int] = {}
    for at, (name, (below, named)) in enumerate(zip(found.filenames, paths, strict=True)):
        rows = rows_of(name, below, named)
        if len(rows) > 1:
            raise PackError(_of_two_rows(pack, name, [filenames[row] for row in rows]))
        for row in rows:
            if row in file_of:
                raise PackError(_of_two_files(pack, filenames[row], found.filenames[file_of[row]], name))
            file_of[row] = at
    return file_of


def _of_two_rows(pack: PackedImages, name: str, rows: Sequence[str]) -> str:
    return (
        f"{name}: expected one row of {pack.path} with its path below SOURCE, found {rows[0]} and {rows[1]}; {_TABLE}"
    )


def _of_two_files(pack: PackedImages, row: str, one: str, other: str) -> str:
    return f"{row}: expected one file for this row of {pack.path}, found {one} and {other}; leave one out"


class _Lookup:
    """Finds the rows that a file belongs to, by its name and its paths.

    Args:
        filenames: The file name of each row.
        below: Its path below its SOURCE.
        named: Its path with the name of its SOURCE.
    """

    def __init__(self, filenames: Sequence[str], below: Sequence[str], named: Sequence[str]) -> None:
        self._by_name, self._by_path, self._by_named = map(_Numbers, (filenames, below, named))

    def __call__(self, name: str, below: str, named: str) -> list[int]:
        """Return the row; or two, if it is not known which."""
        same_source = self._by_name.of(name) or self._by_named.of(named)
        if same_source:
            return same_source
        readings = (self._by_named.of(below), self._by_path.of(named), self._by_path.of(below))
        return sorted({row for rows in readings for row in rows})[:2]


class _Numbers:
    """The number of each text, and a second number of texts that have several."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._last = {text: number for number, text in enumerate(texts)}
        self._before = {text: number for number, text in enumerate(texts) if self._last[text] != number}

    def of(self, text: str) -> list[int]:
        return [table[text] for table in (self._before, self._last) if text in table]


def _paths_below(filenames: Sequence[str], sources: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the path of each file below its SOURCE, without extension; and the same after the name of the SOURCE."""
    files: dict[str, list[str]] = {}
    for name, source in zip(filenames, sources, strict=True):
        files.setdefault(source, []).append(name)
    tops = {source: _top(source, names) for source, names in files.items()}
    below = [
        normalize("NFC", os.path.splitext(name)[0].removeprefix(tops[source]))  # systems write names in two forms
        for name, source in zip(filenames, sources, strict=True)
    ]
    named = [
        f"{os.path.basename(tops[source].rstrip('/'))}/{path}" for path, source in zip(below, sources, strict=True)
    ]
    return below, named


def _top(source: str, names: Sequence[str]) -> str:
    """Return the folder of a SOURCE, with a slash at its end; of a table, the folder that all its files are in."""
    top = source.rstrip("/") + "/"
    if all(name.startswith(top) for name in names):
        return top
    folders = [name.split("/")[:-1] for name in names]
    shared = takewhile(lambda pair: pair[0] == pair[1], zip(min(folders), max(folders), strict=False))
    return "".join(f"{part}/" for part, _ in shared)


def _check_most_found(pack: PackedImages, lacking: Sequence[str], found: Sources) -> None:
    if 2 * len(lacking) >= len(pack):
        number = "none" if len(lacking) == len(pack) else f"{len(pack) - len(lacking):,}"
        raise PackError(
            f"{pack.path}: expected a file of the same path below SOURCE for each of {count(len(pack), 'row')}, found "
            f"{number}: there is none for {lacking[0]} among files such as {found.filenames[0]}; {_TABLE}"
        )


def _with_tables(pack: PackedImages, rows: Sequence[int], files: Sources) -> Sources:
    """Return the files of rows with the labels and the columns of the rows."""
    import numpy as np

    from h5split.file.format import decode
    from h5split.file.packs import Packs
    from h5split.file.pairs import PAIRED_WITH, pair_names

    at = np.asarray(rows, np.int64)
    theirs = {name: column[at] for name, column in pack.columns.items() if name != "source"}
    own_name = [decode(name) for name in pair_names(Packs([pack]))[at].tolist()]
    return replace(
        files,
        labels=[pack.class_names[label] for label in pack.labels[at].tolist()],
        columns={**files.columns, **theirs, PAIRED_WITH: own_name},
        class_names=[*pack.class_names],
        class_numbers=[(pack.path, {name: number for number, name in enumerate(pack.class_names)})],
        labelled=[pack.path],
    )


def _notes(pack: PackedImages, found: Sources, used: set[int], how: Pixels) -> Iterator[str]:
    unused = [name for at, name in enumerate(found.filenames) if at not in used]
    if unused:
        yield f"passed over: {count(len(unused), 'file')} of no row of {pack.path}, such as {unused[0]}"
    theirs, ours = _parts_shown(pack, how)
    if theirs != ours:
        yield (
            f"{pack.path} was packed with {theirs}, this run has {ours}: what one picture shows may lie elsewhere in "
            "the other"
        )


def _parts_shown(pack: PackedImages, how: Pixels) -> tuple[str, str]:
    """Return how the pictures of the pack and of this run were fitted: equal texts if they show the same part."""
    there = pack.header.settings
    height, width, _ = pack.shape
    size = (int(there["size"][0]), int(there["size"][1])) if there.get("size") else None
    theirs = "stretch" if size is None else str(there.get("fit"))
    ours = "stretch" if how.size is None else how.fit
    own = how.size or (width, height)
    is_same_ratio = width * own[1] == height * own[0]
    if theirs == ours == "stretch" or (is_same_ratio and (theirs == ours or size is None)):
        return "", ""
    if theirs != ours:
        return f"fit {theirs}", f"fit {ours}"
    return f"fit {theirs} to {width}x{height}", f"fit {ours} to {own[0]}x{own[1]}"
