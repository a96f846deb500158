"""pack() stores the right pixels under the right names with every executor and after every failure."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
import xxhash
from PIL import Image

from conftest import (
    PATIENCE,
    assert_rows_are_who_they_say,
    pixels_of,
    processes_of,
    start,
    wait_until,
    write_classes,
    write_image,
)
from deadly import fill_or_be_killed
from h5split import PackedImages
from h5split.file.sealing import images_offset
from pack_images import PackError, UnfinishedError, pack, preview
from pack_images.partial import Partial
from pack_images.run.pool import run
from pack_images.run.workers import LocalPool, do_within


def assert_whole(path, names):
    """Assert that the pack holds exactly these files, and that pixels, labels, checksums and digests match them."""
    images = PackedImages(path)
    assert sorted(images.filenames) == sorted(map(str, names))
    labels = [images.class_names[label] for label in images.labels]
    assert_rows_are_who_they_say(images.images, labels, images.filenames)
    for row, name in enumerate(images.filenames):
        assert images.checksums[row] == xxhash.xxh3_64_intdigest(images.images[row].tobytes())
        with open(name, "rb") as file:
            assert images.digests[row].tobytes() == hashlib.sha256(file.read()).digest()
    return images


def files_below(root):
    return sorted(path for path in root.rglob("*") if path.is_file())


def test_a_pack_holds_every_image_under_its_name_and_label(root, packing, tmp_path):
    summary = packing(root)
    images = assert_whole(tmp_path / "out.h5", files_below(root))
    assert images.class_names == ("cat", "dog", "emu")
    assert set(images.columns["source"]) == {str(root)}
    assert (summary.rows, summary.shape, summary.classes) == (40, (8, 8, 3), {"cat": 10, "dog": 25, "emu": 5})
    assert summary.nbytes == os.path.getsize(tmp_path / "out.h5")
    assert summary.decoded == 40
    assert sorted(os.listdir(tmp_path)) == ["data", "out.h5"]


@pytest.mark.parametrize(
    "executor",
    [
        lambda: ThreadPoolExecutor(3),
        lambda: ProcessPoolExecutor(2, get_context("spawn")),
        lambda: ProcessPoolExecutor(1, get_context("forkserver")),
    ],
    ids=["threads", "spawned", "forked"],
)
def test_any_executor_makes_the_same_bytes(root, packing, tmp_path, executor):
    packing(root)
    with executor() as made:
        pack([root], tmp_path / "other.h5", executor=made)
    assert (tmp_path / "other.h5").read_bytes() == (tmp_path / "out.h5").read_bytes()


def test_any_number_of_workers_makes_the_same_bytes(root, packing, tmp_path):
    packing(root)
    for workers in (2, 3):
        packing(root, output=tmp_path / "other.h5", workers=workers)
        assert (tmp_path / "other.h5").read_bytes() == (tmp_path / "out.h5").read_bytes()


def test_packing_at_another_time_makes_the_same_bytes(root, packing, tmp_path):
    packing(root)
    for path in files_below(root):
        os.utime(path, (1, 1))
    time.sleep(1.1)
    packing(root, output=tmp_path / "other.h5")
    assert (tmp_path / "other.h5").read_bytes() == (tmp_path / "out.h5").read_bytes()


@pytest.mark.parametrize("nanoseconds", [-(10**18), 0, 10**19], ids=["1938", "1970", "2286"])
def test_files_may_have_any_modification_time(root, packing, tmp_path, nanoseconds):
    for path in files_below(root):
        os.utime(path, ns=(nanoseconds, nanoseconds))
    packing(root)
    assert_whole(tmp_path / "out.h5", files_below(root))


@pytest.mark.parametrize("order", ["stratified", "sorted"])
@pytest.mark.parametrize("broken", [["cat-0"], ["emu-4"], ["cat-0", "dog-3", "dog-4", "emu-0", "emu-4"]])
def test_broken_images_are_left_out_without_gaps(root, packing, tmp_path, order, broken):
    good = [path for path in files_below(root) if not any(path.stem.endswith(name) for name in broken)]
    bad = sorted(set(files_below(root)) - set(good))
    for index, path in enumerate(bad):
        path.write_bytes(b"" if index % 2 else b"not an image")
    summary = packing(root, order=order)
    images = assert_whole(tmp_path / "out.h5", good)
    assert images.skipped == list(summary.skipped) == [(str(path), "not an image that Pillow knows") for path in bad]
    packing(root, order=order, workers=2, output=tmp_path / "other.h5")
    assert (tmp_path / "other.h5").read_bytes() == (tmp_path / "out.h5").read_bytes()
    if order == "sorted":
        assert list(images.filenames) == [str(path) for path in good]


def test_strict_makes_a_broken_image_an_error(root, packing, tmp_path):
    (root / "cat" / "data-cat-3.png").write_bytes(b"broken")
    with pytest.raises(
        PackError, match=r"data-cat-3\.png: not an image that Pillow knows; what is done is kept: .* without --strict"
    ):
        packing(root, strict=True)
    assert packing(root).rows == 39
    assert sorted(os.listdir(tmp_path)) == ["data", "out.h5"]


def test_packing_fails_when_no_image_can_be_decoded(tmp_path, packing):
    for name in "ab":
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "x.png").write_bytes(b"broken")
    for size in (None, 8):
        with pytest.raises(PackError, match="none of 2 images can be decoded"):
            packing(tmp_path / "data", size=size)
    assert os.listdir(tmp_path) == ["data"]


def test_a_single_source_need_not_be_a_list(root, tmp_path):
    for number, sources in enumerate(([root], root, str(root))):
        pack(sources, tmp_path / f"{number}.h5", workers=1)
        assert len(preview(sources)) == 40
    assert len({(tmp_path / f"{number}.h5").read_bytes() for number in range(3)}) == 1


@pytest.mark.parametrize("size", [8.5, "64x64", (8, 8, 3), (8, None), [8, "8"]])
def test_an_invalid_size_is_an_error(root, packing, size):
    with pytest.raises(PackError, match="size: expected a whole number, or a tuple of width and height, found"):
        packing(root, size=size)


def test_size_may_be_a_numpy_integer(root, packing):
    assert packing(root, size=np.int64(12)).shape == (12, 12, 3)


def test_images_of_different_sizes_require_a_size(root, packing, tmp_path):
    write_image(root / "cat" / "wide.png", (8, 9, 3))
    with pytest.raises(PackError, match=r"\.png is \d+x8, other images are \d+x8; give --size"):
        packing(root)
    assert os.listdir(tmp_path) == ["data"]
    assert packing(root, size=(9, 8)).shape == (8, 9, 3)


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({"size": 16}, (16, 16, 3)),
        ({"size": (12, 6)}, (6, 12, 3)),
        ({"color": "grayscale"}, (8, 8, 1)),
        ({"color": "rgba"}, (8, 8, 4)),
        ({"size": 4, "fit": "crop", "interpolation": "nearest"}, (4, 4, 3)),
    ],
)
def test_options_determine_the_shape(root, packing, tmp_path, options, shape):
    assert packing(root, **options).shape == shape
    images = PackedImages(tmp_path / "out.h5")
    assert images.shape == shape
    assert images.header.settings["color"] == options.get("color", "rgb")


def test_identical_files_are_listed_with_conflicting_labels_first(root, packing):
    same_class = root / "cat" / "again.png"
    other_class = root / "dog" / "cat.png"
    shutil.copy(root / "cat" / "data-cat-1.png", same_class)
    shutil.copy(root / "cat" / "data-cat-2.png", other_class)
    summary = packing(root)
    assert summary.conflicting == 1
    assert list(summary.duplicates) == [
        (str(root / "cat" / "data-cat-2.png"), str(other_class)),
        (str(same_class), str(root / "cat" / "data-cat-1.png")),
    ]


def test_an_error_leaves_the_old_output_untouched(root, packing, tmp_path):
    packing(root)
    before = (tmp_path / "out.h5").read_bytes()
    write_image(root / "cat" / "wide.png", (8, 9, 3))
    with pytest.raises(PackError, match="give --size"):
        packing(root)
    with pytest.raises(PackError, match="expected a folder of images"):
        packing(tmp_path / "nowhere")
    assert (tmp_path / "out.h5").read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["data", "out.h5"]


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("folder", "expected a file to write, found a folder"),
        ("no/such/out.h5", r"expected a folder .*no/such to write"),
    ],
)
def test_an_output_that_cannot_be_written_is_an_error(root, packing, tmp_path, output, message):
    (tmp_path / "folder").mkdir()
    with pytest.raises(PackError, match=message):
        packing(root, output=tmp_path / output)


def test_open_readers_of_the_old_file_are_not_disturbed(root, packing, tmp_path):
    packing(root)
    old = PackedImages(tmp_path / "out.h5")
    before = old.images[:].tobytes()
    write_image(root / "cat" / "new.png")
    packing(root)
    assert old.images[:].tobytes() == before
    assert len(PackedImages(tmp_path / "out.h5")) == 41


def test_preview_returns_the_plan_and_writes_nothing(root, tmp_path):
    planned = preview([root], size=16)
    assert (len(planned), planned.shape, planned.counts) == (40, (16, 16, 3), {"cat": 10, "dog": 25, "emu": 5})
    assert os.listdir(tmp_path) == ["data"]


def test_progress_counts_every_row(root, packing):
    (root / "cat" / "data-cat-3.png").write_bytes(b"broken")
    calls = []
    packing(root, progress=lambda *call: calls.append(call))
    assert calls[-1] == (40, 40, 1)
    assert [done for done, _, _ in calls] == sorted(done for done, _, _ in calls)


def test_file_names_of_any_bytes_are_preserved(tmp_path, packing):
    names = [b"new\nline.png", b"\xff\xfe.png", "\u00fc\u4e2d.png".encode(), b"n" * 250 + b".png"]
    for name in names:
        path = tmp_path / "data" / "cat" / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels_of(path.name)).save(path, format="PNG")
    packing(tmp_path / "data")
    assert_whole(tmp_path / "out.h5", files_below(tmp_path / "data"))


# --- interruption ----------------------------------------------------------------------------------------------------

SCRIPT = """
import sys
from pack_images import pack
if __name__ == "__main__":
    pack([sys.argv[1]], sys.argv[2], workers=2)
