"""The page of `h5split view`: its content for real packs, and its behaviour in a real browser."""

from __future__ import annotations

import base64
import io
import os
import re
import subprocess
import sys
import time
import tracemalloc
from html import unescape
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import h5split
from conftest import PATIENCE, names_in, needs_keras, pixels_of, write_pack
from h5split import PackedImages, SplitSequence, Tags, write_split
from h5split.cli import main
from h5split.commands.view.limits import extremes
from h5split.view import report

pytest.importorskip("jinja2")
pytest.importorskip("selenium.webdriver")

from selenium.webdriver import ActionChains
from selenium.webdriver.common.actions.action_builder import ActionBuilder  # only if it is installed
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from chromium import color_scheme, phone

CLASSES = {"cat": 6, "dog": 9, "emu": 4}
SHOWN_AS = {
    "<script>window.canary=1</script>": "<script>window.canary=1</script>",
    '"><img src=x onerror=window.canary=1>': '"><img src=x onerror=window.canary=1>',
    "'><svg onload=window.canary=1>": "'><svg onload=window.canary=1>",
    "</script></style></title>": "</script></style></title>",
    "{{ 7*7 }}{% raw %}{#": "{{ 7*7 }}{% raw %}{#",
    "javascript:window.canary=1": "javascript:window.canary=1",
    "&lt;b&gt;&amp;": "&lt;b&gt;&amp;",
    "right\u202eleft": r"right\u202eleft",
    "bytes\udcff": r"bytes\udcff",
    "two\nlines": r"two\nlines",
}


# --- content of the page, without a browser


class Tile(NamedTuple):
    name: str
    label: str
    predicted: str
    image: Image.Image
    text: str

    @property
    def pixels(self):
        pixels = np.asarray(self.image)
        return pixels if pixels.ndim == 3 else pixels[:, :, None]


def write_rows(path, pixels, filenames, classes, columns=None, skipped=()):
    """Write a pack with the given pixels, names, classes and left-out files."""
    columns = {"source": ["source"] * len(filenames), **(columns or {})}
    return write_pack(path, filenames, columns, classes=classes, pixels=pixels, skipped=skipped)


def page_of(sequence, predictions=None, path=None, **options):
    """Write the page of a sequence and return its text."""
    path = path or Path(sequence.packs.packs[0].path).with_suffix(".html")
    report(sequence, predictions, path, **options)
    return path.read_text("utf-8")


def section(page, name):
    """Return the HTML of a section of the page."""
    return re.search(rf'<section id="{name}".*?</section>', page, re.DOTALL)[0]


def between(page, start, end):
    return page.split(start, 1)[1].split(end, 1)[0]


def text_of(html):
    return unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html))).strip()


def tiles(html):
    """Return the tiles in some HTML, with their images decoded."""
    pattern = r'<li data-name="(.*?)" data-label="(.*?)" data-predicted="(.*?)"[^>]*>(.*?)</li>'
    found = []
    for name, label, predicted, inside in re.findall(pattern, html, re.DOTALL):
        data = base64.b64decode(re.search(r'src="data:image/(?:png|jpeg);base64,([^"]*)"', inside)[1])
        image = Image.open(io.BytesIO(data))
        image.load()
        found.append(Tile(unescape(name), unescape(label), unescape(predicted), image, text_of(inside)))
    return found


def names(found):
    return [tile.name for tile in found]


def assert_tiles_show_the_images_they_name(found):
    assert found
    for tile in found:
        assert np.array_equal(tile.pixels, pixels_of(tile.name, tile.pixels.shape)), tile.name
        assert tile.label == tile.name.split("/")[-2]


def matrix_of(page):
    """Return the confusion matrix of the page as a map of (label, predicted) to count."""
    found = re.findall(r"<title>([\d,]+) (\w+) taken for (\w+)</title>", page)
    return {(label, predicted): int(number.replace(",", "")) for number, label, predicted in found}


def table(html):
    """Return the rows of a table as lists of cell texts."""
    lines = re.findall(r"<tr>(.*?)</tr>", html, re.DOTALL)
    return [[text_of(cell) for cell in re.findall(r"<t[hd].*?>(.*?)</t[hd]>", line, re.DOTALL)] for line in lines]


def some_predictions(labels, classes, wrong=0.4):
    """Return class probabilities; about the share `wrong` is misclassified, and all confidences differ."""
    rng = np.random.default_rng(0)
    chosen = np.where(rng.random(len(labels)) < wrong, rng.integers(0, classes, len(labels)), labels)
    confidence = rng.permutation(np.linspace(0.55, 0.95, len(labels)))
    shares = np.repeat((1 - confidence[:, None]) / (classes - 1), classes, axis=1)
    shares[np.arange(len(labels)), chosen] = confidence
    return shares


def flat(*levels, side=8):
    """Return one image of uniform grey for each level."""
    return np.stack([np.full((side, side, 3), level, np.uint8) for level in levels])


@pytest.fixture
def small(tmp_path):
    return write_pack(tmp_path / "small.h5", names_in("data", CLASSES))


@pytest.fixture
def two_class(tmp_path):
    return write_pack(tmp_path / "two.h5", names_in("data", {"cat": 6, "dog": 9}))


def test_a_page_of_images_without_labels_says_so(tmp_path):
    path = write_rows(tmp_path / "a.h5", [pixels_of(str(row)) for row in range(3)], list("abc"), ["unlabelled"] * 3)
    assert "The images have no labels: all are of the one class unlabelled" in section(
        page_of(SplitSequence(path)), "first"
    )
    with pytest.raises(ValueError, match=r"expected labels to compare them with, found none"):
        page_of(SplitSequence(path), np.zeros((3, 10)))


def test_empty_values_are_parts_and_choices_like_others(tmp_path, capsys):
    """An empty value of a filter must not mean all."""
    filenames = names_in("a", {"cat": 4, "dog": 6})
    values = ["train"] * 6 + [""] * 4
    path = write_pack(tmp_path / "a.h5", filenames, {"split": values, "mark": ["", "x"] * 5})
    page = page_of(SplitSequence(path))
    assert between(page, 'name="column-0">', "</select>").count("<option") == 3
    assert '<option value="(empty)">(empty)</option>' in page
    shown = dict(re.findall(r'<li data-name="(.*?)" .*? data-column-0="(.*?)"', section(page, "sheets")))
    assert shown == {name: "(empty)" if row % 2 == 0 else "x" for row, name in enumerate(filenames)}
    assert table(section(page, "split"))[0] == ["Class", "(empty)", "train"]
    assert main(["view", str(path), "-o", str(tmp_path / "b.html"), "--split", "split", "--part", "tset"]) == 1
    assert capsys.readouterr().err == "h5split: --part tset: expected one of '', 'train'\n"


def test_every_contact_sheet_tile_shows_the_image_it_names(small):
    found = tiles(section(page_of(SplitSequence(small)), "sheets"))
    assert sorted(names(found)) == sorted(PackedImages(small).filenames)
    assert_tiles_show_the_images_they_name(found)


def test_a_tile_shows_its_row_number(small):
    pack = PackedImages(small)
    for tile in tiles(section(page_of(SplitSequence(small)), "sheets")):
        assert pack.filenames[int(re.search(r"row (\d+)$", tile.text)[1])] == tile.name


@pytest.mark.parametrize("seed", [0, 7])
def test_contact_sheets_show_sixty_images_of_a_class_chosen_by_seed(tmp_path, seed):
    pack = write_pack(tmp_path / "p.h5", names_in("data", {"cat": 100, "dog": 70}))
    found = tiles(section(page_of(SplitSequence(pack), seed=seed), "sheets"))
    assert len(found) == len(set(names(found))) == 120
    assert_tiles_show_the_images_they_name(found)
    assert names(found) != names(tiles(section(page_of(SplitSequence(pack), seed=seed + 1), "sheets")))


@pytest.mark.parametrize("channels", [1, 3, 4], ids=["grayscale", "rgb", "rgba"])
def test_images_are_shown_with_their_number_of_channels(tmp_path, channels):
    pack = write_pack(tmp_path / "p.h5", names_in("data", CLASSES), shape=(8, 8, channels))
    page = page_of(SplitSequence(pack))
    assert_tiles_show_the_images_they_name(tiles(page))
    assert {tile.pixels.shape for tile in tiles(page)} == {(8, 8, channels)}


def test_large_images_are_scaled_down_in_proportion(tmp_path):
    shades = [np.full((224, 112, 3), level, np.uint8) for level in (30, 120, 210)]
    pack = write_rows(tmp_path / "p.h5", shades, ["d/a/0.png", "d/a/1.png", "d/b/2.png"], ["a", "a", "b"])
    for tile in tiles(section(page_of(SplitSequence(pack)), "sheets")):
        assert tile.pixels.shape == (204, 102, 3)  # fewer tiles are larger
        assert abs(tile.pixels.mean() - shades[int(tile.name[4])].mean()) < 2


def test_the_page_of_a_part_shows_only_its_images(small):
    _, part = SplitSequence(small).split(0.5)
    page = page_of(part)
    assert sorted(names(tiles(section(page, "sheets")))) == sorted(part.filenames)
    assert_tiles_show_the_images_they_name(tiles(page))
    assert f"{len(part.filenames)} images of 19 in the file" in text_of(page)


