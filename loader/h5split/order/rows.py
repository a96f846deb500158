"""Which rows, in which order: pure functions on index arrays.

An order depends on its key (such as a seed and an epoch) and on nothing else. Random numbers are the raw output of
PCG64, which numpy promises never to change (NEP 19). `Generator.permutation` has no such promise, so it is not used.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]

_CHUNK_ROWS = 1 << 16  # 512 KB of int64, which stay in the cache of a processor core
_MIN_ROWS_FOR_INT32 = 1 << 20


def permutation(count: int, *key: int) -> Rows:
    """A seeded permutation of `range(count)`: int64 (count,).

    Put random bits above each row number and sort. Keys are distinct, so every sort algorithm gives the same
    permutation. The sort is in place and takes 8 bytes a row.

    Args:
        count: The number of rows.
        key: Non-negative integers, such as a seed and an epoch.
    """
    bits = np.uint64(max(count - 1, 1).bit_length())
    keys = _random_bits(count, len(key), *key)
    keys >>= bits
    keys <<= bits
    keys |= np.arange(count, dtype=np.uint64)
    keys.sort()
    keys &= (np.uint64(1) << bits) - np.uint64(1)
    return keys.view(np.int64)


def stratified_order(labels: NDArray[np.int32], seed: int) -> Rows:
    """An order in which every contiguous range has nearly the class proportions of the whole: int64 (N,).

    This is systematic sampling in each class. The rows of class *c* are shuffled. The *k*-th of its `n_c` rows gets the
    position `(k + u_c) / n_c`, where `u_c` is a random number in [0, 1) for the class. Then all rows are sorted by
    position. Shuffle and `u_c` depend on the seed alone.

    Args:
        labels: int32 (N,), each in [0, K).
        seed: A non-negative integer.
    """
    by_class = permutation(len(labels), seed)
    by_class = by_class[np.argsort(labels[by_class], kind="stable")]
    counts = np.bincount(labels)
    # The 0 keeps these random numbers different from those of `permutation`, whose key begins with its length.
    phases = _random_bits(len(counts), 0, seed) / 2.0**64
    sorted_labels = labels[by_class]
    numerators = _rank_in_class(sorted_labels, counts) + phases[sorted_labels]
    return by_class[np.argsort(numerators / counts[sorted_labels], kind="stable")]


def cuts(count: int, points: Sequence[float]) -> list[int]:
    """The row numbers at which `count` rows are cut: len(points) + 2 of them, the first is 0 and the last is `count`.

    Args:
        count: The number of rows.
        points: Fractions from 0 to 1, ascending: (0.2, 0.4) cuts after 20 % and after 40 % of the rows.

    Raises:
        ValueError: A point lies outside [0, 1], or is less than the one before it.
    """
    for index, point in enumerate(points):
        if not 0 <= point <= 1:
            raise ValueError(f"split: expected points from 0 to 1, found {point}; 0.2 means after 20 % of the rows")
        if index and point < points[index - 1]:
            raise ValueError(
                f"split: expected points that do not decrease, found {points[index - 1]} before {point}; "
                "they are places to cut at, not sizes: (0.2, 0.4) gives 20 %, 20 % and 60 %"
            )
    return [0, *(round(point * count) for point in points), count]


def split(rows: Rows, points: Sequence[float]) -> list[Rows]:
    """Cut `rows` at fractions of their number (see `cuts`). The parts are views of `rows`."""
    bounds = cuts(len(rows), points)
    return [rows[start:stop] for start, stop in pairwise(bounds)]


def split_strata(rows: Rows, strata: NDArray[np.int32], points: Sequence[float]) -> list[Rows]:
    """Cut at `points` and keep the proportion of each stratum in every part; parts keep the order of `rows`.

    The k-th of the n rows of a stratum gets the position `(k + 1/2) / n`. The rows are sorted by position and cut. So
    the sizes of the parts are exact and the proportions nearly exact, even if a stratum has fewer rows than there are
    parts.

    Args:
        rows: int64 (N,).
        strata: int (N,), the class of each of `rows`.
        points: As for `cuts`.
    """
    part = _strata_parts(strata, cuts(len(rows), points))
    return [rows[part == index] for index in range(len(points) + 1)]


def split_groups(
    rows: Rows, groups: NDArray[Any], points: Sequence[float], strata: NDArray[np.int32] | None = None
) -> list[Rows]:
    """Cut near `points` so that all rows with the same value in `groups` are in the same part.

    A greedy algorithm takes the largest group first. Each group goes to the part that lacks most rows of the classes in
    the group. This is the rule of scikit-learn's StratifiedGroupKFold, here for parts of unequal size. Groups of one
    row come last: they fill the remaining room, in order.

    Args:
        rows: int64 (N,).
        groups: (N,), any dtype that sorts.
        points: As for `cuts`.
        strata: int (N,), the class of each row, to keep class proportions too; None to balance sizes only.
    """
    bounds = cuts(len(rows), points)
    if len(rows) == 0:
        return split(rows, points)
    classes = np.zeros(len(rows), np.int64) if strata is None else np.unique(strata, return_inverse=True)[1]
    room = np.zeros((len(bounds) - 1, int(classes.max()) + 1), np.int64)  # rows still missing
    np.add.at(room, (_strata_parts(classes, bounds), classes), 1)
    open_parts = room.any(axis=1)
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    members_of = np.split(np.argsort(group, kind="stable"), np.cumsum(sizes)[:-1])
    part = np.empty(len(rows), np.int64)
    for index in np.argsort(-sizes, kind="stable").tolist():
        if sizes[index] == 1:
            break
        members = members_of[index]
        present, need = np.unique(classes[members], return_counts=True)
        # A part with size 0 must stay empty, so it never wins.
        lack = np.where(open_parts, room[:, present] @ need, np.iinfo(np.int64).min)
        choice = int(np.argmax(lack))
        part[members] = choice
        room[choice, present] -= need
    single = np.flatnonzero(sizes[group] == 1)
    # Room is negative where groups put more rows into a part than it should have.
    part[single] = _assign_singles(np.maximum(room, 0), classes[single])
    return [rows[part == index] for index in range(len(bounds) - 1)]


def _strata_parts(strata: NDArray[Any], bounds: Sequence[int]) -> NDArray[np.int64]:
    """The part of each row, when every stratum is spread evenly and the result is cut at `bounds`: int64 (N,)."""
    by_stratum = np.argsort(strata, kind="stable")
    ordered = strata[by_stratum]
    counts = np.bincount(strata) if len(strata) else np.empty(0, np.int64)
    positions = np.empty(len(strata))
    positions[by_stratum] = (_rank_in_class(ordered, counts) + 0.5) / counts[ordered]
    part = np.empty(len(strata), np.int64)
    part[np.argsort(positions, kind="stable")] = np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))
    return part


def _assign_singles(room: NDArray[np.int64], classes: NDArray[np.int64]) -> NDArray[np.int64]:
    """The part of each row that is a group of its own: int64 (N,).

    Args:
        room: int64 (parts, classes), the rows that each part still needs. The sum over the parts may exceed the rows
            of a class, as some parts are too full; then each part gets proportionally fewer.
        classes: int64 (N,), the class of each row.
    """
    count = np.bincount(classes, minlength=room.shape[1])
    upto = np.cumsum(room, axis=0)
    bounds = np.rint(upto * (count / np.maximum(upto[-1], 1))).astype(np.int64)
    by_class = np.argsort(classes, kind="stable")
    ordered = classes[by_class]
    part = np.empty(len(classes), np.int64)
    part[by_class] = (_rank_in_class(ordered, count) >= bounds[:-1, ordered]).sum(axis=0)
    return part


def _rank_in_class(labels: NDArray[Any], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rank of each element within its class (0, 1, 2, ...): int64 (N,). Labels must be sorted.

    Args:
        labels: int (N,), ascending.
        counts: int64 (K,), the size of each class.
    """
    ranks: NDArray[np.int64] = np.arange(len(labels)) - (np.cumsum(counts) - counts)[labels]
    return ranks


