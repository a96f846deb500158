"""What `set` takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypedDict

import numpy as np

from h5split.errors import ArgumentError

LabelMode = Literal["categorical", "int", "binary"]
AutoShuffle = bool | Literal["block"]

_LABEL_MODES = ("categorical", "int", "binary")


class SettingNames(TypedDict, total=False):
    """The settings as keyword arguments, for editors and type checkers; `Settings` says what they mean."""

    batch_size: int
    scale: float | None
    label_mode: LabelMode
    max_per_class_and_epoch: int | None
    auto_shuffle: AutoShuffle
    seed: int
    drop_remainder: bool
    verbose: bool


@dataclass(frozen=True)
class Settings:
    """What `set` takes.

    Attributes:
        batch_size: Images in a batch; of each rank, in a shard.
        scale: Pixels are multiplied by it into float32; None leaves them uint8.
        label_mode: `categorical`: float32 one-hot (B, K). `int`: int32 (B,). `binary`: float32 (B, 1).
        max_per_class_and_epoch: At most so many images of each class in an epoch.
        auto_shuffle: A new order every epoch: of all rows when True; `block` puts whole batches of consecutive rows
            into a new order, cut at a new place.
        seed: Of every order.
        drop_remainder: Leave out a last batch that is not full.
        verbose: Show progress bars.
    """

    batch_size: int = 32
    scale: float | None = None
    label_mode: LabelMode = "categorical"
    max_per_class_and_epoch: int | None = None
    auto_shuffle: AutoShuffle = False
    seed: int = 0
    drop_remainder: bool = False
    verbose: bool = False

    def __post_init__(self) -> None:
        check_whole("batch_size", self.batch_size, 1)
        check_whole("seed", self.seed, 0)
        if self.max_per_class_and_epoch is not None:
            check_whole("max_per_class_and_epoch", self.max_per_class_and_epoch, 1)
        if self.scale is not None and not _is_scale(self.scale):
            raise ArgumentError(f"scale: expected a number such as 1/255, or None, found {self.scale!r}")
        if self.label_mode not in _LABEL_MODES:
            raise ArgumentError(f"label_mode: expected one of {', '.join(_LABEL_MODES)}, found {self.label_mode!r}")
        if not (isinstance(self.auto_shuffle, (bool, np.bool_)) or self.auto_shuffle == "block"):
            raise ArgumentError(f"auto_shuffle: expected True, False or 'block', found {self.auto_shuffle!r}")
        for name in ("drop_remainder", "verbose"):
            if not isinstance(getattr(self, name), (bool, np.bool_)):
                raise ArgumentError(f"{name}: expected True or False, found {getattr(self, name)!r}")

    def order_key(self) -> tuple[int, int, str, int, bool]:
        """What decides which rows an epoch has, in which order and batches."""
        return (
            int(self.batch_size),
            int(self.max_per_class_and_epoch or 0),
            "block" if self.auto_shuffle == "block" else str(bool(self.auto_shuffle)),
            int(self.seed),
            bool(self.drop_remainder),
        )


def _is_scale(value: object) -> bool:
    number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    return number and bool(np.isfinite(value)) and value != 0  # type: ignore[call-overload]


def changed(settings: Settings, changes: Mapping[str, Any]) -> Settings:
    """The settings with some changed.

    Raises:
        ValueError: One is unknown or out of range; the message lists those there are.
    """
    names = [field.name for field in fields(Settings)]
    for name in changes:
        if name not in names:
            raise ArgumentError(f"unknown setting {name!r}; expected one of {', '.join(names)}")
    return replace(settings, **changes)


def check_whole(name: str, value: object, least: int) -> None:
    """Check a whole number.

    Raises:
        ValueError: It is none, or less than `least`.
    """
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < least:
        raise ArgumentError(f"{name}: expected a whole number of {least} or more, found {value!r}")
