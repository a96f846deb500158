"""Index functions deliver every row once, in an order determined by their key."""

from __future__ import annotations

import hashlib
import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from h5split.file.pieces import located
from h5split.order import rows

labelled = npst.arrays(np.int32, st.integers(1, 200), elements=st.integers(0, 5))
points = st.lists(st.floats(0, 1), max_size=4).map(sorted)


def test_permutation_is_the_same_in_every_version():
    assert rows.permutation(10, 7).tolist() == [7, 9, 5, 3, 0, 6, 1, 2, 8, 4]
    digest = hashlib.sha256(rows.permutation(10_000, 1, 2).astype("<i8").tobytes()).hexdigest()
    assert digest == "76d43866c43fc1300d83c5447b23350b7d3595ba7c04440a94eac6598537e7b7"


def test_stratified_order_is_the_same_in_every_version():
    labels = np.repeat(np.arange(3, dtype=np.int32), [2, 5, 3])
    assert rows.stratified_order(labels, 0).tolist() == [9, 2, 4, 0, 7, 5, 6, 8, 1, 3]


def test_long_orders_begin_the_same_in_every_version():
    assert rows.permutation(1000, 0, 0)[:8].tolist() == [829, 552, 912, 141, 488, 97, 86, 382]
    assert rows.blocks(np.arange(100), 8, 0, 0)[6:10].tolist() == [63, 64, 25, 26]
    assert rows.blocks(np.arange(100), 8, 0, 1)[6:10].tolist() == [85, 86, 71, 72]
    assert rows.blocks(np.arange(100), 8, 7, 3)[-6:].tolist() == [98, 99, 0, 1, 2, 3]


@pytest.mark.parametrize("key", [(0, 0), (3, 7), (2**40, 1), (5,)])
def test_permutation_is_the_argsort_of_the_64_bit_stream_of_its_key(key):
    for count in [*range(70), 127, 128, 129, 1000, 1023, 1024, 1025, 2047, 2048, 2049, 3000]:
        stream = np.random.PCG64(np.random.SeedSequence((len(key), *key))).random_raw(count)
        assert rows.permutation(count, *key).tolist() == np.argsort(stream, kind="stable").tolist()


@given(count=st.integers(0, 300), seed=st.integers(0, 2**64), epoch=st.integers(0, 10**6))
def test_permutation_holds_every_row_once(count, seed, epoch):
    assert sorted(rows.permutation(count, seed, epoch).tolist()) == list(range(count))


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
@pytest.mark.parametrize("given_rows", [range(0), range(5, 6), range(7), range(3, 70_003), range(140_000, 0, -2)])
def test_permuted_rows_are_the_rows_at_a_permutation(given_rows, dtype):
    given_rows = np.array(given_rows, dtype)
    found = rows.permuted(given_rows, 3, 1)
    assert found.dtype == dtype
    assert np.array_equal(found, given_rows[rows.permutation(len(given_rows), 3, 1)])


def test_many_rows_are_permuted_by_two_threads_in_8_bytes_a_row_and_kept_in_4():
    count = 1_100_001
    given_rows = np.arange(count, dtype=np.int32)
    expected = np.argsort(np.random.PCG64(np.random.SeedSequence((1, 5))).random_raw(count), kind="stable")
    tracemalloc.start()
    try:
        found = rows.permuted(given_rows, 5)
        kept, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert np.array_equal(found, expected)
    assert kept < 4.2 * count
    assert most < 10.5 * count


@pytest.mark.parametrize(
    ("given_rows", "answer"), [([], False), ([4], True), ([4, 5, 6], True), ([4, 6, 5, 7], False), ([6, 5, 4], False)]
)
def test_consecutive_rows_are_told_from_others(given_rows, answer):
    assert rows.are_consecutive(np.array(given_rows, np.int64)) == answer


def test_many_rows_of_which_two_change_places_are_not_consecutive():
    many = np.arange(5, 200_005)
    assert rows.are_consecutive(many)
    for at in (65_535, 65_536, 131_071, 199_997):
        swapped = many.copy()
        swapped[[at, at + 1]] = swapped[[at + 1, at]]
        assert not rows.are_consecutive(swapped)


