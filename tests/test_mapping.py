"""Functions given to `map`: every door has the same batches, on images whose pixels say who they are."""

from __future__ import annotations

import importlib.util
import itertools
import os
import pickle
import re
import warnings

import numpy as np
import pytest

from conftest import pixels_of, seen_by_fit
from h5split import SplitSequence
from h5split.errors import ArgumentError, ArgumentTypeError

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def shifted(images, targets, rng):
    """Add a random number to each image, in place, and return it with the targets."""
    shift = rng.integers(256, size=len(images), dtype=np.uint8)
    images += shift[:, None, None, None]
    return images, {"label": targets, "shift": shift}


def shifted_one_by_one(images, targets, rng):
    """The same with a generator for each image."""
    shift = np.array([one.integers(256, dtype=np.uint8) for one in rng.spawn(len(images))])
    return images + shift[:, None, None, None], {"label": targets, "shift": shift}


def seen(sequence, batches):
    """The name and the shift of each image of mapped batches, after checking its label."""
    who = {pixels_of(name).tobytes(): name for name in sequence.filenames}
    found = []
    for images, targets in batches:
        pixels, labels, shifts = (np.asarray(one) for one in (images, targets["label"], targets["shift"]))
        if pixels.shape[1:] == (3, 8, 8):
            pixels = pixels.transpose(0, 2, 3, 1)
        for image, label, shift in zip(pixels, labels, shifts, strict=True):
            name = who[(image.astype(np.uint8) - np.uint8(shift)).tobytes()]
            assert sequence.classnames[int(label)] == name.split("/")[-2]
            found.append((name, int(shift)))
    return found


@pytest.fixture(params=[False, True, "block"], ids=["unshuffled", "auto_shuffle", "block"])
def settings(request):
    return {"batch_size": 8, "label_mode": "int", "auto_shuffle": request.param, "seed": 5}


@pytest.fixture
def plain(packed, settings):
    return SplitSequence(packed, **settings)


def expected(plain, epoch):
    """What `seen` returns for an epoch, from plain batches and the documented seeds of random numbers."""
    (equal,) = plain.split()
    equal.epoch = epoch
    found = []
    for number, (images, labels) in enumerate(equal):
        seeds = np.random.SeedSequence((equal.settings.seed, epoch, number), spawn_key=(0,))
        rng = np.random.default_rng(seeds)
        found.extend(seen(plain, [shifted(images.copy(), labels, rng)]))
    return found


# --- the doors -------------------------------------------------------------------------------------------------------


def test_iteration_and_items_go_through_the_function(plain):
    mapped = plain.map(shifted)
    for epoch in range(3):
        assert seen(plain, mapped) == expected(plain, epoch)
        assert mapped.get_filenames() == [name for name, _ in expected(plain, epoch)]
    items = plain.map(shifted)
    for epoch in range(3):
        assert seen(plain, [items[index] for index in range(len(items))]) == expected(plain, epoch)
    assert expected(plain, 0) != expected(plain, 1)


def test_an_item_is_the_same_however_often_it_is_asked_for(plain):
    mapped = plain.map(shifted)
    first = seen(plain, [mapped[3]])
    assert first == expected(plain, 0)[24:32] == seen(plain, [mapped[3]])


def test_the_file_is_never_written_to(packed, plain):
    before = packed.read_bytes()
    list(plain.map(shifted))
    assert packed.read_bytes() == before


@pytest.mark.filterwarnings("default")
def test_fit_gets_what_the_function_returns(packed, plain, settings):
    pytest.importorskip("keras", reason="needs Keras")
    from h5split import H5SplitSequence

    sequence = H5SplitSequence(packed, **settings).map(shifted)
    batches = seen_by_fit(sequence, epochs=3)
    found = seen(plain, [batch[:2] for batch in batches])
    assert found == [row for epoch in range(3) for row in expected(plain, epoch)]
    assert sequence.get_filenames() == [name for name, _ in expected(plain, 2)]


def test_tf_data_gets_what_the_function_returns(plain):
    tf = pytest.importorskip("tensorflow", reason="needs TensorFlow")
    data = plain.map(shifted).as_tf_dataset()
    assert data.element_spec == (
        tf.TensorSpec((None, 8, 8, 3), tf.uint8),
        {"label": tf.TensorSpec((None,), tf.int32), "shift": tf.TensorSpec((None,), tf.uint8)},
    )
    for epoch in range(3):
        assert seen(plain, data) == expected(plain, epoch)
    assert int(data.cardinality()) == len(plain)


