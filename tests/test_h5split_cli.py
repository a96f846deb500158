"""Tests of the command h5split: its output and exit status. test_view.py tests `view`."""

from __future__ import annotations

import gc
import io
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import PATIENCE, names_in, pixels_of, write_classes, write_hole, write_pack
from h5split import PackedImages, SplitSequence, write_split
from h5split.cli import main
from h5split.system.console import Bar
from pack_images import __version__, pack

NAMES = names_in("a", {"cat": 20, "dog": 50, "emu": 30})
SPLITS = ["test" if row % 5 == 0 else "train" for row in range(100)]
COMMAND = [sys.executable, "-m", "h5split.cli"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a pack `a.h5` in it, and one with a damaged row 5."""
    monkeypatch.chdir(tmp_path)
    write_pack(tmp_path / "a.h5", NAMES, {"split": SPLITS})
    offset, stride = PackedImages("a.h5").header.images.offset, PackedImages("a.h5").stride
    raw = bytearray((tmp_path / "a.h5").read_bytes())
    raw[offset + 5 * stride] ^= 1
    (tmp_path / "damaged.h5").write_bytes(raw)
    return tmp_path


def run(*arguments):
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True)


def shell(line):
    """Run a line in a shell, with `h5split` replaced by the command."""
    line = line.replace("h5split", shlex.join(COMMAND))
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True)


def listed(folder):
    """Return the stored names in the table of a folder, after checking the pixels and label of every row."""
    names = []
    for line in Path(folder, "manifest.csv").read_text().splitlines()[1:]:
        path, label, name, *_ = line.split(",")
        assert np.array_equal(np.asarray(Image.open(f"{folder}/{path}")), pixels_of(name))
        assert label == name.split("/")[1] == path.split("/")[-2]
        names.append(name)
    return names


def pictures(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.png"))


def error_of(capsys, *arguments):
    """Run a command that fails, and return its error of one line."""
    assert main(list(arguments)) == 1
    out, err = capsys.readouterr()
    assert out == ""
    line = err.rpartition("\r")[2]  # the progress bar is erased
    assert line.startswith("h5split: ")
    assert line.count("\n") == 1
    assert line.endswith("\n")
    return line


# --- errors and exit status -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.h5", r"none\.h5: there is no such file; pack-images"),
        ("folder", "folder: expected a pack, found a folder"),
        ("text.h5", r"text\.h5: expected a pack, but it is not an HDF5 file"),
        ("empty.h5", r"empty\.h5: expected a pack, but it is not an HDF5 file"),
        ("new\nline", r"new line: there is no such file|new\\nline: there is no such file"),
        ("a.h5/b", r"a\.h5/b"),
    ],
)
@pytest.mark.parametrize("command", ["info", "verify", "export"])
def test_a_path_that_is_not_a_pack_is_an_error_of_one_line(here, capsys, command, name, message):
    (here / "folder").mkdir()
    (here / "text.h5").write_text("a text")
    (here / "empty.h5").touch()
    assert re.search(message, error_of(capsys, command, name, *(["out"] if command == "export" else [])))
    assert not (here / "out").exists()


@pytest.mark.parametrize("command", ["info", "verify"])
def test_a_file_that_is_cut_short_is_an_error_of_one_line(here, capsys, command):
    size = os.path.getsize("a.h5")
    for length in (0, 1, 7, 8, 100, 4096, size // 3, size // 2, size - 5000, size - 4096, size - 1):
        shutil.copy("a.h5", "cut.h5")
        os.truncate("cut.h5", length)
        assert "cut.h5" in error_of(capsys, command, "cut.h5")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nothing"],
        ["info"],
        ["info", "a.h5", "b.h5"],
        ["info", "a.h5", "--js"],
        ["verify", "a.h5", "--workers", "0"],
        ["verify", "a.h5", "--workers", "x"],
        ["verify", "a.h5", "--source"],
        ["export", "a.h5"],
        ["export", "a.h5", "out", "--rows"],
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_with_2(here, capsys, arguments):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert "usage: h5split" in capsys.readouterr().err
    assert not (here / "out").exists()


def test_version_and_help(capsys):
    for arguments, said in ([["--version"], f"h5split {__version__}\n"], [["--help"], "exit status: 0 done"]):
        with pytest.raises(SystemExit, match="0"):
            main(arguments)
        assert said in capsys.readouterr().out


@pytest.mark.parametrize("line", ["h5split info a.h5 | head -1", "h5split info --json a.h5 | true"])
def test_a_closed_pipe_is_not_an_error(here, line):
    done = shell(line)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_closed_pipe_does_not_hide_damage_from_the_exit_status(here):
    done = shell("set -o pipefail; h5split verify damaged.h5 --quiet | true")
    assert done.returncode == 1


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&- <&-"])
@pytest.mark.parametrize("line", ["info a.h5", "verify a.h5", "verify a.h5 --quiet", "export a.h5 out"])
def test_closed_standard_streams_are_not_an_error(here, line, closed):
    done = shell(f"h5split {line} {closed}")
    assert "Traceback" not in done.stderr
    assert done.returncode == 0
    if line.startswith("export"):
        assert len(pictures(here / "out")) == 100


@pytest.mark.parametrize("quiet", ["", "--quiet"])
def test_a_closed_pipe_at_stderr_does_not_stop_the_command(here, quiet):
    def status(line):
        reader, writer = os.pipe()
        os.close(reader)
        with os.fdopen(writer) as pipe:
            return subprocess.run([*COMMAND, *line.split()], stdout=subprocess.DEVNULL, stderr=pipe).returncode

    assert status(f"verify damaged.h5 {quiet}") == 1
    assert (status(f"export a.h5 out {quiet}"), len(pictures(here / "out"))) == (0, 100)


def test_a_full_disk_under_stdout_is_an_error(here):
    done = shell("h5split info a.h5 > /dev/full")
    assert (done.returncode, done.stderr) == (1, "h5split: No space left on device\n")


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit of memory that is kept")
def test_too_little_memory_is_an_error_of_one_line(here):
    write_hole(here / "hole.h5", 20, (20_000, 20_000, 3))
    done = shell(
        "ulimit -v 35000000; h5split export hole.h5 out --quiet"
    )  # enough to map 24 GB, too little to allocate as much again
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"h5split: too little memory \(Unable to allocate 22\.4 GiB .*\); end other .*\n", done.stderr)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", ["verify", "export"])
def test_an_interrupt_ends_the_command_with_130(here, command, number):
    write_hole(here / "hole.h5", 40_000, (512, 512, 3))  # 31 GB, of which it processes little
    arguments = [*COMMAND, command, "hole.h5", *(["out"] if command == "export" else [])]
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    assert process.stderr.read(1) == "\n"  # the progress bar starts when the work does
    process.send_signal(number)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert "100%" not in errors
    left = r"; out holds [\d,]+ of 40,000 images, and no manifest.csv that lists them; remove it, or name another"
    assert re.search(rf"\nh5split: interrupted{left if command == 'export' else ''}\n$", errors)
    assert "Traceback" not in errors
    assert not (here / "out" / "manifest.csv").exists()


# --- verify ----------------------------------------------------------------------------------------------------------


def test_verify_reports_an_intact_pack(here, capsys):
    assert main(["verify", "a.h5"]) == 0
    assert capsys.readouterr().out == "a.h5: 100 rows, 0 damaged; tables intact\n"
    assert main(["verify", "a.h5", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


def test_verify_names_damaged_rows(here, capsys):
    assert main(["verify", "damaged.h5", "--workers", "1"]) == 1
    line = f"row 5: {NAMES[5]}: not the pixels that were packed\n"
    assert capsys.readouterr().out == f"{line}damaged.h5: 100 rows, 1 damaged; tables intact\n"
    assert main(["verify", "damaged.h5", "--quiet"]) == 1
    assert capsys.readouterr() == (line, "")


def test_verify_reports_damaged_tables_first(here, capsys):
    block = PackedImages("damaged.h5").header.tables["filenames"]
    with open("damaged.h5", "r+b") as file:
        file.seek(block.offset)
        file.write(b"?")
    assert main(["verify", "damaged.h5"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("labels, names or other tables are not as they were packed")
    assert lines[-1] == "damaged.h5: 100 rows, 1 damaged; tables damaged"


def test_verify_lists_changed_and_missing_sources(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_classes(tmp_path / "data", {"cat": 3, "dog": 4})
    pack(["data"], "out.h5", workers=1)
    arguments = ["verify", "out.h5", "--sources"]
    assert main(arguments) == 0
    assert capsys.readouterr().out.endswith("sources: 7 same, 0 changed, 0 missing, 0 unreadable\n")
    (tmp_path / "data/cat/data-cat-1.png").write_bytes(b"other")
    (tmp_path / "data/dog/data-dog-2.png").unlink()
    assert main([*arguments, "--quiet"]) == 1
    assert sorted(capsys.readouterr().out.splitlines()) == [
        "data/cat/data-cat-1.png: changed",
        "data/dog/data-dog-2.png: missing",
    ]
    assert main(arguments) == 1
    assert capsys.readouterr().out.endswith("sources: 5 same, 1 changed, 1 missing, 0 unreadable\n")
    assert main(["verify", "out.h5"]) == 0


def test_verify_finds_sources_below_another_root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_classes(tmp_path / "data", {"cat": 3})
    pack(["data"], "out.h5", workers=1)
    shutil.move("data", tmp_path / "moved" / "data")
    assert main(["verify", "out.h5", "--sources", "--quiet"]) == 1
    assert main(["verify", "out.h5", "--sources", "--quiet", "--root", "moved"]) == 0


# --- export ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_the_printed_pack_images_command_packs_the_same_rows(here, capsys, channels):
    write_pack(here / "b.h5", NAMES, {"split": SPLITS}, shape=(6, 5, channels))
    assert main(["export", "b.h5", "a 'folder'"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("a 'folder': 100 images; to have the same rows in a pack again:\n")
    line = shlex.split(out.splitlines()[1])
    assert line[0] == "pack-images"
    done = subprocess.run(
        [sys.executable, "-m", "pack_images.cli", *line[1:], "--quiet"], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    images, again = PackedImages("b.h5"), PackedImages("AGAIN.h5")
    assert np.array_equal(again.images, images.images)
    assert again.filenames == images.filenames
    assert np.array_equal(again.labels, images.labels)
    assert again.columns["split"] == SPLITS


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("0:10,5", [*range(10), 5]),
        ("7", [7]),
        ("99,0", [99, 0]),
        (" 3 , 1:3 ", [3, 1, 2]),
        ("95:", [*range(95, 100)]),
        (":2,:2", [0, 1, 0, 1]),
        ("-3:", [97, 98, 99]),
        ("::50", [0, 50]),
        ("98:200", [98, 99]),
    ],
)
def test_rows_option_exports_rows_in_the_given_order(here, text, rows):
    assert main(["export", "a.h5", "out", f"--rows={text}", "--quiet"]) == 0
    assert listed("out") == [NAMES[row] for row in rows]
    assert len(pictures(here / "out")) == len(rows)


@pytest.mark.parametrize("rows", [[4, 2, 2], [row % 3 == 0 for row in range(100)]], ids=["numbers", "mask"])
def test_rows_option_takes_a_numpy_array(here, rows):
    np.save("rows.npy", rows)
    assert main(["export", "a.h5", "out", "--rows", "rows.npy", "--quiet"]) == 0
    assert listed("out") == [NAMES[row] for row in np.arange(100)[np.array(rows)]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("100", "expected positions from 0 to 99, found 100"),
        ("-1", "expected positions from 0 to 99, found -1"),
        ("x", "--rows x: expected such as 0:100,205 or rows.npy, found 'x'"),
        ("1,,2", "--rows 1,,2: expected such as"),
        ("", "--rows : expected such as"),
        ("1:2:0", "--rows 1:2:0: expected such as"),
        ("1:2:3:4", "--rows 1:2:3:4: expected such as"),
        ("1.5", "--rows 1.5: expected such as"),
        ("99999999999999999999", "select: expected whole numbers"),
        ("none.npy", "none.npy: No such file or directory"),
        ("text.npy", "text.npy: expected an array that numpy.save wrote"),
        ("empty.npy", "empty.npy: expected an array that numpy.save wrote"),
        ("float.npy", "select: expected whole numbers or a mask, found float64"),
        ("square.npy", "select: expected one dimension"),
        ("short.npy", "select: expected a mask of 100 rows"),
        ("archive.npy", "expected"),
    ],
)
def test_invalid_rows_are_an_error_of_one_line(here, capsys, text, message):
    (here / "text.npy").write_text("0:10")
    (here / "empty.npy").touch()
    np.save("float.npy", [1.0])
    np.save("square.npy", [[1]])
    np.save("short.npy", [True])
    np.savez("archive.npz", a=[1])
    os.rename("archive.npz", "archive.npy")
    assert message in error_of(capsys, "export", "a.h5", "out", "--rows", text)
    assert not (here / "out").exists()


@pytest.mark.parametrize("text", ["0:0", "5:2", "none.npy"])
def test_an_empty_choice_of_rows_is_an_empty_table_or_a_clear_error(here, capsys, text):
    np.save("none.npy", np.empty(0, np.int64))
    status = main(["export", "a.h5", "out", "--rows", text, "--quiet"])
    assert "out of bounds" not in capsys.readouterr().err
    if status == 0:
        assert listed("out") == []


def test_split_option_takes_a_column_or_a_table(here):
    assert main(["export", "a.h5", "one", "--split", "split", "--quiet"]) == 0
    sequence = SplitSequence("a.h5")
    write_split("split.csv", {"mine": sequence.select(range(10)), "yours": sequence.select([50])})
    assert main(["export", "a.h5", "two", "--split", "split.csv", "--quiet"]) == 0
    assert main(["export", "a.h5", "three", "--split", "split.csv", "--rows", "5:60", "--quiet"]) == 0
    assert (sorted(os.listdir("one")), listed("one")) == (["manifest.csv", "test", "train"], NAMES)
    assert (sorted(os.listdir("two")), listed("two")) == (["manifest.csv", "mine", "yours"], [*NAMES[:10], NAMES[50]])
    assert listed("three") == [*NAMES[5:10], NAMES[50]]
    assert len(pictures(here / "two" / "mine")) == 10


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "--split s.csv: expected a CSV, or one of the columns source, split, found neither"),
        (b"", "s.csv: expected the columns filename and split, found none"),
        (b"filename,split\nx,train\n", "s.csv: 1 of 1 files are not in the sequence"),
        (b"\x89HDF\r\n\x1a\n" + bytes(200_000), "s.csv: "),
        (b"filename,split\n" + b"x" * 200_000 + b",train\n", "s.csv: "),
        (b"x" * 200_000, "s.csv: "),
    ],
    ids=["none", "empty", "other names", "binary", "long name", "long heading"],
)
def test_an_invalid_split_is_an_error_of_one_line(here, capsys, text, message):
    if text is not None:
        (here / "s.csv").write_bytes(text)
    assert message in error_of(capsys, "export", "a.h5", "out", "--split", "s.csv")
    assert not (here / "out").exists()


def test_a_file_or_non_empty_folder_as_output_is_an_error_of_one_line(here, capsys):
    (here / "full").mkdir()
    (here / "full" / "mine").write_text("mine")
    assert "full: expected a new or empty folder, found 'mine' in it" in error_of(capsys, "export", "a.h5", "full")
    assert "a.h5: File exists" in error_of(capsys, "export", "a.h5", "a.h5")
    assert "a.h5/x: Not a directory" in error_of(capsys, "export", "a.h5", "a.h5/x")
    assert os.listdir("full") == ["mine"]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small disk")
@pytest.mark.parametrize(("options", "message"), [("size=200k", "No space left"), ("ro", "Read-only file system")])
def test_a_full_or_read_only_disk_is_an_error_of_one_line(here, capsys, options, message):
    (here / "disk").mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", "disk"], capture_output=True).returncode:
        pytest.skip("may not mount")
    try:
        write_pack(here / "b.h5", [f"x/cat/{row}" for row in range(2000)])
        said = error_of(capsys, "export", "b.h5", "disk/out")
        assert message in said
        if options != "ro":
            there = list((here / "disk" / "out").rglob("*.*"))
            assert f"; disk/out holds {len(there):,} of 2,000 images, and no manifest.csv that lists them" in said
            for path in there:  # none is cut short
                with Image.open(path) as image:
                    assert np.asarray(image).shape == (8, 8, 3)
    finally:
        subprocess.run(["umount", "disk"], check=True)


def test_a_name_of_any_bytes_is_printed_on_one_line(tmp_path, capsys):
    raw = write_pack(tmp_path / "a.h5", ["x/cat/new\nline\udcff", "x/cat/b"]).read_bytes()
    offset = PackedImages(tmp_path / "a.h5").header.images.offset
    (tmp_path / "a.h5").write_bytes(raw[:offset] + bytes([raw[offset] ^ 1]) + raw[offset + 1 :])
    assert main(["verify", str(tmp_path / "a.h5"), "--quiet"]) == 1
    assert capsys.readouterr().out == "row 0: x/cat/new\\nline\\udcff: not the pixels that were packed\n"


def test_an_interrupt_while_a_progress_bar_starts_has_no_side_effects(monkeypatch):
    class Interrupting(io.StringIO):
        def write(self, text):
            if not self.getvalue():
                super().write(text)
                signal.raise_signal(signal.SIGINT)
            return super().write(text)

    unraisable = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    monkeypatch.setattr(sys, "stderr", Interrupting())
    with pytest.raises(KeyboardInterrupt):
        Bar("B", quiet=False).show(1, 2)
    gc.collect()
    assert not unraisable
