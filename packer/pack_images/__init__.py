"""Pack image folders into one memory-mapped HDF5 file.

The function `pack` does the same as the command ``pack-images``. `write` makes a pack of arrays.
"""

from __future__ import annotations

TYPE_CHECKING = False  # replaces typing.TYPE_CHECKING: typing takes longer to load than all of this
if TYPE_CHECKING:
    from typing import Any

    from pack_images.about import __version__
    from pack_images.errors import DecodeError, PackError, SizeError, UnfinishedError
    from pack_images.find.manifest import Manifest
    from pack_images.packing import pack, preview
    from pack_images.preparing import prepare
    from pack_images.summary import Summary
    from pack_images.writing import write

__all__ = [
    "pack",
    "preview",
    "write",
    "prepare",
    "Summary",
    "Manifest",
    "PackError",
    "UnfinishedError",
    "DecodeError",
    "SizeError",
    "__version__",
]

_MODULE_OF = {
    "pack": "packing",
    "preview": "packing",
    "write": "writing",
    "prepare": "preparing",
    "Summary": "summary",
    "Manifest": "find.manifest",
    "PackError": "errors",
    "UnfinishedError": "errors",
    "DecodeError": "errors",
    "SizeError": "errors",
    "__version__": "about",
}


def __getattr__(name: str) -> Any:
    """Import a name when it is first used, so that workers and ``--help`` load only what they need."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'pack_images' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"pack_images.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
