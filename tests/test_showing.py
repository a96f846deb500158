"""Tests of how sequences, packs and summaries show themselves in notebooks, and of the pictures of `show`."""

from __future__ import annotations

import base64
import html
import io
import re
import shutil
import subprocess
import sys
import tracemalloc
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from conftest import make, names_in, needs_keras, pixels_of, write_classes, write_hole, write_image, write_pack
from h5split import FormatError, PackedImages, SplitSequence, Tags
from h5split.errors import ArgumentError, PositionError
from h5split.notebook import progress
from h5split.notebook.png import encoded, reduced
from h5split.system.text import shown as text_of
from pack_images import cli

HOSTILE = "<script>alert(1)</script>\"' onerror=x&amp;$\\href{javascript:1}$\u202egpj.png"


class Page(HTMLParser):
    """The tags, attributes and texts of HTML; fails if tags are not closed in order."""

    VOID = ("img", "br")

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.texts, self._open = [], [], [], []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self._open += [] if tag in self.VOID else [tag]

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self):
        return "\n".join(self.texts)

    def pictures(self):
        """The images of the page, as Pillow decodes them."""
        sources = [value for name, value in self.attributes if name == "src"]
        start = "data:image/png;base64,"
        assert all(source.startswith(start) for source in sources)
        return [np.asarray(Image.open(io.BytesIO(base64.b64decode(source[len(start) :])))) for source in sources]

    def tables(self):
        """Heading -> {value: number} of each table, and the line about values that are not listed."""
        found = {}
        for table in re.findall(r"<table.*?</table>", self.rawdata_of, re.DOTALL):
            cells = [html.unescape(text) for text in re.findall(r">([^<>]+)<", table)]
            heading, *values = cells
            more = [values.pop()] if len(values) % 2 else []
            found[heading] = (dict(zip(values[::2], values[1::2], strict=True)), *more)
        return found

    def feed(self, text):
        self.rawdata_of = text
        super().feed(text)


def page(thing):
    return Page(thing._repr_html_())


# --- pictures as PNG --------------------------------------------------------------------------------------------------


@given(
    arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=40), fill=st.nothing()), st.sampled_from([1, 3, 4])
)
def test_a_png_has_the_pixels_it_was_made_of(plane, channels):
    pixels = np.stack([np.roll(plane, number) for number in range(channels)], axis=2)
    found = np.asarray(Image.open(io.BytesIO(encoded(pixels))))
    assert np.array_equal(found.reshape(pixels.shape), pixels)


@settings(max_examples=30)
@given(
    arrays(np.uint16, array_shapes(min_dims=2, max_dims=2, max_side=40), fill=st.nothing()),
    st.sampled_from([1, 3, 4]),
    st.integers(1, 9),
)
def test_a_png_of_16_bits_has_the_pixels_it_was_made_of(plane, channels, level):
    imagecodecs = pytest.importorskip("imagecodecs", reason="needs imagecodecs: pip install 'pack-images[tiff]'")
    pixels = np.stack([np.roll(plane, number) for number in range(channels)], axis=2)
    found = imagecodecs.png_decode(encoded(pixels, level))
    assert found.dtype == np.uint16
    assert np.array_equal(found.reshape(pixels.shape), pixels)
    if channels == 1:
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(encoded(pixels)))), plane)


def test_filters_make_a_smooth_png_small():
    y, x = np.mgrid[:64, :64].astype(np.uint8)
    pixels = np.stack([x * 3, y * 3, x + y], axis=2)
    assert len(encoded(pixels)) < pixels.nbytes / 20


@pytest.mark.parametrize("shape", [(1, 1, 3), (100, 100, 3), (101, 37, 1), (1, 5000, 3), (640, 480, 4), (65, 64, 3)])
def test_a_reduced_image_fits_and_has_the_mean_color(shape):
    pixels = np.random.default_rng(0).integers(100, 120, shape, dtype=np.uint8)
    found = reduced(pixels, 64)
    assert found.dtype == np.uint8
    assert max(found.shape[:2]) <= 64
    assert abs(found.mean() - pixels.mean()) < 3
    if max(shape[:2]) <= 64:
        assert np.array_equal(found, pixels)


