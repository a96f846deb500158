"""Paths that people give and that no program can open: URLs and archives. Each gets advice that can be typed."""

from __future__ import annotations

import re
import shlex

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+[^/]")  # two letters at least: C:/ is a drive; a Path has one slash
_REMOTE = re.compile(r"(?!file:)[A-Za-z][A-Za-z0-9+.-]+(::[A-Za-z][A-Za-z0-9+.-]+)*://.")
_FETCH = {
    "http": "curl -LO {}",
    "https": "curl -LO {}",
    "ftp": "curl -LO {}",
    "s3": "aws s3 cp --recursive {} DIR",
    "gs": "gcloud storage cp -r {} DIR",
    "hf": "hf download {}",
}
_UPLOAD = {
    "s3": "aws s3 cp {} {}",
    "gs": "gcloud storage cp {} {}",
}
_UNPACK = {  # the command for an archive and a new folder
    ".zip": "unzip {0} -d {1}",
    ".7z": "7z x {0} -o{1}",
    ".rar": "unrar x {0} {1}/",
    **dict.fromkeys(
        (".tar", ".tgz", ".tbz2", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst"),
        "mkdir {1} && tar -xf {0} -C {1}",
    ),
}


def is_url(path: str) -> bool:
    """Whether a path is the address of an object elsewhere, such as s3://bucket/name."""
    return _REMOTE.match(path) is not None


def url_advice(path: str) -> str | None:
    """What to do with a URL in place of a path, as the end of a message; None if it is none."""
    found = _URL.match(path)
    if found is None:
        return None
    scheme, rest = found[1].lower(), path[found.end() - 1 :]
    if scheme == "file":
        return f"found a URL; give the path itself, {shlex.quote('/' + rest)}"
    url = shlex.quote(f"{scheme}://{rest}")
    fetch = f", such as with: {_FETCH[scheme].format(url)}" if scheme in _FETCH else ""
    return f"found a URL; copy the files to this machine first{fetch}"


def address_advice(path: str) -> str | None:
    """What to do with a path that was a URL before pathlib took a slash from it; None if it is none."""
    found = _URL.match(path)
    if found is None or found[1].lower() == "file" or is_url(path):
        return None
    address = f"{found[1]}://{path[found.end() - 1 :]}"
    return f"found a URL that has lost a slash, as pathlib does it; give it as text: {address!r}"


def upload_advice(url: str) -> str:
    """How to have a new pack at a URL, as the end of a message."""
    scheme = url.partition(":")[0].lower()
    name = url.rstrip("/").rpartition("/")[2] or "images.h5"
    upload = (
        f", such as with: {_UPLOAD[scheme].format(shlex.quote(name), shlex.quote(url))}" if scheme in _UPLOAD else ""
    )
    return f"pack to a file here, with -o {shlex.quote(name)}, and upload it when it is complete{upload}"


def archive_advice(path: str) -> str | None:
    """How to unpack an archive, as the end of a message; None if the path is not one by its name."""
    for ending in sorted(_UNPACK, key=len, reverse=True):
        if path.lower().endswith(ending):
            folder = path[: -len(ending)] or "unpacked"
            command = _UNPACK[ending].format(shlex.quote(path), shlex.quote(folder))
            return f"found an archive; unpack it first, and give its folder: {command}"
    return None
