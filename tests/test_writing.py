"""Files are replaced atomically, and only files of the same kind, even with concurrent writers."""

from __future__ import annotations

import errno
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
from contextlib import nullcontext

import pytest

from conftest import PATIENCE
from h5split.writing.replace import check_replaceable, exclusive, is_stream, target, written

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can change the owner of files and mount a disk")
KIND = "a list"
OTHER = {
    "another file": lambda path: path.write_bytes(b"mine"),
    "one byte": lambda path: path.write_bytes(b"\0"),
    "a folder": lambda path: path.mkdir(),
    "a pipe": os.mkfifo,
    "a socket": lambda path: bound(path),
    "a symbolic link": lambda path: path.symlink_to("elsewhere"),
}


def bound(path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def is_list(file):
    """Whether a file begins like a list."""
    return file.read(5) == b"list:"


def write(path, text, meanwhile=lambda: None):
    with written(path, KIND, is_list) as file:
        file.write(text)
        meanwhile()


def facts(folder):
    """Map the name of everything in a folder to its inode, mode, size and mtime."""
    found = {entry.name: entry.stat(follow_symlinks=False) for entry in os.scandir(folder)}
    return {name: (status.st_ino, status.st_mode, status.st_size, status.st_mtime_ns) for name, status in found.items()}


# --- files that may be replaced --------------------------------------------------------------------------------------


@pytest.mark.parametrize("there", [None, b"", b"list: old"], ids=["nothing", "an empty file", "a list"])
def test_an_empty_file_or_a_file_of_the_same_kind_is_replaced(tmp_path, there):
    path = tmp_path / "a"
    if there is not None:
        path.write_bytes(there)
    write(path, "list: ü\udcff\n")
    assert path.read_bytes() == b"list: \xc3\xbc\xff\n"
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("kind", OTHER)
def test_any_other_file_is_refused_and_left_unchanged(tmp_path, kind):
    path = tmp_path / "a"
    OTHER[kind](path)
    before = facts(tmp_path)
    found = kind if kind.startswith("a ") else "another file"
    message = f"{path}: expected nothing there, or a list to replace, found {found}; remove it, or name another"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        check_replaceable(str(path), KIND, is_list)
    assert facts(tmp_path) == before


@pytest.mark.parametrize("error", [ValueError("row 3\nis cut"), OSError(errno.EIO, "Input/output error")], ids=repr)
def test_a_file_whose_kind_cannot_be_checked_is_refused_with_the_reason(tmp_path, error):
    def fail(file):
        raise error

    (tmp_path / "a").write_text("list: mine")
    reason = re.escape(f"({error.strerror if isinstance(error, OSError) else 'row 3 is cut'})")
    with (
        pytest.raises(ValueError, match=f"a: expected .* found .*{reason}; remove it, or name another"),
        written(tmp_path / "a", KIND, fail),
    ):
        raise AssertionError("it must be refused first")
    assert (tmp_path / "a").read_text() == "list: mine"


def test_an_unreadable_file_is_refused(tmp_path):
    (tmp_path / "a").write_text("list: mine")
    (tmp_path / "a").chmod(0o200)
    code = (
        "import os, sys; from h5split.writing.replace import check_replaceable\n"
        "os.geteuid() or os.setuid(65534)\n"
        "check_replaceable('a', 'a list', lambda file: True)"
    )
    tmp_path.chmod(0o777)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    last = done.stderr.splitlines()[-1]
    assert last == (
        "h5split.errors.ArgumentError: a: expected nothing there, or a list to replace, found a file that cannot be "
        "opened (Permission denied); remove it, or name another"
    )


def test_a_file_created_during_the_write_is_not_replaced(tmp_path):
    with pytest.raises(
        ValueError, match=r"a: expected nothing there, or a list to replace, found another file; remove"
    ):
        write(tmp_path / "a", "list: new", lambda: (tmp_path / "a").write_text("mine"))
    assert (tmp_path / "a").read_text() == "mine"
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("name", ["nowhere/a", "file/a", "a" * 300])
def test_an_impossible_path_is_an_error_before_writing_starts(tmp_path, name):
    (tmp_path / "file").write_text("mine")
    path = tmp_path / name
    with (
        pytest.raises(OSError, match=r"No such file|Not a directory|name too long") as caught,
        written(path, KIND, is_list),
    ):
        raise AssertionError("it must fail first")
    assert caught.value.filename == str(path)
    assert os.listdir(tmp_path) == ["file"]


# --- atomic writes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt("enough"), RuntimeError("enough"), OSError(errno.EIO, "enough", "other")], ids=repr
)
def test_a_failed_write_leaves_only_the_old_file(tmp_path, error):
    def fail():
        raise error

    (tmp_path / "a").write_text("list: old")
    with pytest.raises(type(error), match="enough") as caught:
        write(tmp_path / "a", "list: n" * 100_000, fail)
    assert caught.value is error
    assert (tmp_path / "a").read_text() == "list: old"
    assert os.listdir(tmp_path) == ["a"]


