"""H5SplitSequence under Keras' own fit, evaluate and predict, on images whose pixels say who they are.

Runs on the backend that KERAS_BACKEND names; `test_backends.py` runs it on those that are not TensorFlow.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import warnings
from collections import Counter

import numpy as np
import pytest

from conftest import pixels_of, write_classes, write_pack

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
BACKEND = os.environ.get("KERAS_BACKEND", "tensorflow")
pytest.importorskip(BACKEND, reason=f"needs {BACKEND}: pip install 'pack-images[{BACKEND}]'")
keras = pytest.importorskip("keras", reason=f"needs Keras: pip install 'pack-images[{BACKEND}]'")

from h5split import H5SplitSequence  # noqa: E402  # after the check that there is a Keras

pytestmark = pytest.mark.filterwarnings("default")  # a backend's own are not ours to mend


class Watcher(keras.Model):
    """A model that learns nothing, notes the pixels and labels of every batch, and predicts the pixels themselves.

    A step gets `data`, and on JAX the state before it, which it gives back.
    """

    def __init__(self):
        super().__init__()
        self.flatten = keras.layers.Flatten()
        self.trained, self.tested = [], []
        self.compile(loss=lambda _, predictions: keras.ops.mean(predictions, axis=-1), run_eagerly=True)

    def call(self, x):
        return self.flatten(x)

    def train_step(self, *state_and_data):
        *state, data = state_and_data
        self.trained.append(arrays(data))
        return ({"loss": 0.0}, *state) if state else {"loss": 0.0}

    def test_step(self, *state_and_data):
        *state, data = state_and_data
        self.tested.append(arrays(data))
        return ({"loss": 0.0}, *state) if state else {"loss": 0.0}


def arrays(data):
    """Copies of a batch's images and labels, whatever the backend made of them."""
    return tuple(np.array(keras.ops.convert_to_numpy(part)) for part in data)


def rows_seen(sequence, batches):
    """The file names that noted batches are of, after checking each label."""
    who = {pixels_of(name).tobytes(): name for name in sequence.filenames}
    names = []
    for images, labels in batches:
        for image, label in zip(images, labels, strict=True):
            name = who[image.astype(np.uint8).tobytes()]
            assert sequence.classnames[label.argmax()] == name.split("/")[-2]
            names.append(name)
    return names


def assert_names_match_predictions(sequence, model):
    predictions = model.predict(sequence, verbose=0)
    names = sequence.get_filenames(range(len(predictions)))
    assert len(predictions) == len(set(names))
    for prediction, name in zip(predictions, names, strict=True):
        assert np.array_equal(prediction.astype(np.uint8), pixels_of(name).reshape(-1)), name
    return names


def order_of(sequence, epoch):
    """The file names of an epoch, in order, by a sequence of one's own."""
    (equal,) = sequence.split()
    equal.epoch = epoch
    return equal.get_filenames(range(sum(len(labels) for _, labels in equal)))


def passes_of(sequence, batches):
    """The file names of each pass that noted batches are of, after checking each label, and that passes are whole."""
    count = len(sequence)
    assert len(batches) % count == 0
    return [rows_seen(sequence, batches[start : start + count]) for start in range(0, len(batches), count)]


def assert_every_row_once(sequence, names):
    """These are the rows of one epoch: each once, or no more of a class than the cap says."""
    assert len(set(names)) == len(names)
    there = Counter(name.split("/")[-2] for name in sequence.filenames)
    cap = sequence.settings.max_per_class_and_epoch or len(sequence.filenames)
    assert Counter(name.split("/")[-2] for name in names) == {name: min(count, cap) for name, count in there.items()}


@pytest.fixture(params=[False, True, "block"], ids=["unshuffled", "auto_shuffle", "block"])
def sequence(request, packed):
    return H5SplitSequence(packed, batch_size=8, auto_shuffle=request.param)


@pytest.fixture(params=[None, 10], ids=["all rows", "cap"])
def capped(request, sequence):
    return sequence.set(max_per_class_and_epoch=request.param)


@pytest.fixture(params=[(False, 10), (True, None), ("block", 10)], ids=["unshuffled cap", "auto_shuffle", "block cap"])
def varied(request, packed):
    """A choice of what `capped` is, for what takes long."""
    shuffle, cap = request.param
    return H5SplitSequence(packed, batch_size=8, auto_shuffle=shuffle, max_per_class_and_epoch=cap)


