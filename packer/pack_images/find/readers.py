"""The user's own directory reader: a function that says which files of a folder are images, and of which class.

It has the form of the one in the post that this grew from: reader(path) -> (names, classes, classnames, classindices).
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

_PARTS = ("names", "classes", "classnames", "classindices")
_PACKAGE = os.path.dirname(os.path.dirname(__file__))
_LOOKED_AT = 100  # files, for one that is there


def load_reader(given: str) -> Reader:
    """The function that `--reader` names.

    A module that lies in the working folder is loaded from its file, whatever other modules are called; the folder is
    appended to where modules are looked for, so that nothing in it takes the place of an installed module.

    Args:
        given: MODULE:FUNCTION or FILE.py:FUNCTION.

    Raises:
        PackError: There is no such function, or loading it fails.
    """
    where, _, name = given.rpartition(":")
    if not where or not name:
        raise PackError(f"--reader {given}: expected MODULE:FUNCTION or FILE.py:FUNCTION, such as mine.py:read")
    try:
        module = _load(where)
    except (Exception, SystemExit) as error:
        raise PackError(f"--reader {given}: {where} cannot be imported ({_where(error)})") from error
    if module is None:
        file = where if where.endswith(".py") else f"{where}.py"
        raise PackError(f"--reader {given}: expected the module {where}, or a file {file}, found neither")
    found = getattr(module, name, None)
    if not callable(found):
        what = "none" if found is None else _kind(found)
        raise PackError(f"--reader {given}: expected a function {name} in {where}, found {what}")
    reader: Reader = found
    return reader


def read_folder(reader: Reader, root: str) -> Sources:
    """The images of a folder, by a reader.

    Raises:
        PackError: The reader raises, or what it returns makes no sense.
    """
    about = f"--reader {getattr(reader, '__name__', reader)}, for {root}"
    try:
        returned = reader(root)
    except (Exception, SystemExit) as error:
        raise PackError(f"{about}: it raised {_where(error)}") from error
    names, classes, classnames, classindices = _parts(about, returned)
    filenames = [_path(about, name) for name in names]
    numbers = _numbers(about, "classes", classes)
    name_of = _name_of(about, classnames, _numbers(about, "classindices", classindices))
    unknown = next((number for number in numbers if number not in name_of), None)
    if len(filenames) != len(numbers) or unknown is not None:
        found = f"class {unknown}, which has no name" if unknown is not None else f"{len(numbers)} classes"
        raise PackError(f"{about}: expected a named class for each of {len(filenames)} names, found {found}")
    _check_there(about, root, filenames[:_LOOKED_AT])
    return Sources(
        filenames,
        [name_of[number] for number in numbers],
        [*filenames],
        {"source": [root] * len(filenames)},
        class_names=[*name_of.values()],
    )


def _load(where: str) -> ModuleType | None:
    """The module of a file that is there, or one that is installed or lies in a package here; None if there is none."""
    path = where if where.endswith(".py") else f"{where}.py"
    if os.path.isfile(path):
        return _load_file(path)
    if not all(part.isidentifier() for part in where.split(".")):
        return None
    _append(os.getcwd())
    try:
        return importlib.import_module(where)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{where}.".startswith(f"{error.name}."):
            return None
        raise


def _load_file(path: str) -> ModuleType:
    """A module by its file, under its own name unless that is another module's."""
    name = os.path.splitext(os.path.basename(path))[0]
    there = importlib.util.find_spec(name) if name.isidentifier() else None
    if there is not None and not (
        there.origin and os.path.exists(there.origin) and os.path.samefile(there.origin, path)
    ):
        name = f"reader:{name}"
    _append(os.path.dirname(os.path.abspath(path)))
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _append(folder: str) -> None:
    if folder not in sys.path:
        sys.path.append(folder)


def _where(error: BaseException) -> str:
    """What was raised, and the last line of the user's own code on the way there."""
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if isinstance(error, SyntaxError):  # which names the line itself
        return text
    others = (*{sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")}, _PACKAGE, "<")
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith(others)]
    return f"{text}; {own[-1].filename}, line {own[-1].lineno}" if own else text


def _parts(about: str, returned: object) -> list[list[Any]]:
    """The four lists that a reader returns."""
    expected = f"expected the tuple ({', '.join(_PARTS)})"
    if not isinstance(returned, tuple | list) or len(returned) != len(_PARTS):
        number = f" of {len(returned)}" if isinstance(returned, tuple | list) else ""
        raise PackError(f"{about}: {expected} to be returned, found {_kind(returned)}{number}")
    for name, part in zip(_PARTS, returned, strict=True):
        if isinstance(part, str | bytes) or not isinstance(part, Iterable):
            raise PackError(f"{about}: expected a list as {name}, found {_kind(part)}")
    return [[*part] for part in returned]


def _path(about: str, name: object) -> str:
    if not isinstance(name, str | os.PathLike) or not isinstance(path := os.fspath(name), str):
        raise PackError(f"{about}: expected names of files as text, found {name!r}")
    return str(path)


def _numbers(about: str, what: str, given: Iterable[Any]) -> list[int]:
    try:
        return [index(number) for number in given]
    except TypeError as error:
        raise PackError(f"{about}: expected whole numbers as {what} ({error})") from error


def _name_of(about: str, names: Sequence[object], numbers: Sequence[int]) -> dict[int, str]:
    """Class number -> name."""
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


def _check_there(about: str, root: str, filenames: Sequence[str]) -> None:
    """Refuse names of which none leads to a file: they begin somewhere else."""
    if not filenames or any(map(os.path.exists, filenames)):
        return
    below = os.path.exists(os.path.join(root, filenames[0]))
    hint = "; it is in the folder: return os.path.join(path, name)" if below else ""
    raise PackError(
        f"{about}: expected names that lead to files from here, found {filenames[0]!r}, which is not there{hint}"
    )


def _kind(value: object) -> str:
    return "None" if value is None else type(value).__name__
