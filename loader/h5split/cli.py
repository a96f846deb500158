"""The command `h5split`: shows, verifies and exports packs. It turns arguments into calls of `h5split.commands`."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

from h5split.about import __version__
from h5split.errors import ArgumentError
from h5split.system import console
from h5split.system.console import Bar, size, whole
from h5split.system.text import SHOWN, count, shown

if TYPE_CHECKING:
    from h5split.batches import SplitSequence
    from h5split.file.packs import Packs

_EXAMPLES = """\
examples:
  h5split info eurosat.h5
  h5split verify eurosat.h5 --sources
  h5split view eurosat.h5 -o report.html
  h5split near eurosat.h5 -o pairs.html
  h5split export eurosat.h5 folders
  h5split fetch s3://bucket/eurosat.h5
"""
_EPILOG = """
exit status: 0 done and nothing wrong, 1 something is wrong, 2 usage, 130 interrupted
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: Arguments without the name of the program; None for those of the process.

    Returns:
        0 done and nothing wrong, 1 something is wrong, 130 interrupted. Wrong usage exits with 2.
    """
    parser = _parser()
    if not (sys.argv[1:] if argv is None else argv):
        parser.exit(2, f"{parser.format_usage()}\n{_EXAMPLES}\nh5split --help lists the commands\n")
    arguments = parser.parse_args(argv)
    try:
        console.prepare()
        status: int = arguments.run(arguments)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt as error:
        console.end_quietly()
        console.complain("h5split", console.with_notes("interrupted", error))
        return 130
    except BrokenPipeError:  # the reader of stdout, such as head, closed it early
        console.discard_output()
        return int(arguments.run is _verify)  # a long output of verify is a list of damage
    except (ValueError, IndexError, OSError, ImportError, MemoryError) as error:
        console.complain("h5split", console.error_line(error))
        return 1
    finally:
        console.finish()


def _info(arguments: argparse.Namespace) -> int:
    from h5split.commands.info import describe
    from h5split.file.images import PackedImages

    found = describe(PackedImages(arguments.file, cache=arguments.cache))
    print(json.dumps(found.as_json(), indent=2) if arguments.json else found)
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from h5split.commands.verify import verify, verify_sources
    from h5split.file.images import PackedImages

    images = PackedImages(arguments.file, cache=arguments.cache)
    with closing(Bar("B", quiet=arguments.quiet)) as bar:
        images.fetch(bar.show)
    with closing(Bar("B", quiet=arguments.quiet)) as bar:
        found = verify(images, workers=arguments.workers, progress=bar.show)
    lines = [f"row {row}: {shown(images.filenames[row])}: not the pixels that were packed" for row in found.bad_rows]
    if found.tables is False:
        lines.insert(0, "labels, names or other tables are not as they were packed; what is named below may be wrong")
    if arguments.sources:
        with closing(Bar(" files", quiet=arguments.quiet)) as bar:
            states = verify_sources(images, root=arguments.root, workers=arguments.workers, progress=bar.show)
        lines += [
            f"{shown(name)}: {state}"
            for name, state in zip(images.filenames, states, strict=True)
            if state not in ("same", "no file")
        ]
    for line in lines:
        print(line)
    if not arguments.quiet:
        tables = {True: "tables intact", False: "tables damaged", None: "tables have no checksum"}[found.tables]
        print(f"{shown(arguments.file)}: {count(len(images), 'row')}, {len(found.bad_rows):,} damaged; {tables}")
        if arguments.sources:
            parts = [f"{states.count(state):,} {state}" for state in ("same", "changed", "missing", "unreadable")]
            made = states.count("no file")
            print(
                f"sources: {', '.join(parts)}" + (f"; {count(made, 'row')} of arrays, without a file" if made else "")
            )
    return 1 if lines else 0


def _fetch(arguments: argparse.Namespace) -> int:
    from h5split.file.images import PackedImages

    images = PackedImages(arguments.file, cache=arguments.cache, cache_limit=arguments.cache_limit)
    if images.copy is None:
        raise ArgumentError(f"{arguments.file}: expected an address such as s3://bucket/images.h5, found a file here")
    with closing(Bar("B", quiet=arguments.quiet)) as bar:
        images.fetch(bar.show)
    if not arguments.quiet:
        size = f"{images.header.size / 1e6:,.1f} MB"
        print(
            f"{shown(arguments.file)}: {count(len(images), 'row')}, {size}, whole and right in {images.copy.place.pack}"
        )
    return 0


def _view(arguments: argparse.Namespace) -> int:
    from h5split.batches import SplitSequence
    from h5split.commands.view.page import report

    sequence = SplitSequence(arguments.file, cache=arguments.cache)
    targets = _targets(arguments, sequence)
    parts = _parts(sequence, arguments.split)
    if arguments.part is not None:
        sequence = _part(parts, arguments.part)
    if targets is not None:
        sequence.set(targets=targets)
    predictions = None if arguments.predictions is None else _array(arguments.predictions)
    with closing(Bar(" images", quiet=arguments.quiet)) as bar:
        report(
            sequence,
            predictions,
            arguments.output,
            parts=parts,
            seed=arguments.seed,
            every_row=arguments.every_row,
            threshold=0.5 if arguments.threshold is None else arguments.threshold,
            bands=arguments.bands,
            progress=bar.show,
        )
    if not arguments.quiet and os.path.isfile(arguments.output):  # not if the page went to /dev/stdout
        print(f"{shown(arguments.output)}: {os.path.getsize(arguments.output) / 1e6:,.1f} MB; open it in a browser")
    return 0


def _near(arguments: argparse.Namespace) -> int:
    from h5split.batches import SplitSequence
    from h5split.commands.near import find

    sequence = SplitSequence(arguments.file, cache=arguments.cache)
    sequence.packs.plan(sequence.rows)
    parts = _parts(sequence, arguments.split)
    if arguments.output is not None:
        from h5split.commands.view.pairs import check_page, write_pairs

        check_page(arguments.output)
    with closing(Bar(" steps", quiet=arguments.quiet)) as bar:
        found = find(sequence, parts=parts, workers=arguments.workers, progress=bar.show)
    if arguments.output is not None:
        write_pairs(found, sequence.packs, arguments.output)
    print(json.dumps(found.as_json(), indent=2) if arguments.json else found)
    return 0


def _targets(arguments: argparse.Namespace, sequence: SplitSequence) -> Any:
    """The setting `targets` that the options give; None for the class.

    The tags are those of the whole file, also if only a part is viewed: a network has an output for each of them.
    """
    from h5split.batch.given import Tags

    needs = {"targets": "predictions", "tags": "predictions", "separator": "tags", "threshold": "tags"}
    for name, needed in needs.items():
        if getattr(arguments, name) is not None and getattr(arguments, needed) is None:
            raise ArgumentError(f"--{name}: give --{needed} as well")
    if arguments.targets is not None and arguments.tags is not None:
        raise ArgumentError("--targets and --tags: expected one of them, found both")
    if arguments.tags is not None:
        tags = Tags(arguments.tags, "," if arguments.separator is None else arguments.separator)
        return replace(tags, names=sequence.set(targets=tags).target_names)
    if arguments.targets is None or arguments.targets in sequence.columns or "," not in arguments.targets:
        return arguments.targets
    return arguments.targets.split(",")


def _export(arguments: argparse.Namespace) -> int:
    from h5split.batches import SplitSequence
    from h5split.commands.export import CLASSES, MANIFEST, export

    sequence = SplitSequence(arguments.file, cache=arguments.cache)
    parts = _parts(sequence, arguments.split)
    if arguments.rows is not None:
        sequence = sequence.select(_rows(arguments.rows, len(sequence.rows)))
    sequence.packs.plan(sequence.rows)
    with closing(Bar(" images", quiet=arguments.quiet)) as bar:
        done = export(sequence, arguments.folder, parts=parts, workers=arguments.workers, progress=bar.show)
    if not arguments.quiet:
        table = shlex.quote(os.path.join(arguments.folder, MANIFEST))
        print(f"{shown(arguments.folder)}: {count(done, 'image')}; to have the same rows in a pack again:")
        color = _pixel_options(sequence.packs)
        classes = os.path.join(arguments.folder, CLASSES)
        color += f" --classes {shown(shlex.quote(classes))}" if os.path.exists(classes) else ""
        print(f"  pack-images --manifest {shown(table)} --name-column filename --order sorted{color} -o AGAIN.h5")
    return 0


def _pixel_options(packs: Packs) -> str:
    """The options of pack-images that pack exported files as they were."""
    channels, packed_as = packs.shape[2], packs.settings.get("color")
    if packed_as in ("all", "index"):
        color = f" --color {packed_as}"
    elif packs.dtype == "float32" or channels not in (1, 3, 4):
        color = " --color all"
    else:
        color = {1: " --color grayscale", 4: " --color rgba"}.get(channels, "")
    return (f" --dtype {packs.dtype}" if packs.dtype != "uint8" else "") + color


def _parts(sequence: SplitSequence, split: str | None) -> Mapping[str, SplitSequence] | None:
    """The parts of the split that `--split` names: one for each value of a column, or those listed in a CSV file."""
    if split is None:
        return None
    if split in sequence.columns:
        return sequence.split_by(split)
    if not os.path.exists(split):
        columns = ", ".join(map(shown, sequence.columns))
        raise ArgumentError(f"--split {split}: expected a CSV, or one of the columns {columns}, found neither")
    parts = sequence.read_split(split)
    if not parts:
        raise ArgumentError(f"--split {split}: expected files and their parts, found none")
    return parts


def _part(parts: Mapping[str, SplitSequence] | None, name: str) -> SplitSequence:
    if parts is None or name not in parts:
        there = "give --split as well" if parts is None else f"expected one of {_some(list(parts))}"
        raise ArgumentError(f"--part {name}: {there}")
    return parts[name]


def _some(names: Sequence[str]) -> str:
    """The first names of a list, and the number of the others."""
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return ", ".join(repr(shown(name)) for name in names[:SHOWN]) + more


def _array(path: str) -> Any:
    import numpy as np

    try:
        with open(path, "rb") as file:
            return np.load(file, allow_pickle=False)
    except (ValueError, EOFError, BadZipFile, MemoryError) as error:
        raise ArgumentError(f"{path}: expected an array that numpy.save wrote ({error})") from error


def _bands(text: str) -> list[int]:
    """The bands that `--bands` gives."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected one or three bands such as 4,3,2, found {text!r}") from None


