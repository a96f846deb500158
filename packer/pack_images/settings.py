"""The user's choices that affect the content of the output."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from pack_images.about import MAX_PIXELS
from pack_images.errors import PackError
from pack_images.functions import Decoder

CHANNELS = {"rgb": 3, "grayscale": 1, "rgba": 4}
COLORS = (*CHANNELS, "index", "all")
DTYPES = {"uint8": 1, "uint16": 2, "float32": 4}  # bytes of a sample
PAGES = ("first", "bands")
FITS = ("stretch", "crop", "pad")
INTERPOLATIONS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
ORDERS = ("stratified", "sorted")
LABELS = ("auto", "subfolder", "parent", "path", "root", "none")

Fit = Literal["stretch", "crop", "pad"]
Interpolation = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
Color = Literal["rgb", "grayscale", "rgba", "index", "all"]
DType = Literal["uint8", "uint16", "float32"]
Pages = Literal["first", "bands"]
Order = Literal["stratified", "sorted"]
Labels = Literal["auto", "subfolder", "parent", "path", "root", "none"]
Shape = tuple[int, int, int]


# Settings that came after the first version, with the value that means what packing did then. A pack says them only if
# they differ, so that it has the same bytes as before.
_LATER: dict[str, Any] = {
    "dtype": "uint8",
    "range": None,
    "background": None,
    "allow_truncated": False,
    "pages": "first",
    "decoder": None,
}
_FIRST = ("fit", "interpolation", "color", "exact", "max_pixels")
_COLOR_CODE = re.compile("#[0-9a-f]{6}")


@dataclass(frozen=True)
class Pixels:
    """How a picture becomes a row.

    Attributes:
        size: Stored (width, height). None: all images have the same size already.
        fit: How to fit a picture with another aspect ratio: `stretch`, `crop` (centred) or `pad` (with `background`).
        interpolation: One of Pillow's filters, antialiased. `index` takes `nearest`.
        color: `rgb`, `grayscale` or `rgba`; `index`: palette numbers or grey values as they are; `all`: every band.
        exact: Never decode a large JPEG at a reduced size, which is faster but slightly different.
        max_pixels: Pictures with more pixels are refused.
        dtype: The type of the stored samples.
        range: (low, high): what becomes 0 and 255 of pictures with more than 8 bits. None: the high byte of 16 bits,
            and floats as they are.
        background: What transparency lies on, and what `pad` fills with, as `#rrggbb`. None: black.
        allow_truncated: Keep what there is of a picture that is cut short.
        pages: `bands`: the pages of a TIFF are bands of one picture. `first`: the first page is the picture.
        decoder: The user's own decoder, in place of all others.
    """

    size: tuple[int, int] | None = None
    fit: Fit = "stretch"
    interpolation: Interpolation = "bilinear"
    color: Color = "rgb"
    exact: bool = False
    max_pixels: int = MAX_PIXELS
    dtype: DType = "uint8"
    range: tuple[float, float] | None = None
    background: str | None = None
    allow_truncated: bool = False
    pages: Pages = "first"
    decoder: Decoder | None = None

    def __post_init__(self) -> None:
        _check_known("fit", self.fit, FITS)
        _check_known("interpolation", self.interpolation, INTERPOLATIONS)
        _check_known("color", self.color, COLORS)
        _check_known("dtype", self.dtype, tuple(DTYPES))
        _check_known("pages", self.pages, PAGES)
        if self.size is not None and not (
            len(self.size) == 2 and all(isinstance(side, int) and 0 < side < 1 << 16 for side in self.size)
        ):
            raise PackError(f"size: expected a width and a height from 1 to 65535, found {self.size!r}")
        if self.max_pixels < 1:
            raise PackError(f"max_pixels: expected 1 or more, found {self.max_pixels}")
        self._check_together()

    def _check_together(self) -> None:
        """Refuse options that do not apply to each other."""
        if self.color == "index" and self.interpolation != "nearest":
            raise PackError(
                f"interpolation: expected nearest with color index, found {self.interpolation}, which mixes numbers; "
                "leave it out"
            )
        if self.range is not None:
            low, high = self.range
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise PackError(f"range: expected LOW:HIGH, two numbers with LOW below HIGH, found {low}:{high}")
            if self.dtype != "uint8" or self.color == "index":
                found = f"dtype {self.dtype}" if self.dtype != "uint8" else "color index"
                raise PackError(f"range: expected 8-bit pictures to scale to, found {found}, which keeps values")
        if self.pages == "bands" and self.color != "all":
            raise PackError(f"pages: expected color all for pages as bands, found {self.color}")
        if self.pages == "bands" and self.decoder is not None:
            raise PackError(f"pages: expected first beside a decoder, which returns all bands, found {self.pages}")
        if self.background is not None:
            self._check_background(self.background)

    def _check_background(self, code: str) -> None:
        if not _COLOR_CODE.fullmatch(code):
            raise PackError(f"background: expected a colour such as white or #ffffff, found {code!r}")
        if self.color in ("index", "all") and not code[1:3] == code[3:5] == code[5:7]:
            raise PackError(
                f"background: expected a grey with color {self.color}, such as #0c0c0c for the value 12, found {code}"
            )

    @property
    def shape(self) -> Shape | None:
        """(H, W, C) of a row; None if the size or the number of bands is that of the images."""
        if self.size is None or self.color == "all":
            return None
        return self.size[1], self.size[0], CHANNELS.get(self.color, 1)

    @property
    def itemsize(self) -> int:
        """Bytes of a sample."""
        return DTYPES[self.dtype]

    @property
    def keeps_values(self) -> bool:
        """Whether samples are taken as the file has them, so that other decoders work than for 8-bit colours."""
        return self.dtype != "uint8" or self.color in ("index", "all")

    @property
    def widens(self) -> bool:
        """Whether 8 bits become 16 by a factor, so that 255 is 65535."""
        return self.dtype == "uint16" and self.color in CHANNELS

    @property
    def fill(self) -> tuple[int, int, int]:
        """The background: red, green and blue from 0 to 255."""
        code = self.background or "#000000"
        return int(code[1:3], 16), int(code[3:5], 16), int(code[5:7], 16)

    def as_json(self) -> dict[str, Any]:
        """Return the settings by name, without those of `_LATER` that have the value of before."""
        own = {name: getattr(self, name) for name in ("size", *_FIRST)}
        later = {name: getattr(self, name) for name in _LATER}
        later["decoder"] = None if self.decoder is None else self.decoder.name
        return own | {name: value for name, value in later.items() if value != _LATER[name]}


def stored_settings(there: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of pixels that a pack has, by name; a name that it should have and lacks is missing.

    Args:
        there: All settings of the pack, as read from JSON.
    """
    known = {name: there[name] for name in ("size", *_FIRST) if name in there}
    return known | {name: there.get(name, before) for name, before in _LATER.items()}