def test_a_reduced_image_has_the_means_of_blocks():
    pixels = np.arange(36, dtype=np.uint8).reshape(6, 6, 1) * 7
    expected = pixels.reshape(3, 2, 3, 2, 1).astype(float).mean(axis=(1, 3))
    assert np.abs(reduced(pixels, 3) - expected).max() <= 0.5


# --- sequences and packs ----------------------------------------------------------------------------------------------


def test_a_pack_shows_counts_by_class_and_source_and_images_with_their_pixels(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    roots = [write_classes(Path("a"), {"cat": 4, "dog": 7}), write_classes(Path("b"), {"cat": 3, "dog": 1})]
    Path("a/cat/broken.png").write_bytes(b"")
    make(roots, "out.h5")
    pack = PackedImages("out.h5")
    for thing, name in ((pack, "PackedImages"), (SplitSequence(pack.path), "SplitSequence")):
        found = page(thing)
        assert found.tables() == {
            "class": ({"cat": "7", "dog": "8"},),
            "source": ({str(roots[0]): "11", str(roots[1]): "4"},),
        }
        assert {name, "out.h5"} <= {*re.findall(r"\w+\.h5|\w+", found.text)}
        assert "15 images (8, 8, 3) uint8, 2 classes" in found.text
        assert ("1 file left out in packing" in found.text) == (thing is pack)
        names = [value.split(",")[0] for key, value in found.attributes if key == "title"]
        assert len(names) == 8
        for filename, pixels in zip(names, found.pictures(), strict=True):
            assert np.array_equal(pixels, pixels_of(filename))


def test_images_of_one_and_four_channels_are_shown(tmp_path):
    for channels in (1, 4):
        path = write_pack(tmp_path / f"{channels}.h5", names_in("a", {"cat": 3}), shape=(8, 8, channels))
        pack = PackedImages(path)
        for pixels, row in zip(page(pack).pictures(), pack.images, strict=True):
            assert np.array_equal(pixels.reshape(row.shape), row)


@pytest.mark.parametrize(("channels", "shown"), [(2, 1), (5, 3)])
def test_of_images_of_other_channels_the_first_are_shown(tmp_path, channels, shown):
    path = write_pack(tmp_path / "a.h5", names_in("a", {"cat": 3}), shape=(8, 8, channels))
    pack = PackedImages(path)
    for pixels, row in zip(page(pack).pictures(), pack.images, strict=True):
        assert np.array_equal(pixels.reshape(8, 8, shown), row[..., :shown])
    assert f"3 images (8, 8, {channels}) uint8" in page(SplitSequence(path)).text
    assert len(SplitSequence(path).show()) == 3


def test_a_sequence_shows_its_part_and_only_settings_that_differ(packed):
    sequence = SplitSequence(packed)
    assert "settings" not in page(sequence).text
    assert "100 images (8, 8, 3) uint8, 3 classes, 4 batches of 32" in page(sequence).text
    part = sequence.split(0.2)[0].set(batch_size=5, scale=0.5, auto_shuffle="block")
    text = page(part.map(lambda images, targets, rng: (images, targets)).shard(1, 2)).text
    assert "20 images (8, 8, 3) float32, 3 classes, 2 batches of 5, rank 1 of 2, through 1 function of map()" in text
    assert "settings: batch_size=5, scale=0.5, auto_shuffle='block'" in text
    assert page(part).tables()["class"] == ({"cat": "4", "dog": "10", "emu": "6"},)


def test_long_settings_are_named_in_a_few_words(tmp_path):
    names = names_in("a", {"cat": 40})
    path = write_pack(tmp_path / "a.h5", names, {"tags": [f"tag {at}, all" for at in range(40)]})
    sequence = SplitSequence(path, targets=Tags("tags"), weights=np.ones(40), classes=["cat", *map(str, range(9000))])
    line = next(text for text in page(sequence).texts if text.startswith("settings"))
    assert all(f"{name}=" in line for name in ("classes", "targets", "weights"))
    assert "weights=ndarray of float32 and shape (40,)" in line
    assert len(line) <= 300


def test_several_packs_are_counted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = write_pack(Path("a.h5"), names_in("a", {"cat": 3}))
    second = write_pack(Path("b.h5"), names_in("b", {"cat": 2, "emu": 4}))
    found = page(SplitSequence(first, second))
    assert found.tables() == {
        "class": ({"cat": "5", "emu": "4"},),
        "source": ({"a": "3", "b": "6"},),
        "pack": ({str(first): "3", str(second): "6"},),
    }


def test_of_many_classes_and_sources_the_largest_are_listed(tmp_path):
    names = [f"s{number}/{number}/{number}.png" for number in range(20_000)]
    names += [f"s7/{number % 3}/more-{number}.png" for number in range(30)]
    path = write_pack(tmp_path / "many.h5", names, shape=(1, 1, 1))
    for thing in (PackedImages(path), SplitSequence(path).shuffle(1)):
        found = page(thing)
        numbers, more = found.tables()["class"]
        assert list(numbers)[:3] == ["0", "1", "2"]
        assert list(numbers.values()) == ["11"] * 3 + ["1"] * 7
        assert more == "and 19,990 more classes"
        assert "source" not in found.tables()  # too many to count
        assert len(thing._repr_html_()) < 20_000


@pytest.mark.parametrize("rows", [0, 1, 2, 9])
def test_any_number_of_rows_is_shown(packed, rows):
    part = SplitSequence(packed).select(np.arange(rows))
    assert len(page(part).pictures()) == min(rows, 8)
    assert f"{rows} image" in page(part).text
    assert len(part.show()) == rows


def test_an_empty_sequence_says_so():
    assert page(SplitSequence()).text.split() == ["SplitSequence", "empty;", "add_file(path)", "opens", "a", "pack"]
    with pytest.raises(ValueError, match=r"the sequence is empty; add_file\(path\) opens a pack"):
        SplitSequence().show()


def test_hostile_names_are_text(tmp_path):
    names = [f"{HOSTILE.replace('/', '')}/{number}/{HOSTILE}" for number in range(3)]
    classes = [HOSTILE, HOSTILE, "b"]
    path = write_pack(tmp_path / "<b>&.h5", names, {"source": [HOSTILE, "x", "y"]}, classes=classes)
    sequence = SplitSequence(path)
    named = list(enumerate(zip(names, classes, strict=True)))
    for thing in (PackedImages(path), sequence, sequence.show()):
        found = page(thing)
        assert set(found.tags) <= {"div", "b", "table", "tr", "th", "td", "span", "img", "br"}
        assert {name for name, _ in found.attributes} <= {
            "class", "style", "title", "src", "alt", "width", "height", "colspan",
        }  # fmt: skip
        assert "<script>" in found.text.replace("\n", "")
        assert "\u202e" not in thing._repr_html_()  # would turn the rest of the line around
        assert ("class", "tex2jax_ignore mathjax_ignore") in found.attributes  # $ is no formula
        titles = [value for key, value in found.attributes if key == "title" and "position" in value]
        assert titles == [f"{text_of(name)}, {text_of(label)}, position {at}" for at, (name, label) in named]
    assert list(page(sequence).tables()["source"][0])[1:] == ["x", "y"]


def test_a_modified_pack_shows_its_text_and_the_reason(packed, tmp_path):
    path = shutil.copy(packed, tmp_path / "own.h5")
    pack, sequence = PackedImages(path), SplitSequence(path)
    with open(path, "r+b") as file:
        file.truncate(pack.header.size // 2)
    for thing in (pack, sequence):
        found = page(thing)
        assert found.tags == ["pre"]
        assert repr(thing) in found.text
        assert "FormatError" in found.text
        assert "cut short" in found.text
    with pytest.raises(FormatError, match="cut short"):
        sequence.show()


def test_only_the_rows_that_are_shown_are_read(tmp_path):
    path = write_hole(tmp_path / "hole.h5", 5000, (500, 500, 3))  # 3.75 GB
    pack, sequence = PackedImages(path), SplitSequence(path).shuffle(3)
    pack._repr_html_()
    for look in (pack._repr_html_, sequence._repr_html_, sequence.show):
        tracemalloc.start()
        look()
        assert tracemalloc.get_traced_memory()[1] < 15e6
        tracemalloc.stop()


def test_a_look_changes_nothing(packed):
    sequence = SplitSequence(packed, auto_shuffle=True, batch_size=10)
    next(iter(sequence))
    before = sequence.state(), sequence.get_filenames()
    sequence._repr_html_()
    sequence.show()
    assert (sequence.state(), sequence.get_filenames()) == before


@needs_keras
def test_the_sequence_for_keras_shows_itself(packed):
    from h5split import H5SplitSequence

    assert "H5SplitSequence" in page(H5SplitSequence(packed)).text
    assert repr(H5SplitSequence(packed)).startswith("H5SplitSequence('")


# --- show -------------------------------------------------------------------------------------------------------------


def shown(pictures):
    """The file names of pictures, after their pixels in the page were compared."""
    decoded = page(pictures).pictures()
    for tile, pixels in zip(pictures.tiles, decoded, strict=True):
        assert np.array_equal(pixels, pixels_of(tile.filename))
        assert tile.label == tile.filename.split("/")[-2]
    return [tile.filename for tile in pictures.tiles]


def test_rows_are_asked_for_by_number_position_mask_or_name(packed):
    sequence = SplitSequence(packed).shuffle(5)
    names = list(sequence.filenames)
    assert shown(sequence.show()) == names[:16]
    assert shown(sequence.show(3)) == names[:3]
    assert shown(sequence.show([7, 2, -1])) == [names[7], names[2], names[-1]]
    assert shown(sequence.show(np.arange(100) % 50 == 9)) == [names[9], names[59]]
    assert shown(sequence.show(names[70])) == [names[70]]
    assert shown(sequence.show([names[70], names[4]])) == [names[70], names[4]]
    assert shown(sequence.show([])) == []
    assert shown(sequence.select(label="emu").show(5)) == [name for name in names if "/emu/" in name][:5]


def test_at_most_a_hundred_are_shown(packed, tmp_path):
    path = write_pack(tmp_path / "a.h5", names_in("a", {"cat": 130}))
    found = SplitSequence(path).show(np.arange(130))
    assert len(shown(found)) == 100
    assert repr(found).splitlines()[0] == "100 of 130 images; 30 more were asked for, and at most 100 are shown"


def test_in_a_terminal_files_are_listed(packed):
    sequence = SplitSequence(packed)
    lines = str(sequence.show(2)).splitlines()
    assert lines[0] == "2 of 100 images"
    for line, name in zip(lines[1:], sequence.filenames[:2], strict=True):
        assert line.split() == [name.split("/")[-2], name]


def test_mistakes_are_shown_with_what_was_predicted(packed):
    sequence = SplitSequence(packed, auto_shuffle=True)
    labels = np.concatenate([labels.argmax(axis=1) for _, labels in sequence])
    scores = np.eye(3)[(labels + (np.arange(100) % 10 == 0)) % 3]
    mistakes = sequence.mistakes(scores)
    found = sequence.show(mistakes)
    assert shown(found) == [mistake.filename for mistake in mistakes]
    assert [tile.note for tile in found.tiles] == [f"predicted {mistake.predicted} (1.00)" for mistake in mistakes]
    assert "predicted" in page(found).text
    assert shown(sequence.show(mistakes[0])) == [mistakes[0].filename]
    for _ in sequence:
        pass
    with pytest.raises(ArgumentError, match="expected mistakes of the epoch that was delivered last"):
        sequence.show(mistakes)


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        (0, ArgumentError, "show: rows: expected a whole number of 1 or more, found 0"),
        (True, PositionError, "expected positions, or a mask of 100 rows"),
        (2.5, PositionError, "expected positions, or a mask of 100 rows"),
        ([100], PositionError, "expected positions from 0 to 99, found 100"),
        ([True], PositionError, "expected positions, or a mask of 100 rows"),
        ("no.png", ArgumentError, "show: expected file names of this sequence, found 'no.png'"),
        ([None], ArgumentError, "show: expected a text or several, found None"),
    ],
)
def test_wrong_rows_are_refused(packed, rows, error, message):
    with pytest.raises(error, match=re.escape(message)):
        SplitSequence(packed).show(rows)