def test_keras_runs_on_the_backend_that_is_tested():
    assert keras.backend.backend() == BACKEND


def test_it_is_a_keras_sequence(sequence):
    assert isinstance(sequence, keras.utils.Sequence)
    assert all(isinstance(part, H5SplitSequence) for part in sequence.split(0.5))


@pytest.mark.parametrize("shuffle", [True, False], ids=["batches permuted", "batches in order"])
def test_fit_sees_every_row_once_an_epoch(sequence, shuffle):
    model = Watcher()
    model.fit(sequence, epochs=4, shuffle=shuffle, verbose=0)
    passes = passes_of(sequence, model.trained)
    assert len(passes) == 4
    for names in passes:
        assert_every_row_once(sequence, names)
    batches = [frozenset(rows_seen(sequence, [batch])) for batch in model.trained]
    epochs = {frozenset(batches[start : start + 13]) for start in (0, 13, 26, 39)}
    assert len(epochs) == (4 if sequence.settings.auto_shuffle else 1)


def test_every_epoch_of_a_fit_is_the_next_one(capped):
    model = Watcher()
    model.fit(capped, epochs=3, shuffle=False, verbose=0)
    model.fit(capped, epochs=2, shuffle=False, verbose=0)
    assert passes_of(capped, model.trained) == [order_of(capped, epoch) for epoch in range(5)]


@pytest.mark.parametrize("shuffle", [True, False])
def test_a_fit_after_restoring_begins_with_the_first_batch_of_that_epoch(packed, shuffle):
    sequence = H5SplitSequence(packed, batch_size=8, auto_shuffle=True)
    sequence[0]
    sequence.restore({**sequence.state(), "epoch": 3, "batch": 5})
    model = Watcher()
    model.fit(sequence, epochs=2, shuffle=shuffle, verbose=0)
    assert (sequence.state()["epoch"], sequence.state()["batch"]) == (5, 0)
    for epoch, batches in ((3, model.trained[:13]), (4, model.trained[13:])):
        seen = rows_seen(sequence, batches)
        again = H5SplitSequence(packed, batch_size=8, auto_shuffle=True)
        again.epoch = epoch
        expected = again.get_filenames(range(100))
        assert sorted(seen) == sorted(expected)
        assert shuffle or seen == expected
    assert len(list(sequence)) == 13


def test_an_epoch_of_two_batches_is_not_ended_by_a_look_ahead(packed):
    sequence = H5SplitSequence(packed, batch_size=64, auto_shuffle=True)
    model = Watcher()
    model.fit(sequence, epochs=3, shuffle=False, verbose=0)
    assert passes_of(sequence, model.trained) == [order_of(sequence, epoch) for epoch in range(3)]


def test_validation_and_evaluation_between_epochs_change_nothing(capped):
    training, validation = capped.split(0.7)
    model = Watcher()
    for epochs in (2, 1):
        model.fit(training, validation_data=validation, epochs=epochs, shuffle=False, verbose=0)
    model.evaluate(validation, verbose=0)
    assert passes_of(training, model.trained) == [order_of(training, epoch) for epoch in range(3)]
    assert passes_of(validation, model.tested) == [order_of(validation, epoch) for epoch in range(4)]
    model.tested.clear()
    model.evaluate(training, verbose=0)
    assert passes_of(training, model.tested) == [order_of(training, 3)]
    assert assert_names_match_predictions(training, model) == order_of(training, 4)
    for epoch in range(5):
        assert_every_row_once(training, order_of(training, epoch))
        assert_every_row_once(validation, order_of(validation, epoch))


def test_validation_that_is_cut_short_begins_with_a_pass_of_its_own_each_time(varied):
    training, validation = varied.split(0.7)
    model = Watcher()
    model.fit(training, validation_data=validation, validation_steps=2, epochs=3, shuffle=False, verbose=0)
    assert passes_of(training, model.trained) == [order_of(training, epoch) for epoch in range(3)]
    assert len(model.tested) == 6
    for start in (0, 2, 4):
        names = rows_seen(validation, model.tested[start : start + 2])
        assert len(set(names)) == len(names) == 16
    model.tested.clear()
    model.evaluate(validation, verbose=0)
    assert_every_row_once(validation, *passes_of(validation, model.tested))


