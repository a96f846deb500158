"""Labels by a table of file names: rows change their label, and nothing else."""

from __future__ import annotations

import hashlib
import os
import re

import numpy as np
import pytest

from conftest import names_in, pixels_of, write_classes, write_pack
from h5split import PackedImages, SplitSequence
from h5split.commands.verify import verify, verify_sources
from pack_images import PackError, pack
from pack_images.cli import main
from pack_images.find.relabel import relabelled
from pack_images.find.sources import Sources

COUNTS = {"cat": 6, "dgo": 2, "dog": 5}
NAMES = names_in("data", COUNTS)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_classes(tmp_path / "data", COUNTS)
    pack(["data"], "old.h5", workers=1)
    return tmp_path


def write_table(*lines):
    with open("labels.csv", "w") as file:
        file.writelines(f"{line}\n" for line in ("filename,label", *lines))
    return "labels.csv"


def assert_labels(path, expected):
    """Check that a pack has these files, each with this label and its own pixels and digest."""
    packed = PackedImages(path)
    assert sorted(packed.filenames) == sorted(expected)
    for name, label, image, digest in zip(packed.filenames, packed.labels, packed.images, packed.digests, strict=True):
        assert packed.class_names[label] == expected[name]
        assert np.array_equal(image, pixels_of(name))
        with open(name, "rb") as file:
            assert hashlib.sha256(file.read()).digest() == digest.tobytes()
    assert verify(packed).intact
    assert set(verify_sources(packed)) == {"same"}
    return packed


def labels_of(changes):
    return {name: changes.get(name, name.split("/")[1]) for name in NAMES if changes.get(name) != ""}


MISSPELT = [f"data/dgo/data-dgo-{number}.png" for number in range(2)]
CHANGES = {MISSPELT[0]: "dog", MISSPELT[1]: "dog", "data/cat/data-cat-3.png": "emu", "data/cat/data-cat-4.png": ""}


@pytest.mark.parametrize("source", ["old.h5", "data"], ids=["pack", "folder"])
def test_rows_get_the_labels_of_the_table(capsys, source):
    table = write_table(*(f"{name},{label}" for name, label in CHANGES.items()))
    assert main([source, "-o", "new.h5", "--relabel", table]) == 0
    packed = assert_labels("new.h5", labels_of(CHANGES))
    assert packed.class_names == ("cat", "dgo", "dog", "emu")
    shown = capsys.readouterr()
    assert "classes without images, which keep their numbers: dgo" in shown.err
    assert "passed over: data/cat/data-cat-4.png (its label in labels.csv is empty)" in shown.err


def test_nothing_of_a_pack_is_decoded():
    summary = pack(["old.h5"], "new.h5", relabel=CHANGES, workers=1)
    assert (summary.decoded, summary.copied, summary.rows) == (0, 12, 12)
    assert_labels("new.h5", labels_of(CHANGES))
    assert summary.passed_over == [("data/cat/data-cat-4.png", "its label in the mapping is empty")]


def test_a_pack_can_be_relabelled_in_place():
    pack(["old.h5"], "old.h5", relabel=CHANGES, workers=1)
    assert_labels("old.h5", labels_of(CHANGES))


def test_a_file_and_its_row_are_one_image():
    pack(["old.h5", "data"], "old.h5", relabel={MISSPELT[0]: "dog"}, workers=1)
    assert_labels("old.h5", labels_of({MISSPELT[0]: "dog"}))


def test_the_order_and_number_of_classes_can_be_given_too():
    pack(["old.h5"], "new.h5", relabel=CHANGES, classes=["emu", "dog", "cat"], workers=1)
    packed = assert_labels("new.h5", labels_of(CHANGES))
    assert packed.class_names == ("emu", "dog", "cat")


def test_rows_without_labels_get_them_later():
    pack(["data"], "test.h5", labels="none", workers=1)
    pack(["test.h5"], "new.h5", relabel={name: name.split("/")[1] for name in NAMES}, workers=1)
    assert assert_labels("new.h5", labels_of({})).class_names == ("cat", "dgo", "dog")
    part = dict.fromkeys(NAMES[:3], "seen")
    pack(["test.h5"], "part.h5", relabel=part, workers=1)
    assert_labels("part.h5", {name: part.get(name, "unlabelled") for name in NAMES})


def test_a_saved_selection_is_relabelled_without_decoding():
    cleaned = SplitSequence("old.h5", classes={"cat": "cat", "dog": "dog", "dgo": "dog"}).select(label="dog")
    cleaned.save("dogs.h5")
    summary = pack(["dogs.h5"], "dogs.h5", relabel={MISSPELT[1]: "wolf"}, workers=1)
    assert (summary.decoded, summary.rows) == (0, 7)
    expected = {name: "dog" for name in NAMES if "/cat/" not in name} | {MISSPELT[1]: "wolf"}
    assert_labels("dogs.h5", expected)


