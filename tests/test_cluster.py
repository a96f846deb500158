"""Tests of packing on Dask clusters and with faulty executors: the same bytes, or an error of one line."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import Executor, Future, InvalidStateError, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from conftest import PATIENCE, assert_rows_are_who_they_say, interrupted, names_in, rows_are_made, write_classes
from h5split import PackedImages
from pack_images import UnfinishedError, pack
from pack_images.fill import fill
from pack_images.run.cluster import connect

distributed = pytest.importorskip("distributed")

SETTINGS = {"order": "sorted"}


def digest_of(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A folder of images for so many tasks that a test can disturb a run half-way."""
    return write_classes(tmp_path_factory.mktemp("many") / "data", {"cat": 900, "dog": 1500, "emu": 300})


@pytest.fixture(scope="module")
def expected(many, tmp_path_factory):
    """The SHA-256 of the pack that one local process makes."""
    output = tmp_path_factory.mktemp("expected") / "out.h5"
    pack([many], output, workers=1)
    return digest_of(output)


class Cluster:
    """A scheduler and workers, each in its own process group.

    Args:
        folder: Folder for their files.
        host: Address that the scheduler listens on.
    """

    def __init__(self, folder, host="127.0.0.1"):
        self._folder = folder
        self._processes = []
        self._file = folder / "scheduler.json"
        self.scheduler = self._start(
            "distributed.cli.dask_scheduler", "--host", host, "--port", "0", "--scheduler-file", str(self._file)
        )
        self.wait(lambda: self._file.exists() and self._file.read_text().endswith("\n}"))
        self.address = json.loads(self._file.read_text())["address"]

    def add_worker(self, prefix=(), environment=None):
        """Start a worker with one thread and a nanny, in its own working directory."""
        number = len(self._processes)
        folder = self._folder / f"worker-{number}"
        folder.mkdir()
        return self._start(
            "distributed.cli.dask_worker",
            self.address,
            *("--nthreads", "1", "--local-directory", str(folder), "--memory-limit", "0", "--name", str(number)),
            prefix=prefix,
            folder=folder,
            environment=environment,
        )

    def wait(self, true):
        end = time.monotonic() + PATIENCE
        while not true():
            assert time.monotonic() < end, (self._folder / "log").read_text()
            assert self.scheduler.poll() is None, (self._folder / "log").read_text()
            time.sleep(0.05)

    def close(self):
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _start(self, module, *arguments, prefix=(), folder=None, environment=None):
        with open(self._folder / "log", "ab") as log:
            process = subprocess.Popen(
                [*prefix, sys.executable, "-m", module, *arguments, "--no-dashboard"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=folder or self._folder,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )
        self._processes.append(process)
        return process


@contextlib.contextmanager
def cluster(folder, workers=2, **options):
    made = Cluster(folder, **options)
    try:
        for _ in range(workers):
            made.add_worker()
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """A cluster of two worker processes, shared by tests that do not disturb it."""
    with cluster(tmp_path_factory.mktemp("cluster")) as made:
        yield made


def command(*arguments, folder, **options):
    """Run pack-images as a user does."""
    line = [sys.executable, "-m", "pack_images.cli", *map(str, arguments)]
    return subprocess.run(line, cwd=folder, capture_output=True, text=True, timeout=PATIENCE, **options)


def impatient(*arguments, folder):
    """Run pack-images as a user does, except that it waits one second for a scheduler."""
    script = "import sys; from pack_images.run import cluster; cluster._CONNECT_SECONDS = 1; "
    script += "from pack_images.cli import main; sys.exit(main())"
    line = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(line, cwd=folder, capture_output=True, text=True, timeout=PATIENCE)


def assert_one_line(done, *parts):
    """Check that a command failed with one line, which contains all parts."""
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    for part in parts:
        assert part in done.stderr


def assert_interrupted(status, errors):
    """Check that a command ended by its interrupt, with one line."""
    assert status == 130, errors
    assert errors.startswith("pack-images: interrupted")
    assert errors.count("\n") == 1, errors


def test_a_cluster_packs_the_same_bytes_as_one_process(running, many, expected, tmp_path):
    done = command(many, "-o", tmp_path / "out.h5", "--dask", running.address, "--quiet", folder=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert digest_of(tmp_path / "out.h5") == expected
    assert os.listdir(tmp_path) == ["out.h5"]


def test_relative_paths_work_when_workers_have_other_working_directories(running, tmp_path):
    write_classes(tmp_path / "data", {"cat": 20, "dog": 9})
    done = command("data", "-o", "out.h5", "--dask", running.address, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(PackedImages(tmp_path / "out.h5").filenames) == sorted(names_in("data", {"cat": 20, "dog": 9}))
    command("out.h5", "-o", "here.h5", folder=tmp_path)
    command("out.h5", "-o", "there.h5", "--dask", running.address, folder=tmp_path)
    assert digest_of(tmp_path / "here.h5") == digest_of(tmp_path / "there.h5")


def test_a_local_cluster_packs_the_same_bytes_and_leaves_no_files(many, expected, tmp_path):
    done = command(many, "-o", tmp_path / "out.h5", "--dask", "local:2", "--quiet", folder=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert digest_of(tmp_path / "out.h5") == expected
    assert os.listdir(tmp_path) == ["out.h5"]


def test_local_workers_that_do_not_start_are_an_error_of_one_line(many, tmp_path):
    environment = {**os.environ, "DASK_DISTRIBUTED__WORKER__PRELOAD": "no_such_module"}
    done = command(many, "-o", "out.h5", "--dask", "local:2", folder=tmp_path, env=environment)
    assert_one_line(done, "--dask local:2: expected its processes to start")
    assert os.listdir(tmp_path) == []


def proc(process, name):
    """Return the text of a file about a process in /proc; empty if the process has ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process.pid}", name).read_text()
    return ""


def has_imported_dask(process, folder):
    return "_psutil_linux" in proc(process, "maps")  # dask imports it early


def has_child_process(process, folder):
    return bool(proc(process, f"task/{process.pid}/children"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGTERM])  # SIGTERM ends workers at once
@pytest.mark.parametrize(
    ("where", "moment"),
    [
        (("--dask", "local:2"), has_imported_dask),
        (("--dask", "local:2"), has_child_process),
        (("--dask", "local:2"), rows_are_made),
        (("--workers", "2"), rows_are_made),
    ],
)
def test_an_interrupt_of_all_processes_ends_with_one_line(many, tmp_path, where, moment, number):
    line = [sys.executable, "-m", "pack_images.cli", str(many), "-o", "out.h5", *where, "--quiet"]
    assert_interrupted(*interrupted(line, tmp_path, number, moment=moment))


def test_a_cluster_leaves_out_broken_images(running, tmp_path):
    root = write_classes(tmp_path / "data", {"cat": 20, "dog": 9})
    (root / "cat" / "data-cat-3.png").write_bytes(b"broken")
    command(root, "-o", tmp_path / "here.h5", folder=tmp_path)
    done = command(root, "-o", tmp_path / "there.h5", "--dask", running.address, folder=tmp_path)
    assert "left out: 1" in done.stdout
    assert digest_of(tmp_path / "here.h5") == digest_of(tmp_path / "there.h5")


SCRIPT = """
import os, signal, sys
from distributed import Client
from pack_images import UnfinishedError, pack
from pack_images.run.cluster import connect
from pack_images.fill import fill

address, victim, source, output = sys.argv[1:]

def disturb(done, total, left_out):
    global hurt
    if not hurt and done < total:
        hurt = True
        if victim == "worker":
            os.kill(next(iter(pids.values())), signal.SIGKILL)
        elif victim == "scheduler":
            os.kill(scheduler, signal.SIGKILL)

hurt = victim == "nobody"
client = Client(address, timeout=60)
client.wait_for_workers(2, timeout=200)
pids, scheduler = client.run(os.getpid), client.run_on_scheduler(os.getpid)
try:
    summary = pack([source], output, executor=client.get_executor(), progress=disturb)
except UnfinishedError as error:
    print("unfinished:", error)
else:
    print("packed", summary.rows, hurt)
sys.stdout.flush()
os._exit(0)
"""


def disturbed(address, victim, source, output):
    """Pack on a cluster in another process, and kill the victim half-way. Return what that process prints."""
    line = [sys.executable, "-c", SCRIPT, address, victim, str(source), str(output)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_executor_of_a_client_packs_the_same_bytes(running, many, expected, tmp_path):
    assert disturbed(running.address, "nobody", many, tmp_path / "out.h5") == "packed 2700 True\n"
    assert digest_of(tmp_path / "out.h5") == expected


def test_killing_a_worker_half_way_changes_no_byte(many, expected, tmp_path):
    (tmp_path / "cluster").mkdir()
    with cluster(tmp_path / "cluster") as made:
        assert disturbed(made.address, "worker", many, tmp_path / "out.h5") == "packed 2700 True\n"
    assert digest_of(tmp_path / "out.h5") == expected


def test_a_run_can_be_continued_after_its_scheduler_died(many, expected, tmp_path):
    (tmp_path / "cluster").mkdir()
    with cluster(tmp_path / "cluster") as made:
        said = disturbed(made.address, "scheduler", many, tmp_path / "out.h5")
    assert said.startswith("unfinished: the executor, or the scheduler behind it, gave up tasks that it had")
    assert not (tmp_path / "out.h5").exists()
    summary = pack([many], tmp_path / "out.h5", workers=2)
    assert summary.continued > 0
    assert digest_of(tmp_path / "out.h5") == expected


def test_a_worker_with_other_versions_is_refused_and_both_versions_named(many, tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "sitecustomize.py").write_text("import PIL\nPIL.__version__ = '9.0.1'\n")
    paths = os.pathsep.join([str(tmp_path / "old"), *filter(None, [os.environ.get("PYTHONPATH")])])
    (tmp_path / "cluster").mkdir()
    with cluster(tmp_path / "cluster", workers=0) as made:
        made.add_worker(environment={"PYTHONPATH": paths})
        done = command(many, "-o", tmp_path / "out.h5", "--dask", made.address, folder=tmp_path)
    from PIL import __version__ as here

    assert_one_line(done, "the worker tcp://", f"expected pillow {here} as on this machine, found pillow 9.0.1")
    assert not (tmp_path / "out.h5").exists()


needs_mounts = pytest.mark.skipif(
    os.geteuid() != 0
    or shutil.which("unshare") is None
    or subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True).returncode != 0,
    reason="hides folders from workers: needs root, unshare and the right to mount",
)


@needs_mounts
@pytest.mark.parametrize(
    ("hidden", "said"),
    [
        ("output", "that shares the file system of the output, found no "),
        ("data", "and this machine can read it; expected workers that see the same files at the same paths"),
    ],
)
def test_a_worker_that_cannot_see_the_files_is_an_error(tmp_path, hidden, said):
    """Such a worker would leave out every image as unreadable."""
    write_classes(tmp_path / "data", {"cat": 20, "dog": 9})
    (tmp_path / "output").mkdir()
    (tmp_path / "cluster").mkdir()
    hiding = ("unshare", "-m", "sh", "-c", f'mount -t tmpfs none "{tmp_path / hidden}" && exec "$@"', "sh")
    with cluster(tmp_path / "cluster", workers=0) as made:
        made.add_worker(prefix=hiding)
        output = tmp_path / "output" / "out.h5"
        done = command(tmp_path / "data", "-o", output, "--dask", made.address, "--quiet", folder=tmp_path)
    assert_one_line(done, said)
    assert not output.exists()


@pytest.fixture
def networks():
    """Two network namespaces with the addresses .11 and .12, in a network where this machine is .1."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and iproute2")
    tag = f"pi{os.getpid() % 100000}"
    bridge, names = f"{tag}b", [f"{tag}n1", f"{tag}n2"]
    net = f"10.213.{os.getpid() % 254}"  # concurrent runs of these tests use other networks
    lines = [f"link add {bridge} type bridge", f"addr add {net}.1/24 dev {bridge}", f"link set {bridge} up"]
    for number, name in enumerate(names, 1):
        lines += [
            f"netns add {name}",
            f"link add {tag}v{number} type veth peer name eth0 netns {name}",
            f"link set {tag}v{number} master {bridge} up",
            f"-n {name} addr add {net}.{10 + number}/24 dev eth0",
            f"-n {name} link set eth0 up",
            f"-n {name} link set lo up",
        ]
    try:
        for line in lines:
            made = subprocess.run(["ip", *line.split()], capture_output=True, text=True)
            if made.returncode:
                pytest.skip(f"network namespaces cannot be made here: {made.stderr.strip()}")
        yield net, names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)
        subprocess.run(["ip", "link", "del", bridge], capture_output=True)


def test_workers_with_different_ip_addresses_pack_the_same_bytes(networks, many, expected, tmp_path):
    net, names = networks
    (tmp_path / "cluster").mkdir()
    with cluster(tmp_path / "cluster", workers=0, host=f"{net}.1") as made:
        for name in names:
            made.add_worker(prefix=("ip", "netns", "exec", name))
        script = (
            "import sys; from distributed import Client; client = Client(sys.argv[1]); client.wait_for_workers(2, 200);"
            "print(*sorted(client.scheduler_info()['workers']))"
        )
        seen = subprocess.run(
            [sys.executable, "-c", script, made.address], capture_output=True, text=True, timeout=PATIENCE
        )
        assert f"tcp://{net}.11:" in seen.stdout, seen.stderr
        assert f"tcp://{net}.12:" in seen.stdout, seen.stderr
        done = command(many, "-o", tmp_path / "out.h5", "--dask", made.address, "--quiet", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert digest_of(tmp_path / "out.h5") == expected


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("tcp://127.0.0.1:9", "--dask tcp://127.0.0.1:9: expected a scheduler there, found none that answers"),
        ("tls://127.0.0.1:9", "--dask tls://127.0.0.1:9: expected certificates in Dask's configuration, found none"),
        (
            "http://a.b:9",
            "--dask http://a.b:9: expected a scheduler's address, such as tcp://10.0.0.1:8786, or local:N",
        ),
        ("nonsense", "--dask nonsense: expected a scheduler's address, such as tcp://10.0.0.1:8786, or local:N"),
        ("tcp://127.0.0.1:1:2", "--dask tcp://127.0.0.1:1:2: expected a scheduler there, found none that answers"),
        ("local:0", "--dask local:0: expected local:N with a number of processes, such as local:4"),
        ("local:", "--dask local:: expected local:N with a number of processes, such as local:4"),
    ],
)
def test_an_address_without_a_scheduler_is_an_error_of_one_line(many, tmp_path, address, said):
    assert_one_line(impatient(many, "-o", "out.h5", "--dask", address, folder=tmp_path), said)
    assert os.listdir(tmp_path) == []


def test_the_address_of_a_worker_is_an_error_that_says_so(running, many, tmp_path):
    with distributed.Client(running.address) as client:
        client.wait_for_workers(1, timeout=PATIENCE)
        worker = next(iter(client.scheduler_info()["workers"]))
    done = command(many, "-o", "out.h5", "--dask", worker, folder=tmp_path)
    assert_one_line(done, f"--dask {worker}: expected a scheduler there, found a worker")


def test_a_server_that_accepts_but_never_answers_is_an_error(many, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(PATIENCE)
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        line = [sys.executable, "-m", "pack_images.cli", str(many), "-o", "out.h5", "--dask", address]
        waiting = subprocess.Popen(line, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
        with silent.accept()[0]:
            waiting.send_signal(signal.SIGINT)
            _, errors = waiting.communicate(timeout=PATIENCE)
        assert_interrupted(waiting.returncode, errors)
        done = impatient(many, "-o", "out.h5", "--dask", address, folder=tmp_path)
    assert_one_line(done, f"--dask {address}: expected a scheduler there, found none that answers in 1 seconds")
    assert os.listdir(tmp_path) == []


def test_missing_dask_is_an_error_that_says_what_to_install(many, tmp_path):
    script = "import sys; sys.modules['distributed'] = None; from pack_images.cli import main; sys.exit(main())"
    line = [sys.executable, "-c", script, str(many), "-o", str(tmp_path / "out.h5"), "--dask", "local:1"]
    done = subprocess.run(line, capture_output=True, text=True)
    assert_one_line(done, 'python -m pip install "pack-images[dask]"')


def test_workers_and_dask_options_exclude_each_other(many, tmp_path):
    done = command(many, "-o", "out.h5", "--dask", "local:1", "--workers", "2", folder=tmp_path)
    assert done.returncode == 2
    assert "--workers are processes of this machine: not with --dask" in done.stderr


class Corrupting(ThreadPoolExecutor):
    """Executor that changes one byte of a row after its task is done, as a network file system might."""

    def __init__(self, row):
        super().__init__(1)
        self._row = row

    def submit(self, function, task, *rest):
        def fill_and_corrupt():
            filled = function(task, *rest)
            if task.first == self._row:
                at = task.place.offset + self._row * task.place.stride
                with open(task.place.pixels, "r+b") as file:
                    file.seek(at)
                    byte = file.read(1)[0]
                    file.seek(at)
                    file.write(bytes([byte ^ 1]))
            return filled

        return super().submit(fill_and_corrupt)


def test_pixels_changed_after_their_task_are_found_before_the_file_is_sealed(tmp_path):
    root = write_classes(tmp_path / "data", {"cat": 5})
    output = tmp_path / "out.h5"
    with Corrupting(row=3) as executor, pytest.raises(UnfinishedError, match=r"1 rows are not there .*cat-\d.png"):
        pack([root], output, executor=executor, **SETTINGS)
    assert not output.exists()
    summary = pack([root], output, workers=1, **SETTINGS)
    assert (summary.continued, summary.decoded) == (4, 1)
    images = PackedImages(output)
    assert_rows_are_who_they_say(images.images, ["cat"] * 5, images.filenames)


def test_an_executor_that_was_shut_down_is_an_error(tmp_path):
    root = write_classes(tmp_path / "data", {"cat": 5})
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    with pytest.raises(UnfinishedError, match="the executor takes no more tasks"):
        pack([root], tmp_path / "out.h5", executor=executor)
    assert sorted(os.listdir(tmp_path)) == ["data"]


class InterruptedLock(threading._PyRLock):
    """Lock that raises SIGINT as soon as the main thread has acquired it."""

    def acquire(self, *how, **named):
        got = super().acquire(*how, **named)
        if threading.current_thread() is threading.main_thread():
            signal.raise_signal(signal.SIGINT)
        return got

    __enter__ = acquire


class Interrupted(Executor):
    """Executor whose futures use an InterruptedLock."""

    def __init__(self):
        self.threads = []

    def submit(self, function, /, *given):
        future = Future()
        future._condition = threading.Condition(InterruptedLock())

        def resolve():
            with contextlib.suppress(InvalidStateError, UnfinishedError):
                future.set_result(function(*given))

        self.threads.append(threading.Thread(target=resolve, daemon=True))
        self.threads[-1].start()
        return future


def test_an_interrupt_leaves_no_future_locked(many, tmp_path):
    executor = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        pack([many], tmp_path / "out.h5", executor=executor)
    for thread in executor.threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert len(pack([many], tmp_path / "out.h5", workers=1).classes) == len(os.listdir(many))


def test_processes_of_an_executor_start_with_no_signal_blocked(many, tmp_path):
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as executor:
        pack([many], tmp_path / "out.h5", executor=executor)
        assert executor.submit(signal.pthread_sigmask, signal.SIG_BLOCK, ()).result() == set()


class Straggling(ThreadPoolExecutor):
    """Executor that runs each task twice. The first attempt, a straggler, pauses at its start until the run is over."""

    def __init__(self):
        super().__init__(1)
        self.over = threading.Event()
        self.said = []
        self._stragglers = []

    def submit(self, function, task, *rest):
        begun = threading.Event()

        def straggle():
            try:
                fill(task, before_each=lambda: (begun.set(), self.over.wait(PATIENCE)))
            except UnfinishedError as error:
                self.said.append(str(error))

        straggler = threading.Thread(target=straggle)
        straggler.start()
        self._stragglers.append(straggler)
        assert begun.wait(PATIENCE)
        return super().submit(function, task, *rest)

    def end(self):
        self.over.set()
        for straggler in self._stragglers:
            straggler.join()


def test_a_straggling_worker_writes_nothing_to_the_published_file(tmp_path):
    root = write_classes(tmp_path / "data", {"cat": 6})
    (root / "cat" / "data-cat-1.png").write_bytes(b"broken")  # later rows move up
    output = tmp_path / "out.h5"
    with Straggling() as executor:
        pack([root], output, executor=executor, **SETTINGS)
        published = digest_of(output)
        executor.end()
    assert len(executor.said) == 6
    assert "is another file by now" in executor.said[0]
    assert digest_of(output) == published


def test_waiting_for_a_worker_that_stopped_while_writing_has_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr("pack_images.partial._HOLD_SECONDS", 0.5)
    root = write_classes(tmp_path / "data", {"cat": 6})
    output = tmp_path / "out.h5"

    class Holding(ThreadPoolExecutor):
        """Executor whose worker never unlocks the pixels."""

        def submit(self, function, task, *rest):
            held = open(task.place.pixels, "rb")  # noqa: SIM115
            fcntl.flock(held, fcntl.LOCK_SH)
            stack.callback(held.close)
            return super().submit(function, task, *rest)

    said = r"expected workers to be through, found one that still has .*out\.h5\.partial after 0\.5 seconds"
    with contextlib.ExitStack() as stack, Holding(1) as executor, pytest.raises(UnfinishedError, match=said):
        pack([root], output, executor=executor, **SETTINGS)
    assert pack([root], output, workers=1, **SETTINGS).continued == 6


def test_a_pack_made_by_forked_workers_is_readable_while_they_live(tmp_path):
    """Forked processes inherit the file descriptors of their parent, and with them its locks."""
    root = write_classes(tmp_path / "data", {"cat": 5})
    with ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as executor:
        for size in (8, 16):
            pack([root], tmp_path / "out.h5", executor=executor, size=size)
            assert PackedImages(tmp_path / "out.h5").shape == (size, size, 3)


class OtherOutcome(ThreadPoolExecutor):
    """Executor that runs each task and then reports another outcome."""

    def __init__(self, outcome):
        super().__init__(1)
        self._outcome = outcome

    def submit(self, function, task, *rest):
        return super().submit(lambda: self._outcome(task, function(task, *rest)))


def without_first(task, filled):
    """Report the first row as failed, as a worker does that has too little memory or an old copy of the file."""
    return replace(filled, failures=((task.first, "MemoryError"),))


def killed(task, filled):
    """Raise KilledWorker, as Dask does for tasks that ran beside one that kills workers."""
    from distributed import KilledWorker

    raise KilledWorker(task.first, None, 3)


@pytest.mark.parametrize("outcome", [without_first, killed])
def test_images_that_a_worker_leaves_out_or_dies_of_are_retried_locally(tmp_path, outcome):
    root = write_classes(tmp_path / "data", {"cat": 5})
    (root / "cat" / "data-cat-1.png").write_bytes(b"broken")
    pack([root], tmp_path / "here.h5", workers=1)

    with OtherOutcome(outcome) as executor:
        summary = pack([root], tmp_path / "there.h5", executor=executor)
    assert (summary.rows, [name for name, _ in summary.skipped]) == (4, [f"{root}/cat/data-cat-1.png"])
    assert digest_of(tmp_path / "there.h5") == digest_of(tmp_path / "here.h5")


def raising(error):
    def outcome(task, filled):
        raise error

    return outcome


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        (lambda task, filled: None, "found a result of NoneType"),
        (raising(ValueError("no worker")), "found ValueError no worker"),
        (raising(TimeoutError()), "found TimeoutError"),
    ],
)
def test_an_unexpected_outcome_of_a_task_is_an_error_that_names_a_file(tmp_path, outcome, said):
    root = write_classes(tmp_path / "data", {"cat": 5})
    with (
        OtherOutcome(outcome) as executor,
        pytest.raises(UnfinishedError, match=rf"cat-\d.png .*{said}; what is done is kept"),
    ):
        pack([root], tmp_path / "out.h5", executor=executor, **SETTINGS)
    assert pack([root], tmp_path / "out.h5", **SETTINGS).rows == 5


def test_threads_leave_out_the_same_images_for_the_same_reasons(tmp_path):
    """Pillow's limits belong to the process, and only its main thread sets them."""
    root = write_classes(tmp_path / "data", {"cat": 5})
    Image.new("RGB", (60, 50)).save(root / "cat" / "large.png")
    pack([root], tmp_path / "here.h5", workers=1, size=8, max_pixels=1000)
    with ThreadPoolExecutor(2) as executor:
        pack([root], tmp_path / "there.h5", executor=executor, size=8, max_pixels=1000)
    assert PackedImages(tmp_path / "here.h5").skipped
    assert digest_of(tmp_path / "here.h5") == digest_of(tmp_path / "there.h5")


def test_an_image_that_kills_every_worker_of_a_cluster_is_packed_locally(many, expected, tmp_path):
    """An audit hook kills the workers of the cluster when they open the file. Local processes have no such hook."""
    (tmp_path / "deadly").mkdir()
    (tmp_path / "deadly" / "sitecustomize.py").write_text(
        "import os, sys\n"
        "sys.addaudithook(lambda event, values: event == 'open' and str(values[0]).endswith('data-dog-777.png')"
        " and os._exit(9))\n"
    )
    paths = os.pathsep.join([str(tmp_path / "deadly"), *filter(None, [os.environ.get("PYTHONPATH")])])
    (tmp_path / "cluster").mkdir()
    with cluster(tmp_path / "cluster", workers=0) as made:
        for _ in range(2):
            made.add_worker(environment={"PYTHONPATH": paths})
        done = command(many, "-o", tmp_path / "out.h5", "--dask", made.address, "--quiet", folder=tmp_path)
        by_hand = disturbed(made.address, "nobody", many, tmp_path / "again.h5")
    assert (done.returncode, done.stderr) == (0, "")
    assert digest_of(tmp_path / "out.h5") == expected
    assert by_hand == "packed 2700 True\n"
    assert digest_of(tmp_path / "again.h5") == expected


def test_a_program_ends_when_results_arrive_while_its_client_closes(running):
    """The thread that passes on results could wait for ever, and did so for one of a hundred clients."""
    program = """
import sys
from pack_images.run.cluster import connect

for _ in range(60):
    with connect(sys.argv[1]) as executor:
        futures = [executor.submit(int, number) for number in range(20)]
        assert futures[0].result() == 0
        for future in futures:
            future.cancel()
"""
    subprocess.run([sys.executable, "-c", program, running.address], check=True, timeout=PATIENCE)


def test_a_timeout_error_of_a_task_is_distinct_from_a_timeout_of_waiting(running):
    with connect(running.address) as executor:
        assert (
            repr(executor.submit(exec, "raise TimeoutError('of its own')").exception(timeout=PATIENCE))
            == "TimeoutError('of its own')"
        )
