"""The predictions of tags and numbers on the page of `h5split view`."""

from __future__ import annotations

import re

import numpy as np
import pytest

from conftest import names_in, pixels_of, write_pack
from h5split import SplitSequence, Tags
from h5split.cli import main
from h5split.errors import ArgumentError
from h5split.view import report
from test_view import between, names, page_of, section, table, text_of, tiles

FINDINGS = ["COVID-19, ARDS", "Pneumonia", "", "ARDS ,Rare", "COVID-19"]
TAGS = ["ARDS", "COVID-19", "Pneumonia", "Rare"]


def number_of(name):
    """The number of an image, from the end of its file name."""
    return int(re.search(r"-(\d+)\.png$", name)[1])


@pytest.fixture
def pack(tmp_path):
    """A pack with tags and numbers; those of each image follow from its file name."""
    files = names_in("data", {"cat": 12, "dog": 28})
    columns = {
        "finding": [FINDINGS[number_of(name) % 5] for name in files],
        "age": [f"{20 + number_of(name) / 4}" for name in files],
        "price": [f"{1000 - 3 * number_of(name)}" for name in files],
        "always": ["7.5"] * 40,
        "fold": ["even" if number_of(name) % 2 == 0 else "odd" for name in files],
        "known": ["" if number_of(name) % 2 else f"{number_of(name)}" for name in files],
    }
    return write_pack(tmp_path / "pack.h5", files, columns)


def some_scores(sequence, seed=0):
    """Scores that are often right, with ties."""
    noise = np.random.default_rng(seed).normal(0, 0.3, (len(sequence.delivered), len(sequence.target_names)))
    return np.clip(sequence.get_targets() * 0.6 + 0.2 + noise, 0, 1).round(2)


def lines_of(page, caption):
    """The lines of a table, without its heading, by their first cell."""
    return {line[0]: line[1:] for line in table(between(page, caption, "</table>"))[1:]}


def share(number):
    return f"{number:.1%}"


def finding_of(page):
    grade, text = re.search(r'<li class="(\w+)"><a href="#predictions">(.*?)</a>', page).groups()
    return grade, text_of(text)


def assert_pixels_are_of_the_named_images(found):
    assert found
    for tile in found:
        assert np.array_equal(tile.pixels, pixels_of(tile.name, tile.pixels.shape)), tile.name


# --- tags


def test_precision_recall_f1_and_average_precision_of_each_tag(tmp_path):
    files = [f"d/a/{at}.png" for at in range(5)]
    pack = write_pack(tmp_path / "p.h5", files, {"tags": ["X", "X,Y", "Y", "", "X"]})
    sequence = SplitSequence(pack, targets=Tags("tags", names=["X", "Y", "Z"]))
    scores = [[0.9, 0.1, 0.2], [0.8, 0.7, 0.1], [0.8, 0.2, 0.3], [0.6, 0.6, 0.1], [0.3, 0.1, 0.4]]
    page = section(page_of(sequence, scores), "predictions")
    # X: images 0, 1, 4 have it, 0, 1, 2, 3 are predicted, 0 and 1 rightly. Ranked: 0; 1 and 2 with one score; 3; 4. So
    # its average precision is 1/3 * 1/1 + 1/3 * 2/3 + 1/3 * 3/5.
    # Y: images 1, 2 have it, 1 and 3 are predicted. Ranked: 1; 3; 2; the others. 1/2 * 1/1 + 1/2 * 2/3.
    assert lines_of(page, "By tag") == {
        "X": ["3", "4", "50.0%", "66.7%", "57.1%", "75.6%"],
        "Y": ["2", "2", "50.0%", "50.0%", "50.0%", "83.3%"],
        "Z": ["0", "0", "", "", "", ""],
    }
    assert "40.0% of 5 are right in every tag; 3 have a wrong tag." in text_of(page)
    assert finding_of(page_of(sequence, scores)) == (
        "doubtful",
        "3 of 5 predictions have a wrong tag; the lowest F1 is 50.0%, of Y",
    )


