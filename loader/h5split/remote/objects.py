"""An object of a store, or a file of a web server, of which ranges of bytes are read. fsspec reads them."""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

from h5split.errors import ArgumentError, FormatError, MissingPackageError, RemoteError
from h5split.system.threads import Answers, Threads

HEAD = 4 << 12  # bytes that are read first: all before the pixels, which begin at byte 12288 or before

_BEGINNING = HEAD + (4 << 20)  # bytes that are asked for at once, of a pack that has no copy yet

_TRIES = 8  # of a request; with the waits between them a server may fail for 13 seconds
_FIRST_WAIT = 0.1  # seconds; every further one is twice as long
_SECONDS = 60  # that the first attempt may take: 16 ranges of 4 MB at a time, at 1.1 MB/s
_FORBIDDEN, _GONE = (401, 403), (404, 410)  # states of HTTP that do not pass

# What stores call the value that changes with an object, the best first.
_VERSIONS = ("ETag", "etag", "e_tag", "md5Hash", "generation", "VersionId", "blob_id", "sha256", "Digest")
_TIMES = ("Last-Modified", "LastModified", "last_modified", "updated", "mtime", "modified", "created")

_T = TypeVar("_T")


class Identity(NamedTuple):
    """What tells an object from another one at its address.

    Attributes:
        size: In bytes.
        version: The ETag, or what else the store has for it; empty if it has nothing.
    """

    size: int
    version: str


