"""Tables of text: CSV files, read so strictly that no row can get lost, and written so that they are read again.

A table is a heading and rows of as many fields, in UTF-8 unless it says otherwise. Quotes are as RFC 4180 has them: a
field that begins with a quote ends with one, and a quote within it is written twice; a quote inside a field that does
not begin with one is a character like any other. A `TableError` names the file and the line of

- a quote that is never closed, or text after a closing quote;
- a row of fewer fields than the heading, as where a file was cut off (columns without a name at the end of the heading
  may be missing), or of more (empty ones at its end do not count);
- a NUL character at the end of a field, which fixed-length text cannot have;
- in a table that people write: any NUL character, bytes that are not UTF-8, unless they are names of files, and a space
  before an opening quote.

Lines that are blank are passed over. Fields may be of any length, up to 2 GB.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import IO, BinaryIO, TextIO

from h5split.errors import TableError

_LONGEST_FIELD = (1 << 31) - 1  # characters; a C long is no longer everywhere
_READ_SIZE = 1 << 20  # characters
_NOT_UTF8 = re.compile("[\udc80-\udcff]")
_SPACED_QUOTE = re.compile(r'[,;|\t\r\n] +"|^ +"')
_AS = "in UTF-8 ('CSV UTF-8' in Excel)"
_SHOWN = 40  # characters of a field
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


class Table:
    """A table that is open: a heading, and rows that can be read once.

    `open_table` makes it.

    Args:
        path: As given.
        delimiter: Between fields.
        heading: The first row.
        line: The line behind it; lines count from 1.
        pieces: The rest of the text, in pieces that end where lines do.
        first_lines: The lines that the heading takes.

    Attributes:
        path: As given.
        heading: The names of the columns, as written.
    """

    def __init__(
        self,
        path: str,
        delimiter: str,
        heading: list[str],
        line: int,
        pieces: Iterable[str],
        first_lines: Sequence[str] = (),
    ) -> None:
        self.path = path
        self.heading = heading
        self._delimiter = delimiter
        self._line = line
        self._pieces = pieces
        self._first_lines = first_lines
        self._careful = any(_is_odd(name) for name in heading)

    def rows(self, bytes_in: Container[int] | None = None) -> Iterator[tuple[int, list[str]]]:
        """Each row: the line that it begins in, and as many fields as the heading has.

        Args:
            bytes_in: Positions of the columns that may hold bytes that are not UTF-8, as names of files may; they come
                as surrogate escapes. None: all of them and the heading, as in a table that `write_table` wrote.

        Raises:
            TableError: The table cannot be read whole; see above.
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
                    fields = self._fitted(line, fields)
                if fields:
                    if self._careful:
                        self._check(line, fields, bytes_in)
                    yield line, fields
                line = before + reader.line_num
        except csv.Error as error:
            raise self._error(line, _explained(error)) from error

    def lines(self) -> Iterator[tuple[int, str]]:
        """Each line that is not blank, with its number, from the first on: for a list that has no heading.

        Raises:
            TableError: A line has a NUL character, or is not in UTF-8.
        """
        rest = chain.from_iterable(io.StringIO(piece, newline="") for piece in self._pieces)
        for number, line in enumerate(chain(self._first_lines, rest), start=1):
            if _is_odd(line):
                self._check(number, [line], ())
            if line.strip():
                yield number, line

    def _opened_pieces(self) -> Iterator[io.StringIO]:
        """Pieces of text to take lines from; what asks for a closer look at rows is looked for in a whole piece."""
        for piece in self._pieces:
            self._careful = self._careful or _is_odd(piece) or _SPACED_QUOTE.search(piece) is not None
            yield io.StringIO(piece, newline="")

    def _fitted(self, line: int, fields: list[str]) -> list[str]:
        """A row of another number of fields than the heading, if nothing is wrong with it; nothing, of a blank line."""
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
        for at, field in enumerate(fields):
            if field.endswith("\0") or (bytes_in is not None and "\0" in field):
                raise self._error(
                    line, f"expected text, found a NUL character in {_cut(field)}; remove it, or save the table {_AS}"
                )
            if bytes_in is None:
                continue
            if at not in bytes_in and _NOT_UTF8.search(field):
                raise self._error(line, f"expected text in UTF-8, found {_cut(field)}; save the table {_AS}")
            if field.startswith(" ") and field.lstrip(" ").startswith('"'):
                raise self._error(
                    line,
                    f"expected a quote right behind the delimiter, found {_cut(field)}; remove the space before it",
                )

    def _error(self, line: int, text: str) -> TableError:
        return TableError(f"{self.path}, line {line}: {text}")


