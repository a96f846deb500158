"""Write the parts of a split as a table, and read it."""

from __future__ import annotations

import codecs
import os
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from h5split.errors import ArgumentError, ArgumentTypeError
from h5split.system.arrays import brief
from h5split.writing.replace import written
from h5split.writing.tables import open_table, write_table

_HEADER = ["filename", "split"]


class Part(Protocol):
    """The attributes of a sequence that are used here."""

    @property
    def filenames(self) -> Sequence[str]: ...  # noqa: D102  # documented in SplitSequence


def write_split(path: str | os.PathLike[str], parts: Mapping[str, Part]) -> None:
    """Write a CSV file with the columns `filename` and `split`, which lists the files of each part.

    `sequence.read_split(path)` reads it, on any machine that has the pack. A part without rows does not appear in the
    table, so it is lost.

    Args:
        path: The table to write. It appears whole or not at all. An earlier table of parts is replaced, but never
            another file.
        parts: Name of each part -> its sequence.

    Raises:
        ValueError: A file name occurs twice, but the table identifies rows by their file names. Or another file exists
            at `path`.
        TypeError: The parts are no dict of names and sequences.
        OSError: The table cannot be written.
    """
    if not isinstance(parts, Mapping) or not all(isinstance(name, str) for name in parts):
        raise ArgumentTypeError(f"write_split: expected a dict, such as {{'train': train}}, found {brief(parts)}")
    wrong = next((part for part in parts.values() if not hasattr(part, "filenames")), parts)
    if wrong is not parts:
        raise ArgumentTypeError(f"write_split: expected a sequence for each part, found {brief(wrong)}")
    lines = [(name, split) for split, part in parts.items() for name in part.filenames]
    _by_name(path, lines)
    with written(path, "a table of parts", _is_table_of_parts) as file:
        write_table(file, _HEADER, lines)


def read_rows(path: str | os.PathLike[str], filenames: Sequence[str]) -> dict[str, NDArray[np.int64]]:
    """Read a table from `write_split`: name of each part -> its rows, int64 (M,), in the order of the table.

    Args:
        path: The table.
        filenames: The file name of every row.

    Raises:
        ValueError: The table lacks a column, cannot be read whole (see `h5split.writing.tables`), or names files that
            the sequence does not have; or a file name occurs twice, in the table or in the sequence.
    """
    path = os.fspath(path)
    with open_table(path) as table:
        for name in _HEADER:
            if table.heading.count(name) != 1:
                raise ArgumentError(f"{path}: expected the columns filename and split, found {table.heading or 'none'}")
        name_at, split_at = map(table.heading.index, _HEADER)
        lines = [(fields[name_at], fields[split_at]) for _, fields in table.rows()]
    split_of = _by_name(path, lines)
    row_of: dict[str, int] = {}
    for row, name in enumerate(filenames):
        if name in split_of and row_of.setdefault(name, row) != row:
            raise ArgumentError(f"{path}: {name!r} is named, but it is two rows or more; the table cannot tell which")
    missing = [name for name in split_of if name not in row_of]
    if missing:
        example = next(iter(filenames), None)
        raise ArgumentError(
            f"{path}: {len(missing)} of {len(split_of)} files are not in the sequence, such as {missing[0]!r}; "
            + ("the sequence is empty" if example is None else f"expected names such as {example!r}")
        )
    rows: dict[str, list[int]] = {split: [] for split in dict.fromkeys(split_of.values())}
    for name, split in split_of.items():
        rows[split].append(row_of[name])
    return {split: np.array(members, np.int64) for split, members in rows.items()}


def _is_table_of_parts(file: BinaryIO) -> bool:
    """Whether a file begins with the heading that `write_split` writes.

    Spreadsheets may add a byte order mark and end lines with CR LF.
    """
    return file.readline(99).removeprefix(codecs.BOM_UTF8).rstrip(b"\r\n") == ",".join(_HEADER).encode()


def _by_name(path: str | os.PathLike[str], lines: Sequence[tuple[Any, Any]]) -> dict[str, str]:
    """File name -> name of its part. Raise if a file name occurs twice."""
    split_of: dict[str, str] = {}
    for name, split in lines:
        if name in split_of:
            is_same_part = split_of[name] == split
            where = f"twice in {split!r}" if is_same_part else f"in two parts, {split_of[name]!r} and {split!r}"
            raise ArgumentError(f"{os.fspath(path)}: {name!r} is {where}; a table tells rows apart by their file names")
        split_of[name] = split
    return split_of
