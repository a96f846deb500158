"""Results as Markdown tables and as pictures."""

from __future__ import annotations

import glob
import json
import os
import statistics
from collections.abc import Callable, Sequence

from benchmark.files import RefusedError

MB = 1e6
Row = dict[str, object]
Column = tuple[str, Callable[[Row], str]]


def spread(values: Sequence[float], digits: int = 0, factor: float = 1) -> str:
    """Median (smallest to largest)."""
    scaled = [value * factor for value in values]
    middle = f"{statistics.median(scaled):,.{digits}f}"
    if len(scaled) < 2:
        return middle
    return f"{middle} ({min(scaled):,.{digits}f} to {max(scaled):,.{digits}f})"


def of(name: str, digits: int = 0, factor: float = 1) -> Callable[[Row], str]:
    """A column of what was measured under a name."""

    def cell(row: Row) -> str:
        values = row["values"].get(name)
        return spread(values, digits, factor) if values else ""

    return cell


def taken(row: Row) -> list[float]:
    """Memory that the system cannot take back at will: all but pages of files."""
    values = row["values"]
    return [memory - pages for memory, pages in zip(values["memory"], values["memory_files"], strict=True)]


NAME: Column = ("", lambda row: f"*{row['title']}*" if row["limit"] else str(row["title"]))
ROWS: Column = ("rows", lambda row: str(row["faults"] or ("each once" if "corner" in row else "")))
ORDER: Column = ("shuffle", lambda row: str(row.get("order", "")))
MEMORY: list[Column] = [
    ("memory taken, MB", lambda row: spread(taken(row), 0, 1 / MB)),
    ("pages of files beside it, MB", of("memory_files", 0, 1 / MB)),
]
COLUMNS: dict[str, list[Column]] = {
    "pack": [
        NAME,
        ("images/s, the whole command", of("rate")),
        ("seconds", of("seconds", 2)),
        ("until it is on the disk", of("on_disk", 2)),
        ("images/s without start and imports", of("rate_inside")),
        *MEMORY,
        ("MB on disk", of("disk", 0, 1 / MB)),
        ROWS,
    ],
    "load": [
        NAME,
        ("images/s, warm epochs", of("rate")),
        ("images/s, every pixel read", of("rate_read")),
        ("ms to the first batch", of("first_batch", 0, 1e3)),
        ("with start and imports, s", of("first_batch_with_imports", 2)),
        ("open and first epoch, s", of("first_epoch", 2)),
        *MEMORY,
        ("batches are", lambda row: str(row.get("kind", ""))),
        ORDER,
        ROWS,
    ],
    "cold": [
        NAME,
        ("images/s, open and first epoch", of("rate_first")),
        ("ms to the first batch", of("first_batch", 0, 1e3)),
        ("with start and imports, s", of("first_batch_with_imports", 2)),
        ("MB on disk", of("disk", 0, 1 / MB)),
        ORDER,
        ROWS,
    ],
    "fit": [
        NAME,
        ("images/s, epochs after the first", of("rate")),
        ("ms a step", of("step", 2, 1e3)),
        ("open and first epoch, s", of("first_epoch", 2)),
        *MEMORY,
        ORDER,
        ("batches", lambda row: str(row["faults"] or "all")),
    ],
    "scale": [
        NAME,
        ("images", lambda row: f"{row['images']:,}"),
        ("workers", lambda row: str(row["workers"])),
        ("batch", lambda row: str(row["batch"] or "")),
        ("us an image", of("cost", 2, 1e6)),
        ("ms to the first batch", of("first_batch", 0, 1e3)),
        *MEMORY,
        ("rows", lambda row: str(row["faults"] or "each once")),
    ],
}


def table(command: str, rows: Sequence[Row]) -> str:
    """Markdown; peers that failed stand at the end, with the reason."""
    columns = COLUMNS[command]
    lines = ["| " + " | ".join(header for header, _ in columns) + " |", "|---" * len(columns) + "|"]
    for row in ordered(rows, command):
        cells = [NAME[1](row), f"failed: {row['failed']}"] if row["failed"] else [cell(row) for _, cell in columns]
        cells += [""] * (len(columns) - len(cells))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def ordered(rows: Sequence[Row], kind: str) -> list[Row]:
    """The fastest first, those that failed last; a scaling run as it was measured."""
    return sorted(rows, key=lambda row: (bool(row["failed"]), -median(row, rate_of(kind))))


def rate_of(kind: str) -> str:
    """What a run is about."""
    return "rate_first" if kind == "cold" else "rate"


def median(row: Row, name: str) -> float:
    values = row["values"].get(name)
    return statistics.median(values) if values else 0.0


def write(results: Row, folder: str) -> str:
    """JSON, Markdown and PNG of a run, under one name; returns the Markdown."""
    from benchmark.plots import draw

    os.makedirs(folder, exist_ok=True)
    stem = os.path.join(folder, str(results["name"]))
    with open(f"{stem}.json", "w", encoding="utf-8") as file:
        json.dump(results, file, indent=1)
    text = section(results)
    with open(f"{stem}.md", "w", encoding="utf-8") as file:
        file.write(text)
    draw(results, f"{stem}.png")
    return text


def section(results: Row) -> str:
    """A run as a part of a page: what, on what, the table, the picture, the command."""
    return (
        f"## {results['heading']}\n\n`{results['line']}`\n\n{table(str(results['kind']), results['rows'])}\n\n"
        f"![{results['heading']}]({results['name']}.png)\n\n{results['machine']}\n"
    )


def runs(folder: str) -> list[Row]:
    """The results of all runs that were written to a folder.

    Raises:
        RefusedError: There are none.
    """
    found = []
    for path in sorted(glob.glob(os.path.join(glob.escape(folder), "*.json"))):
        with open(path, encoding="utf-8") as file:
            found.append(json.load(file))
    if not found:
        raise RefusedError(
            f"{folder}: expected results of pack, load, fit or scale, found none; measure something first"
        )
    return found


def page(folder: str, output: str) -> None:
    """All runs of a folder as one page behind introduction.md, with the pictures beside it."""
    from benchmark.plots import draw

    found = sorted(runs(folder), key=lambda results: (list(COLUMNS).index(results["kind"]), results["name"]))
    with open(os.path.join(os.path.dirname(__file__), "introduction.md"), encoding="utf-8") as file:
        parts = [file.read()]
    for results in found:
        results["name"] = f"benchmark-{results['name']}"
        draw(results, os.path.join(os.path.dirname(os.path.abspath(output)), f"{results['name']}.png"))
        parts.append(section(results))
    with open(output, "w", encoding="utf-8") as file:
        file.write("\n".join(parts))