@pytest.mark.filterwarnings("default")  # scikit-learn's own are not ours to mend
@pytest.mark.parametrize("seed", range(3))
def test_scores_by_tag_are_those_of_scikit_learn(pack, seed):
    metrics = pytest.importorskip("sklearn.metrics", reason="needs scikit-learn")
    sequence = SplitSequence(pack, targets=Tags("finding"), auto_shuffle=True, batch_size=7)
    list(sequence)
    scores, true = some_scores(sequence, seed), sequence.get_targets()
    found = lines_of(section(page_of(sequence, scores, threshold=0.4), "predictions"), "By tag")
    assert list(found) == TAGS
    predicted = scores >= 0.4
    for at, tag in enumerate(TAGS):
        expected = [
            function(true[:, at], predicted[:, at])
            for function in (metrics.precision_score, metrics.recall_score, metrics.f1_score)
        ]
        expected.append(metrics.average_precision_score(true[:, at], scores[:, at]))
        assert found[tag] == [f"{true[:, at].sum():.0f}", f"{predicted[:, at].sum()}", *map(share, expected)]


OPTIONS = {
    "in order": {},
    "shuffled": {"auto_shuffle": True},
    "capped": {"auto_shuffle": True, "max_per_class_and_epoch": 9},
    "full batches": {"auto_shuffle": "block", "drop_remainder": True},
}
DELIVERED = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)


@DELIVERED
@pytest.mark.parametrize("threshold", [0.5, 0.3])
def test_images_with_wrong_tags_are_shown_as_mistakes_lists_them(pack, options, threshold):
    sequence = SplitSequence(pack, targets=Tags("finding"), batch_size=7, **options)
    for _ in range(2):
        list(sequence)
        scores = some_scores(sequence)
        expected = sequence.mistakes(scores, threshold=threshold)
        page = section(page_of(sequence, scores, threshold=threshold), "predictions")
        found = tiles(page)
        assert f"{len(expected)} have a wrong tag. A tag counts as predicted from a score of {threshold} on." in page
        assert names(found) == [mistake.filename for mistake in expected]
        assert_pixels_are_of_the_named_images(found)
        for tile, mistake in zip(found, expected, strict=True):
            true = {tag.strip() for tag in FINDINGS[number_of(tile.name) % 5].split(",")} - {""}
            assert tile.label == (", ".join(sorted(true)) or "no tags")
            assert tile.predicted == (mistake.predicted or "no tags")
            assert said_of(tile) == expected_of(scores[mistake.position], true, threshold)


def said_of(tile):
    """The tags that a tile says are predicted wrongly, and those that it says are missed, with their scores."""
    parts = (re.search(rf"{what}: (.*?);", tile.text) for what in ("predicted wrongly", "missed"))
    return [set() if part is None else set(part[1].split(", ")) for part in parts]


def expected_of(scores, true, threshold):
    """What `said_of` returns, computed from the scores of an image."""
    scored = {tag: f"{tag} ({score:.1%})" for tag, score in zip(TAGS, scores, strict=True)}
    predicted = {tag for tag, score in zip(TAGS, scores, strict=True) if score >= threshold}
    return [{scored[tag] for tag in tags} for tags in (predicted - true, true - predicted)]


def test_right_tags_give_no_mistakes(pack):
    sequence = SplitSequence(pack, targets=Tags("finding"))
    page = page_of(sequence, sequence.get_targets())
    assert "100.0% of 40 are right in every tag; 0 have a wrong tag" in text_of(section(page, "predictions"))
    assert not tiles(section(page, "predictions"))
    assert finding_of(page) == ("fine", "0 of 40 predictions have a wrong tag")


def test_scores_of_tags_that_are_no_shares_are_not_shown_as_percentages(pack):
    sequence = SplitSequence(pack, targets=Tags("finding"))
    logits = np.where(sequence.get_targets() > 0, 5, 0.25)  # those of the mistakes lie between 0 and 1
    page = section(page_of(sequence, logits, threshold=0), "predictions")
    assert "predicted wrongly: Pneumonia (score 0.25)" in text_of(page)
    assert "%" not in "".join(tile.text for tile in tiles(page))


def test_a_mistake_in_a_rare_tag_is_shown_however_many_there_are(tmp_path):
    files = [f"d/a/{at}.png" for at in range(500)]
    pack = write_pack(tmp_path / "p.h5", files, {"tags": ["rare" if at == 499 else "common" for at in range(500)]})
    sequence = SplitSequence(pack, targets=Tags("tags"))
    page = section(page_of(sequence, np.tile([0.1, 0.4], (500, 1))), "predictions")
    found = tiles(page)
    assert names(found) == [f"d/a/{at}.png" for at in [*range(120), 499]]
    assert "121 of 500: the most confident, and the first of each tag" in text_of(page)


