"""The copy of a remote pack: what is needed of it comes, once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from h5split.errors import RemoteError
from h5split.remote.fetching import Fetching
from h5split.remote.folder import Place
from h5split.remote.objects import RemoteObject
from h5split.remote.store import Store

_PROGRESS_PIECES = 16  # between calls of a progress function

_Pieces = range | NDArray[np.int64]


class Copy:
    """The copy of a remote pack, whose pieces come when they are needed.

    Args:
        remote: The pack.
        place: Its copy.

    Attributes:
        url: The address of the pack.
        place: As given.
        layout: The pieces.
    """

    def __init__(self, remote: RemoteObject, place: Place) -> None:
        self.url = remote.url
        self.place = place
        self.layout = place.layout
        self._there = np.zeros(self.layout.count, np.bool_)  # in the copy, and checked by this process
        self._store = Store(place)
        self._remote = remote
        self._fetching: Fetching | None = None
        self._came: list[range] = []  # pieces that came while the pack was opened, and are not noted yet

    @property
    def is_whole(self) -> bool:
        """Whether all pieces are there. From then on the copy is a pack as any other."""
        return self._store.is_whole

    def check_when_whole(self, check: Callable[[], None]) -> None:
        """Have a function called when all pieces are there. It raises a FormatError if the tables are not right.

        It is called now too if the tables are small. What came while the pack was opened is noted after that.

        Raises:
            FormatError: They are not right.
        """
        self._store.check = check
        if not self._store.is_whole and self._store.has_small_tables:
            self.need(range(self.layout.tables, self.layout.count))
            self._store.check_tables()
        for run in self._came:
            self._of_this_process().note(run)

    def need(self, pieces: _Pieces) -> None:
        """Wait until pieces are there.

        Raises:
            FormatError: The remote pack is damaged, or was replaced.
            OSError: They cannot be fetched, or written to the disk.
        """
        if self._store.is_whole:
            return
        if self._store.broken is not None:
            raise self._store.broken
        if isinstance(pieces, range):
            if self._there[pieces.start : pieces.stop].all():
                return
        elif self._there[pieces].all():
            return
        wanted = np.unique(np.asarray(pieces, np.int64))
        self._of_this_process().wait(wanted[~self._there[wanted]])

    def need_bytes(self, start: int, count: int) -> None:
        """Wait until `count` bytes from `start` on are there. Raises what `need` does."""
        self.need(self.layout.of_bytes(start, min(start + count, self.layout.size)))

    def plan(self, pieces: _Pieces) -> bool:
        """Begin to fetch pieces, in this order, before those that were planned earlier. Return whether any is missing.

        Raises:
            OSError: The disk has too little space for them.
        """
        if self._store.is_whole:
            return False
        wanted = np.asarray(pieces, np.int64)
        missing = wanted[~self._there[wanted]]
        if len(missing):
            self._check_space(missing)
            self._of_this_process().plan(missing)
        return len(missing) > 0

    def fetch(self, progress: Callable[[int, int], object] | None = None) -> None:
        """Fetch all pieces, and check them.

        Args:
            progress: Called with (bytes that are here, bytes in total).

        Raises:
            FormatError: The remote pack is damaged, or was replaced.
            OSError: They cannot be fetched, or written to the disk.
        """
        if not self.is_whole:
            self.plan(range(self.layout.count))
        for start in range(0, self.layout.count, _PROGRESS_PIECES):
            stop = min(start + _PROGRESS_PIECES, self.layout.count)
            self.need(range(start, stop))
            if progress is not None:
                progress(self.layout.start(stop), self.layout.size)
        if not self._store.is_whole:
            self._of_this_process().settle()
            self._store.finish()
        self.need(range(0))

    def put(self, start: int, data: bytes) -> None:
        """Take over bytes that were read while the pack was opened, as far as they are whole pieces of no pixels."""
        stop = start + len(data)
        whole = [
            piece
            for piece in self.layout.of_bytes(start, stop)
            if start <= self.layout.start(piece) and self.layout.start(piece + 1) <= stop
        ]
        tables = [piece for piece in whole if not self.layout.is_pixels(piece) and not self._store.is_noted(piece)]
        for run in self.layout.runs(tables, self.layout.size):
            self._store.write(run, memoryview(data)[self.layout.start(run.start) - start :])
            self._there[run.start : run.stop] = True
            self._came.append(run)

    def missing_bytes(self) -> int:
        """How many bytes are not in the copy yet."""
        return 0 if self.is_whole else self._store.missing(np.flatnonzero(~self._there))

    def _check_space(self, pieces: NDArray[np.int64]) -> None:
        needed, free = self._store.missing(pieces), self.place.free
        if needed > free:
            raise RemoteError(
                f"{self.url}: expected {needed / 1e6:,.1f} MB of free disk for its copy, found {free / 1e6:,.1f} MB in "
                f"{self.place.folder}; free some, or give another folder with the setting cache"
            )

    def _of_this_process(self) -> Fetching:
        fetching = self._fetching
        if fetching is None or not fetching.is_alive:  # a forked process has no threads, and needs a new connection
            self._remote = self._remote.of_this_process()
            self._store.use_in_this_process()
            fetching = self._fetching = Fetching(self._remote, self._store, self._there)
        return fetching
