r"""Read a manifest, a table of image files. It accepts the variants that people really write.

A manifest is a CSV file with a heading. It has a column of paths and a column of labels; other columns are kept. The
delimiter is the one of ``, ; | TAB`` that is most frequent in the heading and gives a column of paths. Windows paths
are allowed: ``\\`` becomes ``/``. Spaces around column names, paths and labels are removed. A table with a column of
file names (`name_column`) was written by a program, so all its texts are kept exactly.

Three variants are told from the table itself:

- A list without a heading, as Caltech and Places have it: a path and a label a line, with spaces, a tab, or one of the
  delimiters in between; or paths alone. Its first line names an image.
- Ids instead of paths: ``0a1b`` is ``0a1b.jpg`` in the folder of the table or `root`, or anywhere below it, but not in
  hidden folders and thumbnails.
- No column of labels: the rule for folders is used on the paths, if the user chose one.
"""

from __future__ import annotations

import csv
import io
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from h5split.errors import TableError
from h5split.system.places import url_advice
from h5split.writing.tables import Table, open_table
from pack_images.errors import PackError
from pack_images.find.labels import BY_FOLDERS, LabelRule
from pack_images.find.sources import EXTENSIONS, Sources, has_image_extension
from pack_images.foreign import is_ignored

PATH_COLUMNS = ("path", "filename", "filepath", "file", "image")
LABEL_COLUMNS = ("label", "class", "target", "category")

_DELIMITERS = ",;|\t"
_MAX_HEADING_SHOWN = 200  # characters in a message
_IMAGE_NAME = re.compile(r"\.(avif|bmp|gif|jp2|jpe?g|p[bgnp]m|png|tiff?|webp)([\s,;|]|$)", re.IGNORECASE)
_QUOTED = r'"(?:[^"]|"")*"'
# The path and the label in a line of a list, if there are quotes around the first, or around the second alone.
_QUOTED_PATH = re.compile(rf"({_QUOTED})(?:\s*[\s,;|]\s*(.+))?")
_QUOTED_LABEL = re.compile(rf'([^"].*?)\s*[\s,;|]\s*({_QUOTED})')
_FRAME = "the data frame"  # in messages
_EXACT_FLOATS = 2.0**53  # a float holds every whole number below it


@dataclass(frozen=True)
class Manifest:
    """A table of files, and how to read it.

    Attributes:
        path: The CSV file, or a pandas DataFrame.
        root: The folder that relative paths start from. None: the folder of the CSV file, or the working folder.
        strip_prefix: Leading folders to remove from the paths, because they do not exist on this disk.
        path_column: Heading of the column of paths. Several joined by `/`, such as `folder/image`, make a path of
            several columns. None: the first of `PATH_COLUMNS` that exists.
        label_column: Heading of the column of labels. None: the first of `LABEL_COLUMNS` that exists.
        name_column: Heading of the column of file names to store. None: store the paths.
        skip_unlabelled: Pass over rows with an empty label instead of refusing the table.
        encoding: Of the file, such as `cp1252`. None: UTF-8, or UTF-16 with a byte order mark.
    """

    path: str | os.PathLike[str] | Any
    root: str | os.PathLike[str] | None = None
    strip_prefix: str | os.PathLike[str] | None = None
    path_column: str | None = None
    label_column: str | None = None
    name_column: str | None = None
    skip_unlabelled: bool = False
    encoding: str | None = None

    def __post_init__(self) -> None:
        if not self._is_frame and not isinstance(self.path, str | os.PathLike):
            raise PackError(
                "manifest: expected the path of a CSV, a pandas DataFrame or a Manifest, found "
                f"{type(self.path).__name__}; pandas.DataFrame(...) makes a table of columns or rows"
            )
        for name in ("root", "strip_prefix", "path_column", "label_column", "name_column", "encoding"):
            given = getattr(self, name)
            if not isinstance(given, str | os.PathLike | None):
                raise PackError(f"{name}: expected text, found {given!r}; give {str(given)!r}")

    @property
    def name(self) -> str:
        """The path as text, for messages and the column `source`."""
        return _FRAME if self._is_frame else os.fspath(self.path)

    @property
    def start(self) -> str:
        """The folder that relative paths start from; "" for the working folder."""
        if self.root is not None:
            return os.fspath(self.root)
        return "" if self._is_frame else os.path.dirname(self.name)

    def read(self, rule: LabelRule = BY_FOLDERS, extensions: Collection[str] | None = EXTENSIONS) -> Sources:
        """Return the images of the table, in its order. The image files need not exist yet.

        Args:
            rule: Where labels come from if the table has no column of them.
            extensions: Of images, to find those that the table names without. None: every file is one.

        Raises:
            PackError: The table does not exist, lacks a column, or has an invalid line.
        """
        try:
            with self._open() as table:
                return _Reading(self, rule, table, extensions).read()
        except (FileNotFoundError, IsADirectoryError):
            advice = url_advice(self.name) or "found none there"
            raise PackError(f"{self.name}: expected a manifest, a CSV of paths and labels, {advice}") from None
        except TableError as error:
            is_of_encoding = "in UTF-8" in str(error) and not self.encoding and not self._is_frame
            advice = ", or give its --encoding, such as cp1252" if is_of_encoding else ""
            raise PackError(f"{error}{advice}") from error

    @property
    def _is_frame(self) -> bool:
        return hasattr(self.path, "to_csv") and hasattr(self.path, "columns")

    def _open(self) -> AbstractContextManager[Table]:
        if self._is_frame:
            return open_table(self.name, ",", file=io.BytesIO(_csv_of(self.path)))
        return open_table(self.name, _DELIMITERS, self._has_paths, encoding=self.encoding)

    def _has_paths(self, heading: Sequence[str]) -> bool:
        return bool(_find_columns([self.stripped(name) for name in heading], self.path_column, PATH_COLUMNS))

    def stripped(self, text: str) -> str:
        """Return a text of the table without spaces around it, unless a program wrote the table."""
        return text.strip() if self.name_column is None else text


