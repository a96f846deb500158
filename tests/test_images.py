"""Tests of PackedImages: a file as rows, which are views of it."""

from __future__ import annotations

import contextlib
import copy
import gc
import hashlib
import mmap
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from conftest import assert_rows_are_who_they_say, names_in, names_of, pixels_of, write_classes, write_pack
from h5split import FormatError, PackedImages, SplitSequence
from h5split.errors import ArgumentError, ArgumentTypeError, PositionError
from h5split.file.packs import Packs
from h5split.file.sealing import Tables, seal
from h5split.file.texts import Texts

READ_SIZE = 8 << 20  # bytes that preload reads at a time

RAW = np.array([b"ape", "bär".encode(), b"caf\xe9", b"", b"dog.png"], np.bytes_)
TEXTS = ["ape", "bär", "caf\udce9", "", "dog.png"]


@pytest.fixture
def own(packed: Path, tmp_path: Path) -> Path:
    """A copy of the pack that a test may change."""
    return Path(shutil.copy(packed, tmp_path / "own.h5"))


def memory_of(array: NDArray[np.generic]) -> object:
    """Return the object whose memory an array is a view of."""
    while isinstance(array, np.ndarray):
        array = array.base
    return array.obj if isinstance(array, memoryview) else array


# --- rows ------------------------------------------------------------------------------------------------------------


def test_every_row_has_the_pixels_and_label_of_its_file(images):
    labels = [images.class_names[label] for label in images.labels]
    assert_rows_are_who_they_say(images.images, labels, images.filenames)


def test_shapes_are_those_of_the_sources(images):
    assert len(images) == 100
    assert images.images.shape == (100, 8, 8, 3)
    assert images.shape == (8, 8, 3)
    assert np.bincount(images.labels).tolist() == [20, 50, 30]
    assert {name: len(texts) for name, texts in images.columns.items()} == {"source": 100}


def test_class_names_are_sorted(images):
    assert images.class_names == ("cat", "dog", "emu")


def test_an_item_is_an_image_and_a_label(images):
    image, label = images[7]
    assert np.array_equal(image, pixels_of(images.filenames[7]))
    assert type(label) is int
    assert images.class_names[label] == images.filenames[7].split("/")[-2]


def test_negative_rows_count_from_the_end(images):
    assert np.array_equal(images[-1][0], images[99][0])
    assert images[-1][1] == images[99][1]


@pytest.mark.parametrize("row", [100, -101])
def test_a_row_out_of_range_is_an_index_error(images, row):
    with pytest.raises(IndexError, match=f"index {row} is out of bounds"):
        images[row]


@pytest.mark.parametrize("rows", [[5], [3, 99, 0, 3], [-1, 0], []], ids=str)
def test_a_batch_equals_its_rows(images, rows):
    batch = images.__getitems__(rows)
    assert len(batch) == len(rows)
    for (image, label), row in zip(batch, rows, strict=True):
        assert np.array_equal(image, images[row][0])
        assert (type(label), label) == (int, images[row][1])


def test_iterating_gives_every_row_once(images):
    pixels, labels = zip(*images, strict=True)
    assert np.array_equal(pixels, images.images)
    assert list(labels) == images.labels.tolist()


def test_repr_shows_path_images_and_classes(images, packed):
    assert repr(images) == f"PackedImages({str(packed)!r}): 100 images (8, 8, 3), 3 classes"


def test_digests_are_sha256_of_the_source_files(images):
    for filename, digest in zip(images.filenames, images.digests, strict=True):
        assert digest.tobytes() == hashlib.sha256(Path(filename).read_bytes()).digest()


def test_checksums_are_xxh3_of_the_rows(images):
    assert images.checksums.tolist() == [xxhash.xxh3_64_intdigest(image.tobytes()) for image in images.images]


def test_the_column_source_names_the_source_of_every_row(images, packed):
    assert set(images.columns["source"]) == {str(packed.parent / "data")}


def test_the_header_records_settings_and_versions(images):
    assert images.header.settings["order"] == "stratified"
    assert images.header.settings["seed"] == 0
    assert set(images.header.packed_by) >= {"pack-images", "pillow"}


def test_skipped_is_empty_if_no_file_was_left_out(images):
    assert images.skipped == []


