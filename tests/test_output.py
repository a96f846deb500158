"""What is at the output before: what may be replaced, what is kept, what would be lost; and the files beside it."""

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
    """Two folders of classes."""
    monkeypatch.chdir(tmp_path)
    write_classes(tmp_path / "old", {"cat": 10, "dog": 15})
    write_classes(tmp_path / "new", {"dog": 5, "emu": 10})
    return tmp_path


def interrupted(sources, output="out.h5", **options):
    """Pack all rows, and end before they are published."""

    def stop(done, total, left_out):
        if done == total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(sources, output, progress=stop, **options)


# --- what may be replaced ---------------------------------------------------------------------------------------------


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
    "another HDF5 file, of the newest kind": newer_hdf5,
    "another HDF5 file with megabytes of attributes": many_attributes,
    "a pack that is cut short": cut_short,
    "a pack of a later version": a_later_version,
}


def left_alone(path, act, match):
    """Whether a file stays as it was, and the same file, where an act is refused."""
    before = os.lstat(path).st_ino, path.read_bytes()
    with pytest.raises(PackError, match=match):
        act()
    assert (os.lstat(path).st_ino, path.read_bytes()) == before


@pytest.mark.parametrize("name", ["out.h5", "out.h5.partial", "out.h5.journal"])
@pytest.mark.parametrize("write", FOREIGN.values(), ids=FOREIGN)
def test_a_file_that_is_no_pack_is_left_alone_at_every_path_that_is_written(here, name, write):
    write(here / "file")
    os.rename("file", name)
    if name == "out.h5.partial" and write is a_later_version:
        pytest.skip("as any pack here, it would be one that was sealed and not published")
    before = sorted(os.listdir(here))
    left_alone(here / name, lambda: make(["old"]), rf"{name}: expected nothing there, or .* to replace, found another")
    assert sorted(os.listdir(here)) == before


@pytest.mark.parametrize("name", ["out.h5.partial", "out.h5.journal"])
def test_a_link_beside_the_output_is_not_followed(here, name):
    (here / "precious").write_text("precious")
    os.symlink("precious", name)
    left_alone(here / "precious", lambda: make(["old"]), rf"{name}: expected nothing there, .* found a symbolic link")


@pytest.mark.parametrize("name", ["out.h5", "out.h5.partial", "out.h5.journal"])
def test_a_folder_or_a_pipe_at_a_path_that_is_written_is_refused(here, name):
    os.mkdir(name)
    with pytest.raises(PackError, match=rf"{name}: expected .* found a folder"):
        make(["old"])
    os.rmdir(name)
    os.mkfifo(name)
    with pytest.raises(PackError, match=rf"{name}: expected nothing there, .* found a pipe"):
        make(["old"])


def test_a_pack_that_another_program_writes_to_is_left_alone(here):
    make(["old"])
    with h5py.File("out.h5", "r+"):
        left_alone(here / "out.h5", lambda: make(["new"]), "another process is writing to it")


def test_a_pack_that_cannot_be_read_is_left_alone(here):
    if os.geteuid() == 0:
        pytest.skip("root reads everything")
    make(["old"])
    os.chmod("out.h5", 0)
    with pytest.raises(PackError, match="found a file that cannot be opened"):
        make(["old"])


def test_a_pack_an_empty_file_and_a_link_of_ones_own_are_replaced(here):
    open("out.h5", "w").close()
    make(["old"])
    os.mkdir("disk")
    os.rename("out.h5", "disk/out.h5")
    os.symlink("disk/out.h5", "out.h5")
    make(["old", "new"])
    assert os.path.islink("out.h5")
    assert_whole("disk/out.h5", 40)


def test_a_file_that_comes_to_the_output_meanwhile_is_left_alone_and_the_sealed_pack_is_continued(here):
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


def test_a_file_that_takes_the_place_of_the_pixels_is_not_written_to(here):
    (here / "precious").write_bytes(b"precious" * 1000)
    interrupted(["old"])
    os.replace("precious", "out.h5.partial")
    left_alone(
        here / "out.h5.partial", lambda: make(["old"]), r"partial: expected nothing there, .* found another file"
    )


def test_pixels_without_their_journal_are_made_anew(here):
    interrupted(["old"])
    os.remove("out.h5.journal")
    assert make(["old"]).decoded == 25
    assert_whole("out.h5", 25)


def test_a_pack_beside_the_output_is_left_alone_where_no_run_left_it(here):
    make(["old"], "out.h5.partial")
    left_alone(
        here / "out.h5.partial", lambda: make(["new"]), r"partial: expected nothing there, .* found another file"
    )


# --- a resumed row is the file's --------------------------------------------------------------------------------------


def test_folders_that_change_their_names_are_read_again(here):
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


