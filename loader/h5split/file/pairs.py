"""Which rows of two packs belong together, such as photographs and their masks.

A pack that was made with `--like` has the column `paired_with`: for each row, the file name of its partner in the pack
that it was made like. Rows without such a text are known by their own file name. So a pack and all packs that were made
like it call their rows by the same names, and rows that were left out of one of them shift nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from h5split.errors import ArgumentError
from h5split.file.format import decode
from h5split.file.packs import Packs
from h5split.system.text import count

PAIRED_WITH = "paired_with"

_MAX_NAMES = 3  # in a message


def pair_names(packs: Packs) -> NDArray[np.bytes_]:
    """The name by which each row is known in pairs, as it is in the file: bytes_ (N,)."""
    own = packs.filenames.raw()
    if PAIRED_WITH not in packs.columns:
        return own
    given = packs.columns[PAIRED_WITH].raw()
    is_empty = given == b""
    return np.where(is_empty, own, given) if is_empty.any() else given


def partners(packs: Packs, rows: NDArray[np.int64], others: Packs) -> NDArray[np.int64]:
    """The row of other packs that each row belongs to: int64 (N,) for all N rows of the packs.

    Args:
        packs: The packs of the rows.
        rows: int (M,), the rows that need a partner; the result is -1 for all that have none.
        others: The packs with the partners, in any order. They may have more rows.

    Raises:
        ValueError: A row has no partner; or several rows have one name.
    """
    ours, theirs = pair_names(packs), pair_names(others)
    if len(packs.packs) == len(others.packs) == 1 and np.array_equal(ours, theirs):
        return np.arange(len(ours))  # of several packs, two may have the same names, so that their order decided
    order = np.argsort(theirs, kind="stable")
    in_order = theirs[order]
    needed = np.flatnonzero(np.bincount(rows, minlength=len(packs)))
    names = ours[needed]
    first = np.searchsorted(in_order, names)
    last = np.searchsorted(in_order, names, side="right")
    _check_once(others, names[last - first > 1])
    is_found = last > first
    if not is_found.all():
        raise ArgumentError(_without_partner(packs, names[~is_found], len(needed), others))
    distinct, times = np.unique(first, return_counts=True)
    _check_once(packs, in_order[distinct[times > 1]])
    found = np.full(len(packs), -1, np.int64)
    found[needed] = order[first]
    return found


def _check_once(packs: Packs, repeated: NDArray[np.bytes_]) -> None:
    if len(repeated):
        raise ArgumentError(
            f"targets: expected each file name once in {packs!r}, found several rows of {decode(repeated[0])!r}, so "
            "that none is known to belong to another; give the files other names"
        )


def _without_partner(packs: Packs, names: NDArray[np.bytes_], needed: int, others: Packs) -> str:
    shown = ", ".join(map(decode, names[:_MAX_NAMES].tolist()))
    message = f"targets: expected a picture in {others!r} for each of {count(needed, 'row')}, found none for "
    if len(names) == needed:
        return f"{message}any, such as {shown}; pack these pictures with --like {packs.packs[0].path}"
    ours, theirs = (
        f"columns[{PAIRED_WITH!r}]" if PAIRED_WITH in one.columns else "filenames" for one in (packs, others)
    )
    return (
        f"{message}{len(names):,}, such as {shown}; leave them out: sequence.select(sequence.{ours}.isin(names)) "
        f"with names = {_names_of(others, theirs)}"
    )


def _names_of(packs: Packs, what: str) -> str:
    every = [f"*PackedImages({pack.path!r}).{what}" for pack in packs.packs]
    return every[0][1:] if len(every) == 1 else f"[{', '.join(every)}]"
