"""Keras' image_dataset_from_directory, with and without .cache(). Nothing is packed. Pixels are float32, 0 to 255.

The variant `cache-uint8` casts pixels to uint8 before they are cached, a quarter of the bytes. tf.data chooses the
number of threads. With a cache the members of a batch are fixed, and only the order of batches is shuffled.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras
import tensorflow as tf
from job import Job


def dataset(job: Job) -> tf.data.Dataset:
    data = keras.utils.image_dataset_from_directory(
        job.data, image_size=(job.size, job.size), batch_size=job.batch, shuffle=True, seed=0, verbose=False
    )
    if job.variant == "cache":
        data = data.cache().shuffle(1000)
    elif job.variant == "cache-uint8":
        data = data.map(lambda images, labels: (tf.cast(images, tf.uint8), labels)).cache().shuffle(1000)
    return data.prefetch(tf.data.AUTOTUNE)


def load(job: Job) -> Callable[[int], Iterable[object]]:
    data = dataset(job)
    return lambda epoch: data.as_numpy_iterator()


def fit_data(job: Job) -> tuple[object, dict[str, object]]:
    return dataset(job), {}
