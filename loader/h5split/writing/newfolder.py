"""NewFolder: a folder that this program fills. It never writes elsewhere, even if other users plant links in it."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from types import TracebackType
from typing import Self, TextIO

from h5split.errors import ArgumentError
from h5split.system.files import FOLDER
from h5split.writing.replace import as_text, exclusive, sync_folder, target, temporary_beside

# Whether the system can look up names in an open folder. Windows cannot.
_HAS_DIR_FD = {os.open, os.mkdir, os.stat, os.unlink, os.rename} <= os.supports_dir_fd
# Errors of opening a path that is not a folder any more.
_NO_FOLDER = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EMLINK)


class NewFolder:
    """A new or empty folder, and the folders and files that are created in it. None of them may exist before.

    If the system supports dir_fd, every name is looked up in an open folder that this object created. So it does not
    follow links that other users plant, and does not write to a folder that another user put in place of its own.

    Args:
        path: The folder. Links are followed as in `h5split.writing.replace.target`.

    Raises:
        ValueError: The folder is not empty, or its path is a link of another user.
        OSError: The folder cannot be created or read.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = target(os.fsdecode(path).rstrip(os.sep) or os.sep)
        os.makedirs(self.path, exist_ok=True)
        self._place = os.path.abspath(self.path)
        self._root = os.open(self.path, FOLDER) if _HAS_DIR_FD else None
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
        """Create a folder, and the folders above it that this object has not created yet.

        Args:
            folder: The path of the folder, relative to this folder, with slashes.

        Raises:
            ValueError: Somebody replaced a folder that was created here.
            OSError: The folder cannot be created, for instance because something exists at its path.
        """
        above, _, name = folder.rpartition("/")
        if folder in self._made:
            return
        self.make(above)
        with self._errors_with_path(folder), self._inside(above) as (prefix, descriptor):
            os.mkdir(prefix + name, dir_fd=descriptor)
            self._made[folder] = _identity(os.stat(prefix + name, dir_fd=descriptor, follow_symlinks=False))

    def write(self, path: str, data: bytes) -> None:
        """Write a file. If that fails, the file is removed.

        Args:
            path: The path of the file, relative to this folder, with slashes. `make` has created its folder.
            data: The content of the file.

        Raises:
            ValueError: Somebody replaced the folder of the file.
            OSError: The file cannot be written, for instance because something exists at its path.
        """
        folder, _, name = path.rpartition("/")
        with self._errors_with_path(path), self._inside(folder) as (prefix, descriptor):
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
        """Open the last file. Its existence shows that all others are complete.

        It appears when the block ends, whole or not at all.

        Args:
            name: The name of the file. It has no slash.

        Yields:
            A text file, like that of `h5split.writing.replace.written`.

        Raises:
            ValueError: Somebody replaced a folder that was created here.
            OSError: The file cannot be written, for instance because something exists at its path.
        """
        temporary = temporary_beside(name)
        with self._errors_with_path(name), self._inside("") as (prefix, descriptor):
            try:
                with as_text(exclusive(prefix + temporary, descriptor)) as file:
                    yield file
                    file.flush()
                    os.fsync(file.fileno())
                self._check()
                if _identity_at(prefix + name, descriptor) is not None:
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)
                os.rename(prefix + temporary, prefix + name, src_dir_fd=descriptor, dst_dir_fd=descriptor)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(prefix + temporary, dir_fd=descriptor)
                raise
            sync_folder(self._place if descriptor is None else descriptor)

    def close(self) -> None:
        """Close the descriptor of the folder."""
        if self._root is not None:
            os.close(self._root)
        self._root = None

    def _check(self) -> None:
        """Raise unless every folder is still where it was created."""
        if _identity_at(self._place) != self._made[""]:
            raise self._replaced("")
        for folder in self._made:
            with self._inside(folder):
                pass

    @contextlib.contextmanager
    def _inside(self, folder: str) -> Iterator[tuple[str, int | None]]:
        """Yield a prefix for names in a folder, and the folder's descriptor (None on systems without dir_fd).

        Raises:
            ValueError: Somebody replaced the folder.
        """
        if self._root is None:
            place = os.path.join(self._place, folder)
            if _identity_at(place.rstrip(os.sep)) != self._made[folder]:
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
        """Open a folder name by name from the root, without following links. The caller closes the descriptor."""
        assert self._root is not None
        descriptor = os.dup(self._root)
        for name in folder.split("/") if folder else ():
            try:
                inner = os.open(name, FOLDER, dir_fd=descriptor)
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
    def _errors_with_path(self, path: str) -> Iterator[None]:
        """Make errors of the system name the whole path of the file or folder that is written."""
        try:
            yield
        except OSError as error:
            if error.errno is None:
                raise
            raise OSError(error.errno, error.strerror, os.path.join(self.path, path)) from error


def _identity(status: os.stat_result) -> tuple[int, int]:
    """(device, inode), which identifies a file or folder whatever its path is."""
    return status.st_dev, status.st_ino


def _identity_at(name: str, descriptor: int | None = None) -> tuple[int, int] | None:
    """The identity of the file or folder at a path; None if nothing exists there. Links are not followed."""
    try:
        return _identity(os.stat(name, dir_fd=descriptor, follow_symlinks=False))
    except FileNotFoundError:
        return None
