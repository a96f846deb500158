"""Opens a pack that is elsewhere: by three requests at most, if its labels have less than 4 MB."""

from __future__ import annotations

import os

import numpy as np

from h5split.errors import RemoteError
from h5split.file import format as pack_format
from h5split.file.format import Header
from h5split.remote.copying import Copy
from h5split.remote.folder import Folder
from h5split.remote.layout import Layout
from h5split.remote.objects import Identity, RemoteObject

_ATTEMPTS = 3  # to open a copy that other processes remove
_PIECES = 5  # of the beginning, that has been asked for
_READ_BYTES = 4 << 20  # at least, in one request: the metadata behind the pixels, and with them the first tables


def open_copy(
    url: str, cache: str | os.PathLike[str] | None, limit: int | None
) -> tuple[Copy, int, os.stat_result, Header]:
    """Open the copy of a remote pack on this machine, with all that is needed to read its header.

    Args:
        url: The address of the pack.
        cache: The folder of copies; None for the one of this user.
        limit: How many bytes the copies may have; None for no limit.

    Returns:
        The copy, and what `format.read` returns of its file.

    Raises:
        FileNotFoundError: There is nothing at the address.
        FormatError: It is no pack, is damaged, or of a newer version; or it was replaced while it was opened.
        ImportError: The package that reads such addresses is not installed.
        OSError: It cannot be read.
    """
    folder = Folder(cache, limit)
    for attempt in range(_ATTEMPTS):
        try:
            copy = _copy_of(RemoteObject(url), folder)
            return copy, *pack_format.read(copy.place.pack, name=url, before=copy.need_bytes)
        except FileNotFoundError as error:
            is_of_copy = error.filename is not None  # another process removed it before it was open
            if not is_of_copy or attempt == _ATTEMPTS - 1:
                raise
    raise AssertionError


def _copy_of(remote: RemoteObject, folder: Folder) -> Copy:
    """The copy of a remote pack, which is made if there is none."""
    old = folder.copies_of(remote.url)
    if not old:
        remote.begin()
    try:
        identity, head = remote.look()
    except RemoteError as error:
        whole = next((place.pack for place in old if place.is_whole), None)
        raise error if whole is None else RemoteError(f"{error}, or open the copy of last time, {whole}") from None
    is_told = remote.expect(identity)
    try:
        place = folder.find(remote.url, identity, head)
    except RemoteError:
        if remote.identity() != identity:  # the first bytes are of the next object
            raise remote.changed() from None
        raise
    if place is not None:
        return Copy(remote, place)
    opening = _Opening(remote, identity, head)
    header = pack_format.header_from(opening.read_at, identity.size, remote.url)
    if not is_told and remote.identity() != identity:
        raise remote.changed()
    copy = Copy(remote, folder.make(remote.url, identity, _layout(header)))
    for start, data in opening.found:
        copy.put(start, data)
    opening.found.clear()  # the objects of the metadata are a cycle, and would keep it
    copy.plan(range(1, min(_PIECES, copy.layout.tables)))
    return copy


def _layout(header: Header) -> Layout:
    images = header.images
    stride = int(np.prod(images.shape[1:], dtype=object)) * images.dtype.itemsize
    return Layout.cut(header.size, images.offset, stride, images.shape[0], header.checksums.offset)


class _Opening:
    """Reads a remote pack before it has a copy.

    Attributes:
        found: The bytes that were read, with their place.
    """

    def __init__(self, remote: RemoteObject, identity: Identity, head: bytes) -> None:
        self._remote, self._size = remote, identity.size
        self.found = [(0, head)]

    def read_at(self, count: int, offset: int) -> bytes:
        """Up to `count` bytes from `offset` on."""
        stop = min(offset + count, self._size)
        for start, data in self.found:
            if start <= offset and stop <= start + len(data):
                return data[offset - start : stop - start]
        stop = min(max(stop, offset + _READ_BYTES), self._size)
        self.found.append((offset, self._remote.read(offset, stop)))
        return self.found[-1][1][:count]
