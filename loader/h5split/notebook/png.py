"""Encodes pixels as PNG, without a further package, and makes large images small."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOR_TYPES = {1: 0, 3: 2, 4: 6}  # channels -> grey, RGB, RGBA
_SAMPLES = 4  # pixels of each axis that are averaged for one pixel of a reduced image, at least


def data_uri(pixels: NDArray[np.uint8], side: int) -> str:
    """An image as a data URI that a page can embed.

    Args:
        pixels: uint8 (H, W, C), where C is 1, 3 or 4.
        side: The largest width and height in pixels. A larger image is reduced.
    """
    return f"data:image/png;base64,{base64.b64encode(encoded(reduced(pixels, side))).decode()}"


def encoded(pixels: NDArray[np.uint8] | NDArray[np.uint16], level: int = 9) -> bytes:
    """The bytes of a PNG file of 8 or 16 bits. The same pixels give the same picture, without loss.

    Args:
        pixels: uint8 or uint16 (H, W, C), where C is 1, 3 or 4.
        level: How much time compression takes, from 1 to 9.
    """
    height, width, channels = pixels.shape
    size = pixels.dtype.itemsize
    head = struct.pack(">2I5B", width, height, 8 * size, _COLOR_TYPES[channels], 0, 0, 0)
    samples = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder(">"))
    lines = _filtered(samples.reshape(height, width * channels).view(np.uint8), channels * size)
    return _SIGNATURE + _chunk(b"IHDR", head) + _chunk(b"IDAT", zlib.compress(lines, level)) + _chunk(b"IEND", b"")


def reduced(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """An image of at most `side` pixels in width and height: the means of square blocks.

    Of a very large image not every pixel is read, so memory does not grow with its size.

    Args:
        pixels: uint8 (H, W, C).
        side: The largest width and height in pixels.
    """
    if _blocks(max(pixels.shape[:2]), side) == 1:
        return pixels
    sums = thinned(pixels, side).astype(np.uint32)
    size = _blocks(max(sums.shape[:2]), side)
    numbers = np.ones((*sums.shape[:2], 1), np.uint32)
    for axis in (0, 1):
        starts = np.arange(0, sums.shape[axis], size)
        sums = np.add.reduceat(sums, starts, axis)
        numbers = np.add.reduceat(numbers, starts, axis)
    means: NDArray[np.uint32] = (sums + numbers // 2) // numbers
    return means.astype(np.uint8)


def thinned(pixels: NDArray[Any], side: int) -> NDArray[Any]:
    """The pixels that are read to reduce an image to `side` pixels: every n-th of each axis of a very large one.

    Args:
        pixels: (H, W, C).
        side: The largest width and height in pixels.
    """
    step = max(1, _blocks(max(pixels.shape[:2]), side) // _SAMPLES)
    return pixels[::step, ::step]


def _blocks(length: int, side: int) -> int:
    """The smallest size of blocks of which `side` hold this length."""
    return max(1, -(-length // side))


def _filtered(lines: NDArray[np.uint8], width: int) -> bytes:
    """The lines of an image, each as the difference from its neighbours that is smallest, after the number of that.

    These are the filters 0 to 2 of PNG (none, left, above), chosen as libpng does.

    Args:
        lines: The bytes of each line, uint8 (H, N).
        width: The bytes of a pixel.
    """
    left, above = lines.copy(), lines.copy()
    left[:, width:] -= lines[:, :-width]
    above[1:] -= lines[:-1]
    candidates = np.stack([lines, left, above])
    best = np.abs(candidates.view(np.int8).astype(np.int16)).sum(axis=2).argmin(axis=0)
    chosen = candidates[best, np.arange(len(lines))]
    return np.concatenate([best.astype(np.uint8)[:, None], chosen], axis=1).tobytes()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
