"""Keras' image_dataset_from_directory, with and without .cache(). Nothing is packed. Pixels are float32, 0 to 255.

The variant `cache-uint8` casts pixels to uint8 before they are cached, a quarter of the bytes. tf.data chooses the
number of threads. With a cache the members of a batch are fixed, and only the order of batches is shuffled. The variant
`grain` has Grain in place of tf.data (`format="grain"`): it decodes in the process itself, and every epoch has one
order.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras
import numpy as np
import tensorflow as tf
from job import Job


def dataset(job: Job) -> Any:
    data = keras.utils.image_dataset_from_directory(
        job.data,
        image_size=(job.size, job.size),
        batch_size=job.batch,
        shuffle=True,
        seed=0,
        format="grain" if job.variant == "grain" else "tf",
        verbose=False,
    )
    if job.variant == "grain":
        return data
    if job.variant == "cache":
        data = data.cache().shuffle(1000)
    elif job.variant == "cache-uint8":
        data = data.map(lambda images, labels: (tf.cast(images, tf.uint8), labels)).cache().shuffle(1000)
    return data.prefetch(tf.data.AUTOTUNE)


def load(job: Job) -> Callable[[int], Iterable[object]]:
    data = dataset(job)
    if job.variant == "grain":
        return lambda epoch: (tuple(np.asarray(part) for part in batch) for batch in data)
    return lambda epoch: data.as_numpy_iterator()


def fit_data(job: Job) -> tuple[object, dict[str, object]]:
    return dataset(job), {}
