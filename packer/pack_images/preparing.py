"""Prepare new pictures for prediction exactly as the pictures of a pack were prepared."""

from __future__ import annotations

import os
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from h5split.file.images import PackedImages
from pack_images import versions
from pack_images.decode.guards import check_pixels
from pack_images.decode.held import Picture, as_picture, decode_held
from pack_images.decode.row import decode
from pack_images.errors import DecodeError, PackError, SizeError, one_root
from pack_images.reading import read
from pack_images.settings import Pixels

Given = str | os.PathLike[str] | bytes | Picture  # the path of a file, its bytes, or its pixels

_OPTIONS = ("fit", "interpolation", "color", "exact", "max_pixels")


def prepare(pack: str | os.PathLike[str] | PackedImages, picture: Given) -> NDArray[np.uint8]:
    """Return a new picture as a row of a pack: same size, fit, colours and filter.

    For example:

        row = prepare("eurosat.h5", "new/tile.jpg")
        scores = model.predict(row[np.newaxis])

    Args:
        pack: The pack that the network was trained on.
        picture: The path of a file, the bytes of one, an image of Pillow's, or an array, uint8 (H, W) or (H, W, C) with
            1, 3 or 4 channels.

    Returns:
        uint8 (H, W, C), what `pack` would store. Of an image that Pillow has loaded already, and of an array, it is
        what `pack` would store with `exact`: large JPEGs are decoded at a reduced size only from their file, which
        differs by some grey levels.

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
        _decode(picture, how, row)
    except SizeError as error:
        height, width, _ = opened.shape
        raise SizeError(f"expected a picture of {width}x{height}, as all of {opened.path} are, found {error}") from None
    except DecodeError as error:
        named = picture if isinstance(picture, str | os.PathLike) else "the picture"
        raise DecodeError(f"{named}: {error}") from error
    return row


def _opened(pack: str | os.PathLike[str] | PackedImages) -> PackedImages:
    if isinstance(pack, PackedImages):
        return pack
    if not isinstance(pack, str | os.PathLike):
        raise PackError(f"pack: expected the path of a pack, or PackedImages, found {type(pack).__name__}")
    with one_root():
        return PackedImages(pack)


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


def _decode(picture: Given, how: Pixels, out: NDArray[np.uint8]) -> None:
    """Write the row of a picture to `out`: from its file if there is one, or else from its pixels."""
    if isinstance(picture, str | os.PathLike):
        decode(read(os.fspath(picture), how)[0], how, out)
        return
    if isinstance(picture, bytes | bytearray | memoryview):
        decode(bytes(picture), how, out)
        return
    held = as_picture(picture)
    width, height = held.size if isinstance(held, Image.Image) else held.shape[1::-1]
    check_pixels(width, height, how)
    pixels, _ = decode_held(held, how)
    if pixels.shape != out.shape:
        raise SizeError(f"{pixels.shape[1]}x{pixels.shape[0]}")
    out[...] = pixels
