"""Findings: the list at the top of a report that names likely faults of the data set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from h5split.commands.view.limits import brief
from h5split.system.text import count

_MAX_RATIO = 10  # of the largest class to the smallest; above it, classes count as unbalanced
_LEAST_RANGE = 64  # grey levels between the darkest and the brightest pixel; below it, images hardly use their range
_MAX_NAMED = 5  # classes named in one line
_GRADES = ("bad", "doubtful", "fine")  # from the worst to the best


@dataclass(frozen=True)
class Finding:
    """One line about the data, with the section of the page that has the details.

    Attributes:
        grade: `bad` for a mistake in the data, `doubtful` if a person should check it, or `fine`.
        text: The line.
        section: The name of the section.
    """

    grade: str
    text: str
    section: str


def findings(sections: Mapping[str, dict[str, Any] | None]) -> list[Finding]:
    """All findings of a page, the worst first.

    Args:
        sections: Name -> content of each section; None for a section that the page does not have.
    """
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
        yield "bad", f"{count(section['mixed'], 'image')} stored under different labels, from identical files or pixels"
    if section["plain"]:
        yield "doubtful", f"{count(section['plain'], 'image')} stored more than once under one label"


def _split(section: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if section["leaking"]:
        yield "bad", f"{count(section['leaking'], 'image')} in more than one part of the split"
    for part in section["missing"]["parts"]:
        yield "bad", f"No image of {_some(part)} in {brief(part['part'])}"
    if section["missing"]["more"]:
        yield "bad", f"Classes without an image in {count(section['missing']['more'], 'more part')}"


def _outliers(section: dict[str, Any]) -> Iterator[tuple[str, str]]:
    of, (lowest, highest) = section["of"], section["levels"] or (0, _LEAST_RANGE)
    if section["not_finite"]:
        yield "doubtful", f"{count(section['not_finite'], 'image')} with values that are no numbers: NaN or infinite"
    if section["all_blank"]:
        yield "bad", f"All images{of} are of one colour each"
        return
    if section["is_grey"]:
        yield (
            "doubtful",
            f"All images{of} are grey, but stored in three colours: --color grayscale takes a third of the space",
        )
    if highest - lowest < _LEAST_RANGE:
        yield (
            "doubtful",
            f"All pixels{of} lie from {lowest} to {highest}: the images hardly use their range of 0 to 255",
        )
    if section["blank"]["count"] and section["are_numbers"]:
        yield "doubtful", f"{count(section['blank']['count'], 'mask')} of one number alone, such as the background"
    elif section["blank"]["count"]:
        yield "bad", f"{count(section['blank']['count'], 'image')} of one colour: blank"
    if section["nearly_blank"]["count"]:
        yield "doubtful", f"{count(section['nearly_blank']['count'], 'image')} nearly blank"


def _classes(section: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if section["is_unlabelled"]:
        yield "doubtful", "The images have no labels: all are of the one class unlabelled"
    if section["most"] > _MAX_RATIO * section["least"]:
        yield "doubtful", f"Classes have from {section['least']:,} to {section['most']:,} images"
    if section["empty"]["count"]:
        yield "doubtful", f"No image of {_some(section['empty'])}"


def _skipped(section: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if section["count"]:
        yield "bad", f"{count(section['count'], 'file')} left out when it was packed"


def _predictions(section: dict[str, Any]) -> Iterator[tuple[str, str]]:
    about = {"class": _of_classes, "tags": _of_tags, "numbers": _of_numbers}[section["kind"]]
    yield ("doubtful" if section["wrong"] else "fine"), about(section)


def _of_classes(section: dict[str, Any]) -> str:
    return f"{section['wrong']:,} of {section['count']:,} predictions are wrong: accuracy {section['accuracy']:.1%}"


def _of_tags(section: dict[str, Any]) -> str:
    text = f"{section['wrong']:,} of {section['count']:,} predictions have a wrong tag"
    if not section["wrong"]:
        return text
    worst = min((tag for tag in section["tags"] if tag["f1"] is not None), key=itemgetter("f1"))
    return f"{text}; the lowest F1 is {worst['f1']:.1%}, of {brief(worst['name'])}"


def _of_numbers(section: dict[str, Any]) -> str:
    worst, targets = section["worst"], section["all_targets"]
    start = f"The worst of {targets:,} targets is " if targets > 1 else ""
    errors = f"mean absolute error {worst['mean_absolute_error']}, largest error {worst['largest_error']}"
    return f"{start}{brief(worst['name'])}: {errors}" + (f", R² {worst['r_squared']}" if worst["r_squared"] else "")


def _some(classes: Mapping[str, Any]) -> str:
    """The first names of some classes, and the number of the others."""
    first = classes["names"][:_MAX_NAMED]
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
