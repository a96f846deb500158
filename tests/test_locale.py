"""File names keep their bytes in UTF-8 locales; packing and export are refused in other locales."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import write_classes, write_pack
from h5split import PackedImages

pytestmark = pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="file names are always UTF-8 there")

ASCII = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
EXPECTED = "expected file names in UTF-8, found the encoding "


@pytest.fixture(params=["ascii", "iso8859-1", "euc_jp"])
def legacy_locale(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """Environment variables of a terminal whose encoding is not UTF-8."""
    if request.param == "ascii":
        return ASCII
    name, charset = {"iso8859-1": ("en_US", "ISO-8859-1"), "euc_jp": ("ja_JP", "EUC-JP")}[request.param]
    made = tmp_path / f"{name}.{charset}"
    if shutil.which("localedef"):
        subprocess.run(["localedef", "-i", name, "-f", charset, str(made)], capture_output=True)
    environment = {"LOCPATH": str(tmp_path), "LC_ALL": made.name}
    code = "import sys; print(sys.getfilesystemencoding())"
    if run([sys.executable, "-c", code], environment).stdout.strip() != request.param:
        pytest.skip("needs localedef and the sources of locales")
    return environment


def run(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if name not in ("PYTHONUTF8", "PYTHONIOENCODING")}
    return subprocess.run(command, capture_output=True, text=True, errors="replace", env=inherited | environment)


def test_packing_and_export_refuse_a_locale_that_is_not_utf_8(tmp_path, legacy_locale):
    root = write_classes(tmp_path / "data", {"café": 2, "thé": 2})
    there = write_pack(tmp_path / "there.h5", ["a/café/1.png", "a/thé/2.png"])
    new = [str(tmp_path / name) for name in ("new.h5", "folder")]
    packing = [sys.executable, "-m", "pack_images.cli", str(root), "-o", new[0]]
    calls = "import sys, pack_images\ntry: pack_images.{}\nexcept ValueError as error: sys.exit(str(error))"
    for command in (
        packing,
        [*packing, "--dry-run"],
        [sys.executable, "-m", "h5split.cli", "export", str(there), new[1]],
        [sys.executable, "-c", calls.format(f"pack({str(root)!r}, {new[0]!r})")],
        [sys.executable, "-c", calls.format(f"preview({str(root)!r})")],
    ):
        done = run(command, legacy_locale)
        assert done.returncode == 1, done.stderr
        assert EXPECTED in done.stderr
        assert "; set PYTHONUTF8=1, or LC_ALL=C.UTF-8, in the environment and run it again" in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert not any(map(os.path.exists, new))


@pytest.mark.parametrize("environment", [{"PYTHONUTF8": "1"}, {"LC_ALL": "C"}, {"LC_ALL": "POSIX"}], ids=str)
def test_packing_works_in_utf_8_mode_and_in_the_c_and_posix_locales(tmp_path, environment):
    root = write_classes(tmp_path / "data", {"café": 2, "thé": 2})
    if "PYTHONUTF8" in environment:
        environment = ASCII | environment
    command = [sys.executable, "-m", "pack_images.cli", str(root), "-o", str(tmp_path / "new.h5"), "--quiet"]
    done = run([*command, "--workers", "1"], environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert PackedImages(tmp_path / "new.h5").class_names == ("café", "thé")


def test_info_and_verify_work_in_any_locale(tmp_path, legacy_locale):
    root = write_classes(tmp_path / "data", {"café": 2, "thé": 2})
    command = [sys.executable, "-m", "pack_images.cli", str(root), "-o", str(tmp_path / "new.h5"), "--quiet"]
    assert run([*command, "--workers", "1"], {"LC_ALL": "C.UTF-8"}).returncode == 0
    done = run([sys.executable, "-m", "h5split.cli", "verify", str(tmp_path / "new.h5"), "--sources"], legacy_locale)
    assert (done.returncode, done.stderr.count("Traceback")) == (0, 0), done.stdout
    assert "sources: 4 same, 0 changed, 0 missing" in done.stdout
    done = run([sys.executable, "-m", "h5split.cli", "info", str(tmp_path / "new.h5")], legacy_locale)
    assert done.returncode == 0, done.stderr
