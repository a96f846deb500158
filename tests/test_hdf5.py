"""Tests of the HDF5 reader: without the HDF5 library it reads the same as h5py, or raises an error."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pytest

from h5split.file.hdf5.file import File
from h5split.file.hdf5.headers import Object
from h5split.file.hdf5.metadata import NoHdf5Error, lookup3
from h5split.system.files import read_at


@contextmanager
def opened(path: Path) -> Iterator[File]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield File(partial(read_at, descriptor), os.fstat(descriptor).st_size)
    finally:
        os.close(descriptor)


def same(file: File, ours: Object, theirs: h5py.Group) -> int:
    """Compare groups, their members and attributes with those of h5py. Return the number of objects."""
    assert sorted(ours.links) == sorted(name.encode() for name in theirs)
    assert sorted(ours.attributes) == sorted(name.encode() for name in theirs.attrs)
    for name, value in theirs.attrs.items():
        found = ours.attributes[name.encode()]
        assert np.frombuffer(found.data, found.type.dtype, 1)[0] == value
    count = 1
    for name, theirs_ in theirs.items():
        address = ours.links[name.encode()]
        assert address is not None
        member = file.object(address)
        if isinstance(theirs_, h5py.Group):
            assert member.is_group
            count += same(file, member, theirs_)
        else:
            assert member.is_data_set
            found = member.data_set
            assert (found.type.dtype, found.shape) == (theirs_.dtype, theirs_.shape)
            assert (found.storage, found.offset) == ("contiguous", theirs_.id.get_offset())
            assert found.nbytes == theirs_.nbytes
            count += 1
    return count


def write(path: Path, members: list[str], libver: str = "v108", **options: object) -> Path:
    with h5py.File(path, "w", libver=libver, **options) as file:
        group = file.create_group("group", track_order="track_order" in options)
        for number, name in enumerate(members):
            group.create_dataset(name, data=np.full(3, number, ["<i4", "<u8", "S5", ">i2"][number % 4]))
    return path


@pytest.mark.parametrize("libver", ["v108", "v110", "latest"])
@pytest.mark.parametrize("options", [{}, {"track_order": True}, {"userblock_size": 1024}], ids=str)
@pytest.mark.parametrize("count", [0, 8, 9, 46, 400])
def test_any_number_of_members_is_read(tmp_path, count, options, libver):
    path = write(tmp_path / "a.h5", [f"member {number}" for number in range(count)], libver, **options)
    with h5py.File(path) as theirs, opened(path) as file:
        assert same(file, file.root, theirs) == count + 2


def test_a_b_tree_of_three_levels_is_read(tmp_path):
    path = write(tmp_path / "a.h5", list(map(str, range(2500))))
    with h5py.File(path) as theirs, opened(path) as file:
        assert same(file, file.root, theirs) == 2502


@pytest.mark.parametrize(("count", "length"), [(300, 3000), (12, 5000), (3, 60_000)], ids=str)
def test_names_of_any_length_are_read(tmp_path, count, length):
    """They lie in indirect blocks of a heap, as huge objects outside its blocks, or in the object header."""
    path = write(tmp_path / "a.h5", [f"{number:0{length}}" for number in range(count)])
    with h5py.File(path) as theirs, opened(path) as file:
        assert same(file, file.root, theirs) == count + 2


@pytest.mark.parametrize("count", [0, 8, 9, 600])
@pytest.mark.parametrize("value", [7, np.bytes_(b"text"), np.bytes_(b"x" * 5000)], ids=["number", "text", "long"])
def test_any_number_of_attributes_is_read(tmp_path, count, value):
    with h5py.File(tmp_path / "a.h5", "w", libver="v108") as file:
        for number in range(count):
            file.attrs[f"attribute {number}"] = value
    with h5py.File(tmp_path / "a.h5") as theirs, opened(tmp_path / "a.h5") as file:
        assert same(file, file.root, theirs) == 1


def test_an_attribute_larger_than_a_header_is_read(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w", libver="v108") as file:
        file.attrs["large"] = np.bytes_(b"x" * 1_000_000)
        file.attrs["larger"] = np.bytes_(b"y" * 2_000_000)
        file.attrs["small"] = 1
    with h5py.File(tmp_path / "a.h5") as theirs, opened(tmp_path / "a.h5") as file:
        assert same(file, file.root, theirs) == 1


def test_deleted_objects_and_attributes_are_not_read(tmp_path):
    path = write(tmp_path / "a.h5", list(map(str, range(100))))
    with h5py.File(path, "r+", libver="v108") as file:
        for number in range(0, 100, 2):
            del file[f"group/{number}"]
            file.attrs[str(number)] = number
        for number in range(0, 100, 4):
            del file.attrs[str(number)]
            file[f"group/new {number}"] = np.arange(number)
    with h5py.File(path) as theirs, opened(path) as file:
        assert same(file, file.root, theirs) == 77


def test_objects_of_an_older_library_are_read(tmp_path):
    path = write(tmp_path / "a.h5", ["a", "b"])
    with h5py.File(path, "r+", libver="earliest") as file:
        file["older"] = np.arange(5, dtype="<i4")
        file.attrs["older"] = np.bytes_(b"text")
        file["older"].attrs["and longer than the room there was"] = "x" * 100
    with h5py.File(path) as theirs, opened(path) as file:
        assert same(file, file.root, theirs) == 5


@pytest.mark.parametrize("content", [b"", b"\x89", b"\x89HDF\r\n\x1a", b"x" * 5000, bytes(512) + b"\x89HDF"], ids=repr)
def test_other_files_are_refused_as_not_hdf5(tmp_path, content):
    (tmp_path / "a.h5").write_bytes(content)
    with pytest.raises(NoHdf5Error, match="it is not an HDF5 file"), opened(tmp_path / "a.h5"):
        pass


def test_a_file_in_the_format_before_hdf5_1_8_is_refused_as_such(tmp_path):
    write(tmp_path / "a.h5", ["a"], "earliest")
    with pytest.raises(NoHdf5Error, match=r"in the format from before version 1\.8"), opened(tmp_path / "a.h5"):
        pass


@pytest.mark.parametrize(
    ("data", "expected"), [(b"", 0xDEADBEEF), (b"Four score and seven years ago", 0x17770551)], ids=["none", "some"]
)
def test_lookup3_gives_the_published_values(data, expected):
    assert lookup3(data) == expected
