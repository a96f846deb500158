"""Sources and settings -> what will be written where. Pure: nothing is read, nothing written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import gcd
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from h5split.rows import Rows, stratified_order
from pack_images.errors import PackError
from pack_images.scan import Labels, Sources

CHANNELS = {"rgb": 3, "grayscale": 1, "rgba": 4}
FITS = ("stretch", "crop", "pad")
INTERPOLATIONS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
ORDERS = ("stratified", "sorted")
MAX_PIXELS = 178_956_970  # where Pillow itself refuses

_TASK_BYTES = 4 << 20  # of pixels: a fraction of a second's work, so that workers end together
_LEAST_TASKS = 64
_PAGE = 4096

Fit = Literal["stretch", "crop", "pad"]
Interpolation = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
Color = Literal["rgb", "grayscale", "rgba"]
Order = Literal["stratified", "sorted"]
Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Pixels:
    """How a picture becomes a row.

    Attributes:
        size: (width, height) stored; None where every image has the same size already.
        fit: How another aspect ratio is fitted: `stretch`, `crop` (centred) or `pad` (with black).
        interpolation: One of Pillow's filters, antialiased.
        color: `rgb`, `grayscale` or `rgba`.
        exact: Never decode at a reduced size.
        max_pixels: A picture of more pixels is refused.
    """

    size: tuple[int, int] | None = None
    fit: Fit = "stretch"
    interpolation: Interpolation = "bilinear"
    color: Color = "rgb"
    exact: bool = False
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        _check_known("fit", self.fit, FITS)
        _check_known("interpolation", self.interpolation, INTERPOLATIONS)
        _check_known("color", self.color, tuple(CHANNELS))
        if self.size is not None and not (
            len(self.size) == 2 and all(isinstance(side, int) and 0 < side < 1 << 16 for side in self.size)
        ):
            raise PackError(f"size: expected a width and a height from 1 to 65535, found {self.size!r}")
        if self.max_pixels < 1:
            raise PackError(f"max_pixels: expected 1 or more, found {self.max_pixels}")


@dataclass(frozen=True)
class Settings:
    """Everything a user chose that decides what the file holds; kept in it as JSON."""

    pixels: Pixels
    labels: Labels = "auto"
    order: Order = "stratified"
    seed: int = 0

    def __post_init__(self) -> None:
        _check_known("order", self.order, ORDERS)
        if not isinstance(self.seed, int) or self.seed < 0:
            raise PackError(f"seed: expected a whole number of 0 or more, found {self.seed!r}")

    def as_json(self) -> dict[str, Any]:
        """The settings by name, those of the pixels among them."""
        values = asdict(self)
        pixels: dict[str, Any] = values.pop("pixels")
        return pixels | values


@dataclass(frozen=True)
class Plan:
    """The rows of the file in the order they will have.

    Attributes:
        filenames: N paths.
        labels: int32 (N,), indices into `class_names`.
        class_names: Sorted.
        columns: Name -> N texts.
        shape: (H, W, C) of a row.
        settings: What decided all this.
        passed_over: (path, reason) of what was found and is not planned.
    """

    filenames: Sequence[str]
    labels: NDArray[np.int32]
    class_names: Sequence[str]
    columns: Mapping[str, Sequence[str]]
    shape: Shape
    settings: Settings
    passed_over: Sequence[tuple[str, str]]

    def __len__(self) -> int:
        return len(self.filenames)

    @property
    def stride(self) -> int:
        """Bytes of a row."""
        height, width, channels = self.shape
        return height * width * channels

    @property
    def counts(self) -> dict[str, int]:
        """Class name -> rows planned."""
        counts = np.bincount(self.labels, minlength=len(self.class_names)).tolist()
        return dict(zip(self.class_names, counts, strict=True))

    def ranges(self) -> Iterator[range]:
        """The tasks: ranges of rows of a few megabytes that begin on page boundaries."""
        whole_pages = _PAGE // gcd(_PAGE, self.stride)
        size = max(1, min(_TASK_BYTES // self.stride, -(-len(self) // _LEAST_TASKS)))
        size = -(-size // whole_pages) * whole_pages if size >= whole_pages else size
        return (range(start, min(start + size, len(self))) for start in range(0, len(self), size))

    def identity(self, packed_by: Mapping[str, str]) -> str:
        """A digest of all that decides the bytes of the file, but for the sources' own bytes."""
        digest = hashlib.sha256()
        facts = [
            self.settings.as_json(),
            self.shape,
            list(self.class_names),
            dict(packed_by),
            sorted(self.columns),
        ]
        digest.update(json.dumps(facts, sort_keys=True).encode())
        digest.update(self.labels.tobytes())
        for texts in (self.filenames, *(self.columns[name] for name in sorted(self.columns))):
            digest.update("\0".join(texts).encode("utf-8", "surrogateescape"))
        return digest.hexdigest()


def plan(sources: Sources, settings: Settings, shape: Shape) -> Plan:
    """Decide the order of the rows and the number of each class."""
    class_names = sorted(set(sources.labels))
    number = {name: index for index, name in enumerate(class_names)}
    labels = np.fromiter((number[name] for name in sources.labels), np.int32, len(sources.labels))
    rows = np.arange(len(labels)) if settings.order == "sorted" else stratified_order(labels, settings.seed)
    at = rows.tolist()
    return Plan(
        filenames=_taken(sources.filenames, at),
        labels=labels[rows],
        class_names=class_names,
        columns={"source": _taken(sources.origins, at)},
        shape=shape,
        settings=settings,
        passed_over=sources.passed_over,
    )


def survivors(count: int, failed: Sequence[int], order: Order) -> Rows:
    """Which planned row each final row holds when some could not be written: int64 (count - len(failed),).

    In stratified order the last rows move into the gaps, so that one broken file costs one row's copy; in sorted order
    all rows move up.

    Args:
        count: Rows planned.
        failed: Those that could not be written.
        order: Of the plan.
    """
    if order == "sorted":
        return np.delete(np.arange(count), np.asarray(failed, np.int64))
    rows = np.arange(count - len(failed))
    gone = np.zeros(count, np.bool_)
    gone[np.asarray(failed, np.int64)] = True
    rows[gone[: len(rows)]] = len(rows) + np.flatnonzero(~gone[len(rows) :])
    return rows


def _taken(texts: Sequence[str], rows: Iterable[int]) -> list[str]:
    return [texts[row] for row in rows]


def _check_known(name: str, value: object, known: Sequence[str]) -> None:
    if value not in known:
        raise PackError(f"{name}: expected one of {', '.join(known)}, found {value!r}")