def test_a_file_that_is_written_again_in_place_with_its_time_kept_is_read_again(here):
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


def test_a_file_has_a_stamp_of_its_own_once_it_has_stood_for_a_while(here):
    just_written = [os.stat(write_image(here / name)) for name in ("a.png", "b.png")]
    assert [file_stamp(status) for status in just_written] == [0, 0]
    assert len({file_stamp(os.stat(module.__file__)) for module in (os, shutil, json)} - {0}) == 3


def test_a_file_of_the_same_bytes_is_not_decoded_again(here):
    interrupted(["old"])
    for folder, _, names in os.walk("old"):
        for name in names:
            shutil.copyfile(f"{folder}/{name}", "copy")
            os.replace("copy", f"{folder}/{name}")
    summary = make(["old"])
    assert (summary.continued, summary.decoded) == (25, 0)


def test_a_resumed_row_of_a_pack_is_that_of_the_pack_that_is_there(here):
    make(["old"], "a.h5")
    make(["old"], "b.h5", seed=1)
    times = os.stat("a.h5").st_mtime_ns
    interrupted(["a.h5"])
    os.replace("b.h5", "a.h5")
    os.utime("a.h5", ns=(times, times))
    make(["a.h5"])
    assert_whole("out.h5", 25)


# --- the output as a SOURCE -------------------------------------------------------------------------------------------


def test_an_output_that_is_a_source_keeps_its_rows(here):
    make(["old"])
    shutil.rmtree("old")
    summary = make(["out.h5", "new"])
    assert (summary.rows, summary.copied, summary.decoded) == (40, 25, 15)
    assert_whole("out.h5", 40)


@pytest.mark.parametrize("name", ["./out.h5", "link.h5"])
def test_the_output_is_known_by_any_of_its_names(here, name):
    make(["old"])
    os.symlink("out.h5", "link.h5")
    make([name, "new"])
    assert make([name, "new"]).rows == 40
    assert_whole("out.h5", 40)


def test_what_the_output_holds_already_is_not_packed_twice(here):
    make(["old"])
    make(["out.h5", "new"])
    write_image(here / "new" / "emu" / "new-emu-99.png")
    shutil.rmtree("new/dog")
    summary = make(["out.h5", "new"])
    assert (summary.rows, summary.decoded) == (41, 1)
    assert sorted(summary.passed_over)[0] == ("new/emu/new-emu-0.png", "its row is in out.h5 already")
    assert_whole("out.h5", 41)


def test_a_file_that_changed_since_the_output_was_made_is_an_error(here):
    make(["old"])
    shutil.copyfile("new/dog/new-dog-1.png", "old/dog/old-dog-3.png")
    with pytest.raises(
        PackError,
        match=r"old-dog-3\.png: expected the file that row \d+ of out\.h5 was made of, found other bytes in old/",
    ):
        make(["out.h5", "old"])


def test_a_file_under_another_label_than_in_the_output_is_an_error(here):
    make(["old"])
    with pytest.raises(PackError, match=r"expected the label '(cat|dog)' of row \d+ of out\.h5, found 'old' for "):
        make(["out.h5", "old"], labels="root")


def test_a_row_of_the_output_needs_no_file(here):
    (here / "table.csv").write_text("path,label\n" + "".join(f"old/cat/old-cat-{n}.png,cat\n" for n in range(10)))
    make([], manifest=Manifest("table.csv"))
    shutil.rmtree("old")
    assert make(["out.h5"], manifest=Manifest("table.csv")).rows == 10
    assert_whole("out.h5", 10)


def test_a_name_that_comes_twice_is_an_error_that_names_both_places(here):
    make(["old"], "monday.h5")
    message = r"old/(.*)\.png is given twice.*: old/\1\.png of old and row \d+ of monday\.h5; leave one out"
    with pytest.raises(PackError, match=message):
        make(["old", "monday.h5"])
    shutil.copyfile("monday.h5", "copy.h5")
    with pytest.raises(PackError, match=r"row \d+ of monday\.h5 and row \d+ of copy\.h5"):
        make(["monday.h5", "copy.h5"])


def test_one_file_is_known_by_any_spelling_of_its_path(here):
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


def test_rows_of_the_output_that_share_a_name_are_all_kept(here):
    write_image(here / "other" / "dog" / "twin.png")
    lines = "old/cat/old-cat-0.png,cat,p0\nother/dog/twin.png,dog,p0\n"
    (here / "table.csv").write_text(f"path,label,id\n{lines}")
    make([], manifest=Manifest("table.csv", name_column="id"))
    assert make(["out.h5", "new"]).rows == 17
    packed = PackedImages("out.h5")
    assert sorted(packed.filenames)[-2:] == ["p0", "p0"]


