"""Pictures unlike the others: one odd picture decides nothing, and a pack of the lesser half is no success."""

from __future__ import annotations

import os

import numpy as np
import pytest

from conftest import pixels_of, write_image
from h5split import PackedImages
from pack_images import PackError, SizeError, pack, preview
from pack_images.cli import main


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


@pytest.mark.parametrize("workers", [1, 2])
def test_half_of_the_pictures_left_out_is_an_error_that_says_what_most_failures_say(tiles, workers):
    for number in range(1, 20):
        write_bands(tiles / f"tiles/{number:02}.npy", 6 + number if number != 7 else 5)
    (tiles / "tiles/01.npy").write_bytes(b"broken")
    write_bands(tiles / "tiles/20.npy", 8)
    write_bands(tiles / "tiles/21.npy", 9)
    message = (
        r"^expected to decode more than half of 40 images, found 21 that cannot be, 20 of them like "
        r"tiles/00\.npy: 4 bands: expected 5, as other pictures have; if no other option takes them, give the "
        r"other files alone, for example in a --manifest$"
    )
    with pytest.raises(PackError, match=message) as error:
        pack("tiles", "out.h5", color="all", order="sorted", workers=workers)
    assert type(error.value) is PackError
    assert os.listdir(tiles) == ["tiles"]


def test_the_command_says_which_option_takes_the_pictures_that_fail(tiles, capsys):
    for number in range(20):
        write_bands(tiles / f"tiles/{number:02}.npy", 3)
    assert main(["tiles", "-o", "out.h5", "--dtype", "uint16", "--size", "4", "--workers", "1", "--quiet"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "found 20 that cannot be, 20 of them like tiles/" in line
    assert ".npy: 5 bands: expected grey or three colours; --color all takes every band; if no other" in line


def test_up_to_ten_pictures_left_out_are_named_even_if_they_are_most(tiles, capsys):
    for number in range(12, 40):
        (tiles / f"tiles/{number:02}.npy").unlink()
    for number in range(1, 11):
        (tiles / f"tiles/{number:02}.npy").write_bytes(b"broken")
    write_bands(tiles / "tiles/00.npy", 5)
    assert main(["tiles", "-o", "out.h5", "--color", "all", "--workers", "1"]) == 0
    printed = capsys.readouterr().out
    assert all(f"tiles/{number:02}.npy" in printed for number in range(1, 11))
    assert sorted(PackedImages("out.h5").filenames) == ["tiles/00.npy", "tiles/11.npy"]
