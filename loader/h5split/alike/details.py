"""Compares the details of pairs of images whose coarse structure is alike.

Details are the frequencies that features do not have. They are read from the pixels of both images. Those of one
picture agree even after strong compression. Those of different images agree by chance, and the more so the simpler the
images are: a straight edge has details that follow from its place. So the agreement of a pair is judged by that of each
of its images with different ones that are near it.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from h5split.alike.candidates import Features
from h5split.alike.features import Floats
from h5split.alike.pictures import Pictures
from h5split.alike.scale import LEAST_ROWS, ranks, sample_of
from h5split.alike.work import Work
from h5split.order.rows import Rows

_COMPARED = 8  # different images that each image is compared with
_FEW = 0.3, 0.3  # middle and spread of the agreement of different images, where there are too few to compare
_STRONG = 0.85  # correlation of details
_LEAST = 1e-9  # the smallest probability that details count as if their correlation is that strong
_LEAST_IF_WEAK = 1e-5  # and else, because the tails of the distribution are heavier than those of the model
_PAIRS = 4096  # pairs that are compared at a time
_ROWS = 512  # rows that are compared with the sample at a time


def chances_of_details(
    pictures: Pictures,
    rows: Rows,
    features: Features,
    pairs: tuple[Rows, Rows],
    symmetries: NDArray[np.uint8],
    work: Work,
) -> NDArray[np.float64]:
    """The probability that the details of different images agree as well as those of each pair: float64 (M,).

    Of the two images of a pair, it is that of the one that agrees better with different images.

    Args:
        pictures: The pictures.
        rows: int64 (N,), the rows that are compared.
        features: float16 (N, F), those of the rows.
        pairs: Positions in `rows`, int64 (M,) and int64 (M,).
        symmetries: uint8 (M,), how the first image is turned to look like the second.
        work: The threads.
    """
    values, deviations = _agreements(pictures, rows[pairs[0]], rows[pairs[1]], symmetries, work)
    known, place = np.unique(np.concatenate(pairs), return_inverse=True)
    middle, spread = _by_chance(pictures, rows, features, known, work)
    scores = [(values - middle[at]) / np.sqrt(spread[at] ** 2 + deviations**2) for at in np.split(place, 2)]
    tails = np.array([math.erfc(score / math.sqrt(2)) / 2 for score in np.minimum(*scores).tolist()])
    found: NDArray[np.float64] = np.maximum(tails, np.where(np.tanh(values) < _STRONG, _LEAST_IF_WEAK, _LEAST))
    return found


def _agreements(
    pictures: Pictures, one: Rows, other: Rows, symmetries: NDArray[np.uint8], work: Work
) -> tuple[Floats, Floats]:
    """The Fisher transform of the correlation of the details of pairs, and its deviation if signs were random."""

    def of(first: int) -> tuple[Floats, Floats]:
        at = slice(first, first + _PAIRS)
        rows, place = np.unique(np.concatenate([one[at], other[at]]), return_inverse=True)
        spectra = np.split(pictures.spectra(rows)[place], 2)
        correlations, deviations = pictures.frequencies.agreement(spectra[0], spectra[1], symmetries[at])
        return _transformed(correlations), deviations

    values, deviations = [np.empty(0, np.float32)], [np.empty(0, np.float32)]
    for part in work.map(of, range(0, len(one), _PAIRS)):
        values.append(part[0])
        deviations.append(part[1])
    return np.concatenate(values), np.concatenate(deviations)


def _by_chance(pictures: Pictures, rows: Rows, features: Features, known: Rows, work: Work) -> tuple[Floats, Floats]:
    """The middle and the spread of the agreement of some rows with different images that are near them.

    They are at least those of all such agreements together. Eight alone can be alike by chance.
    """
    if len(rows) < LEAST_ROWS or not len(known):
        return np.full(len(known), _FEW[0], np.float32), np.full(len(known), _FEW[1], np.float32)
    sample = sample_of(len(rows))
    first = ranks(len(sample))[0]
    last = min(first + _COMPARED, len(sample))
    sampled, spectra = features[sample].astype(np.float32), pictures.spectra(rows[sample])

    def of(start: int) -> Floats:
        here = known[start : start + _ROWS]
        own = features[here].astype(np.float32)
        distances = pictures.frequencies.distances(own, sampled)
        near = np.argpartition(distances, last - 1, axis=1)[:, :last]
        order = np.argsort(np.take_along_axis(distances, near, axis=1), axis=1, kind="stable")
        near = np.take_along_axis(near, order, axis=1)[:, first:]
        each, partner = np.repeat(np.arange(len(here)), near.shape[1]), near.reshape(-1)
        symmetry = pictures.frequencies.symmetries(own[each], sampled[partner])[1]
        own_spectra = pictures.spectra(rows[here])
        values = pictures.frequencies.agreement(own_spectra[each], spectra[partner], symmetry)[0]
        return _transformed(values).reshape(near.shape)

    found = np.concatenate(list(work.map(of, range(0, len(known), _ROWS))))
    usual = np.median(found)
    spread = np.float32(1.4826) * np.median(np.abs(found - usual))  # the deviation, if the middle half is normal
    return np.maximum(found.mean(axis=1), usual), np.maximum(found.std(axis=1), spread)


def _transformed(correlations: Floats) -> Floats:
    """The Fisher transform of correlations, whose deviation is nearly the same for all of them."""
    found: Floats = np.arctanh(correlations.clip(-0.999, 0.999))
    return found
