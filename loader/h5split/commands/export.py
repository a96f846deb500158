"""Exports rows as files in folders, with a table from which the same rows can be packed again."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np
from numpy.typing import NDArray

from h5split.commands.pictures import picture
from h5split.errors import MissingPackageError
from h5split.file.format import USUAL_CHANNELS
from h5split.notebook.png import encoded
from h5split.order.rows import Rows
from h5split.system.machine import check_names, cores
from h5split.writing.newfolder import NewFolder
from h5split.writing.tables import write_table

if TYPE_CHECKING:
    from h5split.batches import SplitSequence
    from h5split.file.packs import Packs

MANIFEST = "manifest.csv"
CLASSES = "classes.txt"

_MAX_NAME_BYTES = 120  # of a name, without number and suffix; every file system allows 255 bytes
# Names that Windows reserves for devices.
_RESERVED = {"CON", "PRN", "AUX", "NUL", *(f"{name}{n}" for name in ("COM", "LPT") for n in range(10))}
# Suffixes of image formats, which are removed before the new one is appended. Other suffixes may be part of the name.
_SUFFIX = re.compile(r"\.(apng|avif|bmp|gif|jfif|jp2|jpe?g?|np[yz]|p[bgnp]m|png|tga|tiff?|webp)$", re.IGNORECASE)
_FILES_PER_TASK = 64
_PNG_LEVEL = 3  # of compression; higher ones take much longer

_Encoder = Callable[[NDArray[Any]], bytes]


@dataclass
class _Folder:
    """The names used in one folder. No two of them are the same, on any file system.

    Some file systems ignore case and Unicode composition, so names are compared without them.
    """

    taken: set[str] = field(default_factory=set)

    def place(self, text: str, number: int, suffix: str = "") -> str:
        """A safe and unused name for `text`. If the name is used already, `number` or a greater number is appended."""
        stem = name = _safe(text)
        while (key := unicodedata.normalize("NFKC", name).casefold()) in self.taken:
            name, number = f"{stem}-{number}", number + 1
        self.taken.add(key)
        return name + suffix


def export(
    sequence: SplitSequence,
    folder: str | os.PathLike[str],
    *,
    parts: Mapping[str, SplitSequence] | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> int:
    """Write the rows of a sequence as files without loss, in one folder for each class.

    Pixels of uint8 and uint16 in 1, 3 or 4 channels become PNG files, in other numbers of channels TIFF files. Floats
    become .npy files.

    The last file written is `manifest.csv`. It lists path, label and stored file name of each image, the split, and all
    other columns, in the order of the sequence. `pack-images --manifest FOLDER/manifest.csv --name-column filename
    --order sorted` packs the same rows again. The table alone may give other class numbers: if a class has no rows, or
    if the classes are not sorted. Then `classes.txt` is written too; add `--classes FOLDER/classes.txt`.

    Each file is named after the last part of the stored file name. Characters that some file system forbids are
    replaced, the name is cut to 120 bytes, and the row number is appended if the name is used already. Nothing is
    written outside the folder, even if others plant links or replace folders in it meanwhile. No file is replaced.

    If the export fails or is interrupted, the images written so far stay, and there is no `manifest.csv`. A note on the
    exception (`__notes__`) gives their number.

    Args:
        sequence: The rows to write.
        folder: A new or empty folder.
        parts: Name of each part of a split -> its sequence. Each part gets a folder, with the folders of the classes in
            it. Rows in no part are not written. None for no split.
        workers: The number of threads; None for one per core.
        progress: Called with (images written, images in total).

    Returns:
        The number of images written.

    Raises:
        ImportError: TIFF files are to be written, and tifffile or imagecodecs is missing.
        ValueError: The folder is not empty; a part has other packs; somebody replaced a folder that was created here;
            or the locale does not use UTF-8 for file names.
        FormatError: Labels, names or other tables of a pack are damaged.
        OSError: A file cannot be written.
    """
    check_names()
    packs = sequence.packs
    packs.check_tables()
    suffix, encode = _encoder(packs.dtype, packs.shape[2])
    packs.check_same({name: part.packs for name, part in (parts or {}).items()})
    rows, splits = _rows_and_splits(sequence, parts)
    paths = _paths(packs, rows, splits, suffix)
    written: list[int] = []

    def write(start: int) -> None:
        chosen = slice(start, start + _FILES_PER_TASK)
        for pixels, path in zip(packs.pixels(rows[chosen]), paths[chosen], strict=True):
            tree.write(path, encode(pixels))
            written.append(1)

    # Without a class list, pack-images numbers the classes that occur in the table in sorted order.
    same_numbers = sorted({packs.class_names[label] for label in np.unique(packs.labels[rows])}) == list(
        packs.class_names
    )
    with NewFolder(folder) as tree:
        try:
            for path in sorted({os.path.dirname(path) for path in paths}):
                tree.make(path)
            _in_threads(write, len(rows), workers, progress)
            if not same_numbers:
                tree.write(CLASSES, _class_list(packs.class_names))
            with tree.last(MANIFEST) as file:
                _write_manifest(file, packs, rows, paths, splits)
        except BaseException as error:
            done = f"{len(written):,} of {len(rows):,} images"
            error.add_note(f"{tree.path} holds {done}, and no {MANIFEST} that lists them; remove it, or name another")
            raise
    return len(rows)


def _in_threads(
    write: Callable[[int], None], rows: int, workers: int | None, progress: Callable[[int, int], object] | None
) -> None:
    """Call `write` with the first row of each task, in threads. After an error, no further task starts."""
    with (
        ThreadPoolExecutor(workers or cores()) as executor,
        # map() returns a generator, though its type does not say so. Closing it cancels the tasks that have not begun.
        contextlib.closing(executor.map(write, range(0, rows, _FILES_PER_TASK))) as tasks,  # type: ignore[type-var]
    ):
        for number, _ in enumerate(tasks, start=1):
            if progress is not None:
                progress(min(number * _FILES_PER_TASK, rows), rows)


def _encoder(dtype: np.dtype[Any], channels: int) -> tuple[str, _Encoder]:
    """The suffix of files of such pixels, and the function that makes the bytes of a file of them.

    Raises:
        ImportError: It is TIFF, and tifffile or imagecodecs is missing.
    """
    if dtype.kind == "f":
        return ".npy", _npy
    if channels in USUAL_CHANNELS:
        return ".png", _png if dtype == np.uint8 else _png_of_16_bits
    try:
        import imagecodecs  # noqa: F401  # tifffile compresses with it
        import tifffile  # noqa: F401
    except ImportError as error:
        raise MissingPackageError(
            f"export: images of {channels} channels become TIFF files, which needs tifffile and imagecodecs ({error}): "
            "pip install 'pack-images[tiff]'"
        ) from error
    return ".tif", _tiff


def _png(pixels: NDArray[np.uint8]) -> bytes:
    data = io.BytesIO()
    picture(pixels).save(data, "PNG", compress_level=_PNG_LEVEL)
    return data.getvalue()


def _png_of_16_bits(pixels: NDArray[np.uint16]) -> bytes:
    return encoded(pixels, _PNG_LEVEL)  # Pillow writes 16 bits of grey only


def _tiff(pixels: NDArray[Any]) -> bytes:
    import tifffile

    data = io.BytesIO()
    tifffile.imwrite(
        data, pixels, photometric="minisblack", planarconfig="contig", compression="deflate", metadata=None
    )
    return data.getvalue()


def _npy(pixels: NDArray[np.float32]) -> bytes:
    data = io.BytesIO()
    np.save(data, pixels, allow_pickle=False)
    return data.getvalue()


def _rows_and_splits(
    sequence: SplitSequence, parts: Mapping[str, SplitSequence] | None
) -> tuple[Rows, list[str] | None]:
    """The rows to write, in the order of the sequence, and the name of the part of each; None without a split."""
    if parts is None:
        return sequence.rows, None
    part_of = np.full(len(sequence.packs), -1)
    for number, part in enumerate(parts.values()):
        part_of[part.rows] = number
    rows = sequence.rows[part_of[sequence.rows] >= 0]
    names = list(parts)
    return rows, [names[number] for number in part_of[rows].tolist()]


def _paths(packs: Packs, rows: Rows, splits: list[str] | None, suffix: str) -> list[str]:
    """The path of each row's file, relative to the folder."""
    top = _Folder({MANIFEST, CLASSES})
    folders: dict[tuple[str | None, str], tuple[str, _Folder]] = {}
    tops: dict[str | None, tuple[str, _Folder]] = {None: ("", top)}
    paths = []
    labels = packs.labels[rows].tolist()
    for position, (row, name) in enumerate(zip(rows.tolist(), packs.filenames.take(rows), strict=True)):
        split, label = None if splits is None else splits[position], packs.class_names[labels[position]]
        if (split, label) not in folders:
            if split not in tops:
                tops[split] = (top.place(str(split), len(tops)) + "/", _Folder())
            above, siblings = tops[split]
            folders[split, label] = (above + siblings.place(label, labels[position]) + "/", _Folder())
        path, siblings = folders[split, label]
        paths.append(path + siblings.place(_stem(name), row, suffix))
    return paths


