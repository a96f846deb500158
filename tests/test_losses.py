"""Losses of an image in packing are recorded in the pack and reported by the summary, `info` and the page."""

from __future__ import annotations

import json
import re
import shutil
import struct
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from conftest import pixels_of, write_classes, write_image
from h5split import FormatError, PackedImages, SplitSequence
from h5split.cli import main as h5split
from h5split.commands.info import describe
from h5split.commands.verify import verify
from h5split.view import report
from pack_images import pack
from pack_images.cli import main

SIDE = 8
DEPTH = "16 bits cut to 8: 4 of 64 levels kept"
PAGES = "only the first of its pages or frames was taken"
TRANSPARENCY = "one colour is left: its transparency was laid on the background"


def levels_of_16_bits(path: Path, seed: int = 0) -> Path:
    """Save a 16-bit image of 64 levels; cutting it to 8 bits keeps 4 of them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    levels = np.random.default_rng(seed).permutation(64).astype(np.uint16) * 16
    Image.fromarray(levels.reshape(SIDE, SIDE)).save(path)
    return path


def pages(path: Path) -> Path:
    frames = [Image.fromarray(pixels_of(f"{path.name}-{number}")) for number in range(2)]
    frames[0].save(path, save_all=True, append_images=frames[1:], lossless=True)
    return path


def strokes(path: Path) -> Path:
    pixels = np.zeros((SIDE, SIDE, 4), np.uint8)
    pixels[2:5, 1:7, 3] = 255
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A relative path to two classes of images, three of which lose something when packed."""
    monkeypatch.chdir(tmp_path)
    write_classes(tmp_path / "data", {"cat": 6, "dog": 6})
    levels_of_16_bits(tmp_path / "data/cat/deep.png")
    pages(tmp_path / "data/dog/pages.webp")
    strokes(tmp_path / "data/dog/strokes.png")
    return "data"


LOSSES = {
    ("data/cat/deep.png", DEPTH),
    ("data/dog/pages.webp", PAGES),
    ("data/dog/strokes.png", TRANSPARENCY),
}


def losses(path: str) -> set[tuple[str, str]]:
    found = PackedImages(path)
    assert verify(found).intact
    return set(found.losses)


# --- in the file


def test_losses_are_in_the_summary_and_in_the_file(root):
    summary = pack(root, "out.h5", workers=1)
    assert set(summary.losses) == LOSSES == losses("out.h5")
    assert list(summary.losses) == PackedImages("out.h5").losses


def test_a_pack_without_losses_has_no_losses_group(tmp_path, packing):
    packing(write_classes(tmp_path / "data", {"cat": 3}))
    with h5py.File(tmp_path / "out.h5") as file:
        assert "losses" not in file
    found = PackedImages(tmp_path / "out.h5")
    assert (found.losses, len(found.loss_table)) == ([], 0)


def test_h5py_can_read_the_losses(root):
    pack(root, "out.h5", workers=1)
    found = PackedImages("out.h5")
    rows = [row for row, name in enumerate(found.filenames) if name in dict(LOSSES)]
    with h5py.File("out.h5") as file:
        assert file["losses/rows"][:].tolist() == rows
        assert sorted(file["losses/kinds"][:].tolist()) == [1, 4, 8]
        at = file["losses/kinds"][:].tolist().index(1)
        assert [int(file[f"losses/{name}"][at]) for name in ("bits", "levels", "kept")] == [16, 64, 4]


@pytest.mark.parametrize("order", ["stratified", "sorted"])
@pytest.mark.parametrize("broken", [["cat/a.png", "dog/zz.png"], ["cat/deep.png"], ["dog/strokes.png", "cat/a.png"]])
def test_losses_stay_with_their_rows_when_broken_images_are_left_out(root, order, broken):
    for name in broken:
        Path(root, name).write_bytes(b"broken")
    pack(root, "out.h5", workers=1, order=order)
    assert losses("out.h5") == {loss for loss in LOSSES if loss[0].removeprefix("data/") not in broken}


def test_losses_survive_an_interrupted_and_continued_run(root):
    pack(root, "whole.h5", workers=1)

    def stop(done, total, left_out):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack(root, "out.h5", workers=1, progress=stop)
    summary = pack(root, "out.h5", workers=1)
    assert summary.continued
    assert set(summary.losses) == LOSSES
    assert Path("out.h5").read_bytes() == Path("whole.h5").read_bytes()


def test_rows_reused_from_the_old_pack_keep_their_losses(root):
    pack(root, "out.h5", workers=1)
    shutil.move("data/cat/deep.png", "data/dog/renamed.png")
    write_image(Path("data/cat/new.png"))
    summary = pack(root, "out.h5", workers=1)
    assert (summary.copied, summary.decoded) == (15, 1)
    moved = {("data/dog/renamed.png", DEPTH), *LOSSES} - {("data/cat/deep.png", DEPTH)}
    assert set(summary.losses) == moved == losses("out.h5")


