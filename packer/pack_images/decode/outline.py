"""Read the size and the orientation of a JPEG, PNG or TIFF from its first bytes, without decoding anything."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from pack_images.decode.guards import exif_pieces
from pack_images.decode.jpeg import jpeg_outline
from pack_images.decode.tiff import directories, is_tiff

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_HEADING = struct.Struct(
    ">8xI4sIIBB"
)  # signature, length and kind of the first chunk, width, height, bits, colours
_PALETTE = 3  # colour type of a PNG
_CHUNK = struct.Struct(">I4s")  # length and kind of a chunk
_WIDTH, _HEIGHT, _ORIENTATION = 256, 257, 274  # TIFF tags


@dataclass(frozen=True)
class Outline:
    """What the first bytes of a picture say.

    Attributes:
        size: (width, height) before the picture is turned upright; None if it is not known.
        orientation: From 1 to 8, as in EXIF; 1 if there is none.
        is_palette_png: Whether it is a PNG with numbers of a palette.
    """

    size: tuple[int, int] | None = None
    orientation: int = 1
    is_palette_png: bool = False


def outline(head: bytes) -> Outline:
    """Return what the first bytes of a file say. Of other formats, and of damaged files, nothing is known."""
    if head.startswith(b"\xff\xd8"):
        size = jpeg_outline(head)[0]
        tags = _tags(b"".join(exif_pieces(head)))
        return Outline(None if size is None else (size[1], size[0]), _orientation(tags))
    if head.startswith(_PNG) and len(head) >= _PNG_HEADING.size:
        _, _, width, height, _, kind = _PNG_HEADING.unpack_from(head)
        return Outline((width, height), _orientation(_tags(_exif_of_png(head))), kind == _PALETTE)
    if is_tiff(head):
        tags = _tags(head)
        width, height = tags.get(_WIDTH, 0), tags.get(_HEIGHT, 0)
        return Outline((width, height) if width and height else None, _orientation(tags))
    return Outline()


def _tags(data: bytes) -> dict[int, int]:
    """Return the tags of the first directory that are single whole numbers."""
    return {tag.number: tag.value for tag in next(directories(data), ()) if tag.value is not None}


def _orientation(tags: dict[int, int]) -> int:
    found = tags.get(_ORIENTATION, 1)
    return found if 1 <= found <= 8 else 1


def _exif_of_png(head: bytes) -> bytes:
    """Return the EXIF data of a PNG, if it is among the chunks before the pixels."""
    at = len(_PNG)
    while at + _CHUNK.size <= len(head):
        length, kind = _CHUNK.unpack_from(head, at)
        if kind == b"IDAT":
            break
        if kind == b"eXIf":
            return head[at + _CHUNK.size : at + _CHUNK.size + length]
        at += _CHUNK.size + length + 4  # a checksum follows
    return b""
