"""Values that a user gives for each picture, in a list, an array, a tensor or anything else that has an order."""

from __future__ import annotations

from collections.abc import Collection, ItemsView, Iterable, KeysView, Mapping, Set
from typing import Any

import numpy as np
from numpy.typing import NDArray

from h5split.errors import H5SplitError
from h5split.system.arrays import brief, plain
from pack_images.errors import PackError, reason

_MISSING = ("None", "nan", "NaT", "<NA>")  # how numpy and pandas print a value that is not a text and is missing
_NUMBERS = "biuf"  # numpy's kinds of numbers


def iterated(what: str, given: Any) -> Iterable[Any]:
    """Return something to iterate over that has an order.

    A data set with a length and `__getitem__` alone, as torch allows, is as long as it says.

    Args:
        what: What the message of an error begins with.
        given: By the user.

    Raises:
        PackError: It is no collection, or one without an order, such as a set or a dict.
    """
    is_view = isinstance(given, KeysView | ItemsView)  # of a dict, which keeps an order
    if isinstance(given, str | bytes | Mapping) or (isinstance(given, Set) and not is_view):
        raise _no_order(what, f"a {type(given).__name__}")
    if hasattr(given, "__iter__"):
        values: Iterable[Any] = given
        return values
    if not hasattr(given, "__getitem__"):
        raise _no_order(what, brief(given))
    count = length_of(given)
    return given if count is None else (given[at] for at in range(count))


def values_of(what: str, given: Any) -> Iterable[Any]:
    """Return values to iterate over, as an array of numpy's if numpy holds the same values.

    Raises:
        PackError: They have no order, some are masked, or numpy cannot read them.
    """
    if not _is_array(given):
        return iterated(what, given)
    array = _as_array(what, given)
    if not array.ndim:
        raise _no_order(what, f"a single {type(given).__name__}")
    return array


def length_of(given: Any) -> int | None:
    """Return how many values there are; None if that is not known before they are taken."""
    try:
        return len(given)
    except TypeError:
        return None


def scalar(what: str, value: Any) -> Any:
    """Return a value of any library as a text or a number of Python's or numpy's; anything else as it is."""
    if hasattr(value, "__array__") and not isinstance(value, np.generic):
        array = _as_array(what, value)
        value = array if array.ndim else array[()]
    if isinstance(value, bytes):  # as TensorFlow has texts
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value
    return str(value) if isinstance(value, str) else value


def text_of(what: str, value: Any) -> str:
    """Return a value as a text. A missing value, such as None or NaN, is an empty text.

    Raises:
        PackError: It is no single value.
    """
    found = scalar(what, value)
    if isinstance(found, str):
        return found
    if isinstance(found, Collection):
        raise PackError(f"{what}: expected a text or a number for each image, found {brief(found)}")
    text = str(found)
    return "" if text in _MISSING else text


def shown(value: Any) -> str:
    """Return a value for a message, on one line."""
    return brief(value.item() if isinstance(value, np.generic) else value)


def _no_order(what: str, found: str) -> PackError:
    return PackError(f"{what}: expected values in their order, in a list or an array, found {found}; give a list")


def _is_array(given: Any) -> bool:
    """Whether numpy holds the same values.

    Columns of pandas are taken value by value if they may have missing ones, which numpy does not know, or dates.
    """
    if not hasattr(given, "__array__"):
        return False
    shape, dtype = getattr(given, "shape", None), getattr(given, "dtype", None)
    if isinstance(given, np.ndarray) or not hasattr(given, "__iter__") or (shape is not None and len(shape) != 1):
        return True
    if isinstance(dtype, np.dtype):
        return dtype.kind in _NUMBERS
    return hasattr(next(iter(given), None), "__array__")  # a tensor is one of tensors, each slow to read


def _as_array(what: str, given: Any) -> NDArray[Any]:
    try:
        return plain(what, given)
    except H5SplitError:
        raise
    except Exception as error:  # libraries raise any type, such as for a tensor on another device
        found = f"{type(given).__name__} ({reason(error)})"
        raise PackError(f"{what}: expected values that numpy can read, found {found}") from error