# --- packing ----------------------------------------------------------------------------------------------------------


def test_print_of_a_summary_is_what_the_command_prints(tmp_path, root, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_image(root / "cat" / "copy.png").write_bytes((root / "cat" / "data-cat-0.png").read_bytes())
    (root / "cat" / "broken.png").write_bytes(b"")
    assert cli.main([str(root), "-o", "a.h5", "--workers", "1"]) == 0
    printed = capsys.readouterr().out
    summary = f"{make(root, 'b.h5')}\n".replace("b.h5", "a.h5")
    assert re.sub(r"in \d.*", "", summary) == re.sub(r"in \d.*", "", printed)
    assert "left out: 1" in printed


def test_a_summary_in_a_notebook_has_the_same_lines_and_warnings(tmp_path, root):
    (root / "<i>").mkdir()
    summary = make(root, tmp_path / "a.h5")
    found = page(summary)
    assert found.tags == ["pre"]
    assert found.text.startswith(str(summary))
    assert summary.warnings
    assert found.text.splitlines()[-1] == summary.warnings[-1]


class Display:
    """What IPython displays, as a list of (text, HTML), each the state of one output."""

    def __init__(self):
        self.states = []

    def __call__(self, shown, *, raw, display_id):
        assert raw
        assert display_id
        self.update(shown, raw=raw)
        return self

    def update(self, shown, *, raw):
        self.states.append((shown["text/plain"], shown["text/html"]))


@pytest.fixture
def display(monkeypatch):
    """A notebook, as far as progress goes. Its display is noted."""
    display = Display()
    monkeypatch.setitem(
        sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=1), __path__=[])
    )
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=display))
    return display