def test_files_left_out_are_named_with_the_reason(packing, tmp_path):
    root = write_classes(tmp_path / "data", {"cat": 3})
    (root / "cat" / "empty.png").touch()
    packing(root)
    [(filename, reason)] = PackedImages(tmp_path / "out.h5").skipped
    assert filename == str(root / "cat" / "empty.png")
    assert reason


# --- views of the file -----------------------------------------------------------------------------------------------


def test_arrays_are_views_of_the_file(images):
    for array in (images.images, images.labels, images.digests, images.checksums):
        assert isinstance(memory_of(array), mmap.mmap)
        assert not array.flags.owndata


def test_a_slice_of_the_images_is_a_view(images):
    assert np.shares_memory(images.images[10:20], images.images)


def test_writing_to_an_item_does_not_change_the_pack(own):
    before, pack = own.read_bytes(), PackedImages(own)
    for image, _ in (*pack, *pack.__getitems__(range(100))):
        image += 1
    assert_rows_are_who_they_say(pack.images, [pack.class_names[label] for label in pack.labels], pack.filenames)
    assert_rows_are_who_they_say(
        [image for image, _ in pack], [name.split("/")[-2] for name in pack.filenames], pack.filenames
    )
    assert own.read_bytes() == before


@pytest.mark.parametrize("name", ["images", "labels", "digests", "checksums"])
def test_arrays_are_read_only(images, name):
    with pytest.raises(ValueError, match="read-only"):
        getattr(images, name)[0] = 0
    with pytest.raises(ValueError, match="cannot set WRITEABLE flag to True"):
        getattr(images, name).flags.writeable = True


@pytest.mark.parametrize("kind", [str, Path], ids=["text", "path"])
def test_the_path_is_kept_as_given(packed, kind):
    assert PackedImages(kind(packed)).path == str(packed)


def test_an_open_pack_keeps_its_rows_when_its_file_is_replaced(own, packing, tmp_path):
    before = PackedImages(own)
    pixels, filenames = before.images.copy(), list(before.filenames)
    packing(write_classes(tmp_path / "other", {"yak": 4, "zebu": 3}))
    os.replace(tmp_path / "out.h5", own)
    assert np.array_equal(before.images, pixels)
    assert list(before.filenames) == filenames
    assert PackedImages(own).class_names == ("yak", "zebu")


@pytest.mark.skipif(sys.platform == "win32", reason="needs files that can be removed while they are open")
def test_an_open_pack_keeps_its_rows_when_its_file_is_removed(own, images):
    pack = PackedImages(own)
    own.unlink()
    assert np.array_equal(pack.images, images.images)
    assert pack.filenames == images.filenames


@pytest.mark.skipif(sys.platform == "win32", reason="needs flock")
def test_another_process_cannot_open_an_open_pack_for_writing(own):
    code = "import h5py, sys; h5py.File(sys.argv[1], 'r+').attrs['other'] = 1"
    pack = PackedImages(own)
    second = PackedImages(own)
    refused = subprocess.run([sys.executable, "-c", code, own], capture_output=True, text=True)
    assert refused.returncode == 1
    assert "unable to lock file" in refused.stderr
    assert np.array_equal(pack.images, second.images)
    del pack, second
    gc.collect()
    subprocess.run([sys.executable, "-c", code, own], check=True)


@pytest.mark.skipif(sys.platform == "win32", reason="needs files that can be cut short while they are mapped")
@pytest.mark.parametrize(
    "reading",
    [
        pytest.param(lambda pack: pack[3], id="a row"),
        pytest.param(lambda pack: pack.__getitems__([3, 7]), id="rows"),
        pytest.param(lambda pack: Packs([pack]).view(3, 5), id="a view"),
        pytest.param(lambda pack: Packs([pack]).pixels(np.array([3, 7])), id="a gather"),
    ],
)
def test_reading_a_truncated_open_pack_is_an_error_and_not_a_crash(own, reading):
    pack = PackedImages(own)
    size = os.path.getsize(own)
    os.truncate(own, size - 1)
    with pytest.raises(FormatError, match=f"expected {size} bytes, found {size - 1}: the file was cut short while it"):
        reading(pack)


