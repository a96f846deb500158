"""Measure how many planted near-identical pictures are found, and how many others are taken for them.

python tools/near.py eurosat.h5 photos.h5      recall for each change, and pairs of other origin
python tools/near.py digits                    the same for synthetic digits (needs matplotlib for its fonts)
python tools/near.py --rows 1000000 eurosat.h5 seconds and memory, for mixes of spectra of the pack
"""

from __future__ import annotations

import argparse
import io
import os
import resource
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageEnhance, ImageFont

from h5split import PackedImages
from h5split.alike import near
from h5split.alike.pictures import Pictures
from h5split.alike.work import Work

Pixels = NDArray[np.uint8]

EACH = 300  # planted copies of each change, at most
LEAST = 100  # in several rounds, where images are few
DIGITS = 20_000
COPY_EVERY = 33  # of synthetic rows, one in so many is a near-identical copy of the row before


class Memory:
    """Pixels in memory, with the methods of packs that are used."""

    def __init__(self, pixels: Pixels) -> None:
        self.images = pixels
        self.shape = pixels.shape[1:]
        self.sums = np.array([xxhash.xxh3_64_intdigest(np.ascontiguousarray(image)) for image in pixels], np.uint64)

    def checksums(self, rows: Any) -> Any:
        """The XXH3-64 of the pixels of each row."""
        return self.sums[rows]

    def digests(self, rows: Any) -> Any:
        """A number for each row, which is equal for equal pixels."""
        found = np.zeros((len(rows), 32), np.uint8)
        found[:, :8] = self.sums[rows].view(np.uint8).reshape(-1, 8)
        return found

    def pixels(self, rows: Any) -> Pixels:
        """The pixels of rows."""
        return self.images[rows]


def digits(count: int) -> Pixels:
    """Digits of several fonts, sheared, turned and bent at random: 28x28, grey, like MNIST's."""
    import matplotlib

    folder = os.path.join(matplotlib.get_data_path(), "fonts/ttf")
    names = ("DejaVuSans", "DejaVuSerif", "DejaVuSansMono", "DejaVuSans-Oblique", "STIXGeneral", "cmr10")
    rng = np.random.default_rng(1)
    return np.stack(
        [digit(index % 10, f"{folder}/{names[rng.integers(len(names))]}.ttf", rng) for index in range(count)]
    )


def digit(number: int, font: str, rng: np.random.Generator) -> Pixels:
    image = Image.new("L", (84, 84))
    letter = ImageFont.truetype(font, int(rng.integers(52, 66)))
    width = int(rng.integers(0, 4))
    ImageDraw.Draw(image).text((42, 42), str(number), font=letter, fill=255, anchor="mm", stroke_width=width)
    angle, shear, (wide, high) = rng.normal(0, 0.12), rng.normal(0, 0.18), rng.uniform(0.8, 1.15, 2)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = turn @ np.array([[1, shear], [0, 1]]) @ np.diag([1 / wide, 1 / high])
    shift = np.array([42, 42]) - matrix @ np.array([42, 42]) + rng.normal(0, 1.5, 2)
    coefficients = (*matrix[0], shift[0], *matrix[1], shift[1])
    pixels = np.asarray(image.transform((84, 84), Image.Transform.AFFINE, coefficients, Image.Resampling.BICUBIC))
    bends = [Image.fromarray(rng.normal(0, 2.2, (5, 5)).astype(np.float32)) for _ in range(2)]
    down, across = (np.asarray(bend.resize((84, 84), Image.Resampling.BICUBIC)) for bend in bends)
    rows, columns = np.indices((84, 84))
    bent = pixels[np.clip(rows + down, 0, 83).astype(int), np.clip(columns + across, 0, 83).astype(int)]
    return np.asarray(Image.fromarray(bent).resize((28, 28), Image.Resampling.BOX))[..., None]


def by_pillow(change: Callable[[Image.Image], Image.Image]) -> Callable[[Pixels], Pixels]:
    def changed(pixels: Pixels) -> Pixels:
        image = Image.fromarray(pixels if pixels.shape[2] > 1 else pixels[..., 0])
        return np.asarray(change(image).convert(image.mode)).reshape(pixels.shape)

    return changed


def jpeg(quality: int) -> Callable[[Pixels], Pixels]:
    def compressed(image: Image.Image) -> Image.Image:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        return Image.open(file)

    return by_pillow(compressed)


def rescaled(factor: float) -> Callable[[Pixels], Pixels]:
    def scaled(image: Image.Image) -> Image.Image:
        small = image.resize([int(side * factor) for side in image.size], Image.Resampling.BILINEAR)
        return small.resize(image.size, Image.Resampling.BICUBIC)

    return by_pillow(scaled)


def cropped(share: float) -> Callable[[Pixels], Pixels]:
    """Cut a share of the width and height off, half of it on each side but at least one pixel, and scale it back."""

    def cut(image: Image.Image) -> Image.Image:
        across, down = (max(1, int(side * share / 2)) for side in image.size)
        box = (across, down, image.width - across, image.height - down)
        return image.crop(box).resize(image.size, Image.Resampling.BILINEAR)

    return by_pillow(cut)


