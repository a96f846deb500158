"""Folders, packs and tables -> the images in them, with a label each. No image is opened.

Hidden files and folders, thumbnails and trash of a system (``@eaDir``, ``__MACOSX``) are passed over in silence; every
other file that does not have an image's extension is passed over and reported, with its kind if that is known.

Rows come in a fixed order: SOURCES as given, files of a folder
before its subfolders, each sorted by name.

A class folder without an image, as deep as one looks, is a class as well: its number is the same everywhere. Where
`labels` is `subfolder` these are the first folders below a SOURCE, where it is `root` the SOURCES themselves, and
under `auto` one or the other, as the images of this SOURCE, or of the others if it has none, lie.

A link to a file is an image like any other. A link to a folder is followed unless the folder is read anyway, so each
folder is read once and loops end.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from pack_images.errors import PackError
from pack_images.find.manifest import Manifest
from pack_images.find.readers import Reader, read_folder
from pack_images.find.sources import PackedRow, Sources, is_hdf5, pack_file
from pack_images.foreign import by_extension, is_foreign
from pack_images.settings import LABELS, Labels

_NAMES = """
    apng avif avifs bmp bw cur dcx dds dib flc fli ftc ftu gif icb icns ico im j2c j2k jfif jp2 jpc jpe jpeg jpf jpg jpx
    mpo msp pbm pcx pfm pgm png pnm ppm psd qoi ras rgb rgba sgi tga tif tiff vda vst webp xbm xpm
"""
EXTENSIONS = frozenset(_NAMES.split())
_NAMED = 3  # of a list that may be long
_FILE = "file"
_FOLDER = "folder"
# Thumbnails, trash and notes that systems leave among files, in small letters; names that begin with a dot are hidden.
_SYSTEMS = """
    __macosx, thumbs.db, ehthumbs.db, ehthumbs_vista.db, desktop.ini, $recycle.bin, recycler, system volume information,
    lost+found, @eadir, #recycle, #snapshot, @recycle, @recently-snapshot, @sharesnap, @tmp, @syno, @database,
    network trash folder, temporary items, thedummy.ds_store, __pycache__
