"""Tests of decoding, with literal pixels: every line of the table at the top of decode/row.py."""

from __future__ import annotations

import io
import random
import struct
import warnings
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps

from conftest import SHARED, needs_shared
from pack_images.about import MAX_PIXELS
from pack_images.decode.row import decode, shape_of
from pack_images.errors import DecodeError, SizeError
from pack_images.settings import CHANNELS, INTERPOLATIONS, Pixels

Pixel = tuple[int, ...]

# --- files, built byte by byte where a test depends on how they are stored


def decoded(data: bytes, **how: object) -> NDArray[np.uint8]:
    """Decode a file into a row, and check that none of the earlier values in that row are left."""
    pixels = Pixels(**how)  # type: ignore[arg-type]
    rows = [np.full(shape_of(data, pixels), before, np.uint8) for before in (77, 78)]
    for out in rows:
        decode(data, pixels, out)
    assert np.array_equal(*rows)
    return rows[0]


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    """Return a file as Pillow saves it."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pillow(data: bytes, mode: str = "RGB") -> NDArray[np.uint8]:
    """Return the pixels of a file as Pillow decodes them."""
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert(mode))
    return pixels if pixels.ndim == 3 else pixels[:, :, np.newaxis]


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_of(size: tuple[int, int], depth: int, kind: int, stream: bytes, **chunks: bytes) -> bytes:
    """Return a PNG of a compressed stream, with extra chunks before it."""
    header = struct.pack(">IIBBBBB", *size, depth, kind, 0, 0, 0)
    extra = b"".join(chunk(name.encode(), body) for name, body in chunks.items())
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", stream) + chunk(b"IEND", b"")


def png(size: tuple[int, int], depth: int, kind: int, samples: bytes, **chunks: bytes) -> bytes:
    """Return a PNG of uncompressed samples, given as the bytes of its lines without filter types."""
    stride = len(samples) // size[1]
    lines = (b"\0" + samples[start : start + stride] for start in range(0, len(samples), stride))
    return png_of(size, depth, kind, zlib.compress(b"".join(lines)), **chunks)


def tiff(width: int, bits: int, photometric: int, samples: bytes, order: str = "<", **more: int) -> bytes:
    """Return a TIFF of samples, one pixel high, with an optional `sample_format` and `alpha`."""
    count = len(samples) * 8 // (width * bits)
    tags = {256: (width,), 257: (1,), 258: (bits,) * count, 259: (1,), 262: (photometric,), 273: (8,), 277: (count,)}
    tags |= {278: (1,), 279: (len(samples),), 339: (more.get("sample_format", 1),) * count}
    tags |= {338: (more["alpha"],)} if "alpha" in more else {}
    at = 8 + len(samples) + len(samples) % 2
    behind = at + 2 + 12 * len(tags) + 4
    entries = tail = b""
    for tag, numbers in sorted(tags.items()):
        values = struct.pack(f"{order}{len(numbers)}H", *numbers)
        if len(values) > 4:
            values, tail = struct.pack(order + "L", behind + len(tail)), tail + values
        entries += struct.pack(order + "HHL", tag, 3, len(numbers)) + values.ljust(4, b"\0")
    mark = {"<": b"II*\0", ">": b"MM\0*"}[order]
    head = mark + struct.pack(order + "L", at) + samples.ljust(at - 8, b"\0")
    return head + struct.pack(order + "H", len(tags)) + entries + bytes(4) + tail


def frame_header(jpeg: bytes, **fields: int) -> bytes:
    """Return a JPEG with another `precision`, `height`, `width` or `sampling` in its frame header."""
    places = {"precision": (4, ">B"), "height": (5, ">H"), "width": (7, ">H"), "sampling": (11, ">B")}
    file, frame = bytearray(jpeg), jpeg.index(b"\xff\xc0")
    for name, value in fields.items():
        struct.pack_into(places[name][1], file, frame + places[name][0], value)
    return bytes(file)


def words(*values: int) -> bytes:
    """Return 16-bit samples in the byte order of PNG and PGM."""
    return struct.pack(f">{len(values)}H", *values)


def greys(*values: int) -> list[Pixel]:
    return [(value,) * 3 for value in values]


def luma(pixels: Sequence[Pixel]) -> list[Pixel]:
    """Return the ITU-R 601-2 luma of pixels."""
    return [(round((299 * red + 587 * green + 114 * blue) / 1000),) for red, green, blue in pixels]


def row(*pixels: Pixel) -> Image.Image:
    """Return an image one pixel high."""
    return Image.fromarray(np.array([pixels], np.uint8))


def noise(width: int, height: int, channels: int = 3) -> Image.Image:
    """Return an image of random pixels, which any scaling changes."""
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Image.fromarray(pixels if channels > 1 else pixels[:, :, 0])


def photo(width: int, height: int) -> Image.Image:
    """Return an image of smooth waves, similar to a photograph."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 31 + y / 67), np.cos(y / 23 - x / 90), np.sin((x + y) / 41)]
    return Image.fromarray(np.stack([128 + 100 * wave for wave in waves], axis=-1).astype(np.uint8))


def palette(*alphas: int) -> dict[str, bytes]:
    """Return the chunks of a palette of three colours."""
    return {"PLTE": bytes([10, 20, 30, 200, 100, 50, 70, 80, 90])} | ({"tRNS": bytes(alphas)} if alphas else {})


def gif(**options: object) -> bytes:
    image = Image.frombytes("P", (3, 1), b"\0\1\2")
    image.putpalette(palette()["PLTE"])
    return saved(image, "GIF", **options)


