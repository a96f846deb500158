"""Tests of the command pack-images: its output, exit status and response to signals."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from conftest import PATIENCE, interrupted, start, wait_until, write_classes, write_image
from h5split import PackedImages
from pack_images.about import __version__
from pack_images.cli import main


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_classes(tmp_path / "data", {"cat": 3, "dog": 4})
    return tmp_path


def run(*arguments):
    return subprocess.run([sys.executable, "-m", "pack_images.cli", *arguments], capture_output=True, text=True)


def test_packing_prints_a_summary(here):
    done = run("data", "-o", "out.h5", "--workers", "1")
    assert done.returncode == 0
    assert re.fullmatch(
        r"out\.h5: 7 images, 8x8x3, 0\.\d MB, in \d+\.\d s \([\d,]+ images/s\)\n"
        r"  2 classes\n {10}3  cat\n {10}4  dog\n",
        done.stdout,
    ), done.stdout
    assert "7/7" in done.stderr or "7.00/7.00" in done.stderr
    assert len(PackedImages("out.h5")) == 7


def test_quiet_prints_nothing(here):
    done = run("data", "-o", "out.h5", "--workers", "1", "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_every_option_is_stored_in_the_settings(here):
    options = "--size 6x5 --fit crop --interpolation lanczos --color grayscale --labels parent --order sorted --seed 3"
    assert main(["data", "-o", "out.h5", *options.split(), "--exact", "--max-pixels", "1000", "--quiet"]) == 0
    assert PackedImages("out.h5").header.settings == {
        "size": [6, 5],
        "fit": "crop",
        "interpolation": "lanczos",
        "color": "grayscale",
        "labels": "parent",
        "order": "sorted",
        "seed": 3,
        "exact": True,
        "max_pixels": 1000,
    }


def test_the_first_ten_images_left_out_are_listed(here, capsys):
    write_classes(here / "data", {"emu": 6})  # so that most images can be decoded
    for index in range(12):
        (here / "data" / "cat" / f"broken-{index:02}.png").write_bytes(b"broken")
    assert main(["data", "-o", "out.h5", "--workers", "1"]) == 0
    out = capsys.readouterr().out
    assert "left out: 12\n  data/cat/broken-00.png: not an image that Pillow knows\n" in out
    assert "broken-09.png" in out
    assert "broken-10.png" not in out
    assert "... and 2 more: h5split.PackedImages('out.h5').skipped lists all" in out


def test_files_passed_over_are_named_in_one_warning(here, capsys):
    (here / "README.md").write_text("about")
    (here / "data" / "cat" / "notes.txt").write_text("about")
    assert main(["data", "README.md", "-o", "out.h5", "--quiet"]) == 0
    warning = (
        "pack-images: passed over: README.md (neither a folder nor a pack), "
        "data/cat/notes.txt (not an image's extension)\n"
    )
    assert capsys.readouterr().err == warning


def test_unsupported_images_are_counted_by_kind_apart_from_other_files(here, capsys, monkeypatch):
    monkeypatch.setattr("pack_images.find.sources.find_spec", lambda name: None)  # as without pillow-heif
    for number in range(12):
        (here / "data/cat" / f"note-{number}.txt").write_text("about")
    for number in range(5):
        (here / "data/dog" / f"{number}.heic").write_bytes(b"")
    (here / "data/dog/film.mp4").write_bytes(b"")
    assert main(["data", "-o", "out.h5", "--quiet"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    heic = re.compile(r"pack-images: passed over: 5 files, HEIC: not packed; .*: data/dog/\d\.heic, .* and 2 more")
    assert len([line for line in lines if heic.fullmatch(line)]) == 1
    film = "passed over: 1 file, a video: not packed; save its frames as JPEG or PNG first: data/dog/film.mp4"
    assert f"pack-images: {film}" in lines
    assert lines[-1].endswith("(not an image's extension) and 2 more")


def test_duplicates_are_counted(here, capsys):
    (here / "data/cat/x.png").write_bytes((here / "data/dog/data-dog-1.png").read_bytes())
    assert main(["data", "-o", "out.h5", "--workers", "1"]) == 0
    out = capsys.readouterr().out
    assert "duplicates: 1 group of identical images, 2 images in all; labels differ in 1 group" in out
    assert "  data/cat/x.png, data/dog/data-dog-1.png\n" in out


def test_a_dry_run_writes_nothing(here, capsys):
    assert main(["data", "-o", "out.h5", "--size", "64", "--dry-run"]) == 0
    assert "would pack 7 images, 64x64x3, 0.1 MB, into out.h5" in capsys.readouterr().out
    assert os.listdir(here) == ["data"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere: expected a folder of images or a pack, found nothing there"),
        (["data"], r"data/.*\.png is \d+x8, other images are \d+x8; give --size to scale them"),
        (["empty"], "no images in empty: expected files such as .jpg or .png in it or below"),
        (["data", "data/cat"], "SOURCE data/cat lies in SOURCE data, so its images would be packed twice"),
    ],
)
def test_errors_are_one_line_and_leave_an_older_output_unchanged(here, arguments, message):
    write_image(here / "data/cat/wide.png", (8, 9, 3))
    (here / "data/cat/broken.png").write_bytes(b"broken")
    (here / "empty").mkdir()
    write_classes(here / "good", {"cat": 2})
    assert main([str(here / "good"), "-o", "out.h5", "--workers", "1", "--quiet"]) == 0
    old = (here / "out.h5").read_bytes()
    done = run(*arguments, "-o", "out.h5", "--workers", "1", "--quiet")
    assert done.returncode == 1
    assert re.search(message, done.stderr)
    assert done.stderr.startswith("pack-images: ")
    assert done.stderr.count("\n") == 1
    assert (here / "out.h5").read_bytes() == old
    assert sorted(os.listdir(here)) == ["data", "empty", "good", "out.h5"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "pack-images --help lists every option"),
        (["-o", "out.h5"], "the following arguments are required: SOURCE or --manifest"),
        (["data"], "the following arguments are required: -o/--output"),
        (
            ["data", "-o", "out.h5", "--size", "big"],
            "expected N or WxH, each from 1 to 65535, such as 64 or 320x240, found 'big'",
        ),
        (["data", "-o", "out.h5", "--size", "0"], "expected N or WxH"),
        (["data", "-o", "out.h5", "--workers", "0"], "expected a whole number of 1 or more, found '0'"),
        (["data", "-o", "out.h5", "--fit", "squeeze"], "invalid choice: 'squeeze'"),
        (["data", "-o", "out.h5", "--colour", "rgb"], "unrecognized arguments: --colour"),
    ],
)
def test_wrong_usage_exits_with_2(here, capsys, arguments, message):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert message in capsys.readouterr().err


def test_version_and_help(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"pack-images {__version__}\n"
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    assert "pack-images data/* -o eurosat.h5 --size 64" in capsys.readouterr().out


def test_ctrl_c_says_how_to_continue(tmp_path):
    write_classes(tmp_path / "data", {"cat": 3000})
    arguments = [sys.executable, "-m", "pack_images.cli", "data", "-o", "out.h5", "--workers", "2"]
    status, errors = interrupted(arguments, tmp_path)
    assert status == 130
    assert "Traceback" not in errors
    assert errors.splitlines()[-1] == (
        "pack-images: interrupted; what is done is kept in out.h5.partial, and the same command continues"
    )
    done = subprocess.run([*arguments, "--quiet"], cwd=tmp_path, capture_output=True)
    assert done.returncode == 0
    assert len(PackedImages(tmp_path / "out.h5")) == 3000


def test_an_interrupt_in_exec_of_a_reader_exits_with_130(here):
    (here / "own.py").write_text("def read(path):\n    exec('raise KeyboardInterrupt')\n")
    line = [sys.executable, "-m", "pack_images.cli", "data", "-o", "out.h5", "--reader", "own:read"]
    done = subprocess.run(line, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "pack-images: interrupted\n")


def test_too_little_memory_is_an_error_of_one_line(here, capsys):
    (here / "greedy.py").write_text("def read(path):\n    return range(1 << 60), [], [], []\n")
    assert main(["data", "-o", "out.h5", "--reader", "greedy.py:read", "--quiet"]) == 1
    error = capsys.readouterr().err
    assert error == "pack-images: too little memory; end other programs, or use a machine that has more\n"


def test_an_interrupt_at_exit_changes_neither_status_nor_message(here):
    at_exit = "import atexit, signal\natexit.register(signal.raise_signal, signal.SIGINT)\n"
    (here / "own.py").write_text(f"{at_exit}def read(path):\n    raise ValueError('no such table')\n")
    line = [sys.executable, "-m", "pack_images.cli", "data", "-o", "out.h5", "--reader", "own:read"]
    done = subprocess.run(line, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (
        1,
        f"pack-images: --reader read, for data: it raised ValueError: no such table; {here}/own.py, line 4\n",
    )


@pytest.mark.parametrize("moment", range(8))
def test_an_interrupt_after_packing_prints_at_most_one_line(tmp_path, moment):
    write_classes(tmp_path / "data", {"cat": 300})
    line = [sys.executable, "-m", "pack_images.cli", "data", "-o", "out.h5", "--workers", "2"]
    process = start(line, tmp_path)
    assert wait_until((tmp_path / "out.h5").exists, process), process.stderr.read()
    time.sleep(0.008 * moment)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE)
    said = errors.count("pack-images: interrupted")
    assert (process.returncode, said) in [(0, 0), (130, 1)]
    assert "Traceback" not in errors
    assert len(PackedImages(tmp_path / "out.h5")) == 300


def ignoring(name):
    """Return a command line that runs pack-images with a signal ignored."""
    line = f"trap '' {name}; exec {sys.executable} -m pack_images.cli data -o out.h5 --workers 2 --quiet"
    return ["sh", "-c", line]


@pytest.mark.parametrize("name", ["HUP", "TERM"])
def test_a_signal_ignored_by_the_calling_script_stays_ignored(tmp_path, name):
    write_classes(tmp_path / "data", {"cat": 3000})
    process = start(ignoring(name), tmp_path)
    wait_until((tmp_path / "out.h5.partial").exists, process)
    process.send_signal(getattr(signal, f"SIG{name}"))
    _, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, errors) == (0, "")
    assert (tmp_path / "out.h5").exists()


def test_sigterm_ends_a_command_that_ignores_sigint(tmp_path):
    write_classes(tmp_path / "data", {"cat": 3000})
    status, errors = interrupted(ignoring("INT"), tmp_path, signal.SIGTERM, everyone=False)
    assert status == 130, errors
    assert "Traceback" not in errors
    assert not (tmp_path / "out.h5").exists()


def test_local_modules_are_not_imported_and_closed_streams_are_not_an_error(here):
    for name in ("random.py", "signal.py", "xxhash.py", "queue.py"):
        (here / name).write_text("raise SystemExit('not me')")
    command = f"{sys.executable} -P -m pack_images.cli data -o out.h5 --workers 2 --quiet"
    for line in (command, f"{command} 2>&-", f"{command} >&- <&-"):
        done = subprocess.run(line, shell=True, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")


def test_a_foreign_file_in_place_of_the_journal_is_an_error_and_kept(here, capsys):
    (here / "precious").write_text("precious")
    for make in (lambda: os.symlink("precious", "out.h5.journal"), lambda: os.rename("precious", "out.h5.journal")):
        if os.path.lexists("out.h5.journal"):
            os.unlink("out.h5.journal")
        make()
        assert main(["data", "-o", "out.h5", "--quiet"]) == 1
    assert (here / "out.h5.journal").read_text() == "precious"


def test_undecodable_file_names_are_escaped_on_one_line(here, capsys):
    (here / "data/cat" / os.fsdecode(b"\xff\n.png")).write_bytes(b"broken")
    assert main(["data", "-o", "out.h5", "--workers", "1"]) == 0
    assert r"data/cat/\udcff\n.png: not an image" in capsys.readouterr().out
