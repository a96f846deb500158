"""Functions of the user: load one by its name, and call the one that decodes files.

A name is MODULE:FUNCTION or FILE.py:FUNCTION. A module in the working folder is loaded from its file, even if an
installed module has the same name. The folder is appended to the end of `sys.path`, so that no file in it can replace
an installed module.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
import sysconfig
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from types import ModuleType
from typing import Any

from pack_images.errors import PackError

_PACKAGE = os.path.dirname(__file__)


def load(option: str, given: str) -> Callable[..., Any]:
    """Load the function that an option names.

    Args:
        option: The name of the option, for messages.
        given: MODULE:FUNCTION or FILE.py:FUNCTION.

    Raises:
        PackError: The function does not exist, or its module cannot be loaded.
    """
    where, _, name = given.rpartition(":")
    if not where or not name:
        raise PackError(f"{option} {given}: expected MODULE:FUNCTION or FILE.py:FUNCTION, such as mine.py:read")
    try:
        module = _load(where)
    except (Exception, SystemExit) as error:
        raise PackError(f"{option} {given}: {where} cannot be imported ({describe_error(error)})") from error
    if module is None:
        raise PackError(f"{option} {given}: expected the module {where}, or a file {_file_of(where)}, found neither")
    found = getattr(module, name, None)
    if not callable(found):
        what = "none" if found is None else type(found).__name__
        raise PackError(f"{option} {given}: expected a function {name} in {where}, found {what}")
    function: Callable[..., Any] = found
    return function


def describe_error(error: BaseException, *, full_path: bool = True) -> str:
    """Describe an error, with the last line of the user's own code in its traceback.

    Args:
        error: What was raised.
        full_path: Whether the file is named with its folder. A pack, which is the same on every machine, has its name.
    """
    name, message = type(error).__name__, _message(error)
    text = f"{name}: {message}" if message else name
    if isinstance(error, SyntaxError):  # its text names the line already
        return text
    others = (*{sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")}, _PACKAGE, "<")
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith(others)]
    if not own:
        return text
    file = own[-1].filename if full_path else os.path.basename(own[-1].filename)
    return f"{text}; {file}, line {own[-1].lineno}"


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # a class of the user's, whose own text fails
        return ""


@dataclass(frozen=True)
class Decoder:
    """The user's own decoder: a function from the bytes of a file to an array. It travels to workers.

    Attributes:
        name: MODULE:FUNCTION, as the settings of a pack have it.
        function: The function itself, if the user gave it. It is pickled by its name.
        where: Else where it is loaded from, in every process: an absolute FILE.py:FUNCTION, or MODULE:FUNCTION.
        folder: The working folder, in which a module may lie.
    """

    name: str
    function: Callable[[bytes], Any] | None = field(default=None, repr=False)
    where: str = ""
    folder: str = ""

    def __call__(self, data: bytes) -> Any:
        """Return what the function makes of the bytes of a file."""
        return self._callable(data)

    @property
    def digest(self) -> str:
        """The SHA-256 of the file that the function is in; empty if there is none."""
        module = sys.modules.get(str(getattr(self._callable, "__module__", "")))
        given = self.where.rpartition(":")[0]
        path = given if os.path.isfile(given) else getattr(module, "__file__", None)
        if path is None:  # typed into an interpreter, or built in
            return ""
        with open(path, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()

    @property
    def _callable(self) -> Callable[[bytes], Any]:
        return self.function or _loaded(self.where, self.folder)


def decoder_of(given: Decoder | Callable[[bytes], Any] | str) -> Decoder:
    """Return the decoder that a user means by a function or by its name.

    Raises:
        PackError: There is no such function, or workers could not find it.
    """
    if isinstance(given, Decoder):
        return given
    if isinstance(given, str):
        load("--decoder", given)  # a mistake shows now, not in a worker
        module, _, function = given.rpartition(":")
        file = _file_of(module)
        is_file = os.path.isfile(file)
        where = os.path.abspath(file) if is_file else module
        stem = os.path.splitext(os.path.basename(file))[0] if is_file else module
        return Decoder(f"{stem}:{function}", None, f"{where}:{function}", os.getcwd())
    name = getattr(given, "__qualname__", None)
    if not callable(given) or not name or "<" in name:
        raise PackError(
            f"decoder: expected a function that workers can import by its name, found {name or type(given).__name__}; "
            "define it at the top of a file"
        )
    return Decoder(f"{_module_name(given)}:{name}", given)


def _module_name(function: Callable[..., Any]) -> str:
    """Return the name of a function's module; that of its file if it is the main script."""
    name = str(function.__module__)
    file = getattr(sys.modules.get(name), "__file__", None)
    return os.path.splitext(os.path.basename(file))[0] if name in ("__main__", "__mp_main__") and file else name


@lru_cache(maxsize=8)
def _loaded(where: str, folder: str) -> Callable[[bytes], Any]:
    """Load a decoder once in each process."""
    if folder:
        _append_to_path(folder)
    return load("--decoder", where)


def _file_of(where: str) -> str:
    """Return the file that a module would be in, which a user may give with or without `.py`."""
    return where if where.endswith(".py") else f"{where}.py"


def _load(where: str) -> ModuleType | None:
    """Load a module from a file if there is one, or else by its name, which may lie in a package in the working folder.

    Return None if there is no such module.
    """
    path = _file_of(where)
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
