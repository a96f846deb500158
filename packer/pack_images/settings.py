"""The user's choices that affect the content of the output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pack_images.about import MAX_PIXELS
from pack_images.errors import PackError

CHANNELS = {"rgb": 3, "grayscale": 1, "rgba": 4}
FITS = ("stretch", "crop", "pad")
INTERPOLATIONS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
ORDERS = ("stratified", "sorted")
LABELS = ("auto", "subfolder", "parent", "path", "root", "none")

Fit = Literal["stretch", "crop", "pad"]
Interpolation = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
Color = Literal["rgb", "grayscale", "rgba"]
Order = Literal["stratified", "sorted"]
Labels = Literal["auto", "subfolder", "parent", "path", "root", "none"]
Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Pixels:
    """How a picture becomes a row.

    Attributes:
        size: Stored (width, height). None: all images have the same size already.
        fit: How to fit a picture with another aspect ratio: `stretch`, `crop` (centred) or `pad` (with black).
        interpolation: One of Pillow's filters, antialiased.
        color: `rgb`, `grayscale` or `rgba`.
        exact: Never decode a large JPEG at a reduced size, which is faster but slightly different.
        max_pixels: Pictures with more pixels are refused.
    """

    size: tuple[int, int] | None = None
    fit: Fit = "stretch"
    interpolation: Interpolation = "bilinear"
    color: Color = "rgb"
    exact: bool = False
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        _check_known("fit", self.fit, FITS)
        _check_known("interpolation", self.interpolation, INTERPOLATIONS)
        _check_known("color", self.color, tuple(CHANNELS))
        if self.size is not None and not (
            len(self.size) == 2 and all(isinstance(side, int) and 0 < side < 1 << 16 for side in self.size)
        ):
            raise PackError(f"size: expected a width and a height from 1 to 65535, found {self.size!r}")
        if self.max_pixels < 1:
            raise PackError(f"max_pixels: expected 1 or more, found {self.max_pixels}")

    @property
    def shape(self) -> Shape | None:
        """(H, W, C) of a row; None if the size is that of the images."""
        return None if self.size is None else (self.size[1], self.size[0], CHANNELS[self.color])


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
        values = asdict(self)
        pixels: dict[str, Any] = values.pop("pixels")
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
