"""CSV tables. The reader is strict, so that no row is lost without an error; the writer writes what the reader accepts.

A table has a heading and rows with the same number of fields, in UTF-8. Quoting follows RFC 4180: a quoted field begins
and ends with a quote, and a quote inside is written twice. A quote inside a field that does not begin with a quote is
an ordinary character. A `TableError` names the file and the line of each of these faults:

- a quote that is never closed, or text after a closing quote;
- a row with fewer fields than the heading, such as the last row of a file that was cut off. Columns at the end of the
  heading that have no name may be missing;
- a row with more fields than the heading. Empty fields at the end do not count;
- a NUL character at the end of a field, which fixed-length text cannot represent;
- UTF-16;
- in tables that people write: any NUL character; bytes that are not UTF-8, except in columns of file names; a space
  before an opening quote.

Blank lines are skipped. A field may have up to 2 GB.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import IO, TextIO

_MAX_FIELD = (1 << 31) - 1  # characters; the largest C long on systems where it has 32 bits
_READ_SIZE = 1 << 20  # characters
_NOT_UTF8 = re.compile("[\udc80-\udcff]")
# A space before an opening quote. The csv module takes such a quote as an ordinary character, and would split the
# field at a delimiter inside the quotes.
_SPACED_QUOTE = re.compile(r'[,;|\t\r\n] +"|^ +"')
_SAVE_AS = "in UTF-8 ('CSV UTF-8' in Excel)"
_MAX_SHOWN = 40  # characters of a field in a message
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


class TableError(ValueError):
    """The table has a fault, so that not every row can be read."""


class Table:
    """An open table: a heading, and rows that can be read once.

    Use `open_table` to create one.

    Args:
        path: The path as given.
        delimiter: The character between fields.
        heading: The first row.
        line: The number of the line after the heading. The first line of the file is 1.
        pieces: The text after the heading, in pieces that end at the ends of lines.

    Attributes:
        path: The path as given.
        heading: The names of the columns, as written.
    """

    def __init__(self, path: str, delimiter: str, heading: list[str], line: int, pieces: Iterable[str]) -> None:
        self.path = path
        self.heading = heading
        self._delimiter = delimiter
        self._line = line
        self._pieces = pieces
        # Whether every field must be checked. Most tables have no odd character anywhere and are read faster without.
        self._careful = any(_is_odd(name) for name in heading)

    def rows(self, bytes_in: Container[int] | None = None) -> Iterator[tuple[int, list[str]]]:
        """Yield each row: the number of the line where it begins, and its fields, as many as the heading has.

        Args:
            bytes_in: Indices of the columns that may contain bytes that are not UTF-8, because they are file names.
                Such bytes become surrogate escapes. None allows them in all columns and in the heading, as in a table
                that `write_table` wrote.

        Raises:
            TableError: The table has one of the faults that are listed above.
        """
        width = len(self.heading)
        if self._careful:
            self._check(1, self.heading, None if bytes_in is None else ())
        before, line = self._line, self._line
        lines = chain.from_iterable(self._opened_pieces())
        reader = csv.reader(lines, delimiter=self._delimiter, strict=True)
        try:
            for fields in reader:
                if len(fields) != width:
                    fields = self._same_length(line, fields)
                if fields:
                    if self._careful:
                        self._check(line, fields, bytes_in)
                    yield line, fields
                line = before + reader.line_num
        except csv.Error as error:
            raise self._error(line, _explanation(error)) from error

    def _opened_pieces(self) -> Iterator[io.StringIO]:
        """Yield each piece as a file of lines. First search the whole piece for odd characters: that is fast."""
        for piece in self._pieces:
            self._careful = self._careful or _is_odd(piece) or _SPACED_QUOTE.search(piece) is not None
            yield io.StringIO(piece, newline="")

    def _same_length(self, line: int, fields: list[str]) -> list[str]:
        """Make a row with another number of fields as long as the heading, if that is no fault; [] for a blank line."""
        width = len(self.heading)
        if len(fields) < 2 and not "".join(fields).strip():
            return []
        if len(fields) > width and not any(fields[width:]):
            return fields[:width]
        if len(fields) < width and not any(name.strip() for name in self.heading[len(fields) :]):
            return fields + [""] * (width - len(fields))
        found = f"expected {width} fields, as the heading has, found {len(fields)}"
        if len(fields) > width:
            raise self._error(line, f"{found}; put quotes around a field that has a delimiter in it")
        raise self._error(line, f"{found}; get the whole file if it was cut off, and write empty fields too")

    def _check(self, line: int, fields: Sequence[str], bytes_in: Container[int] | None) -> None:
        """Raise if a field of a row has a character that it must not have."""
        for at, field in enumerate(fields):
            if field.endswith("\0") or (bytes_in is not None and "\0" in field):
                raise self._error(
                    line,
                    f"expected text, found a NUL character in {_short(field)}; remove it, or save the table {_SAVE_AS}",
                )
            if bytes_in is None:
                continue
            if at not in bytes_in and _NOT_UTF8.search(field):
                raise self._error(line, f"expected text in UTF-8, found {_short(field)}; save the table {_SAVE_AS}")
            if field.startswith(" ") and field.lstrip(" ").startswith('"'):
                raise self._error(
                    line,
                    f"expected a quote right behind the delimiter, found {_short(field)}; remove the space before it",
                )

    def _error(self, line: int, text: str) -> TableError:
        return TableError(f"{self.path}, line {line}: {text}")


@contextmanager
def open_table(
    path: str | os.PathLike[str], delimiters: str = ",", accepts: Callable[[list[str]], bool] = bool
) -> Iterator[Table]:
    """Open a table and read its heading.

    Python's csv module has a limit for the length of a field, which holds for the whole process. The default is 131,072
    characters. This function raises the limit to 2 GB and does not restore it.

    Args:
        path: The path of the table.
        delimiters: The possible delimiters. The one that occurs most in the first line is tried first.
        accepts: A function that returns whether a heading is the right one. If it accepts none, the table is read with
            the delimiter that was tried first.

    Raises:
        OSError: The file cannot be read.
        TableError: The file is not text in UTF-8, or its heading has a fault.
    """
    csv.field_size_limit(max(_MAX_FIELD, csv.field_size_limit()))
    with open(path, "rb") as file:
        path = os.fspath(path)
        if file.peek(2)[:2] in _UTF16_MARKS:
            raise TableError(f"{path}, line 1: expected text in UTF-8, found UTF-16; save the table {_SAVE_AS}")
        text = io.TextIOWrapper(file, "utf-8-sig", "surrogateescape", newline="")
        lines: list[str] = []
        tried = []
        first = _line_at(lines, text, 0)
        for delimiter in sorted(delimiters, key=first.count, reverse=True):
            tried.append(_heading(path, lines, text, delimiter))
            if not isinstance(tried[-1][0], TableError) and accepts(tried[-1][0]):
                break
        else:
            delimiter, tried = max(delimiters, key=first.count), tried[:1]
        heading, used = tried[-1]
        if isinstance(heading, TableError):
            raise heading
        yield Table(path, delimiter, heading, used + 1, chain(["".join(lines[used:])], _pieces(text)))


def write_table(file: TextIO, header: Sequence[str], lines: Iterable[Sequence[str]]) -> None:
    """Write a CSV table that keeps every text unchanged, also bytes that are not UTF-8.

    Args:
        file: A text file from `h5split.writing.replace.written`.
        header: The names of the columns.
        lines: The rows, with one text for each column.
    """
    writer = csv.writer(file, lineterminator="\n")
    quoted = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for line in chain([header], lines):
        has_cr = "\r" in "".join(line)  # Python before 3.13 does not quote a field because of CR
        (quoted if has_cr else writer).writerow(line)


def _heading(path: str, lines: list[str], text: IO[str], delimiter: str) -> tuple[list[str] | TableError, int]:
    """The first row that is not blank, or its fault; and the number of lines up to its end.

    Args:
        path: The path, for messages.
        lines: The lines read so far. Lines read here are appended, so that another delimiter can be tried.
        text: The file, after these lines.
        delimiter: The delimiter to try.
    """

    def read() -> Iterator[str]:
        at = 0
        while line := _line_at(lines, text, at):
            at += 1
            yield line

    reader = csv.reader(read(), delimiter=delimiter, strict=True)
    try:
        return next((fields for fields in reader if fields), []), reader.line_num
    except csv.Error as error:
        return TableError(f"{path}, line 1: {_explanation(error)}"), 0


def _line_at(lines: list[str], text: IO[str], at: int) -> str:
    """Line number `at`, counted from 0. It is read from the file if it is not in `lines` yet; "" at the end."""
    if at == len(lines):
        lines.append(text.readline())
    return lines[at]


def _pieces(text: IO[str]) -> Iterator[str]:
    """Yield the rest of a text in pieces that end at the ends of lines."""
    while piece := text.read(_READ_SIZE):
        yield piece + text.readline()


def _is_odd(text: str) -> bool:
    """Whether the text has a character that is not allowed in every field: NUL, or a byte that is not UTF-8."""
    return "\0" in text or (not text.isascii() and _NOT_UTF8.search(text) is not None)


def _explanation(error: csv.Error) -> str:
    text = str(error)
    if "unexpected end" in text:
        return (
            "expected a closing quote, found none up to the end of the table; a quote within a field is written twice"
        )
    if "expected after" in text:
        return "expected the end of a field behind a closing quote, found more text; a quote within it is written twice"
    return f"expected a row of text ({text})"


def _short(field: str) -> str:
    """A field for a message, shortened if it is long."""
    return repr(field if len(field) <= _MAX_SHOWN else f"{field[:_MAX_SHOWN]}...")
