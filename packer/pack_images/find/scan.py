"""Find the images in folders, packs and tables, with a label for each. No image is opened.

Hidden files and folders are ignored silently, and so are thumbnails and trash of operating systems (``@eaDir``,
``__MACOSX``). Any other file without an image's extension is passed over and reported, with its kind if that is known.

The order is fixed: SOURCES as given; the files of a folder before its subfolders; each sorted by name.

A class folder without any image below it is still a class, so that class numbers do not depend on which images are
present. Under `subfolder`, the class folders are the first folders below a SOURCE; under `path`, the folders that hold
images or nothing; under `root`, the SOURCES themselves. `auto` chooses between the first and the last by where the
images of the SOURCE lie, or the images of the other SOURCES if it has none.

A symbolic link to a file is an image like any other. A link to a folder is followed unless the folder is found without
it. So each folder is read once, and loops end.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

from h5split.file.classes import one_form, sorted_classes
from h5split.system.places import archive_advice, url_advice
from h5split.system.text import listed
from pack_images.errors import PackError
from pack_images.find.labels import BY_FOLDERS, LabelRule, folder_name
from pack_images.find.manifest import Manifest
from pack_images.find.readers import Reader, read_folder
from pack_images.find.relabel import Relabel, relabelled
from pack_images.find.sources import EXTENSIONS, PackedRow, Sources, has_image_extension, is_hdf5, pack_file
from pack_images.foreign import by_extension, is_foreign, is_ignored, is_of_system

_MAX_NAMES = 3  # in a message, of a list that may be long
_ARRAYS = ".npz"
_FILE = "file"
_FOLDER = "folder"
_PART_NAMES = "train training val valid validation test testing dev eval evaluation holdout"
_PARTS = frozenset(_PART_NAMES.split())  # of a data set


@dataclass(frozen=True)
class _Folder:
    path: str
    below: tuple[str, ...]  # folder names on the way from its SOURCE
    source: int  # index of its SOURCE


_Listing = list[tuple[_Folder, list[str]]]  # all folders of a SOURCE, each with the names of its images


def scan(
    sources: Sequence[str | os.PathLike[str]],
    rule: LabelRule = BY_FOLDERS,
    *,
    manifests: Sequence[Manifest] = (),
    reader: Reader | None = None,
    relabel: Relabel | None = None,
    classes: Sequence[str] | None = None,
    extensions: Collection[str] | None = EXTENSIONS,
) -> Sources:
    """Find the images in folders, packs and tables.

    Args:
        sources: Folders and packs. Other files are passed over, because a shell glob may include them.
        rule: Where class names come from. It does not apply to packs, to tables with a column of labels, and to folders
            that a reader lists, unless there are to be no labels. A note says so; it is an error if it applies nowhere.
        manifests: Tables of files.
        reader: A function that reads each folder, in place of the rules above.
        relabel: Labels by file name, in place of those found; see `find.relabel`.
        classes: Class names that the user gives. Names that differ from them in their Unicode form only become theirs.
        extensions: Of images. None: every file is one.

    Raises:
        PackError: A SOURCE does not exist, lies inside another, or has ambiguous labels; or there is no image at all.
        FormatError: A SOURCE is an HDF5 file, but no pack.
        OSError: A folder cannot be read.
    """
    found = Sources()
    roots = list(_roots([os.fspath(source) for source in sources], found))
    _check_apart([root for root, _ in roots])
    folders = [root for root, is_folder in roots if is_folder]
    tables = (
        [read_folder(reader, root) for root in folders] if reader else _scan_folders(folders, rule, found, extensions)
    )
    waiting = iter(tables)
    exact: list[Sequence[str]] = []  # lists of class names that programs wrote
    for root, is_folder in roots:
        table = next(waiting) if is_folder else _read_pack(root)
        exact.append(table.class_names if table.labelled else ())
        found.extend(table)
    for manifest in manifests:
        table = manifest.read(rule, extensions)
        exact.append(() if manifest.name_column is None else table.labels)
        found.extend(table)
    if not found.filenames:
        raise _nothing_found(sources, [root for root, _ in roots], manifests, found)
    for root, table in zip(folders, tables, strict=True):
        if not table.filenames and not table.class_names:
            found.passed_over.append((root, "no images in it"))
    if rule.labels == "none":
        found = found.unlabelled()
    else:
        _check_rule_applies(rule, found, len(roots) + len(manifests))
    if relabel is not None:
        found = relabelled(found, relabel)
    return _composed(found, exact, classes)


def _nothing_found(
    sources: Sequence[str | os.PathLike[str]], roots: Sequence[str], manifests: Sequence[Manifest], found: Sources
) -> PackError:
    """Return the error that says where there are no images."""
    if sources and not roots and not manifests:
        source = os.fspath(sources[0])
        return PackError(f"{source}: expected a folder of images or a pack, {_advice_on_file(source)}")
    where = ", ".join([*roots, *(manifest.name for manifest in manifests)]) or "any SOURCE"
    is_table = bool(manifests and not roots)
    wanted = "rows with paths of files, found none" if is_table else "files such as .jpg or .png in it or below"
    return PackError(f"no images in {where}: expected {wanted}{_passed_over_example(found.passed_over)}")


def _advice_on_file(path: str) -> str:
    """Return what a SOURCE is that is a file but no pack, and what to do with it, as the end of a message."""
    if path.lower().endswith(_ARRAYS):
        return f"found arrays; in Python, pack_images.write('OUT.h5', {path!r}) packs them"
    return archive_advice(path) or "found a file; give the folder it is in, or, for a table of files, --manifest"


def select_classes(found: Sources, classes: Sequence[str]) -> Sources:
    """Return only the images of these classes. The others are counted.

    Raises:
        PackError: There is no image of them.
    """
    chosen = found.of_classes(classes)
    if not chosen.filenames:
        raise PackError(
            f"classes: expected names of classes that have images, such as {found.labels[0]!r}, found "
            f"{', '.join(map(repr, classes[:_MAX_NAMES]))}{', ...' if len(classes) > _MAX_NAMES else ''}"
        )
    return chosen


def _check_rule_applies(rule: LabelRule, found: Sources, number: int) -> None:
    """Say which of the SOURCES, `number` in all, do not follow the user's rule for labels. Raise if none does."""
    if not rule.is_explicit or not found.labelled:
        return
    if len(found.labelled) == number:
        raise PackError(
            f"{rule.option}: expected a folder, or a table without labels, found only labels that SOURCES bring "
            f"themselves, {listed(found.labelled)}; leave the option out"
        )
    found.notes.append(f"{rule.option} does not apply to SOURCES with labels of their own: {listed(found.labelled)}")


