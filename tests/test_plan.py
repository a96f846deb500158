"""Plans are pure functions: sources and settings determine rows, order, tasks and identity."""

from __future__ import annotations

import re
from dataclasses import replace
from math import gcd

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pack_images import PackError
from pack_images.find.sources import Sources
from pack_images.plan import Place, plan, survivors
from pack_images.settings import Pixels, Settings


def sources(count=100):
    labels = [("cat", "dog", "emu")[index % 7 % 3] for index in range(count)]
    filenames = [f"data/{label}/{index}.jpg" for index, label in enumerate(labels)]
    return Sources(filenames, labels, [*filenames], {"source": ["data"] * count})


def planned(count=100, shape=(8, 8, 3), **settings):
    return plan(sources(count), Settings(Pixels((8, 8)), **settings), shape)


def test_rows_keep_their_labels_in_every_order():
    for order in ("stratified", "sorted"):
        a_plan = planned(order=order)
        assert sorted(a_plan.sources.filenames) == sorted(sources().filenames)
        for name, label in zip(a_plan.sources.filenames, a_plan.labels, strict=True):
            assert a_plan.class_names[label] == name.split("/")[1]


def test_sorted_keeps_source_order_and_stratified_depends_on_the_seed():
    assert planned(order="sorted").sources.filenames == sources().filenames
    assert planned(seed=1).sources.filenames != planned(seed=2).sources.filenames
    assert planned(seed=1).sources.filenames == planned(seed=1).sources.filenames


def test_every_range_of_rows_holds_each_class_in_proportion():
    a_plan = planned(1000)
    for start in range(0, 1000, 100):
        part = np.bincount(a_plan.labels[start : start + 100])
        assert np.abs(part - np.array(list(a_plan.counts.values())) / 10).max() <= 2


@given(count=st.integers(1, 5000), side=st.integers(1, 400))
def test_tasks_cover_every_row_once_and_start_on_page_boundaries_if_possible(count, side):
    a_plan = replace(
        planned(1), sources=Sources(rows := [str(row) for row in range(count)], rows, rows), shape=(side, side, 3)
    )
    tasks = list(a_plan.tasks(Place("partial", "journal", "identity", 4096, a_plan.stride)))
    assert [path for task in tasks for path in task.paths] == [str(row) for row in range(count)]
    assert [task.first for task in tasks] == [int(task.paths[0]) for task in tasks]
    assert len({len(task.paths) for task in tasks[:-1]}) <= 1
    whole_pages = 4096 // gcd(4096, a_plan.stride)
    if len(tasks[0].paths) >= whole_pages and len(tasks) > 1:
        assert all(task.first * a_plan.stride % 4096 == 0 for task in tasks)


def test_identity_changes_with_everything_that_determines_the_bytes():
    versions = {"pillow": "1"}
    base = planned()
    others = [
        planned(seed=1),
        planned(99),
        planned(order="sorted"),
        planned(shape=(9, 8, 3)),
        replace(base, settings=Settings(Pixels((8, 8), exact=True))),
        replace(base, labels=base.labels[::-1].copy()),
        replace(base, sources=replace(base.sources, columns={"source": ["other"] * 100})),
    ]
    identities = {a_plan.identity(versions) for a_plan in (base, *others)} | {base.identity({"pillow": "2"})}
    assert len(identities) == len(others) + 2
    assert planned().identity(versions) == base.identity(versions)


@pytest.mark.parametrize(
    ("order", "failed", "expected"),
    [
        ("sorted", [], [0, 1, 2, 3, 4, 5]),
        ("sorted", [0, 3], [1, 2, 4, 5]),
        ("stratified", [], [0, 1, 2, 3, 4, 5]),
        ("stratified", [0, 3], [4, 1, 2, 5]),
        ("stratified", [0, 5], [4, 1, 2, 3]),
        ("stratified", [4, 5], [0, 1, 2, 3]),
    ],
)
def test_survivors_fill_the_gaps(order, failed, expected):
    assert survivors(6, failed, order).tolist() == expected


