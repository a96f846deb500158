"""The scripts in tools/, called from the command line."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[1] / "tools"


def run(*arguments, **options):
    return subprocess.run(arguments, capture_output=True, text=True, **options)


def test_make_images_is_deterministic_and_spreads_images_over_roots(tmp_path):
    sums = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        done = run(sys.executable, TOOLS / "make_images.py", folder, "--count", "60", "--roots", "3")
        assert done.returncode == 0, done.stderr
        files = sorted(folder.rglob("*.jpg"))
        assert len(files) == 60
        sums.append([hashlib.sha256(path.read_bytes()).hexdigest() for path in files])
    assert sums[0] == sums[1]
    assert sorted(os.listdir(folder)) == ["root-1", "root-2", "root-3"]
    assert all(
        sorted(os.listdir(root)) == ["cross", "disc", "square", "stripes", "triangle"] for root in folder.iterdir()
    )


def test_train_eurosat_learns_and_writes_curves_confusion_and_mistakes(tmp_path):
    pytest.importorskip("tensorflow", reason="needs TensorFlow: pip install 'pack-images[tensorflow]'")
    run(sys.executable, TOOLS / "make_images.py", tmp_path / "data", "--count", "400", check=True)
    sources = sorted((tmp_path / "data").iterdir())
    packing = [sys.executable, "-m", "pack_images.cli", *sources, "-o", tmp_path / "made.h5"]
    run(*packing, "--size", "32", check=True)
    training = [sys.executable, TOOLS / "train_eurosat.py", tmp_path / "made.h5", "--output", tmp_path / "out"]
    done = run(*training, "--epochs", "4", "--learning-rate", "0.001")
    assert done.returncode == 0, done.stderr
    accuracy = float(re.search(r"test accuracy: ([\d.]+)% of 80 images", done.stdout)[1])
    assert accuracy > 40  # twice what guessing gives
    for picture in ("curves.png", "confusion.png"):
        assert (tmp_path / "out" / picture).read_bytes().startswith(b"\x89PNG")
    listed = (tmp_path / "out" / "mistakes.csv").read_text().splitlines()
    assert listed[0] == "filename,label,predicted,confidence"
    assert len(listed) - 1 == round(80 * (100 - accuracy) / 100)
    for line in listed[1:]:
        filename, label, predicted, _ = line.split(",")
        assert Path(filename).exists()
        assert filename.split("/")[-2] == label != predicted


def test_the_speed_tools_print_their_measurements(tmp_path):
    run(sys.executable, TOOLS / "make_images.py", tmp_path / "data", "--count", "200", check=True)
    done = run(sys.executable, TOOLS / "packing.py", tmp_path / "data/root-1", "--repeats", "1")
    assert done.returncode == 0, done.stderr
    assert "images/s; of the speed of" in done.stdout
    done = run(sys.executable, TOOLS / "bands.py", "--images", "40", "--repeats", "1", "--compression", "zlib")
    assert done.returncode == 0, done.stderr
    assert "images/s; of the speed of tifffile" in done.stdout
    packing = [
        sys.executable,
        "-m",
        "pack_images.cli",
        tmp_path / "data",
        "-o",
        tmp_path / "made.h5",
        "--labels",
        "parent",
    ]
    run(*packing, check=True)
    commands = {
        "epochs": "us a batch",
        "cold": "first epoch, block order: ",
        "consumer": "of the consumer alone",
        "memory": "adds at most",
    }
    if importlib.util.find_spec("tensorflow"):
        commands["fit"] = "as_tf_dataset(), shuffled: "
    for command, said in commands.items():
        options = ["--repeats", "1", "--batch", "32", "--epochs", "1"]
        done = run(sys.executable, TOOLS / "loading.py", command, tmp_path / "made.h5", *options)
        assert done.returncode == 0, done.stderr
        assert said in done.stdout
    for options in (["row", tmp_path / "data/root-1"], ["batch", tmp_path / "made.h5"]):
        done = run(sys.executable, TOOLS / "parts.py", *options)
        assert done.returncode == 0, done.stderr
        assert "the parts together" in done.stdout


@pytest.mark.skipif(importlib.util.find_spec("torchvision") is None, reason="needs torchvision, for its networks")
def test_accelerator_compares_a_pack_with_a_resident_batch_and_image_folder(tmp_path):
    run(sys.executable, TOOLS / "make_images.py", tmp_path / "data", "--count", "60", "--roots", "1", check=True)
    folder = tmp_path / "data" / "root-1"
    run(sys.executable, "-m", "pack_images.cli", folder, "-o", tmp_path / "made.h5", "--size", "32", check=True)
    options = ["--folder", folder, "--network", "squeezenet1_1", "--batch", "2", "--seconds", "0.001"]
    options += ["--repeats", "1", "--workers", "1"]
    done = run(sys.executable, TOOLS / "accelerator.py", tmp_path / "made.h5", *options)
    assert done.returncode == 0, done.stderr
    assert re.findall(r"^  (.*?)  +[\d,]+ images/s", done.stdout, re.MULTILINE) == [
        "a batch that is there",
        "pack-images",
        "ImageFolder",
    ]


def test_loading_large_describes_a_pack_of_many_rows(tmp_path):
    done = run(sys.executable, TOOLS / "loading.py", "large", "--rows", "1200000", "--folder", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "1,200,000 rows, 15 GB, most of it a hole" in done.stdout


def test_the_scripts_stop_with_a_message_when_pip_cannot_install(tmp_path):
    project = tmp_path / "project"
    (project / "tools").mkdir(parents=True)
    (project / "pyproject.toml").write_text("this is no project")
    scripts = ("test.sh", "quickstart.sh", "faults.sh")  # the first script creates .venv, the others find it
    for name in (*scripts, "environment.sh"):
        (project / "tools" / name).write_text((TOOLS / name).read_text())
    for script in scripts:
        done = run("sh", project / "tools" / script, env={**os.environ, "PIP_NO_INDEX": "1"})
        assert done.returncode != 0
        assert ("making .venv" in done.stdout) == (script == "test.sh")
        assert "pip could not install pack-images[" in done.stderr
        assert not list((project / ".venv").glob("installed-*"))
