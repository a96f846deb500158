"""Encodes pixels as PNG, without a further package, and makes large images small."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np
from numpy.typing import NDArray

from h5split.errors import ArgumentError

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOR_TYPES = {1: 0, 3: 2, 4: 6}  # channels -> grey, RGB, RGBA
_SAMPLES = 4  # pixels of each axis that are averaged for one pixel of a reduced image, at least


def check_channels(shape: tuple[int, int, int]) -> None:
    """Check that rows of this shape can be shown as pictures.

    Args:
        shape: (H, W, C) of a row.

    Raises:
        ValueError: The number of channels is not 1, 3 or 4.
    """
    if not is_picture(shape):
        raise ArgumentError(f"expected images of 1, 3 or 4 channels, found {shape[2]}; there is no picture of such")


def is_picture(shape: tuple[int, int, int]) -> bool:
    """Whether rows of this shape can be shown as pictures."""
    return shape[2] in _COLOR_TYPES


def data_uri(pixels: NDArray[np.uint8], side: int) -> str:
    """An image as a data URI that a page can embed.

    Args:
        pixels: uint8 (H, W, C), where C is 1, 3 or 4.
        side: The largest width and height in pixels. A larger image is reduced.
    """
    return f"data:image/png;base64,{base64.b64encode(encoded(reduced(pixels, side))).decode()}"


def encoded(pixels: NDArray[np.uint8]) -> bytes:
    """The bytes of a PNG file. The same pixels give the same picture, without loss.

    Args:
        pixels: uint8 (H, W, C), where C is 1, 3 or 4.
    """
    height, width, channels = pixels.shape
    head = struct.pack(">2I5B", width, height, 8, _COLOR_TYPES[channels], 0, 0, 0)
    lines = _filtered(pixels.reshape(height, width * channels), channels)
    return _SIGNATURE + _chunk(b"IHDR", head) + _chunk(b"IDAT", zlib.compress(lines, 9)) + _chunk(b"IEND", b"")


def reduced(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """An image of at most `side` pixels in width and height: the means of square blocks.

    Of a very large image not every pixel is read, so memory does not grow with its size.

    Args:
        pixels: uint8 (H, W, C).
        side: The largest width and height in pixels.
    """
    factor = _blocks(max(pixels.shape[:2]), side)
    if factor == 1:
        return pixels
    step = max(1, factor // _SAMPLES)
    sums = pixels[::step, ::step].astype(np.uint32)
    size = _blocks(max(sums.shape[:2]), side)
    numbers = np.ones((*sums.shape[:2], 1), np.uint32)
    for axis in (0, 1):
        starts = np.arange(0, sums.shape[axis], size)
        sums = np.add.reduceat(sums, starts, axis)
        numbers = np.add.reduceat(numbers, starts, axis)
    means: NDArray[np.uint32] = (sums + numbers // 2) // numbers
    return means.astype(np.uint8)


def _blocks(length: int, side: int) -> int:
    """The smallest size of blocks of which `side` hold this length."""
    return max(1, -(-length // side))


def _filtered(lines: NDArray[np.uint8], channels: int) -> bytes:
    """The lines of an image, each as the difference from its neighbours that is smallest, after the number of that.

    These are the filters 0 to 2 of PNG (none, left, above), chosen as libpng does.
    """
    left, above = lines.copy(), lines.copy()
    left[:, channels:] -= lines[:, :-channels]
    above[1:] -= lines[:-1]
    candidates = np.stack([lines, left, above])
    best = np.abs(candidates.view(np.int8).astype(np.int16)).sum(axis=2).argmin(axis=0)
    chosen = candidates[best, np.arange(len(lines))]
    return np.concatenate([best.astype(np.uint8)[:, None], chosen], axis=1).tobytes()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
