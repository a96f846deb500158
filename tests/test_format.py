"""Tests of the file format: HDF5 libraries read what `seal` writes, and `PackedImages` refuses all other files."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from h5split import FormatError, PackedImages
from h5split.commands.verify import verify
from h5split.file.format import decode, encode, read
from h5split.file.sealing import Tables, images_offset, seal
from h5split.system import files
from h5split.system.files import read_at

ROWS = 6
PIXELS = np.random.default_rng(0).integers(0, 256, (ROWS, 8, 8, 3), dtype=np.uint8)
PIXELS_AT = images_offset(PIXELS[0].nbytes)
PIXELS_END = PIXELS_AT + PIXELS.nbytes


def tables(rows: int = ROWS, **changes: object) -> Tables:
    """Return the tables of a pack of `rows` images."""
    columns = {"source": ["data"] * rows, "patient": [f"p{row // 2}" for row in range(rows)]}
    values = {
        "labels": np.arange(rows, dtype=np.int32) % 2,
        "class_names": ["cat", "dog"],
        "filenames": [f"data/cat/{row}.png" for row in range(rows)],
        "columns": columns,
        "digests": np.random.default_rng(1).integers(0, 256, (rows, 32), dtype=np.uint8),
        "checksums": np.random.default_rng(2).integers(0, 2**64, rows, dtype=np.uint64),
        "skipped": [("data/cat/broken.png", "no image"), ("data/dog/empty.png", "no bytes")],
        "settings": {"fit": "stretch", "size": [8, 8]},
        "packed_by": {"pack-images": "0.1.0"},
    }
    return Tables(**(values | changes))  # type: ignore[arg-type]


def write(path: Path, pixels: np.ndarray = PIXELS, content: Tables | None = None, before: bytes = b"") -> Path:
    """Seal a pack around `pixels`, in a file whose earlier content is `before`."""
    path.write_bytes(before)
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.pwrite(descriptor, pixels.tobytes(), images_offset(pixels[0].nbytes))
        seal(descriptor, pixels.shape, tables(len(pixels)) if content is None else content, pixels.dtype)
    finally:
        os.close(descriptor)
    return path


def touch(path: Path) -> None:
    """Access every array and text of a pack."""
    pack = PackedImages(path)
    for array in (pack.images, pack.labels, pack.digests, pack.checksums):
        array.copy()
    for texts in (pack.filenames, *pack.columns.values()):
        assert len(list(texts)) == len(pack)
    assert pack.skipped is not None
    assert repr(pack)


def assert_refused(path: Path, reason: str) -> None:
    """Check that a file is refused with one line: its path and a reason."""
    with pytest.raises(FormatError, match=rf"\A{re.escape(str(path))}: .*(?:{reason}).*\Z"):
        PackedImages(path)


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Start another process that runs `code`."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    return write(tmp_path / "images.h5")


# --- the seal of the metadata -----------------------------------------------------------------------------------------


def reads_of(path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Open a pack. Return (place, bytes) of each read."""
    found = []

    def noted(descriptor: int, count: int, start: int) -> bytes:
        found.append((start, count))
        return read_at(descriptor, count, start)

    with monkeypatch.context() as patch:
        patch.setattr(files, "read_at", noted)
        touch(path)
    return found


@pytest.mark.parametrize("columns", [1, 300])
def test_all_metadata_are_found_with_two_reads(tmp_path, monkeypatch, columns):
    pixels = np.zeros((3, 64, 64, 3), np.uint8)
    content = tables(3, columns={f"column {number}": ["a", "b", "c"] for number in range(columns)})
    path = write(tmp_path / "images.h5", pixels, content)
    page, rest, *of_tables = reads_of(path, monkeypatch)
    assert page == (0, 4096)
    assert rest[0] == 4096 + pixels.nbytes
    assert all(start + count <= 4096 or start >= sum(rest) for start, count in of_tables)
    with h5py.File(path) as file:
        assert sorted(file["columns"]) == sorted(content.columns)


def test_metadata_that_h5py_has_changed_are_read_as_they_are_now(sealed, monkeypatch):
    with h5py.File(sealed, "r+") as file:
        file.attrs.modify("settings", np.bytes_(json.dumps({"fit": "pad", "size": [8, 8]}).encode()))
        file.attrs["note"] = "added"
    assert PackedImages(sealed).header.settings == {"fit": "pad", "size": [8, 8]}
    assert len(reads_of(sealed, monkeypatch)) > 20