def test_permutation_differs_by_seed_and_epoch():
    orders = {tuple(rows.permutation(50, seed, epoch).tolist()) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9


@given(labels=labelled, seed=st.integers(0, 100), data=st.data())
def test_every_range_of_a_stratified_order_holds_each_class_in_proportion(labels, seed, data):
    order = rows.stratified_order(labels, seed)
    assert sorted(order.tolist()) == list(range(len(labels)))
    start = data.draw(st.integers(0, len(labels)))
    stop = data.draw(st.integers(start, len(labels)))
    part = np.bincount(labels[order[start:stop]], minlength=6)
    share = np.bincount(labels, minlength=6) * (stop - start) / len(labels)
    # In every class, a range of rows matches a range of positions to within one row.
    assert np.abs(part - share).max() <= 1 + np.count_nonzero(share)


@pytest.mark.parametrize(
    ("given_points", "sizes"),
    [
        pytest.param((), [10], id="none"),
        pytest.param((0.8,), [8, 2], id="two parts"),
        pytest.param((0.2, 0.4), [2, 2, 6], id="three parts"),
        pytest.param((0.5, 0.5), [5, 0, 5], id="equal points give an empty part"),
        pytest.param((0.0, 1.0), [0, 10, 0], id="points at both ends"),
        pytest.param((0.33, 0.66), [3, 4, 3], id="rounded"),
    ],
)
def test_split_cuts_at_fractions_of_all_rows(given_points, sizes):
    parts = rows.split(np.arange(10), given_points)
    assert [len(part) for part in parts] == sizes
    assert np.concatenate(parts).tolist() == list(range(10))


@pytest.mark.parametrize(
    ("given_points", "message"),
    [
        ((0.4, 0.2), r"points that do not decrease, found 0\.4 before 0\.2"),
        ((-0.1,), r"from 0 to 1, found -0\.1"),
        ((1.5,), r"from 0 to 1, found 1\.5"),
        ((float("nan"),), "from 0 to 1, found nan"),
        ((20, 40), "from 0 to 1, found 20"),
    ],
)
def test_invalid_points_are_errors(given_points, message):
    with pytest.raises(ValueError, match=message):
        rows.split(np.arange(10), given_points)


@given(labels=labelled, cut=points)
def test_split_strata_cuts_each_class(labels, cut):
    parts = rows.split_strata(np.arange(len(labels)), labels, cut)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))
    bounds = rows.cuts(len(labels), cut)
    assert [len(part) for part in parts] == np.diff(bounds).tolist()
    counts = np.bincount(labels, minlength=6)
    for part, size in zip(parts, np.diff(bounds), strict=True):
        share = counts * size / len(labels)
        assert np.abs(np.bincount(labels[part], minlength=6) - share).max() <= 2
    assert all((np.diff(part) > 0).all() for part in parts)


def test_split_strata_handles_classes_with_fewer_rows_than_parts():
    labels = np.repeat(np.arange(1000, dtype=np.int32), 2)
    assert [len(part) for part in rows.split_strata(np.arange(2000), labels, (0.2, 0.4))] == [400, 400, 1200]


def test_split_strata_keeps_thousands_of_classes_in_their_shares():
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat(np.arange(3000), rng.integers(1, 9, 3000))).astype(np.int32)
    labels = np.concatenate([labels, np.full(20_000, 3000, np.int32)])
    for part in (parts := rows.split_strata(np.arange(len(labels)), labels, (0.1, 0.2, 0.35, 0.8))):
        share = np.bincount(labels) * (len(part) / len(labels))
        assert np.abs(np.bincount(labels[part], minlength=3001) - share).max() <= 2
    assert sorted(np.concatenate(parts).tolist()) == [*range(len(labels))]


@given(
    labels=npst.arrays(np.int32, st.integers(1, 300), elements=st.integers(0, 40)),
    cut=st.lists(st.floats(0, 1), max_size=20).map(sorted),
)
def test_split_strata_keeps_every_share_in_any_number_of_parts(labels, cut):
    everywhere = np.sort(labels)
    parts = rows.split_strata(np.arange(len(labels)), everywhere, cut)
    of_all = np.bincount(labels)
    for part in parts:
        expected = of_all * len(part) / len(labels)
        assert np.abs(np.bincount(everywhere[part], minlength=len(of_all)) - expected).max() <= 2


