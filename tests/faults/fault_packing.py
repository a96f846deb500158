"""Faults while packing: each leaves the complete old pack or the complete new one, and the same command resumes.

    python tests/faults/fault_packing.py --faults 500
    python tests/faults/fault_packing.py --faults 100 --data ../shared/data/eurosat --size 64

Commands are killed, run out of disk space, fail at any system call, lose workers, and read files that vanish, grow or
change meanwhile. After each fault, the output is the file from before or a complete pack, in which each row has the
pixels, the label and the SHA-256 of its file. The error message is one line, and no process is left. The same command,
run again without faults, then makes the same bytes as an undisturbed run and leaves no other file.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # conftest.py

from fault_campaign import (
    Command,
    Fault,
    MissedError,
    Result,
    UnavailableError,
    open_folder,
    parser,
    report,
    run,
)
from PIL import Image
from preloading import EVERY, Trap, compiled

from conftest import pixels_of
from h5split import PackedImages
from h5split.commands.verify import verify
from pack_images.journal import HEADING, RECORD

NOBODY = 65534
COUNTS = {"cat": 90, "dog": 150, "emu": 40}
BROKEN = 3
Version = tuple[str, bytes]  # SHA-256 of a file, and its pixels

# System calls of packing: call, text in the path of the file, and approximate number of calls.
OF_OUTPUT = {
    ("open", "out.h5.partial"): 50,
    ("open", "out.h5.journal"): 50,
    ("read", "out.h5.journal"): 100,
    ("write", "out.h5.partial"): 75,
    ("write", "out.h5.journal"): 50,
    ("sync", "out.h5.partial"): 5,
    ("sync", "/place"): 6,
    ("truncate", "out.h5.partial"): 4,
    ("truncate", "out.h5.journal"): 1,
    ("allocate", "out.h5.partial"): 1,
    ("allocate", "out.h5.journal"): 1,
    ("lock", "out.h5.journal"): 2,
    ("rename", "out.h5.partial"): 1,
    ("unlink", "out.h5.journal"): 1,
}
OF_SOURCES = {("open", "/data/"): 280, ("read", "/data/"): 280}
ERRORS = (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.ENOMEM, errno.EMFILE, errno.ESTALE)


# --- images determined by their names ---------------------------------------------------------------------------------


def write_version(path: Path, text: str = "") -> Version:
    """Write a lossless image determined by its name and a text. A half-written BMP decodes: it is uncompressed."""
    pixels = pixels_of(path.name + text)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return hashlib.sha256(path.read_bytes()).hexdigest(), pixels.tobytes()


def write_data(root: Path) -> dict[str, list[Version]]:
    """Write folders of images, some of them broken; return a map of file name to versions."""
    versions = {}
    for label, count in COUNTS.items():
        for index in range(count):
            path = root / label / f"{label}-{index}{('.png', '.bmp')[index % 2]}"
            versions[str(path)] = [write_version(path)]
    for index in range(BROKEN):
        broken = root / "dog" / f"dog-{7 + 40 * index}.bmp"
        broken.write_bytes(b"broken")
        versions[str(broken)] = []
    return versions


def prove(path: Path, versions: Mapping[str, Sequence[Version]], *, complete: bool = True) -> None:
    """Assert that each row is a version of its file, and that every file is a row or listed as left out."""
    packed = PackedImages(path)
    assert verify(packed).intact, f"{path} is damaged"
    for filename, label, digest, pixels in zip(
        packed.filenames, packed.labels, packed.digests, packed.images, strict=True
    ):
        assert packed.class_names[label] == filename.split("/")[-2], f"{filename} has another label"
        version = digest.tobytes().hex(), pixels.tobytes()
        assert version in versions[filename], f"{filename} has other pixels, or another digest"
    skipped = [name for name, _ in packed.skipped]
    both = [*packed.filenames, *skipped]
    assert len(both) == len(set(both)), f"{path} names a file twice"
    assert not complete or set(both) == versions.keys(), f"{path} lost {versions.keys() - set(both)}"


def sha256(path: Path) -> str | None:
    """SHA-256 of a file in hexadecimal; None if there is no file."""
    if not path.exists():
        return None
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def done_in(journal: Path) -> int:
    """Number of rows that are done according to a journal."""
    if not journal.exists():
        return 0
    raw = journal.read_bytes()[HEADING:]
    return int(np.frombuffer(raw[: len(raw) // RECORD.itemsize * RECORD.itemsize], RECORD)["done"].sum())


# --- targets of faults ------------------------------------------------------------------------------------------------


class Ground:
    """Sources that no fault changes, and the packs that undisturbed runs make of them.

    Args:
        folder: Where sources and packs are written.
        data: A folder of class folders. None: make images determined by their names.
        options: Options of every command.
    """

    def __init__(self, folder: Path, data: Path | None = None, options: Sequence[str] = ()) -> None:
        self.options = list(options)
        self.data = data or folder / "data"
        self.versions = None if data else write_data(self.data)
        self._folder = folder
        whole, older = folder / "whole.h5", folder / "older.h5"
        pack(self.argv(whole), folder)
        start = time.monotonic()
        pack(self.argv(whole, "--no-reuse"), folder)
        self.seconds = time.monotonic() - start
        pack([*self.argv(older), "--seed", "7"], folder)
        self.expected = sha256(whole)
        self.older = {"nothing": None, "rows to copy": older}
        if data is None:
            prove(whole, self.versions or {})
            pack([*self.argv(folder / "grey.h5"), "--color", "grayscale"], folder)
            self.older["other settings"] = folder / "grey.h5"

    def argv(self, output: Path, *more: str, data: Path | None = None, workers: int = 2) -> list[str]:
        """The command line that packs the data to `output`."""
        fixed = [sys.executable, "-m", "pack_images.cli", str(data or self.data), "-o", str(output)]
        return [*fixed, "--workers", str(workers), *self.options, *more]

    @cached_property
    def library(self) -> Path:
        """The library that makes system calls fail, compiled on first use.

        Raises:
            UnavailableError: It cannot be compiled here.
        """
        return compiled(self._folder)


def pack(argv: Sequence[str], folder: Path) -> str:
    """Run a command without faults and return its output."""
    command = Command(argv, folder)
    status = command.wait()
    assert status == 0, f"status {status}: {command.err}"
    return command.out


@dataclass
class Site:
    """One output, and the file that was there before.

    Attributes:
        ground: The sources.
        folder: Folder of this fault.
        before: SHA-256 of the file at the output before the fault; None if there was none.
        workers: Number of workers of the command.
    """

    ground: Ground
    folder: Path
    before: str | None
    workers: int

    @classmethod
    def drawn(cls, ground: Ground, folder: Path, rng: random.Random) -> Site:
        """Return a site with a random choice of old file, or none, at the output."""
        site = cls(ground, folder, None, rng.choice([1, 2, 3]))
        site.output.parent.mkdir()
        older = ground.older[rng.choice(list(ground.older))]
        if older is not None:
            shutil.copy(older, site.output)
            site.before = sha256(site.output)
        return site

    @property
    def output(self) -> Path:
        """Path of the output, in a folder with no other files."""
        return self.folder / "place" / "out.h5"

    @property
    def journal(self) -> Path:
        """Path of the journal of an unfinished run."""
        return self.output.with_name("out.h5.journal")

    def start(self, env: Mapping[str, str] | None = None, prefix: Sequence[str] = ()) -> Command:
        """Start the command that the fault will hit."""
        argv = self.ground.argv(self.output, "--quiet", workers=self.workers)
        return Command([*prefix, *argv], self.folder, env)

    def trap(self, call: str, text: str, action: str, value: int = 0, *, first: int = 1, times: int = 1) -> Trap:
        """Set up a fault at a system call."""
        return Trap(self.ground.library, self.folder, call, text, action, value, first=first, times=times)

    def look(self, *, left_out: bool = False) -> None:
        """Assert that the output is the old or the new file; with `left_out`, rows may be missing from the new one."""
        found = sha256(self.output)
        if found in (self.before, self.ground.expected):
            return
        assert left_out, f"{self.output} is neither as before nor as it should be"
        assert self.ground.versions is not None
        prove(self.output, self.ground.versions)

    def again(self) -> str:
        """Run the command again, assert that it makes the expected bytes and no other file; return its output."""
        said = pack(self.ground.argv(self.output, workers=self.workers), self.folder)
        assert sha256(self.output) == self.ground.expected, "the same command afterwards made other bytes"
        assert os.listdir(self.output.parent) == ["out.h5"], f"left: {os.listdir(self.output.parent)}"
        return said


def assert_one_line(command: Command, status: int) -> None:
    """Assert that a command that was not killed printed one line: its error, or the images it left out."""
    # SIGTERM and SIGINT end it silently before its start-up is over and during its exit.
    if status in (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT):
        return
    lines = command.err.splitlines()
    early = lines and lines[-1].startswith("KeyboardInterrupt") and "pack-images" not in command.err
    if early and status in (1, 130):  # interrupted while Python itself started
        return
    expected = 1 if status else sum(line.startswith("pack-images: left out: ") for line in lines)
    assert len(lines) == expected <= 1, f"status {status}: {command.err}"
    assert status in (0, 1, 130), f"status {status}: {command.err}"


# --- killed and interrupted processes ---------------------------------------------------------------------------------


def interrupted(ground: Ground, folder: Path, rng: random.Random, *, number: int, powerless: bool = False) -> None:
    """Send signals at random moments to the command or all its processes, once or several times, in one or more runs.

    Rows that the journal lists as done are not decoded again, except rows that were being moved into gaps.
    """
    site = Site.drawn(ground, folder, rng)
    missed = True
    for _ in range(rng.choice([1, 1, 2])):
        command = site.start()
        time.sleep(rng.uniform(0, ground.seconds))
        for _ in range(rng.choice([1, 1, 3])):
            command.send(number, everyone=rng.random() < 0.5 or powerless)
            time.sleep(rng.uniform(0, 0.01))
        status = command.wait()
        assert_one_line(command, status)
        missed &= status == 0
        site.look()
    if powerless:
        lose_pages(site, rng)
    done, is_new = done_in(site.journal), sha256(site.output) == ground.expected
    said = re.search(r"continued an interrupted run: ([\d,]+) images", site.again())
    kept = int(said[1].replace(",", "")) if said else 0
    if not powerless and not is_new:
        assert done - BROKEN <= kept <= done, f"{done} rows were done, {kept} were kept"
    if missed:
        raise MissedError


def lose_pages(site: Site, rng: random.Random) -> None:
    """Simulate a power cut: zero pages that were not yet written to disk, and cut off file ends.

    The first page of both files is on disk before anything else is written.
    """
    for path in (site.journal, site.output.with_name("out.h5.partial")):
        if not path.exists() or rng.random() < 0.2:
            continue
        pages = path.stat().st_size >> 12
        if pages < 2:
            continue
        with open(path, "r+b") as file:
            for _ in range(rng.randint(1, 5)):
                file.seek(rng.randrange(1, pages) << 12)
                file.write(bytes(4096))
            if rng.random() < 0.3:
                file.truncate(rng.randrange(1, pages) << 12)


def killed_helper(ground: Ground, folder: Path, rng: random.Random, *, server: bool) -> None:
    """Kill a worker, or the server that forks them, as the kernel does when memory runs out: no row is lost."""
    site = Site.drawn(ground, folder, rng)
    command = site.start()
    victims = _helpers(command, server)
    while not victims and command.running:
        victims = _helpers(command, server)
    time.sleep(rng.uniform(0, ground.seconds / 2))
    victims = [victim for victim in victims if victim in _helpers(command, server) and command.running]
    if victims:
        with contextlib.suppress(ProcessLookupError):
            os.kill(rng.choice(victims), signal.SIGKILL)
    status = command.wait()
    assert status == 0, f"status {status}: {command.err}"
    assert sha256(site.output) == ground.expected, "another file, where a helper was killed"
    site.again()
    if not victims:
        raise MissedError


def _helpers(command: Command, server: bool) -> list[int]:
    """Return the server, or the workers: they have the same command line and start after the server."""
    found = sorted(pid for pid, name in command.processes() if pid != command.pid and "forkserver" in name)
    return found[:1] if server else found[1:]


# --- system calls that fail -------------------------------------------------------------------------------------------


def at_call(ground: Ground, folder: Path, rng: random.Random, *, action: str, values: Sequence[int]) -> None:
    """A random system call fails, transfers only a part, or is the moment at which the command is killed."""
    site = Site.drawn(ground, folder, rng)
    calls = OF_OUTPUT if rng.random() < 0.7 or action in ("torn", "short") else OF_OUTPUT | OF_SOURCES
    chosen = [key for key in calls if action not in ("torn", "short") or key[0] in ("read", "write")]
    call, text = rng.choice(chosen)
    first = min(rng.choice([1, 2, 3, rng.randint(1, calls[call, text])]), calls[call, text])
    times = rng.choice([1, EVERY]) if action in ("error", "short") else 1
    trap = site.trap(call, text, action, rng.choice(values), first=first, times=times)
    command = site.start(trap.env)
    status = command.wait()
    told = f"{call} {text} {first}, {trap.env['FAULT']}"
    try:
        if action == "short":
            assert status == 0, f"status {status}: {command.err}"
        if action != "self":
            assert_one_line(command, status)
        site.look(left_out=action == "error")
        site.again()
    except AssertionError as error:
        raise AssertionError(f"{told}: {error}") from error
    if not trap.sprung:
        raise MissedError


def unreadable_source(ground: Ground, folder: Path, rng: random.Random) -> None:
    """A file with a read error is left out and named; the next run, without the error, packs it."""
    assert ground.versions is not None
    site = Site.drawn(ground, folder, rng)
    name = rng.choice([name for name, versions in ground.versions.items() if versions])
    what = rng.choice([errno.EIO, errno.EACCES, errno.ELOOP, errno.ENXIO])
    trap = site.trap(rng.choice(["open", "read"]), name, "error", what, times=EVERY)
    command = site.start(trap.env)
    status = command.wait()
    assert status == 0, f"status {status}: {command.err}"
    prove(site.output, ground.versions)
    reasons = dict(PackedImages(site.output).skipped)
    assert reasons[name] == f"cannot be read ({os.strerror(what)})", reasons
    assert len(reasons) == BROKEN + 1, reasons
    site.again()


# --- disks and folders ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[None]:
    """Mount a file system of `size` bytes on a folder."""
    options = ["-t", "tmpfs", "-o", f"size={size},mode=755", "tmpfs", str(folder)]
    done = subprocess.run(["mount", *options], capture_output=True, text=True)
    if done.returncode:
        raise UnavailableError(f"needs to mount a file system: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def full_disk(ground: Ground, folder: Path, rng: random.Random) -> None:
    """The disk is too small, or other programs fill it during the run."""
    place = folder / "place"
    place.mkdir()
    with small_disk(place, 64 << 20):
        site = _on_disk(ground, folder, rng)
        hog = place / "hog"
        with open(hog, "wb") as file:
            if rng.random() < 0.5:
                _fill_up(file.fileno(), place, rng.randrange(200 << 10))
                command = site.start()
            else:
                command = site.start()
                time.sleep(rng.uniform(0, ground.seconds))
                _fill_up(file.fileno(), place, rng.randrange(20 << 10))
            status = command.wait()
        assert_one_line(command, status)
        site.look()
        hog.unlink()
        site.again()
    if status == 0:
        raise MissedError


def _on_disk(ground: Ground, folder: Path, rng: random.Random) -> Site:
    """Like `Site.drawn`, in an existing folder."""
    other = folder / "other"
    other.mkdir()
    drawn = Site.drawn(ground, other, rng)
    if drawn.before:
        shutil.copy(drawn.output, folder / "place")
    return Site(ground, folder, drawn.before, drawn.workers)


def _fill_up(descriptor: int, place: Path, left: int) -> None:
    """Fill a disk except for the last `left` bytes."""
    system = os.statvfs(place)
    with contextlib.suppress(OSError):
        os.posix_fallocate(descriptor, 0, max(1, system.f_bavail * system.f_frsize - left))


def small_files(ground: Ground, folder: Path, rng: random.Random) -> None:
    """Limit the size of files. This simulates a full disk without the permission to mount one."""
    site = Site.drawn(ground, folder, rng)
    blocks = rng.randint(1, 250)  # blocks of 512 bytes
    command = site.start(prefix=["sh", "-c", f'ulimit -f {blocks}; exec "$@"', "sh"])
    status = command.wait()
    assert_one_line(command, status)
    site.look()
    site.again()
    if status == 0:
        raise MissedError


def folder_without_permission(ground: Ground, folder: Path, rng: random.Random) -> None:
    """The output folder is read-only, or write-only, or holds the unfinished run of another user."""
    site = Site.drawn(ground, folder, rng)
    place = site.output.parent
    what = rng.choice(["read-only", "not listed", "another's run"] if os.getuid() == 0 else ["read-only", "not listed"])
    if what == "another's run":
        site.journal.touch(0o600)
        os.chown(site.journal, NOBODY, NOBODY)
    else:
        place.chmod(0o555 if what == "read-only" else 0o333)
    command = site.start(prefix=_obeying_permissions())
    status = command.wait()
    place.chmod(0o755)
    assert_one_line(command, status)
    site.look()
    if what == "not listed":
        assert status == 0, f"status {status}: {command.err}"
    else:
        assert status == 1, f"status {status}"
        assert "Permission denied" in command.err, command.err
    site.again()


def _obeying_permissions() -> list[str]:
    """Return a command prefix that enforces file permissions: for root, it drops the capabilities that bypass them."""
    if os.getuid():
        return []
    prefix = ["setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner", "--inh-caps=-all"]
    if shutil.which("setpriv") is None or subprocess.run([*prefix, "true"], capture_output=True).returncode:
        raise UnavailableError("needs setpriv, where root runs this")
    return prefix


# --- sources that change ----------------------------------------------------------------------------------------------


def vanish(path: Path) -> list[Version]:
    path.unlink()
    return []


def vanish_with_folder(path: Path) -> list[Version]:
    path.parent.rename(path.parent.with_name(".gone"))
    return []


def grow(path: Path) -> list[Version]:
    with open(path, "ab") as file:
        file.write(b"more")
    return [(sha256(path) or "", pixels_of(path.name).tobytes())]


def shrink(path: Path) -> list[Version]:
    os.truncate(path, path.stat().st_size // 2)
    return []


def change(path: Path) -> list[Version]:
    return [write_version(path, " changed")]


def change_half(path: Path) -> list[Version]:
    """Overwrite the second half in place and restore the mtime. An uncompressed image decodes to other pixels."""
    before, size = path.stat(), path.stat().st_size
    with open(path, "r+b") as file:
        file.seek(size // 2)
        file.write(bytes(size - size // 2))
    with Image.open(path) as image:
        found = np.asarray(image).tobytes() if path.suffix == ".bmp" else None
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    return [] if found is None else [(sha256(path) or "", found)]


def replace(path: Path) -> list[Version]:
    version = write_version(path.parent / ".new" / path.name, " replaced")
    os.replace(path.parent / ".new" / path.name, path)
    return [version]


def become_a_folder(path: Path) -> list[Version]:
    path.unlink()
    path.mkdir()
    return []


MUTATIONS = (vanish, vanish_with_folder, grow, shrink, change, change_half, replace, become_a_folder)


def changed_source(
    ground: Ground, folder: Path, rng: random.Random, *, mutate: Callable[[Path], list[Version]]
) -> None:
    """A file changes after the scan: before it is opened, or between opening and reading it.

    Its row is one of its versions, or it is left out. The next run packs the version that is then there.
    """
    data = folder / "data"
    versions = write_data(data)
    site = Site.drawn(ground, folder, rng)
    victim = Path(rng.choice([name for name, found in versions.items() if found]))
    trap = site.trap(rng.choice(["open", "read"]), str(victim), "wait")
    argv = ground.argv(site.output, data=data, workers=site.workers)
    command = Command([*argv, "--quiet"], folder, trap.env)
    try:
        trap.await_call(lambda: command.running)
        after = mutate(victim)
        for name in versions:
            if Path(name).parent == victim.parent and mutate is vanish_with_folder:
                versions[name] = versions[name] + after
        versions[str(victim)] = versions[str(victim)] + after
    finally:
        trap.release()
        status = command.wait()
    assert_one_line(command, status)
    assert status == 0, f"status {status}: {command.err}"
    prove(site.output, versions)
    pack(argv, folder)
    whole = folder / "whole.h5"
    pack(ground.argv(whole, data=data, workers=1), folder)
    assert sha256(site.output) == sha256(whole), "the same command afterwards made other bytes"
    assert os.listdir(site.output.parent) == ["out.h5"], f"left: {os.listdir(site.output.parent)}"


def replace_pack(path: Path, other: Path) -> None:
    shutil.copy(other, path.with_name("new.h5"))
    os.replace(path.with_name("new.h5"), path)


def overwrite_pack(path: Path, other: Path) -> None:
    shutil.copyfile(other, path)


def cut_pack(path: Path, other: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def remove_pack(path: Path, other: Path) -> None:
    path.unlink()


def changed_pack(ground: Ground, folder: Path, rng: random.Random, *, mutate: Callable[[Path, Path], None]) -> None:
    """A pack that rows are copied from, a SOURCE or the old output, is replaced, overwritten, cut short or removed."""
    assert ground.versions is not None
    site = Site.drawn(ground, folder, rng)
    whole, older = (folder.parent / name for name in ("whole.h5", "older.h5"))
    as_source = rng.random() < 0.7
    pack_file = folder / "source.h5" if as_source else site.output
    shutil.copy(older, pack_file)
    site.before = sha256(site.output)
    argv = ground.argv(site.output, data=pack_file if as_source else None, workers=site.workers)
    trap = site.trap(rng.choice(["open", "read"]), str(pack_file), "wait", first=rng.randint(1, 8))
    command = Command([*argv, "--quiet"], folder, trap.env)
    try:
        trap.await_call(lambda: command.running)
        mutate(pack_file, whole)
    finally:
        trap.release()
        status = command.wait()
    if status != -signal.SIGBUS:
        assert_one_line(command, status)
    if as_source:
        assert sha256(site.output) == site.before or status == 0, "an output, where the run failed"
    if status == 0:
        prove(site.output, ground.versions, complete=not as_source)
    shutil.copy(older, pack_file)
    pack(argv, folder)
    fresh = folder / "fresh.h5"
    pack(ground.argv(fresh, data=pack_file if as_source else None, workers=1), folder)
    assert sha256(site.output) == sha256(fresh), "the same command afterwards made other bytes"
    assert os.listdir(site.output.parent) == ["out.h5"], f"left: {os.listdir(site.output.parent)}"


def swapped_folders(ground: Ground, folder: Path, rng: random.Random) -> None:
    """Two folders whose files have equal sizes, and perhaps equal mtimes, swap names after a run was killed."""
    one, other, aside = (folder / "data" / name for name in ("cat", "dog", ".aside"))
    versions = {
        str(at / f"{index}.bmp"): [write_version(at / f"{index}.bmp", at.name)]
        for at in (one, other)
        for index in range(120)
    }
    if rng.random() < 0.5:
        for name in versions:
            os.utime(name, ns=(1, 1))
    site = Site.drawn(ground, folder, rng)
    argv = ground.argv(site.output, data=folder / "data", workers=site.workers)
    kill_once(ground, argv, folder, rng)
    for before, after in ((one, aside), (other, one), (aside, other)):
        before.rename(after)
    swapped = {
        name: versions[str(other if Path(name).parent == one else one) + name[len(str(one)) :]] for name in versions
    }
    pack(argv, folder)
    prove(site.output, swapped)
    assert_as_afresh(site, folder)


def kill_once(
    ground: Ground, argv: Sequence[str], folder: Path, rng: random.Random, env: Mapping[str, str] | None = None
) -> None:
    """Start a command and kill all its processes at a random moment."""
    command = Command([*argv, "--quiet"], folder, env)
    time.sleep(rng.uniform(0, ground.seconds))
    command.send(signal.SIGKILL, everyone=True)
    command.wait()


def assert_as_afresh(site: Site, folder: Path) -> None:
    """Assert that the output equals that of an undisturbed run on the same data, and that no other file is left."""
    whole = folder / "whole.h5"
    pack(site.ground.argv(whole, data=folder / "data", workers=1), folder)
    assert sha256(site.output) == sha256(whole), "other bytes than those of a run that was not disturbed"
    assert os.listdir(site.output.parent) == ["out.h5"], f"left: {os.listdir(site.output.parent)}"


# --- foreign files ----------------------------------------------------------------------------------------------------


def foreign_file(ground: Ground, folder: Path, rng: random.Random, *, name: str) -> None:
    """A foreign file or link at a path that the command writes, or created there during the run, is unchanged."""
    site = Site.drawn(ground, folder, rng)
    path, precious = site.output.with_name(name), folder / "precious"
    precious.write_bytes(
        rng.choice([b"a thesis", bytes(5000), b"\x89HDF\r\n\x1a\n" + bytes(90), rng.randbytes(1 << 16)])
    )
    foreign = folder / "foreign"
    if rng.random() < 0.3:
        foreign.symlink_to(precious)
    else:
        shutil.copyfile(precious, foreign)
    before = os.lstat(foreign).st_ino, sha256(foreign)
    is_early = rng.random() < 0.5
    if is_early:
        foreign.rename(path)
    command = site.start()
    if not is_early:
        time.sleep(rng.uniform(0, ground.seconds))
        foreign.rename(path)
    status = command.wait()
    assert_one_line(command, status)
    assert not is_early or status == 1, f"status {status}, with somebody else's file at {name}"
    assert (os.lstat(path).st_ino, sha256(path)) == before, f"somebody else's {name} was changed or replaced"
    path.unlink()
    assert sha256(precious) == before[1], "what a link led to was changed"
    site.again()


# --- clocks -----------------------------------------------------------------------------------------------------------


def jumping_clock(ground: Ground, folder: Path, rng: random.Random) -> None:
    """Every reading of the clock jumps by up to a century, and files have random mtimes, in a run that is killed."""
    data = folder / "data"
    write_data(data)
    for path in data.rglob("*.*"):
        moment = rng.choice([0, -1, 1, 10**18, 5 * 10**18, -(10**18), 10**19])
        with contextlib.suppress(OSError):  # the file system cannot store this time
            os.utime(path, ns=(moment, moment))
    site = Site.drawn(ground, folder, rng)
    clock = {"LD_PRELOAD": str(ground.library), "FAULT_CLOCK": str(rng.choice([-1, 1]) * rng.randrange(10**9 * 3))}
    argv = ground.argv(site.output, data=data, workers=site.workers)
    kill_once(ground, argv, folder, rng, clock)
    command = Command(argv, folder, clock)
    assert command.wait() == 0, command.err
    assert_as_afresh(site, folder)


def coarse_clock(ground: Ground, folder: Path, rng: random.Random) -> None:
    """File times have the resolution of FAT, and files are rewritten within one tick, with size and mtime kept."""
    data = folder / "data"
    versions = write_data(data)
    site = Site.drawn(ground, folder, rng)
    env = {"LD_PRELOAD": str(ground.library), "FAULT_TICK": "2"}
    argv = ground.argv(site.output, data=data, workers=site.workers)
    kill_once(ground, argv, folder, rng, env)
    bitmaps = [Path(name) for name, found in versions.items() if found and name.endswith(".bmp")]
    for path in rng.sample(bitmaps, rng.randint(1, len(bitmaps))):
        before = path.stat()
        versions[str(path)] = [write_version(path, " again")]
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    command = Command(argv, folder, env)
    assert command.wait() == 0, command.err
    prove(site.output, versions)
    assert_as_afresh(site, folder)


# --- runs at one output -----------------------------------------------------------------------------------------------


def simultaneous(ground: Ground, folder: Path, rng: random.Random, *, count: int) -> None:
    """Many runs of two plans write to one output, and some are killed: each makes a complete file or is refused."""
    site = Site.drawn(ground, folder, rng)
    orders = [], ["--seed", "7"]
    commands = []
    for index in range(count):
        own = folder / f"run-{index}"
        own.mkdir()
        argv = ground.argv(site.output, "--quiet", *rng.choice(orders), workers=rng.choice([1, 2]))
        commands.append((Command(argv, own), rng.random() < 0.1))
        time.sleep(rng.uniform(0, 0.02))
    for command, is_killed in commands:
        if is_killed:
            command.send(signal.SIGKILL, everyone=rng.random() < 0.5)
    statuses = [(command, command.wait()) for command, _ in commands]
    for command, status in statuses:
        if status not in (0, -signal.SIGKILL):
            assert_one_line(command, status)
            assert "another run is packing to it" in command.err, command.err
    assert sha256(site.output) in (site.before, ground.expected, sha256(folder.parent / "older.h5"))
    site.again()


def kinds_of(ground: Ground, runs: int) -> dict[str, Fault]:
    """Return all kinds of faults, or those that work with real images."""
    of_any_data: dict[str, Callable[..., None]] = {
        "SIGKILL": partial(interrupted, number=signal.SIGKILL),
        "SIGTERM": partial(interrupted, number=signal.SIGTERM),
        "SIGINT": partial(interrupted, number=signal.SIGINT),
        "power cut": partial(interrupted, number=signal.SIGKILL, powerless=True),
        "worker killed": partial(killed_helper, server=False),
        "server of workers killed": partial(killed_helper, server=True),
    }
    of_own_data: dict[str, Callable[..., None]] = {
        "error of a call": partial(at_call, action="error", values=ERRORS),
        "transfer cut short": partial(at_call, action="short", values=[0]),
        "torn write": partial(at_call, action="torn", values=[signal.SIGKILL]),
        "killed at a call": partial(at_call, action="first", values=[signal.SIGKILL]),
        "interrupted at a call": partial(at_call, action="first", values=[signal.SIGINT, signal.SIGTERM]),
        "process killed at its call": partial(at_call, action="self", values=[signal.SIGKILL, signal.SIGSEGV]),
        "all processes terminated at a call": partial(at_call, action="group", values=[signal.SIGTERM]),
        "source that cannot be read": unreadable_source,
        "full disk": full_disk,
        "limit of file size": small_files,
        "folder without permission": folder_without_permission,
        **{f"source: {mutate.__name__}": partial(changed_source, mutate=mutate) for mutate in MUTATIONS},
        **{
            f"pack: {mutate.__name__}": partial(changed_pack, mutate=mutate)
            for mutate in (replace_pack, overwrite_pack, cut_pack, remove_pack)
        },
        "swapped folders": swapped_folders,
        **{
            f"somebody else's {name}": partial(foreign_file, name=name)
            for name in ("out.h5", "out.h5.partial", "out.h5.journal")
        },
        "clock that jumps": jumping_clock,
        "coarse clock": coarse_clock,
        f"{runs} runs at once": partial(simultaneous, count=runs),
    }
    kinds = of_any_data if ground.versions is None else {**of_any_data, **of_own_data}
    return {name: partial(fault, ground) for name, fault in kinds.items()}


def campaign(
    folder: Path,
    *,
    faults: int,
    seed: int = 0,
    first: int = 0,
    only: Collection[str] = (),
    jobs: int = 1,
    data: Path | None = None,
    options: Sequence[str] = (),
    runs: int = 12,
) -> Result:
    """Run a campaign of faults in a folder."""
    ground = Ground(folder, data, options)
    kinds = kinds_of(ground, runs)
    return run(Result("packing"), kinds, folder, faults=faults, seed=seed, first=first, only=only, jobs=jobs)


def main() -> int:
    arguments = parser("Have things go wrong while packing, and look at what is left.", 500)
    arguments.add_argument("--data", type=Path, help="a folder of class folders, for the faults that real images stand")
    arguments.add_argument("--size", help="for --data: the stored size")
    arguments.add_argument("--runs", type=int, default=12, help="how many at one output (%(default)s)")
    given = arguments.parse_args()
    options = [] if given.size is None else ["--size", given.size]
    with open_folder() as folder:
        result = campaign(
            folder,
            faults=given.faults,
            seed=given.seed,
            first=given.first,
            only=given.only,
            jobs=given.jobs,
            data=given.data and given.data.resolve(),
            options=options,
            runs=given.runs,
        )
    return report(result)


if __name__ == "__main__":
    sys.exit(main())
