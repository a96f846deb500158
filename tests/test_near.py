"""Near-identical pictures: found under every change that keeps the picture, and no other pictures for them."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from conftest import names_in, write_pack
from h5split import SplitSequence, leaks, write_split
from h5split.alike import candidates, pictures
from h5split.alike.features import MIRRORED, TRANSPOSED, UPSIDE_DOWN, Frequencies
from h5split.alike.near import near_of
from h5split.cli import main
from h5split.errors import ArgumentError

# --- pictures ---------------------------------------------------------------------------------------------------------


def noise(rng, side, power, count):
    """Random clouds: the amplitude of each frequency falls with a power of it, as in photographs."""
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side))
    frequency[0, 0] = 1
    waves = rng.normal(size=(count, *frequency.shape, 2)) / frequency[..., None] ** power
    return np.fft.irfft2(waves[..., 0] + 1j * waves[..., 1], s=(side, side))


def stretched(values):
    """Grey levels from 30 to 225."""
    low, high = values.min(axis=(1, 2, 3), keepdims=True), values.max(axis=(1, 2, 3), keepdims=True)
    return (30 + 195 * (values - low) / (high - low)).astype(np.uint8)


def textures(count, side=64, seed=0):
    """Coloured clouds: each channel is a mix of a common cloud and one of its own."""
    rng = np.random.default_rng(seed)
    grey = noise(rng, side, 1.5, count)[..., None]
    own = np.stack([noise(rng, side, 1.5, count) for _ in range(3)], axis=-1)
    return stretched(grey / grey.std() + 0.3 * own / own.std())


def shapes(count, side=64, seed=1):
    """Some discs and bars on a ground, each of one colour."""
    rng = np.random.default_rng(seed)
    down, across = np.indices((side, side)) / side
    images = np.empty((count, side, side, 3), np.uint8)
    for image in images:
        image[:] = rng.integers(0, 256, 3)
        for _ in range(rng.integers(4, 8)):
            y, x, size, angle = *rng.uniform(0, 1, 2), rng.uniform(0.06, 0.25), rng.uniform(0, np.pi)
            along = (across - x) * np.cos(angle) + (down - y) * np.sin(angle)
            beside = (down - y) * np.cos(angle) - (across - x) * np.sin(angle)
            is_disc = rng.random() < 0.5
            inside = np.hypot(along, beside) < size if is_disc else (abs(along) < 2 * size) & (abs(beside) < size / 2)
            image[inside] = rng.integers(0, 256, 3)
    return images[images.std(axis=(1, 2, 3)) > 15]


def strokes(count, side=28, seed=2):
    """Three white curves on black, as of a pen: grey images like MNIST's."""
    rng = np.random.default_rng(seed)
    down, across = np.indices((side, side))
    images = np.zeros((count, side, side), np.float64)
    for image in images:
        curves = rng.uniform(4, side - 4, (3, 4, 2))
        for points, at in itertools.product(curves, np.linspace(0, 1, 20)):
            weights = np.array([(1 - at) ** 3, 3 * at * (1 - at) ** 2, 3 * at**2 * (1 - at), at**3])
            y, x = weights @ points
            np.maximum(image, 255 * np.exp(-(((down - y) ** 2 + (across - x) ** 2) / 2.5)), out=image)
    return images.astype(np.uint8)[..., None]


SETS = {"textures": textures(1200), "shapes": shapes(1300), "strokes": strokes(1200), "large": textures(300, 224, 3)}


# --- changes ----------------------------------------------------------------------------------------------------------


def by_pillow(change: Callable[[Image.Image], Image.Image]):
    def changed(pixels):
        image = Image.fromarray(pixels if pixels.shape[2] > 1 else pixels[..., 0])
        again = np.asarray(change(image).convert(image.mode))
        return again.reshape(pixels.shape)

    return changed


def jpeg(quality):
    def compressed(image):
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        return Image.open(file)

    return by_pillow(compressed)


