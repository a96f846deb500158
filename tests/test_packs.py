"""A sequence of several packs delivers every row with its own name and label."""

from __future__ import annotations

import os
import pickle
import shutil
import threading
import time
from itertools import chain
from pathlib import Path

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
    write_hole,
    write_pack,
)
from h5split import FormatError, PackedImages, SplitSequence
from h5split.batch import readahead
from h5split.batch.readahead import FrontToBack, RowsAhead
from h5split.file.mapped import READ_SIZE, MappedFile
from h5split.file.texts import Joined, Texts
from h5split.order.epochs import Order

FIRST = names_in("a", {"cat": 20, "dog": 30, "emu": 7})
SECOND = names_in("b", {"ape": 11, "dog": 9, "yak": 3})
THIRD = names_in("longer-source", {"dog": 4, "cat": 6})
EVERY = FIRST + SECOND + THIRD
ORDERS = [False, True, "block"]


@pytest.fixture(scope="session")
def three(tmp_path_factory):
    """Packs whose classes overlap and whose columns differ."""
    folder = tmp_path_factory.mktemp("three")
    return [
        write_pack(folder / "a.h5", FIRST, {"patient": [f"p{index % 9}" for index in range(len(FIRST))]}),
        write_pack(folder / "b.h5", SECOND, {"site": ["north", "south"] * 11 + ["east"]}),
        write_pack(folder / "c.h5", THIRD, {"patient": [f"patient-{index % 2}" for index in range(len(THIRD))]}),
    ]


@pytest.fixture
def sequence(three):
    return SplitSequence(*three, batch_size=8)


def assert_consistent(sequence, names):
    """Assert that the tables and a pass of the sequence hold exactly these rows."""
    assert list(sequence.filenames) == list(names)
    assert [sequence.classnames[number] for number in sequence.classes] == [name.split("/")[-2] for name in names]
    assert list(sequence.columns["source"]) == [name.split("/")[0] for name in names]
    assert sorted(names_of(sequence)) == sorted(names)


def folder_of(name):
    return name.split("/")[-2]


# --- tables ----------------------------------------------------------------------------------------------------------


def test_rows_of_several_packs_are_concatenated(sequence, three):
    assert_consistent(sequence, EVERY)
    packs = [PackedImages(path) for path in three]
    assert np.array_equal(sequence.digests, np.concatenate([pack.digests for pack in packs]))
    assert repr(sequence) == f"SplitSequence({', '.join(repr(str(path)) for path in three)}): {len(EVERY)} images " + (
        "(8, 8, 3), 5 classes"
    )


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 0, 2]], ids=str)
def test_classes_are_merged_by_name(three, order):
    sequence = SplitSequence(*(three[index] for index in order), batch_size=8)
    assert sequence.classnames == ["ape", "cat", "dog", "emu", "yak"]
    assert_consistent(sequence, [name for index in order for name in (FIRST, SECOND, THIRD)[index]])


@pytest.mark.parametrize(
    ("first", "second", "merged"),
    [
        pytest.param(["a", "b"], ["a", "b"], ["a", "b"], id="the same"),
        pytest.param(["c", "d"], ["a", "b"], ["a", "b", "c", "d"], id="disjoint"),
        pytest.param(["b", "d"], ["a", "b", "c", "d", "e"], ["a", "b", "c", "d", "e"], id="a subset"),
    ],
)
def test_merged_classes_are_sorted(tmp_path, first, second, merged):
    paths = []
    for source, classes in (("one", first), ("two", second)):
        paths.append(write_pack(tmp_path / f"{source}.h5", names_in(source, dict.fromkeys(classes, 4))))
    sequence = SplitSequence(*paths, batch_size=5, auto_shuffle=True)
    assert sequence.classnames == merged
    assert one_pass(sequence)[1].shape == (4 * len(first + second), len(merged))
    names_of(sequence)


