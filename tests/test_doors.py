"""The doors to tf.data, torch, Grain and other processes, on images whose pixels say who they are."""

from __future__ import annotations

import gc
import itertools
import multiprocessing
import os
import pickle
import subprocess
import sys
import weakref
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from conftest import PATIENCE, pixels_of, write_classes
from h5split import PackedImages, SplitSequence
from pack_images import pack

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

SHUFFLES = pytest.mark.parametrize("shuffle", [False, True, "block"], ids=["unshuffled", "auto_shuffle", "block"])


@pytest.fixture
def tf():
    return pytest.importorskip("tensorflow", reason="needs TensorFlow: pip install 'pack-images[tensorflow]'")


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="needs torch: pip install 'pack-images[torch]'")


@pytest.fixture
def grain():
    return pytest.importorskip("grain.python", reason="needs Grain: pip install grain")


@pytest.fixture(scope="session")
def pair(tmp_path_factory):
    """A pack of two classes, for binary labels."""
    folder = tmp_path_factory.mktemp("pair")
    pack([write_classes(folder / "pair", {"cat": 9, "dog": 14})], folder / "images.h5", workers=1)
    return folder / "images.h5"


def rows_of(sequence, batches):
    """The file names of batches of any library, after checking each label; pixels are found whatever their scale."""
    who = {pixels_of(name).tobytes(): name for name in sequence.filenames}
    scale = sequence.settings.scale or 1
    names = []
    for images, labels in batches:
        pixels, labels = np.asarray(images), np.asarray(labels)
        if pixels.shape[1:] == (3, 8, 8):
            pixels = pixels.transpose(0, 2, 3, 1)
        assert pixels.dtype == (np.uint8 if sequence.settings.scale is None else np.float32)
        pixels = np.rint(pixels / scale).astype(np.uint8)
        numbers = labels.argmax(axis=1) if sequence.settings.label_mode == "categorical" else labels.reshape(-1)
        for image, number in zip(pixels, numbers, strict=True):
            names.append(who[image.tobytes()])
            assert sequence.classnames[int(number)] == names[-1].split("/")[-2]
    return names


def order_of(sequence, epoch):
    """The file names of an epoch, in order, by an equal sequence that is gone over plainly."""
    (equal,) = sequence.split()
    equal.epoch = epoch
    names = rows_of(equal, equal)
    assert names == equal.get_filenames(range(len(names)))
    return names


# --- tf.data ---------------------------------------------------------------------------------------------------------


