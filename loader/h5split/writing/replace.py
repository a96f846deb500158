"""The one rule for every file that this package writes.

An existing file is replaced only if its content proves that it is of the same kind as the new file. If it is of another
kind, or cannot be read, nothing is written. A symbolic link of another user is not followed. A new file appears under
its name whole or not at all. No other file is changed or removed.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import stat
from collections.abc import Callable, Iterator
from typing import BinaryIO, TextIO

from h5split.errors import ArgumentError
from h5split.system.files import BINARY, NO_LINKS, NO_WAIT

_MAX_LINKS = 40  # the limit of Linux for links that are followed in one path
_PREFIX_LENGTH = 24  # characters of a name that its temporary file begins with; a whole name could become too long
_READ = os.O_RDONLY | BINARY | NO_WAIT | NO_LINKS
# Errors of file systems that do not support fsync of a folder.
_NO_SYNC = (errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.EACCES, errno.EPERM)
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def target(path: str | os.PathLike[str]) -> str:
    """Follow the symbolic links at a path, if they belong to this user or to root.

    A link of another user is refused: that user may have planted it to have a file elsewhere overwritten. Folders in
    the path are not checked and need not exist. If the system has no file owners, every link is followed.

    Args:
        path: The file or folder to be written. It need not exist.

    Returns:
        The path itself, or the path at the end of the links. It need not exist.

    Raises:
        ValueError: A link belongs to another user, or the links form a circle.
        OSError: The path cannot be examined.
    """
    named = found = os.fsdecode(path)
    for _ in range(_MAX_LINKS):
        try:
            status = os.lstat(found)
        except FileNotFoundError:
            return found
        if not stat.S_ISLNK(status.st_mode):
            return found
        if hasattr(os, "geteuid") and status.st_uid not in (0, os.geteuid()):
            raise ArgumentError(
                f"{named}: expected a path without links of other users, found {found}, a link of user "
                f"{status.st_uid}; name the file that it leads to, or another"
            )
        if is_stream(found):  # /dev/stdout leads to a link whose text is not a path
            return found
        found = os.path.join(os.path.dirname(found), os.readlink(found))
    raise ArgumentError(f"{named}: expected a file, or nothing there, found links that lead in a circle; name another")


def is_stream(path: str) -> bool:
    """Whether a path is a pipe or a character device, such as /dev/stdout. These are written to and never replaced."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


def check_replaceable(path: str, kind: str, proves: Callable[[BinaryIO], bool]) -> None:
    """Check that a file may be written at `path`: nothing exists there, or an empty file, or one of the same kind.

    Nothing is changed. Links are not followed; `target` does that.

    Args:
        path: The path of the new file.
        kind: The kind of the file, with an article, such as "a pack".
        proves: A function that returns whether the content of an open, non-empty file proves this kind. It may raise
            ValueError for a damaged file, and OSError. Other errors are not caught.

    Raises:
        ValueError: Something that is not proven to be of this kind exists at `path`.
        OSError: The folder of `path` does not exist, or this user cannot write to it.
    """
    found = _obstacle(path, proves)
    if found is not None:
        raise ArgumentError(
            f"{path}: expected nothing there, or {kind} to replace, found {found}; remove it, or name another"
        )
    folder = os.path.dirname(path) or os.curdir
    if not os.path.isdir(folder):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)


def check_writable(path: str | os.PathLike[str], kind: str, proves: Callable[[BinaryIO], bool]) -> str:
    """Check that `written` may write to `path`. Call this before long work whose result goes there.

    Args:
        path: The path from the user.
        kind: As in `check_replaceable`.
        proves: As in `check_replaceable`.

    Returns:
        The path at the end of links, from `target`.

    Raises:
        ValueError: As `target` and `check_replaceable`.
        OSError: As `target` and `check_replaceable`.
    """
    path = target(path)
    if not is_stream(path):
        check_replaceable(path, kind, proves)
    return path