def test_a_column_is_empty_in_the_rows_of_a_pack_that_lacks_it(sequence):
    patients = [f"p{index % 9}" for index in range(57)] + [""] * 23 + [f"patient-{index % 2}" for index in range(10)]
    sites = [""] * 57 + ["north", "south"] * 11 + ["east"] + [""] * 10
    assert list(sequence.columns["patient"]) == patients
    assert list(sequence.columns["site"]) == sites
    shuffled = sequence.shuffle(3)
    assert list(shuffled.columns["patient"]) == [patients[EVERY.index(name)] for name in shuffled.filenames]
    assert list(shuffled.columns["site"]) == [sites[EVERY.index(name)] for name in shuffled.filenames]


def test_names_of_different_lengths_are_complete(sequence):
    assert sequence.filenames[-1] == THIRD[-1]
    assert sequence.filenames[0] == FIRST[0]
    assert sequence.filenames[55:82] == EVERY[55:82]
    assert sequence.filenames.index(SECOND[4]) == 61


# --- passes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cap", [None, 5])
@pytest.mark.parametrize("auto_shuffle", ORDERS)
@pytest.mark.parametrize("label_mode", ["int", "categorical"])
def test_every_epoch_has_every_row_with_its_name_and_label(sequence, auto_shuffle, cap, label_mode):
    sequence.set(auto_shuffle=auto_shuffle, max_per_class_and_epoch=cap, label_mode=label_mode)
    for _ in range(3):
        names = names_of(sequence)
        assert len(set(names)) == len(names)
        if cap is None:
            assert sorted(names) == sorted(EVERY)
        else:
            found = dict(zip(*np.unique([folder_of(name) for name in names], return_counts=True), strict=True))
            assert found == {"ape": 5, "cat": 5, "dog": 5, "emu": 5, "yak": 3}


def assert_batches_within_a_pack_are_views(sequence):
    views = []
    for index, (images, labels) in enumerate(sequence):
        names = EVERY[index * 8 : index * 8 + 8]
        assert_rows_are_who_they_say(images, [sequence.classnames[number] for number in labels.argmax(axis=1)], names)
        views.append(not images.flags.writeable)
    assert [index for index, view in enumerate(views) if not view] == [
        57 // 8
    ]  # the second border of packs is also a border of batches
    assert np.shares_memory(sequence[0][0], sequence[0][0])
    assert not np.shares_memory(sequence[7][0], sequence[7][0])


def test_a_batch_is_a_view_unless_it_spans_two_packs(without_torch, sequence):
    without_torch(assert_batches_within_a_pack_are_views, sequence)


def assert_blocks_are_views(sequence):
    for _ in range(4):
        copies = sum(images.flags.writeable for images, _ in sequence)
        assert copies <= 4  # two borders of packs and the wrap-around at the end


def test_blocks_are_views_except_across_pack_borders_and_the_end(without_torch, sequence):
    without_torch(assert_blocks_are_views, sequence.set(auto_shuffle="block", batch_size=5))


@pytest.mark.parametrize("auto_shuffle", ORDERS)
def test_scaled_pixels_of_several_packs_are_correct(sequence, auto_shuffle):
    images, _, names = one_pass(sequence.set(scale=1 / 255, auto_shuffle=auto_shuffle))
    assert_rows_are_who_they_say(np.rint(images * 255).astype(np.uint8), map(folder_of, names), names)


def test_a_batch_size_above_the_row_count_gives_all_rows(sequence):
    sequence.set(batch_size=1000)
    assert names_of(sequence) == EVERY


def test_writable_batches_are_copies_of_the_right_rows(sequence):
    seen = []
    for images, _ in sequence.iterate(writable=True):
        assert images.flags.writeable
        seen.extend(images)
    assert np.array_equal(seen, [pixels_of(name) for name in EVERY])


