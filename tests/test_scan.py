"""Scanning folders: which files become rows, with which label, in which order."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from pack_images import PackError
from pack_images.find.labels import LabelRule
from pack_images.find.scan import scan


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def labelled(found, root):
    prefix = f"{root}/"
    return {name.removeprefix(prefix): label for name, label in zip(found.filenames, found.labels, strict=True)}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_root_and_its_class_folders_give_the_same_labels(here):
    touch(*(here / "data" / root / name / "x.jpg" for root in ("run1", "run2") for name in ("cat", "dog")))
    as_roots = scan(["data/run1", "data/run2"])
    as_classes = scan(["data/run1/cat", "data/run1/dog", "data/run2/cat", "data/run2/dog"])
    assert as_roots.filenames == as_classes.filenames
    assert as_roots.labels == as_classes.labels == ["cat", "dog", "cat", "dog"]
    assert as_roots.columns["source"] == ["data/run1", "data/run1", "data/run2", "data/run2"]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ("auto", {"cat/x.jpg": "cat", "dog/young/y.png": "dog"}),
        ("subfolder", {"cat/x.jpg": "cat", "dog/young/y.png": "dog"}),
        ("parent", {"cat/x.jpg": "cat", "dog/young/y.png": "young"}),
        ("root", {"cat/x.jpg": "data", "dog/young/y.png": "data"}),
    ],
)
def test_the_labels_option_chooses_the_folder_that_gives_the_label(here, labels, expected):
    touch(here / "data/cat/x.jpg", here / "data/dog/young/y.png")
    assert labelled(scan(["data"], LabelRule(labels)), "data") == expected


def test_images_at_two_levels_are_an_error_that_shows_both_labels(here):
    touch(here / "data/a.jpg", here / "data/cat/b.jpg")
    message = r"data/a\.jpg would be labelled 'data' .* data/cat/b\.jpg 'cat' .* --labels root .* --labels parent"
    for labels in ("auto", "subfolder"):
        with pytest.raises(PackError, match=message):
            scan(["data"], LabelRule(labels))
    assert labelled(scan(["data"], LabelRule("parent")), "data") == {"a.jpg": "data", "cat/b.jpg": "cat"}
    assert labelled(scan(["data"], LabelRule("root")), "data") == {"a.jpg": "data", "cat/b.jpg": "data"}


def test_labels_subfolder_requires_a_folder_below_source(here):
    touch(here / "data/a.jpg")
    with pytest.raises(PackError, match=r"data/a\.jpg: expected every image in a folder below SOURCE"):
        scan(["data"], LabelRule("subfolder"))
    assert scan(["data"]).labels == ["data"]


def test_the_label_does_not_depend_on_how_the_source_path_is_written(here, monkeypatch):
    touch(here / "cat/a.jpg")
    assert scan(["cat/"]).filenames == ["cat/a.jpg"]
    monkeypatch.chdir(here / "cat")
    assert scan(["."]).labels == scan(["../cat"]).labels == ["cat"]


def test_files_are_sorted_by_name(here):
    names = [f"{word}-{number}.jpg" for word in ("b", "a", "B") for number in (10, 9, 1)]
    random.Random(0).shuffle(names)
    touch(*(here / "data" / folder / name for folder in ("z", "a", "a-b", "a/b") for name in names))
    found = scan(["data"])
    assert found.filenames == [f"data/{folder}/{name}" for folder in ("a", "a/b", "a-b", "z") for name in sorted(names)]


def test_files_that_are_not_images_are_passed_over_and_reported(here):
    touch(*(here / "data" / name for name in ("cat/a.JPG", "cat/notes.txt", "README", "cat/b.tar.gz")))
    os.mkfifo(here / "data/cat/pipe.jpg")
    os.symlink("nowhere", here / "data/cat/broken.png")
    found = scan(["data"])
    assert found.filenames == ["data/cat/a.JPG"]
    assert dict(found.passed_over) == {
        "data/README": "not an image's extension",
        "data/cat/notes.txt": "not an image's extension",
        "data/cat/b.tar.gz": "an archive: not packed; unpack it first",
        "data/cat/pipe.jpg": "not a file that can be read",
        "data/cat/broken.png": "not a file that can be read",
    }


def test_system_clutter_is_passed_over_silently(here):
    touch(
        *(
            here / "data" / name
            for name in ("cat/a.jpg", ".hidden/b.jpg", "cat/._a.jpg", "__MACOSX/cat/c.jpg", "Thumbs.db")
        ),
        *(
            here / "data/cat" / name / "a.jpg/thumb.jpg"
            for name in ("@eaDir", ".@__thumb", ".AppleDouble", "#snapshot")
        ),
        *(here / "data" / name / "a.jpg" for name in ("#recycle", "@Recycle", "$RECYCLE.BIN", "$Recycle.Bin")),
        *(here / "data" / name / "a.jpg" for name in ("System Volume Information", ".thumbnails", "lost+found")),
        *(here / "data/cat" / name for name in ("ehthumbs.db", "Desktop.ini", ".DS_Store")),
        here / "data/cat/.ipynb_checkpoints/a-checkpoint.jpg",
    )
    found = scan(["data"])
    assert (found.filenames, found.passed_over) == (["data/cat/a.jpg"], [])


def test_files_given_as_sources_beside_folders_are_passed_over(here):
    touch(here / "data/cat/a.jpg", here / "data/README.md")
    found = scan(["data/cat", "data/README.md"])
    assert found.filenames == ["data/cat/a.jpg"]
    assert found.passed_over == [("data/README.md", "neither a folder nor a pack")]


def test_clutter_given_as_a_source_is_passed_over_and_reported(here):
    touch(here / "data/cat/a.jpg", here / "data/@eaDir/a.jpg/thumb.jpg", here / "data/x.HEIC")
    found = scan(["data/@eaDir", "data/cat", "data/x.HEIC"])
    assert found.filenames == ["data/cat/a.jpg"]
    assert found.passed_over == [
        ("data/@eaDir", "thumbnails, trash or notes of a system"),
        (
            "data/x.HEIC",
            "HEIC: not packed; pip install 'pack-images[heif]' packs it, or convert it to JPEG or PNG first",
        ),
    ]
    assert scan(["data/@eaDir"]).filenames == ["data/@eaDir/a.jpg/thumb.jpg"]  # as the only source, it is meant


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("a.HEIC", "HEIC: not packed; pip install 'pack-images[heif]' packs it, or convert it to JPEG or PNG first"),
        ("a.jxl", "JPEG XL: not packed; convert it to JPEG or PNG first"),
        ("a.CR2", "camera RAW: not packed; develop it to JPEG, PNG or TIFF first"),
        ("a.dng", "camera RAW: not packed; develop it to JPEG, PNG or TIFF first"),
        ("a.svg", "SVG: not packed; render it to PNG first"),
        ("a.pdf", "PDF: not packed; render it to PNG first"),
        ("a.MOV", "a video: not packed; save its frames as JPEG or PNG first"),
        ("a.dcm", "DICOM: not packed; give a function that decodes it as --decoder"),
        ("a.npy", "arrays: not packed; give --color all, which packs their values, one file an image"),
        ("a.zip", "an archive: not packed; unpack it first"),
        ("heic", "not an image's extension"),
        ("a.txt", "not an image's extension"),
    ],
)
def test_unsupported_formats_are_reported_by_name(here, name, reason):
    touch(here / "data/cat/a.jpg", here / "data/cat" / name)
    assert scan(["data"]).passed_over == [(f"data/cat/{name}", reason)]


def test_the_error_names_the_format_when_all_images_are_unsupported(here):
    touch(here / "data/cat/notes.txt", here / "data/cat/x.heic")
    with pytest.raises(PackError, match=r"no images in data: .*passed over: 2, such as data/cat/x\.heic \(HEIC: not"):
        scan(["data"])


def test_links_are_followed_once_and_loops_end(here):
    touch(here / "data/cat/a.jpg", here / "elsewhere/dog/b.jpg")
    os.symlink("..", here / "data/cat/loop")
    os.symlink("../elsewhere/dog", here / "data/dog")
    os.symlink("cat", here / "data/also-cat")
    os.symlink("a.jpg", here / "data/cat/same.jpg")
    found = scan(["data"])
    assert labelled(found, "data") == {"cat/a.jpg": "cat", "cat/same.jpg": "cat", "dog/b.jpg": "dog"}
    assert sorted(path for path, _ in found.passed_over) == ["data/also-cat", "data/cat/loop"]


@pytest.mark.parametrize("sources", [("data", "data/cat"), ("data/cat", "data"), ("data", "data"), ("data", "link")])
def test_overlapping_sources_are_refused(here, sources):
    touch(here / "data/cat/a.jpg", here / "data-b/cat/b.jpg")
    os.symlink("data/cat", here / "link")
    with pytest.raises(PackError, match="would be packed twice; give one of them"):
        scan(["data-b", *sources])


def test_file_names_may_be_any_bytes(here):
    names = [b"a b.jpg", b"new\nline.jpg", b"\xff\xfe.jpg", "\u00fc\u4e2d.jpg".encode(), b"'quote\".jpg"]
    for name in names:
        touch(here / "data/cat" / os.fsdecode(name))
    assert [os.fsencode(name) for name in scan(["data"]).filenames] == sorted(
        (b"data/cat/" + name for name in names), key=os.fsdecode
    )


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        (["nowhere"], "nowhere: expected a folder of images or a pack, found nothing there"),
        (["empty"], r"no images in empty: expected files such as \.jpg or \.png in it or below"),
        (["text"], "no images in text: .*; passed over: 1, such as text/notes.txt"),
        (["text/notes.txt"], "text/notes.txt: expected a folder of images or a pack, found a file; .* --manifest"),
        ([], "no images in any SOURCE"),
    ],
)
def test_sources_without_images_are_an_error(here, sources, message):
    (here / "empty").mkdir()
    touch(here / "text/notes.txt")
    with pytest.raises(PackError, match=message):
        scan(sources)
