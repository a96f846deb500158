"""How a sequence shows itself in a notebook, and pictures of its rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from h5split.batch.given import PerRow, pictures_in
from h5split.batch.mistakes import Mistake
from h5split.delivered import Delivered
from h5split.errors import ArgumentError
from h5split.file.levels import levels_of
from h5split.file.looks import look, summary_line, tiles
from h5split.file.packs import Packs
from h5split.file.texts import checked_texts
from h5split.notebook.card import Counts, Tile, card, or_text
from h5split.order.rows import Rows
from h5split.order.settings import Settings, check_whole
from h5split.system.arrays import brief, plain, positions
from h5split.system.text import count, listed, shown

_MOST = 100  # pictures at a time
_FEW = 32  # pictures that are large
_LARGE, _SMALL = 96, 64  # pixels of the side of a picture, and of its place on the page
_LISTED = 10  # packs in a table


@dataclass(frozen=True)
class Pictures:
    """Pictures of rows, from `SplitSequence.show`. A notebook shows them; `print` lists their files.

    Attributes:
        tiles: The pictures.
        of: What they are taken from.
        more: The number of rows that were asked for beyond these.
    """

    tiles: Sequence[Tile]
    of: str
    more: int

    def __len__(self) -> int:
        return len(self.tiles)

    def __repr__(self) -> str:
        names = [[shown(tile.label), shown(tile.filename), tile.note] for tile in self.tiles]
        widest = max((len(label) for label, *_ in names), default=0)
        return "\n".join(
            [self._line(), *(f"  {label:<{widest}}  {'  '.join(rest)}".rstrip() for label, *rest in names)]
        )

    def _repr_html_(self) -> str:
        return card("", [self._line()], (), self.tiles, _side(len(self)))

    def _line(self) -> str:
        more = f"; {self.more:,} more were asked for, and at most {_MOST} are shown" if self.more else ""
        return f"{len(self):,} of {self.of}{more}"


class Showing(Delivered):
    """The methods of `SplitSequence` that show it."""

    def __len__(self) -> int:
        raise NotImplementedError

    def show(self, rows: int | ArrayLike | Sequence[Mistake] = 16, *, bands: Sequence[int] | None = None) -> Pictures:
        """Return pictures of rows with their classes and file names, as a notebook shows them at the end of a cell.

        For example:

            sequence.show()  # the first 16
            sequence.show(sequence.classes == 2)
            test.show(test.mistakes(model.predict(test))[:16])

        No batch is handed out, and no setting changes what is shown: the pictures are as the pack has them. At most 100
        are made. Larger images are reduced. Values of uint16 and float32 are stretched: 2 % of those in a sample of the
        packs are black, and 2 % white.

        Args:
            rows: How many, from the first on, in the order of `filenames`. Or which: positions in that order, int (M,);
                a mask, bool (N,); file names; or mistakes of the epoch that was delivered last.
            bands: The channels to show, one or three, counted from 1: `(4, 3, 2)`. None: the picture as it is; of other
                types and numbers of channels than pictures have, the first three, or the first one of fewer.

        Raises:
            IndexError: A position is not in the sequence, or a mask has another length.
            ValueError: The sequence is empty, a file name is not in it, the mistakes are of another epoch, or there are
                no such bands.
            FormatError: A file was truncated or written to since it was opened.
        """
        packs, mistakes = self.packs, _mistakes_in(rows)
        packs.check_unchanged()
        levels = levels_of(packs, bands)
        among = self.delivered if mistakes else self.rows
        at = np.array([mistake.position for mistake in mistakes]) if mistakes else self._positions(rows)
        chosen, mistakes = at[:_MOST], mistakes[:_MOST]
        self._check_delivered(mistakes)
        found = tiles(
            packs,
            among,
            chosen,
            _side(len(chosen)),
            levels,
            labels=[mistake.label for mistake in mistakes],
            notes=[f"predicted {mistake.predicted} ({mistake.confidence:.2f})" for mistake in mistakes],
        )
        return Pictures(found, count(len(among), "image"), len(at) - len(chosen))

    def _repr_html_(self) -> str:
        """What a notebook shows of it: counts, settings, and a few of its images, which alone are read."""
        return or_text(self, self._card)

    def _card(self) -> str:
        packs, name = self._selection.packs, type(self).__name__
        if packs is None:
            return card(name, ["empty; add_file(path) opens a pack"], (), (), 0)
        dtype = str(packs.dtype) if self._settings.scale is None else "float32"
        numbers = summary_line(len(self.rows), packs.shape, dtype, len(packs.class_names))
        batches = f"{count(len(self), 'batch', 'batches')} of {self._settings.batch_size}"
        lines = [f"of {packs!r}", f"{numbers}, {batches}{self._part_text()}", *self._settings_lines()]
        counts = [_by_pack(packs, self.rows)] if len(packs.packs) > 1 else []
        return look(packs, self.rows, name, lines, counts=counts)

    def _part_text(self) -> str:
        shard, functions = self._selection.shard, len(self._functions)
        part = "" if shard is None else f", rank {shard.index} of {shard.count}"
        return part + (f", through {count(functions, 'function')} of map()" if functions else "")

    def _settings_lines(self) -> list[str]:
        """A line about the settings that are not as they are by default; none if all are."""
        changed = [
            f"{one.name}={_described(value)}"
            for one in fields(Settings)
            if _differs(value := getattr(self._settings, one.name), one.default)
        ]
        return [f"settings: {', '.join(changed)}"] if changed else []

    def _positions(self, given: Any) -> NDArray[np.int64]:
        """The positions of rows that a user asks for."""
        if isinstance(given, (int, np.integer)) and not isinstance(given, bool):
            check_whole("show: rows", given, 1)
            return np.arange(min(int(given), len(self.rows)))
        at = plain("show", given)
        if at.dtype.kind in "UO" and at.size:
            return _positions_of_names([given] if isinstance(given, str) else given, self.filenames)
        return positions(at, len(self.rows)) % max(len(self.rows), 1)

    def _check_delivered(self, mistakes: Sequence[Mistake]) -> None:
        """Raise if mistakes are not of the epoch that was delivered last."""
        names = self.get_filenames([mistake.position for mistake in mistakes]) if mistakes else []
        if names != [mistake.filename for mistake in mistakes]:
            raise ArgumentError(
                "show: expected mistakes of the epoch that was delivered last, found those of another; show them "
                "before the next pass, or by their file names"
            )


def _mistakes_in(given: Any) -> Sequence[Mistake]:
    """The mistakes that a user gives; none if it is something else."""
    many = [given] if isinstance(given, Mistake) else given
    is_of_mistakes = isinstance(many, (list, tuple)) and len(many) > 0 and isinstance(many[0], Mistake)
    return many if is_of_mistakes else ()


def _positions_of_names(names: Any, filenames: Sequence[str]) -> NDArray[np.int64]:
    """The positions of all rows that have these file names, in the order of the names.

    Raises:
        ValueError: A name is none of theirs.
    """
    wanted = checked_texts("show", names)
    found: dict[str, list[int]] = {name: [] for name in wanted}
    for position, name in enumerate(filenames):
        if name in found:
            found[name].append(position)
    missing = next((name for name in wanted if not found[name]), None)
    if missing is not None:
        raise ArgumentError(f"show: expected file names of this sequence, found {missing!r}")
    return np.array([position for name in found for position in found[name]])


def _by_pack(packs: Packs, rows: Rows) -> Counts:
    """Count rows by pack."""
    numbers = [(pack.path, len(local)) for pack, local in packs.by_pack(rows)]
    return Counts("pack", "packs", numbers[:_LISTED], len(numbers[_LISTED:]))


def _described(value: object) -> str:
    """The value of a setting in a few words."""
    if pictures := pictures_in(value):
        return f"pictures of {listed([pack.path for pack in pictures])}"
    return brief(value.values if isinstance(value, PerRow) else value)


def _differs(value: object, default: object) -> bool:
    return value is not None if default is None else bool(value != default)


def _side(number: int) -> int:
    """The side in pixels of each of so many pictures."""
    return _LARGE if number <= _FEW else _SMALL