@pytest.mark.parametrize(
    "change",
    [
        lambda seal: bytes(len(seal)),
        lambda seal: seal[:8] + b"\xff" * 24,
        lambda seal: seal[:8] + (1 << 63).to_bytes(8, "little") + seal[16:],
        lambda seal: seal[:16] + (0).to_bytes(8, "little") + seal[24:],
        lambda seal: seal[:16] + (1 << 62).to_bytes(8, "little") + seal[24:],
        lambda seal: seal[:-1] + bytes([seal[-1] ^ 1]),
    ],
    ids=["none", "nonsense", "elsewhere", "of nothing", "of too much", "another checksum"],
)
def test_a_pack_with_a_seal_that_is_not_right_is_read_without_it(sealed, monkeypatch, change):
    """So are packs of versions before there was one."""
    data = bytearray(sealed.read_bytes())
    data[4064:4096] = change(bytes(data[4064:4096]))
    sealed.write_bytes(data)
    assert len(reads_of(sealed, monkeypatch)) > 20


def test_sealed_metadata_with_a_flipped_bit_are_refused(sealed):
    whole = sealed.read_bytes()
    place, count = (int.from_bytes(whole[at : at + 8], "little") for at in (4072, 4080))
    headers = [found.start() for found in re.finditer(b"OHDR", whole) if place <= found.start() < place + count]
    assert len(headers) > 5
    for at in headers:
        damaged = bytearray(whole)
        damaged[at + 20] ^= 4
        sealed.write_bytes(damaged)
        assert_refused(sealed, "not what they were")


# --- sealed content is read back --------------------------------------------------------------------------------------

unicode_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
any_bytes = st.binary(max_size=20).map(lambda raw: decode(raw.rstrip(b"\0")))
text = unicode_text | any_bytes
json_value = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
column_name = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0/"), min_size=1, max_size=8)


@st.composite
def packs(draw: st.DrawFn) -> tuple[np.ndarray, Tables]:
    shape = (
        draw(st.integers(1, 6)),
        draw(st.integers(1, 20)),
        draw(st.integers(1, 20)),
        draw(st.sampled_from([1, 3, 4])),
    )
    random, rows = np.random.default_rng(draw(st.integers(0, 2**32))), shape[0]
    texts = st.lists(text, min_size=rows, max_size=rows)
    names = draw(st.lists(text, min_size=1, max_size=5, unique=True))
    content = Tables(
        labels=random.integers(0, len(names), rows).astype(np.int32),
        class_names=sorted(names),
        filenames=draw(texts),
        columns=draw(st.dictionaries(column_name.filter(lambda name: name != "."), texts, max_size=3))
        | {"source": draw(texts)},
        digests=random.integers(0, 256, (rows, 32), dtype=np.uint8),
        checksums=random.integers(0, 2**64, rows, dtype=np.uint64),
        settings=draw(st.dictionaries(st.text(max_size=5), json_value, max_size=4)),
        packed_by=draw(st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3)),
        skipped=draw(st.lists(st.tuples(text, text), max_size=4)),
    )
    return random.integers(0, 256, shape, dtype=np.uint8), content


def assert_reads_as(path: Path, pixels: np.ndarray, content: Tables) -> None:
    pack = PackedImages(path)
    assert np.array_equal(pack.images, pixels)
    assert np.array_equal(pack.labels, content.labels)
    assert np.array_equal(pack.digests, content.digests)
    assert np.array_equal(pack.checksums, content.checksums)
    assert pack.class_names == tuple(content.class_names)
    assert list(pack.filenames) == content.filenames
    assert {name: list(texts) for name, texts in pack.columns.items()} == content.columns
    assert pack.skipped == content.skipped
    assert pack.header.settings == content.settings
    assert pack.header.packed_by == content.packed_by
    assert pack.header.size == path.stat().st_size


@given(pack=packs())
@example(pack=(PIXELS, tables(skipped=[])))
@settings(max_examples=60, deadline=None)
def test_sealed_content_is_read_back(tmp_path_factory, pack):
    pixels, content = pack
    assert_reads_as(write(tmp_path_factory.getbasetemp() / "round.h5", pixels, content), pixels, content)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("", id="empty"),
        pytest.param("猫/🐈‍⬛/naïve.png", id="unicode"),
        pytest.param(os.fsdecode(b"caf\xe9/\xff\xfe\x80.png"), id="bytes that are not UTF-8"),
        pytest.param("line\nfeed\ttab .png ", id="white space"),
        pytest.param("x" * 100_000, id="very long"),
        pytest.param("\N{CAT}" * 1001, id="long and of several bytes a character"),
    ],
)
def test_any_name_is_read_back_unchanged(tmp_path, name):
    names = ["first", name, "third", name, "", "last"]
    content = tables(
        filenames=names,
        columns={"source": names[::-1]},
        class_names=sorted([name, "emu"]),
        skipped=[(name, "reason"), ("other", name)],
    )
    assert_reads_as(write(tmp_path / "named.h5", PIXELS, content), PIXELS, content)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("Größe", id="unicode"),
        pytest.param("patient id", id="space"),
        pytest.param("..", id="two dots"),
        pytest.param("x" * 5000, id="very long"),
        pytest.param("train/val", id="slash"),
        pytest.param(".", id="dot"),
        pytest.param("50%2F", id="percent"),
        pytest.param(os.fsdecode(b"Gr\xf6\xdfe"), id="bytes that are not UTF-8"),
    ],
)
def test_a_column_may_have_any_name(tmp_path, name):
    content = tables(columns={"source": ["data"] * ROWS, name: list("abcdef")})
    assert_reads_as(write(tmp_path / "columns.h5", PIXELS, content), PIXELS, content)


