"""Bytes of metadata: read up to a limit, compared with their checksums, cut into fields."""

from __future__ import annotations

import os

import numpy as np

NOWHERE = (1 << 64) - 1  # the undefined address: nothing is allocated

_LIMIT = 16 << 20  # bytes of metadata that are read of a file; a pack of 10,000 columns has 8 to 14 MB
_LEAST = 64  # bytes that every read counts as, so that many small ones reach the limit, too
_MASK = 0xFFFFFFFF


class Hdf5Error(ValueError):
    """The file is damaged, or has a feature that is not supported here."""


class NoHdf5Error(Hdf5Error):
    """It is not an HDF5 file, or was written as before HDF5 1.8."""


class Metadata:
    """The metadata of one file, as bytes.

    Args:
        descriptor: Open for reading; stays open.

    Attributes:
        status: Of the file, before anything of it was read.
        size: In bytes.
        base: The byte that addresses count from: the end of a user block.
    """

    def __init__(self, descriptor: int) -> None:
        self.status = os.fstat(descriptor)
        self.size = self.status.st_size
        self.base = 0
        self._descriptor = descriptor
        self._left = _LIMIT

    def read(self, address: int, count: int) -> bytes:
        """Read `count` bytes at an address."""
        self.spend(count)
        start = self.base + address
        if start + count > self.size:
            raise Hdf5Error(f"expected bytes up to {start + count}, but the file is cut short at {self.size}")
        data = os.pread(self._descriptor, count, start)
        if len(data) < count:
            raise Hdf5Error("the file was cut short while it was read")
        return data

    def sealed(self, address: int, count: int, signature: bytes) -> bytes:
        """Read `count` bytes that begin with a signature, and compare them with the checksum that follows them."""
        data = self.read(address, max(count, len(signature)) + 4)
        if not data.startswith(signature) or lookup3(data[:-4]) != int.from_bytes(data[-4:], "little"):
            raise Hdf5Error(f"the metadata at byte {self.base + address} are not what they were")
        return data[:-4]

    def spend(self, count: int) -> None:
        """Count bytes towards the limit; bytes that are used again count again."""
        self._left -= max(count, _LEAST)
        if self._left < 0:
            raise Hdf5Error(f"more than {_LIMIT >> 20} MB of metadata")


class Fields:
    """Bytes, taken one field after another; a field that is not there is an `Hdf5Error`."""

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
    """Bob Jenkins' hash of 2006: the checksum of metadata in HDF5."""
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
