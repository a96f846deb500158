"""A short version of every campaign; tools/faults.sh runs the long ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import fault_packing
import fault_remote
import fault_training
import pytest
from fault_campaign import environment, open_folder

from h5split.system.machine import cores

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")

PACKING = [
    "SIGKILL",
    "SIGTERM",
    "power cut",
    "worker killed",
    "error of a call",
    "transfer cut short",
    "torn write",
    "full disk",
    "limit of file size",
    "folder without permission",
    "source: vanish",
    "source: grow",
    "pack: replace_pack",
    "4 runs at once",
]
TRAINING = ["pack: replace", "pack: cut", "pack: write_over", "threads", "forks while a thread reads", "interrupts"]

REMOTE = ["killed", "failures", "replaced", "power failure"]


@pytest.fixture(scope="module")
def packing():
    with open_folder() as folder:
        yield fault_packing.campaign(folder, faults=len(PACKING), only=PACKING, jobs=cores(), runs=4)


@pytest.fixture(scope="module")
def training():
    with open_folder() as folder:
        yield fault_training.campaign(folder, faults=len(TRAINING), only=TRAINING, jobs=cores())


@pytest.fixture(scope="module")
def remote():
    pytest.importorskip("aiohttp", reason="needs fsspec and aiohttp: pip install 'pack-images[remote]'")
    with open_folder() as folder:
        yield fault_remote.campaign(folder, faults=len(REMOTE), only=REMOTE, jobs=cores())


def assert_borne(result, kind):
    assert result.failures.get(kind, []) == []
    if kind in result.skipped:
        pytest.skip(result.skipped[kind])
    assert result.faults[kind] + result.missed[kind] == 1


@pytest.mark.parametrize("kind", PACKING)
def test_packing_leaves_the_old_pack_or_the_new_one_and_continues(packing, kind):
    assert_borne(packing, kind)


@pytest.mark.parametrize("kind", TRAINING)
def test_training_gets_the_rows_of_the_pack_it_opened_or_an_error(training, kind):
    assert_borne(training, kind)


@pytest.mark.parametrize("kind", REMOTE)
def test_packs_elsewhere_give_every_row_or_an_error(remote, kind):
    assert_borne(remote, kind)


def test_nothing_grows_and_no_row_is_lost():
    script = Path(__file__).with_name("soak.py")
    done = subprocess.run(
        [sys.executable, script, "--minutes", "0.1", "--doors", "numpy"],
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout)
    assert said["failures"] == {}
    assert said["rows"] > 0


def test_a_pack_with_a_row_of_another_file_is_a_failure():
    with open_folder() as folder:
        versions = fault_packing.write_data(folder / "data")
        names = sorted(name for name, found in versions.items() if found)
        one, other = names[:2]
        versions[one], versions[other] = versions[other], versions[one]
        ground = [sys.executable, "-m", "pack_images.cli", str(folder / "data"), "-o", str(folder / "out.h5")]
        fault_packing.pack([*ground, "--workers", "1"], folder)
        with pytest.raises(AssertionError, match="has other pixels, or another digest"):
            fault_packing.prove(folder / "out.h5", versions)
        assert os.path.exists(folder / "out.h5")
