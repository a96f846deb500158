"""Pictures of another pack as targets: every photograph has its own mask, through every door.

One of 200 photographs and one of 200 masks are broken, so neither pack has all rows, and no row has the same number in
both after the first of these.
"""

from __future__ import annotations

import itertools
import json
import os
import pickle

import numpy as np
import pytest
from pairs import MASK, assert_pairs, break_file, mask_of, names_by_pixels, packed_pairs, write_pairs

from conftest import SIDE, pixels_of, seen_by_fit, write_pack
from h5split import PackedImages, SplitSequence
from h5split.batch import readahead
from h5split.errors import ArgumentError, FormatError
from h5split.file.mapped import MappedFile
from h5split.file.newpack import new_pack
from h5split.view import report

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@pytest.fixture(scope="module")
def packs(tmp_path_factory):
    """A pack of 199 photographs, and one of the masks of 198 of them."""
    folder = tmp_path_factory.mktemp("pairs")
    write_pairs(folder)
    break_file(folder / "photos/dog/dog-021.png")
    break_file(folder / "masks/cat/cat-033.tif")
    return packed_pairs(folder)


@pytest.fixture
def masks(packs):
    return PackedImages(packs[1])


@pytest.fixture(scope="module")
def who(packs):
    return names_by_pixels(PackedImages(packs[0]).filenames[:])


def with_masks(sequence, masks):
    """The rows that have a mask, as the error and the guide say."""
    rows = sequence.select(sequence.filenames.isin(masks.columns["paired_with"]))
    return rows.set(targets=masks)


@pytest.fixture(params=[False, True, "block"], ids=["unshuffled", "auto_shuffle", "block"])
def pairs(request, packs, masks):
    return with_masks(SplitSequence(packs[0], batch_size=7, auto_shuffle=request.param, seed=3), masks)


def names_in(batches, who):
    return [name for images, targets, *_ in batches for name in assert_pairs(images, targets, who)]


# --- which mask is of which row ---------------------------------------------------------------------------------------


def test_a_row_without_a_mask_is_named_and_the_line_that_leaves_it_out_works(packs):
    sequence = SplitSequence(packs[0])
    assert len(sequence.filenames) == 199
    with pytest.raises(
        ArgumentError, match=r"a picture in '.*masks.h5' for each of 199 rows, found none for 1, such as"
    ) as e:
        sequence.set(targets=PackedImages(packs[1]))
    message = str(e.value)
    assert "cat-033.png; leave them out: sequence.select(" in message
    selected, names = message.split("leave them out: ")[1].split(" with names = ")
    known = {"sequence": sequence, "PackedImages": PackedImages}
    rows = eval(selected, known, {"names": eval(names, known)})
    assert len(rows.set(targets=PackedImages(packs[1])).filenames) == 198
    assert sequence.settings.targets is None


def test_a_pack_of_other_pictures_is_refused(packs, tmp_path):
    other = write_pack(tmp_path / "other.h5", ["a/x/1.png", "a/y/2.png"])
    with pytest.raises(
        ArgumentError, match=r"for each of 199 rows, found none for any, such as .*; pack .* --like .*s.h5"
    ):
        SplitSequence(packs[0], targets=PackedImages(other))


def test_rows_of_one_name_are_refused(tmp_path):
    once = write_pack(tmp_path / "once.h5", ["a/x/1.png", "a/x/2.png"])
    twice = write_pack(tmp_path / "twice.h5", ["a/x/1.png", "a/x/1.png", "a/x/2.png"])
    for images, masks in ((once, twice), (twice, once)):
        with pytest.raises(
            ArgumentError, match=r"each file name once in '.*twice.h5', found several rows of 'a/x/1.png'"
        ):
            SplitSequence(images, targets=PackedImages(masks))
    rows = SplitSequence(once).select([1, 1, 1]).set(targets=PackedImages(twice))
    assert np.array_equal(rows[0][1], rows[0][0])


