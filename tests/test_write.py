"""Packs of arrays, of .npz files and of pictures that come one after another: each row is who it says it is."""

from __future__ import annotations

import hashlib
import io
import os
import re
import struct
import zipfile
import zlib

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
        (IMAGES, LABELS[:, None].tolist()),
        (IMAGES, [NAMES[label] for label in LABELS]),
        (IMAGES[:, :, ::-1][:, :, ::-1], LABELS),
        ([*IMAGES], LABELS),
        lambda: (map(picture, range(COUNT)), map(int, LABELS)),
        lambda: (map(of_pillow, range(COUNT)), LABELS),
        ([(of_pillow(number), int(LABELS[number])) for number in range(COUNT)],),  # as torchvision has them
        ([(Tensor(IMAGES[number]), Tensor(LABELS[number])) for number in range(COUNT)],),
        lambda: (([picture(number), NAMES[LABELS[number]]] for number in range(COUNT)),),
    ],
    ids=[
        "array",
        "column",
        "list",
        "lists",
        "names",
        "strides",
        "pictures",
        "maps",
        "pillow",
        "pairs",
        "tensors",
        "generator",
    ],
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


class OfTorch:
    """A data set as torch allows it: its length counts, and it need not raise IndexError behind the last picture."""

    def __len__(self):
        return COUNT

    def __getitem__(self, number):
        assert number <= 2 * COUNT, "asked for pictures without end"
        return picture(number), LABELS[number % COUNT]


def test_a_data_set_of_torch_is_as_long_as_it_says():
    summary = write("all.h5", OfTorch(), class_names=NAMES)
    assert summary.rows == COUNT
    assert_rows("all.h5")


def test_numbers_of_many_classes_may_lack_some():
    labels = np.arange(COUNT) * 16
    write("all.h5", IMAGES, labels, order="given")
    assert PackedImages("all.h5").labels.tolist() == labels.tolist()


@pytest.mark.parametrize(
    ("options", "taken"),
    [
        ({"filenames": ["a"] * 5}, 0),
        ({"filenames": ["a", "b"]}, 3),
        ({"columns": {"age": [1, 2]}}, 3),
        ({"columns": {"source": range(5)}}, 0),
        ({"columns": {"age": [[]] * 5}}, 0),
        ({"columns": {"\ud800": range(5)}}, 0),
        ({"class_names": []}, 0),
        ({"labels": [0.5] * 5}, 0),
        ({"labels": [0, 3], "class_names": NAMES}, 0),
    ],
)
def test_what_needs_no_picture_is_checked_before_pictures_are_taken(options, taken):
    seen = []
    with pytest.raises(PackError):
        write("all.h5", (seen.append(number) or picture(number) for number in range(5)), **options)
    assert len(seen) == taken


def test_columns_may_grow_while_pictures_are_taken():
    ages = []

    def pictures():
        for number in range(COUNT):
            ages.append(number)
            yield picture(number), LABELS[number]

    write("all.h5", pictures(), class_names=NAMES, columns={"age": ages}, order="given")
    assert list(PackedImages("all.h5").columns["age"]) == [str(number) for number in range(COUNT)]


def test_a_missing_folder_is_named():
    with pytest.raises(FileNotFoundError, match=r"No such file or directory: 'none/all\.h5'"):
        write("none/all.h5", IMAGES)


@pytest.mark.skipif(not os.path.exists("/proc"), reason="needs a limit on the size of files")
@pytest.mark.parametrize("given", [lambda: iter(IMAGES), lambda: IMAGES], ids=["iterator", "array"])
def test_a_full_disk_is_said_with_the_path_and_the_size(here, monkeypatch, given):
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, before[1]))
    try:
        with pytest.raises(
            OSError, match=r"expected room for .* [\d,]+ bytes: 'all\.h5'|: expected room for [\d,]+ bytes: 'all\.h5'"
        ):
            write("all.h5", given())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert os.listdir(here) == []


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


