"""Tests of the documentation: examples in README, docstrings and help run, and links are valid."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import os
import pydoc
import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from conftest import write_classes
from h5split import SplitSequence
from h5split import cli as h5split_cli
from pack_images import arguments, cli

PROJECT = Path(__file__).parents[1]
README = (PROJECT / "README.md").read_text()


def blocks():
    """Return the code blocks of README from top to bottom: (language, text)."""
    return re.findall(r"^```(sh|python)\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def example(documented):
    """Return the code in a docstring, after the line that ends in a double colon or says Example."""
    return textwrap.dedent(re.search(r"(?:::|Example:)\n\n((?:    .*\n|\n)+)", inspect.getdoc(documented))[1])


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make = [sys.executable, str(PROJECT / "tools/make_images.py"), "data", "--count", "300", "--roots", "2"]
    subprocess.run(make, check=True, capture_output=True)
    write_classes(tmp_path / "photos", {"ants": 3, "bees": 3})
    rows = [f"{path.relative_to('data')},{path.parent.name}" for path in sorted(Path("data").rglob("*.jpg"))]
    Path("splits.csv").write_text("\n".join(["path,label", *rows]))
    return tmp_path


def run_command(line):
    program, *words = shlex.split(line, comments=True)
    arguments = [path for word in words for path in (sorted(map(str, Path().glob(word))) if "*" in word else [word])]
    run = {"pack-images": cli.main, "h5split": h5split_cli.main}[program]
    assert run(arguments) == 0, line


@pytest.mark.filterwarnings("default")
def test_the_readme_runs_from_top_to_bottom(here, capsys):
    for package in ("tensorflow", "torch", "sklearn"):
        pytest.importorskip(package, reason="needs all that README shows: pip install 'pack-images[backends]'")
    from h5split import H5SplitSequence

    namespace = {"SplitSequence": SplitSequence}
    for language, text in blocks():
        if language == "python":
            exec(compile(text, "README.md", "exec"), namespace)
            continue
        for line in text.splitlines():
            if line.startswith(("pack-images ", "h5split ")):
                run_command(line)
    assert {"eurosat.h5", "photos.h5", "report.html", "folders", "again.h5"} <= set(os.listdir(here))
    for documented in (SplitSequence, H5SplitSequence):
        exec(compile(example(documented), documented.__name__, "exec"), namespace)
    assert "root-" in capsys.readouterr().out


@pytest.fixture
def torchvision(monkeypatch):
    """Let torchvision load beside a torch without a GPU."""
    pytest.importorskip("torch", reason="needs torch: pip install 'pack-images[backends]'")
    monkeypatch.syspath_prepend(PROJECT / "tools/peers")
    importlib.import_module("cpu_torchvision")


@pytest.mark.filterwarnings("default")
def test_the_recipes_for_augmentation_run_and_are_reproducible(here, torchvision, monkeypatch):
    for package in ("keras", "albumentations", "torchvision"):
        pytest.importorskip(package, reason="needs all that the page shows: pip install 'pack-images[backends]'")
    from h5split import H5SplitSequence

    monkeypatch.setenv("NO_ALBUMENTATIONS_UPDATE", "1")  # it asks a server for a newer version
    run_command("pack-images data/* -o eurosat.h5 --size 64 --quiet")
    namespace = {}
    page = (PROJECT / "docs/augmentation.md").read_text()
    for text in re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE):
        exec(compile(text, "augmentation.md", "exec"), namespace)
    assert (namespace["images"].dtype, namespace["images"].shape) == (np.float32, (32, 64, 64, 3))
    plain = H5SplitSequence("eurosat.h5")
    for name in ("flip", "brighter", "keras_layers", "with_albumentations", "with_torchvision", "mixup"):
        first, again = plain.map(namespace[name]), plain.map(namespace[name])
        for before, after in zip([*first[3], *first[4]], [*again[3], *again[4]], strict=True):
            assert np.array_equal(before, after), name
        again.epoch = first.epoch + 1
        assert not np.array_equal(first[3][0], again[3][0]), name
        assert not np.array_equal(first[3][0], plain[3][0]), name


def test_the_commands_in_the_help_run(here):
    for text in (arguments._EPILOG, h5split_cli._EPILOG):
        for line in re.findall(r"^  ((?:pack-images|h5split) .*)$", text, re.MULTILINE):
            run_command(line)


def test_the_readme_names_every_option_and_setting():
    from h5split import Settings

    of_h5split = h5split_cli._parser()._subparsers._group_actions[0].choices.values()
    for parser in (arguments.parser(), *of_h5split):
        for action in parser._actions:
            for option in action.option_strings:
                if option.startswith("--") and option not in ("--help", "--output"):
                    assert option in README, option
    for name in Settings.__dataclass_fields__:
        assert f"`{name}`" in README, name


@pytest.mark.parametrize("name", ["SplitSequence", "H5SplitSequence"])
def test_help_lists_every_setting_with_its_type_and_default(name):
    pytest.importorskip("keras", reason="needs Keras")
    import h5split

    documented = getattr(h5split, name)
    text = pydoc.render_doc(documented, renderer=pydoc.plaintext)
    for function in (documented, documented.set):
        parameters = inspect.signature(function).parameters
        for setting in dataclasses.fields(h5split.Settings):
            found = parameters[setting.name]
            assert (found.annotation, found.default) == (setting.type, setting.default)
            assert f"{setting.name}: {setting.type!r} = {setting.default!r}" in text


def test_a_misspelt_setting_is_found_by_mypy(tmp_path):
    pytest.importorskip("mypy", reason="needs mypy: pip install 'pack-images[dev]'")
    lines = ["from h5split import SplitSequence", "SplitSequence('a.h5', batch_size=8)", "SplitSequence(batch_sise=8)"]
    lines += ["SplitSequence('a.h5').set(auto_shufle=True)", "SplitSequence('a.h5', batch_size='8')"]
    (tmp_path / "use.py").write_text("\n".join(lines))
    path = os.pathsep.join(str(PROJECT / name) for name in ("loader", "packer"))
    checked = [sys.executable, "-m", "mypy", "--strict", "--follow-imports", "silent", "use.py"]
    done = subprocess.run(checked, cwd=tmp_path, env={**os.environ, "MYPYPATH": path}, capture_output=True, text=True)
    assert re.findall(r"use\.py:(\d): error: (\w+)", done.stdout) == [
        ("3", "Unexpected"),
        ("4", "Unexpected"),
        ("5", "Argument"),
    ], done.stdout


def test_relative_links_lead_to_existing_files():
    documents = [PROJECT / name for name in ("README.md", "ARCHITECTURE.md", "CHANGELOG.md")]
    for document in [*documents, *(PROJECT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!https:)([^)#]+)\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"
