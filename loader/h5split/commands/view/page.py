"""Writes the report on a sequence as one HTML file.

sections.py computes the contents. page.html, page.css and page.js define the appearance.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from h5split.commands.view import sections
from h5split.commands.view.findings import findings
from h5split.commands.view.gallery import Columns, Gallery
from h5split.commands.view.limits import PARTS, brief, extremes
from h5split.commands.view.predictions.chosen import MOST_TILES
from h5split.commands.view.predictions.section import predictions as scored
from h5split.commands.view.statistics import look_at
from h5split.errors import ArgumentError, MissingPackageError
from h5split.file.levels import levels_of
from h5split.order.rows import Rows, permutation
from h5split.system.text import count
from h5split.writing.replace import check_writable, written

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from h5split.batches import SplitSequence
    from h5split.file.packs import Packs

_KIND = "a page of h5split view"
# Every page begins with these bytes. They identify a file as a page that may be replaced.
_HEAD = b"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="generator" content="h5split view">
"""
_PARTS = "split", "source"  # columns that tell parts
_MAX_PIXEL_BYTES = 1 << 30  # pixels that are examined unless every row is asked for


def report(
    sequence: SplitSequence,
    predictions: ArrayLike | None,
    path: str | os.PathLike[str],
    *,
    parts: Mapping[str, SplitSequence] | None = None,
    seed: int = 0,
    every_row: bool = False,
    threshold: float = 0.5,
    bands: Sequence[int] | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> None:
    """Write a report on the rows of a sequence and on the predictions of a network for them.

    The page is one file that loads nothing from the internet. The same rows, predictions and seed give the same page.
    It appears whole or not at all. An earlier page is replaced, but never another file.

    Pixels that are no picture of uint8 are shown by `h5split.file.levels`: stretched, and some of their bands.

    Args:
        sequence: The rows.
        predictions: The return value of `predict` for the sequence, as for `mistakes`; None to leave that section out.
            The section compares them with the targets of the sequence: classes, tags or numbers.
        path: The path of the page.
        parts: The split: name of each part -> its sequence. The sequence may be one of them. None: the values of the
            column `split` or `source`, if there are a few.
        seed: The seed that selects the images to show.
        every_row: Examine the pixels of every row. Otherwise, of more than 1 GB, a random sample of 1 GB is examined.
        threshold: The score from which on a tag counts as predicted.
        bands: The channels to show, one or three, counted from 1. None: the first three, or the first one of fewer, if
            the pixels are not a picture of uint8 in 1, 3 or 4 channels.
        progress: Called with (rows examined, rows in total).

    Raises:
        ImportError: Jinja2 is not installed.
        ValueError: The sequence is empty; the predictions are not for the epoch that it delivered last, or not finite;
            the targets are a dict, text or an array of more than two axes; a part has other packs; there are no such
            bands; or another file exists at `path`.
        OSError: The page cannot be written.
    """
    page = template("page.html")
    path = os.path.abspath(check_writable(path, _KIND, _is_page))  # fail now, not after minutes of work
    packs, rows = sequence.packs, sequence.rows
    if not len(rows):
        raise ArgumentError("expected rows to look at, found none")
    if parts is not None:
        packs.check_same({name: part.packs for name, part in parts.items()})
    levels = levels_of(packs, bands)
    column = "" if parts is not None else _column_of_parts(sequence)
    parts = sequence.split_by(column) if column else parts
    columns = Columns(packs, rows)
    most = sections.most_tiles(len(packs.class_names)) + (predictions is not None) * MOST_TILES
    gallery = Gallery(packs, most, columns, levels)
    about = None if predictions is None else scored(sequence, predictions, gallery, threshold)
    chosen = rows if every_row else _sample(packs, rows, seed)
    counts = sections.class_counts(packs, rows)
    pictured = set() if levels.are_numbers else set(extremes(counts).tolist())  # numbers of masks have no mean
    statistics = look_at(packs, chosen, levels, gallery.data_uri, pictured, progress)
    found = {
        "overview": sections.overview(packs, rows, len(chosen), levels),
        "classes": sections.classes(packs, rows, statistics, levels),
        "split": sections.split(packs, rows, parts, column) if parts else None,
        "identical": sections.identical(packs, rows, gallery),
        "outliers": sections.outliers(packs, rows, statistics, gallery),
        "predictions": about,
        "sheets": sections.sheets(packs, rows, gallery, seed),
        "losses": sections.losses(packs, rows),
        "skipped": sections.skipped(packs),
        "filters": columns.filters,
    }
    with written(path, _KIND, _is_page) as file:
        file.writelines(page.generate(**found, findings=findings(found), **style_and_script()))


def _column_of_parts(sequence: SplitSequence) -> str:
    """The column whose values are the parts if nobody gave them; empty if there is none."""
    for name in _PARTS:
        if name in sequence.columns and 1 < len(np.unique(sequence.columns[name].raw())) <= PARTS:
            return name
    return ""


def _sample(packs: Packs, rows: Rows, seed: int) -> Rows:
    """A random sample of the rows that is small enough to examine; all rows if they are few."""
    most = max(1, _MAX_PIXEL_BYTES // packs.packs[0].stride)
    return rows if len(rows) <= most else np.sort(rows[permutation(len(rows), seed)[:most]])


def template(name: str) -> Any:
    """A template of a page, with its filters. It escapes all texts.

    Raises:
        ImportError: Jinja2 is not installed.
    """
    try:
        import jinja2
    except ImportError as error:
        raise MissingPackageError(f"a report needs Jinja2 ({error}): pip install 'pack-images[report]'") from error
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_resource),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = lambda number: f"{number:,}"
    environment.filters["count"] = count
    environment.filters["percent"] = lambda share: "" if share is None else f"{share:.1%}"
    environment.filters["shown"] = brief
    return environment.get_template(name)


def style_and_script() -> dict[str, str]:
    """Style and script of the page, and their hashes. Its content security policy allows no other style or script."""
    texts = {name: _resource(f"page.{name}") for name in ("css", "js")}
    hashes = {
        f"{name}_hash": base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for name, text in texts.items()
    }
    return texts | hashes


def _resource(name: str) -> str:
    return files("h5split.commands.view").joinpath(name).read_text("utf-8")


def _is_page(file: BinaryIO) -> bool:
    return file.read(len(_HEAD)) == _HEAD
