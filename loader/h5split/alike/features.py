"""Compares images by their coarse structure: a few numbers of each, which changes that keep the picture hardly change.

The numbers are the lowest frequencies of a discrete cosine transform (DCT) of the brightness. The mean is left out and
the rest is scaled to unit length, so brightness and contrast do not matter. JPEG compression and rescaling change the
low frequencies least. The distance of two images is 1 - the dot product of their numbers, the smallest over the eight
symmetries of the square. It is 0 for equal pictures, and about 1 for unrelated ones.

A reflection changes the sign of the odd frequencies across it, and transposition swaps rows and columns. So the dot
product of a mirrored picture is that of the frequencies of even columns less that of the odd ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

# A symmetry is a sum of these: the picture is transposed first, then reflected.
MIRRORED, UPSIDE_DOWN, TRANSPOSED = 1, 2, 4
_TILE = 256  # columns of a product that are computed at a time
_MAX_OPERATIONS = 1 << 18  # multiplications at a time: OpenBLAS computes more than these with threads of its own
_MAX_FINE = 16  # frequencies in each direction of the spectrum of an image
_WEIGHTS = np.array([77, 150, 29], np.uint16)  # of red, green and blue, in 256 parts: ITU-R BT.601
MIN_SIDE = 8  # of images in pixels; smaller ones have too few frequencies to tell them apart
_MAX_COARSE = 8  # of these, the frequencies that are compared first


class Frequencies:
    """Which frequencies are compared, and their order in an array.

    Args:
        shapes: The (H, W, C) of all images that are compared with each other.

    Attributes:
        fine: The number of frequencies in each direction of a spectrum; 0 if the images are too small.
        coarse: The number of those that features have.
    """

    def __init__(self, shapes: Sequence[tuple[int, int, int]]) -> None:
        side = min((min(shape[:2]) for shape in shapes), default=0)
        self.fine = min(_MAX_FINE, side) if side >= MIN_SIDE else 0
        self.coarse = min(_MAX_COARSE, self.fine // 2)

    @cached_property
    def places(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """The place of each feature in the spectrum. Those of even columns come first."""
        rows, columns = np.indices((self.coarse, self.coarse)).reshape(2, -1)[:, 1:]
        order = np.argsort(columns % 2, kind="stable")
        return rows[order], columns[order]

    @cached_property
    def even(self) -> int:
        """The number of features of even columns. A picture that is mirrored has the negative of the others."""
        return int((self.places[1] % 2 == 0).sum())

    @cached_property
    def transposed(self) -> NDArray[np.intp]:
        """The place of each feature of a transposed image in the features of the image."""
        rows, columns = self.places
        number = {place: at for at, place in enumerate(zip(rows.tolist(), columns.tolist(), strict=True))}
        return np.array([number[place] for place in zip(columns.tolist(), rows.tolist(), strict=True)], np.intp)

    @cached_property
    def details(self) -> NDArray[np.bool_]:
        """The frequencies of the spectrum that features do not have: bool (fine, fine)."""
        mask = np.ones((self.fine, self.fine), np.bool_)
        mask[: self.coarse, : self.coarse] = False
        return mask

    @cached_property
    def rings(self) -> Floats:
        """Which of the details are equally fine: float32 (K, R), 1 for each of the K in its ring, and else 0."""
        radius = np.rint(np.hypot(*np.nonzero(self.details)))
        found: Floats = (radius[:, None] == np.unique(radius)).astype(np.float32)
        return found

    def spectra(self, pixels: NDArray[Any]) -> Floats:
        """The DCT of the brightness of images, its lowest frequencies: float32 (M, fine, fine).

        The sum of the squares of all frequencies but the first is the variance of the brightness.

        Args:
            pixels: uint8 (M, H, W, C); or grey already, float32 (M, H, W, 1).
        """
        count, height, width, _ = pixels.shape
        found = np.empty((count, self.fine, self.fine), np.float32)
        vertical, horizontal = _cosines(self.fine, height), _cosines(self.fine, width)
        for at in range(count):  # one by one, because an image fits in the processor's cache
            found[at] = vertical @ product(brightness(pixels[at]), horizontal)
        return found

    def features(self, spectra: Floats) -> tuple[Floats, Floats]:
        """The features of images, of unit length, and the contrast of their coarse structure.

        Returns:
            float32 (M, F), and float32 (M,) in grey levels.
        """
        rows, columns = self.places
        return _of_unit_length(spectra[:, rows, columns])

    def magnitudes(self, features: Floats) -> Floats:
        """Numbers that are equal for all symmetries of an image: float32 (M, G).

        Their squared distance is at most that of the features, whatever the symmetry.
        """
        rows, columns = self.places
        upper = np.flatnonzero(rows <= columns)
        squares = features[:, upper] ** 2
        off = (rows < columns)[upper]
        squares[:, off] += features[:, self.transposed[upper[off]]] ** 2
        found: Floats = np.sqrt(squares)
        return found

    def distances(self, one: Floats, other: Floats) -> Floats:
        """The distance of each image to each other one: float32 (M, N).

        Args:
            one: Features, float32 (M, F).
            other: Features, float32 (N, F).
        """
        turned, even = self._turned(one), self.even
        nearest = np.empty((len(one), len(other)), np.float32)
        for rows, columns in _tiles(len(one), len(other), one.shape[1]):
            partners = np.ascontiguousarray(other[columns].T)
            upright = turned[:, rows, :even] @ partners[:even]
            mirrored = turned[:, rows, even:] @ partners[even:]
            upright += np.abs(mirrored, out=mirrored)
            nearest[rows, columns] = upright.max(axis=0)
        np.subtract(1, nearest, out=nearest)
        return nearest

    def symmetries(self, one: Floats, other: Floats) -> tuple[Floats, NDArray[np.uint8]]:
        """The distance of each image to its partner, and the symmetry that makes it most alike.

        Args:
            one: Features, float32 (M, F).
            other: Features, float32 (M, F).

        Returns:
            float32 (M,), and uint8 (M,): the sum of `TRANSPOSED`, and then `MIRRORED` and `UPSIDE_DOWN`.
        """
        turned, even = self._turned(one), self.even
        upright = np.einsum("kij,ij->ki", turned[..., :even], other[:, :even])
        mirrored = np.einsum("kij,ij->ki", turned[..., even:], other[:, even:])
        found = np.stack([upright + mirrored, upright - mirrored], axis=1).reshape(8, -1)
        best = found.argmax(axis=0)
        return np.maximum(1 - found[best, np.arange(len(one))], 0), best.astype(np.uint8)

    def _turned(self, features: Floats) -> Floats:
        """The features of images, upside down, transposed, and transposed and then upside down: float32 (4, M, F)."""
        flipped = 1 - 2 * (self.places[0] % 2).astype(np.float32)
        transposed = features[:, self.transposed]
        return np.stack([features, features * flipped, transposed, transposed * flipped])

    def agreement(self, one: Floats, other: Floats, symmetry: NDArray[np.uint8]) -> tuple[Floats, Floats]:
        """How well the details of each image agree with those of its partner.

        The sharper of the two is blurred first, until both are equally sharp.

        Args:
            one: Spectra, float32 (M, fine, fine).
            other: Spectra, float32 (M, fine, fine).
            symmetry: uint8 (M,), the symmetry that makes `one` most like `other`.

        Returns:
            The correlation of the details, float32 (M,); and its standard deviation if their signs were random, float32
            (M,). It is large for simple pictures, such as a straight edge, which have few details.
        """
        alternating = (1 - 2 * (np.arange(self.fine) % 2)).astype(np.float32)
        one = np.where((symmetry & TRANSPOSED > 0)[:, None, None], one.swapaxes(1, 2), one)
        one = np.where((symmetry & MIRRORED > 0)[:, None, None], one * alternating, one)
        one = np.where((symmetry & UPSIDE_DOWN > 0)[:, None, None], one * alternating[:, None], one)
        one, other = self._equally_sharp(one[:, self.details], other[:, self.details])
        products = _of_unit_length(one)[0] * _of_unit_length(other)[0]
        deviations: Floats = np.sqrt((products * products).sum(axis=1, dtype=np.float32))
        correlations: Floats = products.sum(axis=1, dtype=np.float32)
        return correlations, deviations

    def _equally_sharp(self, *details: Floats) -> Iterator[Floats]:
        """Scale the details of two images, float32 (M, K), so that each ring has the lower energy of both."""
        amplitudes = [np.sqrt(product(part * part, self.rings.T)) for part in details]
        lower: Floats = np.minimum(*amplitudes)
        for part, amplitude in zip(details, amplitudes, strict=True):
            gains: Floats = np.divide(lower, np.maximum(amplitude, np.float32(1e-6)), dtype=np.float32)
            yield part * product(gains, self.rings)


def product(one: Floats, other: Floats) -> Floats:
    """The dot product of each row with each other row: float32 (M, N).

    Args:
        one: float32 (M, K).
        other: float32 (N, K).
    """
    found = np.empty((len(one), len(other)), np.float32)
    for rows, columns in _tiles(len(one), len(other), one.shape[1]):
        found[rows, columns] = one[rows] @ np.ascontiguousarray(other[columns].T)
    return found


def brightness(pixels: NDArray[Any]) -> Floats:
    """The brightness of an image, as of its conversion to grey: float32 (H, W). Of one or two channels, the first.

    Args:
        pixels: uint8 (H, W, C). A fourth channel, which is opacity, is passed over. Or grey already: float32 (H, W, 1).
    """
    if pixels.shape[2] < 3:
        return pixels[..., 0].astype(np.float32)
    total: NDArray[np.uint16] = pixels[..., 0] * _WEIGHTS[0]
    for channel in (1, 2):
        total += pixels[..., channel] * _WEIGHTS[channel]
    found: Floats = total.astype(np.float32)
    found *= np.float32(1 / 256)
    return found


def _tiles(height: int, width: int, depth: int) -> Iterator[tuple[slice, slice]]:
    """Divide a product of matrices into small tiles: rows and columns.

    Small ones stay in the processor's cache, and OpenBLAS computes them without threads of its own, which would wait
    for each other where several threads compute products.
    """
    step = max(1, _MAX_OPERATIONS // (max(1, depth) * min(_TILE, max(1, width))))
    for left in range(0, width, _TILE):
        for top in range(0, height, step):
            yield slice(top, top + step), slice(left, left + _TILE)


def _of_unit_length(vectors: Floats) -> tuple[Floats, Floats]:
    """Vectors scaled to a length of 1, float32 (M, K), and their lengths before, float32 (M,)."""
    lengths: Floats = np.sqrt((vectors * vectors).sum(axis=1, dtype=np.float32))
    scaled: Floats = np.divide(vectors, np.maximum(lengths, np.float32(1e-6))[:, None], dtype=np.float32)
    return scaled, lengths


def _cosines(count: int, length: int) -> Floats:
    """The lowest frequencies of the orthonormal DCT, so scaled that sizes of images do not matter: (count, length)."""
    frequency, at = np.arange(count)[:, None], np.arange(length)
    found: Floats = (np.cos(np.pi * frequency * (at + 0.5) / length) * (np.sqrt(2) / length)).astype(np.float32)
    found[0] /= np.float32(np.sqrt(2))
    return found
