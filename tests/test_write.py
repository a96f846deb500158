"""Packs of arrays, of .npz files and of pictures that come one after another: each row is who it says it is."""

from __future__ import annotations

import hashlib
import os
import re

import numpy as np
import pytest
from PIL import Image

from conftest import write_classes
from h5split import PackedImages, SplitSequence
from h5split.cli import main as h5split
from h5split.commands.verify import verify, verify_sources
from pack_images import Manifest, PackError, pack, prepare, write

COUNT = 60
NAMES = ["cat", "dog", "emu"]


def picture(number, shape=(8, 8, 3)):
    """A picture whose pixels are made of its number."""
    return np.frombuffer(hashlib.shake_256(b"%d" % number).digest(int(np.prod(shape))), np.uint8).reshape(shape)


IMAGES = np.stack([picture(number) for number in range(COUNT)])
LABELS = np.arange(COUNT) * 7 % 3


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def assert_rows(path, names=NAMES, of=lambda number: picture(number), labels=LABELS):
    """Check that each row has the pixels, label and digest of the number in its name, and that none is missing."""
    packed = PackedImages(path)
    numbers = [int(name.split("/")[-1]) for name in packed.filenames]
    assert sorted(numbers) == [*range(len(labels))]
    for number, image, label, digest in zip(numbers, packed.images, packed.labels, packed.digests, strict=True):
        assert np.array_equal(image, of(number))
        assert packed.class_names[label] == names[labels[number]]
        assert digest.tobytes() == hashlib.sha256(image.tobytes()).digest()
    assert verify(packed).intact
    return packed


# --- what may be given ------------------------------------------------------------------------------------------------


class Tensor:
    """Anything that numpy can make an array of."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.values, dtype)


def of_pillow(number):
    return Image.fromarray(picture(number))


@pytest.mark.parametrize(
    "given",
    [
        (IMAGES, LABELS),
        (IMAGES, LABELS[:, None]),  # as keras.datasets has them
        (IMAGES, LABELS.astype(np.uint8).tolist()),
        (IMAGES, [NAMES[label] for label in LABELS]),
        (IMAGES[:, :, ::-1][:, :, ::-1], LABELS),
        ([*IMAGES], LABELS),
        lambda: (map(picture, range(COUNT)), map(int, LABELS)),
        lambda: (map(of_pillow, range(COUNT)), LABELS),
        ([(of_pillow(number), int(LABELS[number])) for number in range(COUNT)],),  # as torchvision has them
        ([(Tensor(IMAGES[number]), Tensor(LABELS[number])) for number in range(COUNT)],),
        lambda: (([picture(number), NAMES[LABELS[number]]] for number in range(COUNT)),),
    ],
    ids=["array", "column", "list", "names", "strides", "pictures", "maps", "pillow", "pairs", "tensors", "generator"],
)
@pytest.mark.parametrize("order", ["stratified", "given"])
def test_every_row_has_its_pixels_and_its_label(given, order):
    summary = write("all.h5", *(given() if callable(given) else given), class_names=NAMES, order=order)
    packed = assert_rows("all.h5")
    assert packed.class_names == (*NAMES,)
    assert (summary.rows, summary.decoded, summary.shape) == (COUNT, COUNT, (8, 8, 3))
    assert summary.classes == {"cat": 20, "dog": 20, "emu": 20}
    if order == "given":
        assert list(packed.filenames) == [f"all/{number}" for number in range(COUNT)]
    else:
        for part in SplitSequence("all.h5").split(0.25, 0.5):
            assert np.ptp(np.bincount(part.classes)) <= 1


def test_an_iterator_is_taken_once_and_need_not_say_how_many_there_are(here):
    write("all.h5", ((picture(number), LABELS[number]) for number in range(COUNT)), class_names=NAMES)
    assert_rows("all.h5")
    assert os.listdir(here) == ["all.h5"]


def test_the_same_pictures_give_the_same_bytes(here):
    write("all.h5", IMAGES, LABELS)
    before = (here / "all.h5").read_bytes()
    write("all.h5", IMAGES.copy(), LABELS.tolist())
    assert (here / "all.h5").read_bytes() == before
    write("all.h5", IMAGES, LABELS, seed=1)
    assert (here / "all.h5").read_bytes() != before
    assert_rows("all.h5", ["0", "1", "2"])


def test_a_mapped_array_is_read_where_it_lies(here):
    np.save("images.npy", IMAGES)
    write("all.h5", np.load("images.npy", mmap_mode="r"), LABELS, class_names=NAMES)
    assert_rows("all.h5")


def test_numbers_without_names_are_their_own_names():
    write("all.h5", IMAGES, np.where(LABELS == 2, 11, LABELS))
    packed = PackedImages("all.h5")
    assert packed.class_names == tuple(map(str, range(12)))
    for name, label in zip(packed.filenames, packed.labels, strict=True):
        assert label == {0: 0, 1: 1, 2: 11}[LABELS[int(name.split("/")[1])]]


def test_names_without_an_order_are_sorted():
    write("all.h5", IMAGES, [["emu", "10", "9"][label] for label in LABELS])
    assert_rows("all.h5", ["emu", "10", "9"])
    assert PackedImages("all.h5").class_names == ("10", "9", "emu")


def test_a_class_without_images_keeps_its_number_and_is_said():
    summary = write("all.h5", IMAGES, LABELS, class_names=[*NAMES, "yak"])
    assert PackedImages("all.h5").class_names == (*NAMES, "yak")
    assert summary.warnings == ["classes without images, which keep their numbers: yak"]


def test_pictures_without_labels_are_of_one_class():
    for given in (IMAGES, list(IMAGES)):
        write("all.h5", given)
        assert_rows("all.h5", ["unlabelled"], labels=np.zeros(COUNT, int))


def test_grey_pictures_have_one_channel():
    grey = IMAGES[..., 0]
    for given in (grey, grey[..., None], list(grey), [Image.fromarray(image) for image in grey]):
        write("grey.h5", given, LABELS, class_names=NAMES)
        assert_rows("grey.h5", of=lambda number: grey[number][..., None])


def test_pictures_with_an_alpha_channel_have_four():
    images = np.stack([picture(number, (8, 8, 4)) for number in range(COUNT)])
    for given in (images, [Image.fromarray(image) for image in images]):
        write("alpha.h5", given, LABELS, class_names=NAMES)
        assert_rows("alpha.h5", of=lambda number: images[number])


@pytest.mark.parametrize(
    "options",
    [
        {"size": 5},
        {"size": (6, 4), "fit": "crop", "interpolation": "lanczos"},
        {"size": (9, 4), "fit": "pad"},
        {"color": "grayscale"},
        {"color": "rgba", "size": 4},
    ],
    ids=["size", "crop", "pad", "grey", "alpha"],
)
def test_pictures_are_made_as_packing_makes_them(here, options):
    """Arrays and images of Pillow's become the rows that PNG files of them become."""
    shapes = [(8, 8, 3), (10, 6, 3)] if "size" in options else [(8, 8, 3)]
    (here / "files").mkdir()
    images = [picture(number, shapes[number % len(shapes)]) for number in range(20)]
    for number, image in enumerate(images):
        Image.fromarray(image).save(here / f"files/{number:02}.png")
    pack(["files"], "files.h5", labels="root", workers=1, **options)
    packed = PackedImages("files.h5")
    rows = {int(os.path.splitext(os.path.basename(name))[0]): row for row, name in enumerate(packed.filenames)}
    for given in (images, [Image.fromarray(image) for image in images]):
        write("given.h5", given, [0] * 20, **options)
        assert_rows("given.h5", ["0"], of=lambda number: packed.images[rows[number]], labels=[0] * 20)
    assert np.array_equal(prepare("given.h5", "files/03.png"), packed.images[rows[3]])


