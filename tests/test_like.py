"""Packing with `like`: a pack of masks has the rows of the pack of photographs, whatever is broken on either side."""

from __future__ import annotations

import os
import shutil
import signal
import sys

import numpy as np
import pytest
from pairs import CLASSES, break_file, mask_of, write_mask, write_pairs
from PIL import Image

from conftest import interrupted, write_image
from h5split import PackedImages, SplitSequence
from pack_images import Manifest, PackError, pack, preview, write
from pack_images.cli import main

FEW = {"cat": 7, "dog": 5}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with 12 photographs and their masks, and a pack of the photographs."""
    monkeypatch.chdir(tmp_path)
    write_pairs(tmp_path, FEW)
    pack("photos", "images.h5", workers=1)
    return tmp_path


def pack_masks(source="masks", **options):
    return pack(source, "masks.h5", **{"like": "images.h5", "color": "index", "workers": 1, **options})


def names_in(path):
    """The names of the photographs that masks are of, after checking the pixels of every mask."""
    packed = PackedImages(path)
    names = packed.columns["paired_with"][:]
    for name, image in zip(names, packed.images, strict=True):
        assert np.array_equal(image[..., 0], mask_of(name)), name
    return names


def test_masks_have_the_rows_the_labels_and_the_columns_of_photographs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = write_pairs(tmp_path)
    lines = [f"photos/{name}.png,{name.split('/')[0]},{number}" for number, name in enumerate(names)]
    (tmp_path / "table.csv").write_text("\n".join(["path,label,age", *lines]))
    pack([], "images.h5", manifest="table.csv", workers=1, classes=["emu", "dog", "yak", "cat"])
    summary = pack_masks()
    images, masks = PackedImages("images.h5"), PackedImages("masks.h5")
    assert names_in("masks.h5") == images.filenames[:]
    assert [os.path.splitext(name)[0] for name in masks.filenames] == [
        os.path.splitext(name)[0].replace("photos", "masks") for name in images.filenames
    ]
    assert masks.labels.tolist() == images.labels.tolist()
    assert [*masks.class_names] == [*images.class_names] == ["emu", "dog", "yak", "cat"]
    assert masks.columns["age"][:] == images.columns["age"][:]
    assert {*masks.columns["source"]} == {"masks"}
    assert masks.header.settings["order"] == masks.header.settings["labels"] == "given"
    assert (summary.rows, summary.skipped, summary.passed_over) == (sum(CLASSES.values()), [], [])


def test_a_mask_that_is_missing_or_broken_is_named_and_shifts_no_row(here, capsys):
    (here / "masks/cat/cat-003.tif").unlink()
    break_file(here / "masks/dog/dog-001.tif")
    summary = pack_masks()
    images = PackedImages("images.h5")
    without = ["photos/cat/cat-003.png", "photos/dog/dog-001.png"]
    assert names_in("masks.h5") == [name for name in images.filenames if name not in without]
    skipped = dict(PackedImages("masks.h5").skipped)
    assert [*skipped] == ["masks/dog/dog-001.tif", "photos/cat/cat-003.png"]
    assert skipped["photos/cat/cat-003.png"] == "no file for this row of images.h5"
    assert dict(summary.skipped) == skipped
    assert main(["masks", "-o", "masks.h5", "--like", "images.h5", "--color", "index", "--workers", "1"]) == 0
    assert "left out: 2\n" in capsys.readouterr().out


def test_a_photograph_that_is_broken_leaves_its_mask_out(here):
    break_file(here / "photos/cat/cat-003.png")
    shutil.copy("masks/cat/cat-000.tif", "masks/other.tif")
    pack("photos", "images.h5", workers=1)
    summary = pack_masks()
    assert names_in("masks.h5") == PackedImages("images.h5").filenames[:]
    assert summary.rows == 11
    assert summary.warnings == ["passed over: 2 files of no row of images.h5, such as masks/other.tif"]


def test_with_strict_every_row_needs_a_file(here):
    (here / "masks/cat/cat-003.tif").unlink()
    with pytest.raises(PackError, match=r"photos/cat/cat-003\.png: no file for this row .* 1 row; without --strict"):
        pack_masks(strict=True)
    assert not os.path.exists("masks.h5")


def test_the_order_of_a_part_that_was_saved_is_that_of_its_masks(here):
    SplitSequence("images.h5").shuffle(3).split(0.6)[0].save("part.h5")
    pack_masks(like="part.h5")
    assert names_in("masks.h5") == PackedImages("part.h5").filenames[:]
    assert len(names_in("masks.h5")) == 7


def test_two_files_of_one_row_are_refused(here):
    write_mask(here / "masks/cat/cat-003.bmp")
    with pytest.raises(
        PackError, match=r"cat-003\.png: expected one file .*, found masks/cat/cat-003.bmp and .*03.tif; l"
    ):
        pack_masks()


def test_two_rows_of_one_file_are_refused_and_a_table_tells_them_apart(here):
    write_image(here / "photos/cat/cat-003.bmp")
    pack("photos", "images.h5", workers=1)
    with pytest.raises(
        PackError, match=r"masks/cat/cat-003.tif: expected one row .*, found .*cat-003\.\w+ and .*--name-c"
    ):
        pack_masks()
    write_mask(here / "others/cat-003.bmp.tif")
    names = [name for name in PackedImages("images.h5").filenames if not name.endswith("bmp")]
    lines = [f"{name.replace('photos', 'masks').replace('.png', '.tif')},{name}" for name in names]
    lines.append("others/cat-003.bmp.tif,photos/cat/cat-003.bmp")
    (here / "table.csv").write_text("\n".join(["path,name", *lines]))
    summary = pack_masks([], manifest=Manifest("table.csv", name_column="name"))
    packed = PackedImages("masks.h5")
    assert packed.columns["paired_with"][:] == packed.filenames[:] == PackedImages("images.h5").filenames[:]
    assert summary.rows == 13


def test_a_path_that_may_name_the_source_or_a_folder_is_refused(tmp_path, monkeypatch):
    """`cat/1` is `1` of the SOURCE `cat`, or `cat/1` of it. Only one of them has a mask, so none would be wrong."""
    monkeypatch.chdir(tmp_path)
    for name in ("cat/1", "cat/cat/1", "cat/2", "cat/3", "cat/4"):
        write_image(tmp_path / f"{name}.png")
    pack("cat", "images.h5", labels="none", workers=1)
    for name in ("cat/1", "2", "3", "4"):
        write_mask(tmp_path / "masks" / f"{name}.tif")
    with pytest.raises(PackError, match=r"masks/cat/1.tif: expected one row of images.h5 .* found cat/\S+ and cat/"):
        pack_masks()


def test_names_with_a_suffix_are_paired_by_a_table(here):
    for path in sorted((here / "masks").rglob("*.tif")):
        path.rename(path.with_name(f"{path.stem}_mask.tif"))
    with pytest.raises(
        PackError, match=r"for each of 12 rows, found none: .* for photos/.*, give a table of them whose"
    ):
        pack_masks()
    photos = PackedImages("images.h5").filenames[:]
    lines = [f"{name.replace('photos/', 'masks/').replace('.png', '_mask.tif')},{name}" for name in photos]
    (here / "masks.csv").write_text("\n".join(["path,name", *lines]))
    line = "--manifest masks.csv --name-column name -o masks.h5 --like images.h5 --color index --workers 1"
    assert main(line.split()) == 0
    assert names_in("masks.h5") == photos


def test_several_sources_are_told_apart_by_their_names(here):
    for part in ("2019", "2020"):
        shutil.copytree("photos", f"all/{part}")
        for name in sorted((here / "masks").rglob("*.tif")):
            write_mask(here / "all-masks" / part / name.relative_to(here / "masks"))
    pack(["all/2019", "all/2020"], "images.h5", workers=1)
    for sources in (["all-masks"], ["all-masks/2020", "all-masks/2019"]):
        pack_masks(sources, reuse=False)
        assert names_in("masks.h5") == PackedImages("images.h5").filenames[:]
    with pytest.raises(PackError, match=r"masks/cat/cat-000.tif: expected one row of .*, found all/20"):
        pack_masks("masks")


def test_sources_may_be_packs_and_flat_folders(here):
    pack_masks()
    os.rename("masks.h5", "before.h5")
    pack(["photos/dog", "photos/cat"], "images.h5", workers=1, order="sorted")
    pack_masks("before.h5")
    assert names_in("masks.h5") == PackedImages("images.h5").filenames[:]
    flat = here / "flat"
    for name in PackedImages("images.h5").filenames:
        write_mask(flat / os.path.basename(name).replace(".png", ".tif"))
    assert pack_masks("flat").rows == 12
    assert names_in("masks.h5") == PackedImages("images.h5").filenames[:]


def test_a_chain_of_packs_calls_rows_by_the_first_names(here):
    pack_masks()
    for path in (here / "masks").rglob("*.tif"):
        write_image(here / "depth" / path.relative_to(here / "masks").with_suffix(".png"))
    pack("depth", "depth.h5", like="masks.h5", workers=1)
    assert PackedImages("depth.h5").columns["paired_with"][:] == PackedImages("images.h5").filenames[:]


def test_arrays_may_have_pairs(here):
    write("arrays.h5", np.zeros((3, 8, 8, 3), np.uint8), [0, 1, 1], filenames=[f"{name}.png" for name in "abc"])
    for name in "cab":
        write_mask(here / "of-arrays" / f"{name}.tif")
    pack_masks("of-arrays", like="arrays.h5")
    assert names_in("masks.h5") == PackedImages("arrays.h5").filenames[:]


def test_unchanged_masks_are_not_decoded_again(here):
    pack_masks()
    before = (here / "masks.h5").read_bytes()
    again = pack_masks()
    assert (again.decoded, again.copied) == (0, 12)
    assert (here / "masks.h5").read_bytes() == before
    pack(["photos"], "images.h5", order="sorted", workers=1)
    moved = pack_masks()
    assert (moved.decoded, moved.copied) == (0, 12)
    assert names_in("masks.h5") == PackedImages("images.h5").filenames[:] == sorted(names_in("masks.h5"))


def test_the_output_may_be_a_source_so_that_its_rows_are_kept(here):
    pack_masks()
    for path in (here / "masks/cat").glob("*.tif"):
        path.unlink()
    pack(["photos"], "images.h5", order="sorted", workers=1)
    summary = pack_masks(["masks.h5", "masks"])
    assert (summary.rows, summary.decoded, summary.copied) == (12, 0, 12)
    assert names_in("masks.h5") == PackedImages("images.h5").filenames[:]


def test_names_in_two_unicode_forms_are_of_one_row(here):
    write_image(here / "photos/cat/caf\u00e9.png")
    pack(["photos"], "images.h5", workers=1)
    write_mask(here / "masks/cat/caf\u00e9.tif").rename(here / "masks/cat/cafe\u0301.tif")
    assert pack_masks().rows == 13
    assert names_in("masks.h5") == PackedImages("images.h5").filenames[:]


def test_the_number_of_workers_does_not_change_the_bytes(here):
    pack_masks()
    before = (here / "masks.h5").read_bytes()
    pack_masks(workers=2, reuse=False)
    assert (here / "masks.h5").read_bytes() == before


def test_an_interrupted_run_continues(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_pairs(tmp_path, {"cat": 400})
    pack("photos", "images.h5", workers=1)
    words = ["masks", "-o", "out.h5", "--like", "images.h5", "--color", "index", "--workers", "1", "--quiet"]
    line = [sys.executable, "-m", "pack_images.cli", *words]
    code, errors = interrupted(line, tmp_path, signal.SIGINT)
    assert code == 130, errors
    assert main(words) == 0
    assert names_in("out.h5") == PackedImages("images.h5").filenames[:]


CONFLICTS = {
    "order": ({"order": "sorted"}, "--order: expected none beside --like, found one: order, labels and columns are"),
    "the usual order": ({"order": "stratified"}, "--order: expected none beside --like"),
    "the usual seed": ({"seed": 0}, "--seed: expected none beside --like"),
    "the usual labels": ({"labels": "auto"}, "--labels: expected none beside --like"),
    "a column of labels": (
        {"manifest": Manifest("masks.csv", label_column="kind")},
        "--label-column: expected none beside --like",
    ),
    "seed": ({"seed": 3}, "--seed: expected none beside --like"),
    "labels": ({"labels": "parent"}, "--labels: expected none beside --like"),
    "label_pattern": ({"label_pattern": "(a)"}, "--label-pattern: expected none beside --like"),
    "classes": ({"classes": ["cat"]}, "--classes: expected none beside --like"),
    "relabel": ({"relabel": {"a": "b"}}, "--relabel: expected none beside --like"),
    "an opened pack": ({"like": 3}, "like: expected the path of a pack, found int; give its path"),
}


@pytest.mark.parametrize(("options", "message"), CONFLICTS.values(), ids=CONFLICTS)
def test_what_the_other_pack_decides_is_not_chosen_twice(here, options, message):
    with pytest.raises(PackError, match=message):
        pack_masks(**options)


@pytest.mark.parametrize("option", ["--order=stratified", "--seed=0", "--labels=auto"])
def test_what_the_other_pack_decides_is_not_chosen_on_the_command_line_even_if_it_is_usual(here, option, capsys):
    assert main(["masks", "-o", "out.h5", "--like", "images.h5", "--color", "index", option]) == 1
    assert f"{option.partition('=')[0]}: expected none beside --like" in capsys.readouterr().err


def test_the_other_pack_is_never_the_output(here):
    before = (here / "images.h5").read_bytes()
    os.symlink("images.h5", "link.h5")
    for like in ("images.h5", "link.h5"):
        with pytest.raises(PackError, match=r"--like .*: expected another file than the output, found the same; give"):
            pack("masks", "images.h5", like=like, workers=1)
    assert (here / "images.h5").read_bytes() == before


def test_another_fit_is_said(here):
    pack("photos", "images.h5", size=4, fit="crop", workers=1)
    (warning,) = pack_masks(size=4).warnings
    assert warning.startswith(
        "images.h5 was packed with fit crop, this run has fit stretch: what one picture shows may lie"
    )
    assert pack_masks(size=4, fit="crop").warnings == []


@pytest.mark.parametrize(
    ("photos", "masks", "note"),
    [
        ({"size": 4, "fit": "crop"}, {"size": (8, 4), "fit": "crop"}, "fit crop to 4x4, this run has fit crop to 8x4"),
        ({"size": 4, "fit": "pad"}, {"size": (4, 8), "fit": "pad"}, "fit pad to 4x4, this run has fit pad to 4x8"),
        ({"size": 4, "fit": "crop"}, {"fit": "crop"}, "fit crop, this run has fit stretch"),
        ({}, {"size": (9, 3), "fit": "crop"}, "fit stretch, this run has fit crop"),
        ({"size": 4, "fit": "crop"}, {"size": 8, "fit": "crop"}, ""),
        ({"size": 4}, {"size": (8, 4)}, ""),
        ({}, {"size": 4, "fit": "pad"}, ""),  # photographs of 8x8 pixels
        ({}, {}, ""),
    ],
)
def test_crops_of_other_shapes_are_said(here, photos, masks, note):
    pack("photos", "images.h5", workers=1, **photos)
    parts = [warning.partition(" was packed with ")[2] for warning in pack_masks(**masks).warnings]
    assert [part.partition(":")[0] for part in parts if part] == [note][: bool(note)]


def test_a_dry_run_has_the_fit_and_the_filter_of_the_run(here, capsys):
    pack("photos", "images.h5", size=4, fit="crop", workers=1)
    words = ["masks", "-o", "out.h5", "--like", "images.h5", "--color", "index", "--size", "8", "--dry-run"]
    assert main([*words, "--fit", "crop"]) == 0
    assert "was packed with fit" not in capsys.readouterr().err
    assert main(words) == 0
    assert "was packed with fit crop, this run has fit stretch" in capsys.readouterr().err
    assert main([*words, "--interpolation", "bicubic"]) == 1
    assert "interpolation: expected nearest with color index" in capsys.readouterr().err


def test_a_dry_run_names_rows_without_a_file(here, capsys):
    (here / "masks/cat/cat-003.tif").unlink()
    assert len(preview("masks", like="images.h5", color="index")) == 11
    assert main(["masks", "-o", "masks.h5", "--like", "images.h5", "--color", "index", "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "would pack 11 images, 4x6x1" in printed
    assert "left out: 1 row, such as photos/cat/cat-003.png: no file for this row of images.h5" in printed
    assert not os.path.exists("masks.h5")


def test_half_of_the_masks_must_be_there(here):
    for index in range(7):
        (here / f"masks/cat/cat-{index:03}.tif").unlink()
    with pytest.raises(
        PackError, match=r"images.h5: expected a file .* for each of 12 rows, found 5: there is none for ph"
    ):
        pack_masks()


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_numbers_of_classes_are_kept(here, dtype):
    ids = {"uint8": np.array([[0, 1, 2], [200, 254, 255]]), "uint16": np.array([[0, 1, 256], [4095, 65534, 65535]])}[
        dtype
    ]
    for number, path in enumerate(sorted((here / "masks").rglob("*.tif"))):
        path.unlink()
        mask = np.roll(ids, number).astype(dtype)
        image = Image.fromarray(mask)
        if dtype == "uint8" and number % 2:
            image = image.convert("P")
            image.frombytes(mask.tobytes())
            image.putpalette([value * 37 % 256 for value in range(768)])
        image.save(path.with_suffix(".png"))
    pack_masks(dtype=dtype)
    sequence = SplitSequence("images.h5", targets=PackedImages("masks.h5"), batch_size=5, auto_shuffle=True)
    order = sorted(sequence.filenames)
    for _, targets in sequence:
        assert targets.dtype == dtype
    for name, mask in zip(sequence.get_filenames(), sequence.get_targets(), strict=True):
        assert np.array_equal(mask[..., 0], np.roll(ids, order.index(name)))
