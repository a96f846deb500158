"""H5SplitSequence under Keras' own fit, evaluate and predict, on images whose pixels say who they are."""

from __future__ import annotations

import os
from collections import Counter

import numpy as np
import pytest

from conftest import pixels_of

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
keras = pytest.importorskip("keras", reason="needs Keras: pip install 'pack-images[tensorflow]'")
pytest.importorskip("tensorflow", reason="needs TensorFlow: pip install 'pack-images[tensorflow]'")

from h5split import H5SplitSequence  # noqa: E402  # after the check that there is a Keras

pytestmark = pytest.mark.filterwarnings("default")  # TensorFlow's own are not ours to mend


class Watcher(keras.Model):
    """A model that learns nothing, notes the pixels and labels of every batch, and predicts the pixels themselves."""

    def __init__(self):
        super().__init__()
        self.flatten = keras.layers.Flatten()
        self.trained, self.tested = [], []
        self.compile(loss="mse", run_eagerly=True)

    def call(self, x):
        return self.flatten(x)

    def train_step(self, data):
        self.trained.append(tuple(np.array(part) for part in data))
        return {"loss": 0.0}

    def test_step(self, data):
        self.tested.append(tuple(np.array(part) for part in data))
        return {"loss": 0.0}


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


@pytest.fixture(params=[False, True], ids=["unshuffled", "auto_shuffle"])
def sequence(request, packed):
    return H5SplitSequence(packed, batch_size=8, auto_shuffle=request.param)


def test_it_is_a_keras_sequence(sequence):
    assert isinstance(sequence, keras.utils.Sequence)
    assert all(isinstance(part, H5SplitSequence) for part in sequence.split(0.5))


@pytest.mark.parametrize("shuffle", [True, False], ids=["batches permuted", "batches in order"])
def test_fit_sees_every_row_once_an_epoch(sequence, shuffle):
    model = Watcher()
    epochs = 4
    model.fit(sequence, epochs=epochs, shuffle=shuffle, verbose=0)
    per_epoch = len(sequence)
    assert len(model.trained) == epochs * per_epoch
    orders = []
    for epoch in range(epochs):
        names = rows_seen(sequence, model.trained[epoch * per_epoch : (epoch + 1) * per_epoch])
        assert Counter(names) == Counter(sequence.filenames)
        orders.append(frozenset(map(frozenset, np.array_split(names[:96], 12))))
    assert len(set(orders)) == (epochs if sequence.settings.auto_shuffle else len(set(orders)))


def test_every_epoch_of_a_fit_is_the_next_one(packed):
    sequence = H5SplitSequence(packed, batch_size=8, auto_shuffle=True)
    model = Watcher()
    model.fit(sequence, epochs=3, shuffle=False, verbose=0)
    model.fit(sequence, epochs=2, shuffle=False, verbose=0)
    again = H5SplitSequence(packed, batch_size=8, auto_shuffle=True)
    for epoch in range(5):
        again.epoch = epoch
        seen = rows_seen(sequence, model.trained[epoch * 13 : (epoch + 1) * 13])
        assert seen == again.get_filenames(range(100))


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
    again = H5SplitSequence(packed, batch_size=64, auto_shuffle=True)
    for epoch in range(3):
        again.epoch = epoch
        assert rows_seen(sequence, model.trained[2 * epoch : 2 * epoch + 2]) == again.get_filenames(range(100))


def test_validation_and_evaluation_between_epochs_change_nothing(sequence):
    training, validation = sequence.split(0.7)
    model = Watcher()
    model.fit(training, validation_data=validation, epochs=3, verbose=0)
    model.evaluate(validation, verbose=0)
    model.evaluate(training, verbose=0)
    for part, batches, passes in ((training, model.trained, 3), (validation, model.tested[:-9], 4)):
        assert Counter(rows_seen(part, batches)) == Counter(list(part.filenames) * passes)
    assert Counter(rows_seen(training, model.tested[-9:])) == Counter(training.filenames)


def test_names_match_predictions_however_often_one_predicts(sequence):
    model = Watcher()
    for _ in range(3):
        assert sorted(assert_names_match_predictions(sequence, model)) == sorted(sequence.filenames)
    model.fit(sequence, epochs=2, verbose=0)
    names = assert_names_match_predictions(sequence, model)
    sequence[0]
    len(sequence)
    assert sequence.get_filenames(range(100)) == names
    model.evaluate(sequence, verbose=0)
    assert_names_match_predictions(sequence, model)