@pytest.mark.skipif(sys.platform == "win32", reason="needs files that can be written to while they are mapped")
def test_an_open_pack_overwritten_in_place_fails_in_the_next_pass_and_item(tmp_path):
    names = names_in("data", {"cat": 5, "dog": 5})
    path = write_pack(tmp_path / "own.h5", names)
    other = write_pack(tmp_path / "other.h5", names[::-1])
    sequence, pack = SplitSequence(path), PackedImages(path)
    assert names_of(sequence) == names
    await_another_time(path)
    with open(path, "r+b") as file:  # as `rsync --inplace` does
        file.write(other.read_bytes())
    os.utime(path, ns=(1, 1))
    for reading in (lambda: names_of(sequence), lambda: pack[0], lambda: pack.__getitems__([3, 1])):
        with pytest.raises(FormatError, match=r"own\.h5: another program wrote to it while it was read; open it again"):
            reading()
    assert names_of(SplitSequence(path)) == names[::-1]


def overwritten(path: Path, by: Path) -> None:
    """Overwrite a file in place as `cp` does, but without truncating it first."""
    content = by.read_bytes()
    with open(path, "r+b") as file:
        file.write(content)


def await_another_time(path: Path) -> None:
    """Wait until the clock of the file system, which may tick only every 10 ms, is past the ctime of a file."""
    probe = path.with_name("probe")
    probe.touch()
    while probe.stat().st_ctime_ns <= path.stat().st_ctime_ns:
        probe.chmod(0o600)


def in_place(path: Path, other: Path) -> None:
    overwritten(path, other)


def with_the_old_time(path: Path, other: Path) -> None:
    times = path.stat()
    overwritten(path, other)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def from_another_folder(path: Path, other: Path) -> None:
    os.chdir("/")
    overwritten(path, other)


def by_another_name(path: Path, other: Path) -> None:
    """Overwrite the file through a second link, after its path was given to another file."""
    os.link(path, path.with_name("second.h5"))
    shutil.copy(other, path.with_name("new.h5"))
    os.replace(path.with_name("new.h5"), path)
    overwritten(path.with_name("second.h5"), other)


def without_a_name(path: Path, other: Path) -> None:
    with open(path, "r+b") as file:
        path.unlink()
        file.write(other.read_bytes())


def only_begun(path: Path, other: Path) -> None:
    """Overwrite only the first image, as an unfinished copy does: with large rows, the tables come last."""
    pixels = PackedImages(other).images[0].tobytes()
    with open(path, "r+b") as file:
        file.seek(PackedImages(path).header.images.offset)
        file.write(pixels)


def through_a_map(path: Path, other: Path) -> None:
    content = other.read_bytes()
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as pages:
        pages[:] = content


WRITES = [
    in_place,
    with_the_old_time,
    from_another_folder,
    by_another_name,
    without_a_name,
    only_begun,
    through_a_map,
]


@pytest.mark.skipif(sys.platform == "win32", reason="needs files that can be written to while they are mapped")
@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("has_checksum", [True, False], ids=["with a checksum of its tables", "without one"])
def test_an_open_pack_overwritten_in_any_way_is_an_error(tmp_path, monkeypatch, write, has_checksum):
    names = names_in("data", {"cat": 5, "dog": 5})
    paths = write_pack(tmp_path / "own.h5", names), write_pack(tmp_path / "other.h5", names[::-1])
    for path in paths:
        with contextlib.nullcontext() if has_checksum else h5py.File(path, "r+") as file:
            if file is not None:
                del file.attrs["tables_checksum"]
    monkeypatch.chdir(tmp_path)
    sequence, pack = SplitSequence("own.h5", batch_size=3, auto_shuffle=True), PackedImages("own.h5")
    names_of(sequence)
    await_another_time(paths[0])
    write(*paths)
    for reading in (
        lambda: next(iter(sequence)),
        lambda: pack[0],
        lambda: pack.__getitems__([3, 1]),
        lambda: pickle.dumps(pack),
        lambda: pickle.dumps(sequence),
    ):
        with pytest.raises(FormatError, match=r"own\.h5: another program wrote to it while it was read; open it again"):
            reading()


def touched(path: Path) -> None:
    os.utime(path, ns=(1, 1))


def linked(path: Path) -> None:
    os.link(path, path.with_name("second.h5"))


