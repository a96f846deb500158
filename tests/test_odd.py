"""Pictures unlike the others: one odd picture decides nothing, and a pack of the lesser half is no success."""

from __future__ import annotations

import os

import numpy as np
import pytest
from PIL import Image

from conftest import pixels_of, write_image
from h5split import PackedImages, SplitSequence
from h5split.cli import main as h5split
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


def test_one_band_and_one_class_are_no_plurals_and_a_range_is_as_the_option_has_it(tiles, capsys):
    write_bands(tiles / "tiles/00.npy", 1)
    arguments = ["tiles", "-o", "out.h5", "--color", "all", "--range", "0:4095", "--size", "4x3", "--workers", "1"]
    assert main(arguments) == 0
    assert "tiles/00.npy: 1 band: expected 5" in capsys.readouterr().out
    assert repr(PackedImages("out.h5")).endswith(", 1 class")
    assert repr(SplitSequence("out.h5")).endswith(", 1 class")
    assert h5split(["info", "out.h5"]) == 0
    said = capsys.readouterr().out
    assert "range 0:4095" in said
    assert "size 4x3" in said


@pytest.fixture
def scans(tmp_path, monkeypatch):
    """Eight pictures of 12 bits in PNGs of 16, and three of 8 bits: a PNG, a JPEG and an array."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scans").mkdir()
    for number in range(8):
        Image.fromarray(scan_of(f"{number}.png")).save(f"scans/{number}.png")
    Image.fromarray(pixels_of("a.png", (8, 8))).save("scans/a.png")
    Image.fromarray(pixels_of("b.jpg", (8, 8))).save("scans/b.jpg")
    np.save("scans/c.npy", pixels_of("c.npy", (8, 8)))
    return tmp_path


def scan_of(name):
    return pixels_of(name, (8, 8)).astype(np.uint16) * 16 + 15


NOTE = (
    "3 pictures of 8 bits, such as scans/a.png, and 8 of more: 8 bits were multiplied by 257 so that 255 is 65535, the "
    "others kept their values; --dtype uint8 --range LOW:HIGH gives both one scale"
)


@pytest.mark.parametrize("color", ["grayscale", "rgb"])
@pytest.mark.parametrize("workers", [1, 2])
def test_8_bits_among_16_are_said(scans, color, workers, capsys):
    options = {"color": color, "dtype": "uint16", "workers": workers}
    assert [*pack("scans", "out.h5", **options).warnings] == [NOTE]
    packed = PackedImages("out.h5")
    for name, image in zip(packed.filenames, packed.images, strict=True):
        if name.endswith("png"):
            expected = pixels_of(name, (8, 8)).astype(np.uint16) * 257 if "a" in name[6:] else scan_of(name)
            assert np.array_equal(image[..., 0], expected)
    again = pack("scans", "out.h5", **options)
    assert (again.copied, [*again.warnings]) == (11, [NOTE])
    assert main(["scans", "-o", "out.h5", "--color", color, "--dtype", "uint16", "--quiet"]) == 0
    assert NOTE in capsys.readouterr().err


def test_pictures_of_one_depth_and_values_as_they_are_need_no_word(scans):
    assert pack("scans", "out.h5", color="all", dtype="uint16", workers=1).warnings == []
    for number in range(8):
        (scans / f"scans/{number}.png").unlink()
    assert pack("scans", "other.h5", color="grayscale", dtype="uint16", workers=1).warnings == []


def test_8_bits_among_16_are_said_after_an_interruption(scans):
    (scans / "scans/0.png").rename(scans / "kept.png")
    (scans / "scans/0.png").write_bytes(b"broken")
    with pytest.raises(PackError, match="not an image that Pillow knows"):
        pack("scans", "out.h5", size=8, color="grayscale", dtype="uint16", order="sorted", workers=1, strict=True)
    (scans / "kept.png").rename(scans / "scans/0.png")
    summary = pack("scans", "out.h5", size=8, color="grayscale", dtype="uint16", order="sorted", workers=1)
    assert [*summary.warnings] == [NOTE]
