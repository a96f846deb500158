"""Losses of packing: how a pack stores them, and the lines that report them.

A loss is content of the source file that is not in the row. There are five: different sample values became equal; pages
after the first were left out; so were bands that are neither grey nor colours; a drawing became a single colour when
its transparency was laid on the background; a file is cut short, and what there is of it was kept.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from h5split.system.text import count, shown

# Kinds of loss, as bits of a number.
INTEGERS = 1  # integers of more than 8 bits were cut to 8
FLOATS = 2  # floats were cut to 8 bits
PAGES = 4  # the first of several pages or frames was taken
TRANSPARENCY = 8  # a picture that was not empty became one colour when its transparency was laid on the background
TRUNCATED = 16  # the file is cut short, and the user allowed it
BANDS = 32  # bands behind grey or colours were left out
_NAMED = INTEGERS | FLOATS | PAGES | TRANSPARENCY | TRUNCATED | BANDS
MOST_LEVELS = 1 << 20  # distinct sample values are counted up to this number
_MAX_NAMES = 3  # files that a report names for each kind

# The dtype of the data sets of the group `losses` as one array, with one element for each row with a loss.
LOSSES = np.dtype([("rows", "<i8"), ("kinds", "u1"), ("bits", "u1"), ("levels", "<u4"), ("kept", "<u2")])

_LEVELS_KEPT = re.compile(r": ([\d,]+) of ([\d,]+)(?: or more)? levels kept")
_PAGES = "only the first of its pages or frames was taken"
_TRANSPARENCY = "one colour is left: its transparency was laid on the background"
_TRUNCATED = "the file is cut short: what there is of it was kept"
_BANDS = "only grey or its colours were taken of its bands"
_UNKNOWN = "something that this version has no name for"


@dataclass(frozen=True)
class Loss:
    """The losses of one picture.

    Attributes:
        kinds: The sum of the kinds: INTEGERS, FLOATS, PAGES, TRANSPARENCY, TRUNCATED, BANDS.
        bits: The number of bits per sample in the file, if samples were cut to 8; else 0.
        levels: The number of distinct sample values in the file, up to MOST_LEVELS; 0 if not counted.
        kept: The number of distinct values that remain of these; 0 if not counted.
    """

    kinds: int
    bits: int = 0
    levels: int = 0
    kept: int = 0

    @property
    def texts(self) -> list[str]:
        """A line for each kind."""
        found = []
        if self.kinds & INTEGERS:
            found.append(f"{self.bits} bits cut to 8{self._counted}")
        if self.kinds & FLOATS:
            found.append(f"floats cut to 8 bits{self._counted}")
        if self.kinds & PAGES:
            found.append(_PAGES)
        if self.kinds & TRANSPARENCY:
            found.append(_TRANSPARENCY)
        if self.kinds & TRUNCATED:
            found.append(_TRUNCATED)
        if self.kinds & BANDS:
            found.append(_BANDS)
        if self.kinds & ~_NAMED:
            found.append(_UNKNOWN)
        return found

    @property
    def _counted(self) -> str:
        if not self.levels:
            return ""
        more = " or more" if self.levels == MOST_LEVELS else ""
        return f": {self.kept:,} of {self.levels:,}{more} levels kept"


def with_kinds(loss: Loss | None, kinds: int) -> Loss:
    """A loss that has these kinds too.

    Args:
        loss: What is lost already; None for nothing.
        kinds: One or more kinds, added up.
    """
    return Loss(kinds) if loss is None else replace(loss, kinds=loss.kinds | kinds)


@dataclass(frozen=True)
class Group:
    """The losses of one kind.

    Attributes:
        title: The kind of loss, as a clause.
        advice: The remedy, as a clause.
        files: (filename, text) of each loss.
    """

    title: str
    advice: str
    files: list[tuple[str, str]]


_PAGE_GROUP = ("the first of several pages or frames was taken", "save each as a file of its own to pack them all")
_TRANSPARENCY_GROUP = ("transparency was laid on the background, and one colour is left", "--color rgba keeps it")
_UNKNOWN_GROUP = ("something that this version has no name for", "pip install --upgrade pack-images")
_DEPTH_GROUP = (
    "samples were cut to 8 bits",
    "--range scales the range they use to 8 bits, --dtype uint16 or float32 keeps them",
)
_SCALED_GROUP = ("samples were scaled to 8 bits", "--dtype uint16 or float32 keeps them")
_TRUNCATED_GROUP = (
    "the file is cut short, and the rest of the picture is blank",
    "without --allow-truncated they are left out",
)
_BANDS_GROUP = ("bands behind grey or colours were left out", "--color all keeps every band")
_GROUPS = {
    _PAGES: _PAGE_GROUP,
    _TRANSPARENCY: _TRANSPARENCY_GROUP,
    _TRUNCATED: _TRUNCATED_GROUP,
    _BANDS: _BANDS_GROUP,
    _UNKNOWN: _UNKNOWN_GROUP,
}


def described(table: NDArray[np.void], names: Sequence[str]) -> list[tuple[str, str]]:
    """Describe each loss: (filename, text).

    Args:
        table: LOSSES (M,).
        names: The filename of each element of `table`.
    """
    return [(name, text) for name, loss in zip(names, losses_of(table), strict=True) for text in loss.texts]


def losses_of(table: NDArray[np.void]) -> Iterator[Loss]:
    """Yield a `Loss` for each element of a table: LOSSES (M,)."""
    for _, *values in table.tolist():
        yield Loss(*values)


def grouped(losses: Sequence[tuple[str, str]], *, scaled: bool = False) -> list[Group]:
    """Group losses by kind, the most frequent kind first. Of losses of levels, those that kept the fewest come first.

    Args:
        losses: (filename, text) of each loss.
        scaled: Whether the user has said already by `--range` how samples become 8 bits.
    """
    depth_group = _SCALED_GROUP if scaled else _DEPTH_GROUP
    groups: dict[tuple[str, str], Group] = {}
    for filename, text in losses:
        title_and_advice = _GROUPS.get(text, depth_group)
        groups.setdefault(title_and_advice, Group(*title_and_advice, [])).files.append((filename, text))
    if depth_group in groups:
        groups[depth_group].files.sort(key=_share_kept)
    return sorted(groups.values(), key=lambda group: -len(group.files))


def _share_kept(loss: tuple[str, str]) -> float:
    """Return the share of levels that a loss has kept; more than all of them if they are not counted."""
    found = _LEVELS_KEPT.search(loss[1])
    if found is None:
        return math.inf
    kept, levels = (int(number.replace(",", "")) for number in found.groups())
    return kept / levels


def count_images(losses: Sequence[tuple[str, str]]) -> int:
    """Count the images with a loss. An image with two losses counts once.

    Args:
        losses: (filename, text) of each loss.
    """
    return len({filename for filename, _ in losses})


def loss_lines(losses: Sequence[tuple[str, str]], *, scaled: bool = False) -> list[str]:
    """Format losses as lines of a report, grouped by kind, with a few file names. Without losses there are no lines.

    Args:
        losses: (filename, text) of each loss.
        scaled: As for `grouped`.
    """
    if not losses:
        return []
    lines = [f"packed with a loss: {count(count_images(losses), 'image')}"]
    for group in grouped(losses, scaled=scaled):
        lines.append(f"  {len(group.files):,}: {group.title}; {group.advice}")
        lines.extend(f"    {shown(name)}: {text}" for name, text in group.files[:_MAX_NAMES])
        if len(group.files) > _MAX_NAMES:
            lines.append(f"    ... and {len(group.files) - _MAX_NAMES:,} more")
    return lines
