"""Find out whether a file has more pages or frames than the first, which is the only one packed."""

from __future__ import annotations

import contextlib
import re
from itertools import islice
from typing import Any

from PIL import Image

from pack_images.decode.tiff import Tag, description, directories

_COUNTED_BY_PILLOW = frozenset(("PNG", "WEBP", "AVIF", "FLI", "DCX", "IM"))  # Pillow has counted the frames on opening
_SUBFILE_TYPE, _OLD_SUBFILE_TYPE, _WIDTH, _JPEG_THUMBNAIL, _STRIPS = 254, 255, 256, 513, 273  # TIFF tags
_STACK = re.compile(rb"ImageJ=[^\0]*\nimages=(?!1\n)\d|" rb'\{"shape": \[[^\0]*"truncated": true')  # in a description
_REDUCED_OR_MASK = 1 | 4  # bits of _SUBFILE_TYPE
_GIF_IMAGE, _GIF_EXTENSION, _GIF_END = b",!;"
_MPO_ENTRIES = 0xB002  # tag in the index of an MPO


def has_more_pages(image: Image.Image, data: bytes) -> bool:
    """Return whether a file has a second page or frame. The search stops there.

    Not counted: the sizes of an icon, the layers of a PSD, reduced copies and masks in a TIFF, and the previews, depth
    maps and gain maps that accompany a photograph in an MPO.

    Args:
        image: The file, opened by Pillow.
        data: The bytes of the file.
    """
    if image.format in _COUNTED_BY_PILLOW:
        return bool(getattr(image, "is_animated", False))
    if image.format == "MPO":
        return _has_views(image)
    if image.format == "TIFF":
        return tiff_has_more_pages(data)
    if image.format == "GIF":
        with contextlib.suppress(IndexError):  # a truncated file may end anywhere after the first frame
            return _has_second_frame(data)
    return False


def tiff_has_more_pages(data: bytes) -> bool:
    """Return whether a TIFF has a second page, apart from reduced copies and masks."""
    others = islice(directories(data), 1, None)
    return any(_is_tiff_page({tag.number: tag for tag in tags}) for tags in others) or is_stack(data)


def is_stack(data: bytes) -> bool:
    """Return whether pages of a TIFF lie behind one directory, as ImageJ and tifffile write large stacks."""
    return _STACK.match(description(data)) is not None


def _has_second_frame(data: bytes) -> bool:
    """Return whether a GIF has two images.

    Pillow could tell only by opening the file a second time.
    """
    at, frames = 13 + _palette_bytes(data[10]), 0
    while data[at] != _GIF_END:
        if data[at] == _GIF_IMAGE:
            frames += 1
            if frames == 2:
                return True
            at += 11 + _palette_bytes(data[at + 9])
        elif data[at] == _GIF_EXTENSION:
            at += 2
        else:  # unknown byte: skip it, as Pillow does
            at += 1
            continue
        while data[at]:  # data blocks, each after a byte with its length
            at += 1 + data[at]
        at += 1
    return False


def _palette_bytes(flags: int) -> int:
    """Return the size of a palette in bytes."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _has_views(image: Any) -> bool:
    """Return whether an MPO has several views of one scene, such as those of a stereo camera."""
    entries = image.mpinfo.get(_MPO_ENTRIES, [])
    kinds = [str(entry.get("Attribute", {}).get("MPType", "")) for entry in entries]
    return sum(kind.startswith("Multi-Frame") for kind in kinds) > 1


def _is_tiff_page(tags: dict[int, Tag]) -> bool:
    def value(number: int) -> int:
        return (tags[number].value or 0) if number in tags else 0

    if value(_SUBFILE_TYPE) & _REDUCED_OR_MASK or value(_OLD_SUBFILE_TYPE) == 2:
        return False
    return _WIDTH in tags and not (_JPEG_THUMBNAIL in tags and _STRIPS not in tags)
