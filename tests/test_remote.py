"""Packs elsewhere: batches are those of the local pack, every byte comes once, and no fault gives a wrong row."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import itertools
import json
import os
import pickle
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("aiohttp", reason="needs fsspec and aiohttp: pip install 'pack-images[remote]'")
pytest.importorskip("fsspec", reason="needs fsspec and aiohttp: pip install 'pack-images[remote]'")

import fsspec
from fsspec.spec import AbstractFileSystem
from pairs import assert_pairs, names_by_pixels, packed_pairs, write_pairs
from range_server import RangeServer

from conftest import (
    PATIENCE,
    assert_rows_are_who_they_say,
    names_in,
    names_of,
    one_pass,
    pixels_of,
    wait_until,
    write_pack,
)
from h5split import FormatError, H5SplitError, PackedImages, SplitSequence
from h5split.errors import ArgumentError, NotAPackError, RemoteError
from h5split.remote import objects
from h5split.system import files

SHAPE = (64, 64, 3)  # 85 rows in a piece of a megabyte
COUNTS = {"cat": 400, "dog": 500, "emu": 120}
ROWS = sum(COUNTS.values())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("remote")


@pytest.fixture(scope="module")
def local(folder):
    """A pack of 12 pieces of pixels."""
    return write_pack(folder / "local.h5", names_in("local", COUNTS), shape=SHAPE)


@pytest.fixture(scope="module")
def other(folder, local):
    """A pack of the same size, with other pixels, names and labels."""
    path = write_pack(
        folder / "other.h5", names_in("other", dict(zip(COUNTS, (120, 500, 400), strict=True))), shape=SHAPE
    )
    assert path.stat().st_size == local.stat().st_size
    return path


@pytest.fixture
def server():
    with RangeServer() as server:
        yield server


@pytest.fixture
def url(server, local):
    return server.put("local.h5", local)


@pytest.fixture
def cache(tmp_path):
    return str(tmp_path / "cache")


@pytest.fixture
def no_waits(monkeypatch):
    """Try a request again at once."""
    monkeypatch.setattr(objects, "_FIRST_WAIT", 0.001)


def pixels_in(path):
    """The bytes of a pack where its pixels are: (start, stop), without the pieces that are sent when it is opened."""
    pack = PackedImages(path)
    start, stop, piece = pack.header.images.offset, pack.header.images.offset + pack.header.images.nbytes, 85 * 12288
    return start - -(objects._BEGINNING - start) // piece * piece + piece, stop


def of_pixels(path):
    """Whether a request asks for pixels."""
    images = PackedImages(path).header.images
    return lambda request: images.offset <= request.start < images.offset + images.nbytes


def of_tables(path):
    """Whether a request asks for tables."""
    _, stop = pixels_in(path)
    return lambda request: request.start >= stop


def assert_every_row(pack):
    """Check the pixels and label of each row of a pack, by reading it as a data set."""
    images, labels = zip(*pack.__getitems__(range(len(pack))), strict=True)
    assert_rows_are_who_they_say(images, [pack.class_names[label] for label in labels], pack.filenames)


def copies_in(cache):
    """The folders of copies in a cache folder."""
    return sorted(Path(cache).glob("[0-9a-f]*"))


def wait_until_unused(cache):
    """Wait until no thread has a copy open: those that fetched it last may take a moment to end."""
    deadline = time.monotonic() + 20
    for place in copies_in(cache):
        with open(place / "pack.h5", "r+b") as file:
            while not files.lock_alone(file.fileno()):
                assert time.monotonic() < deadline
                time.sleep(0.001)


def wait_for(true):
    """Wait until a condition holds."""
    until = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < until
        time.sleep(0.005)


def in_another_process(code, *arguments, **options):
    """Run code in another process. Return (status, stdout, stderr)."""
    found = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, timeout=120, **options
    )
    return found.returncode, found.stdout, found.stderr


# --- batches ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"auto_shuffle": True},
        {"auto_shuffle": "block"},
        {"auto_shuffle": True, "max_per_class_and_epoch": 50, "label_mode": "int"},
        {"batch_size": 400, "auto_shuffle": True, "scale": 1 / 255},
    ],
    ids=str,
)
def test_batches_are_those_of_the_local_pack(url, local, cache, settings):
    remote, here = SplitSequence(url, cache=cache, **settings), SplitSequence(local, **settings)
    for _ in range(2):
        (*found, names), (*expected, expected_names) = one_pass(remote), one_pass(here)
        assert names == expected_names
        for one, two in zip(found, expected, strict=True):
            assert np.array_equal(one, two)


def test_names_follow_the_rows(url, cache):
    assert sorted(names_of(SplitSequence(url, cache=cache, auto_shuffle=True))) == sorted(names_in("local", COUNTS))


def test_a_split_has_the_rows_of_the_local_one(url, local, cache):
    remote, here = (SplitSequence(path, **options) for path, options in ((url, {"cache": cache}), (local, {})))
    for found, expected in zip(remote.split(), here.split(), strict=True):
        assert names_of(found) == names_of(expected)


def test_several_packs_are_read_at_once(server, url, other, cache):
    sequence = SplitSequence(url, server.put("other.h5", other), cache=cache, auto_shuffle=True)
    assert sorted(names_of(sequence)) == sorted(
        names_in("local", COUNTS) + names_in("other", dict(zip(COUNTS, (120, 500, 400), strict=True)))
    )


def test_a_pack_here_and_one_elsewhere_are_read_together(url, other, cache):
    assert len(names_of(SplitSequence(other, url, cache=cache, auto_shuffle=True))) == 2 * ROWS


def test_targets_are_pictures_of_another_pack_elsewhere(server, tmp_path, cache):
    names = write_pairs(tmp_path, {"cat": 30, "dog": 20})
    images, masks = (server.put(path.name, path) for path in packed_pairs(tmp_path))
    sequence = SplitSequence(images, cache=cache, auto_shuffle=True, batch_size=7)
    sequence = sequence.set(targets=PackedImages(masks, cache=cache))
    who = names_by_pixels([f"{name}.png" for name in names])
    seen = [name for pictures, targets in sequence for name in assert_pairs(pictures, targets, who)]
    assert sorted(seen) == sorted(f"{name}.png" for name in names)
    assert all(name.endswith(one) for name, one in zip(sequence.get_filenames(range(50)), seen, strict=True))


@pytest.mark.parametrize("dtype", ["u2", "f4"])
def test_packs_of_version_2_are_read(server, tmp_path, cache, dtype):
    pixels = np.random.default_rng(0).integers(0, 65536, (10, 4, 5, 7)).astype(dtype)
    path = write_pack(tmp_path / "bands.h5", [f"a/x/{row}.png" for row in range(10)], pixels=list(pixels))
    pack = PackedImages(server.put("bands.h5", path), cache=cache)
    assert np.array_equal(np.stack([pack[row][0] for row in range(10)]), pixels)


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 1), (8, 8, 3), (200, 200, 4)], ids=str)
def test_rows_of_any_size_are_read(server, tmp_path, cache, shape):
    path = write_pack(tmp_path / "images.h5", names_in("a", {"cat": 20, "dog": 11}), shape=shape)
    assert_every_row(PackedImages(server.put("images.h5", path), cache=cache))


def without_seal(path, to):
    """A pack as it was made before there were seals."""
    data = bytearray(path.read_bytes())
    assert data[4064:4071] == b"H5 seal"
    data[4064:4096] = bytes(32)
    to.write_bytes(data)
    return to


def test_packs_without_a_seal_are_read(server, tmp_path, local, cache):
    url = server.put("old.h5", without_seal(local, tmp_path / "old.h5"))
    assert len(names_of(SplitSequence(url, cache=cache, auto_shuffle=True))) == ROWS


def test_other_stores_than_web_servers_are_read(local, cache):
    import fsspec

    fsspec.filesystem("memory").pipe_file("/bucket/local.h5", local.read_bytes())
    try:
        assert len(names_of(SplitSequence("memory://bucket/local.h5", cache=cache, auto_shuffle=True))) == ROWS
    finally:
        fsspec.filesystem("memory").rm("/bucket/local.h5")


# --- requests ---------------------------------------------------------------------------------------------------------


def test_opening_takes_three_requests_at_most(server, url, cache):
    SplitSequence(url, cache=cache)
    assert len(server.requests) <= 3


def test_every_byte_is_sent_once(server, url, local, cache):
    sequence = SplitSequence(url, cache=cache, auto_shuffle=True)
    for _ in range(2):
        names_of(sequence)
    start, stop = pixels_in(local)
    assert server.times_sent("local.h5", start, stop) == {1: stop - start}
    assert server.times_sent("local.h5", stop, local.stat().st_size) == {1: local.stat().st_size - stop}


def test_a_batch_fetches_its_rows_and_no_others(server, url, local, cache):
    pack = PackedImages(url, cache=cache)
    pack.__getitems__([0, 1, -1])
    start, stop = pixels_in(local)
    assert server.times_sent("local.h5", start, stop)[1] <= 1 << 20


def test_a_whole_copy_is_opened_with_one_request_and_read_with_none(server, url, local, cache):
    names_of(SplitSequence(url, cache=cache))
    PackedImages(url, cache=cache).fetch()
    server.forget()
    names_of(SplitSequence(url, cache=cache, auto_shuffle=True))
    (request,) = server.requests
    assert request.stop - request.start <= objects.HEAD


def test_a_copy_in_part_is_filled_by_the_next_process(server, url, local, cache):
    PackedImages(url, cache=cache).__getitems__([0, 500])
    assert len(names_of(SplitSequence(url, cache=cache))) == ROWS
    start, stop = pixels_in(local)
    assert server.times_sent("local.h5", start, stop) == {1: stop - start}


def test_two_sequences_of_one_process_fetch_nothing_twice(server, url, local, cache):
    server.delay = 0.05
    sequences = [SplitSequence(url, cache=cache, auto_shuffle=True) for _ in range(2)]
    with ThreadPoolExecutor(2) as executor:
        assert [len(names) for names in executor.map(names_of, sequences)] == [ROWS, ROWS]
    start, stop = pixels_in(local)
    assert server.times_sent("local.h5", start, stop) == {1: stop - start}


@pytest.fixture(scope="module")
def tables(folder):
    """A pack whose tables are larger than its pixels: (path, labels)."""
    rows = 260_000
    pixels = [np.array([[[row % 251, row // 251 % 251, row % 7]]], np.uint8) for row in range(rows)]
    labels = ["ab"[row % 7 % 2] for row in range(rows)]
    return write_pack(
        folder / "tables.h5", [f"x/y/{row:020}.png" for row in range(rows)], classes=labels, pixels=pixels
    )


def test_large_tables_are_fetched_when_they_are_asked_for(server, tables, cache):
    url, size = server.put("tables.h5", tables), tables.stat().st_size
    pack = PackedImages(url, cache=cache)
    assert len(server.requests) <= 4  # the beginning, the header, the tables, and the checksums of the beginning
    opened = sum(request.stop - request.start for request in server.requests)
    assert opened < size * 0.6  # 4 MB of the beginning, 4 MB of tables, and the checksums of 260,000 rows
    image, label = pack[70_000]
    assert image.ravel().tolist() == [70_000 % 251, 70_000 // 251 % 251, 0]
    assert label == 0
    assert pack.copy.missing_bytes() > 1 << 20
    here = PackedImages(tables)
    assert np.array_equal(pack.digests[-10:], here.digests[-10:])
    assert list(pack.columns["source"].take(np.arange(3))) == ["x"] * 3
    assert pack.filenames[259_999] == here.filenames[259_999]


# --- all of a pack ----------------------------------------------------------------------------------------------------


def test_images_of_a_copy_in_part_are_an_error_and_after_fetch_an_array(url, local, cache):
    pack = PackedImages(url, cache=cache)
    with pytest.raises(ArgumentError, match=r"images: expected a pack whose pixels are all .* and fetch\(\) all$"):
        pack.images  # noqa: B018
    pack.fetch()
    assert np.array_equal(pack.images, PackedImages(local).images)
    pack.check_tables()


def test_fetch_says_how_far_it_is(url, local, cache):
    seen = []
    PackedImages(url, cache=cache).fetch(lambda here, total: seen.append((here, total)))
    assert seen == sorted(seen)
    assert seen[-1] == (local.stat().st_size,) * 2
    assert {total for _, total in seen} == {local.stat().st_size}


def test_fetch_of_a_whole_copy_and_of_a_pack_here_does_nothing(server, url, local, cache):
    PackedImages(url, cache=cache).fetch()
    pack = PackedImages(url, cache=cache)
    server.forget()
    pack.fetch()
    PackedImages(local).fetch()
    assert server.requests == []
    assert np.array_equal(pack.images, PackedImages(local).images)


def test_an_array_of_a_whole_copy_is_there_without_fetch_in_another_opening(url, cache):
    PackedImages(url, cache=cache).fetch()
    pack = PackedImages(url, cache=cache)
    assert_rows_are_who_they_say(pack.images, [pack.class_names[at] for at in pack.labels], pack.filenames)


# --- a server with faults ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["500", "503", "429", "cut", "short"])
def test_a_fault_that_passes_is_not_noticed(server, url, local, cache, no_waits, fault):
    pack = SplitSequence(url, cache=cache, auto_shuffle=True)
    server.fail(fault, 6, of=of_pixels(local))
    assert len(names_of(pack)) == ROWS
    assert sum(request.fault == fault for request in server.requests) == 6


def test_pixels_that_are_damaged_on_their_way_are_fetched_once_more(server, url, local, cache):
    sequence, seen = SplitSequence(url, cache=cache, auto_shuffle=True), set()

    def first_time(request):
        with server.lock:
            is_first = of_pixels(local)(request) and request.start not in seen
            seen.add(request.start)
        return "corrupt" if is_first else None

    server.fault = first_time
    assert len(names_of(sequence)) == ROWS
    assert sum(request.fault == "corrupt" for request in server.requests) == len(seen) > 2


@pytest.mark.parametrize("number", range(3))
def test_what_is_damaged_while_a_pack_is_opened_is_an_error_and_the_next_opening_is_right(server, url, cache, number):
    for at in range(number + 1):
        server.fault = lambda request, at=at: "corrupt" if len(server.requests) == at else None
        with contextlib.suppress(FormatError):
            assert_every_row(PackedImages(url, cache=cache))
        server.forget()
    server.fault = lambda request: None
    assert_every_row(PackedImages(url, cache=cache))


@pytest.mark.parametrize("fault", ["500", "503", "cut", "short"])
def test_opening_bears_a_fault_that_passes(server, url, cache, no_waits, fault):
    server.fail(fault, 4)
    assert len(names_of(SplitSequence(url, cache=cache))) == ROWS


@pytest.mark.parametrize(
    ("fault", "found"), [("500", "HTTP status 500"), ("cut", "ContentLengthError|not enough data"), ("short", "bytes")]
)
def test_a_fault_that_lasts_is_one_line_and_no_batch_is_short(server, url, local, cache, no_waits, fault, found):
    sequence = SplitSequence(url, cache=cache, auto_shuffle=True)
    server.fail(fault, of=lambda request: of_pixels(local)(request) and request.start > 6 << 20)
    seen = []
    with pytest.raises(
        RemoteError, match=rf"\A{re.escape(url)}: expected bytes .*{found}.* 8 attempts; .*\Z"
    ) as caught:
        seen.extend(images for images, _ in sequence)
    assert isinstance(caught.value, OSError)
    assert all(len(images) == 32 for images in seen)
    server.fail(fault, 0)
    time.sleep(0.3)  # for requests under way to fail
    assert len(names_of(sequence)) == ROWS  # it goes on when the server does


def test_pixels_that_are_always_damaged_are_one_line(server, url, local, cache, no_waits):
    pack = PackedImages(url, cache=cache)
    server.fail("corrupt", of=of_pixels(local))
    with pytest.raises(FormatError, match=rf"\A{re.escape(url)}: row \d+ is not as it was packed.*\Z"):
        pack[-1]
    server.fail("corrupt", 0)
    assert_every_row(pack)


def test_tables_that_were_damaged_on_their_way_are_noticed_when_all_is_there(server, tables, cache, no_waits):
    url = server.put("tables.h5", tables)
    pack = PackedImages(url, cache=cache)
    size = tables.stat().st_size  # its last 2 MB are checksums, before which 8 MB of digests are
    server.fail("corrupt", 1, of=lambda request: size - (9 << 20) < request.start < size - (3 << 20))
    with pytest.raises(FormatError, match=rf"\A{re.escape(url)}: .*\Z"):
        pack.fetch()
    again = PackedImages(url, cache=cache)
    again.fetch()
    assert np.array_equal(again.digests, PackedImages(tables).digests)


def test_a_server_that_stops_to_answer_ranges_is_one_line(server, url, local, cache, no_waits):
    pack = PackedImages(url, cache=cache)
    server.forget()
    server.fail("whole", of=of_pixels(local))
    with pytest.raises(OSError, match=rf"\A{re.escape(url)}: expected a server that answers ranges.*\Z"):
        pack[-1]
    assert sum(request.fault == "whole" for request in server.requests) == 1


def test_a_slow_server_is_waited_for(server, url, cache):
    server.delay = 0.2
    assert len(names_of(SplitSequence(url, cache=cache, auto_shuffle=True))) == ROWS


def test_ctrl_c_ends_waiting(server, url, local, cache):
    pack = PackedImages(url, cache=cache)
    server.fail("hang", of=of_pixels(local))
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        pack[-1]
    assert time.monotonic() - begun < 2
    timer.join()


def test_ctrl_c_ends_opening(server, url, cache):
    server.fail("hang")
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        PackedImages(url, cache=cache)
    assert time.monotonic() - begun < 2
    timer.join()


# --- an object that is replaced ---------------------------------------------------------------------------------------


def relabelled(local, folder):
    """A pack with the pixels of another one, and other names and labels, of the same size."""
    names = [name.replace("local/", "lacol/") for name in PackedImages(local).filenames]
    pixels = list(PackedImages(local).images)
    classes = [name.split("/")[1] for name in names[1:] + names[:1]]
    path = write_pack(folder / "relabelled.h5", names, pixels=pixels, classes=classes)
    assert path.stat().st_size == local.stat().st_size
    return path


@pytest.mark.parametrize("what", ["pixels", "labels"])
def test_an_object_that_is_replaced_while_it_is_read_is_never_mixed(server, url, local, other, tmp_path, cache, what):
    sequence, new = SplitSequence(url, cache=cache), other if what == "pixels" else relabelled(local, tmp_path)
    server.turn = threading.Lock()

    def replace(request):
        if of_pixels(local)(request) and request.start > 6 << 20:
            server.put("local.h5", new, "two")

    server.fault = replace
    iterator = iter(sequence)
    seen = [next(iterator)]
    with pytest.raises(FormatError, match="expected the object that was opened, found another one there since"):
        seen.extend(iterator)
    images, labels = map(np.concatenate, zip(*seen, strict=True))
    names = sequence.get_filenames(range(len(images)))
    assert_rows_are_who_they_say(images, [sequence.classnames[at] for at in labels.argmax(1)], names)


def test_tables_of_a_replaced_object_are_an_error(server, tables, cache):
    url = server.put("tables.h5", tables)
    pack = PackedImages(url, cache=cache)
    server.put("tables.h5", tables, "two")
    with pytest.raises(FormatError, match="expected the object that was opened, found another one there since"):
        len(pack.digests)


def test_a_smaller_object_in_its_place_is_an_error_that_says_so(server, url, local, cache, tmp_path, no_waits):
    pack = PackedImages(url, cache=cache)
    server.put("local.h5", write_pack(tmp_path / "small.h5", names_in("small", {"cat": 3})), "two")
    with pytest.raises(FormatError, match="expected the object that was opened, found another one there since"):
        pack[-1]


@pytest.mark.parametrize("moment", range(1, 4))
def test_an_object_that_is_replaced_while_it_is_opened_is_never_mixed(
    server, url, local, other, tmp_path, cache, moment
):
    old = without_seal(local, tmp_path / "old.h5").read_bytes()
    new = without_seal(other, tmp_path / "new.h5").read_bytes()
    for before, after in ((local.read_bytes(), other.read_bytes()), (old, new)):
        server.put("local.h5", before, "one")
        server.forget()

        def replace(request, after=after):
            if len(server.requests) == moment:
                server.put("local.h5", after, "two")

        server.fault = replace
        with contextlib.suppress(FormatError):
            assert_every_row(PackedImages(url, cache=cache))
        shutil.rmtree(cache, ignore_errors=True)


def test_an_object_that_is_replaced_between_two_openings_gets_a_new_copy(server, url, other, cache):
    assert_every_row(PackedImages(url, cache=cache))
    before = copies_in(cache)
    wait_until_unused(cache)
    server.put("local.h5", other, "two")
    assert_every_row(PackedImages(url, cache=cache))
    assert len(copies_in(cache)) == 1
    assert copies_in(cache) != before


def test_the_copy_of_a_replaced_object_is_kept_while_it_is_used(server, url, other, cache):
    old = PackedImages(url, cache=cache)
    old.fetch()
    server.put("local.h5", other, "two")
    new = PackedImages(url, cache=cache)
    assert len(copies_in(cache)) == 2
    assert_every_row(old)
    assert_every_row(new)


def test_a_pack_that_nobody_uses_any_more_is_closed_at_once(url, cache):
    gc.disable()  # no reference cycle keeps threads, descriptors and locks until it is found
    try:
        PackedImages(url, cache=cache).fetch()
        wait_until_unused(cache)
    finally:
        gc.enable()


# --- several processes ------------------------------------------------------------------------------------------------

READ = """
import hashlib, os, sys
from h5split import SplitSequence
url, cache, seed = sys.argv[1:]
print("open", flush=True)
sequence = SplitSequence(url, cache=cache, auto_shuffle=True, seed=int(seed))
images = [image.tobytes() for images, _ in sequence for image in images]
for name, image in zip(sequence.get_filenames(range(len(images))), images, strict=True):
    assert image == hashlib.shake_256(os.path.basename(name).encode()).digest(len(image)), name