def _composed(found: Sources, exact: Sequence[Sequence[str]], classes: Sequence[str] | None) -> Sources:
    """Merge class names that differ in their Unicode form only, and say so: they look alike wherever they are printed.

    Args:
        found: The images.
        exact: Lists of class names that programs wrote. Names of one list stay apart, and others become theirs.
        classes: A list like these, which comes before all others.
    """
    written = {name for names in exact for name in names}
    names = {*found.labels, *found.class_names}
    lists = [*exact, classes or (), *([name] for name in names - written)]
    merged = one_form(lists, written if classes is None else classes)
    twice = sorted({merged[name] for name in names if merged[name] != name})
    if not twice:
        return found
    found.notes.append(f"one class each, though written in two Unicode forms: {', '.join(twice)}")
    return replace(
        found,
        labels=[merged[label] for label in found.labels],
        class_names=[merged[name] for name in found.class_names],
        class_numbers=[
            (where, {merged[name]: number for name, number in numbers.items()})
            for where, numbers in found.class_numbers
        ],
    )


def _passed_over_example(passed_over: Sequence[tuple[str, str]]) -> str:
    if not passed_over:
        return ""
    path, reason = next((item for item in passed_over if is_foreign(item[1])), passed_over[0])
    return f"; passed over: {len(passed_over)}, such as {path}" + (f" ({reason})" if is_foreign(reason) else "")


def _roots(sources: Sequence[str], found: Sources) -> Iterator[tuple[str, bool]]:
    """Yield each SOURCE without a trailing slash, and whether it is a folder (True) or a pack (False)."""
    is_glob = len(sources) > 1  # several SOURCES may come from a glob, which includes unwanted names
    for given in sources:
        source = given.rstrip("/") or "/"
        if os.path.isdir(source) and is_glob and is_of_system(os.path.basename(source)):
            found.passed_over.append((source, "thumbnails, trash or notes of a system"))
        elif os.path.isdir(source):
            yield source, True
        elif not os.path.lexists(source):
            advice = url_advice(given) or "found nothing there"
            raise PackError(f"{given}: expected a folder of images or a pack, {advice}")
        elif is_hdf5(source):
            yield source, False
        else:
            found.passed_over.append((source, by_extension(source) or "neither a folder nor a pack"))


def _read_pack(path: str) -> Sources:
    """Read the rows of a pack, with their file names, labels and columns."""
    from h5split.file.images import PackedImages  # here, because few runs need it
    from h5split.file.packs import Packs

    file = pack_file(path)  # before opening, so that a pack that replaces it now has another stamp
    pack = PackedImages(path)
    Packs([pack]).check_tables()
    return Sources(
        filenames=pack.filenames[:],
        labels=[pack.class_names[label] for label in pack.labels.tolist()],
        paths=[PackedRow(file, row) for row in range(len(pack))],
        columns={name: column[:] for name, column in pack.columns.items()},
        class_names=[*pack.class_names],
        class_numbers=[]
        if [*pack.class_names] == sorted_classes(pack.class_names)
        else [(path, {name: number for number, name in enumerate(pack.class_names)})],
        labelled=[path],
    )


