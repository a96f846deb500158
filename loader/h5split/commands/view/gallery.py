"""Makes small pictures (tiles) of rows that are embedded in the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from h5split.commands.pictures import picture
from h5split.file.levels import Levels
from h5split.file.packs import Packs
from h5split.file.texts import Texts
from h5split.order.rows import Rows

_SIDE_RANGE = 80, 256  # the smallest and the largest length of a tile's longer side, in pixels
_PIXELS_OF_ALL = 9_000_000  # the pixels of all tiles together, which take some 4 MB
_LOSSLESS_PIXELS = 32 * 32  # up to this size PNG takes no more bytes than JPEG
_QUALITY = 80  # of JPEG
_MAX_COLUMNS = 20  # of a pack, that are shown; a table may have thousands
_MAX_CHOICES = 30  # values of a column that images can be filtered by


@dataclass(frozen=True)
class Tile:
    """A picture of a row, with information about the row."""

    row: int
    filename: str
    label: str
    source: str  # a data URI
    note: str
    predicted: str
    columns: Mapping[str, str]  # the columns of the row that are shown
    choices: Sequence[str]  # its value in each column that tiles can be filtered by


class Columns:
    """The columns of a page: those that are shown for each image, and those that images can be filtered by.

    Args:
        packs: The packs that hold the rows.
        rows: int64 (M,), the rows of the page.

    Attributes:
        filters: Name -> its values on the page, for each column of a few values.
    """

    def __init__(self, packs: Packs, rows: Rows) -> None:
        self.filters: dict[str, list[str]] = {}
        self._shown = {}
        for name in list(packs.columns)[:_MAX_COLUMNS]:
            column = packs.columns[name]
            values = np.unique(column.take(rows).raw())
            if len(values) > 1:
                self._shown[name] = column
                if len(values) <= _MAX_CHOICES:
                    self.filters[name] = list(Texts(values))

    def of(self, row: int) -> dict[str, str]:
        """Return what is shown of a row."""
        return {name: column[row] for name, column in self._shown.items()}


class Gallery:
    """Makes tiles of rows.

    Args:
        packs: The packs that hold the rows.
        tiles: The approximate number of tiles on the page. The fewer tiles, the larger each is.
        columns: The columns of the page.
        levels: How pixels are shown.
    """

    def __init__(self, packs: Packs, tiles: int, columns: Columns, levels: Levels) -> None:
        self._packs = packs
        self._levels = levels
        self._columns = columns
        self._side = int(np.clip((_PIXELS_OF_ALL / tiles) ** 0.5, *_SIDE_RANGE))

    def tiles(
        self, rows: Rows, notes: Sequence[str] = (), predicted: Sequence[str] = (), labels: Sequence[str] = ()
    ) -> list[Tile]:
        """Make one tile for each row.

        Args:
            rows: int64 (M,).
            notes: A line of text for each row; empty for no notes.
            predicted: The predicted class or tags of each row; empty for no predictions.
            labels: The label of each row; empty for its class.
        """
        packs = self._packs
        columns = [self._columns.of(row) for row in rows.tolist()]
        return [
            Tile(
                row=int(row),
                filename=filename,
                label=labels[at] if labels else packs.class_names[packs.labels[row]],
                source=self.data_uri(pixels),
                note=notes[at] if notes else "",
                predicted=predicted[at] if predicted else "",
                columns=columns[at],
                choices=[columns[at][name] for name in self._columns.filters],
            )
            for at, (row, filename, pixels) in enumerate(
                zip(rows.tolist(), packs.filenames.take(rows), packs.pixels(rows), strict=True)
            )
        ]

    def data_uri(self, pixels: NDArray[Any]) -> str:
        """An image as a data URI. Large images are scaled down.

        Args:
            pixels: (H, W, C), of the type of the packs; or means of such images.
        """
        from PIL.Image import Resampling

        image = picture(self._levels.picture(pixels))
        are_numbers = self._levels.are_numbers  # whose colours must not be mixed
        image.thumbnail((self._side, self._side), Resampling.NEAREST if are_numbers else Resampling.BICUBIC)
        lossless = are_numbers or image.mode == "RGBA" or image.width * image.height <= _LOSSLESS_PIXELS
        data = io.BytesIO()
        if lossless:
            image.save(data, "PNG")
        else:
            image.save(data, "JPEG", quality=_QUALITY)
        return f"data:image/{'png' if lossless else 'jpeg'};base64,{base64.b64encode(data.getvalue()).decode()}"
