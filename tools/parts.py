"""Where the time goes, in microseconds: of a row that a worker packs, and of a batch that is gathered.

    python tools/parts.py row data/eurosat --size 64      read, digest, decode, checksum
    python tools/parts.py batch eurosat.h5 --batch 32     buffers, pixels, labels, and the way to the user

Each part is timed alone in a loop over many rows or batches, with the page cache warm: the smallest of five times. What
the whole takes beyond their sum is the code between them. Whole tasks of packing, timed once, also write to a new file.
`packing.py` and `loading.py` compare the wholes with limits.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import tempfile
from collections.abc import Callable, Sequence

import numpy as np
import simplejpeg
import xxhash
from loading import read_file
from packing import timed

from h5split import SplitSequence
from h5split.batch.gather import Gatherer
from h5split.batch.several import _cut
from pack_images import preview
from pack_images.decode.jpeg import jpeg_outline
from pack_images.decode.row import decode
from pack_images.fill import _empty_rows, fill
from pack_images.journal import RECORD, pack_record
from pack_images.partial import Partial
from pack_images.reading import read

REPEATS = 5


def show(name: str, items: int, run: Callable[[], object]) -> float:
    """Print and return the microseconds that one of the items of a run takes."""
    found = min(timed(run) for _ in range(REPEATS)) / items * 1e6
    print(f"  {name:<44} {found:8.2f}")
    return found


def each(function: Callable[..., object], *columns: Sequence[object]) -> Callable[[], None]:
    """A loop that calls a function with the items of columns."""

    def run() -> None:
        for items in zip(*columns, strict=True):
            function(*items)

    return run


def of_a_row(arguments: argparse.Namespace) -> None:
    plan = preview(arguments.data, size=arguments.size)
    how, rows = plan.settings.pixels, min(arguments.rows, len(plan))
    paths = [path for path in plan.sources.paths[:rows] if isinstance(path, str)]
    files = [read(path, how)[0] for path in paths]
    together = max(1, (4 << 20) // plan.stride)  # as many as a task has
    block = _empty_rows(together, plan.shape, np.dtype(how.dtype))
    into = [block[row % together] for row in range(rows)]
    records = bytearray(RECORD.itemsize)
    digest = hashlib.sha256(files[0]).digest()

    def bare(path: str) -> None:
        with open(path, "rb", buffering=0) as file:
            file.read()

    print(f"{rows:,} rows of {plan.stride:,} bytes, of files of {sum(map(len, files)) // rows:,}, in microseconds:")
    parts = [
        show("read the file, and see that it did not change", rows, each(lambda path: read(path, how), paths)),
        show("SHA-256 of the file", rows, each(lambda data: hashlib.sha256(data).digest(), files)),
        show("decode", rows, each(lambda data, out: decode(data, how, out), files, into)),
        show("XXH3 of the row", rows, each(lambda row: xxhash.xxh3_64_intdigest(row.data), into)),
        show("its record in the journal", rows, each(lambda _: pack_record(records, 0, 1, 1, digest), into)),
    ]
    print("  for comparison, not added:")
    show("the outline of a JPEG", rows, each(jpeg_outline, files))
    show("libjpeg-turbo", rows, each(lambda data: simplejpeg.decode_jpeg(data, "RGB"), files))
    show("open, read and close alone", rows, each(bare, paths))
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        partial = Partial(os.path.join(folder, "o.h5"), "", len(plan), 4096, plan.stride, plan.table_bytes)
        tasks = [task for task in plan.tasks(partial.place) if task.first < rows]
        before = os.times()
        seconds = timed(lambda: [fill(task) for task in tasks])
        after = os.times()
        partial.discard()
    done = sum(len(task.paths) for task in tasks)
    user, system = ((getattr(after, kind) - getattr(before, kind)) / done * 1e6 for kind in ("user", "system"))
    print(f"  the parts together {sum(parts):.1f}; whole tasks, with writing, {seconds / done * 1e6:.1f}")
    print(f"  processor time of whole tasks: {user:.1f} in the program, {system:.1f} in the kernel")


def of_a_batch(arguments: argparse.Namespace) -> None:
    read_file(arguments.pack)
    sequence = SplitSequence(arguments.pack, auto_shuffle=True, batch_size=arguments.batch, label_mode="int")
    packs, current = sequence.packs, sequence.begin_ahead()
    order, batches = current.order, current.order.batches - 1
    together = max(1, min(batches, (8 << 20) // (arguments.batch * packs.stride)))  # as `Several` gathers
    calls = batches // together
    size = together * order.size
    rows = [order.rows[call * size : (call + 1) * size] for call in range(calls)]
    gatherer = Gatherer(packs)
    items = gatherer._buffers.lend(size)[1]

    print(f"a batch of {arguments.batch} rows of {packs.stride:,} bytes, {together} gathered at once, in microseconds:")
    all_ = calls * together
    parts = [
        show("lending a buffer (a part of pixels)", all_, each(lambda _: gatherer._buffers.lend(size), rows)),
        show("pixels, with threads", all_, each(gatherer._gathered, rows)),
        show("labels", all_, each(lambda some: gatherer.encoded(packs.labels[some], "int"), rows)),
    ]
    found = gatherer.batches(order, 0, together, sequence.settings, sequence._learned, writable=True)
    starts = [order.size * (batch % together) for batch in range(all_)]
    parts.append(show("slicing a batch out of these", all_, each(lambda at: _cut(found, at, at + order.size), starts)))
    print("  for comparison, not added:")
    show("pixels, in one thread", all_, each(lambda some: packs.take(some, items), rows))
    whole = show("whole epochs", order.batches, lambda: [None for _ in sequence])
    print(f"  the parts together {sum(parts[1:]):.1f}, without the buffer; the epoch {whole:.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Show where the time of a row or of a batch goes.")
    commands = parser.add_subparsers(required=True)
    row = commands.add_parser("row", help="of packing")
    row.add_argument("data", help="a folder of class folders")
    row.add_argument("--size", type=int, default=64)
    row.add_argument("--rows", type=int, default=20_000, help="number of files to look at")
    row.add_argument("--folder", default=None, help="folder for the file (the folder for temporary files)")
    row.set_defaults(run=of_a_row)
    batch = commands.add_parser("batch", help="of loading")
    batch.add_argument("pack", help="a file made by pack-images")
    batch.add_argument("--batch", type=int, default=32)
    batch.set_defaults(run=of_a_batch)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
