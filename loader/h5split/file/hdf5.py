"""As much of HDF5 as packs consist of, read without its library.

The library trusts what is behind a right checksum: by one wrong number in the heap that lists many columns it frees
what it never had, divides by zero, loops or asks for terabytes, and takes the process along. Here every field is cut
out of bytes that are there, and only so much metadata is looked at; what a pack cannot have is an `Hdf5Error`.

Files are as HDF5 1.8 and later write them with ``libver="v108"`` or newer; objects in them may have headers of before.
Numbers of sections are those of the "HDF5 File Format Specification Version 3.0".
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from h5split.system.lazy import lazy

_T = TypeVar("_T")

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_NOWHERE = (1 << 64) - 1
_LIMIT = 16 << 20  # bytes of metadata that are read of a file; a pack of 10,000 columns has 8 to 14 MB
_LEAST = 64  # bytes that any read counts as, so that many small ones come to an end too
_DEEPEST = 8  # levels of a tree; two levels hold thousands
_MASK = 0xFFFFFFFF

_SPACE, _LINK_INFO, _TYPE, _LINK, _EXTERNAL, _LAYOUT, _FILTERS = 0x01, 0x02, 0x03, 0x06, 0x07, 0x08, 0x0B  # messages
_ATTRIBUTE, _CONTINUATION, _SYMBOL_TABLE, _ATTRIBUTE_INFO = 0x0C, 0x10, 0x11, 0x15
_SHARED = 2  # flag of a message that is elsewhere

_STORAGE = {0: "compact", 1: "contiguous", 2: "chunked", 3: "virtual"}
_CLASSES = {
    0: "integers of odd bits",
    2: "times",
    3: "text",
    4: "bit fields",
    5: "opaque bytes",
    6: "compounds",
    7: "references",
    8: "an enumeration",
    9: "variable-length data",
    10: "arrays",
}


class Hdf5Error(ValueError):
    """The file is damaged, or has what is not read here."""


class NoHdf5Error(Hdf5Error):
    """It is no HDF5 file, or one of before version 1.8."""


@dataclass(frozen=True)
class Type:
    """What an element is.

    Attributes:
        name: For people.
        dtype: Of integers and fixed-length text; void for all else.
    """

    name: str
    dtype: np.dtype[Any] = np.dtype("V")  # noqa: RUF009  # which is immutable


@dataclass(frozen=True)
class Attribute:
    """A small array beside an object.

    Attributes:
        shape: () of a single value; None where there is none.
        data: Its bytes.
    """

    type: Type
    shape: tuple[int, ...] | None
    data: bytes


@dataclass(frozen=True)
class DataSet:
    """An array in the file.

    Attributes:
        shape: () of a single value; None where there is none.
        storage: `contiguous`, or another word.
        offset: Of its first byte in the file; None where it has no place yet.
        nbytes: That it takes there.
    """

    type: Type
    shape: tuple[int, ...] | None
    storage: str
    offset: int | None
    nbytes: int


class File:
    """An HDF5 file.

    Args:
        descriptor: Open for reading; stays open.

    Attributes:
        status: Of the file, before anything of it was read.
        size: In bytes.
        base: The byte that addresses count from: the end of a user block.

    Raises:
        NoHdf5Error: It is something else.
        Hdf5Error: It is damaged.
        OSError: It cannot be read.
    """

    def __init__(self, descriptor: int) -> None:
        self.status = os.fstat(descriptor)
        self.size = self.status.st_size
        self.base = 0
        self._descriptor = descriptor
        self._left = _LIMIT
        while self.base + len(_SIGNATURE) <= self.size and self.read(0, len(_SIGNATURE)) != _SIGNATURE:
            self.base = self.base * 2 or 512
        if self.base + len(_SIGNATURE) > self.size:
            raise NoHdf5Error("it is not an HDF5 file")
        self._objects: dict[int, Object] = {}
        self.root = self.object(self._root_address())

    def object(self, address: int) -> Object:
        """The group or data set whose header is at an address."""
        if address not in self._objects:
            self._objects[address] = Object(self, address)
        return self._objects[address]

    def data(self, offset: int, count: int) -> bytes:
        """Elements of a data set: so many bytes from one of the file on."""
        parts = []
        while count:
            part = os.pread(self._descriptor, min(count, 1 << 30), offset)
            if not part:
                raise Hdf5Error("the file was cut short while it was read")
            parts.append(part)
            offset, count = offset + len(part), count - len(part)
        return b"".join(parts)

    def read(self, address: int, count: int) -> bytes:
        """So many bytes of metadata."""
        self.spend(count)
        start = self.base + address
        if start + count > self.size:
            raise Hdf5Error(f"expected bytes up to {start + count}, but the file is cut short at {self.size}")
        data = os.pread(self._descriptor, count, start)
        if len(data) < count:
            raise Hdf5Error("the file was cut short while it was read")
        return data

    def sealed(self, address: int, count: int, signature: bytes) -> bytes:
        """So many bytes of metadata, which begin with a signature and are followed by their checksum."""
        data = self.read(address, max(count, len(signature)) + 4)
        if not data.startswith(signature) or lookup3(data[:-4]) != int.from_bytes(data[-4:], "little"):
            raise Hdf5Error(f"the metadata at byte {self.base + address} are not what they were")
        return data[:-4]

    def spend(self, count: int) -> None:
        """Count bytes that are looked at, again perhaps."""
        self._left -= max(count, _LEAST)
        if self._left < 0:
            raise Hdf5Error(f"more than {_LIMIT >> 20} MB of metadata")

    def _root_address(self) -> int:
        """Superblock, II."""
        version = self.read(8, 1)[0]
        if version < 2:
            raise NoHdf5Error(
                f"it is another HDF5 file, with a superblock of version {version}, as they were before version 1.8 "
                "(h5py writes the newer one with libver='v108')"
            )
        if version > 3:
            raise Hdf5Error(f"expected a superblock of version 2 or 3, found {version}")
        fields = _Fields(self.sealed(0, 44, _SIGNATURE))
        fields.raw(9)
        widths, open_for = fields.raw(2), fields.number(1)
        _, _, end, root = fields.numbers(8, 8, 8, 8)
        if end > self.size:
            raise Hdf5Error(f"expected {end} bytes, but the file is cut short at {self.size}")
        if widths != b"\x08\x08":
            raise Hdf5Error(f"expected addresses of 8 bytes, found {widths[0]} and {widths[1]}")
        if version == 3 and open_for & 1:
            raise Hdf5Error("it was not closed by who wrote to it last")
        return root


class Object:
    """A group or a data set.

    Args:
        file: It is in.
        address: Of its header.
    """

    def __init__(self, file: File, address: int) -> None:
        self._file = file
        self._messages = list(_messages(file, address))

    @property
    def is_group(self) -> bool:
        """Whether it has members."""
        return bool(self._bodies(_LINK_INFO) or self._bodies(_SYMBOL_TABLE))

    @property
    def is_data_set(self) -> bool:
        """Whether it is an array."""
        return bool(self._bodies(_LAYOUT))

    @lazy
    def links(self) -> Mapping[bytes, int | None]:
        """Name -> address of an object; None for a link that is a path, here or in another file."""
        if self._bodies(_SYMBOL_TABLE):
            raise Hdf5Error("a group as HDF5 made them before version 1.8; h5py makes newer ones with libver='v108'")
        bodies = self._bodies(_LINK)
        for info in self._bodies(_LINK_INFO):
            bodies += _dense(self._file, info, index_width=8, identifier=slice(4, 11))
        return _by_name([_link(body) for body in bodies])

    @lazy
    def attributes(self) -> Mapping[bytes, Attribute]:
        """Name -> value."""
        bodies = self._bodies(_ATTRIBUTE)
        for info in self._bodies(_ATTRIBUTE_INFO):
            bodies += _dense(self._file, info, index_width=2, identifier=slice(0, 8))
        return _by_name([_attribute(body) for body in bodies])

    @lazy
    def data_set(self) -> DataSet:
        """What there is of a data set but its elements."""
        storage, address, nbytes = _layout(self._body(_LAYOUT))
        if self._bodies(_EXTERNAL):
            storage = "external"
        if self._bodies(_FILTERS):
            storage = "filtered"
        return DataSet(
            type=_type(self._body(_TYPE)),
            shape=_shape(self._body(_SPACE)),
            storage=storage,
            offset=None if address == _NOWHERE else self._file.base + address,
            nbytes=nbytes,
        )

    def _bodies(self, wanted: int) -> list[bytes]:
        return [body for kind, body in self._messages if kind == wanted]

    def _body(self, wanted: int) -> bytes:
        bodies = self._bodies(wanted)
        if len(bodies) != 1:
            raise Hdf5Error(f"expected one message of kind {wanted}, found {len(bodies)}")
        return bodies[0]


def lookup3(data: bytes) -> int:
    """Bob Jenkins' hash of 2006, with which HDF5 seals its metadata."""
    a = b = c = (0xDEADBEEF + len(data)) & _MASK
    if not data:
        return c
    words: list[int] = np.frombuffer(data + bytes(-len(data) % 12), "<u4").tolist()
    for at in range(0, len(words) - 3, 3):
        a, b, c = (a + words[at]) & _MASK, (b + words[at + 1]) & _MASK, (c + words[at + 2]) & _MASK
        a, c = ((a - c) & _MASK) ^ _turned(c, 4), (c + b) & _MASK
        b, a = ((b - a) & _MASK) ^ _turned(a, 6), (a + c) & _MASK
        c, b = ((c - b) & _MASK) ^ _turned(b, 8), (b + a) & _MASK
        a, c = ((a - c) & _MASK) ^ _turned(c, 16), (c + b) & _MASK
        b, a = ((b - a) & _MASK) ^ _turned(a, 19), (a + c) & _MASK
        c, b = ((c - b) & _MASK) ^ _turned(b, 4), (b + a) & _MASK
    a, b, c = (a + words[-3]) & _MASK, (b + words[-2]) & _MASK, (c + words[-1]) & _MASK
    c = ((c ^ b) - _turned(b, 14)) & _MASK
    a = ((a ^ c) - _turned(c, 11)) & _MASK
    b = ((b ^ a) - _turned(a, 25)) & _MASK
    c = ((c ^ b) - _turned(b, 16)) & _MASK
    a = ((a ^ c) - _turned(c, 4)) & _MASK
    b = ((b ^ a) - _turned(a, 14)) & _MASK
    return ((c ^ b) - _turned(b, 24)) & _MASK


