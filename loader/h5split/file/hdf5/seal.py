"""The seal of a pack's metadata: where they are, and a checksum of all of them.

HDF5 has a checksum for each piece of metadata, lookup3, of which Python computes 8 MB a second: half of the time that
opening a pack takes. And a reader has to follow addresses from piece to piece. With the seal, two reads and one XXH3-64
give all metadata of a pack. Without it, or if another program changed the metadata since, they are read piece by piece.
"""

from __future__ import annotations

import struct

import xxhash

SEAL = struct.Struct("<8sQQQ")  # mark, place and size in bytes of the metadata behind the pixels, checksum
SEAL_AT = 4096 - SEAL.size  # in the first page, which HDF5 does not fill
SEAL_MARK = b"H5 seal\0"


def seal_checksum(head: bytes | bytearray, metadata: bytes | bytearray) -> int:
    """Return the XXH3-64 of the first page up to the seal, and of the metadata behind the pixels."""
    checksum = xxhash.xxh3_64(bytes(head[:SEAL_AT]))
    checksum.update(metadata)
    return checksum.intdigest()