def test_tf_data_goes_on_after_a_batch_whose_function_fails(plain):
    tf = pytest.importorskip("tensorflow", reason="needs TensorFlow")
    calls = []

    def fails_for_the_first_batch(images, targets, rng):
        calls.append(len(images))
        if len(calls) == 2:  # the first call is for the shapes
            raise ValueError("too dark")
        return shifted(images, targets, rng)

    batches = iter(plain.map(fails_for_the_first_batch).as_tf_dataset())
    with pytest.raises(tf.errors.OpError, match="too dark"):
        next(batches)
    rest = [next(batches) for _ in range(len(plain) - 1)]
    assert seen(plain, rest) == expected(plain, 0)[calls[1] :]


def test_torch_gets_what_the_function_returns(plain):
    data = pytest.importorskip("torch.utils.data", reason="needs torch")
    loader = plain.map(shifted).as_torch_loader()
    over_items = data.DataLoader(plain.map(shifted), batch_size=None)
    for epoch in range(3):
        assert seen(plain, loader) == seen(plain, over_items) == expected(plain, epoch)


def test_workers_of_torch_get_what_the_function_returns(packed):
    data = pytest.importorskip("torch.utils.data", reason="needs torch")
    plain = SplitSequence(packed, batch_size=8, label_mode="int")
    loader = data.DataLoader(plain.map(shifted), batch_size=None, num_workers=2, multiprocessing_context="spawn")
    assert seen(plain, loader) == expected(plain, 0)


def test_a_pickled_sequence_keeps_the_function(plain):
    mapped = plain.map(shifted)
    list(mapped)
    assert seen(plain, pickle.loads(pickle.dumps(mapped))) == expected(plain, 1)


def test_parts_keep_the_function_and_the_original_has_none(plain):
    mapped = plain.map(shifted)
    part, _ = mapped.split(0.5)
    assert seen(plain, part) == expected(plain.split(0.5)[0], 0)
    assert isinstance(plain[0][1], np.ndarray)


# --- random numbers --------------------------------------------------------------------------------------------------


def test_random_numbers_never_change():
    """The numbers of a training that is resumed with a later version must be the same."""
    from h5split.batch.mapping import Place

    rng = Place(seed=1, epoch=2, batch=3, rank=4).generator(0, 5)
    assert rng.bit_generator.random_raw(2).tolist() == [6788277100654962975, 13060446386424390803]
    assert rng.spawn(1)[0].bit_generator.random_raw() == 13619903661875034313


@pytest.mark.parametrize("batches", [1, 5])
def test_a_restored_sequence_goes_on_with_the_same_random_numbers(plain, batches):
    mapped = plain.map(shifted)
    list(mapped)
    begun = iter(mapped)
    first = [next(begun) for _ in range(batches)]
    other = plain.map(shifted).restore(mapped.state())
    assert seen(plain, first) + seen(plain, other) == expected(plain, 1)


