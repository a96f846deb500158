"""The sequence without Keras, on images whose pixels say who they are."""

from __future__ import annotations

import copy
import ctypes
import gc
import json
import mmap
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import time
import tracemalloc
import warnings
import weakref
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import get_type_hints

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import (
    PATIENCE,
    assert_rows_are_who_they_say,
    names_in,
    names_of,
    one_pass,
    pixels_of,
    write_classes,
    write_hole,
    write_pack,
)
from h5split import PackedImages, Settings, SplitSequence, write_split
from h5split.batch import several
from h5split.batch.several import Several
from h5split.order.epochs import Order
from h5split.order.rows import permutation
from h5split.order.settings import SettingNames


@pytest.fixture
def sequence(packed):
    return SplitSequence(packed, batch_size=8)


def order_of(sequence, epoch):
    """The file names of an epoch, in order, by a sequence of one's own."""
    (equal,) = sequence.split()
    equal.epoch = epoch
    return equal.get_filenames(range(len(equal.delivered)))


def assert_rows_are(images, names):
    """Images are those of the first of these names."""
    assert np.array_equal(images, [pixels_of(name) for name in names[: len(images)]])


def test_a_pass_delivers_every_row_once_with_its_label_and_name(sequence):
    assert sorted(names_of(sequence)) == sorted(sequence.filenames)
    assert len(sequence) == 13


def assert_batches_are_views(sequence):
    batch, _ = sequence[3]
    assert batch.shape == (8, 8, 8, 3)
    assert batch.dtype == np.uint8
    assert not batch.flags.writeable
    assert np.shares_memory(batch, sequence.packs.packs[0].images[24:32])
    assert np.array_equal(batch, sequence.packs.packs[0].images[24:32])


def test_unshuffled_batches_are_views_of_the_file(without_torch, sequence):
    without_torch(assert_batches_are_views, sequence)


@pytest.mark.parametrize("shuffle", [True, "block"])
def test_batches_that_are_gathered_together_are_those_that_are_asked_for_one_by_one(packed, shuffle):
    """Also from the middle of an epoch on, with a last batch that is not full, and while all of them are held."""
    options = {"batch_size": 8, "auto_shuffle": shuffle, "targets": {"kind": "label", "same": np.arange(100)}}
    for first in (0, 1, 6):
        together, single = (SplitSequence(packed, **options) for _ in range(2))
        for one in (together, single):
            one.restore({**one.state(), "batch": first})
        held = [*together]
        assert len(held) == 13 - first
        single.epoch = 0
        for batch, (images, targets) in enumerate(held, first):
            expected, labels = single[batch]
            assert np.array_equal(images, expected)
            assert np.array_equal(targets["same"], labels["same"])
            assert np.array_equal(targets["kind"], labels["kind"])
            assert_rows_are(images, together.get_filenames(range(8 * batch, 8 * batch + len(images))))


def slowly(batches):
    """What a consumer gets that takes 2 ms for each batch, so that the next ones are gathered ahead."""
    for batch in batches:
        time.sleep(0.002)
        yield batch


def test_batches_that_are_gathered_ahead_of_a_slow_consumer_are_the_same(packed, monkeypatch):
    made = []

    class Noted(several.Threads):
        def __init__(self, count):
            super().__init__(count)
            made.append(weakref.ref(self))

    monkeypatch.setattr(several, "Threads", Noted)
    together = SplitSequence(packed, batch_size=3, auto_shuffle=True).map(lambda images, labels, rng: (images, labels))
    for epoch in range(3):
        assert_rows_are(np.concatenate([images for images, _ in slowly(together)]), order_of(together, epoch))
    assert made
    gc.collect()
    assert [thread() for thread in made] == [None] * len(made)


@pytest.mark.parametrize("at", [4, 6, 14])
def test_settings_that_change_count_from_the_next_batch_on_also_if_it_was_gathered_ahead(packed, at):
    sequence = SplitSequence(packed, batch_size=3, auto_shuffle=True)
    modes = []
    for batch, (images, labels) in enumerate(slowly(sequence)):
        modes.append((images.dtype, labels.shape[1:]))
        if batch == at:
            sequence.set(label_mode="int", scale=1 / 255)
    before = at + 1
    assert modes == [(np.uint8, (3,))] * before + [(np.float32, ())] * (34 - before)


def test_an_error_in_gathering_ahead_comes_with_the_batch_it_is_about():
    def gather(first, count):
        if first >= 20:
            raise OSError(f"no batch {first}")
        return np.repeat(np.arange(first, first + count), 4)

    batches, seen = Several(Order(permutation(200, 0), 4), 0, 64 << 12, gather), []

    def consume():
        for batch in range(50):
            assert batches(batch, None, None).tolist() == [batch] * 4
            seen.append(batch)
            time.sleep(0.002)

    with pytest.raises(OSError, match="no batch 2"):
        consume()
    assert seen == [*range(len(seen))]
    assert len(seen) >= 20


