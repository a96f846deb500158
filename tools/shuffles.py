"""Compare training with block shuffling and with full shuffling: accuracy by epoch, with several seeds.

    python tools/shuffles.py eurosat.h5 --output docs/shuffles.png

For each seed the same network starts from the same weights, and is trained on the same rows. With `auto_shuffle=True`
all rows are shuffled. With `auto_shuffle="block"` whole batches of rows are shuffled, and each is a piece of the file.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import matplotlib as mpl
import numpy as np
from keras import layers

from h5split import H5SplitSequence

mpl.use("Agg")
import matplotlib.pyplot as plt

_LABELS = {True: "full shuffle", "block": "block shuffle"}


def network(shape: tuple[int, int, int], classes: int) -> keras.Model:
    model = keras.Sequential(
        [
            keras.Input(shape),
            layers.Rescaling(1 / 255),
            layers.Conv2D(24, 5, strides=2, activation="relu"),
            layers.Conv2D(48, 3, strides=2, activation="relu"),
            layers.Conv2D(48, 3, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(classes, activation="softmax"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.002), "categorical_crossentropy", metrics=["accuracy"])
    return model


def validation_accuracy(pack: str, auto_shuffle: bool | str, seed: int, epochs: int) -> list[float]:
    keras.utils.set_random_seed(seed)
    settings = {"batch_size": 64, "seed": seed}
    validation, training = H5SplitSequence(pack, **settings).split(0.2)
    training.set(auto_shuffle=auto_shuffle)
    model = network(training.shape, training.num_classes)
    done = model.fit(training, validation_data=validation, epochs=epochs, verbose=0)
    return [float(value) for value in done.history["val_accuracy"]]


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare full with block shuffling.")
    parser.add_argument("pack", help="a file made by pack-images, in the stratified row order")
    parser.add_argument("--epochs", type=int, default=10, help="(%(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds (%(default)s)")
    parser.add_argument("--output", default="shuffles.png", help="the picture (%(default)s)")
    arguments = parser.parse_args()
    figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
    for (auto_shuffle, label), color in zip(_LABELS.items(), ("tab:blue", "tab:orange"), strict=True):
        curves = []
        for seed in range(arguments.seeds):
            curves.append(validation_accuracy(arguments.pack, auto_shuffle, seed, arguments.epochs))
            print(f"{label}, seed {seed}: " + " ".join(f"{value:.3f}" for value in curves[-1]), flush=True)
            axis.plot(range(1, arguments.epochs + 1), curves[-1], color=color, alpha=0.35, linewidth=1)
        mean = np.mean(curves, axis=0)
        axis.plot(range(1, arguments.epochs + 1), mean, color=color, label=f"{label}, mean", linewidth=2)
        last = np.array(curves)[:, -3:].mean(axis=1)
        print(f"{label}: {last.mean():.3f} in the last three epochs ({last.min():.3f} to {last.max():.3f} by seed)")
    axis.set(xlabel="epoch", ylabel="validation accuracy")
    axis.grid(alpha=0.3)
    axis.legend()
    figure.savefig(arguments.output, dpi=100)


if __name__ == "__main__":
    main()