def test_two_packs_of_different_lengths_share_one_page(tmp_path):
    first = write_pack(tmp_path / "one.h5", names_in("one", {"dog": 5, "emu": 3}))
    second = write_pack(tmp_path / "two.h5", names_in("two", {"cat": 20, "dog": 4}))
    sequence = SplitSequence(first, second)
    found = tiles(section(page_of(sequence), "sheets"))
    assert sorted(names(found)) == sorted(sequence.filenames)
    assert_tiles_show_the_images_they_name(found)


def test_a_pack_of_one_row_gives_a_page(tmp_path):
    page = page_of(SplitSequence(write_pack(tmp_path / "p.h5", ["data/cat/only.png"])))
    assert names(tiles(section(page, "sheets"))) == ["data/cat/only.png"]


def test_counts_of_one_use_the_singular(tmp_path):
    page = page_of(SplitSequence(write_pack(tmp_path / "p.h5", ["data/cat/only.png"])))
    assert "1 image," in text_of(between(page, "<header>", "</header>"))
    assert "in 1 class;" in text_of(between(page, "<header>", "</header>"))


def test_a_pack_of_one_class_gives_a_page_with_predictions(tmp_path):
    pack = write_pack(tmp_path / "p.h5", names_in("data", {"cat": 5}))
    assert "100.0%" in text_of(section(page_of(SplitSequence(pack), np.ones((5, 1))), "predictions"))


def test_a_thousand_classes_take_less_than_five_megabytes(tmp_path, record_property):
    pack = write_pack(tmp_path / "p.h5", names_in("data", {f"class-{number:04}": 2 for number in range(1000)}))
    predictions = some_predictions(SplitSequence(pack).classes, 1000)
    started = time.perf_counter()
    page = page_of(SplitSequence(pack), predictions)
    record_property("seconds", time.perf_counter() - started)
    record_property("bytes", len(page))
    assert len(page) < 5e6
    assert len(tiles(section(page, "sheets"))) == 720
    assert "280 more classes not shown" in page
    assert "class-0999" in section(page, "classes")


# --- large numbers of classes, parts and files


def test_only_the_largest_and_smallest_of_many_classes_are_shown(tmp_path):
    counts = {f"class-{number:04}": 1 for number in range(1200)} | {"class-0650": 3, "class-0700": 2}
    pack = write_pack(tmp_path / "p.h5", names_in("data", counts))
    page = page_of(SplitSequence(pack), parts={"all": SplitSequence(pack)})
    assert "in 1,200 classes;" in text_of(between(page, "<header>", "</header>"))
    pixels = [line[1] for line in table(section(page, "classes"))[1:]]
    split = [line[0] for line in table(section(page, "split"))[1:-1]]
    expected = [*range(498), 650, 700, *range(700, 1200)]
    assert pixels == split == [f"class-{number:04}" for number in sorted({*expected, 699})]
    for name in ("classes", "split"):
        assert "1,000 of 1,200 classes: half of them those with the most images, half" in text_of(section(page, name))
    assert table(section(page, "split"))[-1] == ["all", "1,203"]


def test_only_the_lowest_recalls_of_many_classes_are_shown(tmp_path):
    pack = write_pack(tmp_path / "p.h5", names_in("data", {f"class-{number:04}": 1 for number in range(1200)}))
    labels = SplitSequence(pack).classes
    scores = np.eye(1200, dtype=np.float32)[np.where(labels >= 1100, labels - 1, labels)]
    page = section(page_of(SplitSequence(pack), scores), "predictions")
    caption, *lines = between(page, "By class", "</table>").split("</thead>")
    assert "the 1,000 of 1,200 with the lowest recall" in caption
    shown = [line[0] for line in table(lines[0])]
    assert shown == [f"class-{number:04}" for number in (*range(900), *range(1100, 1200))]
    assert "of the 40 of 1,200 classes with the most mistakes" in text_of(page)
    cells = re.findall(r"<title>(\d+) class-(\d+) taken for class-(\d+)</title>", page)
    assert {(int(label), int(other)) for number, label, other in cells if number != "0"} == {
        (at, at - 1) for at in range(1101, 1140)
    }
    assert len(cells) == 40 * 40
    picks = re.findall(r'data-pick-label="(.*?)" data-pick-predicted="(.*?)"', between(page, "<svg", "</svg>"))
    assert set(picks) <= {(tile.label, tile.predicted) for tile in tiles(page)}
    options = re.findall(r'<option value="([^"]+)">', page)
    assert {tile.label for tile in tiles(page)} | {tile.predicted for tile in tiles(page)} == set(options)


@pytest.mark.parametrize(("classes", "note"), [(3, "its mistakes."), (40, "its mistakes, if the page shows some.")])
def test_cells_of_the_confusion_matrix_that_can_be_chosen_have_mistakes_to_see(tmp_path, classes, note):
    rng = np.random.default_rng(0)
    labels = np.arange(1500) % classes
    filenames = [f"a/class-{label:02}/{row}.png" for row, label in enumerate(labels.tolist())]
    pack = write_pack(tmp_path / "a.h5", filenames, shape=(1, 1, 3))
    page = section(page_of(SplitSequence(pack), rng.random((1500, classes))), "predictions")
    picks = re.findall(r'data-pick-label="(.*?)" data-pick-predicted="(.*?)"', page)
    assert set(picks) == {(tile.label, tile.predicted) for tile in tiles(page)}
    assert f"Choose a cell to see {note}" in page


def test_memory_does_not_grow_with_the_number_of_classes(tmp_path):
    """A mean image of floats for each class would take 59 MB."""
    names = [f"data/class-{number:03}/{number}.png" for number in range(150)]
    pack = write_pack(tmp_path / "p.h5", names, shape=(128, 128, 3), pixels=list(flat(*range(150), side=128)))
    sequence = SplitSequence(pack)
    page_of(sequence.select([0]))  # load lazily imported modules first
    tracemalloc.start()
    try:
        page_of(sequence)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 30e6


def test_the_largest_of_many_parts_are_shown_and_the_others_summed(tmp_path):
    files = [f"d/{'cat' if at % 2 else 'dog'}/{at}.png" for at in range(70)]
    fold = [f"fold-{min(at // 2, 29):02}" for at in range(70)]  # two rows each, one of each class; the last has 12
    fold[0] = "fold-29"
    pack = write_pack(tmp_path / "p.h5", files, {"fold": fold})
    page = page_of(SplitSequence(pack), parts=SplitSequence(pack).split_by("fold"))
    found = split_table(page)
    assert found["Class"] == [*(f"fold-{at:02}" for at in range(1, 20)), "fold-29", "10 more parts"]
    assert found["cat"] == [*["1"] * 19, "6", "10"]
    assert found["dog"] == [*["1"] * 19, "7", "9"]
    assert found["all"] == [*["2"] * 19, "13", "19"]


def test_the_first_of_many_parts_that_lack_a_class_are_named(tmp_path):
    files = [f"d/{'cat' if at % 2 else 'dog'}/{at}.png" for at in range(60)]
    pack = write_pack(tmp_path / "p.h5", files, {"fold": [f"fold-{at:02}" for at in range(60)]})
    page = page_of(SplitSequence(pack), parts=SplitSequence(pack).split_by("fold"))
    bad = re.findall(r'<li class="bad"><a href="#split">(.*?)</a>', page)
    expected = [f"No image of {'dog' if at % 2 else 'cat'} in fold-{at:02}" for at in range(10)]
    assert bad == [*expected, "Classes without an image in 50 more parts"]


def test_ten_of_many_copies_in_several_parts_are_named(tmp_path):
    files = [f"{at}/cat/same.png" for at in range(40)]
    pack = write_pack(tmp_path / "p.h5", files, {"fold": ["train" if at < 20 else "val" for at in range(40)]})
    page = page_of(SplitSequence(pack), parts=SplitSequence(pack).split_by("fold"))
    names = " = ".join(f"{name} (train)" for name in files[:10])
    assert f"<li>{names} and 30 more</li>" in section(page, "split")


def test_very_long_names_are_shortened_in_the_middle(tmp_path):
    long = "<&" * 2000
    files = [f"d/{long}/a{long}{at}.png" for at in range(30)]
    skipped = [(f"{long}{at}", f"{long}{at}") for at in range(700)]
    columns = {"fold": [f"{long}{at}" for at in range(30)]}
    pack = write_rows(
        tmp_path / "p.h5", flat(*range(30)), files, [f"{long}{at % 4}" for at in range(30)], columns, skipped
    )
    sequence = SplitSequence(pack)
    page = page_of(sequence, some_predictions(sequence.classes, 4), parts=sequence.split_by("fold"))
    assert len(page) < 5e6
    assert f"{long[:200]} [3,701 more characters] {f'{long}3'[-100:]}" in text_of(section(page, "split"))
    assert "the first 500 of 700" in section(page, "skipped")


