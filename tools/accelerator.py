"""Measure whether an accelerator waits for data: compare training from a pack with training on one batch in its memory.

    python tools/accelerator.py photos.h5 --network resnet50 --folder data/photos

The same torchvision network is trained in turns on one batch in the accelerator's memory (the limit) and on shuffled
batches of the pack. With --folder it is also trained on torchvision's ImageFolder of the packed images, which
`--workers` processes decode. Prints medians and their ratios to the limit. Needs torch and torchvision.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn

sys.path.append(os.path.join(os.path.dirname(__file__), "peers"))
import cpu_torchvision  # noqa: F401  # before torchvision
import torchvision

from h5split import SplitSequence

WARM_STEPS = 5
Batches = Iterator[tuple[Tensor, Tensor]]


def from_pack(path: str, batch: int) -> tuple[Batches, int]:
    """Return an endless iterator over shuffled epochs of the pack, and the number of classes."""
    data = SplitSequence(path, batch_size=batch, label_mode="int", auto_shuffle=True, drop_remainder=True)
    return endless(data.as_torch_loader(pin_memory=torch.cuda.is_available())), data.num_classes


def from_folder(path: str, size: int, batch: int, workers: int) -> Batches:
    """Return an endless iterator over shuffled epochs of the image files."""
    transform = torchvision.transforms.Compose(
        [torchvision.transforms.Resize((size, size)), torchvision.transforms.PILToTensor()]
    )
    loader = torch.utils.data.DataLoader(
        torchvision.datasets.ImageFolder(path, transform),
        batch,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=True,
        pin_memory=torch.cuda.is_available(),
    )
    return endless(loader)


def endless(loader: Iterable[tuple[Tensor, Tensor]]) -> Batches:
    return itertools.chain.from_iterable(itertools.repeat(loader))


def trainer(network: str, classes: int, device: torch.device) -> Callable[[Tensor, Tensor], None]:
    """Return a function that does one step of stochastic gradient descent, in bfloat16 and channels last."""
    model = torchvision.models.get_model(network, num_classes=classes).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    def step(images: Tensor, labels: Tensor) -> None:
        pixels = images.to(device, non_blocking=True).to(torch.bfloat16, memory_format=torch.channels_last) / 255
        with torch.autocast(device.type, torch.bfloat16):
            loss = nn.functional.cross_entropy(model(pixels), labels.to(device, non_blocking=True))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def rate(step: Callable[[Tensor, Tensor], None], batches: Batches, seconds: float, device: torch.device) -> float:
    """Return images per second, after some steps to warm up."""
    for images, labels in itertools.islice(batches, WARM_STEPS):
        step(images, labels)
    synchronize(device)
    count, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < seconds:
        images, labels = next(batches)
        step(images, labels)
        count += len(images)
    synchronize(device)
    return count / (time.perf_counter() - begin)


def synchronize(device: torch.device) -> None:
    """Wait until the accelerator has finished all queued work."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Compare training from a pack with training on one batch in the accelerator's memory."
    )
    parser.add_argument("pack", help="a file made by pack-images")
    parser.add_argument("--folder", help="the class folders the pack was made from, to train from these too")
    parser.add_argument("--network", default="resnet50", help="name of a torchvision network (%(default)s)")
    parser.add_argument("--batch", type=int, default=256, help="(%(default)s)")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes for --folder (%(default)s)")
    parser.add_argument("--seconds", type=float, default=5, help="length of each run (%(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="(%(default)s)")
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    pack, classes = from_pack(arguments.pack, arguments.batch)
    images, labels = next(pack)
    print(f"{arguments.network}, batches of {tuple(images.shape)}, {device.type}:")
    ways = {"a batch that is there": itertools.repeat((images.to(device), labels.to(device))), "pack-images": pack}
    if arguments.folder:
        ways["ImageFolder"] = from_folder(arguments.folder, images.shape[-1], arguments.batch, arguments.workers)
    step = trainer(arguments.network, classes, device)
    rates = {name: [] for name in ways}
    for name in [*ways] * arguments.repeats:
        rates[name].append(rate(step, ways[name], arguments.seconds, device))
    limit = statistics.median(rates["a batch that is there"])
    for name, found in rates.items():
        middle = statistics.median(found)
        print(f"  {name:<24} {middle:>10,.0f} images/s ({min(found):,.0f} to {max(found):,.0f}): {middle / limit:.2f}")


if __name__ == "__main__":
    main()
