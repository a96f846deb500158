"""Every band and every bit: rows have the values that tifffile, Pillow and numpy read from the same files."""

from __future__ import annotations

import io
import re
import struct
import sys
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps

from h5split import PackedImages
from h5split.file.losses import BANDS as MORE_BANDS
from h5split.file.losses import INTEGERS, PAGES, TRANSPARENCY, TRUNCATED
from pack_images import DecodeError, PackError, SizeError, pack, prepare, write
from pack_images.cli import main
from pack_images.decode.row import decode, decoded, shape_of
from pack_images.options import pixels_of

tifffile = pytest.importorskip("tifffile", reason="needs tifffile: pip install 'pack-images[tiff]'")
pytest.importorskip("imagecodecs", reason="needs imagecodecs: pip install 'pack-images[tiff]'")

RNG = np.random.default_rng(26)
BANDS = RNG.integers(0, 1 << 16, (64, 64, 13), np.uint16)


def row(data, size=None, **how):
    """The row of a file, and what was lost."""
    pixels = pixels_of(size if size is None or isinstance(size, tuple) else (size, size), **how)
    found, loss = decoded(data, pixels)
    out = np.full(shape_of(data, pixels), 7, found.dtype)
    assert decode(data, pixels, out) == loss
    assert np.array_equal(out, found, equal_nan=found.dtype.kind == "f")
    assert found.dtype == pixels.dtype
    return found, loss


def tiff(array, **options):
    """A TIFF that tifffile writes: bands last, unless they are planar."""
    file = io.BytesIO()
    if options.get("planarconfig") == "separate":
        array = array.transpose(2, 0, 1)
    tifffile.imwrite(file, array, **{"photometric": "minisblack", **options})
    return file.getvalue()


def saved(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def png_16(samples):
    """A PNG of 16 bits a channel, which Pillow cannot write: uint16 (H, W, C), C being 1 to 4."""
    height, width, channels = samples.shape
    lines = b"".join(b"\0" + line.tobytes() for line in samples.astype(">u2"))

    def chunk(kind, body):
        return struct.pack(">L", len(body)) + kind + body + struct.pack(">L", zlib.crc32(kind + body))

    header = struct.pack(">2L5B", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


PLAIN = tiff(BANDS, planarconfig="contig")

# --- every band as it is ----------------------------------------------------------------------------------------------

TIFFS = {
    "chunky": {"planarconfig": "contig"},
    "planar": {"planarconfig": "separate"},
    "LZW": {"planarconfig": "contig", "compression": "lzw"},
    "LZW, predictor": {"planarconfig": "contig", "compression": "lzw", "predictor": True},
    "deflate": {"planarconfig": "contig", "compression": "zlib"},
    "deflate, planar, predictor": {"planarconfig": "separate", "compression": "zlib", "predictor": True},
    "Zstandard, tiled": {"planarconfig": "contig", "compression": "zstd", "tile": (32, 32)},
    "deflate, planar, strips": {"planarconfig": "separate", "compression": "zlib", "rowsperstrip": 10},
    "LZW, planar, big-endian": {"planarconfig": "separate", "compression": "lzw", "byteorder": ">"},
    "Zstandard": {"planarconfig": "contig", "compression": "zstd", "rowsperstrip": 7, "byteorder": ">"},
    "LZMA": {"planarconfig": "contig", "compression": "lzma"},
    "PackBits": {"planarconfig": "contig", "compression": "packbits"},
    "tiled, planar": {"planarconfig": "separate", "tile": (16, 48)},
    "big-endian": {"planarconfig": "contig", "byteorder": ">"},
    "BigTIFF": {"planarconfig": "contig", "bigtiff": True},
    "strips": {"planarconfig": "contig", "rowsperstrip": 5, "compression": "zlib"},
    "GeoTIFF": {"planarconfig": "contig", "extratags": [(33550, "d", 3, (10.0, 10.0, 0.0), True)]},
}


@pytest.mark.parametrize("options", TIFFS.values(), ids=TIFFS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_every_value_of_a_tiff_of_13_bands_is_kept(options, dtype):
    array = BANDS.astype(dtype)
    if dtype == np.float32:
        array = array / 7
    data = tiff(array, **options)
    found, loss = row(data, color="all", dtype=np.dtype(dtype).name)
    read = tifffile.imread(io.BytesIO(data))
    assert np.array_equal(found, read.transpose(1, 2, 0) if options.get("planarconfig") == "separate" else read)
    assert np.array_equal(found, array)
    assert loss is None


@pytest.mark.parametrize("compression", [None, "zlib", "lzw", "zstd"])
def test_a_tiff_with_a_damaged_strip_gives_what_tifffile_makes_of_it_or_is_left_out(compression):
    """A strip that is left out, cut, of another place or of another size: never other values than tifffile's."""
    whole = bytearray(tiff(BANDS, planarconfig="contig", rowsperstrip=16, compression=compression))
    with tifffile.TiffFile(io.BytesIO(whole)) as file:
        offsets, sizes = (file.pages.first.tags[name].valueoffset for name in ("StripOffsets", "StripByteCounts"))
        width = 2 if file.pages.first.tags["StripByteCounts"].dtype == 3 else 4
    for at, size, number in [
        (offsets, 4, 0),
        (sizes, width, 0),
        (sizes, width, 9),
        (offsets, 4, 1 << 30),
        (offsets, 4, 9),
    ]:
        data = whole[:]
        data[at : at + size] = number.to_bytes(size, "little")
        try:
            expected = tifffile.imread(io.BytesIO(data))
        except Exception:
            expected = None
        try:
            found = row(bytes(data), color="all", dtype="uint16")[0]
        except DecodeError:
            continue
        assert expected is not None
        assert np.array_equal(found, expected)


@pytest.mark.parametrize("tile", [None, (16, 16)], ids=["strips", "tiles"])
@pytest.mark.parametrize("compression", ["zlib", "lzw", "zstd", "packbits"])
def test_a_compressed_tiff_that_is_cut_short_is_left_out(compression, tile):
    """Without its last byte, LZW gives a picture of the right size with a few wrong values."""
    for seed in range(8):
        values = np.random.default_rng(seed).integers(1, 1 << 16, (20, 19, 3), np.uint16)
        data = tiff(values, compression=compression, tile=tile, planarconfig="contig", metadata=None)
        end = max(map(sum, segments(data)))
        with pytest.raises(DecodeError, match=f"cut short: expected {end:,} bytes or more, found {end - 1:,}"):
            row(data[: end - 1], color="all", dtype="uint16")


def segments(data):
    """The offset and the size of each strip or tile."""
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        return list(zip(file.pages.first.dataoffsets, file.pages.first.databytecounts, strict=True))


@pytest.mark.parametrize("bands", [1, 2, 3, 4, 5, 16])
def test_any_number_of_bands_is_kept_even_a_fourth_that_is_transparency(bands):
    array = BANDS[:9, :7, :bands] if bands < 14 else np.tile(BANDS[:9, :7], 2)[..., :bands]
    data = tiff(np.ascontiguousarray(array).squeeze(), **({"planarconfig": "contig"} if bands > 1 else {}))
    assert np.array_equal(row(data, color="all", dtype="uint16")[0], array)
    if bands == 4:
        data = tiff(np.ascontiguousarray(array), planarconfig="contig", photometric="rgb", extrasamples=["unassalpha"])
        assert np.array_equal(row(data, color="all", dtype="uint16")[0], array)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "uint32", "float16", "float32", "float64", "bool"])
@pytest.mark.parametrize("order", "CF")
def test_an_npy_file_is_a_picture(dtype, order):
    array = np.asarray(RNG.integers(0, 2 if dtype == "bool" else 250, (6, 5, 3)), dtype, order=order)
    assert np.array_equal(row(npy(array), color="all", dtype="float32")[0], array.astype(np.float32))
    assert np.array_equal(row(npy(array[..., 0]), color="all", dtype="float32")[0][..., 0], array[..., 0])
    for save in (np.savez, np.savez_compressed):
        file = io.BytesIO()
        save(file, array)
        assert np.array_equal(row(file.getvalue(), color="all", dtype="float32")[0], array.astype(np.float32))


@pytest.mark.parametrize("shape", [(13, 64, 64), (4, 20, 24), (12, 100, 60), (13, 32, 32), (3, 17, 17)])
def test_an_array_with_bands_first_is_refused(shape, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    array = np.random.default_rng(4).integers(0, 1 << 16, shape, np.uint16)
    message = re.escape(f"{shape}: bands first? expected (H, W, C); array.transpose(1, 2, 0)")
    with pytest.raises(DecodeError, match=f"^{message}"):
        row(npy(array), color="all", dtype="uint16")
    (tmp_path / "data").mkdir()
    np.save("data/a.npy", array)
    with pytest.raises(PackError, match=message):
        pack("data", "out.h5", color="all", dtype="uint16", workers=1)
    np.save("data/a.npy", array.transpose(1, 2, 0))
    pack("data", "out.h5", color="all", dtype="uint16", workers=1)
    assert np.array_equal(PackedImages("out.h5").images[0], array.transpose(1, 2, 0))


@pytest.mark.parametrize("shape", [(64, 64, 200), (16, 64, 64 + 1), (4, 64, 16), (13, 50, 70), (64, 64, 64)])
def test_pictures_of_many_bands_and_low_ones_are_kept(shape):
    array = np.random.default_rng(4).integers(0, 1 << 16, shape, np.uint16)
    assert np.array_equal(row(npy(array), color="all", dtype="uint16")[0], array)
    low = array[:4]
    assert np.array_equal(row(tiff(low, planarconfig="contig"), color="all", dtype="uint16")[0], low)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "CMYK"])
