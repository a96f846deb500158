"""Prepare new pictures for prediction exactly as the pictures of a pack were prepared."""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from h5split.file.images import PackedImages
from pack_images import versions
from pack_images.decode.held import bytes_of
from pack_images.decode.row import decode
from pack_images.errors import DecodeError, PackError, SizeError, one_root
from pack_images.fill import read
from pack_images.settings import Pixels

if TYPE_CHECKING:
    from PIL import Image

_OPTIONS = ("fit", "interpolation", "color", "exact", "max_pixels")


def prepare(
    pack: str | os.PathLike[str] | PackedImages, picture: str | os.PathLike[str] | bytes | Image.Image
) -> NDArray[np.uint8]:
    """Return a new picture as a row of a pack: same size, fit, colours and filter.

    Example::

        row = prepare("eurosat.h5", "new/tile.jpg")
        scores = model.predict(row[np.newaxis])

    Args:
        pack: The pack that the network was trained on.
        picture: The path of a file, the bytes of one, or an image of Pillow's.

    Returns:
        uint8 (H, W, C), what `pack` would store.

    Raises:
        DecodeError: The picture cannot be read or decoded.
        SizeError: It has another size than the images of the pack, which was packed without a size.
        PackError: The pack does not say how its pictures were prepared.
        OSError: The disk, or the network to it, fails.
    """
    opened = _opened(pack)
    how = _pixels_of(opened)
    row = np.empty(opened.shape, np.uint8)
    try:
        decode(_bytes_of(picture, how), how, row)
    except SizeError as error:
        height, width, _ = opened.shape
        raise SizeError(f"expected a picture of {width}x{height}, as all of {opened.path} are, found {error}") from None
    except DecodeError as error:
        named = picture if isinstance(picture, str | os.PathLike) else "the picture"
        raise DecodeError(f"{named}: {error}") from error
    return row


def _opened(pack: str | os.PathLike[str] | PackedImages) -> PackedImages:
    with one_root():
        return pack if isinstance(pack, PackedImages) else PackedImages(pack)


def _pixels_of(pack: PackedImages) -> Pixels:
    """How the pictures of a pack were prepared. Warn if other versions of the decoders are installed here."""
    given: dict[str, Any] = dict(pack.header.settings)
    missing = [name for name in ("size", *_OPTIONS) if name not in given]
    if missing:
        raise PackError(f"{pack.path}: expected the settings of its pictures, found no {missing[0]}; pack it again")
    others = versions.others(pack.header.packed_by)
    if others:
        warnings.warn(
            f"prepare: expected the decoders of {pack.path}, {', '.join(others)}, found others; pixels may differ",
            stacklevel=3,
        )
    size = given["size"]
    return Pixels(None if size is None else (size[0], size[1]), **{name: given[name] for name in _OPTIONS})


def _bytes_of(picture: str | os.PathLike[str] | bytes | Image.Image, how: Pixels) -> bytes:
    if isinstance(picture, bytes):
        return picture
    if isinstance(picture, str | os.PathLike):
        return read(os.fspath(picture), how)[0]
    return bytes_of(picture)