def test_names_match_predictions_however_often_one_predicts(varied):
    model = Watcher()
    for epoch in range(3):
        assert assert_names_match_predictions(varied, model) == order_of(varied, epoch)
    model.fit(varied, epochs=2, verbose=0)
    names = assert_names_match_predictions(varied, model)
    assert names == order_of(varied, 5)
    varied[0]
    len(varied)
    assert varied.get_filenames(range(len(names))) == names
    model.evaluate(varied, verbose=0)
    assert assert_names_match_predictions(varied, model) == order_of(varied, 7)


def test_learning_and_evaluating_without_labels_warn_but_predicting_does_not(tmp_path):
    path = write_pack(tmp_path / "a.h5", [f"a/{row}.png" for row in range(9)], classes=["unlabelled"] * 9)
    sequence = H5SplitSequence(path, batch_size=4)
    for loop in (Watcher().fit, Watcher().evaluate):
        with pytest.warns(UserWarning, match=rf"^{loop.__name__}: losses and metrics mean nothing without labels"):
            loop(sequence, verbose=0)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "fit|evaluate|predict")
        Watcher().predict(sequence, verbose=0)
        Watcher().evaluate(sequence.map(lambda images, targets, rng: (images, targets)), verbose=0)
        Watcher().evaluate(H5SplitSequence(path, targets=np.zeros((9, 1), np.float32)), verbose=0)


def test_mistakes_are_those_of_the_prediction(sequence):
    class Oracle(Watcher):
        """Knows every class by the pixels, and takes every dog for a cat."""

        def predict_step(self, *state_and_data):
            *state, data = state_and_data
            numbers = [truth[image.tobytes()] for image in arrays(data)[0]]
            scores = np.eye(3, dtype=np.float32)[[0 if number == 1 else number for number in numbers]]
            scores = keras.ops.convert_to_tensor(scores)
            return (scores, state[0][1]) if state else scores

    truth = {pixels_of(name).tobytes(): label for name, label in zip(sequence.filenames, sequence.classes, strict=True)}
    mistakes = sequence.mistakes(Oracle().predict(sequence, verbose=0))
    dogs = [name for name in sequence.filenames if "/dog/" in name]
    assert sorted(mistake.filename for mistake in mistakes) == sorted(dogs)
    assert {(mistake.label, mistake.predicted, mistake.confidence) for mistake in mistakes} == {("dog", "cat", 1.0)}


@pytest.mark.parametrize("cap", [10, 25])
def test_a_cap_holds_in_every_epoch_and_comes_to_every_row(sequence, cap):
    sequence.set(max_per_class_and_epoch=cap)
    model = Watcher()
    model.fit(sequence, epochs=5, verbose=0)
    passes = passes_of(sequence, model.trained)
    for names in passes:
        assert_every_row_once(sequence, names)
    seen = {name for names in passes for name in names}
    assert len(seen) == (100 if sequence.settings.auto_shuffle else len(passes[0]))


def test_steps_per_epoch_shorter_than_the_epoch_go_through_all_rows_before_any_comes_again(capped):
    model = Watcher()
    model.fit(capped, epochs=10, steps_per_epoch=3, shuffle=False, verbose=0)  # Keras cuts one short where a pass ends
    whole = len(model.trained) // len(capped)
    assert whole == (5 if capped.settings.max_per_class_and_epoch else 2)
    seen = passes_of(capped, model.trained[: whole * len(capped)])
    assert seen == [order_of(capped, epoch) for epoch in range(whole)]
    rest = rows_seen(capped, model.trained[whole * len(capped) :])
    assert rest == order_of(capped, whole)[: len(rest)]
    model.trained.clear()
    model.fit(capped, epochs=2, verbose=0)
    for names in passes_of(capped, model.trained):
        assert_every_row_once(capped, names)
    assert_every_row_once(capped, assert_names_match_predictions(capped, model))