def appended(path: Path) -> None:
    with open(path, "ab") as file:
        file.write(b"more")


def rewritten_with_equal_bytes(path: Path) -> None:
    overwritten(path, path)


@pytest.mark.skipif(sys.platform == "win32", reason="needs files that can be removed while they are open")
@pytest.mark.parametrize(
    "change",
    [touched, linked, appended, rewritten_with_equal_bytes, lambda path: path.chmod(0o400), Path.unlink],
    ids=["touched", "linked", "appended", "rewritten with equal bytes", "chmod", "removed"],
)
@pytest.mark.parametrize("has_checksum", [True, False], ids=["with a checksum of its tables", "without one"])
def test_an_open_pack_survives_changes_that_keep_its_content(own, change, has_checksum):
    if not has_checksum:
        with h5py.File(own, "r+") as file:
            del file.attrs["tables_checksum"]
    sequence, pack = SplitSequence(own), PackedImages(own)
    names = names_of(sequence)
    change(own)
    for _ in range(2):
        assert names_of(sequence) == names
        assert np.array_equal(pack[7][0], pixels_of(names[7]))


def test_an_open_pack_survives_changes_of_its_time_stamp(own):
    sequence = SplitSequence(own)
    names = names_of(sequence)
    os.utime(own, ns=(1, 1))
    assert names_of(sequence) == names
    os.utime(own, ns=(2, 2))
    assert names_of(sequence) == names


@pytest.mark.skipif(sys.platform == "win32", reason="needs files that can be written to while they are mapped")
def test_a_write_that_continues_after_its_time_stamp_was_read_is_an_error(tmp_path):
    """The kernel sets the time stamp once, when a call to write begins."""
    names = names_in("data", {"cat": 5, "dog": 5})
    path = write_pack(tmp_path / "own.h5", names)
    other = write_pack(tmp_path / "other.h5", names[::-1])
    pack = PackedImages(path)
    os.utime(path, ns=(1, 1))
    pack[0]
    await_another_time(path)
    with open(path, "r+b") as file:
        file.write(other.read_bytes())
    os.utime(path, ns=(1, 1))
    with pytest.raises(FormatError, match="another program wrote to it"):
        pack[0]


@pytest.mark.skipif(sys.platform == "win32", reason="needs files that can be removed while they are open")
def test_an_open_pack_survives_replacement_or_removal_of_its_file(own):
    sequence = SplitSequence(own)
    names = names_of(sequence)
    own.unlink()
    assert names_of(sequence) == names
    own.write_bytes(b"other")
    assert names_of(sequence) == names


# --- copies: pickled, copied, opened after chdir ----------------------------------------------------------------------


def test_a_pack_pickles_as_its_path(images):
    pickled = pickle.dumps(images)
    assert len(pickled) < 500
    again = pickle.loads(pickled)
    assert again.path == images.path
    assert np.array_equal(again.images, images.images)
    assert again.filenames == images.filenames


COPYING = pytest.mark.parametrize(
    "again",
    [lambda pack: pickle.loads(pickle.dumps(pack)), copy.copy, copy.deepcopy],
    ids=["pickle", "copy", "deepcopy"],
)
REOPENING = pytest.mark.parametrize(
    "again", [lambda pack: pickle.loads(pickle.dumps(pack)), copy.deepcopy], ids=["pickle", "deepcopy"]
)
OPENS = pytest.mark.parametrize("opens", [PackedImages, SplitSequence])


@COPYING
@OPENS
def test_a_pack_opened_by_a_relative_path_survives_a_change_of_directory(tmp_path, monkeypatch, opens, again):
    names = {}
    for folder in ("here", "there"):  # with packs of one name in both
        (tmp_path / folder).mkdir()
        names[folder] = names_in(folder, {"cat": 5, "dog": 5})
        write_pack(tmp_path / folder / "own.h5", names[folder])
    monkeypatch.chdir(tmp_path / "here")
    opened = opens("own.h5")
    monkeypatch.chdir(tmp_path / "there")
    for found in (opened, again(opened), again(again(opened))):
        pack = found if opens is PackedImages else found.packs.packs[0]
        assert pack.path == "own.h5"
        assert list(pack.filenames) == names["here"]
        assert pack.preload(pack.pieces(np.arange(len(pack)))) > 0
        assert pack.is_cached(np.arange(len(pack))) in (True, None)
        assert names_of(SplitSequence().add_file(tmp_path / "here" / "own.h5")) == names["here"]
        if opens is SplitSequence:
            assert names_of(found.preload()) == names["here"]