@given(st.lists(st.integers(0, 5), max_size=30), st.integers(2, 9))
def test_extremes_are_the_largest_and_smallest_numbers(numbers, most):
    chosen = extremes(np.array(numbers, np.int64), most).tolist()
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(len(numbers), most)
    found, ascending = sorted(numbers[at] for at in chosen), sorted(numbers)
    small = most // 2 if len(numbers) > most else len(numbers)
    assert found == ascending[:small] + ascending[len(ascending) - (len(chosen) - small) :]


def test_the_page_is_deterministic(small, tmp_path):
    for name in ("first.html", "second.html"):
        code = "import sys; from h5split.cli import main; sys.exit(main(sys.argv[1:]))"
        run = [sys.executable, "-c", code, "view", small, "-o", tmp_path / name, "--quiet"]
        subprocess.run(run, check=True, timeout=PATIENCE, env=os.environ | {"PYTHONHASHSEED": str(len(name))})
    assert (tmp_path / "first.html").read_bytes() == (tmp_path / "second.html").read_bytes()


def test_the_page_refers_to_no_external_resource(small):
    page = page_of(SplitSequence(small), some_predictions(SplitSequence(small).classes, 3))
    page = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    for value in re.findall(r"""(?:src|href|srcset|action|data|poster)\s*=\s*["']?([^"'\s>]+)""", page):
        assert value.startswith(("data:", "#")), value
    assert not re.search(r"https?:|=\s*[\"']?//|url\(|@import", page)


def test_images_per_class_are_counted(small):
    found = section(page_of(SplitSequence(small)), "classes")
    counts = re.findall(r"<title>(\w+)</title></text>\s*<rect.*?</rect>\s*<text.*?>(\d+)</text>", found)
    assert {name: int(number) for name, number in counts} == CLASSES


def test_mean_and_standard_deviation_are_computed_from_the_pixels(small):
    sequence = SplitSequence(small)
    for line in table(section(page_of(sequence), "classes"))[1:]:
        pixels = sequence.packs.pixels(sequence.rows[sequence.classes == sequence.classnames.index(line[1])])
        assert line[2] == " ".join(f"{value:.0f}" for value in pixels.mean(axis=(0, 1, 2)))
        assert line[3] == " ".join(f"{value:.0f}" for value in pixels.std(axis=(0, 1, 2)))


# --- outliers and identical files


def test_blank_and_nearly_blank_images_are_listed_flattest_first(tmp_path):
    pixels = np.concatenate([flat(0, 90, 255), np.stack([pixels_of(f"{at}.png") for at in range(5)]), flat(7, 60)])
    pixels[8, 0, 0, 0] = 12  # one channel varies a little, by 0.6
    pixels[9, :4, :, 1] = 58  # by 1
    files = [f"d/a/{at}.png" for at in range(10)]
    found = section(page_of(SplitSequence(write_rows(tmp_path / "p.h5", pixels, files, ["a"] * 10))), "outliers")
    blank, nearly = between(found, "<h3>Blank", "<h3>Nearly"), between(found, "<h3>Nearly", "<h3>Darkest")
    assert sorted(names(tiles(blank))) == ["d/a/0.png", "d/a/1.png", "d/a/2.png"]
    assert names(tiles(nearly)) == ["d/a/8.png", "d/a/9.png"]
    for tile in tiles(found):
        assert np.array_equal(tile.pixels, pixels[int(tile.name[4:-4])])


def test_darkest_and_brightest_images_are_listed_in_order(tmp_path):
    levels = np.random.default_rng(0).permutation(np.arange(0, 240, 4))
    pixels = flat(*levels)
    pixels[:, 0, 0] += 10
    files = [f"d/a/{level}.png" for level in levels]
    found = section(page_of(SplitSequence(write_rows(tmp_path / "p.h5", pixels, files, ["a"] * 60))), "outliers")
    dark, bright = found.split("<h3>Brightest")
    assert names(tiles(between(dark + "|", "<h3>Darkest", "|"))) == [f"d/a/{level}.png" for level in range(0, 96, 4)]
    assert names(tiles(bright)) == [f"d/a/{level}.png" for level in range(236, 140, -4)]


@pytest.mark.parametrize("side", [8, 100, 224, 300, 500, 1000])
def test_blank_images_of_any_size_are_found(tmp_path, side):
    levels = [77, 131, 200, 254, 255]
    files = [f"d/level-{level}/{at}.png" for level in levels for at in range(2)]
    pixels = np.repeat(flat(*levels, side=side), 2, axis=0)
    pack = write_rows(tmp_path / "p.h5", pixels, files, [name.split("/")[1] for name in files])
    found = section(page_of(SplitSequence(pack)), "outliers")
    assert sorted(names(tiles(between(found, "<h3>Blank", "<h3>Nearly")))) == sorted(files)


@pytest.mark.parametrize("side", [8, 100, 300, 1000])
def test_a_class_of_white_images_has_a_mean_and_deviation(tmp_path, side):
    pixels = flat(255, 255, side=side)
    page = page_of(SplitSequence(write_rows(tmp_path / "p.h5", pixels, ["d/a/0.png", "d/b/1.png"], ["a", "b"])))
    assert '"nan"' not in page
    line = table(section(page, "classes"))[1]
    assert line[2:4] == ["255 255 255", "0 0 0"]


def test_identical_files_with_different_labels_come_first(tmp_path):
    files = ["d/a/one.png", "e/a/one.png", "d/b/two.png", "d/a/two.png", "f/b/two.png", "d/a/three.png"]
    page = page_of(SplitSequence(write_pack(tmp_path / "p.h5", files)))
    first, second = re.findall(r'<div class="group (\w*)"><p>(.*?)</p>\s*(<ul.*?</ul>)', page, re.DOTALL)
    assert first[:2] == ("bad", "3 identical images, with different labels")
    assert sorted(names(tiles(first[2]))) == ["d/a/two.png", "d/b/two.png", "f/b/two.png"]
    assert second[:2] == ("", "2 identical images")
    assert sorted(names(tiles(second[2]))) == ["d/a/one.png", "e/a/one.png"]
    assert_tiles_show_the_images_they_name(tiles(page))
    finding = re.search(r'<li class="bad"><a href="#identical">(.*?)</a>', page)[1]
    assert "different labels" in finding


def test_left_out_files_are_listed_with_their_reason(tmp_path):
    skipped = [("d/a/x.png", "cut off"), ("d/a/y.png", "cut off"), ("d/b/z.png", "too large")]
    pack = write_rows(tmp_path / "p.h5", flat(1, 2), ["d/a/0.png", "d/b/1.png"], ["a", "b"], skipped=skipped)
    page = page_of(SplitSequence(pack))
    assert table(section(page, "skipped")) == [["Reason", "Files"], ["cut off", "2"], ["too large", "1"]]
    for name, reason in skipped:
        assert f"<li>{name}: {reason}</li>" in page


# --- splits


def split_table(page):
    return {line[0]: line[1:] for line in table(section(page, "split"))}


def test_the_split_table_counts_the_parts_of_a_csv_file(small, tmp_path, capsys):
    sequence = SplitSequence(small)
    train, val = sequence.split(0.7)
    write_split(tmp_path / "s.csv", {"train": train, "val": val})
    arguments = ["view", str(small), "-o", str(tmp_path / "r.html"), "--split", str(tmp_path / "s.csv"), "--quiet"]
    assert main(arguments) == 0
    found = split_table((tmp_path / "r.html").read_text())
    assert found["Class"] == ["train", "val"]
    assert found["all"] == [str(len(train.rows)), str(len(val.rows))]
    for label, name in enumerate(sequence.classnames):
        assert found[name] == [str((part.classes == label).sum()) for part in (train, val)]


def test_a_column_can_be_the_split(tmp_path):
    files = names_in("data", CLASSES)
    fold = ["even" if int(name[-5]) % 2 == 0 else "odd" for name in files]
    pack = write_pack(tmp_path / "p.h5", files, {"fold": fold})
    assert main(["view", str(pack), "-o", str(tmp_path / "r.html"), "--split", "fold", "--quiet"]) == 0
    found = split_table((tmp_path / "r.html").read_text())
    assert found == {
        "Class": ["even", "odd"],
        "cat": ["3", "3"],
        "dog": ["5", "4"],
        "emu": ["2", "2"],
        "all": ["10", "9"],
    }


def test_a_single_part_can_be_viewed_with_its_predictions(tmp_path):
    files = names_in("data", CLASSES)
    fold = ["even" if int(name[-5]) % 2 == 0 else "odd" for name in files]
    pack = write_pack(tmp_path / "p.h5", files, {"fold": fold})
    part = SplitSequence(pack).split_by("fold")["odd"]
    np.save(tmp_path / "p.npy", some_predictions(part.classes, 3))
    options = ["--split", "fold", "--part", "odd", "--predictions", str(tmp_path / "p.npy"), "--quiet"]
    assert main(["view", str(pack), "-o", str(tmp_path / "r.html"), *options]) == 0
    page = (tmp_path / "r.html").read_text()
    assert sorted(names(tiles(section(page, "sheets")))) == sorted(part.filenames)
    expected = part.mistakes(some_predictions(part.classes, 3))
    assert expected
    assert names(tiles(section(page, "predictions"))) == [mistake.filename for mistake in expected]


