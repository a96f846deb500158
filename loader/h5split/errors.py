"""The errors of this package, a tree with one root.

::

    H5SplitError
    +-- FormatError           (ValueError)   a file is no pack, is damaged, was cut short or written to, or is newer
    |   +-- NotAPackError                    it is something else from the start
    +-- TableError            (ValueError)   a CSV cannot be read whole
    +-- ArgumentError         (ValueError)   a setting or an argument makes no sense, or does not fit the pack
    +-- ArgumentTypeError     (TypeError)    an argument is of the wrong type, such as a list of paths for a path
    +-- PositionError         (IndexError)   there is no such row or batch
    +-- MissingPackageError   (ImportError)  an optional package is not installed; the message says which

Each is a built-in error too, so code that catches `ValueError` or `IndexError` need not know this package. The text is
one line: what was expected, what was found, what to do. Catch the one that you can do something about, or all::

    try:
        train = SplitSequence(path, batch_size=size)
    except FormatError:
        path = packed_again(path)  # this file is of no use any more
    except H5SplitError as error:
        sys.exit(f"train.py: {error}")

What the system refuses stays what Python makes of it: `FileNotFoundError`, `PermissionError` and other kinds of
`OSError`, with the path.
"""

from __future__ import annotations


class H5SplitError(Exception):
    """The root of all errors of this package."""


class FormatError(H5SplitError, ValueError):
    """A file that is no pack, or not one this version can read, or one that changed while it was open."""


class NotAPackError(FormatError):
    """A file that is something else, and not a pack that was damaged."""


class TableError(H5SplitError, ValueError):
    """A CSV that cannot be read whole."""


class ArgumentError(H5SplitError, ValueError):
    """A setting or an argument that makes no sense, or does not fit the pack."""


class ArgumentTypeError(H5SplitError, TypeError):
    """An argument of the wrong type."""


class PositionError(H5SplitError, IndexError):
    """A row or a batch that is not there."""


class MissingPackageError(H5SplitError, ImportError):
    """An optional package that is not installed."""