@given(count=st.integers(1, 100), order=st.sampled_from(["sorted", "stratified"]), data=st.data())
def test_survivors_are_all_rows_that_did_not_fail(count, order, data):
    failed = data.draw(st.lists(st.integers(0, count - 1), unique=True))
    rows = survivors(count, failed, order).tolist()
    assert sorted(rows) == [row for row in range(count) if row not in failed]
    assert all(source >= row for row, source in enumerate(rows))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Pixels(fit="squeeze"), "fit: expected one of stretch, crop, pad, found 'squeeze'"),
        (lambda: Pixels(interpolation="cubic"), "interpolation: expected one of nearest, .*, found 'cubic'"),
        (lambda: Pixels(color="bgr"), "color: expected one of rgb, grayscale, rgba, index, all, found 'bgr'"),
        (lambda: Pixels(size=(0, 5)), r"size: expected a width and a height from 1 to 65535, found \(0, 5\)"),
        (lambda: Pixels(size=(5, 5, 3)), "size: expected a width and a height"),
        (lambda: Pixels(max_pixels=0), "max_pixels: expected 1 or more, found 0"),
        (lambda: Settings(Pixels(), order="random"), "order: expected one of stratified, sorted, found 'random'"),
        (lambda: Settings(Pixels(), seed=-1), "seed: expected a whole number of 0 or more, found -1"),
    ],
)
def test_invalid_settings_are_errors(make, message):
    with pytest.raises(PackError, match=message):
        make()


# --- limits of the file format ---------------------------------------------------------------------------------------


def with_column(texts, name="notes"):
    found = sources(len(texts))
    return plan(replace(found, columns={**found.columns, name: texts}), Settings(Pixels((8, 8))), (8, 8, 3))


@pytest.mark.parametrize("text", ["p1\0", "\0", "\ud800", "a\udfffb"])
def test_texts_that_hdf5_cannot_store_unchanged_are_refused_by_file_name(text):
    texts = ["p1"] * 50
    texts[17] = text
    message = re.escape(f"column 'notes' of {sources(50).filenames[17]!r}: expected text of up to 2,147,483,647 bytes")
    with pytest.raises(PackError, match=message):
        with_column(texts)
    filenames = [*sources(50).filenames[:49], text]
    with pytest.raises(PackError, match=rf"name of the file of {re.escape(repr(text))}: expected text of up to"):
        plan(replace(sources(50), filenames=filenames), Settings(Pixels((8, 8))), (8, 8, 3))


@pytest.mark.parametrize("text", ["p1\0a", "\udcff", "é", ""])
def test_texts_that_can_be_stored_unchanged_are_accepted(text):
    assert sorted(with_column([text, "p1"]).sources.columns["notes"]) == sorted([text, "p1"])


def test_one_long_text_that_pads_every_row_causes_a_warning():
    texts = ["a dog"] * 1000
    assert with_column(texts).warnings == []
    texts[7] = "y" * 100_000
    assert with_column(texts).warnings == [
        "column 'notes': 100 MB in the file for 0.1 MB of text, as every row has room for the longest, "
        f"the 100,000 bytes of {sources(8).filenames[7]}; shorten it, or leave the column out"
    ]
    assert with_column(["y" * 100_000] * 1000).warnings == []
    assert with_column(texts[:100]).warnings == []


def test_too_many_columns_are_refused():
    found = sources(1)
    columns = {f"c{at}": ["1"] for at in range(10_001)}
    with pytest.raises(PackError, match="expected up to 10,000 columns, found 10,001; leave some out"):
        plan(replace(found, columns={**found.columns, **columns}), Settings(Pixels((8, 8))), (8, 8, 3))
    del columns["c0"]
    plan(replace(found, columns={**found.columns, **columns}), Settings(Pixels((8, 8))), (8, 8, 3))
    columns = {f"{at}{'x' * 110_000}": ["1"] for at in range(10)}
    with pytest.raises(PackError, match=r"expected names of columns of up to 1 MB together, found 1\.0 MB; give them"):
        plan(replace(found, columns={**found.columns, **columns}), Settings(Pixels((8, 8))), (8, 8, 3))


def test_images_over_two_gibibytes_are_refused():
    with pytest.raises(
        PackError, match=r"expected images of up to 2,147,483,647 bytes, found 4,800,000,000; give a smal"
    ):
        planned(shape=(40_000, 40_000, 3))
