"""Who calls: code of other packages among the callers of a function."""

from __future__ import annotations

from types import FrameType
from typing import Any

_NEAR = 16  # callers that are looked at


def caller_in(module: dict[str, Any], frame: FrameType | None) -> FrameType | None:
    """The nearest caller that is code of a module; a comprehension in it is passed over.

    Looking for it takes 0.2 us where it is near.

    Args:
        module: The globals of the module.
        frame: Of the first caller to look at.
    """
    for _ in range(_NEAR):
        if frame is None:
            return None
        if frame.f_globals is module and not frame.f_code.co_name.startswith("<"):
            return frame
        frame = frame.f_back
    return None
