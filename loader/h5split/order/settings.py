"""The settings of a sequence, which its method `set` changes."""

from __future__ import annotations

import inspect
import os
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypedDict, TypeVar

import numpy as np

from h5split.errors import ArgumentError
from h5split.file.classes import checked_classes

LabelMode = Literal["categorical", "int", "binary"]
AutoShuffle = bool | Literal["block"]

Function = TypeVar("Function", bound=Callable[..., Any])

_LABEL_MODES = ("categorical", "int", "binary")
_WORKERS = ("num_workers", "workers", "use_multiprocessing", "max_queue_size", "prefetch_factor", "persistent_workers")


class SettingNames(TypedDict, total=False):
    """The settings as keyword arguments, for editors and type checkers. `Settings` describes each."""

    batch_size: int
    scale: float | None
    label_mode: LabelMode | None
    max_per_class_and_epoch: int | None
    auto_shuffle: AutoShuffle
    seed: int
    drop_remainder: bool
    verbose: bool
    classes: Sequence[str] | Mapping[str, str] | None
    targets: Any
    weights: Any
    cache: str | os.PathLike[str] | None
    cache_limit: int | None


@dataclass(frozen=True)
class Settings:
    """The settings of a sequence.

    Attributes:
        batch_size: The number of images in a batch. In a shard, the number for each rank.
        scale: The factor that pixels are multiplied by, which makes them float32. None leaves them as they are in the
            pack: uint8, uint16 or float32.
        label_mode: `categorical`: float32 one-hot (B, K). `int`: int32 (B,). `binary`: float32 (B, 1). None: no labels;
            a batch is its images alone.
        max_per_class_and_epoch: The largest number of images of one class in an epoch; None for no limit.
        auto_shuffle: True shuffles all rows anew for every epoch. `block` cuts the rows into batches at a new place and
            shuffles the batches, but not the rows in them.
        seed: The seed of all random orders.
        drop_remainder: Leave out the last batch if it is not full.
        verbose: Show progress bars.
        classes: The classes, and with them their numbers. A list: the number of a class is its place in the list. Every
            class that has images must be in it; names without images may be. A mapping from old names to new ones
            renames and merges classes. The new names are numbered in the order in which they first appear. None: the
            classes of the packs.
        targets: The targets in place of the class. A column: float32 (B,). A list of columns: float32 (B, number of
            columns). `Tags(column)`: float32 (B, K), multi-hot. An array (N, ...) with a value for each row of the
            sequence: its rows, as they are, also where they are NaN. `PackedImages("masks.h5")`, or a list of packs:
            the pictures that belong to the rows, (B, H, W, C), of packs made with `--like`; `scale` leaves them as they
            are. A dict of these: a dict of such arrays, in which
            `"label"` is the class, or an error if there is a column of that name too. Alone, `"label"` is that column,
            and without one the class.
        weights: The weight of each image in the loss, 0 or more: a column, or an array (N,). Batches are then (images,
            targets, weights).
        cache: The folder of the copies of packs that are elsewhere, which are opened by addresses such as
            s3://bucket/eurosat.h5, from then on. None for the cache folder of this user.
        cache_limit: How many bytes the copies in that folder may have. A new copy that would exceed them removes copies
            that no process uses, those that were used longest ago first. None for no limit.
    """

    batch_size: int = 32
    scale: float | None = None
    label_mode: LabelMode | None = "categorical"
    max_per_class_and_epoch: int | None = None
    auto_shuffle: AutoShuffle = False
    seed: int = 0
    drop_remainder: bool = False
    verbose: bool = False
    classes: Sequence[str] | Mapping[str, str] | None = None
    targets: Any = None
    weights: Any = None
    cache: str | os.PathLike[str] | None = None
    cache_limit: int | None = None

    def __post_init__(self) -> None:
        check_whole("batch_size", self.batch_size, 1)
        check_whole("seed", self.seed, 0)
        if self.cache_limit is not None:
            check_whole("cache_limit", self.cache_limit, 1)
        if self.max_per_class_and_epoch is not None:
            check_whole("max_per_class_and_epoch", self.max_per_class_and_epoch, 1)
        if self.scale is not None and not _is_scale(self.scale):
            raise ArgumentError(f"scale: expected a number such as 1/255, or None, found {self.scale!r}")
        if self.label_mode not in (None, *_LABEL_MODES):
            raise ArgumentError(
                f"label_mode: expected one of {', '.join(_LABEL_MODES)}, or None, found {self.label_mode!r}"
            )
        if not (isinstance(self.auto_shuffle, (bool, np.bool_)) or self.auto_shuffle == "block"):
            raise ArgumentError(f"auto_shuffle: expected True, False or 'block', found {self.auto_shuffle!r}")
        classes = checked_classes(self.classes)
        if isinstance(classes, Mapping):  # two dicts are equal in any order, but the order numbers the classes
            classes = OrderedDict(classes)
        object.__setattr__(self, "classes", classes)
        if self.weights is not None and self.targets is None and self.label_mode is None:
            raise ArgumentError("weights: expected targets to weigh, found none, and no labels: label_mode is None")
        for name in ("drop_remainder", "verbose"):
            if not isinstance(getattr(self, name), (bool, np.bool_)):
                raise ArgumentError(f"{name}: expected True or False, found {getattr(self, name)!r}")

    def order_key(self) -> tuple[int, int, str, int, bool]:
        """The settings that determine the rows of an epoch, their order, and their batches."""
        return (
            int(self.batch_size),
            int(self.max_per_class_and_epoch or 0),
            "block" if self.auto_shuffle == "block" else str(bool(self.auto_shuffle)),
            int(self.seed),
            bool(self.drop_remainder),
        )


def no_workers(name: str, found: object) -> str:
    """The message for an argument that asks for worker processes."""
    return (
        f"{name}: expected none, found {found!r}; batches are views of the file, or one copy, which takes less time "
        f"than another process would take to hand them over: leave {name} out"
    )


def _is_scale(value: object) -> bool:
    number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    return number and bool(np.isfinite(value)) and value != 0  # type: ignore[call-overload]


def changed(settings: Settings, changes: Mapping[str, Any]) -> Settings:
    """A copy of the settings with some of them changed.

    Raises:
        ValueError: A setting is unknown, and the message lists all settings; or a value is out of range.
    """
    names = [field.name for field in fields(Settings)]
    for name in changes:
        if name in _WORKERS:
            raise ArgumentError(no_workers(name, changes[name]))
        if name not in names:
            raise ArgumentError(f"unknown setting {name!r}; expected one of {', '.join(names)}")
    return replace(settings, **changes)


def listing_settings(function: Function) -> Function:
    """Have `help` list every setting, with its type and default, in place of ``**settings``."""
    signature = inspect.signature(function)
    others = [one for one in signature.parameters.values() if one.kind is not inspect.Parameter.VAR_KEYWORD]
    settings = [
        inspect.Parameter(one.name, inspect.Parameter.KEYWORD_ONLY, default=one.default, annotation=one.type)
        for one in fields(Settings)
    ]
    function.__signature__ = signature.replace(parameters=[*others, *settings])  # type: ignore[attr-defined]
    return function


def check_whole(name: str, value: object, least: int) -> None:
    """Check that a value is a whole number of at least `least`. Errors name the setting `name`.

    Raises:
        ValueError: It is not a whole number, or is less than `least`.
    """
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < least:
        raise ArgumentError(f"{name}: expected a whole number of {least} or more, found {value!r}")
