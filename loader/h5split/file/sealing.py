"""Seals a pack: writes the HDF5 structure around pixels that are already in the file.

HDF5 allocates the data set `images` when it is created and never writes fill values, so it does not change the pixels.
format.py specifies the format. This is the only module that needs h5py.
"""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import quote

import h5py
import numpy as np
import xxhash
from numpy.typing import DTypeLike, NDArray

from h5split.errors import ArgumentError
from h5split.file.format import FORMAT, Block, encode, stored_dtype, version_of
from h5split.file.hdf5.seal import SEAL, SEAL_AT, SEAL_MARK, seal_checksum
from h5split.file.losses import LOSSES
from h5split.system.files import read_into, write_all
from h5split.system.interrupts import interrupts_held

_ALIGNMENT = 4096
_MAX_PART_BYTES = 16 << 20  # text is written in parts of this size, to limit memory


@dataclass(frozen=True)
class Tables:
    """All data of a pack except the pixels. Row *i* of each array belongs to image *i*.

    Attributes:
        labels: int32 (N,).
        class_names: K names. Here and below, bytes that are not UTF-8 are surrogate escapes.
        filenames: N paths.
        columns: Name -> N texts. The column `source` always exists.
        digests: uint8 (N, 32), SHA-256 of each source file.
        checksums: uint64 (N,), XXH3-64 of the pixels of each row.
        skipped: (filename, reason) of each file left out.
        settings: The settings of the packing, as values that JSON can represent.
        packed_by: Program or library -> version.
        losses: LOSSES (L,), the losses of pictures, in ascending order of rows.
    """

    labels: NDArray[np.int32]
    class_names: Sequence[str]
    filenames: Sequence[str]
    columns: Mapping[str, Sequence[str]]
    digests: NDArray[np.uint8]
    checksums: NDArray[np.uint64]
    settings: Mapping[str, Any]
    packed_by: Mapping[str, str]
    skipped: Sequence[tuple[str, str]] = field(default=())
    losses: NDArray[np.void] = field(default_factory=lambda: np.empty(0, LOSSES))


