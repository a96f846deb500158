"""Load and call a user's own directory reader: a function that lists the images of a folder and their classes.

Its form is reader(path) -> (names, classes, classnames, classindices), taken from the post that this program grew from.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from operator import index
from typing import Any

from h5split.system.text import count
from pack_images.errors import PackError
from pack_images.find.sources import Sources
from pack_images.functions import describe_error, load

Reader = Callable[[str], tuple[Sequence[str], Sequence[int], Sequence[str], Sequence[int]]]

_RETURNED_LISTS = ("names", "classes", "classnames", "classindices")
_MAX_FILES_CHECKED = 100  # at least one of the first files must exist


def load_reader(given: str) -> Reader:
    """Load the function that `--reader` names.

    Args:
        given: MODULE:FUNCTION or FILE.py:FUNCTION.

    Raises:
        PackError: The function does not exist, or its module cannot be loaded.
    """
    reader: Reader = load("--reader", given)
    return reader


def read_folder(reader: Reader, root: str) -> Sources:
    """Call a reader for a folder, and return the images that it lists.

    Raises:
        PackError: The reader raises an error, or its result is invalid.
    """
    about = f"--reader {getattr(reader, '__name__', reader)}, for {root}"
    try:
        returned = reader(root)
    except (Exception, SystemExit) as error:
        raise PackError(f"{about}: it raised {describe_error(error)}") from error
    names, classes, classnames, classindices = _returned_lists(about, returned)
    filenames = [_checked_path(about, name) for name in names]
    numbers = _numbers(about, "classes", classes)
    name_of = _class_names_by_number(about, classnames, _numbers(about, "classindices", classindices))
    unknown = next((number for number in numbers if number not in name_of), None)
    if len(filenames) != len(numbers) or unknown is not None:
        number = count(len(numbers), "class", "classes")
        found = f"class {unknown}, which has no name" if unknown is not None else number
        raise PackError(f"{about}: expected a named class for each of {len(filenames)} names, found {found}")
    _check_any_exists(about, root, filenames[:_MAX_FILES_CHECKED])
    return Sources(
        filenames,
        [name_of[number] for number in numbers],
        [*filenames],
        {"source": [root] * len(filenames)},
        class_names=[*name_of.values()],
        class_numbers=[(root, {name: number for number, name in name_of.items()})],
        labelled=[root],
    )


def _returned_lists(about: str, returned: object) -> list[list[Any]]:
    """Check the result of a reader, and return its four lists."""
    expected = f"expected the tuple ({', '.join(_RETURNED_LISTS)})"
    if not isinstance(returned, tuple | list) or len(returned) != len(_RETURNED_LISTS):
        number = f" of {len(returned)}" if isinstance(returned, tuple | list) else ""
        raise PackError(f"{about}: {expected} to be returned, found {_type_name(returned)}{number}")
    for name, part in zip(_RETURNED_LISTS, returned, strict=True):
        if isinstance(part, str | bytes) or not isinstance(part, Iterable):
            raise PackError(f"{about}: expected a list as {name}, found {_type_name(part)}")
    return [[*part] for part in returned]


def _checked_path(about: str, name: object) -> str:
    if not isinstance(name, str | os.PathLike) or not isinstance(path := os.fspath(name), str):
        raise PackError(f"{about}: expected names of files as text, found {name!r}")
    return str(path)


def _numbers(about: str, what: str, given: Iterable[Any]) -> list[int]:
    try:
        return [index(number) for number in given]
    except TypeError as error:
        raise PackError(f"{about}: expected whole numbers as {what} ({error})") from error


def _class_names_by_number(about: str, names: Sequence[object], numbers: Sequence[int]) -> dict[int, str]:
    """Return class number -> class name, after checking that each number has one name and each name one number."""
    if len(names) != len(numbers):
        raise PackError(f"{about}: expected a number for each of {len(names)} classnames, found {len(numbers)}")
    name_of: dict[int, str] = {}
    number_of: dict[str, int] = {}
    for name, number in zip(names, numbers, strict=True):
        if not isinstance(name, str) or not name:
            raise PackError(f"{about}: expected classnames of text, found {name!r}")
        if (other := name_of.setdefault(number, str(name))) != name:
            raise PackError(f"{about}: expected one name for class {number}, found {other!r} and {name!r}")
        if (first := number_of.setdefault(name, number)) != number:
            raise PackError(f"{about}: expected one number for class {name!r}, found {first} and {number}")
    return name_of


def _check_any_exists(about: str, root: str, filenames: Sequence[str]) -> None:
    """Raise if none of the files exists: the names are probably relative to another folder."""
    if not filenames or any(map(os.path.exists, filenames)):
        return
    below = os.path.exists(os.path.join(root, filenames[0]))
    hint = "; it is in the folder: return os.path.join(path, name)" if below else ""
    raise PackError(
        f"{about}: expected names that lead to files from here, found {filenames[0]!r}, which is not there{hint}"
    )


def _type_name(value: object) -> str:
    return "None" if value is None else type(value).__name__
