"""One measurement in a process of its own: remote.py starts this script, and reads a line of JSON from it.

A task is JSON: the name of a function of this module (`run`), the pack or URL, a folder for the cache, and settings.
Each function returns seconds by the name of what they are for. Imports are not counted.
"""

from __future__ import annotations

import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

Times = dict[str, Any]

THREADS = 16


def ours(task: dict[str, Any]) -> Times:
    """Open a pack, and run epochs over it."""
    from h5split import SplitSequence

    if "://" in task["url"]:
        import fsspec

        fsspec.get_filesystem_class(task["url"].partition(":")[0])  # imports only
    settings: dict[str, Any] = {"batch_size": task["batch"], "label_mode": "int", "auto_shuffle": task["order"]}
    if "://" in task["url"]:
        settings["cache"] = task["cache"]
    begin = time.perf_counter()
    sequence = SplitSequence(task["url"], **settings)
    return epochs_of(lambda number: sequence, begin, task["epochs"])


def plain(task: dict[str, Any]) -> Times:
    """Read the whole object in ranges of 4 MiB with fsspec's cat_file in threads, as a bound.

    Its first batch is the size of the object only.
    """
    import fsspec

    fsspec.get_filesystem_class(task["url"].partition(":")[0])  # imports only
    begin = time.perf_counter()
    system, path = fsspec.core.url_to_fs(task["url"])
    size = system.info(path)["size"]
    opened = time.perf_counter()
    piece = 4 << 20

    def fetch(start: int) -> int:
        # By name: the second argument of s3fs' cat_file is a version.
        return len(system.cat_file(path, start=start, end=min(start + piece, size)))

    with ThreadPoolExecutor(THREADS) as threads:
        total = sum(threads.map(fetch, range(0, size, piece)))
    if total != size:
        raise SystemExit(f"{total} bytes came, expected {size}")
    return {"first": opened - begin, "epochs": [time.perf_counter() - begin], "rows": [0]}


def litdata(task: dict[str, Any]) -> Times:
    """Stream chunks of LitData, with the settings of tools/peers/litdata_peer.py, but one worker.

    With two, the workers share a chunk. LitData 0.2.76 maps no shared chunk of a remote data set, but reads it whole
    for each row: an epoch then takes minutes.
    """
    import litdata
    import numpy as np
    from litdata.streaming import downloader

    downloader._OBSTORE_CLIENT_OPTIONS["allow_http"] = True  # it has no setting for an S3 server without TLS
    begin = time.perf_counter()
    data = litdata.StreamingDataset(
        task["url"],
        cache_dir=task["cache"],
        shuffle=True,
        drop_last=False,
        batch_decode=0,
        item_shuffle_window="full",
        max_cache_size="100GB",
    )
    loader = litdata.StreamingDataLoader(data, batch_size=task["batch"], num_workers=1, persistent_workers=True)
    return epochs_of(lambda number: ((b["image"], np.asarray(b["label"])) for b in loader), begin, task["epochs"])


def streaming(task: dict[str, Any]) -> Times:
    """Stream shards of MosaicML Streaming, with the settings of tools/peers/streaming_peer.py."""
    import cpu_torchvision  # noqa: F401 - before torchvision, which streaming imports
    from streaming import StreamingDataset
    from streaming.base.util import clean_stale_shared_memory
    from torch.utils.data import DataLoader

    clean_stale_shared_memory()
    begin = time.perf_counter()
    data = StreamingDataset(
        remote=task["url"],
        local=task["cache"],
        shuffle=True,
        batch_size=task["batch"],
        num_canonical_nodes=1,
        download_timeout=300,
    )
    loader = DataLoader(data, task["batch"], num_workers=task["workers"], persistent_workers=True)
    return epochs_of(lambda number: ((b["image"], b["label"]) for b in loader), begin, task["epochs"])


def epochs_of(epoch: Any, begin: float, epochs: int) -> Times:
    """Run epochs. Return the seconds to the first batch, of each epoch, and their rows. Each row is touched.

    The first epoch begins with the opening. With 0 epochs only the first batch is asked for.
    """
    import numpy as np

    first, seconds, rows = 0.0, [], []
    for number in range(max(epochs, 1)):
        count = 0
        for images, _ in epoch(number):
            np.asarray(images)[:, 0, 0, 0].sum(dtype=np.int64)
            first = first or time.perf_counter() - begin
            count += len(images)
            if not epochs:
                return {"first": first, "epochs": [], "rows": []}
        seconds.append(time.perf_counter() - begin)
        rows.append(count)
        begin = time.perf_counter()
    return {"first": first, "epochs": seconds, "rows": rows}


def main() -> None:
    output = os.dup(1)
    os.dup2(2, 1)  # libraries may print
    task = json.loads(sys.argv[1])
    found = {"ours": ours, "plain": plain, "litdata": litdata, "streaming": streaming}[task["run"]](task)
    os.write(output, (json.dumps(found) + "\n").encode())
    os._exit(0)  # threads of clients may wait for answers that never come


if __name__ == "__main__":
    main()
