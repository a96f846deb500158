"""Peers and their virtual environments, as tools/peers/versions.toml has them; made when first asked for."""

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
    """An environment that could not be made; the message is the reason."""


@dataclass(frozen=True)
class Environment:
    """What is installed for one or more peers.

    Attributes:
        name: Of its folder.
        packages: Exact versions, installed with what they need.
        no_deps: Exact versions, installed after them, without what they ask for.
        apt: Debian packages that must be there; only named, in the error.
    """

    name: str
    packages: tuple[str, ...]
    no_deps: tuple[str, ...] = ()
    apt: tuple[str, ...] = ()


@dataclass(frozen=True)
class Peer:
    """A row of the tables.

    Attributes:
        name: As given to `--peers`.
        title: As printed.
        module: The file in tools/peers that measures it.
        environment: The name of what it runs in.
        commands: Those of pack, load and fit that it takes part in.
        variant: Which of the ways the module knows.
        pack_of: The peer whose packed files it reads.
        order: How rows are shuffled.
        limit: No peer but a bound.
        hidden: Measured only when it is named.
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
        """The peer whose pack() makes what this one reads."""
        return self.pack_of or self.name


def read_versions() -> tuple[dict[str, Peer], dict[str, Environment]]:
    """Peers and environments by name, in the order of the file."""
    with open(os.path.join(PEERS, "versions.toml"), "rb") as file:
        found = tomllib.load(file)

    def frozen(table: dict[str, object]) -> dict[str, object]:
        return {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}

    peers = {name: Peer(name=name, **frozen(table)) for name, table in found["peers"].items()}
    environments = {name: Environment(name=name, **frozen(table)) for name, table in found["environments"].items()}
    return peers, environments


def python_of(environment: Environment, folder: str) -> str:
    """The interpreter of an environment, made if it is not there or its pins have changed.

    Raises:
        NotInstalledError: With the last line of pip's complaint, which is remembered until the pins change.
    """
    place = os.path.join(folder, environment.name)
    stamp = os.path.join(folder, f"{environment.name}.json")
    wanted = hashlib.sha256(repr((environment, sys.version)).encode()).hexdigest()
    try:
        with open(stamp, encoding="utf-8") as file:
            known = json.load(file)
    except FileNotFoundError:
        known = {}
    if known.get("pins") != wanted:
        known = {"pins": wanted, **install(environment, place)}
        with open(stamp, "w", encoding="utf-8") as file:
            json.dump(known, file, indent=1)
    if known["failed"]:
        raise NotInstalledError(f"{known['failed']} (forget this: delete {os.path.relpath(stamp)})")
    return os.path.join(place, "bin", "python")


def frozen_versions(folder: str) -> dict[str, list[str]]:
    """Every version in every environment there is."""
    found = {}
    for entry in sorted(os.listdir(folder)):
        name, end = os.path.splitext(entry)
        if end == ".json":
            with open(os.path.join(folder, entry), encoding="utf-8") as file:
                found[name] = json.load(file)["frozen"]
    return found


def install(environment: Environment, place: str) -> dict[str, object]:
    """Make it; `failed` is why not, or nothing; `frozen` every version there is."""
    print(f"installing {environment.name}: {', '.join(environment.packages + environment.no_deps)}", flush=True)
    venv.create(place, clear=True, with_pip=True)
    python = os.path.join(place, "bin", "python")
    pip = [python, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    steps = [[*pip, "install", *environment.packages]] if environment.packages else []
    if environment.no_deps:
        steps.append([*pip, "install", "--no-deps", "--no-build-isolation", *environment.no_deps])
    for step in steps:
        failed = complaint(step)
        if failed and environment.apt:
            failed += f" (needs the Debian packages {' '.join(environment.apt)})"
        if failed:
            return {"failed": failed, "frozen": []}
    frozen = subprocess.run([*pip, "freeze"], capture_output=True, text=True, check=True).stdout.split("\n")
    return {"failed": "", "frozen": frozen}


def complaint(command: list[str]) -> str:
    """Run it; nothing when it went well, else the line that says most."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS)
    except subprocess.TimeoutExpired:
        return f"not installed within {INSTALL_SECONDS} s"
    if done.returncode == 0:
        return ""
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    errors = [line for line in lines if "rror" in line]
    return (errors or lines or [f"exit status {done.returncode}"])[-1]
