"""pack() and preview(): the front door.

It loads little, so that worker processes are on their way before this process loads the rest and scans.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from typing import TYPE_CHECKING

from h5split.errors import H5SplitError
from h5split.system.interrupts import interrupts_held
from h5split.system.machine import check_names
from pack_images.about import MAX_PIXELS
from pack_images.errors import PackError
from pack_images.run.choose import open_pool

if TYPE_CHECKING:
    from pack_images.find.manifest import Manifest
    from pack_images.find.readers import Reader
    from pack_images.plan import Plan
    from pack_images.settings import Color, Fit, Interpolation, Labels, Order
    from pack_images.summary import Progress, Summary


def pack(
    sources: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    size: int | tuple[int, int] | None = None,
    fit: Fit = "stretch",
    interpolation: Interpolation = "bilinear",
    color: Color = "rgb",
    labels: Labels = "auto",
    order: Order = "stratified",
    seed: int = 0,
    classes: str | os.PathLike[str] | Sequence[str] | None = None,
    exact: bool = False,
    max_pixels: int = MAX_PIXELS,
    strict: bool = False,
    manifest: Manifest | Sequence[Manifest] = (),
    reader: Reader | None = None,
    reuse: bool = True,
    workers: int | None = None,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> Summary:
    """Decode the images of folders once, into one file.

    The file appears under its name when it is whole; until then an existing one stays as it is. The same sources and
    settings give the same bytes, whoever does the work.

    Args:
        sources: Folders, and packs whose rows are copied, or one of them; `scan.scan` says how images are found and
            labelled.
        output: The file to make.
        size: Stored (width, height), or one number for both. None: every image has the same size already.
        fit: How another aspect ratio is fitted: `stretch`, `crop` (centred) or `pad` (with black).
        interpolation: One of Pillow's filters, antialiased.
        color: `rgb`, `grayscale` or `rgba`: 3, 1 or 4 channels.
        labels: Where class names come from: `auto`, `subfolder`, `parent` or `root`.
        order: `stratified`: shuffled so that every range of rows has each class in its share. `sorted`: as scanned.
        seed: Of the stratified order.
        classes: These classes, in the order of their numbers: names, or `--classes` of the command: a file of them, a
            pack, or names between commas. Images of other classes are passed over and counted; a class without images
            stays one. None: the classes that there are, sorted.
        exact: Never decode large JPEGs at a reduced size.
        max_pixels: Pictures of more pixels are left out.
        strict: An image that cannot be decoded is an error.
        manifest: Tables of files, beside or instead of sources.
        reader: Reads each folder in place of the rules for labels: `reader(path)` gives the names of files, the class
            number of each, the names of the classes and the number of each of those. Classes are merged by name.
        reuse: Copy rows out of an output that is there already, where a source file's SHA-256 and all that decides
            pixels are the same.
        workers: Worker processes; one for each core when None.
        executor: Does the work in place of worker processes; on other machines, they share the file system.
        progress: Called with (rows done, rows in all, rows left out).

    Raises:
        PackError: What is asked for cannot be done; the message is one line that says why and what to do.
        UnfinishedError: It cannot be done now, as on a full disk; the same call continues.
        OSError: A folder cannot be read.
    """
    started = time.monotonic()
    with _one_root(), open_pool(workers, executor) as pool:
        check_names()
        with interrupts_held():  # which make an ImportError of a library in C that is half loaded
            from pack_images.job import Job, make_plan, settings_of
            from pack_images.output import output_path

        settings = settings_of(
            size,
            fit=fit,
            interpolation=interpolation,
            color=color,
            exact=exact,
            max_pixels=max_pixels,
            labels=labels,
            order=order,
            seed=seed,
            classes=classes,
        )
        path = output_path(output)
        plan = make_plan(_paths(sources), settings, manifests=_listed(manifest), reader=reader, output=path)
        return Job(path, plan, strict, reuse).run(pool, progress, started)


def preview(
    sources: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    size: int | tuple[int, int] | None = None,
    color: Color = "rgb",
    labels: Labels = "auto",
    order: Order = "stratified",
    seed: int = 0,
    classes: str | os.PathLike[str] | Sequence[str] | None = None,
    manifest: Manifest | Sequence[Manifest] = (),
    reader: Reader | None = None,
    output: str | os.PathLike[str] | None = None,
) -> Plan:
    """The plan that `pack` would follow with these arguments; nothing is written.

    Without `output`, nothing is said of what is there already.

    Raises:
        PackError: As `pack` does.
        OSError: A folder cannot be read.
    """
    with _one_root():
        check_names()
        from pack_images.job import make_plan, settings_of
        from pack_images.output import output_path

        settings = settings_of(size, color=color, labels=labels, order=order, seed=seed, classes=classes)
        path = None if output is None else output_path(output)
        return make_plan(_paths(sources), settings, manifests=_listed(manifest), reader=reader, output=path)


@contextlib.contextmanager
def _one_root() -> Iterator[None]:
    """Raise what the reader of packs says of a SOURCE as an error of this package."""
    try:
        yield
    except H5SplitError as error:
        raise PackError(str(error)) from error


def _paths(sources: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> Sequence[str | os.PathLike[str]]:
    return [sources] if isinstance(sources, str | os.PathLike) else sources


def _listed(manifest: Manifest | Sequence[Manifest]) -> Sequence[Manifest]:
    return manifest if isinstance(manifest, Sequence) else [manifest]