PALETTE = [(10, 20, 30), (200, 100, 50), (70, 80, 90)]
FLOATS = (-5, 0.4, 0.6, 128.6, 300, float("nan"), float("inf"), float("-inf"))

# --- the table: file -> pixels


@pytest.mark.parametrize(
    ("data", "pixels"),
    [
        pytest.param(png((8, 1), 1, 0, b"\xa5"), greys(255, 0, 255, 0, 0, 255, 0, 255), id="1-bit"),
        pytest.param(b"P4 8 1\n\xa5", greys(0, 255, 0, 255, 255, 0, 255, 0), id="1-bit PBM, 1 is black"),
        pytest.param(png((4, 1), 2, 0, b"\x1b"), greys(0, 85, 170, 255), id="2-bit grey"),
        pytest.param(png((4, 1), 4, 0, b"\x01\x8f"), greys(0, 17, 136, 255), id="4-bit grey"),
        pytest.param(png((3, 1), 8, 0, b"\0\x80\xff"), greys(0, 128, 255), id="grey"),
        pytest.param(tiff(3, 8, 0, b"\0\1\xff"), greys(255, 254, 0), id="grey TIFF, white is 0"),
        pytest.param(png((2, 1), 8, 2, bytes([1, 2, 3, 250, 0, 9])), [(1, 2, 3), (250, 0, 9)], id="RGB"),
        pytest.param(saved(row((1, 2, 3), (250, 0, 9)), "BMP"), [(1, 2, 3), (250, 0, 9)], id="BMP"),
        pytest.param(png((3, 1), 2, 3, b"\x18", **palette()), PALETTE, id="2-bit palette"),
        pytest.param(png((3, 1), 8, 3, b"\0\1\2", **palette()), PALETTE, id="palette"),
        pytest.param(gif(), PALETTE, id="GIF"),
        pytest.param(png((4, 1), 16, 0, words(0xFF, 0x100, 0x8000, 0xFFFF)), greys(0, 1, 128, 255), id="16-bit grey"),
        pytest.param(
            png((2, 1), 16, 2, words(0xFF, 0x100, 0x1FF, 0x8000, 0xFEFF, 0xFFFF)),
            [(0, 1, 1), (128, 254, 255)],
            id="16-bit RGB",
        ),
        pytest.param(tiff(3, 16, 1, struct.pack("<3H", 0xFF, 0x80FF, 0xFFFF)), greys(0, 128, 255), id="16-bit TIFF"),
        pytest.param(tiff(3, 16, 1, words(0xFF, 0x80FF, 0xFFFF), ">"), greys(0, 128, 255), id="16-bit TIFF, swapped"),
        pytest.param(
            tiff(2, 16, 2, struct.pack("<6H", 0xFF, 0x100, 0x1FF, 0x8000, 0xFEFF, 0xFFFF)),
            [(0, 1, 1), (128, 254, 255)],
            id="16-bit RGB TIFF",
        ),
        pytest.param(b"P5 4 1 65535\n" + words(0xFF, 0x100, 0x8000, 0xFFFF), greys(0, 1, 128, 255), id="16-bit PGM"),
        pytest.param(
            tiff(4, 32, 1, struct.pack("<4i", -3, 0x1FF, 0xFFFF, 70_000), sample_format=2),
            greys(0, 1, 255, 255),
            id="32-bit integers",
        ),
        pytest.param(
            tiff(8, 32, 1, struct.pack("<8f", *FLOATS), sample_format=3),
            greys(0, 0, 1, 129, 255, 0, 255, 0),
            id="floats",
        ),
        pytest.param(
            tiff(4, 8, 5, bytes([0, 0, 0, 0, 255, 0, 0, 0, 0, 0, 0, 255, 128, 0, 0, 64])),
            [(255, 255, 255), (0, 255, 255), (0, 0, 0), (95, 191, 191)],  # 191 = 255 - 64; 95 = 191 - 128 * 191 / 255
            id="CMYK TIFF",
        ),
    ],
)
def test_an_opaque_image_is_converted_to_the_stored_channels(data: bytes, pixels: list[Pixel]) -> None:
    assert decoded(data).tolist() == [[list(pixel) for pixel in pixels]]
    assert decoded(data, color="rgba").tolist() == [[[*pixel, 255] for pixel in pixels]]
    assert decoded(data, color="grayscale").tolist() == [[list(pixel) for pixel in luma(pixels)]]


