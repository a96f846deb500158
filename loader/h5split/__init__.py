"""Read packs: one HDF5 file of images, mapped into memory.

`H5SplitSequence` is a Keras Sequence over a pack, `SplitSequence` the same without Keras, and `PackedImages` the file
as arrays.
"""

from __future__ import annotations

from h5split.about import __version__

TYPE_CHECKING = False  # as typing's, which takes longer to load than all of this
if TYPE_CHECKING:
    from typing import Any

    from h5split.alike.leaks import leaks
    from h5split.batch.given import Tags
    from h5split.batch.mistakes import Mistake
    from h5split.batches import SplitSequence
    from h5split.errors import FormatError, H5SplitError
    from h5split.file.images import PackedImages
    from h5split.order.settings import Settings
    from h5split.order.splits import write_split
    from h5split.sequence import H5SplitSequence

__all__ = [
    "H5SplitSequence",
    "SplitSequence",
    "PackedImages",
    "Settings",
    "Tags",
    "Mistake",
    "FormatError",
    "H5SplitError",
    "leaks",
    "write_split",
    "__version__",
]

_HOME = {
    "FormatError": "errors",
    "H5SplitError": "errors",
    "H5SplitSequence": "sequence",
    "Mistake": "batch.mistakes",
    "PackedImages": "file.images",
    "Settings": "order.settings",
    "SplitSequence": "batches",
    "Tags": "batch.given",
    "leaks": "alike.leaks",
    "write_split": "order.splits",
}


def __getattr__(name: str) -> Any:
    """Import a name when it is first used: Keras takes seconds, and numpy longer than all else here."""
    if name not in _HOME:
        raise AttributeError(f"module 'h5split' has no attribute {name!r}")
    from importlib import import_module

    try:
        value = getattr(import_module(f"h5split.{_HOME[name]}"), name)
    except ModuleNotFoundError as error:
        if name != "H5SplitSequence":
            raise
        raise ImportError(
            f"H5SplitSequence needs Keras 3 with a backend ({error}): pip install 'pack-images[tensorflow]'; "
            "SplitSequence is the same without Keras"
        ) from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
