"""Versions of the programs that decide the bytes of a pack."""

from __future__ import annotations

import PIL
import simplejpeg

from pack_images.about import __version__


def packed_by() -> dict[str, str]:
    """Return the versions of this program and its decoders, as stored in a pack."""
    return {"pack-images": __version__, "pillow": PIL.__version__, "simplejpeg": simplejpeg.__version__}
