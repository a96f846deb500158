"""Keras' fit with a model that looks at 8x8 pixels, so that it times the delivery of batches, not training."""

from __future__ import annotations

import time
from collections.abc import Callable

import keras
from job import Job, listing


class Clock(keras.callbacks.Callback):
    """Record when epochs end, and the number of batches in the last one."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[float] = []
        self.first = 0.0
        self.steps = 0

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        """Reset the number of batches."""
        self.steps = 0

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        """Count a batch, and record the time of the first."""
        self.first = self.first or time.monotonic()
        self.steps += 1

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        """Record the time."""
        self.ends.append(time.monotonic())


def model_for(size: int, classes: int, dtype: str) -> keras.Model:
    """Return the model. Its input has the type of the data, so only the 8x8 pixels are cast."""
    edge = (size - 8) // 2
    model = keras.Sequential(
        [
            keras.Input((size, size, 3), dtype=dtype),
            keras.layers.Cropping2D(((edge, size - 8 - edge), (edge, size - 8 - edge))),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(),
            keras.layers.Dense(classes, activation="softmax"),
        ]
    )
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


def fit(data: object, options: dict[str, object], job: Job, watched: Callable[[], None] | None) -> dict[str, object]:
    """Run a first epoch, then timed ones. If `watched` is given, call it and run one epoch for memory instead."""
    dtype = data.element_spec[0].dtype.name if hasattr(data, "element_spec") else "uint8"
    model = model_for(job.size, max(label for _, label in listing(job.data)) + 1, dtype)
    clock, opening = Clock(), time.monotonic()
    model.fit(data, epochs=1 if watched else job.epochs + 1, verbose=0, callbacks=[clock], **options)
    if watched:
        watched()
        model.fit(data, epochs=1, verbose=0, callbacks=[Clock()], **options)
    return {
        "first_batch": clock.first - opening,
        "first_epoch": clock.ends[0] - opening,
        "epochs": [after - before for before, after in zip(clock.ends, clock.ends[1:], strict=False)],
        "steps": clock.steps,
    }
