"""Read the header of a JPEG without decoding the picture."""

from __future__ import annotations

import contextlib

import simplejpeg

_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # start of frame (SOF): size, components, coding
_SEQUENTIAL_MARKERS = frozenset((0xC0, 0xC1))


def jpeg_header(data: bytes) -> tuple[int, int, str] | None:
    """Return (height, width, colour space) of a JPEG.

    None if the file is no JPEG, or simplejpeg does not decode it to the same pixels as Pillow.
    """
    if not data.startswith(b"\xff\xd8"):
        return None
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
    except (ValueError, KeyError):  # KeyError: an unusual chroma subsampling
        return None
    return None if space in ("CMYK", "YCCK") else (height, width, space)


def jpeg_outline(data: bytes) -> tuple[tuple[int, int] | None, bool, bool]:
    """Return the (height, width) of a JPEG, whether it has an APP1 segment, and whether it may have several scans.

    The size is None if the file is no JPEG in grey or three colours, or not a plain list of segments. APP1 holds EXIF
    and XMP, which may contain the orientation. This takes 2 us, a twentieth of decoding 64x64 pixels.
    """
    at, has_app1, size, components, is_sequential = 2, False, None, 0, True
    with contextlib.suppress(IndexError):
        while data[at] == 0xFF:
            marker = data[at + 1]
            if marker == 0xDA:  # start of scan: the header ends here
                return size, has_app1, not is_sequential or data[at + 4] < components
            if marker == 0xE1:
                has_app1 = True
            elif marker in _FRAME_MARKERS:
                is_sequential, components = marker in _SEQUENTIAL_MARKERS, data[at + 9]
                if components in (1, 3):
                    size = data[at + 5] << 8 | data[at + 6], data[at + 7] << 8 | data[at + 8]
            at += 2 + (data[at + 2] << 8 | data[at + 3])
    return None, b"\xff\xe1" in data, True  # not a plain list of segments: assume the worst
