"""The options that a user gives, as settings: every form in which one may be given becomes one value."""

from __future__ import annotations

import os
from collections.abc import Sequence
from operator import index
from typing import Any

from pack_images.errors import PackError
from pack_images.find.classes import read_classes
from pack_images.find.like import check_alone
from pack_images.find.relabel import Relabel
from pack_images.functions import decoder_of
from pack_images.settings import Pixels, Settings


def settings_of(
    size: int | tuple[int, int] | None,
    *,
    labels: Any = None,
    label_pattern: str | None = None,
    order: Any = None,
    seed: int | None = None,
    classes: str | os.PathLike[str] | Sequence[str] | None = None,
    relabel: Relabel | None = None,
    like: str | os.PathLike[str] | None = None,
    **pixels: Any,
) -> Settings:
    """Combine the options of `pack` into one value. None is what the user did not choose.

    Raises:
        PackError: An option is invalid.
    """
    chosen = {"labels": labels, "label-pattern": label_pattern, "order": order, "seed": seed}
    check_alone(like, {**chosen, "classes": classes, "relabel": relabel})
    named = None if classes is None else read_classes(classes)
    stored = pixels_of(None if size is None else _width_and_height(size), **pixels)
    order = "sorted" if like is not None else "stratified" if order is None else order
    return Settings(
        stored,
        "auto" if labels is None else labels,
        label_pattern,
        order,
        0 if seed is None else seed,
        named,
        like is not None,
    )


def pixels_of(
    size: tuple[int, int] | None,
    *,
    color: Any = "rgb",
    interpolation: Any = None,
    range: Any = None,  # noqa: A002 - the name of the option
    background: Any = None,
    decoder: Any = None,
    **others: Any,
) -> Pixels:
    """Combine the options about pixels. `interpolation` None is the one that suits `color`.

    Raises:
        PackError: An option is invalid.
    """
    return Pixels(
        size,
        color=color,
        interpolation=interpolation or ("nearest" if color == "index" else "bilinear"),
        range=None if range is None else _low_and_high(range),
        background=None if background is None else _color_code(background),
        decoder=None if decoder is None else decoder_of(decoder),
        **others,
    )


def _low_and_high(given: object) -> tuple[float, float]:
    """Return the two numbers of a range; whole ones as int, so that they are stored as the user wrote them."""
    try:
        low, high = (float(value) for value in given)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        raise PackError(f"range: expected (low, high), two numbers, found {given!r}") from None
    whole = [int(value) if value.is_integer() else value for value in (low, high)]
    return whole[0], whole[1]


def _color_code(given: object) -> str | None:
    """Return a colour as #rrggbb; None for black."""
    from PIL import ImageColor  # here, because this process rarely needs Pillow

    try:
        found: tuple[int, ...] = ImageColor.getrgb(given if isinstance(given, str) else f"rgb{tuple(given)}")  # type: ignore[arg-type]
    except (TypeError, ValueError):
        found = ()
    if len(found) != 3 or not all(0 <= value <= 255 for value in found):
        raise PackError(f"background: expected a colour such as white or #ffffff, found {given!r}")
    return "#{:02x}{:02x}{:02x}".format(*found) if any(found) else None


def _width_and_height(size: object) -> tuple[int, int]:
    """Return (width, height) of a size as the user gave it. numpy integers are accepted too."""
    try:
        width, height = map(index, size if isinstance(size, tuple | list) else (size, size))
    except (TypeError, ValueError):
        raise PackError(f"size: expected a whole number, or a tuple of width and height, found {size!r}") from None
    return width, height
