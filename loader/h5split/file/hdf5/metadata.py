"""Reads metadata as bytes, up to a limit; verifies checksums; splits bytes into fields."""

from __future__ import annotations

import os

import numpy as np

from h5split.system.files import read_at

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
        descriptor: A descriptor of the file, open for reading. It stays open.

    Attributes:
        status: The result of fstat before the file was read.
        size: The size of the file in bytes.
        base: The byte of the file that has address 0. It is not byte 0 if the file begins with a user block.
    """

    def __init__(self, descriptor: int) -> None:
        self.status = os.fstat(descriptor)
        self.size = self.status.st_size
        self.base = 0
        self._descriptor = descriptor
        self._left = _MAX_BYTES

    def read(self, address: int, count: int) -> bytes:
        """Read `count` bytes at an address."""
        self.spend(count)
        start = self.base + address
        if start + count > self.size:
            raise Hdf5Error(f"expected bytes up to {start + count}, but the file is cut short at {self.size}")
        data = read_at(self._descriptor, count, start)
        if len(data) < count:
            raise Hdf5Error("the file was cut short while it was read")
        return data

    def sealed(self, address: int, count: int, signature: bytes) -> bytes:
        """Read `count` bytes, and check that they begin with a signature and that the checksum after them is right."""
        data = self.read(address, max(count, len(signature)) + 4)
        if not data.startswith(signature) or lookup3(data[:-4]) != int.from_bytes(data[-4:], "little"):
            raise Hdf5Error(f"the metadata at byte {self.base + address} are not what they were")
        return data[:-4]

    def spend(self, count: int) -> None:
        """Count bytes towards the limit. Bytes that are read twice count twice."""
        self._left -= max(count, _MIN_COST)
        if self._left < 0:
            raise Hdf5Error(f"more than {_MAX_BYTES >> 20} MB of metadata")


class Fields:
    """Splits bytes into fields, one after another. A field beyond the end raises an `Hdf5Error`."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __len__(self) -> int:
        return len(self._data) - self._at

    def raw(self, count: int) -> bytes:
        """Take the next `count` bytes."""
        if count > len(self):
            raise Hdf5Error(f"expected a field of {count} bytes, found {len(self)}")
        self._at += count
        return self._data[self._at - count : self._at]

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
    words: list[int] = np.frombuffer(data + bytes(-len(data) % 12), "<u4").tolist()
    for at in range(0, len(words) - 3, 3):
        a, b, c = (a + words[at]) & _MASK, (b + words[at + 1]) & _MASK, (c + words[at + 2]) & _MASK
        a, c = ((a - c) & _MASK) ^ _rotated(c, 4), (c + b) & _MASK
        b, a = ((b - a) & _MASK) ^ _rotated(a, 6), (a + c) & _MASK
        c, b = ((c - b) & _MASK) ^ _rotated(b, 8), (b + a) & _MASK
        a, c = ((a - c) & _MASK) ^ _rotated(c, 16), (c + b) & _MASK
        b, a = ((b - a) & _MASK) ^ _rotated(a, 19), (a + c) & _MASK
        c, b = ((c - b) & _MASK) ^ _rotated(b, 4), (b + a) & _MASK
    a, b, c = (a + words[-3]) & _MASK, (b + words[-2]) & _MASK, (c + words[-1]) & _MASK
    c = ((c ^ b) - _rotated(b, 14)) & _MASK
    a = ((a ^ c) - _rotated(c, 11)) & _MASK
    b = ((b ^ a) - _rotated(a, 25)) & _MASK
    c = ((c ^ b) - _rotated(b, 16)) & _MASK
    a = ((a ^ c) - _rotated(c, 4)) & _MASK
    b = ((b ^ a) - _rotated(a, 14)) & _MASK
    return ((c ^ b) - _rotated(b, 24)) & _MASK


def _rotated(word: int, turn: int) -> int:
    """Rotate a 32-bit integer to the left by `turn` bits."""
    return (word << turn | word >> 32 - turn) & _MASK
