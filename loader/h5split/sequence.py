"""H5SplitSequence: the sequence as Keras wants it. The only module that imports Keras."""

from __future__ import annotations

import os
from typing import Any

from keras.layers import Rescaling
from keras.utils import PyDataset

from h5split.batches import SplitSequence

_OF_KERAS = {"workers", "use_multiprocessing", "max_queue_size"}


class H5SplitSequence(SplitSequence, PyDataset):  # type: ignore[misc]  # Keras has no types
    """A `SplitSequence` that is a `keras.utils.Sequence`, for `fit`, `evaluate` and `predict`.

    Example::

        test, val, train = H5SplitSequence("eurosat.h5", scale=1/255).split(0.2, 0.4)
        model.fit(train, validation_data=val, epochs=30)
        for mistake in test.mistakes(model.predict(test)):
            print(mistake.filename, mistake.label, mistake.predicted, mistake.confidence)

    Takes and raises what `SplitSequence` does. Keras' own `workers` and `use_multiprocessing` are refused: with more
    than one worker Keras 3 replays batches left over from the pass before (on JAX and torch), its epochs do not advance
    in other processes, and handing batches from one to another takes longer than making them.
    """

    def __init__(self, *paths: str | os.PathLike[str], **settings: Any) -> None:
        PyDataset.__init__(self)
        for name in _OF_KERAS & settings.keys():
            setattr(self, name, settings.pop(name))
        SplitSequence.__init__(self, *paths, **settings)

    @property
    def workers(self) -> int:
        """1: Keras asks for one batch at a time."""
        return 1

    @workers.setter
    def workers(self, count: int) -> None:
        if count > 1:
            raise ValueError(_refusal("workers", count, "0 or 1"))

    @property
    def use_multiprocessing(self) -> bool:
        """False: Keras asks in this process."""
        return False

    @use_multiprocessing.setter
    def use_multiprocessing(self, wanted: bool) -> None:
        if wanted:
            raise ValueError(_refusal("use_multiprocessing", wanted, "False"))

    @property
    def num_batches(self) -> int:
        """Batches in an epoch.

        Keras (3.8 to 3.15, on every backend) reads this last thing before it goes over the data, and this is how the
        sequence knows that a pass begins. It reads it at other times as well, but never between two batches of a pass:
        before it looks ahead at the first batches for their shapes, which is no pass and comes before
        `on_epoch_begin`; and at the end of a pass, before `on_epoch_end`, which takes it back.
        """
        self.begin(counts=self._holds_pass)
        return len(self)

    def rescaling_layer(self, scale: float = 1 / 255) -> Rescaling:
        """The Keras layer that does what the setting `scale` does, on the accelerator, where it costs nothing.

        Put it first in a model that is trained on uint8 batches: a quarter of the bytes are copied.
        """
        return Rescaling(scale)

    def on_epoch_begin(self) -> None:
        """Called by Keras before each pass, and when batches of it may have been fetched already."""
        self._holds_pass = True

    def on_epoch_end(self) -> None:
        """Called by Keras after each pass, and at other times: before the first, and once more around a validation."""
        self._holds_pass = False
        self._next = None
        super().on_epoch_end()


def _refusal(name: str, found: object, expected: str) -> str:
    return (
        f"{name}: expected {expected}, found {found!r}; with more workers Keras replays batches and loses epochs, "
        "and making a batch takes less time than handing it over"
    )
