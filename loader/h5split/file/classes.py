"""The order of class names, which gives each class its number; their Unicode forms; and other classes in their place.

A Mac writes file names decomposed, an e and an accent, and other systems composed. Such names look alike wherever they
are printed, so names that differ in their Unicode form only are one class, unless one list of names has both.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from decimal import Decimal

from h5split.errors import ArgumentError

Classes = Sequence[str] | Mapping[str, str]  # names in order, or old name -> new name

UNLABELLED = "unlabelled"  # the one class of images without labels
NO_LABELS = f"all images are of the one class {UNLABELLED}; pack them with labels, or set targets to a column of them"

_WHOLE_NUMBER = re.compile(r"[+-]?\d+", re.ASCII)


def is_unlabelled(names: Sequence[str]) -> bool:
    """Whether classes are those of images without labels."""
    return list(names) == [UNLABELLED]


def sorted_classes(names: Iterable[str]) -> list[str]:
    """Sort class names. If all of them are whole numbers they are sorted by value, so that "10" comes after "2"."""
    distinct = sorted(set(names))
    if all(_WHOLE_NUMBER.fullmatch(name) for name in distinct):
        distinct.sort(key=Decimal)  # int refuses more than 4,300 digits
    return distinct


def one_form(lists: Iterable[Iterable[str]], preferred: Collection[str] = ()) -> dict[str, str]:
    """Return name -> the name of its class, which differs at most in its Unicode form.

    Args:
        lists: Lists of class names. Two names in one list stay two classes.
        preferred: Names to choose if they are there. Otherwise the composed form is chosen, if it is there.
    """
    forms: dict[str, set[str]] = {}
    apart: set[str] = set()
    for names in map(set, lists):
        composed = {name: unicodedata.normalize("NFC", name) for name in names}
        apart.update(form for form, count in Counter(composed.values()).items() if count > 1)
        for name, form in composed.items():
            forms.setdefault(form, set()).add(name)
    found = {}
    for form, names in forms.items():
        known = [*names.intersection(preferred)] or [*names]
        chosen = form if form in known else min(known)
        found.update({name: name if form in apart else chosen for name in names})
    return found


def checked_classes(given: object) -> Classes | None:
    """Check classes that a user gives, and return an unchanging copy of them.

    Args:
        given: A sequence of names in the order of their numbers, or a mapping from old names to new ones. These are
            numbered in the order in which they first appear. None stays None.

    Raises:
        ValueError: It is something else, is empty, or has a name twice.
    """
    if given is None:
        return None
    if isinstance(given, Mapping):
        names = [*given, *given.values()]
        copied: Classes = dict(given)
    elif isinstance(given, Sequence) and not isinstance(given, str):
        names = [*given]
        copied = tuple(given)
    else:
        raise ArgumentError(
            f"classes: expected a list of names, or a mapping of old names to new ones, found {given!r}"
        )
    wrong = next((name for name in names if not isinstance(name, str) or not name), None)
    if wrong is not None or not names:
        raise ArgumentError(f"classes: expected names, found {'none' if wrong is None else repr(wrong)}")
    twice = next((name for name, count in Counter([*copied]).items() if count > 1), None)
    if twice is not None:
        raise ArgumentError(f"classes: expected each name once, found {twice!r} twice")
    return copied


def renumbered(names: Sequence[str], classes: Classes) -> tuple[list[str], list[int]]:
    """Return the new class names, and the new number of each old class; -1 if it has none.

    Args:
        names: The old class names.
        classes: From `checked_classes`.
    """
    if isinstance(classes, Mapping):
        new = list(dict.fromkeys(classes.values()))
        number = {old: new.index(name) for old, name in classes.items()}
    else:
        new = list(classes)
        number = {name: index for index, name in enumerate(new)}
    known = one_form([names, number], number)
    return new, [number.get(known[name], -1) for name in names]
