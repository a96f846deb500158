"""What is at the output before a run: whether it may be replaced, which rows are kept, which would be lost."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from h5split.machine import cores
from h5split.writing import check_replaceable, target
from pack_images import versions
from pack_images.errors import PackError, UnfinishedError
from pack_images.sources import PackedRow, PackFile, Sources, pack_file

if TYPE_CHECKING:
    from h5split.images import PackedImages
    from pack_images.plan import Plan

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

    def check_kept(self, plan: Plan, digests: NDArray[np.uint8], failures: _Failures) -> None:
        """Refuse to lose half of its rows or more because their files are not there, or cannot be read.

        Args:
            plan: Of the new pack.
            digests: uint8 (M, 32), of the rows that the new pack has.
            failures: Of those that it has not.

        Raises:
            UnfinishedError: They would be lost.
        """
        gone = ~np.isin(_keys(self.images.digests), _keys(digests))
        if 2 * np.count_nonzero(gone) < len(gone):
            return
        unread = {plan.sources.filenames[row] for row, reason in failures if reason.startswith("cannot be read")}
        names = self.images.filenames.take(np.flatnonzero(gone))
        lost = [name for name in names if name in unread or not os.path.exists(name)]
        if 2 * len(lost) >= len(gone):
            path = self.file.path
            raise UnfinishedError(
                f"{path}: expected the files of its {len(gone):,} rows, found that {len(lost):,} are not there or "
                f"cannot be read, such as {lost[0]}; to keep their rows give {path} as a SOURCE too, to be rid of them "
                f"remove {path} first"
            )


def output_path(output: str | os.PathLike[str]) -> str:
    """Where the output is to be, links of this user followed.

    Raises:
        PackError: No pack can be written there, or something is there that is no pack, and would be lost.
    """
    try:
        path = target(output)
        if not path or os.path.isdir(path):
            raise ValueError(f"{path}: expected a file to write, found a folder; give a name such as images.h5")
        check_output(path)
    except FileNotFoundError:
        pass  # a folder that is not there: said where files are made in it
    except ValueError as error:
        raise PackError(str(error)) from error
    return path


def check_output(path: str) -> None:
    """Check that there is nothing at a path, or a pack.

    Raises:
        PackError: Something else is there.
    """
    from h5split.format import is_pack

    try:
        check_replaceable(path, "a pack", is_pack)
    except ValueError as error:
        raise PackError(str(error)) from error


def find_old(path: str) -> Old | None:
    """The pack at an output that `output_path` has checked; None where there is nothing, or an empty file."""
    from h5split.images import PackedImages

    if not os.path.exists(path) or os.path.getsize(path) == 0:
        return None
    file = pack_file(path)  # first: what another run publishes now is then another one
    return Old(file, PackedImages(path))


def without_known(found: Sources, output: str | None) -> Sources:
    """The sources without what the output holds already, where it is one of them.

    Raises:
        PackError: A file has the name of one of its rows, and other bytes or another label.
        OSError: A file cannot be read.
    """
    packs = {path.pack for path in found.paths if isinstance(path, PackedRow)}
    ours = {pack for pack in packs if output is not None and _is_same_file(pack.path, output)}
    if not ours:
        return found
    rows = {
        name: at for at, (name, path) in enumerate(zip(found.filenames, found.paths, strict=True)) if path[0] in ours
    }
    again = [at for at, name in enumerate(found.filenames) if rows.get(name, at) != at]
    digests = _Digests(packs)
    with ThreadPoolExecutor(cores()) as executor:
        pairs = [(found.paths[at], found.paths[rows[found.filenames[at]]]) for at in again]
        for at, is_same in zip(again, executor.map(digests.agree, pairs), strict=True):
            _check_known(found, at, rows[found.filenames[at]], is_same)
    found.passed_over.extend((found.filenames[at], f"its row is in {output} already") for at in again)
    return found.take(np.delete(np.arange(len(found)), again).tolist())


class _Digests:
    """The SHA-256 of files, and of those that rows of packs were made of."""

    def __init__(self, packs: Iterable[PackFile]) -> None:
        from h5split.images import PackedImages

        self._of_rows = {pack: PackedImages(pack.path).digests for pack in packs}

    def agree(self, pair: tuple[str | PackedRow, PackedRow]) -> bool:
        """Whether a source has the bytes that a row was made of; a file that is not there has no others."""
        try:
            return self._of(pair[0]) == self._of(pair[1])
        except FileNotFoundError:
            return True

    def _of(self, path: str | PackedRow) -> bytes:
        if isinstance(path, PackedRow):
            digest: bytes = self._of_rows[path.pack][path.row].tobytes()
            return digest
        with open(path, "rb", buffering=0) as file:
            return hashlib.file_digest(file, "sha256").digest()


def _check_known(found: Sources, at: int, row: int, is_same: bool) -> None:
    if found.labels[at] != found.labels[row]:
        wanted, there = f"the label {found.labels[row]!r}, as", f"the label {found.labels[at]!r}"
    elif not is_same:
        wanted, there = "the bytes", "others"
    else:
        return
    raise PackError(
        f"{found.filenames[at]}: expected {wanted} that {_place(found, row)} was made of, found {there} in "
        f"{_place(found, at)}; give it another name, or leave one of the two SOURCES out"
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


def check_names(found: Sources) -> None:
    """Refuse a file name that a pack and another SOURCE both have: the row would be there twice.

    (A table may give one name to several files, and a pack made of it has them.)

    Raises:
        PackError: There is one; both places are named.
    """
    if len(set(found.filenames)) == len(found):
        return
    first: dict[str, int] = {}
    for at, name in enumerate(found.filenames):
        before = first.setdefault(name, at)
        if _pack_of(found.paths[before]) != _pack_of(found.paths[at]):
            places = " and ".join(_place(found, one) for one in (before, at))
            raise PackError(f"{name} is there twice, so its row would be counted twice: {places}; leave one out")


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
                f"{table}: expected its {len(files):,} files, found that {len(not_there):,} are not there, such as "
                f"{not_there[0]}; {_hint(not_there[0])}"
            )
        gone += not_there
    return gone


def _hint(path: str) -> str:
    """What is wrong with a table that names this file, which is not there."""
    folder, name = os.path.split(path)
    names = sorted(os.listdir(folder or ".")) if os.path.isdir(folder or ".") else []
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


def _keys(digests: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """A quarter of each digest, which tells them apart: uint64 (N,)."""
    return np.ascontiguousarray(digests[:, :8]).view("<u8")[:, 0]