def test_an_empty_column_name_is_refused(tmp_path):
    with pytest.raises(ValueError, match="columns: expected a name, found an empty one"):
        write(tmp_path / "columns.h5", PIXELS, tables(columns={"": list("abcdef")}))


def test_settings_may_be_larger_than_an_hdf5_object_header(tmp_path):
    content = tables(settings={"reader": "x" * 200_000})
    assert_reads_as(write(tmp_path / "images.h5", PIXELS, content), PIXELS, content)


@pytest.mark.parametrize(("names", "length"), [(300, 3_400), (10, 100_000), (1, 1_000_000)], ids=str)
def test_columns_whose_names_total_a_megabyte_are_read(tmp_path, names, length):
    content = tables(columns={"source": ["data"] * ROWS, **{f"{at:0{length}}": list("abcdef") for at in range(names)}})
    assert_reads_as(write(tmp_path / "columns.h5", PIXELS, content), PIXELS, content)


def test_a_column_of_one_long_text_and_many_short_ones_is_read_back(tmp_path):
    texts = [f"{row} é" for row in range(ROWS)]
    texts[2] = "x" * 5_000_000
    content = tables(columns={"source": ["data"] * ROWS, "notes": texts})
    path = write(tmp_path / "notes.h5", PIXELS, content)
    assert_reads_as(path, PIXELS, content)
    assert verify(PackedImages(path)).tables


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 13])
@pytest.mark.parametrize("dtype", ["u1", "<u2", "<f4"])
@pytest.mark.parametrize("side", [1, 5, 40])
def test_pixels_of_every_type_and_any_number_of_channels_are_read_back(tmp_path, dtype, channels, side):
    values = np.random.default_rng(5).integers(0, 2**32, (ROWS, side, side, channels))
    pixels = values.astype("<u4").view("<f4") if dtype == "<f4" else values.astype(dtype)  # NaN and infinity too
    path = write(tmp_path / "images.h5", pixels)
    pack = PackedImages(path)
    assert pack.dtype == pack.images.dtype == np.dtype(dtype)
    assert pack.images.flags.aligned
    assert pack.header.images.offset % 4096 == 0
    assert pack.images.tobytes() == pixels.tobytes()
    with h5py.File(path) as file:
        assert file["images"].dtype == np.dtype(dtype)
        assert file["images"][()].tobytes() == pixels.tobytes()
        assert [dim.label for dim in file["images"].dims] == ["N", "H", "W", "C"]
        assert file.attrs["version"] == (1 if dtype == "u1" and channels in (1, 3, 4) else 2)


@pytest.mark.parametrize("dtype", ["i2", ">u2", "f8", "bool"])
def test_pixels_of_other_types_are_not_sealed(tmp_path, dtype):
    with pytest.raises(ValueError, match="expected pixels of uint8, uint16 or float32, found"):
        write(tmp_path / "images.h5", PIXELS.astype(dtype))


def test_uint8_of_unusual_channels_in_version_1_is_read(tmp_path):
    path = write(tmp_path / "images.h5", PIXELS[..., :2])
    with h5py.File(path, "r+") as file:
        file.attrs["version"] = 1
    assert np.array_equal(PackedImages(path).images, PIXELS[..., :2])


@given(raw=st.binary())
@settings(deadline=None)
def test_decode_and_encode_are_inverse(raw):
    assert encode(decode(raw)) == raw


# --- the layout ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 2, 300])
@pytest.mark.parametrize(
    "image", [(1, 1, 1), (1, 1, 3), (4, 4, 3), (16, 17, 1), (8, 8, 3), (32, 32, 3), (63, 65, 1)], ids=str
)
def test_pixels_begin_at_a_page_that_depends_only_on_the_image_size(tmp_path, image, rows):
    pixels = np.random.default_rng(3).integers(0, 256, (rows, *image), dtype=np.uint8)
    path = write(tmp_path / "images.h5", pixels)
    offset = PackedImages(path).header.images.offset
    assert offset == images_offset(pixels[0].nbytes)
    assert offset % 4096 == 0
    assert path.read_bytes()[offset : offset + pixels.nbytes] == pixels.tobytes()


@pytest.mark.parametrize("image", [(64, 64, 1), (40, 40, 3), (300, 301, 4)], ids=str)
def test_images_of_a_page_or_more_begin_at_byte_4096(tmp_path, image):
    path = write(tmp_path / "images.h5", np.zeros((1, *image), np.uint8))
    assert PackedImages(path).header.images.offset == 4096


