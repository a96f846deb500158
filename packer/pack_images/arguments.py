"""The arguments of the command `pack-images`, in groups."""

from __future__ import annotations

import argparse

from h5split.system.console import whole
from pack_images.about import MAX_PIXELS, __version__

EXAMPLES = """\
examples:
  pack-images data/* -o eurosat.h5 --size 64
  pack-images photos -o photos.h5 --size 320x240 --fit crop --labels parent
  pack-images --manifest splits.csv --root data -o eurosat.h5 --size 64
"""
_EPILOG = """
exit status: 0 packed, 1 an error (one line on stderr), 2 usage, 130 interrupted; the same command continues
"""


def parser() -> argparse.ArgumentParser:
    """Make the parser of the command."""
    made = argparse.ArgumentParser(
        prog="pack-images",
        usage="%(prog)s SOURCE... -o OUT.h5 [options]",
        description="Decode images from folders once, into one HDF5 file to train from.",
        epilog=EXAMPLES + _EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        add_help=False,
    )
    _add_common(made.add_argument_group("common"))
    _add_sources(made.add_argument_group("sources"))
    _add_classes(made.add_argument_group("classes"))
    _add_tables(made.add_argument_group("tables", "how to read the table that --manifest names"))
    _add_pixels(made.add_argument_group("pixels"))
    _add_running(made.add_argument_group("running"))
    return made


def _add_common(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("sources", nargs="*", metavar="SOURCE", help="a folder of images, or a pack, whose rows are copied")
    add("-o", "--output", required=True, metavar="OUT.h5", help="the file to make; it appears when it is complete")
    add(
        "--size",
        type=_size,
        metavar="N|WxH",
        help="stored size in pixels; without it, every image must have the same size already",
    )
    add(
        "--fit",
        choices=("stretch", "crop", "pad"),
        default="stretch",
        help="how another aspect ratio is fitted: scaled, centre-cropped, or letterboxed (%(default)s)",
    )
    add(
        "--labels",
        choices=("auto", "subfolder", "parent", "path", "root", "none"),
        help="where a class name comes from: the first folder below SOURCE, the folder the image lies in, all folders "
        "below SOURCE, SOURCE's own name, or nowhere (one class, `unlabelled`); auto: subfolder, or root for a SOURCE "
        "that holds images directly (auto)",
    )
    add("--manifest", action="append", metavar="CSV", help="a table of files, in addition to SOURCE or instead of it")


def _add_sources(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--reader",
        metavar="MODULE:FUNCTION",
        help="your own directory reader, also as FILE.py:FUNCTION: reader(path) -> (names, classes, classnames, "
        "classindices)",
    )
    add(
        "--order",
        choices=("stratified", "sorted"),
        help="row order: shuffled so that every range of rows has the same share of each class, or as found "
        "(stratified)",
    )
    add(
        "--like",
        metavar="PACK",
        help="the rows of this pack, in its order, with its labels and columns: masks, or the other pictures of pairs. "
        "The file of a row is the one with the same path below SOURCE, extension aside",
    )
    add("--seed", type=whole(0), metavar="N", help="seed of the stratified order (0)")


def _add_classes(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--classes",
        metavar="A,B,C|FILE",
        help="these classes in this order, with images or without; images of others are passed over. FILE: one name "
        "per line, or a pack",
    )
    add(
        "--label-pattern",
        metavar="REGEX",
        help="the class name is the first group of this expression, searched for in the path below SOURCE, such as "
        r"'(cat|dog)\.'",
    )
    add(
        "--relabel",
        metavar="CSV",
        help="other labels: a table with the columns filename and label. Images that it does not name keep theirs; "
        "an empty label leaves the image out",
    )


def _add_tables(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--path-column",
        metavar="NAME",
        help="its column of paths (path, filename, filepath, file or image); FOLDER/FILE joins two columns",
    )
    add("--label-column", metavar="NAME", help="its column of labels (label, class, target or category)")
    add("--name-column", metavar="NAME", help="its column of file names to store, instead of the paths")
    add("--root", metavar="DIR", help="the folder its relative paths start from (the folder of the CSV)")
    add("--strip-prefix", metavar="PREFIX", help="leading folders of its paths that do not exist on this disk")
    add("--skip-unlabelled", action="store_true", help="pass over its rows without a label")
    add("--encoding", metavar="NAME", help="its encoding, such as cp1252 (UTF-8, or UTF-16 that says so)")


def _add_pixels(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--color",
        choices=("rgb", "grayscale", "rgba", "index", "all"),
        default="rgb",
        help="channels stored; index: palette numbers or grey values as they are, for masks; all: every band as it is "
        "(%(default)s)",
    )
    add(
        "--dtype",
        choices=("uint8", "uint16", "float32"),
        default="uint8",
        help="what is stored; a picture whose values it cannot hold is left out (%(default)s)",
    )
    add(
        "--range",
        type=_range,
        metavar="LOW:HIGH",
        help="of pictures of more than 8 bits, what becomes 0 and 255, such as --range=-160:240 (the high byte of 16 "
        "bits; floats as they are)",
    )
    add(
        "--background",
        metavar="COLOR",
        help="what transparency lies on and --fit pad fills with: a name or #rrggbb (black)",
    )
    add(
        "--interpolation",
        choices=("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"),
        help="Pillow's filters, antialiased (bilinear; with --color index, nearest)",
    )
    add(
        "--exact",
        action="store_true",
        help="never decode large JPEGs at a reduced size: slower, hardly different",
    )
    add(
        "--pages",
        choices=("first", "bands"),
        default="first",
        help="with --color all: all pages of a TIFF are bands of one picture, or its first page is the picture "
        "(%(default)s)",
    )
    add(
        "--decoder",
        metavar="MODULE:FUNCTION",
        help="your own decoder of every file, also as FILE.py:FUNCTION: decoder(bytes) -> array (H, W) or (H, W, C) of "
        "uint8, uint16 or float32, or None: as usual",
    )
    add(
        "--allow-truncated",
        action="store_true",
        help="keep what there is of a picture that is cut short; each is listed",
    )
    add("--max-pixels", type=whole(1), default=MAX_PIXELS, metavar="N", help="leave out larger pictures (%(default)s)")


def _add_running(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--no-reuse", action="store_true", help="decode everything, even images that the output already holds")
    add("--strict", action="store_true", help="an image that cannot be decoded is an error, not left out")
    add("--workers", type=whole(1), metavar="N", help="worker processes (one for each core)")
    add("--dask", metavar="ADDRESS", help="decode on a Dask cluster that shares this file system, or local:N processes")
    add("--dry-run", action="store_true", help="say what would be packed, and stop")
    add(
        "--quiet",
        action="store_true",
        help="no progress, no summary; a line each for what was passed over, left out or lost",
    )
    add("-h", "--help", action="help", help="show this help message and exit")
    add("--version", action="version", version=f"%(prog)s {__version__}")


def _range(text: str) -> tuple[float, float]:
    low, _, high = text.partition(":")
    try:
        return float(low), float(high)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected LOW:HIGH, two numbers such as 0:4095, found {text!r}") from None


def _size(text: str) -> int | tuple[int, int]:
    parts = text.lower().split("x")
    try:
        sides = [int(part) for part in parts]
    except ValueError:
        sides = []
    if len(sides) not in (1, 2) or not all(0 < side < 1 << 16 for side in sides):
        raise argparse.ArgumentTypeError(
            f"expected N or WxH, each from 1 to 65535, such as 64 or 320x240, found {text!r}"
        )
    return sides[0] if len(sides) == 1 else (sides[0], sides[1])
