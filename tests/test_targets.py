"""Targets and weights: every row has those of the table, by its file name, through every door."""

from __future__ import annotations

import copy
import csv
import itertools
import os
import pickle

import numpy as np
import pytest

from conftest import names_in, pixels_of, seen_by_fit, write_pack
from h5split import SplitSequence, Tags
from h5split.errors import ArgumentError

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

FINDINGS = ["COVID-19, ARDS", "Pneumonia", "", "ARDS ,No Finding", "COVID-19"]
TAGS = ["ARDS", "COVID-19", "No Finding", "Pneumonia"]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Two packs, and the table that their columns come from: file name -> line."""
    folder = tmp_path_factory.mktemp("targets")
    lines = {}
    for source, counts in (("a", {"cat": 20, "dog": 31}), ("b", {"dog": 8, "emu": 7})):
        names = names_in(source, counts)
        for index, name in enumerate(names):
            number = index + 100 * (source == "b")
            lines[name] = {
                "filename": name,
                "age": f"{number / 4}",
                "price": f" {1000 - number}",
                "finding": FINDINGS[number % 5],
                "weight": f"{1 + number % 3}",
            }
        columns = {key: [lines[name][key] for name in names] for key in ("age", "price", "finding", "weight")}
        write_pack(folder / f"{source}.h5", names, columns)
    with open(folder / "table.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, ["filename", "age", "price", "finding", "weight"])
        writer.writeheader()
        writer.writerows(lines.values())
    with open(folder / "table.csv", newline="") as file:
        return folder, {line["filename"]: line for line in csv.DictReader(file)}


@pytest.fixture
def packs(table):
    return table[0] / "a.h5", table[0] / "b.h5"


@pytest.fixture
def lines(table):
    return table[1]


def tags_of(line):
    return [float(tag in map(str.strip, line["finding"].split(","))) for tag in TAGS]


CLASSES = ["cat", "dog", "emu"]
EXPECTED = {
    "a column": ("age", lambda line: float(line["age"])),
    "columns": (["age", "price"], lambda line: [float(line["age"]), float(line["price"])]),
    "tags": (Tags("finding"), tags_of),
    "a dict": (
        {"age": "age", "kind": "label", "tags": Tags("finding")},
        lambda line: {
            "age": float(line["age"]),
            "kind": CLASSES.index(line["filename"].split("/")[1]),
            "tags": tags_of(line),
        },
    ),
}
TARGETS = pytest.mark.parametrize(("targets", "expected"), EXPECTED.values(), ids=EXPECTED)


def value_at(targets, place):
    """The target of one row of a batch, as lists of numbers."""
    if isinstance(targets, dict):
        return {name: value_at(array, place) for name, array in targets.items()}
    return np.asarray(targets)[place].tolist()


def assert_rows(batches, lines, expected):
    """Each row has the target and the weight of its file name; return the names."""
    who = {pixels_of(name).tobytes(): name for name in lines}
    names = []
    for images, targets, weights in batches:
        pixels = np.asarray(images)
        pixels = pixels.transpose(0, 2, 3, 1) if pixels.shape[1] == 3 else pixels
        for place, image in enumerate(pixels):
            names.append(who[image.tobytes()])
            assert value_at(targets, place) == expected(lines[names[-1]]), names[-1]
            assert float(np.asarray(weights)[place]) == float(lines[names[-1]]["weight"])
    return names


OPTIONS = {
    "in order": {},
    "shuffled": {"auto_shuffle": True},
    "in blocks": {"auto_shuffle": "block"},
    "capped": {"auto_shuffle": True, "max_per_class_and_epoch": 9},
}


@TARGETS
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_batches_have_the_targets_and_weights_of_their_rows(packs, lines, targets, expected, options):
    sequence = SplitSequence(*packs, batch_size=7, label_mode="int", targets=targets, weights="weight", **options)
    for _ in range(2):
        names = assert_rows(sequence, lines, expected)
        assert names == sequence.get_filenames()
        assert len(names) == (25 if "max_per_class_and_epoch" in options else 66)
        found = sequence.get_targets()
        assert [value_at(found, place) for place in range(len(names))] == [expected(lines[name]) for name in names]
        assert value_at(sequence.get_targets([3, -1]), 1) == expected(lines[names[-1]])


@TARGETS
def test_items_parts_pickles_and_shards_have_their_targets(packs, lines, targets, expected):
    whole = SplitSequence(*packs, batch_size=4, label_mode="int", targets=targets, weights="weight", auto_shuffle=True)
    assert len(assert_rows((whole[index] for index in range(len(whole))), lines, expected)) == 66
    parts = [*whole.split(0.3, 0.6), *(pickle.loads(pickle.dumps(part)) for part in whole.split(0.5))]
    names = [name for part in parts for name in assert_rows(part, lines, expected)]
    assert sorted(names) == sorted([*lines, *lines])
    shards = [assert_rows(whole.shard(rank, 3), lines, expected) for rank in range(3)]
    assert len(set().union(*shards)) == sum(map(len, shards)) == 66
    picked = whole.select(label="emu")
    assert len(assert_rows(picked, lines, expected)) == 7


@TARGETS
def test_tf_data_has_the_targets(packs, lines, targets, expected):
    tf = pytest.importorskip("tensorflow", reason="needs TensorFlow")
    sequence = SplitSequence(
        *packs, batch_size=7, label_mode="int", targets=targets, weights="weight", auto_shuffle=True
    )
    data = sequence.as_tf_dataset()
    assert len(assert_rows(data, lines, expected)) == 66
    for batch in data:
        pairs = zip(tf.nest.flatten(data.element_spec), tf.nest.flatten(batch), strict=True)
        assert all(spec.is_compatible_with(array) for spec, array in pairs)
    shapes = [spec.shape.as_list() for spec in tf.nest.flatten(data.element_spec)]
    assert all(None not in shape[1:] for shape in shapes)
    sequence.set(targets=None)
    with pytest.raises(tf.errors.InvalidArgumentError, match="have changed"):
        list(data)


@TARGETS
def test_torch_has_the_targets(packs, lines, targets, expected):
    pytest.importorskip("torch", reason="needs torch")
    sequence = SplitSequence(
        *packs, batch_size=7, label_mode="int", targets=targets, weights="weight", auto_shuffle=True
    )
    assert len(assert_rows(sequence.as_torch_loader(), lines, expected)) == 66


def test_a_loader_of_torch_turns_images_alone(packs):
    torch = pytest.importorskip("torch", reason="needs torch")
    masks = np.arange(66 * 2 * 3 * 5, dtype=np.int32).reshape(66, 2, 3, 5)
    sequence = SplitSequence(*packs, batch_size=66, label_mode="int", targets=masks)
    images, targets = next(iter(sequence.as_torch_loader()))
    assert images.shape == (66, 3, 8, 8)
    assert (targets.dtype, np.array_equal(targets.numpy(), masks)) == (torch.int32, True)
    sequence.set(targets={"masks": masks, "kind": "label"})
    images, targets = next(iter(sequence.as_torch_loader()))
    assert np.array_equal(targets["masks"].numpy(), masks)
    assert {name: one.dtype for name, one in targets.items()} == {"masks": torch.int32, "kind": torch.int64}
    two = sequence.set(targets=None).map(lambda images, targets, rng: ((images, images), {"a": targets}))
    images, targets = next(iter(two.as_torch_loader()))
    assert ([one.shape for one in images], targets["a"].dtype) == ([(66, 3, 8, 8)] * 2, torch.int64)
    alone = next(iter(sequence.set(label_mode=None).as_torch_loader()))
    assert alone.shape == (66, 3, 8, 8)


def test_an_array_has_a_value_for_each_row_of_the_sequence_it_is_set_on(packs, lines):
    whole = SplitSequence(*packs, batch_size=7, auto_shuffle=True)
    part = whole.shuffle(4).split(0.4)[1]
    ages = np.array([float(lines[name]["age"]) for name in part.filenames])
    weights = np.array([int(lines[name]["weight"]) for name in part.filenames])
    part.set(targets=np.stack([ages, -ages], axis=1), weights=weights)
    ages[:] = weights[:] = 0  # the sequence has copies
    for found in (part, *part.split(0.5), pickle.loads(pickle.dumps(part)), part.shuffle(5)):
        images, targets, weights = zip(*found, strict=True)
        expected = [float(lines[name]["age"]) for name in found.get_filenames()]
        assert np.concatenate(targets).tolist() == [[age, -age] for age in expected]
        assert np.concatenate(targets).dtype == np.float64
        assert np.concatenate(weights).dtype == np.float32
        assert len(np.concatenate(images)) == len(found.filenames)


def test_targets_follow_a_pack_that_is_added_and_an_array_does_not(packs, lines):
    sequence = SplitSequence(packs[0], batch_size=7, label_mode="int", targets="age", weights="weight")
    sequence.add_file(packs[1])
    assert len(assert_rows(sequence, lines, EXPECTED["a column"][1])) == 66
    sequence = SplitSequence(packs[0], targets=np.zeros(51))
    with pytest.raises(ArgumentError, match="targets: expected a value for each of 66 rows, found an array of 51 from"):
        sequence.add_file(packs[1])
    assert len(sequence.filenames) == 51


def test_tags_may_be_given_so_that_parts_agree(packs, lines):
    names = [*TAGS[::-1], "Edema"]
    sequence = SplitSequence(*packs, batch_size=66, targets=Tags("finding", names=names))
    assert sequence.target_names == names
    _, targets = sequence[0]
    assert targets.shape == (66, 5)
    assert targets[:, -2::-1].tolist() == [tags_of(lines[name]) for name in sequence.get_filenames()]
    with pytest.raises(ArgumentError, match="targets: expected ARDS; found 'COVID-19' in the column finding"):
        sequence.set(targets=Tags("finding", names=["ARDS"]))
    assert sequence.target_names == names


def test_names_of_targets(packs):
    sequence = SplitSequence(*packs)
    assert sequence.target_names == CLASSES
    for targets, names in (("age", ["age"]), (["price", "age"], ["price", "age"]), (Tags("finding"), TAGS)):
        assert sequence.set(targets=targets).target_names == names
    assert sequence.set(targets={"x": "age", "y": "label"}).target_names == ["x", "y"]


KINDS = {
    "none": (None, "class"),
    "label": ("label", "class"),
    "a column": ("age", "numbers"),
    "columns": (["age", "price"], "numbers"),
    "an array": (np.zeros((66, 3), np.uint8), "numbers"),
    "tags": (Tags("finding"), "tags"),
    "a dict": ({"age": "age"}, "other"),
    "more axes": (np.zeros((66, 2, 2)), "other"),
    "text": (np.array(["a"] * 66), "other"),
}


@pytest.mark.parametrize(("targets", "kind"), KINDS.values(), ids=KINDS)
def test_the_kind_of_targets(packs, targets, kind):
    assert SplitSequence(*packs, targets=targets).target_kind == kind


def test_a_column_of_labels_that_is_wanted_as_tags_says_how_to_keep_it(tmp_path):
    path = write_pack(tmp_path / "a.h5", ["a/x, y/0.png", "a/y/1.png"])
    for targets in ("finding", ["finding"], Tags("finding"), {"f": Tags("finding")}):
        with pytest.raises(ArgumentError, match=r"found 'finding'; if it was the column of labels, .* --labels none"):
            SplitSequence(path, targets=targets)
    with pytest.raises(ArgumentError, match=r"weights: .*, found 'w'$"):
        SplitSequence(path, weights="w")
    bare = write_pack(tmp_path / "b.h5", ["a/0.png"], classes=["unlabelled"])
    with pytest.raises(ArgumentError, match=r"targets: .*, found 'finding'$"):
        SplitSequence(bare, targets=Tags("finding"))


@pytest.mark.parametrize("shape", [(2,), (2, 1), (2, 2), (2, 10)])
def test_without_labels_there_are_no_mistakes(tmp_path, shape):
    path = write_pack(tmp_path / "a.h5", ["a/0.png", "a/1.png"], {"age": ["1", "2"]}, classes=["unlabelled"] * 2)
    sequence = SplitSequence(path)
    with pytest.raises(ArgumentError, match=r"expected labels to compare them with, found none: all images are of the"):
        sequence.mistakes(np.zeros(shape))
    assert sequence.is_unlabelled
    assert len(sequence.set(targets="age").mistakes(np.zeros(2))) == 2
    assert not sequence.is_unlabelled
    assert not SplitSequence(path, classes={"unlabelled": "cat"}).is_unlabelled


class Lines:
    """Like a Series of pandas: it has a length, and its text has several lines."""

    def __len__(self):
        return 2

    def __repr__(self):
        return "0    1\n1    2\ndtype: int64"


WRONG = {
    "no such column": ({"targets": "weigth"}, "targets: expected one of the columns age, .*, found 'weigth'"),
    "no such weights": ({"weights": "w"}, "weights: expected one of the columns age, .*, found 'w'"),
    "no numbers": (
        {"targets": "finding"},
        r"targets: expected numbers in the column finding, found .* for [ab]/.*\.png",
    ),
    "no numbers in a dict": ({"targets": {"x": "source"}}, "targets: expected numbers in the column source, found 'a'"),
    "too few": ({"targets": np.zeros(3)}, r"targets: expected a value for each of 66 rows, found shape \(3,\)"),
    "too few weights": ({"weights": np.zeros(3)}, r"weights: expected a value for each of 66 rows, found shape \(3,\)"),
    "no array": ({"targets": list(range(100_000))}, "found a list of 100,000 values, the first 0; np.asarray"),
    "lines": ({"targets": Lines()}, r"found 0 1 1 2 dtype: int64; np\.asarray\(\.\.\.\) makes an array of it$"),
    "objects": ({"targets": np.array([None] * 66)}, "targets: expected an array of numbers or texts, found object"),
    "dates": ({"targets": np.zeros(66, "M8[s]")}, "targets: expected an array of numbers or texts, found datetime64"),
    "masked": (
        {"targets": np.ma.array(np.zeros(66), mask=[0, 1] * 33)},
        r"targets: expected values, found a masked array that hides some; fill them with filled\(\)",
    ),
    "masked weights": (
        {"weights": np.ma.array(np.zeros(66), mask=[0, 1] * 33)},
        "weights: expected values, found a masked array",
    ),
    "a mask as weights": (
        {"weights": np.ones(66, bool)},
        r"weights: expected a column, .* row, found ndarray of bool and shape \(66,\)$",
    ),
    "negative weights": ({"weights": np.linspace(1, -1, 66)}, r"weights: expected numbers of 0 .* found -0\.0153.* at"),
    "weights of NaN": ({"weights": np.full(66, np.nan)}, "weights: expected numbers of 0 or more .* found nan at .* 0"),
    "infinite weights": (
        {"weights": np.full(66, 1e300)},
        "weights: .* that float32 holds, found 1e\\+300 at position 0",
    ),
    "a column twice": ({"targets": ["age", "age"]}, "targets: expected each column once, found 'age' twice"),
    "a tag twice": ({"targets": Tags("finding", names=["A", "B", "A"])}, "expected each tag once, found 'A' twice"),
    "a tag of spaces": ({"targets": Tags("finding", names=[" A"])}, "without ',' and spaces around them, found ' A'"),
    "a tag of two": ({"targets": Tags("finding", names=["A,B"])}, "without ',' and spaces around them, found 'A,B'"),
    "a tag of a number": ({"targets": Tags("finding", names=[1])}, "targets: expected names of tags, .*, found 1"),
    "tags as a text": ({"targets": Tags("finding", names="AB")}, "expected a list of the names of tags, found 'AB'"),
    "no names": ({"targets": Tags("finding", names=[])}, "targets: expected names of tags, found none"),
    "a separator of a number": ({"targets": Tags("finding", separator=3)}, "expected a text between tags, .*, found 3"),
    "tags of a number": ({"targets": Tags(3)}, "targets: expected a column of tags, found 3"),
    "weights that are lists": ({"weights": np.zeros((66, 2))}, "weights: expected a column, or an array with a number"),
    "a number": ({"targets": 3}, "targets: expected a column, a list of columns, Tags, .*, found 3"),
    "nothing": ({"targets": []}, r"targets: expected a column, .*, found \[\]"),
    "weights of nothing": (
        {"targets": None, "label_mode": None, "weights": "age"},
        "weights: expected targets to weigh",
    ),
    "weights of the class without labels": (
        {"targets": "label", "label_mode": None, "weights": "age"},
        "weights: expected targets to weigh",
    ),
    "no separator": ({"targets": Tags("finding", "")}, "targets: expected a text between tags, such as ',', found an"),
    "an empty dict": ({"targets": {}}, r"targets: expected a column, .*, found \{\}"),
}


@pytest.mark.parametrize(("options", "message"), WRONG.values(), ids=WRONG)
def test_targets_that_do_not_fit_are_an_error_and_change_nothing(packs, options, message):
    sequence = SplitSequence(*packs, targets="age")
    with pytest.raises(ArgumentError, match=message):
        sequence.set(**options)
    assert sequence.target_names == ["age"]
    assert len(sequence[0]) == 2
    if "array" not in message and "rows" not in message:
        with pytest.raises(ArgumentError, match=message):
            SplitSequence(*packs, **options)


# --- what is set keeps its meaning ------------------------------------------------------------------------------------

COPIES = {
    "the part": lambda part: part,
    "a pickle": lambda part: pickle.loads(pickle.dumps(part)),
    "a copy": copy.copy,
    "weights": lambda part: part.set(weights=np.ones(len(part.filenames))),
    "classes": lambda part: part.set(classes=["emu", "dog", "cat"]),
    "a mapped one": lambda part: part.map(lambda images, targets, rng: (images, targets)),
}


@pytest.mark.parametrize("change", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize("inside", [False, True], ids=["alone", "in a dict"])
def test_a_part_keeps_the_tags_of_the_whole(packs, lines, change, inside):
    tags = Tags("finding")
    whole = SplitSequence(*packs, batch_size=66, targets={"tags": tags} if inside else tags)
    chosen = np.flatnonzero([lines[name]["finding"] == "Pneumonia" for name in whole.filenames])
    part = change(whole.select(chosen))
    targets = part[0][1]["tags"] if inside else part[0][1]
    assert targets.tolist() == [[0, 0, 0, 1]] * len(chosen)
    assert part.target_names == (["tags"] if inside else TAGS)


@pytest.mark.parametrize("change", [COPIES["a pickle"], copy.copy, COPIES["weights"], COPIES["classes"]])
def test_an_empty_part_keeps_the_tags_of_the_whole(packs, change):
    part = change(SplitSequence(*packs, targets=Tags("finding")).split(0.0)[0])
    assert (list(part), part.target_names, part.get_targets().shape) == ([], TAGS, (0, 4))


def test_the_tags_that_are_set_give_another_sequence_the_same_ones(packs):
    train = SplitSequence(*packs, targets=Tags("finding"))
    val = SplitSequence(packs[0]).select([0]).set(targets=train.settings.targets)
    assert val.target_names == TAGS


def test_a_pack_with_tags_that_are_new_is_refused(packs, tmp_path):
    names = names_in("c", {"cat": 2})
    other = write_pack(tmp_path / "c.h5", names, {"finding": ["ARDS", "Edema"]})
    sequence = SplitSequence(packs[0], targets=Tags("finding"))
    message = r"expected ARDS, .*; found 'Edema' in the column finding; set targets to Tags\('finding'\) again"
    with pytest.raises(ArgumentError, match=message):
        sequence.add_file(other)
    assert (sequence.target_names, len(sequence.filenames)) == (TAGS, 51)
    later = SplitSequence(targets=Tags("finding")).add_file(packs[0])
    with pytest.raises(ArgumentError, match=message):
        later.add_file(other)
    assert later.set(targets=None).add_file(other).set(targets=Tags("finding")).target_names == sorted([*TAGS, "Edema"])


@pytest.mark.parametrize("targets", [Tags("finding"), "age", ["age"], {"x": Tags("finding")}], ids=repr)
def test_a_pack_without_the_column_is_refused_and_named(packs, tmp_path, targets):
    other = write_pack(tmp_path / "c.h5", names_in("c", {"cat": 2}))
    message = r"targets: expected a column (age|finding) in every pack, found none in .*c\.h5; pack it with the column"
    with pytest.raises(ArgumentError, match=message):
        SplitSequence(packs[0], other, targets=targets)
    sequence = SplitSequence(packs[0], targets=targets)
    with pytest.raises(ArgumentError, match=message):
        sequence.add_file(other)
    whole = SplitSequence(packs[0], other)
    part = whole.select(whole.columns["source"] == "a").set(targets=targets)
    assert len(part.filenames) == 51


def test_lists_that_are_given_are_copied(packs):
    columns, names, classes = ["age"], [*TAGS], {"x": "age", "y": "price"}
    sequences = [SplitSequence(*packs, targets=given) for given in (columns, Tags("finding", names=names), classes)]
    columns.append("price")
    names.reverse()
    classes.clear()
    for sequence, expected in zip(sequences, (["age"], TAGS, ["x", "y"]), strict=True):
        assert sequence.target_names == copy.copy(sequence).target_names == expected
        assert sequence.set(targets=sequence.settings.targets).target_names == expected


def test_a_column_whose_texts_all_differ_is_hardly_one_of_tags(tmp_path):
    count = 10_001
    names = [f"c/cat/{number}.png" for number in range(count)]
    pixels = [np.zeros((1, 1, 3), np.uint8)] * count
    columns = {"id": [f"patient-{number}" for number in range(count)]}
    sequence = SplitSequence(write_pack(tmp_path / "c.h5", names, columns, pixels=pixels))
    message = "found 10,001 different ones in 10,001 different texts of the column id; if they are tags, give Tags "
    with pytest.raises(ArgumentError, match=message):
        sequence.set(targets=Tags("id"))
    few = sequence.select([7, 5]).set(targets=Tags("id", names=["patient-5", "patient-6", "patient-7"]))
    assert few[0][1].tolist() == [[0, 0, 1], [1, 0, 0]]


# --- a column label ---------------------------------------------------------------------------------------------------


def test_a_column_label_is_meant_unless_there_is_none(packs, tmp_path):
    names = names_in("c", {"cat": 2, "dog": 2})
    sequence = SplitSequence(
        write_pack(tmp_path / "c.h5", names, {"label": ["0", "1.5", "3", "4.5"]}), label_mode="int"
    )
    for mode in ("int", None):
        sequence.set(label_mode=mode)
        assert sequence.set(targets="label")[0][1].tolist() == [0, 1.5, 3, 4.5]
        assert sequence.set(targets=["label"])[0][1].tolist() == [[0], [1.5], [3], [4.5]]
    assert sequence.set(weights="label")[0][2].tolist() == [0, 1.5, 3, 4.5]
    with pytest.raises(ArgumentError, match="targets: expected 'label' to mean one thing, found a column label beside"):
        sequence.set(targets={"y": "label"})
    both = sequence.set(targets={"kind": sequence.classes, "y": ["label"]})[0][1]
    assert (both["kind"].tolist(), both["y"].ravel().tolist()) == (sequence.classes.tolist(), [0, 1.5, 3, 4.5])
    without = SplitSequence(*packs, batch_size=66, label_mode="int", targets="label")
    assert without[0][1].tolist() == without.classes.tolist()


# --- arrays -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["targets", "weights"])
def test_a_row_that_is_there_twice_has_one_value(packs, name):
    sequence = SplitSequence(*packs, batch_size=9, label_mode="int").select([5, 5, 1, 60])
    own = sequence.filenames[0]
    with pytest.raises(ArgumentError, match=f"{name}: expected one value for each image, .* ones for {own}, which"):
        sequence.set(**{name: np.array([10, 20, 30, 40])})
    assert sequence.set(**{name: np.array([10, 10, 30, 40])})[0][-1].tolist() == [10, 10, 30, 40]


@pytest.mark.parametrize(
    ("values", "is_right"),
    [
        (np.array([np.nan, np.nan, 3]), True),
        (np.array([np.nan, 1, 3]), False),
        (np.array([[[1, 2]], [[1, 2]], [[1, 3]]]), True),
        (np.array([[[1, 2]], [[1, 3]], [[1, 3]]]), False),
        (np.array(["a", "b", "c"]), False),
        (np.array(["a", "a", "c"]), True),
        (np.zeros((3, 0)), True),
    ],
)
def test_values_of_any_kind_are_compared_for_rows_that_are_there_twice(packs, values, is_right):
    sequence = SplitSequence(*packs).select([5, 5, 1])
    if is_right:
        assert np.array_equal(sequence.set(targets=values)[0][1], values, equal_nan=values.dtype.kind == "f")
    else:
        with pytest.raises(ArgumentError, match="which is in the sequence several times; set them before select"):
            sequence.set(targets=values)


@pytest.mark.parametrize("dtype", [">f4", ">f8", ">i4", ">i2", ">U1"])
def test_arrays_of_another_byte_order_become_native(packs, dtype):
    values = np.arange(66).astype(dtype)
    sequence = SplitSequence(*packs, targets=values, weights=values if dtype != ">U1" else None, batch_size=66)
    for found in sequence[0][1:]:
        assert found.dtype.isnative
    assert np.array_equal(sequence[0][1], values)
    mapped = sequence.map(lambda images, targets, rng: (images, targets.astype(dtype)))
    assert mapped[0][1].dtype.isnative


def test_masked_arrays_that_mask_nothing_become_plain(packs):
    values = np.ma.array(np.arange(66.0), mask=False)
    _, targets, weights = SplitSequence(*packs, targets=values, weights=values, batch_size=66)[0]
    assert {type(targets), type(weights)} == {np.ndarray}
    assert targets.tolist() == weights.tolist() == list(range(66))


@pytest.mark.parametrize("name", ["targets", "weights"])
def test_an_array_that_is_set_belongs_to_its_packs(packs, tmp_path, name):
    train = SplitSequence(packs[0], **{name: np.arange(51)})
    same = SplitSequence(packs[0]).select([3, 1])
    longer = SplitSequence(*packs).select([3, 1])
    for given in (getattr(train.settings, name), getattr(pickle.loads(pickle.dumps(train)).settings, name)):
        assert not given.values.flags.writeable
        for sequence in (same, longer):
            assert sequence.set(**{name: given})[0][-1].tolist() == [3, 1]
            assert pickle.loads(pickle.dumps(sequence))[0][-1].tolist() == [3, 1]
        for other in (SplitSequence(packs[1]), SplitSequence(packs[1], packs[0])):
            with pytest.raises(
                ArgumentError, match=f"{name}: expected values for rows of .*, found an array that was "
            ):
                other.set(**{name: given})
    with pytest.raises(
        ArgumentError, match=f"{name}: expected a value for each of 51 rows, found an array of 2 from a"
    ):
        SplitSequence(packs[0]).set(**{name: getattr(same.set(**{name: np.arange(2)}).settings, name)})


def test_targets_that_were_set_may_be_weights_if_they_are_fit_for_it(packs):
    sequence = SplitSequence(packs[0], batch_size=51, targets=np.arange(51))
    sequence.set(weights=sequence.settings.targets)
    assert (sequence[0][2].dtype, sequence[0][2].tolist()) == (np.float32, list(range(51)))
    sequence.set(targets=-np.arange(51))
    with pytest.raises(ArgumentError, match=r"weights: expected numbers of 0 or more .* found -1 at position 1"):
        sequence.set(weights=sequence.settings.targets)


def test_numbers_that_float32_cannot_hold_are_an_error(tmp_path):
    names = names_in("c", {"cat": 2})
    pack = write_pack(tmp_path / "c.h5", names, {"v": ["1", "1e39"], "w": ["-1", "2"]})
    sequence = SplitSequence(pack)
    for name in ("targets", "weights"):
        with pytest.raises(ArgumentError, match=f"{name}: .* found '1e39' for {names[1]}, which float32 cannot hold"):
            sequence.set(**{name: "v"})
    with pytest.raises(ArgumentError, match=f"numbers of 0 or more in the column w, found '-1' for {names[0]}; leave"):
        sequence.set(weights="w")
    assert sequence.set(targets="w")[0][1].tolist() == [-1, 2]
    given = np.array([np.nan, np.inf])
    assert np.array_equal(sequence.set(targets=given)[0][1], given, equal_nan=True)


def test_mistakes_show_all_digits_of_numbers(packs):
    targets = np.full(66, 0.1, np.float32)
    targets[0] = 1234567
    predictions = targets.copy()
    predictions[0] += 1
    found = SplitSequence(*packs, targets=targets).mistakes(predictions)
    assert [(one.label, one.predicted) for one in found[:2]] == [("1234567", "1234568"), ("0.1", "0.1")]


def test_the_parts_of_a_report_have_its_classes(packs, tmp_path):
    from h5split.view import report

    sequence = SplitSequence(packs[0])
    part = sequence.split(0.5)[0].set(classes=["dog", "cat"])
    with pytest.raises(
        ArgumentError, match="part 'a': expected the classes cat, dog, found dog, cat; give it the same"
    ):
        report(sequence, None, tmp_path / "r.html", parts={"a": part})


def test_only_the_rows_of_the_sequence_need_numbers(tmp_path):
    names = names_in("c", {"cat": 4})
    pack = write_pack(tmp_path / "c.h5", names, {"age": ["1", "", "nan", "4"]})
    with pytest.raises(ArgumentError, match=f"found '' for {names[1]}; leave such rows out by select"):
        SplitSequence(pack, targets="age")
    sequence = SplitSequence(pack)
    known = sequence.select(~sequence.columns["age"].isin(["", "nan"])).set(targets="age")
    assert known[0][1].tolist() == [1, 4]


@pytest.mark.parametrize("scale", [None, 1 / 255])
def test_without_label_mode_a_batch_is_its_images(packs, scale):
    sequence = SplitSequence(*packs, batch_size=7, label_mode=None, scale=scale, auto_shuffle=True)
    images = np.concatenate(list(sequence))
    assert len(images) == 66
    expected = np.stack([pixels_of(name) for name in sequence.get_filenames()])
    assert np.array_equal(np.rint(images * (255 if scale else 1)).astype(np.uint8), expected)
    assert sequence.get_labels().tolist() == [CLASSES.index(name.split("/")[1]) for name in sequence.get_filenames()]
    with pytest.raises(ArgumentError, match="get_targets: expected targets, found none"):
        sequence.get_targets()
    assert len(sequence.set(targets="age")[0]) == 2


def test_labels_of_positions(packs):
    sequence = SplitSequence(*packs, batch_size=7, label_mode="binary", classes={"cat": "x", "dog": "y", "emu": "y"})
    list(sequence.set(auto_shuffle=True))
    numbers = [int(name.split("/")[1] != "cat") for name in sequence.get_filenames()]
    assert sequence.get_labels().tolist() == numbers
    assert sequence.get_labels([5, -1]).tolist() == [numbers[5], numbers[-1]]
    assert sequence.get_labels().dtype == np.int32
    assert sequence.get_targets([5, -1]).tolist() == [[numbers[5]], [numbers[-1]]]


def test_class_weights_are_of_classes_alone(packs):
    with pytest.raises(ArgumentError, match="class_weights: expected classes as the target, found the setting targets"):
        SplitSequence(*packs, targets="age").class_weights()


def test_class_weights_make_classes_count_alike(packs):
    sequence = SplitSequence(*packs, classes=["cat", "dog", "elk", "emu"])
    weights = sequence.class_weights()
    counts = np.bincount(sequence.classes, minlength=4)
    assert weights[2] == 0
    assert {round(weights[number] * counts[number], 9) for number in (0, 1, 3)} == {22}


def test_mistakes_of_tags_are_those_on_the_wrong_side_of_the_threshold(packs, lines):
    sequence = SplitSequence(*packs, batch_size=7, targets=Tags("finding"), auto_shuffle=True)
    list(sequence)
    scores = np.where(sequence.get_targets() > 0, 0.9, 0.1)
    assert sequence.mistakes(scores) == []
    scores[5], scores[9, 2] = [0.6, 0.1, 0.1, 0.1], 0.95
    found = sequence.mistakes(scores)
    names = sequence.get_filenames([5, 9])
    assert {mistake.position for mistake in found} <= {5, 9}
    for mistake in found:
        line = lines[mistake.filename]
        assert mistake.filename == names[(5, 9).index(mistake.position)]
        assert sorted(filter(None, mistake.label.split(", "))) == sorted(
            filter(None, map(str.strip, line["finding"].split(",")))
        )
    assert [mistake.confidence for mistake in found] == sorted((mistake.confidence for mistake in found), reverse=True)
    every = sequence.mistakes(np.full((66, 4), 0.4), threshold=0.3)
    assert {mistake.predicted for mistake in every} == {", ".join(TAGS)}
    assert len(every) == 66
    with pytest.raises(ArgumentError, match=r"predictions: expected shape \(66, 4\), found \(66,\)"):
        sequence.mistakes(np.zeros(66))
    with pytest.raises(ArgumentError, match=r"threshold: expected a number such as 0\.5, found nan"):
        sequence.mistakes(scores, threshold=float("nan"))


def test_the_confidence_of_a_row_is_that_of_its_worst_tag(packs, lines):
    sequence = SplitSequence(*packs, batch_size=7, targets=Tags("finding"), auto_shuffle=True)
    list(sequence)
    scores = np.random.default_rng(0).random((66, 4))
    expected = {}
    for position, name in enumerate(sequence.get_filenames()):
        pairs = zip(scores[position], tags_of(lines[name]), strict=True)
        wrong = [score if not has else 1 - score for score, has in pairs if (score >= 0.5) != has]
        if wrong:
            expected[position] = max(wrong)
    found = sequence.mistakes(scores)
    assert {mistake.position: mistake.confidence for mistake in found} == expected
    assert [mistake.position for mistake in found] == sorted(expected, key=expected.get, reverse=True)


def test_mistakes_of_numbers_are_all_rows_with_the_largest_error_first(packs, lines):
    sequence = SplitSequence(*packs, batch_size=7, targets="age", auto_shuffle=True)
    list(sequence)
    predictions = sequence.get_targets() + np.linspace(-1, 2, 66)
    for given in (predictions, predictions[:, np.newaxis]):
        found = sequence.mistakes(given)
        assert [mistake.position for mistake in found][:3] == [65, 64, 63]
        assert len(found) == 66
        assert found[0].filename == sequence.get_filenames([65])[0]
        assert float(found[0].label) == float(lines[found[0].filename]["age"])
        assert found[0].confidence == pytest.approx(2, abs=1e-5)
    sequence.set(targets=["age", "price"])
    found = sequence.mistakes(sequence.get_targets() + np.array([0, 3]))
    assert {round(mistake.confidence) for mistake in found} == {3}
    assert found[0].label == f"{float(lines[found[0].filename]['age']):g}, {float(lines[found[0].filename]['price']):g}"
    with pytest.raises(ArgumentError, match="found NaN or infinity in 1 of 66 rows"):
        sequence.mistakes(np.where(np.arange(132).reshape(66, 2) == 5, np.nan, 0))
    sequence.set(targets=np.where(np.arange(66) == 5, np.nan, 0))
    with pytest.raises(ArgumentError, match=r"targets: .* NaN or infinity in 1 of 66 rows; leave such rows out by"):
        sequence.mistakes(np.zeros(66))


@pytest.mark.parametrize(
    "targets", [{"x": "age"}, np.zeros((66, 2, 2)), np.array(["a"] * 66)], ids=["dict", "axes", "text"]
)
def test_mistakes_of_other_targets_are_refused(packs, targets):
    sequence = SplitSequence(*packs, targets=targets)
    list(sequence)
    with pytest.raises(ArgumentError, match="mistakes: expected classes, tags or numbers as targets"):
        sequence.mistakes(np.zeros(66))


@pytest.mark.parametrize("targets", ["age", ["age", "price"], Tags("finding")], ids=["a column", "columns", "tags"])
def test_an_empty_part_has_no_mistakes(packs, targets):
    part = SplitSequence(*packs, targets=targets).split(0)[0]
    assert (list(part), part.get_filenames(), len(part.get_targets())) == ([], [], 0)
    assert part.mistakes(part.get_targets()) == []


def test_targets_of_the_present_classes_are_given_after_classes_change(packs):
    sequence = SplitSequence(*packs, batch_size=7)
    list(sequence)
    sequence.set(classes=["x", "emu", "y", "dog", "cat"])
    assert sequence.get_targets().shape == (66, 5)
    assert sequence.get_targets().argmax(axis=1).tolist() == sequence.get_labels().tolist()


# --- Keras ------------------------------------------------------------------------------------------------------------


@TARGETS
@pytest.mark.filterwarnings("default")  # a backend's own warnings are not ours to mend
def test_fit_gets_the_targets_and_weights(packs, lines, targets, expected):
    pytest.importorskip("keras", reason="needs Keras")
    from h5split import H5SplitSequence

    sequence = H5SplitSequence(
        *packs, batch_size=7, label_mode="int", targets=targets, weights="weight", auto_shuffle=True
    )
    batches = [(images.astype(np.uint8), *rest) for images, *rest in seen_by_fit(sequence, epochs=2)]
    names = assert_rows(batches, lines, expected)
    assert sorted(names[:66]) == sorted(names[66:]) == sorted(lines)
    assert names[:66] != names[66:]


@pytest.mark.filterwarnings("default")
def test_validation_data_of_other_classes_is_an_error(packs):
    keras = pytest.importorskip("keras", reason="needs Keras")
    from h5split import H5SplitSequence

    train = H5SplitSequence(*packs, batch_size=33, label_mode="int")
    val = H5SplitSequence(packs[0], batch_size=33, label_mode="int")
    model = keras.Sequential([keras.Input(train.shape), keras.layers.Flatten(), keras.layers.Dense(3)])
    model.compile(loss="sparse_categorical_crossentropy")
    with pytest.raises(
        ArgumentError, match="fit: expected validation data of the classes cat, dog, emu; found the classes cat, dog;"
    ):
        model.fit(train, validation_data=val, verbose=0)
    history = model.fit(train, validation_data=val.set(classes=train.classnames), epochs=2, verbose=0).history
    assert len(history["val_loss"]) == 2
    model.fit(train, validation_data=train.split(0.5)[0], verbose=0)


def model_for(keras, sequence, units, loss, **outputs):
    """A model of one dense layer for each output; without names, of one."""
    inputs = keras.Input(sequence.shape)
    flat = keras.layers.Flatten()(inputs)
    made = {name: keras.layers.Dense(count, name=name)(flat) for name, count in outputs.items()}
    model = keras.Model(inputs, made or keras.layers.Dense(units)(flat))
    model.compile(loss=loss)
    return model


MSE = "mean_squared_error"
OTHER_TARGETS = {
    "tags": (Tags("finding"), "the tags ARDS, COVID-19, No Finding, Pneumonia; found the tags COVID-19, ARDS, Edema, "),
    "columns": (["age", "price"], "the columns age, price; found the columns price, age"),
    "a dict": ({"x": ["age", "price"]}, "the columns age, price; found the columns price, age"),
    "the class in a dict": ({"x": "label"}, "the classes cat, dog; found the classes dog, cat"),
}
VALIDATION = {
    "tags": {"targets": Tags("finding", names=["COVID-19", "ARDS", "Edema", "No Finding", "Pneumonia"])},
    "columns": {"targets": ["price", "age"]},
    "a dict": {"targets": {"x": ["price", "age"]}},
    "the class in a dict": {"targets": {"x": "label"}, "classes": ["dog", "cat"]},
}


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("case", OTHER_TARGETS)
def test_validation_data_of_other_targets_is_an_error(packs, case):
    keras = pytest.importorskip("keras", reason="needs Keras")
    from h5split import H5SplitSequence

    targets, message = OTHER_TARGETS[case]
    train = H5SplitSequence(packs[0], batch_size=51, label_mode="int", targets=targets)  # one batch
    val = H5SplitSequence(packs[0], batch_size=51, label_mode="int", **VALIDATION[case])
    loss = "sparse_categorical_crossentropy" if "class" in case else MSE
    outputs = {"x": 2} if isinstance(targets, dict) else {}
    model = model_for(keras, train, 4 if case == "tags" else 2, {"x": loss} if outputs else loss, **outputs)
    with pytest.raises(ArgumentError, match=f"^fit: expected validation data of {message}"):
        model.fit(train, validation_data=val, verbose=0)
    mapped = train.map(lambda images, targets, rng: (images, targets))
    with pytest.raises(ArgumentError, match=f"^fit: expected validation data of {message}"):
        model.fit(mapped, validation_data=val, verbose=0)
    val.set(targets=train.settings.targets, classes=None)
    assert "val_loss" in model.fit(train, validation_data=val, verbose=0).history


@pytest.mark.filterwarnings("default")
def test_fit_takes_arrays_and_mapped_targets_for_validation(packs):
    keras = pytest.importorskip("keras", reason="needs Keras")
    from h5split import H5SplitSequence

    train, val = (H5SplitSequence(packs[0], batch_size=51, targets="age") for _ in range(2))
    model = model_for(keras, train, 1, MSE)
    model.fit(train, validation_data=val.set(targets=np.zeros(51)), verbose=0)
    mapped = val.set(targets=Tags("finding")).map(lambda images, targets, rng: (images, targets[:, 0]))
    model.fit(train, validation_data=mapped, verbose=0)
    with pytest.raises(ArgumentError, match="fit: expected validation data of the columns age; found the tags ARDS"):
        model.fit(train, validation_data=val, verbose=0)


@pytest.mark.filterwarnings("default")
def test_a_callback_of_fit_may_predict_data_of_other_classes(packs):
    keras = pytest.importorskip("keras", reason="needs Keras")
    from h5split import H5SplitSequence

    train, val = H5SplitSequence(packs[0], label_mode="int").split(0.5)
    other = H5SplitSequence(*packs, label_mode="int")
    model = model_for(keras, train, 2, "sparse_categorical_crossentropy")
    seen = []
    callback = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append(len(model.predict(other, verbose=0)))
    )
    model.fit(train, validation_data=val, callbacks=[callback], epochs=2, verbose=0)
    assert seen == [66, 66]


@pytest.mark.filterwarnings("default")
def test_predict_takes_images_alone(packs):
    keras = pytest.importorskip("keras", reason="needs Keras")
    from h5split import H5SplitSequence

    sequence = H5SplitSequence(*packs, batch_size=7, label_mode=None, auto_shuffle=True)
    model = keras.Sequential([keras.Input(sequence.shape), keras.layers.Flatten()])
    predictions = model.predict(sequence, verbose=0)
    for prediction, name in itertools.zip_longest(predictions, sequence.get_filenames()):
        assert np.array_equal(prediction.astype(np.uint8), pixels_of(name).reshape(-1))
