"""The report of a run: its progress while it packs, and its summary at the end."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from h5split.system.text import SHOWN, class_lines, count, dimensions, duplicates_line, shown

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
        scaled: Whether `range` scaled the samples of deep pictures to 8 bits.
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
    scaled: bool
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

    def __str__(self) -> str:
        """The lines that the command prints."""
        rate = (self.decoded + self.copied) / max(self.seconds, 1e-9)
        lines = [
            f"{self.output}: {count(self.rows, 'image')}, {dimensions(self.shape)}, "
            f"{self.nbytes / 1e6:,.1f} MB, in {self.seconds:.1f} s ({rate:,.0f} images/s)",
            *class_lines(self.classes),
        ]
        if self.restarted:
            lines.append("an interrupted run with other files or settings was found here; it was given up")
        if self.continued:
            lines.append(f"continued an interrupted run: {self.continued:,} images were done already")
        if self.copied:
            lines.append(f"copied from packs: {self.copied:,}; decoded: {self.decoded:,}")
        return "\n".join([*lines, *self._duplicate_lines(), *self._left_out_lines(), *self._loss_lines()])

    def _repr_html_(self) -> str:
        """What a notebook shows of it: the lines that the command prints, also those about warnings."""
        from h5split.notebook.card import preformatted  # here, as only notebooks need it

        more = len(self.warnings) - SHOWN
        warnings = [*self.warnings[:SHOWN], *([f"and {more:,} more warnings"] if more > 0 else [])]
        return preformatted("\n".join([str(self), *warnings]))

    def _duplicate_lines(self) -> list[str]:
        lines = []
        if self.duplicates:
            lines.append(duplicates_line(self.duplicates, self.conflicting))
            lines.extend(f"  {', '.join(map(shown, group[:3]))}" for group in self.duplicates[: self.conflicting][:3])
        if self.blank:
            lines.append(f"blank: {count(self.blank, 'image')} of one colour, alike in pixels")
        return lines

    def _left_out_lines(self) -> list[str]:
        if not self.skipped:
            return []
        lines = [f"left out: {len(self.skipped):,}"]
        lines.extend(f"  {shown(name)}: {shown(reason)}" for name, reason in self.skipped[:SHOWN])
        if len(self.skipped) > SHOWN:
            lines.append(
                f"  ... and {len(self.skipped) - SHOWN:,} more: h5split.PackedImages({self.output!r}).skipped lists all"
            )
        return lines

    def _loss_lines(self) -> list[str]:
        if not self.losses:
            return []
        from h5split.file.losses import loss_lines  # here, because it loads numpy, which `--help` does not need

        return loss_lines(self.losses, scaled=self.scaled)


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
        scaled="range" in tables.settings,
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
