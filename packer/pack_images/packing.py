"""Scan, plan, fill, seal: one call makes one file."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
import PIL
import simplejpeg

from h5split.format import Tables, images_offset, seal
from h5split.rows import Rows, identical
from pack_images import __version__
from pack_images.decode import shape_of
from pack_images.errors import DecodeError, PackError
from pack_images.fill import Task, read
from pack_images.partial import Partial
from pack_images.plan import (
    CHANNELS,
    MAX_PIXELS,
    Color,
    Fit,
    Interpolation,
    Order,
    Pixels,
    Plan,
    Settings,
    Shape,
    plan,
    survivors,
)
from pack_images.scan import Labels, scan
from pack_images.workers import ForeignPool, LocalPool, Pool, run

Progress = Callable[[int, int, int], object]


@dataclass(frozen=True)
class Summary:
    """What was packed.

    Attributes:
        output: The file.
        rows: Images in it.
        shape: (H, W, C) of each.
        classes: Class name -> images.
        skipped: (filename, reason) of each image left out.
        passed_over: (path, reason) of what was found beside images.
        duplicates: The filenames of each group of identical files; groups with different labels come first: they are
            labelling errors.
        conflicting: How many of the groups have different labels.
        decoded: Images decoded by this run; the others are from an interrupted run that it continued.
        restarted: Whether an interrupted run of another plan was found, and given up.
        nbytes: Size of the file.
        seconds: It took.
    """

    output: str
    rows: int
    shape: Shape
    classes: Mapping[str, int]
    skipped: Sequence[tuple[str, str]]
    passed_over: Sequence[tuple[str, str]]
    duplicates: Sequence[tuple[str, ...]]
    conflicting: int
    decoded: int
    restarted: bool
    nbytes: int
    seconds: float


def pack(
    sources: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    size: int | tuple[int, int] | None = None,
    fit: Fit = "stretch",
    interpolation: Interpolation = "bilinear",
    color: Color = "rgb",
    labels: Labels = "auto",
    order: Order = "stratified",
    seed: int = 0,
    exact: bool = False,
    max_pixels: int = MAX_PIXELS,
    strict: bool = False,
    workers: int | None = None,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> Summary:
    """Decode the images of folders once, into one file.

    The file appears under its name when it is whole; until then an existing one stays as it is. The same sources and
    settings give the same bytes, whoever does the work.

    Args:
        sources: Folders; see `scan.scan` for how images in them are found and labelled.
        output: The file to make.
        size: Stored (width, height), or one number for both. None: every image has the same size already.
        fit: How another aspect ratio is fitted: `stretch`, `crop` (centred) or `pad` (with black).
        interpolation: One of Pillow's filters, antialiased.
        color: `rgb`, `grayscale` or `rgba`: 3, 1 or 4 channels.
        labels: Where class names come from: `auto`, `subfolder`, `parent` or `root`.
        order: `stratified`: shuffled so that every range of rows has each class in its share. `sorted`: as scanned.
        seed: Of the stratified order.
        exact: Never decode large JPEGs at a reduced size.
        max_pixels: Pictures of more pixels are left out.
        strict: An image that cannot be decoded is an error.
        workers: Worker processes; one for each core when None.
        executor: Does the work in place of worker processes; on other machines, they share the file system.
        progress: Called with (rows done, rows in all, rows left out).

    Raises:
        PackError: What is asked for cannot be done; the message is one line that says why and what to do.
        OSError: A folder cannot be read, or the output not be written.
    """
    started = time.monotonic()
    settings = Settings(Pixels(_pair(size), fit, interpolation, color, exact, max_pixels), labels, order, seed)
    target = _checked_output(output)
    with _pool(workers, executor) as pool:
        planned = _planned(sources, settings)
        job = _Job(planned, target, _versions())
        return job.run(pool, strict, progress or (lambda done, total, left_out: None), started)


def preview(
    sources: Sequence[str | os.PathLike[str]],
    *,
    size: int | tuple[int, int] | None = None,
    color: Color = "rgb",
    labels: Labels = "auto",
    order: Order = "stratified",
    seed: int = 0,
) -> Plan:
    """The plan that `pack` would follow with these arguments; nothing is written.

    Raises:
        PackError: As `pack` does.
        OSError: A folder cannot be read.
    """
    return _planned(sources, Settings(Pixels(_pair(size), color=color), labels, order, seed))


def _pair(size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    return (size, size) if isinstance(size, int) else size


def _checked_output(output: str | os.PathLike[str]) -> str:
    path = os.fspath(output)
    if os.path.isdir(path):
        raise PackError(f"{path}: expected a file to write, found a folder; give a name such as {path}/images.h5")
    return path


@contextlib.contextmanager
def _pool(workers: int | None, executor: Executor | None) -> Iterator[Pool]:
    if executor is not None:
        yield ForeignPool(executor)
        return
    count = (os.cpu_count() or 1) if workers is None else workers
    if count < 1:
        raise PackError(f"workers: expected 1 or more, found {count}")
    with LocalPool(count) as pool:
        yield pool


def _planned(sources: Sequence[str | os.PathLike[str]], settings: Settings) -> Plan:
    found = scan(sources, settings.labels)
    return plan(found, settings, _shape(found.filenames, settings.pixels))


def _shape(filenames: Sequence[str], how: Pixels) -> Shape:
    """The (H, W, C) stored: as asked for, or else that of the first image that can be decoded."""
    if how.size is not None:
        return how.size[1], how.size[0], CHANNELS[how.color]
    for filename in filenames:
        with contextlib.suppress(DecodeError):
            return shape_of(read(filename)[0], how)
    raise PackError(f"none of {len(filenames)} images can be decoded, from {filenames[0]} on; are they images?")


def _versions() -> dict[str, str]:
    """What decides pixels, beside the settings."""
    return {"pack-images": __version__, "pillow": PIL.__version__, "simplejpeg": simplejpeg.__version__}


@dataclass(frozen=True)
class _Job:
    """A plan on its way to a file."""

    plan: Plan
    output: str
    versions: Mapping[str, str]

    def run(self, pool: Pool, strict: bool, progress: Progress, started: float) -> Summary:
        partial = Partial(
            self.output,
            self.plan.identity(self.versions),
            len(self.plan),
            images_offset(self.plan.stride),
            self.plan.stride,
        )
        try:
            with partial.flushed_behind():
                failures, kept = self._fill(partial, pool, strict, progress)
            rows = survivors(len(self.plan), [row for row, _ in failures], self.plan.settings.order)
            partial.move(rows)
            tables = self._tables(partial, rows, failures)
            seal(partial.descriptor, (len(rows), *self.plan.shape), tables)
            partial.publish()
        except PackError:
            partial.discard()
            raise
        finally:
            partial.close()
        return self._summary(tables, len(rows) - kept, partial, started)

    def _fill(
        self, partial: Partial, pool: Pool, strict: bool, progress: Progress
    ) -> tuple[list[tuple[int, str]], int]:
        """Have every row written: those that cannot be, with the reason, and how many were written before."""
        failures: list[tuple[int, str]] = []
        done = kept = 0
        progress(0, len(self.plan), 0)
        for filled in run(self._tasks(partial), pool):
            failures.extend(filled.failures)
            if strict and failures:
                row, reason = min(failures)
                raise PackError(f"{self.plan.filenames[row]}: {reason}; without --strict it is left out and reported")
            done, kept = done + filled.rows, kept + filled.kept
            progress(done, len(self.plan), len(failures))
        if len(failures) == len(self.plan):
            row, reason = min(failures)
            raise PackError(
                f"none of {len(failures)} images can be decoded; the first is {self.plan.filenames[row]}: {reason}"
            )
        return sorted(failures), kept

    def _tasks(self, partial: Partial) -> Iterator[Task]:
        for rows in self.plan.ranges():
            paths = tuple(self.plan.filenames[rows.start : rows.stop])
            yield Task(partial.place, rows.start, paths, self.plan.settings.pixels, self.plan.shape)

    def _tables(self, partial: Partial, rows: Rows, failures: Sequence[tuple[int, str]]) -> Tables:
        at, records = rows.tolist(), partial.records()[rows]
        return Tables(
            labels=self.plan.labels[rows],
            class_names=self.plan.class_names,
            filenames=[self.plan.filenames[row] for row in at],
            columns={name: [column[row] for row in at] for name, column in self.plan.columns.items()},
            digests=records["digest"],
            checksums=records["checksum"],
            settings=self.plan.settings.as_json(),
            packed_by=self.versions,
            skipped=sorted((self.plan.filenames[row], reason) for row, reason in failures),
        )

    def _summary(self, tables: Tables, decoded: int, partial: Partial, started: float) -> Summary:
        counts = np.bincount(tables.labels, minlength=len(tables.class_names)).tolist()
        groups = [group.tolist() for group in identical(tables.digests)]
        mixed = [len(set(tables.labels[group].tolist())) > 1 for group in groups]
        groups = [group for _, group in sorted(zip(mixed, groups, strict=True), key=lambda pair: not pair[0])]
        return Summary(
            output=self.output,
            rows=len(tables.filenames),
            shape=self.plan.shape,
            classes=dict(zip(tables.class_names, counts, strict=True)),
            skipped=tables.skipped,
            passed_over=self.plan.passed_over,
            duplicates=[tuple(sorted(tables.filenames[row] for row in group)) for group in groups],
            conflicting=sum(mixed),
            decoded=decoded,
            restarted=partial.restarts,
            nbytes=os.path.getsize(self.output),
            seconds=time.monotonic() - started,
        )
