"""Tests of rows copied from packs: from packs as SOURCE, and from an older output."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from conftest import assert_whole, make, write_classes, write_image
from h5split import PackedImages
from pack_images import Manifest, PackError, UnfinishedError


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_classes(tmp_path / "a", {"cat": 10, "dog": 15})
    write_classes(tmp_path / "b", {"dog": 5, "emu": 10})
    return tmp_path


# --- packs as SOURCE -------------------------------------------------------------------------------------------------


def test_packs_merge_without_decoding_and_classes_merge_by_name(here):
    make(["a"], "a.h5")
    make(["b"], "b.h5")
    shutil.rmtree("a")
    shutil.rmtree("b")
    summary = make(["a.h5", "b.h5"])
    assert (summary.copied, summary.decoded, summary.classes) == (40, 0, {"cat": 10, "dog": 20, "emu": 10})
    merged, a = assert_whole("out.h5", 40), PackedImages("a.h5")
    assert sorted(set(merged.columns["source"])) == ["a", "b"]
    digests = dict(zip(a.filenames, map(bytes, a.digests), strict=True))
    for name, digest in zip(merged.filenames, map(bytes, merged.digests), strict=True):
        assert digests.get(name, digest) == digest


def test_folders_manifests_and_packs_mix_in_one_run(here):
    make(["a"], "a.h5")
    write_classes(here / "c", {"cat": 1})
    (here / "table.csv").write_text("path,label,patient\nc/cat/c-cat-0.png,cat,p1\n")
    summary = make(["a.h5", "b"], manifest=Manifest("table.csv"))
    assert (summary.rows, summary.copied, summary.decoded) == (41, 25, 16)
    merged = assert_whole("out.h5", 41)
    assert sorted(set(merged.columns["patient"])) == ["", "p1"]


def test_merging_gives_the_same_bytes_with_any_number_of_workers(here):
    make(["a"], "a.h5")
    make(["a.h5", "b"], "one.h5")
    make(["a.h5", "b"], "three.h5", workers=3)
    assert (here / "one.h5").read_bytes() == (here / "three.h5").read_bytes()


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ({"size": 8, "fit": "crop"}, {"size": 8}, "packed with fit crop, this run asks for stretch; give --fit crop"),
        ({"size": 8}, {"size": 9}, "packed with size 8x8, this run asks for 9x9; give --size 8x8"),
        ({"color": "grayscale"}, {}, "packed with color grayscale, this run asks for rgb; give --color grayscale"),
        ({"exact": True}, {}, "packed with exact True, this run asks for False"),
    ],
)
def test_settings_that_differ_from_those_of_a_pack_are_named(here, first, second, message):
    make(["a"], "a.h5", **first)
    with pytest.raises(PackError, match=message):
        make(["a.h5", "b"], **second)


def test_packs_of_different_shapes_are_refused(here):
    make(["a"], "a.h5", size=8)
    make(["b"], "b.h5", size=9)
    with pytest.raises(PackError, match="expected packs of one image shape"):
        make(["a.h5", "b.h5"])


def test_a_damaged_row_of_a_pack_is_left_out_and_reported(here):
    make(["a"], "a.h5")
    packed = PackedImages("a.h5")
    at, name = packed.header.images.offset + 3 * 192, packed.filenames[3]
    with open("a.h5", "r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))
    summary = make(["a.h5"])
    assert list(summary.skipped) == [(name, "row 3 of a.h5 is damaged: its checksum does not agree")]
    assert_whole("out.h5", 24)


def test_an_hdf5_file_that_is_not_a_pack_is_an_error(here):
    import h5py

    with h5py.File("weights.h5", "w") as file:
        file["weights"] = np.zeros(3)
    with pytest.raises(PackError, match=r"weights\.h5: expected a pack, but it is another HDF5 file"):
        make(["a", "weights.h5"])


def test_a_pack_given_twice_is_refused(here):
    make(["a"], "a.h5")
    with pytest.raises(PackError, match="would be packed twice"):
        make(["a.h5", "./a.h5"])


# --- reuse -----------------------------------------------------------------------------------------------------------


def test_packing_again_decodes_only_changed_files(here):
    make(["a"])
    write_image(here / "a/cat/new.png")
    (here / "a/dog/a-dog-0.png").unlink()
    os.rename("a/dog/a-dog-1.png", "a/dog/renamed.png")
    renamed = (here / "a/dog/renamed.png").read_bytes()
    (here / "a/dog/a-dog-2.png").write_bytes((here / "b/dog/b-dog-2.png").read_bytes())
    summary = make(["a"])
    assert (summary.rows, summary.decoded, summary.copied) == (25, 2, 23)
    make(["a"], "fresh.h5")
    assert (here / "out.h5").read_bytes() == (here / "fresh.h5").read_bytes()
    assert (here / "a/dog/renamed.png").read_bytes() == renamed


def test_packing_again_without_reuse_decodes_everything(here):
    make(["a"])
    before = (here / "out.h5").read_bytes()
    summary = make(["a"], reuse=False)
    assert (summary.decoded, summary.copied) == (25, 0)
    assert (here / "out.h5").read_bytes() == before


@pytest.mark.parametrize(
    "options",
    [{"size": 9}, {"color": "grayscale"}, {"size": 8, "interpolation": "lanczos"}, {"exact": True}, {"max_pixels": 64}],
)
def test_changed_settings_that_affect_pixels_reuse_no_row(here, options):
    make(["a"])
    assert make(["a"], **options).copied == 0
    make(["a"], "fresh.h5", **options)
    assert (here / "out.h5").read_bytes() == (here / "fresh.h5").read_bytes()


@pytest.mark.parametrize("options", [{"seed": 5}, {"order": "sorted"}, {"labels": "root"}])
def test_changed_settings_that_do_not_affect_pixels_reuse_all_rows(here, options):
    make(["a"])
    assert make(["a"], **options).copied == 25
    make(["a"], "fresh.h5", **options)
    assert (here / "out.h5").read_bytes() == (here / "fresh.h5").read_bytes()


def test_damaged_rows_of_the_old_output_are_decoded_again(here):
    make(["a"], "fresh.h5")
    make(["a"])
    with open("out.h5", "r+b") as file:
        file.seek(PackedImages("out.h5").header.images.offset + 100)
        file.write(b"damage")
    summary = make(["a"])
    assert (summary.decoded, summary.copied) == (1, 24)
    assert (here / "out.h5").read_bytes() == (here / "fresh.h5").read_bytes()


class ActingFirst(ThreadPoolExecutor):
    """Executor that calls `act` before its first task."""

    def __init__(self, act):
        super().__init__(1)
        self._act = act

    def submit(self, *task):
        act, self._act = self._act, lambda: None
        act()
        return super().submit(*task)


@pytest.mark.parametrize("act", [lambda: os.replace("other.h5", "out.h5"), lambda: os.unlink("out.h5")])
def test_an_output_replaced_or_removed_during_the_run_is_not_copied_from(here, act):
    make(["a"], "out.h5", size=5, interpolation="nearest")
    make(["a"], "other.h5", size=5, interpolation="lanczos")
    make(["a"], "fresh.h5", size=5, interpolation="nearest")
    with ActingFirst(act) as executor:
        assert make(["a"], executor=executor, size=5, interpolation="nearest").copied == 0
    assert (here / "out.h5").read_bytes() == (here / "fresh.h5").read_bytes()


@pytest.mark.parametrize("act", [lambda: os.replace("other.h5", "a.h5"), lambda: os.unlink("a.h5")])
def test_a_source_pack_replaced_or_removed_before_copying_is_an_error(here, act):
    make(["a"], "a.h5")
    make(["a"], "other.h5", seed=1)
    message = r"a\.h5 has changed since this run began to copy from it; run the same again"
    with ActingFirst(act) as executor, pytest.raises(UnfinishedError, match=message):
        make(["a.h5"], executor=executor)
    assert sorted(set(os.listdir(here)) - {"a.h5", "other.h5"}) == ["a", "b"]


def test_a_source_pack_replaced_during_copying_is_an_error_and_the_next_run_succeeds(here):
    def replace(done, total, left_out):
        if os.path.exists("other.h5"):
            os.replace("other.h5", "a.h5")

    make(["a"], "a.h5")
    make(["a"], "other.h5", seed=1)
    with pytest.raises(UnfinishedError, match=r"a\.h5 has changed since this run began to copy from it"):
        make(["a.h5"], progress=replace)
    make(["a.h5"])
    assert_whole("out.h5", 25)


# --- the user's own reader -------------------------------------------------------------------------------------------


def by_folder(path):
    """Reader as in the original post: file names, class number of each, class names, number of each class."""
    names = sorted(f"{below}/{name}" for below, _, files in os.walk(path) for name in files)
    numbers = {"cat": 3, "dog": 13, "emu": 23}  # the same in every folder; classes without images may be named
    return names, [numbers[name.split("/")[-2]] for name in names], list(numbers), list(numbers.values())


def test_a_reader_lists_files_and_its_classes_merge_by_name(here):
    summary = make(["a", "b"], reader=by_folder)
    assert summary.classes == {"cat": 10, "dog": 20, "emu": 10}
    packed = assert_whole("out.h5", 40)
    assert sorted(set(packed.columns["source"])) == ["a", "b"]


def test_reader_option_takes_a_module_and_a_function(here):
    from pack_images.cli import main

    (here / "own_reader_.py").write_text(
        "import os\n"
        "def read(path):\n"
        "    names = sorted(f'{path}/cat/{name}' for name in os.listdir(f'{path}/cat'))\n"
        "    return names, [0] * len(names), ['cat'], [0]\n"
    )
    assert main(["a", "-o", "out.h5", "--reader", "own_reader_:read", "--quiet"]) == 0
    assert_whole("out.h5", 10)
