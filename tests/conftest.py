"""Helpers and fixtures: images whose pixels are derived from their file name, and packs of such images."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import multiprocessing
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
import xxhash
from numpy.typing import NDArray
from PIL import Image

from h5split import PackedImages, SplitSequence
from h5split.file.sealing import Tables, seal
from pack_images import Summary, pack

# Processes started by the tests must not ignore signals. Shells start background jobs with SIGINT ignored, and nohup
# ignores SIGHUP. Child processes inherit an ignored signal, but not a handler.
signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda number, frame: None)

too_slow = [hypothesis.HealthCheck.too_slow]
hypothesis.settings.register_profile("here", deadline=None, suppress_health_check=too_slow)  # slowness is not a failure
hypothesis.settings.load_profile("here")

SIDE = 8
PATIENCE = 300.0  # timeout of every wait in seconds, long enough for a busy machine
SHARED = Path(__file__).parents[2] / "shared" / "data"

needs_keras = pytest.mark.skipif(
    find_spec("keras") is None, reason="needs Keras: pip install 'pack-images[tensorflow]'"
)
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="needs the real images in ../shared/data")


def pixels_of(filename: str, shape: tuple[int, ...] = (SIDE, SIDE, 3)) -> NDArray[np.uint8]:
    """Return pixels derived from the base name of a file. Different names give different pixels."""
    name = os.path.basename(filename)
    count = int(np.prod(shape))
    return np.frombuffer(hashlib.shake_256(os.fsencode(name)).digest(count), np.uint8).reshape(shape)


def write_image(path: Path, shape: tuple[int, ...] = (SIDE, SIDE, 3)) -> Path:
    """Write a PNG whose pixels are derived from its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels_of(path.name, shape)).save(path, format="PNG")
    return path


def write_classes(root: Path, counts: dict[str, int]) -> Path:
    """Write a folder of class folders: `root/cat/root-cat-0.png` and so on."""
    for name, count in counts.items():
        for index in range(count):
            write_image(root / name / f"{root.name}-{name}-{index}.png")
    return root


def write_hole(path: Path, rows: int, shape: tuple[int, int, int]) -> Path:
    """Write a pack of any size whose pixels are a hole in the file: all are 0 and take no space on disk."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    tables = Tables(
        labels=np.zeros(rows, np.int32),
        class_names=["nothing"],
        filenames=[f"nothing/{row}.png" for row in range(rows)],
        columns={"source": ["nothing"] * rows},
        digests=np.zeros((rows, 32), np.uint8),
        checksums=np.zeros(rows, np.uint64),
        settings={},
        packed_by={},
    )
    seal(descriptor, (rows, *shape), tables)
    os.close(descriptor)
    return path


def write_pack(
    path: Path,
    filenames: Sequence[str],
    columns: Mapping[str, Sequence[str]] | None = None,
    shape: tuple[int, int, int] = (SIDE, SIDE, 3),
    classes: Sequence[str] | None = None,
    pixels: Sequence[NDArray[Any]] | None = None,
    skipped: Sequence[tuple[str, str]] = (),
) -> Path:
    """Write a pack with any file names, without image files. The digests are made of the pixels.

    By default, the class is the parent folder, and the pixels are derived from the name.
    """
    pixels = np.stack([pixels_of(name, shape) for name in filenames] if pixels is None else pixels)
    classes = [name.split("/")[-2] for name in filenames] if classes is None else classes
    class_names = sorted(set(classes))
    tables = Tables(
        labels=np.array([class_names.index(name) for name in classes], np.int32),
        class_names=class_names,
        filenames=filenames,
        columns={"source": [name.split("/")[0] for name in filenames], **(columns or {})},
        digests=np.stack([digest_of(image) for image in pixels]),
        checksums=np.array([xxhash.xxh3_64_intdigest(image.tobytes()) for image in pixels], np.uint64),
        settings={},
        packed_by={},
        skipped=skipped,
    )
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        seal(descriptor, pixels.shape, tables, pixels.dtype)
        os.pwrite(descriptor, pixels.tobytes(), PackedImages(path).header.images.offset)
    finally:
        os.close(descriptor)
    return path


def digest_of(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Return a digest that is equal for equal pixels, but not that of the pixels: there is a file."""
    return np.frombuffer(hashlib.sha256(b"a file of " + image.tobytes()).digest(), np.uint8)


def names_in(source: str, counts: dict[str, int]) -> list[str]:
    """Return the file names of all images of all classes, in random order as in a pack."""
    names = [
        f"{source}/{label}/{source}-{label}-{index}.png" for label, count in counts.items() for index in range(count)
    ]
    return [names[index] for index in np.random.default_rng(0).permutation(len(names))]


def make(sources: Any, output: str = "out.h5", **options: Any) -> Summary:
    """Pack, by default with one worker."""
    options.setdefault("workers", 1)
    return pack(sources, output, **options)


def assert_whole(path: str | Path, count: int) -> PackedImages:
    """Check that a pack has `count` rows with distinct names, and that each has the pixels and label of its name."""
    packed = PackedImages(path)
    assert len(packed) == len(set(packed.filenames)) == count
    assert_rows_are_who_they_say(
        packed.images, [packed.class_names[label] for label in packed.labels], packed.filenames
    )
    return packed


def one_pass(sequence: SplitSequence) -> tuple[NDArray[Any], NDArray[Any], list[str]]:
    """Return (images, labels, filenames) of one pass, in the order of delivery."""
    images, labels = zip(*sequence, strict=True)
    images, labels = np.concatenate(images), np.concatenate(labels)
    return images, labels, sequence.get_filenames(range(len(images)))


