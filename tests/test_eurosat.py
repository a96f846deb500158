"""Tests on real images: all of EuroSAT, and photographs of several kinds."""

from __future__ import annotations

import io
import os
import re
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
from PIL import Image

from conftest import SHARED, needs_shared
from h5split import PackedImages, SplitSequence
from pack_images import pack

pytestmark = needs_shared
EUROSAT = SHARED / "eurosat"


@pytest.fixture(scope="module")
def eurosat(tmp_path_factory):
    output = tmp_path_factory.mktemp("eurosat") / "eurosat.h5"
    pack([EUROSAT], output, size=64)
    return output


def differs_from_pillow(path, rows):
    images = PackedImages(path)
    return [
        images.filenames[row]
        for row in rows
        if not np.array_equal(np.asarray(Image.open(images.filenames[row]).convert("RGB")), images.images[row])
    ]


def test_pixels_equal_those_of_pillow_and_labels_are_the_folders(eurosat):
    images = PackedImages(eurosat)
    assert (len(images), len(images.class_names), images.header.images.offset % 4096) == (27_000, 10, 0)
    assert len(set(images.filenames)) == 27_000
    for name, label in zip(images.filenames, images.labels, strict=True):
        assert re.fullmatch(rf".*/{images.class_names[label]}/{images.class_names[label]}_\d+\.jpg", name)
    with ProcessPoolExecutor(2, get_context("spawn")) as executor:
        shares = [range(start, 27_000, 2) for start in range(2)]
        assert [name for found in executor.map(differs_from_pillow, [eurosat] * 2, shares) for name in found] == []


def test_class_folders_and_their_root_give_the_same_rows(eurosat, tmp_path):
    pack(sorted(EUROSAT.iterdir()), tmp_path / "classes.h5", size=64, workers=3)
    one, other = PackedImages(eurosat), PackedImages(tmp_path / "classes.h5")
    assert np.array_equal(one.checksums, other.checksums)
    assert np.array_equal(one.labels, other.labels)
    assert one.class_names == other.class_names
    assert np.array_equal(one.filenames.raw(), other.filenames.raw())
    assert np.array_equal(one.digests, other.digests)


def test_the_default_split_is_stratified(eurosat):
    parts = SplitSequence(eurosat).split(0.2, 0.4)
    assert [len(part.classes) for part in parts] == [5_400, 5_400, 16_200]
    assert len({name for part in parts for name in part.filenames}) == 27_000
    everything = np.bincount(PackedImages(eurosat).labels)
    for part, share in zip(parts, (0.2, 0.2, 0.6), strict=True):
        assert np.abs(np.bincount(part.classes) - share * everything).max() <= 2


def test_only_broken_images_are_left_out(tmp_path):
    for folder in ("photos", "exif-orientation", "pngsuite"):
        summary = pack([SHARED / folder], tmp_path / f"{folder}.h5", size=64, labels="parent")
        broken = []
        for below, _, names in os.walk(SHARED / folder):
            for name in names:
                if name.rpartition(".")[2] in ("png", "bmp", "jpg", "gif"):
                    try:
                        with open(f"{below}/{name}", "rb") as file:
                            Image.open(io.BytesIO(file.read())).load()
                    except (OSError, SyntaxError, ValueError):
                        broken.append(f"{below}/{name}")
        assert [name for name, _ in summary.skipped] == sorted(broken)
        assert all(reason for _, reason in summary.skipped)
