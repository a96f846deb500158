"""The file, version 1: an HDF5 file whose pixels are one plain block.

===================  =====================  ==========================================================
object               type, shape            meaning
===================  =====================  ==========================================================
images               uint8 (N, H, W, C)     the pixels; dimension labels N, H, W, C
labels               int32 (N,)             index into class_names
class_names          fixed UTF-8 (K,)       in the order of their numbers, each once; sorted, unless a user gave an
                                            order; a class may have no images
filenames            fixed UTF-8 (N,)       the source path as given, ``/`` as separator
columns/source       fixed UTF-8 (N,)       the SOURCE each row came from
columns/NAME         fixed UTF-8 (N,)       every other column of a manifest; ``/``, ``%`` and bytes that are not
                                            UTF-8 are percent-encoded in its name
digests              uint8 (N, 32)          SHA-256 of the source file's bytes
checksums            uint64 (N,)            XXH3-64 of the row's pixels
skipped/filenames    fixed UTF-8 (M,)       what was left out
skipped/reasons      fixed UTF-8 (M,)       and why
losses/rows          int64 (L,)             rows whose picture lost something, ascending
losses/kinds         uint8 (L,)             what, as the sum of 1: integers of more than 8 bits were cut to 8; 2: floats
                                            were cut to 8 bits; 4: the first of several pages or frames was taken;
                                            8: transparency was laid on black, and one colour is left
losses/bits          uint8 (L,)             of a sample in the file, where samples were cut (1 and 2); else 0
losses/levels        uint32 (L,)            different sample values in the file, up to 2**20; 0: not counted
losses/kept          uint16 (L,)            different values that are left of them; 0: not counted
===================  =====================  ==========================================================

Attributes of the root group: ``format`` = "packed-images", ``version`` = 1, ``settings`` and ``packed_by``
(JSON objects), all texts of fixed length, and ``tables_checksum`` (uint64; a file may lack it): XXH3-64 of the bytes of
every data set but ``images``, one after another in the order above, columns in that of their stored names.

The group ``losses`` is there only if a picture lost something (L is 1 or more). Bits of ``losses/kinds`` that are not
named above are losses that a later version tells.

Every data set is contiguous and unfiltered; integers are little-endian. ``images`` begins at a multiple of 4096 (4096
itself, where a row is a page or more), so row *i* is at ``offset + i * H * W * C`` and the whole file can be read
through a memory map. The library version bound is v108: metadata is checksummed, and no crash leaves an open-for-write
flag behind. Nothing in the file tells the time, so the same contents are the same bytes.

Names that are not UTF-8 are stored as the bytes they are; Python reads them with ``surrogateescape``.

Reading (`read`) checks all of this before a pixel is touched; what remains is a header of offsets, and a descriptor to
map. sealing.py writes it.
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

from h5split.errors import FormatError, NotAPackError
from h5split.file.hdf5.file import File
from h5split.file.hdf5.headers import DataSet, Object
from h5split.file.hdf5.metadata import NoHdf5Error
from h5split.file.losses import LOSSES

FORMAT = "packed-images"
VERSION = 1
DIGEST_SIZE = 32

_TEXT = np.dtype("S")  # of any length
_CHECKED = 1 << 20  # rows of losses that are looked at together


@dataclass(frozen=True)
class Block:
    """One array in the file: `shape` items of `dtype` from byte `offset` on."""

    offset: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Size in bytes, in Python's unbounded integers."""
        count = self.dtype.itemsize
        for length in self.shape:
            count *= length
        return count


@dataclass(frozen=True)
class Header:
    """Everything about a pack but its rows.

    Attributes:
        losses: The fields of `losses.LOSSES`, by name; empty where nothing was lost.
        tables: Every data set but `images`, by its name in the file, in the order of `tables_checksum`.
        tables_checksum: XXH3-64 of their bytes; None where the file does not say.
        size: Of the file, in bytes.
        status: Of the file, before anything of it was read.
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
    """Text as the file holds it: UTF-8, with surrogate escapes back to the bytes they came from."""
    return text.encode("utf-8", "surrogateescape")


def decode(raw: bytes) -> str:
    """The inverse of `encode`."""
    return raw.decode("utf-8", "surrogateescape")


def read(path: str | os.PathLike[str]) -> tuple[int, Header]:
    """Check a pack and return a descriptor of it, for the caller to map and close, with its header.

    The header was read through that very descriptor, and every block of it lies within the size the descriptor has.
    Where there are locks, writers are kept off as long as the descriptor or a map of it is open.

    Raises:
        FileNotFoundError: There is no such file.
        FormatError: It is no pack, is damaged, or is of a newer version; the message says which.
    """
    path = os.fspath(path)
    descriptor = _open(path)
    try:
        with _errors_name(path):
            _lock(descriptor)
        header = header_of(descriptor, path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, header


def header_of(descriptor: int, path: str) -> Header:
    """Check a pack that is open for reading; errors name `path`.

    Raises:
        FormatError: It is no pack, is damaged, or is of a newer version.
    """
    with _errors_name(path):
        return _header(File(descriptor))


def is_pack(file: BinaryIO) -> bool:
    """Whether an open file is a pack, whole and not being written to: what `replace.check_replaceable` asks.

    Raises:
        ValueError: It is damaged, or something else that cannot be told from a damaged pack.
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
        if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would be waited for
            if os.path.isdir(path):
                found = f"a folder; pack-images {path} -o OUT.h5 packs it"
            else:
                found = "something that is no file; copy it into one"
            raise FormatError(f"{path}: expected a pack, found {found}")
        return os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: there is no such file; pack-images SOURCE... -o {path} makes one") from None


