"""Names, numbers and lists as lines of text for people."""

from __future__ import annotations

from collections.abc import Mapping

SHOWN = 10  # items shown of a list that may be long


def shown(text: str) -> str:
    """A name on one line, whatever bytes it has."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def count(number: int, one: str, many: str = "") -> str:
    """A number of things, such as `1 image` or `2 classes`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def dimensions(shape: tuple[int, int, int]) -> str:
    """An image's (H, W, C) as people write it: width first."""
    height, width, channels = shape
    return f"{width}x{height}x{channels}"


def class_lines(counts: Mapping[str, int], bar: int = 0) -> list[str]:
    """Classes with their counts; the middle of a long list is left out.

    Args:
        counts: Class name -> images.
        bar: Characters of the longest bar beside them; 0 for none.
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
