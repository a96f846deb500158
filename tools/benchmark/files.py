"""The files that are measured: how many, of which classes, on disk, in the page cache and out of it."""

from __future__ import annotations

import collections
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Data:
    """What every epoch must deliver.

    Attributes:
        path: The folder.
        name: Of it.
        rows: Files.
        labels: How many of each class; classes are folders in sorted order.
        multiplicities: How many different files there are once, twice and so on.
    """

    path: str
    name: str
    rows: int
    labels: dict[str, int]
    multiplicities: dict[str, int]


def look_at(path: str) -> Data:
    """Read every file, which also brings it into the page cache.

    Raises:
        SystemExit: If it is no folder of class folders that hold files and nothing else.
    """
    if not os.path.isdir(path):
        raise SystemExit(f"{path}: expected a folder of class folders, found none there")
    folders = sorted(entry.path for entry in os.scandir(path) if entry.is_dir())
    seen: collections.Counter[bytes] = collections.Counter()
    labels: dict[str, int] = {}
    for label, folder in enumerate(folders):
        entries = list(os.scandir(folder))
        if any(entry.is_dir() for entry in entries):
            raise SystemExit(f"{folder} holds folders: expected {path}/CLASS/FILE and nothing else")
        labels[str(label)] = len(entries)
        for entry in entries:
            with open(entry.path, "rb") as file:
                seen[hashlib.file_digest(file, "sha256").digest()] += 1
    rows = sum(labels.values())
    if not rows:
        raise SystemExit(f"{path} holds no class folders with images")
    times = collections.Counter(seen.values())
    multiplicities = {str(count): number for count, number in sorted(times.items())}
    return Data(os.path.abspath(path), os.path.basename(os.path.abspath(path)), rows, labels, multiplicities)


def below(path: str) -> Iterator[str]:
    for folder, _, names in os.walk(path):
        for name in names:
            yield os.path.join(folder, name)


def multiplied(path: str, folder: str, times: int) -> str:
    """A folder beside others in `folder` that has every file of `path` under so many names."""
    many = os.path.join(folder, os.path.basename(os.path.abspath(path)))
    if not os.path.isdir(many):
        link_many(path, f"{many}.partial", times * sum(1 for _ in below(path)))
        os.rename(f"{many}.partial", many)
    return many


def link_many(single: str, many: str, count: int) -> None:
    """So many hard links to the files of a folder, in turns: a million names take the room of some thousands."""
    names = [os.path.relpath(path, single) for path in sorted(below(single))]
    for folder in {os.path.dirname(name) for name in names}:
        os.makedirs(os.path.join(many, folder), exist_ok=True)
    for number in range(count):
        name, end = os.path.splitext(names[number % len(names)])
        target = os.path.join(many, f"{name}-{number // len(names):04}{end}")
        if not os.path.exists(target):
            os.link(os.path.realpath(os.path.join(single, name + end)), target)


def bytes_below(path: str) -> int:
    """On disk, holes not counted."""
    return sum(os.stat(file).st_blocks * 512 for file in below(path))


def warm(path: str) -> None:
    """Into the page cache."""
    buffer = bytearray(8 << 20)
    for name in below(path):
        with open(name, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def drop(path: str) -> None:
    """Out of the page cache, after they are on the disk."""
    for name in below(path):
        descriptor = os.open(name, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def faults(results: list[dict[str, object]], data: Data, batch: int) -> str:
    """What is wrong with the rows that a peer's epochs delivered; nothing when each came exactly once."""
    for result in results:
        for rows, labels in zip(result["rows"], result["labels"], strict=True):
            if rows == data.rows - data.rows % batch and rows != data.rows:
                return f"drops the last batch: {rows:,} of {data.rows:,}"
            if rows != data.rows:
                return f"{rows:,} rows of {data.rows:,}"
            if {label: count for label, count in labels.items() if count} != data.labels:
                return "labels in other numbers"
        found = result["multiplicities"]
        if found is not None and found != data.multiplicities:
            return f"not each once: {found.get('1', 0):,} rows came once, {data.multiplicities.get('1', 0):,} should"
    return ""
