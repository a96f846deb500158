"""What can go wrong, as exceptions whose text is one line: what was expected, what was found, what to do."""

from __future__ import annotations


class PackError(ValueError):
    """Packing cannot go on; an existing output was not touched."""


class UnfinishedError(PackError):
    """Packing cannot go on for now. What is done is kept, and the same call continues."""


class DecodeError(PackError):
    """A file that no picture can be made of."""


class SizeError(PackError):
    """A picture of another size than the rest, where no stored size was asked for."""
