"""Decode the bytes of one file into one row, (H, W, C) of uint8, uint16 or float32.

A row depends only on the bytes of the file and on `Pixels`. With uint8 and the colours `rgb`, `grayscale` and `rgba`,
it holds the pixels that Pillow decodes, as follows:

=========================  ============================================================================================
the file                   the row
=========================  ============================================================================================
EXIF orientation           applied: the picture stands upright
1-bit, grey, palette       expanded to the channels stored; 1-bit to 0 and 255
transparency               composited on the background (black), in whatever form (RGBA, LA, a palette with alpha, a
                           transparent colour); with ``--color rgba`` it is the fourth channel, and opaque images have
                           255 there
16-bit grey and RGB        the high byte of each sample, so 65535 becomes 255; nothing saturates (Pillow rounds a PPM
                           instead). 32-bit integers are treated as 16-bit values, because Pillow reads a 16-bit PGM
                           as 32-bit integers. Where white is zero in a TIFF, it becomes 255
float grey                 rounded; values outside 0 to 255 are clipped, NaN is 0
CMYK, YCCK, YCbCr, HSV     converted to RGB by Pillow's formulas; Adobe's inverted CMYK is handled
LAB                        converted to sRGB through LittleCMS
colour to grey             ITU-R 601-2 luma of the RGB picture
ICC profiles               ignored: samples are used as stored; profiles and texts may have any size
GIF, APNG, TIFF, MPO, ...  the first frame
a wrong extension          ignored: the content decides, among the formats that folders are searched for
12-bit JPEG                left out: libjpeg-turbo's 8-bit interface does not decode it
HEIC                       decoded by libheif, if pillow-heif is installed: turned upright, 10 bits cut to 8
=========================  ============================================================================================

With ``--range``, what has more than 8 bits is scaled instead of cut: LOW becomes 0, HIGH 255, NaN 0.

Where values are kept (``--dtype uint16`` or ``float32``, ``--color index`` or ``all``), a row has them as follows:

=========================  ============================================================================================
stored as                  the values
=========================  ============================================================================================
``all``                    every band as the file has it, also transparency, which is not applied. A palette becomes
                           its colours, 1 bit becomes 0 and 1. TIFFs are read by tifffile: 1 to 64 bits, integers and
                           floats, planar and chunky; the first page, or all pages as bands (``--pages bands``)
``index``                  palette numbers, or grey values, from 0 also where they have 1, 2 or 4 bits; no filter mixes
                           them. Colours leave a file out
uint16, colours            16 bits as they are; 8 bits times 257, so that 255 is 65535; 9 to 15 bits as they are
uint16, all or index       every value as it is, 8 bits too
float32                    every value as it is, also NaN: 8 bits are 0 to 255, 16 bits 0 to 65535
white and opaque           the largest number of the bits of the file, such as 1023 of 10 bits; 1 of floats
values that do not fit     leave a file out: floats in uint16, numbers beyond 65535, and, in float32, integers that it
                           does not hold exactly. Floats of 64 bits are rounded to float32
uint8, all                 more than 8 bits as above: the high byte, or what ``--range`` says
a fourth band              transparency only if the file says so (ExtraSamples), or ``rgba`` takes it from the user's
                           decoder; else colours leave the file out, and ``all`` keeps it
.npy, .npz                 one array (H, W) or (H, W, C); no pickles
=========================  ============================================================================================

The filters work on floats for uint16 and float32, and on bytes for uint8, on each band by itself. Transparent colours
weigh as much as they are opaque. A NaN makes every pixel NaN that its filter reaches.

Then the picture is fitted to the stored size. A JPEG that is at least 6, 8, 12 or 24 times the stored size in both
directions is decoded at 1/2, 3/8, 1/4 or 1/8 of its size (libjpeg's scaled decoding), which leaves at least three times
the stored size for the filter. That is at least 2.4 times faster, and differs by 0.2 to 0.7 grey levels on average.
`Pixels.exact` turns it off.

A `Loss` reports five kinds of information that a row cannot hold:

- Levels: samples have more than 8 bits, and several of their values became the same. So 12 bits in a 16-bit file, or
  floats from 0 to 1, are a loss; 8 bits multiplied by 257 are none. All values in the picture at its original size
  count, in any channel. If the original samples cannot be read (AVIF, JPEG 2000 in colour, SGI, PPM in digits, TIFF
  multiplied by its alpha), the loss gives the number of bits and counts nothing.
- Pages: the file has a second page or frame. These do not count: sizes of an icon, layers of a PSD, reduced copies and
  masks in a TIFF, and the previews, depth maps and gain maps that accompany a photograph.
- Bands: a TIFF has bands that are neither grey, colours nor transparency, such as infrared.
- Transparency: the picture had visible content but is a single colour on the background, such as black strokes on
  black.
- Truncation: the file is cut short, and the user allowed it: what Pillow decodes of it is kept. TIFFs that tifffile
  reads, and arrays, are left out all the same.

Changes that the user asked for (another size, grey instead of colour) and colour conversions are not losses.

simplejpeg (libjpeg-turbo) decodes JPEGs to the same pixels as Pillow at twice its speed. It is stricter than Pillow
and does not support CMYK, so Pillow decodes the files that simplejpeg refuses (at 1/2 in place of 3/8, which Pillow
does not offer). Pillow also reads the EXIF data, if there is any.
"""

