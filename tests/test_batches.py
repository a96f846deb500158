"""The sequence without Keras, on images whose pixels say who they are."""

from __future__ import annotations

import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import assert_rows_are_who_they_say, names_of, one_pass, write_classes
from h5split import PackedImages, SplitSequence
from h5split import batches as batches_module


@pytest.fixture
def sequence(packed):
    return SplitSequence(packed, batch_size=8)


def test_a_pass_delivers_every_row_once_with_its_label_and_name(sequence):
    assert sorted(names_of(sequence)) == sorted(sequence.filenames)
    assert len(sequence) == 13


def test_unshuffled_batches_are_views_of_the_file(sequence, images):
    batch, _ = sequence[3]
    assert batch.shape == (8, 8, 8, 3)
    assert batch.dtype == np.uint8
    assert not batch.flags.writeable
    assert np.shares_memory(batch, sequence[3][0])
    assert np.array_equal(batch, images.images[24:32])


def test_shuffled_batches_are_gathered(sequence):
    shuffled = sequence.set(auto_shuffle=True)
    batch, _ = shuffled[0]
    assert batch.flags.writeable
    assert not np.shares_memory(batch, shuffled[0][0])
    assert sorted(names_of(shuffled)) == sorted(shuffled.filenames)


def test_batches_that_are_held_are_not_overwritten(sequence):
    held = [batch for batch, _ in sequence.set(auto_shuffle=True)]
    names = sequence.get_filenames(range(100))
    for _ in sequence:
        pass
    assert_rows_are_who_they_say(np.concatenate(held), [name.split("/")[-2] for name in names], names)


def test_scale_gives_float32(sequence):
    plain = [batch for batch, _ in sequence]
    scaled = [batch for batch, _ in sequence.set(scale=1 / 255)]
    assert all(batch.dtype == np.float32 for batch in scaled)
    assert np.array_equal(np.concatenate(scaled), np.concatenate(plain) * np.float32(1 / 255))
    shuffled = sequence.set(auto_shuffle=True)
    floats, _, names = one_pass(shuffled)
    assert_rows_are_who_they_say(np.rint(floats * 255).astype(np.uint8), [name.split("/")[-2] for name in names], names)


@pytest.mark.parametrize(("mode", "dtype", "shape"), [("categorical", np.float32, (8, 3)), ("int", np.int32, (8,))])
def test_labels_have_keras_conventions(sequence, mode, dtype, shape):
    _, labels = sequence.set(label_mode=mode)[0]
    assert (labels.dtype, labels.shape) == (dtype, shape)
    numbers = labels.argmax(axis=1) if mode == "categorical" else labels
    assert numbers.tolist() == sequence.classes[:8].tolist()
    assert labels.sum() == (8 if mode == "categorical" else numbers.sum())


def test_binary_labels_are_a_column_and_need_two_classes(tmp_path, packing, sequence):
    packing(write_classes(tmp_path / "data", {"cat": 5, "dog": 5}))
    pair = SplitSequence(tmp_path / "out.h5", label_mode="binary")
    _, labels = pair[0]
    assert (labels.dtype, labels.shape) == (np.float32, (10, 1))
    assert labels[:, 0].tolist() == pair.classes.tolist()
    with pytest.raises(ValueError, match="binary expects 2 classes, found 3; use categorical"):
        sequence.set(label_mode="binary")[0]


def test_the_default_split_is_stratified_and_disjoint(sequence):
    test, validation, training = sequence.split(0.2, 0.4)
    assert [len(part.classes) for part in (test, validation, training)] == [20, 20, 60]
    names = [name for part in (test, validation, training) for name in names_of(part)]
    assert sorted(names) == sorted(sequence.filenames)
    for part, share in ((test, 0.2), (validation, 0.2), (training, 0.6)):
        assert np.abs(np.bincount(part.classes) - np.array([20, 50, 30]) * share).max() <= 2


def test_parts_keep_settings_and_can_be_split_again(sequence):
    _, rest = sequence.set(batch_size=7, label_mode="int").split(0.5)
    a, b = rest.split(0.5)
    assert (a.settings.batch_size, b.settings.label_mode) == (7, "int")
    assert sorted([*a.filenames, *b.filenames]) == sorted(rest.filenames)