def test_pairs_go_both_ways(packs, masks, who):
    sequence = SplitSequence(packs[1], batch_size=50, targets=PackedImages(packs[0]), auto_shuffle=True)
    assert len(names_in(((images, pictures) for pictures, images in sequence), who)) == 198
    with pytest.raises(
        ArgumentError, match=r"sequence.select\(sequence.columns\['paired_with'\].isin\(names\)\) with names"
    ):
        sequence.set(targets=_few(packs[0]))


def _few(path):
    """A pack with some of the photographs."""
    few = path.with_name("few.h5")
    if not few.exists():
        SplitSequence(path).select(range(50)).save(few)
    return PackedImages(few)


def test_masks_of_more_rows_than_there_are_do_no_harm(packs, masks, who):
    _few(packs[0])
    part = with_masks(SplitSequence(packs[0].with_name("few.h5"), batch_size=8), masks)
    assert len(names_in(part, who)) >= 49


def test_several_packs_have_their_masks_in_several_packs(packs, masks, who, tmp_path):
    whole = with_masks(SplitSequence(packs[0], batch_size=7), masks)
    parts = whole.set(targets=None).shuffle(1).split(0.3)
    for part, name in zip(parts, ("a.h5", "b.h5"), strict=True):
        part.save(tmp_path / name)
    of_masks = SplitSequence(packs[1]).split(0.5)
    for part, name in zip(of_masks, ("1.h5", "2.h5"), strict=True):
        part.save(tmp_path / name)
    given = [PackedImages(tmp_path / name) for name in ("2.h5", "1.h5")]
    for options in ({}, {"auto_shuffle": True}):
        both = SplitSequence(tmp_path / "a.h5", tmp_path / "b.h5", batch_size=7, targets=given, **options)
        assert len({*names_in(both, who)}) == 198
    with pytest.raises(
        ArgumentError, match=r"found none for \d+, such as .* with names = PackedImages\('.*1.h5'\).columns"
    ):
        both.set(targets=given[1])


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_packs_whose_files_have_the_same_names_are_not_paired_by_the_order_they_are_given_in(tmp_path, order):
    names = [f"photos/x/{number}.png" for number in range(6)]
    paths = [write_pack(tmp_path / f"{place}-{kind}.h5", names) for kind in ("photos", "masks") for place in "ab"]
    masks = [PackedImages(paths[2:][place]) for place in order]
    with pytest.raises(ArgumentError, match=r"expected each file name once in .* found several rows of 'photos/x/"):
        SplitSequence(*paths[:2], targets=masks)


# --- the doors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cap", [None, 20], ids=["all", "capped"])
def test_batches_have_the_masks_of_their_rows(pairs, who, cap):
    pairs.set(max_per_class_and_epoch=cap)
    for _ in range(3):
        names = names_in(pairs, who)
        assert names == pairs.get_filenames()
        assert len({*names}) == (198 if cap is None else 60)
        found = pairs.get_targets()
        assert (found.dtype, found.shape) == (np.uint8, (len(names), *MASK, 1))
        assert all(np.array_equal(mask[..., 0], mask_of(name)) for mask, name in zip(found, names, strict=True))
        assert np.array_equal(pairs.get_targets([-1])[0, ..., 0], mask_of(names[-1]))
        assert pairs.get_targets([]).shape == (0, *MASK, 1)


def test_items_parts_pickles_and_shards_have_their_masks(pairs, who):
    everybody = sorted(pairs.filenames)
    assert sorted(names_in((pairs[index] for index in range(len(pairs))), who)) == everybody
    parts = [*pairs.split(0.3, 0.6), *(pickle.loads(pickle.dumps(part)) for part in pairs.split(0.5, groups="content"))]
    assert sorted(names_in(itertools.chain(*parts), who)) == sorted(everybody * 2)
    shards = [names_in(pairs.shard(rank, 3), who) for rank in range(3)]
    assert len({*itertools.chain(*shards)}) == sum(map(len, shards)) == 198
    for part in (pairs.select(label="emu"), pairs.select(pairs.classes == 2)):
        assert len(names_in(part, who)) == 40
    assert sorted(names_in(pairs.shuffle(9), who)) == everybody


