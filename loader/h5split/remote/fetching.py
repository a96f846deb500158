"""Fetches pieces of a remote pack into its copy, by threads.

Every piece goes through the same steps. A thread claims it, so that no other thread of this process fetches it too, and
locks its byte in the notes, so that no other process does. It reads the bytes, compares each row with its checksum,
writes the bytes, and notes the piece. A process that is killed loses the pieces that it has claimed, and no more.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator

import numpy as np
import xxhash
from numpy.typing import NDArray

from h5split.errors import FormatError, RemoteError
from h5split.remote.objects import RemoteObject, ReplacedError
from h5split.remote.store import Store
from h5split.system.threads import Threads

_IN_FLIGHT = 16  # requests at a time, once that many have been answered: the first batch is not to share the link
_AT_FIRST = 1  # request of what is planned
_MORE = 4  # requests in place of one that was answered
_POLL_SECONDS = 0.001  # between looks at whether pieces came; waiting on a lock of Python would not stand Ctrl-C


class Fetching:
    """The threads of one process that fetch pieces.

    Args:
        remote: The pack.
        store: The files of its copy.
        there: Which pieces are there: bool (count,). It is changed.
    """

    def __init__(self, remote: RemoteObject, store: Store, there: NDArray[np.bool_]) -> None:
        self._remote, self._store, self._layout = remote, store, store.layout
        self._there = there
        self._is_told = remote.expect(store.place.identity)  # of every answer, of which object it is
        self._urgent: deque[range] = deque()
        self._new: deque[Iterator[range]] = deque()  # plans that no thread has seen yet
        self._planned: deque[Iterator[range]] = deque()
        self._claimed: set[int] = set()
        self._lock = threading.Lock()  # for these threads alone: a Ctrl-C might leave it locked
        self._steps = 0  # that have begun and not ended
        self._errors: dict[int, Exception] = {}
        self._replaced: ReplacedError | None = None  # no more will come
        self._is_completing = False
        self._threads = Threads(_IN_FLIGHT)

    @property
    def is_alive(self) -> bool:
        """Whether its threads are those of this process."""
        return self._threads.are_alive

    def plan(self, pieces: NDArray[np.int64]) -> None:
        """Fetch pieces, in this order, before those that were planned earlier."""
        self._new.append(self._layout.runs(pieces.tolist()))
        self._threads.call(_begin, weakref.ref(self), _AT_FIRST)

    def settle(self) -> None:
        """Wait until no thread is at work any more. Raise the error of any piece, such as that it cannot be noted."""
        while self._steps:
            time.sleep(_POLL_SECONDS)
        for error in self._errors.values():
            raise error

    def note(self, run: range) -> None:
        """Have pieces noted that were written."""
        self._threads.call(self._store.note, run)

    def wait(self, pieces: NDArray[np.int64]) -> None:
        """Fetch pieces before all others, and wait until they are there. Raise the error of any of them."""
        if self._replaced is not None:
            raise self._replaced
        for piece in pieces.tolist():
            self._errors.pop(piece, None)
        ranges = [*self._layout.runs(pieces.tolist())]
        checksums = [part for run in ranges for part in self._checksum_pieces(run) if not self._there[part]]
        ranges = [*self._layout.runs(sorted({*checksums})), *ranges]
        self._urgent.extend(ranges)
        self._threads.call(_begin, weakref.ref(self), len(ranges))
        while not self._there[pieces].all():
            for piece in [*self._errors] if self._errors else ():
                if piece in pieces:
                    raise self._errors[piece]
            time.sleep(_POLL_SECONDS)

    def step(self) -> None:
        """Fetch the range that is wanted most, and go on with the next ones. Each answer allows for more requests."""
        with self._lock:  # a range that is wanted from now on begins a step of its own
            found = self._next()
            self._steps -= found is None
        if found is None:
            return
        self._bring(found)
        with self._lock:
            self._steps -= 1
        self.begin(_MORE)

    def _next(self) -> range | None:
        """The range that is wanted most. Called with the lock held."""
        if self._urgent:
            return self._urgent.popleft()
        while self._new:
            self._planned.appendleft(self._new.popleft())
        while self._planned:
            found = next(self._planned[0], None)
            if found is not None:
                return found
            self._planned.popleft()
        return None

    def begin(self, count: int) -> None:
        """Begin steps, up to the most that there may be. For these threads alone."""
        with self._lock:
            count = min(count, _IN_FLIGHT - self._steps)
            self._steps += count
        for _ in range(count):
            self._threads.call(_step, weakref.ref(self))

    def _bring(self, pieces: range) -> None:
        """Have pieces there that no other thread has claimed."""
        for run in self._claim(pieces):
            try:
                with self._store.locked(run):
                    self._get(run)
            except Exception as error:
                self._errors.update(dict.fromkeys(run, error))
                if isinstance(error, ReplacedError):
                    self._replaced = error
            finally:
                with self._lock:
                    self._claimed.difference_update(run)

    def _claim(self, pieces: range) -> list[range]:
        """Claim those of the pieces that are neither there nor claimed, as ranges."""
        with self._lock:
            free = [piece for piece in pieces if not self._there[piece] and piece not in self._claimed]
            self._claimed.update(free)
        for piece in free:
            self._errors.pop(piece, None)
        return [*self._layout.runs(free)]

    def _get(self, run: range) -> None:
        """Have pieces there: check those that were written before, and fetch the others."""
        missing = []
        for piece in run:
            if self._store.is_noted(piece) and self._is_sound(piece):
                self._there[piece] = True
            else:
                missing.append(piece)
        for part in self._layout.runs(missing):
            self._store.write(part, self._fetched(part))
            self._there[part.start : part.stop] = True
            self._store.note(part)
        if self._store.is_complete():
            self._complete()

    def _complete(self) -> None:
        """Once all pieces were written, check those that this process did not write; then the copy is whole."""
        if self._there.all():
            self._store.finish()
        elif not self._is_completing:
            self._is_completing = True
            self.plan(np.flatnonzero(~self._there))

    def _is_sound(self, piece: int) -> bool:
        """Whether a piece that was written before is as it should be."""
        start, stop = self._layout.start(piece), self._layout.start(piece + 1)
        return self._first_bad(range(piece, piece + 1), self._store.read(start, stop)) is None

    def _fetched(self, run: range) -> bytes:
        """The bytes of pieces, from the store, and right."""
        start, stop = self._layout.start(run.start), self._layout.start(run.stop)
        try:
            data = self._remote.read(start, stop)
        except RemoteError:  # a smaller object may have taken its place
            self._check_identity()
            raise
        bad = self._first_bad(run, data)
        if bad is not None:  # once more: it may have been damaged on its way
            data = self._remote.read_again(start, stop)
            bad = self._first_bad(run, data)
        # Rows of another pack would not have the checksums of this one. Of tables only the store can tell.
        is_proven = self._is_told or (self._layout.is_pixels(run.start) and self._layout.checksums)
        if bad is not None or not is_proven:
            self._check_identity()
        if bad is not None:
            self._store.forget(self._checksum_pieces(run))  # they may be what is wrong
            raise FormatError(
                f"{self._remote.url}: row {bad} is not as it was packed; h5split verify, where the pack was made, says "
                "what is damaged; copy it there again"
            )
        return data

    def _check_identity(self) -> None:
        if self._remote.identity() != self._store.place.identity:
            raise self._remote.changed()

    def _first_bad(self, run: range, data: bytes) -> int | None:
        """The first row in the bytes of pieces that does not have its checksum; None if there are no rows in them."""
        if not self._layout.is_pixels(run.start) or not self._layout.checksums:
            return None
        rows = self._layout.rows_of(run.start, run.stop)
        view, stride = memoryview(data), self._layout.stride
        for at, checksum in enumerate(self._checksums(run, rows)):
            if xxhash.xxh3_64_intdigest(view[at * stride : (at + 1) * stride]) != checksum:
                return rows.start + at
        return None

    def _checksum_pieces(self, run: range) -> range:
        """The pieces that have the checksums of the rows in pieces; none if those are no rows."""
        if not self._layout.is_pixels(run.start) or not self._layout.checksums:
            return range(0)
        return self._layout.of_checksums(self._layout.rows_of(run.start, run.stop))

    def _checksums(self, run: range, rows: range) -> list[int]:
        """The checksums of rows. If they are not there yet, they are fetched by this thread, or another one."""
        pieces = self._checksum_pieces(run)
        while not self._there[pieces.start : pieces.stop].all():
            self._bring(pieces)
            error = next((self._errors[piece] for piece in pieces if piece in self._errors), None)
            if error is not None:
                raise error
            time.sleep(_POLL_SECONDS)
        start = self._layout.checksums + 8 * rows.start
        found: list[int] = np.frombuffer(self._store.read(start, start + 8 * len(rows)), "<u8").tolist()
        return found


def _begin(fetching: weakref.ref[Fetching], count: int) -> None:
    """Begin steps, unless nobody wants the pack any more."""
    found = fetching()
    if found is not None:
        found.begin(count)


def _step(fetching: weakref.ref[Fetching]) -> None:
    """Go on, unless nobody wants the pack any more."""
    found = fetching()
    if found is not None:
        found.step()
