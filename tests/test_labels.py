"""How images get their class names, and classes their numbers."""

from __future__ import annotations

import os
import re
import unicodedata

import numpy as np
import pytest

from conftest import assert_whole, write_classes, write_image
from h5split import PackedImages, SplitSequence
from h5split.file.classes import sorted_classes
from pack_images import PackError, pack
from pack_images.cli import main


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def packed(*sources, **options):
    """Class names, and file name -> class, of a pack of sources."""
    summary = pack(sources, "out.h5", workers=1, **options)
    found = PackedImages("out.h5")
    names = [found.class_names[label] for label in found.labels]
    return [*found.class_names], dict(zip(found.filenames, names, strict=True)), summary


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["10", "9", "2", "0"], ["0", "2", "9", "10"]),
        (["+1", "-1", "0"], ["-1", "0", "+1"]),
        (["01", "1", "0"], ["0", "01", "1"]),
        (["10", "9", "nine"], ["10", "9", "nine"]),
        (["1.5", "10"], ["1.5", "10"]),
        (["9" * 5000, "-" + "9" * 5000, "10", "9"], ["-" + "9" * 5000, "9", "10", "9" * 5000]),
        (["²", "10", "9"], ["10", "9", "²"]),
        ([], []),
    ],
)
def test_classes_are_sorted_by_value_if_all_are_whole_numbers(names, expected):
    assert sorted_classes(names) == expected


def test_labels_that_are_numbers_are_delivered_as_these_numbers(here):
    write_classes(here / "d", {str(number): 2 for number in range(12)})
    names, _, _ = packed("d")
    assert names == [str(number) for number in range(12)]
    sequence = SplitSequence("out.h5", label_mode="int")
    for name, label in zip(sequence.filenames, sequence.classes, strict=True):
        assert int(name.split("/")[1]) == label


def test_packs_with_numbers_for_names_agree_in_whatever_order_they_are_opened(here):
    for root, names in (("a", ("2", "10")), ("b", ("9", "10"))):
        write_classes(here / root, dict.fromkeys(names, 2))
        pack(root, f"{root}.h5", workers=1)
    assert SplitSequence("a.h5", "b.h5").classnames == SplitSequence("b.h5", "a.h5").classnames == ["2", "9", "10"]


PLACES = ("a/airfield", "a/apartment/outdoor", "c/church/outdoor", "c/church/indoor")


@pytest.fixture
def places(here):
    for path in PLACES:
        write_image(here / "places" / path / f"{path.replace('/', '-')}.png")
    os.makedirs(here / "places/d/empty")
    return here


def test_a_class_may_be_the_whole_path(places):
    names, labels, summary = packed("places", labels="path")
    assert names == sorted([*PLACES, "d/empty"])
    assert labels == {f"places/{path}/{path.replace('/', '-')}.png": path for path in PLACES}
    assert summary.warnings == ["classes without images, which keep their numbers: d/empty"]


def test_folders_of_one_name_that_become_one_class_are_said(places):
    names, _, summary = packed("places", labels="parent")
    assert names == ["airfield", "indoor", "outdoor"]
    said = "places: 1 class of several folders, such as outdoor of places/a/apartment/outdoor, places/c/church/outdoor"
    assert summary.warnings == [f"{said}; --labels path keeps them apart"]


def test_a_class_may_be_found_by_a_pattern(here):
    for number in range(6):
        write_image(here / "d" / f"{'cat' if number % 2 else 'dog'}.{number}.png")
    names, labels, _ = packed("d", label_pattern=r"(cat|dog)\.")
    assert names == ["cat", "dog"]
    assert all(name.split("/")[1].startswith(label) for name, label in labels.items())
    write_image(here / "d" / "cow" / "7.png")
    with pytest.raises(PackError, match=r"^d/cow/7\.png: expected a class name in 'cow/7\.png' by --label-pattern"):
        packed("d", label_pattern=r"(cat|dog)\.")
    assert packed("d", label_pattern=r"^(\w+)[./]")[0] == ["cat", "cow", "dog"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_pattern": "cat|dog"}, r"--label-pattern cat\|dog: expected a group for the class name"),
        ({"label_pattern": "(cat"}, r"--label-pattern \(cat: expected a regular expression"),
        ({"label_pattern": re.compile("(cat)")}, "--label-pattern: expected a regular expression as text, found Patt"),
        ({"label_pattern": "(cat)", "labels": "root"}, "expected no other rule, found --labels root; give one of them"),
        (
            {"labels": "grandparent"},
            "labels: expected one of auto, subfolder, parent, path, root, none, found 'grandpa",
        ),
    ],
)
def test_a_rule_that_makes_no_sense_is_an_error(here, options, message):
    write_classes(here / "d", {"cat": 1})
    with pytest.raises(PackError, match=message):
        packed("d", **options)