def test_h5py_reads_a_pack(sealed):
    with h5py.File(sealed) as file:
        images = file["images"]
        assert np.array_equal(images, PIXELS)
        assert [dim.label for dim in images.dims] == ["N", "H", "W", "C"]
        assert file["labels"].dtype == "<i4"
        assert file["labels"][()].tolist() == [0, 1] * 3
        assert file["class_names"].asstr()[()].tolist() == ["cat", "dog"]
        assert file["filenames"].asstr()[1] == "data/cat/1.png"
        assert file["columns/patient"].asstr()[()].tolist() == ["p0", "p0", "p1", "p1", "p2", "p2"]
        assert file["skipped/reasons"].asstr()[()].tolist() == ["no image", "no bytes"]
        assert file.attrs["format"] == b"packed-images"
        assert file.attrs["version"] == 1
        assert json.loads(file.attrs["settings"]) == {"fit": "stretch", "size": [8, 8]}
        assert json.loads(file.attrs["packed_by"]) == {"pack-images": "0.1.0"}


def test_every_data_set_is_contiguous_and_unfiltered(sealed):
    found = []

    def check(name: str, item: h5py.Dataset | h5py.Group) -> None:
        if isinstance(item, h5py.Dataset):
            layout = item.id.get_create_plist()
            assert layout.get_layout() == h5py.h5d.CONTIGUOUS
            assert layout.get_nfilters() == layout.get_external_count() == 0
            found.append(name)

    with h5py.File(sealed) as file:
        file.visititems(check)
        assert file["images"].id.get_offset() == PIXELS_AT
    assert len(found) == 10


@pytest.mark.skipif(shutil.which("h5dump") is None, reason="needs h5dump, of the HDF5 command line tools")
def test_h5dump_reads_a_pack(sealed):
    dump = subprocess.run(["h5dump", "-H", sealed], capture_output=True, text=True, check=True).stdout
    assert 'DATASET "images"' in dump
    assert "( 6, 8, 8, 3 ) / ( 6, 8, 8, 3 )" in dump


def test_sealing_again_later_gives_the_same_bytes(sealed):
    first = sealed.read_bytes()
    time.sleep(1.1)  # the time stamps of HDF5 have a resolution of a second
    descriptor = os.open(sealed, os.O_RDWR)
    seal(descriptor, PIXELS.shape, tables())
    os.close(descriptor)  # seal leaves it open
    assert sealed.read_bytes() == first


def test_earlier_content_of_the_file_does_not_affect_the_pack(sealed, tmp_path):
    garbage = np.random.default_rng(4).bytes(100_000)
    assert write(tmp_path / "garbage.h5", before=garbage).read_bytes() == sealed.read_bytes()


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
@pytest.mark.parametrize("missing", [1, 4000], ids=["for the last byte", "for the tables"])
def test_a_full_disk_is_an_os_error(sealed, missing):
    code = """
import os, resource, sys
sys.path.insert(0, sys.argv[3])
from test_format import write
from pathlib import Path
limit = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    write(Path(sys.argv[1]))
except OSError as error:
    print(os.strerror(error.errno))
"""
    child = python(code, sealed, sealed.stat().st_size - missing, Path(__file__).parent)
    assert child.communicate()[0] == "File too large\n"
    assert child.returncode == 0


# --- refused files ----------------------------------------------------------------------------------------------------

Change = Callable[[h5py.File], object]


def replaced(name: str, **options: object) -> Change:
    """Replace `name` by another data set."""

    def change(file: h5py.File) -> None:
        del file[name]
        file.create_dataset(name, **options)

    return change


def moved(name: str, link: object) -> Change:
    """Move `name` to `elsewhere`, and put a link in its place."""

    def change(file: h5py.File) -> None:
        file.move(name, "elsewhere")
        file[name] = link

    return change


def without(name: str) -> Change:
    return lambda file: file.pop(name)


def attribute(name: str, value: object) -> Change:
    return lambda file: file.attrs.__setitem__(name, value)


def group(name: str) -> Change:
    def change(file: h5py.File) -> None:
        del file[name]
        file.create_group(name)

    return change


def virtual(file: h5py.File) -> None:
    file.move("images", "elsewhere")
    layout = h5py.VirtualLayout(PIXELS.shape, "u1")
    layout[:] = h5py.VirtualSource(file["elsewhere"])
    file.create_virtual_dataset("images", layout)


def compact(file: h5py.File) -> None:
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_layout(h5py.h5d.COMPACT)
    replaced("images", data=PIXELS, dcpl=creation)(file)


def overlapping(file: h5py.File) -> None:
    file["columns/other"] = file["columns/source"]


def of_version_2(pixels: np.ndarray) -> Change:
    """Put other pixels in a file that claims to be of version 2."""

    def change(file: h5py.File) -> None:
        file.attrs["version"] = 2
        replaced("images", data=pixels)(file)

    return change


