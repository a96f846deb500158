"""Rows by class and by column, and other classes in place of those of the packs."""

from __future__ import annotations

import copy
import pickle
from collections import Counter

import numpy as np
import pytest

from conftest import names_in, names_of, one_pass, pixels_of, write_pack
from h5split import SplitSequence
from h5split.errors import ArgumentError, PositionError


@pytest.fixture
def train(tmp_path):
    names = names_in("train", {"cat": 12, "deer": 9, "dog": 15})
    columns = {"split": ["train" if index % 3 else "test" for index in range(36)], "view": ["PA", "AP"] * 18}
    return write_pack(tmp_path / "train.h5", names, columns)


@pytest.fixture
def val(tmp_path):
    return write_pack(tmp_path / "val.h5", names_in("val", {"cat": 5, "dog": 6}))


def assert_classes(sequence, class_of):
    """Every row of a pass has its own pixels, and the number of the class that its folder stands for."""
    images, labels, names = one_pass(sequence)
    for image, label, name in zip(images, labels, names, strict=True):
        assert np.array_equal(image, pixels_of(name, image.shape)), name
        assert sequence.classnames[label] == class_of(name.split("/")[-2])


# --- select -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("label", "columns"),
    [
        ("cat", {}),
        (["dog", "cat"], {}),
        (None, {"split": "train"}),
        (None, {"split": ["train", "test"], "view": "PA"}),
        (("cat",), {"split": "test", "view": ["AP"]}),
        (None, {}),
    ],
)
def test_rows_are_selected_by_class_and_by_columns(train, label, columns):
    sequence = SplitSequence(train, auto_shuffle=True)
    kept = [
        name
        for name, *values in zip(sequence.filenames, *(sequence.columns[name] for name in columns), strict=True)
        if (label is None or name.split("/")[-2] in ([label] if isinstance(label, str) else label))
        and all(
            value in ([wanted] if isinstance(wanted, str) else wanted)
            for value, wanted in zip(values, columns.values(), strict=True)
        )
    ]
    part = sequence.select(label=label, **columns)
    assert list(part.filenames) == kept
    assert sorted(names_of(part)) == sorted(kept)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label": "cow"}, "select: expected label to be among cat, deer, dog; found 'cow'"),
        ({"split": "trian"}, "select: expected split to be among test, train; found 'trian'"),
        ({"part": "train"}, "expected one of the columns source, split, view, found 'part'"),
        ({"rows": [1], "label": "cat"}, "select: expected rows, or a label and columns, found both"),
    ],
)
def test_a_selection_that_makes_no_sense_is_an_error(train, options, message):
    with pytest.raises(ArgumentError, match=message):
        SplitSequence(train).select(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": 3}, "select: split: expected a text or several, found 3; columns hold texts: numbers"),
        ({"split": ["train", None]}, "select: split: expected a text or several, found None"),
        ({"label": 0}, "select: label: expected a text or several, found 0"),
        ({"rows": np.ma.array([True] * 36, mask=[0, 1] * 18)}, "select: expected values, found a masked array"),
    ],
    ids=["a number", "none", "a label", "a masked mask"],
)
def test_values_that_are_no_texts_and_masks_that_are_masked_are_an_error(train, options, message):
    with pytest.raises(ArgumentError, match=f"^{message}"):
        SplitSequence(train).select(**options)


def test_a_masked_array_that_masks_nothing_selects_as_any_other(train):
    sequence = SplitSequence(train)
    assert list(sequence.select(np.ma.array([3, 1], mask=False)).filenames) == sequence.filenames[[3, 1]]


@pytest.mark.parametrize("indices", [True, [[0, 1]], None, [0.5], "a"], ids=repr)
def test_positions_of_an_epoch_are_whole_numbers_or_a_mask(train, indices):
    sequence = SplitSequence(train)
    if indices is None:
        assert sequence.get_filenames(3) == sequence.filenames[[3]]
        return
    for get in (sequence.get_filenames, sequence.get_labels, sequence.get_targets):
        with pytest.raises(PositionError, match=r"^expected positions, or a mask of 36 rows, found "):
            get(indices)


# --- classes ----------------------------------------------------------------------------------------------------------


def test_a_list_of_classes_gives_the_numbers(train, val):
    learnt = SplitSequence(train, label_mode="int")
    tested = SplitSequence(val, label_mode="int", classes=learnt.classnames, auto_shuffle=True)
    assert tested.classnames == ["cat", "deer", "dog"]
    assert_classes(tested, str)
    assert Counter(tested.classes.tolist()) == {0: 5, 2: 6}
    for order in (["dog", "cat"], ["x", "dog", "y", "cat"]):
        assert_classes(tested.set(classes=order), str)
        assert tested.classnames == order
    assert tested.set(classes=None).classnames == ["cat", "dog"]


