"""CSV tables are read completely or refused, and written tables read back unchanged."""

from __future__ import annotations

import csv
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from h5split.errors import TableError
from h5split.writing.tables import open_table, write_table


def read(path, delimiters=",", bytes_in=None):
    with open_table(path, delimiters) as table:
        return table.heading, list(table.rows(bytes_in))


def rows(tmp_path, text, bytes_in=()):
    path = tmp_path / "table.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read(path, ",", bytes_in)[1]


def test_rows_come_with_the_number_of_their_first_line(tmp_path):
    text = 'a,b\n1,2\n\n"x\ny\r\nz",3\r\n   \n4,"5"\r6,7'
    assert rows(tmp_path, text) == [
        (2, ["1", "2"]),
        (4, ["x\ny\r\nz", "3"]),
        (8, ["4", "5"]),
        (9, ["6", "7"]),
    ]


def test_line_numbers_are_right_after_a_heading_of_several_lines(tmp_path):
    assert rows(tmp_path, '\n"a\nb",c\n1,2\n') == [(4, ["1", "2"])]


def test_a_quote_inside_a_heading_field_is_an_ordinary_character(tmp_path):
    assert rows(tmp_path, 'path,size (5"),x\na,b,c\nd,e,"f"\n') == [(2, ["a", "b", "c"]), (3, ["d", "e", "f"])]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('a,b\n1,2\n3,"4\n5,6\n', "line 3: expected a closing quote, found none up to the end of the table"),
        ('a,b\n1,2\n3,"4\n5,"6\n', "line 3: expected the end of a field behind a closing quote, found more text"),
        ('a,b\n1,"2" x\n', "line 2: expected the end of a field behind a closing quote, found more text"),
        ('a,"b\n1,2\n', "line 1: expected a closing quote, found none"),
        ('a,b\n1, "2"\n', "line 2: expected a quote right behind the delimiter, found ' \"2\"'; remove the space"),
        ("a,b\n1,2\n3\n", "line 3: expected 2 fields, as the heading has, found 1; get the whole file if it was cut"),
        ("a,b,c\n1,2\n3,4,5\n", "line 2: expected 3 fields, as the heading has, found 2"),
        ("a,b\n1,2,3\n", "line 2: expected 2 fields, as the heading has, found 3; put quotes around a field"),
        ('a,b\n"1\n\n",2\n3,4,5\n', "line 5: expected 2 fields, as the heading has, found 3"),
        ("a,b\n1,2\0\n", r"line 2: expected text, found a NUL character in '2\\x00'; remove it"),
        ("a,b\n1,\x002\n", r"line 2: expected text, found a NUL character in '\\x002'"),
        ("a,b\0\n1,2\n", r"line 1: expected text, found a NUL character in 'b\\x00'"),
        ("\n\na,b\0\n1,2\n", r"line 3: expected text, found a NUL character in 'b\\x00'"),
        ('\n\na,"b"x\n1,2\n', r"line 3: expected the end of a field behind a closing quote"),
        ('a, "b"\n1,2\n', "line 1: expected a quote right behind the delimiter, found ' \"b\"'; remove the space"),
        (b"a,b\n1,2\n3,caf\xe9\n", r"line 3: expected text in UTF-8, found 'caf\\udce9'; save the table in UTF-8"),
        (b"a,\xe9\n1,2\n", r"line 1: expected text in UTF-8, found '\\udce9'"),
        ("a,b\n1,2\n".encode("utf-16")[:-1], r"expected text in UTF-16, found other bytes"),
        ("a,b\n1,2\n".encode("utf-16-be"), "line 1: expected text, found a NUL character"),
    ],
)
def test_a_malformed_table_is_an_error_that_names_the_line(tmp_path, text, message):
    with pytest.raises(TableError, match=rf"^{tmp_path}/table\.csv[,:] {message}"):
        rows(tmp_path, text)