def test_the_bands_of_a_picture_of_pillows_are_kept(mode):
    image = Image.fromarray(RNG.integers(0, 256, (9, 7, 4), np.uint8)).convert("RGB").convert(mode)
    data = saved(image, "TIFF" if mode == "CMYK" else "PNG")
    for dtype in ("uint8", "uint16", "float32"):
        assert np.array_equal(row(data, color="all", dtype=dtype)[0].squeeze(), np.asarray(image))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_png_of_16_bits_is_kept(channels):
    samples = RNG.integers(0, 1 << 16, (6, 5, channels), np.uint16)
    assert np.array_equal(row(png_16(samples), color="all", dtype="uint16")[0], samples)
    assert np.array_equal(row(png_16(samples), color="all", dtype="float32")[0], samples)


@pytest.mark.parametrize("most", [20, 255, 4095, 65535])
def test_a_pgm_has_the_values_of_its_file(most):
    values = RNG.integers(0, most + 1, (6, 5)).astype(">u2" if most > 255 else np.uint8)
    data = b"P5 # a note\n5 6\n%d\n" % most + values.tobytes()
    assert np.array_equal(row(data, color="all", dtype="uint16")[0][..., 0], values)
    assert np.array_equal(row(data, color="index", dtype="uint16")[0][..., 0], values)


@pytest.mark.parametrize("kind", ["P3", "P6"])
def test_a_ppm_of_fewer_than_8_bits_has_the_values_of_its_file(kind):
    values = np.arange(90, dtype=np.uint8).reshape(5, 6, 3)
    body = values.tobytes() if kind == "P6" else " ".join(map(str, values.reshape(-1).tolist())).encode()
    data = f"{kind}\n6 5\n100\n".encode() + body
    assert np.array_equal(row(data, color="all")[0], values)
    assert row(data, color="rgb")[0].max() == 227  # of 255, as 89 of 100


def test_twelve_bits_of_a_tiff_are_kept():
    import imagecodecs

    values = RNG.integers(0, 4096, (8, 6), np.uint16)
    plain = bytearray(tiff(values))
    packed = imagecodecs.packints_encode(values, 12) if hasattr(imagecodecs, "packints_encode") else None
    if packed is None:
        pytest.skip("imagecodecs does not write 12 bits")
    data = tiff_of({256: 6, 257: 8, 258: 12, 259: 1, 262: 1, 277: 1, 278: 8}, bytes(packed))
    assert plain
    assert np.array_equal(row(data, color="all", dtype="uint16")[0][..., 0], values)


