"""What to look at first, out of all that a page says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from h5split.commands.view.limits import brief
from h5split.system.text import count

_UNBALANCED = 10  # times as many of one class as of another
_NAMED = 5  # classes in a line
_GRADES = ("bad", "doubtful", "fine")


@dataclass(frozen=True)
class Finding:
    """One line, and the section that says more.

    Attributes:
        grade: `bad`: a mistake in the data; `doubtful`: to be looked at; `fine`.
        text: The line.
        section: Name of the section.
    """

    grade: str
    text: str
    section: str


def findings(sections: Mapping[str, dict[str, Any] | None]) -> list[Finding]:
    """The worst first."""
    found = [
        finding
        for name, judge in _JUDGES.items()
        if (section := sections[name]) is not None
        for finding in (Finding(grade, text, name) for grade, text in judge(section))
    ]
    return sorted(found, key=lambda finding: _GRADES.index(finding.grade))


def _losses(section: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if section["count"]:
        kinds = "; ".join(f"{group['title']} ({group['count']:,})" for group in section["groups"])
        yield "bad", f"{count(section['count'], 'image')} packed with a loss: {kinds}"


def _identical(section: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if section["mixed"]:
        yield "bad", f"{count(section['mixed'], 'image')} stored under different labels, from identical files"
    if section["plain"]:
        yield "doubtful", f"{count(section['plain'], 'image')} stored more than once under one label"


def _split(section: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if section["leaking"]:
        yield "bad", f"{count(section['leaking'], 'image')} in more than one part of the split, as identical files"
    for part in section["missing"]["parts"]:
        yield "bad", f"No image of {_some(part)} in {brief(part['part'])}"
    if section["missing"]["more"]:
        yield "bad", f"Classes without an image in {count(section['missing']['more'], 'more part')}"


def _outliers(section: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if section["blank"]["count"]:
        yield "bad", f"{count(section['blank']['count'], 'image')} of one colour: blank"
    if section["nearly_blank"]["count"]:
        yield "doubtful", f"{count(section['nearly_blank']['count'], 'image')} nearly blank"


def _classes(section: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if section["most"] > _UNBALANCED * section["least"]:
        yield "doubtful", f"Classes have from {section['least']:,} to {section['most']:,} images"
    if section["empty"]["count"]:
        yield "doubtful", f"No image of {_some(section['empty'])}"


def _skipped(section: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if section["count"]:
        yield "bad", f"{count(section['count'], 'file')} left out when it was packed"


def _predictions(section: dict[str, Any]) -> Iterator[tuple[str, str]]:
    wrong, of = section["wrong"], section["count"]
    text = f"{wrong:,} of {of:,} predictions are wrong: accuracy {section['accuracy']:.1%}"
    yield ("doubtful" if wrong else "fine"), text


def _some(classes: Mapping[str, Any]) -> str:
    """The first names of classes, and how many more there are."""
    first = classes["names"][:_NAMED]
    more = classes["count"] - len(first)
    return ", ".join(map(brief, first)) + (f" and {count(more, 'more class', 'more classes')}" if more else "")


_JUDGES = {
    "losses": _losses,
    "skipped": _skipped,
    "identical": _identical,
    "split": _split,
    "outliers": _outliers,
    "classes": _classes,
    "predictions": _predictions,
}
