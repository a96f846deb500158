"""Pictures with more than 8 bits per sample: convert grey ones, and count the levels that any of them loses.

Pillow itself converts colour: it keeps the high byte of each 16-bit sample. Grey pictures of 16 bits, 32 bits or floats
come from it as they are, and are converted here.

A level is a value that occurs in the picture at its original size, in any channel. Levels are lost where several of
them become the same 8-bit value: 12 bits in a 16-bit file keep 16 of 4,096 levels; 8 bits multiplied by 257 keep all.
Nothing is counted if Pillow does not give the original samples of the file.
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from h5split.file.losses import FLOATS, INTEGERS, MOST_LEVELS, Loss
from pack_images.decode.guards import open_image

_SAMPLES_PER_BLOCK = 1 << 20  # counting in blocks bounds the memory for temporary arrays
_BITS_PER_SAMPLE = 258  # TIFF tag
# JPEG 2000: captures the number of components; three bytes for each follow.
_JPEG2000_SIZ = re.compile(rb"\xff\x4f\xff\x51.{36}(..)", re.DOTALL)
_AV1_CONFIGURATION = re.compile(rb"av1C\x81.(.)", re.DOTALL)
_AVIF_HEADER_BYTES = 1 << 16  # the coding of an AVIF is described within these first bytes
# Formats whose depth does not show in Pillow's mode or rawmode. It is read from the file.
_FORMATS_WITH_DEPTH = frozenset(("PPM", "JPEG2000", "AVIF", "SGI"))
# Pillow keeps only the high byte of a 16-bit colour sample. Reading with the opposite byte order gives the low byte.
_SWAPPED_BYTES = {";16L": ";16B", ";16B": ";16L", ";16N": ";16B" if sys.byteorder == "little" else ";16L"}


@dataclass(frozen=True)
class Depth:
    """The sample format of a picture that has more than 8 bits.

    Attributes:
        bits: Bits per sample; 0 for floats.
        rawmode: Pillow's rawmode, or `samples` for uncompressed big-endian samples; empty if neither is known.
        offset: Byte offset of the first sample, for `samples`.
    """

    bits: int
    rawmode: str = ""
    offset: int = 0


def depth_of(image: Image.Image, data: bytes) -> Depth | None:
    """Return the depth of a picture that Pillow has opened but not loaded; None for 8 bits or fewer.

    Args:
        image: The result of `Image.open`. Loading would discard its rawmode.
        data: The bytes of the file.
    """
    tile: Any = next(iter(image.tile), None) if isinstance(image, ImageFile.ImageFile) else None
    arguments = () if tile is None else (tile.args,) if isinstance(tile.args, str) else tuple(tile.args or ())
    rawmode = arguments[0] if arguments and isinstance(arguments[0], str) else ""
    if image.mode == "F" or (image.format == "DDS" and "BC6" in str(arguments)):
        return Depth(0)
    if image.mode.startswith("I"):
        return Depth(_bits(image, data, arguments) or (32 if image.mode == "I" else 16))
    if ";16" in rawmode:
        return Depth(16, rawmode)
    if image.format not in _FORMATS_WITH_DEPTH:
        return None
    bits = _bits(image, data, arguments)
    return (
        Depth(bits, "samples" if _is_uncompressed_16bit(image, data) else "", tile.offset if tile else 0)
        if bits > 8
        else None
    )


def integers_to_8(samples: NDArray[Any]) -> NDArray[np.uint8]:
    """Return the high byte of 16-bit integers, as uint8 of the same shape. Values beyond 16 bits are clipped first."""
    most = min(0xFFFF, np.iinfo(samples.dtype).max)
    clipped: NDArray[Any] = np.clip(samples, 0, most).astype(np.int64)
    return (clipped >> 8).astype(np.uint8)


def floats_to_8(samples: NDArray[Any]) -> NDArray[np.uint8]:
    """Round floats to uint8 of the same shape. Values outside 0 to 255 are clipped, and NaN becomes 0."""
    rounded: NDArray[Any] = np.clip(np.rint(np.nan_to_num(samples, nan=0)), 0, 255)
    return rounded.astype(np.uint8)


def depth_loss(depth: Depth, image: Image.Image, data: bytes) -> Loss | None:
    """Return what a picture loses when its samples become 8 bits; None if all levels stay distinct.

    Args:
        depth: The result of `depth_of`.
        image: The loaded picture.
        data: The bytes of the file.
    """
    kind, convert = (INTEGERS, integers_to_8) if depth.bits else (FLOATS, floats_to_8)
    loaded = np.asarray(image)
    if image.mode == "F" or image.mode.startswith("I"):
        samples, kept = loaded, len(_values_present(convert(block) for block in _blocks(loaded)))
    elif (fine := _color_samples(depth, image, data)) is None:
        return Loss(kind, depth.bits)
    else:
        samples, kept = fine, len(_values_present(_blocks(loaded)))
    levels = _count_levels(samples)
    return Loss(kind, depth.bits, levels, kept) if kept < levels else None


def counted_loss(samples: NDArray[Any], eight: NDArray[np.uint8], bits: int) -> Loss | None:
    """Return what samples lost when they became 8 bits; None if all levels stay distinct.

    Args:
        samples: Of any shape and type.
        eight: What became of them, of the same shape.
        bits: Bits per sample in the file; 0 for floats.
    """
    levels, kept = _count_levels(samples), len(_values_present(_blocks(eight)))
    kind = INTEGERS if samples.dtype.kind != "f" else FLOATS
    return Loss(kind, min(bits, 255), levels, kept) if kept < levels else None


def full_samples(depth: Depth, image: Image.Image, data: bytes) -> NDArray[Any] | None:
    """Return all bits of a picture's samples: (H, W) or (H, W, C). None if Pillow does not give them.

    Args:
        depth: The result of `depth_of`.
        image: The loaded picture.
        data: The bytes of the file.
    """
    if image.mode == "F" or image.mode.startswith("I"):
        samples = np.asarray(image)
        # OpenJPEG's 9 to 15 bits come multiplied, so that they fill 16.
        shift = 16 - depth.bits if image.format == "JPEG2000" and 8 < depth.bits < 16 else 0
        return samples >> shift if shift else samples
    if image.format == "SGI":  # its samples lie plane after plane
        return None
    found = _color_samples(depth, image, data)
    return None if found is None else found.reshape(image.height, image.width, -1)


def _bits(image: Image.Image, data: bytes, arguments: tuple[Any, ...]) -> int:
    """Return the bits per sample according to the file itself; 0 if it does not say."""
    if image.format == "TIFF":
        said = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, 0)
        return int(max(said) if isinstance(said, tuple) else said)
    if image.format == "PPM":
        if len(arguments) == 2:  # rawmode and largest value
            return int(arguments[1]).bit_length()
        return 16 if image.mode == "I" else 0
    if image.format == "SGI":
        return 8 * data[3]
    if image.format == "JPEG2000" and (siz := _JPEG2000_SIZ.search(data)):
        components = data[siz.end() : siz.end() + 3 * int.from_bytes(siz[1]) : 3]
        return max(((byte & 0x7F) + 1 for byte in components), default=0)
    if image.format == "AVIF" and (coded := _AV1_CONFIGURATION.search(data, 0, _AVIF_HEADER_BYTES)):
        return 8 if not coded[1][0] & 0x40 else 12 if coded[1][0] & 0x20 else 10
    return 0


def _is_uncompressed_16bit(image: Image.Image, data: bytes) -> bool:
    """Return whether the 16-bit samples of a PPM or SGI file can be read from the file directly."""
    return data.startswith(b"P6") or (image.format == "SGI" and data[2] == 0)


def _color_samples(depth: Depth, image: Image.Image, data: bytes) -> NDArray[Any] | None:
    """Return the full samples of a colour picture, of which Pillow keeps only the high bytes.

    uint16 of any shape; None if they cannot be read.
    """
    if depth.rawmode == "samples":
        count = image.width * image.height * len(image.getbands())
        is_whole = depth.offset + 2 * count <= len(data)
        return np.frombuffer(data, ">u2", count, depth.offset).reshape(image.height, -1) if is_whole else None
    if depth.rawmode == "LA;16B":  # four bytes per pixel, so it can be read as RGBA
        return _read_as("RGBA", image, data).view(">u2")
    other = _SWAPPED_BYTES.get(depth.rawmode[-4:])
    if other is None or image.format not in ("PNG", "TIFF") or depth.rawmode.startswith(("RGBa", "L")):
        return None
    low = _read_as(depth.rawmode[:-4] + other, image, data)
    return np.asarray(image).astype(np.uint16) << 8 | low


def _read_as(rawmode: str, image: Image.Image, data: bytes) -> NDArray[np.uint8]:
    """Decode the picture again with another rawmode, which keeps other bytes of each sample."""
    again: Any = open_image(io.BytesIO(data), formats=[str(image.format)])
    again.tile = [
        tile._replace(args=rawmode if isinstance(tile.args, str) else (rawmode, *tile.args[1:])) for tile in again.tile
    ]
    again.load()
    return np.asarray(again)


def _count_levels(samples: NDArray[Any]) -> int:
    """Count the distinct values of the samples, up to MOST_LEVELS."""
    if samples.dtype.kind != "f" and samples.min() >= 0 and samples.max() < 1 << 16:
        return len(_values_present(_blocks(samples)))
    found = np.empty(0, np.int64 if samples.dtype.itemsize > 4 or samples.dtype.kind == "u" else np.int32)
    for block in _blocks(samples):
        words = _as_integers(block, found.dtype)
        found = _distinct(np.concatenate((found, _distinct(words.reshape(-1)))))
        if len(found) >= MOST_LEVELS:
            return MOST_LEVELS
    return len(found)


def _as_integers(block: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return an integer for each value, equal for equal values."""
    if block.dtype.kind != "f":
        return block.astype(dtype, copy=False)
    integers: NDArray[Any] = (block + block.dtype.type(0)).view(dtype)  # +0 turns -0 into 0
    return integers


def _values_present(blocks: Iterable[NDArray[Any]]) -> NDArray[np.int64]:
    """Return the values from 0 to 65535 that occur: int64, ascending."""
    seen = np.zeros(1 << 16, np.bool_)
    for block in blocks:
        seen[block] = True
    return np.flatnonzero(seen)


def _distinct(values: NDArray[Any]) -> NDArray[Any]:
    """Return each value once, sorted.

    Like `numpy.unique`, whose hash table may take a second for a million values.
    """
    ordered = np.sort(values)
    is_new = np.ones(len(ordered), np.bool_)
    is_new[1:] = ordered[1:] != ordered[:-1]
    return ordered[is_new]


def _blocks(samples: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Split a picture into blocks of whole lines, of about a million samples each."""
    lines = max(1, _SAMPLES_PER_BLOCK // max(1, samples[0].size))
    for start in range(0, len(samples), lines):
        yield samples[start : start + lines]
