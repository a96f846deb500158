"""Save the rows of a selection as a pack. Pixels are copied as they are; nothing is decoded."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from h5split.errors import ArgumentError, FormatError
from h5split.file.images import PackedImages
from h5split.file.losses import LOSSES
from h5split.file.newpack import CHUNK_BYTES, new_pack
from h5split.file.packs import Packs
from h5split.order.selection import Selection
from h5split.system.console import Bar


def save(selection: Selection, path: str | os.PathLike[str], *, verbose: bool) -> None:
    """Save a selection, as `SplitSequence.save` documents it.

    Args:
        selection: The rows, in their order.
        path: The path of the new pack.
        verbose: Show a progress bar.
    """
    packs, rows = selection.opened, selection.rows
    if selection.shard is not None:
        raise ArgumentError(f"save: expected a whole sequence, found rank {selection.shard.index}; save before shard()")
    if not len(rows):
        raise ArgumentError("save: expected rows, found none")
    _check_not_own(packs, path)
    packs.check_whole()
    packs.check_tables()
    expected = packs.checksums(rows)
    step = max(1, CHUNK_BYTES // packs.stride)
    bar = Bar(" images", quiet=not verbose)
    try:
        with new_pack(path, packs.shape, len(rows), packs.dtype) as new:
            for first in range(0, len(rows), step):
                part = rows[first : first + step].astype(np.int64)
                _check_pixels(packs, part, new.append(packs.pixels(part)) == expected[first : first + step])
                bar.show(first + len(part), len(rows))
            packs.check_unchanged()
            new.seal(_tables(packs, rows, expected))
    finally:
        bar.close()


def _tables(packs: Packs, rows: NDArray[Any], checksums: NDArray[np.uint64]) -> Any:
    from h5split.file.sealing import Tables  # loads h5py, which readers do without

    headers = [pack.header for pack in packs.packs]
    settings = _agreed([header.settings for header in headers]) | {"labels": "given", "order": "given"}
    settings.pop("seed", None)  # of an order that is not this one
    return Tables(
        labels=packs.labels[rows],
        class_names=list(packs.class_names),
        filenames=packs.filenames.take(rows),
        columns={name: column.take(rows) for name, column in packs.columns.items()},
        digests=packs.digests(rows),
        checksums=checksums,
        settings=settings,
        packed_by=_agreed([header.packed_by for header in headers]),
        skipped=sorted({pair for pack in packs.packs for pair in pack.skipped}),
        losses=_losses(packs, rows),
    )


def _agreed(given: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What all packs say alike: rows of packs that were made otherwise have no setting in common there."""
    first, *others = given
    return {name: value for name, value in first.items() if all(other.get(name) == value for other in others)}


def _losses(packs: Packs, rows: NDArray[Any]) -> NDArray[np.void]:
    """The losses of the rows, numbered by their new places: LOSSES (L,)."""
    tables = []
    start = 0
    for pack in packs.packs:
        table = np.array(pack.loss_table, LOSSES)
        table["rows"] += start
        tables.append(table)
        start += len(pack)
    of_all = np.concatenate(tables)
    at = np.searchsorted(of_all["rows"], rows)
    places = np.flatnonzero(of_all["rows"][np.minimum(at, len(of_all) - 1)] == rows) if len(of_all) else at[:0]
    found = of_all[at[places]]
    found["rows"] = places
    return found


def _check_not_own(packs: Packs, path: str | os.PathLike[str]) -> None:
    """Raise if the path is that of a pack that the rows come from: rows that are not in the selection would be lost."""
    own = next((pack for pack in packs.packs if _is_same_file(pack, path)), None)
    if own is not None:
        raise ArgumentError(f"save: expected another file than {own.path}, which the rows come from; name a new one")


def _is_same_file(pack: PackedImages, path: str | os.PathLike[str]) -> bool:
    try:
        status = os.stat(path)
    except OSError:
        return False
    return (status.st_dev, status.st_ino) == pack.inode


def _check_pixels(packs: Packs, rows: NDArray[np.int64], are_whole: NDArray[np.bool_]) -> None:
    if not are_whole.all():
        name = packs.filenames[int(rows[int(np.argmin(are_whole))])]
        raise FormatError(f"save: the pixels of {name} do not match their checksum; h5split verify names all such rows")