def _lock(descriptor: int) -> None:
    """Share the file with readers; HDF5, while it writes, shares it with nobody."""
    with contextlib.suppress(ImportError, OSError):
        import fcntl

        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FormatError(
                "expected a pack, but another process is writing to it; try again when it has finished"
            ) from error


@contextlib.contextmanager
def _errors_name(path: str) -> Iterator[None]:
    """Say which file it was, once, and turn what is raised on damaged metadata into a FormatError."""
    try:
        yield
    except FormatError as error:
        raise type(error)(f"{path}: {_line(error)}") from None
    except NoHdf5Error as error:
        raise NotAPackError(f"{path}: expected a pack, but {_line(error)}; packs are made by pack-images") from error
    except (OSError, ValueError, RecursionError) as error:
        raise FormatError(
            f"{path}: damaged, or not as pack-images makes it ({_line(error)}); copy it again, or pack again"
        ) from error


def _line(error: Exception) -> str:
    """What it says, as one line that a terminal shows: names in it come from the file."""
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
    _check_apart([images, *tables.values()])
    if header.losses:
        _check_losses(file, header.losses, images.shape[0])
    return header


def _tables(file: File, rows: int) -> dict[str, Block]:
    """Every data set but `images`, in the order in which their bytes are summed."""
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
    """The data sets of the group `losses`, which few packs have."""
    if b"losses" not in file.root.links:
        return {}
    types = {f"losses/{name}": LOSSES[name] for name in LOSSES.names or ()}
    return {name: _block(file, name, dtype, 1) for name, dtype in types.items()}


def _check_losses(file: File, losses: Mapping[str, Block], rows: int) -> None:
    """Refuse losses of rows that are not there, of one row twice, or of nothing."""
    (length,) = losses["rows"].shape
    if length == 0 or any(block.shape != (length,) for block in losses.values()):
        raise FormatError("losses: expected tables of one length, of 1 or more")
    last = -1
    for start in range(0, length, _CHECKED):
        found = _part(file, losses["rows"], start, _CHECKED)
        if found[0] <= last or found[-1] >= rows or (found[1:] <= found[:-1]).any():
            raise FormatError(f"losses/rows: expected rows from 0 to {rows - 1}, ascending; copy the file again")
        if not _part(file, losses["kinds"], start, _CHECKED).all():
            raise FormatError("losses/kinds: expected a loss for each row, found none; copy the file again")
        last = int(found[-1])


def _part(file: File, block: Block, start: int, count: int) -> NDArray[Any]:
    """So many items of a table of one dimension from `start` on, or as many as there are."""
    width, count = block.dtype.itemsize, min(count, block.shape[0] - start)
    return np.frombuffer(file.data(block.offset + start * width, count * width), block.dtype, count)


def _tables_checksum(root: Object) -> int | None:
    return _integer(root, "tables_checksum") if b"tables_checksum" in root.attributes else None


def _version(root: Object) -> int:
    value = _value(root, "format")
    if value == FORMAT.encode():
        return _integer(root, "version")
    if value is None and b"format" in root.attributes:  # as by h5py, where a str was given
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
    """An attribute that is one integer or one text; None if it is something else."""
    attribute = root.attributes.get(name.encode())
    if attribute is None or attribute.shape != () or attribute.type.dtype.kind not in "iuS":
        return None
    value: int | bytes = np.frombuffer(attribute.data, attribute.type.dtype, 1).tolist()[0]
    return value


def _found(root: Object, name: str) -> str:
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
    if not (member := _member(file, group)).is_group:
        raise FormatError(f"{group}: expected a group")
    return [decode(name) for name in sorted(member.links)]


def _member(file: File, name: str) -> Object:
    """A group or data set by its path, and by hard links only: others could lead anywhere, out of the file included."""
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
    """The place of one data set, or a FormatError where it is not plain bytes inside this file."""
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


def _check_apart(blocks: Sequence[Block]) -> None:
    spans = sorted((block.offset, block.offset + block.nbytes) for block in blocks if block.nbytes)
    for (_, end), (start, _) in pairwise(spans):
        if start < end:
            raise FormatError(f"damaged: two data sets overlap at byte {start}")