def tiff_of(tags, body):
    """A little-endian TIFF of one strip, of tags of one number each."""
    at = 8 + 2 + 12 * (len(tags) + 2) + 4
    entries = sorted({**tags, 273: at, 279: len(body)}.items())
    directory = b"".join(struct.pack("<HHLL", tag, 4, 1, value) for tag, value in entries)
    return b"II*\0" + struct.pack("<LH", 8, len(entries)) + directory + bytes(4) + body


@pytest.mark.parametrize("bands", [4, 5])
def test_bands_behind_colours_are_a_loss_with_8_bits(bands):
    array = RNG.integers(0, 256, (6, 5, bands), np.uint8)
    found, loss = row(tiff(array, photometric="rgb", extrasamples=["unspecified"] * (bands - 3)))
    assert np.array_equal(found, array[..., :3])
    assert loss.kinds == MORE_BANDS
    straight = tiff(array[..., :4].copy(), photometric="rgb", extrasamples=["unassalpha"])
    assert row(straight, color="rgba")[1] is None


def test_a_tiff_of_many_bands_says_how_to_pack_it():
    with pytest.raises(DecodeError, match="a TIFF that Pillow does not know, such as one of many bands; --color all"):
        row(tiff(BANDS, planarconfig="contig"))


# --- pages ------------------------------------------------------------------------------------------------------------


def test_pages_are_bands_if_the_user_says_so_and_a_loss_otherwise():
    pages = BANDS[:8, :9, :4].transpose(2, 0, 1)
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for page in pages:
            writer.write(np.ascontiguousarray(page), photometric="minisblack", compression="zlib", contiguous=False)
    data = file.getvalue()
    found, loss = row(data, color="all", dtype="uint16", pages="bands")
    assert np.array_equal(found, pages.transpose(1, 2, 0))
    assert loss is None
    found, loss = row(data, color="all", dtype="uint16")
    assert np.array_equal(found[..., 0], pages[0])
    assert loss.kinds == PAGES


def test_pages_of_different_sizes_are_no_bands():
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for side in (8, 9):
            writer.write(np.zeros((side, side), np.uint8), photometric="minisblack")
    with pytest.raises(DecodeError, match=r"expected uint8 \(8, 8\), found uint8 \(9, 9\)"):
        row(file.getvalue(), color="all", pages="bands")


def test_more_pages_than_are_read_leave_a_file_out():
    data = tiff(np.zeros((4097, 2, 2), np.uint8))
    with pytest.raises(DecodeError, match="more than 4,096 pages"):
        row(data, color="all", pages="bands")
    assert row(tiff(np.zeros((4096, 2, 2), np.uint8)), color="all", pages="bands")[0].shape == (2, 2, 4096)


@pytest.mark.parametrize("kind", ["ImageJ", "tifffile"])
def test_pages_that_lie_behind_one_directory_are_pages(kind):
    """Both programs write stacks so if they are large: only the description says how many pages there are."""
    pages = BANDS[:8, :9, :4].transpose(2, 0, 1)
    data = tiff(pages, truncate=True, **({"imagej": True} if kind == "ImageJ" else {}))
    for how in ({"color": "all", "dtype": "uint16"}, {}):
        found, loss = row(data, **how)
        assert np.array_equal(found[..., 0], pages[0] >> (0 if how else 8))
        assert loss.kinds & PAGES
    with pytest.raises(DecodeError, match="expected a directory for each page, found one directory for several"):
        row(data, color="all", pages="bands")
    alone = tiff(pages[0], **({"imagej": True} if kind == "ImageJ" else {}))
    assert row(alone, color="all", dtype="uint16")[1] is None


def test_pages_that_only_pillow_reads_are_no_bands():
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for value in (10, 20):
            writer.write(np.full((16, 16), value, np.uint8), photometric="minisblack", compression="jpeg")
    with pytest.raises(
        DecodeError, match=r"pages as bands: expected grey values .* found MINISBLACK compressed by JPEG"
    ):
        row(file.getvalue(), color="all", pages="bands")
    assert row(file.getvalue(), color="all")[1].kinds == PAGES


def test_a_tiff_that_cannot_be_read_does_not_say_to_take_every_band():
    data = tiff(BANDS[..., :1], compression="lerc")
    with pytest.raises(DecodeError, match=r"a TIFF that cannot be read: .*; a --decoder of yours can read any"):
        row(data, color="all", dtype="uint16")


# --- colours ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP"])
def test_8_bits_keep_their_range_in_16(kind):
    data = saved(Image.fromarray(RNG.integers(0, 256, (9, 7, 3), np.uint8)), kind)
    eight = np.asarray(Image.open(io.BytesIO(data)))
    assert np.array_equal(row(data, dtype="uint16")[0], eight * np.uint16(257))
    assert np.array_equal(row(data, dtype="float32")[0], eight)
    assert np.array_equal(row(data, color="all", dtype="uint16")[0], eight)  # every value as it is


