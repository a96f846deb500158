"""Pictures and labels that are given as arrays, as an .npz file or one after another, in place of files."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pack_images.errors import PackError
from pack_images.find.sources import UNLABELLED

_PAIR = 2
_LEAST_AXES = 3  # of an array of images
_MISSING = object()
_ARCHIVE_ENDINGS = (".npz",)
_CHUNK_BYTES = 16 << 20
# Names of images in .npz files, and of the labels that belong to them: x_train and y_train, train_images and
# train_labels. What remains of the name is the part.
_NAMES = (("images", "labels"), ("x", "y"), ("data", "labels"))


class Item(NamedTuple):
    """One picture as it was given.

    Attributes:
        picture: An array or an image of Pillow's, not checked yet.
        label: A class number or name; None if there are no labels.
        place: Where it was found: its number, or its array and number.
        part: The part of the data set, if the names of arrays tell; else empty.
    """

    picture: Any
    label: Any
    place: str
    part: str


def items_of(images: Any, labels: Any) -> Iterator[Item]:
    """Yield what a user gives as images and labels, one picture after another.

    Args:
        images: An array (N, H, W) or (N, H, W, C), the path of an .npz file, or an iterable of pictures or of
            (picture, label).
        labels: A label for each picture, if they do not come with the pictures.

    Raises:
        PackError: There are more labels than pictures or fewer, or the file has no arrays of images.
    """
    if isinstance(images, (str, os.PathLike)):
        if labels is not None:
            raise PackError(
                "labels: expected none beside an .npz file, whose labels are taken; load its arrays yourself"
            )
        yield from _items_of_archive(os.fspath(images))
        return
    for index, (given, label) in enumerate(_pairs(images, labels)):
        yield Item(given, label, str(index), "")


def _pairs(images: Iterable[Any], labels: Iterable[Any] | None) -> Iterator[tuple[Any, Any]]:
    """Yield (picture, label), from two sequences or from one of pairs; the label is None if there is none."""
    if labels is not None:
        for index, (picture, label) in enumerate(zip_longest(images, check_labels(labels), fillvalue=_MISSING)):
            if picture is _MISSING or label is _MISSING:
                raise PackError(f"labels: expected one for each image, found {index:,} {_fewer(picture)}")
            yield picture, label
        return
    for index, item in enumerate(images):
        if isinstance(item, Mapping):
            keys = ", ".join(map(repr, item))
            raise PackError(
                f"image {index}: expected a picture or (picture, label), found a dict of {keys}; give "
                "((item['image'], item['label']) for item in images)"
            )
        is_pair = isinstance(item, (tuple, list)) and len(item) == _PAIR
        yield (item[0], item[1]) if is_pair else (item, None)


def _fewer(picture: object) -> str:
    return "images and more labels" if picture is _MISSING else "labels and more images"


def check_labels(labels: Any) -> Any:
    """Return labels that are given as an array with one axis; anything else as it is.

    Raises:
        PackError: The array has another form, such as one-hot.
    """
    shape = getattr(labels, "shape", None)
    if shape is None or len(shape) == 1:
        return labels
    array = np.asarray(labels)
    if array.shape[1:] == (1,):  # as keras.datasets has them
        return array[:, 0]
    raise PackError(
        f"labels: expected one for each image, found an array of shape {tuple(shape)}; of one-hot labels make numbers "
        "by labels.argmax(axis=1)"
    )


def named(labels: Sequence[Any], class_names: tuple[str, ...] | None) -> tuple[list[str], tuple[str, ...] | None]:
    """Return the class name of each picture, and all class names if their order is given.

    Args:
        labels: Numbers from 0, or names, or None for each picture.
        class_names: The names of the numbers. None: numbers are their own names, and names are sorted.

    Raises:
        PackError: A label is neither, or is not among the classes.
    """
    if all(label is None for label in labels):
        return [UNLABELLED] * len(labels), None
    names = class_names
    found = [_label(label, index) for index, label in enumerate(labels)]
    numbers = [label for label in found if isinstance(label, int)]
    if not numbers:
        _check_known(found, names)
        return [str(label) for label in found], names
    if len(numbers) < len(found):
        raise PackError("labels: expected class numbers or class names, found both")
    if names is None:
        names = tuple(map(str, range(max(numbers) + 1)))
    wrong = next((at for at, number in enumerate(numbers) if not 0 <= number < len(names)), None)
    if wrong is not None:
        raise PackError(
            f"labels: expected class numbers from 0 to {len(names) - 1}, found {numbers[wrong]} for image {wrong}"
        )
    return [names[number] for number in numbers], names


def _label(label: Any, index: int) -> int | str:
    """Return a label as a number or a name of Python's."""
    if isinstance(label, str):
        return str(label)
    if label is not None:
        array = np.asarray(label)
        if array.size == 1 and array.dtype.kind in "iu":
            return int(array.reshape(-1)[0])
    raise PackError(
        f"labels: expected a class number or a class name for each image, found {label!r} for image {index}; put "
        "numbers to predict into columns={...}"
    )


