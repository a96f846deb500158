"""Rows as small pictures inside a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from h5split.commands.pictures import picture
from h5split.file.packs import Packs
from h5split.order.rows import Rows

_SIDES = 80, 256  # pixels of the longer side, by how many tiles there are
_ALL = 9_000_000  # pixels of all tiles: some 4 MB
_LOSSLESS = 32 * 32  # pixels, up to which PNG is as small as JPEG
_QUALITY = 80


@dataclass(frozen=True)
class Tile:
    """A picture with what is known of its row."""

    row: int
    filename: str
    label: str
    source: str  # a data URI
    note: str
    predicted: str


class Gallery:
    """Makes tiles of rows.

    Args:
        packs: Where rows are taken from.
        tiles: How many are to come, about: the fewer, the larger.
    """

    def __init__(self, packs: Packs, tiles: int) -> None:
        self._packs = packs
        self._side = int(np.clip((_ALL / tiles) ** 0.5, *_SIDES))

    def tiles(self, rows: Rows, notes: Sequence[str] = (), predicted: Sequence[str] = ()) -> list[Tile]:
        """One for each of `rows`: int64 (M,).

        Args:
            rows: Which.
            notes: A line on each, or none.
            predicted: The class each was taken for, or none.
        """
        packs = self._packs
        return [
            Tile(
                row=int(row),
                filename=filename,
                label=packs.class_names[packs.labels[row]],
                source=self.data_uri(pixels),
                note=notes[at] if notes else "",
                predicted=predicted[at] if predicted else "",
            )
            for at, (row, filename, pixels) in enumerate(
                zip(rows.tolist(), packs.filenames.take(rows), packs.pixels(rows), strict=True)
            )
        ]

    def data_uri(self, pixels: NDArray[np.uint8]) -> str:
        """An image, made smaller where it is large, as a data URI.

        Args:
            pixels: uint8 (H, W, C).
        """
        image = picture(pixels)
        image.thumbnail((self._side, self._side))
        lossless = image.mode == "RGBA" or image.width * image.height <= _LOSSLESS
        data = io.BytesIO()
        if lossless:
            image.save(data, "PNG")
        else:
            image.save(data, "JPEG", quality=_QUALITY)
        return f"data:image/{'png' if lossless else 'jpeg'};base64,{base64.b64encode(data.getvalue()).decode()}"