def test_16_bits_of_colours_are_kept_and_become_grey_without_rounding_to_8():
    samples = RNG.integers(0, 1 << 16, (9, 7, 3), np.uint16)
    for data in (png_16(samples), tiff(samples, photometric="rgb")):
        assert np.array_equal(row(data, dtype="uint16")[0], samples)
        grey = row(data, color="grayscale", dtype="uint16")[0]
        assert np.array_equal(grey[..., 0], np.rint(samples @ np.array([0.299, 0.587, 0.114])).astype(np.uint16))
        assert np.array_equal(row(data, color="rgba", dtype="uint16")[0][..., 3], np.full((9, 7), 65535))
    grey = tiff(samples[..., 0])
    assert np.array_equal(row(grey, dtype="uint16")[0], np.repeat(samples[..., :1], 3, axis=2))


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("color", ["rgb", "rgba", "grayscale"])
def test_cmyk_of_16_bits_becomes_the_colours_that_8_bits_become(compression, color):
    """Its fourth band is black ink, not transparency."""
    inks = RNG.integers(0, 256, (20, 19, 4), np.uint8)
    options = {"photometric": "separated", "planarconfig": "contig", "compression": compression}
    eight, _ = row(tiff(inks, **options), color=color)
    data = tiff(inks.astype(np.uint16) * 257, **options)
    for dtype, scale in (("uint16", 257), ("float32", 257)):
        found, loss = row(data, color=color, dtype=dtype)
        assert loss is None
        assert np.allclose(found / scale, eight, atol=2)
    assert np.array_equal(row(data, color="all", dtype="uint16")[0], inks.astype(np.uint16) * 257)


def test_white_is_zero_where_the_tiff_says_so():
    values = RNG.integers(0, 1 << 16, (5, 4), np.uint16)
    data = tiff(values, photometric="miniswhite")
    assert np.array_equal(row(data, color="grayscale", dtype="uint16")[0][..., 0], 65535 - values)
    assert np.array_equal(row(data, color="all", dtype="uint16")[0][..., 0], values)
    turned = tiff(values, photometric="miniswhite", extratags=[(274, "H", 1, 3, True)])
    assert np.array_equal(row(turned)[0][..., 1], (65535 - values[::-1, ::-1]) >> 8)


