"""Compare reading from a pack with its limits, measured in the same run.

    python tools/loading.py epochs eurosat.h5          shuffled and consecutive batches against take() in memory
    python tools/loading.py fit eurosat.h5             Keras' fit on TensorFlow against tf.data on an array in memory
    python tools/loading.py cold eurosat.h5            a first epoch from disk against reading the file front to back
    python tools/loading.py consumer eurosat.h5        shuffled epochs of a consumer that needs time
    python tools/loading.py memory photos.h5           memory that an epoch adds to the process
    python tools/loading.py types --rows 4000          packs of uint16 and float32 against one of uint8 of equal bytes
    python tools/loading.py large --rows 10000000      a pack of many rows and no pixels: open, split, shuffle, a name

Runs are interleaved. Prints medians and their ratios. The page cache holds a newly written file in small pieces, and
reads it up to 15 % slower than after a restart. So `epochs`, `fit` and `consumer` first read the pack from disk.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from packing import medians, timed

from h5split import PackedImages, SplitSequence
from h5split.file.newpack import new_pack
from h5split.file.sealing import Tables, images_offset, seal


def drop_from_cache(path: str) -> None:
    """Drop a file from the page cache."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_file(path: str) -> None:
    buffer = bytearray(8 << 20)
    with open(path, "rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def epoch(sequence: SplitSequence) -> None:
    for _ in sequence:
        pass


def rows_as_items(images: NDArray[np.uint8]) -> NDArray[np.void]:
    return images.reshape(len(images), -1).view(f"V{images[0].nbytes}")[:, 0]


def taking(items: NDArray[np.void], order: NDArray[np.int64], batch: int) -> Callable[[], None]:
    """Return a function that copies all whole batches of rows with `take`, into one buffer."""
    out = np.empty(batch, items.dtype)

    def take() -> None:
        for start in range(0, len(items) // batch * batch, batch):
            items.take(order[start : start + batch], out=out, mode="clip")

    return take


def compare_epochs(arguments: argparse.Namespace) -> None:
    drop_from_cache(arguments.pack)
    read_file(arguments.pack)
    mapped = rows_as_items(PackedImages(arguments.pack).images)
    items = mapped.copy()
    order = np.random.default_rng(0).permutation(len(items))
    for batch in arguments.batch:
        settings = {"batch_size": batch, "label_mode": arguments.label_mode, "drop_remainder": True}
        sequences = {
            "shuffled": SplitSequence(arguments.pack, auto_shuffle=True, **settings),
            "consecutive": SplitSequence(arguments.pack, **settings),
            "block": SplitSequence(arguments.pack, auto_shuffle="block", **settings),
        }
        count = len(sequences["shuffled"])
        print(f"batch {batch}, {count * batch} rows of {items.itemsize} bytes:")
        runs: dict[str, Callable[[], float]] = {
            "take(out=, mode='clip') in memory": partial(timed, taking(items, order, batch)),
            "the same from the mapped file": partial(timed, taking(mapped, order, batch)),
        }
        for name, sequence in sequences.items():
            runs[name] = lambda sequence=sequence: timed(lambda: epoch(sequence))
        found = medians(runs, arguments.repeats)
        in_memory = found.pop("take(out=, mode='clip') in memory")
        from_map = found.pop("the same from the mapped file")
        print(f"  the map itself: {in_memory / from_map:.2f} of take in memory")
        for name, seconds in found.items():
            print(
                f"  {name}: {seconds / count * 1e6:.1f} us a batch, {in_memory / seconds:.2f} of take in memory, "
                f"{from_map / seconds:.2f} of take from the map, {count * batch / seconds:,.0f} images/s"
            )


def compare_fit(arguments: argparse.Namespace) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras
    import tensorflow as tf

    from h5split import H5SplitSequence

    drop_from_cache(arguments.pack)
    read_file(arguments.pack)
    pack = PackedImages(arguments.pack)
    height, width, _ = pack.shape
    pixels = np.array(pack.images)
    labels = np.eye(len(pack.class_names), dtype=np.float32)[pack.labels]

    def tiny_model() -> keras.Model:
        """Return a model that looks at 8x8 pixels, so that `fit` times the delivery of batches, not training."""
        model = keras.Sequential(
            [
                keras.Input(pack.shape, dtype="uint8"),
                keras.layers.Cropping2D(((height - 8) // 2, (width - 8) // 2)),
                keras.layers.Rescaling(1 / 255),
                keras.layers.Flatten(),
                keras.layers.Dense(len(pack.class_names), activation="softmax"),
            ]
        )
        model.compile("sgd", "categorical_crossentropy")
        return model

    for batch in arguments.batch:
        shuffled = {"batch_size": batch, "auto_shuffle": True}
        data = {
            "tf.data on an array in memory": tf.data.Dataset.from_tensor_slices((pixels, labels))
            .shuffle(len(pixels))
            .batch(batch),
            "sequence, consecutive batches": H5SplitSequence(arguments.pack, batch_size=batch),
            "sequence, shuffled": H5SplitSequence(arguments.pack, **shuffled),
            "as_tf_dataset(), shuffled": H5SplitSequence(arguments.pack, **shuffled).as_tf_dataset(),
            "as_tf_dataset(), block": H5SplitSequence(
                arguments.pack, batch_size=batch, auto_shuffle="block"
            ).as_tf_dataset(),
        }
        print(f"fit, {arguments.epochs} epochs of {len(pixels)} rows, batch {batch}:")
        models = {name: tiny_model() for name in data}

        def fit(name: str, data: dict[str, object] = data, models: dict[str, keras.Model] = models) -> float:
            shuffle = name.startswith("sequence")  # the default, but Keras warns if it has no effect
            return timed(lambda: models[name].fit(data[name], epochs=arguments.epochs, shuffle=shuffle, verbose=0))

        found = medians({name: lambda name=name: fit(name) for name in data}, arguments.repeats)
        limit = found.pop("tf.data on an array in memory")
        steps = arguments.epochs * -(-len(pixels) // batch)
        for name, seconds in found.items():
            print(f"  {name}: {seconds / steps * 1e3:.2f} ms a step, {limit / seconds:.2f} of the speed of tf.data")


def compare_cold(arguments: argparse.Namespace) -> None:
    size = os.path.getsize(arguments.pack)

    def open_pack(order: bool | str = True) -> SplitSequence:
        """Open the pack anew for each run: the system keeps mapped pages in its cache."""
        return SplitSequence(arguments.pack, auto_shuffle=order, label_mode="int", batch_size=arguments.batch[0])

    def in_blocks() -> None:
        """Read every page, as a network would: a batch in block order is a view of the file."""
        for images, _ in open_pack("block"):
            images.reshape(-1)[::4096].max()

    def from_disk(run: Callable[[], object]) -> float:
        drop_from_cache(arguments.pack)
        return timed(run)

    print(f"{size / 1e6:,.0f} MB, from disk, batch {arguments.batch[0]}:")
    found = medians(
        {
            "file, front to back": lambda: from_disk(lambda: read_file(arguments.pack)),
            "first epoch, shuffled": lambda: from_disk(lambda: epoch(open_pack())),
            "first epoch, block order": lambda: from_disk(in_blocks),
            "first epoch, shuffled, preload() before": lambda: from_disk(lambda: epoch(open_pack().preload())),
        },
        arguments.repeats,
    )
    limit = found.pop("file, front to back")
    print(f"  file, front to back: {size / limit / 1e6:,.0f} MB/s")
    for name, seconds in found.items():
        print(f"  {name}: {limit / seconds:.2f} of it")


def compare_consumer(arguments: argparse.Namespace) -> None:
    """Time epochs with a consumer that is busy outside of Python as long as `take` in memory, and occupies a core."""
    drop_from_cache(arguments.pack)
    read_file(arguments.pack)
    items = rows_as_items(PackedImages(arguments.pack).images).copy()
    order = np.random.default_rng(0).permutation(len(items))
    a_megabyte = bytes(1 << 20)
    per_byte = min(timed(lambda: hashlib.sha256(a_megabyte)) for _ in range(20)) / len(a_megabyte)
    for batch in arguments.batch:
        take = taking(items, order, batch)
        seconds = min(timed(take) for _ in range(5)) / (len(items) // batch)
        work = memoryview(bytes(int(seconds / per_byte)))
        shuffled = SplitSequence(arguments.pack, auto_shuffle=True, batch_size=batch, label_mode="int")

        def consume(batches: Iterable[object], work: memoryview = work) -> None:
            for _ in batches:
                hashlib.sha256(work)

        print(f"batch {batch}, a consumer that is busy for {len(work) * per_byte * 1e6:,.0f} us with each:")
        sources = {"the consumer alone": range(len(shuffled)), "with shuffled batches": shuffled}
        runs = {
            name: lambda source=source, consume=consume: timed(lambda: consume(source))
            for name, source in sources.items()
        }
        found = medians(runs, arguments.repeats)
        print(f"  {found['the consumer alone'] / found['with shuffled batches']:.2f} of the consumer alone")


def memory(kind: str = "RssAnon") -> int:
    """Return the resident bytes of this process: RssAnon (without pages of files) or VmRSS (with them)."""
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(kind))


@contextlib.contextmanager
def most_memory() -> Iterator[list[int]]:
    """Put into a list, when the block ends, by how many bytes RssAnon was above its value before, at most."""
    before = memory()
    found, done = [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.002):
            found[0] = max(found[0], memory() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield found
    finally:
        done.set()
        watcher.join()


def measure_memory(arguments: argparse.Namespace) -> None:
    for settings in ({}, {"auto_shuffle": True}, {"auto_shuffle": True, "scale": 1 / 255}):
        sequence = SplitSequence(arguments.pack, batch_size=arguments.batch[0], **settings)
        with most_memory() as most:
            seconds = timed(lambda sequence=sequence: epoch(sequence))
        size = os.path.getsize(arguments.pack)
        added = most[0] / 1e6
        print(f"{settings}: an epoch over {size / 1e9:.1f} GB takes {seconds:.1f} s and adds at most {added:.1f} MB")


def make_typed(path: str, pixels: NDArray[Any]) -> None:
    rows = len(pixels)
    with new_pack(path, pixels.shape[1:], rows, pixels.dtype) as new:
        checksums = new.append(pixels)
        new.seal(
            Tables(
                labels=np.zeros(rows, np.int32),
                class_names=["scene"],
                filenames=[f"scene/{row}.tif" for row in range(rows)],
                columns={"source": ["scene"] * rows},
                digests=np.zeros((rows, 32), np.uint8),
                checksums=checksums,
                settings={},
                packed_by={},
            )
        )


def compare_types(arguments: argparse.Namespace) -> None:
    """Read packs of 64x64x13 of uint16, and of the same bytes as uint8 and as float32."""
    raw = np.random.default_rng(0).integers(0, 4096, (arguments.rows, 64, 64, 13), np.uint16)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        sequences = {}
        for name, dtype, shape in (
            ("uint8", "u1", (64, 64, 26)),
            ("uint16", "<u2", (64, 64, 13)),
            ("float32", "<f4", (64, 32, 13)),
        ):
            path = os.path.join(folder, f"{name}.h5")
            make_typed(path, raw.reshape(-1).view(dtype).reshape(-1, *shape))
            sequences[name] = SplitSequence(path, auto_shuffle=True, batch_size=arguments.batch, label_mode="int")
            epoch(sequences[name])
        runs = {name: lambda sequence=sequence: timed(lambda: epoch(sequence)) for name, sequence in sequences.items()}
        found = medians(runs, arguments.repeats)
    for name, seconds in found.items():
        print(f"{name}: {raw.nbytes / seconds / 1e9:.2f} GB/s shuffled, {found['uint8'] / seconds:.2f} of uint8")


class Texts(Sequence[str]):
    """Texts made from their row numbers when they are asked for, as those of 10^8 rows do not fit in memory."""

    def __init__(self, rows: range, text: Callable[[int], str]) -> None:
        self._rows = rows
        self._text = text

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        rows = self._rows[index]
        return Texts(rows, self._text) if isinstance(rows, range) else self._text(rows)

    def __iter__(self) -> Iterator[str]:
        return map(self._text, self._rows)


def make_large(path: str, rows: int) -> None:
    """Make a pack of 64x64 images whose pixels are a hole in a sparse file."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    numbers = np.arange(rows)
    os.ftruncate(descriptor, images_offset(64 * 64 * 3) + rows * 64 * 64 * 3)
    tables = Tables(
        labels=(numbers % 1000).astype(np.int32),
        class_names=[f"class-{number:03}" for number in range(1000)],
        filenames=Texts(range(rows), lambda row: f"data/class-{row % 1000:03}/image-{row:09}.jpg"),
        columns={"source": Texts(range(rows), lambda _: "data")},
        digests=np.ascontiguousarray(numbers.astype("<u8")[:, np.newaxis].repeat(4, axis=1)).view(np.uint8),
        checksums=numbers.astype(np.uint64),
        settings={},
        packed_by={},
    )
    seal(descriptor, (rows, 64, 64, 3), tables)
    os.close(descriptor)


def measure_large(arguments: argparse.Namespace) -> None:
    """Measure a pack of many rows. A child process makes the file, so that its memory is not counted."""
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        path = os.path.join(folder, "large.h5")
        child = os.fork()
        if child == 0:
            make_large(path, arguments.rows)
            os._exit(0)
        os.waitpid(child, 0)
        print(f"{arguments.rows:,} rows, {os.path.getsize(path) / 1e9:,.0f} GB, most of it a hole:")

        def step(name: str, run: Callable[[], object]) -> object:
            start = time.perf_counter()
            with most_memory() as most:
                result = run()
                seconds = time.perf_counter() - start
            print(f"  {name:<28} {seconds * 1e3:9.3f} ms, at most {most[0] / arguments.rows:5.1f} bytes a row more")
            return result

        before = memory()
        step("a small one first", lambda: SplitSequence(arguments.small) if arguments.small else None)
        sequence = step("open", lambda: SplitSequence(path))
        assert isinstance(sequence, SplitSequence)
        step("split(0.2, 0.4)", lambda: sequence.split(0.2, 0.4))
        step("shuffle", lambda: sequence.shuffle())
        step("a batch", lambda: next(iter(sequence)))
        step("auto_shuffle", lambda: sequence.set(auto_shuffle=True))
        for number in range(3):
            step(f"epoch {number}: its first batch", lambda: next(iter(sequence)))
        names, some = sequence.filenames, np.random.default_rng(0).integers(0, arguments.rows, 10).tolist()
        step("ten names", lambda: [names[row] for row in some])
        print(f"  in the end {(memory() - before) / arguments.rows:.1f} bytes a row")


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure loading beside its limits.")
    commands = parser.add_subparsers(required=True)
    for name, run, about in (
        ("epochs", compare_epochs, "epochs against take() in memory"),
        ("fit", compare_fit, "Keras' fit on TensorFlow against tf.data on an array in memory"),
        ("cold", compare_cold, "a first epoch from disk against reading the file"),
        ("consumer", compare_consumer, "epochs of a consumer that needs as long as take() in memory"),
        ("memory", measure_memory, "memory that an epoch adds"),
    ):
        command = commands.add_parser(name, help=about)
        command.add_argument("pack", help="a file made by pack-images")
        command.add_argument("--batch", type=int, nargs="+", default=[32, 128, 256])
        command.add_argument("--repeats", type=int, default=5)
        command.add_argument("--epochs", type=int, default=3, help="epochs in each fit")
        command.add_argument("--label-mode", default="int", help="label mode, for the command epochs")
        command.set_defaults(run=run)
    types = commands.add_parser("types", help="packs of uint16 and float32 against one of uint8")
    types.add_argument("--rows", type=int, default=4000)
    types.add_argument("--batch", type=int, default=128)
    types.add_argument("--repeats", type=int, default=7)
    types.add_argument("--folder", default=None, help="folder for the files (the folder for temporary files)")
    types.set_defaults(run=compare_types)
    large = commands.add_parser("large", help="many rows and no pixels")
    large.add_argument("--rows", type=int, default=10_000_000)
    large.add_argument("--folder", default=None, help="folder for the file (the folder for temporary files)")
    large.add_argument("--small", default=None, help="a pack to open first, so that imports are not counted")
    large.set_defaults(run=measure_large)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
