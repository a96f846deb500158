"""SplitSequence: a selection of rows, passes over it, and batches gathered of it. The sequence without Keras."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self, Unpack

import numpy as np
from numpy.typing import NDArray

from h5split import torch_calls
from h5split.adapters import Adapters
from h5split.batch.gather import Batch, Gatherer
from h5split.batch.given import bound
from h5split.batch.mapping import Place, mapped, specs_of
from h5split.batch.readahead import Reading
from h5split.batch.several import Several
from h5split.batch.targets import Learned, Spec
from h5split.errors import ArgumentError
from h5split.file.packs import Packs
from h5split.order.epochs import Epochs, Order
from h5split.order.passes import Loop, Pass, Passes, Told, checked
from h5split.order.rows import Rows
from h5split.order.selection import Selection
from h5split.order.settings import SettingNames, Settings, changed, listing_settings
from h5split.resuming import Resuming
from h5split.showing import Showing
from h5split.system.text import count, other_type

_OF_THIS_PROCESS = frozenset(("_gatherer", "_asking", "_passes", "_learned"))
_OF_ROWS = frozenset(("targets", "weights"))  # settings that depend on the rows
_SAME_ORDER = (
    "auto_shuffle, map: expected a DataLoader without num_workers, whose processes never learn of epochs, found one "
    "with: every pass has the same order and the same random numbers; use num_workers=0, or as_torch_loader()"
)

_NO_SHARD = (
    "expected the part of this rank, found a sequence of all rows on rank {} of {} of torch.distributed: every rank "
    "sees the same images; use sequence.shard(rank, world_size)"
)


class SplitSequence(Showing, Resuming, Adapters):
    """Batches of a pack in any order, split into any number of parts; file names follow every row.

    A sequence is a list of row numbers over a mapped file. Methods return `self`, unless said otherwise, so that calls
    chain:

        test, val, train = SplitSequence("eurosat.h5").split(0.2, 0.4)
        for images, labels in train.set(batch_size=128, auto_shuffle=True):
            ...

    The order of an epoch is a function of (seed, epoch) and nothing else. Every pass over the data is an epoch, also
    one that is broken off: `for batch in sequence`, a `fit`, a loop over `sequence[i]`. A pass keeps its order to its
    end, whatever happens meanwhile; `h5split.order.passes` says how passes are told apart.

    Args:
        paths: Packs to open; none makes an empty sequence.
        settings: Described at `Settings`.

    Raises:
        FileNotFoundError: There is no such file.
        FormatError: A file is no pack, is damaged, or is of a newer version.
        ValueError: A setting is unknown or out of range.
    """

    _gatherer: Gatherer | None  # made with the first batch, as very many parts may never have one

    @listing_settings
    def __init__(self, *paths: str | os.PathLike[str], **settings: Unpack[SettingNames]) -> None:
        given: dict[str, Any] = dict(settings)
        of_rows = {name: given.pop(name) for name in _OF_ROWS & given.keys()}
        self._settings = changed(Settings(), given)
        self._reset(Selection())
        self.add_file(*paths)
        self.set(**of_rows)

    def __len__(self) -> int:
        """Batches in an epoch; the same for every epoch until a setting changes."""
        return self._passes.count()

    def __getitem__(self, index: int) -> Batch:
        """A batch of a loop of one's own, which is a pass: once all were asked for, the next one begins the next epoch.

        The batch asked for last, asked for again, is the same one. After `predict`, or another whole pass by iteration,
        items show that pass once more. Call `on_epoch_end` after a loop that is broken off.

        Args:
            index: From 0 to `len(self) - 1`.

        Returns:
            images: (B, H, W, C), of the type in the pack, or float32 with `scale`. A batch of consecutive rows without
                `scale` is a read-only view of the file, unless torch is loaded, which would write to it; any other is
                in a buffer that is not used again while anybody holds it.
            labels: As `label_mode` says; or targets as `targets` says. With `label_mode=None` images come alone. With
                `weights` there is a third element, float32 (B,).

        Raises:
            IndexError: There is no such batch.
            FormatError: A file was cut short or, before this pass began, written to since it was opened.
        """
        return self._item(index)

    def __iter__(self) -> Iterator[Batch]:
        """One pass over the data; with `auto_shuffle`, the next pass is the next epoch."""
        return self.iterate()

    def __repr__(self) -> str:
        name, selection = type(self).__name__, self._selection
        if selection.packs is None:
            return f"{name}(): empty"
        part = "" if selection.shard is None else f", rank {selection.shard.index} of {selection.shard.count}"
        image = f"{self.shape}{other_type(self.dtype)}"
        classes = count(self.num_classes, "class", "classes")
        return f"{name}({selection.packs!r}): {len(selection)} images {image}, {classes}{part}"

    def __getstate__(self) -> dict[str, Any]:
        """Rows, settings, the next epoch, and what a subclass or a user added."""
        state = {name: value for name, value in self._values().items() if name not in _OF_THIS_PROCESS}
        return {**state, "_passes": self._passes.next}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self._take(state)
        self._reset(self._selection)
        self._passes.go_to(*state["_passes"])

    @property
    def delivered(self) -> Rows:
        """The rows of the epoch just delivered, as `rows` numbers them, in the order of delivery: int (M,)."""
        return self._passes.delivered.delivered

    @property
    def is_mapped(self) -> bool:
        """Whether batches go through functions, as `map` has it."""
        return bool(self._functions)

    @listing_settings
    def set(self, **settings: Unpack[SettingNames]) -> Self:
        """Change settings; `Settings` describes them. Those not given stay. A pass that has begun keeps its order.

        Raises:
            ValueError: A setting is unknown or out of range; the message lists those there are.
        """
        before, after = self._settings, changed(self._settings, settings)
        renamed = self._selection if before.classes == after.classes else self._selection.with_classes(after.classes)
        self._change(after, renamed, is_bound=_OF_ROWS.isdisjoint(settings))
        return self

    def on_epoch_end(self) -> None:
        """End a loop over `sequence[i]` before all its batches were asked for: the next item begins the next pass."""
        self._passes.end_loop()

    def iterate(self, *, writable: bool = False) -> Iterator[Batch]:
        """One pass over the data, as iteration is.

        Args:
            writable: Never hand out views of the file, which are read-only, but copies.
        """
        if not len(self):
            return
        current = self._passes.begin()
        if self._is_extended():
            yield from self._items_of(current)
            return
        yield from self._batches_of(current, writable)

    def spec(self) -> Any:
        """The shapes and dtypes of the arrays of a batch, in the structure of a batch.

        Raises:
            IndexError: There is no batch, from which alone it is known what the functions of `map` make.
        """
        if self._functions:
            return specs_of(self._look(0))
        labels = {"categorical": Spec((self.num_classes,), np.float32), "int": Spec((), np.int32)}
        labels["binary"] = Spec((1,), np.float32)
        images = Spec(self.shape, self.dtype if self._settings.scale is None else np.dtype(np.float32))
        return self._learned.spec(images, labels.get(self._settings.label_mode or ""))

    def begin_ahead(self) -> Pass:
        """Begin a pass for an adapter that fetches batches before they are wanted, with `fetch`."""
        return self._passes.begin(is_ahead=True)

    def fetch(self, current: Pass, first: int, count: int) -> Batch:
        """Several batches of a pass as one, never a view of the file: for adapters that cut them apart again.

        Args:
            current: The pass.
            first: The first batch.
            count: How many; 1 of a sequence with functions of `map`, which take single batches.
        """
        self._passes.ask(current, first, count)
        return self._fetch(current, first, count, writable=True)

    def _is_extended(self) -> bool:
        """Whether a subclass has items of its own, which iteration gives too."""
        return type(self).__getitem__ is not SplitSequence.__getitem__

    def _item(self, index: int, loop: Loop | None = None, *, is_ahead: bool = False) -> Batch:
        """A batch, and of which pass: that of the iterator that asks, of a loop, or of the loop over items."""
        inside = getattr(self._asking, "current", None)
        if inside is not None:
            return self._fetch(inside, checked(index, inside.order))
        loop = torch_calls.loop_of(sys._getframe(2)) if loop is None else loop
        if loop is torch_calls.WORKER and (self._settings.auto_shuffle or self._functions):
            warnings.warn(_SAME_ORDER, stacklevel=2)
        return self._fetch(*self._passes.item(index, loop, is_ahead=is_ahead))

    def _look(self, index: int) -> Batch:
        """A batch of the pass that comes next, which does not begin."""
        return self._fetch(*self._passes.look(index))

    def _batches_of(self, current: Pass, writable: bool) -> Iterator[Batch]:
        """The batches of a pass, small ones gathered several at a time."""
        ask = self._passes.ask  # looking it up takes 2 % of a view's time
        several = Several(
            current.order,
            current.first,
            self.packs.stride,
            lambda first, count: self._gather(current, first, count, writable),
        )
        for batch in range(current.first, current.order.batches):
            ask(current, batch)
            found = several(batch, self._settings, self._learned)
            yield self._mapped(current, batch, found) if self._functions else found
            del found

    def _items_of(self, current: Pass) -> Iterator[Batch]:
        """The items of a subclass for a pass."""
        for batch in range(current.first, current.order.batches):
            self._passes.ask(current, batch)
            with self._inside(current):
                found = self[batch]
            yield found

    @contextlib.contextmanager
    def _inside(self, current: Pass) -> Iterator[None]:
        """Have items that this thread asks for be of a pass."""
        self._asking.current = current
        try:
            yield
        finally:
            self._asking.current = None

    def _fetch(self, current: Pass, first: int, count: int = 1, writable: bool = False) -> Batch:
        batch = self._gather(current, first, count, writable)
        return self._mapped(current, first, batch) if self._functions else batch

    def _gather(self, current: Pass, first: int, count: int, writable: bool) -> Batch:
        """Batches as the pack has them; copies, if functions are to follow."""
        gatherer, learned = self._gatherer, self._learned
        if gatherer is None or gatherer.packs is not learned.packs:  # they changed, perhaps in another thread
            gatherer = self._gatherer = Gatherer(self.packs if learned.packs is None else learned.packs)
        writable = writable or bool(self._functions)
        return gatherer.batches(current.order, first, count, self._settings, learned, writable)

    def _mapped(self, current: Pass, first: int, batch: Batch) -> Batch:
        rank = self._selection.shard.index if self._selection.shard else 0
        return mapped(self._functions, batch, Place(current.order.seed, current.epoch, first, rank))

    def _encoded(self, labels: NDArray[np.int32]) -> NDArray[Any]:
        return Gatherer(self.packs).encoded(labels, self._settings.label_mode or "int")

    def _use(self, selection: Selection) -> None:
        self._change(self._settings, selection)

    def _change(self, settings: Settings, selection: Selection, *, is_bound: bool = True) -> None:
        """Have other settings and rows; if they do not fit, raise and have those there are.

        Args:
            settings: The settings.
            selection: The rows.
            is_bound: Whether targets and weights were bound to rows before.
        """
        learned = self._learned
        if not is_bound or selection.packs is not learned.packs:
            settings = bound(settings, selection.packs, selection.rows)
            learned = _learned(selection, settings)
        _check_labels(settings, selection.packs)
        is_same_order = selection is self._selection and settings.order_key() == self._settings.order_key()
        has_same_pictures = learned is self._learned or not (learned.pictures or self._learned.pictures)
        if not has_same_pictures:
            self._gatherer = None  # it has buffers for pictures that are no targets any more
        self._settings, self._learned, self._selection = settings, learned, selection
        if not (is_same_order and has_same_pictures):
            self._passes.change_order(*_plan(selection, settings, learned))

    def _reset(self, selection: Selection) -> None:
        _check_labels(self._settings, selection.packs)
        self._selection = selection
        known = getattr(self, "_learned", None)
        if known is None or known.packs is not selection.packs:
            self._learned = _learned(selection, self._settings)
        self._gatherer = None
        self._asking = threading.local()
        self._passes = Passes(*_plan(selection, self._settings, self._learned))


def _plan(
    selection: Selection, settings: Settings, learned: Learned
) -> tuple[Callable[[int], Order], Callable[[Order], Told | None]]:
    """What `Passes` needs: the order of each epoch, and what a pass begins with."""
    packs = selection.packs
    labels = np.empty(0, np.int32) if packs is None else packs.labels
    epochs = Epochs(selection.rows, labels, settings, selection.shard)
    if packs is None:
        return epochs.order, lambda _: None
    readings = [Reading(packs), *(Reading(*pictures) for pictures in learned.pictures)]

    def start(order: Order) -> Told | None:
        if selection.shard is None:
            _warn_if_ranks_share(settings)
        return _told([told for reading in readings if (told := reading.start(order)) is not None])

    return epochs.order, start


def _told(each: Sequence[Told]) -> Told | None:
    """One function that tells all of these of the batches that are asked for; None if there are none."""
    if len(each) < 2:
        return each[0] if each else None

    def told(first: int, count: int) -> None:
        for one in each:
            one(first, count)

    return told


def _warn_if_ranks_share(settings: Settings) -> None:
    """Warn if every rank of torch trains on all rows. One rank may read them alone, in order, to evaluate."""
    ranks = torch_calls.rank_and_world(sys._getframe(1))
    if ranks is not None and (ranks[0] > 0 or settings.auto_shuffle):
        warnings.warn(_NO_SHARD.format(*ranks), stacklevel=2)


def _learned(selection: Selection, settings: Settings) -> Learned:
    return Learned(selection.packs, selection.rows, settings.targets, settings.weights)


def _check_labels(settings: Settings, packs: Packs | None) -> None:
    if settings.label_mode == "binary" and packs is not None and len(packs.class_names) != 2:
        raise ArgumentError(f"label_mode: binary expects 2 classes, found {len(packs.class_names)}; use categorical")
