"""Give images other labels than those found, by a table of file names and labels."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from h5split.file.classes import UNLABELLED
from h5split.system.arrays import brief
from h5split.writing.tables import open_table
from pack_images.errors import PackError
from pack_images.find.sources import PackedRow, Sources

Relabel = str | os.PathLike[str] | Mapping[str, str]

_COLUMNS = ("filename", "label")
_DELIMITERS = ",;|\t"


def relabelled(found: Sources, given: Relabel) -> Sources:
    """Return the images with the labels of a table. Those that it does not name keep theirs.

    Args:
        found: All images.
        given: File name -> label, or the path of a CSV file with the columns `filename` and `label`, written as a
            manifest may be. An image that gets an empty label is passed over.

    Raises:
        PackError: The table names a file twice, or one that is not there, or that is several images; or it leaves no
            image.
        TableError: The table cannot be read completely.
    """
    if not isinstance(given, str | os.PathLike | Mapping):
        raise PackError(
            f"relabel: expected a dict of file name -> label, or the path of a CSV file, found {brief(given)}; make a "
            "dict of it"
        )
    name = "the mapping" if isinstance(given, Mapping) else os.fsdecode(given)
    labels = _by_name(name, given.items() if isinstance(given, Mapping) else _lines(name))
    _check_found(name, labels, found)
    changed = [labels.get(filename, label) for filename, label in zip(found.filenames, found.labels, strict=True)]
    dropped = {filename for filename, label in labels.items() if not label}
    kept = [row for row, filename in enumerate(found.filenames) if filename not in dropped]
    if not kept:
        raise PackError(f"{name}: expected a label for some of the images, found none for all {len(changed):,}")
    passed_over = [(filename, f"its label in {name} is empty") for filename in found.filenames if filename in dropped]
    class_names = [one for one in found.class_names if one != UNLABELLED or one in changed]
    return replace(
        replace(found, labels=changed, class_names=class_names).take(kept),
        passed_over=[*found.passed_over, *passed_over],
    )


def _lines(path: str) -> list[tuple[str, str]]:
    """Read the pairs of a CSV file. Spaces around labels are removed."""
    try:
        with open_table(path, _DELIMITERS, _has_columns) as table:
            if not _has_columns(table.heading):
                raise PackError(
                    f"{path}: expected the columns filename and label, found {table.heading or 'none'}; write "
                    "filename,label as the first line"
                )
            name_at, label_at = map(_known(table.heading).index, _COLUMNS)
            return [(fields[name_at], fields[label_at].strip()) for _, fields in table.rows({name_at})]
    except (FileNotFoundError, IsADirectoryError):
        raise PackError(f"{path}: expected a CSV file with the columns filename and label, found none there") from None


def _known(heading: Sequence[str]) -> list[str]:
    return [name.strip().lower() for name in heading]


def _has_columns(heading: Sequence[str]) -> bool:
    return all(_known(heading).count(column) == 1 for column in _COLUMNS)


def _by_name(name: str, lines: Iterable[tuple[str, str]]) -> dict[str, str]:
    labels: dict[str, str] = {}
    for filename, label in lines:
        if not isinstance(label, str):
            raise PackError(f"{name}: expected a text as the label of {filename!r}, found {label!r}")
        if labels.setdefault(filename, label) != label:
            raise PackError(f"{name}: expected one label for {filename!r}, found {labels[filename]!r} and {label!r}")
    return labels


def _check_found(name: str, labels: Mapping[str, str], found: Sources) -> None:
    there = {*found.filenames}
    missing = [filename for filename in labels if filename not in there]
    if missing:
        raise PackError(
            f"{name}: expected names of images, such as {found.filenames[0]!r}, found {missing[0]!r}, which no image "
            f"has; so it is with {len(missing):,} of {len(labels):,} names"
        )
    # A file and its row in a pack, if both are given, have one name: they are one image.
    origins = (path.pack if isinstance(path, PackedRow) else None for path in found.paths)
    times = Counter(one for one in zip(found.filenames, origins, strict=True) if one[0] in labels)
    several = next((one for one, count in times.items() if count > 1), None)
    if several is not None:
        raise PackError(f"{name}: expected names of single images, found {several[0]!r}, which {times[several]} have")
