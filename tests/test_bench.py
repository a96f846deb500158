"""Tests of tools/bench.py: it measures peers with this interpreter, prints tables and reports lost rows."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[1] / "tools"
BRIEF = "--repeats", "1", "--epochs", "1", "--seconds", "0.01"

pytestmark = pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="bench.py reads /proc, of Linux")


@pytest.fixture(scope="module", autouse=True)
def compiled_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Peers share compiled modules. Otherwise each run of bench.py compiles NumPy and Pillow again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPYCACHEPREFIX", str(tmp_path_factory.mktemp("bytecode")))
        yield


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    command = [sys.executable, TOOLS / "make_images.py", folder, "--count", "60", "--roots", "1", "--size", "16"]
    subprocess.run(command, check=True, capture_output=True)
    return folder / "root-1"


def run(command: str, data: Path, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, TOOLS / "bench.py", command, data, "--size", "16", "--here", *BRIEF]
    return subprocess.run([*line, "--environments", folder, *options], capture_output=True, text=True)


def bench(
    command: str, data: Path, folder: Path, *options: str, name: str = ""
) -> tuple[str, dict[str, dict[str, object]]]:
    """Run bench.py. Return its output, and the rows of its results by name of the peer."""
    done = run(command, data, folder, *options)
    assert done.returncode == 0, done.stderr
    stem = folder / "results" / (name or f"{command}-{data.name}-16")
    assert stem.with_suffix(".png").exists()
    results = json.loads(stem.with_suffix(".json").read_text())
    assert "(--here)" in results["machine"]
    return done.stdout, {row["name"]: row for row in results["rows"]}


def copy_of(images: Path, folder: Path) -> Path:
    return Path(shutil.copytree(images, folder / "copy"))


def test_pack_table_lists_peers_and_the_decoding_limit(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONPYCACHEPREFIX")  # without compiled modules, a peer runs long enough to sample its memory
    printed, rows = bench("pack", images, tmp_path, "--peers", "ours,plain-h5py,limit-decode")
    assert "| pack-images |" in printed
    assert "| *limit: bare read and decode* |" in printed
    for row in rows.values():
        assert not row["failed"]
        assert row["values"]["memory"][0] > 10e6
    assert printed.count("| each once |") == 2
    assert rows["ours"]["values"]["disk"][0] >= 60 * 16 * 16 * 3


@pytest.mark.parametrize("options", [(), ("--cold",)], ids=["warm", "cold"])
def test_every_row_of_an_epoch_is_counted_once(images: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    names = "ours,plain-h5py,original-post,limit-take,limit-read"
    name = f"{'cold' if options else 'load'}-root-1-16-b7"
    printed, rows = bench("load", images, tmp_path, "--batch", "7", "--peers", names, *options, name=name)
    assert printed.count("| each once |") == 5
    assert printed.count("| full |") == 4
    assert all(not row["failed"] and not row["faults"] for row in rows.values())


def test_copies_option_measures_every_file_under_several_names(images: Path, tmp_path: Path) -> None:
    printed, rows = bench(
        "load", images, tmp_path, "--batch", "7", "--peers", "ours", "--copies", "3", name="load-root-1-16-b7-x3"
    )
    assert "180 images" in printed
    assert (rows["ours"]["failed"], rows["ours"]["faults"]) == ("", "")
    assert set(rows["ours"]["raw"][0]["seen"]["multiplicities"]) == {"3"}


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="needs a second file system")
def test_copies_option_works_across_file_systems(images: Path, tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        data = copy_of(images, Path(folder))
        _, rows = bench("load", data, tmp_path, "--peers", "ours", "--copies", "2", name="load-copy-16-x2")
    assert set(rows["ours"]["raw"][0]["seen"]["multiplicities"]) == {"2"}


def test_scale_measures_with_one_and_two_workers(tmp_path: Path) -> None:
    options = ["--size", "16", "--here", *BRIEF, "--environments", tmp_path]
    line = [sys.executable, TOOLS / "bench.py", "scale", "--counts", "70", "--batches", "8", *options]
    printed = subprocess.run(line, check=True, capture_output=True, text=True).stdout
    rows = json.loads((tmp_path / "results" / "scale-16.json").read_text())["rows"]
    assert [(row["workers"], row["batch"]) for row in rows] == [(1, 0), (1, 8), (2, 0), (2, 8)]
    assert printed.count("| each once |") == 4


def test_faults_of_a_peer_that_loses_rows_are_reported(images: Path, tmp_path: Path) -> None:
    _, rows = bench("load", images, tmp_path, "--batch", "7", "--peers", "lossy", name="load-root-1-16-b7")
    assert rows["lossy"]["faults"] == "drops the last batch: 56 of 60"
    _, rows = bench("load", images, tmp_path, "--batch", "10", "--peers", "lossy", name="load-root-1-16-b10")
    assert rows["lossy"]["faults"] == "labels in other numbers"


def test_a_failed_peer_is_listed_last_with_the_reason(images: Path, tmp_path: Path) -> None:
    printed, rows = bench("load", images, tmp_path, "--peers", "ffcv,ours")
    assert "failed: " in rows["ffcv"]["failed"] or "No module named 'ffcv'" in rows["ffcv"]["failed"]
    assert printed.index("| pack-images |") < printed.index("| FFCV, raw | failed")


def test_a_peer_over_the_time_limit_is_stopped(images: Path, tmp_path: Path) -> None:
    done = run("load", images, tmp_path, "--peers", "ours", "--limit", "0.01")
    assert "stopped after 0 s" in done.stdout


def test_earlier_results_are_kept_when_every_peer_fails(images: Path, tmp_path: Path) -> None:
    bench("load", images, tmp_path, "--peers", "original-post")
    results = tmp_path / "results" / "load-root-1-16.json"
    before = results.read_text()
    done = run("load", images, tmp_path, "--peers", "original-post", "--limit", "0.01")
    assert (done.returncode, results.read_text()) == (1, before)
    assert "every peer failed" in done.stderr


def test_duplicate_images_are_expected_twice(images: Path, tmp_path: Path) -> None:
    data = copy_of(images, tmp_path)
    file = min(data.glob("*/*"))
    file.with_name("other" + file.suffix).write_bytes(file.read_bytes() + b"other bytes, the same pixels")
    _, rows = bench("load", data, tmp_path, "--peers", "ours,original-post")
    assert [row["faults"] for row in rows.values()] == ["", ""]
    assert rows["ours"]["raw"][0]["seen"]["multiplicities"] == {"1": 59, "2": 1}


def test_a_kept_pack_is_rebuilt_when_a_source_file_changes(images: Path, tmp_path: Path) -> None:
    data = copy_of(images, tmp_path)
    first, second = sorted(data.glob("*/*"))[:2]
    bench("load", data, tmp_path, "--peers", "plain-h5py", "--keep")
    shutil.copyfile(second, first)
    _, rows = bench("load", data, tmp_path, "--peers", "plain-h5py", "--keep")
    assert rows["plain-h5py"]["faults"] == ""


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--size", "0"], "expected a whole number, 1 or more, got '0'"),
        (["--repeats", "-1"], "expected a whole number, 1 or more, got '-1'"),
        (["--workers", "two"], "expected a whole number, 1 or more, got 'two'"),
        (["--batch", "1.5"], "expected a whole number, 1 or more, got '1.5'"),
        (["--epochs", "0"], "expected a whole number, 1 or more, got '0'"),
        (["--copies", "0"], "expected a whole number, 1 or more, got '0'"),
        (["--limit", "nan"], "expected a number of seconds above 0, got 'nan'"),
        (["--peers", "ours,"], "load knows no ''"),
        (["--peers", "ours, ffcv"], "load knows no ' ffcv'"),
        (["--peers", "ours,ours"], "expected each name once"),
    ],
    ids=lambda value: "-".join(value).strip("-") if isinstance(value, list) else "",
)
def test_invalid_options_are_refused_in_one_line(
    images: Path, tmp_path: Path, options: list[str], expected: str
) -> None:
    assert expected in refusal(run("load", images, tmp_path, *options))


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    return done.stderr.strip()


def test_folders_with_anything_but_images_are_refused(images: Path, tmp_path: Path) -> None:
    data = copy_of(images, tmp_path)
    file = min(data.glob("*/*"))
    whole = file.read_bytes()
    for path, content in [
        (file, whole[: len(whole) // 2]),
        (file.with_name("notes.txt"), b"a text"),
        (file.with_suffix(""), None),
        (data / "labels.csv", b"a table"),
    ]:
        path.symlink_to("nowhere") if content is None else path.write_bytes(content)
        assert refusal(run("load", data, tmp_path)).startswith(f"bench.py: {path}: ")
        path.write_bytes(whole) if path == file else path.unlink()
    (data / "no-images").mkdir()
    assert str(data / "no-images") in refusal(run("load", data, tmp_path))
    assert "expected a folder of class folders" in refusal(run("load", data / "none", tmp_path, "--copies", "2"))


def test_a_report_without_results_is_refused(tmp_path: Path) -> None:
    line = [sys.executable, TOOLS / "bench.py", "report", tmp_path / "page.md", "--environments", tmp_path]
    assert "found none" in refusal(subprocess.run(line, capture_output=True, text=True))


def test_report_collects_all_runs_on_one_page(images: Path, tmp_path: Path) -> None:
    bench("load", images, tmp_path, "--peers", "ours")
    page = tmp_path / "docs.md"
    command = [sys.executable, TOOLS / "bench.py", "report", page, "--environments", tmp_path]
    subprocess.run(command, check=True, capture_output=True)
    assert "`python tools/bench.py load data/root-1 " in page.read_text()
    assert (tmp_path / "benchmark-load-root-1-16.png").exists()
