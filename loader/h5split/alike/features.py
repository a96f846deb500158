"""Compares images by their coarse structure: a few numbers of each, which changes that keep the picture hardly change.

The numbers are the lowest frequencies of a discrete cosine transform (DCT) of the brightness. The mean is left out and
the rest is scaled to unit length, so brightness and contrast do not matter. JPEG compression and rescaling change the
low frequencies least. The distance of two images is 1 - the dot product of their numbers, the smallest over the eight
symmetries of the square. It is 0 for equal pictures, and about 1 for unrelated ones.

A reflection changes the sign of the odd frequencies across it, and transposition swaps rows and columns. So four dot
products, of the frequencies that are even or odd in each direction, give the distance under all four reflections.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

MIRRORED, UPSIDE_DOWN, TRANSPOSED = 1, 2, 4  # bits of a symmetry: transposed first, then reflected
_TILE = 256  # columns of a product that are computed at a time
_MAX_OPERATIONS = 1 << 18  # of a product in one call: OpenBLAS computes larger ones with threads of its own
_MAX_FINE = 16  # frequencies in each direction of the spectrum of an image
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
        self.fine = min(_MAX_FINE, side) if side >= 4 else 0
        self.coarse = min(_MAX_COARSE, self.fine // 2)

    @cached_property
    def places(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """The place of each feature in the spectrum: even and even, even and odd, odd and even, odd and odd ones."""
        rows, columns = np.indices((self.coarse, self.coarse)).reshape(2, -1)[:, 1:]
        order = np.argsort(rows % 2 * 2 + columns % 2, kind="stable")
        return rows[order], columns[order]

    @cached_property
    def parities(self) -> list[slice]:
        """The features of each of the four parities."""
        rows, columns = self.places
        bounds = [0, *np.cumsum(np.bincount(rows % 2 * 2 + columns % 2, minlength=4)).tolist()]
        return [slice(start, stop) for start, stop in pairwise(bounds)]

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

    def spectra(self, pixels: NDArray[np.uint8]) -> Floats:
        """The DCT of the brightness of images, its lowest frequencies: float32 (M, fine, fine).

        The sum of the squares of all frequencies but the first is the variance of the brightness.

        Args:
            pixels: uint8 (M, H, W, C).
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
        nearest = np.full((len(one), len(other)), -1, np.float32)
        for turned in (one, one[:, self.transposed]):
            even, across, down, both = (product(turned[:, part], other[:, part]) for part in self.parities)
            sums, differences = across + both, across - both
            np.maximum(nearest, even + down + np.abs(sums, out=sums), out=nearest)
            np.maximum(nearest, even - down + np.abs(differences, out=differences), out=nearest)
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
        found = np.empty((8, len(one)), np.float32)
        for transposed, turned in ((0, one), (TRANSPOSED, one[:, self.transposed])):
            parts = [np.einsum("ij,ij->i", turned[:, part], other[:, part]) for part in self.parities]
            for mirrored in (0, MIRRORED):
                for upside_down in (0, UPSIDE_DOWN):
                    across, down = (-1 if mirrored else 1), (-1 if upside_down else 1)
                    signs = (1, across, down, across * down)
                    found[transposed + mirrored + upside_down] = sum(
                        sign * part for sign, part in zip(signs, parts, strict=True)
                    )
        best = found.argmax(axis=0)
        return np.maximum(1 - found[best, np.arange(len(one))], 0), best.astype(np.uint8)

    def agreement(self, one: Floats, other: Floats, symmetry: NDArray[np.uint8]) -> tuple[Floats, Floats]:
        """How well the details of each image agree with those of its partner.

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
        products = _of_unit_length(one[:, self.details])[0] * _of_unit_length(other[:, self.details])[0]
        deviations: Floats = np.sqrt((products * products).sum(axis=1, dtype=np.float32))
        correlations: Floats = products.sum(axis=1, dtype=np.float32)
        return correlations, deviations


def product(one: Floats, other: Floats) -> Floats:
    """The dot product of each row with each other row: float32 (M, N).

    It is computed in small tiles. Large products would start the threads of OpenBLAS, which wait for each other where
    several threads compute products.

    Args:
        one: float32 (M, K).
        other: float32 (N, K).
    """
    found = np.empty((len(one), len(other)), np.float32)
    one, columns = np.ascontiguousarray(one), np.ascontiguousarray(other.T)
    step = max(1, _MAX_OPERATIONS // (max(1, one.shape[1]) * min(_TILE, max(1, len(other)))))
    for left in range(0, len(other), _TILE):
        here = np.ascontiguousarray(columns[:, left : left + _TILE])
        for top in range(0, len(one), step):
            found[top : top + step, left : left + _TILE] = one[top : top + step] @ here
    return found


def brightness(pixels: NDArray[np.uint8]) -> Floats:
    """The brightness of an image, (R + 2 G + B) / 4: float32 (H, W). Of one or two channels, it is the first.

    Args:
        pixels: uint8 (H, W, C). A fourth channel, which is opacity, is passed over.
    """
    if pixels.shape[2] < 3:
        return pixels[..., 0].astype(np.float32)
    total = pixels[..., 1].astype(np.uint16)
    total += total
    total += pixels[..., 0]
    total += pixels[..., 2]
    return total.astype(np.float32) * np.float32(0.25)


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