def test_a_fit_broken_off_and_a_second_fit(varied):
    class StopInTheMiddle(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 2:
                raise KeyboardInterrupt

    for _ in range(2):
        model = Watcher()
        with pytest.raises(KeyboardInterrupt):
            model.fit(varied, epochs=2, callbacks=[StopInTheMiddle()], verbose=0)
        model = Watcher()
        model.fit(varied, epochs=2, verbose=0)
        for names in passes_of(varied, model.trained):
            assert_every_row_once(varied, names)
    assert_names_match_predictions(varied, Watcher())


def test_early_stopping_and_a_second_fit(capped):
    class StopAfterOne(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = True

    model = Watcher()
    for _ in range(3):
        model.fit(capped, epochs=5, callbacks=[StopAfterOne()], shuffle=False, verbose=0)
    assert passes_of(capped, model.trained) == [order_of(capped, epoch) for epoch in range(3)]


def test_stopping_in_the_middle_of_an_epoch_and_a_second_fit(varied):
    class StopAtTheThird(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 2:
                self.model.stop_training = True

    training, validation = varied.split(0.7)
    for _ in range(2):
        model = Watcher()
        model.fit(training, validation_data=validation, epochs=2, callbacks=[StopAtTheThird()], verbose=0)
        assert len(model.trained) == 3
        assert_every_row_once(validation, *passes_of(validation, model.tested))
        model.trained.clear()
        model.fit(training, epochs=2, verbose=0)
        for names in passes_of(training, model.trained):
            assert_every_row_once(training, names)
    assert_every_row_once(training, assert_names_match_predictions(training, model))


def test_predicting_between_the_steps_of_an_epoch_leaves_the_epoch_whole(sequence):
    class Look(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 0:
                assert_names_match_predictions(sequence, Watcher())

    model = Watcher()
    model.fit(sequence, epochs=3, callbacks=[Look()], verbose=0)
    for start in (0, 13, 26):
        assert Counter(rows_seen(sequence, model.trained[start : start + 13])) == Counter(sequence.filenames)


@pytest.mark.parametrize("scale", [None, 1.0])
def test_no_batch_is_overwritten_while_it_is_held(sequence, scale):
    sequence.set(scale=scale)
    held = []

    class Holder(Watcher):
        def train_step(self, *state_and_data):
            held.append(state_and_data[-1])
            return super().train_step(*state_and_data)

        def test_step(self, *state_and_data):
            held.append(state_and_data[-1])
            return super().test_step(*state_and_data)

        def predict_step(self, *state_and_data):
            held.append(state_and_data[-1])
            return super().predict_step(*state_and_data)

    model = Holder()
    model.fit(sequence, epochs=2, validation_data=sequence.split()[0], verbose=0)
    model.evaluate(sequence, verbose=0)
    predictions = [model.predict(sequence, verbose=0) for _ in range(2)]
    names = [rows_seen(sequence, [arrays(batch)]) for batch in held]
    in_all = [name for batch in names for name in batch]
    assert Counter(in_all) == Counter(list(sequence.filenames) * 7)
    assert [name for batch in names[-13:] for name in batch] == sequence.get_filenames(range(100))
    for found, name in zip(np.concatenate(predictions), in_all[-200:], strict=True):
        assert np.array_equal(found.astype(np.uint8), pixels_of(name).reshape(-1))


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [("workers", 4, "0 or 1"), ("workers", 2, "0 or 1"), ("use_multiprocessing", True, "False")],
)
def test_workers_of_keras_are_refused_with_the_reason(packed, name, value, expected):
    reason = f"{name}: expected {expected}, found {value}; with more workers Keras replays batches and loses epochs"
    with pytest.raises(ValueError, match=reason):
        H5SplitSequence(packed, **{name: value})
    sequence = H5SplitSequence(packed, batch_size=8)
    with pytest.raises(ValueError, match=reason):
        setattr(sequence, name, value)
    model = Watcher()
    model.fit(sequence, verbose=0)
    assert_every_row_once(sequence, *passes_of(sequence, model.trained))


@pytest.mark.parametrize(
    "options", [{"workers": 0}, {"workers": 1, "use_multiprocessing": False}, {"max_queue_size": 3}]
)
def test_what_keras_needs_of_a_sequence_is_accepted(packed, options):
    sequence = H5SplitSequence(packed, batch_size=8, auto_shuffle=True, **options)
    for name, value in options.items():
        setattr(sequence, name, value)
    model = Watcher()
    model.fit(sequence, epochs=2, shuffle=False, verbose=0)
    assert passes_of(sequence, model.trained) == [order_of(sequence, epoch) for epoch in range(2)]


def test_a_pickled_sequence_fits_and_predicts_as_the_one_it_was(varied):
    Watcher().fit(varied, verbose=0)
    raw = pickle.dumps(varied)
    assert len(raw) < 2000
    again, model = pickle.loads(raw), Watcher()
    model.fit(again, epochs=2, shuffle=False, verbose=0)
    assert passes_of(again, model.trained) == [order_of(varied, epoch) for epoch in (1, 2)]
    assert assert_names_match_predictions(again, model) == order_of(varied, 3)


TYPES = pytest.mark.parametrize(
    ("dtype", "channels"), [("uint8", 2), ("uint16", 1), ("uint16", 3), ("uint16", 13), ("float32", 3), ("float32", 13)]
)


def typed_pack(path, dtype, channels):
    """A pack of a type, and its pixels. No two images are alike."""
    names = [f"a/{label}/{row}.tif" for row in range(20) for label in ("cat", "dog")]
    most = 256 if dtype == "uint8" else 65536
    pixels = np.random.default_rng(0).integers(0, most, (40, 8, 8, channels))
    pixels = (pixels / most if dtype == "float32" else pixels).astype(dtype)
    return write_pack(path, names, pixels=pixels), pixels


@TYPES
def test_fit_gets_the_pixels_of_every_type(tmp_path, dtype, channels):
    path, pixels = typed_pack(tmp_path / "a.h5", dtype, channels)
    sequence = H5SplitSequence(path, batch_size=7, auto_shuffle=True)
    rows = {image.tobytes(): row for row, image in enumerate(pixels)}
    model = Watcher()
    model.fit(sequence, epochs=2, shuffle=False, verbose=0)
    found = [rows[image.astype(dtype).tobytes()] for images, _ in model.trained for image in images]
    assert sorted(found[:40]) == sorted(found[40:]) == list(range(40))
    assert found[:40] != found[40:]
    assert [f"a/{'cat' if row % 2 == 0 else 'dog'}/{row // 2}.tif" for row in found[40:]] == sequence.get_filenames()


@pytest.mark.parametrize(("dtype", "channels"), [("uint8", 2), ("uint16", 1), ("float32", 13)])
def test_a_network_trains_on_every_type_and_predicts_the_same_as_of_scaled_pixels(tmp_path, dtype, channels):
    path, _ = typed_pack(tmp_path / "a.h5", dtype, channels)
    sequence = H5SplitSequence(path, batch_size=20, auto_shuffle=True)  # parts of one size compile once
    scale = {"uint8": 1 / 255, "uint16": 1 / 65535, "float32": 1}[dtype]
    model = keras.Sequential(
        [
            keras.Input(sequence.shape),
            sequence.rescaling_layer(),
            keras.layers.Flatten(),
            keras.layers.Dense(2, "softmax"),
        ]
    )
    model.compile("sgd", "categorical_crossentropy")
    losses = model.fit(sequence, validation_data=sequence.split(0.5)[0], epochs=1, verbose=0).history
    assert np.isfinite(losses["loss"]).all()
    after = keras.Sequential(model.layers[1:])
    plain = H5SplitSequence(path, batch_size=20)
    expected = after.predict(plain.split()[0].set(scale=scale), verbose=0)
    assert np.allclose(model.predict(plain, verbose=0), expected, atol=1e-5)


@pytest.mark.parametrize("scale", [1 / 255, 2.0])
def test_the_rescaling_layer_does_what_the_setting_scale_does(sequence, scale):
    layer = sequence.rescaling_layer() if scale == 1 / 255 else sequence.rescaling_layer(scale)
    model = keras.Sequential([keras.Input(sequence.shape, dtype="uint8"), layer])
    found = model.predict(sequence, verbose=0)
    expected = np.concatenate([images for images, _ in sequence.split()[0].set(scale=scale)])
    assert found.dtype == expected.dtype == np.float32
    assert np.allclose(found, expected, rtol=1e-6, atol=0)


@pytest.fixture
def two_packs(tmp_path, packing, varied):
    """One class only in the first, one in both, one only in the second."""
    packing(write_classes(tmp_path / "more", {"ant": 7, "dog": 12}))
    return varied.add_file(tmp_path / "out.h5")


def test_two_packs_are_one_sequence_for_keras(two_packs):
    assert two_packs.classnames == ["ant", "cat", "dog", "emu"]
    training, validation = two_packs.shuffle().split(0.7)
    model = Watcher()
    model.fit(training, validation_data=validation, epochs=3, shuffle=False, verbose=0)
    assert passes_of(training, model.trained) == [order_of(training, epoch) for epoch in range(3)]
    assert passes_of(validation, model.tested) == [order_of(validation, epoch) for epoch in range(3)]
    names = assert_names_match_predictions(two_packs, model)
    assert_every_row_once(two_packs, names)
    assert {name.split("/")[-3] for name in names} == {"data", "more"}


class Wrapper(keras.utils.PyDataset):
    """Another data set around a sequence, which tells it nothing."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def __len__(self):
        return len(self.inner)

    def __getitem__(self, index):
        return self.inner[index]


def test_a_wrapper_that_forwards_on_epoch_end_gets_new_epochs(packed):
    class Forwarding(Wrapper):
        def on_epoch_end(self):
            self.inner.on_epoch_end()

    inner = H5SplitSequence(packed, batch_size=8, auto_shuffle=True)
    model = Watcher()
    model.fit(Forwarding(inner), epochs=3, shuffle=False, verbose=0)
    orders = [tuple(rows_seen(inner, model.trained[start : start + 13])) for start in (0, 13, 26)]
    assert len(set(orders)) == 3
    assert all(Counter(order) == Counter(inner.filenames) for order in orders)


def test_a_subclass_with_an_end_of_epoch_of_its_own_has_the_right_names(packed):
    class Own(H5SplitSequence):
        def on_epoch_end(self):
            """Not what the class above does."""

    sequence = Own(packed, batch_size=8, auto_shuffle=True)
    for steps in (3, 13, 5):
        predictions = Watcher().predict(sequence, steps=steps, verbose=0)
        for prediction, name in zip(predictions, sequence.get_filenames(range(len(predictions))), strict=True):
            assert np.array_equal(prediction.astype(np.uint8), pixels_of(name).reshape(-1)), name


def test_an_order_changed_in_the_middle_of_an_epoch_waits_for_the_next(packed):
    sequence = H5SplitSequence(packed, batch_size=8, auto_shuffle=True)

    class Meddler(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 3:
                sequence.shuffle(9)

    model = Watcher()
    model.fit(sequence, epochs=3, callbacks=[Meddler()], verbose=0)
    for names in passes_of(sequence, model.trained):
        assert_every_row_once(sequence, names)


# --- passes within passes ---------------------------------------------------------------------------------------------


class AtBatches(keras.callbacks.Callback):
    """Does something after some batches of every epoch."""

    def __init__(self, action, *batches):
        super().__init__()
        self.action, self.batches = action, batches

    def on_train_batch_end(self, batch, logs=None):
        if batch in self.batches:
            self.action()


@pytest.fixture
def shuffled(packed):
    return H5SplitSequence(packed, batch_size=8, auto_shuffle=True)


BETWEEN = {
    "evaluate": lambda sequence: Watcher().evaluate(sequence, verbose=0),
    "predict": lambda sequence: assert_names_match_predictions(sequence, Watcher()),
    "an iterator": lambda sequence: next(iter(sequence)),
    "num_batches": lambda sequence: (sequence.num_batches, len(sequence), sequence.epoch, sequence.state()),
    "items": lambda sequence: (sequence[3], sequence[0]),
    "settings": lambda sequence: sequence.set(batch_size=7 if sequence.settings.batch_size == 8 else 8),
}


@pytest.mark.parametrize("with_validation", [False, True], ids=["alone", "with validation"])
@pytest.mark.parametrize("between", BETWEEN)
def test_an_epoch_of_fit_keeps_its_order_whatever_a_callback_does(shuffled, between, with_validation):
    validation = H5SplitSequence(shuffled.packs.packs[0].path, batch_size=8, auto_shuffle=True)
    model = Watcher()
    model.fit(
        shuffled,
        epochs=3,
        shuffle=False,
        callbacks=[AtBatches(lambda: BETWEEN[between](shuffled), 2, 5)],
        validation_data=validation if with_validation else None,
        verbose=0,
    )
    names = rows_seen(shuffled, model.trained)
    epochs = [names[start : start + 100] for start in (0, 100, 200)]
    assert [len(set(epoch)) for epoch in epochs] == [100, 100, 100]
    assert len(set(map(tuple, epochs))) == 3
    if with_validation:
        assert passes_of(validation, model.tested) == [order_of(validation, epoch) for epoch in range(3)]


def test_names_after_a_limited_prediction_are_those_of_its_batches(shuffled):
    for _ in range(3):
        predictions = Watcher().predict(shuffled, steps=2, verbose=0)
        names = shuffled.get_filenames(range(16))
        assert [pixels_of(name).reshape(-1).tolist() for name in names] == predictions.astype(np.uint8).tolist()


def test_a_fit_of_a_few_steps_sees_other_rows_each_time(shuffled):
    seen = set()
    for _ in range(8):
        model = Watcher()
        model.fit(shuffled, steps_per_epoch=3, shuffle=False, verbose=0)
        seen.update(rows_seen(shuffled, model.trained))
    assert len(seen) > 60  # 89 on average, and 24 if every fit saw the same


def test_a_wrapper_that_forwards_nothing_gets_new_epochs(shuffled):
    model = Watcher()
    model.fit(Wrapper(shuffled), epochs=3, shuffle=False, verbose=0)
    passes = passes_of(shuffled, model.trained)
    assert len(set(map(tuple, passes))) == 3
    for names in passes:
        assert_every_row_once(shuffled, names)


def test_a_subclass_with_items_of_its_own_is_used_by_fit_and_by_iteration(packed):
    class Negative(H5SplitSequence):
        def __getitem__(self, index):
            images, labels = super().__getitem__(index)
            return 255 - images, labels

    sequence = Negative(packed, batch_size=8, auto_shuffle=True)
    model = Watcher()
    model.fit(sequence, epochs=2, shuffle=False, verbose=0)
    batches = [(255 - images, labels) for images, labels in [*model.trained, *sequence]]
    assert passes_of(sequence, batches) == [order_of(sequence, epoch) for epoch in range(3)]


def test_a_subclass_may_mix_each_batch_with_the_next(packed):
    class Mixed(H5SplitSequence):
        def __getitem__(self, index):
            (images, labels), (others, _) = (
                super(Mixed, self).__getitem__(one % len(self)) for one in (index, index + 1)
            )
            noted.append(others)
            return images, labels

    noted = []
    sequence = Mixed(packed, batch_size=10, auto_shuffle=True)
    model = Watcher()
    model.fit(sequence, epochs=3, shuffle=False, verbose=0)
    orders = [order_of(H5SplitSequence(packed, batch_size=10, auto_shuffle=True), epoch) for epoch in range(3)]
    assert passes_of(sequence, model.trained) == orders
    partners = [np.array([pixels_of(name) for name in [*order[10:], *order[:10]]]) for order in orders]
    others = iter(noted[-30:])  # those before were looks
    for expected in partners:
        assert np.array_equal(np.concatenate([next(others) for _ in range(10)]), expected)


def test_a_process_that_is_asked_for_every_second_batch_has_a_new_epoch_each_time(shuffled, monkeypatch):
    """Under a distribution, Keras 3.16 asks each process only for its own batches."""
    from keras.utils import PyDataset

    module = sys.modules[PyDataset.__module__]
    source = (
        "def _finite_generator(self):\n"
        "    for i in range(0, self.py_dataset.num_batches, 2):\n"
        "        yield self._standardize_batch(self.py_dataset[i])\n"
    )
    made = {}
    exec(compile(source, module.__file__, "exec"), vars(module), made)
    monkeypatch.setattr(module.PyDatasetAdapter, "_finite_generator", made["_finite_generator"])
    model = Watcher()
    model.fit(shuffled, epochs=3, shuffle=False, steps_per_epoch=None, verbose=0)
    names = rows_seen(shuffled, model.trained)
    for epoch in range(3):
        order = order_of(shuffled, epoch)
        expected = [name for batch in range(0, 13, 2) for name in order[8 * batch : 8 * batch + 8]]
        assert names[: len(expected)] == expected
        del names[: len(expected)]
    assert not names


def test_python_ends_quietly_while_a_batch_is_held(packed):
    code = f"import h5split; batch = h5split.H5SplitSequence({str(packed)!r}, auto_shuffle=True)[0]"
    done = subprocess.run([sys.executable, "-c", f"import keras; {code}"], capture_output=True, text=True)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
