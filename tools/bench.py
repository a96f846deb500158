"""Measure pack-images and its alternatives ("peers") on the same files, in the same run.

    python tools/bench.py pack DATA --size 64                    pack image folders into each peer's format
    python tools/bench.py load DATA --size 64 --batch 256        shuffled epochs, page cache warm; --cold: from disk
    python tools/bench.py fit DATA --size 64 --batch 256         Keras' fit on TensorFlow, for peers that support it
    python tools/bench.py scale --size 64                        1,000 to 1,000,000 images
    python tools/bench.py report docs/benchmarks.md              one page with the results of all commands above

DATA is a folder of class folders. Every peer has its own virtual environment, made when it is first needed, with the
versions in peers/versions.toml. Peers take turns, `--repeats` times. Prints medians, with the smallest and largest
value. Results are kept in .bench/results, named by DATA, the size, and all options that differ from their defaults.
They replace earlier results of the same name, unless all peers failed. Needs numpy, Pillow and matplotlib, and Linux,
because it reads /proc.
"""

from __future__ import annotations

import argparse
import math
import os
import shlex
import shutil
import sys
from importlib.util import find_spec
from typing import NoReturn

from benchmark import files, pages, report, scaling
from benchmark.children import ROOT
from benchmark.environments import Peer, frozen_versions, read_versions
from benchmark.files import RefusedError
from benchmark.rounds import Setup, run_rounds

BATCH, WORKERS = 256, 2

HEADINGS = {
    "pack": "Packing {name} to {size}x{size}, {workers} workers",
    "load": "Shuffled epochs of {name}, {size}x{size}, batch {batch}, {workers} workers, page cache warm",
    "cold": "Shuffled epochs of {name}, {size}x{size}, batch {batch}, {workers} workers, from disk",
    "fit": "Keras fit on TensorFlow of {name}, {size}x{size}, batch {batch}, {workers} workers",
}


def describe_machine(here: bool) -> str:
    """Return a line about this machine: cores, memory and Python version."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        models = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0))
    line = f"{cores} cores ({(models or ['unknown'])[0]}), {memory:.0f} GiB, Python {sys.version.split()[0]}."
    return line + " All peers ran with this one Python and its packages (--here)." * here


def make_setup(arguments: argparse.Namespace) -> Setup:
    return Setup(
        environments=os.path.abspath(arguments.environments),
        here=arguments.here,
        size=arguments.size,
        batch=getattr(arguments, "batch", BATCH),
        workers=arguments.workers,
        repeats=arguments.repeats,
        epochs=arguments.epochs,
        seconds=arguments.seconds,
        limit=arguments.limit,
    )


def choose_peers(command: str, text: str | None) -> list[Peer]:
    """Return the peers named in `text`, or all that support `command`."""
    peers, _ = read_versions()
    default_names = [name for name, peer in peers.items() if command in peer.commands and not peer.hidden]
    names = default_names if text is None else text.split(",")
    unknown = [repr(name) for name in names if name not in peers or command not in peers[name].commands]
    if unknown:
        raise RefusedError(
            f"--peers: {command} knows no {', '.join(unknown)}, expected some of {','.join(default_names)}"
        )
    if len(set(names)) < len(names):
        raise RefusedError(f"--peers {text}: expected each name once")
    return [peers[name] for name in names]


def compare(arguments: argparse.Namespace) -> int:
    """Run pack, load or fit: measure all peers, in turns."""
    peers, setup = choose_peers(arguments.command, arguments.peers), make_setup(arguments)
    if arguments.command == "fit" and setup.size < 8:
        raise RefusedError(f"--size {setup.size}: expected 8 or more, as the model of fit looks at 8x8 pixels")
    data = files.look_at(arguments.data, setup.size)
    if arguments.copies > 1:
        many = files.multiplied(data.path, os.path.join(setup.environments, "images"), arguments.copies)
        data = files.look_at(many, setup.size)
    kind = "cold" if getattr(arguments, "cold", False) else arguments.command
    rows = run_rounds(kind, peers, data, setup)
    heading = f"{HEADINGS[kind].format(name=data.name, **vars(setup))}: {data.rows:,} images"
    return write_results(arguments, kind, results_name(kind, data, setup, arguments.copies), heading, rows)


def results_name(kind: str, data: files.Data, setup: Setup, copies: int) -> str:
    """Return a short name for the results and their picture, with the options that differ from their defaults."""
    options = (("b", setup.batch, BATCH), ("w", setup.workers, WORKERS), ("x", copies, 1))
    unusual = [f"{letter}{value}" for letter, value, default in options if value != default]
    return "-".join([kind, data.name, str(setup.size), *unusual])


def scale(arguments: argparse.Namespace) -> int:
    rows = scaling.run_scale(make_setup(arguments), arguments.counts, arguments.batches)
    return write_results(arguments, "scale", f"scale-{arguments.size}", "Cost per image by number of images", rows)


def write_results(arguments: argparse.Namespace, kind: str, name: str, heading: str, rows: list[report.Row]) -> int:
    """Print the table, and write the results unless every peer failed."""
    if not arguments.keep:
        shutil.rmtree(os.path.join(arguments.environments, "packed"), ignore_errors=True)
    if all(row["failed"] for row in rows):
        print(report.table(kind, rows))
        print(f"every peer failed: earlier results of {name} are kept", file=sys.stderr)
        return 1
    data = getattr(arguments, "data", None)
    words = [f"data/{os.path.basename(os.path.abspath(word))}" if word == data else word for word in sys.argv[1:]]
    line = shlex.join(["python", "tools/bench.py", *words])
    results = {"kind": kind, "name": name, "heading": heading, "line": line, "rows": rows}
    results |= {"machine": describe_machine(arguments.here), "versions": frozen_versions(arguments.environments)}
    print(pages.write(results, os.path.join(arguments.environments, "results")))
    return 0


def make_page(arguments: argparse.Namespace) -> int:
    pages.page(os.path.join(arguments.environments, "results"), arguments.output)
    return 0


class Parser(argparse.ArgumentParser):
    """An argument parser whose error messages are one line."""

    def error(self, message: str) -> NoReturn:
        """Exit with the message, without the usage text."""
        self.exit(2, f"{self.prog}: {message}\n")


def positive_int(text: str) -> int:
    """Parse a positive whole number."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number, 1 or more, got {text!r}")
    return int(text)


