"""Tests of losses that decoding reports: grey levels, further pages, and content invisible on black."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pack_images.decode.row import decode, shape_of
from pack_images.errors import DecodeError
from pack_images.settings import Pixels
from test_decode import chunk, gif, noise, orientation, palette, pillow, png, saved, tiff

SIDE = 16
LEVELS = np.arange(SIDE * SIDE, dtype=np.uint16).reshape(SIDE, SIDE)  # 256 of them
TWELVE_BITS = LEVELS * 16  # high bytes 0 to 15
EIGHT_BITS = LEVELS * 257  # 8 bits as 16
OPAQUE = np.full((SIDE, SIDE), 0xFFFF, np.uint16)


def lost(data: bytes, **how: object) -> list[str]:
    """Return the losses that decoding a file reports."""
    pixels = Pixels(**how)  # type: ignore[arg-type]
    loss = decode(data, pixels, np.zeros(shape_of(data, pixels), np.uint8))
    return [] if loss is None else loss.texts


def rgb(levels: NDArray[np.uint16]) -> NDArray[np.uint16]:
    return np.dstack([levels, levels[::-1], levels])


def png16(levels: NDArray[np.uint16], kind: int) -> bytes:
    """Return a 16-bit PNG of grey (0), colour (2), grey (4) or colour (6) with alpha."""
    samples = {0: levels, 2: rgb(levels), 4: np.dstack([levels, OPAQUE]), 6: np.dstack([rgb(levels), OPAQUE])}[kind]
    return png((SIDE, SIDE), 16, kind, samples.astype(">u2").tobytes())


def tiff16(levels: NDArray[np.uint16], order: str, photometric: int = 2, **more: int) -> bytes:
    samples = rgb(levels) if photometric == 2 and not more else np.dstack([rgb(levels), OPAQUE])
    return tiff(SIDE * SIDE, 16, photometric, samples.astype(f"{order}u2").tobytes(), order, **more)


def ppm16(levels: NDArray[np.uint16], most: int = 0xFFFF) -> bytes:
    return b"P6 %d %d %d\n" % (SIDE, SIDE, most) + rgb(levels).astype(">u2").tobytes()


def pgm16(levels: NDArray[np.uint16], most: int = 0xFFFF) -> bytes:
    return b"P5 %d %d %d\n" % (SIDE, SIDE, most) + levels.astype(">u2").tobytes()


def sgi(packed: bool = False) -> bytes:
    """Return a 16-bit SGI file with 768 levels in red, green and blue."""
    head = struct.pack(">HBBHHHH", 474, packed, 2, 3, SIDE, SIDE, 3).ljust(512, b"\0")
    samples = np.arange(3 * SIDE * SIDE, dtype=">u2").reshape(-1, SIDE)
    if not packed:
        return head + samples.tobytes()
    lines = [struct.pack(">H", 0x80 | SIDE) + line.tobytes() + bytes(2) for line in samples]
    first = len(head) + 8 * len(lines)
    starts = struct.pack(f">{len(lines)}L", *(first + len(lines[0]) * number for number in range(len(lines))))
    return head + starts + struct.pack(f">{len(lines)}L", *map(len, lines)) + b"".join(lines)


# --- levels


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda levels: png16(levels, 0), id="grey PNG"),
        pytest.param(lambda levels: png16(levels, 2), id="RGB PNG"),
        pytest.param(lambda levels: tiff16(levels, "<"), id="RGB TIFF"),
        pytest.param(lambda levels: tiff16(levels, ">"), id="RGB TIFF, swapped"),
        pytest.param(lambda levels: saved(Image.fromarray(levels), "TIFF"), id="grey TIFF"),
        pytest.param(lambda levels: saved(Image.fromarray(levels), "TIFF", compression="tiff_lzw"), id="LZW TIFF"),
        pytest.param(lambda levels: saved(Image.fromarray(levels), "JPEG2000"), id="grey JPEG 2000"),
        pytest.param(pgm16, id="PGM"),
    ],
)
def test_merged_levels_are_counted(make: Callable[[NDArray[np.uint16]], bytes]) -> None:
    assert lost(make(TWELVE_BITS)) == ["16 bits cut to 8: 16 of 256 levels kept"]
    assert lost(make(TWELVE_BITS), size=(4, 4)) == ["16 bits cut to 8: 16 of 256 levels kept"]
    assert lost(make(EIGHT_BITS)) == []


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda levels: png16(levels, 4), id="LA PNG"),
        pytest.param(lambda levels: png16(levels, 6), id="RGBA PNG"),
        pytest.param(lambda levels: tiff16(levels, "<", alpha=2), id="RGBA TIFF"),
        pytest.param(lambda levels: tiff16(levels, ">", photometric=5), id="CMYK TIFF"),
    ],
)
def test_merged_levels_of_alpha_and_cmyk_are_counted(make: Callable[[NDArray[np.uint16]], bytes]) -> None:
    assert lost(make(TWELVE_BITS)) == ["16 bits cut to 8: 17 of 257 levels kept"]
    assert lost(make(EIGHT_BITS)) == []


@pytest.mark.parametrize(
    ("data", "texts"),
    [
        pytest.param(ppm16(TWELVE_BITS), ["16 bits cut to 8: 17 of 256 levels kept"], id="PPM, which is rounded"),
        pytest.param(ppm16(LEVELS, 1023), ["10 bits cut to 8: 65 of 256 levels kept"], id="PPM of 10 bits"),
        pytest.param(pgm16(LEVELS, 1023), ["10 bits cut to 8: 64 of 256 levels kept"], id="PGM of 10 bits"),
        pytest.param(b"P3 2 1 65535\n1 2 3 65535 4 5\n", ["16 bits cut to 8"], id="PPM in digits, not counted"),
        pytest.param(b"P2 2 1 65535\n1 65535\n", [], id="PGM in digits"),
        pytest.param(sgi(), ["16 bits cut to 8: 3 of 768 levels kept"], id="SGI"),
        pytest.param(sgi(packed=True), ["16 bits cut to 8"], id="packed SGI, not counted"),
        pytest.param(tiff16(LEVELS, "<", alpha=1), ["16 bits cut to 8"], id="multiplied by alpha, not counted"),
        pytest.param(
            tiff(4, 32, 1, struct.pack("<4i", -3, 1, 70_000, 80_000), sample_format=2),
            ["32 bits cut to 8: 2 of 4 levels kept"],
            id="32-bit integers out of 16 bits",
        ),
        pytest.param(tiff(3, 32, 1, struct.pack("<3i", 0, 256, 512), sample_format=2), [], id="32-bit integers"),
        pytest.param(
            tiff(4, 32, 1, struct.pack("<4f", 0, 0.2, 0.4, 1), sample_format=3),
            ["floats cut to 8 bits: 2 of 4 levels kept"],
            id="floats from 0 to 1",
        ),
        pytest.param(
            tiff(3, 32, 1, struct.pack("<3f", 255, 300, float("nan")), sample_format=3),
            ["floats cut to 8 bits: 2 of 3 levels kept"],
            id="floats that are clipped",
        ),
        pytest.param(tiff(3, 32, 1, struct.pack("<3f", 0, 7, 255), sample_format=3), [], id="floats of whole numbers"),
        pytest.param(saved(noise(8, 8), "PNG"), [], id="8-bit PNG"),
        pytest.param(saved(noise(8, 8), "JPEG"), [], id="JPEG"),
        pytest.param(png((4, 1), 2, 0, b"\x1b"), [], id="2-bit PNG"),
        pytest.param(saved(noise(8, 8), "JPEG2000"), [], id="8-bit JPEG 2000"),
    ],
)
def test_only_lost_levels_are_reported(data: bytes, texts: list[str]) -> None:
    assert lost(data) == texts


def test_counting_levels_does_not_change_the_pixels() -> None:
    """Counting levels must not disturb decoding."""
    data = png16(TWELVE_BITS, 2)
    out = np.zeros((SIDE, SIDE, 3), np.uint8)
    decode(data, Pixels(), out)
    assert np.array_equal(out, rgb(TWELVE_BITS) >> 8)


# --- pages


FRAMES = [noise(8, 8), noise(8, 8).rotate(90)]
ALL = {"save_all": True, "append_images": FRAMES[1:]}
FIRST = ["only the first of its pages or frames was taken"]


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF", "AVIF"])
def test_further_pages_or_frames_are_reported(kind: str) -> None:
    Image.init()
    if kind not in Image.SAVE:
        pytest.skip("before 11.3, Pillow has no AVIF")
    assert lost(saved(FRAMES[0], kind, **ALL)) == FIRST
    assert lost(saved(FRAMES[0], kind)) == []


def test_further_pages_of_a_bigtiff_are_reported() -> None:
    assert lost(saved(FRAMES[0], "TIFF", big_tiff=True, **ALL)) == FIRST


def directory(offset: int, following: int, **tags: int) -> bytes:
    """Return a directory of a TIFF of 8 x 8 grey pixels, which begin at byte 8."""
    numbers = {"t254": 0, "t256": 8, "t257": 8, "t258": 8, "t259": 1, "t262": 1, "t273": 8, "t277": 1, "t279": 64}
    entries = sorted((int(name[1:]), value) for name, value in (numbers | tags).items() if value is not None)
    body = b"".join(struct.pack("<HHLL", tag, 4, 1, value) for tag, value in entries)
    return struct.pack("<H", len(entries)) + body + struct.pack("<L", following)


def two_directories(second_leads_to: int = 0, **second: int) -> bytes:
    start = 8 + 64
    behind = start + len(directory(start, 0))
    head = b"II*\0" + struct.pack("<L", start) + bytes(64)
    return head + directory(start, behind) + directory(behind, second_leads_to, **second)


@pytest.mark.parametrize(
    ("data", "texts"),
    [
        pytest.param(two_directories(), FIRST, id="a second page"),
        pytest.param(two_directories(second_leads_to=72), FIRST, id="pages in a ring"),
        pytest.param(two_directories(t254=1), [], id="a reduced copy"),
        pytest.param(two_directories(t254=4), [], id="a mask"),
        pytest.param(two_directories(t254=1, second_leads_to=72), [], id="a reduced copy, in a ring"),
        pytest.param(two_directories(t255=2), [], id="a reduced copy, marked by the older tag"),
        pytest.param(two_directories(t273=None, t279=None, t513=8), [], id="a thumbnail of EXIF"),
        pytest.param(two_directories()[:-40], FIRST, id="a second page that is cut short"),
        pytest.param(two_directories()[:190], [], id="a second page beyond the end"),
    ],
)
def test_reduced_copies_masks_and_thumbnails_are_not_pages_of_a_tiff(data: bytes, texts: list[str]) -> None:
    assert lost(data) == texts


def test_sizes_of_an_icon_are_not_pages() -> None:
    assert lost(saved(noise(32, 32), "ICO", sizes=[(16, 16), (32, 32)])) == []


@pytest.mark.parametrize(
    "kinds", [pytest.param((0x030000, 0), id="preview"), pytest.param((0x020002,) * 2, id="stereo")]
)
def test_stereo_views_of_an_mpo_are_pages_and_previews_are_not(kinds: tuple[int, int]) -> None:
    data = bytearray(saved(FRAMES[0], "MPO", exif=orientation(1), **ALL))
    entries = data.index(b"\x02\xb0", data.index(b"MPF\0"))  # followed by the size and offset of the entries
    at = data.index(b"MPF\0") + 4 + struct.unpack_from("<L", data, entries + 8)[0]
    for number, kind in enumerate(kinds):
        struct.pack_into("<L", data, at + 16 * number, kind)
    assert lost(bytes(data)) == (FIRST if kinds[0] == kinds[1] else [])


@pytest.mark.parametrize("length", range(6))
def test_a_gif_may_end_anywhere_after_its_first_frame(length: int) -> None:
    data = saved(FRAMES[0], "GIF")
    assert data.endswith(b";")
    assert lost(data[:-1] + b"!\xfe\x05ab"[:length]) == []


# --- transparency


def drawing(color: tuple[int, int, int], kind: str = "PNG", background_alpha: int = 0) -> bytes:
    """Return an image with a stroke of one colour on a transparent background."""
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[..., 3] = background_alpha
    pixels[2:5, 1:7] = (*color, 255)
    return saved(Image.fromarray(pixels), kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {}))


HIDDEN = ["one colour is left: its transparency was laid on the background"]


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_black_strokes_on_a_transparent_background_are_reported_as_lost(kind: str) -> None:
    for color in ("rgb", "grayscale"):
        assert lost(drawing((0, 0, 0), kind), color=color) == HIDDEN
    assert lost(drawing((0, 0, 0), kind), color="rgba") == []
    assert lost(drawing((90, 0, 0), kind)) == []


@pytest.mark.parametrize(
    ("data", "texts"),
    [
        pytest.param(gif(transparency=1), [], id="a picture with a transparent colour"),
        pytest.param(png((2, 1), 8, 3, b"\0\1", PLTE=bytes(6), tRNS=b"\0\xff"), HIDDEN, id="a black palette"),
        pytest.param(png((2, 1), 8, 4, bytes([0, 0, 0, 9])), HIDDEN, id="black and alpha"),
        pytest.param(png((2, 1), 8, 4, bytes([0, 255, 0, 255])), [], id="black all over"),
        pytest.param(png((2, 1), 8, 4, bytes([7, 0, 200, 0])), [], id="nothing to see"),
        pytest.param(png((2, 1), 8, 4, bytes([7, 1, 100, 1])), HIDDEN, id="next to nothing to see"),
        pytest.param(png((2, 1), 8, 3, b"\0\1", **palette(0, 128)), [], id="a palette with alpha"),
    ],
)
def test_an_image_that_becomes_one_colour_on_black_is_reported_as_lost(data: bytes, texts: list[str]) -> None:
    assert lost(data) == texts


# --- PNG metadata


def with_chunks(*chunks: bytes, behind: bool = False) -> bytes:
    """Return a PNG with chunks before or behind its pixels."""
    plain = saved(noise(8, 8), "PNG")
    at = len(plain) - 12 if behind else 33
    return plain[:at] + b"".join(chunks) + plain[at:]


PACKED = zlib.compress(bytes(3 << 20), 9)
TEXT = b"key\0"


@pytest.mark.parametrize("behind", [False, True], ids=["before the picture", "behind the picture"])
@pytest.mark.parametrize(
    "note",
    [
        pytest.param(chunk(b"iCCP", b"profile\0\0" + PACKED), id="a profile of 3 MB"),
        pytest.param(chunk(b"zTXt", TEXT + b"\0" + PACKED), id="a packed text of 3 MB"),
        pytest.param(chunk(b"iTXt", TEXT + b"\1\0\0\0" + PACKED), id="a packed text of 3 MB with a language"),
        pytest.param(chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + PACKED), id="XMP of 3 MB"),
        pytest.param(chunk(b"zTXt", b"Raw profile type exif\0\0" + PACKED), id="EXIF of 3 MB"),
        pytest.param(chunk(b"tEXt", TEXT + b"a" * 1_000_000) * 70, id="texts of 70 MB"),
        pytest.param(chunk(b"zTXt", TEXT + b"\7text"), id="packed in a way that is not known"),
        pytest.param(chunk(b"pHYs", b"\0"), id="half a resolution"),
        pytest.param(chunk(b"tEXt", TEXT)[:-1] + b"?", id="a text whose checksum is wrong"),
        pytest.param(chunk(b"gAMA", b""), id="no gamma"),
        pytest.param(chunk(b"prVt", bytes(100)), id="private"),
    ],
)
def test_a_png_with_oversized_or_broken_metadata_is_decoded(note: bytes, behind: bool) -> None:
    out = np.zeros((8, 8, 3), np.uint8)
    assert decode(with_chunks(note, behind=behind), Pixels(), out) is None
    assert np.array_equal(out, np.asarray(noise(8, 8)))


def test_the_orientation_is_read_from_xmp_and_exif_chunks() -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><tiff:Orientation>6</tiff:Orientation></x:xmpmeta>'
    exif = orientation(6).tobytes()[6:]
    digits = b"\nexif\n%d\n" % len(exif) + exif.hex().encode()
    for note in (
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0en\0\0" + zlib.compress(xmp)),
        chunk(b"tEXt", b"Raw profile type exif\0" + digits),
        chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(digits)),
        chunk(b"eXIf", exif),
    ):
        out = np.zeros((8, 8, 3), np.uint8)
        decode(with_chunks(chunk(b"iCCP", b"profile\0\0" + PACKED), note), Pixels(), out)
        assert np.array_equal(out, np.asarray(noise(8, 8).transpose(Image.Transpose.ROTATE_270)))


def test_dropping_metadata_keeps_transparency_and_frames() -> None:
    note = chunk(b"zTXt", TEXT + b"\0" + PACKED)
    animated = saved(FRAMES[0], "PNG", **ALL)
    assert lost(animated[:33] + note + animated[33:]) == FIRST
    data = png((3, 1), 8, 3, b"\0\1\2", zTXt=TEXT + b"\0" + PACKED, **palette(0, 128))
    out = np.zeros((1, 3, 4), np.uint8)
    decode(data, Pixels(color="rgba"), out)
    assert out[0, :, 3].tolist() == [0, 128, 255]


def test_a_png_with_an_unknown_critical_chunk_is_decoded() -> None:
    data = with_chunks(chunk(b"NEWC", b"new"))
    out = np.zeros((8, 8, 3), np.uint8)
    decode(data, Pixels(), out)
    assert np.array_equal(out, pillow(data))


# --- files of other formats


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64), "^HEIC: not packed; pip install", id="HEIC"),
        pytest.param(b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(64), "^HEIC: not packed", id="HEIC, generic brand"),
        pytest.param(b"\0\0\0\x14ftypqt  \0\0\0\0qt  " + bytes(64), "^a video: not packed; save its", id="QuickTime"),
        pytest.param(b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + bytes(64), "^camera RAW: not packed; develop", id="CR3"),
        pytest.param(b"\xff\x0a" + bytes(64), "^JPEG XL: not packed", id="JPEG XL"),
        pytest.param(b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(64), "^JPEG XL: not packed", id="JPEG XL in a container"),
        pytest.param(b"%PDF-1.7\n", "^PDF: not packed; render it to PNG first$", id="PDF"),
        pytest.param(b"<?xml version='1.0'?>\n<svg xmlns='x'/>", "^SVG: not packed; render it", id="SVG"),
        pytest.param(b"\n<!DOCTYPE HTML><html>404", "^a web page, such as of a failed download", id="HTML"),
        pytest.param(bytes(128) + b"DICM" + bytes(64), "^DICOM: not packed; give a function", id="DICOM"),
        pytest.param(b"\x93NUMPY\1\0" + bytes(64), "^arrays: not packed", id="npy"),
        pytest.param(b"PK\3\4" + bytes(64), "^an archive: not packed; unpack it first", id="zip"),
        pytest.param(b"version https://git-lfs.github.com/spec/v1\n", "^a pointer of Git LFS", id="Git LFS"),
        pytest.param(b"RIFF\0\0\0\0AVI LIST" + bytes(64), "^a video", id="AVI"),
        pytest.param(bytes(64), "^not an image that Pillow knows$", id="zeros"),
    ],
)
def test_a_file_of_another_format_is_named_in_the_error(
    data: bytes, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pack_images.decode.heif.find_spec", lambda name: None)  # as without pillow-heif
    with pytest.raises(DecodeError, match=message):
        decode(data, Pixels(size=(8, 8)), np.zeros((8, 8, 3), np.uint8))


# --- TIFFs with overlapping tags


def test_tags_of_a_tiff_may_share_their_values() -> None:
    """Some programs store equal values only once."""
    entries = {256: 8, 257: 8, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 279: 64}
    shared = b"".join(struct.pack("<HHLL", 65_000 + number, 1, 300, 8) for number in range(20))
    body = b"".join(struct.pack("<HHLL", tag, 4, 1, value) for tag, value in entries.items()) + shared
    data = b"II*\0" + struct.pack("<L", 400) + bytes(392) + struct.pack("<H", 28) + body + bytes(4)
    assert lost(data) == []
