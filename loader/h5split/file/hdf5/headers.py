"""Object headers (section IV.A): the links of a group; the type, shape and place of a data set.

A header is a list of messages, and each message has a kind. The kind of a message says what its body describes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from struct import Struct
from typing import Any, NamedTuple, TypeVar

import numpy as np

from h5split.file.hdf5.heap import dense
from h5split.file.hdf5.metadata import NOWHERE, Fields, Hdf5Error, Metadata
from h5split.system.lazy import lazy

_T = TypeVar("_T")

# Kinds of messages (section IV.A.2).
_SPACE, _LINK_INFO, _TYPE, _LINK, _EXTERNAL, _LAYOUT, _FILTERS = 0x01, 0x02, 0x03, 0x06, 0x07, 0x08, 0x0B
_ATTRIBUTE, _CONTINUATION, _SYMBOL_TABLE, _ATTRIBUTE_INFO = 0x0C, 0x10, 0x11, 0x15
# What comes before the body of a message: kind, size, flags. Two bytes for the order of creation may follow.
_MESSAGE, _MESSAGE_WITH_ORDER, _OLD_MESSAGE = Struct("<BHB"), Struct("<BHB2x"), Struct("<HHB3x")
_TYPE_HEAD, _SPACE_HEAD, _PAIR, _PLACE = Struct("<B3sL"), Struct("<BBB"), Struct("<BB"), Struct("<QQ")
_SHARED = 2  # flag of a message: its body is stored elsewhere in the file

_STORAGE = {0: "compact", 1: "contiguous", 2: "chunked", 3: "virtual"}
# Names of the data type classes that packs do not use, for error messages.
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


# Size in bytes -> the floats of IEEE 754: the bits of the class (the leading 1 of a mantissa is not stored; where the
# sign is), then offset and precision in bits, place and size of the exponent and of the mantissa, the bias.
_IEEE = {
    2: (0x20 | 15 << 8, 0, 16, 10, 5, 0, 10, 15),
    4: (0x20 | 31 << 8, 0, 32, 23, 8, 0, 23, 127),
    8: (0x20 | 63 << 8, 0, 64, 52, 11, 0, 52, 1023),
}


@dataclass(frozen=True)
class Type:
    """The data type of the elements of an array.

    Attributes:
        name: The name for error messages.
        dtype: The numpy type of integers, IEEE floats and fixed-length text; void for every other type.
    """

    name: str
    dtype: np.dtype[Any] = np.dtype("V")  # noqa: RUF009  # dtypes are immutable


@dataclass(frozen=True)
class Attribute:
    """The value of an attribute, which is a small array stored with an object.

    Attributes:
        shape: The shape; () for a single value, None for an attribute without a value.
        data: The bytes of all elements.
    """

    type: Type
    shape: tuple[int, ...] | None
    data: bytes


class DataSet(NamedTuple):
    """The description of an array in the file.

    Attributes:
        shape: The shape; () for a single value, None for a data set without a value.
        storage: `contiguous`, or the name of another kind of storage, which packs do not use.
        offset: The byte of the file where the array begins; None if no space is allocated.
        nbytes: The allocated size in bytes.
    """

    type: Type
    shape: tuple[int, ...] | None
    storage: str
    offset: int | None
    nbytes: int


class Object:
    """A group or a data set.

    Args:
        file: The file that the object is in.
        address: The address of its header.
    """

    def __init__(self, file: Metadata, address: int) -> None:
        self._file = file
        self._messages = _messages(file, address)

    @property
    def is_group(self) -> bool:
        """Whether this is a group."""
        return _LINK_INFO in self._messages or _SYMBOL_TABLE in self._messages

    @property
    def is_data_set(self) -> bool:
        """Whether this is a data set."""
        return _LAYOUT in self._messages

    @lazy
    def links(self) -> Mapping[bytes, int | None]:
        """Name of each member -> address of its header; None for a soft or external link."""
        if _SYMBOL_TABLE in self._messages:
            raise Hdf5Error("a group as HDF5 made them before version 1.8; h5py makes newer ones with libver='v108'")
        bodies = self._bodies(_LINK)
        for info in self._bodies(_LINK_INFO):
            bodies = bodies + dense(self._file, info, index_width=8, identifier=slice(4, 11))
        return _by_name([_link(body) for body in bodies])

    @lazy
    def attributes(self) -> Mapping[bytes, Attribute]:
        """Name of each attribute -> its value."""
        bodies = self._bodies(_ATTRIBUTE)
        for info in self._bodies(_ATTRIBUTE_INFO):
            bodies = bodies + dense(self._file, info, index_width=2, identifier=slice(0, 8))
        return _by_name([_attribute(body) for body in bodies])

    @lazy
    def data_set(self) -> DataSet:
        """The description of this data set."""
        storage, address, nbytes = _layout(self._body(_LAYOUT))
        if _EXTERNAL in self._messages:
            storage = "external"
        if _FILTERS in self._messages:
            storage = "filtered"
        return DataSet(
            type=_type(self._body(_TYPE)),
            shape=_shape(self._body(_SPACE)),
            storage=storage,
            offset=None if address == NOWHERE else self._file.base + address,
            nbytes=nbytes,
        )

    def _bodies(self, wanted: int) -> list[bytes]:
        """The bodies of all messages of one kind."""
        return self._messages.get(wanted, [])

    def _body(self, wanted: int) -> bytes:
        """The body of the only message of one kind."""
        bodies = self._bodies(wanted)
        if len(bodies) != 1:
            raise Hdf5Error(f"expected one message of kind {wanted}, found {len(bodies)}")
        return bodies[0]


def _by_name(pairs: list[tuple[bytes, _T]]) -> dict[bytes, _T]:
    """A dict of (name, value) pairs. Raise if a name occurs twice: readers would disagree which one is meant."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise Hdf5Error("two members or attributes have one name")
    return found