print(len(images))
"""


def reader(url, cache, seed=0):
    """Start a process that reads all rows of a pack, and compares them."""
    line = [sys.executable, "-c", READ, url, cache, str(seed)]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_processes_at_once_fetch_nothing_twice(server, url, local, cache):
    server.delay = 0.01
    readers = [reader(url, cache, seed) for seed in range(2)]
    for process in readers:
        out, errors = process.communicate(timeout=120)
        assert out.split() == ["open", str(ROWS)], errors
    start, stop = pixels_in(local)
    assert server.times_sent("local.h5", start, stop) == {1: stop - start}


def test_a_process_that_is_killed_loses_only_what_was_under_way(server, url, local, cache):
    """What was noted when it was killed is not fetched again."""
    server.delay, server.turn = 0.03, threading.Lock()
    rng = random.Random(0)
    for _ in range(3):
        process = reader(url, cache)
        wait_until(lambda: sum(map(of_pixels(local), server.requests)) > 1, process)
        time.sleep(rng.uniform(0, 0.1))
        process.kill()
        process.communicate()
        noted = [place.joinpath("pieces").read_bytes() for place in copies_in(cache)]
        wait_for(lambda: server.busy == 0)  # answering the process that is no more
        server.forget()
    server.delay = 0
    pack = PackedImages(url, cache=cache)
    assert_every_row(pack)
    layout = pack.copy.layout
    for piece, is_noted in enumerate(*noted):
        start, stop = layout.start(piece), layout.start(piece + 1)
        if layout.is_pixels(piece) and start > objects._BEGINNING:
            assert server.times_sent("local.h5", start, stop) == {1 - is_noted: stop - start}
    assert any(noted[0])


def test_a_forked_process_reads_on(server, url, local, cache):
    sequence = SplitSequence(url, cache=cache, auto_shuffle=True)
    iterator = iter(sequence)
    next(iterator)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if len(names_of(sequence)) == ROWS else 2
        finally:
            os._exit(status)
    assert len(names_of(sequence)) == ROWS
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    start, stop = pixels_in(local)
    assert server.times_sent("local.h5", start, stop) == {1: stop - start}


@pytest.mark.parametrize("is_whole", [False, True])
def test_a_pickled_pack_is_opened_from_its_copy(server, url, cache, is_whole):
    pack = PackedImages(url, cache=cache)
    pack[0]
    if is_whole:
        pack.fetch()
    wait_for(lambda: all(place.joinpath("pieces").read_bytes()[0] for place in copies_in(cache)))
    server.forget()
    again = pickle.loads(pickle.dumps(pack))
    assert len(server.requests) == 1
    assert again.copy.place.folder == pack.copy.place.folder
    assert_every_row(again)


def test_a_pickled_pack_is_not_opened_as_another_one(server, url, other, cache):
    data = pickle.dumps(PackedImages(url, cache=cache))
    server.put("local.h5", other, "two")
    with pytest.raises(FormatError, match="expected the pack that was open where this was pickled"):
        pickle.loads(data)


@pytest.mark.skipif(find_spec("torch") is None, reason="needs torch")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_of_torch_fetch_nothing_twice(server, url, local, cache, method):
    from torch.utils.data import DataLoader

    pack = PackedImages(url, cache=cache)
    loader = DataLoader(
        pack,
        64,
        shuffle=True,
        num_workers=1 + (method == "fork"),
        multiprocessing_context=method,
        collate_fn=list,
        persistent_workers=False,
    )
    names = {pixels_of(name, SHAPE).tobytes(): name for name in names_in("local", COUNTS)}
    seen = []
    for image, label in itertools.chain.from_iterable(loader):
        seen.append(names[image.tobytes()])
        assert pack.class_names[label] == seen[-1].split("/")[1]
    assert sorted(seen) == sorted(names.values())
    start, stop = pixels_in(local)
    assert server.times_sent("local.h5", start, stop) == {1: stop - start}


# --- the copy ---------------------------------------------------------------------------------------------------------


def test_pieces_that_were_lost_on_the_disk_are_fetched_again(server, url, local, cache):
    """As after a power failure: they are noted, and not there."""
    PackedImages(url, cache=cache).__getitems__([0, 500, 1000])
    start, stop = pixels_in(local)
    (place,) = copies_in(cache)
    with open(place / "pack.h5", "r+b") as file:
        file.seek(start + 500 * 12288)
        file.write(bytes(12288))
    assert len(names_of(SplitSequence(url, cache=cache, auto_shuffle=True))) == ROWS
    sent = server.times_sent("local.h5", start, stop)
    assert 0 not in sent
    assert sent[2] <= 1 << 20


def test_a_copy_above_the_limit_removes_those_used_longest_ago(server, local, other, tmp_path, cache):
    third = write_pack(tmp_path / "third.h5", names_in("third", COUNTS), shape=SHAPE)
    size = local.stat().st_size
    urls = [server.put(f"{path.name}", path) for path in (local, other, third)]
    for url in urls[:2]:
        PackedImages(url, cache=cache, cache_limit=3 * size).fetch()
    first, second = sorted(copies_in(cache), key=lambda place: json.loads((place / "about.json").read_text())["url"])
    os.utime(first / "about.json", (1, 1))
    wait_until_unused(cache)
    PackedImages(urls[2], cache=cache, cache_limit=3 * size - 1).fetch()
    assert not first.exists()
    assert second.exists()
    assert len(copies_in(cache)) == 2


def test_a_copy_in_use_is_never_removed_for_the_limit(server, url, other, cache, local):
    used = PackedImages(url, cache=cache)
    used.fetch()
    new = PackedImages(server.put("other.h5", other), cache=cache, cache_limit=local.stat().st_size)
    assert_every_row(new)
    assert_every_row(used)
    assert len(copies_in(cache)) == 2


def test_other_files_in_the_folder_are_never_touched(server, url, other, cache, local):
    os.makedirs(cache)
    strangers = {
        "notes.txt": "mine",
        "0" * 32 + "/pack.h5": "a folder with such a name, which is no copy",
        "1" * 32: "a file with such a name",
        ".new-thing/data": "hidden",
    }
    for name, text in strangers.items():
        path = Path(cache, name)
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    PackedImages(url, cache=cache).fetch()
    (place,) = [place for place in copies_in(cache) if (place / "about.json").exists()]
    (place / "mine.txt").write_text("mine")
    PackedImages(server.put("other.h5", other), cache=cache, cache_limit=local.stat().st_size)
    assert (place / "mine.txt").read_text() == "mine"
    for name, text in strangers.items():
        assert Path(cache, name).read_text() == text


def test_a_limit_below_the_size_of_the_pack_is_an_error(url, local, cache):
    size = local.stat().st_size
    with pytest.raises(ArgumentError, match=rf"\A{re.escape(url)}: expected cache_limit to be {size} bytes or more"):
        PackedImages(url, cache=cache, cache_limit=size - 1)
    assert copies_in(cache) == []


def test_a_disk_without_space_for_the_pass_is_one_line(url, cache, monkeypatch):
    sequence = SplitSequence(url, cache=cache, auto_shuffle=True)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1 << 40, 1 << 40, 1 << 20))
    with pytest.raises(
        RemoteError, match=rf"\A{re.escape(url)}: expected [0-9.]+ MB of free disk for its copy, found .*\Z"
    ):
        next(iter(sequence))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 6 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = (
        shutil.which("mount")
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=6m", "none", place], capture_output=True, check=False
        ).returncode
    )
    if not mounted:
        pytest.skip("needs the right to mount")
    yield place
    subprocess.run(["umount", "-l", place], check=False)


def test_a_full_disk_is_one_line_and_no_row_is_wrong(url, small_disk):
    pack = PackedImages(url, cache=str(small_disk))
    seen = []
    with pytest.raises(RemoteError, match=rf"\A{re.escape(str(small_disk))}.*: expected room for the copy .*\Z"):
        seen.extend(pack[row][0] for row in range(ROWS))
    assert ROWS > len(seen) > 200
    for image, name in zip(seen, pack.filenames.take(np.arange(len(seen))), strict=True):
        assert np.array_equal(image, pixels_of(name, SHAPE))
    with pytest.raises(RemoteError, match="of free disk for its copy"):
        next(iter(SplitSequence(url, cache=str(small_disk))))


# --- what cannot be opened --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind", "reason"),
    [
        ("404", FileNotFoundError, "expected a pack there, found nothing"),
        ("410", FileNotFoundError, "expected a pack there, found nothing"),
        ("401", PermissionError, "expected a pack that may be read, found HTTP status 401"),
        ("403", PermissionError, "expected a pack that may be read, found HTTP status 403"),
        ("whole", OSError, "expected a server that answers ranges of bytes"),
        ("400", OSError, "expected its first bytes, found HTTP status 400"),
    ],
)
def test_an_address_without_a_pack_is_one_line(server, url, cache, no_waits, status, kind, reason):
    server.fail(status)
    with pytest.raises(kind, match=rf"\A{re.escape(url)}: {reason}.*\Z"):
        SplitSequence(url, cache=cache)
    assert copies_in(cache) == []


def test_no_server_is_one_line(cache, no_waits):
    with RangeServer() as server:
        url = server.put("gone.h5", b"")
    with pytest.raises(RemoteError, match=rf"\A{re.escape(url)}: expected its first bytes, found .*\Z"):
        PackedImages(url, cache=cache)


@pytest.mark.parametrize(
    ("data", "kind", "reason"),
    [
        (b"<!DOCTYPE html>" * 1000, NotAPackError, "expected a pack, but"),
        (b"<html>", NotAPackError, "expected a pack, but"),
        (b"", H5SplitError, "expected"),
    ],
    ids=["a page", "a short page", "nothing"],
)
def test_an_object_that_is_no_pack_is_one_line(server, cache, no_waits, data, kind, reason):
    url = server.put("page.html", data)
    with pytest.raises(kind, match=rf"\A{re.escape(url)}: {reason}.*\Z"):
        PackedImages(url, cache=cache)


@pytest.mark.parametrize("part", [0.3, 0.9999])
def test_an_object_that_was_cut_short_is_one_line(server, local, cache, part):
    data = local.read_bytes()
    url = server.put("cut.h5", data[: int(len(data) * part)])
    with pytest.raises(FormatError, match=rf"\A{re.escape(url)}: .*\Z"):
        PackedImages(url, cache=cache)


def test_an_unknown_kind_of_address_is_one_line(cache):
    with pytest.raises(ValueError, match=r"\Axyz://bucket/a\.h5: .*\Z"):
        PackedImages("xyz://bucket/a.h5", cache=cache)


def test_a_kind_of_address_whose_package_is_missing_is_one_line(cache):
    code = """
