"""Versions of what decides the bytes of a pack."""

from __future__ import annotations

import PIL
import simplejpeg

from pack_images.about import __version__


def packed_by() -> dict[str, str]:
    """This program and its decoders, as a pack names them."""
    return {"pack-images": __version__, "pillow": PIL.__version__, "simplejpeg": simplejpeg.__version__}