@REOPENING
@OPENS
@pytest.mark.parametrize("has_checksum", [True, False], ids=["with a checksum of its tables", "without one"])
def test_copying_or_unpickling_a_pack_whose_file_was_replaced_is_refused(tmp_path, opens, again, has_checksum):
    names = names_in("data", {"cat": 5, "dog": 5})
    path, other = write_pack(tmp_path / "own.h5", names), write_pack(tmp_path / "other.h5", names[::-1])
    for one in (path, other):
        with contextlib.nullcontext() if has_checksum else h5py.File(one, "r+") as file:
            if file is not None:
                del file.attrs["tables_checksum"]
    opened = opens(path)
    pickled = pickle.dumps(opened)
    os.replace(other, path)
    for refused in (lambda: again(opened), lambda: pickle.loads(pickled)):
        with pytest.raises(FormatError, match=r"own\.h5: expected the pack that was open where this was pickled, or"):
            refused()
    assert np.array_equal((opened if opens is PackedImages else opened.packs.packs[0])[3][0], pixels_of(names[3]))


@COPYING
@OPENS
def test_copies_open_when_the_file_was_replaced_by_an_equal_one(own, opens, again, tmp_path):
    opened = opens(own)
    pickled = pickle.dumps(opened)
    shutil.copy(own, tmp_path / "equal.h5")
    os.replace(tmp_path / "equal.h5", own)
    for found in (again(opened), pickle.loads(pickled)):
        assert list(found.filenames) == list(opened.filenames)


def test_unpickling_a_pack_whose_labels_were_edited_is_refused(own, tmp_path):
    """h5py does not update the checksum of the tables."""
    pickled = pickle.dumps(PackedImages(own))
    shutil.copy(own, tmp_path / "edited.h5")
    with h5py.File(tmp_path / "edited.h5", "r+") as file:
        file["labels"][:] = file["labels"][:][::-1]
    os.replace(tmp_path / "edited.h5", own)
    with pytest.raises(FormatError, match=r"own\.h5: expected the pack that was open where this was pickled"):
        pickle.loads(pickled)


@REOPENING
@OPENS
def test_copying_or_unpickling_a_removed_pack_is_file_not_found(own, opens, again):
    opened = opens(own)
    pickled = pickle.dumps(opened)
    own.unlink()
    for refused in (lambda: again(opened), lambda: pickle.loads(pickled)):
        with pytest.raises(FileNotFoundError, match=r"own\.h5: there is no such file"):
            refused()


