"""The file format, version 1: an HDF5 file that stores all pixels as one contiguous block.

N is the number of images (rows). H, W and C are height, width and channels of each image. K is the number of classes,
M the number of files that were left out, and L the number of rows with a loss.

===================  =====================  ==========================================================
object               type, shape            meaning
===================  =====================  ==========================================================
images               uint8 (N, H, W, C)     the pixels; the dimension labels are N, H, W, C
labels               int32 (N,)             the class of each row, as an index into class_names
class_names          fixed UTF-8 (K,)       the distinct class names in the order of their numbers. They are sorted,
                                            unless the user gave an order. A class may have no images.
filenames            fixed UTF-8 (N,)       the path of each source file as given, with ``/`` as separator
columns/source       fixed UTF-8 (N,)       the SOURCE argument that each row came from
columns/NAME         fixed UTF-8 (N,)       each further column of a manifest. In the stored NAME, ``/``, ``%`` and
                                            bytes that are not UTF-8 are percent-encoded.
digests              uint8 (N, 32)          SHA-256 of the bytes of each source file
checksums            uint64 (N,)            XXH3-64 of the pixels of each row
skipped/filenames    fixed UTF-8 (M,)       the files that were left out
skipped/reasons      fixed UTF-8 (M,)       the reason for each
losses/rows          int64 (L,)             the rows whose picture lost information when it was packed, ascending
losses/kinds         uint8 (L,)             the kinds of loss, as a sum. 1: integers of more than 8 bits were cut to 8.
                                            2: floats were cut to 8 bits. 4: only the first of several pages or frames
                                            was taken. 8: transparency was laid on black, and only one colour is left.
losses/bits          uint8 (L,)             bits per sample in the source file if samples were cut (kinds 1 and 2),
                                            else 0
losses/levels        uint32 (L,)            the number of different sample values in the source file, counted up to
                                            2**20; 0 if they were not counted
losses/kept          uint16 (L,)            the number of different values left in the row; 0 if not counted
===================  =====================  ==========================================================

The root group has the following attributes. Text attributes have a fixed-length type.

- ``format``: the text "packed-images".
- ``version``: the integer 1.
- ``settings``: a JSON object, the settings of the packing.
- ``packed_by``: a JSON object, program or library -> version.
- ``tables_checksum``: uint64, optional. XXH3-64 of the bytes of every data set except ``images``, concatenated in the
  order of the table above. Columns are in the order of their stored names.

The group ``losses`` exists only if a picture lost something, so L is at least 1. Bits of ``losses/kinds`` that are not
listed above are reserved for losses that later versions record.

Every data set is contiguous and has no filters. Integers are little-endian. ``images`` begins at a multiple of 4096; if
a row has 4096 bytes or more, it begins at 4096 itself. So row *i* begins at ``offset + i * H * W * C``, and the whole
file can be read through a memory map.

The library version bound is v108: metadata has checksums, and a crash leaves no open-for-write flag in the file. The
file contains no time stamps, so the same contents give the same bytes.

Names that are not UTF-8 are stored as their original bytes. Python reads them with ``surrogateescape``.

`read` checks this structure before any pixel is read. It returns a descriptor to map, and a header that says where each
array begins. sealing.py writes the format.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, BinaryIO
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from h5split.file.hdf5.file import File
from h5split.file.hdf5.headers import DataSet, Object
from h5split.file.hdf5.metadata import NoHdf5Error
from h5split.file.losses import LOSSES

FORMAT = "packed-images"
VERSION = 1
DIGEST_SIZE = 32

_TEXT = np.dtype("S")  # fixed-length text of any length
_CHUNK_ROWS = 1 << 20  # rows of `losses` that are checked at a time, to limit memory


class FormatError(ValueError):
    """The file is not a pack, or not one that this version can read."""


class NotAPackError(FormatError):
    """The file is something other than a pack. It is not a damaged pack."""


@dataclass(frozen=True)
class Block:
    """The place and type of one array in the file: `shape` items of `dtype`, beginning at byte `offset`."""

    offset: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """The size in bytes, as a Python integer: numbers in a damaged file could overflow an int64."""
        count = self.dtype.itemsize
        for length in self.shape:
            count *= length
        return count


@dataclass(frozen=True)
class Header:
    """The metadata of a pack: everything except its rows.

    Attributes:
        losses: Field of `losses.LOSSES` -> its data set; empty if nothing was lost.
        tables: Name in the file -> data set, for every data set except `images`, in the order of `tables_checksum`.
        tables_checksum: XXH3-64 of the bytes of `tables`; None if the file has no such attribute.
        size: The size of the file in bytes.
        status: The result of fstat before the file was read.
    """

    images: Block
    labels: Block
    filenames: Block
    digests: Block
    checksums: Block
    columns: Mapping[str, Block]
    skipped_filenames: Block
    skipped_reasons: Block
    losses: Mapping[str, Block]
    class_names: tuple[str, ...]
    settings: Mapping[str, Any]
    packed_by: Mapping[str, str]
    tables: Mapping[str, Block]
    tables_checksum: int | None
    size: int
    status: os.stat_result


def encode(text: str) -> bytes:
    """Text as bytes in the file: UTF-8, with surrogate escapes turned back into the original bytes."""
    return text.encode("utf-8", "surrogateescape")


def decode(raw: bytes) -> str:
    """The inverse of `encode`."""
    return raw.decode("utf-8", "surrogateescape")


def read(path: str | os.PathLike[str]) -> tuple[int, Header]:
    """Check a pack and return an open descriptor and its header. The caller maps and closes the descriptor.

    The header is read through the same descriptor, and every block in it lies inside the file. On systems with file
    locks, writers are locked out while the descriptor or a map of it is open.

    Raises:
        FileNotFoundError: There is no such file.
        FormatError: The file is not a pack, is damaged, or has a newer version; the message says which.
    """
    path = os.fspath(path)
    descriptor = _open(path)
    try:
        with _errors_with_path(path):
            _lock(descriptor)
        header = header_of(descriptor, path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, header


def header_of(descriptor: int, path: str) -> Header:
    """Check a pack that is open for reading, and return its header. Errors name `path`.

    Raises:
        FormatError: The file is not a pack, is damaged, or has a newer version.
    """
    with _errors_with_path(path):
        return _header(File(descriptor))


def is_pack(file: BinaryIO) -> bool:
    """Whether an open file is an intact pack that nobody is writing to. `replace.check_replaceable` calls this.

    Raises:
        ValueError: It is damaged, or cannot be distinguished from a damaged pack.
        OSError: It cannot be read.
    """
    try:
        _lock(file.fileno())
        _header(File(file.fileno()))
    except (NotAPackError, NoHdf5Error):
        return False
    except RecursionError as error:
        raise FormatError("nested too deeply") from error
    return True


def _open(path: str) -> int:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # open() of a pipe would wait for a writer
            if os.path.isdir(path):
                found = f"a folder; pack-images {path} -o OUT.h5 packs it"
            else:
                found = "something that is no file; copy it into one"
            raise FormatError(f"{path}: expected a pack, found {found}")
        return os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: there is no such file; pack-images SOURCE... -o {path} makes one") from None


def _lock(descriptor: int) -> None:
    """Take a shared lock. Any number of readers may have one; HDF5 takes an exclusive lock while it writes.

    File systems without locks are no error: the pack is then read without one.
    """
    with contextlib.suppress(ImportError, OSError):
        import fcntl

        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FormatError(
                "expected a pack, but another process is writing to it; try again when it has finished"
            ) from error


@contextlib.contextmanager
def _errors_with_path(path: str) -> Iterator[None]:
    """Add the path to errors, once, and turn errors that damaged metadata cause into a FormatError."""
    try:
        yield
    except FormatError as error:
        raise type(error)(f"{path}: {_printable(error)}") from None
    except NoHdf5Error as error:
        raise NotAPackError(
            f"{path}: expected a pack, but {_printable(error)}; packs are made by pack-images"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise FormatError(
            f"{path}: damaged, or not as pack-images makes it ({_printable(error)}); copy it again, or pack again"
        ) from error


def _printable(error: Exception) -> str:
    """The message of an error as one printable line: it may quote a name from the file with control characters."""
    line = " ".join(str(error).split())
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in line)


def _header(file: File) -> Header:
    version = _version(file.root)
    if version != VERSION:
        raise FormatError(
            f"expected version {VERSION}, found version {version}; upgrade with: pip install --upgrade pack-images"
        )
    images = _block(file, "images", np.dtype("u1"), 4)
    if 0 in images.shape:
        raise FormatError(f"images: expected pixels, found shape {images.shape}")
    tables = _tables(file, images.shape[0])
    header = Header(
        images=images,
        labels=tables["labels"],
        filenames=tables["filenames"],
        digests=tables["digests"],
        checksums=tables["checksums"],
        columns={
            unquote(name.removeprefix("columns/"), errors="surrogateescape"): block
            for name, block in tables.items()
            if name.startswith("columns/")
        },
        skipped_filenames=tables["skipped/filenames"],
        skipped_reasons=tables["skipped/reasons"],
        losses={name.removeprefix("losses/"): block for name, block in tables.items() if name.startswith("losses/")},
        class_names=tuple(decode(name) for name in _array(file, tables["class_names"]).tolist()),
        settings=_json(file.root, "settings"),
        packed_by=_json(file.root, "packed_by"),
        tables=tables,
        tables_checksum=_tables_checksum(file.root),
        size=file.size,
        status=file.status,
    )
    if header.digests.shape[1] != DIGEST_SIZE:
        raise FormatError(f"digests: expected {DIGEST_SIZE} bytes a row, found {header.digests.shape[1]}")
    if header.skipped_filenames.shape != header.skipped_reasons.shape:
        raise FormatError("skipped: expected a reason for each filename")
    _check_overlap([images, *tables.values()])
    if header.losses:
        _check_losses(file, header.losses, images.shape[0])
    return header


def _tables(file: File, rows: int) -> dict[str, Block]:
    """Every data set except `images`, in the order in which `tables_checksum` covers them."""
    return {
        "labels": _block(file, "labels", np.dtype("<i4"), 1, rows),
        "class_names": _block(file, "class_names", _TEXT, 1),
        "filenames": _block(file, "filenames", _TEXT, 1, rows),
        **{f"columns/{name}": _block(file, f"columns/{name}", _TEXT, 1, rows) for name in _members(file, "columns")},
        "digests": _block(file, "digests", np.dtype("u1"), 2, rows),
        "checksums": _block(file, "checksums", np.dtype("<u8"), 1, rows),
        "skipped/filenames": _block(file, "skipped/filenames", _TEXT, 1),
        "skipped/reasons": _block(file, "skipped/reasons", _TEXT, 1),
        **_loss_tables(file),
    }


def _loss_tables(file: File) -> dict[str, Block]:
    """The data sets of the group `losses`; none if the pack has no such group."""
    if b"losses" not in file.root.links:
        return {}
    types = {f"losses/{name}": LOSSES[name] for name in LOSSES.names or ()}
    return {name: _block(file, name, dtype, 1) for name, dtype in types.items()}


def _check_losses(file: File, losses: Mapping[str, Block], rows: int) -> None:
    """Raise unless the rows exist, ascend without repetition, and each has at least one kind of loss."""
    (length,) = losses["rows"].shape
    if length == 0 or any(block.shape != (length,) for block in losses.values()):
        raise FormatError("losses: expected tables of one length, of 1 or more")
    last = -1
    for start in range(0, length, _CHUNK_ROWS):
        found = _items(file, losses["rows"], start, _CHUNK_ROWS)
        if found[0] <= last or found[-1] >= rows or (found[1:] <= found[:-1]).any():
            raise FormatError(f"losses/rows: expected rows from 0 to {rows - 1}, ascending; copy the file again")
        if not _items(file, losses["kinds"], start, _CHUNK_ROWS).all():
            raise FormatError("losses/kinds: expected a loss for each row, found none; copy the file again")
        last = int(found[-1])


def _items(file: File, block: Block, start: int, count: int) -> NDArray[Any]:
    """Up to `count` items of a one-dimensional table, beginning with item `start`."""
    width, count = block.dtype.itemsize, min(count, block.shape[0] - start)
    return np.frombuffer(file.data(block.offset + start * width, count * width), block.dtype, count)


def _tables_checksum(root: Object) -> int | None:
    return _integer(root, "tables_checksum") if b"tables_checksum" in root.attributes else None


def _version(root: Object) -> int:
    value = _value(root, "format")
    if value == FORMAT.encode():
        return _integer(root, "version")
    if value is None and b"format" in root.attributes:  # h5py stores a str as variable-length text
        raise NotAPackError(
            f"expected a pack (attribute format = {FORMAT!r} as fixed-length text), found {_found(root, 'format')} "
            f"in it; if it says so, write it with h5py as numpy.bytes_({FORMAT!r}), and settings and packed_by likewise"
        )
    says = "" if value is None else f" of format {decode(value[:40]) if isinstance(value, bytes) else value!r}"
    raise NotAPackError(
        f"expected a pack (attribute format = {FORMAT!r}), found another HDF5 file{says}; packs are made by pack-images"
    )


def _integer(root: Object, name: str) -> int:
    value = _value(root, name)
    if not isinstance(value, int):
        raise FormatError(f"attribute {name}: expected an integer, found {_found(root, name)}")
    return value


def _text(root: Object, name: str) -> str:
    value = _value(root, name)
    if not isinstance(value, bytes):
        raise FormatError(
            f"attribute {name}: expected fixed-length text, found {_found(root, name)}; "
            "h5py writes a numpy.bytes_ as such, and a str as variable-length data"
        )
    return value.decode()


def _value(root: Object, name: str) -> int | bytes | None:
    """The value of an attribute that is one integer or one text; None if it is missing or something else."""
    attribute = root.attributes.get(name.encode())
    if attribute is None or attribute.shape != () or attribute.type.dtype.kind not in "iuS":
        return None
    value: int | bytes = np.frombuffer(attribute.data, attribute.type.dtype, 1).tolist()[0]
    return value


def _found(root: Object, name: str) -> str:
    """A description of an attribute for an error message."""
    attribute = root.attributes.get(name.encode())
    if attribute is None:
        return "none"
    if attribute.shape is None:
        return "no value"
    return attribute.type.name if attribute.shape == () else f"{attribute.type.name} of shape {attribute.shape}"


def _json(root: Object, name: str) -> dict[str, Any]:
    value = json.loads(_text(root, name))
    if not isinstance(value, dict):
        raise FormatError(f"attribute {name}: expected a JSON object, found {type(value).__name__}")
    return value


def _members(file: File, group: str) -> list[str]:
    """The names in a group, sorted by their bytes."""
    if not (member := _member(file, group)).is_group:
        raise FormatError(f"{group}: expected a group")
    return [decode(name) for name in sorted(member.links)]


def _member(file: File, name: str) -> Object:
    """The group or data set at a path. Only hard links are followed: other links may lead into another file."""
    head, _, tail = name.rpartition("/")
    group = _member(file, head) if head else file.root
    if not group.is_group:
        raise FormatError(f"{head}: expected a group")
    if encode(tail) not in group.links:
        raise FormatError(f"{name} is missing; copy the file again, or pack again")
    address = group.links[encode(tail)]
    if address is None:
        raise FormatError(f"{name}: expected a data set in this file, found a link that leads elsewhere")
    return file.object(address)


def _block(file: File, name: str, dtype: np.dtype[Any], rank: int, rows: int | None = None) -> Block:
    """The place of one data set. Raise a FormatError if it is not stored as plain bytes in this file."""
    member = _member(file, name)
    if not member.is_data_set:
        raise FormatError(f"{name}: expected a data set, found {'a group' if member.is_group else 'something else'}")
    found = member.data_set
    if found.storage != "contiguous":
        raise FormatError(
            f"{name}: expected plain bytes in this file, found {found.storage} storage; pack again with pack-images"
        )
    if found.type.dtype != dtype and not (dtype == _TEXT and found.type.dtype.kind == "S"):
        raise FormatError(
            f"{name}: expected {dtype if dtype != _TEXT else 'fixed-length text'}, found {found.type.name}"
        )
    if found.shape is None or len(found.shape) != rank or (rows is not None and found.shape[0] != rows):
        expected = f"{rank} dimensions" if rows is None else f"{rows} rows, as images has"
        raise FormatError(f"{name}: expected {expected}, found shape {found.shape}")
    block = Block(found.offset or 0, found.type.dtype, found.shape)
    _check_place(name, block, found, file.size)
    return block


def _check_place(name: str, block: Block, found: DataSet, size: int) -> None:
    """Raise unless the bytes of a data set exist and lie inside the file of `size` bytes."""
    if block.nbytes and found.offset is None:
        raise FormatError(f"{name}: its storage was never allocated; pack again")
    if block.offset + block.nbytes > size:
        raise FormatError(
            f"{name}: expected bytes up to {block.offset + block.nbytes}, but the file is cut short at {size}; "
            "copy it again, or pack again"
        )
    if block.nbytes != found.nbytes:
        raise FormatError(
            f"{name}: expected {block.nbytes} bytes, found {found.nbytes}; copy the file again, or pack again"
        )


def _array(file: File, block: Block) -> NDArray[Any]:
    data = file.data(block.offset, block.nbytes)
    return np.frombuffer(data, block.dtype, block.nbytes // block.dtype.itemsize).reshape(block.shape)


def _check_overlap(blocks: Sequence[Block]) -> None:
    """Raise if two data sets share bytes."""
    spans = sorted((block.offset, block.offset + block.nbytes) for block in blocks if block.nbytes)
    for (_, end), (start, _) in pairwise(spans):
        if start < end:
            raise FormatError(f"damaged: two data sets overlap at byte {start}")