def test_a_saved_part_and_a_resumed_one_have_their_masks(pairs, masks, who, tmp_path):
    part = pairs.split(0.4)[1]
    part.save(tmp_path / "part.h5")
    assert names_in(SplitSequence(tmp_path / "part.h5", targets=masks), who) == [*part.filenames]
    begun = iter(part)
    first = [next(begun) for _ in range(4)]
    (other,) = part.split()
    rest = other.restore(json.loads(json.dumps(part.state())))
    assert sorted(names_in(first, who) + names_in(rest, who)) == sorted(part.filenames)


def test_a_function_of_map_gets_masks_that_it_may_write_to(pairs, packs, who):
    before = packs[1].read_bytes()

    def turned(images, targets, rng):
        images[:] = images[:, ::-1]
        targets[:] = targets[:, ::-1]
        return images, targets

    for _ in range(2):
        batches = [(images[:, ::-1], targets[:, ::-1]) for images, targets in pairs.map(turned)]
        assert len({*names_in(batches, who)}) == 198
    assert packs[1].read_bytes() == before


def test_masks_may_be_one_of_several_targets(pairs, who, masks):
    pairs.set(targets={"mask": masks, "kind": "label"}, label_mode="int", weights=np.ones(198))
    assert (pairs.target_kind, pairs.target_names) == ("other", ["mask", "kind"])
    names = []
    for images, targets, weights in pairs:
        names += assert_pairs(images, targets["mask"], who)
        labels = [pairs.classnames[number] for number in targets["kind"]]
        assert labels == [name.split("/")[-2] for name in names[-len(labels) :]]
        assert len(weights) == len(labels)
    assert len(names) == 198


@pytest.mark.filterwarnings("default")
def test_fit_gets_the_masks(packs, masks, who):
    pytest.importorskip("keras", reason="needs Keras")
    from h5split import H5SplitSequence

    sequence = with_masks(H5SplitSequence(packs[0], batch_size=16, auto_shuffle=True), masks)
    assert names_in(seen_by_fit(sequence, epochs=2), who)[198:] == sequence.get_filenames()


@pytest.mark.filterwarnings("default")
def test_a_model_learns_masks_and_predicts_them(packs, masks):
    keras = pytest.importorskip("keras", reason="needs Keras")
    from h5split import H5SplitSequence

    train, val = with_masks(H5SplitSequence(packs[0], batch_size=64, auto_shuffle=True), masks).split(0.8)
    layers = [keras.layers.Flatten(), keras.layers.Dense(MASK[0] * MASK[1] * 4), keras.layers.Reshape((*MASK, 4))]
    model = keras.Sequential([keras.Input(train.shape), *layers])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    in_four = [part.map(lambda images, targets, rng: (images, targets % 4)) for part in (train, val)]
    history = model.fit(in_four[0], validation_data=in_four[1], epochs=2, verbose=0).history
    assert np.isfinite(history["val_loss"]).all()
    assert model.predict(val, verbose=0).shape == (len(val.filenames), *MASK, 4)


def test_tf_data_has_the_masks(pairs, who):
    tf = pytest.importorskip("tensorflow", reason="needs TensorFlow")
    data = pairs.as_tf_dataset()
    assert data.element_spec == (
        tf.TensorSpec((None, SIDE, SIDE, 3), tf.uint8),
        tf.TensorSpec((None, *MASK, 1), tf.uint8),
    )
    for _ in range(2):
        assert sorted(names_in(data, who)) == sorted(pairs.filenames)


