"""Tests of the documentation: examples in README, docstrings and help run, and links are valid."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import os
import pydoc
import re
import shlex
import subprocess
import sys
import textwrap
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from range_server import RangeServer

from conftest import write_classes
from h5split import PackedImages, SplitSequence
from h5split import cli as h5split_cli
from pack_images import arguments, cli

PROJECT = Path(__file__).parents[1]
DOCS = PROJECT / "docs"
README = (PROJECT / "README.md").read_text()
REPLACED = {  # tests have no network for weights, and little time
    '"imagenet"': "None",
    "--size 96": "--size 32 --classes cross,disc",
    'metrics=["accuracy"])': "run_eagerly=True)",
}
BACKENDS = (
    "albumentations",
    "jax",
    "keras",
    "lightning",
    "pandas",
    "pydicom",
    "sklearn",
    "tensorflow",
    "torch",
    "torchvision",
)
RUN_ELSEWHERE = {"guides/augmentation.md", "guides/elsewhere.md", "guides/hosts.md"}  # below, and in test_examples.py


def blocks(text):
    """Return the code blocks of a page from top to bottom: (language, name of the file or empty, text)."""
    return re.findall(r'^```(sh|python)(?: title="(.*?)")?\n(.*?)^```', text, re.DOTALL | re.MULTILINE)


def pages():
    """Return the pages with code that runs, without the folder docs."""
    found = [str(path.relative_to(DOCS)) for path in sorted(DOCS.rglob("*.md")) if blocks(path.read_text())]
    return [page for page in found if page not in RUN_ELSEWHERE]


def example(documented):
    """Return the code in a docstring, after the first line that ends in a colon."""
    return textwrap.dedent(re.search(r":\n\n((?:    .*\n|\n)+)", inspect.getdoc(documented))[1])


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Return a folder with the files that pages speak of."""
    monkeypatch.chdir(tmp_path)
    make = [sys.executable, str(PROJECT / "tools/make_images.py"), "data", "--count", "300", "--roots", "2"]
    subprocess.run(make, check=True, capture_output=True)
    for folder, classes in (("photos", ("ants", "bees")), ("more", ("disc", "ring")), ("still-more", ("disc", "oval"))):
        write_classes(tmp_path / folder, dict.fromkeys(classes, 3))
    for photo in Path("photos").rglob("*.png"):
        write_mask(photo)
    Path("labels.csv").write_text("filename,label\ndata/root-1/cross/cross-0000000.jpg,disc\n")
    lines = [f"{path.relative_to('data')},{path.parent.name}" for path in sorted(Path("data").rglob("*.jpg"))]
    Path("splits.csv").write_text("\n".join(["path,label", *lines]))
    write_scans()
    write_deep()
    if find_spec("pydicom"):
        write_dicoms()
    return tmp_path


def write_mask(photo):
    """Write the mask of a photograph: its first channel, under the same path in the folder `masks`."""
    mask = Path("masks", *photo.parts[1:])
    mask.parent.mkdir(parents=True, exist_ok=True)
    Image.open(photo).getchannel(0).save(mask)


def write_scans():
    """Make the folder `scans` and its table: two images of each of 30 patients."""
    write_classes(Path(), {"scans": 60})
    findings = ("", '"nodule, mass"', "mass", "nodule")
    lines = ["filename,patient,age,weight,finding,sex,split"]
    for number, path in enumerate(sorted(Path("scans").iterdir())):
        patient, part = number // 2, "test" if number >= 48 else "train"
        facts = (f"p{patient:02}", 15 + patient * 2, 0.5, findings[patient % 4], "FM"[patient % 2], part)
        lines.append(",".join(map(str, (path.name, *facts))))
    Path("scans.csv").write_text("\n".join(lines))