import sys
sys.modules["s3fs"] = None
from h5split import PackedImages
try:
    PackedImages("s3://bucket/a.h5", cache=sys.argv[1])
except ImportError as error:
    print(type(error).__name__, error)
"""
    status, out, errors = in_another_process(code, cache)
    assert status == 0, errors
    assert re.fullmatch(r"MissingPackageError s3://bucket/a\.h5: .*s3fs.*\n", out)


def test_a_pack_whose_tables_are_not_right_is_told_so(server, tables, local, cache):
    """Small ones when it is opened, and large ones when all of them are there."""
    damaged = bytearray(local.read_bytes())
    damaged[PackedImages(local).header.digests.offset + 5] ^= 1
    small = server.put("small.h5", bytes(damaged))
    for _ in range(2):
        with pytest.raises(FormatError, match=rf"\A{re.escape(small)}: labels, names or other tables are not as they"):
            PackedImages(small, cache=cache)
    damaged = bytearray(tables.read_bytes())
    damaged[PackedImages(tables).header.digests.offset + 5_000_000] ^= 1
    large = server.put("large.h5", bytes(damaged))
    for _ in range(2):
        pack = PackedImages(large, cache=cache)
        with pytest.raises(FormatError, match=rf"\A{re.escape(large)}: labels, names or other tables are not as they"):
            pack.fetch()
        with pytest.raises(FormatError, match="labels, names or other tables are not as they"):
            pack[0]


def test_the_cache_folder_of_the_user_needs_a_package(url):
    code = """
