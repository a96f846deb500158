"""H5SplitSequence: the sequence as Keras wants it. The only module that imports Keras."""

from __future__ import annotations

import os
from typing import Any

from keras.utils import PyDataset

from h5split.batches import SplitSequence


class H5SplitSequence(SplitSequence, PyDataset):  # type: ignore[misc]  # Keras has no types
    """A `SplitSequence` that is a `keras.utils.Sequence`, for `fit`, `evaluate` and `predict`.

    Example::

        test, val, train = H5SplitSequence("eurosat.h5", scale=1/255).split(0.2, 0.4)
        model.fit(train, validation_data=val, epochs=30)
        for mistake in test.mistakes(model.predict(test)):
            print(mistake.filename, mistake.label, mistake.predicted, mistake.confidence)

    Takes and raises what `SplitSequence` does.
    """

    def __init__(self, *paths: str | os.PathLike[str], **settings: Any) -> None:
        PyDataset.__init__(self)
        SplitSequence.__init__(self, *paths, **settings)

    @property
    def num_batches(self) -> int:
        """Batches in an epoch.

        Keras (3.8 to 3.15, on every backend) reads this whenever it is about to go over the data from the start, and
        at no other time; `on_epoch_end` it calls up to twice a pass, and once before the first. So this is how the
        sequence knows that a pass begins.
        """
        self.begin()
        return len(self)

    def on_epoch_begin(self) -> None:
        """Called by Keras after batches of the epoch may have been fetched; nothing to do."""
