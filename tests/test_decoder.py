"""Decoders written by users (--decoder): in workers, on Dask, and in packs that are made again."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import PATIENCE
from h5split import PackedImages
from pack_images import DecodeError, Manifest, PackError, pack, prepare
from pack_images.decode.row import decoded
from pack_images.functions import decoder_of
from pack_images.options import pixels_of

DECODER = """
import numpy as np

def read(data):
    if data == b"bad":
        raise ValueError("nothing in it\\nat all")
    return np.frombuffer(data, "<f4").reshape(6, 5)
"""
DICOM = """
import io

import numpy as np
import pydicom
from pydicom.pixels import apply_modality_lut


def read(data):
    scan = pydicom.dcmread(io.BytesIO(data))
    return apply_modality_lut(scan.pixel_array, scan).astype(np.float32)  # Hounsfield units of a CT
"""


def values_of(number):
    return np.random.default_rng(number).random((6, 5), np.float32) * 1000


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A decoder, and files of its own kind in two classes: with and without an extension, and one that is broken."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "own.py").write_text(DECODER)
    for number in range(8):
        at = tmp_path / "data" / "ab"[number % 2] / (f"{number}.raw" if number % 3 else f"{number}")
        at.parent.mkdir(parents=True, exist_ok=True)
        at.write_bytes(values_of(number).tobytes())
    (tmp_path / "data/a/broken.raw").write_bytes(b"bad")
    yield tmp_path
    for name, module in [*sys.modules.items()]:
        if str(getattr(module, "__file__", "")).startswith(f"{tmp_path}/"):
            del sys.modules[name]


def assert_whole(path, count=8):
    packed = PackedImages(path)
    assert len(packed) == count
    assert packed.dtype == np.float32
    for name, image in zip(packed.filenames, packed.images, strict=True):
        assert np.array_equal(image[..., 0], values_of(int(name.split("/")[-1].split(".")[0])))
    return packed


def own_pack(decoder="own.py:read", output="out.h5", **options):
    return pack("data", output, **{"color": "all", "dtype": "float32", "workers": 1, **options}, decoder=decoder)


@pytest.mark.parametrize("given", ["own:read", "own.py:read", "./own.py:read"])
def test_a_decoder_decodes_every_file_of_a_folder(here, given):
    summary = own_pack(given, workers=2)
    packed = assert_whole("out.h5")
    assert packed.header.settings["decoder"] == "own:read"
    reason = "own:read raised ValueError: nothing in it at all; own.py, line 6"
    assert [*summary.skipped] == [("data/a/broken.raw", reason)]


def test_the_same_decoder_gives_the_same_bytes_however_it_is_named(here):
    own_pack("own:read")
    first = Path("out.h5").read_bytes()
    own_pack(str(here / "own.py") + ":read", "other.h5", workers=2)
    assert Path("other.h5").read_bytes() == first


def test_rows_of_another_decoder_are_not_reused(here):
    (here / "other.py").write_text(DECODER.replace("(6, 5)", "(6, 5) + 0"))
    own_pack()
    assert own_pack().copied == 8
    assert own_pack("other.py:read").copied == 0
    assert own_pack("other.py:read", reuse=False).copied == 0
    with pytest.raises(PackError, match=r"out.h5 was packed with decoder other:read, this run asks for own:read"):
        own_pack_of_packs("own.py:read")


def own_pack_of_packs(decoder):
    return pack(["out.h5"], "copy.h5", color="all", dtype="float32", decoder=decoder, workers=1)


def test_prepare_asks_for_the_decoder_of_the_pack(here):
    own_pack()
    data = values_of(30)
    assert np.array_equal(prepare("out.h5", data.tobytes(), decoder="own.py:read")[..., 0], data)
    assert np.array_equal(prepare("out.h5", data)[..., 0], data)  # an array needs none
    with pytest.raises(PackError, match=r"out.h5: expected the decoder that it was packed with, own:read, found none"):
        prepare("out.h5", data.tobytes())


def test_a_table_may_name_files_by_their_ids(here):
    Path("table.csv").write_text("id,label\n1,x\n2,y\n")
    manifest = Manifest("table.csv", root="data", path_column="id")
    pack([], "out.h5", color="all", dtype="float32", manifest=manifest, decoder="own.py:read", workers=1)
    assert sorted(assert_whole("out.h5", 2).filenames) == ["data/a/2.raw", "data/b/1.raw"]


def plain(data):
    """A decoder at the top of a module."""
    return np.frombuffer(data, np.uint8).reshape(2, 3)


def test_a_function_may_be_given_if_workers_can_import_it():
    how = pixels_of(None, color="grayscale", decoder=plain)
    assert how.as_json()["decoder"] == f"{__name__}:plain"
    assert pickle.loads(pickle.dumps(how)) == how
    assert decoded(bytes(range(6)), how)[0].squeeze().tolist() == [[0, 1, 2], [3, 4, 5]]
    for given in (lambda data: data, partial(plain), 5):
        with pytest.raises(PackError, match="decoder: expected a function that workers can import by its name, found"):
            decoder_of(given)


RETURNED = None


def returned(data):
    return RETURNED


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (np.zeros((2, 2)), r"found float64 of shape \(2, 2\)"),
        (np.zeros((2, 2, 2, 2), np.uint8), r"found uint8 of shape \(2, 2, 2, 2\)"),
        (np.zeros((0, 2), np.uint8), r"found uint8 of shape \(0, 2\)"),
        ("text", "found str"),
    ],
)
def test_what_is_no_picture_leaves_a_file_out(value, found, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "RETURNED", value)
    with pytest.raises(DecodeError, match=rf"returned: expected an array \(H, W\) or .*, {found}"):
        decoded(b"", pixels_of(None, color="all", decoder=returned))


class Panic(BaseException):
    """What libraries written in Rust raise; it is no Exception."""


class MuteError(Exception):
    def __str__(self):
        raise RuntimeError("no text")


class NoArray:
    def __array__(self, *arguments, **options):
        raise RuntimeError("not today")


def test_pages_are_not_asked_for_beside_a_decoder():
    with pytest.raises(PackError, match="pages: expected first beside a decoder, which returns all bands, found bands"):
        pixels_of(None, color="all", pages="bands", decoder=plain)


def raising(data):
    raise RETURNED


@pytest.mark.parametrize(
    ("error", "text"),
    [(Panic("out of range"), "Panic: out of range"), (SystemExit(0), "SystemExit: 0"), (MuteError(), "MuteError")],
)
def test_whatever_a_decoder_raises_leaves_a_file_out(error, text, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "RETURNED", error)
    with pytest.raises(DecodeError, match=rf"raising raised {text}; test_decoder.py, line"):
        decoded(b"", pixels_of(None, color="all", decoder=raising))


@pytest.mark.parametrize("reuse", [True, False])
def test_rows_of_a_run_that_did_not_finish_are_not_those_of_another_function_of_the_same_name(here, reuse):
    options = {"color": "all", "dtype": "float32", "decoder": "own.py:read", "workers": 1, "reuse": reuse}
    with pytest.raises(PackError, match=r"broken\.raw"):
        pack("data", "out.h5", strict=True, **options)
    assert pack("data", "same.h5", **options).rows == 8
    (here / "own.py").write_text(DECODER.replace("reshape(6, 5)", "reshape(6, 5) + 7"))
    summary = pack("data", "out.h5", **options)
    assert (summary.continued, summary.restarted) == (0, True)
    packed = PackedImages("out.h5")
    for name, image in zip(packed.filenames, packed.images, strict=True):
        assert np.array_equal(image[..., 0], values_of(int(Path(name).stem)) + 7), name


def test_an_interrupt_in_a_decoder_is_an_interrupt(monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "RETURNED", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        decoded(b"", pixels_of(None, color="all", decoder=raising))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([[1, 2], [3]], "returned: expected an array, or lists of equal lengths, found a list of 2 values"),
        (NoArray(), "returned raised RuntimeError: not today"),
        (
            np.ma.masked_array(np.zeros((2, 2), np.uint8), [[True, False], [False, False]]),
            r"returned: expected values, found a masked array that hides some; fill them with filled\(\)",
        ),
    ],
)
def test_lists_and_masks_that_are_no_array_leave_a_file_out(value, text, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "RETURNED", value)
    with pytest.raises(DecodeError, match=text):
        decoded(b"", pixels_of(None, color="all", decoder=returned))


def test_a_decoder_that_returns_bands_first_is_told_so(monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "RETURNED", np.zeros((13, 64, 64), np.uint16))
    with pytest.raises(DecodeError, match=r"^\(13, 64, 64\): bands first\? expected \(H, W, C\); array\.transpose"):
        decoded(b"", pixels_of(None, color="all", dtype="uint16", decoder=returned))


SOME = """
import numpy as np