@pytest.mark.parametrize("bits", [9, 10, 12, 14])
def test_white_is_zero_of_9_to_14_bits_has_the_range_of_its_bits(bits):
    values = RNG.integers(0, 1 << bits, (8, 8), np.uint16)
    packed = "".join(f"{value:0{bits}b}" for value in values.reshape(-1).tolist())
    samples = int(packed, 2).to_bytes(len(packed) // 8)
    data = tiff_of({256: 8, 257: 8, 258: bits, 259: 1, 262: 0, 277: 1, 278: 8}, samples)
    found, _ = row(data, color="grayscale", dtype="uint16")
    assert np.array_equal(found[..., 0], (1 << bits) - 1 - values)
    assert np.array_equal(row(data, color="all", dtype="uint16")[0][..., 0], values)


def test_transparency_behind_white_is_zero_is_not_turned_around():
    samples = RNG.integers(0, 1 << 16, (5, 4, 2), np.uint16)
    data = tiff(samples, photometric="miniswhite", planarconfig="contig", extrasamples=["unassalpha"])
    found, _ = row(data, color="rgba", dtype="uint16")
    assert np.array_equal(found[..., 0], 65535 - samples[..., 0])
    assert np.array_equal(found[..., 3], samples[..., 1])


def test_a_fourth_band_is_transparency_only_if_the_tiff_says_so():
    samples = RNG.integers(0, 1 << 16, (9, 7, 4), np.uint16)
    straight = tiff(samples, photometric="rgb", extrasamples=["unassalpha"])
    found = row(straight, dtype="uint16")[0]
    alpha = samples[..., 3:] / 65535
    assert np.array_equal(found, np.rint(samples[..., :3] * alpha))
    assert np.array_equal(row(straight, color="rgba", dtype="uint16")[0], samples)
    white = row(straight, dtype="uint16", background="white")[0]
    assert np.abs(white - (samples[..., :3] * alpha + 65535 * (1 - alpha))).max() <= 0.5
    infrared = tiff(samples, photometric="rgb", extrasamples=["unspecified"])
    with pytest.raises(DecodeError, match="4 bands: expected grey or three colours; --color all takes every band"):
        row(infrared, dtype="uint16")
    with pytest.raises(DecodeError, match="13 bands: expected grey or three colours"):
        row(tiff(BANDS, planarconfig="contig"), dtype="uint16")


def test_transparency_that_hides_everything_is_a_loss_on_any_background():
    clear = np.zeros((5, 4, 4), np.uint8)
    clear[2, :, 3] = 255
    data = saved(Image.fromarray(clear))
    assert row(data)[1].kinds == TRANSPARENCY
    assert row(data, dtype="uint16")[1].kinds == TRANSPARENCY
    assert row(data, background="white")[1] is None
    assert np.array_equal(row(data, background="white")[0], np.repeat((255 - clear[..., 3:]), 3, axis=2))


@pytest.mark.parametrize("background", ["red", "#ff0000", (255, 0, 0)])
def test_pad_fills_with_the_background(background):
    data = saved(Image.new("RGB", (8, 4), "white"))
    found = row(data, 8, fit="pad", background=background)[0]
    assert (found[:2] == (255, 0, 0)).all()
    assert (found[2:6] == 255).all()
    deep = row(data, 8, fit="pad", background=background, dtype="uint16")[0]
    assert np.array_equal(deep, found * np.uint16(257))
    assert (row(data, 8, fit="pad", background=background, color="rgba")[0][0] == (255, 0, 0, 255)).all()
    assert (row(data, 8, fit="pad", color="rgba")[0][0] == 0).all()


def test_pad_fills_floats_with_the_white_of_the_file():
    """As transparency does: 8 bits are 0 to 255, 16 bits 0 to 65535, and floats 0 to 1."""
    how = {"fit": "pad", "background": "white", "dtype": "float32"}
    for data, white in (
        (saved(Image.new("RGB", (8, 4))), 255),
        (png_16(np.zeros((4, 8, 3), np.uint16)), 65535),
        (tiff(np.zeros((4, 8), np.float32)), 1),
        (tiff_of({256: 8, 257: 4, 258: 12, 259: 1, 262: 1, 277: 1, 278: 4}, bytes(48)), 4095),
    ):
        assert (row(data, 8, **how)[0][0] == white).all()
        assert (row(data, 8, **how, color="grayscale")[0][0] == white).all()


def test_transparency_of_10_bits_is_that_of_10_bits():
    pillow_heif = pytest.importorskip("pillow_heif", reason="needs pillow-heif: pip install 'pack-images[heif]'")
    values = np.full((64, 64, 4), 40000, np.uint16)
    values[..., 3] = 65535
    file = io.BytesIO()
    pillow_heif.from_bytes("RGBA;16", (64, 64), values.tobytes()).save(file, quality=-1, chroma=444)
    found, _ = row(file.getvalue(), dtype="uint16")
    assert np.abs(found.astype(int) - (40000 >> 6)).max() <= 4
    white, _ = row(file.getvalue(), dtype="uint16", background="white")
    assert np.array_equal(white, found)


# --- 8 bits of more ---------------------------------------------------------------------------------------------------


def test_a_range_scales_12_bits_and_says_what_is_lost():
    values = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    for data in (saved(Image.fromarray(values)), tiff(values), npy(values)):
        found, loss = row(data, color="grayscale", range=(0, 4095))
        assert np.array_equal(found[..., 0], np.rint(values * 255.0 / 4095))
        assert (loss.kinds, loss.levels, loss.kept) == (INTEGERS, 4096, 256)
        assert np.array_equal(row(data, color="grayscale", dtype="uint16")[0][..., 0], values)
    found, loss = row(saved(Image.fromarray(values)), color="grayscale")
    assert (loss.levels, loss.kept) == (4096, 16)


def test_a_range_clips_and_leaves_8_bits_alone():
    values = np.array([[-5.0, 0, 50, np.nan, 100, 400]], np.float32)
    assert row(tiff(values), color="grayscale", range=(0, 100))[0][..., 0].tolist() == [[0, 0, 128, 0, 255, 255]]
    picture = Image.fromarray(RNG.integers(0, 256, (9, 7, 3), np.uint8))
    for options in ({}, {"size": 5}, {"size": 5, "color": "rgba"}, {"size": 5, "fit": "pad", "color": "grayscale"}):
        data = saved(picture)
        assert np.array_equal(row(data, range=(0, 4095), **options)[0], row(data, **options)[0])


@pytest.mark.parametrize("dtype", ["int16", "uint16", "int32", "uint32", "int64", "uint64"])
def test_numbers_beyond_16_bits_are_white(dtype):
    """The largest of uint64 became black, as -1 is."""
    limits = np.iinfo(dtype)
    found, _ = row(npy(np.array([[limits.min, limits.max]], dtype)), color="all")
    assert found.reshape(-1).tolist() == [0, min(limits.max, 65535) >> 8]


def test_bands_of_16_bits_become_their_high_byte():
    found, loss = row(tiff(BANDS, planarconfig="contig"), color="all")
    assert np.array_equal(found, BANDS >> 8)
    assert (loss.kinds, loss.bits, loss.kept) == (INTEGERS, 16, 256)


@pytest.mark.parametrize(
    ("array", "how", "message"),
    [
        (np.float32([[1.5]]), {"dtype": "uint16"}, "floats: expected integers; --dtype float32 keeps them"),
        (np.int16([[-1]]), {"dtype": "uint16"}, "values from -1 to -1: expected 0 to 65535; --dtype float32"),
        (np.uint32([[1 << 16]]), {"dtype": "uint16"}, "values from 65536 to 65536: expected 0 to 65535"),
        (np.uint16([[256]]), {"color": "index"}, "values from 256 to 256: expected 0 to 255; --dtype uint16"),
        (np.float32([[1.0]]), {"color": "index"}, "floats: expected integers"),
        (np.int32([[-1]]), {"color": "index"}, "values from -1 to -1: expected 0 to 255; --dtype float32"),
        (np.int8([[-1, 5]]), {}, "values from -1 to 5: expected 0 to 255; --dtype float32"),
        (np.uint32([[(1 << 24) + 1]]), {"dtype": "float32"}, "integers that float32 cannot hold exactly"),
        (np.int64([[(1 << 63) - 1]]), {"dtype": "float32"}, "integers that float32 cannot hold exactly"),
        (np.int64([[(1 << 62) + 1]]), {"dtype": "float32"}, "integers that float32 cannot hold exactly"),
        (np.uint64([[(1 << 64) - 1]]), {"dtype": "float32"}, "integers that float32 cannot hold exactly"),
        (np.int32([[(1 << 31) - 1]]), {"dtype": "float32"}, "integers that float32 cannot hold exactly"),
        (np.float64([[1e300]]), {"dtype": "float32"}, "floats that are too large for float32"),
        (np.zeros((2, 2, 3), np.uint8), {"color": "index"}, "3 bands: expected one of palette numbers or grey"),
        (np.zeros((2, 2, 2, 2)), {}, r"expected an array \(H, W\) or \(H, W, C\), found shape \(2, 2, 2, 2\)"),
        (np.complex64([[1]]), {}, "expected integers or floats, found complex64"),
        (np.array([[None]]), {}, "expected integers or floats, found object"),
        (np.zeros((300, 300), np.uint8), {"max_pixels": 100}, "300x300 is more than 100 pixels"),
    ],
)
def test_values_that_a_row_cannot_hold_leave_a_file_out(array, how, message):
    how = {"color": "all", **how} if "color" not in how else how
    with pytest.raises(DecodeError, match=message):
        row(npy(array), **how)


def test_an_npy_file_of_another_version_is_named():
    data = npy(BANDS)
    with pytest.raises(DecodeError, match=r"expected an array of .npy version 1.0 or 2.0, found 3.0"):
        row(data[:6] + b"\3\0" + data[8:], color="all")


@pytest.mark.parametrize("value", [-(1 << 63), 1 << 62, -(1 << 24), 0])
def test_integers_that_float32_holds_exactly_are_kept(value):
    assert row(npy(np.int64([[value]])), color="all", dtype="float32")[0].item() == value


def test_8_bits_with_a_sign_are_kept_or_scaled_by_a_range():
    data = npy(np.arange(12, dtype=np.int8).reshape(3, 4))
    found, loss = row(data, color="all")
    assert (found[..., 0].reshape(-1).tolist(), loss) == ([*range(12)], None)
    assert row(data, color="all", range=(0, 51))[0][2, 1, 0] == 45


def test_the_longest_floats_of_a_machine_are_floats():
    found, _ = row(npy(np.asfortranarray(np.longdouble([[0.2, 1.0], [7, 300]]))), color="all")
    assert found[..., 0].tolist() == [[0, 1], [7, 255]]


# --- numbers ----------------------------------------------------------------------------------------------------------


def test_numbers_of_a_palette_are_kept_and_scaled_by_nearest():
    every = np.resize(np.arange(21, dtype=np.uint8), 12 * 9)  # Pillow's GIFs leave out numbers that are not used
    numbers = RNG.permutation(every).reshape(12, 9)
    image = Image.fromarray(numbers, "P")
    image.putpalette(RNG.integers(0, 256, 768, np.uint8).tobytes())
    for data in (saved(image), saved(image, "GIF"), saved(image, "TIFF"), saved(image, "BMP")):
        assert np.array_equal(row(data, color="index")[0][..., 0], numbers)
        nearest = np.asarray(image.resize((5, 4), Image.Resampling.NEAREST))
        assert np.array_equal(row(data, (5, 4), color="index")[0][..., 0], nearest)
    assert np.array_equal(row(saved(image), color="all")[0], np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_grey_values_of_few_bits_are_kept(bits):
    import imagecodecs

    values = RNG.integers(0, 1 << bits, (8, 16), np.uint8)
    packed = np.packbits(np.unpackbits(values[..., None], axis=2)[..., -bits:].reshape(8, -1), axis=1)
    lines = b"".join(b"\0" + line.tobytes() for line in packed)

    def chunk(kind, body):
        return struct.pack(">L", len(body)) + kind + body + struct.pack(">L", zlib.crc32(kind + body))

    header = struct.pack(">2L5B", 16, 8, bits, 0, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    assert np.array_equal(row(png, color="index")[0][..., 0], values)
    assert np.array_equal(row(png, color="all")[0][..., 0], values)
    tif = tiff_of({256: 16, 257: 8, 258: bits, 259: 1, 262: 1, 277: 1, 278: 8}, packed.tobytes())
    assert imagecodecs
    assert np.array_equal(row(tif, color="index")[0][..., 0], values)


def test_ids_of_16_bits_are_kept():
    ids = RNG.integers(0, 60_000, (9, 8), np.uint16)
    for data in (saved(Image.fromarray(ids)), tiff(ids, compression="lzw"), npy(ids)):
        assert np.array_equal(row(data, color="index", dtype="uint16")[0][..., 0], ids)
        small = row(data, (4, 3), color="index", dtype="uint16")[0][..., 0]
        assert set(small.ravel().tolist()) <= set(ids.ravel().tolist())
    with pytest.raises(DecodeError, match="RGB: expected palette numbers or grey values for --color index"):
        row(saved(Image.new("RGB", (4, 4))), color="index")


# --- fitting ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interpolation", ["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"])
@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_each_band_is_fitted_as_pillow_does_without_rounding_to_8_bits(dtype, fit, interpolation):
    array = (BANDS[:20, :33, :5] >> (8 if dtype == "uint8" else 0)).astype(dtype)
    found = row(npy(array), (16, 12), color="all", dtype=dtype, fit=fit, interpolation=interpolation)[0]
    method = Image.Resampling[interpolation.upper()]
    for at in range(5):
        band = Image.fromarray(array[..., at] if dtype == "uint8" else array[..., at].astype(np.float32))
        if fit == "stretch":
            wanted = band.resize((16, 12), method)
        elif fit == "crop":
            wanted = ImageOps.fit(band, (16, 12), method)
        else:
            wanted = ImageOps.pad(band, (16, 12), method)
        wanted = np.asarray(wanted)
        if dtype == "uint16":
            wanted = np.clip(np.rint(wanted), 0, 65535)
        assert np.array_equal(found[..., at], wanted.astype(dtype))


def test_three_bands_of_8_bits_are_fitted_as_colours_are():
    data = saved(Image.fromarray(RNG.integers(0, 256, (30, 20, 3), np.uint8)))
    assert np.array_equal(row(data, 9, color="all")[0], row(data, 9)[0])


def test_transparent_colours_do_not_bleed_when_16_bits_are_scaled():
    samples = np.zeros((8, 8, 4), np.uint16)
    samples[:, :4] = (60000, 0, 0, 65535)
    samples[:, 4:] = (0, 60000, 0, 0)
    found = row(tiff(samples, photometric="rgb", extrasamples=["unassalpha"]), 3, color="rgba", dtype="uint16")[0]
    assert found[..., 1].max() == 0
    assert found[:, 1, 0].min() >= 59_999


def test_nan_stays_nan_where_a_filter_reaches_it():
    values = np.ones((8, 8), np.float32)
    values[0, 0] = np.nan
    found = row(tiff(values), 4, color="all", dtype="float32", interpolation="box")[0][..., 0]
    assert np.isnan(found[0, 0])
    assert np.isnan(found).sum() == 1
    assert np.isnan(row(tiff(values), color="all", dtype="float32")[0]).sum() == 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_stand_upright(orientation):
    values = np.ascontiguousarray(BANDS[:5, :7, 0])
    exif = Image.Exif()
    exif[0x0112] = orientation
    png = saved(Image.fromarray(values), exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(png))))
    assert np.array_equal(row(png, color="all", dtype="uint16")[0][..., 0], upright)
    data = tiff(values, extratags=[(274, "H", 1, orientation, True)])
    assert np.array_equal(row(data, color="all", dtype="uint16")[0][..., 0], upright)
    eight = saved(Image.fromarray((BANDS[:5, :7, :3] >> 8).astype(np.uint8)), exif=exif)
    assert np.array_equal(row(eight, dtype="uint16")[0], row(eight)[0] * np.uint16(257))


# --- options that contradict each other -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"color": "index", "interpolation": "bilinear"}, "interpolation: expected nearest with color index"),
        ({"range": (5, 5)}, "range: expected LOW:HIGH, two numbers with LOW below HIGH, found 5:5"),
        ({"range": (0, 10), "dtype": "uint16"}, "range: expected 8-bit pictures to scale to, found dtype uint16"),
        ({"range": (0, 10), "color": "index"}, "found color index, which keeps values"),
        ({"range": "0:10"}, r"range: expected \(low, high\), two numbers"),
        ({"pages": "bands"}, "pages: expected color all for pages as bands, found rgb"),
        ({"background": "nothing"}, "background: expected a colour such as white or #ffffff, found 'nothing'"),
        ({"background": "red", "color": "all"}, "background: expected a grey with color all"),
        ({"dtype": "int8"}, "dtype: expected one of uint8, uint16, float32, found 'int8'"),
    ],
)
def test_options_that_make_no_sense_together_are_refused(options, message):
    with pytest.raises(PackError, match=message):
        pixels_of(None, **options)


