"""Formats names, numbers and lists as text for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

SHOWN = 10  # the number of items that are shown of a long list


def shown(text: str) -> str:
    """A name as one printable line: control characters and bytes that are not UTF-8 are escaped."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def count(number: int, one: str, many: str = "") -> str:
    """A number with its noun, such as `1 image` or `2 classes`.

    Args:
        number: The number.
        one: The singular of the noun.
        many: The plural; `one` with an s if not given.
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def listed(names: Sequence[str]) -> str:
    """The first names of a list that may be long, joined by commas."""
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def either(choices: Sequence[object]) -> str:
    """The choices there are, as `a`, `a or b`, or `a, b or c`."""
    *others, last = map(str, choices)
    return f"{', '.join(others)} or {last}" if others else last


def duplicates_line(groups: Sequence[Sequence[str]], conflicting: int) -> str:
    """A line about identical images.

    Args:
        groups: The names of each group of identical images.
        conflicting: The number of groups with different labels.
    """
    images = sum(map(len, groups))
    labels = f"; labels differ in {count(conflicting, 'group')}" if conflicting else ""
    return f"duplicates: {count(len(groups), 'group')} of identical images, {images:,} images in all{labels}"


def dimensions(shape: tuple[int, int, int]) -> str:
    """An image shape (H, W, C) as people write it, with the width first: `WxHxC`."""
    height, width, channels = shape
    return f"{width}x{height}x{channels}"


def other_type(dtype: object) -> str:
    """The type of pixels, after a space, unless it is the usual uint8."""
    return "" if str(dtype) == "uint8" else f" {dtype}"


def class_lines(counts: Mapping[str, int], bar: int = 0) -> list[str]:
    """Lines that list classes and their counts. The middle of a long list is left out.

    Args:
        counts: Class name -> number of images.
        bar: The length in characters of the longest bar of a bar chart beside the classes; 0 for no chart.
    """
    widest = max((len(shown(name)) for name in counts), default=0)
    most = max(counts.values(), default=0)
    lines = []
    for name, number in counts.items():
        blocks = "█" * round(bar * number / max(most, 1))
        lines.append(f"  {number:>9,}  {shown(name):<{widest if blocks else 0}}  {blocks}".rstrip())
    if len(lines) > 2 * SHOWN:
        lines[SHOWN:-SHOWN] = [f"        ...  {len(lines) - 2 * SHOWN:,} more classes"]
    return [f"  {count(len(counts), 'class', 'classes')}", *lines]