def test_a_pickle_opens_the_pack_at_its_relative_path_in_another_folder(own, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pickled = pickle.dumps(PackedImages("own.h5"))
    (tmp_path / "moved").mkdir()
    shutil.move("own.h5", "moved")
    monkeypatch.chdir("moved")
    again = pickle.loads(pickled)
    assert again.path == "own.h5"
    assert len(again) == 100


def test_a_pickle_of_a_path_through_a_symlink_opens_the_same_pack(own, tmp_path, monkeypatch):
    (tmp_path / "far" / "deep").mkdir(parents=True)
    shutil.move(own, tmp_path / "far" / "own.h5")
    (tmp_path / "link").symlink_to(tmp_path / "far" / "deep")
    monkeypatch.chdir(tmp_path)
    pickled = pickle.dumps(PackedImages("link/../own.h5"))
    monkeypatch.chdir("/")
    assert len(pickle.loads(pickled)) == 100


def test_a_relative_path_in_a_removed_folder_is_file_not_found(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(FileNotFoundError, match=r"^own\.h5: there is no such file; pack-images SOURCE"):
        PackedImages("own.h5")


class Brighter(PackedImages):
    """A user's subclass that adds to every pixel."""

    def __init__(self, path, by):
        super().__init__(path)
        self.by = by

    def __getitem__(self, row):
        image, label = super().__getitem__(row)
        return image + np.uint8(self.by), label


@COPYING
def test_a_copy_of_a_subclass_keeps_its_class(own, again):
    pack = again(Brighter(own, 3))
    assert type(pack) is Brighter
    assert np.array_equal(pack[7][0], pixels_of(pack.filenames[7]) + np.uint8(3))


# --- preload ---------------------------------------------------------------------------------------------------------


def hollow(path: Path, shape: tuple[int, int, int, int]) -> PackedImages:
    """Write a pack of black images whose pixels take no space on disk."""
    rows = shape[0]
    content = Tables(
        labels=np.zeros(rows, np.int32),
        class_names=["black"],
        filenames=["black.png"] * rows,
        columns={"source": ["data"] * rows},
        digests=np.zeros((rows, 32), np.uint8),
        checksums=np.zeros(rows, np.uint64),
        settings={},
        packed_by={},
    )
    path.touch()
    descriptor = os.open(path, os.O_RDWR)
    seal(descriptor, shape, content)
    os.close(descriptor)
    return PackedImages(path)


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param((100, 8, 8, 3), id="small"),
        pytest.param((10, 1024, 1024, 3), id="several rows to a piece"),
        pytest.param((3, 2048, 2048, 3), id="rows larger than a piece"),
        pytest.param((2, 3000, 3000, 3), id="rows larger than two pieces"),
    ],
)
def test_preload_reads_every_pixel_and_reports_progress(tmp_path, shape):
    pack = hollow(tmp_path / "hollow.h5", shape)
    end = pack.header.images.offset + pack.header.images.nbytes
    counts: list[int] = []
    total = pack.preload(pack.pieces(np.arange(len(pack))), counts.append)
    assert total == sum(counts)
    assert end <= total <= pack.header.size
    assert max(counts) <= READ_SIZE


def test_preload_reads_only_around_the_given_rows(tmp_path):
    pack = hollow(tmp_path / "hollow.h5", (10, 2048, 2048, 1))
    assert pack.preload(pack.pieces(np.array([9, 0, 9]))) < 3 * READ_SIZE
    assert pack.preload(pack.pieces(np.array([0]))) == READ_SIZE
    assert pack.preload(pack.pieces(np.arange(0))) == 0


def test_preload_reads_as_much_for_rows_in_any_order(tmp_path):
    pack = hollow(tmp_path / "hollow.h5", (10, 2048, 2048, 1))
    rows = np.array([7, 1, 2])
    assert pack.preload(pack.pieces(rows)) == pack.preload(pack.pieces(np.sort(rows)))


# --- texts -----------------------------------------------------------------------------------------------------------


def test_texts_are_decoded_on_access():
    raw = RAW.copy()
    texts = Texts(raw)
    raw[1] = b"changed"
    assert texts[1] == "changed"


def test_texts_equal_any_sequence_of_the_same_strings():
    texts = Texts(RAW)
    assert texts == TEXTS
    assert texts == tuple(TEXTS)
    assert texts == Texts(RAW)
    assert texts == Texts(RAW[::-1], np.arange(4, -1, -1))
    assert texts != TEXTS[:-1]
    assert texts != [*TEXTS[:-1], "other"]
    assert Texts(RAW[:0]) == []
    assert texts != {5}


def test_texts_compared_with_a_string_give_a_mask():
    texts = Texts(np.array([b"X-ray", b"CT", "bär".encode(), b"", b"CT"]), np.array([4, 2, 0, 3]))
    assert (texts == "CT").tolist() == [True, False, False, False]
    assert (texts != "CT").tolist() == [False, True, True, True]
    assert (texts == "bär").tolist() == [False, True, False, False]
    assert (texts == "").tolist() == [False, False, False, True]
    assert (texts == "something longer than any of them").tolist() == [False] * 4
    assert texts.isin(["CT", "bär", "none"]).tolist() == [True, True, False, False]
    assert texts.isin("CT").tolist() == [True, False, False, False]
    assert texts.isin([]).tolist() == [False] * 4


