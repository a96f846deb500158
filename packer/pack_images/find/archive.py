"""Pictures and labels in an .npz file. Each array of pictures has one of labels, and is read piece by piece."""

from __future__ import annotations

import math
import re
import zipfile
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pack_images.errors import PackError, reason
from pack_images.find.named import check_labels

_LEAST_AXES = 3  # of an array of images
_ENDING = ".npz"
_ARRAY = ".npy"
_CHUNK_BYTES = 16 << 20
_NUMBERS = "biuf"  # numpy's kinds of numbers
# Names of images, and of the labels that belong to them: x_train and y_train, train_images and train_labels. What
# remains of the name is the part.
_NAMES = (("images", "labels"), ("x", "y"), ("data", "labels"))
_LOAD = "load them with numpy.load and give them as arrays"


class _Array(NamedTuple):
    """What an .npy file says of its array."""

    shape: tuple[int, ...]
    is_fortran: bool  # whether the first axis is innermost
    dtype: np.dtype[Any]


def pictures_in(path: str) -> Iterator[tuple[NDArray[Any], Any, str, str]]:
    """Yield (picture, label, place, part) of an .npz file, as in `find.arrays.Item`.

    Raises:
        PackError: It is none, it is damaged, or its arrays are not pictures, each with labels.
    """
    if not path.endswith(_ENDING):
        raise PackError(f"{path}: expected arrays, or an .npz file of them; pack() packs folders of image files")
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = _arrays(archive)
            for images, labels, part in _parts(path, arrays):
                given = check_labels(_whole(path, archive, labels, arrays[labels]))
                _check_images(path, images, arrays[images], len(given))
                for index, picture in enumerate(_rows(archive, images, arrays[images])):
                    yield picture, given[index], f"{images}/{index}", part
    except (PackError, OSError):
        raise
    except Exception as error:  # zipfile, zlib and numpy raise unrelated types on damaged files
        raise PackError(
            f"{path}: expected an .npz file of arrays, found another or a damaged one ({reason(error)})"
        ) from error


def _arrays(archive: zipfile.ZipFile) -> dict[str, _Array]:
    """Return what the file says of each of its arrays, by name."""
    names = [name for name in archive.namelist() if name.endswith(_ARRAY)]
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise ValueError(f"{twice} is in it twice")
    found = {}
    for name in names:
        with archive.open(name) as file:
            found[name.removesuffix(_ARRAY)] = _heading(file)
    return found


def _parts(path: str, arrays: Mapping[str, _Array]) -> list[tuple[str, str, str]]:
    """Return (name of the images, name of the labels, part) of each pair of arrays.

    Raises:
        PackError: There is none, or images would be left out.
    """
    found = [(name, *partner) for name in arrays if (partner := _partner(name, arrays)) is not None]
    if not found:
        raise PackError(
            f"{path}: expected arrays such as x_train and y_train, or images and labels, found "
            f"{', '.join(arrays) or 'none'}; {_LOAD}"
        )
    used = Counter(name for images, labels, _ in found for name in (images, labels))
    several = next((labels for _, labels, _ in found if used[labels] > 1), None)
    if several is not None:
        of = " and ".join(images for images, labels, _ in found if labels == several)
        raise PackError(f"{path}: expected labels for each array of images, found {several} for {of}; {_LOAD}")
    left = [name for name, array in arrays.items() if len(array.shape) >= _LEAST_AXES and name not in used]
    if left:
        raise PackError(f"{path}: expected labels for each array of images, found none for {', '.join(left)}; {_LOAD}")
    return found


def _partner(name: str, arrays: Collection[str]) -> tuple[str, str] | None:
    """Return the name of the labels of an array, and its part; None if it has none. Upper case may differ."""
    words = re.split("([_-])", name)
    for images, labels in _NAMES:
        at = next((at for at, word in enumerate(words) if word.lower() == images), None)
        if at is None:
            continue
        same_case = labels.upper() if words[at].isupper() else labels.title() if words[at].istitle() else labels
        wanted = "".join([*words[:at], same_case, *words[at + 1 :]])
        alike = [other for other in arrays if other.lower() == wanted.lower()]
        if wanted in alike or len(alike) == 1:
            part = "_".join(word for other, word in enumerate(words[::2]) if other != at // 2)
            return wanted if wanted in alike else alike[0], part
    return None


def _check_images(path: str, name: str, array: _Array, labels: int) -> None:
    shape, is_fortran, dtype = array
    if dtype.kind not in _NUMBERS or len(shape) < _LEAST_AXES or 0 in shape[1:]:
        raise PackError(f"{path}: expected {name} to be images (N, H, W, C), found {dtype} of shape {shape}; {_LOAD}")
    if shape[0] != labels:
        raise PackError(f"{path}: expected a label for each of {shape[0]:,} {name}, found {labels:,}; {_LOAD}")
    if is_fortran:
        raise PackError(
            f"{path}: expected {name} in C order, row after row, found Fortran order; save "
            f"numpy.ascontiguousarray({name})"
        )


def _rows(archive: zipfile.ZipFile, name: str, array: _Array) -> Iterator[NDArray[Any]]:
    """Yield the rows of an array in a zip file, without reading it as a whole."""
    with _opened(archive, name, array) as file:
        size = math.prod(array.shape[1:]) * array.dtype.itemsize
        together = max(1, _CHUNK_BYTES // size)
        for first in range(0, array.shape[0], together):
            count = min(together, array.shape[0] - first)
            data = file.read(count * size)
            yield from np.frombuffer(data, array.dtype).reshape(count, *array.shape[1:])


def _whole(path: str, archive: zipfile.ZipFile, name: str, array: _Array) -> NDArray[Any]:
    if array.dtype.hasobject:
        raise PackError(
            f"{path}: expected {name} to be class numbers or texts, found objects; save {name}.astype(str) of texts"
        )
    with _opened(archive, name, array) as file:
        return np.frombuffer(file.read(), array.dtype).reshape(array.shape, order="F" if array.is_fortran else "C")


def _opened(archive: zipfile.ZipFile, name: str, array: _Array) -> IO[bytes]:
    """Open an array behind its heading. Its size is checked first, so that a damaged heading takes no memory."""
    file = archive.open(name + _ARRAY)
    _heading(file)
    there = archive.getinfo(name + _ARRAY).file_size - file.tell()
    if there != math.prod(array.shape) * array.dtype.itemsize:
        raise ValueError(f"{name} has {there:,} bytes for shape {array.shape}")
    return file


def _heading(file: IO[bytes]) -> _Array:
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(file)
    if version not in read:
        raise ValueError(f"version {version} of its arrays")
    return _Array(*read[version](file))
