"""The batches of a sequence as a torch.utils.data.DataLoader."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from h5split.batch.gather import Batch
from h5split.batch.targets import Meaning, Meanings
from h5split.errors import ArgumentError
from h5split.order.settings import no_workers

_IMAGE_AXES = 4
_Convert = Callable[[NDArray[Any]], torch.Tensor]


class Sequence(Protocol):
    """What is asked of a `SplitSequence` here."""

    @property
    def shape(self) -> tuple[int, int, int]: ...  # noqa: D102  # as SplitSequence's

    @property
    def target_meaning(self) -> Meanings: ...  # noqa: D102  # as SplitSequence's

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
        worker = get_worker_info()
        if worker is not None:  # each process would hand out every batch
            raise ArgumentError(f"as_torch_loader: {no_workers('num_workers', worker.num_workers)}")
        meaning, channels = self._sequence.target_meaning, self._sequence.shape[2]
        for batch in self._sequence.iterate(writable=True):
            if self._channels_first:
                _check_axes(batch, channels)
            yield _converted(batch, _turned if self._channels_first else _tensor, meaning)


def _check_axes(batch: Any, channels: int) -> None:
    """Raise if images have their channels first already, as functions of torchvision return them."""
    images = batch[0] if type(batch) in (tuple, list) and batch else batch
    shape: tuple[int, ...] = images.shape if isinstance(images, np.ndarray) else ()
    if len(shape) == _IMAGE_AXES and shape[1] == channels != shape[3]:
        raise ArgumentError(
            f"as_torch_loader: expected images (B, H, W, C), which it turns itself, found {shape} from map; let the "
            "function return (B, H, W, C), or give channels_first=False"
        )


def _converted(batch: Any, picture: _Convert, meaning: Meanings) -> Any:
    """A batch, or what a subclass made of it, with tensors for arrays.

    Args:
        batch: Images alone, or a tuple or list of images, targets and weights.
        picture: Makes a tensor of images.
        meaning: What the targets mean.
    """
    if type(batch) not in (tuple, list) or not batch:
        return _each(batch, picture)
    images, *others = batch
    return type(batch)([_each(images, picture), *(_labelled(other, picture, meaning) for other in others)])


def _labelled(targets: Any, picture: _Convert, meaning: Meanings) -> Any:
    """Targets as tensors: class numbers in int64, as losses want them, and pictures turned as images are."""
    if isinstance(targets, dict) and isinstance(meaning, dict):
        return {name: _labelled(one, picture, meaning.get(name, meaning)) for name, one in targets.items()}
    if isinstance(meaning, Meaning) and meaning.kind == "pictures":
        return _each(targets, picture)
    return _each(targets, _numbers if _has_classes(meaning) else _tensor)


def _has_classes(meaning: Meanings) -> bool:
    if isinstance(meaning, dict):
        return any(map(_has_classes, meaning.values()))
    return meaning.kind == "class"


def _each(part: Any, convert: _Convert) -> Any:
    """Part of a batch with tensors for the arrays in tuples, lists and dicts; anything else is left as it is."""
    if isinstance(part, np.ndarray):
        return convert(part)
    if isinstance(part, dict):
        return {name: _each(value, convert) for name, value in part.items()}
    if type(part) in (tuple, list):
        return type(part)(_each(value, convert) for value in part)
    return part


def _turned(images: NDArray[Any]) -> torch.Tensor:
    tensor = _tensor(images)
    return tensor.permute(0, 3, 1, 2) if tensor.ndim == _IMAGE_AXES else tensor


def _numbers(classes: NDArray[Any]) -> torch.Tensor:
    tensor = _tensor(classes)
    return tensor.long() if tensor.dtype == torch.int32 else tensor


def _tensor(array: NDArray[Any]) -> torch.Tensor:
    # torch has no negative strides, as of a flip; and it would write to arrays that are not to be written to, or whose
    # rows share memory.
    if not array.flags.writeable or any(stride <= 0 for stride in array.strides):
        array = array.copy()
    return torch.from_numpy(array)