def _messages(file: Metadata, address: int) -> dict[int, list[bytes]]:
    """Kind -> bodies of the messages in the header at `address`.

    A header consists of chunks. A continuation message in one chunk has the place of another chunk.
    """
    head = file.read(address, 6)
    if head.startswith(b"OHDR"):
        chunk = _first_chunk(file, address, *head[4:])
        layout = _MESSAGE_WITH_ORDER if head[5] & 4 else _MESSAGE
    else:
        chunk = _old_first_chunk(file, address)
        layout = _OLD_MESSAGE
    found: dict[int, list[bytes]] = {}
    chunks, seen = [chunk], {address}
    for chunk in chunks:  # the list grows in the loop, with each continuation
        for kind, flags, body in _split(chunk, layout):
            if flags & _SHARED:
                raise Hdf5Error("types and other messages that objects share are not read here")
            if kind != _CONTINUATION:
                found.setdefault(kind, []).append(body)
                continue
            start, length = Fields(body).numbers(8, 8)
            if start in seen:
                raise Hdf5Error("a header that continues in itself")
            seen.add(start)
            is_old = layout is _OLD_MESSAGE
            chunks.append(file.read(start, length) if is_old else file.sealed(start, length - 4, b"OCHK")[4:])
    return found


def _split(chunk: bytes, layout: Struct) -> Iterator[tuple[int, int, bytes]]:
    """Yield (kind, flags, body) of each message in a chunk. Without `Fields`, it is read in half the time."""
    at, end = 0, len(chunk)
    while at + layout.size <= end:
        kind, size, flags = layout.unpack_from(chunk, at)
        start, at = at + layout.size, at + layout.size + size
        if at > end:
            raise Hdf5Error(f"expected a message of {size} bytes, found {end - start}")
        yield kind, flags, chunk[start:at]


def _first_chunk(file: Metadata, address: int, version: int, flags: int) -> bytes:
    """The first chunk of a header of version 2 (section IV.A.1.b), which has these flags."""
    if version != 2:
        raise Hdf5Error(f"expected an object header of version 2, found {version}")
    # Optional fields: four time stamps, and two limits for the storage of attributes.
    start = 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
    width = 1 << (flags & 3)
    size = int.from_bytes(file.read(address + start, width), "little")
    return file.sealed(address, start + width + size, b"OHDR")[start + width :]


