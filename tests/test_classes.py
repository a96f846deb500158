"""Tests of class names and class numbers: from folders, tables, packs, and given names."""

from __future__ import annotations

import re
import shlex

import pytest

from conftest import assert_rows_are_who_they_say, write_classes, write_pack
from h5split import PackedImages, SplitSequence
from h5split.cli import main as h5split
from pack_images import Manifest, PackError, pack
from pack_images.cli import main
from pack_images.find.classes import read_classes
from pack_images.find.labels import LabelRule
from pack_images.find.scan import scan


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def folders(here, *paths):
    for path in paths:
        (here / path).mkdir(parents=True, exist_ok=True)


def found(*sources, labels="auto"):
    return sorted({*(table := scan(sources, LabelRule(labels))).class_names, *table.labels})


def numbers(path):
    """Return file name -> class number of a pack, after checking its rows."""
    packed = PackedImages(path)
    assert_rows_are_who_they_say(packed.images, [packed.class_names[at] for at in packed.labels], packed.filenames)
    return dict(zip(packed.filenames, packed.labels.tolist(), strict=True))


# --- class folders without images ------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", ["auto", "subfolder"])
def test_a_class_folder_without_images_is_a_class(here, labels):
    write_classes(here / "d", {"cat": 1, "emu": 1})
    folders(here, "d/dog", "d/fox/a/b", "d/.hidden", "d/__MACOSX", "d/cat/old")
    (here / "d/fox/notes.txt").write_text("none yet")
    assert found("d", labels=labels) == ["cat", "dog", "emu", "fox"]
    assert found("d", labels="parent") == ["cat", "emu"]


def test_a_source_without_images_is_a_class_when_sources_are_class_folders(here):
    write_classes(here / "d", {"cat": 1, "emu": 1})
    folders(here, "d/dog", "d/fox/young")
    assert found("d/cat", "d/dog", "d/emu", "d/fox") == ["cat", "dog", "emu", "fox"]
    assert found("d/cat", "d/dog", labels="root") == ["cat", "dog"]


def test_a_root_without_images_contributes_its_class_folders(here):
    write_classes(here / "one", {"cat": 1})
    folders(here, "two/cat", "two/dog", "three")
    assert found("one", "two", "three") == ["cat", "dog"]
    assert scan(["one", "three"]).passed_over == [("three", "no images in it")]


def test_class_folders_without_images_keep_class_numbers_equal_across_packs(here):
    write_classes(here / "train", {"cat": 2, "deer": 2, "dog": 2})
    write_classes(here / "val", {"cat": 1, "dog": 1})
    folders(here, "val/deer")
    pack("train", "train.h5", workers=1)
    summary = pack("val", "val.h5", workers=1)
    assert PackedImages("val.h5").class_names == PackedImages("train.h5").class_names == ("cat", "deer", "dog")
    assert summary.classes == {"cat": 1, "deer": 0, "dog": 1}
    assert list(summary.warnings) == ["classes without images, which keep their numbers: deer"]


def test_quiet_and_dry_run_warn_of_classes_without_images(here, capsys):
    write_classes(here / "d", {"cat": 1})
    folders(here, "d/dog")
    line = "pack-images: classes without images, which keep their numbers: dog\n"
    assert main(["d", "-o", "o.h5", "--quiet"]) == 0
    assert capsys.readouterr().err == line
    assert main(["d", "-o", "p.h5", "--dry-run"]) == 0
    assert capsys.readouterr().err == line


# --- packs -----------------------------------------------------------------------------------------------------------


def test_a_pack_as_source_keeps_its_classes(here):
    write_classes(here / "d", {"ant": 2, "cow": 2})
    folders(here, "d/bee")
    pack("d", "one.h5", workers=1)
    assert pack("one.h5", "two.h5", workers=1).classes == {"ant": 2, "bee": 0, "cow": 2}
    assert numbers("two.h5") == numbers("one.h5")


def test_a_pack_as_source_keeps_its_class_order_and_conflicts_are_errors(here):
    write_classes(here / "d", {"ant": 2, "bee": 1, "cow": 2})
    write_classes(here / "e", {"bee": 1})
    write_classes(here / "f", {"fox": 1})
    pack("d", "one.h5", classes=["cow", "ant", "bee"], workers=1)
    pack(["one.h5", "e"], "two.h5", workers=1)
    assert PackedImages("two.h5").class_names == ("cow", "ant", "bee")
    assert numbers("one.h5").items() <= numbers("two.h5").items()
    with pytest.raises(PackError, match=r"one\.h5 numbers its classes itself, and 'fox' is not among them; --c"):
        pack(["one.h5", "f"], "three.h5", workers=1)
    write_classes(here / "g", {"ant": 1, "bee": 1, "cow": 1})
    pack("g", "four.h5", classes=["cow", "bee", "ant"], workers=1)
    message = r"class 'bee' is number 2 in one\.h5 and number 1 in four\.h5; --classes gives the order of all"
    with pytest.raises(PackError, match=message):
        pack(["one.h5", "four.h5"], "five.h5", workers=1)
    pack(["one.h5", "four.h5"], "five.h5", classes="one.h5", workers=1)
    assert PackedImages("five.h5").class_names == ("cow", "ant", "bee")


