"""Identical images, and splits that keep them on one side: what counts is the files or the stored pixels."""

from __future__ import annotations

import itertools
import os
from itertools import pairwise

import h5py
import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from conftest import names_in, pixels_of, write_classes, write_pack
from h5split import PackedImages, SplitSequence, leaks
from h5split.alike.content import content_of
from h5split.commands.info import describe
from h5split.errors import ArgumentError
from pack_images import pack, write
from pack_images.cli import main


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def save_again(path, again):
    """Save the same pixels as a file of other bytes."""
    os.makedirs(os.path.dirname(again), exist_ok=True)
    text = PngImagePlugin.PngInfo()
    text.add_text("Software", "another program")
    with Image.open(path) as image:
        image.save(again, compress_level=0, pnginfo=text)


@pytest.fixture
def saved_again(here):
    """A pack of 20 images in `train`, of which `test` has 8 with other bytes and 3 with the same."""
    write_classes(here / "train", {"cat": 10, "dog": 10})
    for number in range(8):
        save_again(f"train/cat/train-cat-{number}.png", f"test/dog/{number}.png")
    for number in range(3):
        with open(f"train/dog/train-dog-{number}.png", "rb") as file:
            (here / f"test/dog/same-{number}.png").write_bytes(file.read())
    pack(["train", "test"], "all.h5", workers=1)
    return SplitSequence("all.h5")


PAIRS = {f"train/cat/train-cat-{number}.png": f"test/dog/{number}.png" for number in range(8)} | {
    f"train/dog/train-dog-{number}.png": f"test/dog/same-{number}.png" for number in range(3)
}


def test_identical_pixels_in_different_files_are_leaks(saved_again):
    parts = saved_again.split_by("source")
    train, test = parts["train"], parts["test"]
    assert {first[0]: second[0] for first, second in leaks(train, test)} == PAIRS
    assert all(len(first) == len(second) == 1 for first, second in leaks(train, test))


def test_identical_pixels_in_two_packs_are_leaks(here, saved_again):
    for name in ("train", "test"):
        pack([name], f"{name}.h5", workers=1)
    found = leaks(SplitSequence("train.h5"), SplitSequence("test.h5"))
    assert {first[0]: second[0] for first, second in found} == PAIRS


def test_packs_of_other_sizes_share_files_only(here, saved_again):
    pack(["train"], "train.h5", workers=1)
    pack(["test"], "small.h5", size=4, workers=1)
    found = leaks(SplitSequence("train.h5"), SplitSequence("small.h5"))
    assert {first[0]: second[0] for first, second in found} == {
        name: again for name, again in PAIRS.items() if "same" in again
    }


def test_groups_of_content_keep_identical_pixels_together(saved_again):
    for cut in np.arange(0.1, 1, 0.1):
        parts = saved_again.split(cut, groups="content")
        assert leaks(*parts) == []
        assert sorted(name for part in parts for name in part.filenames) == sorted(saved_again.filenames)


def test_packing_and_info_and_the_page_tell(here, saved_again, capsys):
    line = "duplicates: 11 groups of identical images, 22 images in all; labels differ in 8 groups"
    assert main(["train", "test", "-o", "again.h5", "--workers", "1"]) == 0
    assert line in capsys.readouterr().out
    info = describe(PackedImages("again.h5"))
    assert line in str(info)
    assert {tuple(sorted(group)) for group in info.duplicates} == {tuple(sorted(pair)) for pair in PAIRS.items()}
    assert (info.conflicting, info.blank) == (8, 0)


def test_bytes_and_pixels_join_into_one_group(here):
    """A and B are one file; B and C have the pixels of another file, which is C and D."""
    write_classes(here / "d", {"cat": 1})
    path = "d/cat/d-cat-0.png"
    with open(path, "rb") as file:
        (here / "d/cat/copy.png").write_bytes(file.read())
    save_again(path, "d/cat/again.png")
    with open("d/cat/again.png", "rb") as file:
        (here / "d/cat/again-copy.png").write_bytes(file.read())
    summary = pack(["d"], "d.h5", workers=1)
    assert summary.duplicates == [("d/cat/again-copy.png", "d/cat/again.png", "d/cat/copy.png", path)]


