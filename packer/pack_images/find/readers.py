"""Load and call a user's own directory reader: a function that lists the images of a folder and their classes.

Its form is reader(path) -> (names, classes, classnames, classindices), taken from the post that this program grew from.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterable, Sequence
from operator import index
from types import ModuleType
from typing import Any

from pack_images.errors import PackError
from pack_images.find.sources import Sources

Reader = Callable[[str], tuple[Sequence[str], Sequence[int], Sequence[str], Sequence[int]]]

_PACKAGE = os.path.dirname(os.path.dirname(__file__))
_RETURNED_LISTS = ("names", "classes", "classnames", "classindices")
_MAX_FILES_CHECKED = 100  # at least one of the first files must exist


def load_reader(given: str) -> Reader:
    """Load the function that `--reader` names.

    A module in the working folder is loaded from its file, even if an installed module has the same name. The folder is
    appended to the end of `sys.path`, so that no file in it can replace an installed module.

    Args:
        given: MODULE:FUNCTION or FILE.py:FUNCTION.

    Raises:
        PackError: The function does not exist, or its module cannot be loaded.
    """
    where, _, name = given.rpartition(":")
    if not where or not name:
        raise PackError(f"--reader {given}: expected MODULE:FUNCTION or FILE.py:FUNCTION, such as mine.py:read")
    try:
        module = _load(where)
    except (Exception, SystemExit) as error:
        raise PackError(f"--reader {given}: {where} cannot be imported ({_describe_error(error)})") from error
    if module is None:
        file = where if where.endswith(".py") else f"{where}.py"
        raise PackError(f"--reader {given}: expected the module {where}, or a file {file}, found neither")
    found = getattr(module, name, None)
    if not callable(found):
        what = "none" if found is None else _type_name(found)
        raise PackError(f"--reader {given}: expected a function {name} in {where}, found {what}")
    reader: Reader = found
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
        raise PackError(f"{about}: it raised {_describe_error(error)}") from error
    names, classes, classnames, classindices = _returned_lists(about, returned)
    filenames = [_checked_path(about, name) for name in names]
    numbers = _numbers(about, "classes", classes)
    name_of = _class_names_by_number(about, classnames, _numbers(about, "classindices", classindices))
    unknown = next((number for number in numbers if number not in name_of), None)
    if len(filenames) != len(numbers) or unknown is not None:
        found = f"class {unknown}, which has no name" if unknown is not None else f"{len(numbers)} classes"
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


def _load(where: str) -> ModuleType | None:
    """Load a module from a file if there is one, or else by its name, which may lie in a package in the working folder.

    Return None if there is no such module.
    """
    path = where if where.endswith(".py") else f"{where}.py"
    if os.path.isfile(path):
        return _load_file(path)
    if not all(part.isidentifier() for part in where.split(".")):
        return None
    _append_to_path(os.getcwd())
    try:
        return importlib.import_module(where)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{where}.".startswith(f"{error.name}."):
            return None
        raise


def _load_file(path: str) -> ModuleType:
    """Load a module from its file, under its own name unless another module has that name."""
    name = os.path.splitext(os.path.basename(path))[0]
    there = importlib.util.find_spec(name) if name.isidentifier() else None
    if there is not None and not (
        there.origin and os.path.exists(there.origin) and os.path.samefile(there.origin, path)
    ):
        name = f"reader:{name}"
    _append_to_path(os.path.dirname(os.path.abspath(path)))
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _append_to_path(folder: str) -> None:
    if folder not in sys.path:
        sys.path.append(folder)


def _describe_error(error: BaseException) -> str:
    """Describe an error, with the last line of the user's own code in its traceback."""
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if isinstance(error, SyntaxError):  # its text names the line already
        return text
    others = (*{sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")}, _PACKAGE, "<")
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith(others)]
    return f"{text}; {own[-1].filename}, line {own[-1].lineno}" if own else text


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
