"""A folder of copies of remote packs. Each copy is a folder in it, which its processes share.

A copy has four files. pack.h5 is a sparse file of the size of the pack. pieces has a byte for each piece of it: 1 once
the piece is there. about.json says what it is a copy of. whole is there once all pieces are, and were checked.

A copy is in use while a process has pack.h5 open, with a shared lock on it. A copy gets its name when it is complete,
and loses it before its files are removed, so that a process that is killed meanwhile leaves no part of a copy.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from dataclasses import asdict, astuple, dataclass

from h5split.errors import ArgumentError, ArgumentTypeError, MissingPackageError, RemoteError
from h5split.remote.layout import Layout
from h5split.remote.objects import Identity
from h5split.system import files

_FORMAT = "h5split copy of a remote pack, version 1"
_NAME = re.compile(r"[0-9a-f]{32}")
_ABOUT, _PACK, _PIECES, _WHOLE = "about.json", "pack.h5", "pieces", "whole"
_NEW, _OLD = ".h5split-new-", ".h5split-old-"  # what folders are called before they are copies, and after
_MAKING_SECONDS = 3600  # at most, to make an empty copy


@dataclass(frozen=True)
class Place:
    """A copy on this machine.

    Attributes:
        folder: Its folder.
        url: The address of the object that it is a copy of.
        identity: Of that object.
        layout: The pieces of the pack.
    """

    folder: str
    url: str
    identity: Identity
    layout: Layout

    @property
    def cache(self) -> str:
        """The folder of copies that it is in."""
        return os.path.dirname(self.folder)

    @property
    def pack(self) -> str:
        """The path of the pack."""
        return os.path.join(self.folder, _PACK)

    @property
    def pieces(self) -> str:
        """The path of the notes of which pieces are there."""
        return os.path.join(self.folder, _PIECES)

    @property
    def is_whole(self) -> bool:
        """Whether all pieces are there and were checked."""
        return os.path.exists(os.path.join(self.folder, _WHOLE))

    def mark_whole(self) -> None:
        """Note that all pieces are there, and were checked."""
        with open(os.path.join(self.folder, _WHOLE), "w", encoding="ascii"):
            pass

    @property
    def free(self) -> int:
        """The bytes that the disk has left."""
        return shutil.disk_usage(self.cache).free


class Folder:
    """A folder of copies.

    Args:
        path: The folder, which need not exist; None for the one of this user.
        limit: How many bytes its copies may have; None for no limit.

    Attributes:
        path: Its path.

    Raises:
        ImportError: No folder is given, and the package that knows the one of this user is not installed.
    """

    def __init__(self, path: str | os.PathLike[str] | None, limit: int | None) -> None:
        if path is not None and not isinstance(path, (str, os.PathLike)):
            raise ArgumentTypeError(f"cache: expected a folder, found {path!r}")
        if limit is not None and (not isinstance(limit, int) or limit < 1):
            raise ArgumentError(f"cache_limit: expected a whole number of bytes of 1 or more, found {limit!r}")
        self.path = os.path.abspath(_of_user() if path is None else os.fsdecode(path))
        self._limit = limit

    def copies_of(self, url: str) -> list[Place]:
        """The copies of what is at an address, or was there before."""
        return [place for place in self._copies() if place.url == url]

    def find(self, url: str, identity: Identity, head: bytes) -> Place | None:
        """The copy of an object; None if there is none yet. Copies of what was at its address before are removed.

        A copy that is damaged is removed too.

        Args:
            url: The address.
            identity: Of the object.
            head: Its first bytes.

        Raises:
            OSError: The copy is damaged, and a process uses it.
        """
        folder = os.path.join(self.path, _name(url, identity))
        place = _place(folder)
        if place is None or not _is_sound(place, head):
            if os.path.lexists(folder) and not _remove_unused(folder):
                raise RemoteError(
                    f"{folder}: expected the copy of a pack, found one that is damaged, or other files; remove it, or "
                    "give another folder with the setting cache"
                )
            return None
        with contextlib.suppress(OSError):  # the copy of another user
            os.utime(os.path.join(folder, _ABOUT))  # it was used last now
        self._remove_older(url, folder)
        return place

    def make(self, url: str, identity: Identity, layout: Layout) -> Place:
        """Make an empty copy of an object, unless another process has made it meanwhile.

        Raises:
            ValueError: The limit is less than the object has.
            OSError: It cannot be made.
        """
        folder = os.path.join(self.path, _name(url, identity))
        place = Place(folder, url, identity, layout)
        try:
            self._make_room(url, identity.size, folder)
            self._make(place)
        except OSError as error:
            if _place(folder) is None:  # else another process has made it
                raise RemoteError(
                    f"{self.path}: expected a folder for copies of packs, found {error.strerror}; give another with "
                    "the setting cache"
                ) from error
        return place

    def _make(self, place: Place) -> None:
        layout = place.layout
        about = {"format": _FORMAT, "url": place.url, **place.identity._asdict(), "layout": asdict(layout)}
        new = tempfile.mkdtemp(prefix=_NEW, dir=self.path)
        try:
            for name, size in ((_PACK, layout.size), (_PIECES, layout.count)):
                with open(os.path.join(new, name), "wb") as file:
                    file.truncate(size)
            with open(os.path.join(new, _ABOUT), "w", encoding="utf-8") as file:
                json.dump(about, file)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(new, 0o755)
            os.rename(new, place.folder)
        except OSError:
            _remove(new)
            raise

    def _make_room(self, url: str, size: int, new: str) -> None:
        """Remove copies that no process uses: older ones of the same address, and what is above the limit."""
        os.makedirs(self.path, exist_ok=True)
        self._remove_left()
        self._remove_older(url, new)
        if self._limit is None:
            return
        if size > self._limit:
            raise ArgumentError(f"{url}: expected cache_limit to be {size} bytes or more, found {self._limit}")
        others = (place.folder for place in self._copies())
        kept = sorted((folder for folder in others if folder != new), key=_last_used)  # another process may make it too
        used = {folder: _used(folder) for folder in kept}
        for folder in kept:
            if sum(used.values()) + size <= self._limit:
                break
            if _remove_unused(folder):
                del used[folder]

    def _remove_older(self, url: str, new: str) -> None:
        """Remove the other copies of an address, unless a process uses them."""
        for place in self.copies_of(url):
            if place.folder != new:
                _remove_unused(place.folder)

    def _remove_left(self) -> None:
        """Remove what processes left that were killed while they made or removed a copy."""
        for entry in list(os.scandir(self.path)):
            is_left = entry.name.startswith(_NEW) and time.time() - _changed(entry.path) > _MAKING_SECONDS
            if (is_left or entry.name.startswith(_OLD)) and entry.is_dir(follow_symlinks=False):
                _remove(entry.path)

    def _copies(self) -> list[Place]:
        if not os.path.isdir(self.path):
            return []
        folders = [entry.path for entry in os.scandir(self.path) if _NAME.fullmatch(entry.name)]
        return [place for folder in folders if (place := _place(folder)) is not None]


def _of_user() -> str:
    try:
        from platformdirs import user_cache_dir
    except ImportError as error:
        raise MissingPackageError("the cache folder of this user: pip install 'pack-images[remote]'") from error
    return user_cache_dir("h5split", appauthor=False)


def _name(url: str, identity: Identity) -> str:
    return hashlib.sha256(repr((url, *identity)).encode()).hexdigest()[:32]


def _is_sound(place: Place, head: bytes) -> bool:
    """Whether a copy has its files, and the first bytes of its pack, if these have come."""
    count = min(len(head), place.layout.pixels)
    try:
        with open(place.pack, "rb") as pack, open(place.pieces, "rb") as pieces:
            sizes = os.fstat(pack.fileno()).st_size, os.fstat(pieces.fileno()).st_size
            is_other = pieces.read(1) == b"\1" and pack.read(count) != head[:count]
            return sizes == (place.layout.size, place.layout.count) and not is_other
    except OSError:
        return False


def _place(folder: str) -> Place | None:
    """The copy in a folder, by what it says of itself; None if the folder is no copy."""
    try:
        with open(os.path.join(folder, _ABOUT), encoding="utf-8") as file:
            about = json.load(file)
        layout, url, version = Layout(**about["layout"]), about["url"], about["version"]
        is_right = about["format"] == _FORMAT and isinstance(url, str) and isinstance(version, str)
        is_right &= all(isinstance(number, int) and number >= 0 for number in (about["size"], *astuple(layout)))
        is_right &= min(layout.stride, layout.rows, layout.rows_in_piece, layout.table_bytes) > 0
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return Place(folder, url, Identity(about["size"], version), layout) if is_right else None


def _last_used(folder: str) -> float:
    return _changed(os.path.join(folder, _ABOUT))


def _changed(path: str) -> float:
    with contextlib.suppress(OSError):
        return os.stat(path).st_mtime
    return 0


def _used(folder: str) -> int:
    """The bytes of a copy on disk."""
    with contextlib.suppress(OSError):
        status = os.stat(os.path.join(folder, _PACK))
        return getattr(status, "st_blocks", -(-status.st_size // 512)) * 512
    return 0


def _remove_unused(folder: str) -> bool:
    """Remove a copy, unless a process uses it. Return whether it is gone."""
    try:
        descriptor = os.open(os.path.join(folder, _PACK), os.O_RDWR | files.BINARY)
    except FileNotFoundError:
        descriptor = -1
    except OSError:
        return False
    try:
        if (descriptor >= 0 and not files.lock_alone(descriptor)) or not _is_ours(folder):
            return False
        path, name = os.path.split(folder)
        old = os.path.join(path, f"{_OLD}{name}-{os.urandom(4).hex()}")
        os.rename(folder, old)
        _remove(old)
    except OSError:
        return False
    finally:
        if descriptor >= 0:
            os.close(descriptor)
    return True


def _is_ours(folder: str) -> bool:
    """Whether a folder has the files of a copy, and no others."""
    return {*os.listdir(folder)} <= {_ABOUT, _PACK, _PIECES, _WHOLE}


def _remove(folder: str) -> None:
    """Remove the files of a copy, and no others."""
    with contextlib.suppress(OSError):
        for name in (_ABOUT, _WHOLE, _PIECES, _PACK):
            with contextlib.suppress(FileNotFoundError):
                os.remove(os.path.join(folder, name))
        os.rmdir(folder)
