"""A new picture becomes what packing would have made of it."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from conftest import write_image, write_pack
from h5split import PackedImages, SplitSequence
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
        with Image.open(name) as image:
            assert np.array_equal(prepare(packed, image), row), name
            assert np.array_equal(prepare(packed, image), row), f"{name} again"
            with Image.open(name) as other:
                assert np.array_equal(np.asarray(image), np.asarray(other)), f"{name} has changed"


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_large_jpeg_that_is_loaded_becomes_the_row_that_it_has_if_packed_exactly(folder, options):
    for name, how in (("out.h5", options), ("exact.h5", options | {"exact": True})):
        pack(folder / "d", folder / name, workers=1, **how)
    packed, exact = PackedImages(folder / "out.h5"), PackedImages(folder / "exact.h5")
    row = next(row for row, name in enumerate(exact.filenames) if name.endswith("large.jpg"))
    with Image.open(exact.filenames[row]) as image:
        image.load()
        assert np.array_equal(prepare(packed, image), exact.images[row])
        image.putpixel((0, 0), (1, 2, 3))
        assert np.array_equal(prepare(packed, image.crop()), prepare(packed, image))


def test_an_image_that_pillow_has_reduced_or_moved_on_is_taken_as_it_is(folder):
    pack(folder / "d", folder / "out.h5", size=24, workers=1)
    with Image.open(folder / "d/cat/large.jpg") as image:
        image.draft("RGB", (112, 75))
        as_it_is = prepare(folder / "out.h5", image)
        assert np.array_equal(as_it_is, prepare(folder / "out.h5", Image.fromarray(np.asarray(image))))
    picture("RGB").save(folder / "two.mpo", save_all=True, append_images=[picture("RGB").rotate(180)])
    with Image.open(folder / "two.mpo") as image:
        first = prepare(folder / "out.h5", image)
        assert np.array_equal(first, prepare(folder / "out.h5", folder / "two.mpo"))
        image.seek(1)
        assert np.array_equal(prepare(folder / "out.h5", image), prepare(folder / "out.h5", image.copy()))
        assert not np.array_equal(prepare(folder / "out.h5", image), first)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_an_array_becomes_the_row_that_a_file_of_it_has(folder, options, mode):
    pack(folder / "d", folder / "out.h5", workers=1, **options)
    buffer = io.BytesIO()
    picture(mode).save(buffer, "PNG")
    array = np.asarray(picture(mode))
    for given in (array, array[..., np.newaxis]) if mode == "L" else (array,):
        assert np.array_equal(prepare(folder / "out.h5", given), prepare(folder / "out.h5", buffer.getvalue()))
    assert np.array_equal(
        prepare(folder / "out.h5", bytearray(buffer.getvalue())), prepare(folder / "out.h5", picture(mode))
    )


def test_an_image_in_a_mode_that_no_file_stores_is_converted(folder):
    pack(folder / "d", folder / "out.h5", size=24, color="rgba", workers=1)
    for mode, plain in (("HSV", "RGB"), ("RGBa", "RGBA"), ("La", "LA")):
        image = picture(plain).convert(mode)
        assert np.array_equal(prepare(folder / "out.h5", image), prepare(folder / "out.h5", image.convert(plain))), mode


def test_what_is_no_picture_or_no_pack_is_an_error(folder):
    pack(folder / "d", folder / "out.h5", size=24, workers=1)
    pixels = "an array \\(H, W\\) or \\(H, W, C\\) with 1, 3 or 4 channels"
    with open(folder / "d/cat/large.jpg", "rb") as file:
        for given, found in ((file, "BufferedReader"), (3, r"shape \(\)"), (np.zeros((2, 8, 8, 3), np.uint8), "shape")):
            with pytest.raises(
                DecodeError, match=f"the picture: expected an image of Pillow's, or {pixels}, found {found}"
            ):
                prepare(folder / "out.h5", given)
    with pytest.raises(DecodeError, match="the picture: expected uint8 pixels, 0 to 255, found float64"):
        prepare(folder / "out.h5", np.zeros((8, 8, 3)))
    with pytest.raises(PackError, match=r"^pack: expected the path of a pack, or PackedImages, found SplitSequence$"):
        prepare(SplitSequence(folder / "out.h5"), folder / "d/cat/large.jpg")
    with Image.open(folder / "d/cat/large.jpg") as image:
        pass
    with pytest.raises(DecodeError, match="the picture: "):
        prepare(folder / "out.h5", image)


# --- threads ----------------------------------------------------------------------------------------------------------


def in_a_thread(function, *given):
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(function, *given).result()


@pytest.mark.parametrize("form", ["PNG", "JPEG", "BMP", "GIF"])
@pytest.mark.parametrize("limit", [2000, 5000], ids=["Pillow raises", "Pillow warns"])
@pytest.mark.filterwarnings("error")
def test_a_picture_larger_than_pillows_limit_is_prepared_in_a_thread_too(tmp_path, monkeypatch, form, limit):
    write_image(tmp_path / "d" / "cat" / "a.png")
    pack(tmp_path / "d", tmp_path / "out.h5", size=8, workers=1)
    picture("RGB").save(tmp_path / "large", form)
    row = prepare(tmp_path / "out.h5", tmp_path / "large")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    assert np.array_equal(in_a_thread(prepare, tmp_path / "out.h5", tmp_path / "large"), row)
    assert limit == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize("name", ["large.webp", "large.tif"])
def test_a_limit_that_pillows_plugin_checks_itself_is_named_in_a_thread(tmp_path, monkeypatch, name):
    write_image(tmp_path / "d" / "cat" / "a.png")
    pack(tmp_path / "d", tmp_path / "out.h5", size=8, workers=1)
    picture("RGB").save(tmp_path / name)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
    with pytest.raises(DecodeError, match=f"{name}: more than 4000 pixels, Pillow's limit outside the main thread"):
        in_a_thread(prepare, tmp_path / "out.h5", tmp_path / name)
    assert prepare(tmp_path / "out.h5", tmp_path / name).shape == (8, 8, 3)


def test_a_picture_larger_than_the_limit_of_the_pack_is_an_error_everywhere(tmp_path):
    write_image(tmp_path / "d" / "cat" / "a.png")
    pack(tmp_path / "d", tmp_path / "out.h5", size=8, max_pixels=5399, workers=1)
    picture("RGB").save(tmp_path / "large.png")
    for given in (tmp_path / "large.png", picture("RGB"), np.asarray(picture("RGB"))):
        for call in (prepare, lambda *given: in_a_thread(prepare, *given)):
            with pytest.raises(DecodeError, match="90x60 is more than 5399 pixels; --max-pixels allows more"):
                call(tmp_path / "out.h5", given)


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
