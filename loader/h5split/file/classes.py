"""The order of class names, which gives each class its number."""

from __future__ import annotations

import re
from collections.abc import Iterable

_WHOLE_NUMBER = re.compile(r"[+-]?\d+", re.ASCII)


def sorted_classes(names: Iterable[str]) -> list[str]:
    """Sort class names. If all of them are whole numbers they are sorted by value, so that "10" comes after "2"."""
    distinct = sorted(set(names))
    if all(_WHOLE_NUMBER.fullmatch(name) for name in distinct):
        distinct.sort(key=int)
    return distinct
