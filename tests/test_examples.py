"""Tests of the examples. Those for many hosts run as local processes: the ranks together train on every row once."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from range_server import RangeServer

from conftest import PATIENCE, names_in, write_pack
from h5split import SplitSequence

EXAMPLES = Path(__file__).parents[1] / "examples"
BATCH = 32
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    """A pack of 150 images, of which 120 (3.75 batches) are for training."""
    path = tmp_path_factory.mktemp("examples") / "pack.h5"
    return write_pack(path, names_in("data", {"cat": 75, "dog": 50, "emu": 25}))


def free_ports(count):
    """Return free local ports, below the range of ephemeral ports."""
    ports = []
    while len(ports) < count:
        port = random.randrange(10_000, 32_000)
        with socket.socket() as found, contextlib.suppress(OSError):
            found.bind(("127.0.0.1", port))
            ports += {port} - set(ports)
    return ports


def torch_lines(arguments, count):
    line = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    return [([*line, str(EXAMPLES / "torch_ddp.py"), *arguments], {})]


def jax_lines(arguments, count):
    address = f"127.0.0.1:{free_ports(1)[0]}"
    line = [str(EXAMPLES / "jax_processes.py"), *arguments, "--coordinator", address, "--count", str(count)]
    return [([*line, "--rank", str(rank)], {}) for rank in range(count)]


def tensorflow_lines(arguments, count):
    workers = [f"127.0.0.1:{port}" for port in free_ports(count)]
    tasks = [{"cluster": {"worker": workers}, "task": {"type": "worker", "index": rank}} for rank in range(count)]
    line = [str(EXAMPLES / "tensorflow_multiworker.py"), *arguments]
    return [(line, {"TF_CONFIG": json.dumps(task), "KERAS_BACKEND": "tensorflow"}) for task in tasks]


def trained(lines, folder):
    """Run all command lines at once. Return everything they print."""
    processes = []
    for number, (line, environment) in enumerate(lines):
        with open(folder / f"output.{number}", "wb") as output:
            processes.append(
                subprocess.Popen(
                    [sys.executable, *line],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **QUIET, **environment},
                    start_new_session=True,
                )
            )
    try:
        statuses = [process.wait(PATIENCE) for process in processes]
    except subprocess.TimeoutExpired:
        statuses = ["too slow"]
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    outputs = [(folder / f"output.{number}").read_text() for number in range(len(lines))]
    assert set(statuses) == {0}, "\n".join(outputs)
    return "".join(outputs)


def weights_in(output):
    """Return the sum of squares of the trained weights for each rank. Ranks that print at once may share a line."""
    return [float(weights) for weights in re.findall(r": weights (\d+\.\d{9})", output)]


def global_batches(pack, drop_remainder):
    """Return the file names of each batch of two epochs, as one process sees them."""
    sequence = SplitSequence(
        pack, batch_size=BATCH, label_mode="int", auto_shuffle=True, drop_remainder=drop_remainder
    ).split(0.2)[1]
    epochs = []
    for _ in range(2):
        for _ in sequence:
            pass
        names = sequence.get_filenames(range(len(sequence.delivered)))
        epochs.append([names[start : start + BATCH] for start in range(0, len(names), BATCH)])
    return epochs


FRAMEWORKS = [
    pytest.param(
        lines,
        drop_remainder,
        marks=pytest.mark.skipif(find_spec(module) is None, reason=f"{module} is not installed"),
        id=module,
    )
    for module, lines, drop_remainder in (
        ("torch", torch_lines, False),
        ("jax", jax_lines, True),
        ("tensorflow", tensorflow_lines, True),
    )
]


@pytest.mark.parametrize(("lines", "drop_remainder"), FRAMEWORKS)
def test_two_processes_train_on_the_same_batches_as_one(pack, tmp_path, lines, drop_remainder):
    expected = global_batches(pack, drop_remainder)
    losses, weights = {}, {}
    for count in (1, 2):
        history = tmp_path / f"history-{count}"
        arguments = [str(pack), "--batch-size", str(BATCH), "--history", str(history)]
        weights[count] = weights_in(trained(lines(arguments, count), tmp_path))
        ranks = [
            [json.loads(line) for line in Path(f"{history}.{rank}").read_text().splitlines()] for rank in range(count)
        ]
        for epoch, batches in enumerate(expected):
            own = BATCH // count
            parts = [rank[epoch]["images"] for rank in ranks]
            assert len({len(part) for part in parts}) == 1
            together = [
                [name for part in parts for name in part[start : start + own]] for start in range(0, len(parts[0]), own)
            ]
            assert together == batches
            names = [name for part in parts for name in part]
            assert len(names) == len(set(names)) == (96 if drop_remainder else 120)
        losses[count] = [epoch["losses"] for epoch in ranks[0]]
        assert all([epoch["losses"] for epoch in rank] == losses[count] for rank in ranks)
    assert len(weights[1]) == 1
    assert len(weights[2]) == 2
    assert weights[2][0] == weights[2][1]
    np.testing.assert_allclose(losses[2], losses[1], rtol=1e-3)
    np.testing.assert_allclose(weights[2][0], weights[1][0], rtol=1e-3)


@pytest.mark.skipif(find_spec("keras") is None, reason="Keras is not installed")
def test_a_unet_learns_to_find_shapes(tmp_path):
    line = [str(EXAMPLES / "unet.py"), "--count", "160", "--side", "32", "--epochs", "6"]
    output = trained([(line, {"KERAS_BACKEND": "tensorflow"})], tmp_path)
    found = [float(iou) for iou in re.findall(r"IoU (\d\.\d{3})", output)]
    assert len(found) == 6, output
    assert max(found[-3:]) > found[0] + 0.05, output


@pytest.mark.skipif(not all(map(find_spec, ("aiohttp", "torch"))), reason="torch or aiohttp is not installed")
@pytest.mark.parametrize("options", [[], ["--fetch"]], ids=["while it arrives", "fetched first"])
def test_a_network_learns_from_a_pack_that_is_elsewhere(pack, tmp_path, options):
    with RangeServer() as server:
        address = server.put("pack.h5", pack)
        line = [str(EXAMPLES / "elsewhere.py"), address, "--cache", str(tmp_path / "copies"), *options]
        output = trained([([*line, "--batch-size", "16", "--epochs", "2"], {})], tmp_path)
    assert re.findall(r"epoch (\d): (\d+) images", output) == [("0", "120"), ("1", "120")]
    (copy,) = (tmp_path / "copies").iterdir()
    assert (copy / "pack.h5").read_bytes() == pack.read_bytes()
