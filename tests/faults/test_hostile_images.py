"""Malicious images give pixels or a DecodeError: a short campaign, and attacks that were found before."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from fuzz_images import DECODED, REFUSED, Judge, campaign
from image_seeds import bombs, ico_of, many_scans, noise, overlapping_tags, png_chunk, png_of, saved, seeds, tiff_of
from pack_images.decode.guards import FORMATS
from pack_images.find.sources import EXTENSIONS
from pack_images.settings import Pixels

OVERLAPPING = "tags that lie over each other"
BESIDE_PILLOW = {"TIFF of bands", "arrays", "HEIC"}  # decoded by tifffile, numpy and pillow-heif
HOW = Pixels(size=(8, 8), max_pixels=1_000_000)


def halves(data: bytes) -> list[bytes]:
    return [data[: len(data) // 2], data[len(data) // 2 :]]


def jpeg_of(exif: list[bytes], between: bytes) -> bytes:
    """Return a JPEG with its EXIF data in these pieces."""
    segments = (b"\xff\xe1" + struct.pack(">H", 8 + len(piece)) + b"Exif\0\0" + piece + between for piece in exif)
    plain = saved(noise(16, 16), "JPEG")
    return plain[:2] + b"".join(segments) + plain[2:]


def missing() -> set[str]:
    """Return the formats that this Pillow lacks: AVIF before 11.3."""
    Image.init()
    return {"AVIF"} - set(Image.OPEN)


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    with Judge() as judge:
        yield judge


def test_a_short_campaign_finds_nothing(tmp_path: Path) -> None:
    report = campaign(range(1500), seed=0, workers=2, folders=[], keep=tmp_path)
    assert report["failures"] == {}, sorted(tmp_path.glob("*.json"))[0].read_text()
    assert report["tried"] == 1500
    assert min(report["decoded"], report["refused"]) > 300  # type: ignore[call-overload]


def test_every_format_has_a_seed_that_is_decoded(judge: Judge) -> None:
    files = [(kind, data) for kind, data in seeds() if kind not in BESIDE_PILLOW]
    assert {kind for kind, _ in files} == {"other", *FORMATS} - {"DIB", "MPO"} - missing()
    decoded = {kind for kind, data in files if judge.verdict(data, HOW).kind == DECODED}
    assert decoded == {kind for kind, _ in files} - {"other"}


def test_every_seed_of_the_decoders_beside_pillow_is_decoded() -> None:
    how = Pixels(size=(8, 8), max_pixels=1_000_000, color="all", dtype="float32")
    files = [(kind, data) for kind, data in seeds() if kind in BESIDE_PILLOW]
    assert {kind for kind, _ in files} <= BESIDE_PILLOW
    with Judge() as judge:  # its own: the decoders take memory, which the others measure
        for kind, data in files:
            assert judge.verdict(data, how).kind == DECODED, kind


def test_formats_are_those_that_folders_are_searched_for() -> None:
    Image.init()
    known = {".avif": "AVIF", ".avifs": "AVIF", **Image.registered_extensions()}  # before 11.3, Pillow has no AVIF
    assert {known[f".{extension}"] for extension in EXTENSIONS} == FORMATS


def test_a_format_that_folders_are_not_searched_for_is_refused(judge: Judge) -> None:
    others = [judge.verdict(data, HOW) for kind, data in seeds() if kind == "other"]
    assert len(others) > 3
    assert {verdict.kind for verdict in others} == {REFUSED}
    assert "EPS is none of the formats that are packed" in {verdict.detail for verdict in others}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("TIFF tiles", "tiles of 16384x16384 are more than 1048576 pixels; --max-pixels allows more"),
        ("JPEG 2000 tiles", "65025 tiles are too many for 1048576 pixels; --max-pixels allows more"),
        ("JPEG 2000 tiles in an icon", "65025 tiles are too many for 1048576 pixels; --max-pixels allows more"),
        ("JPEG scans", "a JPEG of more than 500 scans"),
        ("PNG in an icon", "more than 1000000 pixels; --max-pixels allows more"),
        ("PNG in an Apple icon", "more than 1000000 pixels; --max-pixels allows more"),
        ("tags of one place", OVERLAPPING),
        ("PNG pixels", "more than 1000000 pixels; --max-pixels allows more"),
    ],
)
def test_a_bomb_is_refused(judge: Judge, name: str, message: str) -> None:
    verdict = judge.verdict(bombs()[name][1], HOW)
    assert (verdict.kind, verdict.detail) == (REFUSED, message)


UNCLEAR = "a TIFF of tiles whose size is not clear"
TILED = {256: 8, 257: 8, 258: 8, 259: 8, 262: 1, 277: 1, 322: 16, 323: 16}
TILE = zlib.compress(bytes(256))


@pytest.mark.parametrize("kind", [pytest.param(17, id="SLONG8"), pytest.param(18, id="IFD8")])
@pytest.mark.parametrize("tag", [pytest.param(322, id="width"), pytest.param(323, id="length")])
def test_tiles_of_a_size_that_only_libtiff_reads_are_refused(judge: Judge, tag: int, kind: int) -> None:
    data = bytearray(tiff_of(TILED, TILE))
    assert judge.verdict(bytes(data), HOW).kind == DECODED
    struct.pack_into("<HLL", data, data.index(struct.pack("<HH", tag, 4)) + 2, kind, 1, len(data))
    verdict = judge.verdict(bytes(data) + struct.pack("<Q", 16), HOW)
    assert (verdict.kind, verdict.detail) == (REFUSED, UNCLEAR)


def test_a_text_is_no_size_of_tiles(judge: Judge) -> None:
    data = bytearray(tiff_of({**TILED, 323: 1 << 29}, TILE))
    struct.pack_into("<HL", data, data.index(struct.pack("<HH", 322, 4)) + 2, 2, 4)
    verdict = judge.verdict(bytes(data), HOW)
    assert (verdict.kind, verdict.detail) == (REFUSED, UNCLEAR)


def test_tiles_of_two_sizes_are_refused(judge: Judge) -> None:
    data = tiff_of(TILED, TILE).replace(struct.pack("<HH", 277, 4), struct.pack("<HH", 322, 4))
    verdict = judge.verdict(data, HOW)
    assert (verdict.kind, verdict.detail) == (REFUSED, UNCLEAR)


def test_a_bigtiff_that_pillow_takes_for_a_plain_one_is_read_as_pillow_does(judge: Judge) -> None:
    verdict = judge.verdict(b"MM\0+" + overlapping_tags(500, 100_000, order=">")[4:], HOW)
    assert (verdict.kind, verdict.detail) == (REFUSED, OVERLAPPING)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_exif_of_tags_that_lie_over_each_other_does_not_lose_the_picture(judge: Judge, kind: str) -> None:
    data = saved(noise(16, 16), kind, exif=b"Exif\0\0" + bombs()["tags of one place"][1])
    verdict = judge.verdict(data, HOW)
    assert verdict.kind == DECODED
    assert verdict.grown < 20_000_000


def test_exif_in_hexadecimal_digits_does_not_lose_the_picture(judge: Judge) -> None:
    digits = b"\nexif\n1\n" + overlapping_tags(500, 100_000).hex().encode()
    chunk = png_chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(digits))
    plain = saved(noise(16, 16), "PNG")
    verdict = judge.verdict(plain[:33] + chunk + plain[33:], HOW)
    assert verdict.kind == DECODED
    assert verdict.grown < 20_000_000


@pytest.mark.parametrize(
    ("pieces", "between", "message"),
    [
        pytest.param([overlapping_tags(20, 40_000)], b"", OVERLAPPING, id="of tags"),
        pytest.param(halves(overlapping_tags(500, 100_000)), b"", OVERLAPPING, id="in two pieces"),
        pytest.param(
            halves(overlapping_tags(500, 100_000)), b"a\xff\0\xff\xd8\xff", OVERLAPPING, id="odd bytes between"
        ),
        pytest.param([b"a"] * 101, b"", "a JPEG whose EXIF is in more than 100 pieces", id="in many pieces"),
    ],
)
def test_exif_of_a_jpeg_is_refused(judge: Judge, pieces: list[bytes], between: bytes, message: str) -> None:
    verdict = judge.verdict(jpeg_of(pieces, between), HOW)
    assert (verdict.kind, verdict.detail) == (REFUSED, message)


def test_exif_in_pieces_is_decoded(judge: Judge) -> None:
    pieces = [piece for half in halves(overlapping_tags(1, 100_000)) for piece in halves(half)]
    assert judge.verdict(jpeg_of(pieces, b""), HOW).kind == DECODED


@pytest.mark.parametrize("key", [b"key", b"Raw profile type exif", b"XML:com.adobe.xmp"])
def test_texts_beside_the_pixels_take_little(judge: Judge, key: bytes) -> None:
    """Texts that may hold the orientation are kept, and take little memory too."""
    text = png_chunk(b"zTXt", key + b"\0\0" + zlib.compress(bytes((1 << 20) - 1), 9))
    plain = saved(noise(9, 9), "PNG")
    verdict = judge.verdict(plain[:33] + text * 100 + plain[33:], HOW)
    assert verdict.kind == DECODED
    assert verdict.grown < 80_000_000


def test_the_limit_is_of_the_picture_in_an_icon(judge: Judge) -> None:
    data = ico_of(saved(noise(1200, 900), "PNG"))
    verdict = judge.verdict(data, HOW)
    assert (verdict.kind, verdict.detail) == (REFUSED, "1200x900 is more than 1000000 pixels; --max-pixels allows more")
    assert judge.verdict(data, Pixels(size=(8, 8))).kind == DECODED


@pytest.mark.parametrize("max_pixels", [200 * 200, 1_000_000])
def test_as_many_scans_as_programs_write_are_decoded(judge: Judge, max_pixels: int) -> None:
    assert judge.verdict(many_scans(400), Pixels(max_pixels=max_pixels)).kind == DECODED


def test_tiles_larger_than_a_small_picture_are_decoded(judge: Judge) -> None:
    tags = {256: 20, 257: 13, 258: 8, 259: 1, 262: 1, 277: 1, 322: 1024, 323: 1024}
    assert judge.verdict(tiff_of(tags, bytes(1 << 20)), Pixels(max_pixels=20 * 13)).kind == DECODED


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(tiff_of({256: 8, 257: 8, 258: 8, 259: 1, 262: 2, 277: 30_000}, bytes(64)), id="30,000 samples"),
        pytest.param(png_of(8, 8, 8, 2, b"") + b"trailing", id="PNG without pixels"),
        pytest.param(ico_of(saved(noise(16, 16), "PNG"), side=32), id="an icon of another size than it says"),
        pytest.param(b"II*\0" + struct.pack("<LH", 8, 1) + bytes(16), id="a TIFF of one empty tag"),
    ],
)
def test_nothing_is_printed_of_an_odd_file(judge: Judge, data: bytes) -> None:
    assert judge.verdict(data, HOW).kind in (DECODED, REFUSED)
