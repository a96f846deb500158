"""The pictures that are compared with each other: one of each content, read from the packs in pieces."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from h5split.alike.content import Content
from h5split.alike.features import Floats, Frequencies
from h5split.file.levels import is_picture, levels_of
from h5split.file.packs import Packs
from h5split.order.rows import Rows, digest_keys

Selections = Sequence[tuple[Packs, Rows]]

_CHUNK_BYTES = 4 << 20


class Pictures:
    """The rows of some selections, numbered one selection after another.

    Args:
        selections: The packs of each selection, and its rows.

    Attributes:
        frequencies: The frequencies that are compared.
    """

    def __init__(self, selections: Selections) -> None:
        self._selections = [(packs, rows) for packs, rows in selections if len(rows)]
        self._bounds = np.cumsum([0, *(len(rows) for _, rows in self._selections)])
        self._levels = [None if is_picture(packs) else levels_of(packs) for packs, _ in self._selections]
        self.frequencies = Frequencies([packs.shape for packs, _ in self._selections])

    def distinct(self, content: Content) -> tuple[Rows, Rows]:
        """One row of each content.

        Returns:
            The rows, int64 (M,), ascending; and an order of them that depends on their pixels alone, int64 (M,).
        """
        if not self._selections:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        checksums = np.concatenate([packs.checksums(rows) for packs, rows in self._selections])
        keys = np.concatenate([digest_keys(packs.digests(rows)) for packs, rows in self._selections])
        by_content = np.lexsort((keys, checksums, content.numbers))
        numbers, sums = content.numbers[by_content], checksums[by_content]
        first = np.append(True, (np.diff(numbers) != 0) | (sums[1:] != sums[:-1]))
        rows = np.sort(by_content[first])
        return rows, np.lexsort((keys[rows], checksums[rows]))

    def chunks(self, rows: Rows) -> list[Rows]:
        """Divide positions in `rows` into pieces that are read together, in the order of the packs."""
        found = []
        for (packs, selected), (start, stop) in zip(self._selections, pairwise(self._bounds.tolist()), strict=True):
            here = np.flatnonzero((rows >= start) & (rows < stop))
            here = here[np.argsort(selected[rows[here] - start], kind="stable")]
            step = max(1, _CHUNK_BYTES // packs.stride)
            found += [here[first : first + step] for first in range(0, len(here), step)]
        return found

    def spectra(self, rows: Rows) -> Floats:
        """The spectra of rows: float32 (M, fine, fine)."""
        found = np.empty((len(rows), self.frequencies.fine, self.frequencies.fine), np.float32)
        for at in self.chunks(rows):
            found[at] = self.frequencies.spectra(self._pixels(rows[at]))
        return found

    def _pixels(self, rows: Rows) -> NDArray[Any]:
        """The pixels of rows of one selection: uint8 (M, H, W, C). Of bands, their brightness: float32 (M, H, W, 1)."""
        number = int(np.searchsorted(self._bounds, rows[0], side="right")) - 1
        packs, selected = self._selections[number]
        pixels, levels = packs.pixels(selected[rows - self._bounds[number]].astype(np.int64)), self._levels[number]
        return pixels if levels is None else levels.brightness(pixels)[..., np.newaxis]
