"""Manifests: CSV tables of image paths and labels, in the forms users write them."""

from __future__ import annotations

import os
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from conftest import SHARED, assert_rows_are_who_they_say, needs_shared, write_classes
from h5split import PackedImages, SplitSequence
from h5split.writing.tables import write_table
from pack_images import Manifest, PackError, pack, preview
from pack_images.cli import main
from pack_images.find.labels import LabelRule


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_classes(tmp_path / "data", {"cat": 3, "dog": 4})
    return tmp_path


@pytest.fixture
def pd():
    return pytest.importorskip("pandas")


def table(here, text, name="table.csv"):
    (here / name).write_text(text)
    return name


def write_rows(path, heading, lines):
    with open(path, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        write_table(file, heading, lines)


def images(here):
    return sorted(str(path.relative_to(here)) for path in (here / "data").rglob("*.png"))


def rows(here, **options):
    found = Manifest("table.csv", **options).read()
    return list(zip(found.filenames, found.labels, strict=True))


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize(
    "heading", [("path", "label"), ("Filename", "CLASS"), ("image", "category"), ("file", "target")]
)
def test_delimiter_and_columns_are_detected(here, delimiter, heading):
    lines = [heading, *((name, name.split("/")[1]) for name in images(here))]
    table(here, "\n".join(delimiter.join(line) for line in lines))
    assert rows(here) == [(name, name.split("/")[1]) for name in images(here)]


def test_rows_get_the_labels_of_the_manifest_and_its_other_columns_are_kept(here):
    lines = [
        f"{name},{name.split('/')[1]},{'train' if index % 2 else 'test'},p{index}"
        for index, name in enumerate(images(here))
    ]
    table(here, "\n".join(["path,label,split,patient", *lines]))
    pack([], "out.h5", manifest=Manifest("table.csv"), workers=1)
    packed = PackedImages("out.h5")
    assert_rows_are_who_they_say(
        packed.images, [packed.class_names[label] for label in packed.labels], packed.filenames
    )
    assert sorted(packed.columns) == ["patient", "source", "split"]
    for name, split, patient, source in zip(
        packed.filenames, *(packed.columns[name] for name in ("split", "patient", "source")), strict=True
    ):
        index = images(here).index(name)
        assert (split, patient, source) == (("train" if index % 2 else "test"), f"p{index}", "table.csv")
    parts = SplitSequence("out.h5").split_by("split")
    assert {name: len(part.classes) for name, part in parts.items()} == {"test": 4, "train": 3}


def test_paths_are_relative_to_the_table_or_root_and_may_use_backslashes(here):
    (here / "tables").mkdir()
    table(here, "path,label\n..\\data\\cat\\data-cat-0.png,cat\n", "tables/table.csv")
    assert Manifest("tables/table.csv").read().filenames == ["tables/../data/cat/data-cat-0.png"]
    table(here, "path,label\nimg\\cat\\data-cat-0.png,cat\nimg/dog\\data-dog-0.png,dog\n/absolute/x.png,dog\n")
    assert [name for name, _ in rows(here, root="data", strip_prefix="img")] == [
        "data/cat/data-cat-0.png",
        "data/dog/data-dog-0.png",
        "/absolute/x.png",
    ]
    assert rows(here, root="data", strip_prefix="img\\") == rows(here, root="data", strip_prefix="img/")
    assert rows(here, root="data", strip_prefix="im")[0][0] == "data/img/cat/data-cat-0.png"


def test_a_missing_file_is_left_out_and_reported(here):
    table(here, "path,label\ndata/cat/data-cat-0.png,cat\ndata/cat/gone.png,cat\ndata/cat,cat\n")
    summary = pack([], "out.h5", manifest=Manifest("table.csv"), workers=1)
    assert summary.rows == 1
    assert list(summary.skipped) == [
        ("data/cat", "cannot be read (not a regular file)"),
        ("data/cat/gone.png", "cannot be read (No such file or directory)"),
    ]


def test_the_error_suggests_root_when_every_file_is_missing(here):
    table(here, "path,label\ncat/data-cat-0.png,cat\ndog/data-dog-0.png,dog\n")
    for size in (None, 8):
        with pytest.raises(PackError, match=r"expected 2 files, found 2 missing, such as .*; --root says where"):
            pack([], "out.h5", manifest=Manifest("table.csv"), size=size, workers=1)


def test_ids_without_extension_are_found_below_the_root(here):
    table(here, "id,label\ndata-cat-0,cat\ndata-dog-1,dog\n")
    for root, start in (("data", "data/"), ("data/cat/..", "data/cat/../"), (".", "data/")):
        found = Manifest("table.csv", root=root, path_column="id").read()
        assert found.filenames == [f"{start}cat/data-cat-0.png", f"{start}dog/data-dog-1.png"]
    found = Manifest("table.csv", path_column="id").read()
    assert found.filenames == ["data/cat/data-cat-0.png", "data/dog/data-dog-1.png"]


def test_an_id_of_several_files_is_an_error_that_names_them(here):
    shutil.copy("data/cat/data-cat-0.png", "data/cat/data-cat-0.jpg")
    table(here, "id,label\ndata-cat-0,cat\n")
    with pytest.raises(
        PackError, match=r"line 2: expected one file data-cat-0\.\*, found data/cat/.*jpg and data/cat/"
    ):
        Manifest("table.csv", path_column="id").read()


def test_ids_are_not_found_where_a_scan_does_not_look(here):
    hidden = ("@eaDir/thumbnail", ".Trash/trash", "__MACOSX/fork", "cat/.hidden")
    for name in hidden:
        (here / "data" / name).parent.mkdir(exist_ok=True)
        shutil.copy("data/cat/data-cat-0.png", f"data/{name}.png")
    names = [f"data-cat-{row}" for row in range(3)] + [f"data-dog-{row}" for row in range(4)]
    stems = [name.rpartition("/")[2] for name in hidden]
    table(here, "path,label\n" + "".join(f"{name},cat\n" for name in (*names, *stems)))
    summary = pack([], "out.h5", manifest=Manifest("table.csv", root="data"), workers=1)
    assert sorted(PackedImages("out.h5").filenames) == images(here)[-7:]
    assert [name for name, _ in summary.skipped] == sorted(f"data/{stem}" for stem in stems)


def test_an_absolute_path_without_extension_is_no_id_below_the_root(here):
    absolute = f"{here}/data/cat/data-cat-0"
    table(here, f"id,label\n/data-cat-1,cat\n/cat/data-cat-2,cat\n{absolute},cat\n")
    found = Manifest("table.csv", path_column="id").read()
    assert found.filenames == ["/data-cat-1", "/cat/data-cat-2", "data/cat/data-cat-0.png"]


def test_the_nearest_file_of_an_id_is_meant(here):
    shutil.copy("data/cat/data-cat-0.png", "data/data-cat-0.png")
    table(here, "id,label\ndata-cat-0,cat\ncat/data-cat-0,cat\n")
    found = Manifest("table.csv", root="data", path_column="id").read()
    assert found.filenames == ["data/data-cat-0.png", "data/cat/data-cat-0.png"]


def test_quoted_fields_may_hold_delimiters_quotes_line_feeds_and_any_bytes(here):
    names = ["a,b.png", 'a"b.png', "a\nb.png", os.fsdecode(b"\xff.png")]
    for name in names:
        (here / name).write_bytes((here / "data/cat/data-cat-0.png").read_bytes())
    quoted = ['"{}"'.format(name.replace('"', '""')) for name in names]
    (here / "table.csv").write_bytes(os.fsencode("\ufeffpath,label\n" + "".join(f"{name},cat\r\n" for name in quoted)))
    assert rows(here) == [(name, "cat") for name in names]


def test_columns_with_an_empty_or_reserved_name_are_renamed(here):
    table(here, ",path,label,source\n0,data/cat/data-cat-0.png,cat,camera\n")
    assert Manifest("table.csv").read().columns == {
        "source": ["table.csv"],
        "column_1": ["0"],
        "manifest_source": ["camera"],
    }


@pytest.mark.parametrize("column", ["label", "note"])
def test_text_that_is_not_utf_8_is_an_error_except_in_paths_or_with_name_column(here, column):
    names = {"path": os.fsdecode(b"\xff.png"), "label": "cat", "note": "x"} | {column: os.fsdecode(b"caf\xe9")}
    write_rows(here / "table.csv", [*names], [[*names.values()]])
    with pytest.raises(
        PackError,
        match=r"table\.csv, line 2: expected text in UTF-8, found 'caf\\udce9'; .* --encoding, such as cp1252",
    ):
        rows(here)
    assert rows(here, name_column="path") == [(names["path"], names["label"])]


@pytest.mark.parametrize(
    ("encoding", "said"),
    [("utf-8", None), ("utf-8-sig", None), ("utf-16", None), ("cp1252", "cp1252"), ("utf-16-le", "utf-16-le")],
)
def test_a_table_is_read_in_its_encoding(here, encoding, said):
    (here / "table.csv").write_text("path;label\nforêt.png;Château\n", encoding=encoding)
    assert rows(here, encoding=said) == [("forêt.png", "Château")]


def test_an_encoding_that_is_not_known_or_not_the_tables_is_an_error(here):
    (here / "table.csv").write_bytes(b"path,label\na.png,\xe9\x81\n")
    with pytest.raises(PackError, match=r"table\.csv: expected an encoding of text .*, found 'klingon'"):
        rows(here, encoding="klingon")
    with pytest.raises(PackError, match=r"table\.csv: expected text in cp1252, found other bytes \('charmap'"):
        rows(here, encoding="cp1252")


@pytest.mark.parametrize("encoding", ["utf-8", "UTF8", "cp65001", "utf-16-le", "utf-16-be", "utf-32-le"])
@pytest.mark.parametrize("text", ["path,label\nforêt.png,Château\n", "forêt.png Château\n"], ids=["table", "list"])
def test_a_byte_order_mark_is_no_text_of_the_table(here, encoding, text):
    (here / "table.csv").write_bytes(("\ufeff" + text).encode(encoding))
    assert rows(here, encoding=encoding) == [("forêt.png", "Château")]


def test_an_encoding_that_the_mark_of_utf_8_contradicts_is_an_error(here):
    (here / "table.csv").write_bytes(b"\xef\xbb\xbfa.png x\nb.png y\n")
    with pytest.raises(PackError, match=r"table\.csv: expected text in cp1252, found the mark of UTF-8 at its start"):
        rows(here, encoding="cp1252")


@pytest.mark.parametrize("encoding", ["nope", "base64", "undefined", "a\0b"])
def test_what_is_no_encoding_of_text_is_an_error(here, encoding):
    table(here, "path,label\na.png,x\n")
    with pytest.raises(PackError, match=r"table\.csv: expected an encoding of text that Python knows, such as cp1252"):
        rows(here, encoding=encoding)


def test_text_that_is_not_in_the_encoding_given_is_an_error(here):
    table(here, "path,label\na.png,x\n")
    with pytest.raises(PackError, match=r"table\.csv: expected text in punycode, found other bytes"):
        rows(here, encoding="punycode")


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_path_in_another_unicode_form_is_the_file_that_is_there(here, form):
    other = "NFD" if form == "NFC" else "NFC"
    name = unicodedata.normalize(form, "forêt.png")
    shutil.copy("data/cat/data-cat-0.png", name)
    table(here, f"path,label\n{unicodedata.normalize(other, name)},cat\n")
    assert rows(here) == [(name, "cat")]
    os.remove(name)
    assert rows(here) == [(unicodedata.normalize(other, name), "cat")]


LISTS = {
    "spaces": "data/cat/data-cat-0.png 3\ndata/dog/data-dog-1.png 10\n",
    "tabs": "data/cat/data-cat-0.png\t3\n\ndata/dog/data-dog-1.png\t10\n",
    "commas": "data/cat/data-cat-0.png,3\r\ndata/dog/data-dog-1.png, 10\r\n",
    "semicolons, from Windows": "data\\cat\\data-cat-0.png;3\ndata\\dog\\data-dog-1.png;10",
}


@pytest.mark.parametrize("text", LISTS.values(), ids=LISTS)
def test_a_list_without_a_heading_is_a_path_and_a_label_a_line(here, text):
    table(here, text, "train.txt")
    pack([], "out.h5", manifest="train.txt", workers=1)
    packed = PackedImages("out.h5")
    assert packed.class_names == ("3", "10")
    found = dict(zip(packed.filenames, (packed.class_names[label] for label in packed.labels), strict=True))
    assert found == {"data/cat/data-cat-0.png": "3", "data/dog/data-dog-1.png": "10"}


def test_a_list_of_paths_that_have_spaces_is_read(here):
    shutil.copy("data/cat/data-cat-0.png", "data/a cat.png")
    table(here, "data/a cat.png 1\n")
    assert rows(here) == [("data/a cat.png", "1")]


@pytest.mark.parametrize("delimiter", [",", "\t", " ", " ; "])
def test_quotes_in_a_list_are_those_of_a_table(here, delimiter):
    lines = [("a.png", '"great white"'), ('"b c.png"', "cat"), ('"d,e.png"', '"a ""b"", c"'), ("f.png", '5" disk')]
    if delimiter == " ":
        lines = [("a.png", '"great white"'), ("d e.png", '"x y"'), ("f.png", '5"')]
    table(here, "".join(delimiter.join(line) + "\n" for line in lines))
    expected = [("a.png", "great white"), ("b c.png", "cat"), ("d,e.png", 'a "b", c'), ("f.png", '5" disk')]
    if delimiter == " ":
        expected = [("a.png", "great white"), ("d e.png", "x y"), ("f.png", '5"')]
    assert rows(here) == expected


@pytest.mark.parametrize("line", ['b.png,"cat', 'b.png,"cat" x', '"b".png,cat'])
def test_quotes_in_a_list_that_do_not_close_are_an_error(here, line):
    table(here, f"a.png,cat\n{line}\n")
    with pytest.raises(PackError, match="line 2: expected one quoted field, found"):
        rows(here)


RULES = {
    "parent": (LabelRule("parent"), ["cat", "dog"]),
    "subfolder": (LabelRule("subfolder"), ["data", "data"]),
    "path": (LabelRule("path"), ["data/cat", "data/dog"]),
    "root": (LabelRule("root"), ["here", "here"]),
    "none": (LabelRule("none"), ["unlabelled", "unlabelled"]),
    "a pattern": (LabelRule(pattern=r"-(\w+)-\d"), ["cat", "dog"]),
}


@pytest.mark.parametrize(("rule", "labels"), RULES.values(), ids=RULES)
@pytest.mark.parametrize("heading", ["path,note\n", ""], ids=["a table", "a list"])
def test_a_table_without_labels_takes_them_from_folders_if_asked(here, rule, labels, heading):
    os.mkdir("here")
    os.rename("data", "here/data")
    note = ",x" if heading else ""
    table(here, f"{heading}data/cat/data-cat-0.png{note}\ndata/dog/data-dog-1.png{note}\n")
    found = Manifest("table.csv", root="here").read(rule)
    assert found.labels == labels


def test_a_table_without_labels_says_how_to_do_without(here):
    table(here, "path,note\ndata/cat/data-cat-0.png,x\n")
    with pytest.raises(
        PackError, match=r"--label-column names it, --labels parent takes the folder .*, --labels none no"
    ):
        rows(here)
    table(here, "path,note\ncat.png,x\n")
    with pytest.raises(
        PackError, match=r"line 2: expected a path with a folder below \., for --labels path, found cat"
    ):
        Manifest("table.csv").read(LabelRule("path"))


def test_without_labels_a_column_of_labels_is_a_column_like_any_other(here):
    table(here, "path,label\ndata/cat/data-cat-0.png,7\n")
    for column in (None, "label"):
        found = Manifest("table.csv", label_column=column).read(LabelRule("none"))
        assert (found.labels, found.columns["label"]) == (["unlabelled"], ["7"])
    with pytest.raises(PackError, match=r"--label-column"):
        Manifest("table.csv", label_column="finding").read(LabelRule("none"))


def test_a_path_may_be_made_of_several_columns(here):
    table(here, "folder,image,label\ndata/cat,data-cat-0,a\ndata/dog,data-dog-1,b\n")
    assert rows(here, path_column="folder/image") == [
        ("data/cat/data-cat-0.png", "a"),
        ("data/dog/data-dog-1.png", "b"),
    ]


def test_an_empty_folder_cell_is_the_root_and_an_empty_name_is_an_error(here):
    shutil.copy("data/cat/data-cat-0.png", "data/top.png")
    table(here, "folder,file,label\n,top.png,a\ncat,data-cat-1.png,b\n")
    pack([], "out.h5", manifest=Manifest("table.csv", root="data", path_column="folder/file"), workers=1)
    assert sorted(PackedImages("out.h5").filenames) == ["data/cat/data-cat-1.png", "data/top.png"]
    table(here, "folder,file,label\ncat,,a\n")
    with pytest.raises(PackError, match=r"table\.csv, line 2: expected a path, found none"):
        rows(here, path_column="folder/file")


def test_a_manifest_may_be_a_path_or_a_data_frame(here, pd):
    frame = pd.DataFrame({"path": ["data/cat/data-cat-0.png"], "label": ["cat"], "age": [3]})
    frame.to_csv("table.csv", index=False)
    for given in ("table.csv", here / "table.csv", frame, [frame], Manifest(frame)):
        pack([], "out.h5", manifest=given, workers=1)
        packed = PackedImages("out.h5")
        assert (packed.class_names, packed.columns["age"][:]) == (("cat",), ["3"])
    assert packed.columns["source"][:] == ["the data frame"]


@pytest.mark.parametrize("dtype", ["float64", "Float64", "Int64", "category", "object"])
def test_whole_numbers_in_a_data_frame_stay_whole_beside_a_missing_one(here, pd, dtype):
    labels = pd.Series([1, 2, 10, None], dtype=None if dtype == "category" else dtype).astype(dtype)
    ages = pd.Series([0.5, 1, np.nan, np.inf])
    frame = pd.DataFrame({"path": images(here)[:4], "label": labels, "age": ages, "fold": [3.0, None, 0.0, 1.0]})
    pack([], "out.h5", manifest=Manifest(frame, skip_unlabelled=True), order="sorted", workers=1)
    packed = PackedImages("out.h5")
    assert packed.class_names == ("1", "2", "10")
    assert packed.columns["fold"][:] == ["3", "", "0"]
    assert packed.columns["age"][:] == ["0.5", "1.0", ""]


def test_texts_of_a_data_frame_are_kept_with_any_line_ends(here, pd):
    shutil.copy("data/cat/data-cat-0.png", "a\rb.png")
    labels = ["x\ry", 'quo"te', "1.0"]
    frame = pd.DataFrame({"path": ["a\rb.png", *images(here)[:2]], "label": labels})
    pack([], "out.h5", manifest=frame, order="sorted", workers=1)
    packed = PackedImages("out.h5")
    assert list(packed.filenames) == list(frame["path"])
    assert [packed.class_names[label] for label in packed.labels] == labels
    assert pack([], "out.h5", manifest=frame[["path"]], labels="none", workers=1).rows == 3
    with pytest.raises(PackError, match="the data frame: expected text, found half a surrogate pair"):
        pack([], "out.h5", manifest=pd.DataFrame({"path": ["a.png"], "label": ["\ud800"]}, dtype=object), workers=1)


@pytest.mark.parametrize(
    ("given", "found"), [({"path": ["a.png"]}, "dict"), ([("a.png", "x")], "tuple"), (3, "int"), (b"t.csv", "bytes")]
)
def test_what_is_no_table_is_an_error(here, given, found):
    with pytest.raises(PackError, match=f"^manifest: expected the path of a CSV, .* found {found}; pandas.DataFrame"):
        preview("data", manifest=given)
    assert len(preview("data", manifest=None)) == 7


@pytest.mark.parametrize("name", ["path_column", "label_column", "name_column", "encoding", "root", "strip_prefix"])
def test_names_of_columns_are_text(here, pd, name):
    with pytest.raises(PackError, match=f"^{name}: expected text, found 0; give '0'$"):
        Manifest("table.csv", **{name: 0})
    frame = pd.DataFrame([["data/cat/data-cat-0.png", "x"]])
    pack([], "out.h5", manifest=Manifest(frame, path_column="0", label_column="1"), workers=1)
    assert PackedImages("out.h5").class_names == ("x",)


def test_root_and_strip_prefix_may_be_paths(here):
    table(here, "path,label\nimg/cat/data-cat-0.png,cat\n")
    assert rows(here, root=here / "data", strip_prefix=Path("img")) == [(f"{here}/data/cat/data-cat-0.png", "cat")]


def test_a_row_without_a_label_is_an_error_unless_skip_unlabelled_is_set(here):
    table(here, "path,label\na.png,cat\n\nb.png,\nc.png,\n")
    with pytest.raises(PackError, match=r"table\.csv, line 4: expected a label, found none; --skip-unlabelled"):
        rows(here)
    assert rows(here, skip_unlabelled=True) == [("a.png", "cat")]
    assert Manifest("table.csv", skip_unlabelled=True).read().passed_over == [
        ("b.png", "no label"),
        ("c.png", "no label"),
    ]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("name,label\na,b\n", {}, "expected a column one of path, .*, found name, label; --path-column names it"),
        ("path,name\na,b\n", {}, "expected a column one of label, .*; --label-column names it"),
        ("path,label\na,b\n", {"path_column": "where"}, "expected a column where, found path, label"),
        ("", {}, "expected a column one of path, .*, found nothing"),
        ("path,label\n,cat\n", {}, "line 2: expected a path, found none"),
        ("path,label\na,cat,extra\n", {}, "line 2: expected 2 fields, as the heading has, found 3"),
        ("path,label,x,x\na,cat,1,2\n", {}, "expected columns of different names, found 'x' twice"),
        ("path,label,label\na,cat,1\n", {}, "expected columns of different names, found 'label' twice"),
        ("path,label\na,cat\npath,label\nb,cat\n", {}, "line 3: expected a row, found the heading again; remove it"),
        ("a.png,0,1\nb.png,1,2\n", {"path_column": "a"}, "line 1: expected a heading such as path,label, found a row"),
        ("a.png 0\nb.png\n", {}, "line 2: expected a path and a label, found 'b.png'"),
        (
            "a.png\nb.png 0\n",
            {},
            "line 1: expected a path and a label, found 'a.png'; --labels parent takes the folder",
        ),
        ('path,label\na,"cat\nb,dog\n', {}, "table.csv, line 2: expected a closing quote, found none up to the end"),
        ("path,label\na,cat\nb\n", {"skip_unlabelled": True}, "table.csv, line 3: expected 2 fields, as the heading"),
        ("path,label\na.png,cat\na.png,dog\n", {}, "a.png is given twice, so its row would be counted twice"),
        ("path,label\n", {}, "no images in table.csv: expected rows with paths of files, found none$"),
        ("path,label\na.png,\n", {"skip_unlabelled": True}, r"found none; passed over: 1, such as a\.png"),
        ("path,label,name\na.png,x,\n", {"name_column": "name"}, "table.csv, line 2: expected a name, found none"),
    ],
)
def test_invalid_tables_are_errors(here, text, options, message):
    table(here, text)
    with pytest.raises(PackError, match=message):
        pack([], "out.h5", manifest=Manifest("table.csv", **options), workers=1)