def write_png16(path, samples):
    """Write a PNG of 16 bits a channel, which Pillow cannot: uint16 (H, W, C), C being 2, 3 or 4."""
    height, width, channels = samples.shape
    header = struct.pack(">2L5B", width, height, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
            file.write(struct.pack(">L", len(data)) + kind + data + struct.pack(">L", zlib.crc32(kind + data)))


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_an_opened_file_of_16_bits_loses_what_packing_it_loses(here, channels):
    (here / "deep").mkdir()
    samples = np.arange(64 * channels, dtype=np.uint16).reshape(8, 8, channels) * 77
    write_png16("deep/a.png", samples)
    expected = pack(["deep"], "packed.h5", workers=1, size=6)
    with Image.open("deep/a.png") as opened:
        summary = write("written.h5", [opened], color="rgb", size=6)
    assert [text for _, text in summary.losses] == [text for _, text in expected.losses]
    assert summary.losses[0][1].startswith("16 bits cut to 8: ")
    assert np.array_equal(PackedImages("written.h5").images, PackedImages("packed.h5").images)


def test_an_opened_picture_that_was_changed_is_taken_as_it_is():
    Image.fromarray(picture(0)).save("a.png")
    with Image.open("a.png") as opened:
        opened.paste((1, 2, 3), (0, 0, 8, 8))
        write("all.h5", [opened])
    assert np.array_equal(PackedImages("all.h5").images[0], np.full((8, 8, 3), (1, 2, 3)))


def test_an_opened_picture_that_cannot_be_loaded_is_named(here):
    Image.fromarray(picture(0, (99, 99, 3))).save("a.png")
    (here / "b.png").write_bytes((here / "a.png").read_bytes()[:9000])
    with Image.open("a.png") as closed, Image.open("a.png") as whole, Image.open("b.png") as cut:
        closed.close()
        for given in (closed, cut):
            with pytest.raises(PackError, match=r"^image 1: ") as raised:
                write("all.h5", [whole, given])
            assert "\n" not in str(raised.value)


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
    monkeypatch.setattr("pack_images.find.archive._CHUNK_BYTES", 500)
    np.savez_compressed("set.npz", images=IMAGES, labels=LABELS)
    write("all.h5", "set.npz", class_names=NAMES)
    assert_rows("all.h5")


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        (("x_train", "y_train", "x_extra", "y_extra"), ["train", "extra"]),
        (("x-train", "y-train", "x-text", "y-text"), ["train", "text"]),
        (("X_train", "y_train", "X_test", "y_test"), ["train", "test"]),
        (("x_train", "y_train", "X_test", "Y_test"), ["train", "test"]),
        (("Images_train", "Labels_train", "Images_val", "labels_val"), ["train", "val"]),
        (("x_a", "y_a", "X_a", "Y_a"), ["a"]),
    ],
)
def test_no_part_of_an_npz_file_is_left_out(names, parts):
    half = COUNT // 2
    first, first_labels, second, second_labels = names
    arrays = {first: IMAGES[:half], first_labels: LABELS[:half], second: IMAGES[half:], second_labels: LABELS[half:]}
    np.savez("set.npz", **arrays)
    write("all.h5", "set.npz", class_names=NAMES, order="given")
    packed = PackedImages("all.h5")
    assert np.array_equal(packed.images, IMAGES)
    assert packed.labels.tolist() == LABELS.tolist()
    assert set(packed.columns["split"]) == {*parts}
    assert packed.columns["split"][COUNT - 1] == parts[-1]


def test_an_npz_file_may_hold_other_arrays_too():
    np.savez("set.npz", images=IMAGES, labels=LABELS, mean=np.zeros(3), ids=np.arange(COUNT))
    write("all.h5", "set.npz", class_names=NAMES)
    assert len(PackedImages("all.h5")) == COUNT


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES},
            "labels for each array of images, found none for x_te",
        ),
        (
            {"images": IMAGES, "labels": LABELS, "masks": IMAGES},
            "labels for each array of images, found none for masks",
        ),
        ({"images": IMAGES, "data": IMAGES, "labels": LABELS}, "images, found labels for images and data; load them"),
        (
            {"x": np.asfortranarray(IMAGES), "y": LABELS},
            "expected x in C order, row after row, found Fortran order; save",
        ),
        ({"x": IMAGES[:, :0], "y": LABELS}, "expected x to be images (N, H, W, C), found uint8 of shape (60, 0, 8, 3)"),
        ({"x": np.zeros((60, 2, 2), "U1"), "y": LABELS}, "expected x to be images (N, H, W, C), found <U1 of shape"),
        ({"x": IMAGES, "y": np.array(["a", "b"] * 30, object)}, "y to be class numbers or texts, found objects; save"),
        ({"x": IMAGES, "y": np.array(5)}, "labels: expected values in their order, in a list or an array, found a"),
    ],
)
def test_arrays_of_an_npz_file_that_are_no_pictures_with_labels_are_refused(arrays, message):
    np.savez("set.npz", **arrays)
    with pytest.raises(PackError, match=re.escape(message)):
        write("all.h5", "set.npz")
    assert not os.path.exists("all.h5")


