"""The command `pack-images`: parse arguments, call `pack` or `preview`, print the result, return the exit status."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from h5split.system import console
from h5split.system.console import Bar
from h5split.system.text import SHOWN, class_lines, count, dimensions, shown
from pack_images.arguments import EXAMPLES
from pack_images.arguments import parser as arguments_parser
from pack_images.foreign import is_foreign

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from pack_images.find.manifest import Manifest
    from pack_images.find.readers import Reader
    from pack_images.plan import Plan
    from pack_images.summary import Summary

_MANIFEST_OPTIONS = (
    "root",
    "strip_prefix",
    "path_column",
    "label_column",
    "name_column",
    "skip_unlabelled",
    "encoding",
)
_PIXEL_OPTIONS = (
    "size",
    "fit",
    "interpolation",
    "color",
    "dtype",
    "range",
    "background",
    "allow_truncated",
    "pages",
    "decoder",
)
_MAX_FILES_NAMED = 3  # in a line about one kind of file


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: Arguments without the name of the program. None: those of the process.

    Returns:
        0 packed, 1 an error, 130 interrupted. Wrong usage exits with 2.
    """
    parser = arguments_parser()
    if not (sys.argv[1:] if argv is None else argv):
        parser.exit(2, f"{parser.format_usage()}\n{EXAMPLES}\npack-images --help lists every option\n")
    arguments = parser.parse_args(argv)
    _check_usage(parser, arguments)
    os.environ.setdefault("PYTHONSAFEPATH", "1")  # workers must not import, say, a random.py in the working folder
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # no matrices are multiplied here, and numpy loads 30 ms faster
    bar = Bar(" images", quiet=arguments.quiet, leave=True)
    try:
        console.prepare()
        return _run(arguments, bar)
    except KeyboardInterrupt:
        console.end_quietly()
        bar.close()
        kept = os.path.exists(f"{arguments.output}.partial")
        where = f"; what is done is kept in {arguments.output}.partial, and the same command continues" if kept else ""
        _complain(f"interrupted{where}")
        return 130
    except (ValueError, OSError, ImportError, MemoryError) as error:
        bar.close()
        _complain(console.error_line(error))
        return 1
    finally:
        console.finish()


def _check_usage(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Exit with a line about usage if options are missing, or have nothing that they could apply to."""
    if not arguments.sources and not arguments.manifest:
        parser.error("the following arguments are required: SOURCE or --manifest")
    if arguments.dask is not None and arguments.workers is not None:
        parser.error("--workers are processes of this machine: not with --dask")
    unused = [name for name in _MANIFEST_OPTIONS if getattr(arguments, name) not in (None, False)]
    if unused and not arguments.manifest:
        parser.error(f"--{unused[0].replace('_', '-')}: expected a --manifest that it says how to read, found none")


def _run(arguments: argparse.Namespace, bar: Bar) -> int:
    options = {
        name: getattr(arguments, name)
        for name in (*_PIXEL_OPTIONS, "labels", "label_pattern", "relabel", "like", "order", "seed", "classes")
    }
    options["manifest"] = _manifests(arguments)
    options["reader"] = None if arguments.reader is None else _reader(arguments.reader)
    if arguments.dry_run:
        from pack_images.packing import preview

        planned = preview(arguments.sources, output=arguments.output, **options)
        with console.reader_may_leave():
            _print_warnings(planned.sources.passed_over, planned.warnings)
            print(_describe_plan(planned, arguments.output))
        return 0
    from pack_images.packing import pack

    with _executor(arguments) as executor:
        summary = pack(
            arguments.sources,
            arguments.output,
            exact=arguments.exact,
            max_pixels=arguments.max_pixels,
            strict=arguments.strict,
            reuse=not arguments.no_reuse,
            workers=arguments.workers,
            executor=executor,
            progress=bar.show,
            **options,
        )
    bar.close()
    with console.reader_may_leave():
        _print_warnings(summary.passed_over, summary.warnings)
        if arguments.quiet:
            _print_left_out_and_losses(summary)
        else:
            print(summary)
    return 0


def _executor(arguments: argparse.Namespace) -> AbstractContextManager[Executor | None]:
    """Connect to the Dask cluster of `--dask`. Without it return None: `pack` then starts worker processes."""
    if arguments.dask is None:
        return nullcontext()
    from pack_images.run.cluster import connect, quieten

    quieten()
    return connect(arguments.dask)


def _manifests(arguments: argparse.Namespace) -> list[Manifest]:
    if not arguments.manifest:
        return []
    from pack_images.find.manifest import Manifest

    how = {name: getattr(arguments, name) for name in _MANIFEST_OPTIONS}
    return [Manifest(path, **how) for path in arguments.manifest]


def _reader(given: str) -> Reader:
    from pack_images.find.readers import load_reader

    return load_reader(given)


def _complain(text: str) -> None:
    console.complain("pack-images", text)


def _print_warnings(passed_over: Sequence[tuple[str, str]], warnings: Sequence[str]) -> None:
    """Print what was passed over, and the warnings.

    One line for each known kind of file, one line for all other paths, and one line for each warning.
    """
    kinds: dict[str, list[str]] = {}
    for path, reason in passed_over:
        kinds.setdefault(reason, []).append(path)
    for reason, paths in kinds.items():
        if is_foreign(reason):
            _complain(f"passed over: {count(len(paths), 'file')}, {reason}: {_abbreviated(paths)}")
    others = [f"{shown(path)} ({reason})" for path, reason in passed_over if not is_foreign(reason)]
    if others:
        more = f" and {len(others) - SHOWN} more" if len(others) > SHOWN else ""
        _complain(f"passed over: {', '.join(others[:SHOWN])}{more}")
    for warning in warnings:
        _complain(shown(warning))


def _print_left_out_and_losses(summary: Summary) -> None:
    """Print one line about images left out and one about losses. With `--quiet`, nothing else is said of a pack."""
    if summary.skipped:
        name, reason = summary.skipped[0]
        _complain(f"left out: {count(len(summary.skipped), 'image')}, such as {shown(name)}: {shown(reason)}")
    if summary.losses:
        # Here, because it loads numpy, which `--help` does not need.
        from h5split.file.losses import count_images, grouped

        name, text = grouped(summary.losses)[0].files[0]
        _complain(f"packed with a loss: {count(count_images(summary.losses), 'image')}, such as {shown(name)}: {text}")


def _abbreviated(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MAX_FILES_NAMED:,} more" if len(names) > _MAX_FILES_NAMED else ""
    return ", ".join(map(shown, names[:_MAX_FILES_NAMED])) + more


def _describe_plan(planned: Plan, output: str) -> str:
    size = len(planned) * planned.stride
    return "\n".join(
        [
            f"would pack {count(len(planned), 'image')}, {dimensions(planned.shape)}, {size / 1e6:,.1f} MB, "
            f"into {output}"
            + ("" if planned.settings.pixels.size else ", if all have this size; otherwise give --size"),
            *([_missing_line(planned.missing)] if planned.missing else []),
            *([_lacking_line(planned.sources.lacking)] if planned.sources.lacking else []),
            *class_lines(planned.counts),
        ]
    )


def _missing_line(missing: Sequence[str]) -> str:
    return f"not there, and left out: {count(len(missing), 'file')}, such as {shown(missing[0])}"


def _lacking_line(lacking: Sequence[tuple[str, str]]) -> str:
    name, reason = lacking[0]
    return f"left out: {count(len(lacking), 'row')}, such as {shown(name)}: {shown(reason)}"


if __name__ == "__main__":
    sys.exit(main())
