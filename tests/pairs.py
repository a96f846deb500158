"""Photographs and masks whose pixels are derived from one name, for tests of pairs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from conftest import pixels_of, write_image
from pack_images import pack

CLASSES = {"cat": 100, "dog": 60, "emu": 40}
MASK = (6, 4)  # of another size than photographs


def mask_of(photo: str) -> NDArray[np.uint8]:
    """Return the pixels of the mask of a photograph."""
    return pixels_of(f"mask of {Path(photo).stem}", MASK)


def write_mask(path: Path) -> Path:
    """Write the mask of the photograph of this name, as a TIFF."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask_of(path.name)).save(path)
    return path


def write_pairs(folder: Path, counts: dict[str, int] | None = None) -> list[str]:
    """Write `photos` and `masks`. Return the paths of the pairs below these, without extensions."""
    names = [f"{label}/{label}-{index:03}" for label, many in (counts or CLASSES).items() for index in range(many)]
    for name in names:
        write_image(folder / "photos" / f"{name}.png")
        write_mask(folder / "masks" / f"{name}.tif")
    return names


def break_file(path: Path) -> None:
    """Cut a file short, so that it cannot be decoded."""
    path.write_bytes(path.read_bytes()[:40])


def packed_pairs(folder: Path, **options: Any) -> tuple[Path, Path]:
    """Pack `photos`, and `masks` like them."""
    images, masks = folder / "images.h5", folder / "masks.h5"
    if not images.exists():
        pack([folder / "photos"], images, workers=1)
    pack([folder / "masks"], masks, like=images, color="index", workers=1, **options)
    return images, masks


def assert_pairs(images: Any, masks: Any, who: dict[bytes, str]) -> list[str]:
    """Check that each mask is that of its photograph, and return the names of the photographs.

    Args:
        images: Photographs, (B, 8, 8, 3).
        masks: (B, 6, 4, 1).
        who: The pixels of each photograph -> its name.
    """
    names = [who[np.ascontiguousarray(image).tobytes()] for image in np.asarray(images)]
    for name, mask in zip(names, np.asarray(masks), strict=True):
        assert np.array_equal(mask[..., 0], mask_of(name)), name
    return names


def names_by_pixels(names: list[str]) -> dict[bytes, str]:
    """Return the pixels of each photograph -> its name, for `assert_pairs`."""
    return {pixels_of(os.path.basename(name)).tobytes(): name for name in names}