@as_root
def test_a_full_disk_is_an_error_that_names_the_file(tmp_path):
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", tmp_path], capture_output=True).returncode:
        pytest.skip("may not mount")
    try:
        (tmp_path / "a").write_text("list: old")
        with pytest.raises(OSError, match="No space left") as caught:
            write(tmp_path / "a", "list: n" * 100_000)
        assert caught.value.filename == str(tmp_path / "a")
        assert (tmp_path / "a").read_text() == "list: old"
        assert os.listdir(tmp_path) == ["a"]
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_concurrent_writers_all_succeed_and_the_last_one_wins(tmp_path):
    with written(tmp_path / "a", KIND, is_list) as one, written(tmp_path / "a", KIND, is_list) as two:
        one.write("list: one")
        two.write("list: two")
    assert (tmp_path / "a").read_text() == "list: one"
    together = threading.Barrier(8, timeout=PATIENCE)

    def write_number(number):
        with written(tmp_path / "a", KIND, is_list) as file:
            file.write(f"list: {str(number) * 100_000}")
            together.wait()

    threads = [threading.Thread(target=write_number, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "a").read_text() in {f"list: {str(number) * 100_000}" for number in range(8)}
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize(
    "name", ["a" * 255, "ü" * 127, "🐈" * 63, "\udcff" * 255], ids=["a", "2 bytes", "4 bytes", "bytes"]
)
def test_the_longest_allowed_file_names_are_written(tmp_path, name):
    for text in ("list: one", "list: two"):
        write(tmp_path / name, text)
        assert (tmp_path / name).read_text() == text


def test_a_written_file_has_the_default_mode(tmp_path):
    (tmp_path / "plain").touch()
    write(tmp_path / "a", "list: x")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "plain").stat().st_mode


# --- links and streams -----------------------------------------------------------------------------------------------


def test_links_of_the_same_user_are_followed_and_kept(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "one").symlink_to("far/two")
    (tmp_path / "far" / "two").symlink_to("../three")
    for text in ("list: new", "list: newer"):  # first the link leads nowhere, then to a file
        write(tmp_path / "one", text)
        assert (tmp_path / "three").read_text() == text
    assert (tmp_path / "one").is_symlink()
    assert target(tmp_path / "three") == str(tmp_path / "three")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as other users")
def test_a_file_of_another_user_in_a_sticky_folder_is_refused():
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        path = os.path.join(folder, "file")
        with open(path, "w") as file:
            file.write("of its kind")
        os.chown(path, 65532, -1)
        os.chown(folder, 65533, -1)
        for mode, user, refused in ((0o1777, 65534, True), (0o777, 65534, False), (0o1777, 65532, False)):
            os.chmod(folder, mode)
            os.seteuid(user)
            try:
                with pytest.raises(ValueError, match="only its owner may replace it") if refused else nullcontext():
                    check_replaceable(path, "a file", lambda file: True)
            finally:
                os.seteuid(0)


def test_circular_links_are_refused(tmp_path):
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    with pytest.raises(ValueError, match="one: expected a file, or nothing there, found links that lead in a circle"):
        write(tmp_path / "one", "list: x")


def test_the_target_of_a_link_must_be_of_the_same_kind(tmp_path):
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "a").symlink_to("precious")
    with pytest.raises(ValueError, match="precious: expected nothing there, or a list to replace, found another file"):
        write(tmp_path / "a", "list: x")
    assert (tmp_path / "precious").read_text() == "mine"


@as_root
@pytest.mark.parametrize("there", ["nothing", "one of its kind"])
def test_links_of_another_user_are_refused(tmp_path, there):
    if there != "nothing":
        (tmp_path / "precious").write_text("list: mine")
    (tmp_path / "mine").symlink_to("planted")
    (tmp_path / "planted").symlink_to("precious")
    os.lchown(tmp_path / "planted", 12345, 12345)
    before = facts(tmp_path)
    for name in ("planted", "mine"):
        with pytest.raises(
            ValueError, match=f"{name}: expected a path without links of other users, .* user 12345; name"
        ):
            write(tmp_path / name, "list: x")
    assert facts(tmp_path) == before


def test_pipes_and_devices_are_written_directly(tmp_path):
    write("/dev/null", "x" * 100_000)
    code = (
        "from h5split.writing.replace import written\n"
        "with written('/dev/stdout', 'x', bool) as file: file.write('ü' * 100_000)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout.decode() == "ü" * 100_000
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        write("/dev/full", "x")
    assert is_stream("/dev/null")
    assert not is_stream(str(tmp_path))


def test_stdout_redirected_to_an_empty_file_is_written(tmp_path):
    code = (
        "from h5split.writing.replace import written\nwith written('/dev/stdout', 'x', bool) as file: file.write('new')"
    )
    with open(tmp_path / "empty", "wb") as out:
        subprocess.run([sys.executable, "-c", code], stdout=out, check=True)
    assert (tmp_path / "empty").read_text() == "new"


# --- exclusive creation ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", OTHER)
def test_exclusive_creation_replaces_nothing(tmp_path, kind):
    OTHER[kind](tmp_path / "a")
    before = facts(tmp_path)
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(FileExistsError):
            exclusive("a", folder)
        with pytest.raises(FileExistsError):
            exclusive(str(tmp_path / "a"))
    finally:
        os.close(folder)
    assert facts(tmp_path) == before
    assert not (tmp_path / "elsewhere").exists()
