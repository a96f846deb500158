"""The exceptions of this package. Each message is one line: what was expected, what was found, what to do."""

from __future__ import annotations


class PackError(ValueError):
    """Packing failed. An existing output was not touched."""


class UnfinishedError(PackError):
    """Packing cannot go on for now. Finished rows are kept, and the same call continues later."""


class DecodeError(PackError):
    """A file cannot be decoded to a picture."""


class SizeError(PackError):
    """A picture has another size than the rest, and the user gave no size to scale to."""
