"""Losses: information in a source picture that its row in the pack does not have.

There are four kinds: different sample values became equal when integers were cut to 8 bits, or when floats were; pages
or frames after the first were not taken; a drawing became one colour when its transparency was laid on black. This
module defines how a pack stores losses and how they are described to the user.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from h5split.system.text import count, shown

# The kinds of loss are bits of one number.
INTEGERS = 1  # integers of more than 8 bits were cut to 8
FLOATS = 2  # floats were cut to 8 bits
PAGES = 4  # only the first of several pages or frames was taken
TRANSPARENCY = 8  # the picture became one colour when it was laid on black
MOST_LEVELS = 1 << 20  # counting of different sample values stops here
_MAX_NAMED = 3  # files that are listed for each kind

# One element for each row with a loss. The fields are the data sets of the group `losses`; format.py describes them.
LOSSES = np.dtype([("rows", "<i8"), ("kinds", "u1"), ("bits", "u1"), ("levels", "<u4"), ("kept", "<u2")])

_PAGES = "only the first of its pages or frames was taken"
_TRANSPARENCY = "one colour is left: its transparency was laid on black"
_UNKNOWN = "something that this version has no name for"


@dataclass(frozen=True)
class Loss:
    """The loss of one picture.

    Attributes:
        kinds: The sum of INTEGERS, FLOATS, PAGES and TRANSPARENCY, as far as they apply.
        bits: Bits per sample in the source file, if samples were cut to 8; else 0.
        levels: The number of different sample values in the source file, up to MOST_LEVELS; 0 if not counted.
        kept: The number of different values left in the row; 0 if not counted.
    """

    kinds: int
    bits: int = 0
    levels: int = 0
    kept: int = 0

    @property
    def texts(self) -> list[str]:
        """One line for each kind of loss."""
        found = []
        if self.kinds & INTEGERS:
            found.append(f"{self.bits} bits cut to 8{self._counted}")
        if self.kinds & FLOATS:
            found.append(f"floats cut to 8 bits{self._counted}")
        if self.kinds & PAGES:
            found.append(_PAGES)
        if self.kinds & TRANSPARENCY:
            found.append(_TRANSPARENCY)
        if self.kinds & ~(INTEGERS | FLOATS | PAGES | TRANSPARENCY):
            found.append(_UNKNOWN)
        return found

    @property
    def _counted(self) -> str:
        if not self.levels:
            return ""
        more = " or more" if self.levels == MOST_LEVELS else ""
        return f": {self.kept:,} of {self.levels:,}{more} levels kept"


@dataclass(frozen=True)
class Group:
    """The losses of one kind.

    Attributes:
        title: What was lost.
        advice: What the user can do.
        files: (filename, text) of each picture.
    """

    title: str
    advice: str
    files: list[tuple[str, str]]


_PAGE_GROUP = ("the first of several pages or frames was taken", "save each as a file of its own to pack them all")
_TRANSPARENCY_GROUP = ("transparency was laid on black, and one colour is left", "--color rgba keeps it")
_UNKNOWN_GROUP = ("something that this version has no name for", "pip install --upgrade pack-images")
_DEPTH_GROUP = ("samples were cut to 8 bits", "scale them to 8 bits, over the range they use, before packing")
_GROUPS = {_PAGES: _PAGE_GROUP, _TRANSPARENCY: _TRANSPARENCY_GROUP, _UNKNOWN: _UNKNOWN_GROUP}


def described(table: NDArray[np.void], names: Sequence[str]) -> list[tuple[str, str]]:
    """(filename, text) of each loss. A picture with losses of two kinds appears twice.

    Args:
        table: LOSSES (M,).
        names: The M file names of these rows.
    """
    return [(name, text) for name, loss in zip(names, losses_of(table), strict=True) for text in loss.texts]


def losses_of(table: NDArray[np.void]) -> Iterator[Loss]:
    """Yield the loss of each element of a table: LOSSES (M,)."""
    for _, *values in table.tolist():
        yield Loss(*values)


def grouped(losses: Sequence[tuple[str, str]]) -> list[Group]:
    """Group losses by kind, the most frequent kind first.

    Args:
        losses: (filename, text) of each loss.
    """
    groups: dict[tuple[str, str], Group] = {}
    for filename, text in losses:
        about = _GROUPS.get(text, _DEPTH_GROUP)
        groups.setdefault(about, Group(*about, [])).files.append((filename, text))
    return sorted(groups.values(), key=lambda group: -len(group.files))


def count_images(losses: Sequence[tuple[str, str]]) -> int:
    """The number of images that have a loss.

    Args:
        losses: (filename, text) of each loss.
    """
    return len({filename for filename, _ in losses})


def loss_lines(losses: Sequence[tuple[str, str]]) -> list[str]:
    """Lines that describe the losses by kind, each with a few file names. Empty if nothing was lost.

    Args:
        losses: (filename, text) of each loss.
    """
    if not losses:
        return []
    lines = [f"packed with a loss: {count(count_images(losses), 'image')}"]
    for group in grouped(losses):
        lines.append(f"  {len(group.files):,}: {group.title}; {group.advice}")
        lines.extend(f"    {shown(name)}: {text}" for name, text in group.files[:_MAX_NAMED])
        if len(group.files) > _MAX_NAMED:
            lines.append(f"    ... and {len(group.files) - _MAX_NAMED:,} more")
    return lines