def test_settings_of_before_are_stored_as_before():
    assert pixels_of((8, 8)).as_json() == {
        "size": (8, 8),
        "fit": "stretch",
        "interpolation": "bilinear",
        "color": "rgb",
        "exact": False,
        "max_pixels": 178_956_970,
    }
    assert pixels_of(None, background="black").as_json() == pixels_of(None).as_json()


# --- files that are cut short -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP"])
def test_a_picture_that_is_cut_short_is_kept_if_the_user_allows_it(kind):
    data = saved(Image.fromarray(RNG.integers(0, 256, (64, 64, 3), np.uint8)), kind)
    cut = data[: len(data) * 2 // 3]
    with pytest.raises(DecodeError):
        row(cut)
    found, loss = row(cut, allow_truncated=True)
    assert loss.kinds == TRUNCATED
    there = slice(-20, None) if kind == "BMP" else slice(20)  # a BMP begins with its last line
    assert np.array_equal(found[there], row(data)[0][there])
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
    assert row(data, allow_truncated=True)[1] is None
    with pytest.raises(DecodeError):
        row(data[:60], allow_truncated=True)


# --- whole packs ------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Twelve TIFFs of 13 bands in two classes, and one that has three."""
    monkeypatch.chdir(tmp_path)
    for number in range(12):
        at = tmp_path / "data" / "ab"[number % 2] / f"{number}.tif"
        at.parent.mkdir(parents=True, exist_ok=True)
        at.write_bytes(tiff(bands_of(number), planarconfig="contig", compression="zlib"))
    (tmp_path / "data/b/x.tif").write_bytes(tiff(np.zeros((16, 16, 3), np.uint16), photometric="rgb"))
    return tmp_path


def bands_of(number):
    return np.random.default_rng(number).integers(0, 1 << 16, (16, 16, 13), np.uint16)


def assert_whole(path):
    packed = PackedImages(path)
    assert packed.dtype == np.uint16
    assert sorted(packed.filenames) == sorted(f"data/{'ab'[n % 2]}/{n}.tif" for n in range(12))
    for name, image in zip(packed.filenames, packed.images, strict=True):
        assert np.array_equal(image, bands_of(int(name.split("/")[-1][:-4])))
    return packed


def test_a_folder_of_13_bands_becomes_a_pack_and_another_number_is_left_out(folder):
    summary = pack("data", "out.h5", color="all", dtype="uint16", workers=2)
    assert summary.shape == (16, 16, 13)
    assert [*summary.skipped] == [("data/b/x.tif", "3 bands: expected 13, as other pictures have")]
    packed = assert_whole("out.h5")
    assert {"tifffile", "imagecodecs"} <= packed.header.packed_by.keys()
    assert packed.header.settings["color"] == "all"
    first = (folder / "out.h5").read_bytes()
    again = pack("data", "out.h5", color="all", dtype="uint16", workers=1)
    assert (again.copied, again.decoded) == (12, 0)
    assert (folder / "out.h5").read_bytes() == first
    pack("data", "other.h5", color="all", dtype="uint16", workers=1)
    assert (folder / "other.h5").read_bytes() == first
    for name, image in zip(packed.filenames, packed.images, strict=True):
        assert np.array_equal(prepare(packed, name), image)
        assert np.array_equal(prepare(packed, image), image)


def test_rows_of_a_pack_are_copied_if_its_type_agrees(folder):
    pack("data", "out.h5", color="all", dtype="uint16", workers=1)
    summary = pack(["out.h5"], "copy.h5", color="all", dtype="uint16", workers=1)
    assert summary.copied == 12
    assert_whole("copy.h5")
    with pytest.raises(PackError, match=r"out.h5 was packed with dtype uint16, this run asks for uint8; give --dtype"):
        pack(["out.h5"], "copy.h5", color="all", workers=1)
    with pytest.raises(PackError, match=r"out.h5 was packed with color all, this run asks for rgb"):
        pack(["out.h5"], "copy.h5", dtype="uint16", workers=1)


def test_rows_of_another_type_are_decoded_again(folder):
    pack("data", "out.h5", color="all", dtype="uint16", workers=1)
    summary = pack("data", "out.h5", color="all", dtype="float32", workers=1)
    assert (summary.copied, summary.decoded) == (0, 12)
    assert PackedImages("out.h5").dtype == np.float32


def test_an_interrupted_run_of_16_bits_is_continued(folder):
    (folder / "data/a/0.tif").rename(folder / "kept.tif")
    (folder / "data/a/0.tif").write_bytes(b"broken")
    (folder / "data/b/x.tif").unlink()
    with pytest.raises(PackError, match=r"data/a/0\.tif"):
        pack("data", "out.h5", color="all", dtype="uint16", workers=1, strict=True)
    (folder / "kept.tif").replace(folder / "data/a/0.tif")
    pack("data", "out.h5", color="all", dtype="uint16", workers=1)
    assert_whole("out.h5")


def test_sizes_that_differ_without_a_size_are_an_error(folder):
    (folder / "data/b/y.tif").write_bytes(tiff(np.zeros((8, 16, 13), np.uint16), planarconfig="contig"))
    with pytest.raises(SizeError, match=r"y.tif is 16x8, other images are 16x16"):
        pack("data", "out.h5", color="all", dtype="uint16", workers=1)


def test_a_range_and_a_background_are_part_of_the_settings(folder):
    pack("data", "out.h5", color="all", range=(0, 65535.5), background="#0c0c0c", workers=1)
    settings = PackedImages("out.h5").header.settings
    assert (settings["range"], settings["background"]) == ([0, 65535.5], "#0c0c0c")
    name = PackedImages("out.h5").filenames[0]
    assert np.array_equal(prepare("out.h5", name), PackedImages("out.h5").images[0])


def test_arrays_in_folders_are_pictures_only_where_values_are_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/a").mkdir(parents=True)
    for number in range(3):
        np.save(f"data/a/{number}.npy", np.full((4, 4), number + 0.5, np.float32))
    with pytest.raises(PackError, match="arrays: not packed; give --color all"):
        pack("data", "out.h5", workers=1)
    summary = pack("data", "out.h5", color="all", dtype="float32", workers=1)
    assert (summary.rows, summary.shape) == (3, (4, 4, 1))
    assert "tifffile" not in PackedImages("out.h5").header.packed_by


def test_the_command_knows_every_option(folder, capsys):
    options = ["--color", "all", "--range", "0:65535", "--background", "#0c0c0c", "--allow-truncated", "--fit", "pad"]
    assert main(["data", "-o", "out.h5", "--size", "8x16", "--workers", "1", *options]) == 0
    assert "left out: 1" in capsys.readouterr().out
    packed = PackedImages("out.h5")
    assert (packed.shape, packed.dtype) == ((16, 8, 13), np.uint8)
    assert (packed.images[:, :4] == 12).all()
    assert packed.header.settings["range"] == [0, 65535]
    assert main(["data", "-o", "out.h5", "--color", "all", "--dtype", "uint16", "--dry-run"]) == 0
    assert "would pack 13 images, 16x16x13, 0.1 MB" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["data", "-o", "out.h5", "--range", "5"])
    assert "--range: expected LOW:HIGH, two numbers such as 0:4095, found '5'" in capsys.readouterr().err