def test_a_missing_table_is_an_error(here):
    with pytest.raises(PackError, match=r"none\.csv: expected a manifest, a CSV of paths and labels, found none there"):
        Manifest("none.csv").read()


def test_folders_and_manifests_can_be_mixed_but_must_not_share_a_file(here):
    write_classes(here / "more", {"cat": 2, "emu": 2})
    table(here, "path,label,split\ndata/cat/data-cat-0.png,cat,train\n")
    pack(["more"], "out.h5", manifest=Manifest("table.csv"), workers=1)
    packed = PackedImages("out.h5")
    assert sorted(zip(packed.filenames, packed.columns["split"], strict=True))[0] == (
        "data/cat/data-cat-0.png",
        "train",
    )
    assert sorted(set(packed.columns["split"])) == ["", "train"]
    with pytest.raises(PackError, match=r"data/cat/data-cat-0\.png is given twice"):
        pack(["data"], "out.h5", manifest=Manifest("table.csv"), workers=1)


@needs_shared
def test_the_official_split_of_eurosat_can_be_packed(tmp_path):
    manifest = Manifest(
        str(SHARED / "eurosat-csv" / "splits_data.csv"), root=str(SHARED / "eurosat"), strip_prefix="img"
    )
    assert pack([], tmp_path / "out.h5", manifest=manifest, size=64).rows == 27_000
    parts = SplitSequence(tmp_path / "out.h5").split_by("split")
    assert {name: len(part.classes) for name, part in parts.items()} == {"train": 18_900, "val": 4_050, "test": 4_050}
    for part in parts.values():
        for name, label in zip(part.filenames, part.classes, strict=True):
            assert name.split("/")[-2] == part.classnames[label]


