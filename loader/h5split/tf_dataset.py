"""The batches of a sequence as a tf.data.Dataset."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from h5split.batch.gather import Batch
from h5split.errors import ArgumentError
from h5split.order.passes import Pass
from h5split.order.rows import Rows
from h5split.order.settings import Settings

_BYTES_A_CALL = 16 << 20  # of pixels: 2 ms of gathering, against which a call into Python costs little
_MOST_A_CALL = 32  # batches
_MOST_PASSES = 8  # of one data set at a time


class Sequence(Protocol):
    """What is asked of a `SplitSequence` here."""

    @property
    def settings(self) -> Settings: ...  # noqa: D102  # as SplitSequence's

    @property
    def rows(self) -> Rows: ...  # noqa: D102

    @property
    def shape(self) -> tuple[int, int, int]: ...  # noqa: D102

    @property
    def num_classes(self) -> int: ...  # noqa: D102

    def __len__(self) -> int: ...

    def begin_ahead(self) -> Pass: ...  # noqa: D102

    def fetch(self, current: Pass, first: int, count: int) -> Batch: ...  # noqa: D102


def dataset(sequence: Sequence) -> Any:
    """A tf.data.Dataset of the batches of `sequence`; every iteration over it is one pass.

    TensorFlow calls Python once for several batches, takes the array it gets as it is (where it begins at a multiple
    of 64 bytes, as buffers do; else it copies) and cuts it into batches itself. It also writes into it, as what comes
    after may work in place, and so it never gets the file's own memory.

    Raises:
        ValueError: The sequence is empty.
    """
    settings, batches, shape, classes = sequence.settings, len(sequence), sequence.shape, sequence.num_classes
    rows = sequence.rows
    per_call = _batches_a_call(settings.batch_size * int(np.prod(shape)), batches)
    label_shape, label_dtype = {
        "categorical": ((classes,), tf.float32),
        "int": ((), tf.int32),
        "binary": ((1,), tf.float32),
    }[settings.label_mode]

    def check() -> None:
        if sequence.settings != settings or sequence.rows is not rows or sequence.num_classes != classes:
            raise ArgumentError("the settings or the rows of the sequence have changed: call as_tf_dataset() again")

    passes: OrderedDict[int, Pass] = OrderedDict()

    def begin() -> Any:
        check()
        current = sequence.begin_ahead()
        passes[current.epoch] = current
        if len(passes) > _MOST_PASSES:
            passes.popitem(last=False)
        return np.int64(current.epoch)

    def fetch(epoch: Any, call: Any) -> Any:
        check()
        first = int(call) * per_call
        passes.move_to_end(int(epoch))
        return sequence.fetch(passes[int(epoch)], first, min(per_call, batches - first))

    def named(images: Any, labels: Any) -> Any:
        return tf.ensure_shape(images, (None, *shape)), tf.ensure_shape(labels, (None, *label_shape))

    def one_pass(epoch: Any) -> Any:
        types = tf.uint8 if settings.scale is None else tf.float32, label_dtype
        calls = tf.data.Dataset.range(-(-batches // per_call))
        return calls.map(
            lambda call: named(*tf.numpy_function(fetch, [epoch, call], types)), num_parallel_calls=tf.data.AUTOTUNE
        )

    epochs = tf.data.Dataset.range(1).map(lambda _: tf.numpy_function(begin, [], tf.int64))
    data = epochs.flat_map(one_pass).rebatch(settings.batch_size).prefetch(tf.data.AUTOTUNE)
    return data.apply(tf.data.experimental.assert_cardinality(batches))


def _batches_a_call(nbytes: int, batches: int) -> int:
    return max(1, min(_MOST_A_CALL, _BYTES_A_CALL // nbytes, -(-batches // 4)))
