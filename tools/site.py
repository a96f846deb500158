"""The hook with which MkDocs makes reference pages from the code, so that they cannot differ from it.

The line `<!-- options of COMMAND -->` of a page becomes tables of that command's options, made from its parser.
The line `<!-- specification -->` becomes the docstring of the file format.
"""

from __future__ import annotations

import argparse
import html
import re
from collections.abc import Iterable, Iterator
from typing import Any

from h5split import cli as h5split
from h5split.file import format as file_format
from pack_images import arguments as pack_images

SHIM = "https://unpkg.com/iframe-worker/shim"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill the lines of a page that name something that is made from code."""
    for line, made in {
        "<!-- options of pack-images -->": of_pack_images,
        "<!-- options of h5split -->": of_h5split,
        "<!-- specification -->": specification,
    }.items():
        if line in markdown:
            markdown = markdown.replace(line, made())
    return markdown


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Take the script that search needs in a page opened from disk from the site itself, not from another server."""
    return output.replace(SHIM, "../" * page.url.count("/") + "javascripts/iframe-worker.js")


def on_post_template(output_content: str, **_: Any) -> str:
    """The same for the page of an address that does not exist."""
    return output_content.replace(SHIM, "/javascripts/iframe-worker.js")


def of_pack_images() -> str:
    groups = pack_images.parser()._action_groups
    return "\n\n".join(
        f"## {group.title.capitalize()}\n\n{table(group._group_actions)}" for group in groups if group._group_actions
    )


def of_h5split() -> str:
    return "\n\n".join(
        f"## h5split {name}\n\n{sentence(parser.description)}\n\n"
        f"```\n{parser.format_usage().removeprefix('usage: ').strip()}\n```\n\n" + table(parser._actions)
        for name, parser in commands()
    )


def commands() -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Each command of h5split and its parser."""
    for action in h5split._parser()._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.items()


def table(actions: Iterable[argparse.Action]) -> str:
    shown = [action for action in actions if not isinstance(action, argparse._HelpAction)]
    rows = [f"| <code>{cell(named(action))}</code> | {cell(explained(action))} |" for action in shown]
    return "\n".join(["| option | meaning |", "|---|---|", *rows])


def named(action: argparse.Action) -> str:
    """The option as it is typed, with its argument."""
    if not action.option_strings:
        return str(action.metavar or action.dest)
    choices = "|".join(map(str, action.choices or ()))
    argument = "" if action.nargs == 0 else f" {action.metavar or choices or action.dest.upper()}"
    return ", ".join(action.option_strings) + argument


def explained(action: argparse.Action) -> str:
    values = {**vars(action), "prog": "the command"}
    return sentence((action.help or "") % values)


def sentence(text: str | None) -> str:
    """A text of the help, as a sentence."""
    text = (text or "").strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") or not text else ".")


def cell(text: str) -> str:
    return html.escape(text, quote=False).replace("|", "&#124;").replace("*", "&#42;")


def specification() -> str:
    """The docstring of the format, whose table is in the form of reStructuredText, in Markdown."""
    docstring = file_format.__doc__ or ""
    ruler = re.compile(r"^=+(?:  ?=+)+$", re.MULTILINE)
    before, _, body, after = ruler.split(docstring)
    first, second = (match.start() for match in list(re.finditer("  =", ruler.search(docstring)[0]))[:2])
    rows: list[list[str]] = []
    for line in body.strip("\n").splitlines():
        cells = [line[:first].strip(), line[first:second].strip(), line[second:].strip()]
        if cells[0]:
            rows.append(cells)
        else:
            rows[-1] = [" ".join(filter(None, pair)) for pair in zip(rows[-1], cells, strict=True)]
    lines = ["| object | type, shape | meaning |", "|---|---|---|"]
    lines += [f"| `{name}` | {kind} | {meaning} |" for name, kind, meaning in rows]
    text = before.strip() + "\n\n" + "\n".join(lines) + "\n\n" + after.strip()
    return re.sub(r"``(.+?)``", r"`\1`", text)
