"""Computes the contents of each section of a page: numbers, names and tiles. page.html defines the appearance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from h5split.alike.content import content_of
from h5split.commands.view.gallery import Gallery
from h5split.commands.view.limits import LISTED, NAMES, PARTS, extremes
from h5split.commands.view.statistics import Statistics
from h5split.file.classes import is_unlabelled
from h5split.file.levels import Levels
from h5split.file.losses import count_images, grouped
from h5split.order.rows import Rows, permutation
from h5split.system.text import dimensions, other_type

if TYPE_CHECKING:
    from h5split.batches import SplitSequence
    from h5split.file.packs import Packs

Section = dict[str, Any]

_TILES_PER_CLASS = 60  # in the contact sheets
_TILES_OF_ALL = 720  # in the contact sheets of all classes together
_OUTLIERS = 24  # tiles of each kind of outlier
_GROUPS = 40  # groups of identical files
_NEARLY_BLANK = 2.0  # contrast in grey levels; below it an image is nearly blank
_BINS = 24  # of a histogram of brightness
_OUTLIER_CLASSES = 5  # the classes that are listed for each kind of outlier


def most_tiles(classes: int) -> int:
    """The largest number of tiles in the sections that nearly always have tiles."""
    return min(_TILES_PER_CLASS * classes, _TILES_OF_ALL) + 4 * _OUTLIERS


def overview(packs: Packs, rows: Rows, looked_at: int, levels: Levels) -> Section:
    """The contents of the file, and how it was packed."""
    header = packs.packs[0].header
    return {
        "paths": [pack.path for pack in packs.packs],
        "rows": len(rows),
        "of": len(packs),
        "looked_at": looked_at,
        "dimensions": dimensions(packs.shape) + other_type(packs.dtype),
        "look": _look(levels),
        "megabytes": sum(pack.header.size for pack in packs.packs) / 1e6,
        "settings": {name: str(value) for name, value in header.settings.items()},
        "packed_by": dict(header.packed_by),
    }


def _look(levels: Levels) -> str:
    """How pixels are shown, if they are no picture as they are; else empty."""
    if levels.are_numbers:
        return (
            "Each number of a mask has a colour: 0 black, 1 red, 2 green, 3 yellow, 4 blue, 5 orange, 6 purple, "
            "255 white. From 19 on, colours begin again. --bands 1 shows grey levels."
        )
    shown = ", ".join(str(band + 1) for band in levels.bands)
    bands = f"Images show band{'s' if len(levels.bands) > 1 else ''} {shown} of {len(levels.limits)}"
    if not levels.is_stretched:
        return "" if len(levels.bands) == len(levels.limits) else f"{bands}."
    limits = ", ".join(f"{low:.6g} to {high:.6g}" for low, high in levels.limits[list(levels.bands)])
    return f"{bands}, from black to white: {limits} (2nd and 98th percentile; NaN is black)."


def class_counts(packs: Packs, rows: Rows) -> NDArray[np.int64]:
    """The number of rows of each class: int64 (K,)."""
    return np.bincount(packs.labels[rows], minlength=len(packs.class_names))


def classes(packs: Packs, rows: Rows, statistics: Statistics, levels: Levels) -> Section:
    """Number of rows and pixel statistics of each class. If there are too many classes: of the largest and smallest."""
    counts = class_counts(packs, rows)
    most = int(counts.max())
    entries: list[Section] = []
    for label in extremes(counts).tolist():
        number = int(counts[label])
        entry = {"name": packs.class_names[label], "count": number, "share": number / most, "mean_image": None}
        entries.append(entry | _pixels_of_class(statistics, label, levels))
    empty = np.flatnonzero(counts == 0)
    return {
        "classes": entries,
        "total": len(counts),
        "units": "in the values stored" if levels.is_stretched else "in grey levels from 0 to 255",
        "is_unlabelled": is_unlabelled(packs.class_names),
        "least": int(counts[counts > 0].min()),
        "most": most,
        "empty": {"count": len(empty), "names": _names(packs, empty)},
    }


def _pixels_of_class(statistics: Statistics, label: int, levels: Levels) -> Section:
    if label not in statistics.mean_images:
        return {}
    mean, deviation = statistics.of_class(label)
    dark, bright = levels.limits[list(levels.colors)].mean(axis=0)
    values = statistics.brightness[statistics.members(label)].clip(dark, bright)
    brightness = np.histogram(values, _BINS, (dark, bright))[0]
    digits = ".4g" if levels.is_stretched else ".0f"
    return {
        "mean_image": statistics.mean_images[label],
        "mean": [f"{value:{digits}}" for value in mean],
        "deviation": [f"{value:{digits}}" for value in deviation],
        "brightness": (brightness / max(1, brightness.max())).tolist(),
    }


def sheets(packs: Packs, rows: Rows, gallery: Gallery, seed: int) -> Section:
    """A contact sheet of random rows for each class."""
    rows = rows[np.argsort(packs.labels[rows], kind="stable")]
    there, starts = np.unique(packs.labels[rows], return_index=True)
    each = max(1, min(_TILES_PER_CLASS, _TILES_OF_ALL // len(there)))
    found = []
    for label, members in zip(there[:_TILES_OF_ALL].tolist(), np.split(rows, starts[1:]), strict=False):
        chosen = members[permutation(len(members), seed, label)[:each]]
        found.append({"name": packs.class_names[label], "count": len(members), "tiles": gallery.tiles(chosen)})
    return {"sheets": found, "left_out": len(there) - len(found), "seed": seed}


def outliers(packs: Packs, rows: Rows, statistics: Statistics, gallery: Gallery) -> Section:
    """Blank and nearly blank rows, the darkest rows, and the brightest rows.

    Args:
        packs: The packs that hold the rows.
        rows: int64 (M,), the rows of the page. Perhaps the pixels of some of them only were examined.
        statistics: The statistics of those.
        gallery: Makes the tiles.
    """
    contrast, brightness, blank = statistics.contrast, statistics.brightness, statistics.blank
    digits = ".0f" if packs.dtype == np.uint8 else ".4g"
    are_numbers = statistics.how.are_numbers  # which have neither contrast nor range

    def first(key: NDArray[Any], where: NDArray[np.bool_] | None = None) -> Section:
        """The rows with the smallest `key`, among those where `where` is true. Ties are ordered by row number."""
        among = np.arange(len(key)) if where is None else np.flatnonzero(where)
        among = among[np.lexsort([statistics.rows[among], key[among]])]
        by_class = np.bincount(statistics.labels[among], minlength=1)
        most = np.argsort(-by_class, kind="stable")[:_OUTLIER_CLASSES]
        notes = [
            f"brightness {brightness[at]:{digits}}, contrast {contrast[at]:.1f}" for at in among[:_OUTLIERS].tolist()
        ]
        return {
            "count": len(among),
            "by_class": [
                (packs.class_names[label], int(by_class[label])) for label in most.tolist() if by_class[label]
            ],
            "tiles": gallery.tiles(statistics.rows[among[:_OUTLIERS]], notes),
        }

    return {
        "blank": first(contrast, blank),
        "nearly_blank": first(contrast, ~blank & (contrast < _NEARLY_BLANK) & (not are_numbers)),
        "darkest": first(brightness),
        "brightest": first(-brightness),
        "threshold": _NEARLY_BLANK,
        "of": "" if len(statistics.rows) == len(rows) else " that were looked at",
        "all_blank": bool(blank.all()),
        "is_grey": statistics.is_grey,
        "are_numbers": are_numbers,
        "levels": statistics.levels if packs.dtype == np.uint8 and not are_numbers else None,
        "not_finite": int(statistics.not_finite.sum()),
    }


def identical(packs: Packs, rows: Rows, gallery: Gallery) -> Section:
    """Groups of identical images. Groups with different labels come first."""
    content = content_of([(packs, rows)])
    mixed, plain = content.mixed(packs.labels[rows])
    groups = [*mixed, *plain][:_GROUPS]
    return {
        "mixed": len(mixed),
        "plain": len(plain),
        "groups": [{"count": len(group), "tiles": gallery.tiles(rows[group[:_OUTLIERS]])} for group in groups],
    }


def skipped(packs: Packs) -> Section:
    """Files that were left out when the packs were made, and the reasons."""
    reasons: Counter[str] = Counter()
    files: list[tuple[str, str]] = []
    for pack in packs.packs:
        names, why = pack.skipped_texts
        reasons.update(why)
        files += zip(names[: LISTED - len(files)], why[: LISTED - len(files)], strict=True)
    return {"count": reasons.total(), "reasons": reasons.most_common(LISTED), "files": files}


def losses(packs: Packs, rows: Rows) -> Section:
    """The losses of pictures when they were packed, by kind."""
    found = packs.losses(rows)
    scaled = all("range" in pack.header.settings for pack in packs.packs)
    groups = [
        {
            "title": group.title,
            "advice": group.advice,
            "count": len(group.files),
            "files": group.files[:LISTED],
        }
        for group in grouped(found, scaled=scaled)
    ]
    return {"count": count_images(found), "groups": groups}


def split(packs: Packs, rows: Rows, parts: Mapping[str, SplitSequence], column: str) -> Section:
    """The number of rows by class and part of a split, and the images that are in several parts.

    Args:
        packs: The packs that hold the rows.
        rows: int64 (M,), the rows that the page is about. Images count as leaking if one of these rows is among them.
        parts: Name of each part -> its sequence.
        column: The column whose values are the parts; empty if somebody gave the parts.
    """
    there = class_counts(packs, rows)
    names, sizes, counts, missing = _parts_by_class(packs, parts, there > 0)
    leaking, leaks = _leaks(packs, rows, parts)
    in_parts = np.zeros(len(packs), np.bool_)
    for part in parts.values():
        in_parts[part.rows] = True
    return {
        "column": column,
        "parts": names,
        "more_parts": max(0, len(parts) - PARTS),
        "totals": sizes,
        "classes": [
            {
                "name": packs.class_names[label],
                "counts": counts[:, label].tolist(),
                "total": max(1, counts[:, label].sum()),
            }
            for label in extremes(there).tolist()
        ],
        "all_classes": len(there),
        "missing": missing,
        "leaking": leaking,
        "leaks": leaks,
        "in_none": int((~in_parts[rows]).sum()),
    }


def _parts_by_class(
    packs: Packs, parts: Mapping[str, SplitSequence], there: NDArray[np.bool_]
) -> tuple[list[str], list[int], NDArray[np.int64], Section]:
    """Count rows by part and class.

    Args:
        packs: The packs that hold the rows.
        parts: Name of each part -> its sequence.
        there: bool (K,), whether a class has rows at all.

    Returns:
        The names of the largest parts; the number of rows in each; the number of rows by part and class; the parts that
        have no rows of some class. If there are more parts, they are counted together, as the last element of the
        numbers.
    """
    sizes = np.array([len(part.rows) for part in parts.values()], np.int64)
    shown = np.sort(np.argsort(-sizes, kind="stable")[:PARTS]).tolist()
    counts = np.zeros((len(shown) + (len(parts) > len(shown)), len(there)), np.int64)
    missing: Section = {"parts": [], "more": 0}
    for number, (name, part) in enumerate(parts.items()):
        of_class = np.bincount(part.classes, minlength=len(there))
        counts[shown.index(number) if number in shown else -1] += of_class
        lacking = np.flatnonzero(there & (of_class == 0))
        if len(lacking) and len(missing["parts"]) < NAMES:
            missing["parts"].append({"part": name, "count": len(lacking), "names": _names(packs, lacking)})
        elif len(lacking):
            missing["more"] += 1
    names = list(parts)
    return [names[number] for number in shown], counts.sum(axis=1).tolist(), counts, missing


def _leaks(packs: Packs, seen: Rows, parts: Mapping[str, SplitSequence]) -> tuple[int, list[Section]]:
    """The number of images that are in several parts and among `seen`, and the file names of the first of them."""
    rows = np.concatenate([np.empty(0, np.int64), *(part.rows for part in parts.values())])
    part_of = np.repeat(np.arange(len(parts)), [len(part.rows) for part in parts.values()])
    is_seen = np.zeros(len(packs), np.bool_)
    is_seen[seen] = True
    groups = content_of([(packs, rows)]).groups
    leaking = [group for group in groups if (part_of[group] != part_of[group[0]]).any() and is_seen[rows[group]].any()]
    names = list(parts)
    return len(leaking), [
        {
            "count": len(group),
            "names": [f"{packs.filenames[int(rows[row])]} ({names[part_of[row]]})" for row in group[:NAMES].tolist()],
        }
        for group in leaking[:LISTED]
    ]


def _names(packs: Packs, labels: NDArray[np.int64]) -> list[str]:
    return [packs.class_names[label] for label in labels[:NAMES].tolist()]