def test_without_tifffile_a_tiff_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tifffile", None)
    assert np.array_equal(row(PLAIN, color="all", dtype="uint16")[0], BANDS)  # it needs none
    with pytest.raises(DecodeError, match=r"expected tifffile and imagecodecs; pip install 'pack-images\[tiff\]'"):
        row(tiff(BANDS, planarconfig="contig", tile=(16, 16)), color="all")


# --- HEIC -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_heic_has_the_pixels_of_pillow_heif(mode):
    pillow_heif = pytest.importorskip("pillow_heif", reason="needs pillow-heif: pip install 'pack-images[heif]'")
    image = Image.fromarray(RNG.integers(0, 256, (64, 48, 4), np.uint8)).convert("RGB").convert(mode)
    file = io.BytesIO()
    pillow_heif.from_pillow(image).save(file, quality=90)
    data = file.getvalue()
    wanted = pillow_heif.open_heif(io.BytesIO(data)).to_pillow()
    assert np.array_equal(row(data)[0], np.asarray(wanted.convert("RGB")))
    assert np.array_equal(row(data, 32, color="grayscale")[0][..., 0].shape, (32, 32))
    assert np.array_equal(row(data, color="all")[0].squeeze(), np.asarray(wanted))
    with pytest.raises(DecodeError, match="48x64 is more than 100 pixels"):
        row(data, max_pixels=100)


