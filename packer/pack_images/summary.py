"""The report of a run: its progress while it packs, and its summary at the end."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from h5split.file.sealing import Tables
    from pack_images.settings import Shape

Progress = Callable[[int, int, int], object]  # called with (rows done, rows in all, rows left out)


@dataclass(frozen=True)
class Summary:
    """The result of a run.

    Attributes:
        output: Path of the file.
        rows: Number of images in it.
        shape: (H, W, C) of each image.
        classes: Class name -> number of images.
        skipped: (filename, reason) of each image left out.
        losses: (filename, text) of each picture that lost information, such as levels of 16 bits. Includes rows copied
            from packs.
        passed_over: (path, reason) of everything found that is not an image to pack.
        warnings: What the user should know, one line each: classes without images, images of classes that were not
            asked for, text columns that are mostly padding.
        duplicates: The filenames of each group of images whose files or pixels are identical. Groups with different
            labels come first, because they are labelling errors.
        conflicting: Number of groups with different labels.
        blank: Number of images of one colour that have the pixels of another. They are duplicates only if their files
            are identical.
        decoded: Number of images decoded by this run.
        copied: Number of rows copied from packs: from SOURCES that are packs, and from an earlier output.
        continued: Number of rows taken over from an interrupted run.
        restarted: Whether an interrupted run of another plan was found and discarded.
        nbytes: Size of the file in bytes.
        seconds: Duration of the run.
    """

    output: str
    rows: int
    shape: Shape
    classes: Mapping[str, int]
    skipped: Sequence[tuple[str, str]]
    losses: Sequence[tuple[str, str]]
    passed_over: Sequence[tuple[str, str]]
    warnings: Sequence[str]
    duplicates: Sequence[tuple[str, ...]]
    conflicting: int
    blank: int
    decoded: int
    copied: int
    continued: int
    restarted: bool
    nbytes: int
    seconds: float


def summary_of(
    tables: Tables,
    output: str,
    shape: Shape,
    *,
    seconds: float,
    passed_over: Sequence[tuple[str, str]] = (),
    warnings: Sequence[str] = (),
    decoded: int = 0,
    copied: int = 0,
    continued: int = 0,
    restarted: bool = False,
) -> Summary:
    """Return the summary of a pack that has just been written. The arguments are described at `Summary`.

    Args:
        tables: The tables of the pack.
        output: Path of the file.
        shape: (H, W, C) of each image.
        seconds: Duration of the run.
        passed_over: As in the summary; so are all that follow.
        warnings: As above.
        decoded: As above.
        copied: As above.
        continued: As above.
        restarted: As above.
    """
    import numpy as np

    from h5split.alike.content import content_of
    from h5split.file.images import PackedImages
    from h5split.file.losses import described
    from h5split.file.packs import Packs

    counts = np.bincount(tables.labels, minlength=len(tables.class_names)).tolist()
    content = content_of([(Packs([PackedImages(output)]), np.arange(len(tables.labels)))])
    mixed, plain = content.mixed(tables.labels)
    return Summary(
        output=output,
        rows=len(tables.filenames),
        shape=shape,
        classes=dict(zip(tables.class_names, counts, strict=True)),
        skipped=tables.skipped,
        losses=described(tables.losses, [tables.filenames[row] for row in tables.losses["rows"].tolist()]),
        passed_over=passed_over,
        warnings=warnings,
        duplicates=[tuple(sorted(tables.filenames[row] for row in group)) for group in (*mixed, *plain)],
        conflicting=len(mixed),
        blank=len(content.blank),
        decoded=decoded,
        copied=copied,
        continued=continued,
        restarted=restarted,
        nbytes=os.path.getsize(output),
        seconds=seconds,
    )
