"""Train, evaluate and predict for a long time: memory does not grow, and no row is lost.

    python tests/faults/soak.py --minutes 30

A real Keras model trains on splits of a pack again and again, through the sequence and through tf.data, in every order;
in between, the same pack is read without Keras. Pixels identify their row: the first three bytes are its number, the
fourth its label, and a weighted sum of all is known. The model passes number, label and sum on to a metric, which
counts the rows that arrive: each row of an epoch once, with its own pixels and label. After predict, the names are
compared too. Anonymous memory, descriptors and threads are measured after every round. The growth of memory is the
slope of a straight line through all rounds after the warm-up. Keras itself takes some kilobytes for every fit and never
gives them back; `--doors arrays` measures how many, with fit, evaluate and predict on arrays in memory.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))  # conftest.py

from fault_campaign import open_folder

from conftest import write_pack
from h5split import SplitSequence

ROWS, SIDE, CLASSES = 3000, 16, 5
WARM_UP = 0.4  # share of the time: TensorFlow has then allocated its caches
LEAST_SAMPLES = 10
MOST_GROWTH = 0.5  # MB a minute, of at least 4 minutes, beyond what Keras takes by itself
KERAS_GROWTH = 0.01  # MB a round, the least of what `--doors arrays` measured (0.010 to 0.015)
ORDERS: tuple[bool | str, ...] = (False, True, "block")


@dataclass
class Sample:
    """Resources of the process."""

    minutes: float
    megabytes: float
    descriptors: int
    threads: int


@dataclass
class Soak:
    """Observations of a soak.

    Attributes:
        rounds: Number of rounds.
        rows: Number of rows that arrived correctly.
        samples: One sample per round.
        failures: Descriptions of failures.
    """

    rounds: int = 0
    rows: int = 0
    samples: list[Sample] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


class Rows:
    """A pack whose pixels identify their row.

    Args:
        folder: Where the pack is written.
    """

    def __init__(self, folder: Path) -> None:
        rng = np.random.default_rng(0)
        self.labels = rng.integers(0, CLASSES, ROWS)
        pixels = rng.integers(0, 256, (ROWS, SIDE, SIDE, 3), np.uint8)
        numbers = np.arange(ROWS)
        pixels[:, 0, 0] = np.stack([numbers >> 16, numbers >> 8 & 255, numbers & 255], axis=1)
        pixels[:, 0, 1, 0] = self.labels
        self.weights = rng.integers(0, 80, pixels[0].size)  # keeps sums below 2 ** 24, where float32 is exact
        self.sums = pixels.reshape(ROWS, -1).astype(np.int64) @ self.weights
        names = [f"soak/class-{label}/{number}.png" for number, label in enumerate(self.labels.tolist())]
        self.path = write_pack(folder / "soak.h5", names, shape=(SIDE, SIDE, 3), pixels=list(pixels))

    def check(self, names: list[str], numbers: NDArray[Any], labels: NDArray[Any], sums: NDArray[Any]) -> int:
        """Compare the data that arrived for some rows with the expected data; return the number of rows."""
        expected = np.array([int(name.split("/")[-1].split(".")[0]) for name in names])
        assert np.array_equal(numbers, expected), "names and rows differ"
        assert np.array_equal(labels, self.labels[expected]), "labels and rows differ"
        assert np.array_equal(sums, self.sums[expected]), "pixels and rows differ"
        return len(names)


def by_numpy(rows: Rows) -> Iterator[int]:
    """Read parts of new sequences without Keras; yield the number of rows of each pass."""
    seed = 0
    while True:
        seed += 1
        sequence = SplitSequence(rows.path, batch_size=48, label_mode="int", auto_shuffle=ORDERS[seed % 3], seed=seed)
        for part in sequence.shuffle(seed).split(0.3, 0.6, stratify=seed % 2 == 0):
            count = 0
            found = []
            for images, labels in part:
                flat = images.reshape(len(images), -1).astype(np.int64)
                found.append((flat[:, 0] << 16 | flat[:, 1] << 8 | flat[:, 2], labels, flat @ rows.weights))
                count += len(images)
            numbers, labels, sums = (np.concatenate(column) for column in zip(*found, strict=True))
            assert sorted(part.filenames) == sorted(part.get_filenames(range(count))), "not each row once"
            yield rows.check(part.get_filenames(range(count)), numbers, labels, sums)


def by_keras(rows: Rows) -> Iterator[int]:
    """Fit, evaluate and predict parts of a pack, through sequence and tf.data in turn; yield the number of rows."""
    from soak_keras import rounds

    yield from rounds(rows.path, rows.labels, rows.sums, rows.weights, rows.check)


def by_arrays(rows: Rows) -> Iterator[int]:
    """The same with arrays in memory, without h5split."""
    from soak_keras import rounds_of_arrays

    yield from rounds_of_arrays(ROWS, SIDE, CLASSES)


DOORS: dict[str, Callable[[Rows], Iterator[int]]] = {"numpy": by_numpy, "keras": by_keras, "arrays": by_arrays}


def sample(start: float) -> Sample:
    """Measure the resources of the process now."""
    gc.collect()
    with open("/proc/self/status", encoding="ascii") as file:
        status = dict(line.split(":", 1) for line in file)
    return Sample(
        minutes=(time.monotonic() - start) / 60,
        megabytes=int(status["RssAnon"].split()[0]) / 1024,
        descriptors=len(os.listdir("/proc/self/fd")),
        threads=int(status["Threads"]),
    )


def soak(rows: Rows, doors: list[str], minutes: float) -> Soak:
    """Run for `minutes` and until there are enough samples to judge, or until the first failure."""
    seen, start = Soak(), time.monotonic()
    going = [DOORS[door](rows) for door in doors]
    while time.monotonic() - start < minutes * 60 or len(_later(seen, minutes)) < LEAST_SAMPLES:
        for door in going:
            try:
                seen.rows += next(door)
            except AssertionError as error:
                seen.failures.append(f"round {seen.rounds}: {error}")
                return seen
        seen.rounds += 1
        seen.samples.append(sample(start))
    return seen


def _later(seen: Soak, minutes: float) -> list[Sample]:
    """Return the samples after the warm-up."""
    return [one for one in seen.samples if one.minutes > WARM_UP * minutes]


def judged(seen: Soak, minutes: float, doors: list[str]) -> dict[str, Any]:
    """Return the report, which includes failures."""
    later = _later(seen, minutes)
    failures = list(seen.failures)
    report: dict[str, Any] = {"campaign": "soak", "rounds": seen.rounds, "rows": seen.rows}
    if len(later) < LEAST_SAMPLES:
        failures.append(f"{len(later)} rounds after the first part are too few to tell")
    else:
        slope = float(np.polyfit([one.minutes for one in later], [one.megabytes for one in later], 1)[0])
        grown = slope * (later[-1].minutes - later[0].minutes)
        report |= {
            "megabytes": [round(later[0].megabytes, 1), round(later[-1].megabytes, 1)],
            "megabytes a minute": round(slope, 3),
            "kilobytes a round": round(grown / len(later) * 1024, 2),
        }
        by_keras_itself = 0 if doors == ["numpy"] else KERAS_GROWTH * len(later)
        if grown > MOST_GROWTH * max(minutes * (1 - WARM_UP), 4) + by_keras_itself:
            failures.append(f"memory grows by {slope:.2f} MB a minute")
        for name in ("descriptors", "threads"):
            values = [getattr(one, name) for one in later]
            report[name] = [min(values), max(values)]
            half = len(values) // 2
            if max(values[half:]) > max(values[:half]):
                failures.append(f"{name}: {max(values[:half])} at first, {max(values[half:])} later")
    report["failures"] = {"soak": failures} if failures else {}
    return report


def main() -> int:
    parser = argparse.ArgumentParser(description="Train for a long time; nothing grows, and no row is lost.")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--doors", nargs="+", choices=DOORS, default=["numpy", "keras"], help="(%(default)s)")
    parser.add_argument("--samples", help="a file for all samples, as CSV")
    given = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with open_folder() as folder:
        seen = soak(Rows(folder), given.doors, given.minutes)
    if given.samples:
        with open(given.samples, "w", encoding="ascii") as file:
            file.write("minutes,megabytes,descriptors,threads\n")
            file.writelines(
                f"{one.minutes:.3f},{one.megabytes:.2f},{one.descriptors},{one.threads}\n" for one in seen.samples
            )
    report = judged(seen, given.minutes, given.doors)
    print(json.dumps(report), flush=True)
    return 1 if report["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