@SHUFFLES
@pytest.mark.parametrize(
    ("size", "settings"),
    [
        (8, {}),
        (10, {"scale": 1 / 255}),
        (7, {"drop_remainder": True, "label_mode": "int"}),
        (8, {"max_per_class_and_epoch": 10, "scale": 1 / 255}),
        (64, {"max_per_class_and_epoch": 25, "drop_remainder": True}),
        (100, {"label_mode": "int"}),
        (200, {}),
        (1, {}),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else ", ".join(value) or "plain",
)
def test_a_dataset_is_one_epoch_after_the_other_as_the_sequence_is(tf, packed, shuffle, size, settings):
    sequence = SplitSequence(packed, auto_shuffle=shuffle, batch_size=size, **settings)
    dataset = sequence.as_tf_dataset()
    assert int(dataset.cardinality()) == len(dataset) == len(sequence)
    assert [spec.shape[1:] for spec in dataset.element_spec] == [(8, 8, 3), () if "label_mode" in settings else (3,)]
    for epoch in range(3):
        batches = list(dataset)
        expected = order_of(sequence, epoch)
        assert rows_of(sequence, batches) == expected
        assert len(set(expected)) == len(expected)
        assert sequence.get_filenames(range(len(expected))) == expected
        sizes = [len(images) for images, _ in batches]
        assert sizes == [len(images) for images, _ in sequence.split()[0]]
        if not settings.get("max_per_class_and_epoch") and not settings.get("drop_remainder"):
            assert sorted(expected) == sorted(sequence.filenames)
    assert (order_of(sequence, 0) != order_of(sequence, 1)) == bool(shuffle)


@SHUFFLES
def test_a_dataset_has_binary_labels(tf, pair, shuffle):
    sequence = SplitSequence(pair, auto_shuffle=shuffle, batch_size=4, label_mode="binary")
    dataset = sequence.as_tf_dataset()
    assert (dataset.element_spec[1].dtype, dataset.element_spec[1].shape.as_list()) == (tf.float32, [None, 1])
    for epoch in range(2):
        assert rows_of(sequence, dataset) == order_of(sequence, epoch)


@SHUFFLES
def test_a_dataset_of_a_shard_and_of_two_packs_is_right_too(tf, packed, pair, shuffle):
    sequence = SplitSequence(packed, pair, auto_shuffle=shuffle, batch_size=6).shuffle()
    parts = [sequence.shard(index, 2) for index in range(2)]
    datasets = [part.as_tf_dataset() for part in parts]
    for _ in range(2):
        names = [rows_of(part, dataset) for part, dataset in zip(parts, datasets, strict=True)]
        assert [len(found) for found in names] == [61, 61]
        assert len(set(itertools.chain(*names))) == 122


@SHUFFLES
@pytest.mark.parametrize("scale", [None, 1.0])
def test_batches_of_a_dataset_that_are_held_are_never_overwritten(tf, packed, shuffle, scale):
    sequence = SplitSequence(packed, auto_shuffle=shuffle, batch_size=4, scale=scale)
    dataset = sequence.as_tf_dataset()
    held = [list(dataset) for _ in range(5)]
    for _ in range(3):
        list(dataset)
        list(sequence)
    for epoch, batches in enumerate(held):
        assert rows_of(sequence, batches) == order_of(sequence, epoch)


@SHUFFLES
def test_two_iterators_over_one_dataset_at_once_are_whole_epochs_each(tf, packed, shuffle):
    sequence = SplitSequence(packed, auto_shuffle=shuffle, batch_size=8)
    dataset = sequence.as_tf_dataset()
    seen = list(tf.data.Dataset.zip((dataset, dataset)))
    assert len(seen) == 13
    orders = [rows_of(sequence, [both[side] for both in seen]) for side in range(2)]
    for names in orders:
        assert sorted(names) == sorted(sequence.filenames)
        assert names in (order_of(sequence, 0), order_of(sequence, 1))


def test_iterators_that_overlap_each_keep_the_epoch_they_began(tf, packed):
    sequence = SplitSequence(packed, auto_shuffle=True, batch_size=1)
    dataset = sequence.as_tf_dataset()
    begun, seen = {}, {}
    for epoch in (5, 0, 7):
        sequence.epoch = epoch
        begun[epoch] = iter(dataset)
        seen[epoch] = [next(begun[epoch])]
    for _ in range(99):
        for epoch, iterator in begun.items():
            seen[epoch].append(next(iterator))
    for epoch, batches in seen.items():
        assert rows_of(sequence, batches) == order_of(sequence, epoch)
    assert sequence.get_filenames(range(100)) in [order_of(sequence, epoch) for epoch in seen]


def test_a_dataset_left_in_the_middle_is_whole_the_next_time(tf, packed):
    sequence = SplitSequence(packed, auto_shuffle=True, batch_size=2)
    dataset = sequence.as_tf_dataset()
    for _ in range(3):
        assert len(list(dataset.take(3))) == 3
        assert sorted(rows_of(sequence, dataset)) == sorted(sequence.filenames)


@pytest.mark.parametrize(
    "change", [{"batch_size": 4}, {"auto_shuffle": True}, {"scale": 2.0}, {"label_mode": "int"}, {"seed": 3}], ids=str
)
def test_a_dataset_says_so_when_the_settings_have_changed(tf, packed, change):
    sequence = SplitSequence(packed, batch_size=8)
    dataset = sequence.as_tf_dataset()
    list(dataset)
    sequence.set(**change)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"the settings .* have changed: call as_tf_dataset\(\)"):
        list(dataset)
    again = sequence.as_tf_dataset()
    assert sorted(rows_of(sequence, again)) == sorted(sequence.filenames)
    sequence.set(batch_size=8, auto_shuffle=False, scale=None, label_mode="categorical", seed=0)
    assert sorted(rows_of(sequence, dataset)) == sorted(sequence.filenames)