def odd_floats(file: h5py.File) -> None:
    """Put floats of 32 bits that are none of IEEE 754."""
    file.attrs["version"] = 2
    del file["images"]
    odd = h5py.h5t.IEEE_F32LE.copy()
    odd.set_ebias(100)
    space = h5py.h5s.create_simple(PIXELS.shape)
    h5py.Dataset(h5py.h5d.create(file.id, b"images", odd, space))


def unaligned(file: h5py.File) -> None:
    """Put floats after a column whose length is no multiple of 4 bytes."""
    file.attrs["version"] = 2
    file.move("images", "elsewhere")
    file.create_dataset("columns/short", data=np.zeros(ROWS, "S1"))
    file.create_dataset("images", data=PIXELS[:, :2, :2].astype("f4"))


SOFT, EXTERNAL = h5py.SoftLink("/elsewhere"), h5py.ExternalLink("other.h5", "/elsewhere")
OF_VERSION_2 = "images: expected uint8, uint16 or float32, found"
LINK = "expected a data set in this file, found a link"
STORAGE = "images: expected plain bytes in this file, found {} storage; pack again"
UNALLOCATED = {"shape": PIXELS.shape, "dtype": "u1"}  # without data, HDF5 allocates no storage
VARIABLE = {"data": ["name"] * ROWS, "dtype": h5py.string_dtype()}