"""


def packing_script(folder, root, output):
    (folder / "script.py").write_text(SCRIPT)
    return [sys.executable, str(folder / "script.py"), str(root), str(output)]


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A folder of so many images that a run can be killed before it ends."""
    return write_classes(tmp_path_factory.mktemp("many") / "data", {"cat": 1500, "dog": 1500})


def test_a_killed_run_resumes_to_the_same_bytes(many, tmp_path):
    pack([many], tmp_path / "whole.h5", workers=2)
    killed_in_time = 0
    for attempt in range(4):
        output = tmp_path / f"{attempt}.h5"
        process = start(packing_script(tmp_path, many, output), tmp_path)
        wait_until(functools.partial(os.path.exists, f"{output}.partial"), process)
        time.sleep(0.05 * attempt)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        killed_in_time += not output.exists()
        pack([many], output, workers=2)
        assert output.read_bytes() == (tmp_path / "whole.h5").read_bytes()
        assert not os.path.exists(f"{output}.partial")
        assert not os.path.exists(f"{output}.journal")
    assert killed_in_time


def interrupted(root, output, after):
    """Pack until `after` rows are done, then raise KeyboardInterrupt from the progress callback."""

    def stop(done, total, left_out):
        if done >= after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack([root], output, workers=1, progress=stop)


