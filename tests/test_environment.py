"""Where the commands run: long folders for temporary files, little of what the system has, readers that leave."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys

import pytest

from conftest import write_classes
from h5split import PackedImages

COMMAND = [sys.executable, "-m", "pack_images.cli", "data", "-o", "out.h5", "--workers", "1"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_classes(tmp_path / "data", {"cat": 3, "dog": 4})
    return tmp_path


def run(command, **options):
    return subprocess.run(command, text=True, **{"capture_output": True, **options})


def test_a_long_folder_for_temporary_files_is_no_hindrance(here):
    folder = here / ("x" * 100)
    folder.mkdir()
    done = run([*COMMAND, "--quiet"], env={**os.environ, "TMPDIR": str(folder)})
    assert (done.returncode, done.stderr) == (0, "")
    assert len(PackedImages("out.h5")) == 7
    assert os.listdir(folder) == []


def test_full_shared_memory_is_told_as_such(here):
    full = "mount -t tmpfs -o size=4k none /dev/shm && head -c 4096 /dev/zero > /dev/shm/z"
    if not shutil.which("unshare") or run(["unshare", "-rm", "sh", "-c", full]).returncode:
        pytest.skip("needs a mount of its own")
    done = run(["unshare", "-rm", "sh", "-c", f'{full} && exec "$@"', "sh", *COMMAND])
    line = "worker processes: expected room in shared memory (/dev/shm), found No space left on device"
    assert (done.returncode, done.stderr) == (1, f"pack-images: {line}; provide for it, and try again\n")


def test_too_few_descriptors_are_told_and_a_low_limit_is_raised_where_it_may_be(here):
    done = run(["sh", "-c", 'ulimit -n 40; exec "$@"', "sh", *COMMAND])
    line = "worker processes: expected a limit of 72 open files or more, found 40; ask for more by ulimit -n 72"
    assert (done.returncode, done.stderr) == (1, f"pack-images: {line}, or give fewer --workers\n")
    assert run(["sh", "-c", 'ulimit -S -n 40; exec "$@"', "sh", *COMMAND]).returncode == 0


@pytest.mark.parametrize("options", [[], ["--dry-run"]], ids=["packing", "dry run"])
def test_whoever_reads_the_summary_may_leave_before_the_end(here, options):
    reader, writer = os.pipe()
    os.close(reader)
    done = run([*COMMAND, *options], stdout=writer, stderr=subprocess.PIPE, capture_output=False)
    os.close(writer)
    assert done.returncode == 0
    assert "rror" not in done.stderr
    assert options or len(PackedImages("out.h5")) == 7


def test_a_summary_that_cannot_be_written_is_told_as_such(here):
    with open("/dev/full", "w") as full:
        done = run(COMMAND, stdout=full, stderr=subprocess.PIPE, capture_output=False)
    assert done.returncode == 1
    assert done.stderr.endswith("pack-images: standard output: No space left on device\n")
    assert len(PackedImages("out.h5")) == 7


@pytest.mark.parametrize("program", ["pack-images", "h5split"])
def test_ctrl_c_while_a_command_is_loaded_is_one_line(here, program):
    (here / "slow.py").write_text("print('loading', flush=True)\nimport time\ntime.sleep(60)\n")
    code = f"import sys; from h5split.start import start; sys.exit(start({program!r}, 'slow'))"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "loading\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate()
    assert (process.returncode, errors) == (130, f"{program}: interrupted\n")


def test_a_library_that_cannot_be_loaded_is_one_line(here):
    (here / "numpy.py").write_text("raise ImportError('a long\\n\\nessay on numpy') from OSError('no libgfortran')\n")
    done = run([*COMMAND, "--quiet"], env={**os.environ, "PYTHONPATH": str(here)})
    assert (done.returncode, done.stderr) == (1, "pack-images: a library cannot be loaded: no libgfortran\n")
