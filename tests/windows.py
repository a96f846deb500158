"""Make this process as much like one on Windows as a POSIX system can: `become`. See `docs/windows.md`.

Libraries that have been imported before keep what they found. Only h5split and pack_images, imported after it, see the
other system.
"""

from __future__ import annotations

import builtins
import errno
import io
import mmap
import os
import re
import signal
import socket  # noqa: F401 - it, and the next ones, look at the platform when they are imported
import stat
import subprocess  # noqa: F401
import sys
import tempfile
from typing import Any

BINARY = 0x8000  # the value of O_BINARY on Windows; 64-bit Linux ignores this bit
OURS = ("h5split", "pack_images")

MODULES = "fcntl grp posix pty pwd readline resource syslog termios tty _posixsubprocess _posixshmem"
CONSTANTS = {
    os: "CLD EFD EX F GRND MFD POSIX PRIO P RTLD RWF SCHED SPLICE ST XATTR W[A-Z]+ SEEK_DATA SEEK_HOLE NGROUPS_MAX "
    "O_ACCMODE O_ASYNC O_CLOEXEC O_DIRECT O_DIRECTORY O_DSYNC O_FSYNC O_LARGEFILE O_NDELAY O_NOATIME O_NOCTTY "
    "O_NOFOLLOW O_NONBLOCK O_PATH O_RSYNC O_SYNC O_TMPFILE",
    signal: "SIG(?!INT|TERM|ABRT|FPE|ILL|SEGV|_DFL|_IGN)[A-Z0-9_]+ ITIMER",
    mmap: "MADV MAP PROT",
}
FUNCTIONS = {
    os: """chown chroot confstr copy_file_range ctermid environb eventfd fchdir fchmod fchown fdatasync fork forkpty
        fpathconf fstatvfs fwalk get_blocking getegid getenvb geteuid getgid getgrouplist getgroups getloadavg getpgid
        getpgrp getpriority getrandom getresgid getresuid getsid getuid getxattr initgroups killpg lchown listxattr
        lockf login_tty major makedev memfd_create minor mkfifo mknod nice openpty pathconf pidfd_open pipe2
        posix_fadvise posix_fallocate posix_spawn posix_spawnp pread preadv pwrite pwritev readv register_at_fork
        removexattr sched_getaffinity sched_setaffinity sched_yield sendfile set_blocking setegid seteuid setgid
        setgroups setpgid setpgrp setpriority setregid setresgid setresuid setreuid setsid setuid setxattr spawnlp
        spawnvp splice statvfs sync sysconf tcgetpgrp tcsetpgrp ttyname uname wait wait3 wait4 waitid writev""",
    signal: """alarm getitimer pause pidfd_send_signal pthread_kill pthread_sigmask setitimer siginterrupt sigpending
        sigtimedwait sigwait sigwaitinfo""",
    mmap: "",
}
LOOKED_UP = "access chmod link mkdir open readlink remove rename replace rmdir stat symlink unlink utime"
MOVED = "remove rename replace unlink"


def become() -> None:
    """Take away what Windows lacks, and let calls fail that fail there."""
    for module, kinds in CONSTANTS.items():
        is_constant = re.compile("|".join(f"{kind}(_.*)?" for kind in kinds.split())).fullmatch
        for name in [name for name in vars(module) if is_constant(name)]:
            delattr(module, name)
        for name in FUNCTIONS[module].split():
            if hasattr(module, name):
                delattr(module, name)
    sys.modules.update(dict.fromkeys(MODULES.split()))  # importing them is an error
    os.O_BINARY = BINARY
    os.supports_dir_fd, os.supports_fd = set(), set()
    for name in MOVED.split():
        setattr(os, name, _refusing_open_files(getattr(os, name)))
    for name in LOOKED_UP.split():
        setattr(os, name, _without_dir_fd(getattr(os, name)))
    os.open = _open_of_windows(os.open)
    os.listdir = _listdir_of_windows(os.listdir)
    io.open = builtins.open = _binary_opener(io.open)
    signal.signal = _signal_of_windows(signal.signal)
    mmap.mmap = _Map
    tempfile.TemporaryFile = tempfile.NamedTemporaryFile  # as tempfile itself has it there
    sys.platform = "win32"


def _calls_ours() -> bool:
    """Whether the caller of the caller is code of the packages under test, not of a library."""
    return str(sys._getframe(2).f_globals.get("__name__")).split(".")[0] in OURS


def _denied(path: Any) -> PermissionError:
    return PermissionError(errno.EACCES, "Access is denied", path)


def is_open(path: Any) -> bool:
    """Whether this process has a file open or mapped."""
    found = os.path.realpath(os.fsdecode(path))
    descriptors = []
    for name in os.listdir("/proc/self/fd"):
        try:
            descriptors.append(os.path.realpath(f"/proc/self/fd/{name}"))
        except OSError:  # that of the listing
            continue
    with open("/proc/self/maps") as maps:
        return found in descriptors or any(line.rstrip("\n").endswith(f" {found}") for line in maps)


def _refusing_open_files(function: Any) -> Any:
    def call(*paths: Any, **options: Any) -> Any:
        for path in paths:
            if os.path.isfile(path) and is_open(path):
                raise _denied(path)
        return function(*paths, **options)

    return call


def _without_dir_fd(function: Any) -> Any:
    def call(*given: Any, **options: Any) -> Any:
        for name in [name for name in options if name.endswith("dir_fd")]:
            if options.pop(name) is not None:
                raise NotImplementedError("dir_fd unavailable on this platform")
        return function(*given, **options)

    call.__name__ = function.__name__
    return call


def _open_of_windows(function: Any) -> Any:
    def call(path: Any, flags: int, *others: Any, **options: Any) -> int:
        if os.path.isdir(path):
            raise _denied(path)
        if _calls_ours() and not flags & BINARY:
            raise AssertionError(f"os.open({path!r}) without O_BINARY: Windows would translate newlines")
        return int(function(path, flags & ~BINARY, *others, **options))

    return call


def _listdir_of_windows(function: Any) -> Any:
    def call(path: Any = ".") -> Any:
        if isinstance(path, int):
            raise TypeError("listdir: path should be string, bytes, os.PathLike or None, not int")
        return function(path)

    return call


def _binary_opener(function: Any) -> Any:
    """`open`, which asks an opener for binary files on Windows, and has another encoding of text."""

    def call(file: Any, mode: str = "r", *others: Any, opener: Any = None, **options: Any) -> Any:
        if _calls_ours() and "b" not in mode and not (len(others) > 1 or options.get("encoding")):
            raise AssertionError(f"open({file!r}) without encoding: Windows would take its code page")
        ours = None if opener is None else lambda path, flags: opener(path, flags | BINARY)
        return function(file, mode, *others, opener=ours, **options)

    return call


def _signal_of_windows(function: Any) -> Any:
    def call(number: int, handler: Any) -> Any:
        if number not in (signal.SIGINT, signal.SIGTERM, signal.SIGABRT, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV):
            raise ValueError("invalid signal value")
        return function(number, handler)

    return call


class _Map(mmap.mmap):
    """A map with the arguments that Windows has, and without advice to the system."""

    def __new__(cls, fileno: int, length: int, tagname: str | None = None, access: int = 0, offset: int = 0) -> _Map:
        if fileno >= 0 and not stat.S_ISREG(os.fstat(fileno).st_mode):
            raise _denied(None)
        return super().__new__(cls, fileno, length, access=access, offset=offset)

    @property
    def madvise(self) -> Any:
        raise AttributeError("'mmap.mmap' object has no attribute 'madvise'")