def test_of_many_tags_those_with_the_lowest_f1_are_shown(tmp_path):
    files = [f"d/a/{at}.png" for at in range(1100)]
    pack = write_pack(tmp_path / "p.h5", files, {"tags": [f"tag-{at:04}" for at in range(1100)]})
    sequence = SplitSequence(pack, targets=Tags("tags"))
    scores = np.eye(1100)
    scores[1050:] = 0
    page = section(page_of(sequence, scores), "predictions")
    assert list(lines_of(page, "with the lowest F1")) == [f"tag-{at:04}" for at in [*range(950), *range(1050, 1100)]]
    assert "the 1,000 of 1,100 with the lowest F1" in text_of(page)


def test_many_tags_of_one_image_are_counted(tmp_path):
    pack = write_pack(tmp_path / "p.h5", ["d/a/0.png"], {"tags": ["|".join("abcdefgh")]})
    page = page_of(SplitSequence(pack, targets=Tags("tags", "|")), np.zeros((1, 8)))
    found = tiles(section(page, "predictions"))[0]
    assert found.label == "a, b, c, d, e, 3 more"
    assert "missed: a (0.0%), b (0.0%), c (0.0%), d (0.0%), e (0.0%), 3 more;" in found.text


# --- numbers


def test_errors_of_each_target(tmp_path):
    files = [f"d/a/{at}.png" for at in range(4)]
    columns = {"x": ["1", "2", "3", "4"], "y": ["0.5"] * 4, "z": ["10", "20", "30", "40"]}
    sequence = SplitSequence(write_pack(tmp_path / "p.h5", files, columns), targets=["x", "y", "z"])
    predictions = [[1, 0.5, 10], [4, 0.5, 20], [3, 2.5, 30], [3, 0.5, 40]]
    page = page_of(sequence, predictions)
    # x: errors 0, 2, 0, -1, and the true values lie 1.5, 0.5, 0.5, 1.5 from their mean: R² is 1 - 5 / 5.
    assert lines_of(section(page, "predictions"), "By target") == {
        "x": ["1 to 4", "0.75", "1.118", "2", "0.000"],
        "y": ["0.5", "0.5", "1", "2", "none: constant"],
        "z": ["10 to 40", "0", "0", "0", "1.000"],
    }
    assert finding_of(page) == (
        "doubtful",
        "The worst of 3 targets is x: mean absolute error 0.75, largest error 2, R² 0.000",
    )


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_errors_are_those_of_scikit_learn(pack, dtype):
    metrics = pytest.importorskip("sklearn.metrics", reason="needs scikit-learn")
    sequence = SplitSequence(pack, targets=["age", "price"], auto_shuffle=True)
    list(sequence)
    true = sequence.get_targets()
    predictions = (true + np.random.default_rng(0).normal(0, 3, (40, 2))).astype(dtype)
    found = lines_of(section(page_of(sequence, predictions), "predictions"), "By target")
    for at, name in enumerate(["age", "price"]):
        pair = true[:, at].astype(np.float64), predictions[:, at].astype(np.float64)
        assert found[name][1:] == [
            f"{metrics.mean_absolute_error(*pair):.4g}",
            f"{metrics.mean_squared_error(*pair) ** 0.5:.4g}",
            f"{metrics.max_error(*pair):.4g}",
            f"{metrics.r2_score(*pair):.3f}",
        ]


@DELIVERED
def test_the_largest_errors_of_each_target_come_first(pack, options):
    sequence = SplitSequence(pack, targets=["age", "price"], batch_size=7, **options)
    for _ in range(2):
        list(sequence)
        true = sequence.get_targets()
        predictions = true + np.random.default_rng(1).normal(0, [1, 50], true.shape)
        page = section(page_of(sequence, predictions), "predictions")
        for at, name in enumerate(["age", "price"]):
            found = tiles(between(page + "Largest errors", f"Largest errors of {name}", "Largest errors"))
            order = np.argsort(-np.abs(predictions[:, at] - true[:, at]), kind="stable")
            assert names(found) == sequence.get_filenames(order)
            assert_pixels_are_of_the_named_images(found)
            for tile, place in zip(found, order, strict=True):
                number = number_of(tile.name)
                value = 20 + number / 4 if name == "age" else 1000 - 3 * number
                predicted = predictions[place, at]
                expected = f"{name}, true {value:.7g}, predicted {predicted:.7g}, error {predicted - value:+.3g}, row"
                assert expected in tile.text