def test_equal_points_give_an_empty_part(sequence):
    _, empty, _ = sequence.split(0.5, 0.5)
    assert len(empty) == 0
    assert list(empty) == []
    assert list(empty.filenames) == []
    assert empty.shape == (8, 8, 3)


def test_stratify_cuts_classes_of_rows_in_any_order(sequence):
    by_class = sequence.select(np.argsort(sequence.classes, kind="stable"))
    parts = by_class.split(0.2, 0.4, stratify=True)
    assert [np.bincount(part.classes).tolist() for part in parts] == [[4, 10, 6], [4, 10, 6], [12, 30, 18]]


def test_groups_by_content_keep_identical_files_together(tmp_path, packing):
    root = write_classes(tmp_path / "data", {"cat": 20, "dog": 20})
    for index in range(10):
        copy = root / "dog" / f"copy-{index}.png"
        copy.write_bytes((root / "cat" / f"data-cat-{index}.png").read_bytes())
    packing(root)
    sequence = SplitSequence(tmp_path / "out.h5")
    homes = [{digest.tobytes() for digest in part.digests} for part in sequence.split(0.3, 0.6, groups="content")]
    assert not homes[0] & homes[1] | homes[0] & homes[2] | homes[1] & homes[2]


def test_groups_by_column_and_by_array(tmp_path, packing):
    packing(*(write_classes(tmp_path / name, {"cat": 10, "dog": 10}) for name in "abcd"))
    sequence = SplitSequence(tmp_path / "out.h5")
    for groups in ("source", [len(name.split("/")) + ord(name.split("/")[-3][0]) for name in sequence.filenames]):
        parts = sequence.split(0.5, groups=groups, stratify=True)
        assert [len(part.classes) for part in parts] == [40, 40]
        homes = [set(part.columns["source"]) for part in parts]
        assert not homes[0] & homes[1]
    with pytest.raises(ValueError, match="one of the columns source, found 'patient'"):
        sequence.split(0.5, groups="patient")
    with pytest.raises(ValueError, match=r"a value for each of 80 rows, found shape \(3,\)"):
        sequence.split(0.5, groups=[1, 2, 3])


def test_split_by_gives_a_part_for_each_value(tmp_path, packing):
    packing(*(write_classes(tmp_path / name, {"cat": 3, "dog": 4}) for name in "ab"))
    parts = SplitSequence(tmp_path / "out.h5").split_by("source")
    assert sorted(parts) == [str(tmp_path / "a"), str(tmp_path / "b")]
    for source, part in parts.items():
        assert len(part.classes) == 7
        assert all(name.startswith(source) for name in names_of(part))
    with pytest.raises(ValueError, match="one of the columns source, found 'split'"):
        SplitSequence(tmp_path / "out.h5").split_by("split")


def test_select_takes_positions_and_masks(sequence):
    some = sequence.select([5, 3, 99])
    assert names_of(some) == [sequence.filenames[index] for index in (5, 3, 99)]
    mask = sequence.classes == 1
    assert names_of(sequence.select(mask)) == [
        name for name, chosen in zip(sequence.filenames, mask, strict=True) if chosen
    ]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([100], "positions from 0 to 99, found 100"),
        ([-1], "positions from 0 to 99, found -1"),
        ([0.5], "whole numbers or a mask, found float64"),
        ([True, False], r"a mask of 100 rows, found shape \(2,\)"),
    ],
)
def test_select_refuses_rows_that_are_not_there(sequence, rows, message):
    with pytest.raises(IndexError, match=message):
        sequence.select(rows)


def test_shuffle_is_a_new_order_with_names_following(sequence, packed):
    before = list(sequence.filenames)
    shuffled = names_of(sequence.shuffle(seed=5))
    assert shuffled != before
    assert sorted(shuffled) == sorted(before)
    assert list(sequence.filenames) == shuffled
    assert names_of(SplitSequence(packed).shuffle(seed=5)) == shuffled


def test_passes_are_epochs(sequence):
    sequence.set(auto_shuffle=True)
    orders = [names_of(sequence) for _ in range(3)]
    assert len({tuple(order) for order in orders}) == 3
    assert sequence.epoch == 2


