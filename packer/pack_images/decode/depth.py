"""Samples of more than 8 bits: what becomes of them, and how many of their levels are left.

A level is a value that a sample of the picture has, whatever its channel, at the picture's own size. Levels are lost
where several of them become one: 12 bits in a 16-bit file keep 16 of 4,096 levels, 8 bits that were multiplied by 257
keep all of theirs. Where samples cannot be had as they are in the file, nothing is counted.
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

_BLOCK = 1 << 20  # samples that are counted together
_BITS_PER_SAMPLE = 258  # a TIFF tag
_SIZ = re.compile(rb"\xff\x4f\xff\x51.{36}(..)", re.DOTALL)  # JPEG 2000: its components, three bytes for each follow
_AV1_CONFIGURATION = re.compile(rb"av1C\x81.(.)", re.DOTALL)
_AVIF_HEADER = 1 << 16  # bytes in which an AVIF says how its pictures are coded
_SAYING = frozenset(
    ("PPM", "JPEG2000", "AVIF", "SGI")
)  # formats that say how many bits they have in a place of their own
_OTHER_BYTE = {";16L": ";16B", ";16B": ";16L", ";16N": ";16B" if sys.byteorder == "little" else ";16L"}


@dataclass(frozen=True)
class Depth:
    """What a file has in place of 8 bits.

    Attributes:
        bits: Of a sample; 0 of floats.
        rawmode: How Pillow unpacks its samples; empty where it does not say.
        offset: Of the first sample in the file, where they lie there as they are.
    """

    bits: int
    rawmode: str = ""
    offset: int = 0


def depth_of(image: Image.Image, data: bytes) -> Depth | None:
    """The depth of a picture that Pillow has opened and not yet loaded; None for 8 bits or fewer.

    Args:
        image: As `Image.open` gives it.
        data: The file.
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
    if image.format not in _SAYING:
        return None
    bits = _bits(image, data, arguments)
    return Depth(bits, "samples" if _lie_there(image, data) else "", tile.offset if tile else 0) if bits > 8 else None


def integers_to_8(samples: NDArray[Any]) -> NDArray[np.uint8]:
    """The high byte of 16 bits: uint8, of integers of any shape; what lies outside of 16 bits is clipped."""
    return (np.clip(samples.astype(np.int64), 0, 0xFFFF) >> 8).astype(np.uint8)


def floats_to_8(samples: NDArray[Any]) -> NDArray[np.uint8]:
    """Rounded floats: uint8, of any shape; what lies outside of 0 to 255 is clipped, NaN is 0."""
    rounded: NDArray[Any] = np.clip(np.rint(np.nan_to_num(samples, nan=0)), 0, 255)
    return rounded.astype(np.uint8)


def depth_loss(depth: Depth, image: Image.Image, data: bytes) -> Loss | None:
    """What a picture loses where its samples are cut to 8 bits; None if every level stays one of its own.

    Args:
        depth: As `depth_of` found it.
        image: The picture, loaded.
        data: The file.
    """
    kind, convert = (INTEGERS, integers_to_8) if depth.bits else (FLOATS, floats_to_8)
    loaded = np.asarray(image)
    if image.mode == "F" or image.mode.startswith("I"):
        samples, kept = loaded, len(_seen(convert(block) for block in _blocks(loaded)))
    elif (fine := _samples(depth, image, data)) is None:
        return Loss(kind, depth.bits)
    else:
        samples, kept = fine, len(_seen(_blocks(loaded)))
    levels = _levels(samples)
    return Loss(kind, depth.bits, levels, kept) if kept < levels else None


def _bits(image: Image.Image, data: bytes, arguments: tuple[Any, ...]) -> int:
    """Bits of a sample, where the file says so in a place of its own; 0 where not."""
    if image.format == "TIFF":
        said = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, 0)
        return int(max(said) if isinstance(said, tuple) else said)
    if image.format == "PPM":
        if len(arguments) == 2:  # the rawmode, and the largest value
            return int(arguments[1]).bit_length()
        return 16 if image.mode == "I" else 0
    if image.format == "SGI":
        return 8 * data[3]
    if image.format == "JPEG2000" and (siz := _SIZ.search(data)):
        components = data[siz.end() : siz.end() + 3 * int.from_bytes(siz[1]) : 3]
        return max(((byte & 0x7F) + 1 for byte in components), default=0)
    if image.format == "AVIF" and (coded := _AV1_CONFIGURATION.search(data, 0, _AVIF_HEADER)):
        return 8 if not coded[1][0] & 0x40 else 12 if coded[1][0] & 0x20 else 10
    return 0


def _lie_there(image: Image.Image, data: bytes) -> bool:
    """Whether samples of 16 bits lie in a file as they are."""
    return data.startswith(b"P6") or (image.format == "SGI" and data[2] == 0)


def _samples(depth: Depth, image: Image.Image, data: bytes) -> NDArray[Any] | None:
    """The samples of a picture in colour, of which Pillow keeps the high bytes: uint16 of any shape."""
    if depth.rawmode == "samples":
        count = image.width * image.height * len(image.getbands())
        is_whole = depth.offset + 2 * count <= len(data)
        return np.frombuffer(data, ">u2", count, depth.offset).reshape(image.height, -1) if is_whole else None
    if depth.rawmode == "LA;16B":  # four bytes a pixel, as RGBA has
        return _read_as("RGBA", image, data).view(">u2")
    other = _OTHER_BYTE.get(depth.rawmode[-4:])
    if other is None or image.format not in ("PNG", "TIFF") or depth.rawmode.startswith(("RGBa", "L")):
        return None
    low = _read_as(depth.rawmode[:-4] + other, image, data)
    return np.asarray(image).astype(np.uint16) << 8 | low


def _read_as(rawmode: str, image: Image.Image, data: bytes) -> NDArray[np.uint8]:
    """The bytes of a picture that another way of unpacking keeps."""
    again: Any = Image.open(io.BytesIO(data), formats=[str(image.format)])
    again.tile = [
        tile._replace(args=rawmode if isinstance(tile.args, str) else (rawmode, *tile.args[1:])) for tile in again.tile
    ]
    again.load()
    return np.asarray(again)


def _levels(samples: NDArray[Any]) -> int:
    """How many different values samples have, up to MOST_LEVELS."""
    if samples.dtype.kind != "f" and samples.min() >= 0 and samples.max() < 1 << 16:
        return len(_seen(_blocks(samples)))
    found = np.empty(0, np.int32)
    for block in _blocks(samples):
        words = (block + np.float32(0)).view(np.int32) if samples.dtype.kind == "f" else block  # no -0 beside 0
        found = _distinct(np.concatenate((found, _distinct(words.reshape(-1)))))
        if len(found) >= MOST_LEVELS:
            return MOST_LEVELS
    return len(found)


def _seen(blocks: Iterable[NDArray[Any]]) -> NDArray[np.int64]:
    """Every value from 0 to 65535 that is there: int64, ascending."""
    seen = np.zeros(1 << 16, np.bool_)
    for block in blocks:
        seen[block] = True
    return np.flatnonzero(seen)


def _distinct(values: NDArray[np.int32]) -> NDArray[np.int32]:
    """Each value once: as `numpy.unique`, whose hash table may take a second for a million of them."""
    ordered = np.sort(values)
    is_new = np.ones(len(ordered), np.bool_)
    is_new[1:] = ordered[1:] != ordered[:-1]
    return ordered[is_new]


def _blocks(samples: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """The lines of a picture, some million samples at a time."""
    lines = max(1, _BLOCK // max(1, samples[0].size))
    for start in range(0, len(samples), lines):
        yield samples[start : start + lines]