SHAPES = {
    "a column": ("age", (40,), "age"),
    "a column, as (N, 1)": ("age", (40, 1), "age"),
    "a list of one column": (["age"], (40,), "age"),
    "an array": (np.arange(40), (40, 1), "target"),
    "an array (N, 1)": (np.arange(40.0)[:, np.newaxis], (40,), "target"),
}


@pytest.mark.parametrize(("targets", "shape", "name"), SHAPES.values(), ids=SHAPES)
def test_one_number_for_each_image_has_any_of_these_shapes(pack, targets, shape, name):
    sequence = SplitSequence(pack, targets=targets)
    true = sequence.get_targets().reshape(40)
    page = page_of(sequence, (true + np.where(true == true.max(), 2, 0)).reshape(shape))
    line = lines_of(section(page, "predictions"), "By target")[name]
    assert line[1:4] == ["0.05", f"{0.1**0.5:.4g}", "2"]
    assert len(tiles(section(page, "predictions"))) == 1  # the other predictions are right
    assert finding_of(page)[1].startswith(f"{name}: mean absolute error 0.05, largest error 2, R² ")


def test_columns_of_an_array_are_numbered(pack):
    sequence = SplitSequence(pack, targets=np.arange(80).reshape(40, 2))
    page = section(page_of(sequence, sequence.get_targets()), "predictions")
    assert list(lines_of(page, "By target")) == ["target 0", "target 1"]


def test_right_numbers_have_no_largest_error(pack):
    sequence = SplitSequence(pack, targets=["age", "always"])
    page = page_of(sequence, sequence.get_targets())
    assert not tiles(section(page, "predictions"))
    assert text_of(section(page, "predictions")).count("None: every prediction is right.") == 2
    assert finding_of(page)[0] == "fine"


def cells_of(page):
    """The cells of a chart: (column, row from below) -> number of images."""
    pattern = r'<rect class="bar" x="([\d.]+)" y="([\d.]+)".*?<title>(\d+) images?</title>'
    side = 360 / 24
    return {
        (round((float(x) - 80) / side), round((370 - float(y)) / side) - 1): int(number)
        for x, y, number in re.findall(pattern, page)
    }


def test_the_chart_counts_every_image_where_its_values_are(pack):
    true = np.array([0, 0, 24, 12.5, 3.5])
    predicted = np.array([0, 0, 24, 0.5, 20.5])
    sequence = SplitSequence(pack).select([0, 1, 2, 3, 4]).set(targets=true)
    page = section(page_of(sequence, predicted), "predictions")
    assert cells_of(page) == {(0, 0): 2, (23, 23): 1, (12, 0): 1, (3, 20): 1}
    assert re.findall(r"<text[^>]*>([^<]*)</text>", between(page, "Predicted against", "</svg>")) == [
        "0",
        "true",
        "24",
        "0",
        "predicted",
        "24",
    ]


def test_a_chart_of_equal_values_has_one_cell(pack):
    sequence = SplitSequence(pack, targets="always")
    page = section(page_of(sequence, np.full(40, 7.5)), "predictions")
    assert cells_of(page) == {(0, 0): 40}


def test_of_many_targets_the_worst_have_charts_and_images(pack):
    true = np.arange(40.0 * 30).reshape(40, 30)
    predictions = true + np.random.default_rng(0).normal(size=true.shape) * np.where(np.arange(30) % 2, 20, 1)
    page = section(page_of(SplitSequence(pack, targets=true), predictions), "predictions")
    shown = re.findall(r"Largest errors of target (\d+)", page)
    assert len(shown) == 12
    assert all(int(at) % 2 for at in shown)
    assert len(tiles(page)) == 300
    assert len(lines_of(page, "By target")) == 30
    assert "Charts and images of the 12 targets with the lowest R²." in text_of(page)


# --- errors