def rescaled(factor):
    def scaled(image):
        small = image.resize([int(side * factor) for side in image.size], Image.Resampling.BILINEAR)
        return small.resize(image.size, Image.Resampling.BICUBIC)

    return by_pillow(scaled)


CHANGES = {
    "JPEG 90": jpeg(90),
    "JPEG 50": jpeg(50),
    "JPEG 20": jpeg(20),
    "rescaled by 0.75": rescaled(0.75),
    "brighter": by_pillow(lambda image: ImageEnhance.Brightness(image).enhance(1.2)),
    "darker": by_pillow(lambda image: ImageEnhance.Brightness(image).enhance(0.7)),
    "more contrast": by_pillow(lambda image: ImageEnhance.Contrast(image).enhance(1.3)),
    "less contrast": by_pillow(lambda image: ImageEnhance.Contrast(image).enhance(0.6)),
    "grey": by_pillow(lambda image: image.convert("L")),
    "mirrored": lambda pixels: pixels[:, ::-1],
    "upside down": lambda pixels: pixels[::-1],
    "turned by 90 degrees": lambda pixels: np.rot90(pixels, -1),
    "turned by 180 degrees": lambda pixels: np.rot90(pixels, 2),
    "turned by 270 degrees": np.rot90,
    "transposed": lambda pixels: pixels.swapaxes(0, 1),
    "JPEG 50 and mirrored": lambda pixels: jpeg(50)(pixels)[:, ::-1],
}


def planted(images, each):
    """Add changed copies of the first images, `each` of every change. Return the images and the changes."""
    changes = [name for name in CHANGES for _ in range(each)]
    copies = [CHANGES[name](images[at]) for at, name in enumerate(changes)]
    return [*images, *map(np.ascontiguousarray, copies)], changes


def pack_of(path, images, classes=("cat", "dog"), columns=None):
    """Write a pack of images in a random order. Image `n` has the name `n.png`, also in other packs."""
    order = np.random.default_rng(9).permutation(len(images))
    names = [f"d/{classes[number % len(classes)]}/{number}.png" for number in order.tolist()]
    columns = {name: [values[number] for number in order] for name, values in (columns or {}).items()}
    write_pack(path, names, columns, images[0].shape, pixels=[images[number] for number in order])
    return SplitSequence(path)


def number_of(name):
    return int(name.rpartition("/")[2].removesuffix(".png"))


def near(sequence, **options):
    return near_of([(sequence.packs, sequence.rows)], **options)


def pairs_of(sequence, found):
    """The pairs that were found, by the numbers of the images."""
    numbers = [number_of(name) for name in sequence.filenames]
    return {tuple(sorted((numbers[one], numbers[other]))) for one, other in found.pairs.tolist()}


# --- recall and false alarms ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SETS)
def test_every_changed_picture_is_found_and_no_other(tmp_path, name):
    images, changes = planted(SETS[name], 4 if name == "large" else 12)
    if name == "strokes":
        changes = [change if change != "grey" else None for change in changes]  # they are grey: the copy is identical
    sequence = pack_of(tmp_path / "a.h5", images)
    found = pairs_of(sequence, near(sequence))
    there = {(at, len(SETS[name]) + at): change for at, change in enumerate(changes) if change is not None}
    missed = [change for pair, change in there.items() if pair not in found]
    assert (missed, found - set(there)) == ([], set())


def test_a_set_without_near_identical_pictures_has_none(tmp_path):
    for name, images in SETS.items():
        sequence = pack_of(tmp_path / f"{name}.h5", images)
        assert near(sequence).pairs.tolist() == [], name


@pytest.mark.parametrize("count", [1, 2, 3, 12, 40, 160])
def test_few_pictures_are_compared_too(tmp_path, count):
    images = SETS["textures"][:count]
    sequence = pack_of(tmp_path / "a.h5", [*images, jpeg(50)(images[0])[:, ::-1]])
    assert pairs_of(sequence, near(sequence)) == {(0, count)}


