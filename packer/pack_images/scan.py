"""Folders -> the images in them, with a label each. Nothing is opened but directories.

Hidden files and folders, ``__MACOSX`` and the like are passed over in silence; every other file that does not have
an image's extension is passed over and reported. Rows come in a fixed order: SOURCES as given, files of a folder
before its subfolders, each sorted by name.

A link to a file is an image like any other. A link to a folder is followed unless the folder is read anyway, so each
folder is read once and loops end.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

from pack_images.errors import PackError

_NAMES = """
    apng avif avifs bmp bw cur dcx dds dib flc fli ftc ftu gif icb icns ico im j2c j2k jfif jp2 jpc jpe jpeg jpf jpg jpx
    mpo msp pbm pcx pfm pgm png pnm ppm psd qoi ras rgb rgba sgi tga tif tiff vda vst webp xbm xpm
"""
EXTENSIONS = frozenset(_NAMES.split())
LABELS = ("auto", "subfolder", "parent", "root")

Labels = Literal["auto", "subfolder", "parent", "root"]

_CLUTTER = frozenset({"__MACOSX", "Thumbs.db", "thumbs.db", "desktop.ini", "lost+found"})


@dataclass(frozen=True)
class Sources:
    """The images to pack, a row each.

    Attributes:
        filenames: As stored: SOURCE and the way below it, `/` as separator.
        labels: The class name of each.
        columns: Name -> a text for each; `source` is the SOURCE as given.
        passed_over: (path, reason) of what was found and is not packed.
    """

    filenames: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    columns: dict[str, list[str]] = field(default_factory=lambda: {"source": []})
    passed_over: list[tuple[str, str]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.filenames)

    def take(self, rows: Sequence[int]) -> Sources:
        """The same images in the order of `rows`."""
        return Sources(
            filenames=[self.filenames[row] for row in rows],
            labels=[self.labels[row] for row in rows],
            columns={name: [column[row] for row in rows] for name, column in self.columns.items()},
            passed_over=self.passed_over,
        )


@dataclass(frozen=True)
class _Folder:
    path: str
    below: tuple[str, ...]  # the names that lead to it from its SOURCE
    source: int


def scan(sources: Sequence[str | os.PathLike[str]], labels: Labels = "auto") -> Sources:
    """Find the images in folders.

    Args:
        sources: Folders. Files among them, as a shell glob brings them along, are passed over.
        labels: Where a class name comes from. `subfolder`: the first folder below SOURCE. `root`: SOURCE's own name.
            `parent`: the folder the image lies in. `auto`: `subfolder`, or `root` for a SOURCE whose images lie
            directly in it.

    Raises:
        PackError: A SOURCE is not there, lies inside another, has no clear labels, or there is no image at all.
        OSError: A folder cannot be read.
    """
    if labels not in LABELS:
        raise PackError(f"labels: expected one of {', '.join(LABELS)}, found {labels!r}")
    found = Sources()
    roots = list(_roots([os.fspath(source) for source in sources], found))
    _check_apart(roots)
    listings = _walk(roots, found)
    for index, root in enumerate(roots):
        folders = listings[index]
        _check_levels(root, folders, labels)
        for folder, names in folders:
            label = _label(root, folder, labels)
            prefix = "" if folder.path == "" else folder.path.rstrip("/") + "/"
            found.filenames.extend([prefix + name for name in names])
            found.labels.extend([label] * len(names))
            found.columns["source"].extend([root] * len(names))
    if not found.filenames:
        where = ", ".join(roots) or "any SOURCE"
        raise PackError(
            f"no images in {where}: expected files such as .jpg or .png in it or below"
            + (f"; {len(found.passed_over)} other files were passed over" if found.passed_over else "")
        )
    return found


def _roots(sources: Iterable[str], found: Sources) -> Iterator[str]:
    for given in sources:
        source = given.replace(os.sep, "/").rstrip("/") or "/"
        if os.path.isdir(source):
            yield source
        elif os.path.lexists(source):
            found.passed_over.append((source, "not a folder"))
        else:
            raise PackError(f"{given}: expected a folder of images, found nothing there")


def _check_apart(roots: Sequence[str]) -> None:
    real = sorted((os.path.realpath(root).split("/"), root) for root in roots)
    for (outer, first), (inner, second) in pairwise(real):
        if inner[: len(outer)] == outer:
            raise PackError(
                f"SOURCE {second} lies in SOURCE {first}, so its images would be packed twice; give one of them"
            )


def _walk(roots: Sequence[str], found: Sources) -> list[list[tuple[_Folder, list[str]]]]:
    """The image names of every folder, for each root; links to folders come last, so that each is read once."""
    listings: list[list[tuple[_Folder, list[str]]]] = [[] for _ in roots]
    visited: set[tuple[int, int]] = set()
    links: deque[_Folder] = deque()
    waiting = [_Folder(root, (), index) for index, root in enumerate(roots)]
    while waiting or links:
        if waiting:
            folder, linked = waiting.pop(), False
        else:
            folder, linked = links.popleft(), True
        status = os.stat(folder.path)
        if linked and (status.st_dev, status.st_ino) in visited:
            found.passed_over.append((folder.path, "a link to a folder that is read already"))
            continue
        visited.add((status.st_dev, status.st_ino))
        names, below, linked_below = _list(folder, found)
        listings[folder.source].append((folder, names))
        waiting.extend(below)
        links.extend(linked_below)
    for listing in listings:
        listing.sort(key=lambda item: item[0].below)
    return listings


def _list(folder: _Folder, found: Sources) -> tuple[list[str], list[_Folder], list[_Folder]]:
    """One directory: names of images, folders, and links to folders."""
    names: list[str] = []
    below: list[_Folder] = []
    linked: list[_Folder] = []
    with os.scandir(folder.path) as entries:
        for entry in entries:
            name = entry.name
            if name.startswith(".") or name in _CLUTTER:
                continue
            if name.rpartition(".")[2].lower() in EXTENSIONS and entry.is_file():
                names.append(name)
            elif entry.is_dir():
                child = _Folder(f"{folder.path.rstrip('/')}/{name}", (*folder.below, name), folder.source)
                (linked if entry.is_symlink() else below).append(child)
            else:
                reason = "not an image's extension" if entry.is_file() else "not a file that can be read"
                found.passed_over.append((f"{folder.path}/{name}", reason))
    names.sort()
    below.sort(key=lambda child: child.below)
    linked.sort(key=lambda child: child.below)
    return names, below, linked


def _check_levels(root: str, folders: Sequence[tuple[_Folder, list[str]]], labels: Labels) -> None:
    """Refuse a SOURCE whose images lie at two levels where the labels depend on the level."""
    direct = next((names for folder, names in folders if names and not folder.below), None)
    nested = next(((folder, names) for folder, names in folders if names and folder.below), None)
    if direct is None or labels in ("parent", "root") or (labels == "auto" and nested is None):
        return
    own = _own_name(root)
    if nested is None:
        raise PackError(
            f"{root}/{direct[0]}: expected every image in a folder below SOURCE, found it directly in SOURCE; "
            f"--labels root labels it {own!r}"
        )
    folder, names = nested
    raise PackError(
        f"{root} has images at two levels: {root}/{direct[0]} would be labelled {own!r} after its SOURCE, and "
        f"{folder.path}/{names[0]} {folder.below[0]!r} after its folder; "
        "--labels root takes the SOURCE for all, --labels parent the folder each image lies in"
    )


def _label(root: str, folder: _Folder, labels: Labels) -> str:
    if labels == "root" or not folder.below:
        return _own_name(root)
    return folder.below[-1] if labels == "parent" else folder.below[0]


def _own_name(root: str) -> str:
    return os.path.basename(os.path.abspath(root)) or "/"
