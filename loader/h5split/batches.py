"""The sequence without Keras: everything but the base class."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np
import xxhash
from numpy.typing import ArrayLike, NDArray

from h5split.batch.gather import Batch, Gatherer
from h5split.batch.mistakes import Mistake, find_mistakes
from h5split.file.images import PackedImages, Texts
from h5split.file.mapped import READ_SIZE
from h5split.file.packs import Packs
from h5split.order import rows as row_math
from h5split.order.rows import Rows
from h5split.order.settings import Settings, changed, check_whole
from h5split.passes import Order, Pass, Shard, epoch_order
from h5split.readahead import ReadAhead, is_cold
from h5split.splits import read_rows
from h5split.system.machine import free_memory

_EMPTY = "the sequence is empty; add_file(path) opens a pack"


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
        self._settings = changed(Settings(), settings)
        self._packs: Packs | None = None
        self._rows: Rows = np.empty(0, np.int64)
        self._shard: Shard | None = None
        self._pass = self._coming = Pass(0, Order(self._rows, 1), 0)  # the one begun last; what the next one follows
        self._aside: tuple[int, Order] | None = None  # an epoch other than that of the pass, which a data set is in
        self._next: bool | None = True  # a pass is to begin with the next batch, and counts or not
        self._continues = 0  # the batch at which the next pass begins, after `restore`
        self._passes = 0
        self._told_of_passes = False
        self._holds_pass = False  # whether a change waits for the next pass to be begun; else for the next batch
        self._locks: dict[int, threading.Lock] = {}  # of this process, and of those it was forked from
        self._use(None, self._rows)
        self.add_file(*paths)

    def __len__(self) -> int:
        """Batches in an epoch; the same for every epoch until a setting changes."""
        return self._coming.batches

    def __getitem__(self, index: int) -> Batch:
        """A batch of the current pass.

        Args:
            index: From 0 to `len(self) - 1`.

        Returns:
            images: uint8 (B, H, W, C), or float32 with `scale`. A batch of consecutive rows without `scale` is a
                read-only view of the file, unless torch is loaded, which would write to it; any other is in a buffer
                that is not used again while anybody holds it.
            labels: As `label_mode` says.

        Raises:
            IndexError: There is no such batch.
            FormatError: A file was cut short or, before this pass began, written to since it was opened.
        """
        held = self._holds_pass and self._next is None
        batches = self._pass.batches if held else self._coming.batches
        batch = index + batches if index < 0 else index
        if not 0 <= batch < batches:
            raise IndexError(f"batch {index}: expected {f'0 to {batches - 1}' if batches else 'none: there are none'}")
        if not held and (self._next is not None or self._coming is not self._pass):
            self._start_pass()
        current = self._pass
        current.ask(batch)
        return self._fetch(current.order, batch)

    def __iter__(self) -> Iterator[Batch]:
        """One pass over the data; with `auto_shuffle`, the next pass is the next epoch."""
        return self.iterate()

    def __repr__(self) -> str:
        name = type(self).__name__
        if self._packs is None:
            return f"{name}(): empty"
        part = "" if self._shard is None else f", rank {self._shard.index} of {self._shard.count}"
        return f"{name}({self._packs!r}): {len(self._rows)} images {self.shape}, {self.num_classes} classes{part}"

    def __getstate__(self) -> dict[str, Any]:
        """Paths, rows and settings: pixels are never pickled."""
        run = len(self._rows) > 0 and bool(row_math.runs(self._rows, len(self._rows))[0])
        return {
            "packs": () if self._packs is None else self._packs.packs,
            "rows": (int(self._rows[0]), int(self._rows[-1]) + 1) if run else self._rows,
            "shard": self._shard,
            "settings": self._settings,
            "pass": (self.epoch, self._coming.complete, self._continues),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        type(self).__init__(self)
        self._settings, self._shard = state["settings"], state["shard"]
        rows = np.arange(*state["rows"]) if isinstance(state["rows"], tuple) else state["rows"]
        self._use(Packs(state["packs"]) if state["packs"] else None, rows, *state["pass"])

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C) of one image: a network's `input_shape`.

        Raises:
            ValueError: The sequence is empty.
        """
        return self.packs.shape

    @property
    def classnames(self) -> list[str]:
        """The name of each class number."""
        return [] if self._packs is None else list(self._packs.class_names)

    @property
    def class_names(self) -> list[str]:
        """The same as `classnames`."""
        return self.classnames

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.classnames)

    @property
    def filenames(self) -> Sequence[str]:
        """The source file of every row, in the order of the sequence (not of an epoch); read when asked for."""
        return [] if self._packs is None else self._packs.filenames.take(self._rows)

    @property
    def packs(self) -> Packs:
        """The packs it reads, as one list of rows.

        Raises:
            ValueError: The sequence is empty.
        """
        if self._packs is None:
            raise ValueError(_EMPTY)
        return self._packs

    @property
    def delivered(self) -> Rows:
        """The rows of the epoch just delivered, as `rows` numbers them: int (M,), that of position *i* at *i*."""
        return self._pass.order.rows[: self._pass.batches * self._pass.order.size]

    @property
    def rows(self) -> Rows:
        """The rows of the packs, one after another, that the sequence is of: int (N,); another array after a change."""
        return self._rows

    @property
    def classes(self) -> NDArray[np.int32]:
        """The class number of every row, in the order of the sequence: int32 (N,)."""
        return np.empty(0, np.int32) if self._packs is None else self._packs.labels[self._rows]

    @property
    def columns(self) -> Mapping[str, Texts]:
        """Every other column of the packs, in the order of the sequence."""
        if self._packs is None:
            return {}
        return {name: column.take(self._rows) for name, column in self._packs.columns.items()}

    @property
    def digests(self) -> NDArray[np.uint8]:
        """The SHA-256 of every row's source file, in the order of the sequence: uint8 (N, 32)."""
        return np.empty((0, 32), np.uint8) if self._packs is None else self._packs.digests(self._rows)

    @property
    def settings(self) -> Settings:
        """What `set` set."""
        return self._settings

    @property
    def epoch(self) -> int:
        """The epoch whose order is in effect, counted from 0. Set it to resume."""
        return self._coming.epoch

    @epoch.setter
    def epoch(self, number: int) -> None:
        check_whole("epoch", number, 0)
        self._follow(int(number))

    def add_file(self, *paths: str | os.PathLike[str]) -> Self:
        """Open packs, and add their rows after those there are; classes are merged by name.

        Class numbers may change; those of parts that were split off before do not.

        Raises:
            ValueError: An image shape differs, or a file is there already.
            TypeError: Something is no path, such as a list of them.
        """
        if not paths:
            return self
        for path in paths:
            if not isinstance(path, (str, os.PathLike)):
                raise TypeError(f"expected paths one by one, as in SplitSequence(first, second), found {path!r}")
        before = () if self._packs is None else self._packs.packs
        packs = Packs([*before, *(PackedImages(path) for path in paths)])
        new = row_math.every(sum(map(len, before)), len(packs))
        rows = np.concatenate([self._rows, new]) if before else new
        self._use(packs, rows, self.epoch, self._coming.complete)
        return self

    def set(self, **settings: Any) -> Self:
        """Change settings; see `Settings`.

        Raises:
            ValueError: A setting is unknown or out of range; the message lists those there are.
        """
        before, after = self._settings, changed(self._settings, settings)
        _check_labels(after, self._packs)
        self._settings = after
        if before.order_key() != self._settings.order_key():
            self._follow(self.epoch, self._coming.complete)
        return self

    def shuffle(self, seed: int | None = None) -> Self:
        """Put the rows into a new order, file names following.

        Args:
            seed: Of the order; the setting `seed` when None.

        Raises:
            ValueError: The seed is not a whole number of 0 or more.
        """
        key = self._settings.seed if seed is None else seed
        check_whole("seed", key, 0)
        rows = self._rows[row_math.permutation(len(self._rows), key)]
        self._use(self._packs, rows, self.epoch, self._coming.complete)
        return self

    def preload(self) -> Self:
        """Read the pixels once, front to back, into the page cache; with `verbose`, under a progress bar.

        Passed over with a warning where they do not fit in free memory.
        """
        if self._packs is None:
            return self
        pieces = [(pack, pack.pieces(rows)) for pack, rows in self._packs.by_pack(self._rows)]
        needed, free = sum(len(found) for _, found in pieces) * READ_SIZE, free_memory()
        if free is not None and needed > free:
            warnings.warn(
                f"preload: {needed / 1e9:.1f} GB of pixels do not fit in {free / 1e9:.1f} GB of free memory; "
                "passed over, batches will be read from disk",
                stacklevel=2,
            )
            return self
        from tqdm import tqdm  # 4 MB, and wanted by few

        with tqdm(total=needed, unit="B", unit_scale=True, desc="preload", disable=not self._settings.verbose) as bar:
            for pack, found in pieces:
                pack.preload(found, bar.update)
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
        for point in points:
            if not isinstance(point, (int, float, np.number)):
                raise TypeError(f"split: expected numbers one by one, as in split(0.2, 0.4), found {point!r}")
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
        order = np.argsort(part, kind="stable")
        ends = np.cumsum(np.bincount(part, minlength=len(values))).tolist()
        starts = [0, *ends[:-1]]
        members = (self._rows[order[start:end]] for start, end in zip(starts, ends, strict=False))
        return {text: self._child(rows) for text, rows in zip(Texts(values), members, strict=True)}

    def read_split(self, path: str | os.PathLike[str]) -> dict[str, Self]:
        """One part for each split in a table that `write_split` made: a CSV with the columns `filename` and `split`.

        The rows of a part are in the order of the table. Rows that it does not name are in no part.

        Raises:
            ValueError: It is another table, names files that are not in the sequence, or puts one in two parts.
        """
        return {split: self._child(self._rows[rows]) for split, rows in read_rows(path, self.filenames).items()}

    def shard(self, index: int, count: int) -> Self:
        """The part of every epoch that rank `index` of `count` trains on.

        Batch *b* of all ranks together is batch *b* of an unsharded sequence whose `batch_size` is `count` times as
        large; so with a `batch_size` that is divided by it, the same global batches come out for any `count`. Ranks
        have equally many rows and batches: up to `count - 1` rows in the end of each epoch's order are left out, others
        in each epoch that is shuffled.

        `filenames`, `classes` and `columns` are those of the whole sequence, as every epoch gives a rank other rows.

        Raises:
            ValueError: Not 0 <= index < count, or the sequence is a shard already.
        """
        check_whole("shard: count", count, 1)
        if isinstance(index, bool) or not isinstance(index, (int, np.integer)) or not 0 <= index < count:
            raise ValueError(f"shard: expected an index from 0 to {count - 1}, found {index!r}")
        if self._shard is not None:
            raise ValueError(f"shard: expected a whole sequence, found rank {self._shard.index} of {self._shard.count}")
        return self._child(self._rows, Shard(int(index), int(count)))

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
            indices: int (M,): position *i* is row `i % batch_size` of batch `i // batch_size`, negative ones count from
                the end; or a mask, bool (N,).

        Raises:
            IndexError: A position is not in the epoch, or is no whole number, or a mask has another length.
            ValueError: The sequence is empty.
        """
        at = np.asarray(indices)
        delivered = self.delivered
        try:
            rows = delivered[at if at.size else at.astype(np.int64)]
        except IndexError as error:
            raise IndexError(f"positions: expected whole numbers below {len(delivered)}, or a mask; {error}") from None
        return list(self.packs.filenames.take(np.atleast_1d(rows)))

    def mistakes(self, predictions: ArrayLike) -> list[Mistake]:
        """The rows that the network gets wrong, most confident first.

        Args:
            predictions: What `predict` returned for this sequence: (N, K), or (N, 1) or (N,) for two classes.

        Raises:
            ValueError: The predictions are not as many as the images of an epoch, or not of as many classes.
        """
        rows, packs = self.delivered, self.packs
        return find_mistakes(np.asarray(predictions), packs.labels[rows], packs.filenames.take(rows), packs.class_names)

    def state(self) -> dict[str, int | str]:
        """Where the sequence is, to go on from there with `restore`; plain numbers and text, as JSON takes them.

        That is the epoch and how many of its batches were handed out, which is 0 if they were asked for in another
        order than their own, as Keras does with `shuffle=True`. Keras on TensorFlow and `as_tf_dataset` fetch ahead of
        what is trained on: with them, take a state between epochs.
        """
        if self._coming.complete:
            return {"epoch": self.epoch + 1, "batch": 0, "rows": self._fingerprint()}
        return {"epoch": self.epoch, "batch": self._continues or self._coming.asked, "rows": self._fingerprint()}

    def restore(self, state: Mapping[str, int | str]) -> Self:
        """Go on from a state.

        Iteration and `as_torch_loader` continue with the next batch, Keras and `as_tf_dataset` begin with that epoch's
        first.

        Raises:
            ValueError: It is the state of a sequence of other rows, another shard, or other settings.
        """
        if not isinstance(state, Mapping) or set(state) != {"epoch", "batch", "rows"}:
            raise ValueError(f"restore: expected what state() returned, found {state!r}")
        if state["rows"] != self._fingerprint():
            raise ValueError(
                "restore: expected a state of the same rows in the same order, with the same batch_size, seed, cap, "
                "auto_shuffle, drop_remainder and shard; found one of another sequence"
            )
        check_whole("restore: epoch", state["epoch"], 0)
        check_whole("restore: batch", state["batch"], 0)
        self._follow(int(state["epoch"]), continues=min(int(state["batch"]), len(self)))
        self._next = True
        return self

    def begin(self, counts: bool = True) -> None:
        """Say that the next batch asked for is the first of a new pass.

        Args:
            counts: Whether this pass, when all of it was asked for, ends its epoch. A look ahead does not.
        """
        self._told_of_passes = True
        self._next = counts

    def iterate(self, *, writable: bool = False) -> Iterator[Batch]:
        """One pass over the data, as iteration is.

        Args:
            writable: Never hand out views of the file, which are read-only, but copies.
        """
        self.begin()
        return self._iterate(writable)

    def begin_epoch(self) -> int:
        """Begin a pass at once; its epoch."""
        self.begin()
        self._start_pass()
        return self.epoch

    def fetch(self, epoch: int, first: int, count: int) -> Batch:
        """Several batches as one, never a view of the file: for adapters that cut them apart again.

        Args:
            epoch: From `begin_epoch`; it may be past.
            first: The first batch.
            count: How many batches.
        """
        current = self._pass
        if epoch == current.epoch:
            current.ask(first, count)
            return self._fetch(current.order, first, count, writable=True)
        aside = self._aside
        if aside is None or aside[0] != epoch:
            aside = self._aside = epoch, self._order(epoch)
        return self._fetch(aside[1], first, count, writable=True)

    def as_tf_dataset(self) -> Any:
        """The batches as a `tf.data.Dataset`, of known cardinality; every iteration over it is one pass.

        For `fit` it is faster than the sequence itself, as several batches are gathered in one call. Make another one
        after a change of settings.

        Raises:
            ImportError: There is no TensorFlow.
            ValueError: The sequence is empty.
        """
        try:
            from h5split.tf_dataset import dataset
        except ModuleNotFoundError as error:
            raise ImportError(
                f"as_tf_dataset needs TensorFlow ({error}): pip install 'pack-images[tensorflow]'"
            ) from error
        return dataset(self)

    def as_torch_loader(self, *, pin_memory: bool = False, channels_first: bool = True) -> Any:
        """The batches as a `torch.utils.data.DataLoader`; every iteration over it is one pass.

        Batches are whole when they come to it, so that nothing is collated. Class numbers (`label_mode="int"`) are
        int64, as torch's losses want them.

        Args:
            pin_memory: Copy batches into page-locked memory, from where a GPU reads without waiting.
            channels_first: Images are (B, C, H, W), the same memory seen otherwise; else (B, H, W, C).

        Raises:
            ImportError: There is no torch.
        """
        try:
            from h5split.torch_loader import loader
        except ModuleNotFoundError as error:
            raise ImportError(f"as_torch_loader needs torch ({error}): pip install torch") from error
        return loader(self, pin_memory=pin_memory, channels_first=channels_first)

    def on_epoch_end(self) -> None:
        """End an epoch whose batches were all asked for, in a loop of one's own that does not call `begin`."""
        if not self._told_of_passes and self._pass.complete:
            self._next = True

    def _iterate(self, writable: bool) -> Iterator[Batch]:
        self._start_pass()
        current = self._pass
        current.skip(current.first)
        for batch in range(current.first, current.batches):
            current.ask(batch)
            yield self._fetch(current.order, batch, 1, writable)

    def _start_pass(self) -> None:
        # A fork may come while another thread holds the lock and leave that thread behind: a child has its own lock.
        with self._locks.setdefault(os.getpid(), threading.Lock()):
            if self._next is not None or self._coming is not self._pass:
                if self._packs is not None:
                    self._packs.check_unchanged()
                before, counts = self._coming, self._next is not False
                epoch = before.epoch + before.complete
                same = epoch == before.epoch or not self._settings.auto_shuffle
                order = before.order if same else self._order(epoch)
                first, self._continues = self._continues, 0
                ahead = self._read_ahead(order)
                self._coming = Pass(epoch, order, before.batches, first=first, counts=counts, ahead=ahead)
                self._pass = self._coming
                self._passes += 1
                self._next = None  # only now: other threads wait for the new order

    def _follow(self, epoch: int, complete: bool = False, continues: int = 0) -> None:
        """Have the next pass go by what is set now; the names of what was delivered stay until it begins.

        Args:
            epoch: The one that the next pass is of, or follows.
            complete: It follows it.
            continues: The batch it begins with.
        """
        order = self._order(epoch)
        batches = len(order.rows) // order.size if self._settings.drop_remainder else len(order)
        self._coming = Pass(epoch, order, batches, complete=complete)
        self._aside, self._continues = None, continues
        if not self._pass.begun:
            self._pass = self._coming

    def _order(self, epoch: int) -> Order:
        labels = np.empty(0, np.int32) if self._packs is None else self._packs.labels
        return epoch_order(self._rows, labels, self._settings, epoch, self._shard)

    def _read_ahead(self, order: Order) -> ReadAhead | None:
        """For a pass over rows that are not in memory; where that is not known, for the first pass."""
        if self._packs is None:
            return None
        cold = is_cold(self._packs, order)
        needed = self._passes == 0 if cold is None else cold
        return ReadAhead(self._packs, order) if needed else None

    def _fetch(self, order: Order, first: int, count: int = 1, writable: bool = False) -> Batch:
        if self._gatherer is None:
            raise ValueError(_EMPTY)
        return self._gatherer.batches(order, first, count, self._settings, writable)

    def _fingerprint(self) -> str:
        """Of what decides every epoch's order: hexadecimal."""
        content = "" if self._packs is None else self._packs.fingerprint
        digest = xxhash.xxh3_64(f"{self._settings.order_key()} {self._shard} {content}".encode())
        digest.update(np.ascontiguousarray(self._rows).data)
        return digest.hexdigest()

    def _groups(self, groups: str | ArrayLike) -> NDArray[Any]:
        if isinstance(groups, str):
            if groups == "content":
                digests = self.digests
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

    def _child(self, rows: Rows, shard: Shard | None = None) -> Self:
        child = type(self)()
        child._settings = self._settings
        child._shard = shard or self._shard
        child._use(self._packs, rows)
        return child

    def _use(self, packs: Packs | None, rows: Rows, epoch: int = 0, complete: bool = False, continues: int = 0) -> None:
        """Be a sequence of these rows; the rest is as for `_follow`."""
        _check_labels(self._settings, packs)
        self._packs = packs
        self._gatherer = None if packs is None else Gatherer(packs)
        self._rows = row_math.compact(rows, 0 if packs is None else len(packs))
        self._follow(epoch, complete, continues)


def _check_labels(settings: Settings, packs: Packs | None) -> None:
    if settings.label_mode == "binary" and packs is not None and len(packs.class_names) != 2:
        raise ValueError(f"label_mode: binary expects 2 classes, found {len(packs.class_names)}; use categorical")
