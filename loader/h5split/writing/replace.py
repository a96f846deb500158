"""Writing files safely. All files of both packages are written by the following rules.

- An existing file is replaced only if it has the same kind as the new file, such as a pack. Its content must prove
  that. Any other file, and any file that cannot be read, is an error.
- A symbolic link of another user is not followed.
- A new file appears under its name whole or not at all.
- Nothing else is changed or removed.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import stat
from collections.abc import Callable, Iterator
from typing import BinaryIO, TextIO

_MAX_LINKS = 40  # links followed from one path, as in Linux
_PREFIX = 24  # characters of a name that the temporary name begins with; more could be too long for the file system
# A file may be replaced by a pipe or a link between a check and open(). O_NONBLOCK keeps open() from waiting for a
# writer of the pipe, and O_NOFOLLOW makes it fail for a link.
_READ = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0)
# Errors of file systems that cannot fsync folders.
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
    """Resolve a path that the user gave: follow symbolic links that belong to this user or to root.

    A link of another user is an error: it may be there to make this process overwrite another file. Only the last part
    of the path is resolved; its folders need not exist. On systems without file owners every link is followed.

    Args:
        path: The file or folder to write. It need not exist.

    Returns:
        The path itself, or the path at the end of the links. It need not exist.

    Raises:
        ValueError: A link belongs to another user, or links form a cycle.
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
            raise ValueError(
                f"{named}: expected a path without links of other users, found {found}, a link of user "
                f"{status.st_uid}; name the file that it leads to, or another"
            )
        if is_stream(found):  # /dev/stdout leads to a link such as pipe:[123], which is not a path
            return found
        found = os.path.join(os.path.dirname(found), os.readlink(found))
    raise ValueError(f"{named}: expected a file, or nothing there, found links that lead in a circle; name another")


def is_stream(path: str) -> bool:
    """Whether the path is a pipe or a character device, such as /dev/stdout. Write to it; never replace it."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


def check_replaceable(path: str, kind: str, proves: Callable[[BinaryIO], bool]) -> None:
    """Check that a file may be written at `path`: nothing exists there, or an empty file, or a file of the same kind.

    Nothing is changed. Links are not followed: see `target`.

    Args:
        path: The path of the new file.
        kind: The kind of the new file with its article, such as "a pack".
        proves: A function that returns whether the content of an open, non-empty file proves that it has this kind. It
            may raise ValueError or OSError, which count as no. Other errors are not caught.

    Raises:
        ValueError: An existing file does not prove that it has this kind.
        OSError: The folder of `path` does not exist, or is not writable.
    """
    found = _obstacle(path, proves)
    if found is not None:
        raise ValueError(
            f"{path}: expected nothing there, or {kind} to replace, found {found}; remove it, or name another"
        )
    folder = os.path.dirname(path) or os.curdir
    if not os.path.isdir(folder):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)


def check_writable(path: str | os.PathLike[str], kind: str, proves: Callable[[BinaryIO], bool]) -> str:
    """Check that `written` may write to `path`. Call this before long work, so that it does not fail at the end.

    Args:
        path: The path that the user gave.
        kind: As in `check_replaceable`.
        proves: As in `check_replaceable`.

    Returns:
        The path after links are followed, as `target` returns it.

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
    """Open a new file that appears at `path`, complete, when the block ends. It may replace a file of the same kind.

    If the block fails or is interrupted, the existing file stays as it is. Several processes may write to one path: the
    last one to finish wins. A pipe or a character device, such as /dev/stdout, is written to directly.

    Args:
        path: The path of the file. Links are followed as in `target`.
        kind: As in `check_replaceable`.
        proves: As in `check_replaceable`.

    Yields:
        A text file in UTF-8. Surrogate escapes become the bytes they stand for, and newlines are not translated. Write
        bytes to its `buffer`.

    Raises:
        ValueError: As `check_writable`, before the block and again after it.
        OSError: The file cannot be written; the error names `path`. An OSError in the block that names no file gets
            this name too.
    """
    path = check_writable(path, kind, proves)
    temporary = temporary_beside(path)
    with _errors_with_path(path, temporary):
        if is_stream(path):
            with as_text(open(path, "wb")) as file:
                yield file
        else:
            with _renamed_when_complete(temporary, path, lambda: check_replaceable(path, kind, proves)) as file:
                yield file


def exclusive(path: str, dir_fd: int | None = None) -> BinaryIO:
    """Create a file that must not exist, not even as a link. The umask determines its permissions.

    Args:
        path: The path of the file.
        dir_fd: A descriptor of the folder that a relative path starts from, on systems that support it.

    Raises:
        FileExistsError: Something exists at `path`.
        OSError: The file cannot be created.
    """

    def create(name: str, flags: int) -> int:
        return os.open(name, flags | getattr(os, "O_NOFOLLOW", 0), 0o666, dir_fd=dir_fd)

    return open(path, "xb", opener=create)


def as_text(file: BinaryIO) -> TextIO:
    """Wrap a binary file as a text file in UTF-8, with surrogate escapes and without translation of newlines."""
    return io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="")


def temporary_beside(path: str) -> str:
    """A unique path for a temporary file beside `path`: the first characters of its name, and a random number."""
    folder, name = os.path.split(path)
    return os.path.join(folder, f"{name[:_PREFIX]}.{os.urandom(8).hex()}.partial")


def sync_folder(folder: str | int) -> None:
    """Make the names in a folder durable (fsync), so that they survive a power cut, if the file system can.

    Args:
        folder: The path of the folder, or a descriptor of it.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY) if isinstance(folder, str) else os.dup(folder)
    except PermissionError:  # a folder that is writable but not readable; any folder on Windows
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _renamed_when_complete(temporary: str, path: str, check: Callable[[], None]) -> Iterator[TextIO]:
    """Open a new file at `temporary`. After the block and a last check it is renamed to `path`; on errors, removed."""
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
    """Make errors of the system name `path`, which the user knows, instead of `temporary`."""
    try:
        yield
    except OSError as error:
        if not error.errno or error.filename not in (None, temporary):
            raise
        raise OSError(error.errno, error.strerror, path) from error


def _obstacle(path: str, proves: Callable[[BinaryIO], bool]) -> str | None:
    """A description of the thing at `path` that must not be replaced; None if the path is free or replaceable."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(mode):
        return _KINDS.get(stat.S_IFMT(mode), "no file")
    try:
        if _is_protected(path):
            return "a file of another user, in a folder where only its owner may replace it"
        with open(path, "rb", opener=lambda name, _: os.open(name, _READ)) as file:
            return _unproven(file, proves)
    except FileNotFoundError:  # removed meanwhile
        return None
    except OSError as error:
        return f"a file that cannot be opened ({error.strerror})"


def _is_protected(path: str) -> bool:
    """Whether the sticky bit of its folder prevents this user from replacing a file, as in /tmp."""
    folder = os.stat(os.path.dirname(path) or os.curdir)
    may_replace = (0, folder.st_uid, os.lstat(path).st_uid)
    return hasattr(os, "geteuid") and bool(folder.st_mode & stat.S_ISVTX) and os.geteuid() not in may_replace


def _unproven(file: BinaryIO, proves: Callable[[BinaryIO], bool]) -> str | None:
    """A description of an open file that must not be replaced; None if it is empty or proves its kind."""
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode):
        return _KINDS.get(stat.S_IFMT(status.st_mode), "no file")
    try:
        return None if not status.st_size or proves(file) else "another file"
    except OSError as error:
        return f"a file that cannot be read ({error.strerror})"
    except ValueError as error:
        return f"another file, or a damaged one ({' '.join(str(error).split())})"
