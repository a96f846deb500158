"""Which images of packs are nearly identical: one picture, compressed, rescaled, with other brightness, or turned.

First the coarse structure of images is compared (`features`), and pairs that are much nearer than different images are
(`scale`) are candidates (`candidates`). Then the details of each candidate are read from its pixels and compared: those
of one picture agree, those of different pictures that happen to look alike from afar do not. A pair is near-identical
if hardly any pair of different images in the whole data set is expected to be as much alike, in both.

Both probabilities are those of simple models, which are too small for pictures of few details, such as a straight edge.
So the limit is far below one false alarm in a data set. It was chosen by measurement; see `tools/near.py`.

The result depends on the set of images alone, not on their order, so that it is the same before and after a split.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from h5split.alike.candidates import Features, cells_of, centres_of, distinct, pairs_in, probes_of
from h5split.alike.content import Content, content_of, joined
from h5split.alike.details import chances_of_details
from h5split.alike.features import Floats
from h5split.alike.pictures import Pictures, Selections
from h5split.alike.scale import Scale, sample_of, scale_of, spread_of
from h5split.alike.work import Progress, Work
from h5split.order.rows import Rows
from h5split.system.machine import cores

NEAR = "near"  # the groups of rows with near-identical pictures
FLAT = 2.0  # contrast in grey levels; below it an image has no structure that could be compared
FALSE_ALARMS = 2e-4  # pairs of different images that are expected in a whole data set, at most
_CHANCE = 0.3  # different images that are expected within the distance of a candidate, at most
_ROWS = 512  # rows that one thread works on at a time
_PAIRS = 1 << 14  # pairs that one thread works on at a time
# Transposing swaps the two reflections. A symmetry without transposition is its own inverse.
_INVERSE = np.array([0, 1, 2, 3, 4, 6, 5, 7], np.uint8)


@dataclass(frozen=True)
class Near:
    """The rows of some selections, and which pairs of them have near-identical pictures.

    Rows with the same content are represented by the first of them.

    Attributes:
        content: Which rows have the same content.
        pairs: int64 (M, 2), the most alike first; of each pair the smaller row first. A row with very many
            near-identical ones is in a pair with some of them only, but the groups have all.
        distances: float32 (M,), 0 for equal pictures and about 1 for unrelated ones.
        symmetries: uint8 (M,), how the first picture is turned to look like the second; see `features`.
        flat: int64, the rows without structure, or of all images if some are too small. They are in no pair.
    """

    content: Content
    pairs: NDArray[np.int64]
    distances: Floats
    symmetries: NDArray[np.uint8]
    flat: Rows

    @property
    def groups(self) -> list[Rows]:
        """The groups of two or more rows that are connected by pairs or by the same content."""
        return joined(self.content.count, [*self.content.groups, *self.pairs])

    @property
    def numbers(self) -> Rows:
        """A number for each row, equal for rows of one group: int64 (N,)."""
        return Content(self.content.count, self.groups, self.flat).numbers


def near_of(selections: Selections, *, workers: int | None = None, progress: Progress | None = None) -> Near:
    """Compare all rows of some selections. They are numbered one selection after another.

    Args:
        selections: The packs of each selection, and its rows.
        workers: The number of threads; None for one per core. The result does not depend on it.
        progress: Called with (steps done, steps in total).
    """
    content = content_of(selections)
    pictures = Pictures(selections)
    rows, order = pictures.distinct(content)
    if not pictures.frequencies.fine:
        return Near(content, np.empty((0, 2), np.int64), np.empty(0, np.float32), np.empty(0, np.uint8), rows)
    with ThreadPoolExecutor(workers or cores()) as executor:
        work = Work(executor, 3 * len(rows), progress)  # each row is read, compared with a sample, and with others
        features, contrast = _features_of(pictures, rows, work)
        order = order[contrast[order] >= FLAT]
        one, other, distances, symmetries = _pairs_of(pictures, rows[order], features[order], work)
        work.advance(work.total)
    # Each content is named by its first row, and the smaller row of a pair comes first.
    one, other = content.numbers[one], content.numbers[other]
    symmetries = np.where(one > other, _INVERSE[symmetries], symmetries)
    one, other = np.minimum(one, other), np.maximum(one, other)
    ranking = np.lexsort((other, one, distances))
    pairs = np.stack([one, other], axis=1)[ranking]
    return Near(content, pairs, distances[ranking], symmetries[ranking], rows[contrast < FLAT])


def _features_of(pictures: Pictures, rows: Rows, work: Work) -> tuple[Features, Floats]:
    """The features of rows, float16 (M, F), and the contrast of each in grey levels, float32 (M,)."""

    def of(at: Rows) -> tuple[Features, Floats]:
        features, contrast = pictures.frequencies.features(pictures.spectra(rows[at]))
        return features.astype(np.float16), contrast

    found = np.empty((len(rows), len(pictures.frequencies.transposed)), np.float16)
    contrast = np.empty(len(rows), np.float32)
    chunks = pictures.chunks(rows)
    for at, part in zip(chunks, work.map(of, chunks), strict=True):
        found[at], contrast[at] = part
        work.advance(len(at))
    return found, contrast


def _pairs_of(
    pictures: Pictures, rows: Rows, features: Features, work: Work
) -> tuple[Rows, Rows, Floats, NDArray[np.uint8]]:
    """The near-identical pairs among rows, their distances and symmetries.

    Args:
        pictures: The pictures.
        rows: int64 (N,), in an order that depends on the images alone.
        features: float16 (N, F), those of the rows.
        work: The threads.
    """
    if len(rows) < 2:
        return rows[:0], rows[:0], np.empty(0, np.float32), np.empty(0, np.uint8)
    scale = _scale_of(pictures, features, work)
    one, other = _candidates(pictures, features, scale.limits(_CHANCE), work)
    distances, symmetries = _distances(pictures, features, one, other, work)
    chances = scale.chances(one, other, distances)
    chances *= chances_of_details(pictures, rows, features, (one, other), symmetries, work)
    near = chances < FALSE_ALARMS / len(rows)
    return rows[one[near]], rows[other[near]], distances[near], symmetries[near]


def _scale_of(pictures: Pictures, features: Features, work: Work) -> Scale:
    """How near different images are to each row."""
    sample = sample_of(len(features))
    sampled = features[sample].astype(np.float32)

    def of(first: int) -> tuple[Floats, Floats]:
        rows = np.arange(first, min(first + _ROWS, len(features)))
        return spread_of(pictures.frequencies, rows, features[rows].astype(np.float32), sample, sampled)

    return scale_of(len(features), work.map(of, range(0, len(features), _ROWS), steps=_ROWS))


def _candidates(pictures: Pictures, features: Features, limits: Floats, work: Work) -> tuple[Rows, Rows]:
    """The pairs of rows that are nearer than the limits of both."""
    centres = centres_of(pictures.frequencies, features)

    def probes(first: int) -> NDArray[np.int32]:
        return probes_of(pictures.frequencies, features[first : first + _ROWS], centres)

    cells = cells_of(np.concatenate(list(work.map(probes, range(0, len(features), _ROWS)))), len(centres))

    def pairs(cell: int) -> tuple[Rows, Rows]:
        return pairs_in(pictures.frequencies, features, limits, cells.members[cell], cells.visitors[cell])

    return distinct(len(features), work.map(pairs, range(len(centres)), steps=len(features) // len(centres)))


def _distances(
    pictures: Pictures, features: Features, one: Rows, other: Rows, work: Work
) -> tuple[Floats, NDArray[np.uint8]]:
    """The distance of each pair, float32 (M,), and its symmetry, uint8 (M,)."""
    distances, symmetries = np.empty(len(one), np.float32), np.empty(len(one), np.uint8)

    def of(first: int) -> None:
        at = slice(first, first + _PAIRS)
        pair = (features[rows[at]].astype(np.float32) for rows in (one, other))
        distances[at], symmetries[at] = pictures.frequencies.symmetries(*pair)

    for _ in work.map(of, range(0, len(one), _PAIRS)):
        pass
    return distances, symmetries