class _Reading:
    """One reading of a manifest.

    Args:
        manifest: What is read.
        rule: Where labels come from if the table has no column of them.
        table: The open table.
        extensions: Of images; None for any.
    """

    def __init__(
        self, manifest: Manifest, rule: LabelRule, table: Table, extensions: Collection[str] | None = EXTENSIONS
    ) -> None:
        self._manifest = manifest
        self._rule = rule
        self._table = table
        self._found = Sources()
        self._files = _Files(manifest, extensions)
        self._has_labels = False
        self._same: dict[str, str] = {}  # keeps one object per distinct text, to save memory

    def read(self) -> Sources:
        """Return all its images."""
        heading = [self._manifest.stripped(name) for name in self._table.heading]
        if self._is_list(heading):
            self._read_list()
        else:
            self._read_columns(heading)
        self._found.columns["source"].extend([self._manifest.name] * len(self._found))
        if self._has_labels:
            self._found.labelled.append(self._manifest.name)
        return self._found

    def _is_list(self, heading: Sequence[str]) -> bool:
        """Whether there is no heading: the first line names an image, and no column has the name of one of paths."""
        given = self._manifest
        if given.path_column or given.name_column or _find_columns(heading, None, PATH_COLUMNS):
            return False
        return _IMAGE_NAME.search(" ".join(heading)) is not None

    def _read_list(self) -> None:
        is_labelled = None
        for line, text in self._table.lines():
            path, label = (self._unquoted(line, field) for field in _list_fields(text))
            if is_labelled is None:
                is_labelled = bool(label)
            if is_labelled != bool(label):
                self._refuse(line, "a path and a label" if is_labelled else "a path alone", repr(text.strip()))
            if not is_labelled and not self._rule.is_explicit:
                self._refuse(
                    line, "a path and a label", repr(text.strip()), "; --labels parent takes the folder, none no labels"
                )
            self._add(line, path, label or None)

    def _unquoted(self, line: int, field: str) -> str:
        if not field.startswith('"'):
            return field
        if not re.fullmatch(_QUOTED, field):
            self._refuse(line, "one quoted field", repr(field), "; a quote within a field is written twice")
        return field[1:-1].replace('""', '"')

    def _read_columns(self, heading: list[str]) -> None:
        given = self._manifest
        self._check_names(heading)
        paths_at = self._columns(heading, given.path_column, PATH_COLUMNS, "--path-column")
        label_at = self._label_column(heading)
        name_at = (
            None if given.name_column is None else self._columns(heading, given.name_column, (), "--name-column")[0]
        )
        kept = self._other_columns(heading, {*paths_at, label_at, name_at})
        self._found.columns.update({name: [] for name in kept})
        columns = [(at, self._found.columns[name]) for name, at in kept.items()]
        for line, fields in self._table.rows(None if given.name_column is not None else {*paths_at}):
            if fields == self._table.heading:
                self._refuse(line, "a row", "the heading again", "; remove it where tables were put together")
            path = self._joined(line, [given.stripped(fields[at]) for at in paths_at])
            label = None if label_at is None else given.stripped(fields[label_at])
            if self._add(line, path, label, None if name_at is None else fields[name_at]):
                for at, column in columns:
                    text = fields[at]
                    column.append(self._same.setdefault(text, text))

    def _joined(self, line: int, parts: Sequence[str]) -> str:
        """The path that folders and a name make. An empty folder adds nothing."""
        *folders, name = parts
        if not name:
            self._refuse(line, "a path", "none")
        return "/".join([*filter(None, folders), name])

    def _add(self, line: int, path: str, label: str | None, name: str | None = None) -> bool:
        """Add an image, and return True; pass over one without a label if the user wants that.

        Args:
            line: Where it stands in the table.
            path: As it stands there.
            label: None if the table has no labels.
            name: To store in place of the path.
        """
        if not path.strip("/"):
            self._refuse(line, "a path", "none")
        place = self._files.place(line, path)
        self._has_labels = label is not None
        if label is None:
            label = self._label_of(line, place)
        elif not label and self._manifest.skip_unlabelled:
            self._found.passed_over.append((place, "no label"))
            return False
        elif not label:
            self._refuse(line, "a label", "none", "; --skip-unlabelled passes over such rows")
        if name is not None and not name:
            self._refuse(line, "a name", "none", "; every row keeps a name to be found by")
        self._found.filenames.append(place if name is None else name)
        self._found.paths.append(place)
        self._found.labels.append(self._same.setdefault(label, label))
        return True

    def _label_of(self, line: int, place: str) -> str:
        """The label that the rule for folders gives to a path below the root."""
        root = self._manifest.start
        *below, name = os.path.relpath(place, root or ".").split("/")
        needs_folder = self._rule.pattern is None and self._rule.labels in ("subfolder", "path")
        if needs_folder and (not below or below[0] == ".."):
            self._refuse(line, f"a path with a folder below {root or '.'}, for --labels {self._rule.labels}", place)
        return self._rule.labels_of(root or ".", below, [name])[0]

    def _label_column(self, heading: Sequence[str]) -> int | None:
        """The column of labels; None if folders give them, or nothing does: then all columns are kept."""
        asked = self._manifest.label_column
        if self._rule.labels == "none":
            if asked is not None:
                self._columns(heading, asked, LABEL_COLUMNS, "--label-column")  # for its check
            return None
        found = _find_columns(heading, asked, LABEL_COLUMNS)
        if not found and asked is None and self._rule.is_explicit:
            return None
        advice = ", --labels parent takes the folder of each image, --labels none no labels" if asked is None else ""
        return (found or self._columns(heading, asked, LABEL_COLUMNS, "--label-column", advice))[0]

    def _columns(
        self, heading: Sequence[str], asked: str | None, known: Sequence[str], option: str, advice: str = ""
    ) -> list[int]:
        if found := _find_columns(heading, asked, known):
            return found
        wanted = asked or f"one of {', '.join(known)}"
        there = ", ".join(heading)[:_MAX_HEADING_SHOWN] or "nothing"
        name = self._manifest.name
        if _IMAGE_NAME.search(there):
            raise PackError(
                f"{name}, line 1: expected a heading such as path,label, found a row, {there!r}; write one as the "
                f"first line, and one of {' '.join(_DELIMITERS.strip())} or a tab between fields"
            )
        raise PackError(f"{name}: expected a column {wanted}, found {there}; {option} names it{advice}")

    def _check_names(self, heading: Sequence[str]) -> None:
        """Raise if two columns have the same name, unless a program wrote the table and means the first of them."""
        twice = next((name for name, count in Counter(heading).items() if name and count > 1), None)
        if twice is not None and self._manifest.name_column is None:
            raise self._named_twice(twice)

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
                raise self._named_twice(name)
            kept[name] = at
        return kept

    def _named_twice(self, name: str) -> PackError:
        return PackError(
            f"{self._manifest.name}: expected columns of different names, found {name!r} twice; rename one"
        )

    def _refuse(self, line: int, expected: str, found: str, advice: str = "") -> None:
        raise PackError(f"{self._manifest.name}, line {line}: expected {expected}, found {found}{advice}")


