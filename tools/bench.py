"""Measure this project and what else one would use, on the same files, in the same run.

    python tools/bench.py pack DATA --size 64                    folders of images to what each trains from
    python tools/bench.py load DATA --size 64 --batch 256        shuffled epochs, page cache warm; --cold: from disk
    python tools/bench.py fit DATA --size 64 --batch 256         Keras' fit on TensorFlow, of those that feed it
    python tools/bench.py scale --size 64                        1,000 to 1,000,000 images
    python tools/bench.py report docs/benchmarks.md              all of these results as one page

DATA is a folder of class folders. Every peer has an environment of its own, made when it is first needed with the
versions in peers/versions.toml. Peers take turns, `--repeats` times; medians are printed, with the smallest and the
largest. Needs numpy, and matplotlib for the pictures; runs on Linux, as it reads /proc.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import sys
from importlib.util import find_spec

from benchmark import files, report, scaling
from benchmark.children import ROOT
from benchmark.environments import frozen_versions, read_versions
from benchmark.rounds import Setup, run_rounds

HEADINGS = {
    "pack": "Packing {name} to {size}x{size}, {workers} workers",
    "load": "Shuffled epochs of {name}, {size}x{size}, batch {batch}, {workers} workers, page cache warm",
    "cold": "Shuffled epochs of {name}, {size}x{size}, batch {batch}, {workers} workers, from disk",
    "fit": "Keras fit on TensorFlow of {name}, {size}x{size}, batch {batch}, {workers} workers",
}


def machine() -> str:
    """What it was measured on."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        models = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0))
    return f"{cores} cores ({(models or ['unknown'])[0]}), {memory:.0f} GiB, Python {sys.version.split()[0]}."


def make_setup(arguments: argparse.Namespace) -> Setup:
    return Setup(
        environments=os.path.abspath(arguments.environments),
        here=arguments.here,
        size=arguments.size,
        batch=getattr(arguments, "batch", 256),
        workers=arguments.workers,
        repeats=arguments.repeats,
        epochs=arguments.epochs,
        limit=arguments.limit,
    )


def compare(arguments: argparse.Namespace) -> None:
    """pack, load and fit: all peers, in turns."""
    peers, _ = read_versions()
    usual = [name for name, peer in peers.items() if arguments.command in peer.commands and not peer.hidden]
    names = arguments.peers.split(",") if arguments.peers else usual
    unknown = [name for name in names if name not in peers or arguments.command not in peers[name].commands]
    if unknown:
        raise SystemExit(f"{arguments.command} knows no {', '.join(unknown)}: expected some of {', '.join(usual)}")
    setup = make_setup(arguments)
    folder = os.path.join(setup.environments, "images", f"{arguments.copies}-times")
    data = files.look_at(
        arguments.data if arguments.copies == 1 else files.multiplied(arguments.data, folder, arguments.copies)
    )
    kind = "cold" if getattr(arguments, "cold", False) else arguments.command
    rows = run_rounds(kind, [peers[name] for name in names], data, setup)
    heading = HEADINGS[kind].format(name=data.name, **vars(setup))
    finish(arguments, kind, f"{kind}-{data.name}-{setup.size}", f"{heading}: {data.rows:,} images", rows)


def scale(arguments: argparse.Namespace) -> None:
    rows = scaling.run_scale(make_setup(arguments), arguments.counts, arguments.batches)
    finish(arguments, "scale", f"scale-{arguments.size}", "Cost of an image by how many there are", rows)


def finish(arguments: argparse.Namespace, kind: str, name: str, heading: str, rows: list[report.Row]) -> None:
    """Write what was found, and print the table."""
    data = getattr(arguments, "data", None)
    words = [f"data/{os.path.basename(os.path.abspath(word))}" if word == data else word for word in sys.argv[1:]]
    line = shlex.join(["python", "tools/bench.py", *words])
    results = {"kind": kind, "name": name, "heading": heading, "line": line, "machine": machine(), "rows": rows}
    results["versions"] = frozen_versions(arguments.environments)
    folder = os.path.join(arguments.environments, "results")
    print(report.write(results, folder))
    if not arguments.keep:
        shutil.rmtree(os.path.join(arguments.environments, "packed"), ignore_errors=True)


def common(command: argparse.ArgumentParser) -> None:
    command.add_argument("--size", type=int, default=64, help="side in pixels (%(default)s)")
    command.add_argument("--workers", type=int, default=2, help="processes of each peer (%(default)s)")
    command.add_argument("--repeats", type=int, default=3, help="rounds (%(default)s)")
    command.add_argument("--epochs", type=int, default=3, help="timed in each round, at least (%(default)s)")
    command.add_argument("--limit", type=float, default=300, help="seconds for one run of one peer (%(default)s)")
    command.add_argument("--environments", default=os.path.join(ROOT, ".bench"), help="where they are made (.bench)")
    command.add_argument("--here", action="store_true", help="run peers with this Python, rather than their own")
    command.add_argument("--keep", action="store_true", help="keep what was packed, for the next run")


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure pack-images and its peers.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, about in (("pack", "pack folders"), ("load", "shuffled epochs"), ("fit", "Keras' fit on TensorFlow")):
        command = commands.add_parser(name, help=about)
        command.add_argument("data", help="a folder of class folders")
        command.add_argument("--peers", help="some of them, with commas between (all)")
        command.add_argument("--copies", type=int, default=1, help="each file under so many names (%(default)s)")
        common(command)
        command.set_defaults(run=compare)
        if name != "pack":
            command.add_argument("--batch", type=int, default=256, help="(%(default)s)")
        if name == "load":
            command.add_argument(
                "--cold", action="store_true", help="drop the files from the page cache before each run"
            )
    command = commands.add_parser("scale", help="1,000 to 1,000,000 images")
    command.add_argument("--counts", type=int, nargs="+", default=[1_000, 10_000, 100_000, 1_000_000])
    command.add_argument("--batches", type=int, nargs="+", default=[8, 32, 128, 256, 1024])
    common(command)
    command.set_defaults(run=scale)
    command = commands.add_parser("report", help="all results as one page")
    command.add_argument("output", help="such as docs/benchmarks.md")
    command.add_argument("--environments", default=os.path.join(ROOT, ".bench"))
    command.set_defaults(run=lambda arguments: report.page(f"{arguments.environments}/results", arguments.output))
    arguments = parser.parse_args()
    if find_spec("matplotlib") is None:
        parser.error("pictures need matplotlib: run it with .venv/bin/python, or pip install matplotlib")
    try:
        arguments.run(arguments)
    except KeyboardInterrupt:
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
