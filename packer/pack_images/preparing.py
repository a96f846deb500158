"""Prepare new pictures for prediction exactly as the pictures of a pack were prepared."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from h5split.file.images import PackedImages
from h5split.system.text import count
from pack_images import versions
from pack_images.decode.guards import check_pixels
from pack_images.decode.held import Picture, as_picture, decode_held
from pack_images.decode.row import decode
from pack_images.errors import DecodeError, PackError, SizeError, one_root
from pack_images.functions import Decoder, decoder_of
from pack_images.options import pixels_of
from pack_images.reading import read
from pack_images.settings import Pixels, stored_settings

Given = str | os.PathLike[str] | bytes | Picture  # the path of a file, its bytes, or its pixels

_FILES = (str, os.PathLike, bytes, bytearray, memoryview)
_OPTIONS = ("fit", "interpolation", "color", "exact", "max_pixels")


def prepare(
    pack: str | os.PathLike[str] | PackedImages,
    picture: Given,
    *,
    decoder: Decoder | Callable[[bytes], Any] | str | None = None,
) -> NDArray[Any]:
    """Return a new picture as a row of a pack: same size, fit, colours, filter and type.

    For example:

        row = prepare("eurosat.h5", "new/tile.jpg")
        scores = model.predict(row[np.newaxis])

    Args:
        pack: The pack that the network was trained on.
        picture: The path of a file, the bytes of one, an image of Pillow's, or an array (H, W) or (H, W, C) of uint8,
            or of the type of the pack.
        decoder: The function that decoded the files of the pack, if it was made with one.

    Returns:
        (H, W, C) of the type of the pack, what `pack` would store. Of an image that Pillow has loaded already, and of
        an array, it is what `pack` would store with `exact`: large JPEGs are decoded at a reduced size only from their
        file, which differs by some grey levels.

    Raises:
        DecodeError: The picture cannot be read or decoded.
        SizeError: It has another size than the images of the pack, which was packed without a size.
        PackError: The pack does not say how its pictures were prepared, or its decoder is not given.
        OSError: The disk, or the network to it, fails.
    """
    opened = _opened(pack)
    how = _pixels_of(opened)
    if isinstance(picture, _FILES):
        how = replace(how, decoder=_decoder_for(opened, decoder))
    row = np.empty(opened.shape, opened.dtype)
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


def _decoder_for(pack: PackedImages, given: Any) -> Decoder | None:
    """Return the decoder of new files, which must be given if a pack was made with one."""
    name = pack.header.settings.get("decoder")
    if name is not None and given is None:
        raise PackError(f"{pack.path}: expected the decoder that it was packed with, {name}, found none; give decoder=")
    return None if given is None else decoder_of(given)


def _pixels_of(pack: PackedImages) -> Pixels:
    """How the pictures of a pack were prepared, apart from a decoder of the user.

    Warn if other versions of the decoders are installed here.
    """
    given = stored_settings(pack.header.settings)
    missing = [name for name in ("size", *_OPTIONS) if name not in given]
    if missing:
        raise PackError(f"{pack.path}: expected the settings of its pictures, found no {missing[0]}; pack it again")
    others = versions.others(pack.header.packed_by)
    if others:
        warnings.warn(
            f"prepare: expected the decoders of {pack.path}, {', '.join(others)}, found others; pixels may differ",
            stacklevel=3,
        )
    size = given.pop("size")
    return pixels_of(None if size is None else (size[0], size[1]), **given | {"decoder": None})


def _decode(picture: Given, how: Pixels, out: NDArray[Any]) -> None:
    """Write the row of a picture to `out`: from its file if there is one, or else from its pixels."""
    if isinstance(picture, str | os.PathLike):
        decode(read(os.fspath(picture), how)[0], how, out)
        return
    if isinstance(picture, bytes | bytearray | memoryview):
        decode(bytes(picture), how, out)
        return
    held = as_picture(picture, any_bands=how.color == "all")
    width, height = held.size if isinstance(held, Image.Image) else held.shape[1::-1]
    check_pixels(width, height, how)
    if not isinstance(held, Image.Image) and held.dtype != np.uint8 and not (how.keeps_values or how.range):
        raise DecodeError(f"expected uint8 pixels, as the pack has, found {held.dtype}; give the file, or 8 bits")
    pixels, _ = decode_held(held, how)
    if pixels.shape[2] != out.shape[2]:
        raise DecodeError(f"{count(pixels.shape[2], 'band')}: expected {out.shape[2]}, as the pack has")
    if pixels.shape != out.shape:
        raise SizeError(f"{pixels.shape[1]}x{pixels.shape[0]}")
    out[...] = pixels