@pytest.mark.parametrize(
    ("data", "pixels", "on_black"),
    [
        pytest.param(
            png((3, 1), 8, 6, bytes([200, 100, 50, 0, 200, 100, 50, 128, 200, 100, 50, 255])),
            [(200, 100, 50, 0), (200, 100, 50, 128), (200, 100, 50, 255)],
            [(0, 0, 0), (100, 50, 25), (200, 100, 50)],
            id="RGBA",
        ),
        pytest.param(
            png((2, 1), 16, 6, words(0xC8FF, 0x64FF, 0x32FF, 0x80FF, 0xFFFF, 0xFF, 0, 0xFFFF)),
            [(200, 100, 50, 128), (255, 0, 0, 255)],
            [(100, 50, 25), (255, 0, 0)],
            id="16-bit RGBA",
        ),
        pytest.param(
            png((3, 1), 8, 4, bytes([200, 0, 200, 128, 200, 255])),
            [(200, 200, 200, 0), (200, 200, 200, 128), (200, 200, 200, 255)],
            greys(0, 100, 200),
            id="LA",
        ),
        pytest.param(
            png((2, 1), 16, 4, words(0xC8FF, 0x80FF, 0xC8FF, 0xFFFF)),
            [(200, 200, 200, 128), (200, 200, 200, 255)],
            greys(100, 200),
            id="16-bit LA",
        ),
        pytest.param(
            png((3, 1), 8, 3, b"\0\1\2", **palette(0, 128)),
            [(10, 20, 30, 0), (200, 100, 50, 128), (70, 80, 90, 255)],
            [(0, 0, 0), (100, 50, 25), (70, 80, 90)],
            id="palette with alpha",
        ),
        pytest.param(
            png((3, 1), 8, 3, b"\0\1\2", **palette(255, 0)),
            [(10, 20, 30, 255), (200, 100, 50, 0), (70, 80, 90, 255)],
            [(10, 20, 30), (0, 0, 0), (70, 80, 90)],
            id="palette with one transparent colour",
        ),
        pytest.param(
            gif(transparency=1),
            [(10, 20, 30, 255), (200, 100, 50, 0), (70, 80, 90, 255)],
            [(10, 20, 30), (0, 0, 0), (70, 80, 90)],
            id="GIF",
        ),
        pytest.param(
            png((2, 1), 8, 2, bytes([1, 2, 3, 1, 2, 4]), tRNS=words(1, 2, 3)),
            [(1, 2, 3, 0), (1, 2, 4, 255)],
            [(0, 0, 0), (1, 2, 4)],
            id="RGB with a transparent colour",
        ),
        pytest.param(
            png((2, 1), 8, 0, bytes([9, 10]), tRNS=words(9)),
            [(9, 9, 9, 0), (10, 10, 10, 255)],
            greys(0, 10),
            id="grey with a transparent colour",
        ),
        pytest.param(
            png((8, 1), 1, 0, b"\x0f", tRNS=words(1)),
            [(0, 0, 0, 255)] * 4 + [(255, 255, 255, 0)] * 4,
            greys(*[0] * 8),
            id="1-bit with a transparent colour",
        ),
        pytest.param(
            png((3, 1), 16, 0, words(0x1234, 0x1235, 0xFFFF), tRNS=words(0x1234)),
            [(18, 18, 18, 0), (18, 18, 18, 255), (255, 255, 255, 255)],
            greys(0, 18, 255),
            id="16-bit grey with a transparent colour, told by all its bits",
        ),
        pytest.param(
            png((4, 1), 2, 0, b"\x1b", tRNS=words(2)),
            [(0, 0, 0, 255), (85, 85, 85, 255), (170, 170, 170, 0), (255, 255, 255, 255)],
            greys(0, 85, 0, 255),
            id="2-bit with a transparent colour",
        ),
        pytest.param(
            png((2, 1), 4, 0, b"\x1f", tRNS=words(15)),
            [(17, 17, 17, 255), (255, 255, 255, 0)],
            greys(17, 0),
            id="4-bit with a transparent colour",
        ),
        pytest.param(
            png((3, 1), 16, 2, words(9, 3, 5, 9, 3, 6, 0x900, 0x300, 0x500), tRNS=words(9, 3, 5)),
            [(0, 0, 0, 0), (0, 0, 0, 255), (9, 3, 5, 255)],
            [(0, 0, 0), (0, 0, 0), (9, 3, 5)],
            id="16-bit RGB with a transparent colour, told by all its bits",
        ),
        pytest.param(
            saved(row((200, 100, 50, 128), (1, 2, 3, 255)), "WEBP", lossless=True, exact=True),
            [(200, 100, 50, 128), (1, 2, 3, 255)],
            [(100, 50, 25), (1, 2, 3)],
            id="WebP",
        ),
        pytest.param(
            tiff(2, 8, 2, bytes([200, 100, 50, 128, 1, 2, 3, 255]), alpha=2),
            [(200, 100, 50, 128), (1, 2, 3, 255)],
            [(100, 50, 25), (1, 2, 3)],
            id="TIFF",
        ),
    ],
)
def test_transparency_is_composited_on_black_or_kept(data: bytes, pixels: list[Pixel], on_black: list[Pixel]) -> None:
    assert decoded(data).tolist() == [[list(pixel) for pixel in on_black]]
    assert decoded(data, color="rgba").tolist() == [[list(pixel) for pixel in pixels]]
    assert decoded(data, color="grayscale").tolist() == [[list(pixel) for pixel in luma(on_black)]]


@pytest.mark.parametrize(
    ("color", "grey"),
    [
        pytest.param((255, 0, 0), 76, id="red"),
        pytest.param((0, 255, 0), 150, id="green"),
        pytest.param((0, 0, 255), 29, id="blue"),
        pytest.param((200, 100, 50), 124, id="brown"),
        pytest.param((255, 255, 255), 255, id="white"),
    ],
)
def test_colour_becomes_grey_by_itu_601_luma(color: Pixel, grey: int) -> None:
    assert decoded(saved(row(color), "PNG"), color="grayscale").tolist() == [[[grey]]]


def test_lab_is_converted_to_srgb() -> None:
    black_white_red = bytes([0, 0, 0, 255, 0, 0, 136, 80, 67])  # L 0 to 255; a and b signed
    expected = [(0, 0, 0), (255, 255, 255), (255, 0, 0)]
    away = np.abs(decoded(tiff(3, 8, 8, black_white_red)).astype(int)[0] - expected)
    assert away[:2].max() <= 1
    assert away[2].max() <= 12  # 8 bits of L, a and b are coarse