def test_pictures_that_are_augmented_many_times_are_one_group(tmp_path):
    images = SETS["textures"][:200]
    copies = [CHANGES[name](image) for image in images for name in list(CHANGES)[:9]]
    sequence = pack_of(tmp_path / "a.h5", [*images, *copies])
    groups = near(sequence).groups
    numbers = np.array([number_of(name) for name in sequence.filenames])
    origin = np.where(numbers < 200, numbers, (numbers - 200) // 9)
    assert [len(set(origin[group].tolist())) for group in groups] == [1] * len(groups)
    assert sum(map(len, groups)) > 0.99 * len(numbers)


def test_flat_pictures_match_nothing_but_identical_ones(tmp_path):
    rng = np.random.default_rng(0)
    water = [np.full((64, 64, 3), 90, np.uint8) + rng.integers(0, 3, (64, 64, 3), np.uint8) for _ in range(200)]
    sequence = pack_of(tmp_path / "a.h5", [*water, water[7], *SETS["textures"][:200], jpeg(50)(SETS["textures"][0])])
    found = near(sequence)
    assert pairs_of(sequence, found) == {(201, 401)}
    assert len(found.flat) == 200
    groups = [sorted(number_of(sequence.filenames[row]) for row in group) for group in found.groups]
    assert sorted(groups) == [[7, 200], [201, 401]]


def test_identical_copies_in_masses_are_one_picture(tmp_path):
    images = SETS["textures"][:60]
    sequence = pack_of(tmp_path / "a.h5", [*images, *[images[0]] * 3000, jpeg(30)(images[0])])
    found = near(sequence)
    assert len(found.pairs) == 1
    assert [len(group) for group in found.groups] == [3002]


def test_packs_of_tiny_images_have_no_structure(tmp_path):
    names = names_in("a", {"cat": 30})
    write_pack(tmp_path / "a.h5", names, shape=(7, 90, 1))
    assert near(SplitSequence(tmp_path / "a.h5")).pairs.tolist() == []
    assert near_of([]).groups == []


@pytest.mark.parametrize("shape", [(16, 16, 3), (40, 24, 1), (9, 90, 4), (33, 32, 2)])
def test_images_of_any_shape_are_compared(tmp_path, shape):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, shape, np.uint8) for _ in range(100)]
    again = np.clip(images[3].astype(int) + rng.integers(-2, 3, shape), 0, 255).astype(np.uint8)
    sequence = pack_of(tmp_path / "a.h5", [*images, again[:, ::-1]])
    assert pairs_of(sequence, near(sequence)) == {(3, 100)}


# --- leaks and splits -------------------------------------------------------------------------------------------------


@pytest.fixture
def augmented(tmp_path, monkeypatch):
    """A pack of 300 pictures, of which 96 have a changed copy and 10 an identical one."""
    monkeypatch.chdir(tmp_path)
    images, _ = planted(SETS["shapes"][:300], 6)
    images += list(SETS["shapes"][:10])
    parts = ["train" if number < 300 else "test" for number in range(len(images))]
    return pack_of("a.h5", images, columns={"split": parts})


def test_parts_by_near_groups_have_no_leaks(augmented):
    assert leaks(*augmented.split(0.5), near=True)
    for points in [(0.5,), (0.2, 0.4), (0.1, 0.3, 0.9)]:
        parts = augmented.shuffle(len(points)).split(*points, groups="near")
        assert leaks(*parts, near=True) == []
        assert leaks(*reversed(parts), near=True) == []
        assert sorted(name for part in parts for name in part.filenames) == sorted(augmented.filenames)


def test_leaks_are_groups_of_identical_and_near_identical_pictures(augmented):
    parts = augmented.split_by("split")
    found = leaks(parts["train"], parts["test"], near=True)
    assert len(found) == 96
    assert sum(len(in_test) == 2 for _, in_test in found) == 10
    for in_train, in_test in found:
        assert {number_of(in_train[0])} == {(number_of(name) - 300) % 96 for name in in_test}


