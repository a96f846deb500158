"""The sequence without Keras: everything but the base class."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from tqdm import tqdm

from h5split import rows as row_math
from h5split.buffers import BufferPool
from h5split.images import READ_SIZE, PackedImages, Texts
from h5split.rows import Rows

Batch = tuple[NDArray[np.uint8] | NDArray[np.float32], NDArray[np.float32] | NDArray[np.int32]]

_LABEL_MODES = ("categorical", "int", "binary")


@dataclass(frozen=True)
class Settings:
    """What `set` takes.

    Attributes:
        batch_size: Images in a batch.
        scale: Pixels are multiplied by it into float32; None leaves them uint8.
        label_mode: `categorical`: float32 one-hot (B, K). `int`: int32 (B,). `binary`: float32 (B, 1).
        max_per_class_and_epoch: At most so many images of each class in an epoch.
        auto_shuffle: A new order every epoch.
        seed: Of every order.
        drop_remainder: Leave out a last batch that is not full.
        verbose: Show progress bars.
    """

    batch_size: int = 32
    scale: float | None = None
    label_mode: Literal["categorical", "int", "binary"] = "categorical"
    max_per_class_and_epoch: int | None = None
    auto_shuffle: bool = False
    seed: int = 0
    drop_remainder: bool = False
    verbose: bool = False

    def __post_init__(self) -> None:
        _check_whole("batch_size", self.batch_size, 1)
        _check_whole("seed", self.seed, 0)
        if self.max_per_class_and_epoch is not None:
            _check_whole("max_per_class_and_epoch", self.max_per_class_and_epoch, 1)
        if self.scale is not None and (isinstance(self.scale, bool) or not isinstance(self.scale, (int, float))):
            raise ValueError(f"scale: expected a number such as 1/255, or None, found {self.scale!r}")
        if self.label_mode not in _LABEL_MODES:
            raise ValueError(f"label_mode: expected one of {', '.join(_LABEL_MODES)}, found {self.label_mode!r}")


def _check_whole(name: str, value: object, least: int) -> None:
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name}: expected a whole number of {least} or more, found {value!r}")


@dataclass(frozen=True)
class Mistake:
    """A row that the network gets wrong.

    Attributes:
        filename: Of the source image.
        label: The class it is said to be.
        predicted: The class the network takes it for.
        confidence: What the network gave that class.
        position: In the epoch predicted.
    """

    filename: str
    label: str
    predicted: str
    confidence: float
    position: int


class _Pass:
    """One pass over the data: the order of an epoch, and which of its batches were asked for.

    Args:
        epoch: Its number.
        rows: Its order.
        batches: How many there are.
        counts: Whether it can become complete; a look ahead cannot.
        complete: Whether it is so already.
    """

    def __init__(self, epoch: int, rows: Rows, batches: int, counts: bool = True, complete: bool = False) -> None:
        self.epoch = epoch
        self.rows = rows
        self._counts = counts
        self.consecutive = row_math.is_consecutive(rows)
        self._batches = batches
        self._seen: set[int] = set()
        self._complete = complete

    @property
    def complete(self) -> bool:
        return self._complete or (self._counts and len(self._seen) >= self._batches)

    def mark(self, batch: int) -> None:
        self._seen.add(batch)


class SplitSequence:
    """Batches of a pack in any order, split into any number of parts; file names follow every row.

    A sequence is a list of row numbers over a mapped file. Methods return `self`, unless said otherwise, so that calls
    chain::

        test, val, train = SplitSequence("eurosat.h5").split(0.2, 0.4)
        for images, labels in train.set(batch_size=128, auto_shuffle=True):
            ...

    The order of an epoch is a function of (seed, epoch) and nothing else. A pass begins with `begin`, which iteration
    calls, and keeps its order to the end. The epoch advances when a pass begins and the one before it was complete, so
    the file names of what was delivered stay right until the next pass.

    Args:
        paths: Packs to open; none makes an empty sequence.
        settings: As for `set`.

    Raises:
        FileNotFoundError: There is no such file.
        FormatError: A file is no pack, is damaged, or is of a newer version.
        ValueError: A setting is unknown or out of range.
    """

    def __init__(self, *paths: str | os.PathLike[str], **settings: Any) -> None:
        self._settings = _changed(Settings(), settings)
        self._pack: PackedImages | None = None
        self._items: NDArray[np.void] = np.empty(0, "V1")
        self._rows: Rows = np.empty(0, np.int64)
        self._pass = _Pass(0, self._rows, 0)
        self._next: bool | None = None  # a pass is to begin with the next batch, and counts or not
        self._told_of_passes = False
        self._lock = threading.Lock()
        self._buffers = BufferPool()
        self.add_file(*paths)

    def __len__(self) -> int:
        """Batches in an epoch; the same for every epoch until a setting changes."""
        return self._batch_count(len(self._pass.rows))

    def __getitem__(self, index: int) -> Batch:
        """A batch of the current pass.

        Args:
            index: From 0 to `len(self) - 1`.

        Returns:
            images: uint8 (B, H, W, C), or float32 with `scale`. A batch of consecutive rows without `scale` is a
                read-only view of the file; any other is in a buffer that is not used again while anybody holds it.
            labels: As `label_mode` says.

        Raises:
            IndexError: There is no such batch.
        """
        batch = index + len(self) if index < 0 else index
        if not 0 <= batch < len(self):
            raise IndexError(f"batch {index}: expected 0 to {len(self) - 1}")
        if self._next is not None:
            self._start_pass()
        current = self._pass
        current.mark(batch)
        start = batch * self._settings.batch_size
        rows = current.rows[start : start + self._settings.batch_size]
        return self._gather(rows, current.consecutive), self._labels(rows)

    def __iter__(self) -> Iterator[Batch]:
        """One pass over the data; with `auto_shuffle`, the next pass is the next epoch."""
        self.begin()
        return (self[batch] for batch in range(len(self)))

    def __repr__(self) -> str:
        name = type(self).__name__
        if self._pack is None:
            return f"{name}(): empty"
        return f"{name}({self._pack.path!r}): {len(self._rows)} images {self.shape}, {self.num_classes} classes"

    def __getstate__(self) -> dict[str, Any]:
        """A path, rows and settings: pixels are never pickled."""
        return {
            "pack": self._pack,
            "rows": self._rows,
            "settings": self._settings,
            "pass": (self.epoch, True, self._pass.complete),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        type(self).__init__(self)
        self._settings = state["settings"]
        self._use(state["pack"], state["rows"])
        self._pass = self._make_pass(*state["pass"])

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C) of one image: a network's `input_shape`.

        Raises:
            ValueError: The sequence is empty.
        """
        return self._opened().shape

    @property
    def classnames(self) -> list[str]:
        """The name of each class number."""
        return [] if self._pack is None else list(self._pack.class_names)

    @property
    def class_names(self) -> list[str]:
        """The same as `classnames`."""
        return self.classnames

    @property
    def num_classes(self) -> int:
        """How many classes the pack has."""
        return len(self.classnames)

    @property
    def filenames(self) -> Sequence[str]:
        """The source file of every row, in the order of the sequence (not of an epoch); read when asked for."""
        return [] if self._pack is None else self._pack.filenames.take(self._rows)

    @property
    def classes(self) -> NDArray[np.int32]:
        """The class number of every row, in the order of the sequence: int32 (N,)."""
        return np.empty(0, np.int32) if self._pack is None else self._pack.labels[self._rows]

    @property
    def columns(self) -> Mapping[str, Texts]:
        """Every other column of the pack, in the order of the sequence."""
        if self._pack is None:
            return {}
        return {name: column.take(self._rows) for name, column in self._pack.columns.items()}

    @property
    def settings(self) -> Settings:
        """What `set` set."""
        return self._settings

    @property
    def epoch(self) -> int:
        """The epoch whose order is in effect, counted from 0. Set it to resume."""
        return self._pass.epoch

    @epoch.setter
    def epoch(self, number: int) -> None:
        _check_whole("epoch", number, 0)
        self._pass = self._make_pass(int(number))

    def add_file(self, *paths: str | os.PathLike[str]) -> Self:
        """Open a pack.

        Raises:
            ValueError: The sequence has one already.
        """
        for path in paths:
            if self._pack is not None:
                raise ValueError(
                    f"expected one pack, found {self._pack.path} and {os.fspath(path)}; "
                    "pack their folders into one file"
                )
            pack = PackedImages(path)
            self._use(pack, np.arange(len(pack), dtype=np.int64))
        return self

    def set(self, **settings: Any) -> Self:
        """Change settings; see `Settings`.

        Raises:
            ValueError: A setting is unknown or out of range; the message lists those there are.
        """
        before = self._settings
        self._settings = _changed(before, settings)
        self._check_labels()
        if replace(before, scale=None, label_mode="int", verbose=False) != replace(
            self._settings, scale=None, label_mode="int", verbose=False
        ):
            self._pass = self._make_pass(self.epoch, complete=self._pass.complete)
        return self

    def shuffle(self, seed: int | None = None) -> Self:
        """Put the rows into a new order, file names following.

        Args:
            seed: Of the order; the setting `seed` when None.

        Raises:
            ValueError: The seed is not a whole number of 0 or more.
        """
        key = self._settings.seed if seed is None else seed
        _check_whole("seed", key, 0)
        self._use(self._pack, self._rows[row_math.permutation(len(self._rows), key)])
        return self

    def preload(self) -> Self:
        """Read the pixels once, front to back, into the page cache; with `verbose`, under a progress bar.

        Passed over with a warning where they do not fit in free memory.
        """
        if self._pack is None:
            return self
        pieces = self._pack.pieces(self._rows)
        needed, free = len(pieces) * READ_SIZE, _free_memory()
        if free is not None and needed > free:
            warnings.warn(
                f"preload: {needed / 1e9:.1f} GB of pixels do not fit in {free / 1e9:.1f} GB of free memory; "
                "passed over, batches will be read from disk",
                stacklevel=2,
            )
            return self
        with tqdm(total=needed, unit="B", unit_scale=True, desc="preload", disable=not self._settings.verbose) as bar:
            self._pack.preload(pieces, bar.update)
        return self

    def split(self, *points: float, stratify: bool = False, groups: str | ArrayLike | None = None) -> list[Self]:
        """Cut the current order at fractions of all rows.

        `split(0.2, 0.4)` gives three parts: 20 %, 20 % and 60 %. Equal points give an empty part. In the stratified
        row order that packs have by default, every part has each class in its share to within a row or two.

        Args:
            points: Where to cut, from 0 to 1, not decreasing.
            stratify: Cut each class at those points: for rows in any order.
            groups: Rows of equal value stay in one part: the name of a column, `"content"` for identical files, or an
                array (N,).

        Returns:
            len(points) + 1 sequences with the same settings.

        Raises:
            ValueError: Points outside [0, 1] or decreasing, or an unknown column.
        """
        if groups is not None:
            parts = row_math.split_groups(self._rows, self._groups(groups), points, self.classes if stratify else None)
        elif stratify:
            parts = row_math.split_strata(self._rows, self.classes, points)
        else:
            parts = row_math.split(self._rows, points)
        return [self._child(rows) for rows in parts]

    def split_by(self, column: str) -> dict[str, Self]:
        """One part for each value of a column: `split_by("split")["train"]`.

        Raises:
            ValueError: There is no such column; the message lists those there are.
        """
        values, part = np.unique(self._column(column), return_inverse=True)
        texts = Texts(values)
        return {texts[index]: self._child(self._rows[part == index]) for index in range(len(values))}

    def select(self, rows: ArrayLike) -> Self:
        """The part with these rows, so that any splitter works.

        Args:
            rows: Positions in the order of the sequence, int (M,), or a mask, bool (N,).

        Raises:
            IndexError: A position is not in [0, N), or a mask has another length.
        """
        chosen = np.asarray(rows)
        if chosen.ndim != 1:
            raise IndexError(f"select: expected one dimension, found shape {chosen.shape}")
        if chosen.dtype == np.bool_:
            if chosen.shape != self._rows.shape:
                raise IndexError(f"select: expected a mask of {len(self._rows)} rows, found shape {chosen.shape}")
            return self._child(self._rows[chosen])
        if chosen.size and chosen.dtype.kind not in "iu":
            raise IndexError(f"select: expected whole numbers or a mask, found {chosen.dtype}")
        chosen = chosen.astype(np.int64)
        if chosen.size and (chosen.min() < 0 or chosen.max() >= len(self._rows)):
            found = chosen.min() if chosen.min() < 0 else chosen.max()
            raise IndexError(f"select: expected positions from 0 to {len(self._rows) - 1}, found {found}")
        return self._child(self._rows[chosen])

    def get_filenames(self, indices: ArrayLike) -> list[str]:
        """The file names at these positions of the epoch just delivered.

        Args:
            indices: int (M,): position *i* is row `i % batch_size` of batch `i // batch_size`.

        Raises:
            IndexError: A position is not in the epoch.
            ValueError: The sequence is empty.
        """
        at = self._pass.rows[np.asarray(indices, np.int64)]
        return list(self._opened().filenames.take(np.atleast_1d(at)))

    def mistakes(self, predictions: ArrayLike) -> list[Mistake]:
        """The rows that the network gets wrong, most confident first.

        Args:
            predictions: What `predict` returned for this sequence: (N, K), or (N, 1) or (N,) for two classes.

        Raises:
            ValueError: The predictions are not as many as the images of an epoch, or not of as many classes.
        """
        rows = self._delivered()
        scores = self._scores(np.asarray(predictions), len(rows))
        predicted = scores.argmax(axis=1)
        labels = self._opened().labels[rows]
        confidence = scores[np.arange(len(rows)), predicted]
        wrong = np.flatnonzero(predicted != labels)
        wrong = wrong[np.argsort(-confidence[wrong], kind="stable")]
        names, classnames = self._opened().filenames.take(rows), self.classnames
        return [
            Mistake(
                filename=names[position],
                label=classnames[labels[position]],
                predicted=classnames[predicted[position]],
                confidence=float(confidence[position]),
                position=position,
            )
            for position in wrong.tolist()
        ]

    def begin(self, counts: bool = True) -> None:
        """Say that the next batch asked for is the first of a new pass.

        Args:
            counts: Whether this pass, when all of it was asked for, ends its epoch. A look ahead does not.
        """
        self._told_of_passes = True
        self._next = counts

    def on_epoch_end(self) -> None:
        """End an epoch whose batches were all asked for, in a loop of one's own that does not call `begin`."""
        if not self._told_of_passes and self._pass.complete:
            self._next = True

    def _start_pass(self) -> None:
        with self._lock:
            if self._next is not None:
                self._pass = self._make_pass(self.epoch + self._pass.complete, self._next)
                self._next = None  # only now: other threads wait for the new order

    def _make_pass(self, epoch: int, counts: bool = True, complete: bool = False) -> _Pass:
        rows, settings = self._rows, self._settings
        cap = settings.max_per_class_and_epoch
        if cap is not None:
            turn = epoch if settings.auto_shuffle else None
            rows = row_math.window(rows, self.classes, cap, settings.seed, turn)
        if settings.auto_shuffle:
            rows = rows[row_math.permutation(len(rows), settings.seed, epoch)]
        return _Pass(epoch, rows, self._batch_count(len(rows)), counts, complete)

    def _batch_count(self, count: int) -> int:
        size = self._settings.batch_size
        return count // size if self._settings.drop_remainder else -(-count // size)

    def _delivered(self) -> Rows:
        return self._pass.rows[: len(self) * self._settings.batch_size]

    def _gather(self, rows: Rows, consecutive: bool) -> NDArray[np.uint8] | NDArray[np.float32]:
        images = self._opened().images
        shape = (len(rows), *images.shape[1:])
        if consecutive or row_math.is_consecutive(rows):
            pixels = images[rows[0] : rows[-1] + 1]
        else:
            size = len(rows) * self._items.itemsize
            pixels = self._buffers.lend(size)[:size]
            # Rows are checked when a sequence is made; `raise` would check again and copy through a buffer.
            self._items.take(rows, out=pixels.view(self._items.dtype), mode="clip")
            pixels = pixels.reshape(shape)
        if self._settings.scale is None:
            return pixels
        size = pixels.size * 4
        scaled = self._buffers.lend(size)[:size].view(np.float32).reshape(shape)
        return np.multiply(pixels, np.float32(self._settings.scale), out=scaled, dtype=np.float32)

    def _labels(self, rows: Rows) -> NDArray[np.float32] | NDArray[np.int32]:
        labels = self._opened().labels[rows]
        if self._settings.label_mode == "int":
            return labels
        if self._settings.label_mode == "binary":
            return labels.astype(np.float32)[:, np.newaxis]
        one_hot = np.zeros((len(rows), self.num_classes), np.float32)
        one_hot[np.arange(len(rows)), labels] = 1
        return one_hot

    def _scores(self, predictions: NDArray[Any], count: int) -> NDArray[Any]:
        found = predictions.shape
        if self.num_classes == 2 and found in {(count,), (count, 1)}:
            positive = predictions.reshape(count)
            predictions = np.stack([1 - positive, positive], axis=1)
        if predictions.shape != (count, self.num_classes):
            raise ValueError(
                f"predictions: expected shape {(count, self.num_classes)}, found {found}; "
                "they are what predict returns for this very sequence"
            )
        return predictions

    def _groups(self, groups: str | ArrayLike) -> NDArray[Any]:
        if isinstance(groups, str):
            if groups == "content":
                digests = self._opened().digests[self._rows]
                return digests.view(f"V{digests.shape[1]}")[:, 0]
            return self._column(groups)
        values = np.asarray(groups)
        if values.shape != self._rows.shape:
            raise ValueError(f"groups: expected a value for each of {len(self._rows)} rows, found shape {values.shape}")
        return values

    def _column(self, name: str) -> NDArray[np.bytes_]:
        columns = self.columns
        if name not in columns:
            raise ValueError(f"expected one of the columns {', '.join(columns) or '(there are none)'}, found {name!r}")
        return columns[name].raw()

    def _opened(self) -> PackedImages:
        if self._pack is None:
            raise ValueError("the sequence is empty; add_file(path) opens a pack")
        return self._pack

    def _child(self, rows: Rows) -> Self:
        child = type(self)()
        child._settings = self._settings
        child._use(self._pack, rows)
        return child

    def _use(self, pack: PackedImages | None, rows: Rows) -> None:
        self._pack = pack
        if pack is not None:
            self._items = pack.images.reshape(len(pack), -1).view(f"V{pack.images[0].nbytes}")[:, 0]
        self._rows = rows
        self._check_labels()
        self._pass = self._make_pass(self.epoch)

    def _check_labels(self) -> None:
        if self._settings.label_mode == "binary" and self._pack is not None and self.num_classes != 2:
            raise ValueError(f"label_mode: binary expects 2 classes, found {self.num_classes}; use categorical")


def _changed(settings: Settings, changes: dict[str, Any]) -> Settings:
    names = [field.name for field in fields(Settings)]
    for name in changes:
        if name not in names:
            raise ValueError(f"unknown setting {name!r}; expected one of {', '.join(names)}")
    return replace(settings, **changes)


def _free_memory() -> int | None:
    """Bytes the page cache may grow to without swapping; None where the system does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            lines = dict(line.split(":") for line in file)
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None
