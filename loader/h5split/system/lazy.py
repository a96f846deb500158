"""Attributes that are computed at first use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

Value = TypeVar("Value")


class lazy(Generic[Value]):  # noqa: N801
    """`functools.cached_property` without the lock it has up to Python 3.11: a fork may leave that one locked for ever.

    Several threads may compute the value at once, so it must be the same every time.

    Args:
        function: Computes the value from the object.
    """

    def __init__(self, function: Callable[[Any], Value]) -> None:
        self.__doc__ = function.__doc__
        self._function = function

    def __get__(self, instance: Any, owner: type | None = None) -> Value:
        if instance is None:  # read from the class, as help() does
            return self  # type: ignore[return-value]
        value = self._function(instance)
        instance.__dict__[self._function.__name__] = value  # later reads find it there and do not come here
        return value
