"""Windows: everything but packing works in a process without what that system lacks (`windows.become`)."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from conftest import needs_keras, write_image

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for open files in /proc")

START = """
import contextlib, io, os, pickle, sys
import h5py, numpy as np, tqdm, xxhash
import numpy.ma, concurrent.futures.thread, hashlib, importlib.metadata, tempfile, tomllib, unittest.mock, uuid, zipfile
with contextlib.suppress(ImportError):
    import jinja2
import PIL.Image, PIL.PngImagePlugin, PIL.JpegImagePlugin, simplejpeg
import windows

def refused(function, *given, error=ValueError):
    try:
        function(*given)
    except error as found:
        return str(found)
    raise AssertionError("expected an error")
"""
BECOME = "windows.become()\nPACK = 'images.h5'\n"
COMMAND = """
def command(main, *line):
    sys.stdout.flush()
    try:
        status = main([*line])
    except SystemExit as found:
        status = found.code
    return status
"""


@pytest.fixture
def windows(packed, tmp_path):
    """Run code in a fresh interpreter that is like one on Windows, in a folder with `images.h5`. Return its output."""
    (tmp_path / "images.h5").write_bytes(packed.read_bytes())

    def run(code, before=""):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *sys.path])}
        # Output that is not a console has the code page of the system.
        environment |= {"PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"}
        done = subprocess.run(
            [sys.executable, "-c", START + before + BECOME + COMMAND + code],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            encoding="cp1252",
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout, done.stderr

    return run


def test_what_windows_lacks_is_gone(windows):
    windows("""
import mmap, signal
for module, names in ((os, "fork pread preadv pwrite geteuid sched_getaffinity statvfs O_NOFOLLOW O_DIRECTORY "
                           "O_CLOEXEC O_NONBLOCK RWF_NOWAIT posix_fallocate fdatasync uname"),
                      (signal, "SIGHUP SIGALRM pthread_sigmask setitimer SIG_BLOCK"),
                      (mmap, "MAP_SHARED MAP_PRIVATE PROT_READ MADV_WILLNEED")):
    assert not [name for name in names.split() if hasattr(module, name)], module
for name in ("fcntl", "resource", "pwd", "termios"):
    refused(__import__, name, error=ImportError)
refused(os.open, ".", os.O_RDONLY, error=PermissionError)
refused(lambda: os.stat("images.h5", dir_fd=3), error=NotImplementedError)
with open("images.h5", "rb"):
    refused(os.replace, "images.h5", "other.h5", error=PermissionError)
assert not hasattr(mmap.mmap(-1, 10), "madvise")
refused(lambda: mmap.mmap(-1, 10, flags=2), error=TypeError)
signal.signal(signal.SIGINT, signal.SIG_IGN)
assert sys.platform == "win32" and sys.stdout.encoding == "cp1252"
""")


def test_reading_splitting_shuffling_and_mistakes(windows):
    windows("""
from h5split import PackedImages, SplitSequence, leaks, write_split
sequence = SplitSequence(PACK, batch_size=16)
assert sum(len(x) for x, y in sequence) == 100
pack = PackedImages(PACK)
test, val, train = sequence.split(0.2, 0.4, stable=True)
assert len(test.rows) + len(val.rows) + len(train.rows) == 100
for auto_shuffle in (True, "block"):
    train.set(auto_shuffle=auto_shuffle, scale=1 / 255, max_per_class_and_epoch=9)
    for images, labels in train:
        assert images.dtype == np.float32
train.set(auto_shuffle=True, scale=None).preload()
delivered = [np.array(images) for images, labels in train]
assert np.array_equal(np.concatenate(delivered)[5], pack.images[[*pack.filenames].index(train.get_filenames(5)[0])])
assert np.array_equal(np.concatenate([x for x, y in train.set(auto_shuffle=False, max_per_class_and_epoch=None)]),
                      pack.images[train.rows])
assert test.mistakes(np.zeros((len(test.rows), 3)) + [1, 0, 0])
assert leaks(train, test, near=True) is not None
write_split("split.csv", {"train": train, "test": test})
write_split("split.csv", {"train": train, "test": test})  # replaces its own kind
assert sorted(sequence.read_split("split.csv")) == ["test", "train"]
copy = pickle.loads(pickle.dumps(train))
assert np.array_equal(copy[0][0], train[0][0])
train.restore(train.state())
assert "it is not an HDF5 file" in refused(SplitSequence, "split.csv")
""")


def test_saving_and_writing_packs(windows):
    windows("""
from h5split import SplitSequence
from pack_images import write, prepare
sequence = SplitSequence(PACK)
sequence.save("saved.h5")
sequence.select(label="cat").save("saved.h5")
assert len(SplitSequence("saved.h5").rows) == 20
assert "another file" in refused(sequence.save, PACK)
holder = SplitSequence("saved.h5")
refused(sequence.save, "saved.h5", error=PermissionError)  # Windows replaces no file that is open
assert sorted(os.listdir()) == ["images.h5", "saved.h5"]
images = np.arange(40 * 48, dtype=np.uint32).astype(np.uint8).reshape(40, 4, 4, 3)
assert write("arrays.h5", images, [0, 1] * 20, class_names=["a", "b"]).rows == 40
assert write("pairs.h5", zip(images, [0, 1] * 20), size=2).rows == 40
assert prepare("arrays.h5", images[0]).shape == (4, 4, 3)
""")


def test_prepare_reads_a_file(windows, tmp_path):
    write_image(tmp_path / "new.png")
    out, _ = windows("""
