"""An object of a store, or a file of a web server, of which ranges of bytes are read. fsspec reads them."""

from __future__ import annotations

import os
import random
import re
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import xxhash

from h5split.errors import ArgumentError, FormatError, MissingPackageError, RemoteError
from h5split.system.threads import Answers, Threads

HEAD = 4 << 12  # bytes that are read first: all before the pixels, which begin at byte 12288 or before

_BEGINNING = HEAD + (4 << 20)  # bytes that are asked for at once, of a pack that has no copy yet

_TRIES = 8  # of a request; with the waits between them a server may fail for 13 seconds
_FEWEST, _PATIENCE = 2, 15  # attempts, after which no further one begins, once so many seconds are over
_FIRST_WAIT = 0.1  # seconds; every further one is twice as long
_SECONDS = 600  # that one attempt may take, however slow the link is
_SILENCE = 60  # seconds without a byte, after which an attempt of HTTP has failed
_FORBIDDEN, _GONE = (401, 403), (404, 410)  # states of HTTP that do not pass

# What stores call the value that changes with an object, the best first.
_VERSIONS = ("ETag", "etag", "e_tag", "md5Hash", "generation", "VersionId", "blob_id", "sha256", "sha", "Digest", "CRC")
_TIMES = ("Last-Modified", "LastModified", "last_modified", "updated", "mtime", "modified")
_OTHER_TIMES = ("modify", "date_time", "last_write_time", "modificationTime", "created")

_NO_ADDRESS = ("ParamValidationError", "InvalidURL", "InvalidUrlClientError")  # of botocore and aiohttp

_OF_HEAD = "head "  # a version that is of the first bytes, as the store has none
_SEALED = 4096  # first bytes, in which a seal of all metadata is: a checksum of the checksum of all tables
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")

_T = TypeVar("_T")


class Identity(NamedTuple):
    """What tells an object from another one at its address.

    Attributes:
        size: In bytes.
        version: The ETag, or what else the store has for it; or of its first bytes, where the store has nothing.
    """

    size: int
    version: str


