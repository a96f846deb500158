"""Versions of the programs that decide the bytes of a pack."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

import PIL
import simplejpeg

from pack_images.about import __version__
from pack_images.find.sources import PackedRow, PackFile
from pack_images.settings import Pixels

if TYPE_CHECKING:
    from h5split.file.images import PackedImages

_OPTIONAL = {"tif": ("tifffile", "imagecodecs"), "tiff": ("tifffile", "imagecodecs")}
_HEIF = dict.fromkeys(("heic", "heics", "heif", "heifs", "hif"), ("pillow-heif",))


def packed_by(more: Collection[str] = ()) -> dict[str, str]:
    """Return the versions of this program and its decoders, as stored in a pack.

    Args:
        more: Decoders besides those that are always installed; see `used`.
    """
    ours = {"pack-images": __version__, "pillow": PIL.__version__, "simplejpeg": simplejpeg.__version__}
    return ours | {name: _installed(name) for name in sorted(more)}


def used(how: Pixels, paths: Iterable[str | PackedRow]) -> set[str]:
    """Return the decoders that files need besides those that are always installed.

    The extensions decide, also where the user's decoder may leave a file to others, and the packs from which rows are
    copied. So the answer is the same before packing.
    """
    packs = {path.pack for path in paths if isinstance(path, PackedRow)}
    found = {name for pack in packs for name in _among(_open(pack).header.packed_by)}
    decoders = _HEIF | (_OPTIONAL if how.keeps_values or how.range else {})
    endings = {path.rpartition(".")[2].lower() for path in paths if isinstance(path, str)}
    return found.union(*(decoders.get(ending, ()) for ending in endings))


def agree(there: Mapping[str, str], here: Mapping[str, str]) -> bool:
    """Return whether two runs had the same versions of all decoders that both used. Both must name the first three."""
    both = {**dict.fromkeys(packed_by()), **dict.fromkeys(there.keys() & here.keys())}
    return all(there.get(name) == here.get(name) for name in both)


def others(there: Mapping[str, str]) -> list[str]:
    """Return the programs in `there`, what a pack says it was packed by, whose version is not the one here."""
    here = packed_by(_among(there))
    return [f"{name} {there.get(name)}" for name, version in here.items() if there.get(name) != version]


def _among(there: Iterable[str]) -> set[str]:
    known = {name for names in (_OPTIONAL | _HEIF).values() for name in names}
    return known.intersection(there)


def _open(pack: PackFile) -> PackedImages:
    from h5split.file.images import PackedImages  # here, because few runs copy rows

    return PackedImages(pack.path)


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
