"""Valid images of every format that packing opens, in the modes and with the options of each."""

from __future__ import annotations

import contextlib
import io
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image

Seed = tuple[str, bytes]  # (format, file)

_FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF", ".tiff": "TIFF", ".jp2": "JPEG2000"}
_FORMATS |= {f".{kind.lower()}": kind for kind in ("PNG", "GIF", "BMP", "WEBP", "AVIF", "ICO", "PPM", "TGA", "PSD")}
_LARGEST = 1 << 20  # largest file taken from a folder, in bytes


def seeds(folders: Sequence[Path] = ()) -> list[Seed]:
    """Return the files made here and those of the folders, always in the same order."""
    return [*_made(), *bombs().values(), *(seed for folder in folders for seed in _found(folder))]


def bombs() -> dict[str, Seed]:
    """Return small files that would each make a decoder use much memory or time in a different way."""
    tiled = {256: 8, 257: 8, 258: 8, 259: 8, 262: 1, 277: 1, 322: 16384, 323: 16384}
    one = saved(noise(64, 64), "JPEG2000", no_jp2=True, num_resolutions=1)
    geometry = struct.pack(">8L", 255, 255, 0, 0, 1, 1, 0, 0)
    tiles = one[:8] + geometry + one[40:]
    text = png_chunk(b"zTXt", b"key\0\0" + zlib.compress(bytes(1 << 20), 9))
    plain = saved(noise(9, 9), "PNG")
    return {
        "TIFF tiles": ("TIFF", tiff_of(tiled, zlib.compress(bytes(1 << 20), 9))),
        "JPEG 2000 tiles": ("JPEG2000", tiles),
        "JPEG 2000 tiles in an icon": ("ICNS", icns_of(b"icp4", tiles)),
        "JPEG scans": ("JPEG", many_scans(600)),
        "PNG in an icon": ("ICO", ico_of(_zeros(3000, 3000))),
        "PNG in an Apple icon": ("ICNS", icns_of(b"ic07", _zeros(3000, 3000))),
        "PNG texts": ("PNG", plain[:33] + text * 100 + plain[33:]),
        "PNG pixels": ("PNG", _zeros(30000, 30000, lines=300)),
        "tags of one place": ("TIFF", overlapping_tags(500, 100_000)),
    }


def many_scans(count: int, side: int = 200) -> bytes:
    """Return a progressive JPEG that repeats its first scan of high frequencies `count` times."""
    file = saved(noise(side, side, "L"), "JPEG", progressive=True, quality=5)
    _, second, third = [at for at in range(len(file)) if file[at : at + 2] == b"\xff\xda"][:3]
    return file[:second] + file[second:third] * count + file[third:]


def _zeros(width: int, height: int, lines: int | None = None) -> bytes:
    return png_of(width, height, 8, 0, zlib.compress(bytes((width + 1) * (lines or height)), 9))


def overlapping_tags(count: int, size: int, order: str = "<") -> bytes:
    """Return a TIFF of many tags whose values all are the same bytes behind the directory."""
    at = 8 + 2 + 12 * (count + 8) + 4
    tags = [(256, 8), (257, 8), (258, 8), (259, 1), (262, 1), (273, at), (277, 1), (279, 64)]
    entries = [struct.pack(order + "HHLL", tag, 4, 1, value) for tag, value in tags]
    entries += [struct.pack(order + "HHLL", 1000 + index, 1, size, at) for index in range(count)]
    start = struct.pack(order + "2sHLH", b"II" if order == "<" else b"MM", 42, 8, len(entries))
    return start + b"".join(entries) + bytes(4 + size)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    """Return the image as a file written by Pillow."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def noise(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """Return an image of random pixels in any mode, so that no conversion is trivial."""
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 4), dtype=np.uint8)
    image = Image.fromarray(pixels)
    if mode == "I;16":
        return Image.fromarray(pixels.view("<u2")[:, :, 0].copy())
    if mode in ("I", "F"):
        return Image.fromarray(pixels[:, :, 0].astype(np.int32 if mode == "I" else np.float32))
    if mode == "LAB":
        return Image.frombytes("LAB", (width, height), pixels[:, :, :3].tobytes())
    return image if mode == "RGBA" else image.convert("RGB").convert(mode)


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """Return a PNG chunk with its length and checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_of(width: int, height: int, depth: int, color: int, stream: bytes, interlaced: bool = False) -> bytes:
    """Return a PNG with the given compressed stream."""
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlaced)
    chunks = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", stream) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def tiff_of(tags: dict[int, int], body: bytes) -> bytes:
    """Return a little-endian TIFF with tags of one number each, and `body` as its only strip or tile."""
    at = 8 + 2 + 12 * (len(tags) + 2) + 4
    place, size = (324, 325) if 322 in tags else (273, 279)
    entries = sorted({**tags, place: at, size: len(body)}.items())
    directory = b"".join(struct.pack("<HHLL", tag, 4, 1, value) for tag, value in entries)
    return b"II*\0" + struct.pack("<LH", 8, len(entries)) + directory + bytes(4) + body