def test_10_bits_of_heic_are_kept_or_a_loss():
    pillow_heif = pytest.importorskip("pillow_heif", reason="needs pillow-heif: pip install 'pack-images[heif]'")
    values = np.ascontiguousarray(np.tile(np.arange(64, dtype=np.uint16)[:, None, None] * 1000, (1, 64, 3)))
    file = io.BytesIO()
    pillow_heif.from_bytes("RGB;16", (64, 64), values.tobytes()).save(file, quality=-1, chroma=444)
    data = file.getvalue()
    found = row(data, dtype="uint16")[0]
    assert 255 < found.max() < 1024
    assert np.abs(found - (values >> 6).astype(int)).max() <= 4
    assert (row(data)[1].kinds, row(data)[1].bits) == (INTEGERS, 10)


# --- arrays given to write() ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("bands", [1, 2, 3, 4, 13])
def test_write_keeps_arrays_of_any_type_and_number_of_bands(tmp_path, dtype, bands):
    array = RNG.integers(0, 256, (9, 5, 4, bands)).astype(dtype)
    color = None if bands in (1, 3, 4) else "all"
    for given in (array, list(array), array.astype(array.dtype.newbyteorder(">"))):
        write(tmp_path / "out.h5", given, order="given", color=color)
        packed = PackedImages(tmp_path / "out.h5")
        assert packed.dtype == dtype
        assert np.array_equal(packed.images, array)
    assert np.array_equal(prepare(packed, array[0]), array[0])


def test_write_converts_to_the_type_asked_for(tmp_path):
    array = RNG.integers(0, 256, (3, 6, 5, 3), np.uint8)
    write(tmp_path / "out.h5", array, dtype="uint16", order="given")
    assert np.array_equal(PackedImages(tmp_path / "out.h5").images, array * np.uint16(257))
    write(tmp_path / "out.h5", [Image.fromarray(image) for image in array], dtype="float32", order="given")
    assert np.array_equal(PackedImages(tmp_path / "out.h5").images, array.astype(np.float32))
    with pytest.raises(PackError, match="image 1: expected uint8, as the first image is, found uint16; give dtype="):
        write(tmp_path / "out.h5", [array[0], array[1].astype(np.uint16)])
    with pytest.raises(PackError, match=r"with 1, 3 or 4 channels, found shape .*; color='all' takes any number"):
        write(tmp_path / "out.h5", np.zeros((3, 6, 5, 7), np.uint16))
