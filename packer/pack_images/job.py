"""Make a plan, and carry it out: reserve the file, fill it, close gaps, seal it, publish it."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from h5split.file.losses import LOSSES
from h5split.order.rows import Rows
from h5split.system.interrupts import interrupts_held
from h5split.system.text import SHOWN, count
from pack_images.errors import DecodeError, PackError, UnfinishedError
from pack_images.find.labels import LabelRule
from pack_images.find.like import check_alone, rows_like
from pack_images.find.manifest import Manifest
from pack_images.find.readers import Reader
from pack_images.find.relabel import Relabel
from pack_images.find.scan import scan, select_classes
from pack_images.find.sources import PackedRow, PackFile, extensions_of
from pack_images.output import (
    Old,
    check_classes_kept,
    check_decoders,
    check_once,
    find_old,
    missing,
    without_known,
)
from pack_images.plan import PAGE, Filled, Plan, plan, spread, survivors
from pack_images.run.pool import Pool, run
from pack_images.settings import Pixels, Settings, Shape, stored_settings
from pack_images.summary import Progress, Summary, summary_of
from pack_images.versions import packed_by, used

if TYPE_CHECKING:
    from h5split.file.images import PackedImages
    from h5split.file.sealing import Tables
    from pack_images.partial import Partial

_NUMBER = re.compile(r"\d[\d.,]*")
_BYTE = 8  # bits
_SHAPES_COMPARED = 9  # images; few, because they are decoded before the workers begin


def make_plan(
    sources: Sequence[str | os.PathLike[str]],
    settings: Settings,
    *,
    manifests: Sequence[Manifest] = (),
    reader: Reader | None = None,
    relabel: Relabel | None = None,
    like: str | os.PathLike[str] | None = None,
    output: str | None = None,
) -> Plan:
    """Scan the sources, check them, and plan the output.

    Raises:
        PackError: There is nothing to pack, or the sources contradict each other or the settings.
        OSError: A folder cannot be read.
    """
    named = (manifest.label_column for manifest in manifests)
    check_alone(like, {"label-column": next((name for name in named if name is not None), None)})
    rule = LabelRule("none" if settings.is_like else settings.labels, settings.label_pattern)
    found = scan(
        sources,
        rule,
        manifests=manifests,
        reader=reader,
        relabel=relabel,
        classes=settings.classes,
        extensions=extensions_of(settings.pixels),
    )
    if settings.classes is not None:
        check_classes_kept(found, output, settings.classes)
        found = select_classes(found, settings.classes)
    found = without_known(found, output, settings.pixels)
    if like is not None:
        found = rows_like(like, found, settings.pixels, output)
        from pack_images.pairing import notes_on_pairs, turned_alike  # here, because it loads Pillow

        found = turned_alike(like, found, settings.pixels)
    # Folders alone need no check: the scan finds each file once.
    if reader or manifests or any(isinstance(path, PackedRow) for path in found.paths):
        check_once(found)
    read_by_others = [os.fspath(source) for source in sources] if reader else []
    gone = missing(found, [*(manifest.name for manifest in manifests), *read_by_others])
    packs = sorted({path.pack.path for path in found.paths if isinstance(path, PackedRow)})
    if packs:
        shape, size = _shape_of_packs(packs, settings.pixels)
    else:
        shape, size = _shape(found.paths, settings.pixels), settings.pixels.size
    if like is not None:
        found.notes.extend(notes_on_pairs(like, found, settings.pixels, shape))
    return plan(found, replace(settings, pixels=replace(settings.pixels, size=size)), shape, gone)


def _shape_of_packs(paths: Sequence[str], how: Pixels) -> tuple[Shape, tuple[int, int] | None]:
    """Return the image shape of packs, and the size that they were packed with: the one asked for, or their own.

    Raises:
        PackError: They have different shapes, or were made with other settings or versions.
    """
    from h5split.file.images import PackedImages

    packs = [PackedImages(path) for path in paths]
    shapes = {_checked_shape(pack, how) for pack in packs}
    if len(shapes) > 1:
        raise PackError(f"expected packs of one image shape, found {', '.join(map(str, shapes))} in {', '.join(paths)}")
    height, width, channels = shapes.pop()
    was_asked_for = how.size is not None or any(pack.header.settings.get("size") for pack in packs)
    return (height, width, channels), (width, height) if was_asked_for else None


def _checked_shape(pack: PackedImages, how: Pixels) -> Shape:
    """Return the image shape of a pack. Refuse a pack whose rows were made with other settings or versions."""
    path = pack.path
    height, width, channels = pack.shape
    there = stored_settings(pack.header.settings)
    check_decoders(path, pack.header.packed_by)
    wanted = json.loads(json.dumps(stored_settings(how.as_json())))
    del wanted["size"], wanted["max_pixels"]
    if how.size is not None and how.size != (width, height):
        raise PackError(_disagreement(path, "size", f"{width}x{height}", f"{how.size[0]}x{how.size[1]}"))
    for name, value in wanted.items():
        if there.get(name) != value:
            raise PackError(_disagreement(path, name, there.get(name), value))
    return height, width, channels


def _disagreement(path: str, name: str, there: object, wanted: object) -> str:
    there, wanted = (":".join(map(str, value)) if isinstance(value, list) else value for value in (there, wanted))
    if there is None:
        return (
            f"{path}: expected rows packed with {name} {wanted}, found a pack that does not say, such as one that was "
            "saved of packs that differ in it; give those packs"
        )
    return (
        f"{path} was packed with {name} {there}, this run asks for {wanted}; "
        f"give --{name.replace('_', '-')} {there}, or pack its folders again, without it as a SOURCE"
    )


def _shape(paths: Sequence[str | PackedRow], how: Pixels) -> Shape:
    """Return the stored (H, W, C): of the size the user gave, or else the most frequent one of a few images.

    These lie evenly among all, so one odd image does not decide. If none of them can be decoded, the first that can
    decides.

    Raises:
        PackError: No image can be decoded.
    """
    if how.shape is not None:
        return how.shape
    sample = spread(len(paths), _SHAPES_COMPARED)
    others = sorted({*range(len(paths))}.difference(sample))
    first = ""
    for rows, most in ((sample, len(sample)), (others, 1)):
        found, reason = _shapes([paths[row] for row in rows], how, most)
        first = first or reason
        if found:
            return Counter(found).most_common(1)[0][0]  # among equals, the one that came first
    raise PackError(_none_decoded(len(paths), first))


def _shapes(paths: Sequence[str | PackedRow], how: Pixels, most: int) -> tuple[list[Shape], str]:
    """Return the shapes of the first `most` images that can be decoded, and why the first other one cannot."""
    from pack_images.decode.row import shape_of  # here, because it loads Pillow, which this process rarely needs
    from pack_images.reading import read

    found: list[Shape] = []
    first = ""
    for path in paths:
        assert isinstance(path, str)  # a row of a pack has a shape already
        try:
            found.append(shape_of(read(path, how)[0], how))
        except DecodeError as error:
            first = first or f"{path}: {error}"
        if len(found) == most:
            break
    return found, first


def _none_decoded(count: int, first: str) -> str:
    return f"none of {count} images can be decoded; the first is {first}"


def _images_offset(stride: int) -> int:
    # Large rows start on the second page. Knowing this here avoids loading `sealing` before workers start; sealing
    # checks the offset.
    return PAGE if stride >= PAGE else int(_sealing().images_offset(stride))


def _sealing() -> Any:
    """Import `h5split.file.sealing` late: it takes 40 ms to load, with h5py, and is needed only at the end."""
    with interrupts_held():  # an interrupt while a C library loads becomes an ImportError
        return importlib.import_module("h5split.file.sealing")


@dataclass(frozen=True)
class Job:
    """One output, and everything needed to make it.

    Attributes:
        output: Path of the output.
        plan: The rows.
        strict: Stop at the first image that cannot be decoded.
        reuse: Copy unchanged rows from the pack that is at the output path.
    """

    output: str
    plan: Plan
    strict: bool
    reuse: bool

    def run(self, pool: Pool, progress: Progress | None, started: float) -> Summary:
        """Make the file.

        Args:
            pool: The workers.
            progress: As for `pack`.
            started: Start of the whole call, by `time.monotonic`.

        Raises:
            PackError: The file at the output is no pack, image sizes differ, or half of the images or more cannot be
                decoded, unless they are so few that the summary names all. Nothing is left behind.
            UnfinishedError: The disk is full, another run uses this output, a pack among the sources has changed, rows
                of the output would be lost, or, with `strict`, an image cannot be decoded. Finished rows are kept.
        """
        from pack_images.partial import Partial  # here, because Windows lacks its locks, and write() needs none

        self._check_paired()
        old = find_old(self.output)
        versions = packed_by(used(self.plan.settings.pixels, self.plan.sources.paths))
        partial = Partial(
            self.output,
            self.plan.identity(versions),
            len(self.plan),
            _images_offset(self.plan.stride),
            self.plan.stride,
            self.plan.table_bytes,
        )
        try:
            reused = old.file if self.reuse and old is not None and old.reusable(self.plan, versions) else None
            # Workers on other machines flush their rows themselves.
            with contextlib.nullcontext() if pool.remote else partial.flushed_behind():
                filled = self._fill_rows(partial, pool, progress, reused)
            tables, again = self._finish(partial, pool.remote, old, sorted(filled.failures), versions)
        except UnfinishedError:
            if not partial.records()["done"].any():  # nothing worth keeping
                partial.discard()
            raise
        except PackError:
            partial.discard()
            raise
        except OSError as error:
            raise UnfinishedError(
                f"{self.output}: {error.strerror or error}; what is done is kept, and the same call continues"
            ) from error
        finally:
            partial.close()
        return self._summary(tables, filled, partial.restarts, again, time.monotonic() - started)

    def _check_paired(self) -> None:
        """With `strict`, refuse rows of the pack of `like` that have no file."""
        lacking = self.plan.sources.lacking
        if self.strict and lacking:
            (name, reason), rows = lacking[0], count(len(lacking), "row")
            raise PackError(f"{name}: {reason}, so it is with {rows}; without --strict they are left out and listed")

    def _finish(
        self,
        partial: Partial,
        remote: bool,
        old: Old | None,
        failures: Sequence[tuple[int, str]],
        versions: Mapping[str, str],
    ) -> tuple[Tables, list[str]]:
        """Close gaps, seal and publish. Return the tables, and warnings about the rows."""
        partial.hold()
        if remote:
            self._check_remote_rows(partial, failures)
        rows = survivors(len(self.plan), [row for row, _ in failures], self.plan.settings.order)
        tables = self._tables(partial, rows, failures, versions)
        again = [*_depth_note(partial.records()["depth"][rows], tables.filenames)]
        if old is not None:
            old.check_kept(self.plan, tables, failures)
            again += old.added_again([self.plan.sources.paths[row] for row in rows.tolist()], tables)
        partial.move(rows)
        _sealing().seal(partial.descriptor, (len(rows), *self.plan.shape), tables, self.plan.settings.pixels.dtype)
        partial.publish()
        return tables, again

    def _fill_rows(self, partial: Partial, pool: Pool, progress: Progress | None, reuse: PackFile | None) -> Filled:
        """Have every row written. Return the results of all tasks as one."""
        done = kept = copied = 0
        failures: list[tuple[int, str]] = []
        tasks = self.plan.tasks(partial.place, reuse, remote=pool.remote)
        with contextlib.closing(run(tasks, pool)) as results:  # after an error, closing cancels pending tasks
            for filled in results:
                _sealing()  # loads now, while the workers are busy
                done, kept, copied = done + filled.rows, kept + filled.kept, copied + filled.copied
                failures.extend(filled.failures)
                if self.strict and failures:
                    raise UnfinishedError(
                        f"{self._first_failure(failures)}; what is done is kept: "
                        "the same call without --strict leaves it out, reports it, and continues"
                    )
                if progress is not None:
                    progress(done, len(self.plan), len(failures))
        if len(failures) == len(self.plan):
            raise PackError(_none_decoded(len(failures), self._first_failure(failures)))
        if len(failures) > SHOWN and 2 * len(failures) >= len(self.plan):
            raise PackError(self._most_failed(sorted(failures)))
        return Filled(done, kept, copied, tuple(failures))

    def _check_remote_rows(self, partial: Partial, failures: Sequence[tuple[int, str]]) -> None:
        """Read the rows back, because workers on other machines may report rows that never reached this file system."""
        wrong = np.setdiff1d(partial.damaged(), [row for row, _ in failures])
        if len(wrong):
            raise UnfinishedError(
                f"{self.output}: {len(wrong):,} rows are not there as workers wrote them, the first is that of "
                f"{self.plan.sources.filenames[int(wrong[0])]}; the same call does them again, and keeps the others"
            )

    def _first_failure(self, failures: Sequence[tuple[int, str]]) -> str:
        row, reason = min(failures)
        return f"{self.plan.sources.filenames[row]}: {reason}"

    def _most_failed(self, failures: Sequence[tuple[int, str]]) -> str:
        """Say why half of the images or more cannot be decoded: what most failures say, numbers aside."""
        kinds = [_NUMBER.sub("0", reason) for _, reason in failures]
        kind, frequency = Counter(kinds).most_common(1)[0]
        row, reason = failures[kinds.index(kind)]
        return (
            f"expected to decode more than half of {count(len(self.plan), 'image')}, found {len(failures):,} that "
            f"cannot be, {frequency:,} of them like {self.plan.sources.filenames[row]}: {reason}; "
            "if no other option takes them, give the other files alone, for example in a --manifest"
        )

    def _tables(
        self, partial: Partial, rows: Rows, failures: Sequence[tuple[int, str]], versions: Mapping[str, str]
    ) -> Tables:
        records = partial.records()[rows]
        sources = self.plan.sources if not failures else self.plan.sources.take(rows.tolist())
        tables: Tables = _sealing().Tables(
            labels=self.plan.labels[rows],
            class_names=self.plan.class_names,
            filenames=sources.filenames,
            columns=sources.columns,
            digests=records["digest"],
            checksums=records["checksum"],
            settings=self.plan.settings.as_json(),
            packed_by=versions,
            skipped=sorted(
                [*sources.lacking, *((self.plan.sources.filenames[row], reason) for row, reason in failures)]
            ),
            losses=_loss_table(records),
        )
        return tables

    def _summary(
        self, tables: Tables, filled: Filled, restarted: bool, warnings: Sequence[str], seconds: float
    ) -> Summary:
        return summary_of(
            tables,
            self.output,
            self.plan.shape,
            passed_over=self.plan.sources.passed_over,
            warnings=[*self.plan.warnings, *warnings],
            decoded=filled.rows - filled.kept - filled.copied - len(filled.failures),
            copied=filled.copied,
            continued=filled.kept,
            restarted=restarted,
            seconds=seconds,
        )


def _depth_note(depths: NDArray[np.uint8], filenames: Sequence[str]) -> Iterator[str]:
    """Say so if pictures of 8 bits, which were widened to 16, lie among deeper ones, which kept their values.

    Args:
        depths: Bits per sample of each row; 0 if they are not known.
        filenames: The name of each row.
    """
    few, more = np.flatnonzero((depths > 0) & (depths <= _BYTE)), np.count_nonzero(depths > _BYTE)
    if len(few) and more:
        yield (
            f"{count(len(few), 'picture')} of 8 bits, such as {min(filenames[row] for row in few.tolist())}, and "
            f"{more:,} of more: 8 bits were multiplied by 257 so that 255 is 65535, the others kept their values; "
            "--dtype uint8 --range LOW:HIGH gives both one scale"
        )


def _loss_table(records: NDArray[np.void]) -> NDArray[np.void]:
    """List the rows whose pictures lost something: LOSSES (L,).

    Args:
        records: The journal record of each final row.
    """
    rows = np.flatnonzero(records["kinds"])
    table = np.empty(len(rows), LOSSES)
    table["rows"] = rows
    for name in ("kinds", "bits", "levels", "kept"):
        table[name] = records[name][rows]
    return table
