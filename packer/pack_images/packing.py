"""The functions pack() and preview(), the public interface.

This module imports little, so that worker processes start before this process loads the rest and scans.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from h5split.notebook.progress import reporting
from h5split.system.interrupts import interrupts_held
from h5split.system.machine import check_can_pack, check_names
from pack_images.about import MAX_PIXELS
from pack_images.errors import one_root

if TYPE_CHECKING:
    from pack_images.find.manifest import Manifest
    from pack_images.find.readers import Reader
    from pack_images.find.relabel import Relabel
    from pack_images.functions import Decoder
    from pack_images.plan import Plan
    from pack_images.run.pool import Pool
    from pack_images.settings import Color, DType, Fit, Interpolation, Labels, Order, Pages
    from pack_images.summary import Progress, Summary

    Table = str | os.PathLike[str] | Manifest | Any  # Any is pandas' DataFrame, which is not needed here


def pack(
    sources: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    size: int | tuple[int, int] | None = None,
    fit: Fit = "stretch",
    interpolation: Interpolation | None = None,
    color: Color = "rgb",
    dtype: DType = "uint8",
    range: tuple[float, float] | None = None,  # noqa: A002 - the name of the option
    background: str | tuple[int, int, int] | None = None,
    allow_truncated: bool = False,
    pages: Pages = "first",
    decoder: Decoder | Callable[[bytes], Any] | str | None = None,
    labels: Labels | None = None,
    label_pattern: str | None = None,
    order: Order | None = None,
    seed: int | None = None,
    classes: str | os.PathLike[str] | Sequence[str] | None = None,
    exact: bool = False,
    max_pixels: int = MAX_PIXELS,
    strict: bool = False,
    manifest: Table | Sequence[Table] | None = (),
    reader: Reader | None = None,
    relabel: Relabel | None = None,
    like: str | os.PathLike[str] | None = None,
    reuse: bool = True,
    workers: int | None = None,
    executor: Executor | None = None,
    progress: Progress | bool | None = None,
) -> Summary:
    """Decode the images of folders once, into one file.

    The file appears under its name when it is complete. Until then an existing file stays as it is. The same sources
    and settings give the same bytes, with any number and kind of workers.

    Args:
        sources: One or more folders of images, or packs whose rows are copied. `scan.scan` documents how images are
            found and labelled.
        output: The file to make.
        size: Stored (width, height), or one number for both. None: all images have the same size already.
        fit: How to fit a picture with another aspect ratio: `stretch`, `crop` (centred) or `pad` (with `background`).
        interpolation: One of Pillow's filters, antialiased. None: `bilinear`, or `nearest` with color `index`.
        color: `rgb`, `grayscale` or `rgba`: 3, 1 or 4 channels. `index`: palette numbers or grey values as they are,
            for masks. `all`: every band as it is, as many as most pictures have.
        dtype: `uint8`, `uint16` or `float32`, what is stored. Values that it cannot hold leave a picture out.
        range: (low, high): of pictures with more than 8 bits, what becomes 0 and 255. None: the high byte of 16 bits,
            and floats as they are.
        background: The colour that transparency lies on and that `pad` fills with, as a name, `#rrggbb` or (red, green,
            blue). None: black.
        allow_truncated: Keep what there is of a picture that is cut short. Each is listed as a loss.
        pages: `bands`: with color `all`, the pages of a TIFF are bands of one picture. `first`: its first page is the
            picture.
        decoder: Your own decoder, for every file of a folder: decoder(data) returns an array (H, W) or (H, W, C) of
            uint8, uint16 or float32, or None to have the file decoded as usual. Workers import it by its name, which
            may also be given as MODULE:FUNCTION. If the function changes, give `reuse=False` too.
        labels: Where class names come from: `auto`, `subfolder`, `parent`, `path`, `root` or `none`; see `find.labels`.
            None: `auto`.
        label_pattern: A regular expression, searched for in the path below SOURCE. Its first group is the class name.
        order: `stratified`: shuffled so that every range of rows has each class in its share. `sorted`: as scanned.
            None: `stratified`.
        seed: Seed of the stratified order. None: 0.
        classes: The classes to pack, in the order of their numbers: a sequence of names, or one string as for
            `--classes` (a file of names, a pack, or names separated by commas). Images of other classes are passed over
            and counted. A class without images keeps its number. None: all classes found, sorted; by value if all are
            whole numbers.
        exact: Never decode large JPEGs at a reduced size.
        max_pixels: Pictures with more pixels are left out.
        strict: Treat an image that cannot be decoded as an error, instead of leaving it out.
        manifest: Tables of files, in addition to sources or instead of them: one or several, each the path of a CSV, a
            pandas DataFrame, or a `Manifest`, which says how to read them.
        reader: A function that reads each folder, in place of the rules for labels. `reader(path)` returns four lists:
            the names of files, the class number of each file, the names of the classes and the number of each class.
            These numbers are kept; for several folders they must agree.
        relabel: Labels in place of those found: file name -> label, or the path of a CSV with the columns `filename`
            and `label`. Images that it does not name keep their label; those with an empty label are passed over.
        like: A pack whose rows the output is to have, in their order, with their labels and columns: of pictures that
            these are the masks of, or the other pictures of pairs. The file of a row is the one with the same path
            below its SOURCE, extension aside; see `find.like`. Rows that have none are left out and listed.
        reuse: Copy rows from an existing output if the SHA-256 of the source file and all settings and versions that
            affect pixels are the same.
        workers: Number of worker processes. None: one per core.
        executor: An executor to use in place of worker processes. If it runs on other machines, they must share the
            file system.
        progress: A function that is called with (rows done, rows in all, rows left out). True: show a bar. False: show
            none. None: show one in a notebook.

    Raises:
        PackError: The arguments or sources cannot be packed. The message is one line that says why and what to do.
        UnfinishedError: Packing cannot go on for now, for example because the disk is full. The same call continues.
        OSError: A folder cannot be read.
    """
    started = time.monotonic()
    with one_root(), _opened_pool(workers, executor) as pool:
        check_names()
        with interrupts_held():  # an interrupt while a C library loads becomes an ImportError
            from pack_images.job import Job, make_plan
            from pack_images.options import settings_of
            from pack_images.output import output_path

        settings = settings_of(
            size,
            fit=fit,
            interpolation=interpolation,
            color=color,
            dtype=dtype,
            range=range,
            background=background,
            allow_truncated=allow_truncated,
            pages=pages,
            decoder=decoder,
            exact=exact,
            max_pixels=max_pixels,
            labels=labels,
            label_pattern=label_pattern,
            order=order,
            seed=seed,
            classes=classes,
            relabel=relabel,
            like=like,
        )
        path = output_path(output)
        plan = make_plan(
            _paths(sources),
            settings,
            manifests=_manifests(manifest),
            reader=reader,
            relabel=relabel,
            like=like,
            output=path,
        )
        with reporting(progress, "images") as report:
            return Job(path, plan, strict, reuse).run(pool, report, started)


def preview(
    sources: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    size: int | tuple[int, int] | None = None,
    fit: Fit = "stretch",
    interpolation: Interpolation | None = None,
    color: Color = "rgb",
    dtype: DType = "uint8",
    range: tuple[float, float] | None = None,  # noqa: A002 - the name of the option
    background: str | tuple[int, int, int] | None = None,
    allow_truncated: bool = False,
    pages: Pages = "first",
    decoder: Decoder | Callable[[bytes], Any] | str | None = None,
    labels: Labels | None = None,
    label_pattern: str | None = None,
    order: Order | None = None,
    seed: int | None = None,
    classes: str | os.PathLike[str] | Sequence[str] | None = None,
    manifest: Table | Sequence[Table] | None = (),
    reader: Reader | None = None,
    relabel: Relabel | None = None,
    like: str | os.PathLike[str] | None = None,
    output: str | os.PathLike[str] | None = None,
) -> Plan:
    """Return the plan that `pack` would follow with these arguments. Nothing is written.

    The arguments are those of `pack`. Without `output`, an existing output is not considered.

    Raises:
        PackError: As `pack` does.
        OSError: A folder cannot be read.
    """
    with one_root():
        check_can_pack()
        check_names()
        from pack_images.job import make_plan
        from pack_images.options import settings_of
        from pack_images.output import output_path

        settings = settings_of(
            size,
            fit=fit,
            interpolation=interpolation,
            color=color,
            dtype=dtype,
            range=range,
            background=background,
            allow_truncated=allow_truncated,
            pages=pages,
            decoder=decoder,
            labels=labels,
            label_pattern=label_pattern,
            order=order,
            seed=seed,
            classes=classes,
            relabel=relabel,
            like=like,
        )
        path = None if output is None else output_path(output)
        return make_plan(
            _paths(sources),
            settings,
            manifests=_manifests(manifest),
            reader=reader,
            relabel=relabel,
            like=like,
            output=path,
        )


def _opened_pool(workers: int | None, executor: Executor | None) -> AbstractContextManager[Pool]:
    """Open a pool of workers, after a check that they can work here."""
    check_can_pack()
    from pack_images.run.choose import open_pool

    return open_pool(workers, executor)


def _paths(sources: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> Sequence[str | os.PathLike[str]]:
    return [sources] if isinstance(sources, str | os.PathLike) else sources


def _manifests(given: Any) -> list[Manifest]:
    """Return the tables that `manifest` means: one or several of a `Manifest`, a path or a DataFrame, or none."""
    from pack_images.find.manifest import Manifest

    many = [] if given is None else given if isinstance(given, list | tuple) else [given]
    return [one if isinstance(one, Manifest) else Manifest(one) for one in many]
