"""Pictures and labels that are given as arrays, as an .npz file or one after another, in place of files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import zip_longest
from typing import Any, NamedTuple

from pack_images.errors import PackError
from pack_images.find.archive import pictures_in
from pack_images.find.named import check_labels
from pack_images.find.values import iterated

_PAIR = 2
_MISSING = object()


class Item(NamedTuple):
    """One picture as it was given.

    Attributes:
        picture: An array or an image of Pillow's, not checked yet.
        label: A class number or name; None if there are no labels.
        place: Where it was found: its number, or its array and number.
        part: The part of the data set, if the names of arrays tell; else empty.
    """

    picture: Any
    label: Any
    place: str
    part: str


def items_of(images: Any, labels: Any) -> Iterator[Item]:
    """Yield what a user gives as images and labels, one picture after another.

    Args:
        images: An array (N, H, W) or (N, H, W, C), the path of an .npz file, or an iterable of pictures or of
            (picture, label).
        labels: A label for each picture, if they do not come with the pictures.

    Raises:
        PackError: There are more labels than pictures or fewer, or the file has no arrays of images.
    """
    if isinstance(images, (str, os.PathLike)):
        if labels is not None:
            raise PackError(
                "labels: expected none beside an .npz file, whose labels are taken; load its arrays yourself"
            )
        yield from (Item(*found) for found in pictures_in(os.fspath(images)))
        return
    for index, (given, label) in enumerate(_pairs(images, labels)):
        yield Item(given, label, str(index), "")


def _pairs(images: Iterable[Any], labels: Iterable[Any] | None) -> Iterator[tuple[Any, Any]]:
    """Yield (picture, label), from two sequences or from one of pairs; the label is None if there is none."""
    taken = iterated("images", images)
    if labels is not None:
        for index, (picture, label) in enumerate(zip_longest(taken, check_labels(labels), fillvalue=_MISSING)):
            if picture is _MISSING or label is _MISSING:
                raise PackError(f"labels: expected one for each image, found {index:,} {_fewer(picture)}")
            yield picture, label
        return
    for index, item in enumerate(taken):
        if isinstance(item, Mapping):
            keys = ", ".join(map(repr, item))
            raise PackError(
                f"image {index}: expected a picture or (picture, label), found a dict of {keys}; give "
                "((item['image'], item['label']) for item in images)"
            )
        is_pair = isinstance(item, (tuple, list)) and len(item) == _PAIR
        yield (item[0], item[1]) if is_pair else (item, None)


def _fewer(picture: object) -> str:
    return "images and more labels" if picture is _MISSING else "labels and more images"