def npy(shape, data, dtype="|u1"):
    """An .npy file whose heading may say something else than its data."""
    file = io.BytesIO()
    heading = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, heading)
    return file.getvalue() + data


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (npy((4, 2**40, 2**40, 3), b"1" * 48), npy((4,), b"1" * 4)),
        (npy((4, 2, 2, 3), b"1" * 47), npy((4,), b"1" * 4)),
        (npy((4, 2, 2, 3), b"1" * 49), npy((4,), b"1" * 4)),
        (npy((4, -2, 2, 3), b"1" * 48), npy((4,), b"1" * 4)),
        (npy((4, 2, 2, 3), b"1" * 48), npy((10**13,), b"1" * 4)),
        (npy((4, 2, 2, 3), b"1" * 48), npy((4,), b"", "<U0")),
        (b"nonsense", npy((4,), b"1" * 4)),
    ],
    ids=["overflow", "short", "long", "negative", "labels", "empty", "nonsense"],
)
def test_an_npz_file_whose_headings_are_wrong_is_refused(images, labels):
    with zipfile.ZipFile("set.npz", "w") as file:
        file.writestr("x.npy", images)
        file.writestr("y.npy", labels)
    with pytest.raises(
        PackError, match=r"set\.npz: expected an \.npz file of arrays, found another or a damaged one \("
    ):
        write("all.h5", "set.npz")


def test_a_damaged_npz_file_is_refused(here):
    np.savez_compressed("set.npz", x=IMAGES % 4, y=LABELS)
    content = bytearray((here / "set.npz").read_bytes())
    for at in range(200, 2000, 37):
        damaged = content.copy()
        damaged[at] ^= 255
        (here / "damaged.npz").write_bytes(damaged)
        with pytest.raises(PackError, match=r"damaged\.npz: expected"):
            write("all.h5", "damaged.npz")


