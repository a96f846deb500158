"""Which rows have the same content: identical source files, or identical pixels.

The same picture is often in a data set as two files that differ in metadata or compression. The network sees no
difference, so identical pixels count as identical content. A pack has a checksum of the pixels of each row. Rows with
equal checksums are read, and compared by the SHA-256 of their pixels.

Images of a single colour are compared as files only. Otherwise all black images of a data set would be one picture.
Those that were made of arrays have no files, so they are alike to none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from h5split.file.packs import Packs
from h5split.order.rows import Rows, identical

CONTENT = "content"  # the groups of rows with the same content
_CHUNK_BYTES = 16 << 20


@dataclass(frozen=True)
class Content:
    """The rows of some selections, and which of them have the same content.

    Attributes:
        count: The number of rows.
        groups: The groups of two or more rows with the same content: int64, ascending. So are the groups by their first
            rows.
        blank: The rows of a single colour with the pixels of another row. They are in a group only if their files are
            identical; those that were made of arrays are in none.
    """

    count: int
    groups: Sequence[Rows]
    blank: Rows

    @property
    def numbers(self) -> Rows:
        """A number for each row, equal for rows with the same content: int64 (N,)."""
        numbers = np.arange(self.count)
        for group in self.groups:
            numbers[group] = group[0]
        return numbers

    def mixed(self, labels: NDArray[np.int32]) -> tuple[list[Rows], list[Rows]]:
        """Divide the groups into those with different labels, which are labelling errors, and the others.

        Args:
            labels: int32 (N,).
        """
        found: tuple[list[Rows], list[Rows]] = [], []
        for group in self.groups:
            found[bool((labels[group] == labels[group[0]]).all())].append(group)
        return found


def content_of(selections: Sequence[tuple[Packs, Rows]]) -> Content:
    """Compare all rows of some selections. They are numbered one selection after another.

    Args:
        selections: The packs of each selection, and its rows.
    """
    if not selections:
        return Content(0, [], np.empty(0, np.int64))
    digests = np.concatenate([packs.digests(rows) for packs, rows in selections])
    checksums = np.concatenate([packs.checksums(rows) for packs, rows in selections])
    files = identical(digests)
    alike, blank, without_file = _alike(selections, checksums, digests, files)
    files = [group for group in files if int(group[0]) not in without_file]
    return Content(len(digests), joined(len(digests), [*files, *alike]) if alike else files, blank)


def _alike(
    selections: Sequence[tuple[Packs, Rows]],
    checksums: NDArray[np.uint64],
    digests: NDArray[np.uint8],
    files: Sequence[Rows],
) -> tuple[list[Rows], Rows, set[int]]:
    """Compare the pixels of all rows with equal checksums. Of identical files, one speaks for all.

    Args:
        selections: As for `content_of`.
        checksums: uint64 (N,), of the pixels.
        digests: uint8 (N, 32), of the files.
        files: The groups of rows with equal digests.

    Returns:
        The groups of rows with identical pixels, the rows of one colour, and those of them that were made of arrays.
    """
    speaker = np.arange(len(checksums))
    if files:
        copies, starts, lengths = _side_by_side(files)
        heads = copies[starts].repeat(lengths)
        speaker[copies] = np.where(checksums[copies] == checksums[heads], heads, copies)
    _, number, times = np.unique(checksums, return_inverse=True, return_counts=True)
    candidates = np.flatnonzero(times[number] > 1)
    speakers = candidates[speaker[candidates] == candidates]
    is_compared = np.bincount(number[speakers], minlength=len(times)) > 1  # for each checksum
    members: dict[tuple[tuple[int, ...], str, bytes], list[int]] = {}
    blank, without_file = [], set()
    for row, pixels in zip(speakers.tolist(), _pixels(selections, speakers), strict=True):
        if is_blank(pixels):
            blank.append(row)
            if hashlib.sha256(pixels.data).digest() == digests[row].tobytes():  # so it is not that of a file
                without_file.add(row)
        elif is_compared[number[row]]:
            digest = hashlib.sha256(pixels.data).digest()
            members.setdefault((pixels.shape, pixels.dtype.str, digest), []).append(row)
    groups = [np.array(rows) for rows in members.values() if len(rows) > 1]
    return groups, candidates[np.isin(speaker[candidates], blank)], without_file


def _pixels(selections: Sequence[tuple[Packs, Rows]], wanted: Rows) -> Iterator[NDArray[Any]]:
    """Yield the pixels of some rows, which are numbered one selection after another."""
    start = 0
    for packs, rows in selections:
        here = rows[wanted[(wanted >= start) & (wanted < start + len(rows))] - start].astype(np.int64)
        step = max(1, _CHUNK_BYTES // packs.stride)
        for first in range(0, len(here), step):
            yield from packs.pixels(here[first : first + step])
        start += len(rows)


def is_blank(pixels: NDArray[Any]) -> bool:
    """Whether all pixels of an image are the same. NaN is the same as NaN.

    Args:
        pixels: (H, W, C), contiguous.
    """
    raw = pixels.reshape(-1, pixels.shape[2]).view(np.uint8)
    if raw[0].tobytes() != raw[-1].tobytes():  # true of most, and found out in a twentieth of the time
        return False
    return bool((raw == raw[:1]).all())


def joined(count: int, groups: Iterable[Rows]) -> list[Rows]:
    """Join groups that have a row in common, directly or through others.

    Every row takes over the smallest row that its groups lead to, and so does the row that it had before, until none
    changes. A chain of 200,000 groups takes twenty rounds or fewer (after Zhang, Azad and Hu, FastSV, 2020).

    Args:
        count: The number of rows.
        groups: Groups of two or more rows.
    """
    first = np.arange(count)  # a smaller row that is joined to it, or the row itself
    several = list(groups)
    if not several:
        return []
    members, starts, lengths = _side_by_side(several)
    before = None
    while before is None or (first != before).any():
        before = first.copy()
        least = np.minimum.reduceat(before[members], starts).repeat(lengths)
        np.minimum.at(first, members, least)
        np.minimum.at(first, before[members], least)
        first = first[first]
    members = np.unique(members)
    members = members[np.argsort(first[members], kind="stable")]
    return np.split(members, np.flatnonzero(np.diff(first[members])) + 1)


def _side_by_side(groups: Sequence[Rows]) -> tuple[Rows, Rows, Rows]:
    """The rows of all groups, where each group starts among them, and the length of each."""
    lengths = np.fromiter(map(len, groups), np.int64, len(groups))
    return np.concatenate(groups), np.cumsum(lengths) - lengths, lengths