@pytest.mark.parametrize("cut", range(11, 26))
def test_a_truncated_table_never_loses_a_row_silently(tmp_path, cut):
    """A cut may shorten the last row unnoticed, but every row that begins before the cut is read."""
    text = "name,label\na.png,cat\nb.png,dog\n"[:cut]
    begun = [line for line in text.split("\n")[1:] if line]
    if all("," in line for line in begun):
        assert len(rows(tmp_path, text)) == len(begun)
    else:
        with pytest.raises(TableError, match="expected 2 fields, as the heading has, found 1"):
            rows(tmp_path, text)


def test_extra_or_missing_empty_fields_at_the_end_of_a_row_are_accepted(tmp_path):
    assert rows(tmp_path, "a,b\n1,2,,\n") == [(2, ["1", "2"])]
    assert rows(tmp_path, "a,b,,\n1,2\n3,4,5,\n") == [(2, ["1", "2", "", ""]), (3, ["3", "4", "5", ""])]


def test_a_quote_inside_an_unquoted_field_is_an_ordinary_character(tmp_path):
    assert rows(tmp_path, 'a,b\n1,a 5" dog\n') == [(2, ["1", 'a 5" dog'])]


def test_columns_of_file_names_may_hold_any_bytes(tmp_path):
    assert rows(tmp_path, b"a,b\n\xe9,2\n", {0}) == [(2, ["\udce9", "2"])]
    assert rows(tmp_path, b"\xe9,b\n1,\xe9\n", None) == [(2, ["1", "\udce9"])]


def test_fields_may_have_any_length(tmp_path):
    long = "1 2 " * 400_000
    assert rows(tmp_path, f'a,b\n1,"{long}"\n2,{long}\n') == [(2, ["1", long]), (3, ["2", long])]


def test_errors_are_found_beyond_the_first_megabyte(tmp_path):
    """Text is checked in pieces of one megabyte."""
    line = "x" * 99
    good = f"a,b\n{f'{line},{line}' + chr(10)}" + f"{line},{line}\n" * 20_000
    assert len(rows(tmp_path, good)) == 20_001
    for bad, message in ((b"1,\xe9\n", "in UTF-8"), (b"1,2\0\n", "NUL"), (b'1, "2"\n', "a space|right behind")):
        with pytest.raises(TableError, match=f"line 20003: .*({message})"):
            rows(tmp_path, good.encode() + bad + f"{line},{line}\n".encode() * 20_000)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_long_table_is_read_in_pieces_of_whole_lines(tmp_path, end):
    generator = random.Random(0)
    lines = [[str(number), "x" * generator.randrange(200)] for number in range(30_000)]
    found = rows(tmp_path, end.join(map(",".join, [["a", "b"], *lines])))
    assert found == list(enumerate(lines, start=2))


TEXT = st.text(st.characters(codec="utf-8"), max_size=6).map(lambda text: text.rstrip("\0"))


@given(table=st.integers(1, 4).flatmap(lambda width: st.lists(st.tuples(*[TEXT] * width), min_size=1, max_size=8)))
def test_a_written_table_reads_back_unchanged(tmp_path_factory, table):
    path = tmp_path_factory.getbasetemp() / "written.csv"
    with open(path, "w", encoding="utf-8", newline="") as file:
        write_table(file, [f"c{at}" for at in range(len(table[0]))], table)
    assert [fields for _, fields in read(path)[1]] == [list(row) for row in table]


@given(text=st.text(st.sampled_from('a",\n\r '), max_size=30))
def test_any_text_is_read_as_the_csv_module_reads_it_or_refused(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(b"h,i\n" + text.encode())
    with open(path, newline="") as file:
        expected = [row for row in list(csv.reader(file))[1:] if len(row) > 1 or "".join(row).strip()]
    try:
        found = [fields for _, fields in read(path)[1]]
    except TableError:
        return
    assert found == [row[:2] for row in expected]
    assert not any("".join(row[2:]) for row in expected)