from pack_images import prepare
print(prepare(PACK, "new.png").shape)
""")
    assert out == "(8, 8, 3)\n"


def test_commands_look_check_and_export(windows):
    pytest.importorskip("jinja2")
    out, errors = windows("""
from h5split.cli import main
from h5split import SplitSequence
assert command(main, "info", PACK) == 0
assert command(main, "info", PACK, "--json") == 0
assert command(main, "verify", PACK, "--sources") == 0
assert command(main, "verify", PACK, "--sources", "--root", "nowhere", "--quiet") == 0
assert command(main, "view", PACK, "-o", "page.html") == 0
assert command(main, "view", PACK, "-o", "page.html", "--quiet") == 0
assert command(main, "near", PACK, "-o", "pairs.html", "--quiet") == 0
assert command(main, "export", PACK, "folders") == 0
assert os.path.exists("folders/manifest.csv") and len(os.listdir("folders/cat")) == 20
assert command(main, "export", PACK, "folders") == 1
assert command(main, "info", "page.html") == 1
with open("page.html", "rb") as file:
    assert b"\\r\\n" not in file.read()
""")
    assert "100 images" in out
    assert "h5split: folders: expected a new or empty folder" in errors
    assert "Traceback" not in errors


def test_a_damaged_row_is_found(windows):
    out, _ = windows("""
from h5split import PackedImages
from h5split.cli import main
with open(PACK, "r+b") as file:
    file.seek(PackedImages(PACK).header.images.offset + 3 * 192)
    file.write(b"\\r\\n\\r\\n")
assert command(main, "verify", PACK, "--workers", "4") == 1
""")
    assert "100 rows, 1 damaged" in out


def test_packing_says_that_it_needs_wsl(windows):
    _, errors = windows("""
from pack_images.cli import main
assert command(main, "--version") == 0
assert command(main, "--help") == 0
assert command(main, "data", "-o", "out.h5") == 1
assert command(main, "data", "-o", "out.h5", "--dry-run") == 1
from pack_images import *
assert "found Windows" in refused(pack, ["data"], "out.h5", error=PackError)
assert "found Windows" in refused(preview, ["data"], error=PackError)
Manifest("a.csv")
assert os.listdir() == ["images.h5"]
""")
    line = (
        "pack-images: packing files: expected Linux, macOS or WSL, found Windows; `wsl --install` installs WSL, where "
        "the same command works; Windows reads packs, trains from them, and makes packs of arrays with "
        "pack_images.write()\n"
    )
    assert errors == line * 2


@needs_keras
def test_keras_trains(windows):
    before = """
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import keras
def model_of(shape, classes):
    model = keras.Sequential([keras.Input(shape), keras.layers.Rescaling(1 / 255), keras.layers.Flatten(),
                              keras.layers.Dense(classes, activation="softmax")])
    model.compile("adam", "categorical_crossentropy")
    return model
model = model_of((8, 8, 3), 3)
x, y = np.zeros((4, 8, 8, 3), np.uint8), np.eye(3)[[0, 1, 2, 0]]
model.fit(x, y, verbose=0)  # loads what Keras loads late
model.predict(x, verbose=0)
"""
    out, _ = windows(
        """
from h5split import H5SplitSequence
test, train = H5SplitSequence(PACK, batch_size=16).split(0.2)
train.set(auto_shuffle=True)
history = model.fit(train, validation_data=test, epochs=2, verbose=0)
assert len(history.history["val_loss"]) == 2
print(len(test.mistakes(model.predict(test, verbose=0))) <= 20)
""",
        before,
    )
    assert out == "True\n"


def test_threads_that_read_one_file_do_not_disturb_each_other(windows):
    windows("""
from concurrent.futures import ThreadPoolExecutor
from h5split.system import files
data = np.arange(1 << 16, dtype=np.uint32).tobytes()
with open("numbers", "wb") as file:
    file.write(data)
with open("numbers", "rb") as file, ThreadPoolExecutor(8) as threads:
    starts = [int(at) for at in np.random.default_rng(0).integers(0, len(data) - 64, 20_000)]
    found = list(threads.map(lambda at: files.read_at(file.fileno(), 64, at), starts))
assert found == [data[at : at + 64] for at in starts]
""")


def test_without_o_binary_the_test_would_fail(windows):
    """A test of this test: a file that our code opens as text is noticed."""
    windows("""
from h5split.file import format
from h5split import PackedImages
format.files.BINARY = 0
assert "without O_BINARY" in refused(PackedImages, PACK, error=AssertionError)
""")
