"""Peers and their virtual environments, from tools/peers/versions.toml. An environment is made when first needed."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tomllib
import venv
from dataclasses import dataclass, field

PEERS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "peers")
INSTALL_SECONDS = 1800


class NotInstalledError(Exception):
    """An environment could not be made. The message is the reason."""


@dataclass(frozen=True)
class Environment:
    """A virtual environment for one or more peers.

    Attributes:
        name: Name of its folder.
        packages: Exact versions, installed with their dependencies.
        no_deps: Exact versions, installed after `packages` and without dependencies.
        apt: Debian packages that must be installed. They are only named in the error message.
    """

    name: str
    packages: tuple[str, ...]
    no_deps: tuple[str, ...] = ()
    apt: tuple[str, ...] = ()


@dataclass(frozen=True)
class Peer:
    """A row of the tables.

    Attributes:
        name: The name given to `--peers`.
        title: The name printed in tables.
        module: The module in tools/peers that measures it.
        environment: The name of its environment.
        commands: The commands it supports, of pack, load and fit.
        variant: The variant of the module, if it has several.
        pack_of: The peer whose packed files it reads; "" is its own.
        order: A description of its shuffle.
        limit: It is a bound for comparison, not a peer.
        hidden: It is measured only when it is named.
    """

    name: str
    title: str
    module: str
    environment: str
    commands: tuple[str, ...] = field(default=("pack", "load"))
    variant: str = ""
    pack_of: str = ""
    order: str = "full"
    limit: bool = False
    hidden: bool = False

    @property
    def packed(self) -> str:
        """The name of the peer whose pack() makes the files that this one reads."""
        return self.pack_of or self.name


def read_versions() -> tuple[dict[str, Peer], dict[str, Environment]]:
    """Return peers and environments by name, in the order of the file."""
    with open(os.path.join(PEERS, "versions.toml"), "rb") as file:
        found = tomllib.load(file)

    def frozen(table: dict[str, object]) -> dict[str, object]:
        return {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}

    peers = {name: Peer(name=name, **frozen(table)) for name, table in found["peers"].items()}
    environments = {name: Environment(name=name, **frozen(table)) for name, table in found["environments"].items()}
    return peers, environments


def python_of(environment: Environment, folder: str) -> str:
    """Return the interpreter of an environment. Make the environment if it is missing or its versions have changed.

    Raises:
        NotInstalledError: pip failed. The message is the last line of its error, and is kept until the versions change.
    """
    path = os.path.join(folder, environment.name)
    stamp = os.path.join(folder, f"{environment.name}.json")
    wanted = hashlib.sha256(repr((environment, sys.version)).encode()).hexdigest()
    try:
        with open(stamp, encoding="utf-8") as file:
            known = json.load(file)
    except FileNotFoundError:
        known = {}
    if known.get("pins") != wanted:
        known = {"pins": wanted, **install(environment, path)}
        with open(stamp, "w", encoding="utf-8") as file:
            json.dump(known, file, indent=1)
    if known["failed"]:
        raise NotInstalledError(f"{known['failed']} (forget this: delete {os.path.relpath(stamp)})")
    return os.path.join(path, "bin", "python")


def frozen_versions(folder: str) -> dict[str, list[str]]:
    """Return the versions of all packages in each existing environment."""
    found = {}
    for entry in sorted(os.listdir(folder)):
        name, end = os.path.splitext(entry)
        if end == ".json":
            with open(os.path.join(folder, entry), encoding="utf-8") as file:
                found[name] = json.load(file)["frozen"]
    return found


def install(environment: Environment, path: str) -> dict[str, object]:
    """Make an environment. Return `failed`, the reason for a failure or "", and `frozen`, all installed versions."""
    print(f"installing {environment.name}: {', '.join(environment.packages + environment.no_deps)}", flush=True)
    venv.create(path, clear=True, with_pip=True)
    python = os.path.join(path, "bin", "python")
    pip = [python, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    steps = [[*pip, "install", *environment.packages]] if environment.packages else []
    if environment.no_deps:
        steps.append([*pip, "install", "--no-deps", "--no-build-isolation", *environment.no_deps])
    for step in steps:
        failed = run_pip(step)
        if failed and environment.apt:
            failed += f" (needs the Debian packages {' '.join(environment.apt)})"
        if failed:
            return {"failed": failed, "frozen": []}
    frozen = subprocess.run([*pip, "freeze"], capture_output=True, text=True, check=True).stdout.split("\n")
    return {"failed": "", "frozen": frozen}


def run_pip(command: list[str]) -> str:
    """Run a command. Return "" if it succeeded, or else the most informative line of its error output."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS)
    except subprocess.TimeoutExpired:
        return f"not installed within {INSTALL_SECONDS} s"
    if done.returncode == 0:
        return ""
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    errors = [line for line in lines if "rror" in line]
    return (errors or lines or [f"exit status {done.returncode}"])[-1]