def write_deep():
    """Make `tiles`, TIFFs of 13 bands of 16 bits in two classes, and `xrays`, PNGs of 12 bits."""
    rng = np.random.default_rng(0)
    Path("xrays").mkdir()
    for number in range(12):
        tile = Path("tiles", ("forest", "river")[number % 2], f"{number}.tif")
        tile.parent.mkdir(parents=True, exist_ok=True)
        bands = rng.integers(0, 10_000, (64, 64, 13), np.uint16)
        bands[:4, :4] = 65535 if number == 5 else bands[:4, :4]
        tifffile.imwrite(tile, bands, planarconfig="contig")
        Image.fromarray(rng.integers(0, 4096, (256, 256), np.uint16)).save(f"xrays/{number}.png")


def write_dicoms():
    """Make `dicoms`, X-rays of 12 bits of 8 patients in two views, and `ct`. Each X-ray is brighter on the right."""
    import pydicom

    levels = np.tile(np.arange(64, dtype=np.uint16), (64, 1))
    for number in range(16):
        view, kind = ("PA", "LL")[number % 2], f"MONOCHROME{1 + number // 2 % 2}"
        scan = pydicom.Dataset()
        scan.PatientID, scan.PatientSex, scan.ViewPosition = f"p{number // 2}", "FM"[number // 8], view
        pixels = levels * 60 + number
        scan.set_pixel_data(pixels if kind == "MONOCHROME2" else 4095 - pixels, kind, 12)
        write_dicom(Path("dicoms", f"{number}.dcm"), scan)
    for number in range(3):
        scan = pydicom.Dataset()
        scan.set_pixel_data(levels * 32 + number, "MONOCHROME2", 12)
        scan.RescaleSlope, scan.RescaleIntercept = 1, -1024
        write_dicom(Path("ct", f"{number}.dcm"), scan)


def write_dicom(path, scan):
    """Write a DICOM file, without compression."""
    from pydicom.uid import CTImageStorage, generate_uid

    scan.SOPClassUID, scan.SOPInstanceUID = CTImageStorage, generate_uid(entropy_srcs=[str(path)])
    path.parent.mkdir(exist_ok=True)
    scan.save_as(path, enforce_file_format=True)


@pytest.fixture
def packs(here):
    """Return a folder that also has the packs that other pages make."""
    run_command("pack-images data/* -o eurosat.h5 --size 64 --quiet")
    table = "pack-images --manifest scans.csv --root scans --size 64 --color grayscale --quiet"
    run_command(f"{table} -o scans.h5 --labels none")
    run_command(f"{table} -o by-sex.h5 --label-column sex")
    run_command("pack-images photos -o photos.h5 --quiet")
    run_command("pack-images masks -o masks.h5 --like photos.h5 --color index --quiet")
    return here


def run_command(line):
    program, *words = shlex.split(line, comments=True)
    arguments = [path for word in words for path in (sorted(map(str, Path().glob(word))) if "*" in word else [word])]
    run = {"pack-images": cli.main, "h5split": h5split_cli.main}[program]
    assert run(arguments) == 0, line


def run_page(path, replaced=REPLACED):
    """Run the examples of a page from top to bottom. Return the names that they define."""
    text = path.read_text()
    for shown, run in replaced.items():
        text = text.replace(shown, run)
    namespace = {}
    for language, file, code in blocks(text):
        if file:
            Path(file).write_text(code)
        elif language == "python":
            exec(compile(code, path.name, "exec"), namespace)
        else:
            for line in filter(None, code.splitlines()):
                run_command(line)
    return namespace


@pytest.fixture
def everything(monkeypatch):
    """Skip a test unless all that pages use is installed. Let torchvision load beside a torch without a GPU."""
    if not all(map(find_spec, BACKENDS)):
        pytest.skip("needs all that the pages use: pip install 'pack-images[backends]'")
    monkeypatch.syspath_prepend(PROJECT / "tools/peers")
    importlib.import_module("cpu_torchvision")
    monkeypatch.setenv("NO_ALBUMENTATIONS_UPDATE", "1")  # it asks a server for a newer version


@pytest.mark.filterwarnings("default")
def test_the_readme_runs_from_top_to_bottom(here, everything, capsys):
    run_page(PROJECT / "README.md")
    assert {"eurosat.h5", "report.html"} <= set(os.listdir(here))
    assert "root-" in capsys.readouterr().out


def test_the_readme_can_be_finished():
    assert len(README.splitlines()) <= 130


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("page", pages())
def test_a_page_runs_from_top_to_bottom(packs, everything, page):
    run_page(DOCS / page)


@pytest.mark.filterwarnings("default")
def test_the_guide_on_bands_scales_by_every_pixel_of_the_part(packs, everything):
    page = run_page(DOCS / "guides/bands.md")
    pixels = np.concatenate([images for images, _ in page["train"]]).astype(np.float64)
    for found, expected in (
        (page["scaling"].mean, pixels.mean((0, 1, 2))),
        (page["scaling"].variance, pixels.var((0, 1, 2))),
    ):
        np.testing.assert_allclose(np.asarray(found).ravel(), expected, rtol=1e-5)
    assert sum(np.isnan(images).any() for images, _ in page["measured"].set(batch_size=1)) == 1  # one tile has nodata


def test_the_decoders_of_the_guide_on_x_rays_read_what_is_in_the_files(here):
    pytest.importorskip("pydicom", reason="needs pydicom")
    decoders = {}
    for _, file, code in blocks((DOCS / "guides/xrays.md").read_text()):
        exec(code if file else "", decoders)
    for number in range(16):  # half of them are MONOCHROME1
        found = decoders["xray"](Path(f"dicoms/{number}.dcm").read_bytes())
        assert (found.dtype, found[0].tolist()) == (np.uint16, [level * 60 + number for level in range(64)])
    units = decoders["ct"](Path("ct/2.dcm").read_bytes())
    assert (units.dtype, units[0, :2].tolist()) == (np.float32, [-1022.0, -990.0])


@pytest.mark.filterwarnings("default")
def test_the_guide_on_packs_elsewhere_runs_with_a_web_server(packs, everything, monkeypatch, capsys):
    pytest.importorskip("aiohttp", reason="needs aiohttp: pip install 'pack-images[remote]'")
    monkeypatch.setenv("XDG_CACHE_HOME", str(packs / "cache"))
    with RangeServer() as server:
        address = server.put("eurosat.h5", Path("eurosat.h5"))
        page = run_page(DOCS / "guides/elsewhere.md", {"s3://bucket/eurosat.h5": address})
    assert len(os.listdir(packs / "cache/h5split")) == len(os.listdir(packs / "copies")) == 1  # shared by all
    assert page["pack"].copy.is_whole
    local = PackedImages("eurosat.h5")
    assert np.array_equal(page["pack"].images, local.images)
    assert f"in {packs}/copies" in capsys.readouterr().out
    first, last = page["mine"].rows[[0, -1]]
    assert last - first == len(page["mine"].rows) - 1


@pytest.mark.filterwarnings("default")
def test_the_examples_of_docstrings_run(packs, everything):
    from h5split import H5SplitSequence

    namespace = run_page(DOCS / "quickstart.md")
    for documented in (SplitSequence, H5SplitSequence):
        code = example(documented).replace("epochs=30", "epochs=1")
        exec(compile(code, documented.__name__, "exec"), {"SplitSequence": SplitSequence, **namespace})


@pytest.mark.filterwarnings("default")
def test_the_recipes_for_augmentation_run_and_are_reproducible(packs, everything):
    from h5split import H5SplitSequence

    namespace = run_page(DOCS / "guides/augmentation.md")
    assert (namespace["images"].dtype, namespace["images"].shape) == (np.float32, (32, 64, 64, 3))
    plain = H5SplitSequence("eurosat.h5")
    for name in ("flip", "brighter", "keras_layers", "with_albumentations", "with_torchvision", "mixup"):
        first, again = plain.map(namespace[name]), plain.map(namespace[name])
        for before, after in zip([*first[3], *first[4]], [*again[3], *again[4]], strict=True):
            assert np.array_equal(before, after), name
        again.epoch = first.epoch + 1
        assert not np.array_equal(first[3][0], again[3][0]), name
        assert not np.array_equal(first[3][0], plain[3][0]), name
    pairs = H5SplitSequence("photos.h5", targets=PackedImages("masks.h5"))
    for name in ("flip_both", "both_with_albumentations"):
        assert_both_move(pairs, pairs.map(namespace[name]), 0 if name == "flip_both" else None)


def assert_both_move(plain, changed, channel):
    """Check that some photographs are mirrored or turned, and that their masks are like them.

    Args:
        plain: Photographs, and masks that are their first channel.
        changed: The same, moved.
        channel: If colours are as before: the channel that masks are equal to.
    """
    moves = 0
    for epoch in range(5):
        changed.epoch = epoch
        for (photos, before), (found, after) in zip(plain, changed, strict=True):
            assert np.array_equal(before[..., 0], photos[..., 0])
            moves += sum(not np.array_equal(*pair) for pair in zip(before, after, strict=True))
            for photo, mask, one, other in zip(photos, before, found, after, strict=True):
                turned = [np.rot90(side, number) for side in (mask, mask[:, ::-1]) for number in range(4)]
                number = next(at for at, mask_there in enumerate(turned) if np.array_equal(mask_there, other))
                whole = [np.rot90(side, turn) for side in (photo, photo[:, ::-1]) for turn in range(4)][number]
                if channel is not None:
                    assert np.array_equal(one, whole)
                # A change of colours keeps the order of values.
                order = np.argsort(whole[..., 0], axis=None, kind="stable")
                assert (np.diff(one[..., 0].ravel()[order].astype(int)) >= 0).all()
    assert moves > 5


def test_the_commands_in_the_help_run(here):
    for text in (arguments._EPILOG, h5split_cli._EPILOG):
        for line in re.findall(r"^  ((?:pack-images|h5split) .*)$", text, re.MULTILINE):
            run_command(line)


@pytest.mark.parametrize("name", ["SplitSequence", "H5SplitSequence"])
def test_help_lists_every_setting_with_its_type_and_default(name):
    pytest.importorskip("keras", reason="needs Keras")
    import h5split

    documented = getattr(h5split, name)
    text = pydoc.render_doc(documented, renderer=pydoc.plaintext)
    for function in (documented, documented.set):
        parameters = inspect.signature(function).parameters
        for setting in dataclasses.fields(h5split.Settings):
            found = parameters[setting.name]
            assert (found.annotation, found.default) == (setting.type, setting.default)
            assert f"{setting.name}: {setting.type!r} = {setting.default!r}" in text


def test_a_misspelt_setting_is_found_by_mypy(tmp_path):
    pytest.importorskip("mypy", reason="needs mypy: pip install 'pack-images[dev]'")
    lines = ["from h5split import SplitSequence", "SplitSequence('a.h5', batch_size=8)", "SplitSequence(batch_sise=8)"]
    lines += ["SplitSequence('a.h5').set(auto_shufle=True)", "SplitSequence('a.h5', batch_size='8')"]
    (tmp_path / "use.py").write_text("\n".join(lines))
    path = os.pathsep.join(map(str, (tmp_path, PROJECT / "loader", PROJECT / "packer")))
    # Together with the packages, because their types are in the cache of mypy then.
    checked = [sys.executable, "-m", "mypy", "-m", "use", "-p", "h5split", "-p", "pack_images"]
    done = subprocess.run(checked, cwd=PROJECT, env={**os.environ, "MYPYPATH": path}, capture_output=True, text=True)
    assert re.findall(r"use\.py:(\d): error: (\w+)", done.stdout) == [
        ("3", "Unexpected"),
        ("4", "Unexpected"),
        ("5", "Argument"),
    ], done.stdout


def test_relative_links_lead_to_existing_files():
    documents = [PROJECT / name for name in ("README.md", "ARCHITECTURE.md", "CHANGELOG.md")]
    for document in [*documents, *DOCS.rglob("*.md")]:
        for target in re.findall(r"\]\((?!https:)([^)#]+)\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"