def test_a_sequence_keeps_the_class_order_its_packs_share_and_sorts_otherwise(here):
    write_classes(here / "d", {"ant": 2, "bee": 1})
    write_classes(here / "e", {"ant": 1, "bee": 1})
    for name in "de":
        pack(name, f"{name}.h5", classes="bee,ant", workers=1)
    assert SplitSequence("d.h5", "e.h5").classnames == ["bee", "ant"]
    pack("e", "sorted.h5", workers=1)
    assert SplitSequence("d.h5", "sorted.h5").classnames == ["ant", "bee"]


# --- given classes ----------------------------------------------------------------------------------------------------


def test_given_classes_set_the_order_and_images_of_other_classes_are_skipped(here, capsys):
    write_classes(here / "d", {"ant": 2, "bee": 1, "cow": 3, "dog": 1})
    assert main(["d", "-o", "o.h5", "--classes", "cow, bee,ape", "--quiet"]) == 0
    assert capsys.readouterr().err == (
        "pack-images: classes without images, which keep their numbers: ape\n"
        "pack-images: passed over: 3 images of classes that were not asked for: ant, dog\n"
    )
    packed = PackedImages("o.h5")
    assert packed.class_names == ("cow", "bee", "ape")
    assert packed.header.settings["classes"] == "given"
    assert sorted(numbers("o.h5").values()) == [0, 0, 0, 1]


def test_rows_of_the_output_are_not_lost_to_given_classes(here):
    write_classes(here / "d", {"ant": 1, "bee": 2})
    pack("d", "all.h5", workers=1)
    (here / "d/ant/d-ant-0.png").unlink()
    before = (here / "all.h5").read_bytes()
    message = (
        r"^all\.h5 is a SOURCE too: expected --classes with all its classes, .* found none for {}; give another --o"
    )
    for classes, lost in (("bee", "1 row, such as 'ant'"), ("ant", "2 rows, such as 'bee'"), ("cow", "3 rows, .*")):
        with pytest.raises(PackError, match=message.format(lost)):
            pack(["all.h5", "d"], "all.h5", classes=classes, workers=1)
        assert (here / "all.h5").read_bytes() == before
    assert pack("all.h5", "bees.h5", classes="bee", workers=1).classes == {"bee": 2}
    assert pack(["all.h5", "d"], "all.h5", classes="bee,ant,cow", workers=1).classes == {"bee": 2, "ant": 1, "cow": 0}


def test_one_row_that_is_kept_is_said_in_the_singular(here):
    write_classes(here / "d", {"ant": 1})
    pack("d", "all.h5", workers=1)
    summary = pack(["all.h5", "d"], "all.h5", workers=1)
    assert summary.warnings == ["all.h5 is a SOURCE too: its 1 row is kept, also of files that are gone or moved"]


def test_settings_omit_classes_when_none_are_given(here):
    write_classes(here / "d", {"ant": 2})
    pack("d", "o.h5", workers=1)
    assert "classes" not in PackedImages("o.h5").header.settings


