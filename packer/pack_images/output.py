"""What is at the output before a run: whether it may be replaced, which rows are kept, which would be lost."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from h5split.order.rows import digest_keys, is_among
from h5split.system.machine import cores
from h5split.system.text import count
from h5split.writing.replace import check_replaceable, target
from pack_images import versions
from pack_images.errors import DecodeError, PackError, UnfinishedError
from pack_images.find.sources import PackedRow, PackFile, Sources, pack_file

if TYPE_CHECKING:
    from h5split.file.images import PackedImages
    from h5split.file.sealing import Tables
    from pack_images.plan import Plan
    from pack_images.settings import Pixels

_Failures = Sequence[tuple[int, str]]  # row and reason, as `Filled` has them


@dataclass(frozen=True)
class Old:
    """The pack that is at the output.

    Attributes:
        file: As it was when it was found.
        images: Its rows.
    """

    file: PackFile
    images: PackedImages

    def reusable(self, plan: Plan, packed_by: Mapping[str, str]) -> bool:
        """Whether its rows are what this plan makes of the same files, with these versions."""
        header = self.images.header
        now = json.loads(json.dumps(asdict(plan.settings.pixels)))
        same = header.images.shape[1:] == plan.shape and header.packed_by == packed_by
        return same and all(header.settings.get(name) == value for name, value in now.items())

    def check_kept(self, plan: Plan, tables: Tables, failures: _Failures) -> None:
        """Refuse to lose half of its rows or more because their files are not there, or cannot be read.

        Args:
            plan: Of the new pack.
            tables: Of the new pack. A row stays if its picture (by SHA-256) or its file name is among them.
            failures: The rows planned that the new pack does not have.

        Raises:
            UnfinishedError: They would be lost.
        """
        gone = ~is_among(digest_keys(self.images.digests), digest_keys(tables.digests))
        if 2 * np.count_nonzero(gone) < len(gone):
            return
        there = {*tables.filenames}
        asked_for = plan.settings.classes
        unread = {plan.sources.filenames[row] for row, reason in failures if reason.startswith("cannot be read")}
        rows = np.flatnonzero(gone)
        labels = [self.images.class_names[label] for label in self.images.labels[rows].tolist()]
        lost = [
            name
            for name, label in zip(self.images.filenames.take(rows), labels, strict=True)
            if name not in there
            and (asked_for is None or label in asked_for)
            and (name in unread or not os.path.exists(name))
        ]
        if 2 * len(lost) >= len(gone):
            path = self.file.path
            found = f"{len(lost):,} missing or unreadable, such as {lost[0]}"
            raise UnfinishedError(
                f"{path}: expected the files of its {count(len(gone), 'row')}, found {found}; to keep their rows give "
                f"{path} as a SOURCE too, to be rid of them remove {path} first (what was packed instead is kept in "
                f"{path}.partial)"
            )

    def added_again(self, paths: Sequence[str | PackedRow], tables: Tables) -> Iterator[str]:
        """A line on files that were added to its rows though it has them under other names, if there are any.

        Args:
            paths: What each row of the new pack was made of.
            tables: Of the new pack.
        """
        packs = {path.pack for path in paths if isinstance(path, PackedRow)}
        ours = {pack for pack in packs if _is_same_file(pack.path, self.file.path)}
        if not ours:
            return
        kept = np.array([_pack_of(path) in ours for path in paths], np.bool_)
        added = np.flatnonzero(~kept)
        keys = digest_keys(tables.digests)
        again = added[is_among(keys[added], keys[kept])]
        if len(again):
            files, such_as = count(len(again), "file"), tables.filenames[int(again[0])]
            yield f"{files} added to {self.file.path} that it has under other names, byte for byte, such as {such_as}"


def output_path(output: str | os.PathLike[str]) -> str:
    """Where the output is to be, links of this user followed.

    Raises:
        PackError: No pack can be written there, or something is there that is no pack, and would be lost.
        OSError: Its folder takes no files.
    """
    try:
        path = target(output)
        if not path or os.path.isdir(path):
            found = "a folder" if path else "no name"
            raise ValueError(
                f"{path or '--output'}: expected a file to write, found {found}; give one such as images.h5"
            )
        check_replaceable(path, "a pack", _is_pack)
    except FileNotFoundError:
        pass  # a folder that is not there: said where files are made in it
    except ValueError as error:
        raise PackError(str(error)) from error
    return path


def _is_pack(file: BinaryIO) -> bool:
    from h5split.file.format import is_pack  # takes 10 ms to load, while workers wait; seldom is there an output

    return is_pack(file)


def find_old(path: str) -> Old | None:
    """The pack at an output that `output_path` has checked; None where there is nothing, or an empty file.

    Raises:
        FormatError: Something else has come there meanwhile.
    """
    if not os.path.exists(path) or os.path.getsize(path) == 0:
        return None
    from h5split.file.images import PackedImages

    file = pack_file(path)  # first: what another run publishes now is then another one
    return Old(file, PackedImages(path))


def without_known(found: Sources, output: str | None, how: Pixels) -> Sources:
    """The sources without what the output holds already, where it is one of them.

    A row whose file is missing or unreadable now is kept, and the file passed over.

    Args:
        found: All sources.
        output: The output.
        how: What a picture may cost.

    Raises:
        PackError: A file has the name of one of its rows, and other bytes or another label.
    """
    packs = {path.pack for path in found.paths if isinstance(path, PackedRow)}
    ours = {pack for pack in packs if output is not None and _is_same_file(pack.path, output)}
    if not ours:
        return found
    keys = _whole_paths(found.filenames)
    rows = {key: at for at, (key, path) in enumerate(zip(keys, found.paths, strict=True)) if _pack_of(path) in ours}
    again = [at for at, key in enumerate(keys) if key in rows and _pack_of(found.paths[at]) not in ours]
    digests = _Digests(packs, how)
    with ThreadPoolExecutor(cores()) as executor:
        pairs = [(found.paths[at], found.paths[rows[keys[at]]]) for at in again]
        for at, is_same in zip(again, executor.map(digests.agree, pairs), strict=True):
            _check_known(found, at, rows[keys[at]], is_same)
    found.passed_over.extend((found.filenames[at], f"its row is in {output} already") for at in again)
    kept = sum(_pack_of(path) in ours for path in found.paths)
    found.notes.append(
        f"{output} is a SOURCE too: its {count(kept, 'row')} are kept, also of files that are gone or moved"
    )
    return found.take(np.delete(np.arange(len(found)), again).tolist())


class _Digests:
    """The SHA-256 of files, and of those that rows of packs were made of."""

    def __init__(self, packs: Iterable[PackFile], how: Pixels) -> None:
        from h5split.file.images import PackedImages

        self._how = how
        self._of_rows = {pack: PackedImages(pack.path).digests for pack in packs}

    def agree(self, pair: tuple[str | PackedRow, PackedRow]) -> bool:
        """Whether a source has the bytes that a row was made of; a file that cannot be read has no others."""
        try:
            return self._of(pair[0]) == self._of(pair[1])
        except DecodeError:
            return True

    def _of(self, path: str | PackedRow) -> bytes:
        from pack_images.fill import read  # loads decoders, which this process does not need otherwise

        if isinstance(path, PackedRow):
            digest: bytes = self._of_rows[path.pack][path.row].tobytes()
            return digest
        return hashlib.sha256(read(path, self._how)[0]).digest()


def _check_known(found: Sources, at: int, row: int, is_same: bool) -> None:
    """Refuse a file that is not what a row of the output was made of."""
    there, here = _place(found, row), _place(found, at)
    if found.labels[at] != found.labels[row]:
        what = f"the label {found.labels[row]!r} of {there}, found {found.labels[at]!r} for {here}"
    elif not is_same:
        what = f"the file that {there} was made of, found other bytes in {here}"
    else:
        return
    raise PackError(
        f"{found.filenames[at]}: expected {what}; give the file another name, or pack without one of the two SOURCES"
    )


def check_decoders(path: str, packed_by: Mapping[str, str]) -> None:
    """Refuse rows of a pack that other versions decoded: they would pass for what today's make of the same files.

    Raises:
        PackError: They did.
    """
    now = versions.packed_by()
    others = [f"{name} {packed_by.get(name)}" for name, version in now.items() if packed_by.get(name) != version]
    if others:
        here = ", ".join(f"{name} {version}" for name, version in now.items())
        raise PackError(
            f"{path}: expected rows that {here} made, found those of {', '.join(others)}; install these versions, pack "
            "its folders again, or pack the pictures that h5split export makes of it"
        )


def check_once(found: Sources) -> None:
    """Refuse a file that is given twice, and a file name that a pack and another SOURCE have: two rows for one image.

    (A table may give one name to several files, and a pack made of it has them.)

    Raises:
        PackError: There is one; both places are named.
    """
    every = range(len(found))
    files = [at for at in every if isinstance(found.paths[at], str)]
    _check_apart(found, every, _whole_paths(found.filenames), [_pack_of(path) for path in found.paths])
    _check_apart(found, files, _whole_paths([str(found.paths[at]) for at in files]), files)


def _check_apart(found: Sources, rows: Sequence[int], keys: Sequence[str], origins: Sequence[object]) -> None:
    """Refuse rows of one key that have different origins."""
    if len(set(keys)) == len(keys):
        return
    first: dict[str, int] = {}
    for at, key in enumerate(keys):
        before = first.setdefault(key, at)
        if origins[before] != origins[at]:
            places = " and ".join(_place(found, rows[one]) for one in (before, at))
            path = found.paths[rows[at]]
            name = path if isinstance(path, str) else found.filenames[rows[at]]
            raise PackError(f"{name} is given twice, so its row would be counted twice: {places}; leave one out")


def _whole_paths(names: Sequence[str]) -> list[str]:
    """`os.path.abspath` of each name, ten times as fast for those that are plain."""
    here = os.getcwd()
    return [
        os.path.abspath(name) if "//" in name or "/." in name or name.startswith((".", "/")) else f"{here}/{name}"
        for name in names
    ]


def _pack_of(path: str | PackedRow) -> PackFile | None:
    return path.pack if isinstance(path, PackedRow) else None


def missing(found: Sources, tables: Collection[str]) -> list[str]:
    """The files of tables that are not there.

    Args:
        found: All sources.
        tables: Those that name files without looking for them.

    Raises:
        PackError: They are half of the files of a table, or more.
    """
    gone = []
    for table in tables:
        files = [
            path
            for path, source in zip(found.paths, found.columns["source"], strict=True)
            if source == table and isinstance(path, str)
        ]
        not_there = [path for path in files if not os.path.exists(path)]
        if not_there and 2 * len(not_there) >= len(files):
            raise PackError(
                f"{table}: expected {count(len(files), 'file')}, found {len(not_there):,} missing, such as "
                f"{not_there[0]}; {_hint(not_there[0])}"
            )
        gone += not_there
    return gone


def _hint(path: str) -> str:
    """What is wrong with a table that names this file, which is not there."""
    folder, name = os.path.split(path)
    names: list[str] = []
    with contextlib.suppress(OSError):
        names = sorted(os.listdir(folder or "."))
    there = next((entry for entry in names if os.path.splitext(entry)[0] == name), None)
    if there is None:
        return "--root says where the paths of a manifest start from"
    return f"{os.path.join(folder, there)} is there: write the paths of the manifest with their extension"


def _place(found: Sources, at: int) -> str:
    """Where an image is, for people."""
    path = found.paths[at]
    if isinstance(path, PackedRow):
        return f"row {path.row} of {path.pack.path}"
    return f"{path} of {found.columns['source'][at]}"


def _is_same_file(path: str, other: str) -> bool:
    try:
        return os.path.samefile(path, other)
    except OSError:
        return False