def _old_first_chunk(file: Metadata, address: int) -> bytes:
    """The first chunk of a header of version 1 (section IV.A.1.a)."""
    fields = Fields(file.read(address, 16))
    version, _, _, _, size = fields.numbers(1, 1, 2, 4, 4)
    if version != 1:
        raise Hdf5Error(f"expected an object at byte {file.base + address}, found none")
    return file.read(address + 16, size)


def _link(body: bytes) -> tuple[bytes, int | None]:
    """(name, address) of a link (section IV.A.2.g). The address is None unless it is a hard link."""
    fields = Fields(body)
    _, flags = fields.unpacked(_PAIR)
    kind = fields.number(1) if flags & 8 else 0
    fields.raw((8 if flags & 4 else 0) + (flags >> 4 & 1))  # order of creation, character set
    name = fields.raw(fields.number(1 << (flags & 3)))
    return name, fields.number(8) if kind == 0 else None


def _attribute(body: bytes) -> tuple[bytes, Attribute]:
    """(name, value) of an attribute (section IV.A.2.m)."""
    fields = Fields(body)
    version, flags, *sizes = fields.numbers(1, 1, 2, 2, 2)
    if not 1 <= version <= 3:
        raise Hdf5Error(f"expected an attribute of version 1 to 3, found {version}")
    fields.raw(1 if version == 3 else 0)
    # Version 1 pads the three fields to multiples of 8 bytes.
    name, type_, space = [fields.raw(size + (-size % 8 if version == 1 else 0)) for size in sizes]
    shared = version > 1 and flags & 3
    return name.partition(b"\0")[0], Attribute(
        type=Type("a committed type") if shared else _type(type_),
        shape=None if shared else _shape(space),
        data=fields.raw(len(fields)),
    )


@lru_cache(maxsize=64)  # most columns have the same
def _type(body: bytes) -> Type:
    """A data type (section IV.A.2.d)."""
    fields = Fields(body)
    kind, bits, size = fields.unpacked(_TYPE_HEAD)
    kind, bits = kind & 15, int.from_bytes(bits, "little")
    # Integers with padding bits, or of odd sizes, have no numpy type.
    if kind == 0 and size in (1, 2, 4, 8) and fields.numbers(2, 2) == [0, 8 * size]:
        dtype = np.dtype(f"{'>' if bits & 1 else '<'}{'i' if bits & 8 else 'u'}{size}")
        return Type(str(dtype), dtype)
    if kind == 3 and 0 < size < 1 << 31:
        return Type("fixed-length text", np.dtype(f"S{size}"))
    if kind == 1:
        order = ">" if bits & 1 else "<"
        is_ieee = size in _IEEE and (bits & ~1, *fields.numbers(2, 2, 1, 1, 1, 1, 4)) == _IEEE[size]
        return Type(str(np.dtype(f"{order}f{size}")), np.dtype(f"{order}f{size}")) if is_ieee else Type("odd floats")
    return Type(_CLASSES.get(kind, "an unknown type"))


@lru_cache(maxsize=64)
def _shape(body: bytes) -> tuple[int, ...] | None:
    """The shape of a data space (section IV.A.2.b); None for a null data space."""
    fields = Fields(body)
    version, rank, _ = fields.unpacked(_SPACE_HEAD)
    if version not in (1, 2):
        raise Hdf5Error(f"expected a data space of version 1 or 2, found {version}")
    extent = fields.number(5 if version == 1 else 1)
    return None if version == 2 and extent == 2 else tuple(fields.numbers(*[8] * rank))


def _layout(body: bytes) -> tuple[str, int, int]:
    """(storage, address, bytes) of a layout (section IV.A.2.i).

    Address and bytes have a meaning for contiguous storage only.
    """
    fields = Fields(body)
    version, kind = fields.unpacked(_PAIR)
    if version not in (3, 4):
        raise Hdf5Error(f"expected a layout of version 3 or 4, found {version}")
    if kind != 1:
        return _STORAGE.get(kind, "unknown"), NOWHERE, 0
    address, nbytes = fields.unpacked(_PLACE)
    return "contiguous", address, nbytes