def _turned(word: int, turn: int) -> int:
    return (word << turn | word >> 32 - turn) & _MASK


class _Fields:
    """Bytes, taken one field after another."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __len__(self) -> int:
        return len(self._data) - self._at

    def raw(self, count: int) -> bytes:
        if count > len(self):
            raise Hdf5Error(f"expected a field of {count} bytes, found {len(self)}")
        self._at += count
        return self._data[self._at - count : self._at]

    def number(self, width: int) -> int:
        return int.from_bytes(self.raw(width), "little")

    def numbers(self, *widths: int) -> list[int]:
        return [self.number(width) for width in widths]


def _by_name(pairs: list[tuple[bytes, _T]]) -> dict[bytes, _T]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise Hdf5Error("two members or attributes have one name")
    return found


# --- object headers: IV.A --------------------------------------------------------------------------------------------


def _messages(file: File, address: int) -> Iterator[tuple[int, bytes]]:
    """(kind, body) of each message in the header of an object."""
    if file.read(address, 4) == b"OHDR":
        chunk, flags = _first_chunk(file, address)
        widths = [1, 2, 1, 2 if flags & 4 else 0]
    else:
        chunk = _old_first_chunk(file, address)
        widths = [2, 2, 1, 3]
    chunks, seen = [chunk], {address}
    for chunk in chunks:  # which grow in number
        while len(chunk) >= sum(widths):
            kind, size, flags, _ = chunk.numbers(*widths)
            body = chunk.raw(size)
            if flags & _SHARED:
                raise Hdf5Error("types and other messages that objects share are not read here")
            if kind != _CONTINUATION:
                yield kind, body
                continue
            start, length = _Fields(body).numbers(8, 8)
            if start in seen:
                raise Hdf5Error("a header that continues in itself")
            seen.add(start)
            chunks.append(
                _Fields(file.sealed(start, length - 4, b"OCHK")[4:] if widths[0] == 1 else file.read(start, length))
            )


def _first_chunk(file: File, address: int) -> tuple[_Fields, int]:
    """Of version 2, IV.A.1.b, with the flags of the header."""
    version, flags = file.read(address + 4, 2)
    if version != 2:
        raise Hdf5Error(f"expected an object header of version 2, found {version}")
    start = 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
    width = 1 << (flags & 3)
    size = int.from_bytes(file.read(address + start, width), "little")
    fields = _Fields(file.sealed(address, start + width + size, b"OHDR"))
    fields.raw(start + width)
    return fields, flags


def _old_first_chunk(file: File, address: int) -> _Fields:
    """Of version 1, IV.A.1.a."""
    fields = _Fields(file.read(address, 16))
    version, _, _, _, size = fields.numbers(1, 1, 2, 4, 4)
    if version != 1:
        raise Hdf5Error(f"expected an object at byte {file.base + address}, found none")
    return _Fields(file.read(address + 16, size))


def _link(body: bytes) -> tuple[bytes, int | None]:
    """(name, address) of a link, IV.A.2.g; the address None if it is none to an object."""
    fields = _Fields(body)
    _, flags = fields.numbers(1, 1)
    kind, _, _ = fields.numbers(flags >> 3 & 1, 8 if flags & 4 else 0, flags >> 4 & 1)
    name = fields.raw(fields.number(1 << (flags & 3)))
    return name, fields.number(8) if kind == 0 else None


def _attribute(body: bytes) -> tuple[bytes, Attribute]:
    """(name, value), IV.A.2.m."""
    fields = _Fields(body)
    version, flags, *sizes = fields.numbers(1, 1, 2, 2, 2)
    if not 1 <= version <= 3:
        raise Hdf5Error(f"expected an attribute of version 1 to 3, found {version}")
    fields.raw(1 if version == 3 else 0)
    name, type_, space = [fields.raw(size + (-size % 8 if version == 1 else 0)) for size in sizes]
    shared = version > 1 and flags & 3
    return name.partition(b"\0")[0], Attribute(
        type=Type("a committed type") if shared else _type(type_),
        shape=None if shared else _shape(space),
        data=fields.raw(len(fields)),
    )


def _type(body: bytes) -> Type:
    """IV.A.2.d."""
    fields = _Fields(body)
    kind, bits, size = fields.numbers(1, 3, 4)
    kind &= 15
    if kind == 0 and size in (1, 2, 4, 8) and fields.numbers(2, 2) == [0, 8 * size]:
        dtype = np.dtype(f"{'>' if bits & 1 else '<'}{'i' if bits & 8 else 'u'}{size}")
        return Type(str(dtype), dtype)
    if kind == 3 and 0 < size < 1 << 31:
        return Type("fixed-length text", np.dtype(f"S{size}"))
    if kind == 1:
        return Type(f"float{8 * size}")
    return Type(_CLASSES.get(kind, "an unknown type"))


def _shape(body: bytes) -> tuple[int, ...] | None:
    """IV.A.2.b."""
    fields = _Fields(body)
    version, rank, _ = fields.numbers(1, 1, 1)
    if version not in (1, 2):
        raise Hdf5Error(f"expected a data space of version 1 or 2, found {version}")
    extent = fields.number(5 if version == 1 else 1)
    return None if version == 2 and extent == 2 else tuple(fields.numbers(*[8] * rank))


def _layout(body: bytes) -> tuple[str, int, int]:
    """(storage, address, bytes), IV.A.2.i; the latter two of contiguous storage alone."""
    fields = _Fields(body)
    version, kind = fields.numbers(1, 1)
    if version not in (3, 4):
        raise Hdf5Error(f"expected a layout of version 3 or 4, found {version}")
    if kind != 1:
        return _STORAGE.get(kind, "unknown"), _NOWHERE, 0
    address, nbytes = fields.numbers(8, 8)
    return "contiguous", address, nbytes


# --- what is too much for a header: III.A.2, III.G -------------------------------------------------------------------


def _dense(file: File, info: bytes, index_width: int, identifier: slice) -> list[bytes]:
    """Messages outside of the header: a tree of records, in each the place in a heap that a message has."""
    fields = _Fields(info)
    _, flags = fields.numbers(1, 1)
    fields.raw(index_width if flags & 1 else 0)
    address, tree = fields.numbers(8, 8)
    if address == _NOWHERE:
        return []
    heap = _Heap(file, address)
    return [heap.item(record[identifier]) for record in _records(file, tree)]


def _records(file: File, address: int) -> Iterator[bytes]:
    """Every record of a B-tree of version 2."""
    fields = _Fields(file.sealed(address, 34, b"BTHD"))
    fields.raw(6)
    node_size, size, depth, _, root, count = fields.numbers(4, 2, 2, 2, 8, 2)
    room = node_size - 10
    if size == 0 or room < size or depth > _DEEPEST:
        raise Hdf5Error("a tree that cannot be")
    capacity = below = room // size
    count_width, below_widths = _width(capacity), [0]  # of the fields that tell how many records a child has
    for _ in range(depth):
        pointer = 8 + count_width + below_widths[-1]
        fit = (room - pointer) // (size + pointer)
        below = (fit + 1) * below + fit
        below_widths.append(_width(max(below, 1)))
    seen: set[int] = set()

    def node(address: int, count: int, level: int) -> Iterator[bytes]:
        if address in seen:
            raise Hdf5Error("a tree that grows into itself")
        seen.add(address)
        pointer = [8, count_width, below_widths[level - 1]] if level else []
        data = file.sealed(address, 6 + count * size + (count + 1) * sum(pointer), b"BTIN" if level else b"BTLF")
        fields = _Fields(data[6:])
        yield from [fields.raw(size) for _ in range(count)]
        for _ in range(count + 1 if level else 0):
            child, its_count, _ = fields.numbers(*pointer)
            yield from node(child, its_count, level - 1)

    if root != _NOWHERE:
        yield from node(root, count, depth)


def _width(number: int) -> int:
    """Bytes that a number takes."""
    return (number.bit_length() + 7) // 8


class _Heap:
    """A fractal heap, III.G."""

    def __init__(self, file: File, address: int) -> None:
        self._file = file
        fields = _Fields(file.sealed(address, 142, b"FRHP"))
        _, _, _, filters, flags, largest, _, self._huge = fields.numbers(4, 1, 2, 2, 1, 4, 8, 8)
        fields.raw(80)
        self._width, self._start, most, bits, _, self._root, self._rows = fields.numbers(2, 8, 8, 2, 2, 8, 2)
        if filters or not (self._width and self._start and most):
            raise Hdf5Error("a heap that cannot be")
        self._direct_rows = most.bit_length() - self._start.bit_length() + 2
        self._offset_width = (bits + 7) // 8
        self._length_width = min(_width(most), _width(largest))
        self._has_checksums = flags & 2
        self._blocks: dict[int, bytes] = {}

    def item(self, identifier: bytes) -> bytes:
        """What is stored under an identifier."""
        fields = _Fields(identifier)
        kind = fields.number(1) >> 4 & 3
        if kind == 1:
            return self._huge_item(fields.number(len(fields)))
        if kind != 0:
            raise Hdf5Error("a small item in a heap")
        offset, length = fields.numbers(self._offset_width, self._length_width)
        block, first = self._block(offset)
        self._file.spend(length)
        fields = _Fields(block)
        fields.raw(offset - first)
        return fields.raw(length)

    def _huge_item(self, wanted: int) -> bytes:
        for record in _records(self._file, self._huge):
            address, length, number = _Fields(record).numbers(8, 8, 8)
            if number == wanted:
                return self._file.read(address, length)
        raise Hdf5Error("an item that is not in its heap")

    def _block(self, offset: int) -> tuple[bytes, int]:
        """The direct block that a byte of the heap is in, and the number of its first byte."""
        address, size, first, rows = self._root, self._start, 0, self._rows
        while rows:
            row = ((offset - first) // (self._start * self._width)).bit_length()
            if row >= rows:
                raise Hdf5Error("an item behind the end of its heap")
            size = self._start << max(row - 1, 0)
            before = self._start * self._width << row - 1 if row else 0
            column = (offset - first - before) // size
            pointers = self._pointers(address, rows)
            address = pointers[row * self._width + column]
            first += before + column * size
            rows = 0 if row < self._direct_rows else size.bit_length() - (self._start * self._width).bit_length() + 1
        return self._direct(address, size), first

    def _pointers(self, address: int, rows: int) -> list[int]:
        """Of an indirect block."""
        head = 13 + self._offset_width
        fields = _Fields(self._file.sealed(address, head + 8 * rows * self._width, b"FHIB"))
        fields.raw(head)
        return fields.numbers(*[8] * (rows * self._width))

    def _direct(self, address: int, size: int) -> bytes:
        if address not in self._blocks:
            data = self._file.read(address, size)
            at = 13 + self._offset_width
            if not data.startswith(b"FHDB"):
                raise Hdf5Error("a heap without a block")
            if self._has_checksums and lookup3(data[:at] + bytes(4) + data[at + 4 :]) != int.from_bytes(
                data[at : at + 4], "little"
            ):
                raise Hdf5Error("a block of a heap is not what it was")
            self._blocks[address] = data
        return self._blocks[address]