@pytest.mark.parametrize(
    ("heading", "line", "encoding"),
    [
        ("filename,label", "{},dog", "utf-16"),
        ("filename,label", "{},dog", "utf-8-sig"),
        ("filename;label", "{};dog", "utf-8"),
        ("filename\tlabel", "{}\tdog", "utf-8"),
        ("Filename, LABEL", "{},dog", "utf-8"),
        ("label,note,filename", "dog,1,{}", "utf-8"),
        ("filename,label", "{}, dog ", "utf-8"),
    ],
    ids=["utf-16", "mark", "semicolon", "tab", "case", "order", "spaces"],
)
def test_a_table_may_be_written_as_a_manifest_may(here, heading, line, encoding):
    lines = [heading, *(line.format(name) for name in MISSPELT), ""]
    (here / "labels.csv").write_bytes("\n".join(lines).encode(encoding))
    pack(["old.h5"], "new.h5", relabel="labels.csv", workers=1)
    assert_labels("new.h5", labels_of(dict.fromkeys(MISSPELT, "dog")))


def test_a_label_of_spaces_is_an_empty_one():
    pack(["old.h5"], "new.h5", relabel=write_table(f"{MISSPELT[0]},   "), workers=1)
    assert_labels("new.h5", labels_of({MISSPELT[0]: ""}))


def test_a_table_that_is_not_utf_8_is_refused(here):
    (here / "labels.csv").write_bytes(f"filename,label\n{NAMES[0]},dog\n{MISSPELT[0]},caf\xe9\n".encode("latin-1"))
    expected = r"labels\.csv, line 3: expected text in UTF-8, found 'caf\\udce9'; save the table in UTF-8"
    with pytest.raises(PackError, match=expected):
        pack(["old.h5"], "new.h5", relabel="labels.csv", workers=1)


def test_names_that_are_not_utf_8_can_be_given_other_labels(here):
    name = os.fsdecode(b"caf\xe9.png")
    os.rename(MISSPELT[0], here / "data/dgo" / name)
    pack(["data"], "old.h5", workers=1)
    (here / "labels.csv").write_bytes(b"filename,label\ndata/dgo/caf\xe9.png,dog\n")
    pack(["old.h5"], "new.h5", relabel="labels.csv", workers=1)
    packed = PackedImages("new.h5")
    row = list(packed.filenames).index(f"data/dgo/{name}")
    assert packed.class_names[packed.labels[row]] == "dog"


def test_only_images_that_the_table_names_are_passed_over():
    """A pack of another program may have a class whose name is empty."""
    found = Sources(["a", "b", "c"], ["", "dog", ""], ["a", "b", "c"], {"source": [""] * 3})
    changed = relabelled(found, {"b": "emu"})
    assert (changed.filenames, changed.labels, changed.passed_over) == (["a", "b", "c"], ["", "emu", ""], [])


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["data/cat/none.png,dog"], "expected names of images, such as 'data/"),
        (
            [f"{MISSPELT[0]},dog", f"{MISSPELT[0]},cat"],
            "expected one label for 'data/dgo/data-dgo-0.png', found 'dog' and",
        ),
        ([f"{name}," for name in NAMES], "expected a label for some of the images, found none for all 13"),
        ([f"{MISSPELT[0]},dog,more"], "labels.csv, line 2: expected 2 fields"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(capsys, lines, message):
    assert main(["old.h5", "-o", "new.h5", "--relabel", write_table(*lines)]) == 1
    error = capsys.readouterr().err
    assert re.match(rf"pack-images: labels\.csv.*{re.escape(message.removeprefix('labels.csv'))}.*\n$", error), error
    assert not os.path.exists("new.h5")


def test_a_name_of_several_rows_is_refused(here):
    write_pack(here / "twins.h5", ["a/cat/1.png", "a/cat/1.png"])
    with pytest.raises(PackError, match=r"expected names of single images, found 'a/cat/1\.png', which 2 have"):
        pack(["twins.h5"], "new.h5", relabel={"a/cat/1.png": "dog"}, workers=1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("none.csv", r"none\.csv: expected a CSV file with the columns filename and label, found none there"),
        ("data/dog/data-dog-0.png", r"data-dog-0\.png.*expected"),
        ({MISSPELT[0]: 3}, "the mapping: expected a text as the label of 'data/dgo/data-dgo-0.png', found 3"),
        ({MISSPELT[0]: None}, "the mapping: expected a text as the label"),
        (
            ["dog"],
            r"relabel: expected a dict of file name -> label, or the path of a CSV file, found a list of 1 values",
        ),
        ("data", r"data: expected a CSV file with the columns filename and label, found none there"),
    ],
)
def test_something_else_than_a_table_is_refused(given, message):
    with pytest.raises(PackError, match=message):
        pack(["old.h5"], "new.h5", relabel=given, workers=1)


def test_a_table_with_other_columns_is_refused(here):
    (here / "labels.csv").write_text("path,label\na,b\n")
    expected = (
        r"labels\.csv: expected the columns filename and label, found \['path', 'label'\]; write filename,label as"
    )
    with pytest.raises(PackError, match=expected):
        pack(["old.h5"], "new.h5", relabel="labels.csv", workers=1)
