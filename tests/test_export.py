"""Tests of export: rows become folders of PNGs that pack into the same rows, and no other file is written."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from conftest import names_in, pixels_of, write_hole, write_pack
from h5split import PackedImages, SplitSequence
from h5split.commands.export import export
from h5split.writing.newfolder import NewFolder
from pack_images import Manifest, PackError, pack

NAMES = names_in("a", {"cat": 20, "dog": 50, "emu": 30})
SPLITS = ["test" if row % 5 == 0 else "train" for row in range(100)]
COLORS = {1: "grayscale", 3: "rgb", 4: "rgba"}
ODD = [
    *("a b", " a b ", 'q"uo"te', "it's", "a,b", ";", "new\nline", "carriage\rreturn", "both\r\n", "tab\t", "=1+1"),
    *("\udcff", "\udcff\udce9", "ümläut", "u\u0308mla\u0308ut", "\ufeffmark", "\u202e", "a\u200bb", "日本", "🐈"),
    *("a.png", "A.png", "A.PNG", "a.jpg", "a.tar.gz", "a", "a.", "a ", "a-5", "a-6", "a-7", "-rf", "~", "%2e", "a\0b"),
    *(" ", ".", "..", "...", "/", "//", ".hidden", "CON", "con.png", "nul.tar.gz", "COM1", "manifest.csv", "C:\\x"),
    *(
        "../../x/cat/..",
        "/dev/null/passwd",
        "/",
        "..\\..\\x",
        "\\\\host\\share",
        "x" * 4000,
        "ü" * 2000,
        "x" * 4000 + "y",
    ),
]
CLASSES = [
    *("cat", "CAT", "a/b", "a:b", "a_b", "a\\b", "manifest.csv", "MANIFEST.CSV", "CON", "con", "..", ".", "...", "~"),
    *(
        "../..",
        "/dev/null/x",
        "/",
        "x" * 4000,
        "x" * 4000 + "y",
        "x" * 119 + "ü",
        "\udcff",
        "\udcfe",
        "a,b",
        'a"b',
        "a\nb",
    ),
    *("a\rb", "ﬁ", "fi", "ü", "u\u0308", "ß", "ss", "a\0b", "a;b;c;d;e;f;g;h", "-"),
]


@pytest.fixture(scope="session")
def plain(tmp_path_factory):
    return write_pack(
        tmp_path_factory.mktemp("plain") / "a.h5", NAMES, {"split": SPLITS, "k": list(map(str, range(100)))}
    )


@pytest.fixture
def sequence(plain):
    return SplitSequence(plain)


def write_rows(path, names, classes=None, columns=None, shape=(8, 8, 3)):
    """Write a pack with any names and classes. Pixels are derived from the row number."""
    classes = ["cat"] * len(names) if classes is None else classes
    return write_pack(
        path, names, columns, classes=classes, pixels=[pixels_of(str(row), shape) for row in range(len(names))]
    )


def table(folder):
    with open(folder / "manifest.csv", encoding="utf-8", errors="surrogateescape", newline="") as file:
        return list(csv.DictReader(file))


def pixels(path):
    return np.asarray(Image.open(path))


def listing(folder):
    """Return all files and folders below a folder: path -> size and modification time."""
    paths = [os.path.join(top, name) for top, folders, files in os.walk(folder) for name in (*folders, *files)]
    return {path: (os.lstat(path).st_size, os.lstat(path).st_mtime_ns) for path in paths}


def written(folder):
    """Return the images below a folder: relative path -> bytes of pixels."""
    return {str(path.relative_to(folder)): pixels(path).tobytes() for path in folder.rglob("*.png")}


def packed_again(folder, color="rgb"):
    """Pack an exported folder with the options that the last line of the command shows."""
    manifest = Manifest(str(folder / "manifest.csv"), name_column="filename")
    pack([], folder / "again.h5", manifest=manifest, order="sorted", color=color, workers=1)
    return PackedImages(folder / "again.h5")


def texts(images):
    """Return file names, class names and columns of all rows, without the source."""
    columns = {name: list(column) for name, column in images.columns.items() if name != "source"}
    return list(images.filenames), [images.class_names[label] for label in images.labels], columns


# --- export and pack again --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(8, 8, 3), (5, 9, 1), (8, 8, 1), (7, 3, 4), (1, 1, 3)], ids=str)
def test_exported_rows_pack_again_in_the_same_order(tmp_path, shape):
    path = write_rows(tmp_path / "a.h5", NAMES, [name.split("/")[1] for name in NAMES], {"split": SPLITS}, shape)
    assert export(SplitSequence(path), tmp_path / "out") == 100
    images, again = PackedImages(path), packed_again(tmp_path / "out", COLORS[shape[2]])
    assert np.array_equal(again.images, images.images)
    assert texts(again) == texts(images)


def test_the_colour_of_transparent_pixels_survives_export(tmp_path):
    rows = [pixels_of(name, (8, 8, 4)).copy() for name in "abc"]
    for alpha, row in zip((0, 1, 255), rows, strict=True):
        row[:, :, 3] = alpha
    path = write_pack(tmp_path / "a.h5", ["x/cat/a", "x/cat/b", "x/dog/c"], pixels=rows)
    export(SplitSequence(path), tmp_path / "out")
    assert np.array_equal(packed_again(tmp_path / "out", "rgba").images, np.stack(rows))


@pytest.mark.parametrize("names", [ODD, [f"{name}.png" for name in ODD], [f"x/{name}" for name in ODD]])
def test_file_names_of_any_characters_survive_export(tmp_path, names):
    path = write_rows(tmp_path / "a.h5", names)
    export(SplitSequence(path), tmp_path / "out")
    images, again = PackedImages(path), packed_again(tmp_path / "out")
    assert texts(again) == texts(images)
    assert np.array_equal(again.images, images.images)


def test_class_names_of_any_characters_survive_export(tmp_path):
    path = write_rows(tmp_path / "a.h5", ["x/a"] * len(CLASSES), CLASSES)
    export(SplitSequence(path), tmp_path / "out")
    images, again = PackedImages(path), packed_again(tmp_path / "out")
    assert texts(again) == texts(images)
    assert len({os.path.dirname(line["path"]) for line in table(tmp_path / "out")}) == len(CLASSES)


@pytest.mark.parametrize("name", [" cat", "cat ", "\tcat", "cat\u3000", " "], ids=ascii)
def test_class_names_that_differ_only_in_spaces_stay_distinct(tmp_path, name):
    path = write_rows(tmp_path / "a.h5", ["x/a", "x/b"], ["cat", name])
    export(SplitSequence(path), tmp_path / "out")
    assert texts(packed_again(tmp_path / "out")) == texts(PackedImages(path))


@pytest.mark.parametrize(
    "name",
    [
        *("k", "Path", "LABEL", "Filename", "split", "column_4", "manifest_source", "a,b", 'q"', "ü", "\udcff"),
        *("path", "label", "filename", "Source", "a;b;c;d;e;f", "new\nline", "carriage\rreturn", "a|b|c|d|e\t\t\t\t"),
    ],
    ids=ascii,
)
def test_columns_of_any_name_survive_export(tmp_path, name):
    path = write_rows(tmp_path / "a.h5", ["x/a", "x/b"], columns={name: ["1", "2"]})
    export(SplitSequence(path), tmp_path / "out")
    assert texts(packed_again(tmp_path / "out")) == texts(PackedImages(path))


@pytest.mark.parametrize(
    "value", ["", " v ", "a,b", '"', "a\nb", "a\rb", "\r\n", "\udcff", "\ufeff", "a\0b"], ids=ascii
)
def test_values_of_columns_survive_export(tmp_path, value):
    path = write_rows(
        tmp_path / "a.h5", ["x/a", "x/b", "x/c"], columns={"k": [value, "", value], "z": ["", "1", value]}
    )
    export(SplitSequence(path), tmp_path / "out")
    assert texts(packed_again(tmp_path / "out")) == texts(PackedImages(path))


@given(st.lists(st.tuples(*[st.text(st.characters(codec="utf-8"), max_size=5)] * 2), min_size=1, max_size=8))
def test_rows_with_any_text_are_written_to_distinct_files(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("any")
    names, classes = [name.rstrip("\0") for name, _ in rows], ["c" + label.rstrip("\0") for _, label in rows]
    export(SplitSequence(write_rows(folder / "a.h5", names, classes)), folder / "out")
    lines = table(folder / "out")
    assert [(line["filename"], line["label"]) for line in lines] == list(zip(names, classes, strict=True))
    for row, line in enumerate(lines):
        assert np.array_equal(pixels(folder / "out" / line["path"]), pixels_of(str(row)))
    assert len({line["path"].casefold() for line in lines}) == len(rows)


# --- paths of files ---------------------------------------------------------------------------------------------------


def test_images_are_written_to_one_folder_per_class(sequence, tmp_path):
    assert export(sequence, tmp_path / "out") == 100
    assert sorted(os.listdir(tmp_path / "out")) == ["cat", "dog", "emu", "manifest.csv"]
    assert written(tmp_path / "out") == {name.removeprefix("a/"): pixels_of(name).tobytes() for name in NAMES}
    assert [line["path"] for line in table(tmp_path / "out")] == [name.removeprefix("a/") for name in NAMES]


def test_no_name_leads_to_a_file_outside_the_folder(tmp_path):
    names = [*ODD, *CLASSES]
    classes = [CLASSES[row % len(CLASSES)] for row in range(len(names))]
    # Absolute paths lie below tmp_path, so that a failure of this test writes nowhere else.
    splits = [("../../y", f"{tmp_path}/y", "..", "manifest.csv")[row % 4] for row in range(len(names))]
    inner = tmp_path / "one" / "two"
    inner.mkdir(parents=True)
    (tmp_path / "one" / "x").write_text("mine")
    sequence = SplitSequence(write_rows(tmp_path / "a.h5", names, classes, {"split": splits}))
    for folder, parts in ((inner / "plain", None), (inner / "parts", sequence.split_by("split"))):
        folder.mkdir()
        before = listing(tmp_path)
        export(sequence, folder, parts=parts)
        after = {path: facts for path, facts in listing(tmp_path).items() if not path.startswith(f"{folder}")}
        assert after == {path: facts for path, facts in before.items() if path != str(folder)}
        lines = table(folder)
        assert [line["filename"] for line in lines] == names
        for row, line in enumerate(lines):
            assert np.array_equal(pixels(folder / line["path"]), pixels_of(str(row)))
        files = [path for path in folder.rglob("*") if path.is_file()]
        assert len(files) == len(names) + 1
        assert not any(path.is_symlink() for path in files)


def test_names_of_files_and_folders_are_valid_on_every_system(tmp_path):
    export(
        SplitSequence(write_rows(tmp_path / "a.h5", ODD + CLASSES, (CLASSES * 9)[: len(ODD + CLASSES)])),
        tmp_path / "out",
    )
    seen = set()
    for line in table(tmp_path / "out"):
        folder, name = line["path"].split("/")
        seen.add(line["path"].casefold())
        for part in (folder, name.removesuffix(".png")):
            assert part.isprintable()
            assert not set(part) & set('<>:"/\\|?*')
            assert part == part.strip(" .")
            assert 0 < len(part.encode()) < 140
            assert part.partition(".")[0].upper() not in ("CON", "PRN", "AUX", "NUL", "COM1")
    assert len(seen) == len(ODD + CLASSES)


def test_equal_file_names_are_distinguished_by_their_row_number(tmp_path):
    path = write_rows(tmp_path / "a.h5", ["x/1/rgb.png", "x/2/rgb.png", "y/1/RGB.jpg", "x/3/rgb.png"], list("aaab"))
    export(SplitSequence(path), tmp_path / "out")
    paths = [line["path"] for line in table(tmp_path / "out")]
    assert paths == ["a/rgb.png", "a/rgb-1.png", "a/RGB-2.png", "b/rgb.png"]


def test_a_row_selected_twice_is_written_twice(sequence, tmp_path):
    assert export(sequence.select([7, 3, 7, 7]), tmp_path / "out") == 4
    again = packed_again(tmp_path / "out")
    assert list(again.filenames) == [NAMES[row] for row in (7, 3, 7, 7)]
    assert [image.tobytes() for image in again.images] == [pixels_of(NAMES[row]).tobytes() for row in (7, 3, 7, 7)]


@pytest.mark.parametrize("inside", ["file", ".hidden", "folder/"])
def test_a_folder_that_is_not_empty_is_refused_and_unchanged(sequence, tmp_path, inside):
    (tmp_path / "out").mkdir()
    if inside.endswith("/"):
        (tmp_path / "out" / inside).mkdir()
    else:
        (tmp_path / "out" / inside).write_text("mine")
    before = listing(tmp_path)
    with pytest.raises(ValueError, match=r"out: expected a new or empty folder, found '.*' in it; name another"):
        export(sequence, tmp_path / "out")
    assert listing(tmp_path) == before


def test_an_existing_file_at_the_output_path_is_an_error(sequence, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(FileExistsError):
        export(sequence, tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"


def test_a_new_folder_an_empty_one_and_a_link_to_an_empty_one_are_accepted(sequence, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there")
    for folder in ("empty", "new/and/deep", "link"):
        assert export(sequence, tmp_path / folder) == 100
        assert len(table(tmp_path / folder)) == 100


def test_a_failed_export_leaves_no_table(sequence, tmp_path):
    def fail(*_):
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        export(sequence, tmp_path / "out", progress=fail)
    assert not (tmp_path / "out" / "manifest.csv").exists()


def test_a_failed_export_says_how_many_images_it_wrote(sequence, tmp_path):
    def fail(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        export(sequence, tmp_path / "out", progress=fail, workers=1)
    there = len(written(tmp_path / "out"))
    expected = (
        f"{tmp_path}/out holds {there} of 100 images, and no manifest.csv that lists them; remove it, or name another"
    )
    assert caught.value.__notes__ == [expected]


# --- other programs change the folder during export


def exported_while(sequence, folder, plant):
    """Export, and call `plant` when all images are written and the table is not."""
    export(sequence, folder, progress=lambda done, total: plant() if done == total else None)


@pytest.mark.parametrize("kind", ["link", "file"])
def test_a_file_or_link_that_appears_in_place_of_the_table_is_not_overwritten(sequence, tmp_path, kind):
    table = tmp_path / "out" / "manifest.csv"
    (tmp_path / "precious").write_text("mine")
    plant = {"link": lambda: table.symlink_to(tmp_path / "precious"), "file": lambda: table.write_text("mine")}[kind]
    with pytest.raises(FileExistsError) as caught:
        exported_while(sequence, tmp_path / "out", plant)
    assert caught.value.filename == str(table)
    assert (tmp_path / "precious").read_text() == table.read_text() == "mine"
    assert table.is_symlink() == (kind == "link")
    assert sorted(os.listdir(tmp_path / "out")) == ["cat", "dog", "emu", "manifest.csv"]


@pytest.mark.parametrize("name", ["out/dog", "out"])
@pytest.mark.parametrize("instead", ["nothing", "a link to it", "another folder"])
def test_a_folder_moved_during_export_is_an_error_that_names_it(sequence, tmp_path, name, instead):
    def plant():
        (tmp_path / name).rename(tmp_path / "moved")
        if instead == "a link to it" and name != "out":
            (tmp_path / name).symlink_to(tmp_path / "moved")
        elif instead == "another folder":
            (tmp_path / name).mkdir()

    with pytest.raises(
        ValueError, match=f"^{tmp_path}/{name}: expected the folder that was made there, found something"
    ):
        exported_while(sequence, tmp_path / "out", plant)
    assert not list(tmp_path.rglob("manifest.csv*"))


@pytest.mark.parametrize("instead", ["link", "folder", "nothing"])
def test_nothing_is_written_into_a_replacement_of_an_output_folder(tmp_path, instead):
    (tmp_path / "elsewhere").mkdir()
    with NewFolder(tmp_path / "out") as folder:
        folder.make("train/cat")
        folder.write("train/cat/a", b"1")
        for place in ("train/cat", "train"):
            (tmp_path / "out" / place).rename(tmp_path / "moved")
            if instead == "link":
                (tmp_path / "out" / place).symlink_to(tmp_path / "elsewhere")
            elif instead == "folder":
                (tmp_path / "out" / place).mkdir()
            before = listing(tmp_path)
            for act in (lambda: folder.write("train/cat/b", b"2"), lambda: folder.make("train/cat/dog")):
                with pytest.raises(ValueError, match="out/train/cat: expected the folder that was made there, found"):
                    act()
            assert listing(tmp_path) == before
            if instead == "link":
                (tmp_path / "out" / place).unlink()
            elif instead == "folder":
                (tmp_path / "out" / place).rmdir()
            (tmp_path / "moved").rename(tmp_path / "out" / place)
        folder.write("train/cat/b", b"2")
    assert (tmp_path / "out" / "train" / "cat" / "b").read_bytes() == b"2"


@pytest.mark.parametrize("kind", ["link", "file", "folder"])
def test_existing_files_links_and_folders_are_never_overwritten(tmp_path, kind):
    plant = {"link": lambda path: path.symlink_to("../x"), "file": Path.touch, "folder": Path.mkdir}
    with NewFolder(tmp_path / "out") as folder:
        for name in ("a", "b", "c"):
            plant[kind](tmp_path / "out" / name)
        before = listing(tmp_path)
        with pytest.raises(FileExistsError, match="out/a"):
            folder.write("a", b"1")
        with pytest.raises(FileExistsError, match="out/b"):
            folder.make("b")
        with pytest.raises(FileExistsError, match="out/c"), folder.last("c") as file:
            file.write("1")
        assert {**listing(tmp_path), str(tmp_path / "out"): None} == {**before, str(tmp_path / "out"): None}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_a_folder_behind_a_link_of_another_user_is_refused(sequence, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there")
    os.lchown(tmp_path / "link", 12345, 12345)
    for name in ("link", "link/"):
        with pytest.raises(ValueError, match="link: expected a path without links of other users"):
            export(sequence, f"{tmp_path}/{name}")
    assert os.listdir(tmp_path / "there") == []


def test_export_without_dir_fd_support_writes_the_same_files(sequence, tmp_path, monkeypatch):
    """Windows has no dir_fd."""
    monkeypatch.setattr("h5split.writing.newfolder._HAS_DIR_FD", False)
    export(sequence, tmp_path / "out", parts=sequence.split_by("split"))
    assert texts(packed_again(tmp_path / "out")) == texts(PackedImages(sequence.packs.packs[0].path))
    with pytest.raises(ValueError, match="out2/dog: expected the folder that was made there, found something else"):
        exported_while(sequence, tmp_path / "out2", lambda: (tmp_path / "out2" / "dog").rename(tmp_path / "moved"))


def test_progress_ends_at_the_number_of_images(sequence, tmp_path):
    seen = []
    export(sequence, tmp_path / "out", workers=1, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(64, 100), (100, 100)]


# --- rows and their order ---------------------------------------------------------------------------------------------


def test_parts_become_folders_and_rows_outside_all_parts_are_omitted(sequence, tmp_path):
    parts = {"train": sequence.select(range(10, 60)), "val": sequence.select([5, 99]), "none": sequence.select([])}
    assert export(sequence, tmp_path / "out", parts=parts) == 52
    lines = table(tmp_path / "out")
    assert [line["filename"] for line in lines] == [NAMES[row] for row in (5, *range(10, 60), 99)]
    for line in lines:
        split = "val" if line["filename"] in (NAMES[5], NAMES[99]) else "train"
        assert (line["split"], line["path"]) == (split, line["filename"].replace("a/", f"{split}/"))
        assert np.array_equal(pixels(tmp_path / "out" / line["path"]), pixels_of(line["filename"]))
    assert len(written(tmp_path / "out")) == 52


def test_parts_split_by_a_column_become_that_column_again(sequence, tmp_path):
    assert export(sequence, tmp_path / "out", parts=sequence.split_by("split")) == 100
    assert sorted(os.listdir(tmp_path / "out")) == ["manifest.csv", "test", "train"]
    assert texts(packed_again(tmp_path / "out")) == texts(PackedImages(sequence.packs.packs[0].path))


def test_rows_keep_the_order_of_the_sequence(sequence, tmp_path):
    chosen = sequence.shuffle(3).select(range(70))
    export(chosen, tmp_path / "out")
    again = packed_again(tmp_path / "out")
    assert list(again.filenames) == list(chosen.filenames)
    assert [again.class_names[label] for label in again.labels] == [
        chosen.classnames[label] for label in chosen.classes
    ]
    for name, image in zip(again.filenames, again.images, strict=True):
        assert np.array_equal(image, pixels_of(name))


@pytest.mark.parametrize("settings", [{"auto_shuffle": True}, {"max_per_class_and_epoch": 2}, {"scale": 1 / 255}])
def test_epoch_settings_do_not_affect_export(plain, tmp_path, settings):
    assert export(SplitSequence(plain, **settings), tmp_path / "out") == 100
    assert [line["filename"] for line in table(tmp_path / "out")] == NAMES


def test_several_packs_are_exported_to_one_table(tmp_path):
    one = write_pack(tmp_path / "1.h5", ["x/cat/a.png", "x/dog/b.png"], {"k": ["1", "2"]})
    two = write_pack(tmp_path / "2.h5", ["y/cat/a.png", "y/ant/c.png"], {"z": ["3", "4"]})
    export(SplitSequence(one, two), tmp_path / "out")
    lines = table(tmp_path / "out")
    assert [line["path"] for line in lines] == ["cat/a.png", "dog/b.png", "cat/a-2.png", "ant/c.png"]
    assert [(line["label"], line["k"], line["z"]) for line in lines] == [
        ("cat", "1", ""),
        ("dog", "2", ""),
        ("cat", "", "3"),
        ("ant", "", "4"),
    ]
    for line in lines:
        assert np.array_equal(pixels(tmp_path / "out" / line["path"]), pixels_of(line["filename"]))


def test_exporting_no_rows_writes_an_empty_table(sequence, tmp_path):
    assert export(sequence.select([]), tmp_path / "out") == 0
    assert table(tmp_path / "out") == []


def test_an_empty_sequence_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="the sequence is empty"):
        export(SplitSequence(), tmp_path / "out")
    assert os.listdir(tmp_path) == []


def test_parts_of_another_pack_are_refused(sequence, tmp_path):
    other = SplitSequence(write_hole(tmp_path / "hole.h5", 200, (8, 8, 3)))
    for rows in ([5], [150]):
        with pytest.raises(ValueError, match="part"):
            export(sequence, tmp_path / "out", parts={"x": other.select(rows)})


def test_packing_an_empty_table_is_an_error(tmp_path, sequence):
    export(sequence, tmp_path / "out", parts={})
    with pytest.raises(PackError, match="no images in"):
        packed_again(tmp_path / "out")


def test_the_output_may_be_a_str_or_a_path(sequence, tmp_path):
    assert export(sequence, str(tmp_path / "one")) == export(sequence, Path(tmp_path / "two")) == 100