class RemoteObject:
    """An object of a store. Every request is tried several times, with growing waits between.

    Args:
        url: Its address, of any kind that fsspec knows. Credentials and options are those of fsspec's configuration.

    Attributes:
        url: As given.

    Raises:
        ImportError: fsspec, or the package that it needs for this kind of address, is not installed.
        ValueError: fsspec knows no such kind of address.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._process = os.getpid()
        self._expected: Identity | None = None
        self._beginning: Answers | None = None  # the request for its beginning
        self._unread = _BEGINNING  # bytes of that beginning
        try:
            from fsspec.core import url_to_fs
        except ImportError as error:
            raise MissingPackageError(
                f"{url}: reading a pack from elsewhere needs fsspec: pip install 'pack-images[remote]'"
            ) from error
        try:
            self._files, self._path = url_to_fs(url)
        except ImportError as error:
            advice = ": pip install 'pack-images[remote]'" if url.startswith("http") else ""
            raise MissingPackageError(f"{url}: {error}{advice}") from error
        except ValueError as error:
            raise ArgumentError(
                f"{url}: expected an address of a kind that fsspec reads, found none: {error}"
            ) from error

    def of_this_process(self) -> RemoteObject:
        """This object, or in a forked process a new one: connections do not survive a fork."""
        if self._process == os.getpid():
            return self
        new = RemoteObject(self.url)
        new._expected = self._expected
        return new

    def expect(self, identity: Identity) -> bool:
        """Have `read` raise where an answer tells of another object. Return whether answers tell: those of HTTP do."""
        self._expected = identity
        return self._is_http()

    def look(self) -> tuple[Identity, bytes]:
        """Its identity, and its first bytes, up to `HEAD` of them.

        Raises:
            FileNotFoundError: There is none.
            PermissionError: It may not be read.
            OSError: The server does not answer, or does not answer ranges.
        """
        return self._tried("its first bytes", self._look)

    def begin(self) -> None:
        """Ask for its beginning, before it is known what is there. `read` waits for it, and gives it out once."""
        self._beginning = Threads(1).call(self._identified, 0, _BEGINNING, _SECONDS)

    def identity(self) -> Identity:
        """Its identity now. Raises what `look` does."""
        return self._tried("its size", self._identity)

    def read(self, start: int, stop: int) -> bytes:
        """Its bytes from `start` to `stop`.

        Raises:
            FormatError: Another object is there now.
            OSError: As those of `look`.
        """
        begun = self._begun(start, stop)
        return self.read_again(start, stop) if begun is None else begun

    def read_again(self, start: int, stop: int) -> bytes:
        """The same in a request of its own, whatever was asked for before."""

        def read(seconds: float) -> bytes:
            found, data = self._identified(start, stop, seconds)
            if not self._is_expected(found):
                raise self.changed()
            if len(data) != stop - start:
                raise OSError(f"{len(data)} bytes")
            return data

        return self._tried(f"bytes {start} to {stop}", read)

    def _begun(self, start: int, stop: int) -> bytes | None:
        """Bytes of the beginning that was asked for; None if it does not have them."""
        answers = self._beginning
        if answers is None or stop > _BEGINNING:
            return None
        found = answers.get()
        answers.put(found)  # for the next one
        told, error = found
        if error is not None or not self._is_expected(told[0]):  # a request for them alone will say what is wrong
            return None
        data: bytes = told[1]
        self._unread -= stop - start
        if self._unread <= HEAD:
            self._beginning = None
        return data[start:stop] if stop <= len(data) else None

    def changed(self) -> FormatError:
        """The error to raise if there is another object at the address now."""
        return FormatError(
            f"{self.url}: expected the object that was opened, found another one there since; open it again"
        )

    def _is_expected(self, found: Identity | None) -> bool:
        """Whether an answer may be of the object that is expected: whether it does not tell of another one."""
        return found is None or self._expected is None or not found.version or found == self._expected

    def _look(self, seconds: float) -> tuple[Identity, bytes]:
        found, data = self._identified(0, HEAD, seconds)
        return (self._identity(seconds) if found is None else found), data

    def _identified(self, start: int, stop: int, seconds: float) -> tuple[Identity | None, bytes]:
        """Bytes, fewer at the end of the object, and of which object they are, where the answer tells it."""
        if self._is_http():
            found: tuple[Identity, bytes] = self._call_directly(seconds, self._range_by_http, start, stop)
            return found
        return None, bytes(self._call(seconds, "cat_file", self._path, start=start, end=stop))

    def _identity(self, seconds: float) -> Identity:
        if self._is_http():
            told: Identity = self._call_directly(seconds, self._range_by_http, 0, HEAD)[0]
            return told
        self._files.invalidate_cache()
        found = self._call(seconds, "info", self._path)
        if found["type"] != "file" or found["size"] is None:
            raise FileNotFoundError
        version = next((found[name] for name in (*_VERSIONS, *_TIMES) if found.get(name)), "")
        return Identity(int(found["size"]), str(version))

    def _is_http(self) -> bool:
        from fsspec.implementations.http import HTTPFileSystem

        return isinstance(self._files, HTTPFileSystem)

    async def _range_by_http(self, start: int, stop: int) -> tuple[Identity, bytes]:
        """Bytes, and the identity of the object that they are of, in one request. fsspec makes two of it.

        A server that does not answer ranges sends the whole object. Of this no more is read than the status.
        """
        session = await self._files.set_session()
        options = dict(self._files.kwargs)
        headers = {**options.pop("headers", {}), "Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"}
        async with session.get(self._files.encode_url(self._path), headers=headers, **options) as answer:
            if answer.status == 416 and start == 0:  # there is no first byte
                return Identity(0, ""), b""
            answer.raise_for_status()
            if answer.status != 206:
                raise _NoRangesError
            size = int(answer.headers["Content-Range"].rpartition("/")[2])
            version = next((answer.headers[name] for name in ("ETag", "Last-Modified") if name in answer.headers), "")
            return Identity(size, version), await answer.read()

    def _call(self, seconds: float, name: str, *arguments: Any, **options: Any) -> Any:
        """Call a method of the file system, with a limit of time where it has asynchronous ones."""
        method = getattr(self._files, f"_{name}", None) if self._files.async_impl else None
        if method is None:
            return getattr(self._files, name)(*arguments, **options)
        return self._call_directly(seconds, method, *arguments, **options)

    def _call_directly(self, seconds: float, method: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        from fsspec.asyn import sync

        return sync(self._files.loop, method, *arguments, timeout=seconds, **options)

    def _tried(self, what: str, request: Callable[[float], _T]) -> _T:
        """The answer to a request that is repeated if it fails in a way that may pass.

        It is called with the seconds that it may take, each time twice as many: a link may be slow.
        """
        wait, last = _FIRST_WAIT, ""
        for attempt in range(_TRIES):
            if attempt:
                time.sleep(wait * random.uniform(0.5, 1))  # not every process at one moment
                wait *= 2
            with self._lasting_errors():
                try:
                    return request(_SECONDS * 2**attempt)
                except Exception as error:
                    if not _may_pass(error):
                        raise
                    last = _brief(error)
        raise RemoteError(
            f"{self.url}: expected {what}, found {last} in {_TRIES} attempts; try again when the server answers"
        )

    @contextlib.contextmanager
    def _lasting_errors(self) -> Iterator[None]:
        try:
            yield
        except _NoRangesError:
            raise RemoteError(
                f"{self.url}: expected a server that answers ranges of bytes, found one that sends whole files; "
                "download the pack, and open the file"
            ) from None
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{self.url}: expected a pack there, found nothing") from error
        except PermissionError as error:
            raise self._forbidden(error) from error
        except ImportError as error:
            raise MissingPackageError(f"{self.url}: {error}") from error
        except Exception as error:
            if _status(error) in _GONE:
                raise FileNotFoundError(f"{self.url}: expected a pack there, found nothing") from error
            if _is_forbidden(error):
                raise self._forbidden(error) from error
            raise

    def _forbidden(self, error: Exception) -> PermissionError:
        return PermissionError(
            f"{self.url}: expected a pack that may be read, found {_brief(error)}; fsspec's configuration has the "
            "credentials"
        )


class _NoRangesError(Exception):
    pass


def _status(error: BaseException) -> int | None:
    """The state of HTTP that an error is about, if it says so as those of aiohttp and botocore do."""
    answer = getattr(error, "response", None)
    metadata = answer.get("ResponseMetadata", {}) if isinstance(answer, dict) else {}
    status = getattr(error, "status", None) or metadata.get("HTTPStatusCode")
    return status if isinstance(status, int) else None


def _may_pass(error: Exception) -> bool:
    """Whether a request that failed so may succeed later."""
    lasting = (FileNotFoundError, PermissionError, ImportError, FormatError, _NoRangesError)
    return not isinstance(error, lasting) and _status(error) not in _GONE and not _is_forbidden(error)


def _is_forbidden(error: Exception) -> bool:
    return _status(error) in _FORBIDDEN or type(error).__name__ == "NoCredentialsError"  # of botocore


def _brief(error: Exception) -> str:
    """An error in a few words of one line."""
    status = _status(error)
    if status is not None:
        return f"HTTP status {status}"
    words = " ".join(str(error).split()) or type(error).__name__
    return words if len(words) <= 200 else f"{words[:200]}..."
