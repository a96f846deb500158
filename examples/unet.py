"""Train a small U-Net on photographs and masks, with Keras on any backend.

    python examples/unet.py

The photographs are made here: discs, squares and triangles on noisy backgrounds, in a temporary folder. A mask has the
class of each pixel: 0 is the background. `pack(like=...)` gives the masks the rows of the photographs, and a sequence
finds the mask of each photograph by its file name. So the batches fit also where files are missing or broken.
"""

import argparse
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import layers
from PIL import Image, ImageDraw

from h5split import H5SplitSequence, PackedImages
from pack_images import pack

SHAPES = ("background", "disc", "square", "triangle")


def draw(folder, count, side, rng):
    """Write `count` photographs as JPEG, and their masks as PNG."""
    for name in ("photos", "masks"):
        os.makedirs(f"{folder}/{name}")
    for number in range(count):
        slope = np.linspace(*rng.uniform(40, 200, 2), side)[:, None, None]
        noisy = (slope + rng.normal(0, 12, (side, side, 3))).clip(0, 255).astype(np.uint8)
        photo, mask = Image.fromarray(noisy), Image.new("L", (side, side))
        for _ in range(rng.integers(1, 4)):
            kind, color = int(rng.integers(1, len(SHAPES))), tuple(rng.integers(256, size=3).tolist())
            left, top = rng.integers(side * 3 // 4, size=2).tolist()
            extent = int(rng.integers(side // 5, side // 2))
            corners = [left, top, left + extent, top + extent]
            for canvas, fill in ((ImageDraw.Draw(photo), color), (ImageDraw.Draw(mask), kind)):
                if kind == 1:
                    canvas.ellipse(corners, fill)
                elif kind == 2:
                    canvas.rectangle(corners, fill)
                else:
                    canvas.polygon(
                        [(left, top + extent), (left + extent, top + extent), (left + extent / 2, top)], fill
                    )
        photo.save(f"{folder}/photos/{number:05}.jpg", quality=92)
        mask.save(f"{folder}/masks/{number:05}.png")


def flip_both(images, masks, rng):
    """Mirror half of the photographs, and their masks with them."""
    chosen = rng.random(len(images)) < 0.5
    images[chosen], masks[chosen] = images[chosen, :, ::-1], masks[chosen, :, ::-1]
    return images, masks


def convolved(features, width):
    """Two convolutions."""
    for _ in range(2):
        features = layers.Conv2D(width, 3, padding="same", use_bias=False)(features)
        features = layers.Activation("relu")(layers.BatchNormalization(momentum=0.9)(features))
    return features


def unet(shape, classes, width, depth=3):
    """A U-Net: halve the picture `depth` times, then double it again beside what it was."""
    image = keras.Input(shape)
    features, before = layers.Rescaling(1 / 127.5, offset=-1)(image), []
    for level in range(depth):
        before.append(convolved(features, width << level))
        features = layers.MaxPooling2D()(before[-1])
    features = convolved(features, width << depth)
    for level in reversed(range(depth)):
        features = layers.Concatenate()([layers.UpSampling2D()(features), before[level]])
        features = convolved(features, width << level)
    return keras.Model(image, layers.Conv2D(classes, 1, activation="softmax")(features))


def show(epoch, found):
    """Print how well the masks of other photographs are found: the mean over classes of intersection over union."""
    print(f"epoch {epoch}: loss {found['val_loss']:.3f}, IoU {found['val_iou']:.3f}", flush=True)


def main():
    """Make pictures, pack them, and train."""
    parser = argparse.ArgumentParser(description="Train a small U-Net on photographs and masks that are made here.")
    parser.add_argument("--count", type=int, default=400, help="photographs (%(default)s)")
    parser.add_argument("--epochs", type=int, default=8, help="epochs (%(default)s)")
    parser.add_argument("--side", type=int, default=64, help="pixels of a side, a multiple of 8 (%(default)s)")
    parser.add_argument("--width", type=int, default=8, help="features of the first convolution (%(default)s)")
    arguments = parser.parse_args()
    keras.utils.set_random_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        draw(folder, arguments.count, arguments.side, np.random.default_rng(0))
        photos, masks = f"{folder}/photos.h5", f"{folder}/masks.h5"
        with ThreadPoolExecutor() as threads:  # processes would load Keras too, which takes longer than to pack these
            pack(f"{folder}/photos", photos, labels="none", executor=threads)
            pack(f"{folder}/masks", masks, like=photos, color="index", executor=threads)
        pairs = H5SplitSequence(photos, targets=PackedImages(masks), batch_size=16)
        val, train = pairs.split(0.2)
        train.set(auto_shuffle=True)
        model = unet(pairs.shape, len(SHAPES), arguments.width)
        iou = keras.metrics.MeanIoU(len(SHAPES), sparse_y_pred=False, name="iou")
        model.compile(keras.optimizers.Adam(5e-3), "sparse_categorical_crossentropy", metrics=[iou])
        told = keras.callbacks.LambdaCallback(on_epoch_end=show)
        model.fit(train.map(flip_both), validation_data=val, epochs=arguments.epochs, verbose=0, callbacks=[told])


if __name__ == "__main__":
    main()
