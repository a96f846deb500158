"""Decode the bytes of one file into one uint8 (H, W, C) row.

A row depends on the file's bytes and on `Pixels` alone. It holds what Pillow makes of the file:

=========================  ============================================================================================
the file                   the row
=========================  ============================================================================================
EXIF orientation           applied: the picture stands upright
1-bit, grey, palette       expanded to the channels stored; 1-bit to 0 and 255
transparency               composited on black, wherever it comes from (RGBA, LA, a palette with alpha, a transparent
                           colour); with ``--color rgba`` it is the fourth channel, and opaque images have 255 there
16-bit grey and RGB        the high byte of each sample, so 65535 becomes 255; nothing saturates (Pillow rounds a PPM
                           instead). So too for 32-bit integers, whose range is taken to be that of 16 bits, as a
                           16-bit PGM has it
float grey                 rounded, taken to lie in 0 to 255; what lies outside is clipped, NaN is 0
CMYK, YCCK, YCbCr, HSV     converted to RGB by Pillow's formulas; Adobe's inverted CMYK is known
LAB                        converted to sRGB through LittleCMS
colour to grey             ITU-R 601-2 luma, of the RGB picture
ICC profiles               ignored: numbers are taken as they are stored; profiles and texts may be of any size
GIF, APNG, TIFF, MPO, ...  the first frame
a wrong extension          ignored: the content decides, among the formats that folders are searched for
12-bit JPEG                not decoded by libjpeg-turbo's 8-bit interface: left out
=========================  ============================================================================================

Then the picture is fitted to the stored size. A JPEG that is at least 6, 8, 12 or 24 times the stored size in both
directions is decoded at 1/2, 3/8, 1/4 or 1/8 of its size (libjpeg's scaled decoding), which leaves at least three times
the stored size for the filter: 2.4 times faster or more, and 0.2 to 0.7 grey levels away on average. `Pixels.exact`
turns that off.

Three kinds of loss are reported with a row, as a `Loss`:

- Levels: samples have more than 8 bits, and several of their values became one. So 12 bits in a 16-bit file, or floats
  from 0 to 1, are a loss; 8 bits that were multiplied by 257 are not. Values are counted over all channels, at the
  picture's own size. Where Pillow does not give them as they are in the file (AVIF, JPEG 2000 in colour, SGI, PPM in
  digits, TIFF multiplied by its alpha), the loss says that more than 8 bits were cut, without counts.
- Pages: the file has a second page or frame. The sizes of an icon, the layers of a PSD, reduced copies and masks in a
  TIFF, and the previews, depth and gain maps beside a photograph do not count as pages.
- Transparency: on black, only one colour is left of a picture that had something to see, such as black strokes.

A change that was asked for (another size, grey for colour) is not a loss, nor is the conversion of colours.

JPEGs are decoded by simplejpeg (libjpeg-turbo), which gives the same pixels as Pillow at twice its speed. It is
stricter than Pillow and does not know CMYK, so a file that it refuses goes to Pillow (which has no 3/8, and takes 1/2).
Pillow also reads EXIF.
"""

from __future__ import annotations

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from h5split.file.losses import Loss
from pack_images.decode.jpeg import jpeg_header, jpeg_outline
from pack_images.errors import SizeError
from pack_images.settings import Pixels, Shape


def shape_of(data: bytes, how: Pixels) -> Shape:
    """The (H, W, C) of the row that a file becomes: `how.shape`, or the picture's own if `how` has no size.

    Raises:
        DecodeError: It cannot be decoded.
    """
    if how.shape is not None:
        return how.shape
    from pack_images.decode.picture import decoded  # Pillow, which takes 30 ms to load and small JPEGs do without

    height, width, channels = decoded(data, how)[0].shape
    return height, width, channels


def decode(data: bytes, how: Pixels, out: NDArray[np.uint8]) -> Loss | None:
    """Decode a file into a row.

    Args:
        data: The whole file.
        how: Size, colours and so on.
        out: uint8 (H, W, C), contiguous; written whole or, after an error, in part.

    Returns:
        What the picture lost; None if nothing.

    Raises:
        DecodeError: It cannot be decoded.
        SizeError: The picture is not of the size of `out` and `how.size` is None.
    """
    if _decode_in_place(data, how, out):
        return None
    from pack_images.decode.picture import decoded

    pixels, loss = decoded(data, how)
    if pixels.shape != out.shape:
        raise SizeError(f"{pixels.shape[1]}x{pixels.shape[0]}")
    out[...] = pixels
    return loss


def _decode_in_place(data: bytes, how: Pixels, out: NDArray[np.uint8]) -> bool:
    """Decode a JPEG of the stored size straight into its row; False if the file is anything else."""
    header = jpeg_header(data)
    if header is None or how.color != "rgb" or header[:2] != out.shape[:2] or header[0] * header[1] > how.max_pixels:
        return False
    if any(jpeg_outline(data)):
        return False
    try:
        simplejpeg.decode_jpeg(data, "RGB", buffer=out)
    except ValueError:
        return False
    return True
