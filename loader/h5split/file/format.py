"""The file format, versions 1 and 2: an HDF5 file whose pixels are one contiguous block. `read` checks it.

===================  =====================  ==========================================================
object               type, shape            meaning
===================  =====================  ==========================================================
images               uint8 (N, H, W, C)     the pixels; dimension labels N, H, W, C. In version 2 also uint16 or float32
labels               int32 (N,)             index into class_names
class_names          fixed UTF-8 (K,)       in the order of their numbers, each once; sorted, unless a user gave an
                                            order; a class may have no images
filenames            fixed UTF-8 (N,)       the source path as given, with ``/`` as separator
columns/source       fixed UTF-8 (N,)       the SOURCE of each row
columns/NAME         fixed UTF-8 (N,)       every other column of a manifest; ``/``, ``%`` and bytes that are not
                                            UTF-8 are percent-encoded in its name
digests              uint8 (N, 32)          SHA-256 of each source file
checksums            uint64 (N,)            XXH3-64 of the pixels of each row
skipped/filenames    fixed UTF-8 (M,)       files that were left out
skipped/reasons      fixed UTF-8 (M,)       the reason for each
losses/rows          int64 (L,)             rows of pictures that lost something, ascending
losses/kinds         uint8 (L,)             the kinds of loss, added up. 1: integers of more than 8 bits were cut to 8.
                                            2: floats were cut to 8 bits. 4: the first of several pages or frames was
                                            taken. 8: transparency was laid on the background, and one colour
                                            is left. 16: the file is cut short, and what there is of it was taken.
                                            32: bands behind grey or colours were left out
losses/bits          uint8 (L,)             bits per sample in the file, if samples were cut (kinds 1 and 2); else 0
losses/levels        uint32 (L,)            distinct sample values in the file, up to 2**20; 0: not counted
losses/kept          uint16 (L,)            distinct values that remain of these; 0: not counted
===================  =====================  ==========================================================

The root group has these attributes: ``format`` = "packed-images", ``version`` (1 or 2), ``settings`` and ``packed_by``
(JSON objects), and ``tables_checksum`` (uint64; it may be absent). All texts have a fixed length. ``tables_checksum``
is the XXH3-64 of the bytes of every data set except ``images``, one after another in the order above. Columns are in
the order of their stored names.

The group ``losses`` exists only if a picture lost something (L is 1 or more). Other bits of ``losses/kinds`` are
reserved for kinds of loss that a later version records.

Version 2 differs in ``images`` alone: the samples are uint8, uint16 or float32 (IEEE 754), and C is any number from 1
on. A file is written as version 2 if, and only if, the samples are not uint8, or C is not 1, 3 or 4; `version_of`
decides it. All that version 1 can say is written as version 1. A reader of version 1 refuses version 2. In version 1,
``images`` is uint8. Float samples may be any number, also NaN and infinity.

Every data set is contiguous and unfiltered. Integers and floats are little-endian. ``images`` begins at a multiple of
4096; if a row has 4096 bytes or more, it begins at 4096 itself. So row *i* is at ``offset + i * stride``, where the
stride is H * W * C times the bytes of a sample, and the whole file can be read through a memory map. The library
version bound is v108: it gives checksums of the metadata, and a crash leaves no open-for-write flag behind. The file
contains no time stamp, so the same contents give the same bytes.

Metadata lie before the pixels and right behind them, and the tables follow. Bytes 4064 to 4095, which HDF5 does not
use, may hold a seal, so that two reads find all metadata: the mark ``H5 seal`` and a zero byte; place and size in bytes
of the metadata behind the pixels; and the XXH3-64 of bytes 0 to 4063 and these metadata. The numbers are uint64,
little-endian. If the seal is absent, or another program changed the metadata, they are read one by one.

Names that are not UTF-8 are stored unchanged, as bytes; Python reads them with ``surrogateescape``.

`read` checks all of this before any pixel is read. It returns a header with the offsets, and a descriptor to map.
sealing.py writes the format.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, BinaryIO
from urllib.parse import unquote

import numpy as np
from numpy.typing import DTypeLike, NDArray

from h5split.errors import ArgumentError, FormatError, NotAPackError, RemoteError
from h5split.file.hdf5.file import File
from h5split.file.hdf5.headers import DataSet, Object
from h5split.file.hdf5.metadata import NoHdf5Error, OldHdf5Error
from h5split.file.losses import LOSSES
from h5split.system import files
from h5split.system.places import address_advice, url_advice
from h5split.system.text import either

FORMAT = "packed-images"
DIGEST_SIZE = 32
# Version -> what the samples of `images` may be.
DTYPES: Mapping[int, tuple[np.dtype[Any], ...]] = {
    1: (np.dtype("u1"),),
    2: (np.dtype("u1"), np.dtype("<u2"), np.dtype("<f4")),
}
USUAL_CHANNELS = (1, 3, 4)  # of version 1: grey, RGB and RGBA

ReadAt = Callable[[int, int], bytes]  # (count, offset) -> up to so many bytes of a file, from there on

_TEXT = np.dtype("S")  # text of any length
_OF_ARRAYS = "pack_images.write('OUT.h5', images, labels) makes a pack of its arrays"
_CHECK_ROWS = 1 << 20  # rows of losses that are checked at a time, to limit memory


@dataclass(frozen=True)
class Block:
    """The place of an array in the file: `shape` items of `dtype`, from byte `offset` on."""

    offset: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """The size in bytes. Python's integers do not overflow, whatever shape a damaged file claims."""
        count = self.dtype.itemsize
        for length in self.shape:
            count *= length
        return count