# --- names chosen by the user -----------------------------------------------------------------------------------------


def test_names_from_name_column_are_stored_instead_of_the_paths(here):
    names = ["a,b.png", " spaces ", "../../x", "é", "/absolute", "new\nline", "carriage\rreturn"]
    lines = [(path, path.split("/")[1], name) for path, name in zip(images(here), names, strict=True)]
    write_rows(here / "table.csv", ["path", "label", "name"], lines)
    pack([], "out.h5", manifest=Manifest("table.csv", name_column="name"), order="sorted", workers=1)
    packed = PackedImages("out.h5")
    assert list(packed.filenames) == names
    assert list(packed.columns) == ["source"]
    assert_rows_are_who_they_say(packed.images, [packed.class_names[label] for label in packed.labels], images(here))


def test_a_filename_column_is_an_ordinary_column_unless_name_column_names_it(here):
    table(here, f"path,label,filename\n{images(here)[0]},cat,mine\n")
    assert rows(here) == [(images(here)[0], "cat")]
    assert Manifest("table.csv").read().columns["filename"] == ["mine"]
    assert rows(here, name_column="filename") == [("mine", "cat")]
    assert "filename" not in Manifest("table.csv", name_column="filename").read().columns


def test_two_files_may_share_a_name_but_one_file_must_not_have_two_names(here):
    first, second = images(here)[:2]
    table(here, f"path,label,name\n{first},cat,same\n{second},cat,same\n")
    summary = pack([], "out.h5", manifest=Manifest("table.csv", name_column="name"), workers=1)
    assert summary.rows == 2
    assert list(PackedImages("out.h5").filenames) == ["same", "same"]
    table(here, f"path,label,name\n{first},cat,one\n{first},cat,two\n")
    with pytest.raises(PackError, match=f"{first} is given twice"):
        pack([], "out.h5", manifest=Manifest("table.csv", name_column="name"), workers=1)