def test_packs_of_other_sizes_are_compared(tmp_path):
    images = SETS["textures"][:200]
    small = [np.asarray(Image.fromarray(image).resize((48, 40), Image.Resampling.BILINEAR)) for image in images[:20]]
    one, other = pack_of(tmp_path / "one.h5", images), pack_of(tmp_path / "other.h5", small)
    found = leaks(one, other, near=True)
    assert {(number_of(first[0]), number_of(second[0])) for first, second in found} == {(n, n) for n in range(20)}
    assert leaks(one, other) == []


def test_near_groups_are_not_stable(augmented):
    with pytest.raises(ArgumentError, match="found 'near'; images that are added later can join two groups"):
        augmented.split(0.5, groups="near", stable=True)


def test_an_empty_sequence_has_no_leaks(augmented):
    empty = augmented.select([])
    assert [len(part.rows) for part in empty.split(0.5, groups="near")] == [0, 0]
    assert leaks(empty, empty, near=True) == leaks(near=True) == []


# --- how it is computed -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("symmetry", range(8))
def test_features_know_the_symmetry(symmetry):
    frequencies = Frequencies([(64, 64, 3)])
    images = SETS["textures"][:30]
    turned = images.swapaxes(1, 2) if symmetry & TRANSPOSED else images
    turned = turned[:, :, ::-1] if symmetry & MIRRORED else turned
    turned = turned[:, ::-1] if symmetry & UPSIDE_DOWN else turned
    one, other = (frequencies.spectra(np.ascontiguousarray(pixels)) for pixels in (images, turned))
    features, others = frequencies.features(one)[0], frequencies.features(other)[0]
    distances, found = frequencies.symmetries(features, others)
    assert found.tolist() == [symmetry] * 30
    assert distances.max() < 1e-5
    assert np.allclose(np.diag(frequencies.distances(features, others)), distances, atol=1e-5)
    assert np.allclose(frequencies.magnitudes(features), frequencies.magnitudes(others), atol=1e-4)
    assert frequencies.agreement(one, other, found)[0].min() > 0.999


def test_details_of_a_blurred_picture_agree():
    frequencies = Frequencies([(64, 64, 3)])
    spectra, others = frequencies.spectra(SETS["textures"][:30]), frequencies.spectra(SETS["textures"][30:60])
    blur = np.exp(-np.rint(np.hypot(*np.indices(spectra.shape[1:]))) / 2).astype(np.float32)
    upright = np.zeros(30, np.uint8)
    for one, other in [(spectra, spectra * blur), (spectra * blur, spectra)]:
        assert frequencies.agreement(one, other, upright)[0].min() > 0.999
    assert np.abs(frequencies.agreement(spectra, others * blur, upright)[0]).max() < 0.9


def test_the_result_depends_on_the_images_alone(augmented, monkeypatch):
    expected = near(augmented, workers=1)
    again = near(augmented, workers=4)
    assert np.array_equal(expected.pairs, again.pairs)
    assert np.array_equal(expected.distances, again.distances)
    monkeypatch.setattr(pictures, "_CHUNK_BYTES", 1)
    monkeypatch.setattr(candidates, "_BLOCK", 1 << 10)
    assert np.array_equal(expected.pairs, near(augmented).pairs)
    monkeypatch.undo()
    groups = {frozenset(augmented.filenames[row] for row in group) for group in expected.groups}
    augmented.shuffle(5)
    assert {frozenset(augmented.filenames[row] for row in group) for group in near(augmented).groups} == groups


def test_many_cells_find_what_comparing_all_finds(tmp_path, monkeypatch):
    images, _ = planted(SETS["textures"], 12)
    sequence = pack_of(tmp_path / "a.h5", images)
    expected = pairs_of(sequence, near(sequence))
    monkeypatch.setattr(candidates, "_CELL", 20)
    found = pairs_of(sequence, near(sequence))
    assert found <= expected
    assert len(found) >= 0.99 * len(expected)