def test_classes_come_from_a_file_a_pack_or_a_list(here):
    (here / "c.txt").write_bytes('\ufefftench, Tinca tinca\r\n\r\n  cat \n"new\\nline"\n" x "\n'.encode() + b"\xff\n")
    assert read_classes("c.txt") == ("tench, Tinca tinca", "cat", "new\nline", " x ", "\udcff")
    assert read_classes(here / "c.txt") == read_classes("c.txt")
    write_pack(here / "p.h5", ["x/cat/a", "x/ant/b"])
    assert read_classes("p.h5") == ("ant", "cat")
    assert read_classes("b") == ("b",)
    assert read_classes(["b", "a,c"]) == ("b", "a,c")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("a,,b", "classes: expected names, found ''"),
        ("a,b,a", "classes: expected each name once, found 'a' twice"),
        ("none.txt", r"--classes none\.txt: expected a file with a name a line, a pack, or A,B,C; there is no such"),
        ("bad.txt", r"bad\.txt, line 2: expected a name, or a string of JSON"),
        ("empty.txt", "classes: expected names, found none"),
        ([], "classes: expected names, found none"),
        ([3], "classes: expected names, found 3"),
        (3, "classes: expected values in their order, in a list or an array, found 3; give a list$"),
        ({"ant", "bee"}, "classes: expected values in their order, in a list or an array, found a set; give a list$"),
        (frozenset(["ant"]), "found a frozenset; give a list$"),
        (
            {"ant": "bee"},
            "0 to 0 once, found {'ant': 'bee'}; the setting classes of a SplitSequence renames and merges$",
        ),
        (
            {"ant": 0, "bee": 2},
            "a dict of name -> number with each number from 0 to 1 once, found {'ant': 0, 'bee': 2}",
        ),
        ("bee", "classes: expected names of classes that have images, such as 'ant', found 'bee'"),
        (["ant", "a\0"], r"class 'a\\x00': expected no NUL character at its end"),
        (["ant", "\ud800"], r"class '\\ud800': expected text, found half a surrogate pair"),
        (["ant", "\xe9", "\udcc3\udca9"], r"classes 'é' and '\\udcc3\\udca9' would be stored as one; give one of them"),
    ],
)
def test_invalid_classes_are_errors(here, given, message):
    write_classes(here / "d", {"ant": 1})
    (here / "bad.txt").write_text('cat\n"dog\n')
    (here / "empty.txt").write_text("\n")
    with pytest.raises(PackError, match=message):
        pack("d", "o.h5", classes=given, workers=1)


def test_table_classes_that_would_be_stored_as_one_are_refused_and_both_named(here):
    write_classes(here / "d", {"cat": 2})
    names = ["d/cat/d-cat-0.png", "d/cat/d-cat-1.png"]
    for other in ("cat\0", "cat\0\0"):
        with pytest.raises(PackError, match=re.escape(f"classes 'cat' and {other!r} would be stored as one")):
            pack("d", "o.h5", reader=lambda path, other=other: (names, [0, 1], ["cat", other], [0, 1]), workers=1)


# --- export and pack again --------------------------------------------------------------------------------------------


def exported_and_packed(capsys, *arguments):
    """Export with h5split, run the pack-images command that it prints, and return that command."""
    assert h5split(["export", *arguments]) == 0
    command = shlex.split(capsys.readouterr().out.splitlines()[-1])
    assert main([*command[1:], "--quiet"]) == 0
    return command


def test_export_keeps_class_numbers(here, capsys):
    write_classes(here / "d", {"ant": 2, "cow": 2})
    (here / "d/bee").mkdir()
    (here / "d/bee/broken.png").write_bytes(b"no picture")
    pack("d", "one.h5", workers=1)
    assert "--classes" in exported_and_packed(capsys, "one.h5", "out")
    assert (here / "out/classes.txt").read_text() == "ant\nbee\ncow\n"
    assert PackedImages("AGAIN.h5").class_names == PackedImages("one.h5").class_names
    assert numbers("AGAIN.h5") == numbers("one.h5")


def test_export_keeps_classes_of_any_name_in_any_order(here, capsys):
    odd = [" cat", 'q"', '"', "new\nline", "carriage\r", "\udcff", "\u3000", "a,b", "\ufeffmark", "#", "\u2028"]
    write_classes(here / "d", {"cat": 1})
    pack("d", "o.h5", classes=["\ufeffdog", "cat", *odd], workers=1)
    assert "--classes" in exported_and_packed(capsys, "o.h5", "out")
    assert PackedImages("AGAIN.h5").class_names == ("\ufeffdog", "cat", *odd)


def test_export_writes_classes_txt_only_if_the_table_does_not_imply_it(here, capsys):
    write_classes(here / "d", {"ant": 2, "cow": 2})
    pack("d", "one.h5", workers=1)
    assert "--classes" not in exported_and_packed(capsys, "one.h5", "out")
    assert not (here / "out/classes.txt").exists()
    assert "--classes" in exported_and_packed(capsys, "one.h5", "cows", "--rows", "0")
    assert PackedImages("AGAIN.h5").class_names == ("ant", "cow")


def test_given_classes_apply_to_a_manifest(here):
    write_classes(here / "d", {"ant": 1, "cow": 1})
    (here / "t.csv").write_text("path,label\nd/ant/d-ant-0.png,ant\nd/cow/d-cow-0.png,cow\n")
    pack([], "o.h5", manifest=Manifest("t.csv"), classes=["cow", "ant"], workers=1)
    assert numbers("o.h5") == {"d/ant/d-ant-0.png": 1, "d/cow/d-cow-0.png": 0}