def test_a_page_of_a_part_shows_what_of_it_is_in_other_parts(tmp_path):
    files = ["a/cat/1.png", "b/cat/1.png", "a/dog/2.png", "c/dog/2.png", "a/cat/3.png", "c/cat/4.png"]
    pack = write_pack(tmp_path / "p.h5", files, {"fold": ["train", "test", "train", "val", "train", "val"]})
    parts = SplitSequence(pack).split_by("fold")
    page = page_of(parts["test"], parts=parts)
    assert "<li>b/cat/1.png (test) = a/cat/1.png (train)</li>" in section(page, "split")
    assert "dog/2.png" not in section(page, "split")
    assert "1 image in more than one part of the split" in page
    assert main(["view", str(pack), "-o", str(tmp_path / "p.html"), "--split", "fold", "--part", "test"]) == 0
    assert "<li>b/cat/1.png (test) = a/cat/1.png (train)</li>" in (tmp_path / "p.html").read_text()


def findings_of(page):
    return re.findall(r'<li class="(\w+)"><a href="#outliers">(.*?)</a>', page)


def test_what_holds_for_the_images_looked_at_is_not_said_of_all(tmp_path, monkeypatch):
    monkeypatch.setattr("h5split.commands.view.page._MAX_PIXEL_BYTES", 8 * 8 * 3 * 4)
    images = [np.repeat(pixels_of(str(row))[..., :1], 3, axis=2) for row in range(12)]
    path = write_rows(tmp_path / "a.h5", images, [f"{row}.png" for row in range(12)], ["cat"] * 12)
    assert "All images that were looked at are grey" in section(page_of(SplitSequence(path)), "first")
    assert "All images are grey" in section(page_of(SplitSequence(path), every_row=True), "first")


def test_grey_images_with_transparency_are_not_called_grey(tmp_path):
    """Stored as grey they would lose their transparency."""
    images = [np.repeat(pixels_of(str(row))[..., :1], 4, axis=2) for row in range(4)]
    path = write_rows(tmp_path / "a.h5", images, list("abcd"), ["cat"] * 4)
    assert findings_of(page_of(SplitSequence(path))) == []


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        (lambda image: image, []),
        (
            lambda image: np.repeat(image[..., :1], 3, axis=2),
            [("doubtful", "All images are grey, but stored in three")],
        ),
        (
            lambda image: image // 8 + 30,
            [("doubtful", "All pixels lie from 30 to 61: the images hardly use their range")],
        ),
        (lambda image: np.full_like(image, image[0, 0, 0]), [("bad", "All images are of one colour each")]),
    ],
    ids=["colours", "grey", "narrow", "blank"],
)
def test_a_page_tells_what_holds_for_all_images(tmp_path, pixels, expected):
    files = [f"d/{label}/{label}-{number}.png" for label in ("cat", "dog") for number in range(8)]
    images = [pixels(pixels_of(name)) for name in files]
    found = findings_of(page_of(SplitSequence(write_pack(tmp_path / "p.h5", files, pixels=images))))
    assert [(grade, text[: len(start)]) for (grade, text), (_, start) in zip(found, expected, strict=True)] == expected


def test_columns_split_and_source_are_parts_if_nobody_gives_them(tmp_path):
    files = ["a/cat/1.png", "b/cat/1.png", "a/dog/2.png"]
    page = page_of(SplitSequence(write_pack(tmp_path / "p.h5", files)))
    assert "<h2>Parts, by the column source</h2>" in page
    assert "<li>a/cat/1.png (a) = b/cat/1.png (b)</li>" in section(page, "split")
    page = page_of(SplitSequence(write_pack(tmp_path / "q.h5", files, {"split": ["x", "y", "x"]})))
    assert "<h2>Parts, by the column split</h2>" in page
    assert "<li>a/cat/1.png (x) = b/cat/1.png (y)</li>" in section(page, "split")


def test_leaks_between_parts_and_missing_classes_are_named(tmp_path):
    files = ["d/cat/same.png", "e/cat/same.png", "d/dog/x.png", "d/cat/y.png"]
    pack = write_pack(tmp_path / "p.h5", files, {"fold": ["train", "val", "train", "in both"]})
    page = page_of(SplitSequence(pack), parts=SplitSequence(pack).split_by("fold"))
    assert "<li>d/cat/same.png (train) = e/cat/same.png (val)</li>" in section(page, "split")
    bad = re.findall(r'<li class="bad"><a href="#split">(.*?)</a>', page)
    assert "No image of dog in val" in bad
    assert any("more than one part" in line for line in bad)


def test_rows_in_no_part_are_counted(small):
    sequence = SplitSequence(small)
    page = page_of(sequence, parts={"some": sequence.select([0, 1, 2])})
    assert "16 images in no part" in text_of(section(page, "split"))


# --- predictions


def assert_predictions_are_shown(page, filenames, predictions, class_names):
    """Assert that matrix and mistakes match the predictions for these files in this order."""
    labels = np.array([class_names.index(name.split("/")[-2]) for name in filenames])
    predicted = predictions.argmax(axis=1)
    for label, name in enumerate(class_names):
        for other, predicted_name in enumerate(class_names):
            assert matrix_of(page)[name, predicted_name] == ((labels == label) & (predicted == other)).sum()
    confidence = predictions.max(axis=1)
    wrong = [at for at in np.argsort(-confidence, kind="stable") if labels[at] != predicted[at]]
    found = tiles(section(page, "predictions"))
    assert names(found) == [filenames[at] for at in wrong]
    assert_tiles_show_the_images_they_name(found)
    for tile, at in zip(found, wrong, strict=True):
        assert tile.predicted == class_names[predicted[at]]
        assert f"taken for {tile.predicted}, {confidence[at]:.1%}" in tile.text


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"auto_shuffle": True},
        {"auto_shuffle": "block"},
        {"auto_shuffle": True, "max_per_class_and_epoch": 5},
        {"auto_shuffle": True, "drop_remainder": True},
        {"max_per_class_and_epoch": 3, "drop_remainder": True, "seed": 5},
    ],
    ids=str,
)
@pytest.mark.parametrize("sequence_class", ["SplitSequence", pytest.param("H5SplitSequence", marks=needs_keras)])
def test_predictions_are_matched_to_the_rows_of_the_delivered_epoch(small, settings, sequence_class):
    sequence = getattr(h5split, sequence_class)(small, batch_size=4, label_mode="int", **settings)
    for _ in range(3):
        labels = np.concatenate([sequence[at][1] for at in range(len(sequence))])
        predictions = some_predictions(labels, 3)
        filenames = sequence.get_filenames(range(len(labels)))
        assert_predictions_are_shown(page_of(sequence, predictions), filenames, predictions, sequence.classnames)


def test_class_scores_and_confusions_are_correct(small):
    sequence = SplitSequence(small)
    predictions = some_predictions(sequence.classes, 3)
    page = section(page_of(sequence, predictions), "predictions")
    predicted = predictions.argmax(axis=1)
    wrong = int((predicted != sequence.classes).sum())
    assert f"{1 - wrong / 19:.1%} of 19 are right; {wrong} are wrong" in text_of(page)
    by_class = {line[0]: line[1:] for line in table(between(page, "By class", "</table>"))}
    for label, name in enumerate(sequence.classnames):
        right = ((predicted == label) & (sequence.classes == label)).sum()
        recall, precision = right / (sequence.classes == label).sum(), right / (predicted == label).sum()
        assert by_class[name] == [str(CLASSES[name]), f"{recall:.1%}", f"{precision:.1%}"]
    confusions = table(between(page, "Most often confused", "</table>"))[1:]
    off = {pair: number for pair, number in matrix_of(page).items() if number and pair[0] != pair[1]}
    assert {(label, taken): int(number) for label, taken, number in confusions} == off
    assert [int(line[2]) for line in confusions] == sorted(off.values(), reverse=True)


def test_the_confidence_chart_counts_every_prediction(small):
    sequence = SplitSequence(small)
    page = page_of(sequence, some_predictions(sequence.classes, 3))
    counts = re.findall(r"%: (\d+) right, (\d+) wrong", page)
    wrong = len(tiles(section(page, "predictions")))
    assert [sum(map(int, column)) for column in zip(*counts, strict=True)] == [19 - wrong, wrong]


@pytest.mark.parametrize("shape", [(15, 1), (15,)], ids=str)
def test_a_single_score_is_the_probability_of_the_second_class(two_class, shape):
    sequence = SplitSequence(two_class, label_mode="binary")
    positive = np.random.default_rng(1).random(15).reshape(shape)
    both = np.stack([1 - positive.reshape(15), positive.reshape(15)], axis=1)
    assert_predictions_are_shown(page_of(sequence, positive), list(sequence.filenames), both, ["cat", "dog"])


def test_perfect_predictions_have_no_mistakes(small):
    sequence = SplitSequence(small)
    page = section(page_of(sequence, np.eye(3)[sequence.classes]), "predictions")
    assert "100.0% of 19 are right; 0 are wrong" in text_of(page)
    assert not tiles(page)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int8])