def test_without_labels_all_images_are_of_one_class(here):
    write_classes(here / "d", {"cat": 3, "dog": 2})
    write_image(here / "d" / "top.png")
    names, labels, summary = packed("d", labels="none")
    assert (names, set(labels.values()), len(labels)) == (["unlabelled"], {"unlabelled"}, 6)
    assert summary.warnings == []


def test_a_pack_as_source_loses_its_labels_if_there_are_to_be_none(here):
    write_classes(here / "d", {"cat": 3, "dog": 2})
    pack("d", "one.h5", workers=1)
    assert packed("one.h5", labels="none")[0] == ["unlabelled"]


PARTS = [("train", "val", "test"), ("Training", "TESTING"), ("dev", "train", "extra")]


@pytest.mark.parametrize("parts", PARTS, ids="-".join)
def test_parts_of_a_data_set_are_told_from_classes(here, parts):
    for part in parts:
        write_classes(here / "data" / part, {"cat": 1, "dog": 1})
    known = " and ".join(sorted(set(parts) - {"extra"}))
    with pytest.raises(
        PackError, match=f"^data: expected class folders, found {known} with folders in them; give data/"
    ):
        packed("data")
    assert packed("data", labels="subfolder")[0] == sorted(parts)
    assert packed("data", labels="parent")[0] == ["cat", "dog"]
    assert packed(*(f"data/{part}" for part in parts))[0] == ["cat", "dog"]


def test_class_folders_that_are_called_as_parts_are_but_have_no_folders_are_classes(here):
    write_classes(here / "d", {"test": 2, "train": 2})
    assert packed("d")[0] == ["test", "train"]
    write_classes(here / "e" / "train", {"cat": 2})
    write_classes(here / "e", {"dog": 2})
    assert packed("e")[0] == ["dog", "train"]


@pytest.mark.parametrize("outer", ["", "wrapper/", "a/b/"])
def test_a_part_without_class_folders_beside_one_with_them_is_told_too(here, outer):
    write_classes(here / f"k/{outer}train", {"cat": 1, "dog": 1})
    write_image(here / f"k/{outer}test" / "1.png")
    (here / f"k/{outer}holdout").mkdir()
    with pytest.raises(
        PackError,
        match=rf"^k: expected class folders, found holdout and test and train with folders in train; give k/{outer}tra",
    ):
        packed("k")
    assert packed(f"k/{outer}train")[0] == ["cat", "dog"]
    assert len(packed("k", labels="subfolder")[0]) == (1 if outer else 3)


def test_parts_within_class_folders_are_no_parts_of_the_data_set(here):
    for name in ("cat", "dog"):
        write_classes(here / "d" / name / "train", {"a": 1})
        write_classes(here / "d" / name / "test", {"a": 1})
    assert packed("d")[0] == ["cat", "dog"]


def test_folders_that_each_hold_the_same_folders_may_be_no_classes(here):
    for name in ("root-1", "root-2"):
        write_classes(here / "d" / name, {"cat": 1, "dog": 1})
    (here / "d/root-3").mkdir()
    with pytest.raises(
        PackError, match=r"found root-1 and root-2, which each hold cat and dog; give d/\* if those are"
    ):
        packed("d")
    assert packed("d", labels="subfolder")[0][:2] == ["root-1", "root-2"]
    assert packed("d/root-1", "d/root-2")[0] == ["cat", "dog"]


def test_sources_called_as_parts_are_said_to_become_one(here):
    for part in ("train", "val"):
        write_classes(here / "d" / part, {"cat": 1, "dog": 1})
    summary = pack(["d/train", "d/val"], "a.h5", workers=1)
    assert summary.warnings == [
        'd/train and d/val are packed as one data set; split_by("source") of a sequence keeps them apart'
    ]
    write_classes(here, {"train": 2, "test": 2})  # pictures of trains
    assert pack(["train", "test"], "b.h5", workers=1).warnings == []


# --- SOURCES that bring their labels ----------------------------------------------------------------------------------

OWN = {"a pack": "one.h5", "a table": "t.csv", "a list": "l.txt", "a reader": "d"}


@pytest.fixture
def own(here):
    """A pack, a table, a list and a folder, each of the files d/cat/d-cat-0.png and d/dog/d-dog-0.png."""
    write_classes(here / "d", {"cat": 1, "dog": 1})
    write_classes(here / "e", {"emu": 1})
    pack("d", "one.h5", workers=1)
    lines = ["d/cat/d-cat-0.png,X", "d/dog/d-dog-0.png,Y"]
    (here / "t.csv").write_text("\n".join(["path,label", *lines]))
    (here / "l.txt").write_text("\n".join(lines))
    return here


