"""No file can make the packages run other programs, use the network or execute the content of files."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import write_classes

ROOT = Path(__file__).parents[2]
FORBIDDEN_MODULES = frozenset(
    [
        "asyncio",
        "cloudpickle",
        "code",
        "codeop",
        "ctypes",
        "dill",
        "ftplib",
        "http",
        "imaplib",
        "joblib",
        "marshal",
        "pickle",
        "poplib",
        "pty",
        "requests",
        "runpy",
        "shelve",
        "smtplib",
        "socket",
        "socketserver",
        "ssl",
        "subprocess",
        "telnetlib",
        "urllib.request",
        "urllib3",
        "webbrowser",
        "xmlrpc",
        "yaml",
    ]
)
ALLOWED = {
    ("cluster.py", "asyncio"),  # coroutines of Dask: --dask connects to the address that the user gives
    ("console.py", "exec"),  # executes an empty program, which makes Python drop a pending interrupt
}
FORBIDDEN_CALLS = frozenset(
    [
        "eval",
        "exec",
        "compile",
        "__import__",
        "os.system",
        "os.popen",
        "os.execv",
        "os.execve",
        "os.execvp",
        "os.posix_spawn",
        "os.spawnv",
    ]
)


def offences(source: str) -> Iterator[tuple[int, str]]:
    """Yield (line, name) of each construct in a program that could execute the content of files."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Call):
            yield from ((node.lineno, what) for what in call_offences(node))
            continue
        else:
            continue
        yield from ((node.lineno, name) for name in names if name in FORBIDDEN_MODULES)


def call_offences(call: ast.Call) -> Iterator[str]:
    name = ast.unparse(call.func)
    if name in FORBIDDEN_CALLS:
        yield name
    for keyword in call.keywords:
        is_off = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
        if keyword.arg in ("shell", "allow_pickle") and not is_off:
            yield f"{name}({keyword.arg}=...)"
    if name in ("np.load", "numpy.load") and "allow_pickle" not in [keyword.arg for keyword in call.keywords]:
        yield f"{name} without allow_pickle=False"


@pytest.mark.parametrize("folder", ["packer", "loader"])
def test_no_module_can_run_what_a_file_contains(folder: str) -> None:
    modules = sorted((ROOT / folder).rglob("*.py"))
    assert len(modules) > 10
    found = [(path.name, what, line) for path in modules for line, what in offences(path.read_text())]
    assert [offence for offence in found if offence[:2] not in ALLOWED] == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "import socket as s",
        "from subprocess import run",
        "from urllib import request",
        "eval(text)",
        "exec(text)",
        "os.system(line)",
        "np.load(path, allow_pickle=True)",
        "np.load(path)",
        "run(line, shell=shell)",
    ],
)
def test_a_line_that_could_is_found(line: str) -> None:
    assert [line_number for line_number, _ in offences(f"import numpy as np\n{line}\n")] == [2]


# --- audit: every process of a run records the events that Python's audit hooks report

HOOK = """
import os, sys
watched = ("socket.", "subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.startfile",
           "pickle.find_class", "urllib.", "http.", "ftplib.", "smtplib.", "webbrowser.")
descriptor = os.open(os.environ["EVENTS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
def hook(event, arguments):
    if event.startswith(watched):
        os.write(descriptor, repr((event, [str(argument) for argument in arguments])).encode() + b"\\n")
sys.addaudithook(hook)
"""
PACK = """
from pack_images import pack
if __name__ == "__main__":
    print(pack(["data"], "out.h5", size=8, workers=2).rows)
"""
READ = """
from h5split import SplitSequence, leaks, write_split
from h5split.cli import main
train, rest = SplitSequence("out.h5", auto_shuffle=True).split(0.5)
print(sum(len(images) for images, _ in train), leaks(train, rest))
write_split("split.csv", {"train": train, "rest": rest})
for line in ("info out.h5", "verify out.h5 --sources", "export out.h5 folders --split split.csv"):
    assert main(line.split()) == 0
"""
BAD = """
import pickle, socket, subprocess, sys
subprocess.run([sys.executable, "-c", ""])
socket.getaddrinfo("localhost", 1)
pickle.loads(pickle.dumps(print))
"""


def events_of(script: str, folder: Path) -> list[tuple[str, list[str]]]:
    """Run a script and return the audit events of all its processes."""
    (folder / "hook").mkdir(exist_ok=True)
    (folder / "hook" / "sitecustomize.py").write_text(HOOK)
    (folder / "script.py").write_text(script)
    (folder / "events").write_text("")
    paths = [str(folder / "hook"), *(path for path in sys.path if path)]
    environment = {**os.environ, "EVENTS": str(folder / "events"), "PYTHONPATH": os.pathsep.join(paths)}
    subprocess.run([sys.executable, "script.py"], cwd=folder, env=environment, check=True, capture_output=True)
    return [ast.literal_eval(line) for line in (folder / "events").read_text().splitlines()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which PACK has run, with images, an EPS file and the recorded events."""
    folder = tmp_path_factory.mktemp("audit")
    write_classes(folder / "data", {"cat": 20, "dog": 20})
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
    (folder / "data" / "cat" / "script.png").write_bytes(eps)
    (folder / "packed.json").write_text(json.dumps(events_of(PACK, folder)))
    return folder


def is_of_h5py(event: tuple[str, list[str]]) -> bool:
    """Whether the event comes from importing h5py, which may run `uname -p`."""
    return event[0] == "subprocess.Popen" and event[1][:2] == ["uname", "['uname', '-p']"]


def test_packing_starts_no_program_and_reaches_no_network(folder: Path) -> None:
    events = [event for event in json.loads((folder / "packed.json").read_text()) if not is_of_h5py(event)]
    kinds = {event for event, _ in events}
    assert kinds <= {"pickle.find_class", "socket.__new__", "socket.bind", "socket.connect", "socket.sendmsg"}


def test_processes_of_packing_talk_through_unix_sockets_alone(folder: Path) -> None:
    """Worker processes come from multiprocessing, whose fork server listens on a socket in its own folder."""
    events = json.loads((folder / "packed.json").read_text())
    addresses = [arguments[1] for event, arguments in events if event in ("socket.bind", "socket.connect")]
    assert addresses
    assert all("/pymp-" in address for address in addresses), addresses


def test_processes_of_packing_unpickle_only_what_they_send_each_other(folder: Path) -> None:
    events = json.loads((folder / "packed.json").read_text())
    classes = {(arguments[0], arguments[1]) for event, arguments in events if event == "pickle.find_class"}
    assert ("pack_images.plan", "Task") in classes
    assert {module.split(".")[0] for module, _ in classes} <= {
        "builtins",
        "concurrent",
        "multiprocessing",
        "pack_images",
    }


def test_reading_does_nothing_of_the_kind(folder: Path) -> None:
    assert events_of(READ, folder) == []
    assert len(list((folder / "folders").rglob("*.png"))) == 40


def test_the_events_are_seen_where_they_happen(tmp_path: Path) -> None:
    kinds = {event for event, _ in events_of(BAD, tmp_path)}
    assert {"subprocess.Popen", "socket.getaddrinfo", "pickle.find_class"} <= kinds
