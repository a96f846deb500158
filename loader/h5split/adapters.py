"""A sequence as a data set of TensorFlow, as one of torch, and as a pack."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Protocol

from h5split.errors import ArgumentError, ArgumentTypeError, MissingPackageError
from h5split.order.settings import no_workers

if TYPE_CHECKING:
    from h5split import tf_dataset, torch_loader
    from h5split.order.selection import Selection

    class _Sequence(tf_dataset.Sequence, torch_loader.Sequence, Protocol):
        _selection: Selection

        def _is_extended(self) -> bool: ...


_INSTEAD = {  # arguments of a DataLoader, and what does the same here
    "batch_size": "use set(batch_size=...)",
    "shuffle": "use set(auto_shuffle=True)",
    "drop_last": "use set(drop_remainder=True)",
    "collate_fn": "use map(function)",
    "transform": "use map(function)",
    "sampler": "use select(rows), or shard(rank, count)",
}


class Adapters:
    """The methods of `SplitSequence` that give its batches to TensorFlow and torch, and that save its rows."""

    def as_tf_dataset(self: _Sequence) -> Any:
        """The batches as a `tf.data.Dataset`, of known cardinality; every iteration over it is one pass.

        For `fit` it is faster than the sequence itself, as several batches are gathered in one call. Make another one
        after a change of settings.

        Raises:
            ImportError: There is no TensorFlow.
            TypeError: `__getitem__` is overridden: use `map` instead.
            ValueError: The sequence is empty.
        """
        if self._is_extended():
            raise ArgumentTypeError(
                f"as_tf_dataset: expected batches as the pack has them, found {type(self).__name__}.__getitem__, which "
                "it does not call; do the same in a function for map(), or give the sequence itself to fit"
            )
        try:
            from h5split.tf_dataset import dataset
        except ModuleNotFoundError as error:
            raise MissingPackageError(
                f"as_tf_dataset needs TensorFlow ({error}): pip install 'pack-images[tensorflow]'"
            ) from error
        return dataset(self)

    def as_torch_loader(
        self: _Sequence,
        *,
        pin_memory: bool = False,
        channels_first: bool = True,
        num_workers: int = 0,
        **others: object,
    ) -> Any:
        """The batches as a `torch.utils.data.DataLoader`; every iteration over it is one pass.

        Batches are whole when they come to it, so that nothing is collated. Class numbers (`label_mode="int"`) are
        int64, as torch's losses want them. Images of uint16 are torch.uint16, which torch can copy, index and turn, but
        hardly compute with: begin with `images.float()`, or use the setting `scale`. Images are turned, and pictures
        of another pack that are targets. Other targets keep their axes, also if `map` makes images of them.

        Args:
            pin_memory: Copy batches into page-locked memory, from where a GPU reads without waiting.
            channels_first: Pictures are (B, C, H, W), the same memory seen otherwise; else (B, H, W, C).
            num_workers: 0. Other processes would hand batches over more slowly than this one makes them.
            others: None. The error for another argument of a DataLoader says what does the same here.

        Raises:
            ImportError: There is no torch.
            ValueError: `num_workers` is not 0.
            TypeError: There is no such argument.
        """
        for name in others:
            advice = _INSTEAD.get(name, "pin_memory and channels_first are all there is")
            raise ArgumentTypeError(
                f"as_torch_loader: expected no argument {name}, as batches are made already; {advice}"
            )
        if num_workers:
            raise ArgumentError(f"as_torch_loader: {no_workers('num_workers', num_workers)}")
        try:
            from h5split.torch_loader import loader
        except ModuleNotFoundError as error:
            raise MissingPackageError(f"as_torch_loader needs torch ({error}): pip install torch") from error
        return loader(self, pin_memory=pin_memory, channels_first=channels_first)

    def save(self: _Sequence, path: str | os.PathLike[str]) -> None:
        """Save these rows as a pack, in this order and with these classes. Nothing is decoded.

        Names, columns, digests, losses and what was left out are those of the packs. Targets, weights and the order of
        epochs are not saved. The pack appears under its name when it is whole. With `verbose` there is a progress bar.
        h5py is needed.

        Args:
            path: The new pack. A pack that is there is replaced, but never one that these rows come from.

        Raises:
            ValueError: There are no rows, another file is at `path`, `map` was called, or the sequence is a shard.
            FormatError: The pixels of a row do not match their checksum.
            OSError: The disk is full, or the folder takes no files.
        """
        if self.is_mapped:
            raise ArgumentError("save: expected rows as packs have them, found functions of map(); save before map()")
        from h5split.saving import save

        save(self._selection, path, verbose=self.settings.verbose)