def test_an_epoch_is_a_function_of_seed_and_number(sequence, packed):
    sequence.set(auto_shuffle=True, seed=3)
    orders = [names_of(sequence) for _ in range(4)]
    again = SplitSequence(packed, batch_size=32, auto_shuffle=True, seed=3)
    again.epoch = 2
    assert names_of(again) == orders[2]
    assert names_of(again) == orders[3]
    assert names_of(again.set(seed=4)) not in orders


def test_without_auto_shuffle_every_epoch_is_the_same(sequence):
    for cap in (None, 7):
        sequence.set(max_per_class_and_epoch=cap)
        assert names_of(sequence) == names_of(sequence)


def test_a_pass_broken_off_does_not_advance_the_epoch(sequence):
    sequence.set(auto_shuffle=True)
    for index, _ in enumerate(sequence):
        if index == 5:
            break
    whole = names_of(sequence)
    assert sequence.epoch == 0
    assert len(set(whole)) == 100


def test_names_stay_right_until_the_next_pass(sequence):
    sequence.set(auto_shuffle=True)
    for _ in range(3):
        names = names_of(sequence)
        sequence.on_epoch_end()
        sequence.on_epoch_end()
        images, _ = sequence[2]
        sequence.set(verbose=False)
        assert sequence.get_filenames(range(100)) == names
        assert_rows_are_who_they_say(images, [name.split("/")[-2] for name in names[16:24]], names[16:24])


def test_a_loop_of_ones_own_may_end_epochs_itself(packed):
    sequence = SplitSequence(packed, auto_shuffle=True)
    orders = []
    for _ in range(3):
        for index in range(len(sequence)):
            sequence[index]
        orders.append(tuple(sequence.get_filenames(range(100))))
        sequence.on_epoch_end()
    assert len(set(orders)) == 3
    assert all(len(set(order)) == 100 for order in orders)


def test_threads_see_one_order_in_a_pass(packed):
    sequence = SplitSequence(packed, batch_size=1, auto_shuffle=True)
    with ThreadPoolExecutor(8) as executor:
        for _ in range(20):
            sequence.begin()
            batches = list(executor.map(sequence.__getitem__, range(100)))
            names = sequence.get_filenames(range(100))
            assert len(set(names)) == 100
            images = np.concatenate([images for images, _ in batches])
            assert_rows_are_who_they_say(images, [name.split("/")[-2] for name in names], names)
    assert sequence.epoch == 19


def test_a_look_ahead_does_not_end_an_epoch(packed):
    sequence = SplitSequence(packed, batch_size=64, auto_shuffle=True)
    sequence.begin(counts=False)
    for _ in range(3):
        sequence[0], sequence[1]
    assert len(names_of(sequence)) == 100
    assert sequence.epoch == 0


def test_the_cap_rotates(sequence):
    sequence.set(max_per_class_and_epoch=10, auto_shuffle=True)
    length = len(sequence)
    seen = []
    for _ in range(5):
        names = names_of(sequence)
        assert sorted(name.split("/")[-2] for name in names) == ["cat"] * 10 + ["dog"] * 10 + ["emu"] * 10
        assert len(sequence) == length == 4
        seen.extend(names)
    assert set(seen) == set(sequence.filenames)


def test_drop_remainder_leaves_out_a_short_batch(sequence):
    sequence.set(drop_remainder=True)
    assert len(sequence) == 12
    assert {len(images) for images, _ in sequence} == {8}
    predictions = np.zeros((96, 3))
    predictions[np.arange(96), sequence.classes[:96]] = 1
    assert sequence.mistakes(predictions) == []


def test_mistakes_are_named_most_confident_first(sequence):
    sequence.set(auto_shuffle=True)
    names = names_of(sequence)
    predictions = np.zeros((100, 3))
    truth = [sequence.classnames.index(name.split("/")[-2]) for name in names]
    predictions[np.arange(100), truth] = 1
    for position, confidence in ((7, 0.6), (50, 0.9), (99, 0.7)):
        predictions[position] = 0
        predictions[position, (truth[position] + 1) % 3] = confidence
    found = sequence.mistakes(predictions)
    assert [(mistake.position, mistake.confidence) for mistake in found] == [(50, 0.9), (99, 0.7), (7, 0.6)]
    for mistake in found:
        assert mistake.filename == names[mistake.position]
        assert mistake.label == mistake.filename.split("/")[-2]
        assert sequence.classnames.index(mistake.predicted) == (truth[mistake.position] + 1) % 3


