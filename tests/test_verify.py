"""verify() finds damage anywhere in a pack; verify_sources() finds changed source files."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys

import h5py
import numpy as np
import pytest

from conftest import write_classes, write_pack
from h5split import FormatError, PackedImages
from h5split.commands.verify import verify, verify_sources
from pack_images import Manifest, pack

TABLES = [
    "labels",
    "class_names",
    "filenames",
    "columns/source",
    "columns/split",
    "digests",
    "checksums",
    "skipped/filenames",
    "skipped/reasons",
]


@pytest.fixture(scope="session")
def intact(tmp_path_factory):
    """A pack of 299 images in which no table is empty."""
    folder = tmp_path_factory.mktemp("verify")
    root = write_classes(folder / "data", {"cat": 200, "dog": 99})
    (root / "dog" / "broken.png").write_bytes(b"broken")
    lines = [f"{path},{path.parent.name},{path.name[-5]}" for path in sorted(root.rglob("*.png"))]
    (folder / "table.csv").write_text("\n".join(["path,label,split", *lines]))
    pack([], folder / "images.h5", manifest=Manifest(str(folder / "table.csv")), workers=1)
    return folder / "images.h5"


@pytest.fixture
def copy(intact, tmp_path):
    return shutil.copy(intact, tmp_path / "copy.h5")


@pytest.fixture
def sources(tmp_path, packing, monkeypatch):
    """A pack with relative file names, its source folder beside it."""
    monkeypatch.chdir(tmp_path)
    write_classes(tmp_path / "data", {"cat": 3, "dog": 70})
    packing("data", output="out.h5")
    return PackedImages("out.h5")


def flip(path, byte, bit):
    with open(path, "r+b") as file:
        file.seek(byte)
        value = file.read(1)[0]
        file.seek(byte)
        file.write(bytes([value ^ 1 << bit]))


def states(images, **options):
    """Map the file name of each source whose state is not "same" to its state."""
    found = verify_sources(images, **options)
    return {name: state for name, state in zip(images.filenames, found, strict=True) if state != "same"}


def output_of(code, *arguments):
    """Run code in a new process, assert that it does not crash, and return its stdout."""
    code = f"import os, sys\nfrom h5split import FormatError, PackedImages\npath, size = sys.argv[1:]\n{code}"
    done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, (done.returncode, done.stderr)
    return done.stdout


# --- the pack --------------------------------------------------------------------------------------------------------


def test_verify_accepts_an_intact_pack(intact):
    found = verify(PackedImages(intact))
    assert found.bad_rows.tolist() == []
    assert found.tables is True
    assert found.intact


@pytest.mark.parametrize("seed", range(100))
def test_a_flipped_pixel_bit_is_found_in_its_row(copy, seed):
    images = PackedImages(copy)
    rng = np.random.default_rng(seed)
    row, byte, bit = (int(rng.integers(high)) for high in (len(images), images.stride, 8))
    flip(copy, images.header.images.offset + row * images.stride + byte, bit)
    found = verify(PackedImages(copy), workers=1 + seed % 3)
    assert found.bad_rows.tolist() == [row]
    assert found.tables is True
    assert not found.intact


def test_damaged_rows_are_found_in_order_across_reads(tmp_path):
    path = write_pack(tmp_path / "a.h5", [f"x/cat/{row}" for row in range(40)], shape=(512, 1024, 1))  # 20 MB
    images = PackedImages(path)
    rows = [0, 1, 15, 16, 17, 31, 32, 39]
    for row in rows:
        flip(path, images.header.images.offset + (row + 1) * images.stride - 1, 7)
    for workers in (1, 4, None):
        assert verify(images, workers=workers).bad_rows.tolist() == rows


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("table", TABLES)
def test_a_flipped_table_bit_is_found(copy, table, seed):
    images = PackedImages(copy)
    assert list(images.header.tables) == TABLES
    block = images.header.tables[table]
    byte, bit = divmod(int(np.random.default_rng(seed).integers(block.nbytes * 8)), 8)
    flip(copy, block.offset + byte, bit)
    try:
        damaged = PackedImages(copy)
    except FormatError:
        return
    found = verify(damaged)
    assert found.tables is False
    assert not found.intact
    assert found.bad_rows.tolist() == ([byte // 8] if table == "checksums" else [])


def test_damage_in_the_first_or_last_byte_of_any_block_is_found(intact, tmp_path):
    images, raw = PackedImages(intact), bytearray(intact.read_bytes())
    spans = [images.header.images, *images.header.tables.values()]
    for block in spans:
        for byte in {block.offset, block.offset + block.nbytes - 1}:
            (tmp_path / "a.h5").write_bytes(raw[:byte] + bytes([raw[byte] ^ 1]) + raw[byte + 1 :])
            with contextlib.suppress(FormatError):
                assert not verify(PackedImages(tmp_path / "a.h5")).intact


def test_tables_is_none_for_a_pack_without_a_tables_checksum(copy):
    with h5py.File(copy, "r+") as file:
        del file.attrs["tables_checksum"]
    found = verify(PackedImages(copy))
    assert found.tables is None
    assert found.intact
    images = PackedImages(copy)
    flip(copy, images.header.images.offset, 0)
    assert not verify(images).intact


def test_progress_ends_at_the_total_number_of_bytes(intact):
    seen = []
    images = PackedImages(intact)
    verify(images, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (images.images.nbytes, images.images.nbytes)


@pytest.mark.parametrize("part", [0, 0.001, 0.3, 0.6, 0.9, 0.999])
def test_a_truncated_file_is_refused(intact, tmp_path, part):
    raw = intact.read_bytes()
    (tmp_path / "cut.h5").write_bytes(raw[: int(len(raw) * part)])
    with pytest.raises(FormatError, match=r"cut\.h5: "):
        PackedImages(tmp_path / "cut.h5")


@pytest.mark.parametrize("size", [0, 5000, 100_000])
def test_truncation_during_verification_is_an_error_and_not_a_crash(copy, size):
    code = """from h5split.commands.verify import verify
