"""The batches of a sequence as a torch.utils.data.DataLoader."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
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

    def __iter__(self) -> Iterator[Any]:
        for batch in self._sequence.iterate(writable=True):
            yield _tensors(batch, self._channels_first)


def _tensors(batch: Any, channels_first: bool) -> Any:
    """A batch, or what a subclass made of it, with tensors for arrays.

    Args:
        batch: Arrays in tuples, lists and dicts; anything else is left as it is.
        channels_first: Whether images, the arrays with four axes, are turned.
    """
    if isinstance(batch, np.ndarray):
        return _tensor(batch, channels_first)
    if isinstance(batch, dict):
        return {name: _tensors(value, channels_first) for name, value in batch.items()}
    if type(batch) in (tuple, list):
        return type(batch)(_tensors(value, channels_first) for value in batch)
    return batch


def _tensor(array: NDArray[Any], channels_first: bool) -> torch.Tensor:
    if any(stride < 0 for stride in array.strides):  # of a flip, which torch cannot have
        array = array.copy()
    tensor = torch.from_numpy(array)
    if tensor.ndim == 4:
        return tensor.permute(0, 3, 1, 2) if channels_first else tensor
    return tensor.long() if tensor.dtype == torch.int32 else tensor