def test_mistakes_of_two_classes_take_one_score(tmp_path, packing):
    packing(write_classes(tmp_path / "data", {"cat": 4, "dog": 4}))
    sequence = SplitSequence(tmp_path / "out.h5", label_mode="binary")
    scores = np.where(sequence.classes == 1, 0.9, 0.2)
    scores[0] = 1 - scores[0]
    for shape in ((8,), (8, 1)):
        (mistake,) = sequence.mistakes(scores.reshape(shape))
        assert mistake.position == 0
        assert mistake.filename == sequence.filenames[0]


def test_predictions_of_another_length_are_refused(sequence):
    with pytest.raises(ValueError, match=r"expected shape \(100, 3\), found \(99, 3\)"):
        sequence.mistakes(np.zeros((99, 3)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batchsize": 3}, "unknown setting 'batchsize'; expected one of batch_size, scale, label_mode"),
        ({"batch_size": 0}, "batch_size: expected a whole number of 1 or more, found 0"),
        ({"batch_size": 1.5}, r"batch_size: expected a whole number of 1 or more, found 1\.5"),
        ({"max_per_class_and_epoch": 0}, "max_per_class_and_epoch: expected a whole number of 1"),
        ({"label_mode": "onehot"}, "label_mode: expected one of categorical, int, binary, found 'onehot'"),
        ({"seed": -1}, "seed: expected a whole number of 0 or more, found -1"),
    ],
)
def test_settings_that_make_no_sense_are_errors(packed, settings, message):
    with pytest.raises(ValueError, match=message):
        SplitSequence(packed, **settings)
    with pytest.raises(ValueError, match=message):
        SplitSequence(packed).set(**settings)


def test_an_empty_sequence_is_filled_by_add_file(packed):
    sequence = SplitSequence(batch_size=10)
    assert (len(sequence), sequence.num_classes, list(sequence.filenames), sequence.columns) == (0, 0, [], {})
    assert sequence.add_file(packed) is sequence
    assert len(sequence) == 10
    with pytest.raises(ValueError, match="the sequence is empty; add_file"):
        SplitSequence().shape  # noqa: B018


def test_batches_out_of_range_are_index_errors(sequence):
    assert np.array_equal(sequence[-1][0], sequence[12][0])
    with pytest.raises(IndexError, match="batch 13: expected 0 to 12"):
        sequence[13]


def test_a_pickled_sequence_holds_a_path_and_rows(sequence):
    _, part = sequence.set(auto_shuffle=True).split(0.5)
    names_of(part)
    part.epoch = 3
    raw = pickle.dumps(part)
    assert len(raw) < 2000
    again = pickle.loads(raw)
    assert again.epoch == 3
    assert names_of(again) == names_of(part)
    again = pickle.loads(pickle.dumps(part))
    assert names_of(again) == names_of(part)
    assert again.epoch == part.epoch == 4


def test_preload_reads_the_file_or_says_why_not(sequence, monkeypatch):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert sequence.preload() is sequence
    monkeypatch.setattr(batches_module, "_free_memory", lambda: 1000)
    with pytest.warns(UserWarning, match="do not fit in 0.0 GB of free memory; passed over"):
        sequence.preload()


def test_preload_shows_a_bar_when_verbose(sequence, capfd):
    sequence.preload()
    assert capfd.readouterr().err == ""
    sequence.set(verbose=True).preload()
    assert "preload" in capfd.readouterr().err


@given(
    counts=st.lists(st.integers(1, 12), min_size=1, max_size=3),
    batch_size=st.integers(1, 40),
    cap=st.none() | st.integers(1, 6),
    auto_shuffle=st.booleans(),
    cut=st.lists(st.floats(0, 1), max_size=3).map(sorted),
)
def test_whatever_is_set_rows_labels_and_names_belong_together(packed, counts, batch_size, cap, auto_shuffle, cut):
    sequence = SplitSequence(
        packed, batch_size=batch_size, max_per_class_and_epoch=cap, auto_shuffle=auto_shuffle, label_mode="int"
    )
    seen = []
    for part in sequence.split(*cut):
        for _ in range(2 if len(part) else 0):
            names = names_of(part)
            assert len(set(names)) == len(names)
        seen.extend(part.filenames)
    assert sorted(seen) == sorted(PackedImages(packed).filenames)