def test_a_dataset_says_so_when_there_are_more_rows_or_classes(tf, tmp_path, packed, pair, packing):
    packing(write_classes(tmp_path / "more", {"ant": 1}))
    for more in (pair, tmp_path / "out.h5"):
        sequence = SplitSequence(packed, batch_size=8)
        dataset = sequence.as_tf_dataset()
        sequence.add_file(more)
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"the rows .* have changed: call as_tf_dataset\(\)"):
            list(dataset)
        assert sorted(rows_of(sequence, sequence.as_tf_dataset())) == sorted(sequence.filenames)


IN_PLACE = """
import sys
import numpy as np
import tensorflow as tf
from h5split import SplitSequence

for shuffle in (False, True, "block"):
    for size in (8, 25, 64):
        sequence = SplitSequence(sys.argv[1], auto_shuffle=shuffle, batch_size=size)
        inverted = sequence.as_tf_dataset().map(lambda images, labels: (tf.bitwise.invert(images), labels))
        found = np.concatenate([images.numpy() for images, _ in inverted])
        assert np.array_equal(found, 255 - np.concatenate([images for images, _ in sequence.split()[0]]))
"""


def test_what_comes_after_a_dataset_may_work_in_place(tf, packed):
    before = packed.read_bytes()
    command = [sys.executable, "-c", IN_PLACE, str(packed)]  # writing into the file's memory would end the process
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert packed.read_bytes() == before


def test_an_empty_sequence_gives_no_dataset(tf):
    with pytest.raises(ValueError, match=r"the sequence is empty; add_file\(path\) opens a pack"):
        SplitSequence().as_tf_dataset()


@SHUFFLES
@pytest.mark.parametrize("cap", [None, 10])
@pytest.mark.filterwarnings("default")  # TensorFlow's own are not ours to mend
def test_keras_fits_and_predicts_a_dataset(tf, packed, shuffle, cap):
    keras = pytest.importorskip("keras", reason="needs Keras: pip install 'pack-images[tensorflow]'")
    sequence = SplitSequence(packed, auto_shuffle=shuffle, batch_size=8, max_per_class_and_epoch=cap)

    class Watcher(keras.Model):
        """Learns nothing, notes every batch, and predicts the pixels."""

        def call(self, x):
            return tf.reshape(x, (-1, 192))

        def train_step(self, data):
            seen.append(data)
            return {"loss": 0.0}

    seen, dataset, model = [], sequence.as_tf_dataset(), Watcher()
    model.compile(run_eagerly=True)
    model.fit(dataset, epochs=3, verbose=0)
    count = len(sequence)
    assert len(seen) == 3 * count
    names = [rows_of(sequence, seen[start : start + count]) for start in range(0, 3 * count, count)]
    assert names == [order_of(sequence, epoch) for epoch in range(3)]
    if cap is None:
        assert Counter(itertools.chain(*names)) == Counter(list(sequence.filenames) * 3)
    for _ in range(2):
        predictions = model.predict(dataset, verbose=0)
        names = sequence.get_filenames(range(len(predictions)))
        assert len(set(names)) == len(names) == len(order_of(sequence, 0))
        for prediction, name in zip(predictions, names, strict=True):
            assert np.array_equal(prediction, pixels_of(name).reshape(-1)), name


# --- torch: a loader -------------------------------------------------------------------------------------------------