def test_mistakes_are_those_of_the_prediction(sequence):
    class Oracle(Watcher):
        """Knows every class by the pixels, and takes every dog for a cat."""

        def predict_step(self, data):
            images = np.array(data[0])
            numbers = [truth[image.tobytes()] for image in images]
            return np.eye(3, dtype=np.float32)[[0 if number == 1 else number for number in numbers]]

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
    per_epoch = len(sequence)
    assert len(model.trained) == 5 * per_epoch
    seen = Counter()
    for epoch in range(5):
        names = rows_seen(sequence, model.trained[epoch * per_epoch : (epoch + 1) * per_epoch])
        classes = Counter(name.split("/")[-2] for name in names)
        assert classes == {"cat": min(cap, 20), "dog": min(cap, 50), "emu": min(cap, 30)}
        assert max(Counter(names).values()) == 1
        seen.update(names)
    assert len(seen) == (100 if sequence.settings.auto_shuffle else sum(classes.values()))
    assert_names_match_predictions(sequence, model)


def test_steps_per_epoch_shorter_than_the_epoch_go_through_all_rows_before_any_comes_again(sequence):
    model = Watcher()
    model.fit(sequence, epochs=13, steps_per_epoch=5, verbose=0)  # Keras cuts an epoch short where a pass ends
    assert len(model.trained) >= 52
    for start in range(0, len(model.trained), 13):
        seen = Counter(rows_seen(sequence, model.trained[start : start + 13]))
        assert max(seen.values()) == 1
        assert len(seen) == 100 or start + 13 > len(model.trained)


def test_a_fit_broken_off_and_a_second_fit(sequence):
    class StopInTheMiddle(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 4:
                raise KeyboardInterrupt

    for _ in range(3):
        model = Watcher()
        with pytest.raises(KeyboardInterrupt):
            model.fit(sequence, epochs=2, callbacks=[StopInTheMiddle()], verbose=0)
        model = Watcher()
        model.fit(sequence, epochs=2, verbose=0)
        for start in (0, 13):
            assert Counter(rows_seen(sequence, model.trained[start : start + 13])) == Counter(sequence.filenames)
    assert_names_match_predictions(sequence, Watcher())


def test_early_stopping_and_a_second_fit(sequence):
    class StopAfterOne(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = True

    model = Watcher()
    for _ in range(3):
        model.fit(sequence, epochs=5, callbacks=[StopAfterOne()], verbose=0)
    for start in (0, 13, 26):
        assert Counter(rows_seen(sequence, model.trained[start : start + 13])) == Counter(sequence.filenames)


def test_predicting_between_the_steps_of_an_epoch_leaves_the_epoch_whole(sequence):
    class Look(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 0:
                assert_names_match_predictions(sequence, Watcher())

    model = Watcher()
    model.fit(sequence, epochs=3, callbacks=[Look()], verbose=0)
    for start in (0, 13, 26):
        assert Counter(rows_seen(sequence, model.trained[start : start + 13])) == Counter(sequence.filenames)


def test_no_batch_is_overwritten_while_it_is_held(packed):
    sequence = H5SplitSequence(packed, batch_size=4, auto_shuffle=True, scale=1.0)
    held = []

    class Holder(Watcher):
        def train_step(self, data):
            held.append(data)
            return {"loss": 0.0}

    Holder().fit(sequence, epochs=4, verbose=0)
    names = rows_seen(sequence, [(np.array(images), np.array(labels)) for images, labels in held])
    assert Counter(names) == Counter(list(sequence.filenames) * 4)


def test_a_wrapper_that_forwards_on_epoch_end_gets_new_epochs(packed):
    class Wrapper(keras.utils.PyDataset):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def __len__(self):
            return len(self.inner)

        def __getitem__(self, index):
            return self.inner[index]

        def on_epoch_end(self):
            self.inner.on_epoch_end()

    inner = H5SplitSequence(packed, batch_size=8, auto_shuffle=True)
    model = Watcher()
    model.fit(Wrapper(inner), epochs=3, shuffle=False, verbose=0)
    orders = [tuple(rows_seen(inner, model.trained[start : start + 13])) for start in (0, 13, 26)]
    assert len(set(orders)) == 3
    assert all(Counter(order) == Counter(inner.filenames) for order in orders)