@contextmanager
def open_table(
    path: str | os.PathLike[str],
    delimiters: str = ",",
    accepts: Callable[[list[str]], bool] = bool,
    *,
    encoding: str | None = None,
    file: BinaryIO | None = None,
) -> Iterator[Table]:
    """Open a table and read its heading.

    The longest field that Python's csv module takes is a number of the whole process, 131,072 characters unless
    somebody sets it; it is raised here to 2 GB, and stays so.

    Args:
        path: The table.
        delimiters: That may be between fields. Those that the first line has most of are tried first.
        accepts: Whether a heading is the right one. Where none is, the table has the heading that was tried first.
        encoding: Of the table. None: UTF-8, or UTF-16 with a byte order mark.
        file: The table itself, if `path` is only its name in messages.

    Raises:
        OSError: It cannot be read.
        TableError: It is no text in that encoding, or its heading has a fault.
        LookupError: There is no such encoding.
    """
    csv.field_size_limit(max(_LONGEST_FIELD, csv.field_size_limit()))
    with open(path, "rb") if file is None else file as opened, _decoding(os.fspath(path), encoding):
        path = os.fspath(path)
        is_utf16 = opened.read(2) in _UTF16
        opened.seek(0)
        known = encoding or ("utf-16" if is_utf16 else "utf-8-sig")
        text = io.TextIOWrapper(opened, known, "surrogateescape" if known == "utf-8-sig" else "strict", newline="")
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
        yield Table(path, delimiter, heading, used + 1, chain(["".join(lines[used:])], _pieces(text)), lines[:used])


@contextmanager
def _decoding(path: str, encoding: str | None) -> Iterator[None]:
    """Say of which file it is that bytes cannot be decoded."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise TableError(
            f"{path}: expected text in {error.encoding}, found the bytes {error.object[error.start : error.end]!r}; "
            "give its own --encoding"
            if encoding
            else f"{path}: expected text in UTF-16, found other bytes ({error})"
        ) from error


def write_table(file: TextIO, header: Sequence[str], lines: Iterable[Sequence[str]]) -> None:
    """Write a CSV that keeps every text as it is, bytes that are not UTF-8 included.

    Args:
        file: As `h5split.writing.replace.written` gives it.
        header: Names of columns.
        lines: A text for each column.
    """
    writer = csv.writer(file, lineterminator="\n")
    quoted = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for line in chain([header], lines):
        bare = "\r" in "".join(line)  # which Python before 3.13 does not quote by itself
        (quoted if bare else writer).writerow(line)


def _heading(path: str, lines: list[str], text: IO[str], delimiter: str) -> tuple[list[str] | TableError, int]:
    """The first row that is not blank, or what is wrong with it; and the lines it takes. `lines` keeps what is read."""

    def read() -> Iterator[str]:
        at = 0
        while line := _line_at(lines, text, at):
            at += 1
            yield line

    reader = csv.reader(read(), delimiter=delimiter, strict=True)
    try:
        return next((fields for fields in reader if fields), []), reader.line_num
    except csv.Error as error:
        return TableError(f"{path}, line 1: {_explained(error)}"), 0


def _line_at(lines: list[str], text: IO[str], at: int) -> str:
    if at == len(lines):
        lines.append(text.readline())
    return lines[at]


def _pieces(text: IO[str]) -> Iterator[str]:
    """The rest of a text, in pieces that end where lines do."""
    while piece := text.read(_READ_SIZE):
        yield piece + text.readline()


def _is_odd(text: str) -> bool:
    """Whether there is a character in it that a table may not have everywhere."""
    return "\0" in text or (not text.isascii() and _NOT_UTF8.search(text) is not None)


def _explained(error: csv.Error) -> str:
    text = str(error)
    if "unexpected end" in text:
        return (
            "expected a closing quote, found none up to the end of the table; a quote within a field is written twice"
        )
    if "expected after" in text:
        return "expected the end of a field behind a closing quote, found more text; a quote within it is written twice"
    return f"expected a row of text ({text})"


def _cut(field: str) -> str:
    """A field to show."""
    return repr(field if len(field) <= _SHOWN else f"{field[:_SHOWN]}...")