def test_texts_are_taken_at_positions_slices_and_masks():
    texts = Texts(RAW)
    assert texts[[1, -1, 1]] == texts[np.array([1, 4, 1])] == [TEXTS[1], TEXTS[4], TEXTS[1]]
    assert texts[np.array(TEXTS) == "dog.png"] == ["dog.png"]
    assert texts[[True, False, False, False, True]] == [TEXTS[0], TEXTS[4]]
    assert texts[[]] == []
    assert texts[np.int64(1)] == TEXTS[1]
    assert Texts(RAW, np.array([4, 0]))[[1]] == [TEXTS[0]]
    for wrong in ([5], [-6], [True], [1.0], [[0]], ["a"]):
        with pytest.raises(PositionError, match=r"^expected positions"):
            texts[wrong]


@pytest.mark.parametrize("index", [True, np.True_, None, ..., 1.0, "ape"], ids=repr)
def test_what_is_no_position_of_texts_is_an_error(index):
    for texts in (Texts(RAW), Texts(RAW).take(np.arange(5))):
        with pytest.raises(PositionError, match=r"^expected a position, a slice, positions or a mask, found "):
            texts[index]


@pytest.mark.parametrize("number", [3, 3.5, np.int64(3), True])
def test_texts_are_not_compared_with_numbers(number):
    message = r"columns hold texts: numbers\(\) gives numbers$"
    for wrong in (
        lambda: Texts(RAW) == number,
        lambda: Texts(RAW) != number,
        lambda: Texts(RAW).isin(number),
        lambda: Texts(RAW).isin(["ape", number]),
    ):
        with pytest.raises((ArgumentError, ArgumentTypeError), match=message):
            wrong()


def test_texts_are_read_as_numbers():
    texts = Texts(np.array([b"1", b"-2.5", b"3e2", b" 4 "]), np.array([1, 0, 2, 3]))
    assert texts.numbers().tolist() == [-2.5, 1, 300, 4]
    for bad in (b"", b"nan", b"inf", b"old"):
        with pytest.raises(ArgumentError, match=f"^expected numbers, found '{bad.decode()}' at position 1"):
            Texts(np.array([b"1", bad])).numbers()


def test_texts_support_membership_index_and_reversed():
    texts = Texts(RAW)
    assert "bär" in texts
    assert "bar" not in texts
    assert texts.index("dog.png") == 4
    assert list(reversed(texts)) == TEXTS[::-1]


def test_texts_are_unhashable():
    with pytest.raises(TypeError, match="unhashable type: 'Texts'"):
        hash(Texts(RAW))


def test_repr_of_texts_shows_the_first_text():
    assert repr(Texts(RAW)) == "<5 texts, the first 'ape'>"
    assert repr(Texts(RAW[:0])) == "<no texts>"


@pytest.mark.parametrize("index", [5, -6, 10**9])
@pytest.mark.parametrize("taken", [False, True], ids=["all", "taken"])
def test_a_text_out_of_range_is_an_index_error(index, taken):
    texts = Texts(RAW).take(np.arange(5)) if taken else Texts(RAW)
    with pytest.raises(IndexError, match=f"index {index} is out of bounds"):
        texts[index]


def test_a_text_of_the_file_beyond_the_taken_ones_is_an_index_error():
    with pytest.raises(IndexError, match="index 2 is out of bounds"):
        Texts(RAW).take(np.array([0, 4]))[2]


@given(
    cut=st.slices(5),
    index=st.integers(-5, 4),
    order=st.permutations(range(5)),
    again=st.lists(st.integers(0, 4), max_size=8),
)
def test_texts_index_and_slice_as_a_list_does(cut, index, order, again):
    texts, taken = Texts(RAW), Texts(RAW).take(np.array(order))
    expected = [TEXTS[row] for row in order]
    assert (texts[index], texts[cut]) == (TEXTS[index], TEXTS[cut])
    assert (taken[index], taken[cut]) == (expected[index], expected[cut])
    twice = taken.take(np.array(again, np.int64))
    assert list(twice) == [expected[row] for row in again]
    assert len(twice) == len(again)
    assert twice.raw().tolist() == [RAW[order[row]] for row in again]


def test_filenames_are_texts_in_the_mapped_file(images):
    assert isinstance(images.filenames, Texts)
    assert isinstance(memory_of(images.filenames.raw()), mmap.mmap)
    assert images.filenames[-1] == images.filenames[99]
    assert images.filenames[2:4] == [images.filenames[2], images.filenames[3]]
