"""The image files of a measurement: their classes and pixels, their copies, and the page cache."""

from __future__ import annotations

import collections
import hashlib
import multiprocessing
import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass

from peers.job import listing, read_pixels


class RefusedError(Exception):
    """The request cannot be measured. The message says what to change."""


@dataclass(frozen=True)
class Data:
    """A folder of images, and the rows that every epoch must deliver.

    Attributes:
        path: The folder.
        name: The last part of its path.
        rows: The number of files.
        labels: Class number -> number of files. Classes are folders in sorted order.
        multiplicities: n -> number of different pictures that occur n times, compared after scaling.
        state: A digest of the names, sizes and modification times of all files.
    """

    path: str
    name: str
    rows: int
    labels: dict[str, int]
    multiplicities: dict[str, int]
    state: str

    @property
    def key(self) -> str:
        """A name that is unique to this folder."""
        return f"{self.name}-{path_digest(self.path)}"


def path_digest(path: str) -> str:
    """Return eight hexadecimal digits that identify a path."""
    return hashlib.sha256(os.path.abspath(path).encode()).hexdigest()[:8]


def look_at(path: str, size: int) -> Data:
    """Decode every file and describe the folder. This also reads the files into the page cache.

    Raises:
        RefusedError: The path is not a folder of class folders, or these contain anything but images.
    """
    found = images(path)
    state = hashlib.sha256()
    identities = {}
    for file, _ in found:
        status = os.stat(file)
        identities[file] = status.st_dev, status.st_ino
        state.update(repr((os.path.relpath(file, path), status.st_size, status.st_mtime_ns)).encode())
    pictures = digests({identity: file for file, identity in identities.items()}, size)
    times = collections.Counter(collections.Counter(pictures[identity] for identity in identities.values()).values())
    return Data(
        path=os.path.abspath(path),
        name=os.path.basename(os.path.abspath(path)),
        rows=len(found),
        labels=dict(collections.Counter(str(label) for _, label in found)),
        multiplicities={str(count): number for count, number in sorted(times.items())},
        state=state.hexdigest(),
    )


def images(path: str) -> list[tuple[str, int]]:
    """Return every file with the number of its class folder. Refuse a folder that contains anything else."""
    if not os.path.isdir(path):
        raise RefusedError(f"{path}: expected a folder of class folders, found none there")
    for entry in sorted(os.scandir(path), key=lambda entry: entry.name):
        if not entry.is_dir():
            raise RefusedError(f"{entry.path}: expected folders of images in {path} and nothing else; move it away")
        if not any(os.scandir(entry)):
            raise RefusedError(f"{entry.path}: empty, which only some peers count as a class; delete it")
    found = listing(path)
    if not found:
        raise RefusedError(f"{path}: expected folders of images in it, found none")
    for file, _ in found:
        if not os.path.isfile(file):
            raise RefusedError(f"{file}: expected images in {os.path.dirname(file)} and nothing else; move it away")
    return found


def digests(distinct: dict[tuple[int, int], str], size: int) -> dict[tuple[int, int], bytes]:
    """Return digests of pixels by inode. `distinct` has one path for each inode."""
    tasks = [(path, size) for path in distinct.values()]
    ignored = (signal.SIGINT, signal.SIG_IGN)  # on Ctrl-C this process ends the workers
    with multiprocessing.get_context("fork").Pool(len(os.sched_getaffinity(0)), signal.signal, ignored) as pool:
        return dict(zip(distinct, pool.imap(digest, tasks, chunksize=64), strict=True))


def digest(task: tuple[str, int]) -> bytes:
    path, size = task
    try:
        return hashlib.blake2b(read_pixels(path, size).tobytes(), digest_size=16).digest()
    except Exception as error:  # Pillow raises many types
        raise RefusedError(f"{path}: no image, or a damaged one ({error}); move it away") from None


def files_below(path: str) -> Iterator[str]:
    for folder, _, names in os.walk(path):
        for name in names:
            yield os.path.join(folder, name)


def multiplied(path: str, folder: str, times: int) -> str:
    """Make a folder below `folder` with `times` names for every file of `path`, and return its path."""
    many = os.path.join(folder, f"{times}-times-{path_digest(path)}", os.path.basename(os.path.abspath(path)))
    shutil.rmtree(many, ignore_errors=True)
    link_many(path, many, times * sum(1 for _ in files_below(path)))
    return many


def link_many(single: str, many: str, count: int) -> None:
    """Make `count` hard links to the files of a folder, in turns. Links take no space for images."""
    names = [os.path.relpath(path, single) for path in sorted(files_below(single))]
    for folder in {os.path.dirname(name) for name in names}:
        os.makedirs(os.path.join(many, folder), exist_ok=True)
    for number in range(count):
        name, end = os.path.splitext(names[number % len(names)])
        target = os.path.join(many, f"{name}-{number // len(names):04}{end}")
        if not os.path.exists(target):
            link(os.path.realpath(os.path.join(single, name + end)), target)


def link(source: str, target: str) -> None:
    """Make a hard link, or a symbolic link if the source is on another file system."""
    try:
        os.link(source, target)
    except OSError:
        os.symlink(source, target)


def bytes_below(path: str) -> int:
    """Return the bytes that files take on disk. Holes do not count, and a file with several names counts once."""
    found = [os.stat(file) for file in files_below(path)]
    return sum({(one.st_dev, one.st_ino): one.st_blocks * 512 for one in found}.values())


def warm(path: str) -> None:
    """Read all files into the page cache."""
    buffer = bytearray(8 << 20)
    for name in files_below(path):
        with open(name, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def flush(path: str) -> None:
    """Flush all files to disk."""
    for name in files_below(path):
        descriptor = os.open(name, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def drop(path: str) -> None:
    """Flush all files to disk, and drop them from the page cache."""
    flush(path)
    for name in files_below(path):
        descriptor = os.open(name, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def faults(results: list[dict[str, object]], data: Data, batch: int) -> str:
    """Return the first error in the rows that a peer's epochs delivered, or "" if each came exactly once."""
    for result in results:
        for rows, labels in zip(result["rows"], result["labels"], strict=True):
            if rows == data.rows - data.rows % batch and rows != data.rows:
                return f"drops the last batch: {rows:,} of {data.rows:,}"
            if rows != data.rows:
                return f"{rows:,} rows of {data.rows:,}"
            if {label: count for label, count in labels.items() if count} != data.labels:
                return "labels in other numbers"
        found = result.get("multiplicities")
        if found is not None and found != data.multiplicities:
            return (
                f"not each once: {found.get('1', 0):,} pictures came once, {data.multiplicities.get('1', 0):,} should"
            )
    return ""
