"""Packing with `like`: pairs that EXIF turns apart, pairs of other sizes, and numbers that would become colours."""

from __future__ import annotations

import os

import numpy as np
import pytest
from PIL import Image

from conftest import pixels_of
from h5split import PackedImages
from pack_images import PackError, pack
from pack_images.cli import main

WIDE, HIGH = (16, 12), (12, 16)  # (width, height)


def write_photo(name, orientation=1, size=WIDE, kind="jpg"):
    """Write a photograph whose pixels are derived from its name."""
    path = f"photos/{name}.{kind}"
    os.makedirs(os.path.dirname(path), exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels_of(path, (size[1], size[0], 3))).save(path, quality=95, exif=exif)
    return path


def mask_of(name, size=WIDE):
    number = pixels_of(name, (1,))[0] // 2 * 2  # that no two names here share
    return number + pixels_of(f"mask of {name}", (size[1], size[0])) % 2


def write_mask(name, size=WIDE, kind="png", mode="L", **options):
    """Write a mask whose numbers are derived from its name."""
    path = f"masks/{name}.{kind}"
    os.makedirs(os.path.dirname(path), exist_ok=True)
    image = Image.fromarray(mask_of(name, size))
    if mode == "P":
        image.putpalette([value * 37 % 256 for value in range(768)])
    image.save(path, **options)
    return path


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Six pairs of 16x12, which EXIF does not turn."""
    monkeypatch.chdir(tmp_path)
    for number in range(6):
        write_photo(f"{number}")
        write_mask(f"{number}")
    return tmp_path


def pack_masks(photos="photos", size=8, **options):
    pack(photos, "photos.h5", size=size, workers=1)
    summary = pack("masks", "masks.h5", like="photos.h5", **{"size": size, "color": "index", "workers": 1, **options})
    packed = PackedImages("masks.h5")
    for name, image in zip(packed.filenames, packed.images, strict=True):
        assert set(np.unique(image)) <= set(np.unique(mask_of(name[6:-4]))), name
    return summary


REASON = "its partner {0} is turned by EXIF, this one is not: turn it, or remove the orientation of {0}"  # of two masks


@pytest.mark.parametrize("kind", ["jpg", "png", "tiff"])
@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_a_mask_that_lies_beside_a_photograph_that_stands_is_left_out_by_name(here, kind, orientation):
    write_photo("x", orientation, kind=kind)
    write_mask("x")
    summary = pack_masks()
    assert [*summary.skipped] == [("masks/x.png", REASON.format(f"photos/x.{kind}"))]
    assert len(PackedImages("masks.h5")) == 6
    assert PackedImages("masks.h5").skipped == [*summary.skipped]
    with pytest.raises(PackError, match=r"^masks/x\.png: its partner photos/x\..*, so it is with 1 row; without"):
        pack_masks(strict=True)


def test_masks_of_upright_photographs_are_kept_and_so_are_masks_with_the_same_orientation(here):
    write_photo("upright", 6)
    write_mask("upright", HIGH)
    write_photo("both", 8)
    exif = Image.Exif()
    exif[0x0112] = 8
    write_mask("both", WIDE, exif=exif)
    summary = pack_masks()
    assert (summary.rows, summary.skipped, summary.warnings) == (8, [], [])


@pytest.mark.parametrize(
    ("orientation", "photo", "mask", "kind"),
    [
        pytest.param(3, WIDE, WIDE, "png", id="upside down"),
        pytest.param(2, WIDE, WIDE, "png", id="mirrored"),
        pytest.param(6, (16, 16), (16, 16), "png", id="square"),
        pytest.param(6, WIDE, (8, 6), "png", id="a smaller mask"),
        pytest.param(6, WIDE, WIDE, "bmp", id="a format without orientation"),
    ],
)
def test_pairs_of_which_nothing_tells_are_counted(here, orientation, photo, mask, kind):
    write_photo("odd", orientation, photo)
    write_mask("odd", mask, kind)
    summary = pack_masks()
    assert (summary.rows, summary.skipped) == (7, [])
    assert [*summary.warnings] == [
        "1 pair of pictures that EXIF does not turn alike, and sizes do not tell whether they show the same, such as "
        f"photos/odd.jpg and masks/odd.{kind}; look at them"
    ]


def test_half_of_the_pairs_apart_are_an_error(here, capsys):
    for number in range(3):
        write_photo(f"{number}", 6)
    pack("photos", "photos.h5", size=8, workers=1)
    assert main(["masks", "-o", "masks.h5", "--like", "photos.h5", "--size", "8", "--quiet"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("; so it is with 3 of 6 pairs")
    assert not os.path.exists("masks.h5")


def test_a_photograph_that_changed_since_it_was_packed_leaves_no_mask_out(here):
    pack("photos", "photos.h5", size=8, workers=1)
    write_photo("0", 6)
    summary = pack("masks", "masks.h5", like="photos.h5", size=8, color="index", workers=1)
    assert (summary.rows, summary.skipped) == (6, [])


def test_palettes_that_would_become_colours_are_said(here):
    for number in range(6):
        write_mask(f"{number}", mode="P")
    pack("photos", "photos.h5", size=8, workers=1)
    for color in ("rgb", "grayscale", "all"):
        (warning,) = pack("masks", "masks.h5", like="photos.h5", size=8, color=color, workers=1).warnings
        assert warning == (
            f"files such as masks/0.png have numbers of a palette: --color {color} stores its colours, mixed where "
            "pictures are scaled; --color index keeps their numbers"
        )
    assert pack_masks().warnings == []
    write_mask("5")
    assert pack("masks", "masks.h5", like="photos.h5", size=8, workers=1).warnings == []


def test_another_size_than_that_of_the_partners_is_said(here):
    (warning,) = pack_sizes(8, 4)
    assert warning == (
        "photos.h5 has images of 8x8, this run makes 4x4: the pixels of a pair lie in different places; --size 8x8 "
        "makes them alike"
    )
    (warning,) = pack_sizes(8, None)  # as the masks are
    assert "photos.h5 has images of 8x8, this run makes 16x12: " in warning
    assert pack_sizes(8, 8) == pack_sizes(None, None) == []


def pack_sizes(photos, masks):
    """The warnings of a pack of masks of one size, beside photographs of another."""
    pack("photos", "photos.h5", size=photos, workers=1)
    return [*pack("masks", "masks.h5", like="photos.h5", size=masks, color="index", workers=1).warnings]
