"""Memory maps of a pack: in-place writes to arrays never reach the file, and the maps use no memory."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from conftest import names_in, names_of, pixels_of, write_hole, write_pack
from h5split import PackedImages, SplitSequence

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, of Linux")
needs_torch = pytest.mark.skipif(find_spec("torch") is None, reason="needs torch: pip install torch")


def python(code: str, *arguments: object) -> str:
    """Run code in a new process, as it may crash, and return its stdout."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent)
    assert done.returncode == 0, (done.returncode, done.stderr)
    return done.stdout


# --- torch ignores numpy's read-only flag ----------------------------------------------------------------------------


TORCH = """
import sys, warnings
import numpy as np
warnings.simplefilter("ignore")  # torch warns of read-only arrays: "The given NumPy array is not writable"
if sys.argv[2] == "before":
    import torch
from h5split import PackedImages, SplitSequence
from conftest import names_of, pixels_of
pack, sequence = PackedImages(sys.argv[1]), SplitSequence(sys.argv[1], batch_size=8, label_mode="int")
ORDERS = (False, True, "block")

def assert_intact():
    for order in ORDERS:
        assert sorted(names_of(sequence.set(auto_shuffle=order))) == sorted(sequence.filenames)
    items = [pack[row] for row in range(len(pack))]
    for (image, label), name in zip(items + pack.__getitems__(range(len(pack))), [*pack.filenames] * 2):
        assert np.array_equal(image, pixels_of(name)), name
        assert pack.class_names[label] == name.split("/")[-2], name

first = sequence[0][0]
import torch
from torch.utils.data import DataLoader
"""

IN_PLACE = {
    "an item": "torch.from_numpy(pack[0][0]).add_(1)",
    "items of a batch": "[torch.from_numpy(image).zero_() for image, _ in pack.__getitems__(range(10))]",
    "a DataLoader of a pack": "[images.add_(1) for images, _ in DataLoader(pack, batch_size=8)]",
    "a DataLoader of a pack without batches": "[images.add_(1) for images, _ in DataLoader(pack, batch_size=None)]",
    "a DataLoader of a pack with workers": "[x.add_(1) for x, _ in DataLoader(pack, batch_size=8, num_workers=2)]",
    "the same without batches": "[x.add_(1) for x, _ in DataLoader(pack, batch_size=None, num_workers=1)]",
    "a DataLoader of a sequence": "[images.mul_(2) for images, _ in DataLoader(sequence, batch_size=None)]",
    "batches": "[torch.as_tensor(x).mul_(2) for o in ORDERS for x, _ in sequence.set(auto_shuffle=o)]",
    "batches kept in a list": "[torch.as_tensor(x).mul_(2) for x, _ in list(sequence.set(auto_shuffle=False))]",
    "labels": "[torch.as_tensor(y).fill_(0) for o in ORDERS for _, y in sequence.set(auto_shuffle=o)]",
    "one-hot labels": "[torch.as_tensor(y).fill_(7) for _, y in sequence.set(label_mode='categorical')]",
    "scaled batches": "[torch.as_tensor(x).fill_(7) for x, _ in sequence.set(scale=2.0)]; sequence.set(scale=None)",
    "a loader": "[images.fill_(0) for images, _ in sequence.as_torch_loader()]",
    "all images": "torch.from_numpy(pack.images).fill_(7); torch.from_numpy(sequence.packs.packs[0].images).fill_(7)",
    "all labels": "torch.from_numpy(pack.labels).add_(1); torch.from_numpy(sequence.packs.packs[0].labels).add_(1)",
    "other arrays": "[torch.as_tensor(array).fill_(7) for array in (pack.digests, pack.checksums.view('i8'))]",
}


@needs_torch
@pytest.mark.parametrize("imported", ["before", "after"])
def test_in_place_torch_operations_change_neither_later_batches_nor_the_file(tmp_path, imported):
    """All operations run in one process, which must not crash; each sees the effects of those before."""
    names = names_in("data", {"cat": 20, "dog": 25})
    path = write_pack(tmp_path / "own.h5", names)
    before = hashlib.sha256(path.read_bytes()).digest()
    code = TORCH + "".join(f"{code}\nassert_intact()\nprint({name!r})\n" for name, code in IN_PLACE.items())
    assert python(code, path, imported).splitlines() == list(IN_PLACE)
    assert hashlib.sha256(path.read_bytes()).digest() == before
    assert names_of(SplitSequence(path)) == names


