"""Lists the near-identical pictures of a pack: those in different parts or classes first."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from h5split.alike.features import MIN_SIDE
from h5split.alike.near import FLAT, Near, near_of
from h5split.system.text import SHOWN, count, shown

if TYPE_CHECKING:
    from h5split.batches import SplitSequence

_COPIES = 20  # identical copies that are considered of one picture
# How the first picture of a pair is changed to look like the second: a text for each symmetry.
_TURNS = (
    "",
    "mirrored",
    "upside down",
    "turned by 180 degrees",
    "mirrored and turned by 270 degrees",
    "turned by 90 degrees",
    "turned by 270 degrees",
    "mirrored and turned by 90 degrees",
)


@dataclass(frozen=True)
class Pair:
    """Two near-identical pictures.

    Attributes:
        rows: Their rows in the pack.
        filenames: Their source files.
        labels: Their classes.
        parts: The parts of the split that they are in; empty texts for rows in no part.
        distance: 0 for equal pictures, about 1 for unrelated ones.
        turn: How the first one is turned to look like the second; empty if it is not.
    """

    rows: tuple[int, int]
    filenames: tuple[str, str]
    labels: tuple[str, str]
    parts: tuple[str, str]
    distance: float
    turn: str

    @property
    def across_parts(self) -> bool:
        """Whether they are in different parts."""
        return "" not in self.parts and self.parts[0] != self.parts[1]

    @property
    def across_classes(self) -> bool:
        """Whether they are in different classes."""
        return self.labels[0] != self.labels[1]

    def __str__(self) -> str:
        one, other = (
            f"{shown(name)} ({shown(label + (', ' + part if part else ''))})"
            for name, label, part in zip(self.filenames, self.labels, self.parts, strict=True)
        )
        return f"{self.distance:.4f}  {one} = {other}" + (f", {self.turn}" if self.turn else "")


@dataclass(frozen=True)
class NearPairs:
    """The near-identical pictures of a pack.

    Attributes:
        path: The path of the pack.
        rows: The number of images.
        pairs: The pairs: those in different parts first, then those in different classes, each the most alike first.
        groups: The number of groups of pictures that are connected by pairs or identical.
        identical: The number of groups of identical files or pixels.
        flat: The number of images without structure, which are compared by their content only.
    """

    path: str
    rows: int
    pairs: list[Pair]
    groups: int
    identical: int
    flat: int

    def as_json(self) -> dict[str, Any]:
        """The same contents as lists and dicts, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        """A summary that fits on one screen."""
        classes = sum(pair.across_classes for pair in self.pairs)
        parts = sum(pair.across_parts for pair in self.pairs)
        pairs = f"{count(len(self.pairs), 'pair')}, {classes:,} of different classes, {parts:,} in different parts"
        more = len(self.pairs) - SHOWN
        return "\n".join(
            [
                f"{shown(self.path)}: {count(self.rows, 'image')}",
                f"near-identical: {pairs if self.pairs else 'none'}",
                *(f"  {pair}" for pair in self.pairs[:SHOWN]),
                *([f"  ... and {more:,} more; --json lists all"] if more > 0 else []),
                f"identical: {count(self.identical, 'group') if self.identical else 'none'}; h5split info names them",
                f"together: {count(self.groups, 'group')}",
                f"flat: {count(self.flat, 'image')} with a contrast below {FLAT:.0f} grey levels, or less than "
                f"{MIN_SIDE} pixels wide or high; only identical ones are found",
            ]
        )


def find(
    sequence: SplitSequence,
    *,
    parts: Mapping[str, SplitSequence] | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> NearPairs:
    """Find the near-identical pictures of a sequence of one pack.

    Args:
        sequence: The rows.
        parts: The split of the sequence: name of each part -> its sequence. None for no split.
        workers: The number of threads; None for one per core.
        progress: Called with (steps done, steps in total).
    """
    rows, packs = sequence.rows, sequence.packs
    near = near_of([(packs, rows)] if len(rows) else [], workers=workers, progress=progress)
    pairs = _pairs(sequence, near, {} if parts is None else parts)
    return NearPairs(
        path=packs.packs[0].path,
        rows=len(rows),
        pairs=sorted(pairs, key=lambda pair: (not pair.across_parts, not pair.across_classes, pair.distance)),
        groups=len(near.groups),
        identical=len(near.content.groups),
        flat=int(np.isin(near.content.numbers, near.flat).sum()),  # each of identical ones counts
    )


def _pairs(sequence: SplitSequence, near: Near, parts: Mapping[str, SplitSequence]) -> list[Pair]:
    packs, texts = sequence.packs, ["", *parts]
    part_of = _part_of(len(packs), parts)[sequence.rows]
    chosen = _telling(near, part_of, sequence.classes)
    found = sequence.rows[chosen]
    names = packs.filenames.take(found.reshape(-1))
    return [
        Pair(
            rows=(one, other),
            filenames=(names[2 * at], names[2 * at + 1]),
            labels=(packs.class_names[packs.labels[one]], packs.class_names[packs.labels[other]]),
            parts=(texts[part_of[chosen[at, 0]]], texts[part_of[chosen[at, 1]]]),
            distance=round(distance, 6),
            turn=_TURNS[symmetry],
        )
        for at, ((one, other), distance, symmetry) in enumerate(
            zip(found.tolist(), near.distances.tolist(), near.symmetries.tolist(), strict=True)
        )
    ]


def _telling(near: Near, part_of: NDArray[np.int64], labels: NDArray[np.int32]) -> NDArray[np.int64]:
    """The rows that stand for the two pictures of each pair: int64 (M, 2).

    Where there are identical copies, two are chosen that are in different parts, or else in different classes.
    """
    copies = {int(group[0]): group[:_COPIES].tolist() for group in near.content.groups}
    pairs = near.pairs.copy()
    for at, (one, other) in enumerate(pairs.tolist()):
        if one in copies or other in copies:
            pairs[at] = max(
                itertools.product(copies.get(one, [one]), copies.get(other, [other])),
                key=lambda pair: (
                    0 < part_of[pair[0]] != part_of[pair[1]] > 0,
                    labels[pair[0]] != labels[pair[1]],
                ),
            )
    return pairs


def _part_of(rows: int, parts: Mapping[str, SplitSequence]) -> NDArray[np.int64]:
    """The number of the part of each row of a pack, from 1; 0 for rows in no part."""
    found = np.zeros(rows, np.int64)
    for number, part in enumerate(parts.values(), 1):
        found[part.rows] = number
    return found


def sections(pairs: Sequence[Pair]) -> dict[str, list[Pair]]:
    """Divide pairs by what is wrong with them: title -> pairs."""
    found: dict[str, list[Pair]] = {"In different parts": [], "In different classes": [], "In one class": []}
    for pair in pairs:
        title = "In different parts" if pair.across_parts else "In different classes"
        found[title if pair.across_parts or pair.across_classes else "In one class"].append(pair)
    return found
