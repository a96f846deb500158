"""The batches of a sequence as a tf.data.Dataset."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from h5split.batch.gather import Batch
from h5split.batch.mapping import specs_of
from h5split.batch.targets import Spec
from h5split.errors import ArgumentError
from h5split.order.passes import Pass
from h5split.order.rows import Rows
from h5split.order.settings import Settings

_BYTES_PER_CALL = 16 << 20  # gathering these takes 2 ms, compared with which the call into Python costs little
_MAX_BATCHES_PER_CALL = 32
_MAX_PASSES = 8  # passes of one data set that can be under way at a time


class Sequence(Protocol):
    """The part of `SplitSequence` that is used here."""

    @property
    def settings(self) -> Settings: ...  # noqa: D102  # documented in SplitSequence

    @property
    def rows(self) -> Rows: ...  # noqa: D102

    @property
    def is_mapped(self) -> bool: ...  # noqa: D102

    def spec(self) -> Any: ...  # noqa: D102

    def __len__(self) -> int: ...

    def begin_ahead(self) -> Pass: ...  # noqa: D102

    def fetch(self, current: Pass, first: int, count: int) -> Batch: ...  # noqa: D102


def dataset(sequence: Sequence) -> Any:
    """Create a tf.data.Dataset of the batches of `sequence`. Every iteration over it is one pass.

    TensorFlow calls Python once for several batches (with `map`, for one) and cuts the array into batches itself. It
    uses an array without a copy if it begins at a multiple of 64 bytes, as buffers do. Later stages of the pipeline may
    write into the array in place, so TensorFlow never gets a view of the file.

    A program with several iterators that are not used up should delete them before it ends: TensorFlow waits for their
    threads, which may wait for Python.

    An iterator gives the functions of `map` one batch after another, in order. Several iterators may call them at once.

    Raises:
        ValueError: The sequence is empty.
        IndexError: It has functions of `map`, but no batch that tells what they make.
    """
    settings, batches, rows, spec = sequence.settings, len(sequence), sequence.rows, sequence.spec()
    is_mapped = sequence.is_mapped
    arrays = tf.nest.flatten(spec)
    per_call = 1 if is_mapped else _batches_per_call(settings.batch_size * sum(map(_nbytes, arrays)), batches)

    def check() -> None:
        if sequence.settings != settings or sequence.rows is not rows:
            raise ArgumentError("the settings or the rows of the sequence have changed: call as_tf_dataset() again")

    passes: OrderedDict[int, Pass] = OrderedDict()

    def epoch_of(epoch: Any, call: Any) -> Any:
        if call > 0:
            return epoch
        check()
        current = sequence.begin_ahead()
        passes[current.epoch] = current
        if len(passes) > _MAX_PASSES:
            passes.popitem(last=False)
        return np.int64(current.epoch)

    def fetch(epoch: Any, call: Any) -> Any:
        check()
        first = int(call) * per_call
        if int(epoch) not in passes:
            raise ArgumentError(f"expected up to {_MAX_PASSES} iterators over a data set at a time, found more")
        passes.move_to_end(int(epoch))
        batch = sequence.fetch(passes[int(epoch)], first, min(per_call, batches - first))
        if is_mapped and specs_of(batch) != spec:
            raise ArgumentError(f"map: expected all batches to be like the first, {spec}, found {specs_of(batch)}")
        return tf.nest.flatten(batch)

    def with_epoch(epoch: Any, call: Any) -> Any:
        epoch = tf.ensure_shape(tf.numpy_function(epoch_of, [epoch, call], tf.int64), ())
        return epoch, (epoch, call)

    def fetched(epoch: Any, call: Any) -> Any:
        found = tf.numpy_function(fetch, [epoch, call], [tf.as_dtype(array.dtype) for array in arrays])
        shaped = [tf.ensure_shape(one, (None, *array.shape)) for one, array in zip(found, arrays, strict=True)]
        return tf.nest.pack_sequence_as(spec, shaped)

    # What `scan` remembers for an iterator is the epoch of its pass. A stage for the epoch with the calls inside would
    # begin a pass 10 ms later, as TensorFlow would set up the calls anew.
    calls = tf.data.Dataset.range(-(-batches // per_call)).scan(np.int64(-1), with_epoch)
    data = calls.map(fetched, num_parallel_calls=None if is_mapped else tf.data.AUTOTUNE)
    data = data.rebatch(settings.batch_size).prefetch(tf.data.AUTOTUNE)
    return data.apply(tf.data.experimental.assert_cardinality(batches))


def _nbytes(array: Spec) -> int:
    return int(np.prod(array.shape) * np.dtype(array.dtype).itemsize)


def _batches_per_call(nbytes: int, batches: int) -> int:
    return max(1, min(_MAX_BATCHES_PER_CALL, _BYTES_PER_CALL // nbytes, -(-batches // 4)))
