"""A release: one version everywhere, and a wheel and an sdist that hold what they must."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import h5split
import pack_images

ROOT = Path(__file__).parents[1]
VERSION = re.search(r'__version__ = "(.*)"', (ROOT / "loader/h5split/about.py").read_text())[1]


def test_every_door_says_the_same_version():
    assert h5split.__version__ == pack_images.__version__ == VERSION
    for module in ("h5split", "pack_images"):
        done = subprocess.run([sys.executable, "-m", f"{module}.cli", "--version"], capture_output=True, text=True)
        assert done.stdout.split() == [module.replace("_", "-"), VERSION]


def test_the_version_is_written_once():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["hatch"]["version"]["path"] == "loader/h5split/about.py"
    found = [
        str(path.relative_to(ROOT))
        for folder in ("loader", "packer")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if f'"{VERSION}"' in path.read_text()
    ]
    assert found == ["loader/h5split/about.py"]


def test_the_changelog_and_the_citation_know_the_version():
    headings = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "[Unreleased]"
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", heading) for heading in headings[1:])
    assert headings[1].startswith(f"[{VERSION}] - ")
    fields = dict(re.findall(r"^([\w-]+): (.*)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE))
    assert fields["version"] == VERSION
    assert fields["license"] == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["license"]
    assert {"cff-version", "message", "title"} <= fields.keys()


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder with the wheel and the sdist."""
    pytest.importorskip("hatchling", reason="needs hatchling: pip install hatchling")
    folder = tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", str(folder)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return folder


def files_of(*folders):
    """Files of the project below some folders, without what programs leave there."""
    found = set()
    for folder in folders:
        for path in (ROOT / folder).rglob("*"):
            name = path.relative_to(ROOT).as_posix()
            if path.is_file() and not re.search(r"__pycache__|\.egg-info|\.(pyc|h5|partial|journal)$", name):
                found.add(name)
    return found


def test_the_wheel_holds_both_packages_and_nothing_else(built):
    (wheel,) = built.glob("*.whl")
    assert wheel.name == f"pack_images-{VERSION}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.startswith(f"pack_images-{VERSION}.dist-info/")}
        metadata = archive.read(f"pack_images-{VERSION}.dist-info/METADATA").decode()
    sources = files_of("loader", "packer")
    assert names == {name.partition("/")[2] for name in sources}
    assert {"h5split/py.typed", "pack_images/py.typed"} <= names
    assert f"\nVersion: {VERSION}\n" in metadata


def test_the_sdist_holds_all_that_the_tests_need(built):
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = files_of(".ci", "docs", "examples", "loader", "packer", "tests", "tools")
    wanted |= {name for name in os.listdir(ROOT) if name.endswith((".md", ".cff", ".toml"))} | {"LICENSE"}
    assert sorted(wanted - names) == []
