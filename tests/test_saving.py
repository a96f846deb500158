"""Rows of a sequence saved as a pack: names, labels, columns, digests and losses stay with their pixels."""

from __future__ import annotations

import errno
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from conftest import assert_whole, names_in, pixels_of, write_classes, write_pack
from h5split import FormatError, PackedImages, SplitSequence
from h5split.cli import main as h5split
from h5split.commands.verify import verify
from h5split.errors import ArgumentError
from h5split.file import newpack
from pack_images import PackError, pack, prepare
from pack_images.cli import main


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_classes(tmp_path / "data", {"cat": 14, "dog": 9, "emu": 4})
    pack(["data"], "all.h5", workers=1)
    return tmp_path


def table_of(sequence):
    """Everything about each row of a sequence, by its file name."""
    columns = {name: list(column) for name, column in sorted(sequence.columns.items())}
    return [
        (name, sequence.classnames[label], digest.tobytes(), *(column[row] for column in columns.values()))
        for row, (name, label, digest) in enumerate(
            zip(sequence.filenames, sequence.classes, sequence.digests, strict=True)
        )
    ]


def test_any_rows_are_saved_in_their_order(here):
    sequence = SplitSequence("all.h5").shuffle(seed=3)
    for part, name in zip(sequence.split(0.4), ("a.h5", "b.h5"), strict=True):
        part.save(name)
        saved = SplitSequence(name)
        assert table_of(saved) == table_of(part)
        assert (saved.classnames, saved.shape) == (part.classnames, part.shape)
        assert_whole(name, len(part.rows))
        assert verify(PackedImages(name)).intact
    assert sorted([*SplitSequence("a.h5").filenames, *SplitSequence("b.h5").filenames]) == sorted(sequence.filenames)


def test_a_saved_pack_has_the_present_classes(here):
    sequence = SplitSequence("all.h5", classes={"emu": "bird", "cat": "pet", "dog": "pet"})
    sequence.save("merged.h5")
    saved = PackedImages("merged.h5")
    assert saved.class_names == ("bird", "pet")
    expected = {"emu": "bird", "cat": "pet", "dog": "pet"}
    for image, label, name in zip(saved.images, saved.labels, saved.filenames, strict=True):
        assert np.array_equal(image, pixels_of(name))
        assert saved.class_names[label] == expected[name.split("/")[-2]]
    SplitSequence("all.h5").select(label=["cat", "dog"]).set(classes=["dog", "horse", "cat"]).save("list.h5")
    assert PackedImages("list.h5").class_names == ("dog", "horse", "cat")
    assert_whole("list.h5", 23)


def test_a_saved_pack_is_a_source_and_prepares_pictures_as_before(here):
    SplitSequence("all.h5").select(label="cat").save("cats.h5")
    name = names_in("data", {"dog": 1})[0]
    assert np.array_equal(prepare("cats.h5", name), pixels_of(name))
    write_classes(here / "more", {"yak": 3})
    pack(["cats.h5", "more"], "both.h5", workers=1)
    assert_whole("both.h5", 17)


def test_rows_of_several_packs_with_other_columns_are_saved_together(here):
    names = names_in("other", {"dog": 5, "gnu": 6})
    write_pack(here / "other.h5", names, {"age": [str(number) for number in range(11)]})
    both = SplitSequence("all.h5", "other.h5").shuffle(seed=1)
    both.save("both.h5")
    saved = SplitSequence("both.h5")
    assert table_of(saved) == table_of(both)
    assert dict(zip(saved.filenames, saved.columns["age"], strict=True))[names[4]] == "4"
    assert set(saved.columns["age"][saved.columns["source"] == "data"]) == {""}
    assert_whole("both.h5", 38)
    assert "fit" not in saved.packs.packs[0].header.settings  # the second pack does not say how it was made


def test_a_row_may_be_saved_twice(here):
    SplitSequence("all.h5").select([5, 0, 5]).save("twice.h5")
    source, saved = PackedImages("all.h5"), PackedImages("twice.h5")
    assert list(saved.filenames) == [source.filenames[row] for row in (5, 0, 5)]
    assert np.array_equal(saved.images, source.images[[5, 0, 5]])


def test_losses_follow_their_rows(here):
    Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 16).save("data/cat/deep.png")
    pack(["data"], "lossy.h5", workers=1)
    others = SplitSequence("all.h5", "lossy.h5")
    is_deep = others.filenames.isin(["data/cat/deep.png"])
    assert is_deep.sum() == 1
    for rows in ([*np.flatnonzero(is_deep), 3, *np.flatnonzero(is_deep), 4], np.flatnonzero(~is_deep)[:9]):
        part = others.select(rows)
        part.save("part.h5")
        found = PackedImages("part.h5")
        assert found.loss_table["rows"].tolist() == np.flatnonzero(is_deep[rows]).tolist()
        assert found.losses == [("data/cat/deep.png", "16 bits cut to 8: 4 of 64 levels kept")] * len(found.loss_table)


def test_saving_gives_the_same_bytes_for_pieces_of_any_size(here, monkeypatch):
    sequence = SplitSequence("all.h5").shuffle(seed=2)
    sequence.save("a.h5")
    monkeypatch.setattr("h5split.saving.CHUNK_BYTES", 700)
    sequence.save("b.h5")
    assert (here / "a.h5").read_bytes() == (here / "b.h5").read_bytes()


