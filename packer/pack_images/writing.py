"""The function write(): a pack of pictures that are no files but arrays, or that come one after another."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from h5split.file.losses import LOSSES, Loss
from h5split.file.newpack import CHUNK_BYTES, new_pack
from h5split.file.sealing import Tables
from h5split.system.arrays import plain
from pack_images.decode.held import COLOR_OF_CHANNELS, Picture, as_picture, color_of, decode_held, is_stored_as_it_is
from pack_images.errors import DecodeError, PackError, SizeError, one_root
from pack_images.find.arrays import Item, items_of
from pack_images.find.classes import read_classes
from pack_images.find.described import SOURCE, Described, described
from pack_images.find.named import check_labels, named
from pack_images.find.sources import PackedRow, Sources
from pack_images.find.values import length_of
from pack_images.options import settings_of
from pack_images.output import output_path
from pack_images.plan import Plan, check_columns, plan
from pack_images.settings import DTYPES, Color, DType, Fit, Interpolation, Pixels
from pack_images.summary import Summary, summary_of
from pack_images.versions import packed_by

_SPLIT = "split"  # the column of the parts of an .npz file
_BATCH_AXES = 4  # of an array (N, H, W, C)


@dataclass
class _Given:
    """The pictures as rows, in the order in which they were given.

    Attributes:
        rows: (N, H, W, C), of the stored type.
        labels: A number, a name or None for each.
        places: Where each was found; see `Item`.
        parts: The part of the data set of each; see `Item`.
        losses: What was lost, by the number of the picture.
    """

    rows: NDArray[Any]
    labels: list[Any] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)
    losses: dict[int, Loss] = field(default_factory=dict)


def write(
    output: str | os.PathLike[str],
    images: str | os.PathLike[str] | Iterable[Any],
    labels: Iterable[Any] | None = None,
    *,
    class_names: Sequence[str] | Mapping[str, int] | None = None,
    filenames: Iterable[Any] | None = None,
    columns: Mapping[str, Iterable[Any]] | None = None,
    size: int | tuple[int, int] | None = None,
    fit: Fit = "stretch",
    interpolation: Interpolation | None = None,
    color: Color | None = None,
    dtype: DType | None = None,
    background: str | tuple[int, int, int] | None = None,
    order: Literal["stratified", "given"] = "stratified",
    seed: int = 0,
) -> Summary:
    """Make a pack of pictures that are no files.

    For example:

        (images, labels), _ = keras.datasets.cifar10.load_data()
        write("cifar10.h5", images, labels, class_names=["airplane", "automobile", ...])
        write("flowers.h5", torchvision_dataset, class_names=torchvision_dataset.classes, size=224)

    Pictures are taken one after another and kept in a temporary file beside the output, so memory does not limit their
    number. The digest of a row is the SHA-256 of its pixels. The column `source` says what the pictures came from. The
    file appears under its name when it is whole; a pack that is there is replaced.

    Args:
        output: The file to make.
        images: An array (N, H, W) or (N, H, W, C) of uint8, uint16 or float32. Or an iterable of pictures or of
            (picture, label), where a picture is such an array without N, or an image of Pillow's. One that Pillow has
            opened but not loaded is taken from its file, as `pack` takes it. Or the path of an .npz file of such arrays
            with their labels, such as x_train and y_train; the column `split` tells its parts.
        labels: A class number from 0, or a class name, for each picture. None: they come with the pictures, or there
            are none, and all are of the one class `unlabelled`.
        class_names: The name of each class number, or a dict of name -> number. None: numbers are their own names;
            names are sorted.
        filenames: A name for each picture, each once. None: the name of the output and the number of the picture.
        columns: Name -> a text or number for each picture. A pandas DataFrame is such a table.
        size: Stored (width, height), or one number for both. None: all pictures have the same size already.
        fit: As for `pack`.
        interpolation: As for `pack`.
        color: As for `pack`. None: as the pictures are, which must be alike.
        dtype: As for `pack`. None: as the pictures are.
        background: As for `pack`.
        order: `stratified`, as for `pack`; or `given`.
        seed: Seed of the stratified order.

    Raises:
        PackError: A picture, a label or an option is invalid, or their numbers differ. Nothing is written.
        OSError: The disk is full, or the folder takes no files.
    """
    started = time.monotonic()
    with one_root():
        path = output_path(output)
        if order not in ("stratified", "given"):
            raise PackError(f"order: expected stratified or given, found {order!r}")
        how = settings_of(
            size,
            fit=fit,
            interpolation=interpolation,
            color=color or "rgb",
            dtype=dtype or "uint8",
            background=background,
            labels="none",
            order="sorted" if order == "given" else order,
            seed=seed,
        )
        listed = None if class_names is None else read_classes(class_names)
        about = described(filenames, columns)
        _check_lengths(images, labels, listed, about)
        with _Spool(path) as spool:
            choice = _Choice(how.pixels, color, dtype)
            given, pixels = _rows_of(images, labels, choice, about, spool)
            names, classes = named(given.labels, listed)
            sources = _sources(path, images, names, given, about)
            _, *shape = given.rows.shape
            planned = plan(sources, replace(how, pixels=pixels, classes=classes), (shape[0], shape[1], shape[2]))
            tables = _write(path, planned, given, order)
        seconds = time.monotonic() - started
        return summary_of(tables, path, planned.shape, warnings=planned.warnings, decoded=len(planned), seconds=seconds)


class _Spool:
    """Rows in a temporary file beside the output, which takes no name and vanishes when it is closed.

    Args:
        path: The output.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._size = 0
        try:
            folder = os.path.dirname(path) or os.curdir
            self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - closed by __exit__
        except OSError as error:  # with a name that says nothing to the user
            raise OSError(error.errno, error.strerror, path) from None

    def __enter__(self) -> _Spool:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def append(self, row: NDArray[Any]) -> None:
        data = np.ascontiguousarray(row).reshape(-1).view(np.uint8).data
        try:
            while data:
                written = self._file.write(data)
                data, self._size = data[written:], self._size + written
        except OSError as error:
            room = f"{error.strerror}: expected room for all images, found some for {self._size:,} bytes"
            raise OSError(error.errno, room, self._path) from error

    def rows(self, count: int, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
        return np.memmap(self._file, dtype, "r", shape=(count, *shape))


def _check_lengths(images: Any, labels: Any, classes: tuple[str, ...] | None, about: Described) -> None:
    """Check what needs no picture before any is taken, as far as its length is known."""
    check_columns(about.columns)
    count = None if isinstance(images, str | os.PathLike) else length_of(images)
    about.check(count)
    number = length_of(labels)
    if number is None:
        return
    found = [*check_labels(labels)]
    if count is not None and count != number:
        raise PackError(f"labels: expected one for each of {count:,} images, found {number:,}")
    named(found, classes)


@dataclass(frozen=True)
class _Choice:
    """How pictures become rows, as far as the user says; the rest is as the pictures are.

    Attributes:
        how: All settings, with defaults for the other two.
        color: None: as the pictures are.
        dtype: None: as the pictures are.
    """

    how: Pixels
    color: Color | None
    dtype: DType | None

    def of(self, picture: Picture) -> Pixels:
        """Return the settings for a picture."""
        own: Any = "uint8" if isinstance(picture, Image.Image) else picture.dtype.name
        return replace(self.how, color=self.color or color_of(picture), dtype=self.dtype or own)


def _rows_of(images: Any, labels: Any, choice: _Choice, about: Described, spool: _Spool) -> tuple[_Given, Pixels]:
    """Return the pictures as rows, and how they were made. An array that can be stored as it is stays in place."""
    if isinstance(images, np.ndarray) and images.dtype.name in DTYPES and images.ndim in (_BATCH_AXES - 1, _BATCH_AXES):
        array = plain("images", images)
        rows = array if array.ndim == _BATCH_AXES else array[..., np.newaxis]
        rows = rows.astype(rows.dtype.newbyteorder("="), copy=False)
        is_named = choice.color == "all" or rows.shape[3] in COLOR_OF_CHANNELS
        own = choice.of(rows[0]) if rows.size and is_named else choice.how
        if rows.size and is_named and is_stored_as_it_is(rows.shape[1:], rows.dtype, own):
            found = [None] * len(rows) if labels is None else [*check_labels(labels)]
            if len(found) != len(rows):
                raise PackError(f"labels: expected one for each of {len(rows):,} images, found {len(found):,}")
            return _Given(rows, found, [*map(str, range(len(rows)))], [""] * len(rows)), own
    return _spooled(items_of(images, labels), choice, about, spool)


def _spooled(items: Iterator[Item], choice: _Choice, about: Described, spool: _Spool) -> tuple[_Given, Pixels]:
    """Write the pictures to a file as rows, one after another."""
    given = _Given(np.empty(0, np.uint8))
    shape: tuple[int, ...] = ()
    for index, item in enumerate(items):
        about.check_room(index)
        try:
            picture = as_picture(item.picture, any_bands=choice.color == "all")
            own = choice.of(picture)
            row, loss = decode_held(picture, own)
            if not shape:
                first, shape = own, row.shape
            if own != first or row.shape != shape:
                raise SizeError(_other_kind(own, row, first, shape))
        except DecodeError as error:
            raise DecodeError(f"image {index}: {error}") from error
        except SizeError as error:
            raise SizeError(f"image {index}: {error}") from error
        spool.append(row)
        given.labels.append(item.label)
        given.places.append(item.place)
        given.parts.append(item.part)
        if loss is not None:
            given.losses[index] = loss
    if not shape:
        raise PackError("images: expected one or more, found none")
    given.rows = spool.rows(len(given.labels), shape, first.dtype)
    return given, first


def _other_kind(own: Pixels, row: NDArray[Any], first: Pixels, shape: tuple[int, ...]) -> str:
    if own.dtype != first.dtype:
        return f"expected {first.dtype}, as the first image is, found {own.dtype}; give dtype= for all"
    if own.color != first.color:
        return f"expected {first.color}, as the first image is, found {own.color}; give color= for all"
    if row.shape[2] != shape[2]:
        return f"expected {shape[2]} channels, as the first image has, found {row.shape[2]}; give color= for all"
    sizes = f"{shape[1]}x{shape[0]}, as the first image is, found {row.shape[1]}x{row.shape[0]}"
    return f"expected {sizes}; give size= to scale them"


def _sources(path: str, images: Any, labels: list[str], given: _Given, about: Described) -> Sources:
    """Return the table of the pictures: names, labels and columns. The path of a picture is its number."""
    is_archive = isinstance(images, (str, os.PathLike))
    found = os.fsdecode(images) if is_archive else _type_name(images)
    stem = found.replace(os.sep, "/") if is_archive else os.path.splitext(os.path.basename(path))[0]
    names = about.names(len(labels)) or [f"{stem}/{place}" for place in given.places]
    parts = {_SPLIT: given.parts} if any(given.parts) else {}
    if _SPLIT in about.columns and parts:
        raise PackError("columns: expected another name than split, which tells the parts of the file; rename it")
    texts = about.texts(len(labels))
    numbers: list[str | PackedRow] = [*map(str, range(len(labels)))]
    return Sources(names, labels, numbers, {SOURCE: [found] * len(labels), **parts, **texts})


def _type_name(images: object) -> str:
    kind = type(images)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _write(path: str, planned: Plan, given: _Given, order: str) -> Tables:
    """Write the rows in their order, and the tables around them."""
    rows = np.array([int(str(number)) for number in planned.sources.paths])
    digests = np.empty((len(rows), 32), np.uint8)
    checksums = np.empty(len(rows), np.uint64)
    step = max(1, CHUNK_BYTES // planned.stride)
    with new_pack(path, planned.shape, len(rows), planned.settings.pixels.dtype) as pack:
        for first in range(0, len(rows), step):
            block = np.ascontiguousarray(given.rows[rows[first : first + step]])
            checksums[first : first + step] = pack.append(block)
            for at, row in enumerate(block, start=first):
                digests[at] = np.frombuffer(hashlib.sha256(row.data).digest(), np.uint8)
        tables = Tables(
            labels=planned.labels,
            class_names=planned.class_names,
            filenames=planned.sources.filenames,
            columns=planned.sources.columns,
            digests=digests,
            checksums=checksums,
            settings=planned.settings.as_json() | {"labels": "given", "order": order},
            packed_by=packed_by(),
            losses=_losses(given.losses, rows),
        )
        pack.seal(tables)
    return tables


def _losses(losses: Mapping[int, Loss], rows: NDArray[np.int64]) -> NDArray[np.void]:
    """Return the losses by row: LOSSES (L,)."""
    at = [row for row, image in enumerate(rows.tolist()) if image in losses] if losses else []
    found = [losses[int(rows[row])] for row in at]
    values = [(row, loss.kinds, loss.bits, loss.levels, loss.kept) for row, loss in zip(at, found, strict=True)]
    return np.array(values, LOSSES)