def test_losses_are_copied_with_the_rows_of_a_source_pack(root):
    pack(root, "old.h5", workers=1)
    levels_of_16_bits(Path("new/cat/other.png"), seed=1)
    summary = pack(["old.h5", "new"], "out.h5", workers=1)
    assert set(summary.losses) == {("new/cat/other.png", DEPTH), *LOSSES} == losses("out.h5")


def test_one_image_can_have_two_losses(tmp_path, packing):
    levels = np.arange(64, dtype=np.uint16).reshape(8, 8)
    path = tmp_path / "data/cat/stack.tif"
    path.parent.mkdir(parents=True)
    Image.fromarray(levels).save(path, save_all=True, append_images=[Image.fromarray(levels)])
    summary = packing(tmp_path / "data")
    assert list(summary.losses) == [(str(path), "16 bits cut to 8: 1 of 64 levels kept"), (str(path), PAGES)]


# --- a damaged table of losses


def damage(name: str, data: object) -> None:
    with h5py.File("out.h5", "r+", libver=("v108", "v110")) as file:
        del file[f"losses/{name}"]
        if data is not None:
            file.create_dataset(f"losses/{name}", data=data)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        pytest.param(
            "rows", np.array([0, 5, 99]), "losses/rows: expected rows from 0 to 14, ascending", id="past the end"
        ),
        pytest.param("rows", np.array([-1, 5, 9]), "losses/rows: expected rows from 0 to 14", id="negative"),
        pytest.param("rows", np.array([5, 5, 9]), "losses/rows: expected rows from 0 to 14, ascending", id="duplicate"),
        pytest.param("rows", np.array([9, 5, 10]), "losses/rows: expected rows .* ascending", id="not ascending"),
        pytest.param("rows", np.array([5, 9, -(2**63)]), "losses/rows: expected rows", id="overflow"),
        pytest.param("rows", np.array([1, 2]), "losses: expected tables of one length", id="too few rows"),
        pytest.param("rows", np.arange(3, dtype="i4"), "losses/rows: expected int64, found int32", id="int32"),
        pytest.param("rows", np.zeros((3, 1), "i8"), "losses/rows: expected 1 dimensions", id="rank 2"),
        pytest.param("kinds", np.zeros(3, "u1"), "losses/kinds: expected a loss for each row", id="no kind"),
        pytest.param("kept", np.zeros(4, "u2"), "losses: expected tables of one length", id="too many kept"),
        pytest.param("levels", None, "losses/levels is missing", id="no levels"),
    ],
)
def test_a_damaged_losses_table_is_refused(root, name, data, message):
    pack(root, "out.h5", workers=1)
    damage(name, data)
    with pytest.raises(FormatError, match=message):
        PackedImages("out.h5")


@pytest.mark.parametrize("instead", [b"a data set", h5py.SoftLink("/columns")])
def test_losses_must_be_a_group(root, instead):
    pack(root, "out.h5", workers=1)
    with h5py.File("out.h5", "r+", libver=("v108", "v110")) as file:
        del file["losses"]
        file["losses"] = instead
    with pytest.raises(FormatError, match="losses: expected a"):
        PackedImages("out.h5")


def test_empty_losses_tables_are_refused(root):
    pack(root, "out.h5", workers=1)
    for name, dtype in (("rows", "i8"), ("kinds", "u1"), ("bits", "u1"), ("levels", "u4"), ("kept", "u2")):
        damage(name, np.zeros(0, dtype))
    with pytest.raises(FormatError, match="losses: expected tables of one length, of 1 or more"):
        PackedImages("out.h5")


def test_an_unknown_kind_of_loss_is_described_as_unknown(root):
    pack(root, "out.h5", workers=1)
    damage("kinds", np.full(3, 64, "u1"))
    texts = {text for _, text in PackedImages("out.h5").losses}
    assert texts == {"something that this version has no name for"}


def test_verify_finds_a_changed_losses_table(root):
    pack(root, "out.h5", workers=1)
    block = PackedImages("out.h5").header.losses["levels"]
    with open("out.h5", "r+b") as file:
        file.seek(block.offset)
        file.write(struct.pack("<I", 77))
    assert verify(PackedImages("out.h5")).tables is False


# --- where losses are reported


def test_the_command_groups_losses_by_kind_and_suggests_a_remedy(root, capsys):
    for number in range(4):
        levels_of_16_bits(Path(f"data/cat/more-{number}.png"), seed=2 + number)
    assert main([root, "-o", "out.h5", "--workers", "1"]) == 0
    out = capsys.readouterr().out
    assert "packed with a loss: 7 images\n  5: samples were cut to 8 bits; --range scales" in out
    assert out.count(DEPTH) == 3
    assert "    ... and 2 more\n" in out
    assert f"--color rgba keeps it\n    data/dog/strokes.png: {TRANSPARENCY}\n" in out
    assert f"pack them all\n    data/dog/pages.webp: {PAGES}\n" in out


