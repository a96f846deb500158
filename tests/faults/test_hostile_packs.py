"""Malicious packs, handmade and random: each is read correctly or refused with a one-line error."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from fuzz_packs import campaign, examine
from pack_mutations import Base, base_of, changed, replaced, sealed_again, write_small

from h5split import FormatError, PackedImages

Make = Callable[[Path], object]


def assert_refused(path: Path, reason: str) -> None:
    """Assert that a pack is refused with one printable line: its path and the reason."""
    with pytest.raises(FormatError, match=rf"\A{re.escape(str(path))}: .*(?:{reason}).*\Z") as refusal:
        PackedImages(path)
    assert str(refusal.value).isprintable()


# --- made with HDF5 --------------------------------------------------------------------------------------------------


def filtered(name: str, number: int) -> Make:
    """Return a function that writes a pack with a data set behind a filter that no HDF5 library has."""

    def change(file: h5py.File) -> None:
        del file[name]
        creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        creation.set_chunk((3,))
        creation.set_filter(number, h5py.h5z.FLAG_OPTIONAL, (1, 2))
        space = h5py.h5s.create_simple((3,))
        h5py.h5d.create(file.id, name.encode(), h5py.h5t.STD_I32LE, space, creation)

    return changed(change)


def committed(file: h5py.File) -> None:
    del file["labels"]
    file["type"] = np.dtype("i4")
    file.create_dataset("labels", data=np.zeros(3, "i4"), dtype=file["type"])


def linked(name: str, link: object) -> Make:
    def change(file: h5py.File) -> None:
        del file[name]
        file[name] = link

    return changed(change)


def nested(depth: int) -> h5py.h5t.TypeID:
    """Return the type of variable-length lists nested `depth` deep."""
    found = h5py.h5t.STD_I32LE
    for _ in range(depth):
        found = h5py.h5t.vlen_create(found)
    return found


def with_type(name: str, type_: h5py.h5t.TypeID) -> Make:
    def change(file: h5py.File) -> None:
        del file[name]
        h5py.h5d.create(file.id, name.encode(), type_, h5py.h5s.create_simple((3,)))

    return changed(change)


def attribute(name: str, value: object) -> Make:
    return changed(lambda file: file.attrs.__setitem__(name, value))


PAIR = np.dtype([("a", "i4"), ("b", "S3")])
TYPES: dict[str, tuple[dict[str, object], str]] = {
    "compound": ({"data": np.zeros(3, PAIR)}, "compounds"),
    "enumeration": ({"data": np.zeros(3, "i4"), "dtype": h5py.enum_dtype({"a": 0}, "i4")}, "an enumeration"),
    "reference": ({"shape": 3, "dtype": h5py.ref_dtype}, "references"),
    "region": ({"shape": 3, "dtype": h5py.regionref_dtype}, "references"),
    "opaque": ({"data": np.zeros(3, "V4")}, "opaque bytes"),
    "array": ({"shape": 3, "dtype": np.dtype(("i4", 2))}, "arrays"),
    "variable": ({"shape": 3, "dtype": h5py.string_dtype()}, "variable-length data"),
    "lists": ({"shape": 3, "dtype": h5py.vlen_dtype("i4")}, "variable-length data"),
    "boolean": ({"data": np.zeros(3, bool)}, "an enumeration"),
    "float": ({"data": np.zeros(3)}, "float64"),
    "complex": ({"data": np.zeros(3, "c8")}, "compounds"),
    "int16": ({"data": np.zeros(3, "i2")}, "int16"),
}
EXPECTED = {
    "images": "uint8",
    "labels": "int32",
    "class_names": "fixed-length text",
    "filenames": "fixed-length text",
    "columns/source": "fixed-length text",
    "digests": "uint8",
    "checksums": "uint64",
    "skipped/reasons": "fixed-length text",
}

MADE: dict[str, tuple[Make, str]] = {
    **{
        f"{name}: {kind}": (replaced(name, **options), f"{name}: expected {expected}, found {found}")
        for name, expected in EXPECTED.items()
        for kind, (options, found) in TYPES.items()
    },
    "labels are text": (replaced("labels", data=np.zeros(3, "S4")), "labels: expected int32, found fixed-length text"),
    "filenames are bytes": (replaced("filenames", data=np.zeros((3, 8), "u1")), "filenames: expected fixed-length"),
    "a type that is a thousand lists deep": (with_type("labels", nested(1000)), "found variable-length data"),
    "a committed type": (changed(committed), "messages that objects share are not read here"),
    "deflate": (replaced("labels", data=np.zeros(3, "i4"), compression="gzip"), "found filtered storage"),
    "lzf": (replaced("filenames", data=np.zeros(3, "S9"), compression="lzf"), "found filtered storage"),
    "shuffle and checksums": (
        replaced("checksums", data=np.zeros(3, "u8"), shuffle=True, fletcher32=True),
        "checksums: expected plain bytes in this file, found filtered storage",
    ),
    "an unknown filter": (filtered("labels", 31_999), "labels: .* found filtered storage"),
    "chunks": (replaced("labels", data=np.zeros(3, "i4"), chunks=(1,)), "found chunked storage"),
    "room to grow": (replaced("labels", data=np.zeros(3, "i4"), maxshape=(None,)), "found chunked storage"),
    "external storage": (
        replaced("digests", shape=(3, 32), dtype="u1", external=[("/etc/hostname", 0, 96)]),
        "digests: expected plain bytes in this file, found external storage",
    ),
    "images of rank 5": (replaced("images", data=np.zeros((3, 4, 4, 3, 1), "u1")), "images: expected 4 dimensions"),
    "images of rank 32": (replaced("images", data=np.zeros([1] * 32, "u1")), "images: expected 4 dimensions"),
    "one label": (replaced("labels", data=np.int32(0)), r"labels: expected 3 rows.* found shape \(\)"),
    "no digests": (replaced("digests", data=np.zeros((3, 0), "u1")), "digests: expected 32 bytes a row, found 0"),
    "digests of rank 3": (replaced("digests", data=np.zeros((3, 32, 1), "u1")), "digests: expected 3 rows"),
    "nothing": (replaced("checksums", data=h5py.Empty("u8")), "checksums: expected 3 rows.* found shape None"),
    "a link to itself": (linked("labels", h5py.SoftLink("/labels")), "labels: .* found a link that leads elsewhere"),
    "a link to a device": (
        linked("labels", h5py.ExternalLink("/dev/zero", "/labels")),
        "labels: .* found a link that leads elsewhere",
    ),
    "a group in itself": (
        changed(lambda file: file.__setitem__("columns/columns", file["columns"])),
        "columns/columns: expected a data set, found a group",
    ),
    "the root as columns": (linked("columns", h5py.SoftLink("/")), "columns: .* found a link"),
    "a type among the columns": (
        changed(lambda file: file.__setitem__("columns/type", np.dtype("S3"))),
        "columns/type: expected a data set, found something else",
    ),
    "a control character in a name": (
        changed(lambda file: file.create_dataset("columns/\33[2J", data=np.zeros(2, "S1"))),
        r"columns/\\x1b\[2J: expected 3 rows",
    ),
    "version is of 64 bits": (attribute("version", np.uint64(2**64 - 1)), "found version 18446744073709551615"),
    "version is negative": (attribute("version", np.int8(-1)), "expected version 1 or 2, found version -1"),
    "version is a reference": (attribute("version", h5py.Reference()), "expected an integer, found references"),
    "version is a pair": (attribute("version", np.zeros((), PAIR)), "expected an integer, found compounds"),
    "settings of bytes without end": (attribute("settings", np.void(b"{}")), "settings: .* found opaque bytes"),
    "tables_checksum is text": (attribute("tables_checksum", np.bytes_(b"1")), "tables_checksum: expected an integer"),
    "packed_by is no UTF-8": (attribute("packed_by", np.bytes_(b'{"a": "\xff"}')), "damaged"),
    "settings of a number too long": (attribute("settings", np.bytes_(b"1" * 60_000)), "damaged"),
    "settings of twenty megabytes": (
        attribute("settings", np.bytes_(b" " * 20_000_000)),
        "more than 16 MB of metadata",
    ),
}


@pytest.mark.parametrize(("make", "reason"), MADE.values(), ids=MADE)
def test_what_a_pack_cannot_have_is_refused(tmp_path, make, reason):
    path = tmp_path / "images.h5"
    make(path)
    assert_refused(path, reason)


# --- made by writing into the bytes -----------------------------------------------------------------------------------


def written(find: Callable[[Base], int], new: int) -> Callable[[Path], None]:
    """Return a function that writes a pack, changes one number and corrects the checksum of its piece."""

    def make(path: Path) -> None:
        base = base_of(write_small(path, columns=1))
        at = find(base)
        content = bytearray(base.content)
        content[at : at + 8] = new.to_bytes(8, "little")
        sealed_again(content, base.pieces, [(at, at + 8)])
        path.write_bytes(content)

    return make


def place_of(number: int, *next_: int) -> Callable[[Base], int]:
    """Return a function that finds consecutive 8-byte numbers in the metadata."""
    sought = b"".join(each.to_bytes(8, "little") for each in (number, *next_))
    return lambda base: next(at for at in base.metadata if base.content.startswith(sought, at))


IMAGES = 4096, 3 * 4096  # offset and bytes of `images` in `write_small`
SHAPE = 3, 64, 64, 1

WRITTEN: dict[str, tuple[Make, str]] = {
    "offset past the end": (written(place_of(*IMAGES), 1 << 20), "images: expected bytes up to .* cut short"),
    "offset at the end of all numbers": (
        written(place_of(*IMAGES), (1 << 64) - 2),
        "images: expected bytes up to .* cut short",
    ),
    "nowhere": (written(place_of(*IMAGES), (1 << 64) - 1), "images: its storage was never allocated"),
    "labels among the pixels": (
        written(lambda base: place_of(base.tables[0].start, 12)(base), 8192),
        "two data sets overlap at byte 8192",
    ),
    "a shape whose product overflows 64 bits": (
        written(place_of(*SHAPE), 1 << 62),
        "images: expected bytes up to",
    ),
    "a shape whose product is right after it overflows": (
        written(place_of(*SHAPE), 3 + (1 << 52)),
        "images: expected bytes up to",
    ),
    "no rows": (written(place_of(*SHAPE), 0), "images: expected 0 bytes, found 12288|expected pixels"),
    "a row less": (written(place_of(*SHAPE), 2), "images: expected 8192 bytes, found 12288"),
}


@pytest.mark.parametrize(("make", "reason"), WRITTEN.values(), ids=WRITTEN)
def test_what_hdf5_would_not_write_is_refused(tmp_path, make, reason):
    path = tmp_path / "images.h5"
    make(path)
    assert_refused(path, reason)


# --- random damage ----------------------------------------------------------------------------------------------------


def test_packs_with_damage_are_read_correctly_or_refused(tmp_path):
    said = campaign(range(400), 1, str(tmp_path), seconds=60)
    assert said["failures"] == {}
    assert said["opened"] > 10
    assert said["refused"] > 200


def crash(path: str, where: str) -> str:
    os.kill(os.getpid(), signal.SIGKILL)
    return "opened"


def hang(path: str, where: str) -> str:
    time.sleep(60)
    return "opened"


def takes_much(path: str, where: str) -> str:
    return "opened" if len(b"x" * (5 << 28)) else ""  # 1.25 GiB


def raises(path: str, where: str) -> str:
    return examine(path + "/nowhere")


@pytest.mark.parametrize(
    ("look", "failure", "seconds"),
    [
        (crash, "crash: SIGKILL", 30),
        (hang, "hang", 1),
        (takes_much, "memory: opened", 30),
        (raises, "exception: NotADirectoryError in _open", 30),
    ],
)
def test_what_the_campaign_looks_for_is_found(tmp_path, look, failure, seconds):
    said = campaign(range(2), 1, str(tmp_path), look, seconds=seconds)
    assert said["failures"] == {failure: 2}
    assert len(list(tmp_path.iterdir())) == 2