@given(
    order=st.permutations(range(len(EVERY))),
    size=st.integers(1, len(EVERY)),
    auto_shuffle=st.sampled_from(ORDERS),
    cap=st.none() | st.integers(1, 12),
    seed=st.integers(0, 5),
)
def test_any_selection_of_rows_across_packs_is_correct(three, order, size, auto_shuffle, cap, seed):
    sequence = SplitSequence(*three, auto_shuffle=auto_shuffle, max_per_class_and_epoch=cap, seed=seed)
    part = sequence.set(batch_size=max(1, size // 3), label_mode="int").select(order[:size])
    names = names_of(part)
    assert len(set(names)) == len(names)
    assert set(names) <= {EVERY[row] for row in order[:size]}
    if cap is None:
        assert len(names) == size


# --- parts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"stratify": True},
        {"groups": "content"},
        {"groups": np.arange(90) // 7},
        {"stratify": True, "groups": "content"},
    ],
)
def test_splits_of_several_packs_hold_every_row_once(sequence, options):
    sequence.shuffle(1)
    parts = sequence.split(0.3, 0.6, **options)
    names = [names_of(part) if len(part) else [] for part in parts]
    assert sorted(chain.from_iterable(names)) == sorted(EVERY)
    if "groups" not in options:
        assert [len(part) for part in names] == [27, 27, 36]
    if isinstance(options.get("groups"), np.ndarray):
        order = list(sequence.filenames)
        homes = [{order.index(name) // 7 for name in part} for part in names]
        assert sum(map(len, homes)) == len(set().union(*homes)) == 13
    elif "stratify" in options:
        for part in names:
            assert abs(sum(folder_of(name) == "dog" for name in part) - 43 * len(part) / 90) <= 2


def test_groups_by_content_hold_across_packs(tmp_path):
    first = [f"a/cat/{index}.png" for index in range(20)]
    second = [f"b/dog/{index}.png" for index in range(10, 30)]  # the base name determines the pixels
    sequence = SplitSequence(write_pack(tmp_path / "1.h5", first), write_pack(tmp_path / "2.h5", second))
    parts = sequence.split(0.3, 0.6, groups="content")
    homes = [{os.path.basename(name) for name in part.filenames} for part in parts]
    assert sum(map(len, homes)) == 30
    assert sum(len(part.classes) for part in parts) == 40


def test_split_by_source_separates_the_packs(sequence):
    parts = sequence.shuffle(2).split_by("source")
    assert list(parts) == ["a", "b", "longer-source"]
    for source, names in (("a", FIRST), ("b", SECOND), ("longer-source", THIRD)):
        assert sorted(names_of(parts[source])) == sorted(names)


def test_split_by_a_column_missing_in_some_packs_has_a_part_with_an_empty_name(sequence):
    parts = sequence.split_by("site")
    assert {value: len(part.classes) for value, part in parts.items()} == {"": 67, "east": 1, "north": 11, "south": 11}
    assert [name.split("/")[0] for name in names_of(parts["south"])] == ["b"] * 11


@pytest.mark.parametrize("auto_shuffle", ORDERS)
def test_mistakes_in_several_packs_have_the_right_names(sequence, auto_shuffle):
    names = names_of(sequence.set(auto_shuffle=auto_shuffle))
    predictions = np.eye(5)[[sequence.classnames.index(folder_of(name)) for name in names]]
    wrong = [2, 60, 85]
    predictions[wrong] = np.roll(predictions[wrong], 1, axis=1)
    found = {mistake.position: mistake for mistake in sequence.mistakes(predictions)}
    assert sorted(found) == wrong
    assert all(mistake.filename == names[position] for position, mistake in found.items())
    assert all(mistake.label == folder_of(mistake.filename) for mistake in found.values())


def test_preload_reads_several_packs(sequence, capfd):
    for part in (sequence, sequence.select([0, 89]), sequence.select([]), sequence.shard(1, 2)):
        assert part.set(verbose=True).preload() is part
    assert capfd.readouterr().err.count("preload") >= 3


def test_a_sequence_of_several_packs_can_be_pickled(sequence):
    part = sequence.set(auto_shuffle=True).shuffle(7).select(range(10, 80))
    names = names_of(part)
    again = pickle.loads(pickle.dumps(part))
    assert again.classnames == part.classnames
    assert list(again.filenames) == list(part.filenames)
    assert names_of(again) == names_of(part) != names


# --- adding ----------------------------------------------------------------------------------------------------------


def test_adding_packs_one_by_one_equals_opening_them_together(three):
    added = SplitSequence(three[0], batch_size=8).add_file(three[1]).add_file(three[2])
    assert_consistent(added, EVERY)
    assert added.add_file() is added
    assert_consistent(SplitSequence(batch_size=8).add_file(*three), EVERY)


def test_packs_can_be_added_to_shuffled_parts(three):
    sequence = SplitSequence(three[0], batch_size=8).shuffle(4)
    before = list(sequence.filenames)
    left, right = sequence.split(0.5)
    assert_consistent(left.add_file(three[1]), before[:28] + SECOND)
    assert_consistent(right, before[28:])
    assert_consistent(sequence.add_file(three[2]), before + THIRD)
    assert_consistent(sequence.select([]).add_file(three[1]), SECOND)


@pytest.mark.parametrize("auto_shuffle", ORDERS)
def test_adding_a_pack_during_a_pass_keeps_its_rows_and_renumbers_its_labels(three, auto_shuffle):
    sequence = SplitSequence(three[0], batch_size=8, auto_shuffle=auto_shuffle)
    expected = sequence.get_filenames(range(57))
    images, labels = [], []
    for index, (batch, one_hot) in enumerate(sequence):
        images.extend(batch)
        labels.extend(sequence.classnames[number] for number in one_hot.argmax(axis=1))
        if index == 2:
            sequence.add_file(three[1])
    assert_rows_are_who_they_say(images, labels, expected)
    assert sorted(names_of(sequence)) == sorted(FIRST + SECOND)


def test_different_image_shapes_are_an_error_that_names_both_files(three, tmp_path):
    other = write_pack(tmp_path / "other.h5", FIRST[:3], shape=(8, 4, 3))
    message = rf"found \(8, 8, 3\) in {three[0]} and \(8, 4, 3\) in {other}$"
    with pytest.raises(ValueError, match=message):
        SplitSequence(three[0], other)
    sequence = SplitSequence(three[0], batch_size=8)
    with pytest.raises(ValueError, match=message):
        sequence.add_file(three[1], other)
    assert_consistent(sequence, FIRST)


@pytest.mark.parametrize("link", ["none", "hard", "symbolic", "relative"])
def test_adding_a_file_twice_is_an_error(three, tmp_path, link, monkeypatch):
    own = shutil.copy(three[0], tmp_path / "own.h5")
    path = {"none": own, "relative": "own.h5"}.get(link, tmp_path / "link.h5")
    if link == "hard":
        os.link(own, path)
    elif link == "symbolic":
        os.symlink(own, path)
    monkeypatch.chdir(tmp_path)
    sequence = SplitSequence(three[1], own, batch_size=8)
    with pytest.raises(ValueError, match=f"{path} is there already; its rows would count twice"):
        sequence.add_file(path)
    with pytest.raises(ValueError, match="is there already"):
        SplitSequence(own, path)
    assert_consistent(sequence, SECOND + FIRST)


def test_a_replaced_file_at_the_same_path_can_be_added(three, tmp_path):
    own = tmp_path / "own.h5"
    shutil.copy(three[0], own)
    sequence = SplitSequence(own, batch_size=8)
    shutil.copy(three[1], tmp_path / "new.h5")
    os.replace(tmp_path / "new.h5", own)
    assert_consistent(sequence.add_file(own), FIRST + SECOND)


@pytest.mark.parametrize("packs", [0, 1, 2])
def test_a_failed_open_leaves_the_sequence_unchanged(three, tmp_path, packs):
    (tmp_path / "text.h5").write_text("no pack")
    sequence = SplitSequence(*three[:packs], batch_size=8)
    before = list(sequence.filenames)
    for wrong, error in ((tmp_path / "none.h5", FileNotFoundError), (tmp_path / "text.h5", ValueError)):
        with pytest.raises(error):
            sequence.add_file(three[2], wrong)
        assert list(sequence.filenames) == before
        assert len(sequence) == -(-len(before) // 8)
    assert_consistent(sequence.add_file(three[2]), before + THIRD)


def test_too_many_classes_for_binary_labels_leave_the_sequence_unchanged(three):
    sequence = SplitSequence(three[2], batch_size=3, label_mode="binary")
    with pytest.raises(ValueError, match="binary expects 2 classes, found 5; use categorical"):
        sequence.add_file(three[0], three[1])
    assert sequence.classnames == ["cat", "dog"]
    images, labels, names = one_pass(sequence)
    assert_rows_are_who_they_say(images, [["cat", "dog"][int(label)] for label in labels[:, 0]], names)
    assert names == THIRD


def test_unpickling_is_refused_after_the_file_was_replaced(three, tmp_path):
    own = tmp_path / "own.h5"
    shutil.copy(three[0], own)
    raw = pickle.dumps(SplitSequence(own, three[1]))
    assert len(pickle.loads(raw).classes) == 80
    write_pack(tmp_path / "new.h5", [name.replace("a-", "x-") for name in FIRST])
    os.replace(tmp_path / "new.h5", own)
    with pytest.raises(FormatError, match=r"own\.h5: expected the pack that was open where this was pickled"):
        pickle.loads(raw)


def test_read_ahead_distinguishes_packs_opened_by_the_same_relative_path(three, tmp_path, monkeypatch):
    sequence = SplitSequence(label_mode="int")
    for number, size in enumerate([40, 5]):
        (tmp_path / str(number)).mkdir()
        monkeypatch.chdir(tmp_path / str(number))
        write_pack(Path("own.h5"), names_in(f"d{number}", {"cat": size}), shape=(128, 128, 3))
        sequence.add_file("own.h5")
    order = Order(np.arange(45)[::-1], 4)
    for ahead in (RowsAhead(sequence.packs, order), FrontToBack(sequence.packs, order)):
        for batch in range(order.batches):
            ahead(batch)
    assert sorted(names_of(sequence)) == sorted(sequence.filenames)


@pytest.fixture
def cold(tmp_path):
    """A pack of 200 images, 10 MB, none of which is in memory."""
    path = tmp_path / "one.h5"
    write_pack(path, names_in("a", {"cat": 200}), shape=(128, 128, 3))
    if not hasattr(os, "posix_fadvise"):
        pytest.skip("needs a system that drops a file from memory")
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if PackedImages(path).is_cached(np.arange(0, 200, 10)) is not False:
        pytest.skip("needs a file system that drops a file from memory")
    return path


def becomes_cached(pack, rows):
    until = time.monotonic() + PATIENCE
    while not pack.is_cached(rows) and time.monotonic() < until:
        time.sleep(0.01)
    return pack.is_cached(rows)


@pytest.mark.parametrize("order", [True, "block", False])
def test_a_pass_from_disk_has_all_of_the_file_read_before_its_second_batch(cold, order):
    sequence = SplitSequence(cold, auto_shuffle=order, batch_size=4)
    batches = iter(sequence)
    for _ in range(2):
        next(batches)
    assert becomes_cached(sequence.packs.packs[0], np.arange(200))
    assert len(list(batches)) == 48


@pytest.mark.parametrize("order", [True, "block"])
def test_a_pack_that_does_not_fit_into_memory_is_read_a_few_batches_ahead(cold, order, monkeypatch):
    monkeypatch.setattr(readahead, "free_memory", lambda: 0)
    monkeypatch.setattr(readahead, "_BYTES_AHEAD", 0)  # so 8 batches, as of large images
    sequence = SplitSequence(cold, auto_shuffle=order, batch_size=4, label_mode="int")
    assert sorted(names_of(sequence)) == sorted(sequence.filenames)
    assert sequence.packs.packs[0].is_cached(np.arange(200))


def test_threads_that_ask_at_once_all_go_on_when_the_files_are_read(cold, monkeypatch):
    monkeypatch.setattr(readahead, "_WAITS", (2 * PATIENCE, 2 * PATIENCE))
    load, wait, all_wait = MappedFile.load, FrontToBack.__call__, threading.Barrier(3)

    def begins_when_all_wait(self, start, count=READ_SIZE):
        if start == 0:
            all_wait.wait(PATIENCE)
        return load(self, start, count)

    def told_to_wait(self, first, count=1):
        all_wait.wait(PATIENCE)
        wait(self, first, count)

    monkeypatch.setattr(MappedFile, "load", begins_when_all_wait)
    monkeypatch.setattr(FrontToBack, "__call__", told_to_wait)
    sequence, sizes = SplitSequence(cold, auto_shuffle=True, batch_size=4), []
    asking = [
        threading.Thread(target=lambda batch=batch: sizes.append(len(sequence[batch][0])), daemon=True)
        for batch in range(2)
    ]
    for one in asking:
        one.start()
    for one in asking:
        one.join(PATIENCE)
    assert sizes == [4, 4]


@pytest.mark.parametrize("waits", [(0, 0), (0.5, 5.0)])
def test_a_pass_goes_on_when_the_files_cannot_be_read_ahead(cold, waits, monkeypatch):
    monkeypatch.setattr(readahead, "_WAITS", waits)

    def fails(self, start, count=0):
        time.sleep(0.05)  # so that batches are asked for meanwhile
        raise OSError("the disk is gone")

    monkeypatch.setattr(MappedFile, "load", fails)
    sequence = SplitSequence(cold, auto_shuffle=True, batch_size=4, label_mode="int")
    assert sorted(names_of(sequence)) == sorted(sequence.filenames)


# --- concatenated arrays ---------------------------------------------------------------------------------------------


@st.composite
def parts_of_texts(draw):
    widths = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    return [
        np.array(draw(st.lists(st.binary(max_size=width), max_size=6)), f"S{width}") for width in widths
    ]  # some parts are empty


@given(parts=parts_of_texts(), data=st.data())
def test_joined_arrays_equal_concatenated_arrays(parts, data):
    joined, whole = Joined(parts), np.concatenate(parts)
    assert len(joined) == len(whole)
    cut = data.draw(st.slices(len(whole)))
    assert joined[cut].dtype == whole.dtype
    assert joined[cut].tolist() == whole[cut].tolist()
    ends = st.integers(-len(whole), max(0, len(whole) - 1))
    rows = data.draw(st.lists(ends, max_size=9)) if len(whole) else []
    at = np.array(rows, data.draw(st.sampled_from([np.int64, np.int32])))
    assert joined[at].tolist() == whole[at].tolist()
    for index in at.tolist():
        assert joined[index] == whole[index]
    for wrong in (len(whole), -len(whole) - 1):
        with pytest.raises(IndexError, match=f"expected rows from 0 to {len(whole) - 1}, found {wrong}"):
            joined[wrong]


@given(lengths=st.lists(st.integers(0, 5), min_size=1, max_size=4), at=st.lists(st.integers(-1, 0), max_size=9))
def test_joined_arrays_of_three_dimensions_equal_concatenated_arrays(lengths, at):
    parts = [
        np.arange(length * 6, dtype=np.uint8).reshape(length, 2, 3) + index for index, length in enumerate(lengths)
    ]
    joined, whole = Joined(parts), np.concatenate(parts)
    assert np.array_equal(joined[:], whole)
    rows = np.array(at, np.int64) * (len(whole) - 1) if len(whole) else np.empty(0, np.int64)
    assert np.array_equal(joined[rows], whole[rows])
    assert joined[rows].shape == whole[rows].shape


@given(parts=parts_of_texts(), data=st.data())
def test_texts_of_joined_arrays_behave_like_a_list(parts, data):
    texts = Texts(Joined(parts))
    expected = [os.fsdecode(raw) for raw in np.concatenate(parts).tolist()]
    assert texts == expected
    assert list(texts) == expected
    assert texts.raw().tolist() == [os.fsencode(text) for text in expected]
    cut = data.draw(st.slices(len(expected)))
    assert texts[cut] == expected[cut]
    rows = data.draw(st.lists(st.integers(0, len(expected) - 1), max_size=9)) if expected else []
    taken = texts.take(np.array(rows, np.int64))
    assert list(taken) == [expected[row] for row in rows]
    assert [taken[index] for index in range(-len(rows), len(rows))] == [expected[row] for row in rows] * 2
    with pytest.raises(IndexError):
        texts[len(expected)]


def test_images_over_two_gibibytes_are_refused(tmp_path):
    path = write_hole(tmp_path / "hole.h5", 1, (40_000, 40_000, 3))
    assert PackedImages(path).images.nbytes == 4_800_000_000
    with pytest.raises(
        ValueError, match=r"hole\.h5: expected images of up to 2,147,483,647 bytes, found \(40000, 40000"
    ):
        SplitSequence(path)
