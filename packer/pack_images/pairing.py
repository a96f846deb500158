"""Whether the pictures of pairs fit each other, before they are packed: turned alike, of one size, numbers as numbers.

EXIF turns a photograph upright, and its mask too if the mask has the same orientation. A mask that has none may have
been made of the photograph as it stands, or as it lies in the file. Its size tells, unless it is the same either way.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Literal

from h5split.file.format import decode
from h5split.file.images import PackedImages
from h5split.file.packs import Packs
from h5split.file.pairs import PAIRED_WITH, pair_names
from h5split.system.files import BINARY, NO_WAIT, read_at
from h5split.system.machine import cores
from h5split.system.text import count
from pack_images.decode.outline import Outline, outline
from pack_images.errors import DecodeError, PackError
from pack_images.find.sources import Sources
from pack_images.plan import spread
from pack_images.reading import read
from pack_images.settings import Pixels, Shape

_HEAD_BYTES = 64 << 10  # of a file; EXIF comes first
_ON_ITS_SIDE = 5  # orientations from here on exchange width and height
_FILES_COMPARED = 9

_Verdict = Literal["fits", "apart", "unknown"]


def turned_alike(like: str | os.PathLike[str], found: Sources, how: Pixels) -> Sources:
    """Leave out the files that are surely not turned as their partners are, and note how many may not be.

    Args:
        like: The pack of the partners.
        found: The files of its rows.
        how: How a picture becomes a row.

    Raises:
        PackError: Half of the pairs or more are not turned alike.
    """
    pack = PackedImages(os.fspath(like))
    if how.decoder is not None or pack.header.settings.get("decoder"):  # which may turn pictures itself
        return found
    row_of = {decode(name): row for row, name in enumerate(pair_names(Packs([pack])).tolist())}
    rows = [row_of[name] for name in found.columns[PAIRED_WITH]]
    names = pack.filenames[:]
    partners = [names[row] for row in rows]
    with ThreadPoolExecutor(cores()) as executor:
        verdicts = [*executor.map(_verdict, partners, found.paths)]
    apart = {
        at: _apart(partners[at])
        for at, verdict in enumerate(verdicts)
        if verdict == "apart" and _is_packed(partners[at], pack, rows[at], how)
    }
    if apart and 2 * len(apart) >= len(found):
        first = min(apart)
        pairs = count(len(found), "pair")
        raise PackError(f"{found.filenames[first]}: {apart[first]}; so it is with {len(apart):,} of {pairs}")
    unknown = [(partners[at], found.filenames[at]) for at, verdict in enumerate(verdicts) if verdict == "unknown"]
    return replace(
        found.take([at for at in range(len(found)) if at not in apart]) if apart else found,
        lacking=[*found.lacking, *((found.filenames[at], reason) for at, reason in apart.items())],
        notes=[*found.notes, *_notes_on_unknown(unknown)],
    )


def notes_on_pairs(like: str | os.PathLike[str], found: Sources, how: Pixels, shape: Shape) -> Iterator[str]:
    """Yield what the user should know about the size and the colours of pairs, one line each.

    Args:
        like: The pack of the partners.
        found: The files of its rows.
        how: How a picture becomes a row.
        shape: (H, W, C) of a row.
    """
    pack = PackedImages(os.fspath(like))
    ours, theirs = (f"{shape[1]}x{shape[0]}", f"{pack.shape[1]}x{pack.shape[0]}")
    if ours != theirs and (how.size is not None or pack.header.settings.get("size")):
        yield (
            f"{pack.path} has images of {theirs}, this run makes {ours}: the pixels of a pair lie in different places; "
            f"--size {theirs} makes them alike"
        )
    if how.color == "index" or how.decoder is not None:
        return
    files = [path for at in spread(len(found), _FILES_COMPARED) if isinstance(path := found.paths[at], str)]
    if files and all(_outline_of(path).is_palette_png for path in files):
        yield (
            f"files such as {min(files)} have numbers of a palette: --color {how.color} stores its colours, mixed "
            "where pictures are scaled; --color index keeps their numbers"
        )


def _verdict(partner: str, path: object) -> _Verdict:
    """Return whether a file and its partner are turned alike."""
    if not isinstance(path, str):
        return "fits"  # the row of a pack: its file may be gone
    theirs = _outline_of(partner)
    if theirs.orientation == 1:
        return "fits"
    ours = _outline_of(path)
    if ours.orientation == theirs.orientation:
        return "fits"
    if theirs.size is not None and theirs.orientation >= _ON_ITS_SIDE and ours.orientation == 1:
        width, height = theirs.size
        if width != height and ours.size in ((width, height), (height, width)):
            return "apart" if ours.size == theirs.size else "fits"
    return "unknown"


def _outline_of(path: str) -> Outline:
    """Return what the first bytes of a file say; nothing if it cannot be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | BINARY | NO_WAIT)
        try:
            return outline(read_at(descriptor, _HEAD_BYTES, 0))
        finally:
            os.close(descriptor)
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return Outline()


def _is_packed(path: str, pack: PackedImages, row: int, how: Pixels) -> bool:
    """Return whether the row of a pack was made of this file, as it is now."""
    try:
        data, _ = read(path, how)
    except DecodeError:
        return False
    return hashlib.sha256(data).digest() == bytes(pack.digests[row].tobytes())


def _apart(partner: str) -> str:
    return f"its partner {partner} is turned by EXIF, this one is not: turn it, or remove the orientation of {partner}"


def _notes_on_unknown(pairs: Sequence[tuple[str, str]]) -> Iterator[str]:
    if pairs:
        partner, name = pairs[0]
        yield (
            f"{count(len(pairs), 'pair')} of pictures that EXIF does not turn alike, and sizes do not tell whether "
            f"they show the same, such as {partner} and {name}; look at them"
        )