@pytest.mark.parametrize("is_named", [False, True], ids=["alone", "in a dict"])
def test_torch_has_the_masks_turned_as_images_are(pairs, masks, who, is_named):
    torch = pytest.importorskip("torch", reason="needs torch")
    if is_named:
        pairs.set(targets={"mask": masks, "kind": "label"}, label_mode="int")
    for channels_first in (True, False):
        names = []
        for images, targets in pairs.as_torch_loader(channels_first=channels_first):
            found = targets["mask"] if is_named else targets
            assert found.dtype == torch.uint8
            assert not is_named or targets["kind"].dtype == torch.int64
            assert found.shape[1:] == ((1, *MASK) if channels_first else (*MASK, 1))
            axes = (0, 2, 3, 1) if channels_first else (0, 1, 2, 3)
            names += assert_pairs(images.permute(axes), found.permute(axes), who)
        assert sorted(names) == sorted(pairs.filenames)


def test_other_arrays_that_are_targets_are_not_turned_by_torch(packs):
    pytest.importorskip("torch", reason="needs torch")
    sequence = SplitSequence(packs[0], targets=np.zeros((199, 2, 3, 5)), batch_size=4)
    assert next(iter(sequence.as_torch_loader()))[1].shape == (4, 2, 3, 5)


def test_masks_of_16_bits_and_of_floats_keep_their_type(packs, tmp_path):
    names = PackedImages(packs[0]).filenames[:]
    for dtype in ("uint16", "float32"):
        values = (np.arange(199 * 4).reshape(199, 2, 2, 1) * 300).astype(dtype)
        path = write_typed(tmp_path / f"{dtype}.h5", names, values)
        sequence = SplitSequence(packs[0], batch_size=10, targets=PackedImages(path), auto_shuffle=True, scale=1 / 255)
        by_name = dict(zip(names, values, strict=True))
        for _, targets in sequence:
            assert targets.dtype == dtype
        assert sequence.spec()[1].dtype == dtype
        expected = [by_name[name] for name in sequence.get_filenames()]
        assert np.array_equal(sequence.get_targets(), expected)


def write_typed(path, names, values):
    """Write a pack of values of any type."""
    import xxhash

    from h5split.file.sealing import Tables

    tables = Tables(
        labels=np.zeros(len(names), np.int32),
        class_names=["nothing"],
        filenames=names,
        columns={"source": [""] * len(names)},
        digests=np.zeros((len(names), 32), np.uint8),
        checksums=np.array([xxhash.xxh3_64_intdigest(value.tobytes()) for value in values], np.uint64),
        settings={},
        packed_by={},
    )
    with new_pack(path, values.shape[1:], len(values), dtype=values.dtype) as new:
        new.append(values)
        new.seal(tables)
    return path


# --- memory -----------------------------------------------------------------------------------------------------------


def look_at_memory(photos, masks):
    """Where the masks of batches are: of rows in order, of shuffled ones, and of those that may be written to."""
    masks = PackedImages(masks)
    start = masks.images.__array_interface__["data"][0]
    found = {}
    for name, options in (("in order", {}), ("shuffled", {"auto_shuffle": True})):
        sequence = with_masks(SplitSequence(photos, batch_size=32, **options), masks)
        places = [targets.__array_interface__["data"] for _, targets in sequence]
        found[name] = [start <= place < start + masks.images.nbytes and is_read_only for place, is_read_only in places]
        copies = sequence.iterate(writable=True)
        assert all(targets.flags.writeable for _, targets in copies)
    return found


def test_masks_of_consecutive_rows_are_views_of_the_file(packs, without_torch):
    found = without_torch(look_at_memory, *packs)
    assert found["in order"].count(True) >= len(found["in order"]) - 2
    assert not any(found["shuffled"])


def test_buffers_of_masks_are_used_again(pairs):
    pairs.set(auto_shuffle=True, drop_remainder=True)
    places = [{targets.__array_interface__["data"][0] for _, targets in pairs} for _ in range(8)]
    assert len(set.union(*places[1:])) <= 3 * len(pairs)