REFUSED: dict[str, tuple[Change, str]] = {
    "no attributes": (lambda file: file.attrs.clear(), "expected a pack .*, found another HDF5 file"),
    "no format": (lambda file: file.attrs.pop("format"), "found another HDF5 file"),
    "another format": (
        attribute("format", np.bytes_("pictures")),
        "found another HDF5 file of format 'pictures'; pack_images.write.* makes a pack of its arrays",
    ),
    "format is an integer": (attribute("format", 1), "found another HDF5 file"),
    "format is an array": (
        attribute("format", [b"a", b"b"]),
        r"found variable-length data of shape \(2,\) in it; if it",
    ),
    "format is empty": (attribute("format", h5py.Empty("S1")), "found no value in it"),
    "format is a str": (
        attribute("format", "packed-images"),
        r"as fixed-length text\), found variable-length data in it; if it says so, write it with h5py as numpy.bytes_",
    ),
    "settings are a str": (
        attribute("settings", "{}"),
        "attribute settings: expected fixed-length text, found variable-length data; h5py writes a numpy.bytes_ as",
    ),
    "format is no UTF-8": (attribute("format", np.bytes_(b"\xff")), "found another HDF5 file"),
    "no version": (lambda file: file.attrs.pop("version"), "attribute version: expected an integer, found none"),
    "a newer version": (attribute("version", 3), "expected version 1 or 2, found version 3; upgrade with: pip install"),
    "version is text": (
        attribute("version", "1"),
        "attribute version: expected an integer, found variable-length data",
    ),
    "version is a float": (attribute("version", 1.0), "attribute version: expected an integer, found float64"),
    "version is an array": (
        attribute("version", [1]),
        r"attribute version: expected an integer, found int64 of shape \(1,\)",
    ),
    "no settings": (
        lambda file: file.attrs.pop("settings"),
        "attribute settings: expected fixed-length text, found none",
    ),
    "settings are no JSON": (attribute("settings", np.bytes_(b"{'fit': 1}")), "damaged.*double quotes"),
    "settings are a list": (
        attribute("settings", np.bytes_(b"[1]")),
        "attribute settings: expected a JSON object, found list",
    ),
    "settings are nested too deeply": (attribute("settings", np.bytes_(b"[" * 60_000)), "damaged"),
    "packed_by is no JSON": (attribute("packed_by", np.bytes_(b"")), "damaged"),
    "packed_by is an array": (
        attribute("packed_by", [1, 2]),
        r"attribute packed_by: expected fixed-length text, found int64 of shape \(2,\)",
    ),
    "no images": (without("images"), "images is missing"),
    "images chunked": (replaced("images", data=PIXELS, chunks=True), STORAGE.format("chunked")),
    "images gzipped": (replaced("images", data=PIXELS, compression="gzip"), STORAGE.format("filtered")),
    "images compact": (compact, STORAGE.format("compact")),
    "images external": (
        replaced("images", **UNALLOCATED, external=[("raw", 0, PIXELS.nbytes)]),
        STORAGE.format("external"),
    ),
    "images virtual": (virtual, STORAGE.format("virtual")),
    "images a soft link": (moved("images", SOFT), f"images: {LINK}"),
    "images an external link": (moved("images", EXTERNAL), f"images: {LINK}"),
    "images a dangling link": (moved("images", h5py.SoftLink("/nowhere")), "images"),
    "images a group": (group("images"), "images: expected a data set, found a group"),
    "images a type": (moved("images", np.dtype("u1")), "images: expected a data set"),
    "images float": (replaced("images", data=PIXELS.astype("f4")), "images: expected uint8, found float32"),
    "images uint16 in version 1": (
        replaced("images", data=PIXELS.astype("u2")),
        "images: expected uint8, found uint16",
    ),
    "images uint16 big-endian": (of_version_2(PIXELS.astype(">u2")), f"{OF_VERSION_2} >u2"),
    "images int16": (of_version_2(PIXELS.astype("i2")), f"{OF_VERSION_2} int16"),
    "images uint32": (of_version_2(PIXELS.astype("u4")), f"{OF_VERSION_2} uint32"),
    "images float32 big-endian": (of_version_2(PIXELS.astype(">f4")), f"{OF_VERSION_2} >f4"),
    "images float64": (of_version_2(PIXELS.astype("f8")), f"{OF_VERSION_2} float64"),
    "images float16": (of_version_2(PIXELS.astype("f2")), f"{OF_VERSION_2} float16"),
    "images uint16 without channels": (
        of_version_2(PIXELS[..., :0].astype("u2")),
        r"expected pixels, found shape \(6, 8, 8, 0\)",
    ),
    "images of odd floats": (odd_floats, f"{OF_VERSION_2} odd floats"),
    "images unaligned": (unaligned, r"images: expected to begin at a multiple of 4 bytes, found byte \d+; pack again"),
    "images int8": (replaced("images", data=PIXELS.view("i1")), "images: expected uint8, found int8"),
    "images of rank 3": (replaced("images", data=PIXELS[0]), r"images: expected 4 dimensions, found shape \(8, 8, 3\)"),
    "images without rows": (replaced("images", data=PIXELS[:0]), r"expected pixels, found shape \(0, 8, 8, 3\)"),
    "images without channels": (
        replaced("images", data=PIXELS[..., :0]),
        r"expected pixels, found shape \(6, 8, 8, 0\)",
    ),
    "images without a space": (replaced("images", data=h5py.Empty("u1")), "images: expected 4 dimensions"),
    "images never allocated": (replaced("images", **UNALLOCATED), "images: its storage was never allocated"),
    "fewer images": (
        replaced("images", data=PIXELS[1:]),
        r"labels: expected 5 rows, as images has, found shape \(6,\)",
    ),
    "no labels": (without("labels"), "labels is missing"),
    "labels int64": (replaced("labels", data=np.zeros(ROWS, "i8")), "labels: expected int32, found int64"),
    "labels big-endian": (replaced("labels", data=np.zeros(ROWS, ">i4")), "labels: expected int32, found >i4"),
    "labels too short": (replaced("labels", data=np.zeros(5, "i4")), "labels: expected 6 rows"),
    "labels of rank 2": (replaced("labels", data=np.zeros((ROWS, 1), "i4")), "labels: expected 6 rows"),
    "labels never allocated": (replaced("labels", shape=ROWS, dtype="i4"), "labels: its storage was never allocated"),
    "labels negative": (replaced("labels", data=np.full(ROWS, -1, "i4")), "labels: expected 0 to 1, found -1 to -1"),
    "labels beyond": (replaced("labels", data=np.arange(ROWS, dtype="i4")), "labels: expected 0 to 1, found 0 to 5"),
    "no class_names": (without("class_names"), "class_names is missing"),
    "class_names variable": (replaced("class_names", **VARIABLE), "class_names: expected fixed-length text"),
    "class_names of rank 0": (replaced("class_names", data=np.bytes_(b"cat")), "class_names: expected 1 dimensions"),
    "no class_name": (replaced("class_names", data=np.empty(0, "S1")), "labels: expected 0 to -1, found 0 to 1"),
    "no filenames": (without("filenames"), "filenames is missing"),
    "filenames variable": (
        replaced("filenames", **VARIABLE),
        "filenames: expected fixed-length text, found variable-length data",
    ),
    "filenames numbers": (replaced("filenames", data=np.arange(ROWS)), "filenames: expected fixed-length text"),
    "digests narrow": (
        replaced("digests", data=np.zeros((ROWS, 16), "u1")),
        "digests: expected 32 bytes a row, found 16",
    ),
    "digests of rank 1": (replaced("digests", data=np.zeros(ROWS, "u1")), "digests: expected 6 rows"),
    "no checksums": (without("checksums"), "checksums is missing"),
    "checksums signed": (replaced("checksums", data=np.zeros(ROWS, "i8")), "checksums: expected uint64, found int64"),
    "no columns": (without("columns"), "columns is missing"),
    "columns a data set": (replaced("columns", data=b"source"), "columns: expected a group"),
    "columns a soft link": (moved("columns", SOFT), f"columns: {LINK}"),
    "columns an external link": (moved("columns", EXTERNAL), f"columns: {LINK}"),
    "column too short": (replaced("columns/patient", data=np.zeros(5, "S3")), "columns/patient: expected 6 rows"),
    "column of numbers": (replaced("columns/patient", data=np.arange(ROWS)), "columns/patient: expected fixed-length"),
    "column a group": (group("columns/patient"), "columns/patient: expected a data set, found a group"),
    "column a soft link": (moved("columns/patient", SOFT), f"columns/patient: {LINK}"),
    "column an external link": (moved("columns/patient", EXTERNAL), f"columns/patient: {LINK}"),
    "column with a line feed": (
        lambda file: file.create_dataset("columns/a\nb", data=np.bytes_(b"c")),
        "expected 6 rows",
    ),
    "two columns in one place": (overlapping, r"two data sets overlap at byte \d+"),
    "no skipped": (without("skipped"), "skipped"),
    "no skipped/reasons": (without("skipped/reasons"), "skipped/reasons is missing"),
    "fewer reasons": (replaced("skipped/reasons", data=np.zeros(1, "S3")), "skipped: expected a reason for each"),
    "skipped a data set": (replaced("skipped", data=np.array([b"filenames", b"reasons"])), "skipped"),
    "skipped a number": (replaced("skipped", data=1.0), "skipped|damaged"),
    "skipped a soft link": (moved("skipped", SOFT), "skipped: expected .*link"),
    "skipped an external link": (moved("skipped", EXTERNAL), "skipped: expected .*link"),
    "skipped/filenames a soft link": (moved("skipped/filenames", SOFT), f"skipped/filenames: {LINK}"),
}