"""
_CLUTTER = frozenset(name.strip() for name in _SYSTEMS.split(","))


@dataclass(frozen=True)
class _Folder:
    path: str
    below: tuple[str, ...]  # the names that lead to it from its SOURCE
    source: int


_Listing = list[tuple[_Folder, list[str]]]  # folders of a SOURCE, each with the names of the images in it


def scan(
    sources: Sequence[str | os.PathLike[str]],
    labels: Labels = "auto",
    *,
    manifests: Sequence[Manifest] = (),
    reader: Reader | None = None,
    classes: Sequence[str] | None = None,
) -> Sources:
    """Find the images in folders, packs and tables.

    Args:
        sources: Folders and packs. Other files among them, as a shell glob brings them along, are passed over.
        labels: Where a class name comes from. `subfolder`: the first folder below SOURCE. `root`: SOURCE's own name.
            `parent`: the folder the image lies in. `auto`: `subfolder`, or `root` for a SOURCE whose images lie
            directly in it.
        manifests: Tables of files.
        reader: Reads each folder in place of the rules above.
        classes: Pass over and count images of classes that are not among these.

    Raises:
        PackError: A SOURCE is not there, lies inside another, has no clear labels, or there is no image at all.
        FormatError: A SOURCE is an HDF5 file, but no pack.
        OSError: A folder cannot be read.
    """
    if labels not in LABELS:
        raise PackError(f"labels: expected one of {', '.join(LABELS)}, found {labels!r}")
    found = Sources()
    roots = list(_roots([os.fspath(source) for source in sources], found))
    _check_apart([root for root, _ in roots])
    folders = [root for root, is_folder in roots if is_folder]
    tables = [read_folder(reader, root) for root in folders] if reader else _scan_folders(folders, labels, found)
    waiting = iter(tables)
    for root, is_folder in roots:
        found.extend(next(waiting) if is_folder else _read_pack(root))
    for manifest in manifests:
        found.extend(manifest.read())
    if not found.filenames and not roots and not manifests and sources:
        raise PackError(
            f"{os.fspath(sources[0])}: expected a folder of images or a pack, found a file; "
            "give the folder it is in, or, for a table of files, --manifest"
        )
    if not found.filenames:
        where = ", ".join([*(root for root, _ in roots), *(manifest.path for manifest in manifests)]) or "any SOURCE"
        raise PackError(
            f"no images in {where}: expected files such as .jpg or .png in it or below" + _such_as(found.passed_over)
        )
    for root, table in zip(folders, tables, strict=True):
        if not table.filenames and not table.class_names:
            found.passed_over.append((root, "no images in it"))
    return found if classes is None else _of_classes(found, classes)


def _of_classes(found: Sources, classes: Sequence[str]) -> Sources:
    chosen = found.of_classes(classes)
    if not chosen.filenames:
        raise PackError(
            f"classes: expected names of classes that have images, such as {found.labels[0]!r}, found "
            f"{', '.join(map(repr, classes[:_NAMED]))}{', ...' if len(classes) > _NAMED else ''}"
        )
    return chosen


def _such_as(passed_over: Sequence[tuple[str, str]]) -> str:
    if not passed_over:
        return ""
    path, reason = next((item for item in passed_over if is_foreign(item[1])), passed_over[0])
    return f"; passed over: {len(passed_over)}, such as {path}" + (f" ({reason})" if is_foreign(reason) else "")


def _roots(sources: Sequence[str], found: Sources) -> Iterator[tuple[str, bool]]:
    """Each SOURCE without a slash at its end, and whether it is a folder; the others are packs."""
    is_glob = len(sources) > 1  # which brings along what nobody would name
    for given in sources:
        source = given.rstrip("/") or "/"
        if os.path.isdir(source) and is_glob and os.path.basename(source).lower() in _CLUTTER:
            found.passed_over.append((source, "thumbnails, trash or notes of a system"))
        elif os.path.isdir(source):
            yield source, True
        elif not os.path.lexists(source):
            raise PackError(f"{given}: expected a folder of images or a pack, found nothing there")
        elif is_hdf5(source):
            yield source, False
        else:
            found.passed_over.append((source, by_extension(source) or "neither a folder nor a pack"))


def _read_pack(path: str) -> Sources:
    """The rows of a pack, with the file names, labels and columns they have there."""
    from h5split.file.images import PackedImages  # which few runs need

    file = pack_file(path)  # first: a pack that takes its place now is then another one
    pack = PackedImages(path)
    return Sources(
        filenames=pack.filenames[:],
        labels=[pack.class_names[label] for label in pack.labels.tolist()],
        paths=[PackedRow(file, row) for row in range(len(pack))],
        columns={name: column[:] for name, column in pack.columns.items()},
        class_names=[*pack.class_names],
        class_orders=[] if [*pack.class_names] == sorted(pack.class_names) else [(path, pack.class_names)],
    )


def _check_apart(roots: Sequence[str]) -> None:
    real = sorted((os.path.realpath(root).split("/"), root) for root in roots)
    for (outer, first), (inner, second) in pairwise(real):
        if inner[: len(outer)] == outer:
            raise PackError(
                f"SOURCE {second} lies in SOURCE {first}, so its images would be packed twice; give one of them"
            )


def _scan_folders(roots: Sequence[str], labels: Labels, found: Sources) -> list[Sources]:
    listings = _walk(roots, found)
    whose = _whose_class(listings)
    tables = []
    for root, folders in zip(roots, listings, strict=True):
        _check_levels(root, folders, labels)
        table = Sources(class_names=_class_folders(root, folders, labels, whose))
        for folder, names in folders:
            prefix = folder.path.rstrip("/") + "/"
            table.filenames.extend([prefix + name for name in names])
            table.labels.extend([_label(root, folder, labels)] * len(names))
        table.paths.extend(table.filenames)
        table.columns["source"].extend([root] * len(table.filenames))
        tables.append(table)
    return tables


def _whose_class(listings: Sequence[_Listing]) -> Literal["root", "subfolder", "either"]:
    """Whether SOURCES are class folders, as their images lie directly in them, or hold class folders; or some each."""
    found = {"subfolder" if folder.below else "root" for folders in listings for folder, names in folders if names}
    return "either" if len(found) == 2 else "root" if "root" in found else "subfolder"


def _class_folders(root: str, folders: _Listing, labels: Labels, whose: str) -> list[str]:
    """The classes that folders stand for, with images or without.

    A SOURCE without images may be a class folder or hold some; under `auto` the others, `whose`, tell.
    """
    first_level = [folder.below[0] for folder, _ in folders if len(folder.below) == 1]
    if labels == "auto" and not any(names for _, names in folders):
        labels = "root" if whose == "root" or (whose == "either" and not first_level) else "subfolder"
    elif labels == "auto":
        labels = "root" if any(names for folder, names in folders if not folder.below) else "subfolder"
    return {"root": [_own_name(root)], "subfolder": first_level}.get(labels, [])


def _walk(roots: Sequence[str], found: Sources) -> list[_Listing]:
    """The image names of every folder, for each root; links to folders come last, so that each is read once."""
    listings: list[_Listing] = [[] for _ in roots]
    visited: set[tuple[int, int]] = set()
    links: deque[_Folder] = deque()
    waiting = [_Folder(root, (), index) for index, root in enumerate(roots)]
    while waiting or links:
        folder = waiting.pop() if waiting else links.popleft()
        status = os.stat(folder.path)
        if (status.st_dev, status.st_ino) in visited:
            found.passed_over.append((folder.path, "by way of a link, a folder that is read already"))
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
            if name.startswith(".") or name.lower() in _CLUTTER:
                continue
            kind = _kind(entry)
            if kind is _FILE and name.rpartition(".")[2].lower() in EXTENSIONS:
                names.append(name)
            elif kind is _FOLDER:
                child = _Folder(f"{folder.path.rstrip('/')}/{name}", (*folder.below, name), folder.source)
                (linked if entry.is_symlink() else below).append(child)
            else:
                reason = _foreign(name) if kind is _FILE else "not a file that can be read"
                found.passed_over.append((f"{folder.path}/{name}", reason))
    names.sort()
    below.sort(key=lambda child: child.below)
    linked.sort(key=lambda child: child.below)
    return names, below, linked


def _foreign(name: str) -> str:
    return by_extension(name) or "not an image's extension"


def _kind(entry: os.DirEntry[str]) -> str | None:
    try:
        return _FILE if entry.is_file() else _FOLDER if entry.is_dir() else None
    except OSError:  # a link that leads to itself
        return None


def _check_levels(root: str, folders: _Listing, labels: Labels) -> None:
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
