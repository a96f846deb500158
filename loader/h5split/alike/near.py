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

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from h5split.alike.candidates import Features, cells_of, centres_of, distinct, pairs_in, probes_of
from h5split.alike.content import Content, content_of, joined
from h5split.alike.features import Floats, Frequencies
from h5split.alike.scale import LEAST_ROWS, Scale, nearest_of, ranks, sample_of, scale_of
from h5split.file.packs import Packs
from h5split.order.rows import Rows, digest_keys
from h5split.system.machine import cores

NEAR = "near"  # the groups of rows with near-identical pictures
FLAT = 2.0  # contrast in grey levels; below it an image has no structure that could be compared
FALSE_ALARMS = 2e-4  # pairs of different images that are expected in a whole data set, at most
_CHANCE = 0.3  # different images around a row within the distance of a candidate, at most
_DETAILS = 1e-9  # the smallest probability that agreeing details count as
_AGREEMENT = 0.3, 0.3  # of details of different images: middle and spread of its Fisher transform, of very few rows
_COMPARED = 8  # different images whose details are compared with those of each row of the sample
_CHUNK_BYTES = 4 << 20
_ROWS = 512  # rows that one thread works on at a time
_PAIRS = 4096  # pairs whose details are compared at a time

Progress = Callable[[int, int], object]
Selections = Sequence[tuple[Packs, Rows]]
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


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
        flat: int64, the rows without structure. They are in no pair.
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
    frequencies = Frequencies([packs.shape for packs, rows in selections if len(rows)])
    empty = np.empty(0, np.int64)
    if not frequencies.fine:
        return Near(content, empty.reshape(0, 2), np.empty(0, np.float32), np.empty(0, np.uint8), empty)
    rows, order = _distinct_rows(selections, content)
    steps = _Steps(3 * len(rows), progress)
    with ThreadPoolExecutor(workers or cores()) as executor:
        search = _Search(selections, frequencies, executor, steps)
        features, contrast = search.features(rows)
        order = order[contrast[order] >= FLAT]
        one, other, distances, symmetries = search.pairs(rows[order], features[order])
    steps.finish()
    one, other, swapped = _by_first_rows(content, one, other)
    symmetries = np.where(swapped, _INVERSE[symmetries], symmetries)
    ranking = np.lexsort((other, one, distances))
    pairs = np.stack([one, other], axis=1)[ranking]
    return Near(content, pairs, distances[ranking], symmetries[ranking], rows[contrast < FLAT])


# Transposing swaps the two reflections. A symmetry without transposition is its own inverse.
_INVERSE = np.array([0, 1, 2, 3, 4, 6, 5, 7], np.uint8)


@dataclass
class _Steps:
    """Counts steps for a progress bar."""

    total: int
    progress: Progress | None
    done: int = 0

    def add(self, count: int) -> None:
        self.done = min(self.done + count, self.total)
        if self.progress is not None:
            self.progress(self.done, self.total)

    def finish(self) -> None:
        self.add(self.total - self.done)