def test_a_grey_jpeg_is_converted_to_rgb_and_rgba() -> None:
    data = saved(noise(9, 7, 1), "JPEG")
    grey = pillow(data, "L")
    assert np.array_equal(decoded(data), np.repeat(grey, 3, axis=2))
    assert np.array_equal(decoded(data, color="grayscale"), grey)
    assert np.array_equal(decoded(data, color="rgba")[:, :, 3], np.full((7, 9), 255))


def test_the_inverted_cmyk_of_adobe_jpegs_is_corrected() -> None:
    data = saved(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=100)
    assert b"Adobe" in data
    assert np.array_equal(decoded(data), np.full((8, 8, 3), (255, 0, 0)))


@pytest.mark.parametrize("transform", [pytest.param(0, id="CMYK"), pytest.param(2, id="YCCK")])
@pytest.mark.parametrize("color", [pytest.param("rgb", id="rgb"), pytest.param("grayscale", id="grayscale")])
def test_a_four_channel_jpeg_is_converted_as_by_pillow(transform: int, color: str) -> None:
    file = bytearray(saved(noise(16, 16, 3).convert("CMYK"), "JPEG", quality=100))
    file[file.index(b"Adobe") + 11] = transform
    rgb = Image.fromarray(pillow(bytes(file)))
    expected = np.asarray(rgb if color == "rgb" else rgb.convert("L")).reshape(16, 16, -1)
    assert np.array_equal(decoded(bytes(file), color=color), expected)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_icc_profiles_are_ignored(kind: str) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    plain, profiled = saved(noise(8, 8), kind), saved(noise(8, 8), kind, icc_profile=profile)
    assert Image.open(io.BytesIO(profiled)).info["icc_profile"] == profile
    assert np.array_equal(decoded(plain), decoded(profiled))


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        pytest.param("GIF", {}, id="GIF"),
        pytest.param("PNG", {}, id="APNG"),
        pytest.param("PNG", {"default_image": True}, id="APNG with a still picture of its own"),
        pytest.param("TIFF", {}, id="TIFF"),
        pytest.param("WEBP", {"lossless": True}, id="WebP"),
        pytest.param("MPO", {"quality": 100, "subsampling": 0}, id="MPO"),
    ],
)
def test_only_the_first_frame_is_decoded(kind: str, options: dict[str, object]) -> None:
    first, *others = (Image.new("RGB", (8, 8), color) for color in ((255, 0, 0), (0, 255, 0), (0, 0, 255)))
    data = saved(first, kind, save_all=True, append_images=others, **options)
    assert np.abs(decoded(data).astype(int) - (255, 0, 0)).max() <= (1 if kind == "MPO" else 0)


# --- EXIF orientation


SECOND = {"save_all": True, "append_images": [noise(16, 16)]}  # a second image, as in an MPO
STORED = "abc def"
UPRIGHT = {
    1: "abc def",
    2: "cba fed",
    3: "fed cba",
    4: "def abc",
    5: "ad be cf",
    6: "da eb fc",
    7: "fc eb da",
    8: "cf be ad",
}
ORIENTATIONS = [pytest.param(number, picture, id=str(number)) for number, picture in UPRIGHT.items()]


def letters(picture: str) -> NDArray[np.uint8]:
    """Return an image of 8x8 squares: a is 40, b is 80 and so on to f."""
    lines = [[40 * (ord(letter) - ord("a") + 1) for letter in line] for line in picture.split()]
    return np.kron(np.array(lines, np.uint8), np.ones((8, 8), np.uint8))


def orientation(number: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = number
    return exif


@pytest.mark.parametrize(("number", "upright"), ORIENTATIONS)
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        pytest.param("PNG", {}, id="PNG"),
        pytest.param("TIFF", {}, id="TIFF"),
        pytest.param("WEBP", {"lossless": True}, id="WebP"),
    ],
)
def test_exif_orientation_is_applied(kind: str, options: dict[str, object], number: int, upright: str) -> None:
    image = Image.fromarray(letters(STORED)).convert("RGB")
    data = saved(image, kind, exif=orientation(number), **options)
    assert np.array_equal(decoded(data, color="grayscale")[:, :, 0], letters(upright))


@pytest.mark.parametrize(("number", "upright"), ORIENTATIONS)
@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize(("kind", "options"), [("JPEG", {}), ("MPO", SECOND)], ids=["JPEG", "MPO"])
def test_exif_orientation_of_a_jpeg_is_applied(
    kind: str, options: dict[str, object], mode: str, number: int, upright: str
) -> None:
    image = Image.fromarray(letters(STORED)).convert(mode)
    data = saved(image, kind, exif=orientation(number), quality=100, subsampling=0, **options)
    assert Image.open(io.BytesIO(data)).format == kind
    assert np.abs(decoded(data).astype(int) - letters(upright)[:, :, np.newaxis]).max() <= 2


def test_padding_before_a_marker_does_not_hide_the_orientation() -> None:
    data = saved(noise(8, 6), "JPEG", exif=orientation(3))
    assert np.array_equal(decoded(data[:2] + b"\xff" + data[2:]), pillow(data)[::-1, ::-1])