def test_a_mask_that_was_written_to_is_noticed_before_a_pass(packs, tmp_path):
    for number, path in enumerate(packs):
        (tmp_path / f"{number}.h5").write_bytes(path.read_bytes())
    masks = PackedImages(tmp_path / "1.h5")
    sequence = with_masks(SplitSequence(tmp_path / "0.h5"), masks)
    list(sequence)
    with open(tmp_path / "1.h5", "r+b") as file:
        file.seek(masks.header.images.offset)
        file.write(bytes(masks.stride * 198))
    with pytest.raises(FormatError, match=r"1.h5: another program wrote to it while it was read"):
        list(sequence)


def test_preload_reads_masks_too(pairs, packs, monkeypatch):
    read = []
    monkeypatch.setattr(PackedImages, "preload", lambda self, pieces, progress: read.append(self.path))
    pairs.preload()
    assert read == [*map(str, packs)]


def test_masks_are_read_ahead_from_a_cold_disk(pairs, masks, monkeypatch):
    monkeypatch.setattr(readahead, "is_cold", lambda packs, order: True)
    monkeypatch.setattr(readahead, "free_memory", lambda: 0)  # so rows are asked for, not whole files
    photos = pairs.packs.packs[0]
    strides = {photos.file: photos.stride, masks.file: masks.stride}
    asked = {file: [] for file in strides}
    monkeypatch.setattr(MappedFile, "will_need", lambda self, start, length: asked[self].append(start))
    monkeypatch.setattr(
        MappedFile, "load", lambda self, start, count: asked[self].extend(range(start, start + count, strides[self]))
    )
    list(pairs)
    assert sorted(asked[masks.file]) == masks.starts(np.arange(198)).tolist()
    assert len(asked[photos.file]) == 198


# --- what pictures are not --------------------------------------------------------------------------------------------


def test_mistakes_and_reports_say_that_they_are_of_labels_and_numbers(pairs, tmp_path):
    assert (pairs.target_kind, pairs.target_names) == ("pictures", [])
    list(pairs)
    with pytest.raises(
        ArgumentError, match="mistakes: expected classes, tags or numbers as targets, found pictures; com"
    ):
        pairs.mistakes(np.zeros((198, *MASK, 1)))
    with pytest.raises(
        ArgumentError, match="report: expected classes, tags or numbers as targets, found pictures; give"
    ):
        report(pairs, np.zeros((198, *MASK, 1)), tmp_path / "page.html")
    report(pairs, None, tmp_path / "page.html")
    with pytest.raises(ArgumentError, match="class_weights: expected classes as the target"):
        pairs.class_weights()


def test_a_path_is_no_column(packs):
    with pytest.raises(ArgumentError, match=r"found 'masks.h5'; PackedImages\('masks.h5'\) has the pictures of a pack"):
        SplitSequence(packs[0], targets="masks.h5")


def test_a_notebook_names_the_packs_of_pictures(pairs, packs):
    assert f"targets=pictures of {packs[1]}" in pairs._repr_html_()


def test_targets_may_be_changed_and_added_to(packs, pairs, who):
    masks = pairs.settings.targets
    assert len(names_in(pairs.set(targets=None).set(targets=masks), who)) == 198
    assert len(next(iter(pairs.set(targets=None)))[1][0]) == 3
    with pytest.raises(ArgumentError, match=r"for each of 200 rows, found none for \d+"):
        pairs.set(targets=masks).add_file(write_pack(packs[0].with_name(f"{id(pairs)}.h5"), ["a/x/1.png", "a/y/2.png"]))
    assert len(names_in(pairs, who)) == 198


def test_the_pixels_of_no_two_pairs_are_equal(who):
    assert len(who) == 199
    assert len({mask_of(name).tobytes() for name in who.values()}) == 199
    assert pixels_of("a.png").tobytes() not in who