def packed_from(source, *others, **options):
    if source.endswith((".csv", ".txt")):
        return packed(*others, manifest=source, **options)
    if source == "d":
        options["reader"] = reader_of({"cat": 0, "dog": 1})
    return packed(source, *others, **options)


@pytest.mark.parametrize("source", OWN.values(), ids=OWN)
@pytest.mark.parametrize(
    ("rule", "option"),
    [({"labels": "parent"}, "--labels parent"), ({"label_pattern": "(c|d)"}, "--label-pattern (c|d)")],
)
def test_a_rule_that_applies_to_no_source_is_an_error(own, source, rule, option):
    message = f"{option}: expected a folder, or a table without labels, found only labels that SOURCES bring themselves"
    with pytest.raises(PackError, match=f"^{re.escape(message)}, {source}; leave the option out$"):
        packed_from(source, **rule)
    assert len(packed_from(source)[0]) == 2
    assert packed_from(source, labels="none")[0] == ["unlabelled"]


@pytest.mark.parametrize("source", ["one.h5", "t.csv", "l.txt"])
def test_a_rule_that_does_not_apply_to_all_sources_is_said(own, source):
    _, labels, summary = packed_from(source, "e", labels="root")
    assert labels["e/emu/e-emu-0.png"] == "e"
    assert set(labels.values()) in ({"e", "cat", "dog"}, {"e", "X", "Y"})
    assert summary.warnings == [f"--labels root does not apply to SOURCES with labels of their own: {source}"]


def test_a_table_without_labels_follows_the_rule(own):
    (own / "t.csv").write_text("path\nd/cat/d-cat-0.png\nd/dog/d-dog-0.png")
    names, _, summary = packed(manifest="t.csv", labels="parent")
    assert (names, summary.warnings) == (["cat", "dog"], [])


# --- Unicode forms ----------------------------------------------------------------------------------------------------


@pytest.fixture
def forms(here):
    """The composed and the decomposed form of a name, each the name of a class folder: d and e."""
    composed, decomposed = (unicodedata.normalize(form, "Café") for form in ("NFC", "NFD"))
    write_classes(here / "d", {composed: 2, "Tee": 1})
    write_classes(here / "e", {decomposed: 3, "Tee": 1})
    return composed, decomposed


def test_given_classes_are_those_of_the_images_in_another_unicode_form(forms):
    composed, decomposed = forms
    said = "one class each, though written in two Unicode forms: "
    for source, given, number in (("d", decomposed, 2), ("e", composed, 3)):
        names, labels, summary = packed(source, classes=["Tee", given])
        assert (names, [*labels.values()].count(given)) == (["Tee", given], number)
        assert summary.warnings == [said + given]
    names, labels, summary = packed("d", "e", classes=[decomposed, "Tee"])
    assert [*labels.values()].count(decomposed) == 5
    names, labels, summary = packed("d", "e", classes=[decomposed, composed, "Tee"])
    assert (summary.classes, summary.warnings) == ({decomposed: 3, composed: 2, "Tee": 2}, [])


def test_a_folder_joins_the_class_of_a_pack_in_the_form_of_the_pack(forms):
    composed, decomposed = forms
    pack("e", "e.h5", workers=1)
    _, _, summary = packed("e.h5", "d")
    assert summary.classes == {decomposed: 5, "Tee": 2}
    assert summary.warnings == [f"one class each, though written in two Unicode forms: {decomposed}"]
    pack("d", "d.h5", workers=1)
    assert packed("e.h5", "d.h5")[2].classes == {composed: 5, "Tee": 2}
    pack("e", "e.h5", classes=["Tee", decomposed], workers=1)
    pack("d", "d.h5", classes=["Tee", composed], workers=1)
    assert packed("e.h5", "d.h5")[0] == ["Tee", composed]


def test_two_forms_in_one_list_of_a_program_stay_two_classes(forms, here):
    composed, decomposed = forms
    names = [f"d/{composed}/d-{composed}-0.png", f"e/{decomposed}/e-{decomposed}-0.png"]
    packed("d", reader=lambda path: (names, [0, 1], [composed, decomposed], [0, 1]))
    os.rename("out.h5", "both.h5")
    assert packed("both.h5")[2].classes == {decomposed: 1, composed: 1}
    assert SplitSequence("both.h5").classnames == [composed, decomposed]


