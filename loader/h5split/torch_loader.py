"""The batches of a sequence as a torch.utils.data.DataLoader."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader, IterableDataset

from h5split.batch.gather import Batch


class Sequence(Protocol):
    """What is asked of a `SplitSequence` here."""

    def __len__(self) -> int: ...

    def iterate(self, *, writable: bool = False) -> Iterator[Batch]: ...  # noqa: D102  # as SplitSequence's


def loader(sequence: Sequence, *, pin_memory: bool, channels_first: bool) -> Any:
    """A DataLoader of the batches of `sequence`, which are whole already; every iteration over it is one pass."""
    return DataLoader(_Batches(sequence, channels_first), batch_size=None, pin_memory=pin_memory)


class _Batches(IterableDataset[Any]):
    def __init__(self, sequence: Sequence, channels_first: bool) -> None:
        self._sequence = sequence
        self._channels_first = channels_first

    def __len__(self) -> int:
        return len(self._sequence)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for images, labels in self._sequence.iterate(writable=True):
            pixels, targets = torch.from_numpy(images), torch.from_numpy(labels)
            if self._channels_first:
                pixels = pixels.permute(0, 3, 1, 2)
            yield pixels, targets.long() if targets.dtype == torch.int32 else targets