def test_a_row_of_the_output_is_kept_where_its_file_cannot_be_read_any_more(here):
    make(["old"])
    os.remove("old/cat/old-cat-0.png")
    os.mkfifo("old/cat/old-cat-0.png")
    os.truncate("old/cat/old-cat-1.png", 1 << 36)
    names = [f"old/cat/old-cat-{number}.png" for number in range(3)]
    (here / "table.csv").write_text("path,label\n" + "".join(f"{name},cat\n" for name in names))
    assert make(["out.h5"], manifest=Manifest("table.csv")).rows == 25
    assert_whole("out.h5", 25)


def test_it_is_said_that_the_output_was_a_source_and_what_it_has_twice_now(here):
    make(["old"])
    os.rename("old", "older")
    summary = make(["out.h5", "older"])
    kept, twice = summary.warnings
    assert kept == "out.h5 is a SOURCE too: its 25 rows are kept, also of files that are gone or moved"
    assert re.fullmatch(r"25 files added to out\.h5 that it has under other names, .* such as older/.*png", twice)
    assert summary.rows == 50


# --- rows that would be lost ------------------------------------------------------------------------------------------


def test_most_rows_are_not_lost_because_files_are_missing(here):
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


def test_rows_of_files_that_are_there_may_give_way(here):
    make(["old"])
    make(["new"])
    assert_whole("out.h5", 15)


def test_rows_whose_pictures_changed_are_not_taken_for_lost_where_names_are_no_paths(here):
    lines = [f"cat/old-cat-{number}.png,cat,id {number}\n" for number in range(10)]
    (here / "table.csv").write_text("path,label,id\n" + "".join(lines))
    table = Manifest("table.csv", root="old", name_column="id")
    make([], manifest=table)
    for number in range(10):
        write_image(here / "changed" / f"{number}.png").replace(here / "old" / "cat" / f"old-cat-{number}.png")
    assert make([], manifest=table).decoded == 10


def test_rows_of_classes_that_are_not_asked_for_any_more_may_go(here):
    make(["old"], "last.h5")
    make(["last.h5"])
    shutil.rmtree("old")
    assert make(["last.h5"], classes=["cat"]).rows == 10


def test_rows_are_not_lost_where_their_folder_is_called_otherwise(here):
    make(["old"])
    os.rename("old", "older")
    assert make(["older"]).copied == 25


@pytest.mark.parametrize("there", [0, 1, 5])
@pytest.mark.parametrize("act", [preview, make], ids=["preview", "pack"])
def test_a_table_of_which_half_of_the_files_are_not_there_is_an_error(here, there, act):
    names = [f"cat/old-cat-{number}.png" for number in range(there)] + [f"gone/{number}.png" for number in range(5)]
    (here / "table.csv").write_text("path,label\n" + "".join(f"{name},cat\n" for name in names))
    message = rf"table\.csv: expected {there + 5} files, found 5 missing, such as old/gone/0\.png; --root"
    with pytest.raises(PackError, match=message):
        act(["new"], manifest=Manifest("table.csv", root="old"))


def test_a_preview_says_which_files_of_a_table_are_not_there(here):
    names = [f"cat/old-cat-{number}.png" for number in range(3)] + ["gone.png"]
    (here / "table.csv").write_text("path,label\n" + "".join(f"{name},cat\n" for name in names))
    assert preview([], manifest=Manifest("table.csv", root="old")).missing == ["old/gone.png"]
    assert make([], manifest=Manifest("table.csv", root="old")).skipped == [
        ("old/gone.png", "cannot be read (No such file or directory)")
    ]


def test_a_preview_looks_at_the_output(here):
    another_hdf5("out.h5")
    with pytest.raises(PackError, match="found another file"):
        preview(["old"], output="out.h5")


# --- decoders ---------------------------------------------------------------------------------------------------------


def decoded_by(path, **packed_by):
    """Rewrite a pack as one that other versions made, of other pixels."""
    with h5py.File(path, "r+") as file:
        versions = json.loads(file.attrs["packed_by"]) | packed_by
        file.attrs["packed_by"] = np.bytes_(json.dumps(versions))
        file["images"][...] = file["images"][...] + 1
        file["checksums"][...] = [xxhash.xxh3_64_intdigest(row.tobytes()) for row in file["images"][...]]


@pytest.mark.parametrize("name", ["pillow", "simplejpeg", "pack-images"])
def test_rows_of_other_decoders_are_refused_as_a_source_and_not_reused(here, name):
    make(["old"])
    decoded_by("out.h5", **{name: "0.0.1"})
    message = rf"out\.h5: expected rows that .* made, found those of {name} 0\.0\.1; install these versions"
    with pytest.raises(PackError, match=message):
        make(["out.h5"], "all.h5")
    assert make(["old"]).decoded == 25
    assert_whole("out.h5", 25)
