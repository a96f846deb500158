"""Read the class names that a user gives, in the order of the class numbers.

They come from a file, from a pack, or from a list with commas. A file of classes is UTF-8 text with one name per line.
Spaces around a name are removed, and blank lines are skipped. A line that begins with a quote is a JSON string, which
allows names with line breaks or with spaces at their ends. `h5split.commands.export` writes such files.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import index
from typing import Any

from h5split.system.arrays import brief
from pack_images.errors import PackError
from pack_images.find.sources import is_hdf5
from pack_images.find.values import values_of


def read_classes(given: str | os.PathLike[str] | Sequence[str] | Mapping[str, int]) -> tuple[str, ...]:
    """Return the class names that `given` means.

    Args:
        given: The path of a file of classes or of a pack, names separated by commas, a sequence of names, or a dict of
            name -> number.

    Raises:
        PackError: There is no name, a name occurs twice, a line of the file is invalid, or the names have no order.
        FormatError: The file is HDF5 but no pack.
        OSError: The file cannot be read.
    """
    names = [*(_names_from(os.fspath(given)) if isinstance(given, str | os.PathLike) else _in_order(given))]
    for name in names:
        if not isinstance(name, str) or not name:
            raise PackError(f"classes: expected names, found {brief(name)}")
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise PackError(f"classes: expected each name once, found {twice!r} twice")
    if not names:
        raise PackError("classes: expected names, found none")
    return tuple(names)


def _in_order(given: Any) -> Iterable[Any]:
    if not isinstance(given, Mapping):
        return values_of("classes", given)
    try:
        numbers = {name: index(number) for name, number in given.items()}
    except TypeError:
        numbers = {}
    if sorted(numbers.values()) != [*range(len(given))]:
        raise PackError(
            "classes: expected a list of names in the order of their numbers, or a dict of name -> number with each "
            f"number from 0 to {len(given) - 1} once, found {brief(given)}; the setting classes of a SplitSequence "
            "renames and merges"
        )
    return sorted(numbers, key=numbers.__getitem__)


def _names_from(given: str) -> Sequence[str]:
    if is_hdf5(given):
        from h5split.file.images import PackedImages  # here, because few runs need it

        return PackedImages(given).class_names
    if os.path.isfile(given):
        with open(given, encoding="utf-8-sig", errors="surrogateescape") as file:
            return [*_names_in_file(given, file)]
    if "/" in given or given.endswith((".txt", ".h5")):
        raise PackError(
            f"--classes {given}: expected a file with a name a line, a pack, or A,B,C; there is no such file"
        )
    return [name.strip() for name in given.split(",")]


def _names_in_file(path: str, file: Iterator[str]) -> Iterator[str]:
    for number, line in enumerate(file, start=1):
        name = line.strip()
        if name.startswith('"'):
            try:
                name = json.loads(name)
            except ValueError as error:
                raise PackError(f"{path}, line {number}: expected a name, or a string of JSON ({error})") from error
        if name:
            yield name
