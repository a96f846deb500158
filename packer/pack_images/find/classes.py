"""Names of classes in the order of their numbers, as a user gives them: a file, a pack, or names between commas.

A file of classes is text in UTF-8, a name a line. Spaces around a name do not count, and blank lines are passed over. A
line that begins with a quote is a string of JSON, for names that have line breaks or spaces at their ends;
`h5split.commands.export` writes such files.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence

from pack_images.errors import PackError
from pack_images.find.sources import is_hdf5


def read_classes(given: str | os.PathLike[str] | Sequence[str]) -> tuple[str, ...]:
    """The names that are given.

    Args:
        given: The path of a file of classes or of a pack, names between commas, or the names themselves.

    Raises:
        PackError: There is no name, one is given twice, or a line of the file is no name.
        FormatError: An HDF5 file is no pack.
        OSError: The file cannot be read.
    """
    names = [*(_named(os.fspath(given)) if isinstance(given, str | os.PathLike) else given)]
    for name in names:
        if not isinstance(name, str) or not name:
            raise PackError(f"classes: expected names, found {name!r}")
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise PackError(f"classes: expected each name once, found {twice!r} twice")
    if not names:
        raise PackError("classes: expected names, found none")
    return tuple(names)


def _named(given: str) -> Sequence[str]:
    if is_hdf5(given):
        from h5split.file.images import PackedImages  # which few runs need

        return PackedImages(given).class_names
    if os.path.isfile(given):
        with open(given, encoding="utf-8-sig", errors="surrogateescape") as file:
            return [*_lines(given, file)]
    if "/" in given or given.endswith((".txt", ".h5")):
        raise PackError(
            f"--classes {given}: expected a file with a name a line, a pack, or A,B,C; there is no such file"
        )
    return [name.strip() for name in given.split(",")]


def _lines(path: str, file: Iterator[str]) -> Iterator[str]:
    for number, line in enumerate(file, start=1):
        name = line.strip()
        if name.startswith('"'):
            try:
                name = json.loads(name)
            except ValueError as error:
                raise PackError(f"{path}, line {number}: expected a name, or a string of JSON ({error})") from error
        if name:
            yield name