def names_of(sequence: SplitSequence) -> list[str]:
    """Return the file names of one pass, after checking the pixels and label of every row."""
    images, labels, filenames = one_pass(sequence)
    numbers = labels if labels.ndim == 1 else labels.argmax(axis=1)
    assert_rows_are_who_they_say(images, [sequence.classnames[number] for number in numbers], filenames)
    return filenames


def seen_by_fit(sequence: Any, epochs: int) -> list[Any]:
    """Train on a sequence, and return the batches that the steps of Keras got, as arrays."""
    import keras

    class Watcher(keras.Model):
        """Notes what every step gets."""

        def __init__(self) -> None:
            super().__init__()
            self.seen: list[Any] = []
            self.dense = keras.layers.Dense(1)
            self.compile(run_eagerly=True)

        def call(self, x: Any) -> Any:
            return self.dense(keras.ops.mean(x, axis=(1, 2)))

        def train_step(self, *given: Any) -> Any:
            *state, batch = given
            self.seen.append(keras.tree.map_structure(lambda one: np.array(keras.ops.convert_to_numpy(one)), batch))
            return ({"loss": 0.0}, *state) if state else {"loss": 0.0}

    model = Watcher()
    model.fit(sequence, epochs=epochs, shuffle=False, verbose=0)
    return model.seen


def assert_rows_are_who_they_say(
    images: Iterable[NDArray[np.uint8]], labels: Iterable[str], filenames: Iterable[str]
) -> None:
    """Check that every row has the pixels of its file name and the label of its folder."""
    for image, label, filename in zip(images, labels, filenames, strict=True):
        assert np.array_equal(image, pixels_of(filename, image.shape)), filename
        assert label == filename.split("/")[-2]


def processes_of(group: int) -> list[int]:
    """Return the IDs of the processes of a group that still run."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, member_of = status.read_text().rpartition(")")[2].split()[:3]
            if int(member_of) == group and state != "Z":
                found.append(int(status.parent.name))
    return found


def start(line: Sequence[str], folder: Path) -> subprocess.Popen[str]:
    """Start a command in a folder, as the leader of a new process group. Its stderr is a pipe."""
    return subprocess.Popen(
        line,
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_until(true: Callable[[], object], process: subprocess.Popen[Any]) -> bool:
    """Wait until a condition holds. Return False if the process ended before that."""
    while not true():
        if process.poll() is not None:
            return bool(true())
        time.sleep(0.001)
    return True


def rows_are_made(process: subprocess.Popen[str], folder: Path) -> bool:
    """Return whether a command that packs into out.h5 has created its partial file."""
    return (folder / "out.h5.partial").exists()


def interrupted(
    line: Sequence[str],
    folder: Path,
    number: int = signal.SIGINT,
    *,
    moment: Callable[[subprocess.Popen[str], Path], object] = rows_are_made,
    everyone: bool = True,
) -> tuple[int, str]:
    """Run a command that packs into out.h5. At `moment`, send a signal to it or to its whole process group.

    On a busy machine, the command may end before the signal arrives. It is then run again, up to ten times.

    Returns:
        Exit status and stderr.
    """
    for _ in range(10):
        process = start(line, folder)
        if wait_until(functools.partial(moment, process, folder), process):
            with contextlib.suppress(ProcessLookupError):
                (os.killpg if everyone else os.kill)(process.pid, number)
        _, errors = process.communicate(timeout=PATIENCE)
        if process.returncode:
            return process.returncode, errors
        (folder / "out.h5").unlink()
    raise AssertionError(f"expected {line} to be interrupted, found that it was through before, ten times")


@pytest.fixture(autouse=True)
def own_search_path() -> Iterator[None]:
    """Unset PYTHONSAFEPATH after each test: pack-images sets it for its workers, even if called in this process."""
    yield
    os.environ.pop("PYTHONSAFEPATH", None)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with three classes of uneven size."""
    return write_classes(tmp_path / "data", {"cat": 10, "dog": 25, "emu": 5})


@pytest.fixture(scope="session")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack of 100 images in three classes."""
    folder = tmp_path_factory.mktemp("packed")
    root = write_classes(folder / "data", {"cat": 20, "dog": 50, "emu": 30})
    pack([root], folder / "images.h5", workers=1)
    return folder / "images.h5"


@pytest.fixture
def images(packed: Path) -> PackedImages:
    return PackedImages(packed)


@pytest.fixture(scope="session")
def without_torch() -> Iterator[Callable[..., Any]]:
    """Call a function in a process that has not loaded torch. Batches are views there."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        yield lambda function, *given: executor.submit(function, *given).result()


@pytest.fixture
def packing(tmp_path: Path) -> Callable[..., Summary]:
    """Pack, by default with one worker and into tmp_path/out.h5."""

    def run(*sources: Path, **options: object) -> Summary:
        options.setdefault("workers", 1)
        return pack(list(sources), options.pop("output", tmp_path / "out.h5"), **options)  # type: ignore[arg-type]

    return run


@pytest.fixture(scope="module")
def started_browser(tmp_path_factory):
    """A browser, started once for a module."""
    pytest.importorskip("selenium", reason="needs selenium: pip install 'pack-images[dev]'")
    from chromium import started

    with started(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


@pytest.fixture
def browser(started_browser):
    """The browser with its default state: wide window, light colour scheme, scripts on."""
    from chromium import restore

    restore(started_browser)
    return started_browser