FORKED = """
import _thread, os, sys, time
import numpy as np
from h5split import SplitSequence

def slowly(batches):
    for images, labels in batches:
        time.sleep(0.002)
        yield images

options = {"batch_size": 3, "auto_shuffle": True}
expected = np.concatenate([images for images, labels in SplitSequence(sys.argv[1], **options)])
batches = slowly(SplitSequence(sys.argv[1], **options))
found = [next(batches) for _ in range(20)]
assert _thread._count() > 0
child = os.fork()
assert np.array_equal(np.concatenate([*found, *batches]), expected)
if child:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
os._exit(0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_pass_goes_on_in_a_forked_process_though_its_thread_does_not(packed):
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKED, packed]  # of forks beside threads
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stderr) == (0, "")


def test_settings_that_change_within_a_pass_count_from_the_next_batch_on(packed):
    sequence = SplitSequence(packed, batch_size=8, auto_shuffle=True)
    modes = []
    for batch, (images, labels) in enumerate(sequence):
        modes.append((images.dtype, labels.shape[1:]))
        if batch == 5:
            sequence.set(label_mode="int", scale=1 / 255)
    assert modes == [(np.uint8, (3,))] * 6 + [(np.float32, ())] * 7


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


def test_many_parts_of_many_classes_take_little_memory(tmp_path):
    """A table of one-hot labels for each of them would be 200 MB."""
    names = names_in("data", {f"class-{number:04}": 1 for number in range(1000)})
    values = [f"fold-{row * 7 % 50:02}" for row in range(1000)]
    sequence = SplitSequence(write_pack(tmp_path / "a.h5", names, {"fold": values}))
    tracemalloc.start()
    try:
        parts = sequence.split_by("fold")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 10e6
    assert {fold: list(part.filenames) for fold, part in parts.items()} == {
        fold: [name for name, value in zip(names, values, strict=True) if value == fold] for fold in sorted(set(values))
    }
    images, labels, filenames = one_pass(parts["fold-13"])
    assert_rows_are_who_they_say(images, [sequence.classnames[at] for at in labels.argmax(axis=1)], filenames)


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


def test_a_pass_broken_off_is_an_epoch_too(sequence):
    sequence.set(auto_shuffle=True)
    first = order_of(sequence, 0)
    for index, (images, _) in enumerate(sequence):
        assert_rows_are(images, first[8 * index :])
        if index == 5:
            break
    assert names_of(sequence) == order_of(sequence, 1)
    assert sequence.epoch == 1


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
            batches = list(executor.map(sequence.__getitem__, range(100)))
            names = sequence.get_filenames(range(100))
            assert len(set(names)) == 100
            images = np.concatenate([images for images, _ in batches])
            assert_rows_are_who_they_say(images, [name.split("/")[-2] for name in names], names)
    assert sequence.epoch == 19


def test_a_loop_over_items_is_a_pass_and_the_next_loop_the_next_epoch(sequence):
    sequence.set(auto_shuffle=True)
    for epoch in range(3):
        for index in range(len(sequence)):
            assert_rows_are(sequence[index][0], order_of(sequence, epoch)[8 * index :])
        assert sequence.get_filenames(range(100)) == order_of(sequence, epoch)
        assert sequence.epoch == epoch


def test_a_loop_over_items_keeps_its_order_whatever_comes_between(sequence):
    sequence.set(auto_shuffle=True)
    for index in range(len(sequence)):
        assert_rows_are(sequence[index][0], order_of(sequence, 0)[8 * index :])
        if index == 3:
            next(iter(sequence))
            names_of(sequence)
        if index == 5:
            len(sequence), sequence.epoch, sequence.state(), sequence.set(verbose=False)
    assert_rows_are(sequence[0][0], order_of(sequence, 3))


def test_items_show_a_whole_pass_once_more(sequence):
    sequence.set(auto_shuffle=True)
    for epoch in range(3):
        names = names_of(sequence)
        for index in (7, 0, 7):
            assert_rows_are(sequence[index][0], names[8 * index :])
        assert sequence.get_filenames(range(100)) == names
        assert (sequence.epoch, sequence.state()["epoch"], sequence.state()["batch"]) == (epoch, epoch + 1, 0)


def test_a_loop_that_is_ended_is_followed_by_the_next_epoch(sequence):
    sequence.set(auto_shuffle=True)
    for epoch in range(3):
        for index in range(4):
            assert_rows_are(sequence[index][0], order_of(sequence, epoch)[8 * index :])
        sequence.on_epoch_end()
        sequence.on_epoch_end()


@pytest.mark.parametrize("before", [[-1], [5], [0], [3, 0], [0, 1, 2, 3], [12, 12], range(13)])
def test_a_look_at_items_takes_nothing_from_the_loops_that_follow(sequence, before):
    sequence.set(auto_shuffle=True)
    for index in before:
        sequence[index]
    first = sequence.epoch + (len(before) == len(sequence))
    for epoch in range(first, first + 3):
        for index in range(len(sequence)):
            assert_rows_are(sequence[index][0], order_of(sequence, epoch)[8 * index :])


@pytest.mark.parametrize("size", [8, 33, 100])
def test_images_and_labels_of_an_item_belong_together_if_asked_for_apart(packed, size):
    sequence = SplitSequence(packed, batch_size=size, auto_shuffle=True, label_mode="int")
    for _ in range(3):
        for index in range(len(sequence)):
            images, labels = sequence[index][0], sequence[index][1]
            names = order_of(sequence, sequence.epoch)[size * index :][:size]
            assert_rows_are(images, names)
            assert [sequence.classnames[number] for number in labels] == [name.split("/")[-2] for name in names]


def test_loops_over_a_single_batch_are_epochs_too(packed):
    sequence = SplitSequence(packed, auto_shuffle=True, max_per_class_and_epoch=4)
    seen = Counter(image.tobytes() for _ in range(13) for index in range(len(sequence)) for image in sequence[index][0])
    assert len(sequence) == 1
    assert sequence.epoch == 12
    assert len(seen) == 100


CHANGES = {
    "another seed": lambda sequence: sequence.set(seed=5),
    "another size": lambda sequence: sequence.set(batch_size=16),
    "another order of rows": lambda sequence: sequence.shuffle(),
    "a whole pass": lambda sequence: list(sequence),
    "a whole pass, and one that begins": lambda sequence: (list(sequence), next(iter(sequence))),
    "a pass that begins": lambda sequence: next(iter(sequence)),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("is_shown", [False, True], ids=["a pass", "one that is shown again"])
def test_a_loop_over_items_keeps_its_order_whatever_changes_within_it(sequence, change, is_shown):
    sequence.set(auto_shuffle=True)
    expected = names_of(sequence) if is_shown else order_of(sequence, 0)
    for index in range(13):
        assert_rows_are(sequence[index][0], expected[8 * index :])
        if index == 4:
            change(sequence)
    assert sequence.get_filenames(range(100)) == expected
    next_loop = np.concatenate([sequence[index][0] for index in range(len(sequence))])
    assert_rows_are(next_loop, order_of(sequence, sequence.epoch))


def test_a_look_from_before_a_pass_does_not_hide_what_it_delivered(sequence):
    sequence.set(auto_shuffle=True)
    for look in (0, 4, -1):
        sequence[look]
        names = names_of(sequence)
        for index in (look % 13, 7):
            assert_rows_are(sequence[index][0], names[8 * index :])
        assert sequence.get_filenames(range(100)) == names


def test_limited_passes_come_to_every_row(sequence):
    sequence.set(auto_shuffle=True)
    seen = Counter(image.tobytes() for _ in range(30) for images, _ in islice(sequence, 3) for image in images)
    assert len(seen) == 100


def test_names_are_those_of_the_batch_in_hand(sequence):
    sequence.set(auto_shuffle=True)
    for _ in range(3):
        names_of(sequence)
        images, _ = next(iter(sequence))
        assert_rows_are(images, sequence.get_filenames(range(8)))


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


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda sequence: sequence.set(auto_shuffle=False), id="another order"),
        pytest.param(lambda sequence: sequence.set(seed=5, batch_size=7), id="another seed"),
        pytest.param(lambda sequence: sequence.set(max_per_class_and_epoch=3), id="a cap"),
        pytest.param(lambda sequence: sequence.shuffle(), id="shuffle"),
        pytest.param(lambda sequence: setattr(sequence, "epoch", 9), id="another epoch"),
        pytest.param(lambda sequence: sequence.restore({**sequence.state(), "epoch": 4}), id="restore"),
    ],
)
def test_names_and_mistakes_speak_of_what_was_delivered_until_the_next_pass(sequence, change):
    _, labels, names = one_pass(sequence.set(auto_shuffle=True, label_mode="int"))
    wrong = np.eye(3)[(labels + 1) % 3]
    change(sequence)
    assert sequence.get_filenames(range(100)) == names
    assert [mistake.filename for mistake in sequence.mistakes(wrong)] == names
    assert sequence.get_filenames(range(2)) != names_of(sequence)[:2]


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
        ({"label_mode": "onehot"}, "label_mode: expected one of categorical, int, binary, or None, found 'onehot'"),
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


def test_preload_reads_the_file_or_says_why_not(sequence, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert sequence.preload() is sequence
    large = write_hole(tmp_path / "large.h5", 100_000, (2048, 2048, 3))
    with pytest.warns(UserWarning, match=r"1258.3 GB of pixels do not fit in .* of free memory; passed over"):
        SplitSequence(large).preload()


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


# --- shards ----------------------------------------------------------------------------------------------------------

ORDERS = [False, True, "block"]


@pytest.mark.parametrize("drop_remainder", [False, True])
@pytest.mark.parametrize("cap", [None, 13])
@pytest.mark.parametrize("auto_shuffle", ORDERS)
def test_ranks_share_the_global_batches_of_every_epoch(packed, auto_shuffle, cap, drop_remainder):
    settings = {"auto_shuffle": auto_shuffle, "max_per_class_and_epoch": cap, "drop_remainder": drop_remainder}
    whole = SplitSequence(packed, batch_size=24, **settings)
    total = 100 if cap is None else 39
    for count in (1, 2, 4):
        ranks = [
            SplitSequence(packed, batch_size=24 // count, **settings).shard(index, count) for index in range(count)
        ]
        for epoch in range(3):
            whole.epoch = epoch
            expected = names_of(whole)
            assert {len(rank) for rank in ranks} == {len(whole)}
            names = [names_of(rank) for rank in ranks]
            assert len({len(of_rank) for of_rank in names}) == 1
            size = 24 // count
            for batch in range(len(whole)):
                together = [name for of_rank in names for name in of_rank[batch * size : (batch + 1) * size]]
                assert together == expected[batch * 24 : (batch + 1) * 24][: len(together)]
            assert sum(map(len, names)) == (total // 24 * 24 if drop_remainder else total // count * count)
            assert {rank.epoch for rank in ranks} == {epoch}


def test_what_ranks_leave_out_is_less_than_a_row_each_and_others_every_epoch(packed):
    ranks = [SplitSequence(packed, batch_size=8, auto_shuffle=True).shard(index, 7) for index in range(7)]
    left = []
    for _ in range(4):
        names = {name for rank in ranks for name in names_of(rank)}
        left.append(frozenset(ranks[0].filenames) - names)
        assert len(left[-1]) == 100 % 7
    assert len(set(left)) > 1


def assert_block_shards_are_views(packed):
    ranks = [SplitSequence(packed, batch_size=5, auto_shuffle="block").shard(index, 3) for index in range(3)]
    for _ in range(3):
        assert sum(images.flags.writeable for rank in ranks for images, _ in rank) <= 1


def test_block_shards_are_views(without_torch, packed):
    without_torch(assert_block_shards_are_views, packed)


def test_parts_of_a_shard_are_shards(sequence):
    whole = [part.set(batch_size=16) for part in sequence.shuffle(2).split(0.3)]
    ranks = [sequence.shard(index, 2).split(0.3) for index in range(2)]
    for part, first, second in zip(whole, *ranks, strict=True):
        assert sorted(names_of(first) + names_of(second)) == sorted(names_of(part))
        again = pickle.loads(pickle.dumps(second))
        assert names_of(again) == names_of(second)


def test_more_ranks_than_rows_have_nothing(sequence):
    ranks = [sequence.select(range(3)).shard(index, 4) for index in range(4)]
    assert [list(rank) for rank in ranks] == [[], [], [], []]


@pytest.mark.parametrize("auto_shuffle", ORDERS)
def test_names_and_mistakes_of_a_shard_are_those_of_its_rows(sequence, auto_shuffle):
    rank = sequence.set(auto_shuffle=auto_shuffle).shard(1, 3)
    for _ in range(2):
        names = names_of(rank)
        assert len(names) == 33
        predictions = np.eye(3)[[rank.classnames.index(name.split("/")[-2]) for name in names]]
        predictions[[0, 32]] = np.roll(predictions[[0, 32]], 1, axis=1)
        assert [mistake.filename for mistake in rank.mistakes(predictions)] == [names[0], names[32]]
        with pytest.raises(IndexError, match="expected positions from 0 to 32, found 33"):
            rank.get_filenames([33])


@pytest.mark.parametrize(
    ("index", "count", "message"),
    [
        (2, 2, "shard: expected an index from 0 to 1, found 2"),
        (-1, 2, "shard: expected an index from 0 to 1, found -1"),
        (True, 2, "shard: expected an index from 0 to 1, found True"),
        (0.0, 2, r"shard: expected an index from 0 to 1, found 0\.0"),
        (0, 0, "shard: count: expected a whole number of 1 or more, found 0"),
        (0, True, "shard: count: expected a whole number of 1 or more, found True"),
    ],
)
def test_ranks_that_are_not_there_are_errors(sequence, index, count, message):
    with pytest.raises(ValueError, match=message):
        sequence.shard(index, count)


def test_a_shard_of_a_shard_is_an_error(sequence):
    for shard in (sequence.shard(0, 1), sequence.shard(1, 2), sequence.shard(1, 2).select([1, 2])):
        with pytest.raises(ValueError, match=r"shard: expected a whole sequence, found rank [01] of [12]"):
            shard.shard(0, 2)


# --- states ----------------------------------------------------------------------------------------------------------

SITUATIONS = [
    pytest.param({"auto_shuffle": True}, None, id="shuffled"),
    pytest.param({"auto_shuffle": False}, None, id="unshuffled"),
    pytest.param({"auto_shuffle": "block", "drop_remainder": True}, None, id="block"),
    pytest.param({"auto_shuffle": True, "max_per_class_and_epoch": 15}, None, id="cap"),
    pytest.param({"auto_shuffle": "block", "max_per_class_and_epoch": 25}, (1, 2), id="shard with cap and block"),
]


def made(packed, settings, shard, batch_size=8):
    sequence = SplitSequence(packed, batch_size=batch_size, seed=3, **settings)
    return sequence if shard is None else sequence.shard(*shard)


def epochs_of(sequence, count):
    """(epoch, bytes of every batch) of so many passes."""
    found = []
    for _ in range(count):
        batches = [(images.tobytes(), labels.tobytes()) for images, labels in sequence]
        found.append((sequence.epoch, batches))
    return found


@pytest.mark.parametrize(("settings", "shard"), SITUATIONS)
def test_a_pass_goes_on_from_a_state(packed, settings, shard):
    sequence = made(packed, settings, shard)
    expected = epochs_of(sequence, 4)
    length = len(sequence)
    for stop in (0, 1, 2, length - 1, length):
        first = made(packed, settings, shard)
        epochs_of(first, 1)
        iterator = iter(first)
        for _ in range(stop):
            next(iterator)
        state = json.loads(json.dumps(first.state()))
        again = made(packed, settings, shard).restore(state)
        assert again.state() == state
        passes = epochs_of(again, 3)
        if 0 < stop < length:
            assert passes[0] == (1, expected[1][1][stop:])
            assert passes[1:] == expected[2:]
            assert again.state() == {**state, "epoch": 4, "batch": 0}
        else:
            skipped = 1 if stop else 0  # none of epoch 1 asked for, or all
            assert passes == [*expected[1 + skipped :], *epochs_of(sequence, skipped)][:3]


def test_a_pass_goes_on_in_another_process(packed):
    sequence = SplitSequence(packed, batch_size=8, auto_shuffle=True).shuffle(3)
    batches = [images for images, _ in sequence]
    iterator = iter(sequence)
    state = [next(iterator) and sequence.state() for _ in range(4)][-1]
    code = (
        "import sys, json; from h5split import SplitSequence; "
        "sequence = SplitSequence(sys.argv[1], batch_size=8, auto_shuffle=True).shuffle(3); "
        "sequence.restore(json.loads(sys.argv[2])); "
        "sys.stdout.buffer.write(b''.join(images.tobytes() for images, _ in sequence))"
    )
    done = subprocess.run([sys.executable, "-c", code, packed, json.dumps(state)], capture_output=True, check=True)
    assert done.stdout == b"".join(images.tobytes() for images, _ in iterator)
    assert len(batches) == 13


@pytest.mark.parametrize(
    "other",
    [
        {"batch_size": 16},
        {"seed": 4},
        {"auto_shuffle": "block"},
        {"auto_shuffle": False},
        {"max_per_class_and_epoch": 40},
        {"drop_remainder": True},
    ],
    ids=str,
)
def test_a_state_of_other_settings_is_refused(packed, other):
    state = made(packed, {"auto_shuffle": True}, None).state()
    with pytest.raises(
        ValueError, match="restore: expected a state of the same rows in the same order, with the same classes, batch"
    ):
        made(packed, {"auto_shuffle": True}, None).set(**other).restore(state)
    restored = made(packed, {"auto_shuffle": True}, None).set(scale=0.5, label_mode="int", verbose=True)
    assert restored.restore(state).epoch == 0


def test_a_state_of_other_rows_is_refused(packed, tmp_path):
    sequence = SplitSequence(packed, batch_size=8)
    state = sequence.state()
    other = SplitSequence(write_pack(tmp_path / "other.h5", names_in("x", {"cat": 20, "dog": 50, "emu": 30})))
    others = [sequence.shuffle(1), sequence.select(range(99)), sequence.shard(0, 2), sequence.shard(0, 1)]
    for one in [*others, other.set(batch_size=8), SplitSequence()]:
        with pytest.raises(ValueError, match="found one of another sequence"):
            one.restore(state)
    assert SplitSequence(packed, batch_size=8).add_file(tmp_path / "other.h5").select(range(100)).state() != state
    for wrong in ({}, {"epoch": 1}, {**state, "more": 1}):
        with pytest.raises(ValueError, match=r"restore: expected what state\(\) returned, found"):
            sequence.restore(wrong)


def test_a_copy_of_the_pack_takes_the_state(packed, tmp_path):
    state = {**SplitSequence(packed, batch_size=8).state(), "epoch": 2, "batch": 3}
    again = SplitSequence(shutil.copy(packed, tmp_path / "copy.h5"), batch_size=8).restore(state)
    assert (again.epoch, len(list(again)), len(list(again))) == (2, 10, 13)


def test_batches_asked_for_in_another_order_are_a_state_of_none(packed):
    sequence = SplitSequence(packed, batch_size=8, auto_shuffle=True)
    for index in (3, 0, 7, 1):
        sequence[index]
        assert sequence.state()["batch"] == 0
    for index in (2, 4, 5, 6):
        sequence[index]
    assert sequence.state()["batch"] == 8
    for index in range(13):
        sequence[index]
    assert (sequence.state()["epoch"], sequence.state()["batch"]) == (1, 0)


def test_showing_a_pass_once_more_is_a_state_of_no_batch(packed):
    sequence = SplitSequence(packed, batch_size=8, auto_shuffle=True)
    epochs_of(sequence, 2)
    for _ in range(2):
        sequence[0]  # shows the pass that was delivered
        assert (sequence.state()["epoch"], sequence.state()["batch"]) == (2, 0)
    next(iter(sequence))
    assert (sequence.state()["epoch"], sequence.state()["batch"]) == (2, 1)


def test_restoring_in_the_middle_of_a_pass_skips_no_later_batch(packed):
    state = {**SplitSequence(packed, batch_size=8, auto_shuffle=True).state(), "epoch": 4, "batch": 5}
    sequence = SplitSequence(packed, batch_size=8, auto_shuffle=True)
    sequence[0]
    sequence.restore(state)
    for index in range(13):
        sequence[index]
    assert (sequence.state()["epoch"], sequence.state()["batch"]) == (5, 0)
    assert len(names_of(sequence)) == 100
    assert sequence.epoch == 5


@pytest.mark.parametrize(
    "change",
    [
        lambda sequence: sequence.set(batch_size=16),
        lambda sequence: sequence.set(seed=9),
        lambda sequence: sequence.shuffle(1),
        lambda sequence: setattr(sequence, "epoch", 4),
    ],
    ids=["batch size", "seed", "shuffle", "epoch"],
)
def test_another_order_after_restoring_begins_at_its_first_batch(packed, change):
    sequence = SplitSequence(packed, batch_size=8, auto_shuffle=True)
    sequence.restore({**sequence.state(), "epoch": 4, "batch": 5})
    change(sequence)
    assert (sequence.state()["epoch"], sequence.state()["batch"]) == (4, 0)
    assert len(names_of(sequence)) == 100


def test_a_restored_sequence_goes_on_after_pickling_and_after_other_settings(packed):
    sequence = SplitSequence(packed, batch_size=8, auto_shuffle=True)
    state = {**sequence.state(), "epoch": 4, "batch": 5}
    again = pickle.loads(pickle.dumps(sequence.restore(state))).set(scale=0.5)
    assert again.state() == state
    assert len(list(again)) == 8
    assert again.state()["epoch"] == 5


def test_an_iterator_that_is_not_used_begins_no_pass(packed):
    sequence = SplitSequence(packed, batch_size=8, auto_shuffle=True)
    names_of(sequence)
    state = sequence.state()
    iterator = iter(sequence)
    assert sequence.state() == state
    assert_rows_are(next(iterator)[0], order_of(sequence, 1))
    assert (sequence.state()["epoch"], sequence.state()["batch"]) == (1, 1)


# --- passes ----------------------------------------------------------------------------------------------------------


def test_epoch_orders_begin_the_same_for_ever(tmp_path):
    names = names_in("a", {"cat": 20, "dog": 50, "emu": 30})
    sequence = SplitSequence(write_pack(tmp_path / "a.h5", names), batch_size=8)
    expected = {
        (True, None, 0, 0): [97, 86, 84, 64, 49, 80, 93, 7],
        (True, None, 0, 1): [63, 64, 52, 75, 9, 67, 21, 97],
        (True, None, 1, 0): [98, 71, 77, 29, 9, 4, 48, 6],
        (True, None, 7, 12): [57, 0, 66, 6, 27, 29, 69, 77],
        ("block", None, 0, 0): [57, 58, 59, 60, 61, 62, 63, 64],
        ("block", None, 7, 12): [2, 3, 4, 5, 6, 7, 8, 9],
        (True, 10, 0, 0): [18, 14, 96, 93, 36, 61, 17, 2],
        (True, 10, 0, 1): [26, 76, 23, 80, 41, 89, 81, 11],
    }
    for (auto_shuffle, cap, seed, epoch), rows in expected.items():
        sequence.set(auto_shuffle=auto_shuffle, max_per_class_and_epoch=cap, seed=seed)
        sequence.epoch = epoch
        assert [names.index(name) for name in sequence.get_filenames(range(8))] == rows


@pytest.mark.parametrize("number", [-1, 1.0, True, "1", None])
def test_an_epoch_is_a_whole_number(sequence, number):
    with pytest.raises(ValueError, match="epoch: expected a whole number of 0 or more, found"):
        sequence.epoch = number
    assert sequence.epoch == 0


def test_setting_the_epoch_during_a_pass_begins_that_epoch(sequence):
    sequence.set(auto_shuffle=True)
    third = [names_of(sequence) for _ in range(3)][2]
    for number in (2, np.int64(2)):
        iterator = iter(sequence)
        next(iterator)
        sequence.epoch = number
        assert_rows_are_who_they_say(sequence[1][0], [name.split("/")[-2] for name in third[8:16]], third[8:16])
        assert sum(len(images) for images, _ in iterator) == 92
        sequence.epoch = number
        assert names_of(sequence) == third


@pytest.mark.parametrize(
    "change", [{"batch_size": 5}, {"batch_size": 30}, {"auto_shuffle": True}, {"seed": 8}], ids=str
)
@pytest.mark.parametrize("auto_shuffle", ORDERS)
def test_a_pass_during_which_settings_change_delivers_its_own_rows(sequence, auto_shuffle, change):
    expected = sequence.set(auto_shuffle=auto_shuffle).shuffle(1).get_filenames(range(100))
    seen = []
    for index, (images, _) in enumerate(sequence):
        seen.extend(images)
        if index == 3:
            sequence.set(**change)
    assert np.array_equal(seen, [pixels_of(name) for name in expected])
    assert len(set(names_of(sequence))) == 100


def test_a_setting_that_is_refused_changes_nothing(sequence):
    for wrong in ({"label_mode": "binary"}, {"batch_size": 0}, {"batch_size": 4, "cap": 1}):
        before = sequence.settings
        with pytest.raises(ValueError):
            sequence.set(**wrong)
        assert sequence.settings == before
        assert len(sequence) == 13
        assert len(names_of(sequence)) == 100


def test_iterators_at_one_time_are_passes_of_their_own(sequence):
    sequence.set(auto_shuffle=True)
    for first in (0, 2):
        pairs = list(zip(sequence, sequence, strict=True))
        for place in (0, 1):
            images = np.concatenate([pair[place][0] for pair in pairs])
            assert_rows_are(images, order_of(sequence, first + place))
    outer = iter(sequence)
    held = [next(outer) for _ in range(3)]
    assert names_of(sequence) == order_of(sequence, 5)
    held.extend(outer)
    assert_rows_are(np.concatenate([images for images, _ in held]), order_of(sequence, 4))
    assert names_of(sequence) == order_of(sequence, 6)


def test_iterators_that_are_abandoned_leave_the_next_pass_whole(sequence):
    sequence.set(auto_shuffle=True)
    iter(sequence)
    iterators = [iter(sequence) for _ in range(3)]
    for iterator in iterators:
        next(iterator)
        next(iterator)
    del iterators
    assert names_of(sequence) == order_of(sequence, 3)


def test_a_pack_that_is_added_while_a_thread_reads_is_read_from_then_on(packed, tmp_path):
    class Disturbed(SplitSequence):
        """Another thread reads a batch just before its rows become others."""

        def __setattr__(self, name, value):
            if name == "_selection" and name in vars(self):
                with ThreadPoolExecutor(1) as executor:
                    executor.submit(lambda: next(iter(self), None)).result()
            super().__setattr__(name, value)

    sequence = Disturbed(packed, batch_size=4, auto_shuffle=True)
    sequence.add_file(write_pack(tmp_path / "more.h5", names_in("more", {"dog": 9, "yak": 8})))
    assert len(sequence.filenames) == 117
    for _ in range(2):
        assert sorted(names_of(sequence)) == sorted(sequence.filenames)


class Slotted(SplitSequence):
    """A subclass with values in a slot, and with a name that once was one of ours."""

    __slots__ = ("empty", "noise")


def test_parts_and_pickles_of_a_subclass_have_its_values_whatever_their_names(packed):
    sequence = Slotted(packed)
    sequence.noise, sequence._next = 0.5, "its own"
    for copied in (sequence.split(0.5)[1], pickle.loads(pickle.dumps(sequence)), copy.copy(sequence)):
        assert (copied.noise, copied._next) == (0.5, "its own")
        assert not hasattr(copied, "empty")


def test_items_of_a_subclass_are_used_whatever_its_module_is_called(packed):
    def __getitem__(self, index):  # noqa: N807
        images, labels = SplitSequence.__getitem__(self, index)
        return 255 - images, labels

    __getitem__.__module__ = "my_h5split_data"
    extended = type("Negative", (SplitSequence,), {"__getitem__": __getitem__})(packed)
    assert np.array_equal(255 - next(iter(extended))[0], next(iter(SplitSequence(packed)))[0])


def test_threads_that_iterate_each_see_a_whole_pass(packed):
    sequence = SplitSequence(packed, batch_size=7, auto_shuffle=True)

    def whole(_):
        return np.concatenate([images for images, _ in sequence])

    with ThreadPoolExecutor(4) as executor:
        for images in executor.map(whole, range(12)):
            assert len({image.tobytes() for image in images}) == 100


@pytest.mark.parametrize("auto_shuffle", ORDERS)
@pytest.mark.parametrize("settings", [{}, {"max_per_class_and_epoch": 2}, {"drop_remainder": True}], ids=str)
def test_empty_sequences_do_everything(packed, tmp_path, auto_shuffle, settings):
    settings = {"auto_shuffle": auto_shuffle, **settings}
    empty_child = SplitSequence(packed, **settings).select([])
    for empty in (SplitSequence(**settings), empty_child):
        for one in (empty, empty.shuffle(1), empty.shard(1, 2), *empty.split(0.2, 0.4, stratify=True)):
            assert (len(one), list(one), list(one)) == (0, [], [])
            assert list(one.filenames) == []
            assert (one.classes.shape, one.digests.shape) == ((0,), (0, 32))
            assert one.epoch == 0
            assert one.restore(one.state()).state() == one.state()
            assert (one.state()["epoch"], one.state()["batch"]) == (0, 0)
            assert len(pickle.loads(pickle.dumps(one))) == 0
            assert one.preload() is one
            with pytest.raises(IndexError, match="batch 0: expected"):
                one[0]
        assert [len(part) for part in empty.split(0.5, groups="content")] == [0, 0]
        write_split(tmp_path / "split.csv", {"train": empty})
        assert empty.read_split(tmp_path / "split.csv") == {}
    assert empty_child.mistakes(np.empty((0, 3))) == []
    assert empty_child.get_filenames([]) == []
    assert empty_child.split_by("source") == {}


@pytest.mark.parametrize("auto_shuffle", ORDERS)
def test_a_batch_larger_than_the_data_is_all_of_it_or_none(packed, auto_shuffle):
    sequence = SplitSequence(packed, batch_size=101, auto_shuffle=auto_shuffle)
    for epoch in range(3):
        assert len(set(names_of(sequence))) == 100
        assert sequence.epoch == epoch
    none = SplitSequence(packed, batch_size=101, auto_shuffle=auto_shuffle, drop_remainder=True)
    assert (len(none), list(none), list(none), none.epoch) == (0, [], [], 0)
    assert none.mistakes(np.empty((0, 3))) == []
    with pytest.raises(IndexError):
        none.get_filenames([0])
    assert none.set(batch_size=50).state()["epoch"] == 0
    assert len(names_of(none)) == 100
    assert none.epoch == 0


def test_names_are_those_of_what_is_delivered(sequence):
    sequence.set(drop_remainder=True, auto_shuffle=True)
    names = names_of(sequence)
    assert len(names) == 96
    assert sequence.get_filenames([-1]) == names[-1:]
    assert sequence.get_filenames(7) == [names[7]]
    assert sequence.get_filenames(np.arange(96) % 5 == 3) == names[3::5]
    for wrong in ([96], [-97], np.ones(100, bool), [True, False], [0.0, 1.0]):
        with pytest.raises(IndexError):
            sequence.get_filenames(wrong)


# --- files that are not in memory ------------------------------------------------------------------------------------


@pytest.fixture(params=["disk", "memory"])
def large(request, tmp_path):
    """A pack of 3 MB, of which pages can be in the cache or not; and one in a file system of memory."""
    folder = tmp_path
    if request.param == "memory":
        if not os.access("/dev/shm", os.W_OK):
            pytest.skip("needs /dev/shm")
        folder = Path(tempfile.mkdtemp(dir="/dev/shm"))
    names = names_in("large", {"cat": 30, "dog": 30})
    yield write_pack(folder / "large.h5", names, shape=(128, 128, 3)), request.param
    shutil.rmtree(folder)


def drop(path):
    """Have the system forget the file's pages."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="needs posix_fadvise")