@pytest.mark.parametrize("count", [2, 4])
def test_generators_of_images_are_the_same_for_any_number_of_ranks(packed, count):
    settings = {"label_mode": "int", "auto_shuffle": True}
    one = SplitSequence(packed, batch_size=8, **settings).map(shifted_one_by_one)
    whole = SplitSequence(packed, batch_size=8 // count, **settings).map(shifted_one_by_one)
    ranks = [whole.shard(index, count) for index in range(count)]
    for _ in range(3):
        together = [itertools.chain(*(seen(one, [batch]) for batch in batches)) for batches in zip(*ranks, strict=True)]
        assert [*itertools.chain(*together)] == seen(one, one)


def test_ranks_have_the_same_generator_for_a_batch(packed):
    plain = SplitSequence(packed, batch_size=5, label_mode="int", auto_shuffle=True)
    first, second = (seen(plain, plain.map(shifted).shard(index, 2)) for index in range(2))
    assert [shift for _, shift in first] == [shift for _, shift in second]
    assert not {name for name, _ in first} & {name for name, _ in second}


# --- several functions, and what they may return ----------------------------------------------------------------------


def test_each_of_several_functions_has_random_numbers_of_its_own(plain):
    def noted(images, targets, rng):
        return images, {**targets, "second": rng.integers(256, size=len(images), dtype=np.uint8)}

    images, targets = plain.map(shifted).map(noted)[0]
    assert seen(plain, [(images, targets)]) == expected(plain, 0)[:8]
    assert not np.array_equal(targets["shift"], targets["second"])


def test_weights_come_through(packed):
    weights = np.arange(100, dtype=np.float32)
    sequence = SplitSequence(packed, batch_size=10, label_mode="int", weights=weights, auto_shuffle=True).map(shifted)
    names, found = [], []
    for images, targets, of_batch in sequence:
        names += [name for name, _ in seen(sequence, [(images, targets)])]
        found += of_batch.tolist()
    by_name = dict(zip(sequence.filenames, weights.tolist(), strict=True))
    assert found == [by_name[name] for name in names]


def test_targets_are_none_without_labels_and_may_be_made(packed):
    sequence = SplitSequence(packed, batch_size=10, label_mode=None)

    def negative(images, targets, rng):
        assert targets is None
        return 255 - images, None

    assert all(np.array_equal(one, 255 - other) for one, other in zip(sequence.map(negative), sequence, strict=True))
    noisy, clean = sequence.map(lambda images, targets, rng: (images // 2, images))[0]
    assert np.array_equal(noisy, clean // 2)


def test_two_views_of_each_image_may_be_returned(plain):
    images, labels = plain.map(lambda images, labels, rng: ((images, images[:, ::-1]), labels))[0]
    assert np.array_equal(images[0], images[1][:, ::-1])
    assert np.array_equal(images[0], plain[0][0])
    assert np.array_equal(labels, plain[0][1])


def test_names_labels_and_targets_are_those_of_the_rows(plain):
    mapped = plain.map(lambda images, labels, rng: (255 - images, labels * 0 + 1))
    list(mapped)
    list(plain)
    assert mapped.get_filenames() == plain.get_filenames()
    assert np.array_equal(mapped.get_targets(), plain.get_targets())


def test_tensors_become_arrays(packed):
    torch = pytest.importorskip("torch", reason="needs torch")
    sequence = SplitSequence(packed, batch_size=10, label_mode="int")
    mapped = sequence.map(lambda images, labels, rng: (torch.from_numpy(images).float() / 2, torch.tensor(labels)))
    images, labels = mapped[0]
    assert (type(images), images.dtype, labels.dtype) == (np.ndarray, np.float32, np.int32)
    assert np.array_equal(images * 2, sequence[0][0])


# --- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda i, t, r: i, "map: expected (images, targets) from {name}, found an array of shape (8, 8, 8, 3)"),
        (lambda i, t, r: None, "map: expected (images, targets) from {name}, found None"),
        (lambda i, t, r: (i, t, t), "map: expected (images, targets) from {name}, found 3 values"),
        (lambda i, t, r: (i[:5], t), "map: expected 8 rows, as the batch has, from {name}, found an array of shape (5"),
        (
            lambda i, t, r: (i, {"a": t[:3]}),
            "expected 8 rows, as the batch has, from {name}, found an array of",
        ),
        (lambda i, t, r: (i, 7), "expected 8 rows, as the batch has, from {name}, found 7"),
    ],
    ids=["images alone", "nothing", "three", "fewer images", "fewer targets", "a number"],
)
def test_a_function_that_returns_something_else_is_an_error(plain, function, message):
    with pytest.raises((ArgumentError, ArgumentTypeError), match=re.escape(message.format(name=function.__qualname__))):
        plain.map(function)[0]


def test_targets_that_are_lost_beside_weights_are_an_error(packed):
    sequence = SplitSequence(packed, weights=np.ones(100)).map(lambda images, targets, rng: (images, None))
    with pytest.raises(ArgumentError, match="map: expected targets, as there are weights, found None"):
        sequence[0]


def test_what_cannot_be_called_is_an_error(plain):
    with pytest.raises(ArgumentTypeError, match=r"map: expected a function of \(images, targets, rng\), found 'flip'"):
        plain.map("flip")


def test_an_error_in_a_function_says_which_batch(plain):
    def failing(images, targets, rng):
        raise ValueError("no such colour")

    mapped = plain.map(failing)
    mapped.epoch = 4
    with pytest.raises(ValueError, match="no such colour") as raised:
        mapped[2]
    assert raised.value.__notes__ == [f"in {failing.__qualname__}, given to map(), for batch 2 of epoch 4"]


@pytest.mark.filterwarnings("default")
def test_tf_data_refuses_batches_that_differ_from_the_first(plain):
    tf = pytest.importorskip("tensorflow", reason="needs TensorFlow")

    def cropped(images, targets, rng):
        return images[:, : rng.integers(1, 8)], targets

    data = plain.map(cropped).as_tf_dataset()
    with pytest.raises(tf.errors.InvalidArgumentError, match="map: expected all batches to be like the first, "):
        list(data)


def test_tf_data_needs_a_batch_to_learn_shapes_from(plain):
    pytest.importorskip("tensorflow", reason="needs TensorFlow")
    with pytest.raises(IndexError, match="batch 0: expected none: there are none"):
        plain.map(shifted).select([]).as_tf_dataset()


def test_a_subclass_that_changes_items_is_told_of_map(packed):
    pytest.importorskip("tensorflow", reason="needs TensorFlow")

    class Negative(SplitSequence):
        def __getitem__(self, index):
            images, labels = super().__getitem__(index)
            return 255 - images, labels

    with pytest.raises(TypeError, match=r"which it does not call; do the same in a function for map\(\)"):
        Negative(packed).as_tf_dataset()


@pytest.mark.filterwarnings("default")
def test_workers_of_torch_that_repeat_random_numbers_are_warned_of(packed):
    data = pytest.importorskip("torch.utils.data", reason="needs torch")
    mapped = SplitSequence(packed, batch_size=8, label_mode="int").map(shifted)
    loader = data.DataLoader(Warned(mapped), batch_size=None, num_workers=1, multiprocessing_context="spawn")
    assert "map: expected a DataLoader without num_workers" in next(iter(loader))


class Warned:
    """A data set whose items are the warnings that items of a sequence give."""

    def __init__(self, sequence):
        self.sequence = sequence

    def __len__(self):
        return len(self.sequence)

    def __getitem__(self, index):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            self.sequence[index]
        return " ".join(str(one.message) for one in caught)


def test_a_mapped_sequence_goes_on_where_the_sequence_was(plain):
    list(plain)
    begun = iter(plain)
    next(begun)
    state = plain.state()
    (other,) = plain.split()
    mapped = other.restore(state).map(shifted)
    assert mapped.state() == state
    assert seen(plain, mapped) == expected(other, 1)[8:]


def test_a_pass_keeps_its_random_numbers_when_the_seed_changes(plain):
    mapped = plain.map(shifted)
    begun = iter(mapped)
    first = [next(begun)]
    mapped.set(seed=9)
    assert seen(plain, [*first, *begun]) == expected(plain, 0)


def test_several_inputs_without_targets_are_inputs(packed):
    sequence = SplitSequence(packed, batch_size=10, label_mode=None)
    (inputs,) = sequence.map(lambda images, targets, rng: ((images, 255 - images), None))[0]
    assert np.array_equal(inputs[0], 255 - inputs[1])
    if importlib.util.find_spec("tensorflow"):
        ((first, _),) = next(iter(sequence.map(lambda i, t, r: ((i, 255 - i), None)).as_tf_dataset()))
        assert np.array_equal(first, inputs[0])


def test_a_list_of_rows_is_stacked(packed):
    """Also if there are as many images in a batch as rows in an image."""
    sequence = SplitSequence(packed, batch_size=8, label_mode="int")
    images, labels = sequence.map(lambda images, labels, rng: ([255 - one for one in images], [*labels]))[0]
    assert np.array_equal(images, 255 - sequence[0][0])
    assert np.array_equal(labels, sequence[0][1])
    with pytest.raises(ArgumentError, match=r"returned: .* lists of equal lengths, found a list of 8 values, the"):
        sequence.map(lambda images, labels, rng: ([one[at:] for at, one in enumerate(images)], labels))[0]


def test_images_that_are_none_are_an_error(plain):
    with pytest.raises(ArgumentTypeError, match=r"map: expected images from .*, found None"):
        plain.map(lambda images, targets, rng: (None, targets))[0]


def test_torch_never_writes_to_what_a_function_shares(packed):
    pytest.importorskip("torch", reason="needs torch")
    shared = np.zeros((1, 8, 8, 3), np.uint8)
    shared.flags.writeable = False
    sequence = SplitSequence(packed, batch_size=10, label_mode="int")
    for made in (lambda i, t, r: (np.broadcast_to(shared, i.shape), t), lambda i, t, r: (i[:, :, ::-1], t)):
        images, _ = next(iter(sequence.map(made).as_torch_loader()))
        before = images[1:].clone()
        images[0] += 1
        assert (images[1:] == before).all()
    assert not shared.any()