@dataclass(frozen=True)
class Header:
    """The structure of a pack: where each array is in the file, and all data that does not belong to single rows.

    Attributes:
        losses: Field of `losses.LOSSES` -> its block; empty if nothing was lost.
        tables: Name in the file -> block, for every data set except `images`, in the order of `tables_checksum`.
        tables_checksum: XXH3-64 of the bytes of `tables`; None if the file does not have it.
        size: The size of the file in bytes.
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


def stored_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """Return the type as the format has it: uint8, uint16 or float32, in little-endian order.

    Raises:
        ValueError: It is another type.
    """
    found = np.dtype(dtype)
    if found not in DTYPES[2]:
        raise ArgumentError(f"expected pixels of uint8, uint16 or float32, found {found}")
    return found


def version_of(dtype: DTypeLike, channels: int) -> int:
    """The version of a pack of such pixels: 1 if that can say it, else 2.

    Args:
        dtype: Of the samples: uint8, uint16 or float32.
        channels: C, the number of samples of a pixel.
    """
    return 1 if np.dtype(dtype) in DTYPES[1] and channels in USUAL_CHANNELS else 2


def encode(text: str) -> bytes:
    """Encode text as it is stored in the file: UTF-8, with surrogate escapes turned back into the original bytes."""
    return text.encode("utf-8", "surrogateescape")


def decode(raw: bytes) -> str:
    """Decode text from the file. This is the inverse of `encode`."""
    return raw.decode("utf-8", "surrogateescape")


def read(
    path: str | os.PathLike[str], *, name: str = "", before: Callable[[int, int], None] | None = None
) -> tuple[int, os.stat_result, Header]:
    """Open a pack, check it, and return its descriptor, its status from before it was read, and its header.

    The caller maps and closes the descriptor. The header was read through the same descriptor, and every block of it
    lies within the size of the file. If the system has locks, HDF5 cannot write to the file while the descriptor or a
    map of it is open.

    Args:
        path: The file.
        name: What errors call it, in place of its path.
        before: Called with the place and the number of bytes before any are read.

    Raises:
        FileNotFoundError: The file does not exist.
        FormatError: The file is not a pack, is damaged, or has a newer format version. The message says which.
    """
    path = os.fspath(path)
    descriptor = _open(path)

    def read_at(count: int, offset: int) -> bytes:
        if before is not None:
            before(offset, count)
        return files.read_at(descriptor, count, offset)

    try:
        with _errors_name(name or path):
            _lock(descriptor)
        status = os.fstat(descriptor)
        header = header_from(read_at, status.st_size, name or path)
    except BaseException:
        os.close(descriptor)
        raise
    finally:
        before = None  # the objects of the metadata are a cycle, and would keep what it belongs to
    return descriptor, status, header


def header_of(descriptor: int, path: str) -> Header:
    """Check a pack that is open for reading, and return its header. Errors name `path`.

    Raises:
        FormatError: The file is not a pack, is damaged, or has a newer format version.
    """
    return header_from(partial(files.read_at, descriptor), os.fstat(descriptor).st_size, path)


def header_from(read_at: ReadAt, size: int, path: str) -> Header:
    """The header of a pack of `size` bytes. Errors name `path`.

    Raises:
        FormatError: It is not a pack, is damaged, or has a newer format version.
    """
    with _errors_name(path):
        return _header(File(read_at, size))


def is_pack(file: BinaryIO) -> bool:
    """Whether an open file is a complete pack that no process is writing to. `replace.check_replaceable` calls this.

    Raises:
        ValueError: The file is damaged, or of another kind that cannot be distinguished from a damaged pack.
        OSError: The file cannot be read.
    """
    try:
        _lock(file.fileno())
        _header(File(partial(files.read_at, file.fileno()), os.fstat(file.fileno()).st_size))
    except (NotAPackError, NoHdf5Error):
        return False
    except RecursionError as error:
        raise FormatError("nested too deeply") from error
    return True


def _open(path: str) -> int:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe would wait for a writer
            if os.path.isdir(path):
                found = f"a folder; pack-images {path} -o OUT.h5 packs it"
            else:
                found = "something that is no file; copy it into one"
            raise FormatError(f"{path}: expected a pack, found {found}")
        return os.open(path, os.O_RDONLY | files.BINARY)
    except FileNotFoundError:
        url = address_advice(os.fsdecode(path)) or url_advice(os.fsdecode(path))
        if url is not None:
            raise FileNotFoundError(f"{path}: expected the path of a pack, {url}") from None
        raise FileNotFoundError(f"{path}: there is no such file; pack-images SOURCE... -o {path} makes one") from None


def _lock(descriptor: int) -> None:
    """Take a shared lock. HDF5 has an exclusive lock while it writes."""
    try:
        files.lock_shared(descriptor)
    except BlockingIOError as error:
        raise FormatError(
            "expected a pack, but another process is writing to it; try again when it has finished"
        ) from error


@contextlib.contextmanager
def _errors_name(path: str) -> Iterator[None]:
    """Make errors of the block name the file, once, and turn errors from damaged metadata into a FormatError."""
    try:
        yield
    except RemoteError:
        raise
    except FormatError as error:
        line = _line(error)
        raise type(error)(line if line.startswith(path) else f"{path}: {line}") from None
    except NoHdf5Error as error:
        advice = _OF_ARRAYS if isinstance(error, OldHdf5Error) else "packs are made by pack-images"
        raise NotAPackError(f"{path}: expected a pack, but {_line(error)}; {advice}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise FormatError(
            f"{path}: damaged, or not as pack-images makes it ({_line(error)}); copy it again, or pack again"
        ) from error


def _line(error: Exception) -> str:
    """The message of an error as one printable line. Names in it come from the file, so they may hold any character."""
    line = " ".join(str(error).split())
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in line)


def _header(file: File) -> Header:
    version = _version(file.root)
    if version not in DTYPES:
        raise FormatError(
            f"expected version {' or '.join(map(str, DTYPES))}, found version {version}; "
            "upgrade with: pip install --upgrade pack-images"
        )
    images = _block(file, "images", DTYPES[version], 4)
    if 0 in images.shape:
        raise FormatError(f"images: expected pixels, found shape {images.shape}")
    if images.offset % images.dtype.itemsize:
        raise FormatError(
            f"images: expected to begin at a multiple of {images.dtype.itemsize} bytes, found byte {images.offset}; "
            "pack again with pack-images"
        )
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
    )
    if header.digests.shape[1] != DIGEST_SIZE:
        raise FormatError(f"digests: expected {DIGEST_SIZE} bytes a row, found {header.digests.shape[1]}")
    if header.skipped_filenames.shape != header.skipped_reasons.shape:
        raise FormatError("skipped: expected a reason for each filename")
    _check_no_overlap([images, *tables.values()])
    if header.losses:
        _check_losses(file, header.losses, images.shape[0])
    return header


def _tables(file: File, rows: int) -> dict[str, Block]:
    """Every data set except `images`, in the order of `tables_checksum`."""
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
    """The data sets of the group `losses`, which most packs do not have."""
    if b"losses" not in file.root.links:
        return {}
    types = {f"losses/{name}": LOSSES[name] for name in LOSSES.names or ()}
    return {name: _block(file, name, dtype, 1) for name, dtype in types.items()}


def _check_losses(file: File, losses: Mapping[str, Block], rows: int) -> None:
    """Raise if losses name a row that does not exist, name a row twice, or have no kind."""
    (length,) = losses["rows"].shape
    if length == 0 or any(block.shape != (length,) for block in losses.values()):
        raise FormatError("losses: expected tables of one length, of 1 or more")
    last = -1
    for start in range(0, length, _CHECK_ROWS):
        found = _part(file, losses["rows"], start, _CHECK_ROWS)
        if found[0] <= last or found[-1] >= rows or (found[1:] <= found[:-1]).any():
            raise FormatError(f"losses/rows: expected rows from 0 to {rows - 1}, ascending; copy the file again")
        if not _part(file, losses["kinds"], start, _CHECK_ROWS).all():
            raise FormatError("losses/kinds: expected a loss for each row, found none; copy the file again")
        last = int(found[-1])


def _part(file: File, block: Block, start: int, count: int) -> NDArray[Any]:
    """Read up to `count` items of a one-dimensional table, from item `start` on. At its end there may be fewer."""
    width, count = block.dtype.itemsize, min(count, block.shape[0] - start)
    return np.frombuffer(file.data(block.offset + start * width, count * width), block.dtype, count)


def _tables_checksum(root: Object) -> int | None:
    return _integer(root, "tables_checksum") if b"tables_checksum" in root.attributes else None


def _version(root: Object) -> int:
    value = _value(root, "format")
    if value == FORMAT.encode():
        return _integer(root, "version")
    if value is None and b"format" in root.attributes:  # h5py writes a str as variable-length text
        raise NotAPackError(
            f"expected a pack (attribute format = {FORMAT!r} as fixed-length text), found {_found(root, 'format')} "
            f"in it; if it says so, write it with h5py as numpy.bytes_({FORMAT!r}), and settings and packed_by likewise"
        )
    of_format = "" if value is None else f" of format {decode(value[:40]) if isinstance(value, bytes) else value!r}"
    raise NotAPackError(
        f"expected a pack (attribute format = {FORMAT!r}), found another HDF5 file{of_format}; {_OF_ARRAYS}"
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
    """The value of an attribute if it is one integer or one fixed-length text; else None."""
    attribute = root.attributes.get(name.encode())
    if attribute is None or attribute.shape != () or attribute.type.dtype.kind not in "iuS":
        return None
    value: int | bytes = np.frombuffer(attribute.data, attribute.type.dtype, 1).tolist()[0]
    return value


def _found(root: Object, name: str) -> str:
    """The type of an attribute, for error messages."""
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
    """A group or data set by its path. Only hard links are followed: other links could lead to other files."""
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


def _block(
    file: File, name: str, dtype: np.dtype[Any] | tuple[np.dtype[Any], ...], rank: int, rows: int | None = None
) -> Block:
    """The place of a data set of one of these types. Raise a FormatError if it is not plain bytes inside this file."""
    member = _member(file, name)
    if not member.is_data_set:
        raise FormatError(f"{name}: expected a data set, found {'a group' if member.is_group else 'something else'}")
    found = member.data_set
    if found.storage != "contiguous":
        raise FormatError(
            f"{name}: expected plain bytes in this file, found {found.storage} storage; pack again with pack-images"
        )
    allowed = dtype if isinstance(dtype, tuple) else (dtype,)
    if found.type.dtype not in allowed and not (dtype == _TEXT and found.type.dtype.kind == "S"):
        expected = "fixed-length text" if dtype == _TEXT else either(allowed)
        raise FormatError(f"{name}: expected {expected}, found {found.type.name}")
    if found.shape is None or len(found.shape) != rank or (rows is not None and found.shape[0] != rows):
        expected = f"{rank} dimensions" if rows is None else f"{rows} rows, as images has"
        raise FormatError(f"{name}: expected {expected}, found shape {found.shape}")
    block = Block(found.offset or 0, found.type.dtype, found.shape)
    _check_place(name, block, found, file.size)
    return block


def _check_place(name: str, block: Block, found: DataSet, size: int) -> None:
    nbytes = block.nbytes
    if nbytes and found.offset is None:
        raise FormatError(f"{name}: its storage was never allocated; pack again")
    if block.offset + nbytes > size:
        raise FormatError(
            f"{name}: expected bytes up to {block.offset + nbytes}, but the file is cut short at {size}; "
            "copy it again, or pack again"
        )
    if nbytes != found.nbytes:
        raise FormatError(f"{name}: expected {nbytes} bytes, found {found.nbytes}; copy the file again, or pack again")


def _array(file: File, block: Block) -> NDArray[Any]:
    data = file.data(block.offset, block.nbytes)
    return np.frombuffer(data, block.dtype, block.nbytes // block.dtype.itemsize).reshape(block.shape)


def _check_no_overlap(blocks: Sequence[Block]) -> None:
    spans = sorted((block.offset, block.offset + block.nbytes) for block in blocks if block.nbytes)
    for (_, end), (start, _) in pairwise(spans):
        if start < end:
            raise FormatError(f"damaged: two data sets overlap at byte {start}")
