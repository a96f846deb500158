"""tools/bench.py measures peers with this interpreter, prints tables, and says which peer loses rows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[1] / "tools"

pytestmark = pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="bench.py reads /proc, of Linux")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    command = [sys.executable, TOOLS / "make_images.py", folder, "--count", "60", "--roots", "1", "--size", "16"]
    subprocess.run(command, check=True, capture_output=True)
    return folder / "root-1"


def bench(command: str, data: Path, folder: Path, *options: str) -> tuple[str, dict[str, dict[str, object]]]:
    """What is printed, and the rows of the results by the name of the peer."""
    line = [sys.executable, TOOLS / "bench.py", command, data, "--size", "16", "--here", "--repeats", "1"]
    done = subprocess.run([*line, "--environments", folder, *options], check=True, capture_output=True, text=True)
    kind = "cold" if "--cold" in options else command
    results = json.loads((folder / "results" / f"{kind}-{data.name}-16.json").read_text())
    assert (folder / "results" / f"{kind}-{data.name}-16.png").exists()
    return done.stdout, {row["name"]: row for row in results["rows"]}


def test_packing_is_measured_beside_its_limit(images: Path, tmp_path: Path) -> None:
    printed, rows = bench("pack", images, tmp_path, "--peers", "ours,plain-h5py,limit-decode")
    assert "| pack-images |" in printed
    assert "| *limit: bare read and decode* |" in printed
    for row in rows.values():
        assert not row["failed"]
        assert row["values"]["memory"][0] > 10e6
    assert rows["ours"]["values"]["disk"][0] >= 60 * 16 * 16 * 3


@pytest.mark.parametrize("options", [(), ("--cold",)], ids=["warm", "cold"])
def test_every_row_of_an_epoch_is_counted(images: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    names = "ours,plain-h5py,original-post,limit-take,limit-read"
    printed, rows = bench("load", images, tmp_path, "--batch", "7", "--peers", names, *options)
    assert printed.count("| each once |") == 5
    assert all(not row["failed"] and not row["faults"] for row in rows.values())


def test_files_are_measured_under_several_names(images: Path, tmp_path: Path) -> None:
    printed, rows = bench("load", images, tmp_path, "--batch", "7", "--peers", "ours", "--copies", "3")
    assert "180 images" in printed
    assert (rows["ours"]["failed"], rows["ours"]["faults"]) == ("", "")
    assert set(rows["ours"]["raw"][0]["result"]["multiplicities"]) == {"3"}


def test_the_cost_of_an_image_is_measured_with_one_worker_and_with_two(tmp_path: Path) -> None:
    options = ["--size", "16", "--here", "--repeats", "1", "--environments", tmp_path]
    line = [sys.executable, TOOLS / "bench.py", "scale", "--counts", "70", "--batches", "8", *options]
    printed = subprocess.run(line, check=True, capture_output=True, text=True).stdout
    rows = json.loads((tmp_path / "results" / "scale-16.json").read_text())["rows"]
    assert [(row["workers"], row["batch"]) for row in rows] == [(1, 0), (1, 8), (2, 0), (2, 8)]
    assert printed.count("| each once |") == 2


def test_a_peer_that_loses_rows_is_told_so(images: Path, tmp_path: Path) -> None:
    _, rows = bench("load", images, tmp_path, "--batch", "7", "--peers", "lossy")
    assert rows["lossy"]["faults"] == "drops the last batch: 56 of 60"
    _, rows = bench("load", images, tmp_path, "--batch", "10", "--peers", "lossy")
    assert rows["lossy"]["faults"] == "labels in other numbers"


def test_a_peer_that_fails_is_a_row_with_the_reason(images: Path, tmp_path: Path) -> None:
    printed, rows = bench("load", images, tmp_path, "--peers", "ffcv,ours")
    assert "failed: " in rows["ffcv"]["failed"] or "No module named 'ffcv'" in rows["ffcv"]["failed"]
    assert printed.index("| pack-images |") < printed.index("| FFCV, raw | failed")


def test_a_peer_that_hangs_is_stopped(images: Path, tmp_path: Path) -> None:
    _, rows = bench("load", images, tmp_path, "--peers", "ours", "--limit", "0.01")
    assert "stopped after 0 s" in rows["ours"]["failed"]


def test_all_runs_become_one_page(images: Path, tmp_path: Path) -> None:
    bench("load", images, tmp_path, "--peers", "ours")
    page = tmp_path / "docs.md"
    command = [sys.executable, TOOLS / "bench.py", "report", page, "--environments", tmp_path]
    subprocess.run(command, check=True, capture_output=True)
    assert "`python tools/bench.py load data/root-1 " in page.read_text()
    assert (tmp_path / "benchmark-load-root-1-16.png").exists()