def ico_of(picture: bytes, side: int = 16, kind: int = 1) -> bytes:
    """Return an icon (or a cursor, if kind is 2) that holds a PNG, or a BMP without file header."""
    return struct.pack("<HHHBBBBHHII", 0, kind, 1, side, side, 0, 0, 1, 32, len(picture), 22) + picture


def icns_of(kind: bytes, picture: bytes) -> bytes:
    """Return an Apple icon that holds one image."""
    return b"icns" + struct.pack(">I", 16 + len(picture)) + kind + struct.pack(">I", 8 + len(picture)) + picture


def _made() -> Iterator[Seed]:
    for kind, made in (
        ("JPEG", _jpegs()),
        ("PNG", _pngs()),
        ("GIF", _gifs()),
        ("BMP", _bmps()),
        ("WEBP", _webps()),
        ("TIFF", _tiffs()),
        ("TIFF of bands", _tiffs_of_bands()),
        ("arrays", _arrays()),
        ("HEIC", _heics()),
        ("AVIF", _avifs()),
        ("JPEG2000", _jpeg2000s()),
        ("PPM", _ppms()),
    ):
        yield from ((kind, data) for data in made)
    yield from _icons()
    yield from _rare()


def _orientation(number: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = number
    return exif


def _jpegs() -> Iterator[bytes]:
    for mode in ("L", "RGB", "CMYK"):
        yield saved(noise(24, 17, mode), "JPEG")
        yield saved(noise(24, 17, mode), "JPEG", progressive=True)
    for subsampling in (0, 1, 2):
        yield saved(noise(40, 33), "JPEG", subsampling=subsampling, optimize=True, quality=30)
    yield from (saved(noise(16, 9), "JPEG", exif=_orientation(number)) for number in (1, 3, 6, 8))
    yield saved(noise(40, 33), "JPEG", restart_marker_blocks=1)
    yield saved(noise(16, 16), "JPEG", icc_profile=bytes(300), comment=b"hello", dpi=(72, 72))
    yield saved(noise(200, 150), "JPEG", quality=60)
    yield saved(Image.new("RGB", (1000, 900), "red"), "JPEG", progressive=True)
    yield saved(noise(16, 16), "MPO", save_all=True, append_images=[noise(8, 8)])


def _pngs() -> Iterator[bytes]:
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        yield saved(noise(20, 13, mode), "PNG")
    for bits in (1, 2, 4):
        yield saved(noise(20, 13, "P").quantize(2**bits), "PNG", bits=bits)
    yield saved(noise(20, 13, "P"), "PNG", transparency=bytes(range(200)))
    yield saved(noise(20, 13), "PNG", transparency=(1, 2, 3), exif=_orientation(6), icc_profile=bytes(300))
    yield saved(noise(9, 9), "PNG", save_all=True, append_images=[noise(9, 9).rotate(90)], default_image=True)
    for color, samples in ((0, 1), (2, 3), (6, 4)):
        for depth in (8, 16):
            yield _interlaced(depth, color, samples * depth // 8)
    yield png_of(1000, 1000, 8, 2, zlib.compress(bytes(3001 * 1000), 9))
    text = png_chunk(b"zTXt", b"key\0\0" + zlib.compress(bytes(5000))) + png_chunk(b"tEXt", b"key\0value")
    plain = saved(noise(9, 9), "PNG")
    yield plain[:33] + text + png_chunk(b"iTXt", b"key\0\0\0\0\0value") + plain[33:]


def _interlaced(depth: int, color: int, pixel_bytes: int) -> bytes:
    """Return 8 x 8 pixels in the seven passes of Adam7."""
    passes = ((1, 1), (1, 1), (2, 1), (2, 2), (4, 2), (4, 4), (8, 4))
    lines = b"".join((b"\0" + b"\x5a" * width * pixel_bytes) * height for width, height in passes)
    return png_of(8, 8, depth, color, zlib.compress(lines), interlaced=True)


def _gifs() -> Iterator[bytes]:
    for mode in ("1", "L", "P", "RGB"):
        yield saved(noise(20, 13, mode), "GIF")
    yield saved(noise(20, 13, "P"), "GIF", transparency=3, interlace=0, comment=b"hello")
    frames = [noise(20, 13).rotate(90), noise(20, 13).rotate(180)]
    yield saved(noise(20, 13), "GIF", save_all=True, append_images=frames, disposal=2, duration=20, loop=0)
    yield saved(Image.new("P", (900, 900)), "GIF")


def _bmps() -> Iterator[bytes]:
    for mode in ("1", "L", "P", "RGB", "RGBA"):
        yield saved(noise(20, 13, mode), "BMP")
    yield saved(noise(20, 13), "DIB")
    plain = bytearray(saved(noise(8, 4, "P"), "BMP"))
    struct.pack_into("<I", plain, 30, 1)  # run-length encoded
    pixels = struct.unpack_from("<I", plain, 10)[0]
    yield bytes(plain[:pixels]) + b"\x08\x05\0\0" * 2 + b"\0\x03abc\0\x04\x01\x02\x03\0\0" + b"\x08\x07\0\x01"


def _webps() -> Iterator[bytes]:
    for mode in ("RGB", "RGBA"):
        yield saved(noise(20, 13, mode), "WEBP")
        yield saved(noise(20, 13, mode), "WEBP", lossless=True)
    yield saved(noise(20, 13), "WEBP", exif=_orientation(6), icc_profile=bytes(300), xmp=b"<x/>")
    yield saved(noise(20, 13, "RGBA"), "WEBP", save_all=True, append_images=[noise(20, 13).rotate(90)], duration=9)
    yield saved(Image.new("RGBA", (1000, 1000)), "WEBP", lossless=True)


def _tiffs() -> Iterator[bytes]:
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I;16", "I", "F"):
        yield saved(noise(20, 13, mode), "TIFF")
    for compression in ("packbits", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "jpeg", "zstd", "lzma"):
        with contextlib.suppress(OSError):  # Pillow before 12 lacks Zstandard
            yield saved(noise(20, 13), "TIFF", compression=compression)
    for compression in ("group3", "group4", "tiff_ccitt"):
        yield saved(noise(20, 13, "1"), "TIFF", compression=compression)
    for mode in ("L", "I;16", "CMYK"):
        yield saved(noise(20, 13, mode), "TIFF", compression="tiff_lzw", tiffinfo={317: 2, 278: 4})
    yield saved(noise(20, 13), "TIFF", big_tiff=True, exif=_orientation(5))
    yield saved(noise(20, 13), "TIFF", save_all=True, append_images=[noise(5, 5)], exif=_orientation(6))
    shape = {256: 20, 257: 13, 258: 8, 262: 1, 277: 1}
    tile = {**shape, 322: 32, 323: 16}
    yield tiff_of({**shape, 259: 1, 278: 13}, bytes(20 * 13))
    yield tiff_of({**tile, 259: 1}, bytes(32 * 16))
    yield tiff_of({**tile, 259: 8}, zlib.compress(bytes(32 * 16)))
    yield tiff_of({**tile, 256: 1000, 257: 1000, 322: 1008, 323: 1008, 259: 8}, zlib.compress(bytes(1008 * 1008), 9))


def _tiffs_of_bands() -> Iterator[bytes]:
    """TIFFs that tifffile reads: many bands and types, planar and chunky, tiled, compressed, of several pages."""
    try:
        import imagecodecs  # noqa: F401 - it compresses
        import tifffile
    except ImportError:
        return
    bands = np.random.default_rng(0).integers(0, 1 << 16, (13, 20, 13), np.uint16)
    options: list[dict[str, object]] = [{}, {"compression": "lzw", "predictor": True}, {"compression": "zlib"}]
    options += [{"compression": "zstd", "tile": (16, 16)}, {"compression": "lzma"}, {"compression": "packbits"}]
    options += [{"byteorder": ">"}, {"bigtiff": True}, {"rowsperstrip": 3}, {"tile": (32, 16)}]
    for more in options:
        for planar in ("contig", "separate"):
            array = bands if planar == "contig" else np.ascontiguousarray(bands.transpose(2, 0, 1))
            yield _written(tifffile, array, planarconfig=planar, **more)
    for dtype in (np.uint8, np.int16, np.uint32, np.float16, np.float32, np.float64):
        yield _written(tifffile, bands[..., 0].astype(dtype))
    yield _written(tifffile, bands[..., 0].astype(np.float32), compression="zlib", predictor=True)
    yield _written(tifffile, bands[..., :4].copy(), photometric="rgb", extrasamples=["unassalpha"])
    yield _written(tifffile, bands[..., :3].copy(), photometric="rgb", compression="lzw")
    yield _written(tifffile, bands.transpose(2, 0, 1).copy(), compression="zlib")  # pages
    for bits in (1, 2, 4, 12):
        yield tiff_of({256: 16, 257: 8, 258: bits, 259: 1, 262: 1, 277: 1, 278: 8}, bytes(range(16)) * bits)


def _written(tifffile: ModuleType, array: Any, **options: object) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, array, **{"photometric": "minisblack", **options})
    return file.getvalue()


def _arrays() -> Iterator[bytes]:
    for dtype in (np.bool_, np.uint8, np.int16, np.uint16, np.float32, np.float64):
        for order in ("C", "F"):
            for save in (np.save, np.savez, np.savez_compressed):
                file = io.BytesIO()
                save(file, np.asarray(np.arange(13 * 20 * 3).reshape(13, 20, 3) % 251, dtype, order=order))
                yield file.getvalue()


def _heics() -> Iterator[bytes]:
    try:
        import pillow_heif
    except ImportError:
        return
    for mode in ("L", "RGB", "RGBA"):
        file = io.BytesIO()
        pillow_heif.from_pillow(noise(40, 33, mode)).save(file, quality=60)
        yield file.getvalue()


def _avifs() -> Iterator[bytes]:
    Image.init()
    if "AVIF" not in Image.SAVE:  # Pillow before 11.3
        return
    for mode in ("L", "RGB", "RGBA"):
        yield saved(noise(20, 13, mode), "AVIF")
    yield saved(noise(20, 13), "AVIF", exif=_orientation(6), subsampling="4:4:4", quality=100)
    yield saved(noise(20, 13), "AVIF", save_all=True, append_images=[noise(20, 13).rotate(90)])
    yield saved(Image.new("RGB", (1000, 1000)), "AVIF", speed=10)


def _jpeg2000s() -> Iterator[bytes]:
    for mode in ("L", "LA", "RGB", "RGBA", "I;16"):
        yield saved(noise(20, 13, mode), "JPEG2000")
        yield saved(noise(20, 13, mode), "JPEG2000", no_jp2=True)
    yield saved(noise(40, 33), "JPEG2000", no_jp2=True, tile_size=(16, 16), irreversible=True, num_resolutions=3)
    yield saved(noise(40, 33), "JPEG2000", quality_layers=[80, 40, 20], progression="RPCL", codeblock_size=(4, 4))
    yield saved(Image.new("RGB", (1000, 1000)), "JPEG2000", no_jp2=True)


def _ppms() -> Iterator[bytes]:
    for mode in ("1", "L", "RGB", "I;16", "F"):
        yield saved(noise(20, 13, mode), "PPM")
    yield b"P1\n# comment\n4 2\n1 0 1 0\n0 1 0 1\n"
    yield b"P2 3 1 255\n0 128 255\n"
    yield b"P3 2 1 65535\n1 2 3 65535 4 5\n"


def _icons() -> Iterator[Seed]:
    png, bmp = saved(noise(16, 16, "RGBA"), "PNG"), saved(noise(16, 32, "RGBA"), "DIB")
    yield "ICO", ico_of(png)
    yield "ICO", ico_of(bmp)
    yield "ICO", saved(noise(32, 32, "RGBA"), "ICO", sizes=[(16, 16), (32, 32)], bitmap_format="bmp")
    yield "CUR", ico_of(bmp, kind=2)
    yield "ICNS", icns_of(b"icp4", png)
    yield "ICNS", icns_of(b"icp4", saved(noise(16, 16, "RGBA"), "JPEG2000"))
    yield "ICNS", icns_of(b"is32", bytes(16 * 16 * 3))


def _rare() -> Iterator[Seed]:
    for kind, mode in (("TGA", "P"), ("TGA", "RGBA"), ("PCX", "1"), ("PCX", "P"), ("PCX", "RGB"), ("SGI", "RGB")):
        yield kind, saved(noise(20, 13, mode), kind)
    for mode in ("L", "RGB", "RGBA"):
        yield "TGA", saved(noise(20, 13, mode), "TGA", compression="tga_rle")
        yield "DDS", saved(noise(20, 12, mode), "DDS")
    for pixel_format in ("DXT1", "DXT3", "DXT5", "BC2", "BC3", "BC5"):
        mode = "RGB" if pixel_format == "BC5" else "RGBA"
        yield "DDS", saved(noise(20, 12, mode), "DDS", pixel_format=pixel_format)
    yield "MSP", saved(noise(20, 13, "1"), "MSP")
    yield "XBM", saved(noise(20, 13, "1"), "XBM")
    with warnings.catch_warnings(action="ignore"):  # Pillow has deprecated this format
        ims = [saved(noise(20, 13, mode), "IM") for mode in ("1", "L", "P", "RGB", "F")]
    yield from (("IM", im) for im in ims)
    pcx = saved(noise(20, 13, "P"), "PCX")
    yield "DCX", struct.pack("<III", 0x3ADE68B1, 12, 0) + pcx
    yield "SUN", struct.pack(">8I", 0x59A66A95, 4, 2, 24, 24, 1, 0, 0) + bytes(24)
    yield "SUN", struct.pack(">8I", 0x59A66A95, 8, 2, 8, 16, 2, 0, 0) + b"\x80\x07\x11" * 2
    yield "PSD", b"8BPS" + struct.pack(">H6xHIIHHIIIH", 1, 3, 2, 2, 8, 3, 0, 0, 0, 0) + bytes(12)
    yield "PSD", b"8BPS" + struct.pack(">H6xHIIHHIIIH3H", 1, 1, 3, 2, 8, 1, 0, 0, 0, 1, 2, 2, 2) + b"\xfe\x11" * 3
    yield (
        "QOI",
        b"qoif" + struct.pack(">IIBB", 3, 2, 4, 0) + b"\xfe\x01\x02\x03\xff\x04\x05\x06\x07\xc3" + b"\0" * 7 + b"\1",
    )
    yield "XPM", b'/* XPM */\nstatic char *x[] = {\n"2 1 2 1",\n"a c #ff0000",\n"b c #00ff00",\n"ab"};\n'
    yield "FTEX", b"FTEX" + struct.pack("<8i", 1, 2, 2, 1, 1, 1, 32, 12) + bytes(12)
    flic = struct.pack("<IHHHHHHI", 160, 0xAF11, 1, 4, 2, 8, 3, 5).ljust(128, b"\0")
    yield "FLI", flic + struct.pack("<IHH8xIH", 30, 0xF1FA, 1, 14, 16) + bytes(8)
    # Formats that Pillow opens and packing does not.
    yield "other", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
    yield "other", saved(noise(20, 13, "F"), "SPIDER")
    yield "other", saved(noise(20, 13, "P"), "BLP")
    yield "other", b"\x89HDF\r\n\x1a\n" + bytes(64)


def _found(folder: Path) -> Iterator[Seed]:
    for path in sorted(folder.rglob("*")):
        kind = _FORMATS.get(path.suffix.lower())
        if kind and path.stat().st_size < _LARGEST:
            yield kind, path.read_bytes()
