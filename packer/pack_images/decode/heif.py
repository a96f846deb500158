"""HEIC, the photographs of phones, with pillow-heif (extra `heif`). libheif turns a picture upright itself."""

from __future__ import annotations

import io
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from h5split.file.losses import INTEGERS, PAGES, Loss
from pack_images.decode.guards import check_pixels
from pack_images.foreign import HEIC, by_content
from pack_images.settings import Pixels

_BITS = 8


def is_heif(data: bytes) -> bool:
    """Return whether a file is HEIC, and pillow-heif is here to decode it."""
    return data[4:8] == b"ftyp" and by_content(data) == HEIC and find_spec("pillow_heif") is not None


def heif_picture(data: bytes, how: Pixels) -> tuple[Image.Image, Loss | None]:
    """Decode the main picture of a file, in 8 bits. Return what was lost too."""
    file = _opened(data, how)
    kinds = (INTEGERS if file.info["bit_depth"] > _BITS else 0) | (PAGES if len(file) > 1 else 0)
    bits = file.info["bit_depth"] if kinds & INTEGERS else 0
    image = file.to_pillow()
    return image, Loss(kinds, bits) if kinds else None


def heif_samples(data: bytes, how: Pixels) -> tuple[NDArray[Any], int, str, Loss | None] | None:
    """Decode the main picture of a file with more than 8 bits, as its file has them: (H, W, C), bits, mode, and loss.

    None if it has 8 bits.
    """
    file = _opened(data, how, convert_hdr_to_8bit=False, hdr_to_16bit=False)
    if file.info["bit_depth"] <= _BITS:
        return None
    return np.asarray(file), int(file.info["bit_depth"]), str(file.mode), Loss(PAGES) if len(file) > 1 else None


def _opened(data: bytes, how: Pixels, **options: bool) -> Any:
    import pillow_heif  # here, because few files need it

    file = pillow_heif.open_heif(io.BytesIO(data), **options)
    width, height = file.size
    check_pixels(width, height, how)
    return file
