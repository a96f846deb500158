"""Write results: JSON, Markdown and PNG for each run, and one page for all runs."""

from __future__ import annotations

import glob
import json
import os

from benchmark.files import RefusedError
from benchmark.report import COLUMNS, Row, section


def write(results: Row, folder: str) -> str:
    """Write JSON, Markdown and PNG of a run, under one name. Return the Markdown."""
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


def runs(folder: str) -> list[Row]:
    """Return the results of all runs in a folder.

    Raises:
        RefusedError: The folder has no results.
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
    """Write one page: introduction.md, then all runs of a folder. The pictures go beside the page."""
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
