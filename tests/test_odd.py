"""Pictures unlike the others: one odd picture decides nothing, and a pack of the lesser half is no success."""

from __future__ import annotations

import os

import numpy as np
import pytest

from conftest import pixels_of, write_image
from h5split import PackedImages
from pack_images import SizeError, pack, preview


def write_bands(path, bands):
    """Write an array of 4x4 pixels that are derived from its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, pixels_of(path.name, (4, 4, bands)))


@pytest.fixture
def tiles(tmp_path, monkeypatch):
    """A folder of 40 tiles with 5 bands, but 4 in the first by name."""
    monkeypatch.chdir(tmp_path)
    for number in range(40):
        write_bands(tmp_path / f"tiles/{number:02}.npy", 5 if number else 4)
    return tmp_path


@pytest.mark.parametrize("size", [None, 4])
@pytest.mark.parametrize("workers", [1, 2])
def test_an_odd_first_picture_is_left_out_and_no_other(tiles, size, workers):
    summary = pack("tiles", "out.h5", color="all", size=size, workers=workers)
    assert [*summary.skipped] == [("tiles/00.npy", "4 bands: expected 5, as other pictures have")]
    packed = PackedImages("out.h5")
    assert sorted(packed.filenames) == [f"tiles/{number:02}.npy" for number in range(1, 40)]
    for name, image in zip(packed.filenames, packed.images, strict=True):
        assert np.array_equal(image, pixels_of(name, (4, 4, 5)))


def test_broken_pictures_decide_nothing_and_the_first_decides_among_equals(tiles):
    for number in range(2, 40):
        (tiles / f"tiles/{number:02}.npy").write_bytes(b"broken")
    assert preview("tiles", color="all").shape == (4, 4, 4)
    (tiles / "tiles/00.npy").write_bytes(b"broken")
    assert preview("tiles", color="all").shape == (4, 4, 5)  # of the only one that can be decoded
    for number in range(20, 40):
        write_bands(tiles / f"tiles/{number:02}.npy", 6 + number % 2)
    write_bands(tiles / "tiles/00.npy", 3)
    assert preview("tiles", color="all").shape == (4, 4, 6)  # of 3, 6, 7, 6 and 7 bands


def test_the_picture_of_another_size_is_the_one_that_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number in range(20):
        write_image(tmp_path / f"data/{number:02}.png", (8, 9 if number else 7, 3))
    with pytest.raises(SizeError, match=r"^data/00\.png is 7x8, other images are 9x8; give --size to scale them$"):
        pack("data", "out.h5", workers=2)
    assert os.listdir(tmp_path) == ["data"]
