"""Packs of uint8, uint16 and float32 in any number of channels, through every door; pixels prove their rows."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import os
import pickle
import re
import sys
from pathlib import Path

import h5py
import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from conftest import names_in, write_pack
from h5split import PackedImages, SplitSequence
from h5split.cli import main
from h5split.commands.export import export
from h5split.commands.info import describe
from h5split.commands.near import find
from h5split.commands.verify import verify
from h5split.errors import ArgumentError
from h5split.file.levels import levels_of
from h5split.file.newpack import new_pack
from h5split.file.sealing import Tables
from h5split.view import report

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

NAMES = names_in("a", {"cat": 9, "dog": 14})
TYPES = ["uint8", "uint16", "float32"]
CHANNELS = [1, 2, 3, 4, 13]
KINDS = pytest.mark.parametrize("kind", [f"{dtype} {channels}" for dtype in TYPES for channels in CHANNELS])
SHUFFLES = pytest.mark.parametrize("shuffle", [False, True, "block"], ids=["unshuffled", "auto_shuffle", "block"])


def pixels_for(name: str, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Return pixels of a type, derived from a file name."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.frombuffer(hashlib.shake_256(name.encode()).digest(size), "<u4" if dtype == "float32" else dtype)
    return (raw.reshape(shape) / 1e6 - 1000).astype(np.float32) if dtype == "float32" else raw.reshape(shape)


def write(path: Path, kind: str, names: list[str] = NAMES, side: int = 8, **changed: np.ndarray) -> Path:
    """Write a pack of a kind such as `uint16 13`. Pixels are derived from names, unless `changed` has others."""
    dtype, channels = kind.split()
    pixels = [pixels_for(name, (side, side, int(channels)), dtype) for name in names]
    return write_pack(path, names, pixels=changed.get("pixels", np.stack(pixels)))


def decoded_uri(uri: str) -> np.ndarray:
    """Return the pixels of a PNG in a page."""
    with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as image:
        return np.asarray(image)


def who_is(sequence: SplitSequence | PackedImages, kind: str, side: int = 8) -> dict[bytes, str]:
    """Return the file name of the bytes of each image."""
    dtype, channels = kind.split()
    shape = (side, side, int(channels))
    return {pixels_for(name, shape, dtype).tobytes(): name for name in sequence.filenames}


@pytest.fixture
def path(tmp_path, kind):
    return write(tmp_path / "a.h5", kind)


# --- packs ------------------------------------------------------------------------------------------------------------


@KINDS
def test_arrays_items_and_views_are_of_the_type_in_the_file(path, kind):
    pack, who = PackedImages(path), None
    dtype, channels = kind.split()
    who = who_is(pack, kind)
    assert pack.dtype == pack.images.dtype == np.dtype(dtype)
    assert pack.shape == (8, 8, int(channels))
    assert pack.stride == 64 * int(channels) * pack.dtype.itemsize
    found = [who[image.tobytes()] for image in pack.images]
    assert found == [who[image.tobytes()] for image, _ in pack] == NAMES
    rows = [5, 3, 22]
    assert [who[image.tobytes()] for image, _ in pack.__getitems__(rows)] == [NAMES[row] for row in rows]
    image, _ = pack[7]
    image[:] = 0
    assert who[pack[7][0].tobytes()] == NAMES[7]
    assert pack.view(2, 3).base is not None
    assert pack.view(2, 3).flags.aligned
    assert (dtype in repr(pack)) == (dtype != "uint8")


@KINDS
def test_verify_finds_one_changed_byte(path, kind):
    assert verify(PackedImages(path)).intact
    pack = PackedImages(path)
    at = pack.header.images.offset + 11 * pack.stride + pack.stride - 1
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    assert verify(PackedImages(path)).bad_rows.tolist() == [11]


@KINDS
def test_saved_rows_are_the_same_bytes(tmp_path, path, kind):
    sequence = SplitSequence(path).select(label="dog").shuffle(3)
    sequence.save(tmp_path / "saved.h5")
    saved = PackedImages(tmp_path / "saved.h5")
    who = who_is(saved, kind)
    assert list(saved.filenames) == list(sequence.filenames)
    assert [who[image.tobytes()] for image in saved.images] == list(sequence.filenames)
    assert verify(saved).intact
    with h5py.File(tmp_path / "saved.h5") as file:
        dtype, channels = kind.split()
        assert file.attrs["version"] == (1 if dtype == "uint8" and int(channels) in (1, 3, 4) else 2)


def test_packs_of_two_types_are_not_one_sequence(tmp_path):
    one, other = write(tmp_path / "one.h5", "uint8 3"), write(tmp_path / "other.h5", "uint16 3")
    with pytest.raises(
        ArgumentError, match=r"expected packs of one type of pixels, found uint8 in .*one\.h5 and uint16"
    ):
        SplitSequence(one, other)


def test_packs_of_the_same_bytes_in_other_types_have_other_fingerprints(tmp_path):
    pixels = np.zeros((2, 4, 4, 2), np.uint16)
    one = write_pack(tmp_path / "one.h5", NAMES[:2], pixels=pixels)
    other = write_pack(tmp_path / "other.h5", NAMES[:2], pixels=pixels.view(np.uint8))
    assert SplitSequence(one).packs.fingerprint != SplitSequence(other).packs.fingerprint


def test_two_packs_of_uint16_are_one_sequence(tmp_path):
    others = [name.replace("a-", "b-") for name in NAMES]
    one, other = write(tmp_path / "one.h5", "uint16 13"), write(tmp_path / "other.h5", "uint16 13", others)
    sequence = SplitSequence(one, other, auto_shuffle=True, batch_size=7, label_mode="int")
    who = who_is(sequence, "uint16 13")
    names = [who[image.tobytes()] for images, _ in sequence for image in images]
    assert names == sequence.get_filenames()
    assert sorted(names) == sorted(NAMES + others)


def test_a_new_pack_takes_no_rows_of_another_type(tmp_path):
    with new_pack(tmp_path / "a.h5", (4, 4, 2), 1, np.uint16) as new:
        with pytest.raises(ValueError, match=r"expected rows of uint16 \(4, 4, 2\), found uint8 \(4, 4, 2\)"):
            new.append(np.zeros((1, 4, 4, 2), np.uint8))
        assert len(new.append(np.zeros((1, 4, 4, 2), np.uint16))) == 1
        with pytest.raises(ValueError, match="expected pixels of uint8, uint16 or float32, found float64"):
            new_pack(tmp_path / "b.h5", (4, 4, 2), 1, np.float64).__enter__()
        new.seal(tables_of(1))


def tables_of(rows, **settings):
    return Tables(
        labels=np.zeros(rows, np.int32),
        class_names=["cat"],
        filenames=["a.tif"] * rows,
        columns={"source": ["a"] * rows},
        digests=np.zeros((rows, 32), np.uint8),
        checksums=np.zeros(rows, np.uint64),
        settings=settings,
        packed_by={},
    )


# --- batches ----------------------------------------------------------------------------------------------------------


@KINDS
@SHUFFLES
def test_batches_are_of_the_type_in_the_pack(path, kind, shuffle):
    sequence = SplitSequence(path, batch_size=5, auto_shuffle=shuffle, label_mode="int")
    who = who_is(sequence, kind)
    orders = set()
    for _ in range(3):
        names = []
        for images, labels in sequence:
            assert images.dtype == np.dtype(kind.split()[0])
            names += [who[image.tobytes()] for image in images]
            assert [sequence.classnames[label] for label in labels] == [
                name.split("/")[1] for name in names[-len(labels) :]
            ]
        assert names == sequence.get_filenames()
        assert sorted(names) == sorted(NAMES)
        orders.add(tuple(names))
    assert len(orders) == (3 if shuffle else 1)


@KINDS
def test_scale_makes_float32_of_every_type(path, kind):
    sequence = SplitSequence(path, batch_size=5, auto_shuffle=True, scale=0.5)
    assert sequence.spec()[0].dtype == np.float32
    images = np.concatenate([images for images, _ in sequence])
    dtype, channels = kind.split()
    expected = np.stack([pixels_for(name, (8, 8, int(channels)), dtype) for name in sequence.get_filenames()])
    assert images.dtype == np.float32
    assert np.array_equal(images, expected.astype(np.float32) * np.float32(0.5))


@KINDS
def test_shards_and_pickled_sequences_have_the_pixels_of_their_rows(path, kind):
    sequence = SplitSequence(path, batch_size=4, auto_shuffle=True, label_mode="int")
    who = who_is(sequence, kind)
    whole = [who[image.tobytes()] for images, _ in pickle.loads(pickle.dumps(sequence)) for image in images]
    ranks = [
        [[who[image.tobytes()] for image in images] for images, _ in sequence.set(batch_size=2).shard(rank, 2)]
        for rank in range(2)
    ]
    together = [name for pair in zip(*ranks, strict=True) for part in pair for name in part]
    assert together == whole[: len(together)]
    assert len(together) == 22


def a_view_of_the_file(path: Path) -> tuple[bool, bool]:
    images, _ = next(iter(SplitSequence(path, batch_size=4)))
    return images.flags.owndata or images.flags.writeable, bool(images.flags.aligned)


@pytest.mark.parametrize("kind", ["uint16 13", "float32 5"])
def test_consecutive_rows_are_an_aligned_view_of_the_file(path, kind, without_torch):
    assert without_torch(a_view_of_the_file, path) == (False, True)


@KINDS
def test_a_data_set_of_tensorflow_has_the_type_in_the_pack(path, kind):
    tf = pytest.importorskip("tensorflow", reason="needs TensorFlow: pip install 'pack-images[tensorflow]'")
    sequence = SplitSequence(path, batch_size=5, auto_shuffle=True, label_mode="int")
    who = who_is(sequence, kind)
    data = sequence.as_tf_dataset()
    assert data.element_spec[0].dtype == tf.as_dtype(kind.split()[0])
    names = [who[image.numpy().tobytes()] for images, _ in data for image in images]
    assert names == sequence.get_filenames()
    assert sorted(names) == sorted(NAMES)


@KINDS
@pytest.mark.parametrize("channels_first", [True, False])
def test_a_loader_of_torch_has_the_type_in_the_pack(path, kind, channels_first):
    torch = pytest.importorskip("torch", reason="needs torch: pip install 'pack-images[torch]'")
    sequence = SplitSequence(path, batch_size=5, auto_shuffle=True, label_mode="int")
    who = who_is(sequence, kind)
    names, sums = [], []
    for images, numbers in sequence.as_torch_loader(channels_first=channels_first):
        assert images.dtype == getattr(torch, kind.split()[0])
        assert numbers.dtype == torch.int64
        last = images.permute(0, 2, 3, 1) if channels_first else images
        names += [who[image.numpy().tobytes()] for image in last]
        sums += images.float().sum(dim=(1, 2, 3), dtype=torch.float64).tolist()
    assert names == sequence.get_filenames()
    expected = {name: np.frombuffer(raw, kind.split()[0]).sum(dtype=np.float64) for raw, name in who.items()}
    assert np.allclose(sums, [expected[name] for name in names], rtol=1e-6)


@pytest.mark.parametrize("kind", ["uint16 13", "float32 3"])
def test_a_plain_loader_of_torch_and_grain_take_packs_of_every_type(path, kind):
    torch = pytest.importorskip("torch", reason="needs torch: pip install 'pack-images[torch]'")
    grain = pytest.importorskip("grain.python", reason="needs Grain: pip install grain")
    pack = PackedImages(path)
    who = who_is(pack, kind)
    loader = torch.utils.data.DataLoader(pack, batch_size=4, shuffle=True)
    for batches in (loader, grain.MapDataset.source(pack).shuffle(seed=5).batch(4)):
        names = [who[np.asarray(image).tobytes()] for images, _ in batches for image in images]
        assert sorted(names) == sorted(NAMES)


# --- commands ---------------------------------------------------------------------------------------------------------


@KINDS
def test_info_tells_the_type_and_the_channels(path, kind):
    dtype, channels = kind.split()
    found = describe(PackedImages(path))
    assert found.as_json()["dtype"] == dtype
    assert f"8x8x{channels}{'' if dtype == 'uint8' else ' ' + dtype}, " in str(found)


def decoded(file: Path) -> np.ndarray:
    """Decode an exported file by a library that did not write it."""
    if file.suffix == ".npy":
        return np.load(file)
    if file.suffix == ".tif":
        return tifffile.imread(file)
    return imagecodecs.png_decode(file.read_bytes())


@KINDS
def test_exported_files_have_every_value(tmp_path, path, kind):
    export(SplitSequence(path), tmp_path / "out")
    dtype, channels = kind.split()
    with open(tmp_path / "out" / "manifest.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["filename"] for line in lines] == NAMES
    suffix = ".npy" if dtype == "float32" else ".png" if int(channels) in (1, 3, 4) else ".tif"
    for line in lines:
        assert line["path"].endswith(suffix)
        found = decoded(tmp_path / "out" / line["path"])
        assert found.dtype == np.dtype(dtype)
        expected = pixels_for(line["filename"], (8, 8, int(channels)), dtype)
        assert np.array_equal(found.reshape(expected.shape), expected)
    if suffix == ".png":
        with Image.open(tmp_path / "out" / lines[0]["path"]) as image:
            image.load()
            assert image.size == (8, 8)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("uint8 13", "--color all"),
        ("uint16 1", "--dtype uint16 --color grayscale"),
        ("uint16 3", "--dtype uint16"),
        ("uint16 4", "--dtype uint16 --color rgba"),
        ("uint16 2", "--dtype uint16 --color all"),
        ("float32 3", "--dtype float32 --color all"),
    ],
)
def test_export_prints_the_options_that_pack_the_same_rows(path, kind, options, capsys):
    assert main(["export", str(path), str(path.with_name("out"))]) == 0
    assert f"--order sorted {options} -o AGAIN.h5" in capsys.readouterr().out


@pytest.mark.parametrize("options", ["--color index", "--color all", "--dtype uint16 --color index"])
def test_export_prints_the_colour_that_the_pack_was_made_with(tmp_path, packing, options, capsys):
    (tmp_path / "masks").mkdir()
    Image.fromarray(np.eye(8, dtype=np.uint8)).save(tmp_path / "masks/1.png")
    words = options.replace("--", "").split()
    packing(tmp_path / "masks", output=tmp_path / "masks.h5", **dict(zip(words[::2], words[1::2], strict=True)))
    assert main(["export", str(tmp_path / "masks.h5"), str(tmp_path / "out")]) == 0
    assert f"--order sorted {options} -o AGAIN.h5" in capsys.readouterr().out


def test_tiff_files_without_tifffile_are_an_error_that_names_the_extra(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tifffile", None)
    path = write(tmp_path / "a.h5", "uint16 13")
    assert main(["export", str(path), str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "images of 13 channels become TIFF files, which needs tifffile and imagecodecs" in error
    assert "pip install 'pack-images[tiff]'" in error
    assert os.listdir(tmp_path) == ["a.h5"]


@KINDS
def test_identical_pixels_are_found_whatever_their_type(tmp_path, kind):
    dtype, channels = kind.split()
    pixels = np.stack([pixels_for(name, (8, 8, int(channels)), dtype) for name in NAMES])
    pixels[4] = pixels[9]
    pixels[[1, 2]] = 7
    found = describe(PackedImages(write(tmp_path / "a.h5", kind, pixels=pixels)))
    groups = {frozenset(group) for group in found.duplicates}  # the files of the pack have the digests of the pixels
    assert groups == {frozenset(NAMES[row] for row in rows) for rows in ([4, 9], [1, 2])}
    assert found.blank == 2


def test_images_of_nothing_but_nan_are_blank(tmp_path):
    pixels = np.random.default_rng(0).random((4, 8, 8, 2)).astype(np.float32)
    pixels[[1, 3]] = np.nan
    assert describe(PackedImages(write(tmp_path / "a.h5", "float32 2", NAMES[:4], pixels=pixels))).blank == 2


def scenes(kind: str, rows: int = 60) -> np.ndarray:
    """Return smooth pictures of random low frequencies, of a type and in any number of bands."""
    dtype, channels = kind.split()
    random = np.random.default_rng(0)
    y, x = np.mgrid[:32, :32] / 32
    found = np.empty((rows, 32, 32, int(channels)))
    for row in range(rows):
        waves = sum(
            random.normal() * np.cos(np.pi * (u * x + random.random())) * np.cos(np.pi * (v * y + random.random()))
            for u in range(8)
            for v in range(8)
        )
        found[row] = waves[..., None] * random.uniform(0.8, 1.2, int(channels))
    found = (found - found.min()) / np.ptp(found)
    return (found * {"uint8": 255, "uint16": 3000, "float32": 0.01}[dtype]).astype(dtype)


@pytest.mark.parametrize("kind", ["uint8 3", "uint8 13", "uint16 1", "uint16 13", "float32 2"])
def test_near_pictures_are_found_whatever_their_type(tmp_path, kind):
    pixels = scenes(kind)
    noise = np.random.default_rng(1).normal(0, 0.01, pixels.shape[1:]) * float(pixels.max())
    pixels[7] = (pixels[3, :, ::-1] + noise).clip(0, pixels.max()).astype(pixels.dtype)
    names = [f"a/cat/{row}.tif" for row in range(len(pixels))]
    pack = write_pack(tmp_path / "a.h5", names, pixels=pixels)
    sequence = SplitSequence(pack)
    found = find(sequence)
    assert [pair.rows for pair in found.pairs] == [(3, 7)]
    assert found.pairs[0].turn == "mirrored"


# --- looks ------------------------------------------------------------------------------------------------------------


def test_pictures_of_uint8_are_shown_as_they_are(tmp_path):
    for channels in (1, 3, 4):
        pack = PackedImages(write(tmp_path / f"{channels}.h5", f"uint8 {channels}"))
        assert np.array_equal(levels_of(pack).picture(pack.images), pack.images)


@pytest.mark.parametrize(("color", "bands"), [("rgba", (0, 1, 2, 3)), ("all", (0, 1, 2))])
def test_the_fourth_of_all_bands_is_no_opacity(tmp_path, color, bands):
    with new_pack(tmp_path / "a.h5", (4, 4, 4), 2) as new:
        new.append(np.zeros((2, 4, 4, 4), np.uint8))
        new.seal(tables_of(2, color=color))
    assert levels_of(PackedImages(tmp_path / "a.h5")).bands == bands


@pytest.mark.parametrize("kind", ["uint16 13", "float32 4", "uint8 5"])
def test_bands_are_shown_by_their_numbers_from_1(path, kind):
    pack = PackedImages(path)
    bands = levels_of(pack, (4, 3, 2)).picture(pack.images)
    assert bands.dtype == np.uint8
    for at, band in enumerate((4, 3, 2)):
        alone = levels_of(pack, [band]).picture(pack.images)
        assert np.array_equal(alone[..., 0], bands[..., at])
        values, grey = pack.images[..., band - 1].reshape(-1), alone.reshape(-1).astype(int)
        assert (np.diff(grey[np.argsort(values, kind="stable")]) >= 0).all()


@pytest.mark.parametrize("bands", [[0], [14], [1, 2], [], [1, 2, 3, 4], [1.5], [-1, 1, 2]])
def test_bands_that_there_are_not_are_an_error(tmp_path, bands):
    path = write(tmp_path / "a.h5", "uint16 13")
    with pytest.raises(ArgumentError, match="bands: expected one or three numbers from 1 to 13, found"):
        SplitSequence(path).show(bands=bands)


def test_values_are_stretched_between_their_2nd_and_98th_percentile(tmp_path):
    pixels = np.arange(20 * 16 * 16, dtype=np.uint16).reshape(20, 16, 16, 1) + 1000
    pixels[0, 0, 0] = 65535  # one hot pixel does not make all others black
    names = [f"a/cat/{row}.tif" for row in range(20)]
    pack = PackedImages(write_pack(tmp_path / "a.h5", names, pixels=pixels))
    shown = levels_of(pack).picture(pack.images)
    assert shown[1, 8, 0, 0] < 20
    assert 120 < shown[10, 0, 0, 0] < 136
    assert shown[19, 15, 15, 0] == shown[0, 0, 0, 0] == 255


def write_masks(path, numbers, side=64):
    """Write a pack of masks of the class `a`, each of 0 with a stripe of one number."""
    dtype = np.asarray(numbers).dtype
    with new_pack(path, (side, side, 1), len(numbers), dtype=dtype) as new:
        masks = np.zeros((len(numbers), side, side, 1), dtype)
        masks[:, : side // 16] = np.reshape(numbers, (-1, 1, 1, 1))
        new.append(masks)
        new.seal(tables_of(len(numbers), color="index"))
    return path


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_numbers_of_masks_have_colours(tmp_path, dtype):
    pack = PackedImages(write_masks(tmp_path / "a.h5", np.arange(256, dtype=dtype), side=16))
    shown = levels_of(pack).picture(pack.images)
    assert (shown.dtype, shown.shape) == (np.uint8, (256, 16, 16, 3))
    colors = [tuple(color) for color in shown[:, 0, 0].tolist()]
    assert (colors[0], colors[255]) == ((0, 0, 0), (255, 255, 255))
    assert len({*colors[:19], colors[255]}) == 20
    assert (colors[19], colors[37]) == (colors[1], colors[1])
    assert levels_of(pack, [1]).picture(pack.images).shape == (256, 16, 16, 1)  # grey, if somebody asks for the band


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_page_of_masks_judges_no_contrast(tmp_path, dtype):
    path = write_masks(tmp_path / "a.h5", np.array([0, 1, 1, 2, 255], dtype))
    report(SplitSequence(path), None, tmp_path / "a.html")
    page = (tmp_path / "a.html").read_text()
    for text in ("early blank", "hardly use their range", "Darkest", "Mean image"):
        assert text not in page
    assert "1 mask of one number alone, such as the background" in page
    assert "Each number of a mask has a colour: 0 black, 1 red" in page
    red = np.array([0xE6, 0x19, 0x4B])
    tiles = [decoded_uri(uri) for uri in re.findall(r'src="(data:image/png;base64,[^"]*)"', page)]
    assert any((tile[0] == red).all() and not tile[-1].any() for tile in tiles)  # no colour is mixed with another


def test_nan_is_black_and_does_not_spoil_the_stretch(tmp_path):
    pixels = np.tile(np.linspace(-1, 1, 64, dtype=np.float32).reshape(1, 8, 8, 1), (4, 1, 1, 1))
    pixels[1] = np.nan
    pixels[2, 0, 0], pixels[2, 0, 1] = np.inf, -np.inf
    pack = PackedImages(write_pack(tmp_path / "a.h5", NAMES[:4], pixels=pixels))
    shown = levels_of(pack).picture(pack.images)[..., 0]
    assert (shown[1] == 0).all()
    assert (shown[2, 0, 0], shown[2, 0, 1]) == (255, 0)
    assert abs(int(shown[0].mean()) - 127) < 3


def test_masks_whose_values_are_nearly_all_0_show_the_others(tmp_path):
    pixels = np.zeros((4, 32, 32, 1), np.uint16)
    pixels[2, 3, 3], pixels[2, 4, 4] = 500, 1000
    pack = PackedImages(write_pack(tmp_path / "a.h5", NAMES[:4], pixels=pixels))
    shown = levels_of(pack).picture(pack.images)
    assert (shown[2, 3, 3, 0], shown[2, 4, 4, 0], shown[0].max()) == (128, 255, 0)


@KINDS
def test_a_notebook_shows_packs_and_sequences_of_every_type(path, kind):
    dtype, channels = kind.split()
    for thing in (PackedImages(path), SplitSequence(path)):
        html = thing._repr_html_()
        assert html.count("<img") == 8
        assert f"23 images (8, 8, {channels}) {dtype}" in html
    assert len(SplitSequence(path).show(5)) == 5


@pytest.mark.parametrize("kind", ["uint16 13", "float32 3"])
def test_a_page_has_statistics_of_all_bands_in_their_own_units(path, kind):
    out = path.with_suffix(".html")
    sequence = SplitSequence(path)
    report(sequence, None, out, bands=(3, 2, 1))
    page = out.read_text("utf-8")
    assert "Images show bands 3, 2, 1 of " in page
    assert "in the values stored" in page
    assert kind.split()[0] in page
    cats = PackedImages(path).images[PackedImages(path).labels == 0].astype(np.float64)
    means = re.search(r'<td>cat</td><td class="n">([^<]*)</td><td class="n">([^<]*)</td>', page)
    assert np.allclose([float(one) for one in means[1].split()], cats.mean(axis=(0, 1, 2)), rtol=2e-3)
    assert np.allclose([float(one) for one in means[2].split()], cats.std(axis=(0, 1, 2)), rtol=2e-3)


def test_a_page_says_how_many_images_have_nan(tmp_path):
    pixels = np.random.default_rng(0).random((6, 8, 8, 2)).astype(np.float32)
    pixels[1, 2, 3], pixels[2], pixels[3, 0, 0, 0] = np.nan, np.nan, np.inf
    path = write(tmp_path / "a.h5", "float32 2", NAMES[:6], pixels=pixels)
    assert main(["view", str(path), "-o", str(tmp_path / "a.html"), "--bands", "2", "--quiet"]) == 0
    page = (tmp_path / "a.html").read_text("utf-8")
    assert "3 images with values that are no numbers: NaN or infinite" in page
    assert "1 image of one colour: blank" in page
    assert "Images show band 2 of 2" in page


def test_bands_of_the_command_are_numbers(tmp_path, capsys):
    path = write(tmp_path / "a.h5", "uint16 13")
    with pytest.raises(SystemExit):
        main(["view", str(path), "-o", str(tmp_path / "a.html"), "--bands", "red"])
    assert "expected one or three bands such as 4,3,2, found 'red'" in capsys.readouterr().err
    assert main(["view", str(path), "-o", str(tmp_path / "a.html"), "--bands", "14"]) == 1
    assert "bands: expected one or three numbers from 1 to 13, found 14" in capsys.readouterr().err


def test_the_json_of_info_has_the_type(tmp_path, capsys):
    assert main(["info", str(write(tmp_path / "a.h5", "float32 2")), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["dtype"] == "float32"