def _check_known(found: Sequence[int | str], names: Sequence[str] | None) -> None:
    unknown = None if names is None else next((label for label in found if label not in set(names)), None)
    if unknown is not None:
        raise PackError(f"labels: expected one of class_names, found {unknown!r}")


def _items_of_archive(path: str) -> Iterator[Item]:
    """Yield the pictures of an .npz file. Images are read piece by piece."""
    if not path.endswith(_ARCHIVE_ENDINGS):
        raise PackError(f"{path}: expected arrays, or an .npz file of them; pack() packs folders of image files")
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = [name.removesuffix(".npy") for name in archive.namelist()]
            for images, labels, part in _parts(path, arrays):
                numbers = check_labels(_whole(archive, labels))
                for index, picture in enumerate(_rows(path, archive, images, len(numbers))):
                    yield Item(picture, numbers[index], f"{images}/{index}", part)
    except (zipfile.BadZipFile, ValueError) as error:
        if isinstance(error, PackError):
            raise
        raise PackError(f"{path}: expected an .npz file of arrays, found another or a damaged one ({error})") from error


def _parts(path: str, arrays: Sequence[str]) -> list[tuple[str, str, str]]:
    """Return (name of the images, name of the labels, part) of each pair of arrays."""
    found = []
    for name in arrays:
        for images, labels in _NAMES:
            words = re.split(r"[_-]", name)
            if images in words:
                partner = name.replace(images, labels)
                if partner in arrays:
                    found.append((name, partner, "_".join(word for word in words if word != images)))
                    break
    if not found:
        raise PackError(
            f"{path}: expected arrays such as x_train and y_train, or images and labels, found {', '.join(arrays)}; "
            "load them with numpy.load and give them as arrays"
        )
    return found


def _rows(path: str, archive: zipfile.ZipFile, name: str, rows: int) -> Iterator[NDArray[Any]]:
    """Yield the rows of an array in a zip file, without reading it as a whole."""
    with archive.open(f"{name}.npy") as file:
        shape, is_fortran, dtype = _heading(file)
        if is_fortran or dtype.hasobject or len(shape) < _LEAST_AXES or shape[0] != rows:
            raise PackError(
                f"{path}: expected {name} to be images (N, H, W, C), as many as there are labels, {rows:,}, found "
                f"{dtype} of shape {shape}"
            )
        size = int(np.prod(shape[1:])) * dtype.itemsize
        together = max(1, _CHUNK_BYTES // size)
        for first in range(0, shape[0], together):
            count = min(together, shape[0] - first)
            data = file.read(count * size)
            yield from np.frombuffer(data, dtype, count * size // dtype.itemsize).reshape(count, *shape[1:])


def _whole(archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    with archive.open(f"{name}.npy") as file:
        array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
        return array


def _heading(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read the heading of an .npy file: shape, whether the first axis is innermost, dtype."""
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(file)
    if version not in read:
        raise ValueError(f"version {version} of its arrays")
    found: tuple[tuple[int, ...], bool, np.dtype[Any]] = read[version](file)
    return found