class _Files:
    """Where the files of a manifest are.

    Args:
        manifest: Says where its paths start.
        extensions: Of images; None for any.
    """

    def __init__(self, manifest: Manifest, extensions: Collection[str] | None) -> None:
        prefix = manifest.strip_prefix
        self._name = manifest.name
        self._prefix = None if prefix is None else os.fspath(prefix).replace("\\", "/").rstrip("/") + "/"
        self._root = manifest.start
        self._start = self._root if not self._root or self._root.endswith("/") else f"{self._root}/"
        self._by_id: dict[str, list[str]] | None = None
        self._extensions = extensions

    def place(self, line: int, path: str) -> str:
        """Return the path that this process can open, whether there is such a file or not.

        Raises:
            PackError: It is an id that several files have.
        """
        path = path.replace("\\", "/")
        if self._prefix is not None:
            path = path.removeprefix(self._prefix)
        place = path if path.startswith("/") else self._start + path
        if has_image_extension(place, self._extensions or EXTENSIONS):
            return place if place.isascii() or os.path.exists(place) else _other_form(place)
        if os.path.isfile(place):
            return place
        found = self._of_id(path)
        if len(found) > 1:
            raise PackError(
                f"{self._name}, line {line}: expected one file {path}.*, found {found[0]} and {found[1]}; "
                "write paths with their extension"
            )
        return found[0] if found else place

    def _of_id(self, path: str) -> list[str]:
        """Images below the root whose path without extension ends with `path`; those nearest to the root alone."""
        if self._by_id is None:
            self._by_id = {}
            for image in _images_below(self._root or ".", self._extensions):
                stem = image.rpartition(".")[0]
                self._by_id.setdefault(stem.rpartition("/")[2], []).append(image)
        found = [image for image in self._by_id.get(path.rpartition("/")[2], ()) if _is_named(image, path)]
        nearest = min((image.count("/") for image in found), default=0)
        return [image for image in found if image.count("/") == nearest]


