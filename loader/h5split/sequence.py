"""H5SplitSequence: the sequence as Keras wants it. Only this module and `keras_calls` import Keras."""

from __future__ import annotations

import os
import sys
import warnings
from typing import Any, Unpack

from keras.config import backend
from keras.layers import Rescaling
from keras.utils import PyDataset

from h5split.batch.gather import Batch
from h5split.batch.targets import Meaning, Meanings, differing
from h5split.batches import SplitSequence
from h5split.errors import ArgumentError
from h5split.file.classes import NO_LABELS
from h5split.keras_calls import LOOK, call_of, ended_by, loop_of
from h5split.order.settings import SettingNames, listing_settings
from h5split.system.text import listed

_OF_KERAS = {"workers", "use_multiprocessing", "max_queue_size"}
_NOUNS = {"class": "classes", "tags": "tags", "numbers": "columns", "pictures": "pictures", "other": "targets"}
_SCALES = {"uint8": 1 / 255, "uint16": 1 / 65535, "float32": 1.0}
_FETCHES_AHEAD = backend() == "tensorflow"  # by tf.data, in a thread; the others ask for a batch when they want it


class _KerasSettingNames(SettingNames, total=False):
    workers: int
    use_multiprocessing: bool
    max_queue_size: int


class H5SplitSequence(SplitSequence, PyDataset):  # type: ignore[misc]  # Keras has no types
    """A `SplitSequence` that is a `keras.utils.Sequence`, for `fit`, `evaluate` and `predict`.

    For example:

        test, val, train = H5SplitSequence("eurosat.h5", scale=1/255).split(0.2, 0.4)
        model.fit(train, validation_data=val, epochs=30)
        for mistake in test.mistakes(model.predict(test)):
            print(mistake.filename, mistake.label, mistake.predicted, mistake.confidence)

    Takes and raises what `SplitSequence` does. Keras' own `workers` and `use_multiprocessing` are refused: with more
    than one worker Keras 3 replays batches left over from the pass before (on JAX and torch), its epochs do not advance
    in other processes, and handing batches from one to another takes longer than making them.
    """

    @listing_settings
    def __init__(self, *paths: str | os.PathLike[str], **settings: Unpack[_KerasSettingNames]) -> None:
        PyDataset.__init__(self)
        ours: dict[str, Any] = dict(settings)
        for name in _OF_KERAS & ours.keys():
            setattr(self, name, ours.pop(name))
        SplitSequence.__init__(self, *paths, **ours)

    def __getitem__(self, index: int) -> Batch:
        """A batch, as `SplitSequence` says; each loop of Keras is a pass of its own."""
        loop = loop_of(sys._getframe(1))
        if loop is LOOK:
            return self._look(index)
        return self._item(index, loop, is_ahead=loop is not None and _FETCHES_AHEAD and self._learns_of_ends())

    def _is_extended(self) -> bool:
        return type(self).__getitem__ is not H5SplitSequence.__getitem__

    def _learns_of_ends(self) -> bool:
        """Whether Keras surely tells when a pass is over: a subclass may not pass on what it is told."""
        return type(self).on_epoch_end is H5SplitSequence.on_epoch_end

    @property
    def workers(self) -> int:
        """1: Keras asks for one batch at a time."""
        return 1

    @workers.setter
    def workers(self, count: int) -> None:
        if count > 1:
            raise ArgumentError(_refusal("workers", count, "0 or 1"))

    @property
    def use_multiprocessing(self) -> bool:
        """False: Keras asks in this process."""
        return False

    @use_multiprocessing.setter
    def use_multiprocessing(self, wanted: bool) -> None:
        if wanted:
            raise ArgumentError(_refusal("use_multiprocessing", wanted, "False"))

    def rescaling_layer(self, scale: float | None = None) -> Rescaling:
        """The Keras layer that does what the setting `scale` does, on the accelerator, where it costs nothing.

        Put it first in a model that is trained on uint8 or uint16 batches: a quarter or half of the bytes are copied.

        Args:
            scale: The factor. None: what makes the largest integer 1, which is 1/255 for uint8 and 1/65535 for uint16;
                and 1 for floats, whose range nobody knows.
        """
        if scale is None:
            scale = _SCALES["uint8" if self._selection.packs is None else str(self.dtype)]
        return Rescaling(scale)

    def on_epoch_begin(self) -> None:
        """Called by Keras before each pass. Warns if it learns or evaluates classes, but the images have no labels.

        Raises:
            ValueError: This is the training data of `fit`, and the targets of the validation data mean something else:
                its classes, tags or columns are others, or in another order.
        """
        call = call_of(self, sys._getframe(1))
        if call is None:
            return
        if self.settings.label_mode is not None and not self.is_mapped and self.is_unlabelled:
            warnings.warn(f"{call.name}: losses and metrics mean nothing without labels: {NO_LABELS}", stacklevel=2)
        if isinstance(call.validation, SplitSequence):
            _check_validation(self, call.validation)

    def on_epoch_end(self) -> None:
        """Called by Keras after each pass, and when it makes ready for passes; or by a loop of one's own, to end it."""
        ended = ended_by(sys._getframe(1))
        if ended is None:
            super().on_epoch_end()
        elif ended.is_reset:
            self._passes.take_back(ended.adapter)
        else:
            self._passes.end(ended.adapter)


def _check_validation(train: SplitSequence, validation: SplitSequence) -> None:
    """Raise if numbers in the targets of validation data mean something else than in those of training data."""
    found = differing(train.target_meaning, validation.target_meaning)
    if found is None:
        return
    one, other = found
    is_of_a_kind = isinstance(one, Meaning) and isinstance(other, Meaning) and one.kind == other.kind
    if (train.is_mapped or validation.is_mapped) and not is_of_a_kind:
        return  # a function may make one kind of targets of another
    is_class = is_of_a_kind and isinstance(one, Meaning) and one.kind == "class"
    setting = "classes=train.classnames" if is_class else "targets=train.settings.targets"
    raise ArgumentError(
        f"fit: expected validation data of {_described(one)}; found {_described(other)}; "
        f"give it the same by validation.set({setting})"
    )


def _described(targets: Meanings) -> str:
    if isinstance(targets, dict):
        return f"the targets {listed([*targets])}"
    return f"the {_NOUNS[targets.kind]} {listed(targets.names)}"


def _refusal(name: str, found: object, expected: str) -> str:
    return (
        f"{name}: expected {expected}, found {found!r}; with more workers Keras replays batches and loses epochs, "
        "and making a batch takes less time than handing it over"
    )
