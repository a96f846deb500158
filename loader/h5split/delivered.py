"""What a sequence says of the epoch that it has just delivered: file names, labels, targets and mistakes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from h5split.batch.mistakes import Mistake, find_errors, find_mistakes, find_wrong_tags
from h5split.batch.targets import Kind, Makers, Meaning, Meanings
from h5split.errors import ArgumentError
from h5split.file.classes import is_unlabelled
from h5split.order.rows import Rows
from h5split.selected import Selected
from h5split.system.arrays import plain, positions


class Delivered(Selected):
    """The methods of `SplitSequence` about the epoch that was delivered last.

    Positions count the images of the epoch in the order of delivery: position *i* is row `i % batch_size` of batch
    `i // batch_size`. Negative positions count from the end.
    """

    @property
    def delivered(self) -> Rows:
        """The rows of the epoch that was delivered last, as `rows` numbers them: int (M,)."""
        raise NotImplementedError

    @property
    def target_names(self) -> list[str]:
        """The names of the targets: columns, tags, or the keys of a dict; the class names if classes are the target."""
        return self.classnames if self._learned.is_class else self._learned.targets.names

    @property
    def target_kind(self) -> Kind:
        """What the targets are: "class", "tags", "numbers", "pictures", or "other": a dict, text, other arrays."""
        return self._learned.targets.kind

    @property
    def is_unlabelled(self) -> bool:
        """Whether classes are the target, but the images were packed without labels."""
        return self._learned.is_class and is_unlabelled(self.classnames)

    @property
    def target_meaning(self) -> Meanings:
        """The kind and the names of the targets; of a dict, those of each. There are no names without labels."""
        if self._learned.is_class and self.settings.label_mode is None:
            return Meaning("class", ())
        return self._learned.meaning()

    def get_filenames(self, indices: ArrayLike | None = None) -> list[str]:
        """Return the file names at positions of the epoch that was delivered last.

        Args:
            indices: Positions, int (M,), or a mask, bool (N,). None: all.

        Raises:
            IndexError: A position is not in the epoch, or is no whole number, or a mask has another length.
            ValueError: The sequence is empty.
        """
        self.packs.check_whole()
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
        make = Makers(lambda: self._encoded(self.packs.labels[rows]), lambda packs, at: packs.pixels(at))
        return self._learned.targets.take(rows, make)

    def mistakes(self, predictions: ArrayLike, *, threshold: float = 0.5) -> list[Mistake]:
        """Return the rows that the network gets wrong, the worst first.

        - Classes: the rows whose class has not the highest score, most confident first.
        - `Tags`: the rows with a tag on the wrong side of the threshold, most confident first.
        - Numbers: all rows, largest error first. The `confidence` of each is its largest absolute error.

        Args:
            predictions: What `predict` returned for this sequence: (N, K) for K classes, tags or columns. Two classes
                or one column may also be (N, 1) or (N,).
            threshold: The score from which on a tag counts as predicted.

        Raises:
            ValueError: The predictions do not have the shape of the targets of an epoch; predictions or targets are NaN
                or infinite; the images have no labels; or the targets are neither classes, tags nor numbers.
        """
        rows, packs, found = self.delivered, self.packs, plain("predictions", predictions)
        names, kind = packs.filenames.take(rows), self.target_kind
        if kind == "class":
            return find_mistakes(found, packs.labels[rows], names, packs.class_names)
        if kind == "tags":
            return find_wrong_tags(found, self.get_targets(), names, self.target_names, threshold)
        if kind == "numbers":
            return find_errors(found, self.get_targets(), names)
        several = "pictures" if kind == "pictures" else "several targets or arrays of more axes"
        raise ArgumentError(
            f"mistakes: expected classes, tags or numbers as targets, found {several}; compare get_targets() with the "
            "predictions"
        )

    def class_weights(self) -> dict[int, float]:
        """Return a weight for each class, for `fit(class_weight=...)`: rare classes count as much as frequent ones.

        The weight is N / (K * n) for a class with n of the N images, where K classes have images, as scikit-learn's
        "balanced" has it. A class without images has weight 0.

        Raises:
            ValueError: The sequence is empty, or classes are not its target.
        """
        if not self._learned.is_class:
            raise ArgumentError("class_weights: expected classes as the target, found the setting targets; use weights")
        counts = np.bincount(self.classes, minlength=len(self.packs.class_names))
        total, present = int(counts.sum()), int(np.count_nonzero(counts))
        return {number: total / (present * count) if count else 0.0 for number, count in enumerate(counts.tolist())}

    def _rows_at(self, indices: ArrayLike | None) -> Rows:
        """The rows at positions of the epoch that was delivered last."""
        delivered = self.delivered
        if indices is None:
            return delivered
        return delivered[positions(np.atleast_1d(plain("positions", indices)), len(delivered))]

    def _encoded(self, labels: NDArray[np.int32]) -> NDArray[Any]:
        """Labels in the form that batches have."""
        raise NotImplementedError