def _random_bits(count: int, *key: int) -> NDArray[np.uint64]:
    """Random 64-bit integers that depend on the key alone: uint64 (count,)."""
    raw: NDArray[np.uint64] = np.random.PCG64(np.random.SeedSequence(key)).random_raw(count)
    return raw


def window(rows: Rows, labels: NDArray[np.int32], cap: int, seed: int, turn: int | None) -> Rows:
    """At most `cap` rows of each class, in the order of `rows`.

    Args:
        rows: int64 (N,).
        labels: int32 (N,), the class of each of `rows`.
        cap: 1 or more.
        seed: Shuffles the rows of each class before windows are cut. Not used if `turn` is None.
        turn: None takes the first `cap` rows of each class. An integer takes the turn-th window of `cap` rows from the
            shuffled class. Windows follow one another and wrap around at the end, so any `ceil(n / cap)` successive
            turns together hold every row of a class of n rows.
    """
    members = np.arange(len(rows)) if turn is None else permutation(len(rows), seed)
    members = members[np.argsort(labels[members], kind="stable")]
    counts = np.bincount(labels)
    count = counts[labels[members]]
    offset = (_rank_in_class(labels[members], counts) - (turn or 0) * cap) % np.maximum(count, 1)
    return rows[np.sort(members[(offset < cap) | (count <= cap)])]


def blocks(rows: Rows, size: int, *key: int) -> Rows:
    """Cut `rows` into batches and shuffle the batches, not the rows in them: int64 (N,).

    The first row is random, one of the first `size`; the rows before it move to the end, as in a ring. So batches
    begin at other rows with every key. The last batch stays last, because it may not be full. Every batch is a slice
    of `rows`, except the one that joins the end of `rows` to its beginning.

    Args:
        rows: int64 (N,).
        size: Rows in a batch.
        key: As for `permutation`.
    """
    phase = int(_random_bits(1, len(key), *key)[0] % np.uint64(size))
    ring = np.roll(rows, -phase)
    whole = len(rows) // size * size
    batches = ring[:whole].reshape(-1, size)
    return np.concatenate([batches[permutation(len(batches), *key)].reshape(-1), ring[whole:]])


