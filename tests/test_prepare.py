"""A new picture becomes what packing would have made of it."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from conftest import write_image, write_pack
from h5split import PackedImages
from pack_images import DecodeError, PackError, SizeError, pack, prepare

OPTIONS = {
    "stretched": {"size": (24, 16)},
    "cropped": {"size": 16, "fit": "crop", "interpolation": "lanczos"},
    "padded, with transparency": {"size": (20, 30), "fit": "pad", "color": "rgba"},
    "grey": {"size": 12, "color": "grayscale"},
    "exact": {"size": 12, "exact": True},
}
MODES = ("RGB", "RGBA", "L", "P", "CMYK", "I;16", "1", "LA")


def picture(mode: str) -> Image.Image:
    """A picture of 90x60 in a mode of Pillow's."""
    pixels = np.random.default_rng(3).integers(0, 256, (60, 90, 3), np.uint8)
    image = Image.fromarray(pixels).resize((90, 60), Image.Resampling.BICUBIC)
    if mode == "I;16":
        return Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    return image.convert(mode)


@pytest.fixture
def folder(tmp_path):
    """Pictures of all modes in files of several formats; one lies on its side."""
    (tmp_path / "d" / "cat").mkdir(parents=True)
    for mode in MODES:
        picture(mode).save(tmp_path / "d" / "cat" / f"{mode.replace(';', '')}.tif")
    exif = Image.Exif()
    exif[0x0112] = 6
    picture("RGB").save(tmp_path / "d" / "cat" / "turned.jpg", exif=exif, quality=95)
    picture("RGB").resize((900, 600)).save(tmp_path / "d" / "cat" / "large.jpg")
    return tmp_path


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_file_becomes_the_row_that_it_has_in_the_pack(folder, options):
    pack(folder / "d", folder / "out.h5", workers=1, **options)
    packed = PackedImages(folder / "out.h5")
    assert len(packed) == len(MODES) + 2
    for name, row in zip(packed.filenames, packed.images, strict=True):
        assert np.array_equal(prepare(packed, name), row), name
        with open(name, "rb") as file:
            assert np.array_equal(prepare(folder / "out.h5", file.read()), row), name


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_an_image_of_pillows_becomes_the_row_that_its_file_has(folder, options):
    pack(folder / "d", folder / "out.h5", workers=1, **options)
    packed = PackedImages(folder / "out.h5")
    for name, row in zip(packed.filenames, packed.images, strict=True):
        if name.endswith("large.jpg"):
            continue  # packing decodes it at a reduced size, which an image in memory cannot be
        with Image.open(name) as image:
            assert np.array_equal(prepare(packed, image), row), name


def test_a_picture_of_another_size_than_the_pack_is_an_error(tmp_path):
    write_image(tmp_path / "d" / "cat" / "a.png")
    pack(tmp_path / "d", tmp_path / "out.h5", workers=1)
    assert np.array_equal(
        prepare(tmp_path / "out.h5", tmp_path / "d" / "cat" / "a.png"), PackedImages(tmp_path / "out.h5").images[0]
    )
    with pytest.raises(SizeError, match=r"expected a picture of 8x8, as all of .*out\.h5 are, found 90x60"):
        prepare(tmp_path / "out.h5", picture("RGB"))


@pytest.mark.parametrize("more", [(), ("new",)], ids=["packs alone", "and a folder"])
def test_a_pack_made_of_packs_prepares_as_they_do(tmp_path, more, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for index, folder in enumerate(("d", "e", "new")):
        write_image(tmp_path / folder / "cat" / f"{index}.png", (60, 90, 3))
        pack(folder, f"{folder}.h5", size=(24, 16), fit="crop", workers=1)
    summary = pack(["d.h5", "e.h5", *more], "all.h5", fit="crop", workers=1)
    packed = PackedImages("all.h5")
    assert (summary.rows, packed.header.settings["size"]) == (2 + len(more), [24, 16])
    for name, row in zip(packed.filenames, packed.images, strict=True):
        assert np.array_equal(prepare(packed, name), row), name
    again = pack(["all.h5", "new"], "all.h5", fit="crop", workers=1)
    assert (again.rows, PackedImages("all.h5").header.settings["size"]) == (3, [24, 16])


def test_a_pack_made_of_packs_without_a_size_has_none(tmp_path):
    write_image(tmp_path / "d" / "cat" / "a.png")
    pack(tmp_path / "d", tmp_path / "one.h5", workers=1)
    pack(tmp_path / "one.h5", tmp_path / "two.h5", workers=1)
    assert PackedImages(tmp_path / "two.h5").header.settings["size"] is None
    with pytest.raises(SizeError, match=r"expected a picture of 8x8, as all of .*two\.h5 are, found 90x60"):
        prepare(tmp_path / "two.h5", picture("RGB"))


def test_what_cannot_be_prepared_is_an_error(tmp_path):
    write_image(tmp_path / "d" / "cat" / "a.png")
    pack(tmp_path / "d", tmp_path / "out.h5", size=8, workers=1)
    (tmp_path / "broken.png").write_bytes(b"broken")
    for given, named in ((tmp_path / "broken.png", "broken.png"), (b"broken", "the picture")):
        with pytest.raises(DecodeError, match=f"{named}: "):
            prepare(tmp_path / "out.h5", given)
    with pytest.raises(DecodeError, match=r"none\.png: cannot be read \(No such file"):
        prepare(tmp_path / "out.h5", tmp_path / "none.png")
    write_pack(tmp_path / "hand.h5", ["x/cat/a.png"])
    with pytest.raises(PackError, match=r"hand\.h5: expected the settings of its pictures, found no size"):
        prepare(tmp_path / "hand.h5", picture("RGB"))
    with pytest.raises(PackError, match="expected"):
        prepare(tmp_path / "broken.png", picture("RGB"))


def test_other_decoders_are_said(tmp_path, monkeypatch):
    write_image(tmp_path / "d" / "cat" / "a.png")
    pack(tmp_path / "d", tmp_path / "out.h5", size=8, workers=1)
    packed = PackedImages(tmp_path / "out.h5")
    packed.header.packed_by["pillow"] = "1.0"
    with pytest.warns(UserWarning, match=r"prepare: expected the decoders of .*out\.h5, pillow 1\.0, found others"):
        prepare(packed, picture("RGB"))
    buffer = io.BytesIO()
    picture("RGB").save(buffer, "PNG")
    assert np.array_equal(prepare(tmp_path / "out.h5", buffer.getvalue()), prepare(tmp_path / "out.h5", picture("RGB")))