def test_predictions_may_have_any_numeric_type(small, dtype):
    sequence = SplitSequence(small)
    assert "100.0% of 19" in text_of(page_of(sequence, np.eye(3, dtype=dtype)[sequence.classes]))


def test_scores_that_are_not_probabilities_are_not_shown_as_percentages(small):
    logits = np.random.default_rng(0).normal(size=(19, 3)) * 30
    try:
        page = page_of(SplitSequence(small), logits)
    except ValueError:
        return  # refusing them is also correct
    shares = re.findall(r"taken for \w+, (-?[\d.]+)%", page)
    assert all(0 <= float(share) <= 100 for share in shares), shares


# --- errors


def write_text(path):
    path.write_text("hello")


INVALID_PREDICTIONS = {
    "another shape": lambda path: np.save(path, np.zeros((15, 3))),
    "a scalar": lambda path: np.save(path, np.float64(1)),
    "NaN": lambda path: np.save(path, np.full((15, 2), np.nan)),
    "infinity": lambda path: np.save(path, np.full((15, 1), np.inf)),
    "complex": lambda path: np.save(path, np.zeros((15, 2), complex)),
    "text": lambda path: np.save(path, np.full((15, 2), "x")),
    "one text per row": lambda path: np.save(path, np.full(15, "x")),
    "dates": lambda path: np.save(path, np.zeros(15, "M8[s]")),
    "records": lambda path: np.save(path, np.zeros(15, [("share", "f4")])),
    "objects": lambda path: np.save(path, np.array([{}] * 15, object), allow_pickle=True),
    "a text file": write_text,
    "an empty file": Path.touch,
    "a folder": Path.mkdir,
    "a broken archive": lambda path: path.write_bytes(b"PK\x03\x04 broken"),
    "a missing file": lambda path: None,
}


def assert_one_line_of_error(capsys, arguments, about):
    assert main(["view", *map(str, arguments), "--quiet"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"h5split: [^\n]+\n", err)
    assert re.search(about, err)


@pytest.mark.parametrize("kind", INVALID_PREDICTIONS)
def test_invalid_predictions_give_a_one_line_error(two_class, tmp_path, capsys, kind):
    INVALID_PREDICTIONS[kind](tmp_path / "bad.npy")
    arguments = [two_class, "-o", tmp_path / "r.html", "--predictions", tmp_path / "bad.npy"]
    assert_one_line_of_error(capsys, arguments, r"bad\.npy|predictions")
    assert not (tmp_path / "r.html").exists()


def test_an_output_in_a_missing_folder_is_an_error_that_names_it(small, tmp_path, capsys):
    assert_one_line_of_error(capsys, [small, "-o", tmp_path / "nowhere" / "r.html"], r"nowhere/r\.html")


def test_an_output_that_is_a_folder_is_an_error(small, tmp_path, capsys):
    (tmp_path / "folder").mkdir()
    assert_one_line_of_error(capsys, [small, "-o", tmp_path / "folder"], "folder")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "small.h5"]


def test_the_output_must_not_be_the_pack(small, capsys):
    before = small.read_bytes()
    status = main(["view", str(small), "-o", str(small), "--quiet"])
    assert small.read_bytes() == before
    assert status == 1


def test_the_output_must_not_be_the_predictions_file(small, tmp_path, capsys):
    np.save(tmp_path / "p.npy", np.eye(3)[SplitSequence(small).classes])
    before = (tmp_path / "p.npy").read_bytes()
    arguments = [str(small), "-o", str(tmp_path / "p.npy"), "--predictions", str(tmp_path / "p.npy"), "--quiet"]
    status = main(["view", *arguments])
    assert (tmp_path / "p.npy").read_bytes() == before
    assert status == 1


@pytest.mark.parametrize(
    "there",
    [
        "<!doctype html>",
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>My notes</title>',
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<meta name="generator" content="Hugo">\n',
        '<meta name="generator" content="h5split view">\n',
        "filename,split\n",
    ],
)
def test_a_foreign_file_at_the_output_is_refused_before_any_work(small, tmp_path, there):
    (tmp_path / "r.html").write_text(there)

    def fail(*_):
        raise AssertionError("it must be refused first")

    message = (
        r"r\.html: expected nothing there, or a page of h5split view to replace, found another file; remove it, or"
    )
    with pytest.raises(ValueError, match=message):
        report(SplitSequence(small), None, tmp_path / "r.html", progress=fail)
    assert (tmp_path / "r.html").read_text() == there


def test_an_earlier_page_is_replaced_and_other_files_are_kept(small, tmp_path):
    before = page_of(SplitSequence(small), path=tmp_path / "r.html")
    (tmp_path / "r.html.partial").write_text("mine")
    (tmp_path / "link.html").symlink_to("r.html")
    part = SplitSequence(small).select([3])
    after = page_of(part, path=tmp_path / "link.html")
    assert (tmp_path / "r.html").read_text() == after != before
    assert (tmp_path / "r.html.partial").read_text() == "mine"
    assert sorted(os.listdir(tmp_path)) == ["link.html", "r.html", "r.html.partial", "small.h5"]


def test_a_page_written_by_a_concurrent_run_is_replaced(small, tmp_path):
    def again(done, total):
        page_of(SplitSequence(small).select([3]), path=tmp_path / "r.html")

    page = page_of(SplitSequence(small), path=tmp_path / "r.html", progress=again)
    assert "19 images" in text_of(between(page, "<header>", "</header>"))
    assert sorted(os.listdir(tmp_path)) == ["r.html", "small.h5"]


def test_a_page_can_be_written_to_stdout(small, tmp_path):
    code = "import sys; from h5split.cli import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", code, "view", small, "-o", "/dev/stdout"], capture_output=True, check=True
    )
    assert done.stdout.decode() == page_of(SplitSequence(small))