def test_an_earlier_pack_is_replaced_when_the_new_one_is_whole(here):
    part, _ = SplitSequence("all.h5").split(0.5)
    part.save("part.h5")
    opened = SplitSequence("part.h5")
    before = table_of(opened)
    SplitSequence("all.h5").select(label="emu").save("part.h5")
    assert_whole("part.h5", 4)
    assert table_of(opened) == before
    assert sorted(os.listdir(here)) == ["all.h5", "data", "part.h5"]


# --- what is refused --------------------------------------------------------------------------------------------------


def test_a_pack_that_the_rows_come_from_is_never_replaced(here):
    os.link("all.h5", "same.h5")
    os.symlink("all.h5", "link.h5")
    before = (here / "all.h5").read_bytes()
    for name in ("all.h5", "same.h5", "link.h5"):
        with pytest.raises(
            ArgumentError, match=r"save: expected another file than .*all\.h5, which the rows come from"
        ):
            SplitSequence("all.h5").select([0]).save(name)
    assert (here / "all.h5").read_bytes() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda one: one.map(lambda images, targets, rng: (images, targets)), "found functions of map"),
        (lambda one: one.shard(1, 2), "save: expected a whole sequence, found rank 1; save before shard"),
        (lambda one: one.select([]), "save: expected rows, found none"),
        (lambda one: SplitSequence(), "the sequence is empty"),
    ],
    ids=["map", "shard", "no rows", "no pack"],
)
def test_what_cannot_be_saved_is_refused(here, change, message):
    with pytest.raises(ArgumentError, match=message):
        change(SplitSequence("all.h5")).save("new.h5")
    assert not os.path.exists("new.h5")


def test_another_file_is_never_replaced(here):
    (here / "notes.txt").write_text("mine")
    with pytest.raises(ArgumentError, match=r"expected nothing there, or a pack to replace, found another file"):
        SplitSequence("all.h5").save("notes.txt")
    assert (here / "notes.txt").read_text() == "mine"
    with pytest.raises(ArgumentError, match="expected a file to write, found a pipe or a device"):
        SplitSequence("all.h5").save("/dev/null")
    with pytest.raises(FileNotFoundError, match=r"none/new\.h5"):
        SplitSequence("all.h5").save("none/new.h5")


def test_a_damaged_row_is_never_saved(here):
    shutil.copy("all.h5", "broken.h5")
    pack_ = PackedImages("broken.h5")
    with open("broken.h5", "r+b") as file:
        file.seek(pack_.header.images.offset + 7 * pack_.stride)
        file.write(b"xyz")
    sequence = SplitSequence("broken.h5")
    with pytest.raises(FormatError, match=f"save: the pixels of {sequence.filenames[7]} do not match their checksum"):
        sequence.save("new.h5")
    sequence.select(np.arange(len(sequence.rows)) != 7).save("new.h5")
    assert_whole("new.h5", 26)


def test_a_full_disk_is_one_line_and_leaves_nothing(here, monkeypatch):
    def full(descriptor, offset, size):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(newpack.os, "posix_fallocate", full)
    with pytest.raises(OSError, match=r"No space left on device: expected room for [\d,]+ bytes: 'new\.h5'"):
        SplitSequence("all.h5").save("new.h5")
    assert sorted(os.listdir(here)) == ["all.h5", "data"]


def test_the_command_adds_to_a_saved_pack(here):
    SplitSequence("all.h5").select(label="cat").save("cats.h5")
    write_classes(here / "more", {"yak": 3})
    assert main(["cats.h5", "more", "-o", "cats.h5", "--quiet"]) == 0
    assert_whole("cats.h5", 17)


def test_damaged_tables_are_never_copied(here):
    shutil.copy("all.h5", "broken.h5")
    at = PackedImages("broken.h5").header.labels.offset
    with open("broken.h5", "r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([1 - byte[0] % 2]))
    message = "labels, names or other tables are not as they were packed"
    with pytest.raises(FormatError, match=message):
        SplitSequence("broken.h5").save("new.h5")
    for options in ({}, {"relabel": {}}):
        with pytest.raises(PackError, match=message):
            pack(["broken.h5"], "new.h5", workers=1, **options)
    assert main(["broken.h5", "-o", "new.h5", "--quiet"]) == 1
    assert h5split(["export", "broken.h5", "folders", "--quiet"]) == 1
    assert not os.path.exists("new.h5")


def test_a_pack_that_was_cut_short_is_an_error_wherever_it_is_read(here):
    sequence = SplitSequence("all.h5")
    os.truncate("all.h5", 8192)
    message = "the file was cut short"
    for read in (
        lambda: sequence.save("new.h5"),
        lambda: sequence.filenames[5],
        lambda: sequence.digests,
        lambda: sequence.get_filenames([0]),
        lambda: sequence.state(),
        lambda: sequence[0],
    ):
        with pytest.raises(FormatError, match=message):
            read()


def test_what_was_left_out_stays_known(here):
    (here / "data/cat/broken.png").write_bytes(b"broken")
    pack(["data"], "some.h5", workers=1)
    SplitSequence("some.h5", "all.h5").save("both.h5")
    assert [name for name, _ in PackedImages("both.h5").skipped] == ["data/cat/broken.png"]


def test_a_pack_saved_of_packs_that_differ_says_what_to_give(here):
    pack(["data"], "exact.h5", exact=True, workers=1)
    SplitSequence("all.h5", "exact.h5").save("both.h5")
    with pytest.raises(PackError, match=r"both\.h5: expected rows packed with exact False, found a pack that does"):
        pack(["both.h5"], "new.h5", workers=1)