def test_quiet_prints_one_line_for_left_out_images_and_one_for_losses(root, capsys):
    Path("data/cat/broken.png").write_bytes(b"broken")
    assert main([root, "-o", "out.h5", "--workers", "1", "--quiet"]) == 0
    said = capsys.readouterr()
    assert said.out == ""
    left_out, lossy = said.err.splitlines()
    assert left_out == ("pack-images: left out: 1 image, such as data/cat/broken.png: not an image that Pillow knows")
    assert re.fullmatch(r"pack-images: packed with a loss: 3 images, such as data/.*: .*", lossy)


def test_info_lists_the_losses(root, capsys):
    pack(root, "out.h5", workers=1)
    assert h5split(["info", "out.h5"]) == 0
    out = capsys.readouterr().out
    assert "packed with a loss: 3 images\n" in out
    assert all(f"    {name}: {text}\n" in out for name, text in LOSSES)
    assert h5split(["info", "out.h5", "--json"]) == 0
    assert {tuple(loss) for loss in json.loads(capsys.readouterr().out)["losses"]} == LOSSES
    assert set(describe(PackedImages("out.h5")).losses) == LOSSES


def page(sequence: SplitSequence) -> str:
    report(sequence, None, "page.html")
    return Path("page.html").read_text("utf-8")


def test_the_page_reports_losses_first_and_left_out_files_second(root):
    shutil.copy("data/cat/deep.png", "data/dog/same.png")  # a labelling error, which is reported later
    Path("data/cat/broken.png").write_bytes(b"broken")
    pack(root, "out.h5", workers=1)
    text = page(SplitSequence("out.h5"))
    findings = re.findall(r'<li class="(\w+)"><a href="#(\w+)">(.*?)</a>', text)
    assert [found[:2] for found in findings][:3] == [("bad", "losses"), ("bad", "skipped"), ("bad", "identical")]
    assert findings[0][2].startswith("4 images packed with a loss: samples were cut to 8 bits (2); ")
    listed = set(re.findall(r"<li>(data/[^<]*?): ([^<]*)</li>", text.split('id="losses"')[1].split("</section>")[0]))
    assert listed == {("data/dog/same.png", DEPTH), *LOSSES}


def test_a_page_of_selected_rows_shows_only_their_losses(root):
    pack(root, "out.h5", workers=1)
    sequence = SplitSequence("out.h5")
    cats = page(sequence.select(sequence.classes == 0))
    assert "data/cat/deep.png: 16 bits" in cats
    assert TRANSPARENCY not in cats
    dogs = page(sequence.select(sequence.classes == 1))
    assert "samples were cut" not in dogs


def test_a_page_of_several_packs_shows_the_losses_of_all(root):
    pack(root, "out.h5", workers=1)
    levels_of_16_bits(Path("new/cat/other.png"), seed=1)
    pack("new", "new.h5", workers=1)
    text = page(SplitSequence("out.h5", "new.h5", label_mode="int"))
    assert "4 images packed with a loss" in text
    assert f"new/cat/other.png: {DEPTH}" in text


def test_output_does_not_mention_losses_when_there_are_none(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_classes(tmp_path / "data", {"cat": 3})
    assert main(["data", "-o", "out.h5", "--workers", "1"]) == 0
    assert h5split(["info", "out.h5"]) == 0
    assert "loss" not in capsys.readouterr().out
    assert "loss" not in re.sub(r"lossless", "", page(SplitSequence("out.h5"))).lower()


def test_pictures_that_kept_the_fewest_levels_come_first_and_range_is_not_advised_again(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("data/cat").mkdir(parents=True)
    spans = [(0, 4095), (0, 4095), (4000, 60_000), (0, 4095), (3000, 60_000)]  # what lies above 4095 becomes white
    for number, (low, high) in enumerate(spans):
        levels = np.linspace(low, high, 64 * 64).astype(np.uint16).reshape(64, 64)
        Image.fromarray(levels).save(f"data/cat/{number}.png")
    options = ["--range", "0:4095", "--order", "sorted", "--workers", "1"]
    assert main(["data", "-o", "out.h5", *options]) == 0
    lines = [
        "packed with a loss: 5 images",
        "  5: samples were scaled to 8 bits; --dtype uint16 or float32 keeps them",
        "    data/cat/2.png: 16 bits cut to 8: 7 of 4,096 levels kept",
        "    data/cat/4.png: 16 bits cut to 8: 69 of 4,096 levels kept",
        "    data/cat/0.png: 16 bits cut to 8: 256 of 4,096 levels kept",
    ]
    assert "\n".join(lines) in capsys.readouterr().out
    assert h5split(["info", "out.h5"]) == 0
    assert "\n".join(lines) in capsys.readouterr().out
    assert main(["data", "-o", "out.h5", *options, "--quiet"]) == 0
    assert "packed with a loss: 5 images, such as data/cat/2.png: 16 bits cut to 8: 7 of" in capsys.readouterr().err
    text = page(SplitSequence("out.h5"))
    assert text.index("7 of 4,096 levels") < text.index("69 of 4,096 levels") < text.index("256 of 4,096 levels")
    assert "--range" not in text
