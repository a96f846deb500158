"""What packing does with files that exist at the output or beside it: replace, keep, resume or refuse."""

from __future__ import annotations

import json
import os
import re
import shutil

import h5py
import numpy as np
import pytest
import xxhash
from PIL import Image

from conftest import assert_whole, make, pixels_of, write_classes, write_image
from h5split import PackedImages
from pack_images import Manifest, PackError, UnfinishedError, preview
from pack_images.find.sources import file_stamp


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder with two folders of class folders."""
    monkeypatch.chdir(tmp_path)
    write_classes(tmp_path / "old", {"cat": 10, "dog": 15})
    write_classes(tmp_path / "new", {"dog": 5, "emu": 10})
    return tmp_path


def interrupted(sources, output="out.h5", **options):
    """Pack all rows, but interrupt the run before it publishes the file."""

    def stop(done, total, left_out):
        if done == total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(sources, output, progress=stop, **options)


# --- files that may be replaced ---------------------------------------------------------------------------------------


def another_hdf5(path):
    with h5py.File(path, "w") as file:
        file["weights"] = np.arange(1000.0)


def newer_hdf5(path):
    with h5py.File(path, "w", libver="latest") as file:
        file["weights"] = np.arange(1000.0)


def many_attributes(path):
    with h5py.File(path, "w", libver="latest") as file:
        file.attrs.create("notes", np.zeros(1_500_000))


def cut_short(path):
    make(["old"], path)
    os.truncate(path, 20_000)


def a_later_version(path):
    make(["old"], path)
    with h5py.File(path, "r+") as file:
        file.attrs["version"] = np.int32(99)


FOREIGN = {
    "text": lambda path: path.write_text("a thesis"),
    "a picture": write_image,
    "another HDF5 file": another_hdf5,
    "another HDF5 file of the newest format": newer_hdf5,
    "another HDF5 file with megabytes of attributes": many_attributes,
    "a truncated pack": cut_short,
    "a pack of a later version": a_later_version,
}


def assert_left_unchanged(path, act, match):
    """Assert that `act` is refused and leaves the inode and content of the file unchanged."""
    before = os.lstat(path).st_ino, path.read_bytes()
    with pytest.raises(PackError, match=match):
        act()
    assert (os.lstat(path).st_ino, path.read_bytes()) == before


@pytest.mark.parametrize("name", ["out.h5", "out.h5.partial", "out.h5.journal"])
@pytest.mark.parametrize("write", FOREIGN.values(), ids=FOREIGN)
def test_a_foreign_file_at_any_output_path_is_left_unchanged(here, name, write):
    write(here / "file")
    os.rename("file", name)
    if name == "out.h5.partial" and write is a_later_version:
        pytest.skip("any pack here counts as one that was sealed but not published")
    before = sorted(os.listdir(here))
    assert_left_unchanged(
        here / name, lambda: make(["old"]), rf"{name}: expected nothing there, or .* to replace, found another"
    )
    assert sorted(os.listdir(here)) == before


@pytest.mark.parametrize("name", ["out.h5.partial", "out.h5.journal"])
def test_a_link_in_place_of_the_partial_or_journal_file_is_not_followed(here, name):
    (here / "precious").write_text("precious")
    os.symlink("precious", name)
    assert_left_unchanged(
        here / "precious", lambda: make(["old"]), rf"{name}: expected nothing there, .* found a symbolic link"
    )


@pytest.mark.parametrize("name", ["out.h5", "out.h5.partial", "out.h5.journal"])
def test_a_folder_or_pipe_at_an_output_path_is_refused(here, name):
    os.mkdir(name)
    with pytest.raises(PackError, match=rf"{name}: expected .* found a folder"):
        make(["old"])
    os.rmdir(name)
    os.mkfifo(name)
    with pytest.raises(PackError, match=rf"{name}: expected nothing there, .* found a pipe"):
        make(["old"])


def test_a_pack_that_another_program_is_writing_is_not_replaced(here):
    make(["old"])
    with h5py.File("out.h5", "r+"):
        assert_left_unchanged(here / "out.h5", lambda: make(["new"]), "another process is writing to it")


def test_an_unreadable_pack_is_not_replaced(here):
    if os.geteuid() == 0:
        pytest.skip("root reads everything")
    make(["old"])
    os.chmod("out.h5", 0)
    with pytest.raises(PackError, match="found a file that cannot be opened"):
        make(["old"])


def test_a_pack_an_empty_file_and_the_target_of_a_link_are_replaced(here):
    open("out.h5", "w").close()
    make(["old"])
    os.mkdir("disk")
    os.rename("out.h5", "disk/out.h5")
    os.symlink("disk/out.h5", "out.h5")
    make(["old", "new"])
    assert os.path.islink("out.h5")
    assert_whole("disk/out.h5", 40)


def test_a_file_created_at_the_output_during_the_run_is_kept_and_the_run_resumes(here):
    def arrive(done, total, left_out):
        another_hdf5("out.h5")

    make(["old"], "whole.h5")
    with pytest.raises(UnfinishedError, match=r"expected nothing there, or a pack to replace, found another file"):
        make(["old"], progress=arrive)
    with h5py.File("out.h5") as file:
        assert file["weights"][999] == 999
    assert_whole("out.h5.partial", 25)
    os.remove("out.h5")
    assert make(["old"]).continued == 25
    assert (here / "out.h5").read_bytes() == (here / "whole.h5").read_bytes()
    assert not {"out.h5.partial", "out.h5.journal"} & {*os.listdir(here)}


def test_a_foreign_file_in_place_of_the_partial_file_is_not_written_to(here):
    (here / "precious").write_bytes(b"precious" * 1000)
    interrupted(["old"])
    os.replace("precious", "out.h5.partial")
    assert_left_unchanged(
        here / "out.h5.partial", lambda: make(["old"]), r"partial: expected nothing there, .* found another file"
    )


def test_a_partial_file_without_its_journal_is_made_anew(here):
    interrupted(["old"])
    os.remove("out.h5.journal")
    assert make(["old"]).decoded == 25
    assert_whole("out.h5", 25)


def test_a_pack_named_like_the_partial_file_is_not_overwritten(here):
    make(["old"], "out.h5.partial")
    assert_left_unchanged(
        here / "out.h5.partial", lambda: make(["new"]), r"partial: expected nothing there, .* found another file"
    )


# --- resumed rows match their files -----------------------------------------------------------------------------------


def test_files_in_swapped_folders_are_read_again(here):
    for name in "ab":
        for number in range(10):
            write_image(here / "d" / name / f"{name}{number}.png").rename(here / "d" / name / f"{number}.png")
    interrupted(["d"])
    os.rename("d/a", "d/t")
    os.rename("d/b", "d/a")
    os.rename("d/t", "d/b")
    make(["d"])
    make(["d"], "fresh.h5")
    assert (here / "out.h5").read_bytes() == (here / "fresh.h5").read_bytes()


def test_a_file_rewritten_in_place_with_its_old_mtime_is_read_again(here):
    path = here / "d" / "cat" / "one.bmp"
    for name in ("one.bmp", "other.bmp"):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels_of(name)).save(here / "d" / "cat" / name)
    interrupted(["d"])
    times = os.stat(path).st_mtime_ns
    with open(path, "r+b") as file:
        file.write((here / "d" / "cat" / "other.bmp").read_bytes())
    os.utime(path, ns=(times, times))
    make(["d"])
    assert all((row == pixels_of("other.bmp")).all() for row in PackedImages("out.h5").images)


def test_only_files_unchanged_for_a_while_have_a_stamp(here):
    just_written = [os.stat(write_image(here / name)) for name in ("a.png", "b.png")]
    assert [file_stamp(status) for status in just_written] == [0, 0]
    assert len({file_stamp(os.stat(module.__file__)) for module in (os, shutil, json)} - {0}) == 3


def test_a_file_replaced_by_a_copy_is_not_decoded_again(here):
    interrupted(["old"])
    for folder, _, names in os.walk("old"):
        for name in names:
            shutil.copyfile(f"{folder}/{name}", "copy")
            os.replace("copy", f"{folder}/{name}")
    summary = make(["old"])
    assert (summary.continued, summary.decoded) == (25, 0)


def test_a_resumed_run_reads_a_replaced_source_pack_again(here):
    make(["old"], "a.h5")
    make(["old"], "b.h5", seed=1)
    times = os.stat("a.h5").st_mtime_ns
    interrupted(["a.h5"])
    os.replace("b.h5", "a.h5")
    os.utime("a.h5", ns=(times, times))
    make(["a.h5"])
    assert_whole("out.h5", 25)


# --- the output as a SOURCE -------------------------------------------------------------------------------------------


def test_an_output_that_is_also_a_source_keeps_its_rows(here):
    make(["old"])
    shutil.rmtree("old")
    summary = make(["out.h5", "new"])
    assert (summary.rows, summary.copied, summary.decoded) == (40, 25, 15)
    assert_whole("out.h5", 40)


@pytest.mark.parametrize("name", ["./out.h5", "link.h5"])
def test_the_output_is_recognized_as_a_source_by_any_of_its_names(here, name):
    make(["old"])
    os.symlink("out.h5", "link.h5")
    make([name, "new"])
    assert make([name, "new"]).rows == 40
    assert_whole("out.h5", 40)


def test_files_already_in_the_output_are_not_packed_twice(here):
    make(["old"])
    make(["out.h5", "new"])
    write_image(here / "new" / "emu" / "new-emu-99.png")
    shutil.rmtree("new/dog")
    summary = make(["out.h5", "new"])
    assert (summary.rows, summary.decoded) == (41, 1)
    assert sorted(summary.passed_over)[0] == ("new/emu/new-emu-0.png", "its row is in out.h5 already")
    assert_whole("out.h5", 41)


def test_a_file_changed_since_the_output_was_made_is_an_error(here):
    make(["old"])
    shutil.copyfile("new/dog/new-dog-1.png", "old/dog/old-dog-3.png")
    with pytest.raises(
        PackError,
        match=r"old-dog-3\.png: expected the file that row \d+ of out\.h5 was made of, found other bytes in old/",
    ):
        make(["out.h5", "old"])


def test_a_file_whose_label_differs_from_the_output_is_an_error(here):
    make(["old"])
    with pytest.raises(PackError, match=r"expected the label '(cat|dog)' of row \d+ of out\.h5, found 'old' for "):
        make(["out.h5", "old"], labels="root")


def test_rows_of_the_output_do_not_need_their_files(here):
    (here / "table.csv").write_text("path,label\n" + "".join(f"old/cat/old-cat-{n}.png,cat\n" for n in range(10)))
    make([], manifest=Manifest("table.csv"))
    shutil.rmtree("old")
    assert make(["out.h5"], manifest=Manifest("table.csv")).rows == 10
    assert_whole("out.h5", 10)


def test_a_duplicate_name_is_an_error_that_names_both_places(here):
    make(["old"], "monday.h5")
    message = r"old/(.*)\.png is given twice.*: old/\1\.png of old and row \d+ of monday\.h5; leave one out"
    with pytest.raises(PackError, match=message):
        make(["old", "monday.h5"])
    shutil.copyfile("monday.h5", "copy.h5")
    with pytest.raises(PackError, match=r"row \d+ of monday\.h5 and row \d+ of copy\.h5"):
        make(["monday.h5", "copy.h5"])


def test_a_file_is_recognized_by_any_spelling_of_its_path(here):
    (here / "table.csv").write_text("path,label\n./old/cat/old-cat-3.png,cat\n")
    with pytest.raises(
        PackError, match=r"\./old/cat/old-cat-3\.png is given twice.*: old/cat/old-cat-3\.png of old and \./old/cat"
    ):
        make(["old"], manifest=Manifest("table.csv"))
    (here / "table.csv").write_text(f"path,label\n{here}/old/cat/old-cat-3.png,cat\nold/cat/../cat/old-cat-3.png,cat\n")
    with pytest.raises(
        PackError, match=r"is given twice.* of table\.csv and old/cat/\.\./cat/old-cat-3\.png of table\.csv"
    ):
        make([], manifest=Manifest("table.csv"))
    make(["old"])
    (here / "table.csv").write_text("path,label\n./old/cat/old-cat-3.png,cat\n")
    assert make(["out.h5"], manifest=Manifest("table.csv")).rows == 25


def test_output_rows_that_share_a_name_are_all_kept(here):
    write_image(here / "other" / "dog" / "twin.png")
    lines = "old/cat/old-cat-0.png,cat,p0\nother/dog/twin.png,dog,p0\n"
    (here / "table.csv").write_text(f"path,label,id\n{lines}")
    make([], manifest=Manifest("table.csv", name_column="id"))
    assert make(["out.h5", "new"]).rows == 17
    packed = PackedImages("out.h5")
    assert sorted(packed.filenames)[-2:] == ["p0", "p0"]


def test_an_output_row_is_kept_when_its_file_is_no_longer_readable(here):
    make(["old"])
    os.remove("old/cat/old-cat-0.png")
    os.mkfifo("old/cat/old-cat-0.png")
    os.truncate("old/cat/old-cat-1.png", 1 << 36)
    names = [f"old/cat/old-cat-{number}.png" for number in range(3)]
    (here / "table.csv").write_text("path,label\n" + "".join(f"{name},cat\n" for name in names))
    assert make(["out.h5"], manifest=Manifest("table.csv")).rows == 25
    assert_whole("out.h5", 25)


def test_warnings_report_kept_rows_and_files_packed_under_two_names(here):
    make(["old"])
    os.rename("old", "older")
    summary = make(["out.h5", "older"])
    kept, twice = summary.warnings
    assert kept == "out.h5 is a SOURCE too: its 25 rows are kept, also of files that are gone or moved"
    assert re.fullmatch(r"25 files added to out\.h5 that it has under other names, .* such as older/.*png", twice)
    assert summary.rows == 50


# --- rows that would be lost ------------------------------------------------------------------------------------------


def test_replacing_a_pack_whose_files_are_missing_is_refused(here):
    make(["old"])
    before = (here / "out.h5").read_bytes()
    shutil.rmtree("old")
    message = (
        r"out\.h5: expected the files of its 25 rows, found 25 missing or unreadable, .* give out\.h5 as a SOURCE too"
    )
    with pytest.raises(UnfinishedError, match=message):
        make(["new"])
    assert (here / "out.h5").read_bytes() == before
    os.remove("out.h5")
    assert make(["new"]).continued == 15


def test_a_pack_whose_files_exist_may_be_replaced(here):
    make(["old"])
    make(["new"])
    assert_whole("out.h5", 15)


def test_rows_of_changed_images_are_not_lost_rows_when_names_are_not_paths(here):
    lines = [f"cat/old-cat-{number}.png,cat,id {number}\n" for number in range(10)]
    (here / "table.csv").write_text("path,label,id\n" + "".join(lines))
    table = Manifest("table.csv", root="old", name_column="id")
    make([], manifest=table)
    for number in range(10):
        write_image(here / "changed" / f"{number}.png").replace(here / "old" / "cat" / f"old-cat-{number}.png")
    assert make([], manifest=table).decoded == 10


def test_rows_of_deselected_classes_may_be_dropped(here):
    make(["old"], "last.h5")
    make(["last.h5"])
    shutil.rmtree("old")
    assert make(["last.h5"], classes=["cat"]).rows == 10


def test_rows_are_reused_after_their_folder_is_renamed(here):
    make(["old"])
    os.rename("old", "older")
    assert make(["older"]).copied == 25


@pytest.mark.parametrize("there", [0, 1, 5])
@pytest.mark.parametrize("act", [preview, make], ids=["preview", "pack"])
def test_a_table_with_half_of_its_files_missing_is_an_error(here, there, act):
    names = [f"cat/old-cat-{number}.png" for number in range(there)] + [f"gone/{number}.png" for number in range(5)]
    (here / "table.csv").write_text("path,label\n" + "".join(f"{name},cat\n" for name in names))
    message = rf"table\.csv: expected {there + 5} files, found 5 missing, such as old/gone/0\.png; --root"
    with pytest.raises(PackError, match=message):
        act(["new"], manifest=Manifest("table.csv", root="old"))


def test_preview_lists_the_missing_files_of_a_table(here):
    names = [f"cat/old-cat-{number}.png" for number in range(3)] + ["gone.png"]
    (here / "table.csv").write_text("path,label\n" + "".join(f"{name},cat\n" for name in names))
    assert preview([], manifest=Manifest("table.csv", root="old")).missing == ["old/gone.png"]
    assert make([], manifest=Manifest("table.csv", root="old")).skipped == [
        ("old/gone.png", "cannot be read (No such file or directory)")
    ]


def test_preview_checks_the_output(here):
    another_hdf5("out.h5")
    with pytest.raises(PackError, match="found another file"):
        preview(["old"], output="out.h5")


# --- decoders ---------------------------------------------------------------------------------------------------------


def decoded_by(path, **packed_by):
    """Change the pixels of a pack and the versions of the libraries that made it."""
    with h5py.File(path, "r+") as file:
        versions = json.loads(file.attrs["packed_by"]) | packed_by
        file.attrs["packed_by"] = np.bytes_(json.dumps(versions))
        file["images"][...] = file["images"][...] + 1
        file["checksums"][...] = [xxhash.xxh3_64_intdigest(row.tobytes()) for row in file["images"][...]]
    tables = PackedImages(path).file.tables_checksum()
    with h5py.File(path, "r+") as file:
        file.attrs["tables_checksum"] = np.uint64(tables)


@pytest.mark.parametrize("name", ["pillow", "simplejpeg", "pack-images"])
def test_rows_made_by_other_decoder_versions_are_not_reused(here, name):
    make(["old"])
    decoded_by("out.h5", **{name: "0.0.1"})
    message = rf"out\.h5: expected rows that .* made, found those of {name} 0\.0\.1; install these versions"
    with pytest.raises(PackError, match=message):
        make(["out.h5"], "all.h5")
    assert make(["old"]).decoded == 25
    assert_whole("out.h5", 25)