def read(data):
    return np.frombuffer(data[3:], "<u2").reshape(6, 5) if data[:3] == b"own" else None
"""


@pytest.mark.parametrize(
    "options",
    [
        {"color": "rgb"},
        {"color": "rgb", "size": (4, 5)},
        {"color": "grayscale", "dtype": "uint16"},
        {"color": "all", "dtype": "float32"},
        {"color": "grayscale", "range": (0, 4095)},
    ],
    ids=str,
)
def test_files_for_which_a_decoder_returns_none_are_decoded_as_usual(here, options):
    Path("some.py").write_text(SOME)
    own, eight = np.arange(30, dtype="<u2").reshape(6, 5), np.arange(30, dtype=np.uint8).reshape(6, 5)
    for path in ("data/a", "usual/a"):
        os.makedirs(path, exist_ok=True)
        Image.fromarray(own * 130).save(f"{path}/deep.png")
        Image.fromarray(eight).save(f"{path}/eight.png")
        Image.fromarray(eight).save(f"{path}/eight.jpg")
    shutil.rmtree("data/b")
    for path in Path("data/a").glob("*.raw"):
        path.unlink()
    Path("data/a/0").unlink()
    Path("data/a/6").unlink(missing_ok=True)
    Path("data/a/own").write_bytes(b"own" + (own * 130).tobytes())
    Path("data/a/other").write_bytes(b"other")
    summary = pack("data", "out.h5", workers=1, decoder="some.py:read", **options)
    usual = pack("usual", "usual.h5", workers=1, **options)
    reason = "some:read returned None, so it was decoded as usual: not an image that Pillow knows"
    assert [*summary.skipped] == [("data/a/other", reason)]
    row_of = {os.path.basename(name): row for name, row in zip_rows("out.h5")}
    for name, row in zip_rows("usual.h5"):
        assert np.array_equal(row_of[os.path.basename(name)], row), name
    assert np.array_equal(row_of["own"], row_of["deep.png"])
    losses = [(name.replace("data", "usual"), text) for name, text in summary.losses if "own" not in name]
    assert sorted(usual.losses) == sorted(losses)


def zip_rows(path):
    packed = PackedImages(path)
    return zip(packed.filenames, packed.images, strict=True)


def test_colours_of_a_decoder_become_what_a_file_with_them_becomes(monkeypatch):
    colors = np.random.default_rng(0).integers(0, 256, (6, 5, 3), np.uint8)
    monkeypatch.setattr(sys.modules[__name__], "RETURNED", colors)
    assert np.array_equal(decoded(b"", pixels_of(None, decoder=returned))[0], colors)
    grey = decoded(b"", pixels_of((4, 4), color="grayscale", decoder=returned))[0]
    assert grey.shape == (4, 4, 1)
    monkeypatch.setattr(sys.modules[__name__], "RETURNED", colors[..., :1].repeat(5, axis=2))
    with pytest.raises(DecodeError, match="5 bands: expected grey or three colours"):
        decoded(b"", pixels_of(None, decoder=returned))
    four = colors[..., [0, 1, 2, 0]]
    monkeypatch.setattr(sys.modules[__name__], "RETURNED", four)
    assert np.array_equal(decoded(b"", pixels_of(None, color="rgba", decoder=returned))[0], four)
    with pytest.raises(DecodeError, match="4 bands: expected grey or three colours"):  # it may be infrared
        decoded(b"", pixels_of(None, decoder=returned))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("own.py", "--decoder own.py: expected MODULE:FUNCTION or FILE.py:FUNCTION"),
        ("own.py:write", "--decoder own.py:write: expected a function write in own.py, found none"),
        ("gone:read", "--decoder gone:read: expected the module gone, or a file gone.py, found neither"),
    ],
)
def test_a_decoder_that_is_not_there_is_an_error_before_anything_starts(here, given, message):
    with pytest.raises(PackError, match=f"^{message}"):
        own_pack(given)


@pytest.mark.skipif(find_spec("distributed") is None, reason="needs Dask: pip install 'pack-images[dask]'")
def test_a_decoder_works_on_dask(here):
    line = [sys.executable, "-m", "pack_images.cli", "data", "-o", "out.h5", "--dask", "local:1", "--quiet"]
    line += ["--decoder", "own.py:read", "--color", "all", "--dtype", "float32"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=PATIENCE, env={**os.environ})
    assert done.returncode == 0, done.stderr
    assert "left out: 1 image, such as data/a/broken.raw: own:read raised ValueError" in done.stderr
    assert_whole("out.h5")


def test_dicom_is_packed_by_a_recipe_with_pydicom(here):
    pytest.importorskip("pydicom", reason="needs pydicom")
    from pydicom.data import get_testdata_file

    Path("dicom.py").write_text(DICOM)
    (here / "scans/ct").mkdir(parents=True)
    there = Path(get_testdata_file("CT_small.dcm", download=False))
    for number in range(2):
        (here / f"scans/ct/{number}.dcm").write_bytes(there.read_bytes())
    (here / "scans/ct/cut.dcm").write_bytes(there.read_bytes()[:2000])
    options = {"decoder": "dicom.py:read", "dtype": "float32", "color": "grayscale"}
    summary = pack("scans", "ct.h5", **options, workers=1)
    assert [name for name, _ in summary.skipped] == ["scans/ct/cut.dcm"]
    import pydicom

    scan = pydicom.dcmread(there)
    assert np.array_equal(PackedImages("ct.h5").images[0][..., 0], scan.pixel_array.astype(np.float32) - 1024)
    small = pack("scans", "small.h5", **options | {"dtype": "uint8"}, range=(-160, 240), size=64, workers=1)
    assert small.shape == (64, 64, 1)
    assert len(small.losses) == 2
