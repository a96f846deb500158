"""Checks on the existing output and on the sources: may it be replaced, which rows are kept, which would be lost?"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from h5split.file.classes import one_form
from h5split.order.rows import digest_keys, is_among
from h5split.system.machine import cores
from h5split.system.places import upload_advice, url_advice
from h5split.system.text import count
from h5split.writing.replace import check_replaceable, target
from pack_images import versions
from pack_images.errors import DecodeError, PackError, UnfinishedError
from pack_images.find.sources import PackedRow, PackFile, Sources, is_pack, pack_file
from pack_images.reading import read
from pack_images.settings import stored_settings

if TYPE_CHECKING:
    from h5split.file.images import PackedImages
    from h5split.file.sealing import Tables
    from pack_images.plan import Plan
    from pack_images.settings import Pixels

_Failures = Sequence[tuple[int, str]]  # (row, reason), as in `Filled`


@dataclass(frozen=True)
class Old:
    """The pack that exists at the output path before the run.

    Attributes:
        file: Path and stamp of the file when it was found.
        images: The opened pack.
    """

    file: PackFile
    images: PackedImages

    def reusable(self, plan: Plan, packed_by: Mapping[str, str]) -> bool:
        """Return whether its rows were made with the same settings and versions, so that they can be copied."""
        header = self.images.header
        now = json.loads(json.dumps(plan.settings.pixels.as_json()))
        same = header.images.shape[1:] == plan.shape and versions.agree(header.packed_by, packed_by)
        return same and stored_settings(header.settings) == stored_settings(now)

    def check_kept(self, plan: Plan, tables: Tables, failures: _Failures) -> None:
        """Refuse to lose half of the old rows or more because their files are missing or cannot be read.

        This protects the pack from, for example, a disk that is not mounted.

        Args:
            plan: Plan of the new pack.
            tables: Tables of the new pack. An old row counts as kept if its SHA-256 or its file name is among them.
            failures: Planned rows that the new pack lacks.

        Raises:
            UnfinishedError: Half of the rows or more would be lost.
        """
        gone = ~is_among(digest_keys(self.images.digests), digest_keys(tables.digests))
        # A quick test first: the exact one below reads file names and looks for files.
        if 2 * np.count_nonzero(gone) < len(gone):
            return
        there = {*tables.filenames}
        asked_for = self._asked_for(plan)
        unread = {plan.sources.filenames[row] for row, reason in failures if reason.startswith("cannot be read")}
        rows = np.flatnonzero(gone)
        labels = [self.images.class_names[label] for label in self.images.labels[rows].tolist()]
        lost = [
            name
            for name, label in zip(self.images.filenames.take(rows), labels, strict=True)
            if name not in there and label in asked_for and (name in unread or not os.path.exists(name))
        ]
        if 2 * len(lost) >= len(gone):
            path = self.file.path
            found = f"{len(lost):,} missing or unreadable, such as {lost[0]}"
            raise UnfinishedError(
                f"{path}: expected the files of its {count(len(gone), 'row')}, found {found}; to keep their rows give "
                f"{path} as a SOURCE too, to be rid of them remove {path} first (what was packed instead is kept in "
                f"{path}.partial)"
            )

    def _asked_for(self, plan: Plan) -> set[str]:
        """The classes of the old pack that the new one is to have."""
        wanted = plan.settings.classes
        if wanted is None:
            return {*self.images.class_names}
        merged = one_form([self.images.class_names, wanted], wanted)
        return {name for name in self.images.class_names if merged[name] in wanted}

    def added_again(self, paths: Sequence[str | PackedRow], tables: Tables) -> Iterator[str]:
        """Warn of added files that the old pack already has under other names: yield one line or none.

        Args:
            paths: The source of each row of the new pack.
            tables: Tables of the new pack.
        """
        ours = _packs_at(self.file.path, paths)
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
    """Return the path to write to, after following symbolic links of this user.

    Raises:
        PackError: No pack can be written there, or a file there is no pack and would be lost.
        OSError: The folder cannot be written to.
    """
    try:
        path = target(output)
        if url_advice(path) and not os.path.isdir(os.path.dirname(path)):
            raise ValueError(f"{path}: expected a file to write, found a URL; {upload_advice(os.fsdecode(output))}")
        if not path or os.path.isdir(path):
            found = "a folder" if path else "no name"
            raise ValueError(
                f"{path or '--output'}: expected a file to write, found {found}; give one such as images.h5"
            )
        check_replaceable(path, "a pack", is_pack)
    except FileNotFoundError:
        pass  # the folder does not exist: reported when the files are created
    except ValueError as error:
        raise PackError(str(error)) from error
    return path


def find_old(path: str) -> Old | None:
    """Open the pack at a path that `output_path` has checked. Return None if there is no file or an empty one.

    Raises:
        FormatError: The file has been replaced by something else since that check.
    """
    if not os.path.exists(path) or os.path.getsize(path) == 0:
        return None
    from h5split.file.images import PackedImages

    file = pack_file(path)  # before opening, so that a pack published now has another stamp
    return Old(file, PackedImages(path))


def check_classes_kept(found: Sources, output: str | None, classes: Collection[str]) -> None:
    """If the output is also a SOURCE, refuse to lose its rows of other classes than the user asks for.

    Args:
        found: All sources.
        output: Path of the output.
        classes: The classes that the user asks for.

    Raises:
        PackError: It has rows of others.
    """
    ours = _packs_at(output, found.paths)
    lost = [
        label
        for label, path in zip(found.labels, found.paths, strict=True)
        if _pack_of(path) in ours and label not in classes
    ]
    if ours and lost:
        raise PackError(
            f"{output} is a SOURCE too: expected --classes with all its classes, so that its rows are kept, found none "
            f"for {count(len(lost), 'row')}, such as {lost[0]!r}; give another --output"
        )


def without_known(found: Sources, output: str | None, how: Pixels) -> Sources:
    """If the output is also a SOURCE, drop the files that it already holds, so that their rows are kept.

    A row is kept even if its file is now missing or unreadable; the file is passed over.

    Args:
        found: All sources.
        output: Path of the output.
        how: Gives the limit on pixels, which bounds the size of a file.

    Raises:
        PackError: A file has the name of a row in the output, but other bytes or another label.
    """
    ours = _packs_at(output, found.paths)
    if not ours:
        return found
    keys = _absolute_paths(found.filenames)
    rows = {key: at for at, (key, path) in enumerate(zip(keys, found.paths, strict=True)) if _pack_of(path) in ours}
    again = [at for at, key in enumerate(keys) if key in rows and _pack_of(found.paths[at]) not in ours]
    digests = _Digests({path.pack for path in found.paths if isinstance(path, PackedRow)}, how)
    with ThreadPoolExecutor(cores()) as executor:
        pairs = [(found.paths[at], found.paths[rows[keys[at]]]) for at in again]
        for at, is_same in zip(again, executor.map(digests.agree, pairs), strict=True):
            _check_same_image(found, at, rows[keys[at]], is_same)
    found.passed_over.extend((found.filenames[at], f"its row is in {output} already") for at in again)
    kept = sum(_pack_of(path) in ours for path in found.paths)
    its_rows = "its 1 row is" if kept == 1 else f"its {kept:,} rows are"
    found.notes.append(f"{output} is a SOURCE too: {its_rows} kept, also of files that are gone or moved")
    return found.take(np.delete(np.arange(len(found)), again).tolist())


class _Digests:
    """SHA-256 digests of files, and of the source files of rows in packs."""

    def __init__(self, packs: Iterable[PackFile], how: Pixels) -> None:
        from h5split.file.images import PackedImages

        self._how = how
        self._of_rows = {pack: PackedImages(pack.path).digests for pack in packs}

    def agree(self, pair: tuple[str | PackedRow, PackedRow]) -> bool:
        """Tell whether a source has the bytes that a row was made from; True if it cannot be read, to keep the row."""
        try:
            return self._of(pair[0]) == self._of(pair[1])
        except DecodeError:
            return True

    def _of(self, path: str | PackedRow) -> bytes:
        if isinstance(path, PackedRow):
            digest: bytes = self._of_rows[path.pack][path.row].tobytes()
            return digest
        return hashlib.sha256(read(path, self._how)[0]).digest()


def _check_same_image(found: Sources, at: int, row: int, is_same: bool) -> None:
    """Raise if a file and the row of the same name differ in bytes or label."""
    there, here = _describe(found, row), _describe(found, at)
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
    """Refuse a pack as a SOURCE if other versions decoded its rows.

    The output names only the current versions, so it would claim that they had decoded these rows.

    Raises:
        PackError: The versions differ.
    """
    others = versions.others(packed_by)
    if others:
        here = ", ".join(f"{name} {version}" for name, version in versions.packed_by().items())
        raise PackError(
            f"{path}: expected rows that {here} made, found those of {', '.join(others)}; install these versions, pack "
            "its folders again, or pack the pictures that h5split export makes of it"
        )


def check_once(found: Sources) -> None:
    """Refuse two rows for one image: a file given twice, or a file name that a pack and another SOURCE both have.

    Equal file names within one pack are allowed, because a table may give several files the same name.

    Raises:
        PackError: An image would have two rows. The message names both places.
    """
    every = range(len(found))
    files = [at for at in every if isinstance(found.paths[at], str)]
    _check_distinct(found, every, _absolute_paths(found.filenames), [_pack_of(path) for path in found.paths])
    _check_distinct(found, files, _absolute_paths([str(found.paths[at]) for at in files]), files)


def _check_distinct(found: Sources, rows: Sequence[int], keys: Sequence[str], origins: Sequence[object]) -> None:
    """Raise if two rows have the same key but different origins.

    Args:
        found: All sources.
        rows: Index of each row in `found`.
        keys: What must be unique among origins: an absolute path for each row.
        origins: Where each row comes from; equal for rows that may share a key.
    """
    if len(set(keys)) == len(keys):
        return
    first: dict[str, int] = {}
    for at, key in enumerate(keys):
        before = first.setdefault(key, at)
        if origins[before] != origins[at]:
            places = " and ".join(_describe(found, rows[one]) for one in (before, at))
            path = found.paths[rows[at]]
            name = path if isinstance(path, str) else found.filenames[rows[at]]
            raise PackError(f"{name} is given twice, so its row would be counted twice: {places}; leave one out")


def _absolute_paths(names: Sequence[str]) -> list[str]:
    """Return `os.path.abspath` of each name, ten times as fast for names that need no normalisation."""
    here = os.getcwd()
    return [
        os.path.abspath(name) if "//" in name or "/." in name or name.startswith((".", "/")) else f"{here}/{name}"
        for name in names
    ]


def _packs_at(output: str | None, paths: Sequence[str | PackedRow]) -> set[PackFile]:
    """Return the pack at the output if rows of it are packed again: one pack, or none."""
    packs = {path.pack for path in paths if isinstance(path, PackedRow)}
    return {pack for pack in packs if output is not None and _is_same_file(pack.path, output)}


def _pack_of(path: str | PackedRow) -> PackFile | None:
    return path.pack if isinstance(path, PackedRow) else None


def missing(found: Sources, tables: Collection[str]) -> list[str]:
    """Return the files that tables name but that do not exist.

    Args:
        found: All sources.
        tables: The SOURCES that name files without looking for them, such as manifests.

    Raises:
        PackError: Half of the files of a table or more are missing.
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
                f"{not_there[0]}; --root says where the paths of a manifest start from"
            )
        gone += not_there
    return gone


def _describe(found: Sources, at: int) -> str:
    """Describe the location of an image in a message."""
    path = found.paths[at]
    if isinstance(path, PackedRow):
        return f"row {path.row} of {path.pack.path}"
    return f"{path} of {found.columns['source'][at]}"


def _is_same_file(path: str, other: str) -> bool:
    try:
        return os.path.samefile(path, other)
    except OSError:
        return False