@contextlib.contextmanager
def written(path: str | os.PathLike[str], kind: str, proves: Callable[[BinaryIO], bool]) -> Iterator[TextIO]:
    """Open a new file. It appears at `path` when the block ends, and replaces an earlier file of its kind.

    If the block fails or is interrupted, the earlier file stays unchanged. Several writers of one path do not disturb
    each other: the last one to end wins. A pipe or a character device, such as /dev/stdout, is written to directly.

    Args:
        path: The path of the file. Links are followed as in `target`.
        kind: As in `check_replaceable`.
        proves: As in `check_replaceable`.

    Yields:
        The file, open for UTF-8 text without translation of newlines. Surrogate escapes become the original bytes.
        Binary data can be written to its attribute `buffer`.

    Raises:
        ValueError: `check_writable` fails, before or after the block.
        OSError: The file cannot be written. The error names `path`. So does an OSError of the block that names no file.
    """
    path = check_writable(path, kind, proves)
    temporary = temporary_beside(path)
    with _errors_with_path(path, temporary):
        if is_stream(path):
            with as_text(open(path, "wb")) as file:
                yield file
        else:
            with _renamed_when_done(temporary, path, lambda: check_replaceable(path, kind, proves)) as file:
                yield file


def exclusive(path: str, dir_fd: int | None = None) -> BinaryIO:
    """Create a file for writing and reading. Nothing may exist at its path, not even a link. The umask sets its mode.

    Args:
        path: The path of the file.
        dir_fd: A descriptor of the folder that a relative path starts from, if the system supports this.

    Raises:
        FileExistsError: Something exists at `path`.
        OSError: The file cannot be created.
    """

    def create(name: str, flags: int) -> int:
        return os.open(name, flags | NO_LINKS, 0o666, dir_fd=dir_fd)

    return open(path, "x+b", opener=create)


def as_text(file: BinaryIO) -> TextIO:
    """Wrap a binary file for UTF-8 text: other bytes are surrogate escapes, and newlines are not translated."""
    return io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="")


def temporary_beside(path: str) -> str:
    """A path in the folder of `path` that no other writer uses: the beginning of its name, and a random number."""
    folder, name = os.path.split(path)
    return os.path.join(folder, f"{name[:_PREFIX_LENGTH]}.{os.urandom(8).hex()}.partial")


def sync_folder(folder: str | int) -> None:
    """Write the names in a folder to disk, so that they survive a power cut. Some file systems do not support this.

    Args:
        folder: The path of the folder, or a descriptor of it.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY) if isinstance(folder, str) else os.dup(folder)
    except PermissionError:  # a folder that can be written to but not read; any folder on Windows
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _renamed_when_done(temporary: str, path: str, check: Callable[[], None]) -> Iterator[TextIO]:
    """Create a file at `temporary`. After the block and a last check, rename it to `path`; on failure, remove it."""
    try:
        with as_text(exclusive(temporary)) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        check()
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    sync_folder(os.path.dirname(path) or os.curdir)


@contextlib.contextmanager
def _errors_with_path(path: str, temporary: str) -> Iterator[None]:
    """Make errors of the system name `path`, if they name the temporary file or no file."""
    try:
        yield
    except OSError as error:
        if not error.errno or error.filename not in (None, temporary):
            raise
        raise OSError(error.errno, error.strerror, path) from error


def _obstacle(path: str, proves: Callable[[BinaryIO], bool]) -> str | None:
    """Describe the file at `path` if it must not be replaced; None if writing there is allowed."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(mode):
        return _KINDS.get(stat.S_IFMT(mode), "no file")
    try:
        if _is_sticky(path):
            return "a file of another user, in a folder where only its owner may replace it"
        with open(path, "rb", opener=lambda name, _: os.open(name, _READ)) as file:
            return _other_kind(file, proves)
    except FileNotFoundError:  # removed meanwhile
        return None
    except OSError as error:
        return f"a file that cannot be opened ({error.strerror})"


def _is_sticky(path: str) -> bool:
    """Whether the sticky bit of the folder forbids this user to replace the file."""
    folder = os.stat(os.path.dirname(path) or os.curdir)
    allowed = (0, folder.st_uid, os.lstat(path).st_uid)
    return hasattr(os, "geteuid") and bool(folder.st_mode & stat.S_ISVTX) and os.geteuid() not in allowed


def _other_kind(file: BinaryIO, proves: Callable[[BinaryIO], bool]) -> str | None:
    """Describe an open file that is not of the expected kind; None if it is empty or proves its kind."""
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode):
        return _KINDS.get(stat.S_IFMT(status.st_mode), "no file")
    try:
        return None if not status.st_size or proves(file) else "another file"
    except OSError as error:
        return f"a file that cannot be read ({error.strerror})"
    except ValueError as error:
        return f"another file, or a damaged one ({' '.join(str(error).split())})"