def blank(path, level, note):
    """Save an image of one colour as a file that is identical for equal notes only."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", note)
    Image.new("RGB", (8, 8), (level,) * 3).save(path, pnginfo=text)


def test_blank_images_are_counted_apart(here):
    write_classes(here / "d", {"cat": 6})
    for number in range(4):
        blank(f"d/cat/black-{number}.png", 0, str(number))
    blank("d/cat/white.png", 255, "")
    summary = pack(["d"], "d.h5", workers=1)
    assert (summary.duplicates, summary.blank) == ([], 4)
    assert describe(PackedImages("d.h5")).blank == 4
    assert "blank: 4 images of one colour, alike in pixels" in str(describe(PackedImages("d.h5")))
    sequence = SplitSequence("d.h5")
    is_black = sequence.filenames.isin([f"d/cat/black-{number}.png" for number in range(4)])
    assert leaks(sequence.select(np.flatnonzero(is_black)[:2]), sequence.select(np.flatnonzero(is_black)[2:])) == []
    parts = sequence.split(0.5, groups="content")
    assert [len(part.rows) for part in parts] == [6, 5] or [len(part.rows) for part in parts] == [5, 6]
    blank("d/dog/black.png", 0, "0")  # the same file as the first
    assert pack(["d"], "d.h5", workers=1).duplicates == [("d/cat/black-0.png", "d/dog/black.png")]


def test_blank_arrays_are_not_one_picture(here):
    """Arrays have no files, so nothing says that two blank ones are the same picture."""
    arrays = np.stack([pixels_of(str(number)) for number in range(20)])
    arrays[10:18] = 7
    arrays[1] = arrays[0]
    summary = write("a.h5", arrays, np.arange(20) % 2)
    assert (summary.duplicates, summary.blank) == ([("a/0", "a/1")], 8)
    sequence = SplitSequence("a.h5")
    assert [len(part.rows) for part in sequence.split(0.5, groups="content")] == [10, 10]
    assert leaks(*sequence.split(0.5, stratify=False)) in ([], [(["a/0"], ["a/1"])], [(["a/1"], ["a/0"])])


def test_equal_checksums_of_other_pixels_are_not_identical(here):
    """A checksum of 64 bits can be made to match; pixels decide."""
    write_pack(here / "a.h5", names_in("a", {"cat": 6}))
    with h5py.File("a.h5", "r+") as file:
        file["checksums"][:] = 7
    assert leaks(SplitSequence("a.h5").select([0, 1, 2]), SplitSequence("a.h5").select([3, 4, 5])) == []
    assert content_of([(SplitSequence("a.h5").packs, np.arange(6))]).groups == []


# --- splits ----------------------------------------------------------------------------------------------------------


def deviation(sequence, parts):
    """The largest number of rows that a part has more or less of a class than its share."""
    counts = np.bincount(sequence.classes, minlength=sequence.num_classes)
    return max(
        np.abs(np.bincount(part.classes, minlength=len(counts)) - counts * (len(part.rows) / len(sequence.rows))).max()
        for part in parts
    )


@pytest.fixture(scope="module")
def orders(tmp_path_factory):
    """Packs of the same rows in several orders: name -> sequence."""
    folder = tmp_path_factory.mktemp("orders")
    rng = np.random.default_rng(0)
    write_classes(folder / "one", {"cat": 130, "dog": 61, "emu": 7})
    write_classes(folder / "two", {"dog": 90, "emu": 13, "yak": 1})
    sources = [folder / "one", folder / "two"]
    pack(sources, folder / "usual.h5", workers=1)
    pack(sources, folder / "sorted.h5", order="sorted", workers=1)
    for source in sources:
        pack([source], f"{source}.h5", workers=1)
    usual = SplitSequence(folder / "usual.h5")
    return {
        "usual": usual,
        "sorted": SplitSequence(folder / "sorted.h5"),
        "two packs": SplitSequence(folder / "one.h5", folder / "two.h5"),
        "a part": usual.split_by("source")[str(folder / "one")],
        "left out": usual.select((usual.classes != 1) | (rng.random(len(usual.rows)) < 0.5)),
        "shuffled": SplitSequence(folder / "usual.h5").shuffle(3),
    }


@pytest.mark.parametrize("name", ["usual", "sorted", "two packs", "a part", "left out", "shuffled"])
@pytest.mark.parametrize("points", [(0.2, 0.4), (0.5,), (0.03,), (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)])
def test_every_part_has_each_class_in_its_share(orders, name, points):
    sequence = orders[name]
    parts = sequence.split(*points)
    assert deviation(sequence, parts) <= 2
    bounds = [0, *(round(point * len(sequence.rows)) for point in points), len(sequence.rows)]
    assert [len(part.rows) for part in parts] == [stop - start for start, stop in pairwise(bounds)]
    place = {row: at for at, row in enumerate(sequence.rows.tolist())}
    places = [[place[row] for row in part.rows.tolist()] for part in parts]
    assert sorted(itertools.chain(*places)) == [*range(len(place))]
    assert all(found == sorted(found) for found in places)  # in the order of the sequence


def test_parts_of_a_pack_as_it_comes_are_slices(orders):
    for part, start, stop in zip(orders["usual"].split(0.2, 0.4), (0, 60, 121), (60, 121, 302), strict=True):
        assert part.rows.tolist() == [*range(start, stop)]


def test_the_bare_cut_is_there(orders):
    first, second = orders["sorted"].split(0.5, stratify=False)
    assert first.rows.tolist() == [*range(151)]
    assert second.rows.tolist() == [*range(151, 302)]


# --- groups ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def patients(here):
    """Two packs, of which only the first has the column `patient`."""
    write_pack(here / "a.h5", names_in("a", {"cat": 20}), {"patient": [f"p{index // 4}" for index in range(20)]})
    write_pack(here / "b.h5", names_in("b", {"cat": 20}))
    return SplitSequence("a.h5", "b.h5")


@pytest.mark.parametrize("stable", [False, True])
@pytest.mark.parametrize(
    "missing",
    [np.nan, None, "", np.datetime64("NaT")],
    ids=["NaN", "None", "empty", "NaT"],
)
def test_rows_without_a_group_are_not_one_group(patients, missing, stable):
    values = np.arange(40).astype(str).astype(object)
    values[3] = missing
    for given in (values, list(values)):
        with pytest.raises(ArgumentError, match=r"for 1 of 40 rows, such as .*; leave them out by select\(\)"):
            patients.split(0.5, groups=given, stable=stable)


@pytest.mark.parametrize("stable", [False, True])
def test_pandas_na_is_no_group(patients, stable):
    pandas = pytest.importorskip("pandas")
    for given in (pandas.Series(["a", None] * 20, dtype="string"), pandas.Series([1, None] * 20, dtype="Int64")):
        with pytest.raises(ArgumentError, match=r"found none for 20 of 40 rows"):
            patients.split(0.5, groups=given, stable=stable)


@pytest.mark.parametrize("stable", [False, True])
def test_a_column_that_one_pack_lacks_has_no_groups(patients, stable):
    with pytest.raises(ArgumentError, match=r"none in the column patient for 20 of 40 rows, such as 'b/cat/b-cat-"):
        patients.split(0.5, groups="patient", stable=stable)
    parts = patients.select(range(20)).split(0.5, groups="patient", stable=stable)
    assert not set(parts[0].columns["patient"]) & set(parts[1].columns["patient"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.array([1, "a"] * 20, object), r"expected all numbers or all texts, found int and str"),
        ([{}] * 40, r"expected all numbers or all texts, found dict"),
        ([[1], [2, 3]] * 20, r"groups: expected an array, or lists of equal lengths, found a list of 40 values"),
        ([1, 2], r"groups: expected a value for each of 40 rows, found shape \(2,\)"),
        ("nope", r"groups: expected one of the columns"),
    ],
)
def test_groups_that_are_none_are_errors(patients, given, message):
    with pytest.raises(ArgumentError, match=message):
        patients.split(0.5, groups=given)


def test_groups_may_be_any_texts_and_objects(patients):
    names = [f"\udcff{index // 5}" for index in range(40)]
    for given in (names, np.array(names, object), [10**30 + index // 5 for index in range(40)]):
        for stable in (False, True):
            parts = patients.split(0.5, groups=given, stable=stable)
            places = [set(np.flatnonzero(np.isin(patients.rows, part.rows)) // 5) for part in parts]
            assert not places[0] & places[1]


# --- stable splits ---------------------------------------------------------------------------------------------------


def part_of(parts):
    return {name: number for number, part in enumerate(parts) for name in part.filenames}


@pytest.mark.parametrize("groups", [None, "content", "patient"])
def test_images_that_are_added_move_no_row_of_a_stable_split(here, groups):
    names = names_in("a", {"cat": 200, "dog": 300})
    more = names_in("b", {"cat": 20, "yak": 5})
    columns = {"patient": [f"p{index // 4}" for index in range(525)]}
    write_pack(here / "a.h5", names, {"patient": columns["patient"][:500]})
    write_pack(here / "b.h5", more, {"patient": columns["patient"][500:]})
    write_pack(here / "all.h5", [*more, *names], {"patient": [*columns["patient"][500:], *columns["patient"][:500]]})
    for seed in range(20):
        before = part_of(SplitSequence("a.h5", seed=seed).split(0.2, 0.4, groups=groups, stable=True))
        for paths in (["a.h5", "b.h5"], ["all.h5"]):
            sequence = SplitSequence(*paths, seed=seed).shuffle(1)
            after = part_of(sequence.split(0.2, 0.4, groups=groups, stable=True))
            assert {name: after[name] for name in before} == before
            assert sorted(after) == sorted([*names, *more])
    assert len({str(part_of(SplitSequence("a.h5", seed=seed).split(0.5, stable=True))) for seed in range(5)}) == 5


def test_groups_of_a_stable_split_stay_together(saved_again):
    values = np.arange(31) // 5
    for seed in range(10):
        sequence = saved_again.set(seed=seed)
        assert leaks(*sequence.split(0.3, 0.6, stable=True)) == []
        for part in sequence.split(0.3, 0.6, groups=values, stable=True):
            assert not set(values[part.rows]) & set(np.delete(values, part.rows))


def test_sizes_of_a_stable_split_are_within_chance(here):
    names = [f"a/cat/{number}.png" for number in range(4000)]
    write_pack(here / "a.h5", names, shape=(2, 2, 3))
    sizes = np.array(
        [
            [len(part.rows) for part in SplitSequence("a.h5", seed=seed).split(0.2, 0.4, stable=True)]
            for seed in range(100)
        ]
    )
    assert (sizes.sum(axis=1) == 4000).all()
    expected, spread = np.array([800, 800, 2400]), np.sqrt(4000 * np.array([0.16, 0.16, 0.24]))
    assert np.abs(sizes.mean(axis=0) - expected).max() < 5 * (spread / 10).max()
    assert np.abs((sizes - expected) / spread).max() < 5
    assert 0.5 < (sizes.std(axis=0) / spread).min() < 1.5


def test_stable_parts_never_change(here):
    """A training that goes on with a later version must have the same parts."""
    write_pack(here / "a.h5", [f"a/cat/{number}.png" for number in range(12)])
    first, second = SplitSequence("a.h5", seed=3).split(0.5, stable=True)
    assert (first.rows.tolist(), second.rows.tolist()) == ([1, 2, 3, 5, 6, 7, 10], [0, 4, 8, 9, 11])


def test_points_of_a_stable_split_are_checked(orders):
    with pytest.raises(ArgumentError, match=r"points that do not decrease, found 0\.4 before 0\.2"):
        orders["usual"].split(0.4, 0.2, stable=True)
    assert [len(part.rows) for part in orders["usual"].split(0.5, 0.5, stable=True)][1] == 0
    assert [len(part.rows) for part in orders["usual"].split(0, 1, stable=True)] == [0, 302, 0]


def test_the_pixels_of_the_fixture_are_who_they_say(saved_again):
    for name, again in PAIRS.items():
        with Image.open(again) as image:
            assert np.array_equal(np.asarray(image), pixels_of(name))
