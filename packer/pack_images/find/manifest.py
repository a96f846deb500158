r"""A table of files -> the images in it, as people really write such tables.

A manifest is a CSV with a heading: a column of paths, a column of labels, and others, which are kept. The delimiter is
the one of ``, ; | TAB`` that the heading has most of and that finds a column of paths. Paths may be written the Windows
way: ``\\`` becomes ``/``. Spaces around names of columns, paths and labels do not count; only where the table has file
names of its own (`name_column`), as one that a program wrote, all texts are kept as they are.
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
_SHOWN = 200  # characters of a heading
_IMAGE = re.compile(r"\.(avif|bmp|gif|jp2|jpe?g|p[bgnp]m|png|tiff?|webp)([\s,;|]|$)", re.IGNORECASE)


@dataclass(frozen=True)
class Manifest:
    """A table of files, and how to read it.

    Attributes:
        path: The CSV.
        root: The folder that relative paths start from; the CSV's own when None.
        strip_prefix: Folders that paths begin with and that are not on this disk.
        path_column: The heading of the paths; one of `PATH_COLUMNS` when None.
        label_column: The heading of the labels; one of `LABEL_COLUMNS` when None.
        name_column: The heading of the file names to store in place of the paths; None: the paths.
        skip_unlabelled: Pass over rows with an empty label, rather than refuse them.
    """

    path: str
    root: str | None = None
    strip_prefix: str | None = None
    path_column: str | None = None
    label_column: str | None = None
    name_column: str | None = None
    skip_unlabelled: bool = False

    def read(self) -> Sources:
        """The images of the table, in its order. Whether the files are there is found out when they are read.

        Raises:
            PackError: The table is not there, has no such columns, or a line of it makes no sense.
        """
        try:
            with open_table(self.path, _DELIMITERS, self._has_paths) as table:
                return self._read(table)
        except (FileNotFoundError, IsADirectoryError):
            raise PackError(f"{self.path}: expected a manifest, a CSV of paths and labels, found none there") from None
        except TableError as error:
            raise PackError(str(error)) from error

    def _has_paths(self, heading: Sequence[str]) -> bool:
        return _find([self._bare(name) for name in heading], self.path_column, PATH_COLUMNS) is not None

    def _read(self, table: Table) -> Sources:
        heading = [self._bare(name) for name in table.heading]
        self._check_names(heading)
        path_at = self._column(heading, self.path_column, PATH_COLUMNS, "--path-column")
        label_at = self._column(heading, self.label_column, LABEL_COLUMNS, "--label-column")
        name_at = None if self.name_column is None else self._column(heading, self.name_column, (), "--name-column")
        kept = self._kept(heading, {path_at, label_at, name_at})
        found = Sources(columns={"source": [], **{name: [] for name in kept}})
        columns = [(at, found.columns[name]) for name, at in kept.items()]
        same: dict[str, str] = {}  # one object for equal texts, of which a table has many
        place_of = self._places()
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

    def _bare(self, text: str) -> str:
        return text.strip() if self.name_column is None else text

    def _column(self, heading: Sequence[str], asked: str | None, known: Sequence[str], option: str) -> int:
        at = _find(heading, asked, known)
        if at is not None:
            return at
        wanted = asked or f"one of {', '.join(known)}"
        found = ", ".join(heading)[:_SHOWN] or "nothing"
        if _IMAGE.search(found):
            raise PackError(
                f"{self.path}, line 1: expected a heading such as path,label, found a row, {found!r}; write one as the "
                f"first line, and one of {' '.join(_DELIMITERS.strip())} or a tab between fields"
            )
        raise PackError(f"{self.path}: expected a column {wanted}, found {found}; {option} names it")

    def _check_names(self, heading: Sequence[str]) -> None:
        """Refuse two columns of one name, unless a program wrote them: it knows which comes first."""
        twice = next((name for name, count in Counter(heading).items() if name and count > 1), None)
        if twice is not None and self.name_column is None:
            raise PackError(f"{self.path}: expected columns of different names, found {twice!r} twice; rename one")

    def _kept(self, heading: Sequence[str], taken: set[int | None]) -> dict[str, int]:
        """Every other column by the name it will have. `source` is taken, and a name is wanted."""
        kept: dict[str, int] = {}
        for at, given in enumerate(heading):
            if at in taken:
                continue
            name = {"": f"column_{at + 1}", "source": "manifest_source"}.get(given, given)
            if name in kept:
                raise PackError(f"{self.path}: expected columns of different names, found {name!r} twice; rename one")
            kept[name] = at
        return kept

    def _places(self) -> Callable[[str], str]:
        """The file that a path in the table means, from where this process stands."""
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


def _find(heading: Sequence[str], asked: str | None, known: Sequence[str]) -> int | None:
    """Where the column that is asked for is, or else the first of those known, in capitals or not."""
    if asked is not None:
        return heading.index(asked) if asked in heading else None
    lowered = [name.lower() for name in heading]
    return next((lowered.index(name) for name in known if name in lowered), None)
