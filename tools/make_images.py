"""Make images of several classes that a small network can tell apart, scattered over several root folders.

    python tools/make_images.py quickstart/images --count 2000

Each root has a folder for each class: discs, squares, triangles, crosses, stripes. Colours, positions, sizes and noise
are random, from a seed. The same arguments make the same files.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np
from PIL import Image, ImageDraw

Draw = Callable[[ImageDraw.ImageDraw, float, float, float, tuple[int, ...]], None]


def disc(draw: ImageDraw.ImageDraw, x: float, y: float, r: float, fill: tuple[int, ...]) -> None:
    draw.ellipse((x - r, y - r, x + r, y + r), fill=fill)


def square(draw: ImageDraw.ImageDraw, x: float, y: float, r: float, fill: tuple[int, ...]) -> None:
    draw.rectangle((x - r, y - r, x + r, y + r), fill=fill)


def triangle(draw: ImageDraw.ImageDraw, x: float, y: float, r: float, fill: tuple[int, ...]) -> None:
    draw.polygon([(x, y - r), (x - r, y + r), (x + r, y + r)], fill=fill)


def cross(draw: ImageDraw.ImageDraw, x: float, y: float, r: float, fill: tuple[int, ...]) -> None:
    draw.rectangle((x - r, y - r / 4, x + r, y + r / 4), fill=fill)
    draw.rectangle((x - r / 4, y - r, x + r / 4, y + r), fill=fill)


def stripes(draw: ImageDraw.ImageDraw, x: float, y: float, r: float, fill: tuple[int, ...]) -> None:
    for offset in (-0.8, 0.0, 0.8):
        draw.rectangle((x - r, y + r * (offset - 0.2), x + r, y + r * (offset + 0.2)), fill=fill)


CLASSES: dict[str, Draw] = {
    "cross": cross,
    "disc": disc,
    "square": square,
    "stripes": stripes,
    "triangle": triangle,
}


def picture(draw: Draw, rng: np.random.Generator, size: int) -> Image.Image:
    """Draw a shape on a plain background, with noise. The two colours differ in brightness."""
    dark, light = rng.integers(0, 100, 3), rng.integers(140, 256, 3)
    background, fill = (dark, light) if rng.random() < 0.5 else (light, dark)
    image = Image.new("RGB", (size, size), tuple(background.tolist()))
    radius = rng.uniform(0.2, 0.35) * size
    x, y = rng.uniform(radius, size - radius, 2)
    draw(ImageDraw.Draw(image), x, y, radius, tuple(fill.tolist()))
    noisy = np.asarray(image, np.float32) + rng.normal(0, 12, (size, size, 3))
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def make(number: int, folder: str, roots: int, size: int, seed: int) -> None:
    names = list(CLASSES)
    name = names[number % len(names)]
    root = f"root-{number // len(names) % roots + 1}"
    image = picture(CLASSES[name], np.random.default_rng([seed, number]), size)
    image.save(f"{folder}/{root}/{name}/{name}-{number:07}.jpg", quality=90)


def main() -> None:
    parser = argparse.ArgumentParser(description="Make images of several classes, scattered over several root folders.")
    parser.add_argument("folder", help="the folder for the roots")
    parser.add_argument("--count", type=int, default=2000, help="images (%(default)s)")
    parser.add_argument("--roots", type=int, default=3, help="folders that each hold every class (%(default)s)")
    parser.add_argument("--size", type=int, default=64, help="side in pixels (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(%(default)s)")
    arguments = parser.parse_args()
    for root in range(1, arguments.roots + 1):
        for name in CLASSES:
            os.makedirs(f"{arguments.folder}/root-{root}/{name}", exist_ok=True)
    make_one = partial(make, folder=arguments.folder, roots=arguments.roots, size=arguments.size, seed=arguments.seed)
    with ProcessPoolExecutor() as executor:
        for _ in executor.map(make_one, range(arguments.count), chunksize=100):
            pass
    print(f"{arguments.folder}: {arguments.count} images of {len(CLASSES)} classes in {arguments.roots} roots")


if __name__ == "__main__":
    main()