def _check_apart(roots: Sequence[str]) -> None:
    """Raise if a SOURCE lies inside another."""
    real = sorted((os.path.realpath(root).split("/"), root) for root in roots)
    for (outer, first), (inner, second) in pairwise(real):
        if inner[: len(outer)] == outer:
            raise PackError(
                f"SOURCE {second} lies in SOURCE {first}, so its images would be packed twice; give one of them"
            )


def _scan_folders(
    roots: Sequence[str], rule: LabelRule, found: Sources, extensions: Collection[str] | None
) -> list[Sources]:
    listings = _walk(roots, found, extensions)
    image_level = _level_of_images(listings)
    if image_level == "subfolder":
        found.notes.extend(_parts_note(roots))
    tables = []
    for root, folders in zip(roots, listings, strict=True):
        _check_levels(root, folders, rule)
        table = Sources(class_names=_class_folders(root, folders, rule, image_level))
        if rule.labels == "parent":
            table.notes.extend(_merged_note(root, folders))
        for folder, names in folders:
            prefix = folder.path.rstrip("/") + "/"
            table.filenames.extend([prefix + name for name in names])
            table.labels.extend(rule.labels_of(root, folder.below, names))
        table.paths.extend(table.filenames)
        table.columns["source"].extend([root] * len(table.filenames))
        tables.append(table)
    return tables


def _level_of_images(listings: Sequence[_Listing]) -> Literal["root", "subfolder", "either"]:
    """Return where the images of all SOURCES lie: directly in them, in subfolders, or some in each."""
    found = {"subfolder" if folder.below else "root" for folders in listings for folder, names in folders if names}
    return "either" if len(found) == 2 else "root" if "root" in found else "subfolder"


def _parts_note(roots: Sequence[str]) -> Iterator[str]:
    """Say, in one line, that SOURCEs which are called as the parts of a data set become one."""
    parts = [root for root in roots if folder_name(root).lower() in _PARTS]
    if len(parts) > 1:
        yield f'{_listed(parts)} are packed as one data set; split_by("source") of a sequence keeps them apart'


def _merged_note(root: str, folders: _Listing) -> Iterator[str]:
    """Say, in one line, that several folders of one name become one class."""
    holders: dict[str, list[str]] = {}
    for folder, names in folders:
        if names and folder.below:
            holders.setdefault(folder.below[-1], []).append(folder.path)
    merged = [name for name, paths in holders.items() if len(paths) > 1]
    if merged:
        paths = ", ".join(holders[merged[0]][:_MAX_NAMES])
        number = "1 class" if len(merged) == 1 else f"{len(merged):,} classes"
        yield f"{root}: {number} of several folders, such as {merged[0]} of {paths}; --labels path keeps them apart"


def _class_folders(root: str, folders: _Listing, rule: LabelRule, image_level: str) -> list[str]:
    """Return the names of the class folders of a SOURCE, including those without images.

    Args:
        root: The SOURCE.
        folders: All folders in it.
        rule: The rule for labels.
        image_level: Where the images of all SOURCES lie. Under `auto` it decides for a SOURCE without images, which may
            itself be a class folder or may hold class folders.
    """
    first_level = [folder.below[0] for folder, _ in folders if len(folder.below) == 1]
    labels = rule.labels
    if rule.pattern is not None:
        return []
    if labels == "path":
        holders = {folder.below[:-1] for folder, _ in folders if folder.below}
        leaves = [folder for folder, names in folders if folder.below and (names or folder.below not in holders)]
        return ["/".join(folder.below) for folder in leaves]
    if labels == "auto" and not any(names for _, names in folders):
        labels = "root" if image_level == "root" or (image_level == "either" and not first_level) else "subfolder"
    elif labels == "auto":
        labels = "root" if any(names for folder, names in folders if not folder.below) else "subfolder"
    return {"root": [folder_name(root)], "subfolder": first_level}.get(labels, [])


def _walk(roots: Sequence[str], found: Sources, extensions: Collection[str] | None) -> list[_Listing]:
    """List all folders below each root, with the names of their images.

    Links are followed last, so that a folder is listed under its own path if it has one, and only once.
    """
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
        names, below, linked_below = _list(folder, found, extensions)
        listings[folder.source].append((folder, names))
        waiting.extend(below)
        links.extend(linked_below)
    for listing in listings:
        listing.sort(key=lambda item: item[0].below)
    return listings


