"""Reads metadata as bytes, up to a limit; verifies checksums; splits bytes into fields."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from h5split.file.hdf5.seal import SEAL, SEAL_AT, SEAL_MARK, seal_checksum

NOWHERE = (1 << 64) - 1  # the undefined address of HDF5: no space is allocated

_MAX_BYTES = 16 << 20  # of metadata in a file; a pack with 10,000 columns has 8 to 14 MB
_MIN_COST = 64  # bytes that a read counts for at least, so that an endless series of tiny reads reaches the limit too
_MASK = 0xFFFFFFFF


class Hdf5Error(ValueError):
    """The file is damaged, or uses a feature of HDF5 that this reader does not support."""


class NoHdf5Error(Hdf5Error):
    """The file is not HDF5 in the format of packs."""


class OldHdf5Error(NoHdf5Error):
    """The file is HDF5 in the format from before version 1.8, which h5py writes unless it is told otherwise."""


class Metadata:
    """The metadata of one file, as bytes.

    Args:
        read_at: Reads up to so many bytes, from a byte of the file on; fewer at its end.
        size: The size of the file in bytes.

    Attributes:
        size: As given.
        base: The byte of the file that has address 0. It is not byte 0 if the file begins with a user block.
    """

    def __init__(self, read_at: Callable[[int, int], bytes], size: int) -> None:
        self.size = size
        self.base = 0
        self._read_at = read_at
        self._left = _MAX_BYTES
        self._sealed = self._read_sealed()

    def read(self, address: int, count: int) -> bytes:
        """Read `count` bytes at an address."""
        self.spend(count)
        held = self._held(address, count)
        if held is not None:
            return held
        start = self.base + address
        if start + count > self.size:
            raise Hdf5Error(f"expected bytes up to {start + count}, but the file is cut short at {self.size}")
        data = self._read_at(count, start)
        if len(data) < count:
            raise Hdf5Error("the file was cut short while it was read")
        return data

    def sealed(self, address: int, count: int, signature: bytes) -> bytes:
        """Read `count` bytes, and check that they begin with a signature and that the checksum after them is right."""
        data = self.read(address, max(count, len(signature)) + 4)
        if not data.startswith(signature) or not self.is_sound(address, data[:-4], data[-4:]):
            raise Hdf5Error(f"the metadata at byte {self.base + address} are not what they were")
        return data[:-4]

    def is_sound(self, address: int, data: bytes, checksum: bytes) -> bool:
        """Return whether bytes at an address have their checksum. The seal has proven it of bytes that it covers."""
        return self._held(address, len(data)) is not None or lookup3(data) == int.from_bytes(checksum, "little")

    def _held(self, address: int, count: int) -> bytes | None:
        """Return `count` bytes at an address if the seal covers them."""
        start = self.base + address
        for first, end, held in self._sealed:
            if first <= start and start + count <= end:
                return held[start - first : start - first + count]
        return None

    def spend(self, count: int) -> None:
        """Count bytes towards the limit. Bytes that are read twice count twice."""
        self._left -= max(count, _MIN_COST)
        if self._left < 0:
            raise Hdf5Error(f"more than {_MAX_BYTES >> 20} MB of metadata")

    def _read_sealed(self) -> list[tuple[int, int, bytes]]:
        """Read the metadata that the seal covers, as (first byte, end, bytes); none if there is none, or it broke."""
        page = self._read_at(SEAL_AT + SEAL.size, 0)
        if page[SEAL_AT : SEAL_AT + len(SEAL_MARK)] != SEAL_MARK or len(page) < SEAL_AT + SEAL.size:
            return []
        _, start, count, checksum = SEAL.unpack_from(page, SEAL_AT)
        if count > _MAX_BYTES or start + count > self.size:
            return []
        metadata = self._read_at(count, start)
        if seal_checksum(page, metadata) != checksum:
            return []
        return [(start, start + count, metadata), (0, SEAL_AT, page[:SEAL_AT])]


class Fields:
    """Splits bytes into fields, one after another. A field beyond the end raises an `Hdf5Error`."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at, self._end = 0, len(data)

    def __len__(self) -> int:
        return self._end - self._at

    def raw(self, count: int) -> bytes:
        """Take the next `count` bytes."""
        start, end = self._at, self._at + count
        if end > self._end:
            raise Hdf5Error(f"expected a field of {count} bytes, found {len(self)}")
        self._at = end
        return self._data[start:end]

    def unpacked(self, layout: struct.Struct) -> tuple[Any, ...]:
        """Take fields of a fixed layout."""
        start, end = self._at, self._at + layout.size
        if end > self._end:
            raise Hdf5Error(f"expected a field of {layout.size} bytes, found {len(self)}")
        self._at = end
        return layout.unpack_from(self._data, start)

    def number(self, width: int) -> int:
        """Take an unsigned little-endian integer of `width` bytes."""
        return int.from_bytes(self.raw(width), "little")

    def numbers(self, *widths: int) -> list[int]:
        """Take several integers, each of its own width."""
        return [self.number(width) for width in widths]


def lookup3(data: bytes) -> int:
    """The checksum of metadata in HDF5: lookup3, a hash function by Bob Jenkins (2006)."""
    a = b = c = (0xDEADBEEF + len(data)) & _MASK
    if not data:
        return c
    words: tuple[int, ...] = struct.unpack(f"<{-(-len(data) // 12) * 3}L", data + bytes(-len(data) % 12))
    rest = iter(words[:-3])
    for x, y, z in zip(rest, rest, rest, strict=True):  # rotations written out: calls would take half of the time
        a, b, c = a + x & _MASK, b + y & _MASK, c + z & _MASK
        a, c = (a - c & _MASK) ^ (c << 4 & _MASK | c >> 28), c + b & _MASK
        b, a = (b - a & _MASK) ^ (a << 6 & _MASK | a >> 26), a + c & _MASK
        c, b = (c - b & _MASK) ^ (b << 8 & _MASK | b >> 24), b + a & _MASK
        a, c = (a - c & _MASK) ^ (c << 16 & _MASK | c >> 16), c + b & _MASK
        b, a = (b - a & _MASK) ^ (a << 19 & _MASK | a >> 13), a + c & _MASK
        c, b = (c - b & _MASK) ^ (b << 4 & _MASK | b >> 28), b + a & _MASK
    a, b, c = a + words[-3] & _MASK, b + words[-2] & _MASK, c + words[-1] & _MASK
    c = (c ^ b) - (b << 14 & _MASK | b >> 18) & _MASK
    a = (a ^ c) - (c << 11 & _MASK | c >> 21) & _MASK
    b = (b ^ a) - (a << 25 & _MASK | a >> 7) & _MASK
    c = (c ^ b) - (b << 16 & _MASK | b >> 16) & _MASK
    a = (a ^ c) - (c << 4 & _MASK | c >> 28) & _MASK
    b = (b ^ a) - (a << 14 & _MASK | a >> 18) & _MASK
    return (c ^ b) - (b << 24 & _MASK | b >> 8) & _MASK