def _stem(filename: str) -> str:
    return _SUFFIX.sub("", filename.rpartition("/")[2])


def _safe(text: str) -> str:
    """A file name that any system allows: no separators or control characters, not hidden, reserved or too long."""
    kept = "".join(char if char.isprintable() and char not in '<>:"/\\|?*' else "_" for char in text)
    kept = kept.encode()[:_MAX_NAME_BYTES].decode(errors="ignore").strip(" .")
    return kept if kept and kept.partition(".")[0].upper() not in _RESERVED else f"_{kept}"


def _class_list(names: Sequence[str]) -> bytes:
    """The content of `classes.txt`: one name per line, as `pack-images --classes` reads it.

    A name that does not survive this, such as one with a newline, is written as a JSON string.
    """
    lines = [name if _is_plain(name) else json.dumps(name) for name in names]
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")


def _is_plain(name: str) -> bool:
    """Whether a name can be a line of `classes.txt` as it is. A quote at the beginning would mean JSON."""
    return (
        bool(name) and name == name.strip() and not {"\n", "\r"} & {*name} and not name.startswith((chr(34), "\ufeff"))
    )


def _write_manifest(file: TextIO, packs: Packs, rows: Rows, paths: list[str], splits: list[str] | None) -> None:
    """Write the table of all files. The column `source` is left out: for a new pack, the table is the source."""
    names = [packs.class_names[label] for label in packs.labels[rows].tolist()]
    header, columns = ["path", "label", "filename"], [paths, names, packs.filenames.take(rows)]
    if splits is not None:
        header.append("split")
        columns.append(splits)
    for name, column in packs.columns.items():
        if name != "source" and not (name == "split" and splits is not None):
            header.append(name)
            columns.append(column.take(rows))
    write_table(file, header, zip(*columns, strict=True))