def test_packing_shows_progress_in_a_notebook(display, tmp_path, root, capfd):
    (root / "cat" / "broken.png").write_bytes(b"")
    make(root, tmp_path / "a.h5")
    text, shown = display.states[-1]
    assert re.fullmatch(r"41 of 41 images, 1 left out, \d+\.\d s", text)
    assert '<progress value="41" max="41"' in shown
    assert Page(shown).text.strip() == text
    make(root, tmp_path / "b.h5", progress=False)
    assert capfd.readouterr() == ("", "")
    assert "b.h5" not in str(display.states)


def test_progress_in_a_notebook_is_refreshed_ten_times_a_second_at_most(display, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with progress.reporting(None, "images") as report:
        for done in range(1001):
            now[0] = done / 1000
            report(done, 1000, 0)
    assert 10 <= len(display.states) <= 13
    assert display.states[-1][0] == "1,000 of 1,000 images, 1.0 s"


def test_outside_a_notebook_packing_is_silent_unless_it_is_asked(tmp_path, root, capfd):
    make(root, tmp_path / "a.h5")
    assert capfd.readouterr() == ("", "")
    calls = []
    make(root, tmp_path / "b.h5", progress=lambda *numbers: calls.append(numbers))
    assert calls[-1] == (40, 40, 0)
    assert capfd.readouterr() == ("", "")
    make(root, tmp_path / "c.h5", progress=True)
    assert "40/40" in capfd.readouterr().err.replace(".0", "")


@pytest.mark.parametrize("shell", [None, SimpleNamespace()], ids=["python", "IPython in a terminal"])
def test_a_terminal_is_no_notebook(monkeypatch, shell):
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    assert not progress.in_notebook()


# --- what is loaded ---------------------------------------------------------------------------------------------------


def test_a_look_needs_no_further_package(packed):
    absent = ("PIL", "matplotlib", "jinja2", "IPython", "keras", "tqdm", "pack_images", "h5py")
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({absent!r}))\n"
        "from h5split import PackedImages, SplitSequence\n"
        f"sequence = SplitSequence({str(packed)!r})\n"
        "looks = PackedImages(sequence.packs.packs[0].path), sequence, sequence.show()\n"
        "print(*(look._repr_html_().count('<img') for look in looks))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "8 8 16\n"), done.stderr
