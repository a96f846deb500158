"""Functions of the user that batches go through: what the method `map` of a sequence adds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from h5split.batch.targets import Spec
from h5split.errors import ArgumentError, ArgumentTypeError
from h5split.system.arrays import plain

Function = Callable[[Any, Any, np.random.Generator], tuple[Any, Any]]

_PARTS = 2  # images and targets


class Place(NamedTuple):
    """Where a batch is: all that its random numbers depend on.

    Attributes:
        seed: The setting `seed`.
        epoch: The number of the epoch.
        batch: The number of the batch in it.
        rank: The rank of the shard; 0 if the sequence is not a shard.
    """

    seed: int
    epoch: int
    batch: int
    rank: int

    def generator(self, step: int, count: int) -> np.random.Generator:
        """Return the random generator of one function for this batch.

        Ranks have equal generators, but the generators that they spawn continue each other: those of rank r are number
        `r * count` and following.

        Args:
            step: The number of the function.
            count: The number of images in the batch.
        """
        seeds = np.random.SeedSequence(
            (self.seed, self.epoch, self.batch), spawn_key=(step,), n_children_spawned=self.rank * count
        )
        return np.random.default_rng(seeds)


def check_function(function: object) -> None:
    """Check what a user gives to `map`.

    Raises:
        TypeError: It cannot be called.
    """
    if not callable(function):
        raise ArgumentTypeError(f"map: expected a function of (images, targets, rng), found {function!r}")


def mapped(functions: Sequence[Function], batch: Any, place: Place) -> Any:
    """Return a batch after all functions, one after another.

    Args:
        functions: The functions.
        batch: images, (images, targets) or (images, targets, weights), which the functions may write to.
        place: Where the batch is.

    Raises:
        ValueError: A function returns something else than images and targets, or another number of them.
        TypeError: Likewise.
    """
    images, targets, *weights = batch if isinstance(batch, tuple) else (batch, None)
    count = len(images)
    for step, function in enumerate(functions):
        try:
            found = function(images, targets, place.generator(step, count))
        except Exception as error:
            error.add_note(f"in {_name(function)}, given to map(), for batch {place.batch} of epoch {place.epoch}")
            raise
        if not isinstance(found, (tuple, list)) or len(found) != _PARTS:
            raise ArgumentTypeError(f"map: expected (images, targets) from {_name(function)}, found {_brief(found)}")
        images, targets = (_arrays(part, count, function) for part in found)
        if images is None:
            raise ArgumentTypeError(f"map: expected images from {_name(function)}, found None")
    if targets is not None:
        return images, targets, *weights
    if weights:
        raise ArgumentError("map: expected targets, as there are weights, found None")
    return (images,) if isinstance(images, tuple) else images  # a pair would be taken for images and targets


def specs_of(batch: Any) -> Any:
    """Return the spec of each array of a batch, in the structure of the batch."""
    if isinstance(batch, dict):
        return {name: specs_of(part) for name, part in batch.items()}
    if isinstance(batch, (tuple, list)):
        return tuple(specs_of(part) for part in batch)
    return Spec(batch.shape[1:], batch.dtype)


def _arrays(part: Any, count: int, function: Function) -> Any:
    """Return what a function returned with arrays for tensors; None remains None."""
    if part is None:
        return None
    if isinstance(part, Mapping):
        return {name: _arrays(one, count, function) for name, one in part.items()}
    if isinstance(part, tuple):
        return tuple(_arrays(one, count, function) for one in part)
    array = plain(f"map, what {_name(function)} returned", part)
    if array.ndim == 0 or len(array) != count:
        raise ArgumentError(
            f"map: expected {count} rows, as the batch has, from {_name(function)}, found {_brief(part)}; "
            "select() leaves rows out"
        )
    return array


def _name(function: Function) -> str:
    return str(getattr(function, "__qualname__", repr(function)))


def _brief(found: object) -> str:
    shape = getattr(found, "shape", None)
    if shape is not None:
        return f"an array of shape {tuple(shape)}"
    return f"{len(found)} values" if isinstance(found, (tuple, list)) else repr(found)[:80]
