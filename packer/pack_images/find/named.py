"""Labels that a user gives with pictures: class numbers or class names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from h5split.file.classes import UNLABELLED
from pack_images.errors import PackError
from pack_images.find.values import scalar, shown, values_of

_MAX_UNNAMED = 1000  # classes that numbers without names may always make
_MAX_UNNAMED_RATIO = 10  # ... or as many for each number that occurs


def check_labels(labels: Any) -> Any:
    """Return labels as something with one axis to iterate over.

    Raises:
        PackError: They have another form, such as one-hot.
    """
    values = values_of("labels", labels)
    if not isinstance(values, np.ndarray) or values.ndim == 1:
        return values
    if values.shape[1:] == (1,):  # as keras.datasets has them
        return values[:, 0]
    raise PackError(
        f"labels: expected one for each image, found an array of shape {values.shape}; of one-hot labels make numbers "
        "by labels.argmax(axis=1)"
    )


def named(labels: Sequence[Any], class_names: tuple[str, ...] | None) -> tuple[list[str], tuple[str, ...] | None]:
    """Return the class name of each picture, and all class names if their order is given.

    Args:
        labels: Numbers from 0, or names, or None for each picture.
        class_names: The names of the numbers. None: numbers are their own names, and names are sorted.

    Raises:
        PackError: A label is neither, or is not among the classes.
    """
    if all(label is None for label in labels):
        return [UNLABELLED] * len(labels), None
    found = [_label(label, index) for index, label in enumerate(labels)]
    numbers = [label for label in found if isinstance(label, int)]
    texts = [label for label in found if isinstance(label, str)]
    if not numbers:
        unknown = set() if class_names is None else {*texts}.difference(class_names)
        if unknown:
            raise PackError(f"labels: expected one of class_names, found {min(unknown)!r}")
        return texts, class_names
    if texts:
        raise PackError("labels: expected class numbers or class names, found both")
    names = _numbers_as_names(numbers) if class_names is None else class_names
    wrong = next((at for at, number in enumerate(numbers) if not 0 <= number < len(names)), None)
    if wrong is not None:
        raise PackError(
            f"labels: expected class numbers from 0 to {len(names) - 1}, found {numbers[wrong]} for image {wrong}"
        )
    return [names[number] for number in numbers], names


def _label(given: Any, index: int) -> int | str:
    """Return a label as a number or a name of Python's."""
    label = scalar("labels", given)
    if isinstance(label, str):
        if not label:
            raise PackError(
                f"labels: expected a class name for each image, found an empty one for image {index}; name the class, "
                "or leave the image out"
            )
        return label
    if isinstance(label, list | tuple | np.ndarray) and len(label) == 1:
        return _label(label[0], index)
    if isinstance(label, int | np.integer) and np.asarray(label).dtype.kind in "iu":
        return int(label)
    raise PackError(
        f"labels: expected a class number or a class name for each image, found {shown(label)} for image {index}; put "
        "numbers to predict into columns={...}"
    )


def _numbers_as_names(numbers: Sequence[int]) -> tuple[str, ...]:
    """Return the names of the classes from 0 to the largest number. Refuse numbers that count no classes, such as ids.

    Raises:
        PackError: Most of the classes would have no image.
    """
    largest, distinct = max(0, *numbers, 0), len({*numbers})
    if largest >= max(_MAX_UNNAMED, _MAX_UNNAMED_RATIO * distinct):
        raise PackError(
            f"labels: expected class numbers from 0, found up to {largest} for {distinct:,} classes; give class_names, "
            "or texts if these are names"
        )
    return tuple(map(str, range(largest + 1)))
