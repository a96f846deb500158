"""Tables: CSV files. They are read strictly, so that no row is lost, and written so that they can be read again.

A table has a heading and rows with the same number of fields. It is in UTF-8, or in UTF-16 with a byte order mark,
unless another encoding is given. Quotes follow RFC 4180. A field that begins with a quote ends with one, and a quote in
it is doubled. In other fields, a quote is an ordinary character.

Reading raises a `TableError`, which names the file and the line, for

- a quote that is never closed, or text after a closing quote;
- a row with fewer fields than the heading, for instance because the file was cut off. The last fields may be missing if
  their columns have no name;
- a row with more fields than the heading, unless the extra fields are empty;
- a NUL character at the end of a field, because fixed-length text cannot store it;
- in a table that people write: any NUL character, bytes that are not UTF-8 (except in file names), and a space before
  an opening quote.

Blank lines are skipped. A field may have up to 2 GB.
"""

from __future__ import annotations

import codecs
import csv
import io
import os
import re
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import IO, BinaryIO, TextIO

from h5split.errors import TableError

_MAX_FIELD = (1 << 31) - 1  # characters; the largest C long on every system
_READ_SIZE = 1 << 20  # characters
_NOT_UTF8 = re.compile("[\udc80-\udcff]")
_SPACED_QUOTE = re.compile(r'[,;|\t\r\n] +"|^ +"')
_AS = "in UTF-8 ('CSV UTF-8' in Excel)"  # the end of several messages: "save the table ..."
_MAX_SHOWN = 40  # characters of a field in an error message
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_MARKS = {"utf-16": _UTF16, "utf-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)}  # byte order marks


class Table:
    """An open table: its heading, and its rows, which can be read once. `open_table` creates it.

    Args:
        path: The path of the table, for messages.
        delimiter: The character between fields.
        heading: The fields of the first row.
        pieces: The rest of the text, in pieces that end at line ends.
        first_lines: The lines up to the end of the heading.

    Attributes:
        path: The path as given.
        heading: The names of the columns, unchanged.
    """

    def __init__(
        self, path: str, delimiter: str, heading: list[str], pieces: Iterable[str], first_lines: Sequence[str]
    ) -> None:
        self.path = path
        self.heading = heading
        self._delimiter = delimiter
        self._pieces = pieces
        self._first_lines = first_lines
        self._must_check = _needs_checks("".join(first_lines))  # whether to check every field of each row

    def rows(self, bytes_in: Container[int] | None = None) -> Iterator[tuple[int, list[str]]]:
        """Yield each row: the number of its first line, and its fields, as many as the heading has.

        Args:
            bytes_in: The numbers of the columns, from 0, that may contain bytes that are not UTF-8, as file names may.
                These bytes become surrogate escapes. None allows them in all columns and in the heading, for tables
                from `write_table`.

        Raises:
            TableError: The table cannot be read completely. The docstring of this module lists the reasons.
        """
        width = len(self.heading)
        if self._must_check:
            self._check(_first_used(self._first_lines), self.heading, None if bytes_in is None else ())
        line = first_line = len(self._first_lines) + 1
        lines = chain.from_iterable(self._scanned_pieces())
        reader = csv.reader(lines, delimiter=self._delimiter, strict=True)
        try:
            for fields in reader:
                if len(fields) != width:
                    fields = self._with_width(line, fields)
                if fields:
                    if self._must_check:
                        self._check(line, fields, bytes_in)
                    yield line, fields
                line = first_line + reader.line_num
        except csv.Error as error:
            raise self._error(line, _explained(error)) from error

    def lines(self) -> Iterator[tuple[int, str]]:
        """Yield each line that is not blank, with its number, from the first on: for a list without a heading.

        Raises:
            TableError: A line has a NUL character, or is not in UTF-8.
        """
        rest = chain.from_iterable(io.StringIO(piece, newline="") for piece in self._pieces)
        for number, line in enumerate(chain(self._first_lines, rest), start=1):
            if _is_suspicious(line):
                self._check(number, [line], ())
            if line.strip():
                yield number, line

    def _scanned_pieces(self) -> Iterator[io.StringIO]:
        """Yield the pieces of text as files of lines.

        Each piece is first searched for characters that may be errors, because checking every field would be slow.
        """
        for piece in self._pieces:
            self._must_check = self._must_check or _needs_checks(piece)
            yield io.StringIO(piece, newline="")

    def _with_width(self, line: int, fields: list[str]) -> list[str]:
        """Add or remove empty fields so that a row is as wide as the heading, else raise; [] for a blank line."""
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
                    line,
                    f"expected text, found a NUL character in {_quoted(field)}; remove it, or save the table {_AS}",
                )
            if bytes_in is None:
                continue
            if at not in bytes_in and _NOT_UTF8.search(field):
                raise self._error(line, f"expected text in UTF-8, found {_quoted(field)}; save the table {_AS}")
            if field.startswith(" ") and field.lstrip(" ").startswith('"'):
                raise self._error(
                    line,
                    f"expected a quote right behind the delimiter, found {_quoted(field)}; remove the space before it",
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

    Python's csv module has one limit for the length of a field in the whole process. The default is 131,072 characters.
    This function raises it to 2 GB for good.

    Args:
        path: The path of the table.
        delimiters: The possible characters between fields. The most frequent one in the first line is tried first.
        accepts: A function that returns whether a heading is the expected one. If it accepts none, the heading that was
            tried first is used.
        encoding: The encoding of the file. None: UTF-8, or UTF-16 with a byte order mark.
        file: The open table, if `path` is only its name in messages.

    Raises:
        OSError: The file cannot be read.
        TableError: The file is not text in this encoding, or its heading is malformed; or there is no such encoding.
    """
    csv.field_size_limit(max(_MAX_FIELD, csv.field_size_limit()))
    with open(path, "rb") if file is None else file as opened, _decoding(os.fspath(path), encoding):
        path = os.fspath(path)
        known = _encoding_of(path, encoding, opened.read(4))
        opened.seek(0)
        errors = "surrogateescape" if encoding is None and known == "utf-8-sig" else "strict"
        text = io.TextIOWrapper(opened, known, errors, newline="")
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
        yield Table(path, delimiter, heading, chain(["".join(lines[used:])], _pieces(text)), lines[:used])


def _encoding_of(path: str, given: str | None, start: bytes) -> str:
    """The encoding that reads a file without its byte order mark.

    Args:
        path: The path of the table, for messages.
        given: As the user named it. None: UTF-8, or UTF-16 with a mark.
        start: The first bytes of the file.
    """
    if given is None:
        return "utf-16" if start.startswith(_UTF16) else "utf-8-sig"
    try:
        name = codecs.lookup(given).name
        "".encode(name)
    except (LookupError, ValueError):
        raise TableError(
            f"{path}: expected an encoding of text that Python knows, such as cp1252, found {given!r}"
        ) from None
    if name == "utf-8":
        return "utf-8-sig"
    if start.startswith(codecs.BOM_UTF8) and name != "utf-8-sig":
        raise TableError(f"{path}: expected text in {given}, found the mark of UTF-8 at its start; give no encoding")
    whole, _, order = name.rpartition("-")
    return whole if order in ("le", "be") and start.startswith(_MARKS.get(whole, ())) else name


@contextmanager
def _decoding(path: str, encoding: str | None) -> Iterator[None]:
    """Name the file in the error about bytes that cannot be decoded."""
    try:
        yield
    except UnicodeError as error:
        raise TableError(f"{path}: expected text in {encoding or 'UTF-16'}, found other bytes ({error})") from error


def write_table(file: TextIO, header: Sequence[str], lines: Iterable[Sequence[str]]) -> None:
    """Write a CSV table that keeps every text unchanged, including bytes that are not UTF-8.

    Args:
        file: A text file from `h5split.writing.replace.written`.
        header: The names of the columns.
        lines: The rows, with one text for each column.
    """
    writer = csv.writer(file, lineterminator="\n")
    quoting = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for line in chain([header], lines):
        must_quote = "\r" in "".join(line)  # Python before 3.13 does not quote a carriage return by itself
        (quoting if must_quote else writer).writerow(line)


def _heading(path: str, lines: list[str], text: IO[str], delimiter: str) -> tuple[list[str] | TableError, int]:
    """Read the first row that is not blank.

    Args:
        path: The path of the table, for messages.
        lines: The lines that were read from `text` so far. Lines that are read here are appended.
        text: The table.
        delimiter: The character between fields.

    Returns:
        The fields of the row and the number of lines up to its end. If the row is malformed: an error and 0.
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
        return TableError(f"{path}, line {_first_used(lines)}: {_explained(error)}"), 0


def _line_at(lines: list[str], text: IO[str], at: int) -> str:
    """Line `at` of a text, from `lines` or read and appended to them; empty at the end of the text."""
    if at == len(lines):
        lines.append(text.readline())
    return lines[at]


def _pieces(text: IO[str]) -> Iterator[str]:
    """Yield the rest of a text, in pieces that end at line ends."""
    while piece := text.read(_READ_SIZE):
        yield piece + text.readline()


def _first_used(lines: Sequence[str]) -> int:
    """Return the number of the first line that is not blank; 1 if there is none."""
    return next((number for number, line in enumerate(lines, start=1) if line.strip()), 1)


def _needs_checks(text: str) -> bool:
    """Whether a text has something that is an error in some places, so that every field has to be checked."""
    return _is_suspicious(text) or _SPACED_QUOTE.search(text) is not None


def _is_suspicious(text: str) -> bool:
    """Whether a text has a character that is not allowed everywhere: a NUL, or a byte that is not UTF-8."""
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


def _quoted(field: str) -> str:
    """A field for an error message: quoted, and cut if it is long."""
    return repr(field if len(field) <= _MAX_SHOWN else f"{field[:_MAX_SHOWN]}...")
