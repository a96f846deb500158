"""TFRecord files read by tf.data: raw pixels and the label in a tf.train.Example, one file per worker.

Rows are shuffled as TensorFlow's guide shows: files are interleaved, then rows go through a shuffle buffer. Here the
buffer holds all rows, so this is a full shuffle.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

import tensorflow as tf
from job import Job, in_workers, listing, read_pixels, shares


def write(task: tuple[str, list[tuple[str, int]], int]) -> None:
    name, files, size = task
    with tf.io.TFRecordWriter(name) as writer:
        for path, label in files:
            pixels = tf.train.BytesList(value=[read_pixels(path, size).tobytes()])
            number = tf.train.Int64List(value=[label])
            feature = {"image": tf.train.Feature(bytes_list=pixels), "label": tf.train.Feature(int64_list=number)}
            writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())


def pack(job: Job) -> None:
    in_workers(write, [(name, part, job.size) for name, part in zip(names(job), shares(job), strict=True)], job)


def dataset(job: Job) -> tf.data.Dataset:
    fields = {"image": tf.io.FixedLenFeature([], tf.string), "label": tf.io.FixedLenFeature([], tf.int64)}

    def parse(records: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        found = tf.io.parse_example(records, fields)
        pixels = tf.io.decode_raw(found["image"], tf.uint8)
        return tf.reshape(pixels, (-1, job.size, job.size, 3)), found["label"]

    data = tf.data.TFRecordDataset(names(job), num_parallel_reads=job.workers)
    data = data.shuffle(len(listing(job.data))).batch(job.batch)
    return data.map(parse, num_parallel_calls=job.workers).prefetch(tf.data.AUTOTUNE)


def load(job: Job) -> Callable[[int], Iterable[object]]:
    data = dataset(job)
    return lambda epoch: data.as_numpy_iterator()


def fit_data(job: Job) -> tuple[object, dict[str, object]]:
    return dataset(job), {}


def names(job: Job) -> list[str]:
    return [os.path.join(job.folder, f"{worker}.tfrecord") for worker in range(job.workers)]