def test_a_sequence_merges_classes_of_packs_in_two_unicode_forms(forms):
    composed, _ = forms
    pack("d", "d.h5", workers=1)
    pack("e", "e.h5", workers=1)
    for paths in (("d.h5", "e.h5"), ("e.h5", "d.h5")):
        sequence = SplitSequence(*paths, label_mode="int")
        assert sequence.classnames == [composed, "Tee"]
        for name, label in zip(sequence.filenames, sequence.classes, strict=True):
            assert unicodedata.normalize("NFC", name.split("/")[1]) == sequence.classnames[label]
    other = SplitSequence("e.h5", classes=SplitSequence("d.h5").classnames[::-1])
    assert other.classnames == ["Tee", composed]
    assert [*other.classes].count(1) == 3
    renamed = SplitSequence("e.h5", classes={composed: "drink", "Tee": "drink"})
    assert [*renamed.classes] == [0] * 4


def test_a_class_in_two_unicode_forms_is_one_and_that_is_said(here):
    composed, decomposed = (unicodedata.normalize(form, "Café") for form in ("NFC", "NFD"))
    write_classes(here / "a", {composed: 2, "Tee": 1})
    write_classes(here / "b", {decomposed: 3, "Tee": 1})
    names, labels, summary = packed("a", "b")
    assert (names, [*labels.values()].count(composed)) == ([composed, "Tee"], 5)
    assert summary.warnings == [f"one class each, though written in two Unicode forms: {composed}"]
    assert packed("b")[0] == [decomposed, "Tee"]


# --- numbers of readers ----------------------------------------------------------------------------------------------


def reader_of(numbers):
    """A reader that numbers class folders so, in every SOURCE."""

    def read(path):
        names = sorted(
            f"{path}/{folder}/{name}" for folder in os.listdir(path) for name in os.listdir(f"{path}/{folder}")
        )
        of = numbers.get(path, numbers)
        return names, [of[name.split("/")[-2]] for name in names], [*of], [*of.values()]

    return read


def test_the_numbers_of_a_reader_are_kept(here):
    write_classes(here / "d", {"abnormal": 2, "normal": 3})
    names, _, summary = packed("d", reader=reader_of({"abnormal": 1, "normal": 0}))
    assert names == ["normal", "abnormal"]
    assert summary.warnings == []
    labels = np.concatenate([labels for _, labels in SplitSequence("out.h5", label_mode="binary")])
    assert labels.sum() == 2
    assert_whole("out.h5", 5)


def test_readers_that_agree_are_merged_and_others_are_an_error(here):
    write_classes(here / "d", {"cat": 2, "dog": 3})
    write_classes(here / "e", {"cat": 2, "emu": 3})
    numbers = {"d": {"cat": 2, "dog": 0}, "e": {"cat": 2, "emu": 1}}
    assert packed("d", "e", reader=reader_of(numbers))[0] == ["dog", "emu", "cat"]
    for other, message in (
        ({"cat": 1, "emu": 3}, "class 'cat' is number 2 in d and number 1 in e; --classes gives the order of all"),
        ({"cat": 2, "emu": 0}, "class number 0 is 'dog' in d and 'emu' in e; --classes gives the order of all"),
    ):
        with pytest.raises(PackError, match=message):
            packed("d", "e", reader=reader_of(numbers | {"e": other}))
        names = packed("d", "e", reader=reader_of(numbers | {"e": other}), classes=["emu", "cat", "dog"])[0]
        assert names == ["emu", "cat", "dog"]


def test_gaps_in_the_numbers_of_a_reader_are_said(here):
    write_classes(here / "d", {"cat": 2, "dog": 3})
    names, _, summary = packed("d", reader=reader_of({"cat": 20, "dog": 10}))
    assert names == ["dog", "cat"]
    assert summary.warnings == ["classes are numbered from 0 without gaps, in the order of the reader's numbers 10, 20"]


def test_the_command_takes_the_rules(here, capsys):
    write_classes(here / "d", {"cat": 2})
    assert main(["d", "-o", "out.h5", "--label-pattern", r"(\w+)-\d", "--quiet"]) == 0
    assert PackedImages("out.h5").class_names == ("cat",)
    assert PackedImages("out.h5").header.settings["label_pattern"] == r"(\w+)-\d"
    assert main(["d", "-o", "out.h5", "--labels", "none", "--quiet"]) == 0
    assert PackedImages("out.h5").class_names == ("unlabelled",)
    assert "label_pattern" not in PackedImages("out.h5").header.settings
    assert main(["d", "-o", "out.h5", "--labels", "none", "--label-pattern", "(x)"]) == 1
    assert capsys.readouterr().err == (
        "pack-images: --label-pattern: expected no other rule, found --labels none; give one of them\n"
    )
