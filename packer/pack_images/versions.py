"""Versions of the programs that decide the bytes of a pack."""

from __future__ import annotations

from collections.abc import Mapping

import PIL
import simplejpeg

from pack_images.about import __version__


def packed_by() -> dict[str, str]:
    """Return the versions of this program and its decoders, as stored in a pack."""
    return {"pack-images": __version__, "pillow": PIL.__version__, "simplejpeg": simplejpeg.__version__}


def others(there: Mapping[str, str]) -> list[str]:
    """Return the programs in `there`, what a pack says it was packed by, whose version is not the one here."""
    return [f"{name} {there.get(name)}" for name, version in packed_by().items() if there.get(name) != version]
