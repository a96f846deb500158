r"""Read a manifest, a table of image files. It accepts the variants that people really write.

A manifest is a CSV file with a heading. It has a column of paths and a column of labels; other columns are kept. The
delimiter is the one of ``, ; | TAB`` that is most frequent in the heading and gives a column of paths. Windows paths
are allowed: ``\\`` becomes ``/``. Spaces around column names, paths and labels are removed. A table with a column of
file names (`name_column`) was written by a program, so all its texts are kept exactly.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from h5split.errors import TableError
from h5split.writing.tables import Table, open_table
from pack_images.errors import PackError
from pack_images.find.sources import Sources

PATH_COLUMNS = ("path", "filename", "filepath", "file", "image")
LABEL_COLUMNS = ("label", "class", "target", "category")

_DELIMITERS = ",;|\t"
_MAX_HEADING_SHOWN = 200  # characters in a message
_IMAGE_NAME = re.compile(r"\.(avif|bmp|gif|jp2|jpe?g|p[bgnp]m|png|tiff?|webp)([\s,;|]|$)", re.IGNORECASE)


@dataclass(frozen=True)
class Manifest:
    """A table of files, and how to read it.

    Attributes:
        path: The CSV file.
        root: The folder that relative paths start from. None: the folder of the CSV file.
        strip_prefix: Leading folders to remove from the paths, because they do not exist on this disk.
        path_column: Heading of the column of paths. None: the first of `PATH_COLUMNS` that exists.
        label_column: Heading of the column of labels. None: the first of `LABEL_COLUMNS` that exists.
        name_column: Heading of the column of file names to store. None: store the paths.
        skip_unlabelled: Pass over rows with an empty label instead of refusing the table.
    """

    path: str
    root: str | None = None
    strip_prefix: str | None = None
    path_column: str | None = None
    label_column: str | None = None
    name_column: str | None = None
    skip_unlabelled: bool = False

    def read(self) -> Sources:
        """Return the images of the table, in its order. The image files need not exist yet.

        Raises:
            PackError: The table does not exist, lacks a column, or has an invalid line.
        """
        try:
            with open_table(self.path, _DELIMITERS, self._has_paths) as table:
                return self._read(table)
        except (FileNotFoundError, IsADirectoryError):
            raise PackError(f"{self.path}: expected a manifest, a CSV of paths and labels, found none there") from None
        except TableError as error:
            raise PackError(str(error)) from error

    def _has_paths(self, heading: Sequence[str]) -> bool:
        return _find_column([self._stripped(name) for name in heading], self.path_column, PATH_COLUMNS) is not None

    def _read(self, table: Table) -> Sources:
        heading = [self._stripped(name) for name in table.heading]
        self._check_names(heading)
        path_at = self._column_index(heading, self.path_column, PATH_COLUMNS, "--path-column")
        label_at = self._column_index(heading, self.label_column, LABEL_COLUMNS, "--label-column")
        name_at = (
            None if self.name_column is None else self._column_index(heading, self.name_column, (), "--name-column")
        )
        kept = self._other_columns(heading, {path_at, label_at, name_at})
        found = Sources(columns={"source": [], **{name: [] for name in kept}})
        columns = [(at, found.columns[name]) for name, at in kept.items()]
        same: dict[str, str] = {}  # keeps one object per distinct text, to save memory
        place_of = self._path_resolver()
        as_is = self.name_column is not None
        for line, fields in table.rows(None if as_is else {path_at}):
            path, label = fields[path_at], fields[label_at]
            if not as_is:
                path, label = path.strip(), label.strip()
            if not path:
                self._refuse(line, "a path", "none")
            if fields == table.heading:
                self._refuse(line, "a row", "the heading again", "; remove it where tables were put together")
            place = place_of(path)
            if not label and self.skip_unlabelled:
                found.passed_over.append((place, "no label"))
                continue
            if not label:
                self._refuse(line, "a label", "none", "; --skip-unlabelled passes over such rows")
            found.filenames.append(place if name_at is None else fields[name_at])
            found.paths.append(place)
            found.labels.append(same.setdefault(label, label))
            for at, column in columns:
                text = fields[at]
                column.append(same.setdefault(text, text))
        found.columns["source"].extend([self.path] * len(found))
        return found

    def _stripped(self, text: str) -> str:
        return text.strip() if self.name_column is None else text

    def _column_index(self, heading: Sequence[str], asked: str | None, known: Sequence[str], option: str) -> int:
        at = _find_column(heading, asked, known)
        if at is not None:
            return at
        wanted = asked or f"one of {', '.join(known)}"
        found = ", ".join(heading)[:_MAX_HEADING_SHOWN] or "nothing"
        if _IMAGE_NAME.search(found):
            raise PackError(
                f"{self.path}, line 1: expected a heading such as path,label, found a row, {found!r}; write one as the "
                f"first line, and one of {' '.join(_DELIMITERS.strip())} or a tab between fields"
            )
        raise PackError(f"{self.path}: expected a column {wanted}, found {found}; {option} names it")

    def _check_names(self, heading: Sequence[str]) -> None:
        """Raise if two columns have the same name, unless a program wrote the table and means the first of them."""
        twice = next((name for name, count in Counter(heading).items() if name and count > 1), None)
        if twice is not None and self.name_column is None:
            raise PackError(f"{self.path}: expected columns of different names, found {twice!r} twice; rename one")

    def _other_columns(self, heading: Sequence[str], taken: set[int | None]) -> dict[str, int]:
        """Return name -> index of the columns to keep, apart from those in `taken`.

        A column without a name gets one. A column `source` is renamed, because the pack has its own `source` column.
        """
        kept: dict[str, int] = {}
        for at, given in enumerate(heading):
            if at in taken:
                continue
            name = {"": f"column_{at + 1}", "source": "manifest_source"}.get(given, given)
            if name in kept:
                raise PackError(f"{self.path}: expected columns of different names, found {name!r} twice; rename one")
            kept[name] = at
        return kept

    def _path_resolver(self) -> Callable[[str], str]:
        """Return a function that turns a path in the table into a path that this process can open."""
        prefix = None if self.strip_prefix is None else self.strip_prefix.replace("\\", "/").rstrip("/") + "/"
        root = os.path.dirname(self.path) if self.root is None else self.root
        start = root if not root or root.endswith("/") else f"{root}/"

        def place(path: str) -> str:
            path = path.replace("\\", "/")
            if prefix is not None:
                path = path.removeprefix(prefix)
            return path if path.startswith("/") else start + path

        return place

    def _refuse(self, line: int, expected: str, found: str, advice: str = "") -> None:
        raise PackError(f"{self.path}, line {line}: expected {expected}, found {found}{advice}")


def _find_column(heading: Sequence[str], asked: str | None, known: Sequence[str]) -> int | None:
    """Return the index of the column `asked`, or else of the first name in `known` that exists, ignoring case."""
    if asked is not None:
        return heading.index(asked) if asked in heading else None
    lowered = [name.lower() for name in heading]
    return next((lowered.index(name) for name in known if name in lowered), None)
