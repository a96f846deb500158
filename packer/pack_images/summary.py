"""What a run tells while it packs, and in the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pack_images.settings import Shape

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
        losses: (filename, text) of what pictures lost, such as levels of 16 bits; rows copied from packs included.
        passed_over: (path, reason) of what was found beside images.
        warnings: What a user should know, a line each: classes without images, images that are not of the classes asked
            for, texts that take much more room than they have.
        duplicates: The filenames of each group of identical files; groups with different labels come first: they are
            labelling errors.
        conflicting: How many of the groups have different labels.
        decoded: Images decoded by this run.
        copied: Rows copied from packs: from SOURCES that are packs, and from the output that was there before.
        continued: Rows taken over from an interrupted run.
        restarted: Whether an interrupted run of another plan was found, and given up.
        nbytes: Size of the file.
        seconds: It took.
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
