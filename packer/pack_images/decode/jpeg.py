"""What the head of a JPEG says, read without decoding it."""

from __future__ import annotations

import contextlib

import simplejpeg

_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # JPEG markers: SOF
_SEQUENTIAL = frozenset((0xC0, 0xC1))


def jpeg_header(data: bytes) -> tuple[int, int, str] | None:
    """(height, width, colour space) of a JPEG that simplejpeg decodes as Pillow does; None of any other file."""
    if not data.startswith(b"\xff\xd8"):
        return None
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
    except (ValueError, KeyError):  # KeyError: a chroma subsampling that it has no name for
        return None
    return None if space in ("CMYK", "YCCK") else (height, width, space)


def jpeg_outline(data: bytes) -> tuple[bool, bool]:
    """Whether a JPEG has an APP1 segment (EXIF or XMP, with the orientation), and whether it has several scans."""
    at, has_app1, components, is_sequential = 2, False, 0, True
    with contextlib.suppress(IndexError):
        while data[at] == 0xFF:
            marker = data[at + 1]
            if marker == 0xDA:  # the picture itself begins
                return has_app1, not is_sequential or data[at + 4] < components
            if marker == 0xE1:
                has_app1 = True
            elif marker in _FRAMES:
                is_sequential, components = marker in _SEQUENTIAL, data[at + 9]
            at += 2 + (data[at + 2] << 8 | data[at + 3])
    return b"\xff\xe1" in data, True  # not a plain list of segments: assume both
