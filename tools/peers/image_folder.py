"""torchvision's ImageFolder with torch's DataLoader. Nothing is packed: worker processes decode files in each epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import cpu_torchvision  # noqa: F401 - before torchvision
from job import Job
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import Compose, PILToTensor, Resize


def load(job: Job) -> Callable[[int], Iterable[object]]:
    steps = Compose([Resize((job.size, job.size)), PILToTensor()])
    data = ImageFolder(job.data, transform=steps)
    loader = DataLoader(data, job.batch, shuffle=True, num_workers=job.workers, persistent_workers=True)
    return lambda epoch: loader
