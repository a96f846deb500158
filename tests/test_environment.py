"""Tests of the commands in difficult environments: long paths, scarce resources, closed pipes, broken libraries."""

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


def test_packing_works_with_a_long_path_of_temporary_files(here):
    folder = here / ("x" * 100)
    folder.mkdir()
    done = run([*COMMAND, "--quiet"], env={**os.environ, "TMPDIR": str(folder)})
    assert (done.returncode, done.stderr) == (0, "")
    assert len(PackedImages("out.h5")) == 7
    assert os.listdir(folder) == []


def test_full_shared_memory_is_an_error_that_says_so(here):
    full = "mount -t tmpfs -o size=4k none /dev/shm && head -c 4096 /dev/zero > /dev/shm/z"
    if not shutil.which("unshare") or run(["unshare", "-rm", "sh", "-c", full]).returncode:
        pytest.skip("needs a mount of its own")
    done = run(["unshare", "-rm", "sh", "-c", f'{full} && exec "$@"', "sh", *COMMAND])
    line = "worker processes: expected room in shared memory (/dev/shm), found No space left on device"
    assert (done.returncode, done.stderr) == (1, f"pack-images: {line}; provide for it, and try again\n")


def test_a_low_hard_limit_of_open_files_is_an_error_and_a_soft_limit_is_raised(here):
    done = run(["sh", "-c", 'ulimit -n 40; exec "$@"', "sh", *COMMAND])
    line = "worker processes: expected a limit of 72 open files or more, found 40; ask for more by ulimit -n 72"
    assert (done.returncode, done.stderr) == (1, f"pack-images: {line}, or give fewer --workers\n")
    assert run(["sh", "-c", 'ulimit -S -n 40; exec "$@"', "sh", *COMMAND]).returncode == 0


@pytest.mark.parametrize("options", [[], ["--dry-run"]], ids=["packing", "dry run"])
def test_a_closed_pipe_at_stdout_is_not_an_error(here, options):
    reader, writer = os.pipe()
    os.close(reader)
    done = run([*COMMAND, *options], stdout=writer, stderr=subprocess.PIPE, capture_output=False)
    os.close(writer)
    assert done.returncode == 0
    assert "rror" not in done.stderr
    assert options or len(PackedImages("out.h5")) == 7


def test_a_summary_that_cannot_be_written_is_an_error(here):
    with open("/dev/full", "w") as full:
        done = run(COMMAND, stdout=full, stderr=subprocess.PIPE, capture_output=False)
    assert done.returncode == 1
    assert done.stderr.endswith("pack-images: standard output: No space left on device\n")
    assert len(PackedImages("out.h5")) == 7


@pytest.mark.parametrize("program", ["pack-images", "h5split"])
def test_ctrl_c_while_a_command_loads_prints_one_line(here, program):
    (here / "slow.py").write_text("print('loading', flush=True)\nimport time\ntime.sleep(60)\n")
    code = f"import sys; from h5split.start import start; sys.exit(start({program!r}, 'slow'))"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "loading\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate()
    assert (process.returncode, errors) == (130, f"{program}: interrupted\n")


def test_a_library_that_cannot_be_loaded_is_an_error_of_one_line(here):
    (here / "numpy.py").write_text("raise ImportError('a long\\n\\nessay on numpy') from OSError('no libgfortran')\n")
    done = run([*COMMAND, "--quiet"], env={**os.environ, "PYTHONPATH": str(here)})
    assert (done.returncode, done.stderr) == (1, "pack-images: a library cannot be loaded: no libgfortran\n")