@dataclass(frozen=True)
class _Search:
    """The search for near-identical pairs: what all its stages need."""

    selections: Selections
    frequencies: Frequencies
    executor: ThreadPoolExecutor
    steps: _Steps

    def features(self, rows: Rows) -> tuple[Features, Floats]:
        """The features of rows, float16 (M, F), and the contrast of each, float32 (M,)."""
        found = np.empty((len(rows), len(self.frequencies.transposed)), np.float16)
        contrast = np.empty(len(rows), np.float32)
        chunks = list(_chunks(self.selections, rows))
        for at, part in zip(chunks, self._map(self._features_of, [rows[at] for at in chunks]), strict=True):
            found[at], contrast[at] = part
            self.steps.add(len(at))
        return found, contrast

    def pairs(self, rows: Rows, features: Features) -> tuple[Rows, Rows, Floats, NDArray[np.uint8]]:
        """The near-identical pairs among rows, their distances and symmetries."""
        count = len(rows)
        if count < 2:
            return rows[:0], rows[:0], np.empty(0, np.float32), np.empty(0, np.uint8)
        scale = self._scale(features)
        one, other = self._candidates(features, scale.limits(_CHANCE))
        distances, symmetries = self._symmetries(features, one, other)
        details = self._chance_of_details(rows, features, one, other, symmetries)
        near = scale.chances(one, other, distances) * details < FALSE_ALARMS / count
        return rows[one[near]], rows[other[near]], distances[near], symmetries[near]

    def _features_of(self, rows: Rows) -> tuple[Features, Floats]:
        features, contrast = self.frequencies.features(self._spectra(rows))
        return features.astype(np.float16), contrast

    def _spectra(self, rows: Rows) -> Floats:
        """The spectra of rows: float32 (M, fine, fine)."""
        found = np.empty((len(rows), self.frequencies.fine, self.frequencies.fine), np.float32)
        for at in _chunks(self.selections, rows):
            found[at] = self.frequencies.spectra(_pixels(self.selections, rows[at]))
        return found

    def _scale(self, features: Features) -> Scale:
        sample = sample_of(len(features))
        sampled = features[sample].astype(np.float32)

        def nearest(first: int) -> Floats:
            rows = np.arange(first, min(first + _ROWS, len(features)))
            return nearest_of(self.frequencies, rows, features[rows].astype(np.float32), sample, sampled)

        return scale_of(len(features), self._counted(nearest, range(0, len(features), _ROWS), _ROWS))

    def _candidates(self, features: Features, limits: Floats) -> tuple[Rows, Rows]:
        """The pairs of features that are nearer than the limits of both."""
        centres = centres_of(self.frequencies, features)
        starts = range(0, len(features), _ROWS)
        probes = self._map(lambda at: probes_of(self.frequencies, features[at : at + _ROWS], centres), starts)
        cells = cells_of(np.concatenate(list(probes)), len(centres))

        def pairs(cell: int) -> tuple[Rows, Rows]:
            return pairs_in(self.frequencies, features, limits, cells.members[cell], cells.visitors[cell])

        share = len(features) // len(centres)
        return distinct(len(features), self._map(pairs, range(len(centres))), lambda: self.steps.add(share))

    def _symmetries(self, features: Features, one: Rows, other: Rows) -> tuple[Floats, NDArray[np.uint8]]:
        """The distance and the symmetry of each pair."""

        def of(at: int) -> tuple[Floats, NDArray[np.uint8]]:
            pairs = slice(at, at + _PAIRS)
            return self.frequencies.symmetries(*(features[rows[pairs]].astype(np.float32) for rows in (one, other)))

        found = list(self._map(of, range(0, len(one), _PAIRS)))
        distances = np.concatenate([np.empty(0, np.float32), *(part[0] for part in found)])
        return distances, np.concatenate([np.empty(0, np.uint8), *(part[1] for part in found)])

    def _chance_of_details(
        self, rows: Rows, features: Features, one: Rows, other: Rows, symmetries: NDArray[np.uint8]
    ) -> NDArray[np.float64]:
        """The probability that the details of different images agree as well as those of each pair: float64 (M,).

        Of the two rows of a pair, it is that of the row whose details agree better with those of different images.
        """
        values, random = self._agreements(rows[one], rows[other], symmetries)
        known, place = np.unique(np.concatenate([one, other]), return_inverse=True)
        middle, spread = self._agreement_by_chance(rows, features, known)
        scores = [(values - middle[at]) / np.sqrt(spread[at] ** 2 + random**2) for at in np.split(place, 2)]
        tails = [math.erfc(score / math.sqrt(2)) / 2 for score in np.minimum(*scores).tolist()]
        found: NDArray[np.float64] = np.maximum(np.array(tails), _DETAILS)
        return found

    def _agreement_by_chance(self, rows: Rows, features: Features, known: Rows) -> tuple[Floats, Floats]:
        """The middle and the spread of the agreement of some rows with different images that are near them."""
        sample = sample_of(len(rows))
        if len(rows) < LEAST_ROWS:
            return np.full(len(known), _AGREEMENT[0], np.float32), np.full(len(known), _AGREEMENT[1], np.float32)
        first = ranks(len(sample))[0]
        sampled, spectra = features[sample].astype(np.float32), self._spectra(rows[sample])

        def of(at: int) -> Floats:
            here = known[at : at + _ROWS]
            own = features[here].astype(np.float32)
            order = np.argsort(self.frequencies.distances(own, sampled), axis=1, kind="stable")
            near = order[:, first : first + _COMPARED]
            each = np.repeat(np.arange(len(here)), near.shape[1])
            symmetry = self.frequencies.symmetries(own[each], sampled[near.reshape(-1)])[1]
            values, _ = self.frequencies.agreement(self._spectra(rows[here])[each], spectra[near.reshape(-1)], symmetry)
            return _transformed(values).reshape(near.shape)

        found = np.concatenate([np.empty((0, _COMPARED), np.float32), *self._map(of, range(0, len(known), _ROWS))])
        if not len(found):
            return found[:, 0], found[:, 0]
        middle, usual = found.mean(axis=1), np.median(found)
        spread = np.float32(1.4826) * np.median(np.abs(found - usual))
        return np.maximum(middle, usual), np.maximum(found.std(axis=1), spread)

    def _agreements(self, one: Rows, other: Rows, symmetries: NDArray[np.uint8]) -> tuple[Floats, Floats]:
        """The Fisher transform of the correlation of the details of pairs, and its deviation for random details."""

        def of(at: int) -> tuple[Floats, Floats]:
            pairs = slice(at, at + _PAIRS)
            rows, place = np.unique(np.concatenate([one[pairs], other[pairs]]), return_inverse=True)
            first, second = np.split(self._spectra(rows)[place], 2)
            values, random = self.frequencies.agreement(first, second, symmetries[pairs])
            return _transformed(values), random

        found = list(self._map(of, range(0, len(one), _PAIRS)))
        values = np.concatenate([np.empty(0, np.float32), *(part[0] for part in found)])
        return values, np.concatenate([np.empty(0, np.float32), *(part[1] for part in found)])

    def _counted(self, function: Callable[[int], _Result], items: Iterable[int], each: int) -> Iterator[_Result]:
        for result in self._map(function, items):
            self.steps.add(each)
            yield result

    def _map(self, function: Callable[[_Item], _Result], items: Iterable[_Item]) -> Iterator[_Result]:
        """Call a function for items in several threads. Results come in the order of the items."""
        return self.executor.map(function, items)


