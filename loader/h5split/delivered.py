"""What a sequence says of the epoch that it has just delivered: file names, labels, targets and mistakes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from h5split.batch.mistakes import Mistake, find_mistakes
from h5split.errors import ArgumentError, PositionError
from h5split.order.rows import Rows
from h5split.order.targets import Learned
from h5split.selected import Selected


class Delivered(Selected):
    """The methods of `SplitSequence` about the epoch that was delivered last.

    Positions count the images of the epoch in the order of delivery: position *i* is row `i % batch_size` of batch
    `i // batch_size`. Negative positions count from the end.
    """

    _learned: Learned

    @property
    def delivered(self) -> Rows:
        """The rows of the epoch that was delivered last, as `rows` numbers them: int (M,)."""
        raise NotImplementedError

    @property
    def target_names(self) -> list[str]:
        """The names of the targets: columns, tags, or the keys of a dict; the class names if classes are the target."""
        return self.classnames if self._learned.is_class else self._learned.targets.names

    def get_filenames(self, indices: ArrayLike | None = None) -> list[str]:
        """Return the file names at positions of the epoch that was delivered last.

        Args:
            indices: Positions, int (M,), or a mask, bool (N,). None: all.

        Raises:
            IndexError: A position is not in the epoch, or is no whole number, or a mask has another length.
            ValueError: The sequence is empty.
        """
        return list(self.packs.filenames.take(self._rows_at(indices)))

    def get_labels(self, indices: ArrayLike | None = None) -> NDArray[np.int32]:
        """Return the class numbers at positions of the epoch that was delivered last: int32 (M,).

        Takes and raises what `get_filenames` does.
        """
        return self.packs.labels[self._rows_at(indices)]

    def get_targets(self, indices: ArrayLike | None = None) -> Any:
        """Return the targets at positions of the epoch that was delivered last, in the form that batches have.

        Takes and raises what `get_filenames` does.

        Raises:
            ValueError: There are no targets, because `label_mode` is None.
        """
        rows = self._rows_at(indices)
        if self._learned.is_class and self.settings.label_mode is None:
            raise ArgumentError("get_targets: expected targets, found none: label_mode is None; get_labels has classes")
        return self._learned.targets.take(rows, lambda: self._encoded(self.packs.labels[rows]))

    def mistakes(self, predictions: ArrayLike) -> list[Mistake]:
        """Return the rows that the network classifies wrongly, most confident first.

        Args:
            predictions: What `predict` returned for this sequence: (N, K), or (N, 1) or (N,) for two classes.

        Raises:
            ValueError: The predictions are not as many as the images of an epoch, or not of as many classes; or the
                targets are not classes.
        """
        if not self._learned.is_class:
            raise ArgumentError(
                "mistakes: expected classes as targets, found the setting targets; compare get_targets() with the "
                "predictions, and get_filenames() with both"
            )
        rows, packs = self.delivered, self.packs
        return find_mistakes(np.asarray(predictions), packs.labels[rows], packs.filenames.take(rows), packs.class_names)

    def class_weights(self) -> dict[int, float]:
        """Return a weight for each class, for `fit(class_weight=...)`: rare classes count as much as frequent ones.

        The weight is N / (K * n) for a class with n of the N images, where K classes have images, as scikit-learn's
        "balanced" has it. A class without images has weight 0.

        Raises:
            ValueError: The sequence is empty.
        """
        counts = np.bincount(self.classes, minlength=len(self.packs.class_names))
        total, present = int(counts.sum()), int(np.count_nonzero(counts))
        return {number: total / (present * count) if count else 0.0 for number, count in enumerate(counts.tolist())}

    def _rows_at(self, indices: ArrayLike | None) -> Rows:
        """The rows at positions of the epoch that was delivered last."""
        delivered = self.delivered
        if indices is None:
            return delivered
        at = np.asarray(indices)
        try:
            return np.atleast_1d(delivered[at if at.size else at.astype(np.int64)])
        except IndexError as error:
            raise PositionError(
                f"positions: expected whole numbers below {len(delivered)}, or a mask; {error}"
            ) from None

    def _encoded(self, labels: NDArray[np.int32]) -> NDArray[Any]:
        """Labels in the form that batches have."""
        raise NotImplementedError