@pytest.mark.parametrize(("change", "reason"), REFUSED.values(), ids=REFUSED)
def test_a_pack_with_one_defect_is_refused(sealed, change, reason):
    with h5py.File(write(sealed.with_name("other.h5"), content=tables(filenames=["long" * 9] * ROWS)), "r+") as other:
        other["elsewhere"] = other["skipped"]  # the target of the external links
    with h5py.File(sealed, "r+") as file:
        change(file)
    assert_refused(sealed, reason)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(b"", "it is not an HDF5 file", id="empty"),
        pytest.param(b"path,label\na.png,cat\n" * 500, "it is not an HDF5 file", id="text"),
        pytest.param(b"\x89HDF\r\n\x1a\n", "cut short", id="signature"),
        pytest.param(
            b"\x89HDF\r\n\x1a\n" + bytes(5000),
            "another HDF5 file, in the format from before version 1.8 ",
            id="signature and zeros",
        ),
    ],
)
def test_a_file_that_is_not_a_pack_is_refused(tmp_path, content, reason):
    path = tmp_path / "images.h5"
    path.write_bytes(content)
    assert_refused(path, reason)


def by_hand(path: Path, text: Callable[[str], object] = np.bytes_, **options: object) -> Path:
    """Write a pack with h5py alone, according to the specification of the format."""

    def texts(values: list[str]) -> np.ndarray:
        return np.array([value.encode() for value in values]).astype(h5py.string_dtype("utf-8", 20))

    with h5py.File(path, "w", **{"libver": "v108", **options}) as file:
        file["images"] = PIXELS
        file["labels"] = np.array([0, 1] * 3, "<i4")
        file["class_names"], file["filenames"] = texts(["cat", "dog"]), texts([f"{row}.png" for row in range(ROWS)])
        file["columns/source"] = texts(["hand"] * ROWS)
        file["digests"], file["checksums"] = np.zeros((ROWS, 32), "u1"), np.zeros(ROWS, "<u8")
        file["skipped/filenames"], file["skipped/reasons"] = texts(["x.png"]), texts(["broken"])
        for name, value in {"format": "packed-images", "settings": "{}", "packed_by": "{}"}.items():
            file.attrs[name] = text(value)
        file.attrs["version"] = 1
    return path


@pytest.mark.parametrize("options", [{}, {"libver": "v110"}, {"alignment_threshold": 4096, "alignment_interval": 4096}])
def test_a_pack_written_with_h5py_opens(tmp_path, options):
    pack = PackedImages(by_hand(tmp_path / "images.h5", **options))
    assert np.array_equal(pack.images, PIXELS)
    assert list(pack.filenames) == [f"{row}.png" for row in range(ROWS)]
    assert pack.skipped == [("x.png", "broken")]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        pytest.param(
            {"text": str},
            r"\(attribute format = 'packed-images' as fixed-length text\), found variable-length data in it",
            id="text as h5py writes a str",
        ),
        pytest.param(
            {"text": lambda value: [np.bytes_(value)]}, r"found fixed-length text of shape \(1,\) in it", id="lists"
        ),
        pytest.param(
            {"libver": "earliest"},
            r"in the format from before version 1\.8 \(superblock of version 0\)",
            id="as HDF5 1.6",
        ),
        pytest.param(
            {"userblock_size": 512, "libver": ("earliest", "v110")}, "superblock of version 0", id="a user block"
        ),
    ],
)
def test_mistakes_in_a_pack_written_with_h5py_are_named(tmp_path, options, reason):
    assert_refused(by_hand(tmp_path / "images.h5", **options), reason)