REFUSED = {
    "a dict": (
        {"age": "age", "tags": Tags("finding")},
        (40,),
        r"found a dict; write a page for each target: set\(targets=\.\.\.\) to one",
    ),
    "more axes": (np.zeros((40, 2, 2)), (40, 2, 2), "found text or an array of more axes; give None as predictions"),
    "text": (np.array(["a"] * 40), (40,), "found text or an array of more axes"),
    "tags of another shape": (Tags("finding"), (40, 3), r"predictions: expected shape \(40, 4\), found \(40, 3\)"),
    "tags of other rows": (Tags("finding"), (39, 4), r"predictions: expected shape \(40, 4\), found \(39, 4\)"),
    "numbers of another shape": (["age", "price"], (40,), r"predictions: expected shape \(40, 2\), found \(40,\)"),
    "numbers of other rows": ("age", (39,), r"predictions: expected shape \(40,\), found \(39,\)"),
    "no target": (np.zeros((40, 0)), (40, 0), r"report: expected targets, found an array of shape \(40, 0\)"),
}


@pytest.mark.parametrize(("targets", "shape", "message"), REFUSED.values(), ids=REFUSED)
def test_targets_and_predictions_that_do_not_fit_are_refused_in_one_line(pack, tmp_path, targets, shape, message):
    sequence = SplitSequence(pack, targets=targets)
    with pytest.raises(ArgumentError, match=message) as caught:
        report(sequence, np.zeros(shape), tmp_path / "r.html")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "r.html").exists()


@pytest.mark.parametrize("targets", [{"x": "age"}, np.zeros((40, 2, 2))], ids=["a dict", "more axes"])
def test_without_predictions_any_targets_do(pack, targets):
    assert 'id="predictions"' not in page_of(SplitSequence(pack, targets=targets))


def test_one_of_several_targets_is_shown_once_it_is_set(pack):
    sequence = SplitSequence(pack, targets={"age": "age", "price": "price"}, auto_shuffle=True)
    list(sequence)
    predictions = sequence.get_targets()["age"] + 1
    page = section(page_of(sequence.set(targets="age"), predictions), "predictions")
    assert lines_of(page, "By target")["age"][1] == "1"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("targets", "shape"), [(Tags("finding"), (40, 4)), (["age", "price"], (40, 2)), (None, (40, 2))], ids=str
)
def test_predictions_that_are_not_finite_are_refused(pack, tmp_path, targets, shape, bad):
    predictions = np.zeros(shape)
    predictions[3, 1] = predictions[5, 0] = bad
    sequence = SplitSequence(pack, targets=targets)
    for function in (sequence.mistakes, lambda given: report(sequence, given, tmp_path / "r.html")):
        with pytest.raises(ArgumentError, match="predictions: expected numbers, found NaN or infinity in 2 of 40 rows"):
            function(predictions)
    assert not (tmp_path / "r.html").exists()


def test_targets_that_are_not_finite_are_refused(pack, tmp_path):
    targets = np.zeros((40, 2))
    targets[7, 0] = np.nan
    with pytest.raises(ArgumentError, match=r"targets: .* NaN or infinity in 1 of 40 rows; leave such rows out by"):
        report(SplitSequence(pack, targets=targets), np.zeros((40, 2)), tmp_path / "r.html")


def test_a_threshold_that_is_no_number_is_refused(pack, tmp_path):
    sequence = SplitSequence(pack, targets=Tags("finding"))
    with pytest.raises(ArgumentError, match=r"threshold: expected a number such as 0\.5, found nan"):
        report(sequence, np.zeros((40, 4)), tmp_path / "r.html", threshold=np.nan)


@pytest.mark.parametrize("targets", [None, Tags("finding"), "age"], ids=str)
def test_an_epoch_without_images_is_refused(pack, tmp_path, targets):
    sequence = SplitSequence(pack, batch_size=64, drop_remainder=True, targets=targets)
    shape = sequence.get_targets().shape
    with pytest.raises(ArgumentError, match="predictions: expected an epoch with images, found none"):
        report(sequence, np.zeros(shape), tmp_path / "r.html")


# --- from a shell


@pytest.fixture
def view(pack, tmp_path, capsys):
    """Run `h5split view` with predictions, and return the page; or its one line of error."""

    def run(predictions, *options):
        given = []
        if predictions is not None:
            np.save(tmp_path / "p.npy", predictions)
            given = ["--predictions", str(tmp_path / "p.npy")]
        (tmp_path / "r.html").unlink(missing_ok=True)
        status = main(["view", str(pack), "-o", str(tmp_path / "r.html"), *given, "--quiet", *options])
        out, err = capsys.readouterr()
        assert out == ""
        assert status == bool(err)
        assert (tmp_path / "r.html").exists() != bool(err)
        return err or (tmp_path / "r.html").read_text("utf-8")

    return run


