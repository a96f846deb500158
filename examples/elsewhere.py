"""Train with torch from a pack in an object store or on a web server, while it arrives.

    python examples/elsewhere.py s3://bucket/eurosat.h5
    python examples/elsewhere.py s3://bucket/eurosat.h5 --fetch --cache /scratch/copies

The first epoch is in block order: each batch is one range of the file, so batches arrive at the speed of the link. By
its end the pixels are on this machine, and later epochs are shuffled in full. With --fetch, all of the pack is fetched
before the training, and every epoch is shuffled in full. A second run finds the copy of the first one.
"""

import argparse
import time

import torch
from torch import nn
from tqdm import tqdm

from h5split import PackedImages, SplitSequence


def fetch(pack):
    """Fetch all of a pack, with progress."""
    with tqdm(unit="B", unit_scale=True, desc="fetch") as bar:

        def show(done, total):
            bar.total = total
            bar.update(done - bar.n)

        pack.fetch(show)


def accuracy(network, batches):
    """The share of images whose class is found."""
    with torch.no_grad():
        found = [network(images.float() / 255).argmax(1) == labels for images, labels in batches]
    return torch.cat(found).float().mean().item()


def main():
    """Train a small network."""
    parser = argparse.ArgumentParser(description="Train a small network from a pack that is elsewhere.")
    parser.add_argument("pack", help="the address of a pack, such as s3://bucket/eurosat.h5, or a file")
    parser.add_argument("--cache", metavar="DIR", help="the folder of the copy (your cache folder)")
    parser.add_argument("--fetch", action="store_true", help="fetch all of the pack before the training")
    parser.add_argument("--batch-size", type=int, default=256, help="images in a batch (%(default)s)")
    parser.add_argument("--epochs", type=int, default=3, help="epochs (%(default)s)")
    arguments = parser.parse_args()

    if arguments.fetch:
        fetch(PackedImages(arguments.pack, cache=arguments.cache))
    data = SplitSequence(arguments.pack, batch_size=arguments.batch_size, label_mode="int", cache=arguments.cache)
    val, train = data.split(0.2)
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(train.shape[2], 16, 5),
        nn.ReLU(),
        nn.AdaptiveMaxPool2d(1),
        nn.Flatten(),
        nn.Linear(16, train.num_classes),
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for epoch in range(arguments.epochs):
        is_here = epoch > 0 or arguments.fetch
        train.set(auto_shuffle=True if is_here else "block")
        began, count = time.perf_counter(), 0
        for images, labels in train.as_torch_loader():
            if not count:
                print(f"epoch {epoch}: first batch after {time.perf_counter() - began:.2f} s", flush=True)
            count += len(images)
            loss = nn.functional.cross_entropy(network(images.float() / 255), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        seconds = time.perf_counter() - began
        found = accuracy(network, val.as_torch_loader())
        print(f"epoch {epoch}: {count} images, {count / seconds:,.0f} images/s, accuracy {found:.3f}", flush=True)


if __name__ == "__main__":
    main()