class _Parts(NamedTuple):
    """An array that is produced part by part, so that it need not be in memory as a whole."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    arrays: Iterator[NDArray[Any]]


def images_offset(stride: int) -> int:
    """The byte where the pixels begin in a file whose rows have `stride` bytes. The number of rows does not matter.

    It is a multiple of 4096. For rows of 4096 bytes or more it is 4096 itself. The type of the samples does not matter.

    HDF5 aligns every object of at least a given size. For shorter rows this size must be lower, so HDF5 aligns some
    metadata too. The space that metadata takes before the pixels is then measured with a small file in memory.
    """
    if stride >= _ALIGNMENT:
        return _ALIGNMENT
    with h5py.File(_create(io.BytesIO(), stride)) as file:
        return _write_images(file, (1, 1, 1, stride), np.dtype(np.uint8))


def seal(descriptor: int, shape: tuple[int, int, int, int], tables: Tables, dtype: DTypeLike = np.uint8) -> None:
    """Turn a file that holds pixels, beginning at byte `images_offset`, into a pack.

    The file is truncated after the pixels, and the HDF5 structure is written before and after them. The part before the
    pixels is written last, when everything else is on disk. So a file that begins with the HDF5 signature is complete.
    Sealing again gives the same bytes, so it can be repeated after a crash.

    Args:
        descriptor: A descriptor of the file, open for reading and writing. It stays open.
        shape: (N, H, W, C) of the pixels in the file.
        tables: All other data, N rows each.
        dtype: The type of the samples in the file: uint8, or little-endian uint16 or float32.

    Raises:
        ValueError: The samples are of another type.
        OSError: The disk is full, or the file system reports another error.
    """
    stored = stored_dtype(dtype)
    images = Block(images_offset(int(np.prod(shape[1:])) * stored.itemsize), stored, shape)
    os.ftruncate(descriptor, images.offset + images.nbytes)
    blank = _BlankFile(descriptor, images.offset)
    try:
        with interrupts_held():  # HDF5 cannot handle an exception, such as KeyboardInterrupt, in its callbacks
            _write_structure(blank, images, tables)
    except Exception as error:
        # HDF5 reports a failed callback in its own words. The error of the callback itself says more.
        raise blank.error or error from None
    if blank.error is not None:
        raise blank.error
    os.fsync(descriptor)
    _seal_metadata(descriptor, blank.head, images.offset + images.nbytes, blank.metadata_end)
    write_all(descriptor, memoryview(blank.head), 0)


def _seal_metadata(descriptor: int, head: bytearray, start: int, end: int) -> None:
    """Put the checksum of all metadata into bytes of the first page that HDF5 does not use.

    Args:
        descriptor: A descriptor of the file.
        head: The bytes before the pixels.
        start: Where the metadata behind the pixels begin.
        end: Where they end.
    """
    metadata = bytearray(end - start)
    read_into(descriptor, memoryview(metadata), start)
    mark = SEAL.pack(SEAL_MARK, start, end - start, seal_checksum(head, metadata))
    if not any(head[SEAL_AT : SEAL_AT + len(mark)]):
        head[SEAL_AT : SEAL_AT + len(mark)] = mark


def _write_structure(blank: _BlankFile, images: Block, tables: Tables) -> None:
    """Write all metadata, and behind them the tables, so that few reads find all metadata."""
    with h5py.File(_create(blank, int(np.prod(images.shape[1:])) * images.dtype.itemsize)) as file:
        if _write_images(file, images.shape, images.dtype) != images.offset:
            raise RuntimeError(f"HDF5 placed images elsewhere than at byte {images.offset}")
        made = [(_created(file, name, parts), parts.arrays) for name, parts in _arrays(tables)]
        file.attrs["format"] = np.bytes_(FORMAT.encode())
        file.attrs["version"] = np.int32(version_of(images.dtype, images.shape[3]))
        file.attrs["settings"] = np.bytes_(json.dumps(dict(tables.settings), sort_keys=True).encode())
        file.attrs["packed_by"] = np.bytes_(json.dumps(dict(tables.packed_by), sort_keys=True).encode())
        file.attrs["tables_checksum"] = np.uint64(0)
        file.flush()  # now all metadata have a place
        blank.metadata_end = file.id.get_filesize()
        checksum = xxhash.xxh3_64()
        for table, arrays in made:  # HDF5 allocates a table when it is written to
            for part in _written(table, arrays):
                checksum.update(np.ascontiguousarray(part).view(np.uint8).data)
        file.attrs.modify("tables_checksum", np.uint64(checksum.intdigest()))


def _arrays(tables: Tables) -> Iterator[tuple[str, _Parts]]:
    """Every data set except `images`, in the order in which `tables_checksum` covers them."""
    yield "labels", _whole(np.asarray(tables.labels, "<i4"))
    yield "class_names", _fixed_length(tables.class_names)
    yield "filenames", _fixed_length(tables.filenames)
    columns = {_stored_name(name): column for name, column in tables.columns.items()}
    for name in sorted(columns, key=encode):
        yield f"columns/{name}", _fixed_length(columns[name])
    yield "digests", _whole(np.asarray(tables.digests, "u1"))
    yield "checksums", _whole(np.asarray(tables.checksums, "<u8"))
    yield "skipped/filenames", _fixed_length([name for name, _ in tables.skipped])
    yield "skipped/reasons", _fixed_length([reason for _, reason in tables.skipped])
    for name in (LOSSES.names or ()) if len(tables.losses) else ():
        yield f"losses/{name}", _whole(np.ascontiguousarray(tables.losses[name]))


class _BlankFile(io.RawIOBase):
    """A file that looks empty to HDF5 although it holds pixels. HDF5 then creates a new file around them.

    Args:
        descriptor: A descriptor of the file.
        head: The number of bytes at the beginning that are kept in memory and not written.

    Attributes:
        head: Those bytes, for the caller to write last.
        error: The first error of a write or truncation. HDF5 does not pass it on.
        metadata_end: The byte behind all metadata. Behind it there are tables only.
    """

    def __init__(self, descriptor: int, head: int) -> None:
        self.head = bytearray(head)
        self.metadata_end = 0
        self.error: OSError | None = None
        self._descriptor = descriptor
        self._position = 0
        self._end = 0  # the end of the file as HDF5 sees it; the real file is longer

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._end}[whence]
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        kept = self.head[self._position : self._position + len(view)]
        view[: len(kept)] = kept
        count = len(kept) + read_into(self._descriptor, view[len(kept) :], self._position + len(kept))
        self._position += count
        return count

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        kept = max(0, min(len(view), len(self.head) - self._position))
        self.head[self._position : self._position + kept] = view[:kept]
        try:
            write_all(self._descriptor, view[kept:], self._position + kept)
        except OSError as error:
            self.error = self.error or error
            raise
        self._position += len(view)
        self._end = max(self._end, self._position)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        self._end = self._position if size is None else size
        try:
            os.ftruncate(self._descriptor, self._end)
        except OSError as error:
            self.error = self.error or error
            raise
        return self._end


def _create(file: io.RawIOBase | io.BytesIO, stride: int) -> h5py.h5f.FileID:
    """Create an HDF5 file, without time stamps, in which objects of `stride` bytes or more are aligned."""
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_fileobj_driver(h5py.h5fd.fileobj_driver, file)
    access.set_libver_bounds(h5py.h5f.LIBVER_V18, h5py.h5f.LIBVER_V18)
    access.set_alignment(min(_ALIGNMENT, stride), _ALIGNMENT)
    creation = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    creation.set_obj_track_times(False)
    return h5py.h5f.create(b"pack", h5py.h5f.ACC_TRUNC, creation, access)


def _write_images(file: h5py.File, shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    """Create the data set `images` without writing to it, and return its offset in the file."""
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_layout(h5py.h5d.CONTIGUOUS)
    layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    layout.set_obj_track_times(False)
    space = h5py.h5s.create_simple(shape)
    images = h5py.Dataset(h5py.h5d.create(file.id, b"images", h5py.h5t.py_create(dtype), space, layout))
    for axis, label in enumerate("NHWC"):
        images.dims[axis].label = label
    return int(images.id.get_offset())


def _created(file: h5py.File, name: str, parts: _Parts) -> h5py.Dataset:
    """Create a data set without writing to it, and so without space in the file."""
    head, _, tail = name.rpartition("/")
    group = file
    if head:
        if head not in file:
            creation = h5py.h5p.create(h5py.h5p.GROUP_CREATE)
            creation.set_obj_track_times(False)
            h5py.h5g.create(file.id, head.encode(), gcpl=creation)
        group = file[head]
    return group.create_dataset(encode(tail), parts.shape, parts.dtype, track_times=False)


def _written(table: h5py.Dataset, arrays: Iterator[NDArray[Any]]) -> Iterator[NDArray[Any]]:
    """Write a data set part by part, and yield each part after it is written."""
    start = 0
    for part in arrays:
        table[start : start + len(part)] = part
        start += len(part)
        yield part


def _stored_name(name: str) -> str:
    """The name of a column as it is stored: characters that HDF5 treats specially are percent-encoded, as in a URL."""
    if not name:
        raise ArgumentError("columns: expected a name, found an empty one")
    if name == ".":
        return "%2E"
    return re.sub("[/%\0\udc80-\udcff]", lambda found: quote(found[0], safe="", errors="surrogateescape"), name)


def _whole(array: NDArray[Any]) -> _Parts:
    return _Parts(array.shape, array.dtype, iter([array]))


def _fixed_length(texts: Sequence[str]) -> _Parts:
    """Texts as an array of fixed-length UTF-8: bytes_ (N,).

    It is produced in parts, because every element is as long as the longest text. One long text makes the array huge.
    """
    is_ascii = all(map(str.isascii, texts))
    longest = max(map(len, texts if is_ascii else map(encode, texts)), default=1)
    dtype = h5py.string_dtype("utf-8", max(1, longest))
    step = max(1, _MAX_PART_BYTES // dtype.itemsize)
    chunks = (texts[first : first + step] for first in range(0, len(texts), step))
    return _Parts((len(texts),), dtype, (np.array([encode(text) for text in chunk], dtype) for chunk in chunks))
