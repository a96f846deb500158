"""Tests of `h5split info`."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from conftest import names_in, pixels_of, write_classes, write_hole, write_pack
from h5split import PackedImages
from h5split.cli import main
from h5split.commands import info
from h5split.commands.info import describe


@pytest.fixture
def full(tmp_path, packing, monkeypatch):
    """A pack of 5 cats and 7 dogs, with duplicates and one file left out."""
    monkeypatch.chdir(tmp_path)
    write_classes(tmp_path / "data", {"cat": 3, "dog": 6})
    shutil.copy("data/cat/data-cat-0.png", "data/cat/same.png")
    shutil.copy("data/dog/data-dog-1.png", "data/cat/taken-for-a-cat.png")
    shutil.copy("data/dog/data-dog-1.png", "data/dog/again.png")
    (tmp_path / "data/cat/broken.png").write_bytes(b"broken")
    packing("data", output="out.h5", seed=3, size=8)
    return PackedImages("out.h5")


def test_counts_and_settings_are_those_of_the_pack(full):
    found = describe(full)
    assert (found.path, found.rows, found.shape, found.nbytes) == ("out.h5", 12, (8, 8, 3), os.path.getsize("out.h5"))
    assert found.classes == {"cat": 5, "dog": 7}
    assert found.columns == {"source": {"data": 12}}
    assert (found.settings["seed"], found.settings["size"]) == (3, [8, 8])
    assert sorted(found.packed_by) == ["pack-images", "pillow", "simplejpeg"]


def test_files_left_out_are_listed_with_the_reason(full):
    assert describe(full).skipped == [("data/cat/broken.png", "not an image that Pillow knows")]


def test_duplicates_with_different_labels_come_first(full):
    found = describe(full)
    assert [sorted(group) for group in found.duplicates] == [
        ["data/cat/taken-for-a-cat.png", "data/dog/again.png", "data/dog/data-dog-1.png"],
        ["data/cat/data-cat-0.png", "data/cat/same.png"],
    ]
    assert found.conflicting == 1


def test_values_of_columns_are_counted_most_frequent_first(tmp_path):
    columns = {"split": ["test", "train", "train", "", "train"], "fold": ["1", "2", "2", "1", "2"], "id": list("abcde")}
    path = write_pack(tmp_path / "a.h5", [f"x/cat/{row}.png" for row in range(5)], columns)
    found = describe(PackedImages(path)).columns
    assert list(found["split"].items()) == [("train", 3), ("test", 1), ("", 1)]
    assert list(found["fold"].items()) == [("2", 3), ("1", 2)]
    assert found["id"] == dict.fromkeys("abcde", 1)


def test_long_values_are_shortened_in_text_and_complete_in_json(tmp_path, capsys):
    notes = [f"patient {row % 2} was seen " * 200 for row in range(4)]
    names = [f"x/cat/{row}.png" for row in range(4)]
    path = write_pack(tmp_path / "a.h5", names, {"notes": notes, "n" * 500: ["a"] * 4})
    assert main(["info", str(path)]) == 0
    screen = capsys.readouterr().out
    assert f'  notes: 2 values: "{notes[0][:60]}..." 2, "{notes[1][:60]}..." 2\n' in screen
    assert f'  {"n" * 60}...: 1 value: "a" 4\n' in screen
    assert main(["info", "--json", str(path)]) == 0
    assert list(json.loads(capsys.readouterr().out)["columns"]["notes"]) == notes[:2]


@pytest.mark.parametrize(("values", "counted"), [(10_000, True), (10_001, False)])
def test_more_than_ten_thousand_values_are_not_counted(tmp_path, values, counted):
    names = [f"x/cat/{row}" for row in range(values)]
    pixels = [pixels_of("x", (1, 1, 1))] * values
    path = write_pack(tmp_path / "a.h5", names, {"id": names}, classes=["cat"] * values, pixels=pixels)
    found = describe(PackedImages(path))
    assert found.columns["id"] == (dict.fromkeys(names, 1) if counted else None)
    said = f"  id: {values:,} values, all different\n" if counted else "  id: more than 10,000 values\n"
    assert said in str(found)


def test_values_of_columns_are_told_apart(tmp_path):
    columns = {
        "finding": ["COVID-19, ARDS", "ARDS", "", "COVID-19, ARDS 2"] * 6,
        "age": [*map(str, range(90, 113)), ""],
        "weight": [f"{10 + row / 8:.3e}" for row in range(24)],
        "fold": ["1", "2", "10"] * 8,
        "version": [f"1.{row}.0" for row in range(23)] + ["1.0.0"],
        "depth": ["nan", *map(str, range(23))],
    }
    path = write_pack(tmp_path / "a.h5", [f"x/cat/{row}.png" for row in range(24)], columns)
    found = describe(PackedImages(path))
    assert found.ranges == {"age": ("90", "112"), "weight": ("1.000e+01", "1.288e+01"), "fold": ("1", "10")}
    for line in (
        '  finding: 4 values: "COVID-19, ARDS" 6, "ARDS" 6, "" 6, "COVID-19, ARDS 2" 6\n',
        "  age: 24 values, all different, numbers from 90 to 112, 1 empty\n",
        "  weight: 24 values, all different, numbers from 1.000e+01 to 1.288e+01\n",
        '  fold: 3 values: "1" 8, "2" 8, "10" 8\n',
        '  version: 23 values: "1.0.0" 2, "1.1.0" 1,',
        "  depth: 24 values, all different\n",
    ):
        assert line in str(found)


def test_very_many_numbers_have_a_range(tmp_path):
    names = [f"x/cat/{row}" for row in range(10_001)]
    pixels = [pixels_of("x", (1, 1, 1))] * len(names)
    columns = {"id": [str(row - 5) for row in range(10_001)]}
    path = write_pack(tmp_path / "a.h5", names, columns, classes=["cat"] * len(names), pixels=pixels)
    assert "  id: more than 10,000 values, numbers from -5 to 9995\n" in str(describe(PackedImages(path)))


def test_text_output_contains_everything_on_one_screen(full, capsys):
    assert main(["info", "out.h5"]) == 0
    out = capsys.readouterr().out
    for line in (
        f"out.h5: 12 images, 8x8x3, {os.path.getsize('out.h5') / 1e6:.1f} MB\n",
        "  2 classes\n          5  cat  █████████████████████\n          7  dog  ██████████████████████████████\n",
        '  source: 1 value: "data" 12\n',
        "fit stretch, interpolation bilinear, labels auto, ",
        "duplicates: 2 groups of identical images, 5 images in all; labels differ in 1 group\n",
        "left out: 1\n  data/cat/broken.png: not an image that Pillow knows\n",
    ):
        assert line in out
    assert len(out.splitlines()) < 25


def test_text_output_of_a_large_pack_stays_below_50_lines(tmp_path):
    names = [f"x/class-{row % 500}/{row // 2 * 2}-\n.png" for row in range(3000)]
    path = write_pack(tmp_path / "a.h5", names, {f"column-{k}": names for k in range(3)}, shape=(1, 1, 3))
    lines = str(describe(PackedImages(path))).splitlines()
    assert len(lines) < 50
    assert "        ...  480 more classes" in lines


def test_json_output_contains_everything(full, capsys):
    assert main(["info", "out.h5", "--json"]) == 0
    found = describe(full)
    assert json.loads(capsys.readouterr().out) == {
        "path": "out.h5",
        "rows": 12,
        "shape": [8, 8, 3],
        "dtype": "uint8",
        "nbytes": os.path.getsize("out.h5"),
        "classes": {"cat": 5, "dog": 7},
        "columns": {"source": {"data": 12}},
        "ranges": {},
        "settings": dict(full.header.settings),
        "packed_by": dict(full.header.packed_by),
        "skipped": [["data/cat/broken.png", "not an image that Pillow knows"]],
        "losses": [],
        "duplicates": [list(group) for group in found.duplicates],
        "conflicting": 1,
        "blank": 0,
        "numbers": None,
        "numbers_in": 0,
        "copy": None,
        "bytes_to_come": 0,
    }


def test_names_of_any_bytes_are_unchanged_in_json_and_escaped_in_text(tmp_path, capsys):
    names = ["x/a\nb\udcff/1", 'x/"c"/2', "x/\u202e\t/3"]
    path = write_pack(tmp_path / "a.h5", names, {"new\nline": ["\r", "\udcff", ""]})
    assert main(["info", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert sorted(found["classes"]) == ['"c"', "a\nb\udcff", "\u202e\t"]
    assert found["columns"]["new\nline"] == {"\r": 1, "\udcff": 1, "": 1}
    assert main(["info", str(path)]) == 0
    out = capsys.readouterr().out
    assert "a\\nb\\udcff" in out
    assert "\u202e" not in out
    assert len(out.splitlines()) == 12


def test_info_describes_a_pack_whose_pixels_are_a_hole(tmp_path):
    found = describe(PackedImages(write_hole(tmp_path / "hole.h5", 1000, (512, 512, 3))))
    assert (found.rows, found.classes, len(found.duplicates[0])) == (1000, {"nothing": 1000}, 1000)


def test_a_pack_without_duplicates_or_files_left_out_says_none(tmp_path):
    path = write_pack(tmp_path / "a.h5", names_in("a", {"cat": 2, "dog": 1}))
    found = describe(PackedImages(path))
    assert found.classes == {"cat": 2, "dog": 1}
    assert (found.duplicates, found.conflicting, found.skipped) == ([], 0, [])
    assert "duplicates: none\nleft out: none" in str(found)


def write_masks(folder, arrays):
    """Write masks of one class, as PNG."""
    (folder / "bees").mkdir(parents=True)
    for number, mask in enumerate(arrays):
        Image.fromarray(mask).save(folder / f"bees/{number}.png")
    return folder


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ([0, 7, 255], "numbers: 0, 7, 255\n"),
        (range(20), f"numbers: {', '.join(map(str, range(20)))}\n"),
        (range(5, 230), f"numbers: {', '.join(map(str, range(5, 25)))} and 205 more, up to 229\n"),
    ],
    ids=["classes and ignored", "twenty", "many"],
)
def test_the_numbers_in_masks_are_listed(tmp_path, packing, values, line):
    masks = np.resize(np.array(values, np.uint8), (2, 16, 16))
    packing(write_masks(tmp_path / "masks", masks), output=tmp_path / "masks.h5", color="index")
    found = describe(PackedImages(tmp_path / "masks.h5"))
    assert (found.numbers, found.numbers_in) == (list(values), 2)
    assert line in str(found)


def test_the_numbers_in_masks_of_16_bits_are_listed(tmp_path, packing):
    masks = write_masks(tmp_path / "masks", [np.full((8, 8), number, np.uint16) for number in (300, 0, 65_535)])
    packing(masks, output=tmp_path / "masks.h5", color="index", dtype="uint16")
    assert "numbers: 0, 300, 65535\n" in str(describe(PackedImages(tmp_path / "masks.h5")))


def test_the_numbers_in_many_masks_are_those_of_a_sample(tmp_path, packing, monkeypatch):
    masks = write_masks(tmp_path / "masks", [np.full((8, 8), number, np.uint8) for number in range(9)])
    packing(masks, output=tmp_path / "masks.h5", color="index", order="sorted")
    monkeypatch.setattr(info, "_SAMPLE_BYTES", 3 * 64)
    found = describe(PackedImages(tmp_path / "masks.h5"))
    assert "numbers: 0, 4, 8 (in 3 of 9 images)\n" in str(found)


def test_photographs_have_no_numbers(full):
    assert describe(full).numbers is None
    assert "numbers:" not in str(describe(full))
