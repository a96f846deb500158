"""Read the pixels of rows into the page cache before they are used."""

from __future__ import annotations

import warnings

from h5split.file.mapped import READ_SIZE
from h5split.file.packs import Packs
from h5split.order.rows import Rows
from h5split.system.machine import free_memory


def preload(packs: Packs, rows: Rows, *, verbose: bool) -> None:
    """Read the pixels of rows once, front to back. If they do not fit in free memory, only warn.

    Args:
        packs: The packs that contain the rows.
        rows: The rows.
        verbose: Show a progress bar.
    """
    pieces = [(pack, pack.pieces(local)) for pack, local in packs.by_pack(rows)]
    needed, free = sum(len(found) for _, found in pieces) * READ_SIZE, free_memory()
    if free is not None and needed > free:
        warnings.warn(
            f"preload: {needed / 1e9:.1f} GB of pixels do not fit in {free / 1e9:.1f} GB of free memory; "
            "passed over, batches will be read from disk",
            stacklevel=3,
        )
        return
    from tqdm import tqdm  # 4 MB, and wanted by few

    with tqdm(total=needed, unit="B", unit_scale=True, desc="preload", disable=not verbose) as bar:
        for pack, found in pieces:
            pack.preload(found, bar.update)
