"""Leaks between parts, tables of parts, and parts that scikit-learn makes."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import names_in, names_of, write_pack
from h5split import SplitSequence, leaks, write_split
from h5split.errors import ArgumentError

NAMES = names_in("a", {"cat": 20, "dog": 50, "emu": 30})
ODD = [
    f"data/cat/{name}.png"
    for name in ("a,b", 'q"uo"te', "new\nline", "carriage\rreturn", "both\r\n", " spaces ", "tab\t", "\udcff\udce9")
] + ["data/dog/\ufeffmark.png", "data/dog/ümläut.png", "data/dog/';--.png", "data/dog/=1+1.png"]


@pytest.fixture(scope="session")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    return write_pack(folder / "a.h5", NAMES, {"patient": [f"p{index * 7 % 23}" for index in range(100)]})


@pytest.fixture(scope="session")
def odd(tmp_path_factory):
    return write_pack(tmp_path_factory.mktemp("odd") / "odd.h5", ODD)


@pytest.fixture
def sequence(plain):
    return SplitSequence(plain, batch_size=8)


@pytest.fixture(scope="session")
def copies(tmp_path_factory):
    """Rows 0 to 4 are of the same contents as rows 5 to 9, and 10 as 11 and 12."""
    names = [f"one/cat/{index}.png" for index in range(5)] + [f"two/dog/{index}.png" for index in range(5)]
    names += [f"{source}/emu/e.png" for source in ("one", "two", "three")] + ["one/emu/alone.png"]
    return write_pack(tmp_path_factory.mktemp("copies") / "copies.h5", names)


# --- leaks -----------------------------------------------------------------------------------------------------------


def test_leaks_are_named_in_each_sequence(copies):
    sequence = SplitSequence(copies)
    first, second = sequence.select(range(8)), sequence.select([9, 8, 10])
    assert leaks(first, second) == [
        (["one/cat/3.png"], ["two/dog/3.png"]),
        (["one/cat/4.png"], ["two/dog/4.png"]),
    ]
    assert leaks(second, first) == [
        (["two/dog/4.png"], ["one/cat/4.png"]),
        (["two/dog/3.png"], ["one/cat/3.png"]),
    ]


def test_what_is_twice_in_one_sequence_alone_is_no_leak(copies):
    sequence = SplitSequence(copies)
    assert leaks(sequence) == []
    assert leaks(sequence.select([0, 5, 10, 11, 12]), sequence.select([1, 13])) == []
    assert leaks(sequence.select([10, 12, 0]), sequence.select([11])) == [
        (["one/emu/e.png", "three/emu/e.png"], ["two/emu/e.png"])
    ]


def test_leaks_of_three_sequences_say_who_has_none(copies):
    sequence = SplitSequence(copies)
    parts = [sequence.select(rows) for rows in ([0, 10, 13], [1, 11], [5, 6, 12])]
    assert leaks(*parts) == [
        (["one/cat/0.png"], [], ["two/dog/0.png"]),
        (["one/emu/e.png"], ["two/emu/e.png"], ["three/emu/e.png"]),
        ([], ["one/cat/1.png"], ["two/dog/1.png"]),
    ]
    assert leaks(*sequence.split(0.3, 0.6, groups="content")) == []


def test_leaks_of_nothing_are_none(copies):
    sequence, empty = SplitSequence(copies), SplitSequence(copies).select([])
    assert leaks() == []
    assert leaks(empty) == []
    assert leaks(empty, SplitSequence(), empty) == []
    assert leaks(empty, sequence, SplitSequence()) == []
    assert leaks(SplitSequence(), sequence.select([0]), empty, sequence.select([5])) == [
        ([], ["one/cat/0.png"], [], ["two/dog/0.png"])
    ]


def test_leaks_between_packs_are_found(copies, plain, tmp_path):
    again = SplitSequence(shutil.copy(copies, tmp_path / "again.h5"), plain)
    found = leaks(SplitSequence(plain, copies).select([3, 107]), again)
    assert sorted(found) == sorted([([NAMES[3]], [NAMES[3]]), (["two/dog/2.png"], ["one/cat/2.png", "two/dog/2.png"])])


# --- tables ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda sequence: sequence.split(0.5), r"write_split: expected a dict, such as {'train': train}, found a list"),
        (lambda sequence: {1: sequence}, r"write_split: expected a dict"),
        (lambda sequence: {"train": None}, r"write_split: expected a sequence for each part, found None"),
    ],
)
def test_parts_that_are_no_dict_of_sequences_are_errors(sequence, tmp_path, given, message):
    with pytest.raises(TypeError, match=message):
        write_split(tmp_path / "split.csv", given(sequence))
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("auto_shuffle", [False, True, "block"])
def test_a_table_gives_the_parts_back_in_order(sequence, tmp_path, auto_shuffle):
    parts = dict(
        zip(("test", "val", "train"), sequence.set(auto_shuffle=auto_shuffle).shuffle(3).split(0.2, 0.4), strict=True)
    )
    write_split(tmp_path / "split.csv", parts)
    found = sequence.read_split(tmp_path / "split.csv")
    assert list(found) == ["test", "val", "train"]
    for split, part in parts.items():
        assert list(found[split].filenames) == list(part.filenames)
        assert found[split].classes.tolist() == part.classes.tolist()
        assert names_of(found[split]) == names_of(part)


def test_a_table_is_read_with_any_copy_of_the_pack_in_any_order(sequence, plain, tmp_path):
    _, part = sequence.shuffle(5).split(0.6)
    write_split(tmp_path / "split.csv", {"part": part})
    again = SplitSequence(shutil.copy(plain, tmp_path / "copy.h5"), batch_size=7).shuffle(9)
    assert names_of(again.read_split(tmp_path / "split.csv")["part"]) == list(part.filenames)
    other = SplitSequence(write_pack(tmp_path / "sorted.h5", sorted(NAMES)), batch_size=9)
    assert names_of(other.read_split(str(tmp_path / "split.csv"))["part"]) == list(part.filenames)


def test_a_table_is_two_columns_of_text(sequence, tmp_path):
    write_split(tmp_path / "split.csv", {"train": sequence.select([4, 2])})
    assert (tmp_path / "split.csv").read_bytes() == f"filename,split\n{NAMES[4]},train\n{NAMES[2]},train\n".encode()


@pytest.mark.parametrize("name", ODD, ids=ascii)
def test_a_name_of_any_characters_comes_back(odd, tmp_path, name):
    sequence = SplitSequence(odd)
    part = sequence.select([ODD.index(name)])
    for split in ("train", "a,b", 'q"', "new\nline", "\r", "\udcff", " "):
        write_split(tmp_path / "split.csv", {split: part, "rest": sequence.select([(ODD.index(name) + 1) % len(ODD)])})
        found = sequence.read_split(tmp_path / "split.csv")
        assert list(found) == [split, "rest"]
        assert names_of(found[split]) == [name]


@given(order=st.permutations(range(len(ODD))), cut=st.integers(0, len(ODD)), end=st.integers(0, len(ODD)))
def test_names_of_any_characters_come_back_in_order(odd, tmp_path_factory, order, cut, end):
    path = tmp_path_factory.getbasetemp() / "odd.csv"
    sequence = SplitSequence(odd)
    parts = {"one": order[:cut], "two": order[cut:end]}
    write_split(path, {split: sequence.select(rows) for split, rows in parts.items()})
    found = sequence.read_split(path)
    assert {split: list(part.filenames) for split, part in found.items()} == {
        split: [ODD[row] for row in rows] for split, rows in parts.items() if rows
    }


def test_a_table_of_another_program_is_read(sequence, tmp_path):
    path = tmp_path / "table.csv"
    lines = [f'train,"{NAMES[5]}",1', f"val,{NAMES[1]},2", "", f"train,{NAMES[0]},3,"]
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(["split,filename,fold", *lines]).encode())
    found = sequence.read_split(path)
    assert {split: list(part.filenames) for split, part in found.items()} == {
        "train": [NAMES[5], NAMES[0]],
        "val": [NAMES[1]],
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected the columns filename and split, found none"),
        ("file,split\nx,train\n", r"expected the columns filename and split, found \['file', 'split'\]"),
        ("filename;split\nx;train\n", r"columns filename and split, found \['filename;split'\]"),
        (
            "filename,split\n{0},train\n{1}\n",
            "line 3: expected 2 fields, as the heading has, found 1; get the whole file",
        ),
        ("filename,split\n{0},train,1\n", "line 2: expected 2 fields, as the heading has, found 3; put quotes around"),
        ("filename,split,split\n{0},train,val\n", "expected the columns filename and split, found .*'split', 'split'"),
        ('filename,split\n{0},"train\n{1},val\n', "line 2: expected a closing quote, found none"),
        ("filename,split\n{0},tra\0\n", r"line 2: expected text, found a NUL character in 'tra\\x00'"),
        ("filename,split\nx.png,train\n{0},train\n", "1 of 2 files are not in the sequence, such as 'x.png'; expected"),
        ("filename,split\n{0},train\n{1},val\n{0},val\n", "'{0}' is in two parts, 'train' and 'val'"),
    ],
)
def test_a_table_that_makes_no_sense_is_an_error(sequence, tmp_path, text, message):
    path = tmp_path / "table.csv"
    path.write_text(text.format(*NAMES))
    with pytest.raises(ValueError, match=f"^{path}[:,] .*{message.format(*NAMES)}"):
        sequence.read_split(path)


def test_a_table_that_is_not_there_is_an_error(sequence, tmp_path):
    with pytest.raises(FileNotFoundError):
        sequence.read_split(tmp_path / "none.csv")


def test_a_table_that_cannot_be_read_back_is_not_written(sequence, tmp_path):
    with pytest.raises(ValueError, match=f"split.csv: '{NAMES[5]}' is in two parts, 'train' and 'val'"):
        write_split(tmp_path / "split.csv", {"train": sequence.select([1, 5]), "val": sequence.select([5])})
    assert not (tmp_path / "split.csv").exists()


@pytest.mark.parametrize("there", [b"", b"filename,split\nx,y\n", b"\xef\xbb\xbffilename,split\r\nx,y\r\n"], ids=repr)
def test_an_earlier_table_is_replaced(sequence, tmp_path, there):
    (tmp_path / "split.csv").write_bytes(there)
    write_split(tmp_path / "split.csv", {"train": sequence.select([4])})
    assert (tmp_path / "split.csv").read_bytes() == f"filename,split\n{NAMES[4]},train\n".encode()
    assert os.listdir(tmp_path) == ["split.csv"]


@pytest.mark.parametrize(
    "there", ["path,label,filename,split\n", "filename,split,fold\n", "split,filename\n", "filename,split" * 99, "\0"]
)
def test_another_file_is_not_replaced_by_a_table(sequence, tmp_path, there):
    (tmp_path / "split.csv").write_text(there)
    with pytest.raises(
        ValueError, match=r"split.csv: expected nothing there, or a table of parts to replace, found anot"
    ):
        write_split(tmp_path / "split.csv", {"train": sequence.select([4])})
    assert (tmp_path / "split.csv").read_text() == there


def test_a_pack_is_not_replaced_by_a_table(plain, tmp_path):
    shutil.copy(plain, tmp_path / "a.h5")
    sequence = SplitSequence(tmp_path / "a.h5")
    with pytest.raises(
        ValueError, match=r"a.h5: expected nothing there, or a table of parts to replace, found another"
    ):
        write_split(tmp_path / "a.h5", {"train": sequence})
    assert (tmp_path / "a.h5").read_bytes() == plain.read_bytes()


def test_rows_of_one_name_cannot_be_told_apart_by_a_table(tmp_path):
    names = [f"x/cat/{name}.png" for name in "abacad"]
    sequence = SplitSequence(write_pack(tmp_path / "twice.h5", names))
    with pytest.raises(ValueError, match=r"'x/cat/a.png' is twice in 'first'; a table tells rows apart by their"):
        write_split(tmp_path / "split.csv", {"first": sequence.select([0, 2, 4]), "second": sequence.select([5])})
    with pytest.raises(ValueError, match=r"'x/cat/a.png' is in two parts, 'first' and 'second'"):
        write_split(tmp_path / "split.csv", {"first": sequence.select([0]), "second": sequence.select([2])})
    with pytest.raises(ValueError, match=r"'x/cat/d.png' is twice in 'first'"):
        write_split(tmp_path / "split.csv", {"first": sequence.select([5, 5])})
    write_split(tmp_path / "split.csv", {"first": sequence.select([4, 5])})
    with pytest.raises(ValueError, match=r"'x/cat/a.png' is named, but it is two rows or more"):
        sequence.read_split(tmp_path / "split.csv")
    found = sequence.select([5, 4, 3]).read_split(tmp_path / "split.csv")
    assert names_of(found["first"]) == [names[4], names[5]]


# --- scikit-learn ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shuffled", [False, True])
def test_stratified_folds_of_scikit_learn_hold_every_row_once(sequence, shuffled):
    model_selection = pytest.importorskip("sklearn.model_selection")
    sequence = sequence.shuffle(1) if shuffled else sequence
    folds = []
    for train, test in model_selection.StratifiedKFold(5).split(sequence.filenames, sequence.classes):
        inside, outside = sequence.select(test), sequence.select(train)
        assert np.bincount(inside.classes).tolist() == [4, 10, 6]
        assert names_of(inside) == [sequence.filenames[row] for row in test]
        assert sorted(names_of(outside) + names_of(inside)) == sorted(NAMES)
        folds.extend(names_of(inside))
    assert sorted(folds) == sorted(NAMES)


@pytest.mark.parametrize("by", ["patient", "content"])
def test_group_folds_of_scikit_learn_keep_groups_whole(sequence, copies, by):
    model_selection = pytest.importorskip("sklearn.model_selection")
    sequence = sequence.add_file(copies).shuffle(2)
    column = sequence.columns["patient"]
    groups = list(column) if by == "patient" else [digest.tobytes().hex() for digest in sequence.digests]
    splitter = model_selection.StratifiedGroupKFold(2, shuffle=True, random_state=0)
    seen = []
    for train, test in splitter.split(np.zeros(len(groups)), sequence.classes, groups):
        inside, outside = sequence.select(test), sequence.select(train)
        if by == "content":
            assert leaks(inside, outside) == []
        else:
            assert not set(inside.columns["patient"]) & set(outside.columns["patient"])
        assert names_of(inside) == [sequence.filenames[row] for row in test]
        seen.extend(names_of(inside))
    assert sorted(seen) == sorted(sequence.filenames)
    assert len(seen) == 114


def test_groups_of_one_size_are_drawn_and_large_ones_are_in_every_part(tmp_path):
    sizes = [1 + index % 6 for index in range(120)]
    patients = [f"p{index:03}" for index, size in enumerate(sizes) for _ in range(size)]
    names = [f"data/cat/{number:03}.png" for number in range(len(patients))]
    sequence = SplitSequence(write_pack(tmp_path / "a.h5", names, {"patient": patients}))

    def homes():
        return [set(part.columns["patient"]) for part in sequence.split(0.2, 0.4, groups="patient")]

    first = homes()
    for size in range(2, 7):
        drawn = [[int(name[1:]) for name in home if sizes[int(name[1:])] == size] for home in first]
        assert [len(numbers) for numbers in drawn] == pytest.approx([4, 4, 12], abs=1)
    assert 40 < np.mean([int(name[1:]) for name in first[0]]) < 80
    sequence.shuffle(seed=1)
    assert homes()[0] != first[0]


def test_groups_of_several_names_are_connected_by_any_of_them(tmp_path):
    names = [f"data/cat/{number}.png" for number in range(40)]
    patients = [f"p{number // 2}" if number < 30 else "" for number in range(40)]
    days = [f"d{number // 3}" if number % 4 else "" for number in range(40)]
    sequence = SplitSequence(write_pack(tmp_path / "a.h5", names, {"patient": patients, "day": days}))
    parts = sequence.split(0.3, 0.6, groups=["patient", "day"])
    for column in ("patient", "day"):
        homes = [set(part.columns[column]) - {""} for part in parts]
        assert sum(map(len, homes)) == len(set().union(*homes))
    assert sorted(name for part in parts for name in part.filenames) == sorted(names)
    assert sequence.split(0.5, groups=["patient", "near"])[0].columns["patient"] is not None
    with pytest.raises(ArgumentError, match=r"expected one name with stable=True, found \['patient', 'day'\]"):
        sequence.split(0.5, groups=["patient", "day"], stable=True)