def test_a_resumed_run_decodes_only_the_remaining_rows(many, tmp_path, packing):
    packing(many, output=tmp_path / "whole.h5")
    interrupted(many, tmp_path / "out.h5", 1000)
    assert not (tmp_path / "out.h5").exists()
    summary = packing(many)
    assert summary.decoded <= 2000
    assert not summary.restarted
    assert (tmp_path / "out.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()


def test_rows_damaged_between_runs_are_decoded_again(many, tmp_path, packing):
    packing(many, output=tmp_path / "whole.h5")
    interrupted(many, tmp_path / "out.h5", 1000)
    with open(tmp_path / "out.h5.partial", "r+b") as file:
        for row in (0, 7, 500):
            file.seek(images_offset(192) + row * 192 + 11)
            byte = file.read(1)
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte[0] ^ 1]))
    packing(many)
    assert (tmp_path / "out.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()


def test_sources_changed_between_runs_are_decoded_again(many, tmp_path, packing):
    root = tmp_path / "data"
    shutil.copytree(many, root)
    interrupted(root, tmp_path / "out.h5", 3000)
    changed = root / "cat" / "data-cat-7.png"
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(changed)
    summary = packing(root)
    assert summary.decoded == 1
    images = PackedImages(tmp_path / "out.h5")
    assert not images.images[list(images.filenames).index(str(changed))].any()


def test_files_swapped_between_runs_are_decoded_again(tmp_path, packing):
    """Size and mtime of both files are equal, so neither reveals the swap."""
    one, other = root = [tmp_path / "data" / "cat" / name for name in ("one.bmp", "other.bmp")]
    one.parent.mkdir(parents=True)
    for path in root:
        Image.fromarray(pixels_of(path.name)).save(path)
        os.utime(path, ns=(1, 1))
    interrupted(tmp_path / "data", tmp_path / "out.h5", 2)
    one.rename(tmp_path / "aside")
    other.rename(one)
    (tmp_path / "aside").rename(other)
    assert packing(tmp_path / "data").decoded == 2
    images = PackedImages(tmp_path / "out.h5")
    assert np.array_equal(images.images[list(images.filenames).index(str(one))], pixels_of("other.bmp"))


def test_a_changed_plan_restarts_and_the_summary_says_so(many, tmp_path, packing):
    interrupted(many, tmp_path / "out.h5", 1000)
    summary = packing(many, seed=1)
    assert summary.restarted
    assert summary.decoded == 3000
    packing(many, seed=1, output=tmp_path / "whole.h5")
    assert (tmp_path / "out.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()


def test_a_journal_of_an_earlier_format_restarts_the_run(many, tmp_path, packing):
    """The earlier format does not record the losses of images."""
    interrupted(many, tmp_path / "out.h5", 1000)
    journal = tmp_path / "out.h5.journal"
    journal.write_bytes(journal.read_bytes().replace(b"journal 2\n", b"journal 1\n", 1))
    summary = packing(many)
    assert summary.restarted
    assert summary.decoded == 3000


def test_broken_images_stay_left_out_after_an_interruption(tmp_path, packing, many):
    root = tmp_path / "data"
    shutil.copytree(many, root)
    for index in (3, 700, 1499):
        (root / "dog" / f"data-dog-{index}.png").write_bytes(b"broken")
    packing(root, output=tmp_path / "whole.h5")
    interrupted(root, tmp_path / "out.h5", 1500)
    assert len(packing(root).skipped) == 3
    assert (tmp_path / "out.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()


def test_a_second_run_to_the_same_output_is_refused(many, tmp_path, packing):
    def second(done, total, left_out):
        if done < total:
            with pytest.raises(PackError, match=r"out\.h5: another run is packing to it"):
                packing(many)

    packing(many, progress=second)
    assert len(PackedImages(tmp_path / "out.h5")) == 3000


def test_a_file_system_error_keeps_the_rows_already_done(many, tmp_path, packing):
    packing(many, output=tmp_path / "whole.h5")
    journal = tmp_path / "out.h5.journal"

    def lose_the_journal(done, total, left_out):
        if done > 1000 and journal.exists():
            journal.rename(tmp_path / "lost")

    with pytest.raises(UnfinishedError, match=r"out\.h5: No such file .*; what is done is kept, and the same call"):
        packing(many, progress=lose_the_journal)
    (tmp_path / "lost").rename(journal)
    summary = packing(many)
    assert summary.continued >= 1000
    assert summary.decoded == 3000 - summary.continued
    assert (tmp_path / "out.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 3 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", disk], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"needs to mount a file system: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_lack_of_disk_space_is_detected_before_decoding(many, small_disk, packing):
    packing(many, output=small_disk / "out.h5")
    before = (small_disk / "out.h5").read_bytes()
    calls = []
    message = r"out\.h5: expected room for [\d,]+ bytes, found [\d,]+ bytes free .*; make room"
    with pytest.raises(UnfinishedError, match=message):
        packing(many, output=small_disk / "out.h5", size=32, progress=lambda *call: calls.append(call))
    assert calls == []
    assert os.listdir(small_disk) == ["out.h5"]
    assert (small_disk / "out.h5").read_bytes() == before


# --- workers that die ------------------------------------------------------------------------------------------------


def test_a_killed_worker_loses_no_rows(many, tmp_path, packing):
    def kill_one(done, total, left_out):
        if 0 < done < 500 and not killed:
            victim = next(child for child in multiprocessing.active_children() if child not in others)
            killed.append(victim.pid)
            os.kill(victim.pid, signal.SIGKILL)

    killed, others = [], multiprocessing.active_children()
    packing(many, output=tmp_path / "whole.h5")
    summary = packing(many, workers=2, progress=kill_one)
    assert killed
    assert summary.skipped == []
    assert (tmp_path / "out.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()


def test_all_workers_start_before_one_can_die():
    """Otherwise the pool waits for ever for a worker that starts while another one dies."""
    others = multiprocessing.active_children()
    with LocalPool(3, abs) as pool:
        assert pool.submit(-1).result() == 1
        assert len(set(multiprocessing.active_children()) - set(others)) == 3


FEW_DESCRIPTORS = """
import os, resource, sys
from pack_images.run.workers import LocalPool

if __name__ == "__main__":
    with LocalPool(8, abs) as pool:
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))
        free = 200 - len(os.listdir("/proc/self/fd"))
        held = [os.open(os.devnull, os.O_RDONLY) for _ in range(free - int(sys.argv[1]))]
        assert pool.submit(-1).result() == 1
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, of Linux")
@pytest.mark.parametrize("free", [0, 5, 10, 15, 20])
def test_a_failed_worker_start_ends_all_workers_and_names_the_missing_resource(tmp_path, free):
    script = tmp_path / "script.py"
    script.write_text(FEW_DESCRIPTORS)
    line = [sys.executable, str(script), str(free)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=PATIENCE)
    said = "UnfinishedError: worker processes: expected the means to start, found Too many open files; provide for it"
    assert said in done.stderr


def test_files_that_kill_their_workers_are_left_out(tmp_path):
    planned = preview([write_classes(tmp_path / "data", {"cat": 320, "dog": 320})])  # ten rows per task
    names = list(planned.sources.filenames)
    killers = [5, 6, 350, 639]
    for row in killers:
        planned.sources.paths[row] = f"{names[row]}-killer"
    partial = Partial(str(tmp_path / "out.h5"), "identity", 640, images_offset(192), 192, 0)
    with LocalPool(2, fill_or_be_killed) as pool:
        results = list(run(planned.tasks(partial.place), pool))
    failures = sorted(failure for filled in results for failure in filled.failures)
    assert failures == [(row, "its worker process died, or took too long, twice, while decoding it") for row in killers]
    done = partial.records()["done"]
    assert np.flatnonzero(done == 0).tolist() == killers
    for row in (0, 7, 349, 351, 638):
        raw = os.pread(partial.descriptor, 192, images_offset(192) + row * 192)
        assert raw == pixels_of(names[row]).tobytes()
    partial.discard()


def test_an_image_that_takes_too_long_is_left_out(root, tmp_path):
    slow = root / "cat" / "slow.ppm"
    slow.write_bytes(b"P2 2000 2000 255\n" + b"1 " * 2000**2)
    planned = preview([root], size=8)
    partial = Partial(str(tmp_path / "out.h5"), "identity", 41, images_offset(192), 192, 0)
    with LocalPool(1, functools.partial(do_within, seconds=0.4)) as pool:
        results = list(run(planned.tasks(partial.place), pool))
    failures = [failure for filled in results for failure in filled.failures]
    row = planned.sources.paths.index(str(slow))
    assert failures == [(row, "its worker process died, or took too long, twice, while decoding it")]
    assert np.flatnonzero(partial.records()["done"] == 0).tolist() == [row]
    partial.discard()


def test_workers_exit_when_their_parent_is_killed(many, tmp_path):
    process = start(packing_script(tmp_path, many, tmp_path / "out.h5"), tmp_path)
    wait_until((tmp_path / "out.h5.partial").exists, process)
    process.kill()
    process.communicate(timeout=PATIENCE)  # returns when the last worker has closed its stderr
    deadline = time.monotonic() + PATIENCE
    while processes_of(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes_of(process.pid) == []
