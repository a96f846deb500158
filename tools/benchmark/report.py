"""Results as Markdown tables."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

MB = 1e6
Row = dict[str, object]
Column = tuple[str, Callable[[Row], str]]


def spread(values: Sequence[float], digits: int = 0, factor: float = 1) -> str:
    """Return "median (smallest to largest)"."""
    scaled = [value * factor for value in values]
    middle = f"{statistics.median(scaled):,.{digits}f}"
    if len(scaled) < 2:
        return middle
    return f"{middle} ({min(scaled):,.{digits}f} to {max(scaled):,.{digits}f})"


def values_of(name: str, digits: int = 0, factor: float = 1) -> Callable[[Row], str]:
    """Return a function that prints the measured values of one name, for a column."""

    def cell(row: Row) -> str:
        values = row["values"].get(name)
        return spread(values, digits, factor) if values else ""

    return cell


def memory_taken(row: Row) -> list[float]:
    """Return memory without pages of files, which the system can take back at any time."""
    values = row["values"]
    return [memory - pages for memory, pages in zip(values["memory"], values["memory_files"], strict=True)]


NAME: Column = ("", lambda row: f"*{row['title']}*" if row["limit"] else str(row["title"]))
ROWS: Column = ("rows", lambda row: str(row["faults"] or ("each once" if "corner" in row else "")))
ORDER: Column = ("shuffle", lambda row: str(row.get("order", "")))
MEMORY: list[Column] = [
    ("memory taken, MB", lambda row: spread(memory_taken(row), 0, 1 / MB)),
    ("mapped file pages, MB", values_of("memory_files", 0, 1 / MB)),
]
COLUMNS: dict[str, list[Column]] = {
    "pack": [
        NAME,
        ("images/s, the whole command", values_of("rate")),
        ("seconds", values_of("seconds", 2)),
        ("seconds until it is on the disk", values_of("on_disk", 2)),
        ("images/s without start and imports", values_of("rate_inside")),
        *MEMORY,
        ("MB on disk", values_of("disk", 0, 1 / MB)),
        ROWS,
    ],
    "load": [
        NAME,
        ("images/s, warm epochs", values_of("rate")),
        ("images/s, every pixel read", values_of("rate_read")),
        ("ms to the first batch", values_of("first_batch", 0, 1e3)),
        ("with start and imports, s", values_of("first_batch_with_imports", 2)),
        ("open and first epoch, s", values_of("first_epoch", 2)),
        *MEMORY,
        ("batches are", lambda row: str(row.get("kind", ""))),
        ORDER,
        ROWS,
    ],
    "cold": [
        NAME,
        ("images/s, open and first epoch", values_of("rate_first")),
        ("ms to the first batch", values_of("first_batch", 0, 1e3)),
        ("with start and imports, s", values_of("first_batch_with_imports", 2)),
        ("MB on disk", values_of("disk", 0, 1 / MB)),
        ORDER,
        ROWS,
    ],
    "fit": [
        NAME,
        ("images/s, epochs after the first", values_of("rate")),
        ("ms a step", values_of("step", 2, 1e3)),
        ("open and first epoch, s", values_of("first_epoch", 2)),
        *MEMORY,
        ORDER,
        ("batches", lambda row: str(row["faults"] or "all")),
    ],
    "scale": [
        NAME,
        ("images", lambda row: f"{row['images']:,}"),
        ("workers", lambda row: str(row["workers"])),
        ("batch", lambda row: str(row["batch"] or "")),
        ("us per image", values_of("cost", 2, 1e6)),
        ("ms to the first batch", values_of("first_batch", 0, 1e3)),
        *MEMORY,
        ("rows", lambda row: str(row["faults"] or "each once")),
    ],
}


def table(command: str, rows: Sequence[Row]) -> str:
    """Return a Markdown table. Peers that failed come last, with the reason."""
    columns = COLUMNS[command]
    lines = ["| " + " | ".join(header for header, _ in columns) + " |", "|---" * len(columns) + "|"]
    for row in ordered(rows, command):
        cells = [NAME[1](row), f"failed: {row['failed']}"] if row["failed"] else [cell(row) for _, cell in columns]
        cells += [""] * (len(columns) - len(cells))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def ordered(rows: Sequence[Row], kind: str) -> list[Row]:
    """Sort rows: the fastest first, failures last. Rows of a scaling run keep their order."""
    return sorted(rows, key=lambda row: (bool(row["failed"]), -median(row, rate_of(kind))))


def rate_of(kind: str) -> str:
    """Return the name of the main figure of a kind of run."""
    return "rate_first" if kind == "cold" else "rate"


def median(row: Row, name: str) -> float:
    values = row["values"].get(name)
    return statistics.median(values) if values else 0.0


def section(results: Row) -> str:
    """Return one run as a section of the page: heading, command, table, picture and machine."""
    return (
        f"## {results['heading']}\n\n`{results['line']}`\n\n{table(str(results['kind']), results['rows'])}\n\n"
        f"![{results['heading']}]({results['name']}.png)\n\n{results['machine']}\n"
    )