def test_a_mapping_renames_and_merges(train):
    sequence = SplitSequence(
        train, label_mode="int", classes={"dog": "pet", "deer": "wild", "cat": "pet", "elk": "wild"}
    )
    assert sequence.classnames == ["pet", "wild"]
    assert_classes(sequence, {"cat": "pet", "dog": "pet", "deer": "wild"}.get)
    assert sequence.set(label_mode="binary")[0][1].shape == (32, 1)
    capped = sequence.set(label_mode="int", max_per_class_and_epoch=4)
    assert Counter(np.concatenate([labels for _, labels in capped]).tolist()) == {0: 4, 1: 4}


def test_a_mapping_in_another_order_is_another_setting(train):
    sequence = SplitSequence(train, label_mode="int", classes={"cat": "x", "deer": "y", "dog": "z"})
    sequence.set(classes={"dog": "z", "deer": "y", "cat": "x"})
    assert sequence.classnames == ["z", "y", "x"]
    assert sequence.classnames == pickle.loads(pickle.dumps(sequence)).classnames
    assert_classes(sequence, {"cat": "x", "deer": "y", "dog": "z"}.get)
    before = sequence.settings
    assert sequence.set(classes={"cat": "x", "deer": "y", "dog": "z"}).settings != before


def test_a_class_with_images_must_be_among_the_classes(train):
    sequence = SplitSequence(train, label_mode="int")
    message = "found 9 images of others, such as 'deer'; add it, or leave them out by select"
    for wrong in (["cat", "dog"], {"cat": "pet", "dog": "pet"}):
        with pytest.raises(ArgumentError, match=message):
            sequence.set(classes=wrong)
        with pytest.raises(ArgumentError, match=message):
            SplitSequence(train, classes=wrong)
    assert sequence.classnames == ["cat", "deer", "dog"]
    part = sequence.select(label=["cat", "dog"]).set(classes=["dog", "cat"])
    assert_classes(part, str)
    assert len(names_of(part)) == 27


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ("cat", "expected a list of names, or a mapping"),
        ([], "expected names, found none"),
        ({}, "expected names, found none"),
        (["cat", 1], "expected names, found 1"),
        ({"cat": ""}, "expected names, found ''"),
        (["cat", "dog", "cat"], "expected each name once, found 'cat' twice"),
    ],
)
def test_classes_that_make_no_sense_are_an_error(train, classes, message):
    with pytest.raises(ArgumentError, match=f"^classes: {message}"):
        SplitSequence(train, classes=classes)


def test_parts_copies_and_packs_that_are_added_have_the_classes(train, val):
    sequence = SplitSequence(val, label_mode="int", classes=["dog", "deer", "cat"])
    for found in (*sequence.split(0.5), pickle.loads(pickle.dumps(sequence)), copy.copy(sequence), sequence.shuffle(3)):
        assert found.classnames == ["dog", "deer", "cat"]
        assert_classes(found, str)
    assert_classes(sequence.add_file(train), str)
    assert sequence.classnames == ["dog", "deer", "cat"]
    assert len(names_of(sequence)) == 47
    with pytest.raises(ArgumentError, match="found 9 images of others, such as 'deer'"):
        SplitSequence(val, classes=["dog", "cat"]).add_file(train)


def test_a_pass_keeps_its_rows_when_classes_change(train):
    sequence = SplitSequence(train, batch_size=8, label_mode="int", auto_shuffle=True)
    expected = names_of(sequence.split()[0])
    seen = []
    for images, _ in sequence:
        seen.extend(image.tobytes() for image in images)
        sequence.set(classes={"cat": "all", "dog": "all", "deer": "all"})
    assert seen == [pixels_of(name).tobytes() for name in expected]
    assert sequence.classnames == ["all"]


def test_mistakes_are_said_in_the_classes_of_the_sequence(train):
    sequence = SplitSequence(train, classes={"cat": "pet", "dog": "pet", "deer": "wild"})
    list(sequence)
    mistakes = sequence.mistakes(np.tile([1.0, 0.0], (36, 1)))
    assert {(mistake.label, mistake.predicted) for mistake in mistakes} == {("wild", "pet")}
    assert len(mistakes) == 9
