"""Dense storage: links and attributes that do not fit into the header of their object.

They are in a fractal heap (section III.G). A B-tree of version 2 (section III.A.2) has a record for each, with its
place in the heap.
"""

from __future__ import annotations

from collections.abc import Iterator

from h5split.file.hdf5.metadata import NOWHERE, Fields, Hdf5Error, Metadata

_MAX_DEPTH = 8  # levels of a tree; two levels hold thousands of records


def dense(file: Metadata, info: bytes, index_width: int, identifier: slice) -> list[bytes]:
    """Read the messages of an object that are in dense storage.

    Args:
        file: The file that the object is in.
        info: The body of the message with the addresses of the heap and of the tree.
        index_width: The size in bytes of the field for the largest creation index; the field is optional.
        identifier: The part of a tree record that is the heap identifier of the message.
    """
    fields = Fields(info)
    _, flags = fields.numbers(1, 1)
    fields.raw(index_width if flags & 1 else 0)
    address, tree = fields.numbers(8, 8)
    if address == NOWHERE:
        return []
    heap = _Heap(file, address)
    return [heap.item(record[identifier]) for record in _records(file, tree)]


def _records(file: Metadata, address: int) -> Iterator[bytes]:
    """Yield every record of a B-tree of version 2."""
    fields = Fields(file.sealed(address, 34, b"BTHD"))
    fields.raw(6)  # signature, version, type
    node_size, size, depth, _, root, count = fields.numbers(4, 2, 2, 2, 8, 2)
    room = node_size - 10  # signature, version, type and checksum take 10 bytes of a node
    if size == 0 or room < size or depth > _MAX_DEPTH:
        raise Hdf5Error("a tree that cannot be")
    capacity = below = room // size
    # A pointer to a child has two counts: the records in the child, and the records in the child and all nodes below
    # it. Each count takes as many bytes as its largest possible value needs, so the widths depend on the level.
    count_width, below_widths = _width(capacity), [0]
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
        fields = Fields(data[6:])
        yield from [fields.raw(size) for _ in range(count)]
        for _ in range(count + 1 if level else 0):
            child, its_count, _ = fields.numbers(*pointer)
            yield from node(child, its_count, level - 1)

    if root != NOWHERE:
        yield from node(root, count, depth)


def _width(number: int) -> int:
    """The number of bytes that an unsigned integer takes."""
    return (number.bit_length() + 7) // 8


class _Heap:
    """A fractal heap (section III.G).

    Items are in direct blocks. Indirect blocks have the addresses of direct blocks, and of other indirect blocks. The
    addresses form a table. All blocks of a row have the same size: rows 0 and 1 have the smallest blocks, and the size
    doubles with each further row.

    Args:
        file: The file that the heap is in.
        address: The address of its header.
    """

    def __init__(self, file: Metadata, address: int) -> None:
        self._file = file
        fields = Fields(file.sealed(address, 142, b"FRHP"))
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
        self._pointers_at: dict[int, list[int]] = {}

    def item(self, identifier: bytes) -> bytes:
        """The item with a heap identifier."""
        fields = Fields(identifier)
        kind = fields.number(1) >> 4 & 3
        if kind == 1:
            return self._huge_item(fields.number(len(fields)))
        if kind != 0:
            raise Hdf5Error("a small item in a heap")
        offset, length = fields.numbers(self._offset_width, self._length_width)
        block, first = self._block(offset)
        self._file.spend(length)  # many identifiers could refer to the same large item
        item = block[offset - first : offset - first + length]
        if len(item) < length:
            raise Hdf5Error("an item behind the end of its block")
        return item

    def _huge_item(self, wanted: int) -> bytes:
        """An item that is too large for a block. It is stored on its own, and a tree has its address."""
        for record in _records(self._file, self._huge):
            address, length, number = Fields(record).numbers(8, 8, 8)
            if number == wanted:
                return self._file.read(address, length)
        raise Hdf5Error("an item that is not in its heap")

    def _block(self, offset: int) -> tuple[bytes, int]:
        """The direct block that contains byte `offset` of the heap, and the heap offset of its first byte."""
        address, size, first, rows = self._root, self._start, 0, self._rows
        while rows:  # `address` is an indirect block with so many rows; 0 for a direct block
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
        """The addresses of blocks in an indirect block, row by row."""
        if address not in self._pointers_at:
            head = 13 + self._offset_width
            fields = Fields(self._file.sealed(address, head + 8 * rows * self._width, b"FHIB"))
            fields.raw(head)
            self._pointers_at[address] = fields.numbers(*[8] * (rows * self._width))
        return self._pointers_at[address]

    def _direct(self, address: int, size: int) -> bytes:
        """The bytes of a direct block. Its checksum, if there is one, is computed with its own field set to zero."""
        if address not in self._blocks:
            data = self._file.read(address, size)
            at = 13 + self._offset_width
            if not data.startswith(b"FHDB"):
                raise Hdf5Error("a heap without a block")
            blank = data[:at] + bytes(4) + data[at + 4 :]
            if self._has_checksums and not self._file.is_sound(address, blank, data[at : at + 4]):
                raise Hdf5Error("a block of a heap is not what it was")
            self._blocks[address] = data
        return self._blocks[address]