def test_split_strata_keeps_shares_that_taking_one_part_after_another_loses():
    """Errors of one part must not add up to those of the next ones."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        labels = np.sort(rng.integers(0, 32, 314) ** 2 % 32).astype(np.int32)
        of_all = np.bincount(labels)
        for part in rows.split_strata(np.arange(314), labels, np.sort(rng.random(11)).tolist()):
            expected = of_all * len(part) / 314
            assert np.abs(np.bincount(labels[part], minlength=len(of_all)) - expected).max() <= 2


def test_split_groups_of_no_rows_gives_empty_parts():
    empty = np.empty(0, np.int64)
    assert [part.tolist() for part in rows.split_groups(empty, empty, (0.2, 0.4), empty)] == [[], [], []]


@given(labels=labelled, cut=points, stratify=st.booleans(), data=st.data())
def test_split_groups_never_divides_a_group(labels, cut, stratify, data):
    groups = data.draw(npst.arrays(np.int64, len(labels), elements=st.integers(0, 40)))
    parts = rows.split_groups(np.arange(len(labels)), groups, cut, labels if stratify else None)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))
    homes = [set(groups[part].tolist()) for part in parts]
    assert sum(len(home) for home in homes) == len(set(groups.tolist()))


def test_split_groups_equals_split_when_every_group_has_one_row():
    order = rows.permutation(100, 3)
    parts = rows.split_groups(order, np.arange(100), (0.2, 0.4))
    assert [part.tolist() for part in parts] == [part.tolist() for part in rows.split(order, (0.2, 0.4))]


def test_split_groups_approximates_the_points_and_class_proportions():
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 300, 3000)
    labels = rng.integers(0, 4, 3000).astype(np.int32)
    parts = rows.split_groups(np.arange(3000), groups, (0.2, 0.4), labels)
    assert np.abs([len(part) for part in parts] - np.array([600, 600, 1800])).max() <= 15
    for part, share in zip(parts, (0.2, 0.2, 0.6), strict=True):
        assert np.abs(np.bincount(labels[part]) - np.bincount(labels) * share).max() <= 20


def test_split_groups_of_many_classes_gives_parts_of_about_their_sizes():
    rng = np.random.default_rng(5)
    groups, classes = rng.integers(0, 60, 500), np.arange(60) % 10
    for cut in ([0.8], [0.2, 0.4]):
        parts = rows.split_groups(np.arange(500), groups, cut, classes[groups].astype(np.int32))
        sizes = np.diff(rows.cuts(500, cut))
        assert np.abs(np.array([len(part) for part in parts]) - sizes).max() <= 8


def test_a_part_of_size_zero_gets_no_group():
    parts = rows.split_groups(np.arange(6), np.array([0, 0, 0, 1, 1, 1]), (0.5, 0.5))
    assert [len(part) for part in parts] == [3, 0, 3]


@given(labels=labelled, cap=st.integers(1, 50), seed=st.integers(0, 5))
def test_ceil_n_over_cap_consecutive_windows_hold_every_row(labels, cap, seed):
    everything = np.arange(len(labels))
    largest = int(np.bincount(labels).max())
    turns = -(-largest // cap)
    windows = [rows.window(everything, labels, cap, seed, turn) for turn in range(3, 3 + turns)]
    for chosen in windows:
        assert len(set(chosen.tolist())) == len(chosen)
        assert np.bincount(labels[chosen], minlength=6).tolist() == [
            min(n, cap) for n in np.bincount(labels, minlength=6)
        ]
    assert set(np.concatenate(windows).tolist()) == set(range(len(labels)))


def test_a_window_without_a_turn_takes_the_first_rows_of_each_class():
    labels = np.array([0, 1, 0, 0, 1, 2], np.int32)
    assert rows.window(np.arange(10, 16), labels, 2, 0, None).tolist() == [10, 11, 12, 14, 15]


@given(count=st.integers(0, 200), size=st.integers(1, 40), ranks=st.integers(1, 7))
def test_shards_divide_each_global_batch_into_equal_parts(count, size, ranks):
    order = rows.permutation(count, 1)
    shards = [rows.shard(order, size, index, ranks) for index in range(ranks)]
    assert {len(shard) for shard in shards} == {count // ranks}
    together = np.concatenate(shards)
    assert len(set(together.tolist())) == len(together) > count - ranks
    for first in range(-(-count // (size * ranks))):
        batch = order[first * size * ranks : (first + 1) * size * ranks]
        parts = np.concatenate([shard[first * size : (first + 1) * size] for shard in shards])
        assert parts.tolist() == batch[: len(parts)].tolist()


@given(first=st.integers(0, 50), count=st.integers(0, 200), size=st.integers(1, 40), key=st.tuples(st.integers(0, 99)))
def test_blocks_are_a_permutation_of_consecutive_runs(first, count, size, key):
    order = rows.blocks(np.arange(first, first + count), size, *key)
    assert sorted(order.tolist()) == list(range(first, first + count))
    flags = rows.runs(order, size)
    whole = count // size
    assert np.count_nonzero(~flags[:whole]) <= 1
    assert np.count_nonzero(~flags) <= 1


@given(order=st.permutations(range(50)), size=st.integers(1, 60), key=st.tuples(st.integers(0, 9), st.integers(0, 9)))
def test_blocks_keep_neighbours_of_the_given_order_together(order, size, key):
    blocks = rows.blocks(np.array(order), size, *key).tolist()
    follows = dict(zip(order, [*order[1:], order[0]], strict=True))
    assert sorted(blocks) == sorted(order)
    assert all(follows[a] == b for at, (a, b) in enumerate(pairwise(blocks), 1) if at % size)


def test_blocks_start_at_another_offset_every_epoch():
    phases = [int(rows.blocks(np.arange(1000), 32, 0, epoch)[0]) % 32 for epoch in range(50)]
    assert len(set(phases)) > 15
    last = [rows.blocks(np.arange(1000), 32, 0, epoch)[-1] for epoch in range(50)]
    assert len(set(last)) > 15  # so drop_remainder drops other rows each epoch


@given(sizes=st.lists(st.integers(0, 6), min_size=1, max_size=5), data=st.data())
def test_located_finds_part_and_row_of_every_global_row(sizes, data):
    bounds = np.cumsum([0, *sizes]).tolist()
    places = [(part, row) for part, size in enumerate(sizes) for row in range(size)]
    if not places:
        return
    chosen = np.array(data.draw(st.lists(st.integers(0, len(places) - 1), min_size=1, max_size=12)))
    found = [None] * len(chosen)
    for part, where, local in located(bounds, chosen):
        for place, row in zip(np.arange(len(chosen))[where].tolist(), local.tolist(), strict=True):
            assert found[place] is None
            found[place] = (part, row)
    assert found == [places[row] for row in chosen]


@pytest.mark.parametrize(
    ("given_rows", "answer"),
    [
        ([], []),
        ([4], [True]),
        ([4, 5, 6, 7, 8], [True, True]),
        ([4, 6, 5], [False]),
        ([4, 4, 5, 3, 4, 5], [False, True]),
        ([1, 3, 2, 4], [False, True]),
        ([7, 8, 9, 0, 1, 2, 4], [True, True, True]),
    ],
)
def test_runs_flags_batches_of_consecutive_rows(given_rows, answer):
    assert rows.runs(np.array(given_rows, np.int64), 3).tolist() == answer


def test_runs_flags_many_batches():
    many = np.arange(300_000, dtype=np.int32)
    many[[65_535, 200_000]] += 1
    assert np.flatnonzero(~rows.runs(many, 7)).tolist() == [65_535 // 7, 200_000 // 7]


@given(npst.arrays(np.uint8, st.integers(0, 60), elements=st.integers(0, 8)))
def test_identical_finds_every_group(values):
    digests = np.zeros((len(values), 32), np.uint8)
    digests[:, [31, 0][len(values) % 2]] = values
    expected = [np.flatnonzero(values == value).tolist() for value in dict.fromkeys(values.tolist())]
    found = [group.tolist() for group in rows.identical(digests)]
    assert found == [group for group in expected if len(group) > 1]