def _rows(text: str, rows: int) -> Any:
    """The rows that `--rows` gives, in that order: a list of numbers and slices, or an array in a .npy file."""
    import numpy as np

    if text.endswith(".npy"):
        return _array(text)
    every, found = np.arange(rows), []
    for part in text.split(","):
        try:
            bounds = [int(bound) if bound.strip() else None for bound in part.split(":")]
            found.append(every[slice(*bounds)] if len(bounds) > 1 else np.array([int(part)]))
        except (ValueError, TypeError):
            raise ArgumentError(f"--rows {text}: expected such as 0:100,205 or rows.npy, found {part!r}") from None
    return np.concatenate(found)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="h5split",
        description="Look at packs, check them, and unpack them.",
        epilog=_EXAMPLES + _EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    add = _command(commands, _info, "info", "say what is in a pack")
    add("--json", action="store_true", help="for programs; everything, however long")

    add = _command(commands, _verify, "verify", "compare every checksum, and name the files of damaged rows")
    add("--sources", action="store_true", help="also compare the source files with what was packed")
    add("--root", default=".", metavar="DIR", help="where relative names of source files start from (here)")
    add("--workers", type=whole(1), metavar="N", help="threads (one for each core)")
    add("--quiet", action="store_true", help="no progress, no summary; only what is wrong")

    add = _command(commands, _view, "view", "make a page to judge a data set by")
    add("-o", "--output", required=True, metavar="REPORT.html", help="the page")
    _add_split(add)
    add("--part", metavar="NAME", help="look at this part of the split alone")
    add("--predictions", metavar="FILE.npy", help="what predict returned for FILE, or for the part, in its order")
    add(
        "--targets", metavar="COLUMN[,COLUMN]", help="the columns of numbers that were predicted, in place of the class"
    )
    add("--tags", metavar="COLUMN", help="the column of tags that were predicted, in place of the class")
    add("--separator", metavar="TEXT", help="the text between tags (,)")
    add("--threshold", type=float, metavar="SCORE", help="the score from which on a tag counts as predicted (0.5)")
    add("--bands", type=_bands, metavar="BAND[,BAND,BAND]", help="the bands to show, counted from 1, such as 4,3,2")
    add("--seed", type=whole(0), default=0, metavar="N", help="of the images that are shown (%(default)s)")
    add("--every-row", action="store_true", help="look at every row, however many; else at 1 GB of them")
    add("--quiet", action="store_true", help="no progress, no summary")

    add = _command(commands, _near, "near", "find images that are nearly identical")
    add("-o", "--output", metavar="PAIRS.html", help="also make a page with the pairs side by side")
    _add_split(add)
    add("--json", action="store_true", help="for programs; every pair")
    add("--workers", type=whole(1), metavar="N", help="threads (one for each core)")
    add("--quiet", action="store_true", help="no progress")

    add = _command(commands, _export, "export", "write image files again, in a folder for each class")
    add("folder", metavar="DIR", help="a new or empty folder")
    _add_split(add)
    add("--rows", metavar="ROWS", help="only these rows of the file, such as 0:100,205 or rows.npy")
    add("--workers", type=whole(1), metavar="N", help="threads (one for each core)")
    add("--quiet", action="store_true", help="no progress, no summary")

    add = _command(commands, _fetch, "fetch", "have all of a pack that is elsewhere on this machine, and check it")
    add("--cache-limit", type=size, metavar="SIZE", help="of all copies in the folder, such as 500GB (none)")
    add("--quiet", action="store_true", help="no progress, no summary")
    return parser


def _command(commands: Any, run: Callable[[argparse.Namespace], int], name: str, text: str) -> Callable[..., Any]:
    command = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", allow_abbrev=False)
    command.set_defaults(run=run)
    command.add_argument("file", metavar="FILE", help="a pack, or the address of one, such as s3://bucket/images.h5")
    command.add_argument("--cache", metavar="DIR", help="where copies of packs elsewhere are (your cache folder)")
    add: Callable[..., Any] = command.add_argument
    return add


def _add_split(add: Callable[..., Any]) -> None:
    add("--split", metavar="CSV|COLUMN", help="parts: a table of filename and split, or a column of the pack")


if __name__ == "__main__":
    sys.exit(main())
