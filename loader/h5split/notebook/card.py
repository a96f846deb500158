"""The HTML that a notebook shows of an object: a few lines of text, tables of counts, and small pictures.

Notebooks remove `<style>` and scripts of pages that they do not trust, so every element has its own style, and without
it the text is still readable. Colours are those of the page around it, light or dark. Every text is escaped, as names
come from strangers' files, and no text is taken for a formula.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from h5split.system.text import shown

_ROOT = "tex2jax_ignore mathjax_ignore"  # MathJax would take $ in names for formulas
_FAINT = "opacity:.7"
_CELL = "padding:0 12px 0 0;text-align:left;border:0"
_NUMBER = "padding:0 8px 0 0;text-align:right;border:0;font-variant-numeric:tabular-nums"
_PLAIN_ROW = "background:transparent"  # notebooks stripe tables
# No picture is larger than its place.
_IMAGE = "max-width:none;object-fit:contain;image-rendering:pixelated"
_BAR_WIDTH = 80  # pixels of the longest bar
_MAX_NAME = 40  # characters of a name in a table
_MAX_LINE = 300  # of a line
_MAX_CAPTION = 28  # of a class or a file name below a picture
_MAX_TITLE = 400  # of what is shown while the pointer is over a picture


@dataclass(frozen=True)
class Counts:
    """Numbers of images, as a table.

    Attributes:
        what: The noun for a value, such as `class`.
        plural: The noun for several.
        numbers: (value, number of images) of those that are listed.
        more: The number of values that are not listed.
    """

    what: str
    plural: str
    numbers: Sequence[tuple[str, int]]
    more: int


@dataclass(frozen=True)
class Tile:
    """A small picture of a row.

    Attributes:
        filename: The source file.
        label: Its class, tags or numbers.
        position: Its position in the sequence.
        source: The picture as a data URI.
        note: A further line; empty for none.
    """

    filename: str
    label: str
    position: int
    source: str
    note: str = ""


def card(name: str, lines: Sequence[str], counts: Sequence[Counts], tiles: Sequence[Tile], width: int) -> str:
    """The HTML of an object.

    Args:
        name: What it is.
        lines: Text about it. The first line goes beside the name.
        counts: The tables, which stand side by side.
        tiles: Pictures, as many side by side as there is room for.
        width: The width of each picture on the page, in pixels.
    """
    head, *others = lines
    text = "".join(f'<div style="{_FAINT}">{escaped(line)}</div>' for line in others)
    tables = "".join(map(_table, counts))
    pictures = "".join(_picture(tile, width) for tile in tiles)
    return (
        f'<div class="{_ROOT}" style="line-height:1.4"><div><b>{escaped(name)}</b> {escaped(head)}</div>{text}'
        f'<div style="margin:6px 0 2px">{tables}</div><div>{pictures}</div></div>'
    )


def preformatted(text: str) -> str:
    """Text as HTML, line by line."""
    lines = "\n".join(html.escape(shown(line)) for line in text.split("\n"))
    return f'<pre class="{_ROOT}">{lines}</pre>'


def or_text(thing: object, make: Callable[[], str]) -> str:
    """What `make` returns; if it fails, the text of the object, and the reason. So a broken pack can be looked at."""
    try:
        return make()
    except Exception as error:
        return preformatted(f"{thing!r}\n{type(error).__name__}: {error}")


def escaped(text: str, most: int = _MAX_LINE) -> str:
    """A text as one line of HTML. The middle of a long one is left out.

    Args:
        text: The text.
        most: The number of characters that are kept.
    """
    one_line = shown(text)
    if len(one_line) > most:
        end = most // 2
        one_line = f"{one_line[: most - end - 1]}…{one_line[-end:]}"
    return html.escape(one_line)


def _table(counts: Counts) -> str:
    most = max([number for _, number in counts.numbers], default=0)
    rows = "".join(_row(name, number, number / max(most, 1)) for name, number in counts.numbers)
    more = f"and {counts.more:,} more {counts.plural if counts.more != 1 else counts.what}" if counts.more else ""
    last = f'<tr style="{_PLAIN_ROW}"><td colspan="3" style="{_CELL};{_FAINT}">{more}</td></tr>' if more else ""
    head = f'<tr style="{_PLAIN_ROW}"><th colspan="3" style="{_CELL}">{escaped(counts.what)}</th></tr>'
    style = (
        "display:inline-table;vertical-align:top;border-collapse:collapse;margin:0 24px 6px 0;border:0;font-size:13px"
    )
    return f'<table style="{style}">{head}{rows}{last}</table>'


def _row(name: str, number: int, share: float) -> str:
    bar = f"width:{max(round(_BAR_WIDTH * share), int(number > 0))}px;height:.7em;background:currentColor;opacity:.3"
    title = f' title="{escaped(name, _MAX_TITLE)}"' if len(name) > _MAX_NAME else ""
    return (
        f'<tr style="{_PLAIN_ROW}"><td{title} style="{_CELL}">{escaped(name, _MAX_NAME)}</td>'
        f'<td style="{_NUMBER}">{number:,}</td>'
        f'<td style="{_CELL};width:{_BAR_WIDTH}px"><div style="{bar}"></div></td></tr>'
    )


def _picture(tile: Tile, width: int) -> str:
    title = escaped(f"{tile.filename}, {tile.label}, position {tile.position:,}", _MAX_TITLE)
    note = f"<br>{escaped(tile.note, _MAX_NAME)}" if tile.note else ""
    return (
        f'<span title="{title}" style="display:inline-block;vertical-align:top;width:{width}px;margin:0 8px 8px 0;'
        f'font-size:11px;overflow-wrap:anywhere"><img src="{tile.source}" alt="" width="{width}" '
        f'style="display:block;width:{width}px;height:auto;max-height:{width}px;margin:0 0 2px;{_IMAGE}">'
        f"<b>{escaped(tile.label, _MAX_CAPTION)}</b><br>"
        f'<span style="{_FAINT}">{escaped(tile.filename.rpartition("/")[2], _MAX_CAPTION)}{note}</span></span>'
    )