@dataclass(frozen=True)
class Settings:
    """All choices that affect the content of the output. They are stored in it as JSON.

    Attributes:
        pixels: How a picture becomes a row.
        labels: Where class names come from; see `find.labels`.
        label_pattern: A regular expression whose first group is the class name. None: `labels` decides.
        order: The order of the rows.
        seed: Seed of the stratified order.
        classes: The classes, in the order of their numbers. None: all classes found.
        is_like: Whether labels and order are those of another pack. `order` is then `sorted`.
    """

    pixels: Pixels
    labels: Labels = "auto"
    label_pattern: str | None = None
    order: Order = "stratified"
    seed: int = 0
    classes: tuple[str, ...] | None = None
    is_like: bool = False

    def __post_init__(self) -> None:
        _check_known("order", self.order, ORDERS)
        if not isinstance(self.seed, int) or self.seed < 0:
            raise PackError(f"seed: expected a whole number of 0 or more, found {self.seed!r}")

    def as_json(self) -> dict[str, Any]:
        """Return all settings by name, with those of `pixels` at the same level."""
        pixels = self.pixels.as_json()
        values = asdict(replace(self, pixels=Pixels()))
        del values["pixels"]
        if self.label_pattern is None:
            del values["label_pattern"]
        if values.pop("classes") is not None:
            values["classes"] = "given"  # the names themselves are stored as class_names
        if values.pop("is_like"):
            values |= {"labels": "given", "order": "given"}
            del values["seed"]  # of an order that is not this one
        return pixels | values


def _check_known(name: str, value: object, known: Sequence[str]) -> None:
    if value not in known:
        raise PackError(f"{name}: expected one of {', '.join(known)}, found {value!r}")