def test_a_picture_in_a_file_is_turned_as_its_exif_says(here):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture(0)).save("turned.png", exif=exif)
    with Image.open("turned.png") as opened:
        write("turned.h5", [opened])
    assert np.array_equal(PackedImages("turned.h5").images[0], np.rot90(picture(0), -1))


def test_losses_are_said_and_stored():
    deep = Image.fromarray((np.arange(64, dtype=np.uint16) * 16).reshape(8, 8))
    summary = write("all.h5", [picture(0), deep, picture(2)], color="rgb")
    assert summary.losses == [("all/1", "16 bits cut to 8: 4 of 64 levels kept")]
    packed = PackedImages("all.h5")
    assert packed.losses == summary.losses
    assert packed.filenames[int(packed.loss_table["rows"][0])] == "all/1"


# --- .npz files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arrays", "parts"),
    [
        (("images", "labels"), [""]),
        (("x", "y"), [""]),
        (("x_train", "y_train", "x_test", "y_test"), ["train", "test"]),
        (("train_images", "train_labels", "val_images", "val_labels"), ["train", "val"]),
    ],
    ids=["images", "x", "x_train", "train_images"],
)
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed], ids=["plain", "compressed"])
def test_the_arrays_of_an_npz_file_are_packed_with_their_parts(here, arrays, parts, save):
    bounds = [COUNT * place // len(parts) for place in range(len(parts) + 1)]
    pairs = [*zip(arrays[::2], arrays[1::2], bounds[:-1], bounds[1:], strict=True)]
    content = {images: IMAGES[start:stop] for images, _, start, stop in pairs}
    save("set.npz", **content, **{labels: LABELS[start:stop, None] for _, labels, start, stop in pairs})
    write("all.h5", "set.npz", class_names=NAMES)
    packed = PackedImages("all.h5")
    assert len(packed) == COUNT
    for row, (image, name, source) in enumerate(
        zip(packed.images, packed.filenames, packed.columns["source"], strict=True)
    ):
        archive, array, number = name.split("/")
        assert (archive, source) == ("set.npz", "set.npz")
        assert np.array_equal(image, content[array][int(number)])
        start = next(start for images, _, start, _ in pairs if images == array)
        assert packed.labels[row] == LABELS[start + int(number)]
        if parts != [""]:
            assert packed.columns["split"][row] in array
    if parts == [""]:
        assert "split" not in packed.columns


def test_an_npz_file_is_read_piece_by_piece(here, monkeypatch):
    monkeypatch.setattr("pack_images.find.arrays._CHUNK_BYTES", 500)
    np.savez_compressed("set.npz", images=IMAGES, labels=LABELS)
    write("all.h5", "set.npz", class_names=NAMES)
    assert_rows("all.h5")


# --- names and columns ------------------------------------------------------------------------------------------------


def test_names_and_columns_follow_their_pictures():
    names = [f"site-{number % 5}/{number}.dcm" for number in range(COUNT)]
    columns = {
        "age": np.arange(COUNT, dtype=np.float32) / 10,
        "patient": [f"p{number // 4}" for number in range(COUNT)],
        "seen": [None if number % 3 else number for number in range(COUNT)],
        "missing": np.full(COUNT, np.nan),
    }
    write("all.h5", IMAGES, LABELS, filenames=names, columns=columns)
    packed = PackedImages("all.h5")
    for row, name in enumerate(packed.filenames):
        number = names.index(name)
        assert np.array_equal(packed.images[row], picture(number))
        found = {column: packed.columns[column][row] for column in columns}
        assert found == {
            "age": str(np.float32(number) / np.float32(10)),
            "patient": f"p{number // 4}",
            "seen": "" if number % 3 else str(number),
            "missing": "",
        }
    assert SplitSequence("all.h5", targets="age").get_targets().dtype == np.float32


def test_the_file_says_what_the_pictures_came_from():
    for given, name in ((IMAGES, "numpy.ndarray"), ([*IMAGES], "list"), (iter(IMAGES), "iterator")):
        write("all.h5", given)
        assert set(PackedImages("all.h5").columns["source"]) == {name}


def test_verify_knows_rows_without_a_file(here, capsys):
    write_classes(here / "data", {"cat": 3})
    write("given.h5", IMAGES, LABELS, class_names=NAMES)
    pack(["given.h5", "data"], "both.h5", workers=1)
    packed = PackedImages("both.h5")
    states = dict(zip(packed.filenames, verify_sources(packed), strict=True))
    assert {state for name, state in states.items() if name.startswith("given/")} == {"no file"}
    assert {state for name, state in states.items() if name.startswith("data/")} == {"same"}
    assert h5split(["verify", "both.h5", "--sources"]) == 0
    expected = "sources: 3 same, 0 changed, 0 missing, 0 unreadable; 60 rows of arrays, without a file\n"
    assert capsys.readouterr().out.endswith(expected)
    (here / "given").mkdir()
    (here / "given/0").write_bytes(b"another file of that name")
    os.remove(here / "data/cat/data-cat-1.png")
    assert h5split(["verify", "both.h5", "--sources"]) == 1
    assert capsys.readouterr().out.startswith("data/cat/data-cat-1.png: missing\n")


def test_a_written_pack_can_be_exported_looked_at_and_saved(here):
    write("all.h5", IMAGES, LABELS, class_names=NAMES)
    assert h5split(["export", "all.h5", "folders", "--quiet"]) == 0
    assert h5split(["info", "all.h5"]) == 0
    pack([], "again.h5", manifest=Manifest("folders/manifest.csv", name_column="filename"), order="sorted", workers=1)
    assert np.array_equal(PackedImages("again.h5").images, PackedImages("all.h5").images)
    assert list(PackedImages("again.h5").filenames) == list(PackedImages("all.h5").filenames)
    SplitSequence("all.h5").select(label="dog").save("dogs.h5")
    assert verify(PackedImages("dogs.h5")).intact
    assert set(verify_sources(PackedImages("dogs.h5"))) == {"no file"}


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        (IMAGES, {"labels": LABELS[:50]}, "labels: expected one for each of 60 images, found 50"),
        ([*IMAGES], {"labels": LABELS[:50]}, "labels: expected one for each image, found 50 labels and more images"),
        ([*IMAGES[:9]], {"labels": LABELS}, "labels: expected one for each image, found 9 images and more labels"),
        (IMAGES, {"labels": np.eye(3)[LABELS]}, "found an array of shape (60, 3); of one-hot labels make numbers by"),
        (IMAGES, {"labels": LABELS / 2}, "expected a class number or a class name for each image, found"),
        (IMAGES, {"labels": LABELS - 1}, "labels: expected class numbers from 0 to 1, found -1 for image 0"),
        (IMAGES, {"labels": LABELS, "class_names": ["a", "b"]}, "class numbers from 0 to 1, found 2 for image 2"),
        (IMAGES, {"labels": ["a"] * COUNT, "class_names": ["b"]}, "expected one of class_names, found 'a'"),
        (IMAGES, {"labels": ["a", *LABELS[1:]]}, "labels: expected class numbers or class names, found both"),
        (IMAGES, {"labels": [None, *LABELS[1:]]}, "found None for image 0; put numbers to predict into columns"),
        (IMAGES, {"labels": LABELS, "class_names": ["a", "b", "b"]}, "classes: expected each name once, found 'b'"),
        (IMAGES / 255, {}, "image 0: expected uint8 pixels, 0 to 255, found float64; of 0.0 to 1.0 make them by"),
        (IMAGES.transpose(0, 3, 1, 2), {}, "image 0: expected an image of Pillow's, or an array (H, W) or (H, W, C)"),
        ([IMAGES, LABELS], {}, "image 0: expected an image of Pillow's, or an array (H, W) or (H, W, C) with 1, 3 or"),
        ([{"image": 1, "label": 2}], {}, "found a dict of 'image', 'label'; give ((item['image'], item['label']) for"),
        (["a.png"], {}, "image 0: expected an image of Pillow's, or an array (H, W)"),
        (
            [picture(0), picture(1, (8, 9, 3))],
            {},
            "image 1: expected 8x8, as the first image is, found 9x8; give size=",
        ),
        (
            [picture(0), picture(1, (8, 8, 1))],
            {},
            "image 1: expected rgb, as the first image is, found grayscale; give",
        ),
        ([of_pillow(0).convert("P")], {}, "image 0: expected a picture in mode L, RGB or RGBA, as no color is given"),
        ([], {}, "images: expected one or more, found none"),
        (IMAGES[:0], {}, "images: expected one or more, found none"),
        ("photos", {}, "photos: expected arrays, or an .npz file of them; pack() packs folders of image files"),
        ("other.npz", {}, "other.npz: expected arrays such as x_train and y_train, or images and labels, found a, b"),
        ("uneven.npz", {}, "expected images to be images (N, H, W, C), as many as there are labels, 50, found uint8"),
        ("broken.npz", {}, "broken.npz: expected an .npz file of arrays, found another or a damaged one"),
        (IMAGES, {"filenames": ["a"] * COUNT}, "expected a name for each image, each once, found 'a' 60 times"),
        (IMAGES, {"filenames": ["a", "b"]}, "filenames: expected a value for each of 60 images, found 2"),
        (IMAGES, {"columns": {"age": [1, 2]}}, "age: expected a value for each of 60 images, found 2"),
        (IMAGES, {"columns": {"age": IMAGES}}, "age: expected a text or a number for each image, found"),
        (IMAGES, {"columns": {"source": [""] * COUNT}}, "columns: expected another name than source"),
        (IMAGES, {"order": "sorted"}, "order: expected stratified or given, found 'sorted'"),
        (IMAGES, {"size": 0}, "size: expected a width and a height from 1 to 65535"),
    ],
)
def test_what_cannot_be_written_is_refused_and_leaves_nothing(here, images, options, message):
    np.savez("other.npz", a=IMAGES, b=LABELS)
    np.savez("uneven.npz", images=IMAGES, labels=LABELS[:50])
    (here / "broken.npz").write_bytes(b"PK")
    before = sorted(os.listdir(here))
    with pytest.raises(PackError, match=re.escape(message)) as raised:
        write("all.h5", images, **options)
    assert "\n" not in str(raised.value)
    assert sorted(os.listdir(here)) == before


def test_an_error_of_an_iterator_leaves_the_earlier_pack(here):
    def broken():
        yield from IMAGES[:20]
        raise RuntimeError("the server is gone")

    write("all.h5", IMAGES, LABELS, class_names=NAMES)
    with pytest.raises(RuntimeError, match="the server is gone"):
        write("all.h5", broken())
    assert_rows("all.h5")
    assert os.listdir(here) == ["all.h5"]


def test_another_file_is_never_replaced(here):
    (here / "notes.txt").write_text("mine")
    with pytest.raises(
        PackError, match=r"notes\.txt: expected nothing there, or a pack to replace, found another file"
    ):
        write("notes.txt", IMAGES)
    assert (here / "notes.txt").read_text() == "mine"