import sys
sys.modules["platformdirs"] = None
from h5split import PackedImages
try:
    PackedImages(sys.argv[1])
except ImportError as error:
    print(type(error).__name__, error)
"""
    status, out, errors = in_another_process(code, url)
    assert status == 0, errors
    assert re.fullmatch(r"MissingPackageError .*pip install 'pack-images\[remote\]'\n", out)


@pytest.mark.parametrize("missing", ["fsspec", "aiohttp"])
def test_a_missing_package_is_one_line_that_says_how_to_install_it(url, cache, missing):
    code = """
import sys
sys.modules[sys.argv[3]] = None
from h5split import PackedImages
try:
    PackedImages(sys.argv[1], cache=sys.argv[2])
except ImportError as error:
    print(type(error).__name__, error)
"""
    status, out, errors = in_another_process(code, url, cache, missing)
    assert status == 0, errors
    assert re.fullmatch(rf"MissingPackageError {re.escape(url)}: .*pip install 'pack-images\[remote\]'\n", out)


# --- stores that do not tell of which object an answer is -------------------------------------------------------------


def store_of(first, then, at):
    """A store, as S3 is one for fsspec, whose object `first` is replaced by `then` after so many calls: its address."""

    class Store(AbstractFileSystem):
        protocol = "replaced"
        calls = itertools.count()
        lock = threading.Lock()

        def now(self):
            with self.lock:
                return first if next(self.calls) < at else then

        def cat_file(self, path, start=None, end=None, **options):
            return self.now()[start:end]

        def info(self, path, **options):
            found = self.now()
            return {"name": path, "size": len(found), "type": "file", "ETag": hashlib.md5(found).hexdigest()}

    fsspec.register_implementation("replaced", Store, clobber=True)
    Store.clear_instance_cache()
    return "replaced://bucket/pack.h5"


def reshaped(folder):
    """Two packs of one size in bytes, whose rows have the same bytes in another shape."""
    names, found = names_in("r", {"cat": 60, "dog": 40}), []
    for name, shape in (("wide", (8, 16, 3)), ("high", (16, 8, 3))):
        pixels = [np.full(shape, row, np.uint8) for row in range(100)]
        found.append(write_pack(folder / f"{name}.h5", names, pixels=pixels).read_bytes())
    assert len(found[0]) == len(found[1])
    return found


@pytest.mark.parametrize("at", range(9))
def test_an_object_of_a_store_without_identities_is_never_mixed_with_the_one_before(tmp_path, cache, at):
    url = store_of(*reshaped(tmp_path), at)
    for _ in range(2):
        try:
            pack = PackedImages(url, cache=cache)
            pack.fetch()
        except (FormatError, RemoteError):
            continue
        assert pack.shape in {(8, 16, 3), (16, 8, 3)}
        assert pack.images.reshape(100, -1).tolist() == [[row] * 384 for row in range(100)]
    with contextlib.suppress(FormatError):  # replaced between its size and its first bytes
        PackedImages(url, cache=cache)
    pack = PackedImages(url, cache=cache)
    pack.fetch()
    assert pack.shape == (16, 8, 3)


def test_a_server_without_versions_is_known_by_the_first_bytes(server, local, other, cache):
    url = server.put("local.h5", local, "")
    sequence = SplitSequence(url, cache=cache)
    server.put("local.h5", other, "")
    for _ in range(2):
        with pytest.raises(FormatError, match="expected the object that was opened, found another one there since"):
            list(sequence)
    assert_every_row(PackedImages(url, cache=cache))


def test_an_answer_with_another_range_is_not_taken(server, tables, cache, no_waits):
    url = server.put("tables.h5", tables)
    server.fail("shift", 3, of=lambda request: request.start > 1 << 20)
    pack = PackedImages(url, cache=cache)
    assert list(pack.filenames[-3:]) == list(PackedImages(tables).filenames[-3:])
    server.fail("shift")
    with pytest.raises(RemoteError, match=r"expected its first bytes, found bytes 1 to 16385 in 8 attempts"):
        PackedImages(url, cache=cache)


# --- copies that are damaged ------------------------------------------------------------------------------------------


def cut(path):
    os.truncate(path, os.path.getsize(path) // 2)


def overwrite(path):
    with open(path, "r+b") as file:
        file.write(b"x" * 64)


@pytest.mark.parametrize("is_whole", [True, False], ids=["whole", "in part"])
@pytest.mark.parametrize("harm", [os.remove, cut, overwrite, "no keys"], ids=["gone", "cut", "overwritten", "no keys"])
@pytest.mark.parametrize("name", ["about.json", "pieces", "pack.h5"])
def test_a_damaged_copy_is_made_anew(server, url, cache, name, harm, is_whole):
    pack = PackedImages(url, cache=cache)
    if is_whole:
        pack.fetch()
    else:
        pack[-1]
    (place,) = copies_in(cache)
    wait_for(lambda: place.joinpath("pieces").read_bytes()[0])
    del pack
    wait_until_unused(cache)
    if harm == "no keys":
        place.joinpath(name).write_text("{}")
    else:
        harm(place / name)
    assert_every_row(PackedImages(url, cache=cache))


def test_only_folders_with_our_names_are_cleaned_up(url, cache):
    kept = Path(cache)
    for name in (".old-photos", ".new-year", "0" * 32):
        (kept / name).mkdir(parents=True)
        (kept / name / "pack.h5").write_bytes(b"mine")
    (kept / ".h5split-old-link").symlink_to(kept / ".old-photos")
    assert_every_row(PackedImages(url, cache=cache))
    assert all((kept / name / "pack.h5").read_bytes() == b"mine" for name in (".old-photos", ".new-year", "0" * 32))
