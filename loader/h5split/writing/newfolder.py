"""A folder that one program fills, and others may write to meanwhile: nothing outside of it is ever written."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from types import TracebackType
from typing import Self, TextIO

from h5split.errors import ArgumentError
from h5split.writing.replace import as_text, exclusive, sync_folder, target, temporary_beside

_HAS_DIR_FD = {os.open, os.mkdir, os.stat, os.unlink, os.rename} <= os.supports_dir_fd
_FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0)
_NO_FOLDER = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EMLINK)


class NewFolder:
    """A new or empty folder, and folders and files in it, each of which must not be there yet.

    Where the system can, every name is looked up in an open folder that was made here: links that others plant are not
    followed, and what they put in place of a folder is not written to.

    Args:
        path: The folder. A link is followed as `h5split.writing.replace.target` does.

    Raises:
        ValueError: It is not empty, or behind a link of another user.
        OSError: It cannot be made or read.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = target(os.fsdecode(path).rstrip(os.sep) or os.sep)
        os.makedirs(self.path, exist_ok=True)
        self._place = os.path.abspath(self.path)
        self._root = os.open(self.path, _FOLDER) if _HAS_DIR_FD else None
        root = self._place if self._root is None else self._root
        self._made = {"": _identity(os.stat(root))}
        found = next(iter(os.listdir(root)), None)
        if found is not None:
            self.close()
            raise ArgumentError(f"{self.path}: expected a new or empty folder, found {found!r} in it; name another")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def make(self, folder: str) -> None:
        """Make a folder, and those above it that were not made yet.

        Args:
            folder: Its path from here, with slashes.

        Raises:
            ValueError: Somebody has put another folder in place of one that was made.
            OSError: It cannot be made, as where there is something already.
        """
        above, _, name = folder.rpartition("/")
        if folder in self._made:
            return
        self.make(above)
        with self._naming(folder), self._inside(above) as (prefix, descriptor):
            os.mkdir(prefix + name, dir_fd=descriptor)
            self._made[folder] = _identity(os.stat(prefix + name, dir_fd=descriptor, follow_symlinks=False))

    def write(self, path: str, data: bytes) -> None:
        """Write a file. If that fails, it is removed.

        Args:
            path: Its path from here, with slashes. Its folder was made.
            data: What it holds.

        Raises:
            ValueError: Somebody has put another folder in place of its own.
            OSError: It cannot be written, as where there is something already.
        """
        folder, _, name = path.rpartition("/")
        with self._naming(path), self._inside(folder) as (prefix, descriptor):
            file = exclusive(prefix + name, descriptor)
            try:
                with file:
                    file.write(data)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(prefix + name, dir_fd=descriptor)
                raise

    @contextlib.contextmanager
    def last(self, name: str) -> Iterator[TextIO]:
        """A file that says that all is written: it appears when the block ends, whole or not at all.

        Args:
            name: Of the file, which lies directly in this folder.

        Yields:
            The file, as `h5split.writing.replace.written` does.

        Raises:
            ValueError: Somebody has put another folder in place of one that was made.
            OSError: It cannot be written, as where there is something already.
        """
        temporary = temporary_beside(name)
        with self._naming(name), self._inside("") as (prefix, descriptor):
            try:
                with as_text(exclusive(prefix + temporary, descriptor)) as file:
                    yield file
                    file.flush()
                    os.fsync(file.fileno())
                self._check()
                if _found(prefix + name, descriptor) is not None:
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)
                os.rename(prefix + temporary, prefix + name, src_dir_fd=descriptor, dst_dir_fd=descriptor)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(prefix + temporary, dir_fd=descriptor)
                raise
            sync_folder(self._place if descriptor is None else descriptor)

    def close(self) -> None:
        """Let go of the folder."""
        if self._root is not None:
            os.close(self._root)
        self._root = None

    def _check(self) -> None:
        """See that every folder is still where it was made."""
        if _found(self._place) != self._made[""]:
            raise self._replaced("")
        for folder in self._made:
            with self._inside(folder):
                pass

    @contextlib.contextmanager
    def _inside(self, folder: str) -> Iterator[tuple[str, int | None]]:
        """What names in a folder begin with, and the descriptor of the folder that they are looked up in."""
        if self._root is None:
            place = os.path.join(self._place, folder)
            if _found(place.rstrip(os.sep)) != self._made[folder]:
                raise self._replaced(folder)
            yield os.path.join(place, ""), None
            return
        descriptor = self._open(folder)
        try:
            if _identity(os.fstat(descriptor)) != self._made[folder]:
                raise self._replaced(folder)
            yield "", descriptor
        finally:
            os.close(descriptor)

    def _open(self, folder: str) -> int:
        assert self._root is not None
        descriptor = os.dup(self._root)
        for name in folder.split("/") if folder else ():
            try:
                inner = os.open(name, _FOLDER, dir_fd=descriptor)
            except OSError as error:
                if error.errno in _NO_FOLDER:
                    raise self._replaced(folder) from error
                raise
            finally:
                os.close(descriptor)
            descriptor = inner
        return descriptor

    def _replaced(self, folder: str) -> ValueError:
        place = os.path.join(self.path, folder) if folder else self.path
        return ValueError(
            f"{place}: expected the folder that was made there, found something else; "
            "somebody else has moved or removed it meanwhile"
        )

    @contextlib.contextmanager
    def _naming(self, path: str) -> Iterator[None]:
        """Have errors of the system name the whole path of what is written."""
        try:
            yield
        except OSError as error:
            if error.errno is None:
                raise
            raise OSError(error.errno, error.strerror, os.path.join(self.path, path)) from error


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _found(name: str, descriptor: int | None = None) -> tuple[int, int] | None:
    """What there is at a path, links not followed."""
    try:
        return _identity(os.stat(name, dir_fd=descriptor, follow_symlinks=False))
    except FileNotFoundError:
        return None