def _csv_of(frame: Any) -> bytes:
    """Return a pandas DataFrame as a CSV in UTF-8.

    pandas makes floats of whole numbers if some are missing. So floats that are all whole are written as whole numbers.
    """
    written = frame.copy(deep=False)
    for at in range(frame.shape[1]):
        column = frame.iloc[:, at]
        values = getattr(column.dtype, "categories", column)  # of a categorical column, what its categories are
        if values.dtype.kind == "f" and _are_whole(np.asarray(values.dropna(), np.float64)):
            written.isetitem(at, column.astype(values.dtype).astype("Int64"))
    text: str = written.to_csv(index=False, quoting=csv.QUOTE_ALL)  # pandas does not quote a carriage return by itself
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise PackError(
            f"{_FRAME}: expected text, found half a surrogate pair ({error.reason}); give it another name"
        ) from None


def _are_whole(numbers: NDArray[np.float64]) -> bool:
    return bool(np.all((numbers == np.floor(numbers)) & (np.abs(numbers) < _EXACT_FLOATS)))


def _images_below(root: str, extensions: Collection[str] | None) -> Iterator[str]:
    """All images below a folder that a scan would find, in a fixed order."""
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not is_ignored(name))
        prefix = "" if folder == "." else f"{folder.removeprefix('./').rstrip('/')}/"
        kept = (name for name in sorted(names) if has_image_extension(name, extensions) and not is_ignored(name))
        yield from (prefix + name for name in kept)


def _is_named(image: str, path: str) -> bool:
    """Whether the path of an image, without its extension, is `path` or, if that is relative, ends with it."""
    stem = image.rpartition(".")[0]
    if path.startswith("/"):
        return os.path.abspath(stem) == os.path.normpath(path)
    return f"/{stem}".endswith(f"/{path}")


def _other_form(place: str) -> str:
    """A path in the Unicode normal form in which it is there; as given if it is there in none."""
    forms = (unicodedata.normalize(form, place) for form in ("NFC", "NFD"))
    return next((form for form in forms if os.path.exists(form)), place)


def _list_fields(text: str) -> tuple[str, str]:
    """The path and the label in a line of a list without a heading; the label is "" if there is none.

    A field may have quotes around it, as in a table.
    """
    text = text.strip()
    quoted = _QUOTED_PATH.fullmatch(text) or _QUOTED_LABEL.fullmatch(text)
    if quoted is not None and has_image_extension(quoted[1].strip('"')):
        return quoted[1], quoted[2] or ""
    if has_image_extension(text):
        return text, ""
    for delimiter in "\t,;|":
        path, found, label = text.rpartition(delimiter)
        if found and has_image_extension(path.strip()):
            return path.strip(), label.strip()
    path, _, label = text.rpartition(" ")
    return (path.strip(), label) if has_image_extension(path.strip()) else (text, "")


def _find_columns(heading: Sequence[str], asked: str | None, known: Sequence[str]) -> list[int]:
    """Return the index of the column `asked`, or else of the first name in `known` that exists, ignoring case.

    If there is no column `asked`, and it is several names joined by `/`, return the indices of all of them; an empty
    list if there is none.
    """
    if asked is None:
        lowered = [name.lower() for name in heading]
        return next(([lowered.index(name)] for name in known if name in lowered), [])
    if asked in heading:
        return [heading.index(asked)]
    names = asked.split("/")
    return [heading.index(name) for name in names] if set(names) <= set(heading) else []