def test_the_shape_is_that_of_the_upright_image() -> None:
    data = saved(Image.new("RGB", (6, 4)), "JPEG", exif=orientation(6))
    assert shape_of(data, Pixels()) == (6, 4, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    "exif",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"nonsense" * 9, id="nonsense"),
        pytest.param(b"MM\0*", id="cut short"),
        pytest.param(b"MM\0*\xff\xff\xff\xf0", id="a directory beyond the end"),
        pytest.param(b"MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 24, id="a directory of nonsense"),
        pytest.param(b"MM\0*\0\0\0\x08\0\1\x01\x12\0\2\0\0\0\2x\0\0\0" + bytes(4), id="orientation is text"),
        pytest.param(b"MM\0*\0\0\0\x08\0\1\x01\x12\0\5\0\0\0\1\xff\xff\0\0" + bytes(4), id="orientation is nowhere"),
        pytest.param(orientation(0).tobytes()[6:], id="orientation 0"),
        pytest.param(orientation(9).tobytes()[6:], id="orientation 9"),
    ],
)
def test_an_image_with_malformed_exif_is_decoded(kind: str, exif: bytes) -> None:
    image = noise(8, 6)
    assert np.array_equal(decoded(saved(image, kind, exif=b"Exif\0\0" + exif)), decoded(saved(image, kind)))


# --- fitted to the stored size


COLUMNS = np.kron([[10, 20, 30, 40]], np.ones((20, 10))).astype(np.uint8)  # 40x20, four columns


@pytest.mark.parametrize("turned", [pytest.param(False, id="wide"), pytest.param(True, id="tall")])
@pytest.mark.parametrize(
    ("fit", "size", "expected"),
    [
        pytest.param("stretch", 20, np.tile(np.repeat([10, 20, 30, 40], 5), (20, 1)), id="stretch"),
        pytest.param("crop", 20, np.tile(np.repeat([20, 30], 10), (20, 1)), id="crop"),
        pytest.param(
            "pad",
            20,
            np.vstack([np.zeros((5, 20)), np.tile(np.repeat([10, 20, 30, 40], 5), (10, 1)), np.zeros((5, 20))]),
            id="pad",
        ),
    ],
)
def test_fit_maps_another_aspect_ratio_to_the_stored_size(
    fit: str, size: int, expected: NDArray[np.uint8], turned: bool
) -> None:
    data = saved(Image.fromarray(np.ascontiguousarray(COLUMNS.T) if turned else COLUMNS), "PNG")
    pixels = decoded(data, size=(size, size), fit=fit, interpolation="box")
    assert np.array_equal(pixels, np.repeat((expected.T if turned else expected)[:, :, np.newaxis], 3, axis=2))


@pytest.mark.parametrize(("width", "height"), [(1000, 1), (1, 1000), (17, 1)])
def test_padding_keeps_one_line_of_a_very_thin_image(width: int, height: int) -> None:
    white = saved(Image.new("RGB", (width, height), "white"), "PNG")
    padded = decoded(white, size=(8, 8), fit="pad")
    line = padded[4] if width > height else padded[:, 4]
    assert (line == 255).all()
    assert padded.sum() == line.sum()


@pytest.mark.parametrize("size", [(8, 8), (30, 7), (5, 50)])
@pytest.mark.parametrize(("width", "height"), [(40, 30), (33, 17), (20, 80), (7, 7)])
def test_padding_equals_that_of_pillow(width: int, height: int, size: tuple[int, int]) -> None:
    image = noise(width, height)
    expected = ImageOps.pad(image, size, Image.Resampling.BILINEAR)
    assert np.array_equal(decoded(saved(image, "PNG"), size=size, fit="pad"), np.asarray(expected))


@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_an_image_of_the_stored_size_is_not_resampled(kind: str, fit: str) -> None:
    data = saved(noise(12, 9), kind)
    assert np.array_equal(decoded(data, size=(12, 9), fit=fit, interpolation="lanczos"), pillow(data))


@pytest.mark.parametrize("name", INTERPOLATIONS)
@pytest.mark.parametrize(("color", "mode"), [("rgb", "RGB"), ("grayscale", "L"), ("rgba", "RGBA")])
@pytest.mark.parametrize("size", [pytest.param((12, 9), id="smaller"), pytest.param((50, 40), id="larger")])
def test_interpolation_equals_that_of_pillow(name: str, color: str, mode: str, size: tuple[int, int]) -> None:
    image = noise(30, 20, CHANNELS[color])
    expected = np.asarray(image.resize(size, Image.Resampling[name.upper()])).reshape(size[1], size[0], -1)
    assert np.array_equal(decoded(saved(image, "PNG"), color=color, size=size, interpolation=name), expected)
    assert image.mode == mode


# --- JPEGs at a half, three eighths, a quarter or an eighth