@pytest.mark.parametrize("column", ["path", "label"])
def test_name_column_may_be_the_path_or_label_column(here, column):
    table(here, f"path,label\n./{images(here)[0]},cat\n")
    assert rows(here, name_column=column) == [(f"./{images(here)[0]}" if column == "path" else "cat", "cat")]


@pytest.mark.parametrize("column", ["Name", "nowhere", ""])
def test_a_missing_name_column_is_an_error(here, column):
    table(here, "path,label,name\na.png,cat,a\n")
    with pytest.raises(
        PackError, match=rf"expected a column {column}.*, found path, label, name; --name-column names it"
    ):
        rows(here, name_column=column)


def test_the_command_has_a_name_column_option(here, capsys):
    table(here, f"path,label,name\n{images(here)[0]},cat,mine\n")
    arguments = ["--manifest", "table.csv", "-o", "out.h5", "--workers", "1", "--quiet"]
    assert main([*arguments, "--name-column", "name"]) == 0
    assert list(PackedImages("out.h5").filenames) == ["mine"]
    assert main([*arguments, "--name-column", "nowhere"]) == 1
    assert "--name-column names it" in capsys.readouterr().err


@pytest.mark.parametrize(
    "option",
    [
        *(
            f"--{name}=cp1252"
            for name in ["root", "strip-prefix", "path-column", "label-column", "name-column", "encoding"]
        ),
        "--skip-unlabelled",
    ],
)
def test_options_of_a_table_need_a_table(here, option, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["data", "-o", "out.h5", option])
    name = option.partition("=")[0]
    assert f"{name}: expected a --manifest that it says how to read, found none" in capsys.readouterr().err


def test_changing_the_name_column_reuses_the_pixels(here):
    lines = [(path, path.split("/")[1], f"a{row}", f"b{row}") for row, path in enumerate(images(here))]
    write_rows(here / "table.csv", ["path", "label", "a", "b"], lines)
    pack([], "out.h5", manifest=Manifest("table.csv", name_column="a"), workers=1)
    summary = pack([], "out.h5", manifest=Manifest("table.csv", name_column="b"), workers=1)
    assert (summary.copied, summary.decoded) == (7, 0)
    assert sorted(PackedImages("out.h5").filenames) == [f"b{row}" for row in range(7)]
