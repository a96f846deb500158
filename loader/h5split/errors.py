"""The errors of this package, a tree with one root.

The tree:

    H5SplitError
    +-- FormatError           (ValueError)   a file is not a pack, is damaged or truncated, has changed, or is too new
    |   +-- NotAPackError                    a file is of another kind; it is not a damaged pack
    +-- TableError            (ValueError)   a CSV file cannot be read completely
    +-- ArgumentError         (ValueError)   a setting or argument is invalid, or does not fit the pack
    +-- ArgumentTypeError     (TypeError)    an argument has the wrong type, such as a list of paths for a path
    +-- RemoteError           (OSError)      a pack elsewhere cannot be read now, or its copy cannot be written
    +-- PositionError         (IndexError)   a row or batch does not exist
    +-- MissingPackageError   (ImportError)  an optional package is not installed; the message names it

Each is also a built-in error, so code that catches `ValueError` or `IndexError` need not know this package. The message
is one line. It says what was expected, what was found, and what to do. Catch a single error that you can handle, or all
of them:

    try:
        train = SplitSequence(path, batch_size=size)
    except FormatError:
        path = packed_again(path)  # this file cannot be used any more
    except H5SplitError as error:
        sys.exit(f"train.py: {error}")

Errors of the operating system stay Python's own: `FileNotFoundError`, `PermissionError` and other kinds of `OSError`,
with the path.
"""

from __future__ import annotations


class H5SplitError(Exception):
    """The base class of all errors of this package."""


class FormatError(H5SplitError, ValueError):
    """A file is not a pack, or not one that this version can read, or it changed while it was open."""


class NotAPackError(FormatError):
    """A file is of another kind. It is not a damaged pack."""


class TableError(H5SplitError, ValueError):
    """A CSV file cannot be read completely."""


class ArgumentError(H5SplitError, ValueError):
    """A setting or argument is invalid, or does not fit the pack."""


class ArgumentTypeError(H5SplitError, TypeError):
    """An argument has the wrong type."""


class RemoteError(H5SplitError, OSError):
    """A pack elsewhere cannot be read now, or its copy here cannot be written."""


class PositionError(H5SplitError, IndexError):
    """A row or batch does not exist."""


class MissingPackageError(H5SplitError, ImportError):
    """An optional package is not installed."""
