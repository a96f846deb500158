"""Pictures of results: bars for peers, lines for a scaling run."""

from __future__ import annotations

import collections
import statistics

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from benchmark.report import Row, median, memory_taken, ordered, rate_of

OURS, OTHERS, LIMITS = "#2a6f97", "#a9a9a9", "#e9c46a"


def draw(results: Row, path: str) -> None:
    """Draw the picture that fits the kind of run."""
    figure = lines(results) if results["kind"] == "scale" else bars(results)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


def bars(results: Row) -> plt.Figure:
    """Draw images per second, and memory on the right. The fastest peer is on top."""
    rows = [row for row in ordered(results["rows"], str(results["kind"])) if not row["failed"]][::-1]
    if not rows:
        return plt.figure()
    rate = rate_of(str(results["kind"]))
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 1.2 + 0.36 * len(rows)), sharey=True, layout="constrained")
    names = [str(row["title"]) for row in rows]
    colors = [LIMITS if row["limit"] else OURS if row["ours"] else OTHERS for row in rows]
    right.barh(names, [median(row, "memory") * 1e-6 for row in rows], color=colors, alpha=0.35)
    rates = [[float(value) for value in row["values"][rate]] for row in rows]
    sizes = [[value * 1e-6 for value in memory_taken(row)] for row in rows]
    for axes, measured, label in (
        (left, rates, "images/s"),
        (right, sizes, "memory taken, MB (pale: mapped file pages)"),
    ):
        values = [statistics.median(row) for row in measured]
        ends = [[abs(end(row) - value) for row, value in zip(measured, values, strict=True)] for end in (min, max)]
        drawn = axes.barh(names, values, xerr=ends, color=colors, ecolor="#555555", capsize=2)
        axes.bar_label(drawn, [f"{value:,.0f}" for value in values], padding=6, fontsize=8)
        axes.set_xlabel(label)
        axes.set_xscale("log")
        axes.margins(x=0.15)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(str(results["heading"]), fontsize=11)
    return figure


def lines(results: Row) -> plt.Figure:
    """Draw the cost per image by the number of images. A flat line is ideal."""
    groups: dict[tuple[str, int, int], list[Row]] = collections.defaultdict(list)
    for row in results["rows"]:
        if not row["failed"]:
            groups[str(row["title"]), row["workers"], row["batch"]].append(row)
    figure, panels = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for (_, workers, batch), rows in groups.items():
        label = f"{workers} worker{'s' * (workers > 1)}" + (f", batch {batch}" if batch else "")
        costs = [statistics.median(row["values"]["cost"]) * 1e6 for row in rows]
        panels[int(batch > 0)].plot([row["images"] for row in rows], costs, marker="o", label=label)
    for axes, about in zip(panels, ("packing", "a warm shuffled epoch"), strict=True):
        axes.set(xscale="log", xlabel="images", ylabel="us per image", title=about)
        axes.set_ylim(0, axes.get_ylim()[1] * 1.35)
        axes.spines[["top", "right"]].set_visible(False)
        if axes.lines:
            axes.legend(fontsize=8, frameon=False, loc="upper right", ncols=2)
    figure.suptitle(str(results["heading"]), fontsize=11)
    return figure
