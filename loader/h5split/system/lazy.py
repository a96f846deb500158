"""Attributes that are computed at first use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

Value = TypeVar("Value")


class lazy(Generic[Value]):  # noqa: N801
    """`functools.cached_property` without a lock.

    Up to Python 3.11 it has a lock, which stays locked forever in a process that is forked at the wrong moment. Without
    the lock, several threads may compute the value at once, so it must be the same every time.

    Args:
        function: Computes the value from the object.
    """

    def __init__(self, function: Callable[[Any], Value]) -> None:
        self.__doc__ = function.__doc__
        self._function = function

    def __get__(self, instance: Any, owner: type | None = None) -> Value:
        if instance is None:  # accessed through the class, for instance by help()
            return self  # type: ignore[return-value]
        value = self._function(instance)
        instance.__dict__[self._function.__name__] = value  # later reads find it there and do not call __get__
        return value