def _transformed(correlations: Floats) -> Floats:
    """The Fisher transform of correlations, which has nearly the same deviation for all of them."""
    found: Floats = np.arctanh(correlations.clip(-0.999, 0.999))
    return found


def _distinct_rows(selections: Selections, content: Content) -> tuple[Rows, Rows]:
    """One row of each content, and an order of these rows that depends on their pixels alone.

    Returns:
        The rows, int64 (M,), ascending; and positions in them, int64 (M,).
    """
    checksums = np.concatenate([packs.checksums(rows) for packs, rows in selections])
    keys = np.concatenate([digest_keys(packs.digests(rows)) for packs, rows in selections])
    by_content = np.lexsort((keys, checksums, content.numbers))
    numbers, sums = content.numbers[by_content], checksums[by_content]
    first = np.append(True, (np.diff(numbers) != 0) | (sums[1:] != sums[:-1]))
    rows = np.sort(by_content[first])
    return rows, np.lexsort((keys[rows], checksums[rows]))


def _by_first_rows(content: Content, one: Rows, other: Rows) -> tuple[Rows, Rows, NDArray[np.bool_]]:
    """Name each content by its first row, and each pair by the smaller row first.

    Returns:
        The smaller row, the larger row, and which pairs were swapped.
    """
    one, other = content.numbers[one], content.numbers[other]
    return np.minimum(one, other), np.maximum(one, other), one > other


def _chunks(selections: Selections, rows: Rows) -> Iterator[Rows]:
    """Yield positions in `rows` of rows that are read together: those of one selection, in the order of its packs."""
    start = 0
    for packs, selected in selections:
        here = np.flatnonzero((rows >= start) & (rows < start + len(selected)))
        here = here[np.argsort(selected[rows[here] - start], kind="stable")]
        step = max(1, _CHUNK_BYTES // int(np.prod(packs.shape)))
        for first in range(0, len(here), step):
            yield here[first : first + step]
        start += len(selected)


def _pixels(selections: Selections, rows: Rows) -> NDArray[np.uint8]:
    """The pixels of rows of one selection."""
    start = 0
    for packs, selected in selections:
        if rows[0] < start + len(selected):
            return packs.pixels(selected[rows - start].astype(np.int64))
        start += len(selected)
    raise AssertionError("a row of no selection")