def _list(
    folder: _Folder, found: Sources, extensions: Collection[str] | None
) -> tuple[list[str], list[_Folder], list[_Folder]]:
    """List one directory: names of images, subfolders, and links to folders."""
    names: list[str] = []
    below: list[_Folder] = []
    linked: list[_Folder] = []
    with os.scandir(folder.path) as entries:
        for entry in entries:
            name = entry.name
            if is_ignored(name):
                continue
            kind = _kind(entry)
            if kind is _FILE and has_image_extension(name, extensions):
                names.append(name)
            elif kind is _FOLDER:
                child = _Folder(f"{folder.path.rstrip('/')}/{name}", (*folder.below, name), folder.source)
                (linked if entry.is_symlink() else below).append(child)
            else:
                reason = _reason_passed_over(name) if kind is _FILE else "not a file that can be read"
                found.passed_over.append((f"{folder.path}/{name}", reason))
    names.sort()
    below.sort(key=lambda child: child.below)
    linked.sort(key=lambda child: child.below)
    return names, below, linked


def _reason_passed_over(name: str) -> str:
    return by_extension(name) or "not an image's extension"


def _kind(entry: os.DirEntry[str]) -> str | None:
    try:
        return _FILE if entry.is_file() else _FOLDER if entry.is_dir() else None
    except OSError:  # for example, a link that points to itself
        return None


def _check_levels(root: str, folders: _Listing, rule: LabelRule) -> None:
    """Raise if the rule for labels gives no clear answer for the levels at which the images of a SOURCE lie."""
    direct = next((names for folder, names in folders if names and not folder.below), None)
    nested = next(((folder, names) for folder, names in folders if names and folder.below), None)
    if rule.pattern is not None or rule.labels in ("root", "none"):
        return
    if rule.labels == "auto" and direct is None:
        _check_not_parts(root, folders)
        _check_not_roots(root, folders)
    if direct is None or rule.labels == "parent" or (rule.labels == "auto" and nested is None):
        return
    own = folder_name(root)
    if nested is None:
        raise PackError(
            f"{root}/{direct[0]}: expected every image in a folder below SOURCE, found it directly in SOURCE; "
            f"--labels root labels it {own!r}"
        )
    folder, names = nested
    raise PackError(
        f"{root} has images at two levels: {root}/{direct[0]} would be labelled {own!r} after its SOURCE, and "
        f"{folder.path}/{names[0]} {rule.labels_of(root, folder.below, names[:1])[0]!r} after its folder; "
        "--labels root takes the SOURCE for all, --labels parent the folder each image lies in"
    )


def _check_not_parts(root: str, folders: _Listing) -> None:
    """Raise if the class folders of a SOURCE, or those in its only folder, look like the parts of a data set.

    The parts are two or more, one of which has folders in it: the test data often has none.
    """
    top: tuple[str, ...] = ()
    below = {folder.below for folder, _ in folders}
    while len(level := {path for path in below if path[:-1] == top and path}) == 1:
        (top,) = level
    where = "/".join((root, *top))
    parts = sorted(path[-1] for path in level if path[-1].lower() in _PARTS)
    divided = sorted({path[-2] for path in below if path[:-2] == top and len(path) == len(top) + 2} & {*parts})
    if len(parts) > 1 and divided:
        is_all = divided == parts
        places = f"{where}/*" if is_all else " and ".join(f"{where}/{part}" for part in divided)
        apart = " (the column `source` then tells them apart)" if len(divided) > 1 else ""
        raise PackError(
            f"{root}: expected class folders, found {' and '.join(parts)} with folders in "
            f"{'them' if is_all else ' and '.join(divided)}; give {places} if these are parts of the data "
            f"set{apart}, or --labels subfolder if the first folders are the classes"
        )


def _check_not_roots(root: str, folders: _Listing) -> None:
    """Raise if each class folder of a SOURCE holds the same folders: these may be the classes.

    Only folders with images somewhere below count, and only if two or more names are in each of them. Folders such as
    `train` in each class folder are no classes.
    """
    inner: dict[str, set[str]] = {}
    for folder, names in folders:
        if names:
            inner.setdefault(folder.below[0], set()).update(folder.below[1:2])
    common = set.intersection(*inner.values()) if len(inner) > 1 else set()
    shared = sorted(name for name in common if name.lower() not in _PARTS)
    if len(shared) > 1:
        several = _listed(sorted(inner))
        raise PackError(
            f"{root}: expected class folders, found {several}, which each hold {_listed(shared)}; give {root}/* if "
            "those are the classes (the column `source` then tells the folders apart), or --labels subfolder if the "
            f"classes are {several}"
        )


def _listed(names: Sequence[str]) -> str:
    return " and ".join(names) if len(names) <= _MAX_NAMES else f"{', '.join(names[:_MAX_NAMES])} and others"