@pytest.mark.parametrize("names", [("x", "y"), ("x.npy", "x.npy", "y.npy")], ids=["plain", "twice"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_npz_file_with_other_members_is_refused(names):
    with zipfile.ZipFile("set.npz", "w") as file:
        for name in names:
            file.writestr(name, npy((4, 2, 2, 3), b"1" * 48))
    with pytest.raises(
        PackError, match=r"set\.npz: expected .* found (none|another or a damaged one \(x\.npy is in it twice)"
    ):
        write("all.h5", "set.npz")


def test_the_parts_of_an_npz_file_are_not_overwritten():
    np.savez("set.npz", x_train=IMAGES, y_train=LABELS)
    with pytest.raises(PackError, match="columns: expected another name than split, which tells the parts of the file"):
        write("all.h5", "set.npz", columns={"split": ["a"] * COUNT})
    np.savez("set.npz", x=IMAGES, y=LABELS)
    write("all.h5", "set.npz", columns={"split": ["a"] * COUNT})
    assert set(PackedImages("all.h5").columns["split"]) == {"a"}


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


def tensors(library, values):
    """An array of a library that has tensors of its own, also for single values."""
    if library == "tensorflow":
        return pytest.importorskip("tensorflow").constant(values)
    if library == "jax":
        return pytest.importorskip("jax.numpy").asarray(values)
    return pytest.importorskip("torch").tensor(values)


@pytest.mark.parametrize("library", ["torch", "tensorflow", "jax"])
def test_tensors_are_taken_for_their_values(library):
    ages = np.arange(COUNT, dtype=np.float32) / np.float32(3)
    given = {"age": tensors(library, ages), "number": [*tensors(library, np.arange(COUNT))]}
    write("all.h5", IMAGES, LABELS, filenames=tensors(library, np.arange(COUNT)), columns=given, order="given")
    packed = PackedImages("all.h5")
    assert list(packed.filenames) == list(packed.columns["number"]) == [str(number) for number in range(COUNT)]
    assert list(packed.columns["age"]) == [str(age) for age in ages]
    assert packed.columns["age"][1] == "0.33333334"


def test_texts_of_tensorflow_are_texts():
    names = [f"{number}-\u00e9" for number in range(COUNT)]
    labels = tensors("tensorflow", [NAMES[label] for label in LABELS])
    write("all.h5", IMAGES, labels, filenames=tensors("tensorflow", names), order="given")
    packed = PackedImages("all.h5")
    assert list(packed.filenames) == names
    assert [packed.class_names[label] for label in packed.labels] == [NAMES[label] for label in LABELS]


def test_columns_of_pandas_keep_their_values():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(
        {
            "age": np.arange(COUNT, dtype=np.float32) / 10,
            "seen": pandas.array([None, *range(1, COUNT)], dtype="Int64"),
            "day": pandas.date_range("2020-01-01", periods=COUNT),
        },
        index=range(7, 7 + COUNT),
    )
    write("all.h5", IMAGES, frame["seen"].isna().astype(int), columns=frame, order="given")
    columns = PackedImages("all.h5").columns
    assert columns["age"][:4] == ["0.0", "0.1", "0.2", "0.3"]
    assert columns["seen"][:3] == ["", "1", "2"]
    assert columns["day"][1] == "2020-01-02 00:00:00"


def test_a_tensor_that_numpy_cannot_read_is_refused():
    torch = pytest.importorskip("torch")
    given = torch.ones(COUNT, requires_grad=True)
    with pytest.raises(
        PackError, match=r"age: expected values that numpy can read, found Tensor \(.*detach\(\)\.numpy"
    ) as raised:
        write("all.h5", IMAGES, columns={"age": given})
    assert "\n" not in str(raised.value)
    with pytest.raises(PackError, match=r"image 0: expected .*, found a Tensor \(.*detach\(\)\.numpy"):
        write("all.h5", [torch.ones((4, 4, 3), requires_grad=True)])


@pytest.mark.parametrize("what", ["labels", "filenames", "age", "images"])
@pytest.mark.parametrize("kind", [set, dict.fromkeys, str], ids=["set", "dict", "str"])
def test_values_without_an_order_are_refused(what, kind):
    names = [f"{number:02}" for number in range(COUNT)]
    given = " ".join(names) if kind is str else kind(names)
    options = {"columns": {"age": given}} if what == "age" else {what: given}
    images = options.pop("images", IMAGES)
    kind_of = {set: "a set", str: "a str"}.get(kind, "a dict")
    expected = f"{what}: expected values in their order, in a list or an array, found {kind_of}; give a list"
    if what == "images" and kind is str:
        expected = "expected arrays, or an .npz file of them"  # it is a path
    with pytest.raises(PackError, match=re.escape(expected)):
        write("all.h5", images, **options)


def test_the_views_of_a_dict_keep_its_order():
    given = {f"{COUNT - number}.png": NAMES[label] for number, label in enumerate(LABELS)}
    write("all.h5", IMAGES, given.values(), filenames=given.keys(), order="given")
    packed = PackedImages("all.h5")
    names = zip(packed.filenames, [packed.class_names[label] for label in packed.labels], strict=True)
    assert dict(names) == given


@pytest.mark.parametrize("numbers", [(2, 0, 1), np.array([2, 0, 1])], ids=["int", "numpy"])
def test_a_dict_gives_class_names_by_their_numbers(numbers):
    write("all.h5", IMAGES, LABELS, class_names=dict(zip(("emu", "cat", "dog"), numbers, strict=True)))
    assert PackedImages("all.h5").class_names == ("cat", "dog", "emu")
    assert_rows("all.h5")


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
        ([*IMAGES], {"labels": LABELS[:50]}, "labels: expected one for each of 60 images, found 50"),
        (
            [*IMAGES],
            {"labels": iter(LABELS[:9])},
            "labels: expected one for each image, found 9 labels and more images",
        ),
        (
            [*IMAGES[:9]],
            {"labels": iter(LABELS)},
            "labels: expected one for each image, found 9 images and more labels",
        ),
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
        ("uneven.npz", {}, "uneven.npz: expected a label for each of 60 images, found 50; load them"),
        ("broken.npz", {}, "broken.npz: expected an .npz file of arrays, found another or a damaged one"),
        (IMAGES, {"filenames": ["a"] * COUNT}, "expected a name for each image, each once, found 'a' 60 times"),
        (IMAGES, {"filenames": ["a", "b"]}, "filenames: expected a value for each of 60 images, found 2"),
        (IMAGES, {"columns": {"age": [1, 2]}}, "age: expected a value for each of 60 images, found 2"),
        (IMAGES, {"columns": {"age": IMAGES}}, "age: expected a text or a number for each image, found"),
        (IMAGES, {"columns": {"source": [""] * COUNT}}, "columns: expected another name than source"),
        (IMAGES, {"columns": {5: [1] * COUNT}}, "columns: expected texts as names, found 5; give '5'"),
        (IMAGES, {"columns": {"": [1] * COUNT}}, "columns: expected texts as names, found ''; give 'a name'"),
        (IMAGES, {"columns": {"\ud800": [1] * COUNT}}, "column '\\ud800': expected text, found half a surrogate pair"),
        (IMAGES, {"columns": {"a\0": [1] * COUNT}}, "column 'a\\x00': expected no NUL character at its end"),
        (IMAGES, {"columns": [[1] * COUNT]}, "columns: expected a dict of name -> values, found a list of 1 values"),
        (IMAGES, {"columns": {"age": 5}}, "age: expected values in their order, in a list or an array, found 5; give"),
        (IMAGES, {"columns": {"age": [{}] * COUNT}}, "age: expected a text or a number for each image, found {}"),
        (IMAGES, {"columns": {"age": [b"\xff"] * COUNT}}, "age: expected a text or a number for each image, found b'"),
        (IMAGES, {"columns": {"age": np.ma.masked_equal(LABELS, 1)}}, "age: expected values, found a masked array"),
        (IMAGES, {"labels": 5}, "labels: expected values in their order, in a list or an array, found 5; give a list"),
        (IMAGES, {"labels": np.array(5)}, "labels: expected values in their order, in a list or an array, found a sin"),
        (IMAGES, {"labels": ["", *"ab" * 29, "a"]}, "found an empty one for image 0; name the class, or leave"),
        (IMAGES, {"labels": [picture(0)] * COUNT}, "for each image, found ndarray of uint8 and shape (8, 8, 3) for"),
        (
            IMAGES,
            {"labels": [[1, [2, 3]]] * COUNT},
            "for each image, found a list of 2 values, the first 1 for image 0",
        ),
        (
            IMAGES,
            {"labels": [np.timedelta64(1, "D")] * COUNT},
            "labels: expected a class number or a class name for each",
        ),
        (IMAGES, {"labels": [20240101, 20240102] * 30}, "found up to 20240102 for 2 classes; give class_names, or"),
        (IMAGES, {"labels": [2**63, 2] * 30}, "found up to 9223372036854775808 for 2 classes; give class_names, or"),
        (IMAGES, {"labels": [0, 1000] * 30}, "labels: expected class numbers from 0, found up to 1000 for 2 classes"),
        (IMAGES, {"labels": [-1] * COUNT}, "labels: expected class numbers from 0 to 0, found -1 for image 0"),
        (IMAGES, {"class_names": 5}, "classes: expected values in their order, in a list or an array, found 5; give"),
        (IMAGES, {"class_names": {0: "a", 1: "b"}}, "with each number from 0 to 1 once, found {0: 'a', 1: 'b'}"),
        (None, {}, "images: expected values in their order, in a list or an array, found None; give a list"),
        (5, {}, "images: expected values in their order, in a list or an array, found 5; give a list"),
        (IMAGES[:, :0], {}, "image 0: expected an image of Pillow's, or an array (H, W) or (H, W, C) with 1, 3 or 4"),
        (np.ma.masked_equal(IMAGES, 1), {}, "images: expected values, found a masked array that hides some; fill"),
        (
            [(picture(0), 1, 2)],
            {},
            "image 0: expected an image of Pillow's, or an array (H, W) or (H, W, C) with 1, 3 or",
        ),
        ([(picture(0), 1)], {"labels": [1]}, "or (H, W, C) with 1, 3 or 4 channels, found a tuple of 2"),
        ([Image.new("RGB", (0, 5))], {}, "with 1, 3 or 4 channels, found an image of 0x5"),
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
