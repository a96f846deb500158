"""Finds code of another module among the callers of a function."""

from __future__ import annotations

from types import FrameType
from typing import Any

_MAX_CALLERS = 16  # the number of callers that are examined


def caller_in(module: dict[str, Any], frame: FrameType | None) -> FrameType | None:
    """The nearest caller that is code of a module; None if there is none.

    Comprehensions, lambdas and module-level code are skipped.

    If the caller is near, the search takes 0.2 us.

    Args:
        module: The globals of the module.
        frame: The frame of the first caller to examine.
    """
    for _ in range(_MAX_CALLERS):
        if frame is None:
            return None
        if frame.f_globals is module and not frame.f_code.co_name.startswith("<"):
            return frame
        frame = frame.f_back
    return None