def test_tags_from_a_shell_give_the_same_page(pack, view):
    sequence = SplitSequence(pack, targets=Tags("finding"))
    scores = some_scores(sequence)
    assert view(scores, "--tags", "finding") == page_of(sequence, scores)
    assert view(scores, "--tags", "finding", "--threshold", "0.25") == page_of(sequence, scores, threshold=0.25)
    spaced = SplitSequence(pack, targets=Tags("finding", " "))
    scores = some_scores(spaced)
    assert view(scores, "--tags", "finding", "--separator", " ") == page_of(spaced, scores)


@pytest.mark.parametrize("targets", ["age", ["price", "age"]], ids=["a column", "columns"])
def test_numbers_from_a_shell_give_the_same_page(pack, view, targets):
    sequence = SplitSequence(pack, targets=targets)
    predictions = sequence.get_targets() + 1.5
    text = targets if isinstance(targets, str) else ",".join(targets)
    assert view(predictions, "--targets", text) == page_of(sequence, predictions)


def test_a_column_may_have_a_comma_in_its_name(tmp_path):
    pack = write_pack(tmp_path / "p.h5", ["d/a/0.png", "d/a/1.png"], {"size, cm": ["1", "2"]})
    np.save(tmp_path / "p.npy", np.array([1, 4]))
    options = ["--predictions", str(tmp_path / "p.npy"), "--targets", "size, cm", "--quiet"]
    assert main(["view", str(pack), "-o", str(tmp_path / "r.html"), *options]) == 0
    found = lines_of(section((tmp_path / "r.html").read_text("utf-8"), "predictions"), "By target")
    assert found == {"size, cm": ["1 to 2", "1", "1.414", "2", "-7.000"]}


def test_a_part_has_the_tags_of_the_whole_file(view, pack):
    """Its own are fewer, and a network has an output for each tag of the file."""
    whole = SplitSequence(pack, targets=Tags("finding"))
    parts = whole.split_by("finding")
    part = parts["Pneumonia"]
    scores = some_scores(part)
    found = view(scores, "--tags", "finding", "--split", "finding", "--part", "Pneumonia")
    assert list(lines_of(found, "By tag")) == TAGS
    assert found == page_of(part, scores, parts=parts)


def test_only_the_rows_of_the_part_need_numbers(view, pack):
    parts = SplitSequence(pack).split_by("fold")
    part = parts["even"].set(targets="known")
    predictions = part.get_targets() - 2
    found = view(predictions, "--targets", "known", "--split", "fold", "--part", "even")
    assert found == page_of(part, predictions, parts=parts)
    assert "targets: expected numbers in the column known" in view(np.zeros(40), "--targets", "known")


WRONG = {
    "no predictions": (None, ["--tags", "finding"], "--tags: give --predictions as well"),
    "targets without predictions": (None, ["--targets", "age"], "--targets: give --predictions as well"),
    "a threshold of numbers": ((40,), ["--targets", "age", "--threshold", "1"], "--threshold: give --tags as well"),
    "a separator of classes": ((40, 2), ["--separator", "|"], "--separator: give --tags as well"),
    "both": (
        (40,),
        ["--tags", "finding", "--targets", "age"],
        "--targets and --tags: expected one of them, found both",
    ),
    "no such column": ((40,), ["--targets", "agee"], "targets: expected one of the columns age, .*, found 'agee'"),
    "no such columns": ((40, 2), ["--targets", "age,x"], "targets: expected one of the columns age, .*, found 'x'"),
    "no such tags": ((40,), ["--tags", "x"], "targets: expected one of the columns age, .*, found 'x'"),
    "no separator": ((40,), ["--tags", "finding", "--separator", ""], "targets: expected a text between tags, such"),
    "another shape": ((40,), ["--tags", "finding"], r"predictions: expected shape \(40, 4\), found \(40,\)"),
    "no threshold": ((40, 4), ["--tags", "finding", "--threshold", "nan"], "threshold: expected a number such as 0.5"),
}


@pytest.mark.parametrize(("shape", "options", "message"), WRONG.values(), ids=WRONG)
def test_options_that_do_not_fit_are_an_error_of_one_line(view, shape, options, message):
    found = view(None if shape is None else np.zeros(shape), *options)
    assert re.fullmatch(rf"h5split: {message}.*\n", found)