def test_a_folder_is_refused_with_the_command_that_packs_it(tmp_path):
    assert_refused(tmp_path, f"expected a pack, found a folder; pack-images {tmp_path} -o OUT.h5 packs it")


def test_a_missing_file_is_file_not_found_with_the_command_that_makes_it(tmp_path):
    path = tmp_path / "none.h5"
    expected = f"{path}: there is no such file; pack-images SOURCE... -o {path} makes one"
    with pytest.raises(FileNotFoundError, match=rf"\A{re.escape(expected)}\Z"):
        PackedImages(path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_read_permission_is_a_permission_error(sealed):
    sealed.chmod(0)
    with pytest.raises(PermissionError, match="Permission denied"):
        PackedImages(sealed)


def test_a_superblock_of_another_version_is_refused(sealed):
    content = bytearray(sealed.read_bytes())
    content[8] = 99
    sealed.write_bytes(content)
    assert_refused(sealed, "expected a superblock of version 2 or 3, found 99")


@pytest.mark.parametrize(
    "length",
    [
        0,
        4,
        8,
        20,
        47,
        48,
        49,
        200,
        447,
        2000,
        4095,
        4096,
        4097,
        PIXELS_END - 1,
        PIXELS_END,
        PIXELS_END + 1,
        -4000,
        -100,
        -1,
    ],
)
def test_a_file_cut_short_is_refused(sealed, length):
    sealed.write_bytes(sealed.read_bytes()[:length])
    assert_refused(sealed, "cut short|not an HDF5 file")


def test_bytes_after_the_end_of_a_pack_are_ignored(sealed):
    with open(sealed, "ab") as file:
        file.write(b"more")
    touch(sealed)


def test_a_pack_with_a_user_block_is_read(sealed, tmp_path):
    path = tmp_path / "user.h5"
    with h5py.File(sealed) as source, h5py.File(path, "w", userblock_size=512, libver="v108") as copy:
        for name in source:
            source.copy(name, copy, name)
        copy.attrs.update(source.attrs)
    assert_reads_as(path, PIXELS, tables())


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
def test_a_refusal_leaves_no_file_open(sealed):
    with h5py.File(sealed, "r+") as file:
        del file["skipped"]
    before = os.listdir("/proc/self/fd")
    assert_refused(sealed, "skipped")
    assert os.listdir("/proc/self/fd") == before


def test_read_returns_a_descriptor_of_the_file_it_checked(sealed):
    descriptor, _, header = read(sealed)
    try:
        assert os.path.samestat(os.fstat(descriptor), os.stat(sealed))
        assert os.pread(descriptor, header.images.nbytes, header.images.offset) == PIXELS.tobytes()
    finally:
        os.close(descriptor)


def test_a_file_open_for_writing_elsewhere_is_refused_until_the_writer_ends(sealed):
    writer = python("import h5py, sys; file = h5py.File(sys.argv[1], 'r+'); print(flush=True); input()", sealed)
    writer.stdout.readline()
    assert_refused(sealed, "another process is writing to it; try again when it has finished")
    writer.send_signal(signal.SIGTERM)  # ends while writing; the file keeps no record of that
    writer.communicate()
    touch(sealed)


# --- damage ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict[str, tuple[bytes, list[int]]]:
    """Packs as `seal` and as the newest HDF5 format write them: their bytes, and the offsets of their metadata."""
    folder = tmp_path_factory.mktemp("whole")
    with h5py.File(write(folder / "sealed"), "r") as source, h5py.File(folder / "new", "w", libver="latest") as copy:
        source.visititems(partial(_copy, copy))
        copy.attrs.update(source.attrs)
    return {name: _metadata(folder / name) for name in ("sealed", "new")}


def _copy(copy: h5py.File, name: str, item: h5py.Dataset | h5py.Group) -> None:
    if isinstance(item, h5py.Dataset):
        copy.create_dataset(name, data=item[()], dtype=item.dtype)


def _metadata(path: Path) -> tuple[bytes, list[int]]:
    content, images = path.read_bytes(), PackedImages(path).header.images
    pixels = range(images.offset, images.offset + images.nbytes)
    return content, [at for at in range(len(content)) if at not in pixels and any(content[max(0, at - 8) : at + 9])]


@pytest.mark.parametrize("kind", ["sealed", "new"])
@given(
    flips=st.lists(st.tuples(st.integers(0, 2**32), st.integers(0, 255)), max_size=8),
    length=st.none() | st.integers(0, 2**32),
)
@settings(max_examples=200, deadline=None)
def test_damaged_metadata_is_read_or_refused(tmp_path_factory, whole, kind, flips, length):
    content, metadata = whole[kind]
    damaged = bytearray(content)
    for at, value in flips:
        damaged[metadata[at % len(metadata)]] = value
    path = tmp_path_factory.getbasetemp() / "damaged.h5"
    path.write_bytes(damaged if length is None else damaged[: length % len(damaged)])
    try:
        touch(path)
    except FormatError:
        assert_refused(path, "")