CHANGES: dict[str, Callable[[Pixels], Pixels]] = {
    "JPEG quality 90": jpeg(90),
    "JPEG quality 50": jpeg(50),
    "JPEG quality 20": jpeg(20),
    "rescaled by 0.75": rescaled(0.75),
    "rescaled by 0.5": rescaled(0.5),
    "brightness 1.3": by_pillow(lambda image: ImageEnhance.Brightness(image).enhance(1.3)),
    "brightness 0.7": by_pillow(lambda image: ImageEnhance.Brightness(image).enhance(0.7)),
    "contrast 1.5": by_pillow(lambda image: ImageEnhance.Contrast(image).enhance(1.5)),
    "contrast 0.6": by_pillow(lambda image: ImageEnhance.Contrast(image).enhance(0.6)),
    "grey": by_pillow(lambda image: image.convert("L")),
    "mirrored": lambda pixels: pixels[:, ::-1],
    "upside down": lambda pixels: pixels[::-1],
    "turned by 90 degrees": np.rot90,
    "transposed": lambda pixels: pixels.swapaxes(0, 1),
    "JPEG 50 and mirrored": lambda pixels: jpeg(50)(pixels)[:, ::-1],
    "crop 5 %": cropped(0.05),
    "crop 10 %": cropped(0.10),
    "shift by 2 pixels": lambda pixels: np.roll(pixels, (2, 2), (0, 1)),
}


def recall(name: str, images: Pixels) -> None:
    """Plant copies of images, look for them, and print what was found; several times, if images are few."""
    each = min(EACH, len(images) // len(CHANGES))
    rounds = -(-LEAST // each)
    hits, planted = np.zeros((2, len(CHANGES)), np.int64)
    others: set[tuple[int, int]] = set()
    start = time.perf_counter()
    for seed in range(rounds):
        found, there, pairs = one_round(images, each, seed)
        hits += found
        planted += there
        others |= pairs
    seconds = time.perf_counter() - start
    print(f"\n{name}: {len(images):,} images, {rounds} x {each} copies of each change, {seconds:.1f} s")
    for change, found, there in zip(CHANGES, hits, planted, strict=True):
        print(f"  {change:24} {found / there:.3f} of {there}")
    print(f"  pairs of other origin: {len(others)}: {sorted(others)[:20]}")


def one_round(images: Pixels, each: int, seed: int) -> tuple[Any, Any, set[tuple[int, int]]]:
    """Plant copies once.

    Returns:
        For each change, how many copies were found, and how many have structure; and the pairs of other origin.
    """
    origin = np.random.default_rng(seed).permutation(len(images))[: each * len(CHANGES)]
    kinds = np.repeat(np.arange(len(CHANGES)), each)
    copies = [list(CHANGES.values())[kind](images[at]) for kind, at in zip(kinds, origin, strict=True)]
    everything = np.concatenate([images, np.stack(copies)])
    found = near.near_of([(Memory(everything), np.arange(len(everything)))])  # type: ignore[list-item]
    is_flat = np.zeros(len(everything), np.bool_)
    is_flat[found.flat] = True
    counts = ~(is_flat[len(images) :] | is_flat[origin])
    hits = counts & (found.numbers[len(images) :] == found.numbers[origin])
    origins = np.concatenate([np.arange(len(images)), origin])[found.pairs]
    others = np.sort(origins[origins[:, 0] != origins[:, 1]], axis=1)
    found_of, there = (np.bincount(kinds[chosen], minlength=len(CHANGES)) for chosen in (hits, counts))
    return found_of, there, set(map(tuple, others.tolist()))


def speed(path: str, count: int, workers: int) -> None:
    """Time the search among synthetic rows: each is a mix of the spectra of two images."""
    images = PackedImages(path).images
    rng = np.random.default_rng(0)
    pictures = Pictures([(Memory(images[:1]), np.arange(count))])  # type: ignore[list-item]
    frequencies = pictures.frequencies
    base = np.concatenate([frequencies.spectra(images[at : at + 500]) for at in range(0, len(images), 500)])
    base = base[frequencies.features(base)[1] >= near.FLAT]
    one, other = rng.integers(len(base), size=(2, count)).astype(np.int32)
    share = rng.uniform(0.35, 0.65, count).astype(np.float32)
    noise = rng.normal(0, 0.2, (1000, *base.shape[1:])).astype(np.float32)

    def spectra(rows: NDArray[np.int64]) -> NDArray[np.float32]:
        is_copy = (rows % COPY_EVERY == 0) & (rows > 0)
        source = np.where(is_copy, rows - 1, rows)
        weight = share[source][:, None, None]
        mixed: NDArray[np.float32] = weight * base[one[source]] + (1 - weight) * base[other[source]]
        mixed[is_copy] += noise[rows[is_copy] % len(noise)]
        return mixed

    pictures.spectra = spectra  # type: ignore[method-assign]
    rows, chunks = np.arange(count), range(0, count, 4096)
    features = np.concatenate(
        [frequencies.features(spectra(rows[at : at + 4096]))[0].astype(np.float16) for at in chunks]
    )
    start, used = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(workers) as executor:
        first, second, _, _ = near._pairs_of(pictures, rows, features, Work(executor, 3 * count, None))
    wall, cpu = time.perf_counter() - start, time.process_time() - used
    low, high = np.minimum(first, second), np.maximum(first, second)
    hits = len(np.unique(high[(high == low + 1) & (high % COPY_EVERY == 0)]))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{count:,} rows, {workers} threads: {wall:.0f} s, {cpu:.0f} s of processor, {memory:,.0f} MB at most")
    print(f"  {hits / max(1, (count - 1) // COPY_EVERY):.3f} of the copies, {len(first):,} pairs")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", help="packs, or the word digits")
    parser.add_argument("--rows", type=int, help="measure the speed for so many synthetic rows")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    for name in arguments.sets:
        if arguments.rows:
            speed(name, arguments.rows, arguments.workers)
        else:
            recall(name, digits(DIGITS) if name == "digits" else np.array(PackedImages(name).images))


if __name__ == "__main__":
    main()