try:
    verify(PackedImages(path), progress=lambda *_: os.truncate(path, int(size)))
except FormatError as error:
    print(error)"""
    assert "the file was cut short while it was read" in output_of(code, copy, size)


@pytest.mark.parametrize("size", [0, 5000, 100_000])
def test_truncation_after_opening_is_an_error_and_not_a_crash(copy, size):
    code = """from h5split.commands.verify import verify
images = PackedImages(path)
os.truncate(path, int(size))
try:
    verify(images)
except (FormatError, OSError) as error:
    print(error)"""
    assert "cut short" in output_of(code, copy, size)


def test_truncation_while_comparing_sources_is_an_error_and_not_a_crash(copy):
    code = """from h5split.commands.verify import verify_sources
try:
    verify_sources(PackedImages(path), workers=1, progress=lambda *_: os.truncate(path, int(size)))
except (FormatError, OSError) as error:
    print(error)"""
    assert "cut short" in output_of(code, copy, 0)


def test_verify_reads_the_open_file_after_its_path_was_removed_or_replaced(copy, tmp_path, monkeypatch):
    flip(copy, PackedImages(copy).header.images.offset, 0)
    monkeypatch.chdir(tmp_path)
    images = PackedImages("copy.h5")
    os.unlink("copy.h5")
    assert verify(images).bad_rows.tolist() == [0]
    (tmp_path / "copy.h5").write_bytes(b"other")
    monkeypatch.chdir("/")
    assert verify(images).bad_rows.tolist() == [0]
    assert set(verify_sources(images)) == {"same"}


def test_more_workers_than_work_use_little_memory(intact):
    code = """import resource
from h5split.commands.verify import verify
verify(PackedImages(path), workers=1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
verify(PackedImages(path), workers=int(size))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"""
    assert int(output_of(code, intact, 64)) < 100_000  # kB


# --- sources ---------------------------------------------------------------------------------------------------------


def test_unchanged_sources_are_reported_as_same(sources):
    assert verify_sources(sources) == ["same"] * 73


def test_changed_missing_and_unreadable_sources_are_distinguished(sources):
    flip("data/cat/data-cat-0.png", 40, 3)
    os.truncate("data/dog/data-dog-3.png", 10)
    os.unlink("data/dog/data-dog-5.png")
    os.unlink("data/dog/data-dog-6.png")
    os.symlink("data-dog-6.png", "data/dog/data-dog-6.png")
    assert states(sources) == states(sources, workers=1)
    assert states(sources) == {
        "data/cat/data-cat-0.png": "changed",
        "data/dog/data-dog-3.png": "changed",
        "data/dog/data-dog-5.png": "missing",
        "data/dog/data-dog-6.png": "unreadable",
    }


def test_a_pipe_or_folder_in_place_of_a_source_counts_as_missing(sources):
    for name in ("data/dog/data-dog-1.png", "data/dog/data-dog-2.png"):
        os.unlink(name)
    os.mkfifo("data/dog/data-dog-1.png")
    os.mkdir("data/dog/data-dog-2.png")
    assert states(sources) == {"data/dog/data-dog-1.png": "missing", "data/dog/data-dog-2.png": "missing"}


def test_relative_names_are_resolved_against_root(sources, tmp_path, monkeypatch):
    shutil.move("data", tmp_path / "moved" / "data")
    assert set(verify_sources(sources)) == {"missing"}
    assert set(verify_sources(sources, root="moved")) == {"same"}
    assert set(verify_sources(sources, root=tmp_path / "moved")) == {"same"}
    monkeypatch.chdir("moved")
    assert set(verify_sources(PackedImages("../out.h5"))) == {"same"}


def test_impossible_file_names_are_reported_as_missing_or_unreadable(tmp_path):
    names = ["", ".", "..", "a\0b", "x" * 4000, "/", "\udcff", "a/" * 3000]
    path = write_pack(tmp_path / "a.h5", names, classes=["cat"] * len(names))
    assert set(verify_sources(PackedImages(path), root=tmp_path)) == {"missing", "unreadable"}


def test_sources_with_unusual_names_are_found(tmp_path):
    names = ["\udcff\udce9", "new\nline", " spaces ", "ü", "q'uo\"te", "back\\slash"]
    path = write_pack(tmp_path / "a.h5", names, classes=["cat"] * len(names))
    images = PackedImages(path)
    for name, pixels in zip(names, images.images, strict=True):
        with open(os.path.join(os.fsencode(tmp_path), os.fsencode(name)), "wb") as file:
            file.write(b"a file of " + pixels.tobytes())
    assert verify_sources(images, root=tmp_path) == ["same"] * len(names)


def test_progress_of_sources_ends_at_the_total_number_of_files(sources):
    seen = []
    verify_sources(sources, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(64, 73), (73, 73)]