@needs_torch
def test_a_batch_made_before_torch_was_imported_may_be_written_to(tmp_path):
    path = write_pack(tmp_path / "own.h5", names_in("data", {"cat": 20, "dog": 25}))
    code = TORCH + "assert not first.flags.writeable\ntorch.as_tensor(first).fill_(7)\nassert_intact()\n"
    python(code, path, "after")


@linux
@needs_torch
def test_in_place_torch_operations_do_not_use_memory_for_the_whole_file(tmp_path):
    path = write_hole(tmp_path / "hole.h5", 2000, (128, 128, 3))  # 98 MB
    code = TORCH.replace("ORDERS", "_") + (
        "def anonymous():\n"
        "    lines = open('/proc/self/status').read().splitlines()\n"
        "    return sum(int(line.split()[1]) for line in lines if line.startswith('RssAnon'))\n"
        "list(sequence); before = anonymous()\n"
        "for _ in range(2):\n"
        "    for images, _ in sequence.set(batch_size=32):\n"
        "        assert torch.as_tensor(images).add_(1).max() == 1\n"
        "    for row in range(len(pack)):\n"
        "        assert torch.as_tensor(pack[row][0]).add_(1).max() == 1\n"
        "print(anonymous() - before)\n"
    )
    assert int(python(code, path, "before")) < 30_000  # kB


# --- maps ------------------------------------------------------------------------------------------------------------


@linux
def test_a_pack_larger_than_memory_can_be_opened_and_read(tmp_path):
    with open("/proc/meminfo", encoding="ascii") as file:
        total = int(file.readline().split()[1]) << 10
    path = write_hole(tmp_path / "hole.h5", 3 * total // (1 << 30), (1 << 14, 1 << 14, 4))
    assert path.stat().st_size > 2 * total
    pack = PackedImages(path)
    assert pack.images[-1, -1, -1].tolist() == [0, 0, 0, 0]
    with open("/proc/self/maps", encoding="ascii") as file:
        modes = {line.split()[1] for line in file if line.rstrip().endswith(str(path))}
    strict = Path("/proc/sys/vm/overcommit_memory").read_text() == "2\n"
    assert modes == ({"r--s"} if strict else {"r--s", "rw-p"})


LIMITED = """
import resource, sys
import numpy as np
from h5split import SplitSequence
from conftest import names_of
with open("/proc/self/status") as file:
    data = next(int(line.split()[1]) << 10 for line in file if line.startswith("VmData"))
resource.setrlimit(resource.RLIMIT_DATA, (data + (60 << 20), data + (60 << 20)))  # copy-on-write maps count
sequence = SplitSequence(sys.argv[1])
assert (sequence.packs.packs[0].images[-1] == 0).all()
assert not sequence[0][0].flags.writeable
with open("/proc/self/maps") as file:
    print(*sorted({line.split()[1] for line in file if line.rstrip().endswith(sys.argv[1])}))
"""


@linux
def test_a_pack_is_mapped_read_only_when_copy_on_write_mapping_fails(tmp_path):
    path = write_hole(tmp_path / "hole.h5", 2000, (128, 128, 3))  # 98 MB
    assert python(LIMITED, path).split() == ["r--s"]


def test_an_open_pack_holds_at_most_three_descriptors_and_closes_them(tmp_path):
    path = write_pack(tmp_path / "own.h5", names_in("data", {"cat": 3}))
    folder = "/proc/self/fd" if sys.platform == "linux" else "/dev/fd"
    before = set(os.listdir(folder))
    pack = PackedImages(path)
    image = pack.images[1]
    assert len(set(os.listdir(folder)) - before) <= 3
    name = pack.filenames[1]
    del pack
    assert np.array_equal(image, pixels_of(name))
    del image
    assert len(set(os.listdir(folder)) - before) == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_writes_in_a_forked_process_do_not_reach_the_parent_or_the_file(tmp_path):
    path = write_pack(tmp_path / "own.h5", names_in("data", {"cat": 20, "dog": 25}))
    code = (
        "import os, sys\nimport numpy as np\nfrom h5split import PackedImages\nfrom conftest import pixels_of\n"
        "pack = PackedImages(sys.argv[1])\n"
        "if (child := os.fork()) == 0:\n"
        "    import ctypes\n"
        "    ctypes.memset(pack.images.__array_interface__['data'][0], 7, pack.images.nbytes)\n"
        "    os._exit(0 if (pack.images == 7).all() else 1)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
        "assert all(np.array_equal(x, pixels_of(name)) for x, name in zip(pack.images, pack.filenames))\n"
    )
    before = path.read_bytes()
    python(code, path)
    assert path.read_bytes() == before