@pytest.mark.parametrize("auto_shuffle", ORDERS)
def test_a_pass_over_a_file_that_is_not_in_memory_is_right(large, auto_shuffle):
    path, _ = large
    gc.collect()
    drop(path)
    sequence = SplitSequence(path, auto_shuffle=auto_shuffle, batch_size=7)
    for part, count in ((sequence, 60), (sequence.shard(1, 2), 30), (sequence.split(0.3)[1], 42)):
        drop(path)
        names = names_of(part)
        assert len(names) == len(set(names)) == count
        names_of(part)


def is_resident(path, starts):
    """Whether the pages with these bytes of a file are in memory, as mincore(2) says."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        content = np.frombuffer(mapped, np.uint8)
        address, pages = content.ctypes.data, np.zeros(-(-len(mapped) // mmap.PAGESIZE), np.uint8)
        del content  # or the map could not be closed
        found = ctypes.CDLL(None).mincore(
            ctypes.c_void_p(address), ctypes.c_size_t(len(mapped)), ctypes.c_void_p(pages.ctypes.data)
        )
    assert found == 0
    return bool((pages[starts // mmap.PAGESIZE] & 1).all())


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="needs posix_fadvise")
def test_a_pack_says_whether_rows_are_in_memory(large):
    path, kind = large
    gc.collect()
    drop(path)
    pack = PackedImages(path)
    rows = np.array([3, 59, 17])
    resident = is_resident(path, pack.starts(rows))  # dropping pages need not succeed
    before = pack.is_cached(rows)
    assert before is not False or not resident
    assert kind == "disk" or (resident and before is not False)
    assert pack.is_cached(rows[:0]) in {True, None}
    stride = pack.images[0].nbytes
    for row in rows.tolist():
        pack.file.will_need(pack.header.images.offset + row * stride, stride)
    pack.file.will_need(pack.header.size - 10, 5000)
    assert np.array_equal(pack.images[rows], [pixels_of(pack.filenames[row], (128, 128, 3)) for row in rows])
    assert pack.is_cached(rows) is (None if before is None else True)


def test_a_file_that_is_gone_is_read_ahead_and_preloaded_all_the_same(packed, tmp_path):
    own = tmp_path / "own.h5"
    shutil.copy(packed, own)
    sequence, pack = SplitSequence(own, auto_shuffle=True, batch_size=8), PackedImages(own)
    own.unlink()
    assert pack.preload(pack.pieces(np.arange(100))) > 0
    assert pack.is_cached(np.arange(5)) in {True, None}
    assert len(set(names_of(sequence.preload()))) == 100


def test_predictions_that_are_no_numbers_are_an_error(sequence):
    predictions = np.ones((100, 3))
    predictions[[4, 7], 1] = np.nan
    with pytest.raises(ValueError, match="expected numbers, found NaN or infinity in 2 of 100 rows"):
        sequence.mistakes(predictions)


def test_points_are_given_one_by_one(sequence):
    with pytest.raises(TypeError, match=r"as in split\(0.2, 0.4\), found \[0.2, 0.4\]"):
        sequence.split([0.2, 0.4])


@pytest.mark.parametrize(
    "settings", [{"drop_remainder": "no"}, {"verbose": 2}, {"scale": 0}, {"scale": float("nan")}], ids=str
)
def test_flags_and_scales_that_make_no_sense_are_errors(sequence, settings):
    with pytest.raises(ValueError, match=f"^{next(iter(settings))}: expected .*, found"):
        sequence.set(**settings)


def test_a_scale_may_be_a_number_of_numpy(sequence):
    assert sequence.set(scale=np.float32(1 / 255))[0][0].dtype == np.float32


# --- large batches, which threads gather together


@pytest.fixture(scope="module")
def megabytes(tmp_path_factory):
    """2 MB are 43 rows here."""
    folder = tmp_path_factory.mktemp("large")
    names = [names_in(source, {"cat": 90, "dog": 60}) for source in ("a", "b")]
    return [write_pack(folder / f"{part[0][0]}.h5", part, shape=(128, 128, 3)) for part in names]


@pytest.mark.parametrize("size", [42, 43, 64, 101, 300])
def test_rows_of_large_batches_are_who_they_say(megabytes, size):
    sequence = SplitSequence(*megabytes, batch_size=size, auto_shuffle=True)
    for _ in range(3):
        assert sorted(names_of(sequence)) == sorted(sequence.filenames)


def test_large_batches_that_are_held_stay_as_they_are(megabytes):
    sequence = SplitSequence(megabytes[0], batch_size=64, auto_shuffle=True)
    epochs = [(list(sequence), sequence.get_filenames(range(150))) for _ in range(4)]
    for batches, names in epochs:
        found = np.concatenate([images for images, _ in batches])
        assert all(
            np.array_equal(image, pixels_of(name, image.shape)) for image, name in zip(found, names, strict=True)
        )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_large_batches_come_in_a_forked_process_too(megabytes):
    sequence = SplitSequence(megabytes[0], batch_size=64, auto_shuffle=True)
    names_of(sequence)  # the threads are there
    process = multiprocessing.get_context("fork").Process(target=names_of, args=(sequence,))
    process.start()
    process.join(PATIENCE)
    assert process.exitcode == 0


def test_keyword_arguments_are_those_of_the_settings():
    assert get_type_hints(SettingNames) == get_type_hints(Settings)
