"""The report of a run: its progress while it packs, and its summary at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
        duplicates: The filenames of each group of identical files. Groups with different labels come first, because
            they are labelling errors.
        conflicting: Number of groups with different labels.
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
    decoded: int
    copied: int
    continued: int
    restarted: bool
    nbytes: int
    seconds: float