def test_a_pipe_as_output_is_not_replaced(small, tmp_path):
    """A pipe stands for /dev/null and /dev/stdout here, which root could replace by accident."""
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        code = "import sys; from h5split.cli import main; main(sys.argv[1:])"
        arguments = ["view", small, "-o", tmp_path / "pipe", "--quiet"]
        done = subprocess.Popen([sys.executable, "-c", code, *arguments], stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + PATIENCE
        while done.poll() is None and time.monotonic() < deadline:  # drain the pipe, as a writer blocks when it is full
            try:
                os.read(reader, 1 << 20)
            except BlockingIOError:
                time.sleep(0.02)
        done.kill()
        done.wait()
    finally:
        os.close(reader)
    assert (tmp_path / "pipe").is_fifo()


def test_a_split_table_without_parts_is_an_error_that_names_it(small, tmp_path, capsys):
    (tmp_path / "s.csv").write_text("filename,split\n")
    assert_one_line_of_error(capsys, [small, "-o", tmp_path / "r.html", "--split", tmp_path / "s.csv"], r"s\.csv")


@pytest.mark.parametrize(
    ("options", "about"),
    [
        (["--part", "val"], "--split"),
        (["--split", "source", "--part", "val"], "val.*expected one of 'data'"),
        (["--split", "nowhere"], "columns source"),
    ],
    ids=["no split", "no such part", "no such split"],
)
def test_an_unknown_part_or_split_is_an_error_that_lists_the_choices(small, tmp_path, capsys, options, about):
    assert_one_line_of_error(capsys, [small, "-o", tmp_path / "r.html", *options], about)


@pytest.mark.parametrize("rows", [None, []], ids=["no pack", "no rows"])
def test_an_empty_sequence_is_an_error(small, tmp_path, rows):
    sequence = SplitSequence() if rows is None else SplitSequence(small).select(rows)
    with pytest.raises(ValueError, match=r"empty|found none"):
        report(sequence, None, tmp_path / "r.html")


def test_the_error_says_what_to_install_when_jinja_is_missing(small, tmp_path):
    code = "import sys; sys.modules['jinja2'] = None; from h5split.cli import main; sys.exit(main(sys.argv[1:]))"
    run = [sys.executable, "-c", code, "view", small, "-o", tmp_path / "r.html", "--quiet"]
    done = subprocess.run(run, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 1
    assert re.fullmatch(r"h5split: .*Jinja2.*pip install 'pack-images\[report\]'\n", done.stderr), done.stderr


# --- in a browser


@pytest.fixture
def full(tmp_path):
    """A page that has every section, as (path, sequence, predictions)."""
    files = [*names_in("data", CLASSES), "other/cat/same.png", "other/dog/same.png", "again/dog/data-dog-1.png"]
    fold = ["train" if at % 3 else "val" for at in range(len(files))]
    sequence = SplitSequence(write_pack(tmp_path / "full.h5", files, {"fold": fold}))
    predictions = some_predictions(sequence.classes, 3)
    page_of(sequence, predictions, tmp_path / "full.html", parts=sequence.split_by("fold"))
    return tmp_path / "full.html", sequence, predictions


@pytest.fixture
def learned(tmp_path):
    """Pages about predictions of tags and of numbers, with code and long texts as names: kind -> path."""
    raw = [*SHOWN_AS, "a-rather-long-name-without-any-place-to-break-it" * 2]
    files = names_in("data", {"cat": 20, "dog": 10})
    number = [int(re.search(r"-(\d+)\.png$", name)[1]) for name in files]
    columns = {name: [str(at % 7) for at in number] for name in raw}
    columns["tags"] = [f"{raw[at % len(raw)]}|{raw[at % 3]}" if at % 4 else "" for at in number]
    sequence = SplitSequence(write_pack(tmp_path / "p.h5", files, columns), targets=Tags("tags", "|"))
    paths = {kind: tmp_path / f"{kind}.html" for kind in ("tags", "numbers")}
    page_of(sequence, np.random.default_rng(0).random((30, len(sequence.target_names))), paths["tags"])
    sequence.set(targets=raw)
    page_of(sequence, sequence.get_targets() + np.random.default_rng(0).normal(size=(30, len(raw))), paths["numbers"])
    return paths


KINDS = pytest.mark.parametrize("kind", ["tags", "numbers"])


def all_of(browser, selector):
    return browser.find_elements(By.CSS_SELECTOR, selector)


def one(browser, selector):
    return browser.find_element(By.CSS_SELECTOR, selector)


def press(browser, *keys):
    browser.switch_to.active_element.send_keys(*keys)


def visible(browser, within):
    """Return the names of the visible tiles."""
    script = "return [...document.querySelectorAll(arguments[0])].filter(e => e.checkVisibility())"
    return browser.execute_script(f"{script}.map(e => e.dataset.name)", f"{within} li[data-name]")


def focused(browser):
    """Return the name of the tile that has the focus."""
    return browser.execute_script("return document.activeElement.closest('li')?.dataset.name")


def viewed(browser):
    """Return name and pixels of the image in the viewer, or None if it is closed."""
    viewer = one(browser, "#viewer")
    if not viewer.is_displayed():
        return None
    data = viewer.find_element(By.TAG_NAME, "img").get_attribute("src").partition("base64,")[2]
    return viewer.find_element(By.CSS_SELECTOR, ".name").text, np.asarray(
        Image.open(io.BytesIO(base64.b64decode(data)))
    )


def assert_views(browser, name):
    found, pixels = viewed(browser)
    assert found == name
    assert np.array_equal(pixels, pixels_of(name))


def console_warnings(browser):
    return [line for line in browser.get_log("browser") if line["level"] in {"WARNING", "SEVERE"}]


def click(browser, element):
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
    element.click()


def choose(field, index):
    """Choose an option by keyboard: chromedriver sends fewer events than a browser for a click on an option."""
    field.send_keys(Keys.HOME, *[Keys.ARROW_DOWN] * index)
    assert Select(field).options[index].is_selected()


def filter_sheets(browser, label=None, text=None):
    if label is not None:
        field = one(browser, "[data-filters=sheet-tiles] [name=label]")
        texts = browser.execute_script("return [...arguments[0].options].map(e => e.textContent)", field)
        choose(field, texts.index(label))
    if text is not None:
        field = one(browser, "[data-filters=sheet-tiles] [name=text]")
        field.send_keys(Keys.CONTROL, "a", Keys.NULL, Keys.BACKSPACE, text)


def test_using_the_page_causes_no_console_messages_and_no_requests(browser, full):
    browser.get(full[0].as_uri())
    filter_sheets(browser, "dog", "data")
    filter_sheets(browser, "all", " ")
    for details in all_of(browser, "summary"):
        click(browser, details)
    for link in all_of(browser, "nav a"):
        link.click()
    click(browser, one(browser, "#predictions td a"))
    click(browser, one(browser, "#outliers .tile"))
    press(browser, Keys.ARROW_RIGHT, Keys.ARROW_LEFT)
    one(browser, "#viewer [value='1']").click()
    one(browser, "#viewer [value='close']").click()
    browser.execute_script("scrollTo(0, document.body.scrollHeight)")
    assert console_warnings(browser) == []
    asked = browser.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
    assert [name for name in asked if not name.startswith("data:")] == []


@KINDS
def test_using_a_page_about_tags_or_numbers_causes_no_console_messages(browser, learned, kind):
    browser.get(learned[kind].as_uri())
    for link in all_of(browser, "nav a"):
        link.click()
    for field in all_of(browser, "#predictions select"):
        choose(field, 1)
    click(browser, one(browser, "#predictions [name=text]"))
    press(browser, "data")
    for field in all_of(browser, "#predictions select"):
        choose(field, 0)
    tile = next(tile for tile in all_of(browser, "#mistake-tiles .tile") if tile.is_displayed())
    click(browser, tile)
    assert_views(browser, tile.find_element(By.XPATH, "..").get_attribute("data-name"))
    press(browser, Keys.ESCAPE)
    assert console_warnings(browser) == []
    assert browser.execute_script("return window.canary") is None
    assert len(all_of(browser, "script")) == len(all_of(browser, "style")) == 1
    assert all_of(browser, "[onerror], [onload], main b b, img:not([src^='data:']):not(#viewer img)") == []


def test_names_of_tags_and_columns_are_shown_as_text(browser, learned):
    script = "return [...document.querySelectorAll('#predictions td:first-child')].map(e => e.textContent)"
    for kind in ("tags", "numbers"):
        browser.get(learned[kind].as_uri())
        assert set(SHOWN_AS.values()) < set(browser.execute_script(script))


def test_a_filter_shows_the_mistakes_with_the_chosen_tags(browser, learned):
    browser.get(learned["tags"].as_uri())
    labels = browser.execute_script(
        "return [...document.querySelectorAll('#mistake-tiles li')].map(e => [e.dataset.label, e.dataset.name])"
    )
    field = one(browser, "[data-filters=mistake-tiles] [name=label]")
    texts = browser.execute_script("return [...arguments[0].options].map(e => e.textContent)", field)
    assert set(texts) == {"all", *(label for label, _ in labels)}
    choose(field, texts.index("no tags"))
    expected = [name for label, name in labels if label == "no tags"]
    assert visible(browser, "#mistake-tiles") == expected != []


def test_a_filter_shows_the_largest_errors_of_one_target(browser, learned):
    browser.get(learned["numbers"].as_uri())
    field = one(browser, "[data-filters=mistake-tiles] [name=label]")
    for at, option in ((1, "<script>window.canary=1</script>"), (3, "'><svg onload=window.canary=1>")):
        choose(field, at)
        assert Select(field).first_selected_option.text == option
        shown = [sheet.text for sheet in all_of(browser, "#mistake-tiles .sheet h3") if sheet.is_displayed()]
        assert shown == [f"Largest errors of {option} 27 of 30"]
        assert len(visible(browser, "#mistake-tiles")) == 27


def test_every_image_is_shown_without_scripts(browser, full):
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    browser.get(full[0].as_uri())
    assert not any(form.is_displayed() for form in all_of(browser, ".filter"))
    pictures = all_of(browser, "main img")
    assert len(pictures) == len(tiles(full[0].read_text())) + 3
    assert all(picture.is_displayed() for picture in pictures)
    assert all(picture.rect["width"] >= 48 for picture in pictures)


@pytest.mark.parametrize(
    ("label", "text", "expected"),
    [
        ("dog", None, lambda name: "/dog/" in name),
        (None, "DOG-1", lambda name: "dog-1" in name),
        ("dog", "data-dog-1", lambda name: "/dog/" in name and "data-dog-1" in name),
        ("emu", "cat", lambda name: False),
        (None, ".*", lambda name: False),
        (None, "-1.png", lambda name: "-1.png" in name),
        (None, "[", lambda name: False),
        ("all", "", lambda name: True),
    ],
    ids=["class", "upper-case text", "class and text", "no match", "star", "dot", "bracket", "no filter"],
)
def test_a_filter_shows_exactly_the_matching_tiles(browser, full, label, text, expected):
    browser.get(full[0].as_uri())
    every = visible(browser, "#sheet-tiles")
    assert len(every) == 22
    filter_sheets(browser, label, text)
    left = [name for name in every if expected(name)]
    assert visible(browser, "#sheet-tiles") == left
    assert one(browser, "[data-filters=sheet-tiles] output").text == f"{len(left)} of 22 shown"
    sheets = [sheet for sheet in all_of(browser, ".sheet") if sheet.is_displayed()]
    assert len(sheets) == len({name.split("/")[-2] for name in left})
    assert len(visible(browser, "#mistake-tiles")) == len(all_of(browser, "#mistake-tiles li"))


def test_tiles_can_be_filtered_by_columns_and_the_viewer_shows_them(browser, tmp_path):
    names = names_in("data", {"cat": 6, "dog": 6})
    columns = {
        "modality": ["X-ray" if at % 3 else "CT" for at in range(12)],
        "age": [str(at) for at in range(12)],
        "same": ["x"] * 12,
    }
    page = tmp_path / "page.html"
    report(SplitSequence(write_pack(tmp_path / "p.h5", names, columns)), None, page)
    browser.get(page.as_uri())
    fields = {one_of.text.split()[0]: one_of for one_of in all_of(browser, "[data-filters=sheet-tiles] label")}
    assert set(fields) == {"Class", "modality", "age", "File"}
    choose(fields["modality"].find_element("tag name", "select"), 1)
    assert sorted(visible(browser, "#sheet-tiles")) == sorted(names[::3])
    choose(fields["Class"].find_element("tag name", "select"), 1)
    left = [name for name in names[::3] if "/cat/" in name]
    assert sorted(visible(browser, "#sheet-tiles")) == sorted(left)
    tile = next(tile for tile in all_of(browser, "#sheet-tiles .tile") if tile.is_displayed())
    click(browser, tile)
    name = one(browser, "#viewer .name").text
    assert one(browser, "#viewer .fields").text == f"age: {names.index(name)}; modality: CT"


@pytest.mark.parametrize("label", ["big  cat", " cat", "all", "a&b", 'say "cat"'])
def test_classes_with_unusual_names_can_be_chosen(browser, tmp_path, label):
    files = [f"d/x/{at}.png" for at in range(4)]
    pack = write_rows(tmp_path / "p.h5", flat(1, 2, 3, 4), files, [label, "dog", label, "dog"])
    page_of(SplitSequence(pack))
    browser.get((tmp_path / "p.html").as_uri())
    field = one(browser, "[data-filters=sheet-tiles] [name=label]")
    choose(field, 1 + sorted([label, "dog"]).index(label))
    assert sorted(visible(browser, "#sheet-tiles")) == [files[0], files[2]]


def test_the_filter_field_matches_the_shown_tiles_after_a_reload(browser, full):
    browser.get(full[0].as_uri())
    filter_sheets(browser, "dog")
    browser.refresh()
    chosen = Select(one(browser, "[data-filters=sheet-tiles] [name=label]")).first_selected_option.text
    assert len(visible(browser, "#sheet-tiles")) == (12 if chosen == "dog" else 22)


def test_hovering_over_a_tile_shows_only_its_own_name(browser, full):
    browser.get(full[0].as_uri())
    for tile in all_of(browser, "#sheet-tiles .tile")[3:6]:
        ActionChains(browser).move_to_element(tile).perform()
        captions = [text.text for text in all_of(browser, "#sheet-tiles .caption") if text.is_displayed()]
        name = tile.find_element(By.XPATH, "..").get_attribute("data-name")
        assert len(captions) == 1
        assert captions[0].startswith(name)
        assert name.split("/")[-2] in captions[0].split("\n")[1]


def test_tab_reaches_each_gallery_once_and_arrows_move_within(browser, full):
    browser.get(full[0].as_uri())
    one(browser, "[data-filters=sheet-tiles] [name=text]").click()
    every = [[tile.get_attribute("data-name") for tile in all_of(sheet, "li")] for sheet in all_of(browser, ".sheet")]
    press(browser, Keys.TAB)
    assert focused(browser) == every[0][0]
    press(browser, Keys.ARROW_RIGHT)
    press(browser, Keys.ARROW_RIGHT)
    press(browser, Keys.ARROW_LEFT)
    assert focused(browser) == every[0][1]
    press(browser, Keys.TAB)
    assert focused(browser) == every[1][0]
    press(browser, Keys.END)
    press(browser, Keys.ARROW_RIGHT)
    assert focused(browser) == every[1][-1]
    press(browser, Keys.HOME)
    assert focused(browser) == every[1][0]
    press(browser, Keys.SHIFT, Keys.TAB)
    assert focused(browser) == every[0][1]


def test_arrows_up_and_down_move_by_one_row_of_tiles(browser, tmp_path):
    page_of(SplitSequence(write_pack(tmp_path / "p.h5", names_in("data", {"cat": 50}))))
    browser.get((tmp_path / "p.html").as_uri())
    one(browser, "[data-filters=sheet-tiles] [name=text]").click()
    press(browser, Keys.TAB)
    before = browser.switch_to.active_element.rect
    press(browser, Keys.ARROW_DOWN)
    after = browser.switch_to.active_element.rect
    assert after["x"] == before["x"]
    assert after["y"] > before["y"]
    press(browser, Keys.ARROW_UP)
    assert browser.switch_to.active_element.rect == before


def test_arrows_skip_tiles_hidden_by_the_filter(browser, full):
    browser.get(full[0].as_uri())
    filter_sheets(browser, "dog", "1")
    left = visible(browser, "#sheet-tiles")
    press(browser, Keys.TAB)
    assert focused(browser) == left[0]
    press(browser, Keys.ARROW_RIGHT)
    assert focused(browser) == left[1]
    press(browser, Keys.ENTER)
    assert_views(browser, left[1])
    press(browser, Keys.ARROW_LEFT)
    assert_views(browser, left[0])


def test_enter_opens_the_viewer_arrows_move_on_and_escape_closes_it(browser, full):
    browser.get(full[0].as_uri())
    every = [tile.get_attribute("data-name") for tile in all_of(browser, ".sheet:nth-of-type(1) li")]
    one(browser, "[data-filters=sheet-tiles] [name=text]").click()
    press(browser, Keys.TAB)
    press(browser, Keys.ENTER)
    assert_views(browser, every[0])
    press(browser, Keys.ARROW_LEFT)
    assert_views(browser, every[0])
    press(browser, Keys.ARROW_RIGHT)
    assert_views(browser, every[1])
    one(browser, "#viewer [value='1']").click()
    assert_views(browser, every[2])
    one(browser, "#viewer [value='-1']").click()
    assert_views(browser, every[1])
    press(browser, Keys.ESCAPE)
    assert viewed(browser) is None
    assert focused(browser) == every[1]


def test_a_gallery_remains_a_single_tab_stop_after_the_viewer_closes(browser, full):
    browser.get(full[0].as_uri())
    click(browser, all_of(browser, ".sheet:nth-of-type(2) .tile")[3])
    press(browser, Keys.ESCAPE)
    inside = focused(browser)
    press(browser, Keys.SHIFT, Keys.TAB)
    assert focused(browser).split("/")[-2] != inside.split("/")[-2]


def test_the_viewer_closes_only_by_its_button_or_a_click_outside(browser, full):
    browser.get(full[0].as_uri())
    tile = one(browser, "#sheet-tiles .tile")
    tile.click()
    one(browser, "#viewer [value='close']").click()
    assert viewed(browser) is None
    tile.click()
    rect = browser.execute_script("return arguments[0].getBoundingClientRect().toJSON()", one(browser, "#viewer"))
    actions = ActionBuilder(browser)
    actions.pointer_action.move_to_location(int(rect["x"] + rect["width"] / 2), int(rect["y"] + 6)).click()
    actions.perform()
    assert viewed(browser) is not None, "a click inside, near the edge"
    actions = ActionBuilder(browser)
    actions.pointer_action.move_to_location(5, 5).click()
    actions.perform()
    assert viewed(browser) is None


def test_alt_arrow_keys_are_left_to_the_browser(browser, full):
    browser.get(full[0].as_uri())
    script = """
      const tile = document.querySelectorAll("#sheet-tiles .tile")[2];
      const event = new KeyboardEvent("keydown", {key: "ArrowLeft", altKey: true, bubbles: true, cancelable: true});
      tile.dispatchEvent(event);
      return event.defaultPrevented"""
    assert not browser.execute_script(script)


def test_clicking_a_matrix_cell_shows_its_mistakes(browser, full):
    path, sequence, predictions = full
    browser.get(path.as_uri())
    mistakes = sequence.mistakes(predictions)
    for cell in all_of(browser, ".matrix [data-pick-label]"):
        pair = cell.get_attribute("data-pick-label"), cell.get_attribute("data-pick-predicted")
        click(browser, cell)
        expected = [mistake.filename for mistake in mistakes if (mistake.label, mistake.predicted) == pair]
        assert visible(browser, "#mistake-tiles") == expected != []
        assert one(browser, "[data-filters=mistake-tiles] output").text.startswith(f"{len(expected)} of ")


def test_clicking_a_confusion_shows_its_mistakes(browser, full):
    path, sequence, predictions = full
    browser.get(path.as_uri())
    mistakes = sequence.mistakes(predictions)
    links = all_of(browser, "#predictions td a")
    assert links
    for link in links:
        pair = link.get_attribute("data-pick-label"), link.get_attribute("data-pick-predicted")
        click(browser, link)
        expected = [mistake.filename for mistake in mistakes if (mistake.label, mistake.predicted) == pair]
        assert visible(browser, "#mistake-tiles") == expected
        assert len(expected) == int(link.text)


def test_clicking_a_confusion_clears_an_earlier_name_filter(browser, full):
    browser.get(full[0].as_uri())
    one(browser, "[data-filters=mistake-tiles] [name=text]").send_keys("no such name")
    link = one(browser, "#predictions td a")
    click(browser, link)
    assert len(visible(browser, "#mistake-tiles")) == int(link.text)


def test_mistakes_of_rare_confusions_are_shown_beside_frequent_ones(browser, tmp_path):
    sequence = SplitSequence(write_pack(tmp_path / "p.h5", names_in("data", {"cat": 150, "dog": 3})))
    predictions = np.where(sequence.classes[:, None] == 0, [[0.1, 0.9]], [[0.6, 0.4]])
    page_of(sequence, predictions)
    browser.get((tmp_path / "p.html").as_uri())
    click(browser, one(browser, "#predictions td a[data-pick-label=dog]"))
    assert len(visible(browser, "#mistake-tiles")) == 3


# --- hostile names


@pytest.fixture
def hostile(tmp_path):
    """A page with code as name in every place that shows a name."""
    raw = list(SHOWN_AS)
    pixels = np.stack([pixels_of(f"{at // 2}.png") for at in range(2 * len(raw))])
    files = [f"{at % 2}/{name}" for name in raw for at in range(2)]
    classes = [raw[(at + at % 2) % len(raw)] for at in np.repeat(np.arange(len(raw)), 2)]
    classes[::2] = raw
    pack = write_rows(
        tmp_path / "<img src=x onerror=window.canary=1>.h5",
        pixels,
        files,
        classes,
        columns={"fold": [raw[at % len(raw)] for at in range(len(files))], raw[0]: ["x"] * len(files)},
        skipped=[(name, reason) for name, reason in zip(raw, reversed(raw), strict=True)],
    )
    sequence = SplitSequence(pack)
    predictions = some_predictions(sequence.classes, len(sequence.classnames), wrong=0.9)
    page_of(sequence, predictions, tmp_path / "hostile.html", parts=sequence.split_by("fold"))
    return tmp_path / "hostile.html"


def test_code_in_names_is_not_executed(browser, hostile):
    browser.get(hostile.as_uri())
    for tile in all_of(browser, "#sheet-tiles .tile")[::5]:
        click(browser, tile)
        press(browser, Keys.ESCAPE)
    for cell in all_of(browser, ".matrix [data-pick-label]")[:5]:
        click(browser, cell)
    assert browser.execute_script("return window.canary") is None
    assert console_warnings(browser) == []
    assert len(all_of(browser, "script")) == len(all_of(browser, "style")) == 1
    assert all_of(browser, "[onerror], [onload], main b b, img:not([src^='data:']):not(#viewer img)") == []


def test_names_are_shown_as_text_everywhere(browser, hostile):
    browser.get(hostile.as_uri())

    def texts(selector):
        script = "return [...document.querySelectorAll(arguments[0])].map(e => e.textContent)"
        return browser.execute_script(script, selector)

    expected = set(SHOWN_AS.values())
    assert set(visible(browser, "#sheet-tiles")) == {f"{at}/{name}" for name in expected for at in range(2)}
    assert {re.sub(r" \d+ of \d+$", "", text) for text in texts(".sheet h3")} == expected
    assert set(texts("[data-filters=sheet-tiles] option")) == {"all", *expected}
    assert set(texts("#classes td:nth-child(2)")) == expected
    assert set(texts("#split thead .n")) == expected
    assert {text.strip() for text in texts("#split .legend span")} == expected
    assert set(texts("#skipped td:first-child")) == expected
    assert set(texts("#skipped li")) == {
        f"{name}: {reason}" for name, reason in zip(SHOWN_AS.values(), reversed(SHOWN_AS.values()), strict=True)
    }
    assert browser.title.endswith("<img src=x onerror=window.canary=1>.h5")


def test_the_page_works_with_any_name(browser, hostile):
    browser.get(hostile.as_uri())
    for name in SHOWN_AS.values():
        filter_sheets(browser, name, "")
        labels = browser.execute_script(
            "return [...document.querySelectorAll('#sheet-tiles li:not([hidden])')].map(e => e.dataset.label)"
        )
        assert labels
        assert set(labels) == {name}
        filter_sheets(browser, "all", name)
        assert {f"0/{name}", f"1/{name}"} <= set(visible(browser, "#sheet-tiles"))
    tile = one(browser, "#sheet-tiles li:not([hidden]) .tile")
    click(browser, tile)
    assert viewed(browser)[0] == tile.find_element(By.XPATH, "..").get_attribute("data-name")


# --- appearance

CONTRASTS = """
const parse = (text) => [...text.match(/[\\d.]+/g).map(Number), 1].slice(0, 4);
const over = (top, under) => [0, 1, 2].map((i) => top[i] * top[3] + under[i] * (1 - top[3])).concat(1);
const behind = (e) => {
  if (!e) return [255, 255, 255, 1];
  const own = parse(getComputedStyle(e).backgroundColor);
  return own[3] === 1 ? own : over(own, behind(e.parentElement));
};
const light = (c) => {
  const [r, g, b] = c.slice(0, 3).map((v) => v / 255).map((v) => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
  return .2126 * r + .7152 * g + .0722 * b;
};
const contrast = (a, b) => (Math.max(light(a), light(b)) + .05) / (Math.min(light(a), light(b)) + .05);
const found = {};
for (const e of document.querySelectorAll("body *")) {
  const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
  if (!own || !e.checkVisibility() || e.closest("title, script")) continue;
  const style = getComputedStyle(e), svg = e.namespaceURI.endsWith("svg");
  let ground = behind(e.closest("svg")?.parentElement ?? e);
  const rect = svg && e.parentElement.matches(".cell") && e.parentElement.querySelector("rect");
  if (rect) {
    const fill = getComputedStyle(rect);
    ground = over([...parse(fill.fill).slice(0, 3), Number(fill.fillOpacity)], ground);
  }
  const value = contrast(over(parse(svg ? style.fill : style.color), ground), ground);
  const name = rect ? ".matrix .cell text" : e.tagName.toLowerCase() + (e.className?.trim?.() ? "." + e.className : "");
  found[name] = Math.min(found[name] ?? 99, value);
}
return found"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_has_sufficient_contrast(browser, full, scheme):
    color_scheme(browser, scheme)
    browser.get(full[0].as_uri())
    one(browser, "#sheet-tiles .tile").click()
    found = browser.execute_script(CONTRASTS)
    assert {"p.note", "a", "h2", "td", "output", "small", "figcaption", "caption"} <= set(found)
    assert {name: round(value, 2) for name, value in found.items() if value < 4.5} == {}


@KINDS
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_about_tags_and_numbers_has_sufficient_contrast(browser, learned, kind, scheme):
    color_scheme(browser, scheme)
    browser.get(learned[kind].as_uri())
    found = browser.execute_script(CONTRASTS)
    assert {"td", "th", "span.facts"} <= set(found)
    assert {name: round(value, 2) for name, value in found.items() if value < 4.5} == {}


def test_matrix_numbers_are_readable_when_all_predictions_are_right(browser, tmp_path):
    sequence = SplitSequence(write_pack(tmp_path / "p.h5", names_in("data", CLASSES)))
    page_of(sequence, np.eye(3)[sequence.classes])
    for scheme in ("light", "dark"):
        color_scheme(browser, scheme)
        browser.get((tmp_path / "p.html").as_uri())
        assert browser.execute_script(CONTRASTS)[".matrix .cell text"] >= 4.5, scheme


def test_the_background_is_dark_in_dark_mode(browser, full):
    color_scheme(browser, "dark")
    browser.get(full[0].as_uri())
    color = one(browser, "body").value_of_css_property("background-color")
    assert max(int(part) for part in re.findall(r"\d+", color)[:3]) < 60


def test_the_page_does_not_scroll_sideways_on_a_phone(browser, tmp_path):
    label = "a-rather-long-name-of-a-class-without-any-place-to-break-it"
    files = [*names_in("data", CLASSES), f"x/{label}/{label * 3}.png", f"y/{label}/{label * 3}.png"]
    sequence = SplitSequence(write_pack(tmp_path / "p.h5", files))
    page_of(sequence, some_predictions(sequence.classes, 4), parts={"a": sequence, label: sequence.select([0, 19])})
    phone(browser)
    browser.get((tmp_path / "p.html").as_uri())
    assert_is_no_wider_than_a_phone(browser)
    click(browser, one(browser, "#identical .tile"))
    assert browser.execute_script("return document.documentElement.scrollWidth") == 390


@KINDS
def test_a_page_about_tags_or_numbers_does_not_scroll_sideways_on_a_phone(browser, learned, kind):
    phone(browser)
    browser.get(learned[kind].as_uri())
    assert_is_no_wider_than_a_phone(browser)


def assert_is_no_wider_than_a_phone(browser):
    too_wide = """
      return [...document.querySelectorAll("main *")].filter((e) => e.getBoundingClientRect().right > 391)
        .filter((e) => !e.closest(".wide, .scroll, svg")).map((e) => e.outerHTML.slice(0, 80))"""
    assert browser.execute_script(too_wide) == []
    assert browser.execute_script("return document.documentElement.scrollWidth") == 390


def test_class_names_are_not_cut_off_on_a_phone(browser, tmp_path):
    page_of(SplitSequence(write_pack(tmp_path / "p.h5", names_in("data", {"cat": 3, "HerbaceousVegetation": 2}))))
    phone(browser)
    browser.get((tmp_path / "p.html").as_uri())
    for name in all_of(browser, ".bars .name"):
        start, edge = browser.execute_script(
            "return [arguments[0].getBoundingClientRect().x, arguments[0].closest('svg').getBoundingClientRect().x]",
            name,
        )
        assert start >= edge
