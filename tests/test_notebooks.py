"""The notebooks of examples/ run from top to bottom, and are stored with outputs of the same kinds."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from conftest import PATIENCE

PROJECT = Path(__file__).parents[1]
NOTEBOOKS = sorted((PROJECT / "examples").glob("*.ipynb"))
NEEDED = {"pack_look_train": ("tensorflow", "keras"), "splits_without_leaks": ()}
MACHINE = re.compile(r"/(?:tmp|home|root|work|usr|opt|var|Users|private)/|[A-Z]:\\\\")  # begins a path of a machine


def texts_of(output):
    """Everything that an output shows: text, HTML and errors."""
    return ["".join(text) for text in [output.get("text", ""), *output.get("data", {}).values()]]


def kinds(notebook):
    """The source and the kinds of output of each cell. A slow machine may cut one stream in two."""
    return [
        (
            "".join(cell["source"]),
            list(dict.fromkeys((one["output_type"], one.get("name"), *sorted(one.get("data", {}))) for one in outputs)),
        )
        for cell in notebook["cells"]
        for outputs in [cell.get("outputs", [])]
    ]


def test_every_notebook_is_tested():
    assert {path.stem for path in NOTEBOOKS} == set(NEEDED)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_what_is_stored(path, tmp_path):
    for package in ("nbclient", "ipykernel", *NEEDED[path.stem]):
        if find_spec(package) is None:
            pytest.skip(f"needs {package}: pip install 'pack-images[dev,tensorflow]'")
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": ""}
    environment.pop("PYTEST_CURRENT_TEST", None)
    done = subprocess.run(
        [sys.executable, PROJECT / "tools/notebooks.py", path, "--to", tmp_path],
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    again = json.loads((tmp_path / path.name).read_text())
    assert kinds(json.loads(path.read_text())) == kinds(again)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_stored_notebook_is_small_and_names_no_machine(path):
    assert path.stat().st_size < 300_000
    notebook = json.loads(path.read_text())
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    for cell in code:
        assert len(cell["source"]) <= 36
        for output in cell["outputs"]:
            assert output["output_type"] != "error"
            assert output.get("name") != "stderr", output  # no warnings
            for text in texts_of(output):
                assert not MACHINE.search(re.sub(r"data:image/png;base64,[\w+/=]+", "", text)), text
    assert not set(notebook["metadata"]) - {"kernelspec", "language_info"}
    for target in re.findall(r"\]\((?!https:)([^)#]+)\)", "".join("".join(c["source"]) for c in notebook["cells"])):
        assert (path.parent / target).exists(), target
