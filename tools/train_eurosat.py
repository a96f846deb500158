"""Train a small network on a pack, and list the images that it classifies wrongly.

    python tools/train_eurosat.py eurosat.h5 --epochs 10

The network, the split (20 % test, 20 % validation, 60 % training) and the optimizer are those of the blog post this
project grew from. The pack's path is enough: classes, shape and file names are in the file. The script writes
curves.png, confusion.png and mistakes.csv to --output.
"""

from __future__ import annotations

import argparse
import csv
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import matplotlib as mpl
import numpy as np
from keras import layers
from numpy.typing import NDArray

from h5split import H5SplitSequence, Mistake

mpl.use("Agg")
import matplotlib.pyplot as plt


def network(shape: tuple[int, int, int], classes: int, learning_rate: float) -> keras.Model:
    """Return the network of the post: a simple example, not an optimized model."""
    model = keras.Sequential(
        [
            keras.Input(shape),
            layers.Rescaling(1 / 255),
            layers.Conv2D(60, 5, activation="relu"),
            layers.MaxPooling2D((2, 2)),
            layers.Conv2D(20, 5, activation="relu"),
            layers.MaxPooling2D((2, 2)),
            layers.Flatten(),
            layers.Dense(120),
            layers.Dense(60),
            layers.Dense(classes, activation="softmax"),
        ]
    )
    decay = keras.optimizers.schedules.InverseTimeDecay(learning_rate, decay_steps=1, decay_rate=0.001)
    model.compile(keras.optimizers.Adam(decay), "categorical_crossentropy", metrics=["accuracy"])
    return model


def draw_curves(history: keras.callbacks.History, path: str) -> None:
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for axis, name in zip(axes, ("accuracy", "loss"), strict=True):
        epochs = np.arange(1, len(history.history[name]) + 1)
        axis.plot(epochs, history.history[name], label="training")
        axis.plot(epochs, history.history[f"val_{name}"], label="validation")
        axis.set(xlabel="epoch", title=name)
        axis.grid(alpha=0.3)
        axis.legend()
    figure.savefig(path, dpi=100)
    plt.close(figure)


def draw_confusion(counts: NDArray[np.int64], names: list[str], path: str) -> None:
    """Draw the confusion matrix. Its rows are labels, and its columns are predictions."""
    side = 3 + 0.5 * len(names)
    figure, axis = plt.subplots(figsize=(side, side), layout="constrained")
    axis.imshow(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1)
    axis.set_xticks(range(len(names)), names, rotation=90)
    axis.set_yticks(range(len(names)), names)
    axis.set(xlabel="predicted", ylabel="label")
    for row, column in np.ndindex(*counts.shape):
        if counts[row, column]:
            dark = counts[row, column] > counts[row].sum() / 2
            axis.text(
                column, row, counts[row, column], ha="center", va="center", color="white" if dark else "black", size=8
            )
    figure.savefig(path, dpi=100)
    plt.close(figure)


def confusion(labels: NDArray[np.int32], mistakes: list[Mistake], names: list[str]) -> NDArray[np.int64]:
    counts = np.diag(np.bincount(labels, minlength=len(names)))
    for mistake in mistakes:
        label, predicted = names.index(mistake.label), names.index(mistake.predicted)
        counts[label, label] -= 1
        counts[label, predicted] += 1
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a small network on a pack.")
    parser.add_argument("pack", help="a file made by pack-images")
    parser.add_argument("--epochs", type=int, default=10, help="(%(default)s)")
    parser.add_argument("--batch-size", type=int, default=32, help="(%(default)s)")
    parser.add_argument("--learning-rate", type=float, default=0.0001, help="(%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the network's initial weights (%(default)s)")
    parser.add_argument("--output", default=".", help="folder for the pictures and the list (%(default)s)")
    arguments = parser.parse_args()
    os.makedirs(arguments.output, exist_ok=True)
    keras.utils.set_random_seed(arguments.seed)

    test, validation, training = H5SplitSequence(arguments.pack, batch_size=arguments.batch_size).split(0.2, 0.4)
    if not (len(test) and len(validation) and len(training)) or training.num_classes < 2:
        raise SystemExit(
            f"{arguments.pack}: expected images of two classes or more, and enough for three parts, "
            f"found {len(test.classes) + len(validation.classes) + len(training.classes)} of {training.num_classes}"
        )
    print(f"{len(test.classes)} test, {len(validation.classes)} validation, {len(training.classes)} training images")
    model = network(training.shape, training.num_classes, arguments.learning_rate)
    history = model.fit(training, validation_data=validation, epochs=arguments.epochs, verbose=2)

    mistakes = test.mistakes(model.predict(test, verbose=0))
    accuracy = 1 - len(mistakes) / len(test.classes)
    print(f"test accuracy: {accuracy:.1%} of {len(test.classes)} images")
    print("the worst mistakes:")
    for mistake in mistakes[:10]:
        print(f"  {mistake.filename}: {mistake.label} taken for {mistake.predicted} ({mistake.confidence:.0%})")

    draw_curves(history, f"{arguments.output}/curves.png")
    draw_confusion(
        confusion(test.classes, mistakes, test.classnames), test.classnames, f"{arguments.output}/confusion.png"
    )
    with open(f"{arguments.output}/mistakes.csv", "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(["filename", "label", "predicted", "confidence"])
        writer.writerows([m.filename, m.label, m.predicted, f"{m.confidence:.4f}"] for m in mistakes)
    print(f"curves.png, confusion.png and mistakes.csv (all {len(mistakes)}) are in {arguments.output}")


if __name__ == "__main__":
    main()