def reduced(data: bytes, eighths: int) -> Image.Image:
    """Return a JPEG decoded at a fraction of its size: by Pillow, or by simplejpeg for 3/8, which Pillow cannot."""
    image: Image.Image = Image.open(io.BytesIO(data))
    width, height = (-(-side * eighths // 8) for side in image.size)
    if eighths == 3:
        gray = image.mode == "L"
        pixels = simplejpeg.decode_jpeg(data, "GRAY" if gray else "RGB", min_width=width, min_height=height)
        image = Image.fromarray(pixels[:, :, 0] if gray else pixels)
    elif eighths < 8:
        image.draft(image.mode, (image.width * eighths // 8, image.height * eighths // 8))
    image.load()
    assert image.size == (width, height)
    return image


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        pytest.param("JPEG", {}, id="plain"),
        pytest.param("JPEG", {"exif": orientation(1)}, id="with EXIF"),
        pytest.param("MPO", {"exif": orientation(1), **SECOND}, id="MPO"),
    ],
)
@pytest.mark.parametrize(("color", "channels"), [("rgb", 3), ("grayscale", 1)])
@pytest.mark.parametrize(
    ("width", "height", "eighths"),
    [
        pytest.param(60, 60, 4, id="6 times"),
        pytest.param(59, 60, 8, id="5.9 times as wide"),
        pytest.param(60, 59, 8, id="5.9 times as high"),
        pytest.param(61, 77, 4, id="odd"),
        pytest.param(80, 80, 3, id="8 times"),
        pytest.param(80, 79, 4, id="7.9 times"),
        pytest.param(91, 101, 3, id="9.1 times, odd"),
        pytest.param(120, 120, 2, id="12 times"),
        pytest.param(119, 120, 3, id="11.9 times"),
        pytest.param(240, 240, 1, id="24 times"),
        pytest.param(240, 239, 2, id="23.9 times"),
        pytest.param(1000, 243, 1, id="100 times as wide"),
        pytest.param(1000, 59, 8, id="100 times as wide, 5.9 times as high"),
    ],
)
def test_a_jpeg_of_6_8_12_or_24_times_the_stored_size_is_decoded_at_reduced_size(
    width: int, height: int, eighths: int, color: str, channels: int, kind: str, options: dict[str, object]
) -> None:
    data = saved(noise(width, height, channels), kind, quality=95, **options)
    expected = reduced(data, eighths).resize((10, 10), Image.Resampling.BILINEAR)
    pixels = decoded(data, size=(10, 10), color=color)
    assert np.array_equal(pixels, np.asarray(expected).reshape(10, 10, channels))
    assert (eighths == 8) == np.array_equal(pixels, decoded(data, size=(10, 10), color=color, exact=True))


def test_a_jpeg_below_6_times_the_stored_size_is_decoded_at_full_size() -> None:
    data = saved(photo(599, 600), "JPEG")
    assert np.array_equal(decoded(data, size=(100, 100)), decoded(data, size=(100, 100), exact=True))


def test_the_reduction_of_a_rotated_jpeg_depends_on_its_upright_size() -> None:
    data = saved(noise(120, 60), "JPEG", exif=orientation(6))  # 60x120 upright
    expected = reduced(data, 4).transpose(Image.Transpose.ROTATE_270).resize((10, 20), Image.Resampling.BILINEAR)
    assert np.array_equal(decoded(data, size=(10, 20)), np.asarray(expected))


@pytest.mark.parametrize("times", [6, 12, 24])
@pytest.mark.parametrize("options", [{}, {"exif": orientation(1)}], ids=["simplejpeg", "Pillow"])
def test_exact_resizes_the_image_of_full_size(times: int, options: dict[str, object]) -> None:
    data = saved(noise(10 * times, 10 * times), "JPEG", **options)
    expected = Image.fromarray(pillow(data)).resize((10, 10), Image.Resampling.BICUBIC)
    pixels = decoded(data, size=(10, 10), interpolation="bicubic", exact=True)
    assert np.array_equal(pixels, np.asarray(expected))


@pytest.mark.parametrize("times", [6, 8, 12, 24])
@pytest.mark.parametrize("name", ["bilinear", "lanczos"])
def test_reduced_decoding_differs_from_exact_by_less_than_a_grey_level(times: int, name: str) -> None:
    data = saved(photo(32 * times, 24 * times), "JPEG", quality=90)
    rough, exact = (decoded(data, size=(32, 24), interpolation=name, exact=exact) for exact in (False, True))
    assert 0 < np.abs(rough.astype(int) - exact).mean() < 1


# --- JPEGs through simplejpeg


@pytest.mark.parametrize(
    ("channels", "options"),
    [
        pytest.param(3, {"subsampling": "4:4:4"}, id="4:4:4"),
        pytest.param(3, {"subsampling": "4:2:2"}, id="4:2:2"),
        pytest.param(3, {"subsampling": "4:2:0"}, id="4:2:0"),
        pytest.param(3, {"progressive": True}, id="progressive"),
        pytest.param(3, {"progressive": True, "subsampling": "4:4:4", "quality": 100}, id="progressive 4:4:4"),
        pytest.param(3, {"restart_marker_blocks": 1}, id="restart markers"),
        pytest.param(3, {"keep_rgb": True}, id="RGB, not YCbCr"),
        pytest.param(3, {"quality": 5}, id="coarse"),
        pytest.param(1, {}, id="grey"),
        pytest.param(1, {"progressive": True}, id="progressive grey"),
    ],
)
@pytest.mark.parametrize(("color", "mode"), [("rgb", "RGB"), ("grayscale", "L"), ("rgba", "RGBA")])
@pytest.mark.parametrize("size", [None, (37, 29)], ids=["as it is", "in place"])
def test_jpeg_pixels_equal_those_of_pillow(
    channels: int, options: dict[str, object], color: str, mode: str, size: tuple[int, int] | None
) -> None:
    data = saved(noise(37, 29, channels), "JPEG", **options)
    assert np.array_equal(decoded(data, color=color, size=size), pillow(data, mode))


@pytest.mark.parametrize("size", [pytest.param(False, id="as it is"), pytest.param(True, id="in place")])
@pytest.mark.parametrize(
    ("sampling", "width", "height"),
    [pytest.param(0x41, 32, 8, id="4:1:1"), pytest.param(0x14, 8, 32, id="4:4:1")],
)
def test_a_jpeg_of_rare_chroma_sampling_is_decoded(sampling: int, width: int, height: int, size: bool) -> None:
    whole = saved(Image.new("RGB", (16, 16), (200, 30, 60)), "JPEG", quality=100, subsampling="4:2:0")
    data = frame_header(
        whole, sampling=sampling, width=width, height=height
    )  # the same number of blocks, in another order
    pixels = decoded(data, size=(width, height) if size else None)
    assert np.abs(pixels.astype(int) - (200, 30, 60)).max() <= 2


@pytest.mark.parametrize("size", [None, (20, 20), (5, 5)], ids=["as it is", "in place", "smaller"])
@pytest.mark.parametrize(
    ("start", "stray"),
    [pytest.param(-2, b"abc", id="before its end"), pytest.param(None, b"abc", id="after its end")],
)
def test_a_jpeg_with_stray_bytes_around_its_end_is_decoded(
    start: int | None, stray: bytes, size: tuple[int, int] | None
) -> None:
    clean = saved(noise(20, 20), "JPEG")
    data = clean + stray if start is None else clean[:start] + stray + clean[start:]
    assert np.array_equal(decoded(data, size=size), decoded(clean, size=size))


# --- refused files


JPEG = saved(noise(40, 40), "JPEG")
PNG = saved(noise(40, 40), "PNG")
STREAM = zlib.compress(bytes(41 * 40), level=0)

UNDECODABLE = [
    pytest.param(b"", "not an image", id="empty"),
    pytest.param(random.Random(0).randbytes(1000), "not an image", id="random bytes"),
    pytest.param(b"path,label\ncat/1.jpg,cat\n", "not an image", id="text"),
    pytest.param(b"\xff\xd8", "not an image", id="JPEG, only its mark"),
    pytest.param(JPEG[:100], "not an image|Truncated File Read", id="JPEG, half its header"),
    pytest.param(JPEG[:-50], "image file is truncated", id="JPEG cut short"),
    pytest.param(JPEG[: JPEG.index(b"\xff\xda") + 20], "image file is truncated", id="JPEG without pixels"),
    pytest.param(frame_header(JPEG, precision=12), "not an image", id="12-bit JPEG"),
    pytest.param(PNG[:8], "not an image", id="PNG, only its mark"),
    pytest.param(PNG[: len(PNG) // 2], "image file is truncated", id="PNG cut short"),
    pytest.param(png_of((40, 40), 8, 0, zlib.compress(b"\xff" * 41 * 40)), "data stream", id="PNG, a bad filter"),
    pytest.param(png_of((40, 40), 8, 0, b"\x78\x01\x07" + STREAM), "data stream", id="PNG, broken compression"),
    pytest.param(png_of((40, 40), 8, 0, STREAM[:-1] + b"\xff"), "data stream", id="PNG, wrong checksum"),
    pytest.param(saved(noise(40, 40), "GIF")[:-500], "truncated", id="GIF cut short"),
]


@pytest.mark.parametrize("size", [None, (40, 40), (3, 3)], ids=["as it is", "in place", "smaller"])
@pytest.mark.parametrize(("data", "message"), UNDECODABLE)
def test_a_broken_file_is_refused_in_one_line(data: bytes, message: str, size: tuple[int, int] | None) -> None:
    with pytest.raises(DecodeError, match=message) as error:
        decode(data, Pixels(size=size), np.zeros((*(size or (40, 40)), 3), np.uint8))
    assert "\n" not in str(error.value)
    assert " at 0x" not in str(error.value)


def test_the_shape_of_a_broken_file_is_an_error() -> None:
    with pytest.raises(DecodeError, match="not an image"):
        shape_of(b"", Pixels())


@pytest.mark.parametrize("size", [None, (8, 8), (4, 4)], ids=["as it is", "in place", "smaller"])
@pytest.mark.parametrize(
    "data",
    [
        pytest.param(saved(noise(8, 8), "PNG"), id="PNG"),
        pytest.param(saved(noise(8, 8), "JPEG"), id="JPEG"),
        pytest.param(saved(noise(8, 8), "JPEG", exif=orientation(1)), id="JPEG with EXIF"),
        pytest.param(saved(noise(8, 8).convert("CMYK"), "JPEG"), id="CMYK JPEG"),
        pytest.param(saved(noise(8, 8), "GIF"), id="GIF"),
    ],
)
def test_an_image_of_more_than_max_pixels_is_refused(data: bytes, size: tuple[int, int] | None) -> None:
    decoded(data, size=size, max_pixels=64)
    with pytest.raises(DecodeError, match=r"^8x8 is more than 63 pixels; --max-pixels allows more$"):
        decode(data, Pixels(size=size, max_pixels=63), np.zeros((*(size or (8, 8)), 3), np.uint8))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(png_of((60_000, 60_000), 8, 0, b""), id="PNG"),
        pytest.param(frame_header(JPEG, width=60_000, height=60_000), id="JPEG"),
    ],
)
def test_a_decompression_bomb_is_refused_by_its_header(data: bytes) -> None:
    with pytest.raises(DecodeError, match="more than 178956970 pixels; --max-pixels allows more"):
        decode(data, Pixels(size=(8, 8)), np.zeros((8, 8, 3), np.uint8))


def in_a_thread(call: Callable[[], object]) -> object:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result()


def test_max_pixels_overrides_pillows_limit_during_decoding_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert np.array_equal(decoded(saved(noise(8, 8), "PNG"), max_pixels=64), np.asarray(noise(8, 8)))
    assert Image.MAX_IMAGE_PIXELS == 10


def test_decoding_in_another_thread_does_not_change_pillows_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A TIFF that a thread refuses because of it is retried by a process: see tests/test_cluster.py."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    for most in (1000, MAX_PIXELS + 1):
        row = in_a_thread(lambda most=most: decoded(saved(noise(8, 8), "PNG"), max_pixels=most))
        assert np.array_equal(row, np.asarray(noise(8, 8)))
        with pytest.raises(DecodeError, match="more than 20 pixels, Pillow's limit outside the main thread"):
            in_a_thread(lambda most=most: decoded(saved(noise(8, 8), "TIFF"), max_pixels=most))
    assert Image.MAX_IMAGE_PIXELS == 10


# --- sizes


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_size_other_than_that_of_the_row_is_an_error_when_no_size_is_set(kind: str) -> None:
    with pytest.raises(SizeError, match=r"^4x2$"):
        decode(saved(noise(4, 2), kind), Pixels(), np.zeros((4, 2, 3), np.uint8))


@pytest.mark.parametrize(("color", "channels"), CHANNELS.items())
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_the_shape_is_that_of_the_image_when_no_size_is_set(kind: str, color: str, channels: int) -> None:
    assert shape_of(saved(noise(5, 3), kind), Pixels(color=color)) == (3, 5, channels)  # type: ignore[arg-type]


@pytest.mark.parametrize(("color", "channels"), CHANNELS.items())
def test_the_shape_needs_no_image_when_a_size_is_set(color: str, channels: int) -> None:
    assert shape_of(b"", Pixels(size=(5, 3), color=color)) == (3, 5, channels)  # type: ignore[arg-type]


# --- arbitrary and mutated bytes


VALID = [
    saved(noise(8, 8), "JPEG"),
    saved(noise(8, 8), "JPEG", exif=orientation(6), progressive=True),
    saved(noise(8, 8).convert("CMYK"), "JPEG"),
    saved(noise(8, 8), "PNG", exif=orientation(5)),
    saved(noise(8, 8, 4), "PNG"),
    png((3, 1), 8, 3, b"\0\1\2", **palette(0, 128)),
    gif(transparency=1),
    saved(noise(8, 8), "GIF", save_all=True, append_images=[noise(8, 8).rotate(180)]),
    saved(noise(8, 8), "BMP"),
    saved(noise(8, 8), "WEBP"),
    saved(noise(8, 8), "TIFF"),
    saved(noise(8, 8), "TIFF", compression="tiff_lzw"),
    tiff(8, 32, 1, struct.pack("<8f", *FLOATS), sample_format=3),
]
HOW = [
    Pixels(size=(8, 8), max_pixels=10_000),
    Pixels(size=(1, 1), max_pixels=10_000, color="rgba", fit="crop"),
    Pixels(size=(4, 3), max_pixels=10_000, color="grayscale", fit="pad"),
]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """Draw a valid file with up to four bytes changed, sometimes cut short."""
    file = bytearray(draw(st.sampled_from(VALID)))
    for _ in range(draw(st.integers(1, 4))):
        file[draw(st.integers(0, len(file) - 1))] = draw(st.integers(0, 255))
    return bytes(file[: draw(st.integers(0, len(file)) | st.just(len(file)))])


def is_row_or_refused(data: bytes, how: Pixels) -> bool:
    """Return whether the row was written completely, or the file refused in one line."""
    rows = [np.full(shape_of(data, how), before, np.uint8) for before in (77, 78)]
    try:
        for out in rows:
            decode(data, how, out)
    except DecodeError as error:
        return "\n" not in str(error) and " at 0x" not in str(error)
    return np.array_equal(*rows)


@pytest.mark.parametrize("how", HOW, ids=lambda how: how.color)
@given(data=st.binary(max_size=200))
@settings(max_examples=100, deadline=None)
def test_any_bytes_are_decoded_or_refused(how: Pixels, data: bytes) -> None:
    assert is_row_or_refused(data, how)


@pytest.mark.parametrize("how", HOW, ids=lambda how: how.color)
@given(data=mutated())
@settings(max_examples=100, deadline=None)
def test_a_mutated_file_is_decoded_or_refused(how: Pixels, data: bytes) -> None:
    assert is_row_or_refused(data, how)


# --- real files


def is_known_to_pillow(data: bytes) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            Image.open(io.BytesIO(data)).load()
        except Exception:  # Pillow's exceptions have no common base class
            return False
    return True


def is_decoded(data: bytes) -> bool:
    try:
        decode(data, Pixels(size=(8, 8)), np.zeros((8, 8, 3), np.uint8))
    except DecodeError:
        return False
    return True


@needs_shared
@pytest.mark.parametrize("folder", ["pngsuite", "photos", "exif-orientation"])
def test_real_files_are_decoded_if_and_only_if_pillow_decodes_them(folder: str) -> None:
    files = [path for path in sorted((SHARED / folder).rglob("*")) if path.is_file()]
    known = {path.name: is_known_to_pillow(path.read_bytes()) for path in files}
    assert {path.name: is_decoded(path.read_bytes()) for path in files} == known
    assert sum(known.values()) > 0


@needs_shared
@pytest.mark.parametrize("name", ["Landscape", "Portrait"])
def test_a_photo_stored_in_any_orientation_decodes_to_nearly_the_same_pixels(name: str) -> None:
    files = [SHARED / "exif-orientation" / f"{name}_{number}.jpg" for number in range(9)]
    upright, *rows = (decoded(path.read_bytes(), size=(16, 16)).astype(int) for path in files)
    assert max(np.abs(pixels - upright).mean() for pixels in rows) < 2
