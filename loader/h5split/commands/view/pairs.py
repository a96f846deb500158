"""Writes a page of near-identical pictures, side by side."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from h5split.commands.near import NearPairs, Pair, sections
from h5split.commands.view.gallery import Columns, Gallery
from h5split.commands.view.page import style_and_script, template
from h5split.file.levels import levels_of
from h5split.writing.replace import check_writable, written

if TYPE_CHECKING:
    from h5split.file.packs import Packs

_KIND = "a page of h5split near"
# Every page begins with these bytes. They identify a file as a page that may be replaced.
_HEAD = b"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="generator" content="h5split near">
"""
_SHOWN = 100  # pairs of each section


def check_page(path: str | os.PathLike[str]) -> str:
    """Check that a page of pairs can be written, before minutes of work. Return its path.

    Raises:
        ImportError: Jinja2 is not installed.
        ValueError: Another file exists there.
        OSError: The page cannot be written.
    """
    template("pairs.html")
    return os.path.abspath(check_writable(path, _KIND, _is_page))


def write_pairs(found: NearPairs, packs: Packs, path: str | os.PathLike[str]) -> None:
    """Write a page of pairs. The same pairs give the same page. It appears whole or not at all.

    Args:
        found: The pairs.
        packs: The packs that have their rows.
        path: The path of the page. An earlier page of pairs is replaced, but never another file.

    Raises:
        ImportError: Jinja2 is not installed.
        ValueError: Another file exists there.
        OSError: The page cannot be written.
    """
    path = check_page(path)
    divided = {title: pairs for title, pairs in sections(found.pairs).items() if pairs}
    most = max(1, 2 * sum(len(pairs[:_SHOWN]) for pairs in divided.values()))
    gallery = Gallery(packs, most, Columns(packs, np.arange(len(packs))), levels_of(packs))
    contents = [
        {
            "title": title,
            "count": len(pairs),
            "bad": pairs[0].across_parts or pairs[0].across_classes,
            "pairs": [_shown(pair, gallery) for pair in pairs[:_SHOWN]],
        }
        for title, pairs in divided.items()
    ]
    with written(path, _KIND, _is_page) as file:
        file.writelines(template("pairs.html").generate(found=found, sections=contents, **style_and_script()))


def _shown(pair: Pair, gallery: Gallery) -> dict[str, Any]:
    tiles = gallery.tiles(np.array(pair.rows), notes=pair.parts)
    return {"distance": pair.distance, "turn": pair.turn, "tiles": tiles}


def _is_page(file: BinaryIO) -> bool:
    return file.read(len(_HEAD)) == _HEAD