def shard(rows: Rows, size: int, index: int, count: int) -> Rows:
    """The rows of one process of distributed training, rank `index` of `count`.

    Every `size * count` rows are one global batch, and each rank gets its own slice of `size` rows. Fewer rows may
    remain at the end: they are divided evenly, and up to `count - 1` rows are left out, so that all ranks have the same
    number of rows.

    Args:
        rows: int64 (N,).
        size: Rows in the batch of one rank.
        index: From 0 to count - 1.
        count: The number of ranks.
    """
    whole = len(rows) // (size * count) * size * count
    share = (len(rows) - whole) // count
    mine = rows[:whole].reshape(-1, count, size)[:, index].reshape(-1)
    return np.concatenate([mine, rows[whole + index * share : whole + (index + 1) * share]])


def runs(rows: Rows, size: int) -> NDArray[np.bool_]:
    """Whether each batch of `size` rows is consecutive (r, r + 1, r + 2, ...): bool (ceil(N / size),)."""
    flags = np.empty(-(-len(rows) // size), np.bool_)
    step = max(1, _CHUNK_ROWS // size)  # batches at a time: temporary arrays stay in the processor's cache
    for first in range(0, len(flags), step):
        part = rows[first * size : (first + step) * size]
        follows = np.ones(len(part), np.bool_)
        np.equal(np.diff(part), 1, out=follows[1:])
        follows[::size] = True  # the first row of a batch need not follow the row before it
        flags[first : first + step] = np.logical_and.reduceat(follows, np.arange(0, len(part), size))
    return flags


def every(first: int, total: int) -> Rows:
    """The rows from `first` to `total` - 1, in the type that `compact` chooses."""
    return np.arange(first, total, dtype=_row_dtype(total))


def compact(rows: Rows, total: int) -> Rows:
    """Row numbers in half the memory where it matters: int32 (N,) for more than 2**20 rows that int32 can count.

    Otherwise int64. Small arrays stay int64, as numpy must convert int32 indices to int64 for every batch. Convert
    int32 rows to int64 before computing byte offsets: the product overflows int32.

    Args:
        rows: int (N,), each below `total`.
        total: The number of rows in the file or files.
    """
    return rows.astype(_row_dtype(total), copy=False)


def _row_dtype(total: int) -> type[np.int32 | np.int64]:
    return np.int32 if _MIN_ROWS_FOR_INT32 < total <= np.iinfo(np.int32).max else np.int64


def digest_keys(digests: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """The first 8 bytes of each digest, as a key that is nearly always unique: uint64 (N,).

    Args:
        digests: uint8 (N, 32).
    """
    return np.ascontiguousarray(digests[:, :8]).view("<u8")[:, 0]


def is_among(keys: NDArray[np.uint64], others: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Whether each key is in `others`: bool (N,). `np.isin` takes twice as long, and 10 ms to import.

    Args:
        keys: uint64 (N,).
        others: uint64 (M,).
    """
    if not len(others):
        return np.zeros(len(keys), np.bool_)
    ascending = np.sort(others)
    found: NDArray[np.bool_] = ascending[ascending.searchsorted(keys).clip(max=len(ascending) - 1)] == keys
    return found


def identical(digests: NDArray[np.uint8]) -> list[Rows]:
    """Groups of two or more rows that have equal digests. Rows ascend; groups are ordered by their first row.

    Args:
        digests: uint8 (N, 32).
    """
    words = np.ascontiguousarray(digests).view("<u8")
    # Most rows are unique in their first 8 bytes, so one fast sort removes them before whole digests are compared.
    keys = np.sort(words[:, 0])
    rows = np.flatnonzero(is_among(words[:, 0], keys[1:][keys[1:] == keys[:-1]]))
    if not len(rows):
        return []
    rows = rows[np.lexsort(words[rows].T)]  # lexsort is stable: rows with equal digests stay ascending
    starts = np.flatnonzero(np.append(True, (words[rows[1:]] != words[rows[:-1]]).any(axis=1)))
    groups = [group for group in np.split(rows, starts[1:]) if len(group) > 1]
    return sorted(groups, key=lambda group: int(group[0]))


def duplicates(digests: NDArray[np.uint8], labels: NDArray[np.int32]) -> tuple[list[Rows], list[Rows]]:
    """The groups of `identical` in two lists: groups with different labels (labelling errors), and all others.

    Args:
        digests: uint8 (N, 32).
        labels: int32 (N,).
    """
    groups = identical(digests)
    mixed = [bool((labels[group] != labels[group[0]]).any()) for group in groups]
    return (
        [group for group, is_mixed in zip(groups, mixed, strict=True) if is_mixed],
        [group for group, is_mixed in zip(groups, mixed, strict=True) if not is_mixed],
    )