@SHUFFLES
@pytest.mark.parametrize("channels_first", [True, False], ids=["channels first", "channels last"])
@pytest.mark.parametrize(
    ("size", "settings"),
    [
        (8, {}),
        (10, {"scale": 1 / 255}),
        (7, {"drop_remainder": True, "label_mode": "int"}),
        (8, {"max_per_class_and_epoch": 10, "scale": 1 / 255, "label_mode": "int"}),
        (200, {}),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else ", ".join(value) or "plain",
)
def test_a_loader_is_one_epoch_after_the_other_as_the_sequence_is(
    torch, packed, shuffle, channels_first, size, settings
):
    sequence = SplitSequence(packed, auto_shuffle=shuffle, batch_size=size, **settings)
    loader = sequence.as_torch_loader(channels_first=channels_first)
    assert len(loader) == len(sequence)
    for epoch in range(3):
        batches = list(loader)
        expected = order_of(sequence, epoch)
        assert rows_of(sequence, batches) == expected
        assert len(set(expected)) == len(expected)
        assert sequence.get_filenames(range(len(expected))) == expected
        assert len(batches) == len(loader)
        for images, labels in batches:
            assert images.shape[1:] == ((3, 8, 8) if channels_first else (8, 8, 3))
            assert images.dtype == (torch.float32 if "scale" in settings else torch.uint8)
            assert labels.dtype == (torch.int64 if "label_mode" in settings else torch.float32)
    assert (order_of(sequence, 0) != order_of(sequence, 1)) == bool(shuffle)


def test_a_loader_has_binary_labels(torch, pair):
    sequence = SplitSequence(pair, auto_shuffle=True, batch_size=4, label_mode="binary")
    for epoch in range(2):
        batches = list(sequence.as_torch_loader())
        assert rows_of(sequence, batches) == order_of(sequence, epoch)
        assert {(labels.dtype, labels.shape[1:]) for _, labels in batches} == {(torch.float32, (1,))}


@SHUFFLES
@pytest.mark.parametrize("scale", [None, 1.0])
@pytest.mark.parametrize("mode", ["categorical", "int"])
def test_writing_into_a_batch_of_a_loader_changes_nothing_else(torch, packed, shuffle, scale, mode):
    before = packed.read_bytes()
    sequence = SplitSequence(packed, auto_shuffle=shuffle, batch_size=8, scale=scale, label_mode=mode)
    loader = sequence.as_torch_loader()
    held = []
    for epoch in range(3):
        for images, labels in loader:
            assert np.asarray(images).flags.writeable
            held.append((images.clone(), labels.clone()))
            images.fill_(7)
            labels.fill_(0)
        assert rows_of(sequence, held[-13:]) == order_of(sequence, epoch)
    assert packed.read_bytes() == before
    assert rows_of(sequence, sequence) == order_of(sequence, 3 if shuffle else 0)


@SHUFFLES
@pytest.mark.parametrize("scale", [None, 1.0])
def test_batches_of_a_loader_that_are_held_are_never_overwritten(torch, packed, shuffle, scale):
    sequence = SplitSequence(packed, auto_shuffle=shuffle, batch_size=4, scale=scale)
    loader = sequence.as_torch_loader()
    held = [list(loader) for _ in range(4)]
    for _ in range(3):
        list(loader)
    for epoch, batches in enumerate(held):
        assert rows_of(sequence, batches) == order_of(sequence, epoch)
    only_views = [[(images[1:], labels[1:]) for images, labels in loader] for _ in range(2)]
    del held
    list(loader)
    for epoch, batches in zip((7, 8), only_views, strict=True):
        names = order_of(sequence, epoch)
        assert rows_of(sequence, batches) == [name for place, name in enumerate(names) if place % 4]


def test_a_loader_that_nobody_holds_is_collected(torch, packed):
    sequence = SplitSequence(packed, auto_shuffle=True, batch_size=8)
    loader = sequence.as_torch_loader()
    begun = iter(loader)
    next(begun)
    gone = [weakref.ref(loader), weakref.ref(sequence)]
    del loader, begun, sequence
    gc.collect()
    assert [reference() for reference in gone] == [None, None]


def test_a_loader_left_in_the_middle_is_whole_the_next_time(torch, packed):
    sequence = SplitSequence(packed, auto_shuffle=True, batch_size=8)
    loader = sequence.as_torch_loader()
    for _ in range(3):
        next(iter(loader))
        assert sorted(rows_of(sequence, loader)) == sorted(sequence.filenames)


class Changed(SplitSequence):
    """A sequence whose items a subclass makes into something else."""

    change: Callable

    def __getitem__(self, index):
        return type(self).change(*super().__getitem__(index))


@pytest.mark.parametrize(
    ("change", "pictures", "labels"),
    [
        (lambda images, labels: (images[:, :, ::-1], labels), lambda b: b[0].flip(3), lambda b: b[1]),
        (lambda images, labels: (images, labels, labels * 2), lambda b: b[0], lambda b: b[2] // 2),
        (lambda images, labels: ({"image": images}, labels), lambda b: b[0]["image"], lambda b: b[1]),
        (lambda images, labels: [images, {"class": labels}], lambda b: b[0], lambda b: b[1]["class"]),
    ],
    ids=["a flip", "weights", "named images", "named labels"],
)
def test_whatever_a_subclass_gives_comes_as_tensors(torch, packed, change, pictures, labels):
    made = type("Made", (Changed,), {"change": staticmethod(change)})
    sequence = made(packed, batch_size=8, auto_shuffle=True, label_mode="int")
    batches = [*sequence.as_torch_loader()]
    assert {type(pictures(batch)) for batch in batches} | {labels(batch).dtype for batch in batches} == {
        torch.Tensor,
        torch.int64,
    }
    plain = SplitSequence(packed, batch_size=8, auto_shuffle=True, label_mode="int")
    assert rows_of(plain, [(pictures(batch), labels(batch)) for batch in batches]) == order_of(plain, 0)


# --- a sequence as a data set of torch -------------------------------------------------------------------------------


@pytest.fixture
def items(torch, packed):
    return SplitSequence(packed, batch_size=8, auto_shuffle=True)


def loader_of(torch, sequence, **options):
    """A DataLoader that asks for items; shuffled, it asks in another order each time."""
    return torch.utils.data.DataLoader(sequence, batch_size=None, **options)


@pytest.mark.parametrize("options", [{}, {"shuffle": True}], ids=["in order", "shuffled"])
def test_every_pass_of_a_loader_over_items_is_an_epoch(torch, items, options):
    loader = loader_of(torch, items, **options)
    for epoch in range(3):
        assert sorted(rows_of(items, loader)) == sorted(items.filenames)
        assert items.get_filenames(range(100)) == order_of(items, epoch)


@pytest.mark.parametrize("options", [{}, {"shuffle": True}], ids=["in order", "shuffled"])
def test_a_loader_over_items_that_is_broken_off_is_an_epoch_too(torch, items, options):
    loader = loader_of(torch, items, **options)
    for epoch in range(0, 6, 2):
        images, labels = zip(*itertools.islice(loader, 3), strict=True)
        assert set(rows_of(items, zip(images, labels, strict=True))) <= set(order_of(items, epoch))
        assert sorted(rows_of(items, loader)) == sorted(items.filenames)
        assert items.epoch == epoch + 1


def test_loaders_over_items_in_turns_are_a_pass_each(torch, items):
    batches = zip(loader_of(torch, items), loader_of(torch, items), strict=True)
    for epoch, part in enumerate(zip(*batches, strict=True)):
        assert rows_of(items, part) == order_of(items, epoch)


def test_a_loader_over_items_goes_on_whatever_happens_within_it(torch, items):
    expected, batches = order_of(items, 0), []
    for batch in loader_of(torch, items):
        batches.append(batch)
        if len(batches) == 1:
            list(items)
            items[0]
            items.set(seed=3)
    assert rows_of(items, batches) == expected


@pytest.mark.parametrize("change", [lambda index: (index, index + 1), lambda index: (index + 1, index)])
def test_a_subclass_may_mix_a_batch_with_another(torch, packed, change):
    class Mixed(SplitSequence):
        def __getitem__(self, index):
            return [super(Mixed, self).__getitem__(one % len(self)) for one in change(index)]

    items = Mixed(packed, batch_size=8, auto_shuffle=True)
    plain = SplitSequence(packed, batch_size=8, auto_shuffle=True)
    for epoch in range(3):
        first, second = zip(*loader_of(torch, items), strict=True)
        assert sorted(rows_of(plain, first)) == sorted(rows_of(plain, second)) == sorted(plain.filenames)
        assert items.get_filenames(range(100)) == order_of(plain, epoch)


WORKERS = """
import sys, warnings
from torch.utils.data import DataLoader
from h5split import SplitSequence

sequence = SplitSequence(sys.argv[1], batch_size=8, auto_shuffle=True)
list(DataLoader(sequence, batch_size=None, num_workers=1))
sequence.set(auto_shuffle=False)
list(DataLoader(sequence, batch_size=None, num_workers=1))
"""


def test_workers_of_a_loader_say_that_their_order_never_changes(torch, packed):
    command = [sys.executable, "-c", WORKERS, str(packed)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("every pass has the same order and the same random numbers; use num_workers=0") == 1


# --- PackedImages as a data set --------------------------------------------------------------------------------------


def rows_of_pack(images, batches):
    """The file names of batches of (pixels, class numbers), after checking each label."""
    who = {pixels_of(name).tobytes(): name for name in images.filenames}
    names = []
    for pixels, numbers in batches:
        for image, number in zip(np.asarray(pixels), np.asarray(numbers), strict=True):
            names.append(who[image.tobytes()])
            assert images.class_names[int(number)] == names[-1].split("/")[-2]
    return names


@pytest.mark.parametrize("workers", [0, 2])
def test_a_plain_torch_loader_takes_a_pack_as_its_data_set(torch, images, workers):
    loader = torch.utils.data.DataLoader(
        images,
        batch_size=8,
        shuffle=True,
        num_workers=workers,
        generator=torch.Generator().manual_seed(1),
        multiprocessing_context="spawn" if workers else None,
        persistent_workers=bool(workers),
    )
    orders = []
    for _ in range(2):
        batches = list(loader)
        assert {(pixels.dtype, numbers.dtype) for pixels, numbers in batches} == {(torch.uint8, torch.int64)}
        orders.append(rows_of_pack(images, batches))
        assert sorted(orders[-1]) == sorted(images.filenames)
    assert orders[0] != orders[1]


def test_grain_takes_a_pack_as_its_source(grain, packed, images):
    dataset = grain.MapDataset.source(PackedImages(packed)).shuffle(seed=5).batch(8)
    assert len(dataset) == 13
    names = rows_of_pack(images, dataset)
    assert sorted(names) == sorted(images.filenames)
    assert names != list(images.filenames)
    assert rows_of_pack(images, dataset.to_iter_dataset()) == names
    twice = grain.MapDataset.source(PackedImages(packed)).seed(5).shuffle().repeat(2).batch(10)
    names = rows_of_pack(images, twice)
    assert sorted(names[:100]) == sorted(names[100:]) == sorted(images.filenames)


def test_a_loader_of_grain_takes_a_pack_as_its_source(grain, packed, images):
    sampler = grain.IndexSampler(100, grain.NoSharding(), shuffle=True, num_epochs=1, seed=5)
    loader = grain.DataLoader(
        data_source=PackedImages(packed), sampler=sampler, operations=[grain.Batch(8)], worker_count=0
    )
    names = rows_of_pack(images, loader)
    assert sorted(names) == sorted(images.filenames)
    assert names != list(images.filenames)


GRAIN = """
import sys
import numpy as np
from absl import flags
from grain import python as grain
from h5split import PackedImages

if __name__ == "__main__":
    flags.FLAGS.mark_as_parsed()  # Grain's workers want that
    loader = grain.DataLoader(
        data_source=PackedImages(sys.argv[1]),
        sampler=grain.IndexSampler(100, grain.NoSharding(), shuffle=True, num_epochs=1, seed=5),
        operations=[grain.Batch(8)],
        worker_count=2,
    )
    pixels, numbers = zip(*loader)
    np.savez(sys.argv[2], pixels=np.concatenate(pixels), numbers=np.concatenate(numbers))
"""


def test_workers_of_grain_take_a_pack_as_their_source(grain, tmp_path, packed, images):
    script, out = tmp_path / "script.py", tmp_path / "seen.npz"
    script.write_text(GRAIN)
    command = [sys.executable, str(script), str(packed), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    with np.load(out) as seen:
        names = rows_of_pack(images, [(seen["pixels"], seen["numbers"])])
    assert sorted(names) == sorted(images.filenames)
    assert names != list(images.filenames)


# --- other processes -------------------------------------------------------------------------------------------------


def test_a_pickled_sequence_is_a_path_and_no_rows(packed, images):
    sequence = SplitSequence(packed, batch_size=8, auto_shuffle=True, max_per_class_and_epoch=10)
    raw = pickle.dumps(sequence)
    assert len(raw) < 2000
    assert images.images[50].tobytes() not in raw
    halves = sequence.split(0.5)
    assert [len(pickle.dumps(half)) < 2000 for half in halves] == [True, True]
    again = pickle.loads(raw)
    for epoch in range(2):
        assert order_of(again, epoch) == order_of(sequence, epoch)


def test_a_pickled_sequence_does_not_grow_with_its_rows(tmp_path, packing):
    sizes = []
    for count in (3, 1000):
        root = tmp_path / str(count)
        write_classes(root / "data", {"cat": 3})
        for index in range(3, count):
            os.link(root / "data" / "cat" / "data-cat-0.png", root / "data" / "cat" / f"data-cat-{index}.png")
        packing(root / "data", output=tmp_path / f"{count:04}.h5")
        sequence = SplitSequence(tmp_path / f"{count:04}.h5", batch_size=8, auto_shuffle=True)
        assert len(sequence.classes) == count
        list(sequence)
        sizes.append(len(pickle.dumps(sequence)))
    assert sizes[1] - sizes[0] < 10
    assert max(sizes) < 2000


def names_in_a_child(sequence):
    """What a child process sees: the rows of two epochs from the next on."""
    return [rows_of(sequence, sequence) for _ in range(2)]


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_sequence_gives_the_same_batches_in_a_child_process(packed, method):
    parts = []
    for shuffle in (False, True, "block"):
        sequence = SplitSequence(packed, batch_size=8, auto_shuffle=shuffle, scale=1 / 255, max_per_class_and_epoch=25)
        begun, fresh = sequence.shuffle(3).split(0.4)
        list(begun)
        parts += [begun, fresh]
    with multiprocessing.get_context(method).Pool(1) as pool:
        found = pool.map(names_in_a_child, parts)
    assert found == [
        [order_of(part, epoch), order_of(part, epoch + 1)] for part, epoch in zip(parts, [1, 0] * 3, strict=True)
    ]


@pytest.mark.parametrize(("door", "package"), [("as_tf_dataset", "tensorflow"), ("as_torch_loader", "torch")])
def test_a_door_to_what_is_not_installed_says_what_to_install(packed, monkeypatch, door, package):
    monkeypatch.setitem(sys.modules, package, None)
    for module in ("tf_dataset", "torch_loader"):
        monkeypatch.delitem(sys.modules, f"h5split.{module}", raising=False)
    with pytest.raises(ImportError, match=rf"^{door} needs .*: pip install .*{package}"):
        getattr(SplitSequence(packed), door)()