def test_progress_reaches_the_end(augmented):
    steps = []
    near(augmented, progress=lambda done, total: steps.append((done, total)))
    assert steps == sorted(steps)
    assert steps[-1][0] == steps[-1][1]


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_lists_pairs_across_parts_and_classes_first(augmented, capsys):
    assert main(["near", "a.h5", "--split", "split", "--quiet"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "a.h5: 406 images"
    assert lines[1].startswith("near-identical: 96 pairs, ")
    assert lines[1].endswith(", 96 in different parts")
    assert lines[12:14] == ["  ... and 86 more; --json lists all", "identical: 10 groups; h5split info names them"]
    assert main(["near", "a.h5", "--json", "--quiet"]) == 0
    found = json.loads(capsys.readouterr().out)
    differ = [pair["labels"][0] != pair["labels"][1] for pair in found["pairs"]]
    assert differ == sorted(differ, reverse=True)
    assert {pair["turn"] for pair in found["pairs"]} == {"", *list(CHANGES)[9:14], "mirrored and turned by 270 degrees"}
    for pair in found["pairs"]:
        first, second = map(number_of, pair["filenames"])
        if first < 300 <= second < 396 and list(CHANGES)[(second - 300) // 6] in list(CHANGES)[9:14]:
            assert pair["turn"] == list(CHANGES)[(second - 300) // 6]


def test_the_command_counts_every_flat_image(tmp_path, capsys):
    images = [*SETS["textures"][:20], *[np.full((64, 64, 3), 9, np.uint8)] * 5, np.full((64, 64, 3), 8, np.uint8)]
    pack_of(tmp_path / "a.h5", images)
    assert main(["near", str(tmp_path / "a.h5"), "--quiet"]) == 0
    assert "\nflat: 6 images with a contrast below 2 grey levels" in capsys.readouterr().out


def test_images_too_small_to_compare_are_counted(tmp_path, capsys):
    pack_of(tmp_path / "a.h5", [np.full((7, 40, 3), level, np.uint8) for level in (1, 2, 3)])
    assert main(["near", str(tmp_path / "a.h5"), "--quiet"]) == 0
    assert "\nflat: 3 images with a contrast below 2 grey levels, or less than 8 pixels" in capsys.readouterr().out


def test_the_page_shows_pairs_side_by_side(augmented, capsys):
    pytest.importorskip("jinja2", reason="needs Jinja2: pip install 'pack-images[report]'")
    parts = augmented.split_by("split")
    write_split("split.csv", {"train": parts["train"], "test": parts["test"]})
    assert main(["near", "a.h5", "-o", "pairs.html", "--split", "split.csv", "--quiet"]) == 0
    page = Path("pairs.html").read_text()
    assert page.startswith("<!doctype html>")
    assert page.count("<li data-name=") == 2 * 96
    assert "In different parts <small>96</small>" in page
    assert main(["near", "a.h5", "-o", "pairs.html", "--quiet"]) == 0
    assert Path("pairs.html").read_text() != page
    capsys.readouterr()


def test_a_long_list_says_how_many_pairs_are_not_shown(augmented, monkeypatch):
    pytest.importorskip("jinja2", reason="needs Jinja2: pip install 'pack-images[report]'")
    monkeypatch.setattr("h5split.commands.view.pairs._SHOWN", 5)
    assert main(["near", "a.h5", "-o", "pairs.html", "--split", "split", "--quiet"]) == 0
    page = Path("pairs.html").read_text()
    assert page.count("<li data-name=") == 10
    assert "The first 5 are shown, 91 more are not" in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["near", "a.h5", "--split", "nothing"], "expected a CSV, or one of the columns"),
        (["near", "a.h5", "-o", "a.h5"], "a.h5"),
        (["near", "missing.h5"], "missing.h5"),
    ],
)
def test_errors_are_one_line(augmented, capsys, arguments, message):
    assert main([*arguments, "--quiet"]) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert message in err
