"""The errors of this package, a tree with one root.

The tree:

    PackError             (ValueError)  packing cannot go on; an existing output was not touched
    +-- UnfinishedError                 not now: what is done is kept, and the same call continues
    +-- DecodeError                     a file that no picture can be made of; `pack` leaves it out, and lists it
    +-- SizeError                       a picture of another size than the rest, where no size was asked for

`pack` and `preview` raise nothing else of their own; the text is one line: what was expected, what was found, what to
do. Catch the one that you can do something about, or all:

    try:
        summary = pack(folders, "all.h5", size=64)
    except UnfinishedError as error:
        sys.exit(f"{error}; run it again")  # a full disk, or another run at this output
    except PackError as error:
        sys.exit(str(error))

What the system refuses stays what Python makes of it: kinds of `OSError`, with the path.
"""

from __future__ import annotations

import contextlib

from h5split import errors as of_reader

TYPE_CHECKING = False  # replaces typing.TYPE_CHECKING: typing takes longer to load than all of this
if TYPE_CHECKING:
    from collections.abc import Iterator


class PackError(ValueError):
    """Packing cannot go on; an existing output was not touched. The root of all errors of this package."""


class UnfinishedError(PackError):
    """Packing cannot go on for now. What is done is kept, and the same call continues."""


class DecodeError(PackError):
    """A file that no picture can be made of."""


class SizeError(PackError):
    """A picture of another size than the rest, where no stored size was asked for."""


def reason(error: Exception) -> str:
    """Return the text of another library's error on one line, for a message; the name of its type if it has none."""
    return " ".join(str(error).split()) or type(error).__name__


@contextlib.contextmanager
def one_root() -> Iterator[None]:
    """Raise an error of the reader of packs as an error of this package."""
    try:
        yield
    except of_reader.H5SplitError as error:
        raise PackError(str(error)) from error
