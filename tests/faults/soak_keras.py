"""A Keras model that counts the rows that arrive in it; the part of soak.py that imports Keras."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from numpy.typing import NDArray

from h5split import H5SplitSequence

BATCH = 64
Check = Callable[[list[str], NDArray[Any], NDArray[Any], NDArray[Any]], int]


class Arrivals(keras.metrics.Metric):
    """Metric: how often each row arrived, and how many rows had wrong pixels or a wrong label.

    Args:
        labels: int (N,), label of every row.
        sums: int (N,), weighted sum of the pixels of every row.
        classes: Number of classes.
    """

    def __init__(self, labels: NDArray[Any], sums: NDArray[Any], classes: int) -> None:
        super().__init__(name="arrivals")
        self._rows, self._classes = len(labels), classes
        self._labels = ops.convert_to_tensor(labels.astype(np.int32))
        self._sums = ops.convert_to_tensor(sums.astype(np.int32))
        self.times = self.add_weight(shape=(len(labels),), initializer="zeros", dtype="int32", name="times")
        self.wrong = self.add_weight(shape=(), initializer="zeros", dtype="int32", name="wrong")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        said = ops.cast(y_pred[:, self._classes :], "int32")
        numbers, labels, sums = said[:, 0], said[:, 1], said[:, 2]
        given = ops.cast(ops.argmax(y_true, axis=1), "int32")
        right = (labels == given) & (ops.take(self._labels, numbers) == given) & (ops.take(self._sums, numbers) == sums)
        self.times.assign_add(ops.cast(ops.bincount(numbers, minlength=self._rows), "int32"))
        self.wrong.assign_add(ops.sum(ops.cast(~right, "int32")))

    def result(self) -> Any:
        return ops.sum(self.times)


class Look(keras.callbacks.Callback):
    """Callback: compares the rows that arrived in each pass with the rows of its part.

    Args:
        arrivals: The metric.
    """

    def __init__(self, arrivals: Arrivals) -> None:
        super().__init__()
        self._arrivals = arrivals
        self.training: H5SplitSequence | None = None
        self.testing: H5SplitSequence | None = None

    def on_test_begin(self, logs: Any = None) -> None:
        self._compare(self.training)  # validation starts now and resets the metrics
        self.training = None

    def on_test_end(self, logs: Any = None) -> None:
        self._compare(self.testing)

    def _compare(self, part: H5SplitSequence | None) -> None:
        if part is None:
            return
        times = ops.convert_to_numpy(self._arrivals.times)
        expected = np.bincount(part.rows, minlength=len(times))
        assert np.array_equal(times, expected), f"{(times != expected).sum()} rows did not arrive once"
        assert int(ops.convert_to_numpy(self._arrivals.wrong)) == 0, "rows with pixels or labels that are not theirs"


def rounds(path: Path, labels: NDArray[Any], sums: NDArray[Any], weights: NDArray[Any], check: Check) -> Iterator[int]:
    """Fit, evaluate and predict with each order and each door in turn; yield the number of rows each time.

    Args:
        path: The pack.
        labels: int (N,), label of every row.
        sums: int (N,), sum of the pixels times `weights` of every row.
        weights: int (M,), weights of the pixels of an image.
        check: Compares names with the row number, label and sum that arrived for each.
    """
    orders = [False, True, "block"]
    parts = [H5SplitSequence(path, batch_size=BATCH, auto_shuffle=order).split(0.2, 0.4) for order in orders]
    arrivals = Arrivals(labels, sums, parts[0][0].num_classes)
    model, look = _model(parts[0][0], weights, arrivals), Look(arrivals)
    doors = [(split, split) for split in parts] + [(split, [part.as_tf_dataset() for part in split]) for split in parts]
    for (test, val, train), (test_data, val_data, train_data) in itertools.cycle(doors):
        look.training, look.testing = train, val
        model.fit(train_data, validation_data=val_data, shuffle=train_data is train, verbose=0, callbacks=[look])
        look.testing = test
        model.evaluate(test_data, verbose=0, callbacks=[look])
        predictions = model.predict(test_data, verbose=0)
        numbers, said, found = predictions[:, test.num_classes :].astype(np.int64).T
        names = test.get_filenames(range(len(predictions)))
        mistakes = test.mistakes(predictions[:, : test.num_classes])
        wrong = predictions[:, : test.num_classes].argmax(axis=1) != labels[numbers]
        assert {mistake.filename for mistake in mistakes} == {names[at] for at in np.flatnonzero(wrong)}, "mistakes"
        yield check(names, numbers, said, found) + len(test.rows) + len(val.rows) + len(train.rows)


class Batches(keras.utils.PyDataset):
    """Batches of arrays in memory.

    Args:
        images: (N, H, W, C).
        labels: (N, K).
    """

    def __init__(self, images: NDArray[Any], labels: NDArray[Any]) -> None:
        super().__init__()
        self._images, self._labels = images, labels

    def __len__(self) -> int:
        return -(-len(self._images) // BATCH)

    def __getitem__(self, index: int) -> tuple[NDArray[Any], NDArray[Any]]:
        rows = slice(index * BATCH, (index + 1) * BATCH)
        return self._images[rows], self._labels[rows]


def rounds_of_arrays(rows: int, side: int, classes: int) -> Iterator[int]:
    """Fit, evaluate and predict arrays in memory by each door in turn; yield the number of rows each time."""
    images = np.zeros((rows, side, side, 3), np.uint8)
    labels = np.eye(classes, dtype=np.float32)[np.arange(rows) % classes]
    image = keras.Input(images.shape[1:])
    hidden = keras.layers.Conv2D(8, 3, activation="relu")(keras.layers.Rescaling(1 / 255)(image))
    model = keras.Model(image, keras.layers.Dense(classes, activation="softmax")(keras.layers.Flatten()(hidden)))
    model.compile("adam", "categorical_crossentropy")
    doors = [Batches(images, labels), tf.data.Dataset.from_tensor_slices((images, labels)).batch(BATCH)]
    for data in itertools.cycle(doors):
        model.fit(data, validation_data=data, shuffle=data is doors[0], verbose=0)
        model.evaluate(data, verbose=0)
        yield len(model.predict(data, verbose=0))


def _model(part: H5SplitSequence, weights: NDArray[Any], arrivals: Arrivals) -> keras.Model:
    """Build a small network whose output is the probabilities, followed by row number, label and sum of each image."""
    classes, size = part.num_classes, int(np.prod(part.shape))
    coder = np.zeros((size, 3), np.float32)
    coder[:3, 0], coder[3, 1], coder[:, 2] = (1 << 16, 1 << 8, 1), 1, weights
    image = keras.Input(part.shape)
    hidden = keras.layers.Conv2D(8, 3, activation="relu")(keras.layers.Rescaling(1 / 255)(image))
    probabilities = keras.layers.Dense(classes, activation="softmax")(keras.layers.GlobalMaxPooling2D()(hidden))
    said = keras.layers.Dense(3, use_bias=False, trainable=False, name="said")
    both = keras.layers.Concatenate()([probabilities, said(keras.layers.Flatten()(image))])
    model = keras.Model(image, both)
    said.set_weights([coder])  # integers below 2 ** 24 are exact in float32, and so are their sums

    def loss(y_true: Any, y_pred: Any) -> Any:
        return keras.losses.categorical_crossentropy(y_true, y_pred[:, :classes])

    model.compile("adam", loss, metrics=[arrivals])
    return model