from __future__ import annotations

from typing import Any

import simplejpeg
from numpy.typing import NDArray

from h5split.file.losses import Loss
from h5split.system.text import count
from pack_images.decode.jpeg import jpeg_outline
from pack_images.errors import DecodeError, SizeError
from pack_images.settings import Pixels, Shape


def shape_of(data: bytes, how: Pixels) -> Shape:
    """Return the (H, W, C) of a row: from `how` if it says all of it, else from the picture.

    Raises:
        DecodeError: The file cannot be decoded.
    """
    if how.shape is not None:
        return how.shape
    height, width, channels = decoded(data, how)[0].shape
    return height, width, channels


def decode(data: bytes, how: Pixels, out: NDArray[Any]) -> Loss | None:
    """Decode a file into a row.

    Args:
        data: The whole file.
        how: Size, colours and so on.
        out: The row to write: (H, W, C) of the stored type, contiguous. After an error it may be partly written.

    Returns:
        The information lost; None if nothing was lost.

    Raises:
        DecodeError: The file cannot be decoded, or has another number of bands than `out`.
        SizeError: The picture has another size than `out`, and `how.size` is None.
    """
    if _decode_in_place(data, how, out):
        return None
    pixels, loss = decoded(data, how)
    if pixels.shape[2] != out.shape[2]:
        raise DecodeError(f"{count(pixels.shape[2], 'band')}: expected {out.shape[2]}, as other pictures have")
    if pixels.shape != out.shape:
        raise SizeError(f"{pixels.shape[1]}x{pixels.shape[0]}")
    out[...] = pixels
    return loss


def decoded(data: bytes, how: Pixels) -> tuple[NDArray[Any], Loss | None]:
    """Return what `decode` writes, (H, W, C), and what was lost. A picture has its own size if `how` has none.

    Raises:
        DecodeError: The file cannot be decoded.
    """
    # Imported here: Pillow loads in 30 ms, and small JPEGs need none.
    if how.keeps_values or how.range is not None or how.decoder is not None:
        from pack_images.decode.values import decoded as decode_any
    else:
        from pack_images.decode.picture import decoded as decode_any
    try:
        return decode_any(data, how)
    except DecodeError as error:
        if not how.allow_truncated:
            raise
        from pack_images.decode.truncated import decoded_in_part

        return decoded_in_part(decode_any, data, how, error)


def _decode_in_place(data: bytes, how: Pixels, out: NDArray[Any]) -> bool:
    """Decode a JPEG that has the stored size directly into its row, without a copy.

    Return False for any other file, and for a JPEG whose header may ask for more, such as turning it.
    """
    if how.color != "rgb" or how.dtype != "uint8" or how.decoder is not None:
        return False
    size, has_app1, may_have_scans = jpeg_outline(data)
    if size != out.shape[:2] or has_app1 or may_have_scans or size[0] * size[1] > how.max_pixels:
        return False
    try:
        found = simplejpeg.decode_jpeg(data, "RGB", buffer=out)
    except (ValueError, KeyError):  # KeyError: an unusual chroma subsampling
        return False
    return bool(found.shape == out.shape)  # or the outline has another size than libjpeg found
