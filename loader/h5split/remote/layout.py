"""The pieces of a pack: what is fetched, checked and noted at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_PIXEL_BYTES = 1 << 20  # of a piece of pixels, as whole rows; a longer row is a piece by itself
_TABLE_BYTES = 1 << 18  # of a piece of tables
_RANGE_BYTES = 4 << 20  # of pieces that follow each other, in one request


@dataclass(frozen=True)
class Layout:
    """The places of the pixels and of their checksums in a pack, and what follows: its pieces.

    Piece 0 is all before the pixels. Pieces of whole rows follow, which can be compared with the checksums of the rows,
    and then pieces of what is behind the pixels.

    Attributes:
        size: The size of the pack in bytes.
        pixels: Where its pixels begin.
        stride: The bytes of a row.
        rows: The number of rows.
        checksums: Where the checksums of the rows begin, of 8 bytes each; 0 if the pack has none.
        rows_in_piece: The number of rows in a piece of pixels.
        table_bytes: The bytes of a piece behind the pixels.
    """

    size: int
    pixels: int
    stride: int
    rows: int
    checksums: int
    rows_in_piece: int
    table_bytes: int

    @classmethod
    def cut(cls, size: int, pixels: int, stride: int, rows: int, checksums: int) -> Layout:
        """The pieces of a pack that has no copy yet. A copy keeps those that it was made with."""
        return cls(size, pixels, stride, rows, checksums, max(1, _PIXEL_BYTES // stride), _TABLE_BYTES)

    @property
    def tables(self) -> int:
        """The first piece behind the pixels."""
        return 1 - -self.rows // self.rows_in_piece

    @property
    def end_of_pixels(self) -> int:
        """The byte behind the pixels."""
        return self.pixels + self.rows * self.stride

    @property
    def count(self) -> int:
        """The number of pieces."""
        return self.tables - (self.end_of_pixels - self.size) // self.table_bytes

    def bytes_of(self, pieces: NDArray[np.int64]) -> int:
        """How many bytes pieces have. Those that are cut short by the end of the pixels or of the file count whole."""
        of_pixels = int(np.count_nonzero((pieces > 0) & (pieces < self.tables)))
        of_head = int(np.count_nonzero(pieces == 0))
        of_tables = len(pieces) - of_pixels - of_head
        whole = of_pixels * self.rows_in_piece * self.stride + of_head * self.pixels + of_tables * self.table_bytes
        return min(whole, self.size)

    def is_pixels(self, piece: int) -> bool:
        """Whether a piece is of rows."""
        return 0 < piece < self.tables

    def start(self, piece: int) -> int:
        """The byte where a piece begins. That of `count` is the size."""
        if piece == 0:
            return 0
        if piece < self.tables:
            return self.pixels + (piece - 1) * self.rows_in_piece * self.stride
        return min(self.size, self.end_of_pixels + (piece - self.tables) * self.table_bytes)

    def pieces_of(self, rows: NDArray[np.int64] | range) -> NDArray[np.int64] | range:
        """The pieces that have these rows: int64, some of them several times; or a range of them."""
        if isinstance(rows, range):
            return range(1 + rows.start // self.rows_in_piece, 2 + (rows.stop - 1) // self.rows_in_piece)
        return 1 + rows // self.rows_in_piece

    def of_rows(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The pieces that have these rows, each once, in the order in which the rows need them: int64."""
        pieces = 1 + rows // self.rows_in_piece
        first = np.full(self.count, len(pieces))
        first[pieces[::-1]] = np.arange(len(pieces))[::-1]  # of several values for a piece, numpy keeps the last
        found = np.flatnonzero(first < len(pieces))
        return found[np.argsort(first[found])]

    def rows_of(self, first: int, stop: int) -> range:
        """The rows in the pieces of pixels from `first` to `stop`."""
        return range((first - 1) * self.rows_in_piece, min(self.rows, (stop - 1) * self.rows_in_piece))

    def runs(self, pieces: Sequence[int], most: int = _RANGE_BYTES) -> Iterator[range]:
        """Pieces as ranges of those that follow each other, of one kind, and of `most` bytes together."""
        if not pieces:
            return
        start = previous = pieces[0]
        for piece in pieces[1:]:
            is_next = piece == previous + 1 and self.is_pixels(piece) == self.is_pixels(start) and start > 0
            if not is_next or self.start(piece + 1) - self.start(start) > most:
                yield range(start, previous + 1)
                start = piece
            previous = piece
        yield range(start, previous + 1)

    def of_bytes(self, start: int, stop: int) -> range:
        """The pieces that have the bytes from `start` to `stop`."""
        return range(self._at(start), self._at(stop - 1) + 1) if stop > start else range(0)

    def of_checksums(self, rows: range) -> range:
        """The pieces that have the checksums of rows."""
        return self.of_bytes(self.checksums + 8 * rows.start, self.checksums + 8 * rows.stop)

    def _at(self, byte: int) -> int:
        """The piece that a byte is in."""
        if byte < self.pixels:
            return 0
        if byte < self.end_of_pixels:
            return 1 + (byte - self.pixels) // (self.rows_in_piece * self.stride)
        return self.tables + (byte - self.end_of_pixels) // self.table_bytes
