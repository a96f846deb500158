"""Where a sequence is in its epochs, and how to go on from there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from h5split.errors import ArgumentError
from h5split.order.passes import Passes
from h5split.order.settings import check_whole
from h5split.selected import Selected


class Resuming(Selected):
    """The methods of `SplitSequence` about the present epoch."""

    _passes: Passes

    def __len__(self) -> int:
        raise NotImplementedError

    @property
    def epoch(self) -> int:
        """The epoch whose order is in effect, counted from 0. Set it to resume."""
        return self._passes.epoch

    @epoch.setter
    def epoch(self, number: int) -> None:
        check_whole("epoch", number, 0)
        self._passes.go_to(int(number))

    def state(self) -> dict[str, int | str]:
        """Where the sequence is, to go on from there with `restore`; plain numbers and text, as JSON takes them.

        That is the epoch and how many of its batches were handed out, which is 0 if they were asked for in another
        order than their own, as Keras does with `shuffle=True`. Keras on TensorFlow and `as_tf_dataset` fetch ahead of
        what is trained on: with them, take a state between epochs.
        """
        epoch, batch = self._passes.state
        return {"epoch": epoch, "batch": batch, "rows": self._fingerprint()}

    def restore(self, state: Mapping[str, int | str]) -> Self:
        """Go on from a state.

        Iteration and `as_torch_loader` continue with the next batch, Keras and `as_tf_dataset` begin with that epoch's
        first.

        Raises:
            ValueError: It is the state of a sequence of other rows, another shard, or other settings.
        """
        if not isinstance(state, Mapping) or set(state) != {"epoch", "batch", "rows"}:
            raise ArgumentError(f"restore: expected what state() returned, found {state!r}")
        if state["rows"] != self._fingerprint():
            raise ArgumentError(
                "restore: expected a state of the same rows in the same order, with the same classes, batch_size, "
                "seed, cap, auto_shuffle, drop_remainder and shard; found one of another sequence"
            )
        check_whole("restore: epoch", state["epoch"], 0)
        check_whole("restore: batch", state["batch"], 0)
        epoch, batch = int(state["epoch"]), int(state["batch"])
        self._passes.go_to(*((epoch, batch) if batch < len(self) else (epoch + (batch > 0), 0)))
        return self

    def _fingerprint(self) -> str:
        return self._selection.fingerprint(self._settings.order_key())
