"""An HDF5 file: its superblock (section II) and its objects."""

from __future__ import annotations

from collections.abc import Callable

from h5split.file.hdf5.headers import Object
from h5split.file.hdf5.metadata import Fields, Hdf5Error, Metadata, NoHdf5Error, OldHdf5Error

_SIGNATURE = b"\x89HDF\r\n\x1a\n"


class File(Metadata):
    """An HDF5 file.

    Args:
        read_at: Reads up to so many bytes, from a byte of the file on; fewer at its end.
        size: The size of the file in bytes.

    Attributes:
        root: The root group.

    Raises:
        NoHdf5Error: The file is not HDF5.
        Hdf5Error: The file is damaged.
        OSError: The file cannot be read.
    """

    def __init__(self, read_at: Callable[[int, int], bytes], size: int) -> None:
        super().__init__(read_at, size)
        # A user block may precede the superblock, which is then at byte 512, 1024, 2048 or a higher power of two.
        while self.base + len(_SIGNATURE) <= self.size and self.read(0, len(_SIGNATURE)) != _SIGNATURE:
            self.base = self.base * 2 or 512
        if self.base + len(_SIGNATURE) > self.size:
            raise NoHdf5Error("it is not an HDF5 file")
        self._objects: dict[int, Object] = {}
        self.root = self.object(self._root_address())

    def object(self, address: int) -> Object:
        """The group or data set whose header is at `address`."""
        if address not in self._objects:
            self._objects[address] = Object(self, address)
        return self._objects[address]

    def data(self, offset: int, count: int) -> bytes:
        """Read `count` bytes of a data set, beginning at byte `offset` of the file."""
        parts = []
        while count:
            part = self._read_at(min(count, 1 << 30), offset)  # Linux reads less than 2 GB in a call
            if not part:
                raise Hdf5Error("the file was cut short while it was read")
            parts.append(part)
            offset, count = offset + len(part), count - len(part)
        return b"".join(parts)

    def _root_address(self) -> int:
        """Read the superblock (section II) and return the address of the root group."""
        version = self.read(8, 1)[0]
        if version < 2:
            raise OldHdf5Error(
                f"it is another HDF5 file, in the format from before version 1.8 (superblock of version {version})"
            )
        if version > 3:
            raise Hdf5Error(f"expected a superblock of version 2 or 3, found {version}")
        fields = Fields(self.sealed(0, 44, _SIGNATURE))
        fields.raw(9)  # signature and version
        widths, consistency_flags = fields.raw(2), fields.number(1)
        _, _, end, root = fields.numbers(8, 8, 8, 8)
        if end > self.size:
            raise Hdf5Error(f"expected {end} bytes, but the file is cut short at {self.size}")
        if widths != b"\x08\x08":
            raise Hdf5Error(f"expected addresses of 8 bytes, found {widths[0]} and {widths[1]}")
        if version == 3 and consistency_flags & 1:
            raise Hdf5Error("it was not closed by who wrote to it last")
        return root
