"""How an image gets its class name from the place where it lies."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from h5split.file.classes import UNLABELLED
from pack_images.errors import PackError
from pack_images.settings import LABELS, Labels


@dataclass(frozen=True)
class LabelRule:
    """Where class names come from.

    Attributes:
        labels: `subfolder`: the first folder below SOURCE. `parent`: the folder that holds the image. `path`: all
            folders below SOURCE, joined by `/`. `root`: SOURCE's own name. `none`: every image is of the one class
            `unlabelled`. `auto`: `root` for a SOURCE that holds images directly, else `subfolder`.
        pattern: A regular expression, searched for in the path below SOURCE. Its first group is the class name.

    Raises:
        PackError: One of them is invalid, or both are given.
    """

    labels: Labels = "auto"
    pattern: str | None = None

    def __post_init__(self) -> None:
        if self.labels not in LABELS:
            raise PackError(f"labels: expected one of {', '.join(LABELS)}, found {self.labels!r}")
        if self.pattern is None:
            return
        if not isinstance(self.pattern, str):
            raise PackError(
                f"--label-pattern: expected a regular expression as text, found {type(self.pattern).__name__}; give "
                "its text, with flags in front such as (?i)"
            )
        if self.labels != "auto":
            raise PackError(f"--label-pattern: expected no other rule, found --labels {self.labels}; give one of them")
        if not self._expression.groups:
            raise PackError(
                f"--label-pattern {self.pattern}: expected a group for the class name, as in (cat|dog), found none"
            )

    @property
    def is_explicit(self) -> bool:
        """Whether the user chose a rule."""
        return self.labels != "auto" or self.pattern is not None

    @property
    def option(self) -> str:
        """The option that chose it."""
        return f"--labels {self.labels}" if self.pattern is None else f"--label-pattern {self.pattern}"

    def labels_of(self, root: str, below: Sequence[str], names: Sequence[str]) -> list[str]:
        """Return the class name of each file in a folder.

        Args:
            root: The SOURCE.
            below: Names of the folders on the way from it.
            names: Names of the files.

        Raises:
            PackError: The pattern does not match.
        """
        if self.pattern is not None:
            return [self._matched(root, "/".join((*below, name))) for name in names]
        return [self._label(root, below)] * len(names)

    @cached_property
    def _expression(self) -> re.Pattern[str]:
        try:
            return re.compile(self.pattern or "")
        except re.error as error:
            raise PackError(f"--label-pattern {self.pattern}: expected a regular expression ({error})") from None

    def _matched(self, root: str, path: str) -> str:
        found = self._expression.search(path)
        if found is None or not found[1]:
            raise PackError(
                f"{root}/{path}: expected a class name in {path!r} by --label-pattern {self.pattern}, found none; "
                "change the pattern so that it matches every image"
            )
        return found[1]

    def _label(self, root: str, below: Sequence[str]) -> str:
        if self.labels == "none":
            return UNLABELLED
        if self.labels == "root" or not below:
            return folder_name(root)
        return {"parent": below[-1], "path": "/".join(below)}.get(self.labels, below[0])


BY_FOLDERS = LabelRule()  # the rule unless the user chooses another


def folder_name(root: str) -> str:
    """Return the name of a folder, which may be given as `.`."""
    return os.path.basename(os.path.abspath(root)) or "/"
