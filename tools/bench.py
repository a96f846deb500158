"""Measure this project and what else one would use, on the same files, in the same run.

    python tools/bench.py pack DATA --size 64                    folders of images to what each trains from
    python tools/bench.py load DATA --size 64 --batch 256        shuffled epochs, page cache warm; --cold: from disk
    python tools/bench.py fit DATA --size 64 --batch 256         Keras' fit on TensorFlow, of those that feed it
    python tools/bench.py scale --size 64                        1,000 to 1,000,000 images
    python tools/bench.py report docs/benchmarks.md              all of these results as one page

DATA is a folder of class folders. Every peer has an environment of its own, made when it is first needed with the
versions in peers/versions.toml. Peers take turns, `--repeats` times; medians are printed, with the smallest and the
largest. Results are kept in .bench/results by the name of DATA, the size, and what was not left as it is by default;
they replace those of the same name, unless all peers failed. Needs numpy, Pillow and matplotlib; runs on Linux, as it
reads /proc.
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


def machine(here: bool) -> str:
    """What it was measured on."""
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
        limit=arguments.limit,
    )


def chosen(command: str, text: str | None) -> list[Peer]:
    """The peers that were named, or all."""
    peers, _ = read_versions()
    usual = [name for name, peer in peers.items() if command in peer.commands and not peer.hidden]
    names = usual if text is None else text.split(",")
    unknown = [repr(name) for name in names if name not in peers or command not in peers[name].commands]
    if unknown:
        raise RefusedError(f"--peers: {command} knows no {', '.join(unknown)}, expected some of {','.join(usual)}")
    if len(set(names)) < len(names):
        raise RefusedError(f"--peers {text}: expected each name once")
    return [peers[name] for name in names]


def compare(arguments: argparse.Namespace) -> int:
    """pack, load and fit: all peers, in turns."""
    peers, setup = chosen(arguments.command, arguments.peers), make_setup(arguments)
    if arguments.command == "fit" and setup.size < 8:
        raise RefusedError(f"--size {setup.size}: expected 8 or more, as the model of fit looks at 8x8 pixels")
    data = files.look_at(arguments.data, setup.size)
    if arguments.copies > 1:
        many = files.multiplied(data.path, os.path.join(setup.environments, "images"), arguments.copies)
        data = files.look_at(many, setup.size)
    kind = "cold" if getattr(arguments, "cold", False) else arguments.command
    rows = run_rounds(kind, peers, data, setup)
    heading = f"{HEADINGS[kind].format(name=data.name, **vars(setup))}: {data.rows:,} images"
    return finish(arguments, kind, name_of(kind, data, setup, arguments.copies), heading, rows)


def name_of(kind: str, data: files.Data, setup: Setup, copies: int) -> str:
    """Of the results: short, for pictures bear it; options are in it where they are not what they are by default."""
    options = (("b", setup.batch, BATCH), ("w", setup.workers, WORKERS), ("x", copies, 1))
    unusual = [f"{letter}{value}" for letter, value, default in options if value != default]
    return "-".join([kind, data.name, str(setup.size), *unusual])


def scale(arguments: argparse.Namespace) -> int:
    rows = scaling.run_scale(make_setup(arguments), arguments.counts, arguments.batches)
    return finish(arguments, "scale", f"scale-{arguments.size}", "Cost of an image by how many there are", rows)


def finish(arguments: argparse.Namespace, kind: str, name: str, heading: str, rows: list[report.Row]) -> int:
    """Write what was found, unless it is nothing, and print the table."""
    if not arguments.keep:
        shutil.rmtree(os.path.join(arguments.environments, "packed"), ignore_errors=True)
    if all(row["failed"] for row in rows):
        print(report.table(kind, rows))
        print(f"every peer failed: results that were there of {name} stay", file=sys.stderr)
        return 1
    data = getattr(arguments, "data", None)
    words = [f"data/{os.path.basename(os.path.abspath(word))}" if word == data else word for word in sys.argv[1:]]
    line = shlex.join(["python", "tools/bench.py", *words])
    results = {"kind": kind, "name": name, "heading": heading, "line": line, "rows": rows}
    results |= {"machine": machine(arguments.here), "versions": frozen_versions(arguments.environments)}
    print(pages.write(results, os.path.join(arguments.environments, "results")))
    return 0


def make_page(arguments: argparse.Namespace) -> int:
    pages.page(os.path.join(arguments.environments, "results"), arguments.output)
    return 0


class Parser(argparse.ArgumentParser):
    """One whose complaints are one line."""

    def error(self, message: str) -> NoReturn:
        """Say it, without the usage."""
        self.exit(2, f"{self.prog}: {message}\n")


def whole(text: str) -> int:
    """A number of something."""
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


def common(command: argparse.ArgumentParser) -> None:
    command.add_argument("--size", type=whole, default=64, help="side in pixels (%(default)s)")
    command.add_argument("--workers", type=whole, default=WORKERS, help="processes of each peer (%(default)s)")
    command.add_argument("--repeats", type=whole, default=3, help="rounds (%(default)s)")
    command.add_argument("--epochs", type=whole, default=3, help="timed in each round, at least (%(default)s)")
    command.add_argument("--limit", type=seconds, default=300, help="seconds for one run of one peer (%(default)s)")
    command.add_argument("--environments", default=os.path.join(ROOT, ".bench"), help="where they are made (.bench)")
    command.add_argument("--here", action="store_true", help="run peers with this Python, rather than their own")
    command.add_argument("--keep", action="store_true", help="keep what was packed, for the next run")


def main() -> None:
    parser = Parser(description="Measure pack-images and its peers.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, about in (("pack", "pack folders"), ("load", "shuffled epochs"), ("fit", "Keras' fit on TensorFlow")):
        command = commands.add_parser(name, help=about)
        command.add_argument("data", help="a folder of class folders")
        command.add_argument("--peers", help="some of them, with commas between (all)")
        command.add_argument("--copies", type=whole, default=1, help="each file under so many names (%(default)s)")
        common(command)
        command.set_defaults(run=compare)
        if name != "pack":
            command.add_argument("--batch", type=whole, default=BATCH, help="(%(default)s)")
        if name == "load":
            command.add_argument(
                "--cold", action="store_true", help="drop the files from the page cache before each run"
            )
    command = commands.add_parser("scale", help="1,000 to 1,000,000 images")
    command.add_argument("--counts", type=whole, nargs="+", default=[1_000, 10_000, 100_000, 1_000_000])
    command.add_argument("--batches", type=whole, nargs="+", default=[8, 32, 128, 256, 1024])
    common(command)
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