class ReplacedError(FormatError):
    """Another object is at the address now."""


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
        self._turn = threading.Lock()  # of the requests of a file system that is not asynchronous
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
        """Have `read` raise where an answer tells of another object. Return whether answers tell: those of HTTP may."""
        self._expected = identity
        return self._is_http() and not identity.version.startswith(_OF_HEAD)

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
        if self._files.async_impl:
            self._beginning = Threads(1).call(self._identified, 0, _BEGINNING)

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

        def read() -> bytes:
            found, data = self._identified(start, stop)
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

    def changed(self) -> ReplacedError:
        """The error to raise if there is another object at the address now."""
        return ReplacedError(
            f"{self.url}: expected the object that was opened, found another one there since; open it again"
        )

    def _is_expected(self, found: Identity | None) -> bool:
        """Whether an answer may be of the object that is expected: whether it does not tell of another one."""
        if found is None or self._expected is None:
            return True
        return found.size == self._expected.size and (not found.version or found.version == self._expected.version)

    def _look(self) -> tuple[Identity, bytes]:
        """Its identity, and then its first bytes: if it is replaced in between, the identity is the old one."""
        asked = None if self._is_http() else self._info()
        told, head = self._identified(0, HEAD)
        identity = told or asked
        assert identity is not None
        if not identity.version:
            version = _OF_HEAD + xxhash.xxh3_128_hexdigest(head[:_SEALED])
            return identity._replace(version=version), head
        return identity, head

    def _identified(self, start: int, stop: int) -> tuple[Identity | None, bytes]:
        """Bytes, fewer at the end of the object, and of which object they are, where the answer tells it."""
        if self._is_http():
            found: tuple[Identity, bytes] = self._call_directly(self._range_by_http, start, stop)
            return found
        return None, bytes(self._call("cat_file", self._path, start=start, end=stop))

    def _identity(self) -> Identity:
        if self._is_http():
            return self._look()[0]
        found = self._info()
        return found if found.version else self._look()[0]

    def _info(self) -> Identity:
        self._files.invalidate_cache()
        found = self._call("info", self._path)
        if found["type"] != "file" or found["size"] is None:
            raise FileNotFoundError
        version = next((found[name] for name in (*_VERSIONS, *_TIMES, *_OTHER_TIMES) if found.get(name)), "")
        return Identity(int(found["size"]), str(version))

    def _is_http(self) -> bool:
        from fsspec.implementations.http import HTTPFileSystem

        return isinstance(self._files, HTTPFileSystem)

    async def _range_by_http(self, start: int, stop: int) -> tuple[Identity, bytes]:
        """Bytes, and the identity of the object that they are of, in one request. fsspec makes two of it.

        A server that does not answer ranges sends the whole object. Of this no more is read than the status.
        """
        from aiohttp import ClientTimeout

        session = await self._files.set_session()
        options = {"timeout": ClientTimeout(total=None, connect=_SILENCE, sock_read=_SILENCE), **self._files.kwargs}
        headers = {**options.pop("headers", {}), "Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"}
        async with session.get(self._files.encode_url(self._path), headers=headers, **options) as answer:
            if answer.status == 416 and start == 0:  # there is no first byte
                return Identity(0, ""), b""
            answer.raise_for_status()
            told = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
            if answer.status != 206 or told is None:
                raise _NoRangesError
            first, last, size = map(int, told.groups())
            if first != start or last >= stop:
                raise OSError(f"bytes {first} to {last + 1}")
            version = next((answer.headers[name] for name in ("ETag", "Last-Modified") if name in answer.headers), "")
            return Identity(size, version), await answer.read()

    def _call(self, name: str, *arguments: Any, **options: Any) -> Any:
        """Call a method of the file system, with a limit of time where it has asynchronous ones."""
        method = getattr(self._files, f"_{name}", None) if self._files.async_impl else None
        if method is None:
            with self._turn:  # it may have a single connection
                return getattr(self._files, name)(*arguments, **options)
        return self._call_directly(method, *arguments, **options)

    def _call_directly(self, method: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        from fsspec.asyn import sync

        return sync(self._files.loop, method, *arguments, timeout=_SECONDS, **options)

    def _tried(self, what: str, request: Callable[[], _T]) -> _T:
        """The answer to a request that is repeated if it fails in a way that may pass."""
        wait, last, attempts, began = _FIRST_WAIT, "", 0, time.monotonic()
        for attempt in range(_TRIES):
            if attempt >= _FEWEST and time.monotonic() - began > _PATIENCE:  # some stores have attempts of their own
                break
            if attempt:
                time.sleep(wait * random.uniform(0.5, 1))  # not every process at one moment
                wait *= 2
            try:
                return request()
            except Exception as error:
                lasting = self._lasting(error)
                if lasting is not None:
                    raise lasting from (None if lasting is error else error)
                last, attempts = _brief(error), attempt + 1
        raise RemoteError(
            f"{self.url}: expected {what}, found {last} in {attempts} attempts; try again when the server answers"
        )

    def _lasting(self, error: Exception) -> Exception | None:
        """The error to raise, if a request that failed so will not succeed later; else None."""
        status, kind = _status(error), type(error).__name__
        if isinstance(error, FormatError):
            return error
        if isinstance(error, _NoRangesError):
            return RemoteError(
                f"{self.url}: expected a server that answers ranges of bytes, found one that sends whole files, or "
                "does not say which bytes; download the pack, and open the file"
            )
        if isinstance(error, FileNotFoundError) or status in _GONE:
            return FileNotFoundError(f"{self.url}: expected a pack there, found nothing")
        if isinstance(error, PermissionError) or status in _FORBIDDEN or kind == "NoCredentialsError":  # of botocore
            return PermissionError(
                f"{self.url}: expected a pack that may be read, found {_brief(error)}; give credentials where fsspec "
                "looks for them, such as AWS_ACCESS_KEY_ID for S3"
            )
        if isinstance(error, ImportError):
            return MissingPackageError(f"{self.url}: {error}")
        if kind in _NO_ADDRESS:
            return ArgumentError(f"{self.url}: expected the address of a pack, found {_brief(error)}")
        return None


class _NoRangesError(Exception):
    pass


def _status(error: BaseException) -> int | None:
    """The state of HTTP that an error is about, if it says so as those of aiohttp and botocore do."""
    answer = getattr(error, "response", None)
    metadata = answer.get("ResponseMetadata", {}) if isinstance(answer, dict) else {}
    status = getattr(error, "status", None) or metadata.get("HTTPStatusCode")
    return status if isinstance(status, int) else None


def _brief(error: Exception) -> str:
    """An error in a few words of one line."""
    status = _status(error)
    if status is not None:
        return f"HTTP status {status}"
    words = " ".join(str(error).split()) or type(error).__name__
    return words if len(words) <= 200 else f"{words[:200]}..."