def seconds(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number of seconds above 0, got {text!r}")
    return found


def add_common_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--size", type=positive_int, default=64, help="side in pixels (%(default)s)")
    command.add_argument("--workers", type=positive_int, default=WORKERS, help="processes of each peer (%(default)s)")
    command.add_argument("--repeats", type=positive_int, default=3, help="rounds (%(default)s)")
    command.add_argument(
        "--epochs", type=positive_int, default=3, help="least number of epochs timed in each round (%(default)s)"
    )
    command.add_argument(
        "--seconds", type=seconds, default=1, help="least time of the epochs in each round (%(default)s)"
    )
    command.add_argument("--limit", type=seconds, default=300, help="seconds for one run of one peer (%(default)s)")
    command.add_argument(
        "--environments", default=os.path.join(ROOT, ".bench"), help="folder for environments and results (.bench)"
    )
    command.add_argument("--here", action="store_true", help="run all peers with this Python instead of their own")
    command.add_argument("--keep", action="store_true", help="keep packed files for the next run")


def main() -> None:
    parser = Parser(description="Measure pack-images and its peers.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, about in (("pack", "pack folders"), ("load", "shuffled epochs"), ("fit", "Keras' fit on TensorFlow")):
        command = commands.add_parser(name, help=about)
        command.add_argument("data", help="a folder of class folders")
        command.add_argument("--peers", help="names of peers, separated by commas (all)")
        command.add_argument(
            "--copies", type=positive_int, default=1, help="number of names for each file (%(default)s)"
        )
        add_common_options(command)
        command.set_defaults(run=compare)
        if name != "pack":
            command.add_argument("--batch", type=positive_int, default=BATCH, help="(%(default)s)")
        if name == "load":
            command.add_argument(
                "--cold", action="store_true", help="drop the files from the page cache before each run"
            )
    command = commands.add_parser("scale", help="1,000 to 1,000,000 images")
    command.add_argument("--counts", type=positive_int, nargs="+", default=[1_000, 10_000, 100_000, 1_000_000])
    command.add_argument("--batches", type=positive_int, nargs="+", default=[8, 32, 128, 256, 1024])
    add_common_options(command)
    command.set_defaults(run=scale)
    command = commands.add_parser("report", help="all results as one page")
    command.add_argument("output", help="such as docs/benchmarks.md")
    command.add_argument("--environments", default=os.path.join(ROOT, ".bench"))
    command.set_defaults(run=make_page)
    arguments = parser.parse_args()
    if find_spec("matplotlib") is None:
        parser.error("pictures need matplotlib: run it with .venv/bin/python, or pip install matplotlib")
    try:
        raise SystemExit(arguments.run(arguments))
    except RefusedError as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
