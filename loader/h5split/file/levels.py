"""Which values of pixels are dark and which are bright, so that images of any type and any bands can be looked at.

Pixels of uint8 in 1, 3 or 4 channels are pictures already, and are shown as they are. Of all others a few bands are
shown. If they are not uint8, values are stretched: the 2nd percentile of a band becomes black and the 98th white. The
percentiles are those of a sample of the whole pack, so equal values look equal in all its images. NaN is black.

The numbers of masks (``--color index``) are names of classes, no brightness: each has a colour.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from h5split.errors import ArgumentError
from h5split.file.format import USUAL_CHANNELS
from h5split.system.text import listed

WHITE = 255.0  # the grey level of the brightest values
_PERCENTILES = 2, 98
_SAMPLE_ROWS = 64
_SAMPLE_PIXELS = 1 << 14  # of each of these rows, at most
_COLORS = 3
_COLORS_OF_NUMBERS = bytes.fromhex(  # of masks, from 1 on; then they begin again
    "e6194b 3cb44b ffe119 4363d8 f58231 911eb4 42d4f4 f032e6 bfef45 fabed4 469990 dcbeff 9a6324 800000 aaffc3 808000 "
    "ffd8b1 a9a9a9"
)
_UNLABELLED = 255  # a number that many data sets give to pixels without a class
_BEYOND = 4.0  # how far beyond black and white values count for the brightness, in ranges between these


class Source(Protocol):
    """What is used here of a pack, or of several."""

    @property
    def shape(self) -> tuple[int, int, int]: ...  # noqa: D102  # documented in PackedImages, as all that follow
    @property
    def dtype(self) -> np.dtype[Any]: ...  # noqa: D102
    @property
    def settings(self) -> Mapping[str, Any]: ...  # noqa: D102
    def __len__(self) -> int: ...
    def view(self, first: int, count: int) -> NDArray[Any] | None: ...  # noqa: D102


@dataclass(frozen=True)
class Levels:
    """How images of a pack are looked at.

    Attributes:
        bands: The numbers of the channels that are shown: one or three, or all if the pixels are a picture already.
        limits: The values of each channel that become black and white: float64 (C, 2).
        is_stretched: Whether they do; else values are shown as they are.
        are_numbers: Whether pixels are the numbers of masks, which are shown in colours.
    """

    bands: tuple[int, ...]
    limits: NDArray[np.float64]
    is_stretched: bool
    are_numbers: bool = False

    @property
    def colors(self) -> tuple[int, ...]:
        """The channels that are shown, without opacity."""
        return self.bands[:_COLORS]

    @property
    def ranges(self) -> NDArray[np.float64]:
        """The difference between black and white of each channel: float64 (C,)."""
        found: NDArray[np.float64] = self.limits[:, 1] - self.limits[:, 0]
        return found

    def picture(self, pixels: NDArray[Any]) -> NDArray[np.uint8]:
        """What is shown of images: uint8 (..., B), where B is 1, 3 or 4.

        Args:
            pixels: (..., C), of the type of the pack; or means of them, if they are stretched.
        """
        if self.are_numbers:
            return _colored(pixels[..., 0])
        shown = pixels if len(self.bands) == pixels.shape[-1] else pixels[..., list(self.bands)]
        if not self.is_stretched:
            return shown
        at = list(self.bands)
        with np.errstate(invalid="ignore", over="ignore"):  # of NaN and infinity
            scaled = (shown - self.limits[at, 0]) * (WHITE / self.ranges[at])
        found: NDArray[np.uint8] = np.nan_to_num(scaled.clip(0, WHITE), nan=0).round().astype(np.uint8)
        return found

    def brightness(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        """The mean of all bands, where black is 0 and white 255: float32 (...). Values beyond them count too.

        Args:
            pixels: (..., C), of the type of the pack.
        """
        with np.errstate(invalid="ignore", over="ignore"):
            scaled = (pixels - self.limits[:, 0]) * (WHITE / self.ranges)
        within = np.nan_to_num(scaled.clip(-_BEYOND * WHITE, (1 + _BEYOND) * WHITE), nan=0)
        found: NDArray[np.float32] = within.mean(axis=-1, dtype=np.float32)
        return found


def is_picture(source: Source) -> bool:
    """Whether the pixels are a picture as they are: uint8 in grey, RGB or RGBA."""
    channels = source.shape[2]
    are_bands = channels not in USUAL_CHANNELS or (channels > _COLORS and source.settings.get("color") == "all")
    return source.dtype == np.uint8 and not are_bands


def levels_of(source: Source, bands: Sequence[int] | None = None) -> Levels:
    """How images of a pack are looked at. A sample of its pixels is read if they are no picture as they are.

    Args:
        source: The pack, or the packs.
        bands: The channels to show, one or three, counted from 1. None: the first three, or the first of fewer; masks
            in colours.

    Raises:
        ValueError: There are no such bands.
        FormatError: A file was truncated since it was opened.
    """
    channels = source.shape[2]
    if bands is not None:
        shown = _checked(bands, channels)
    elif is_picture(source):
        shown = tuple(range(channels))
    else:
        shown = tuple(range(_COLORS)) if channels >= _COLORS else (0,)
    is_mask = source.settings.get("color") == "index" and source.dtype.kind == "u" and channels == 1
    are_numbers = is_mask and bands is None
    if source.dtype == np.uint8:
        return Levels(shown, np.tile([0.0, WHITE], (channels, 1)), is_stretched=False, are_numbers=are_numbers)
    return Levels(shown, _limits(_sample(source)), is_stretched=True, are_numbers=are_numbers)


def _colored(numbers: NDArray[Any]) -> NDArray[np.uint8]:
    """The colours of numbers: uint8 (..., 3). 0 is black, and 255 white.

    Args:
        numbers: Unsigned integers (...).
    """
    colors = np.frombuffer(_COLORS_OF_NUMBERS, np.uint8).reshape(-1, _COLORS)
    found: NDArray[np.uint8] = colors[(numbers.astype(np.int64) - 1) % len(colors)]
    found[numbers == 0] = 0
    found[numbers == _UNLABELLED] = int(WHITE)
    return found


def _checked(bands: Sequence[int], channels: int) -> tuple[int, ...]:
    """The numbers of bands, counted from 0."""
    are_whole = all(isinstance(band, (int, np.integer)) and not isinstance(band, bool) for band in bands)
    if not are_whole or len(bands) not in (1, _COLORS) or not all(1 <= band <= channels for band in bands):
        raise ArgumentError(
            f"bands: expected one or three numbers from 1 to {channels}, found {listed([str(band) for band in bands])}"
        )
    return tuple(int(band) - 1 for band in bands)


def _sample(source: Source) -> NDArray[Any]:
    """Some pixels of rows from everywhere in a pack: (M, C)."""
    rows = np.unique(np.linspace(0, len(source) - 1, _SAMPLE_ROWS).astype(np.int64))
    parts = []
    for row in rows.tolist():
        image = source.view(row, 1)
        assert image is not None  # a single row is in one file
        pixels = image.reshape(-1, image.shape[-1])
        parts.append(pixels[:: -(-len(pixels) // _SAMPLE_PIXELS)])
    return np.concatenate(parts)


def _limits(sample: NDArray[Any]) -> NDArray[np.float64]:
    """The values of each channel that become black and white: float64 (C, 2)."""
    found = []
    for values in sample.T:
        finite = values[np.isfinite(values)].astype(np.float64)
        low, high = np.percentile(finite, _PERCENTILES) if len(finite) else (0.0, 1.0)
        if low == high:  # such as a mask, nearly all of which is 0
            low, high = finite.min(), finite.max()
        found.append((low, high if high > low else low + max(1.0, abs(low))))
    return np.array(found)
