"""Fit a picture of Pillow's to the stored size: stretch, crop or pad."""

from __future__ import annotations

from PIL import Image, ImageColor, ImageOps

from pack_images.settings import Pixels


def fitted_picture(image: Image.Image, how: Pixels, fill: float | None = None) -> Image.Image:
    """Fit a picture to `how.size`, if there is one.

    Args:
        image: In any mode that Pillow resizes.
        how: Gives size, fit, filter and background.
        fill: What `pad` fills with, for a single band. None: the background.
    """
    if how.size is None or image.size == how.size:
        return image
    method = Image.Resampling[how.interpolation.upper()]
    if how.fit == "crop":
        return ImageOps.fit(image, how.size, method)
    if how.fit == "pad":
        own = fill if image.mode == "F" or fill is None else int(fill)
        return _pad(image, how.size, method, _background(image.mode, how) if own is None else own)
    return image.resize(how.size, method)


def _background(mode: str, how: Pixels) -> float | tuple[int, ...]:
    """Return the background as a pixel of a mode; black and transparent if the user gave none."""
    if how.background is None:
        return 0
    found = ImageColor.getcolor(how.background, mode)
    return found if isinstance(found, int) else tuple(found)


def _pad(
    image: Image.Image, size: tuple[int, int], method: Image.Resampling, fill: float | tuple[int, ...]
) -> Image.Image:
    """Scale a picture into `size` and centre it on the background.

    Like `ImageOps.pad`, but a very thin picture keeps a width or height of at least 1 pixel.
    """
    width = min(size[0], max(1, round(image.width / image.height * size[1])))
    height = min(size[1], max(1, round(image.height / image.width * size[0])))
    padded = Image.new(image.mode, size, fill)
    padded.paste(image.resize((width, height), method), (round((size[0] - width) / 2), round((size[1] - height) / 2)))
    return padded
