"""What each section of a page says, as plain numbers, names and tiles. How it looks is in page.html."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from h5split.console import dimensions
from h5split.rows import Rows, duplicates, permutation
from h5split.splits import leaks
from h5split.view.gallery import Gallery
from h5split.view.statistics import Statistics

if TYPE_CHECKING:
    from h5split.batches import SplitSequence
    from h5split.packs import Packs

Section = dict[str, Any]

_SHEET_TILES = 60  # of a class
_ALL_TILES = 720  # of all classes
_OUTLIERS = 24
_GROUPS = 40  # of identical files
_LISTED = 500  # files that were left out, or are in two parts
_NEARLY_BLANK = 2.0  # grey levels
_BINS = 24


def most_tiles(classes: int) -> int:
    """How many tiles there are, at most, in the sections that nearly always have some."""
    return min(_SHEET_TILES * classes, _ALL_TILES) + 4 * _OUTLIERS


def overview(packs: Packs, rows: Rows, looked_at: int) -> Section:
    """What is in the file, and how it was packed."""
    header = packs.packs[0].header
    return {
        "paths": [pack.path for pack in packs.packs],
        "rows": len(rows),
        "of": len(packs),
        "looked_at": looked_at,
        "dimensions": dimensions(packs.shape),
        "megabytes": sum(pack.header.size for pack in packs.packs) / 1e6,
        "settings": {name: str(value) for name, value in header.settings.items()},
        "packed_by": dict(header.packed_by),
    }


def classes(packs: Packs, rows: Rows, statistics: Statistics, gallery: Gallery) -> Section:
    """How many there are of each class, and what its pixels are like."""
    counts = np.bincount(packs.labels[rows], minlength=len(packs.class_names))
    entries: list[Section] = []
    of_rows = statistics.brightness
    for label, name in enumerate(packs.class_names):
        entry = {"name": name, "count": int(counts[label]), "share": counts[label] / counts.max(), "mean_image": None}
        if label in statistics.mean_images:
            mean, deviation = statistics.of_class(label)
            brightness = np.histogram(of_rows[statistics.labels == label], _BINS, (0, 255))[0]
            entry |= {
                "mean_image": gallery.data_uri(statistics.mean_images[label].round().astype(np.uint8)),
                "mean": [f"{value:.0f}" for value in mean],
                "deviation": [f"{value:.0f}" for value in deviation],
                "brightness": (brightness / max(1, brightness.max())).tolist(),
            }
        entries.append(entry)
    there = [entry["count"] for entry in entries if entry["count"]]
    empty = [entry["name"] for entry in entries if not entry["count"]]
    return {"classes": entries, "least": min(there), "most": max(there), "empty": empty}


def sheets(packs: Packs, rows: Rows, gallery: Gallery, seed: int) -> Section:
    """A contact sheet for each class: rows chosen by seed."""
    rows = rows[np.argsort(packs.labels[rows], kind="stable")]
    there, starts = np.unique(packs.labels[rows], return_index=True)
    each = max(1, min(_SHEET_TILES, _ALL_TILES // len(there)))
    found = []
    for label, members in zip(there[:_ALL_TILES].tolist(), np.split(rows, starts[1:]), strict=False):
        chosen = members[permutation(len(members), seed, label)[:each]]
        found.append({"name": packs.class_names[label], "count": len(members), "tiles": gallery.tiles(chosen)})
    return {"sheets": found, "left_out": len(there) - len(found), "seed": seed}


def outliers(packs: Packs, statistics: Statistics, gallery: Gallery) -> Section:
    """Rows with nothing to see, and the darkest and brightest."""
    contrast, brightness, blank = statistics.contrast, statistics.brightness, statistics.blank

    def first(key: NDArray[Any], where: NDArray[np.bool_] | None = None) -> Section:
        among = np.arange(len(key)) if where is None else np.flatnonzero(where)
        among = among[np.lexsort([statistics.rows[among], key[among]])]
        by_class = Counter(packs.class_names[label] for label in statistics.labels[among].tolist())
        notes = [f"brightness {brightness[at]:.0f}, contrast {contrast[at]:.1f}" for at in among[:_OUTLIERS].tolist()]
        return {
            "count": len(among),
            "by_class": by_class.most_common(5),
            "tiles": gallery.tiles(statistics.rows[among[:_OUTLIERS]], notes),
        }

    return {
        "blank": first(contrast, blank),
        "nearly_blank": first(contrast, ~blank & (contrast < _NEARLY_BLANK)),
        "darkest": first(brightness),
        "brightest": first(-brightness),
        "threshold": _NEARLY_BLANK,
    }


def identical(packs: Packs, rows: Rows, gallery: Gallery) -> Section:
    """Groups of identical files, those with different labels first."""
    mixed, plain = duplicates(packs.digests(rows), packs.labels[rows])
    groups = [*mixed, *plain][:_GROUPS]
    return {
        "mixed": len(mixed),
        "plain": len(plain),
        "groups": [{"count": len(group), "tiles": gallery.tiles(rows[group[:_OUTLIERS]])} for group in groups],
    }


def skipped(packs: Packs) -> Section:
    """Files that were left out when it was packed, and why."""
    files = [entry for pack in packs.packs for entry in pack.skipped]
    reasons = Counter(reason for _, reason in files)
    return {"count": len(files), "reasons": reasons.most_common(_LISTED), "files": files[:_LISTED]}


def split(packs: Packs, rows: Rows, parts: Mapping[str, SplitSequence]) -> Section:
    """How classes are spread over the parts of a split, and what is in two of them."""
    counts = np.stack([np.bincount(part.classes, minlength=len(packs.class_names)) for part in parts.values()])
    there = np.bincount(packs.labels[rows], minlength=len(packs.class_names)) > 0
    shared = leaks(*parts.values())
    in_parts = np.zeros(len(packs), np.bool_)
    for part in parts.values():
        in_parts[part.rows] = True
    return {
        "parts": list(parts),
        "totals": counts.sum(axis=1).tolist(),
        "classes": [
            {"name": name, "counts": of_class.tolist(), "total": max(1, int(of_class.sum()))}
            for name, of_class in zip(packs.class_names, counts.T, strict=True)
        ],
        "missing": {name: _names(packs, there & (of_part == 0)) for name, of_part in zip(parts, counts, strict=True)},
        "leaking": len(shared),
        "leaks": [[name for names in leak for name in names] for leak in shared[:_LISTED]],
        "in_none": int((~in_parts[rows]).sum()),
    }


def _names(packs: Packs, which: NDArray[np.bool_]) -> Sequence[str]:
    return [packs.class_names[label] for label in np.flatnonzero(which).tolist()]
