"""The one rule for every file that is written.

A file is replaced only if it is of the kind that is written there, which its content must prove. Anything else, and
anything that cannot be read, is refused. A symbolic link of another user is not followed. A new file appears under its
name whole or not at all. Nothing else is changed or removed.
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

_MOST_LINKS = 40  # that lead to one file, as in Linux
_KEPT = 24  # characters of a name that its temporary begins with, so that no file system finds it too long
_READ = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0)
_NO_SYNC = (errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.EACCES, errno.EPERM)  # of folders, on some file systems
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def target(path: str | os.PathLike[str]) -> str:
    """Where a path that the user named leads, following symbolic links of this user and of root.

    A link of another user is refused: it may have been planted to have a file elsewhere overwritten. Folders on the way
    are not looked at, and need not exist. Where a file system has no owners, every link is followed.

    Args:
        path: A file or folder to be written; there may be nothing yet.

    Returns:
        The path itself, or that at the end of the links. There may be nothing at it.

    Raises:
        ValueError: A link belongs to another user, or links lead in a circle.
        OSError: The path cannot be looked at.
    """
    named = found = os.fsdecode(path)
    for _ in range(_MOST_LINKS):
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
        if is_stream(found):  # /dev/stdout leads to a link whose text is no path
            return found
        found = os.path.join(os.path.dirname(found), os.readlink(found))
    raise ArgumentError(f"{named}: expected a file, or nothing there, found links that lead in a circle; name another")


def is_stream(path: str) -> bool:
    """Whether there is a pipe or a character device, such as /dev/stdout, which is written to and never replaced."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


def check_replaceable(path: str, kind: str, proves: Callable[[BinaryIO], bool]) -> None:
    """Check that a file may be written at `path`: there is nothing, an empty file, or one of the same kind.

    Nothing is changed. Links are not followed: see `target`.

    Args:
        path: Where the file is to appear.
        kind: What is written there, with its article, such as "a pack".
        proves: Whether the content of an open file, which is not empty, proves this kind. Other errors than ValueError
            and OSError are not caught.

    Raises:
        ValueError: What is there cannot be proven to be of this kind.
        OSError: The folder of `path` is not there, or takes no files.
    """
    found = _hindrance(path, proves)
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
        path: What the user named.
        kind: As in `check_replaceable`.
        proves: As in `check_replaceable`.

    Returns:
        Where links lead, as `target` does.

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
    """A new file that appears at `path` when the block ends, whole, in place of nothing or of one of its kind.

    If the block fails or is interrupted, what was there stays as it was. Several writers of one path do not disturb
    each other: the last one to end wins. A pipe or a character device, such as /dev/stdout, is written to directly.

    Args:
        path: Where it appears; links are followed as `target` does.
        kind: As in `check_replaceable`.
        proves: As in `check_replaceable`.

    Yields:
        The file: UTF-8, bytes that are not UTF-8 given as surrogates, newlines as they are. Bytes go to its `buffer`.

    Raises:
        ValueError: As `check_writable`, before the block and after it.
        OSError: The file cannot be written; the error names `path`, as do those of the block that name no file.
    """
    path = check_writable(path, kind, proves)
    temporary = temporary_beside(path)
    with _naming(path, temporary):
        if is_stream(path):
            with as_text(open(path, "wb")) as file:
                yield file
        else:
            with _published(temporary, path, lambda: check_replaceable(path, kind, proves)) as file:
                yield file


def exclusive(path: str, dir_fd: int | None = None) -> BinaryIO:
    """Create a file that must not be there yet, not even as a link; its mode is left to the umask.

    Args:
        path: The file.
        dir_fd: A descriptor of the folder that a relative path starts from, where the system has such.

    Raises:
        FileExistsError: There is something at `path`.
        OSError: It cannot be created.
    """

    def create(name: str, flags: int) -> int:
        return os.open(name, flags | getattr(os, "O_NOFOLLOW", 0), 0o666, dir_fd=dir_fd)

    return open(path, "xb", opener=create)


def as_text(file: BinaryIO) -> TextIO:
    """A binary file as UTF-8: bytes that are not UTF-8 are given as surrogates, newlines stay as they are."""
    return io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="")


def temporary_beside(path: str) -> str:
    """A name in the folder of `path` that no other writer has: the beginning of its own, and a random number."""
    folder, name = os.path.split(path)
    return os.path.join(folder, f"{name[:_KEPT]}.{os.urandom(8).hex()}.partial")


def sync_folder(folder: str | int) -> None:
    """Have the names in a folder survive a power cut, where its file system can promise that.

    Args:
        folder: Its path, or a descriptor of it.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY) if isinstance(folder, str) else os.dup(folder)
    except PermissionError:  # a folder that takes files and does not show them; any folder on Windows
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _published(temporary: str, path: str, check: Callable[[], None]) -> Iterator[TextIO]:
    """A new file at `temporary`, which gets the name `path` after a last check, or is removed if anything fails."""
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
def _naming(path: str, temporary: str) -> Iterator[None]:
    """Have errors of the system name what the user named."""
    try:
        yield
    except OSError as error:
        if not error.errno or error.filename not in (None, temporary):
            raise
        raise OSError(error.errno, error.strerror, path) from error


def _hindrance(path: str, proves: Callable[[BinaryIO], bool]) -> str | None:
    """What there is at `path` that must not be replaced; None if there is no such thing."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(mode):
        return _KINDS.get(stat.S_IFMT(mode), "no file")
    try:
        if _is_guarded(path):
            return "a file of another user, in a folder where only its owner may replace it"
        with open(path, "rb", opener=lambda name, _: os.open(name, _READ)) as file:
            return _unproven(file, proves)
    except FileNotFoundError:  # removed meanwhile
        return None
    except OSError as error:
        return f"a file that cannot be opened ({error.strerror})"


def _is_guarded(path: str) -> bool:
    """Whether the sticky bit of its folder keeps this user from replacing a file."""
    folder = os.stat(os.path.dirname(path) or os.curdir)
    mine = (0, folder.st_uid, os.lstat(path).st_uid)
    return hasattr(os, "geteuid") and bool(folder.st_mode & stat.S_ISVTX) and os.geteuid() not in mine


def _unproven(file: BinaryIO, proves: Callable[[BinaryIO], bool]) -> str | None:
    """What an open file is, unless it is empty or proves its kind."""
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode):
        return _KINDS.get(stat.S_IFMT(status.st_mode), "no file")
    try:
        return None if not status.st_size or proves(file) else "another file"
    except OSError as error:
        return f"a file that cannot be read ({error.strerror})"
    except ValueError as error:
        return f"another file, or a damaged one ({' '.join(str(error).split())})"
