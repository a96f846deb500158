"""Progress of work, as a notebook or a terminal shows it."""

from __future__ import annotations

import html
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Report = Callable[[int, int, int], object]  # called with (done, total, left out)

_SECONDS = 0.1  # between two states that are shown


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook. IPython in a terminal is none."""
    module: Any = sys.modules.get("IPython")
    shell = module.get_ipython() if hasattr(module, "get_ipython") else None
    return hasattr(shell, "kernel")


@contextmanager
def reporting(progress: Report | bool | None, noun: str) -> Iterator[Report | None]:
    """Show progress while the block runs.

    Args:
        progress: A function that is told of progress. True: show a bar. False: show none. None: show one in a notebook.
        noun: What is counted, such as `images`.

    Yields:
        A function to call with progress; None if nobody wants to know.
    """
    if progress is None:
        progress = in_notebook()
    if not isinstance(progress, bool):
        yield progress
        return
    if not progress:
        yield None
        return
    bar = _bar(noun)
    try:
        yield bar.show
    finally:
        bar.close()


class NotebookBar:
    """A progress bar in the output of a cell. It needs no widgets, and its last state is stored with the notebook.

    tqdm's bar for notebooks needs ipywidgets and warns without them; with them it is stored as it was at the start.

    Args:
        noun: What is counted.
    """

    def __init__(self, noun: str) -> None:
        self._noun = noun
        self._started = self._shown = time.monotonic()
        self._state = 0, 0, 0
        self._display: Any = None

    def show(self, done: int, total: int, left_out: int = 0) -> None:
        """Show that `done` of `total` are done, and that `left_out` of these were left out."""
        self._state = done, total, left_out
        now = time.monotonic()
        if self._display is None or now - self._shown >= _SECONDS:
            self._shown = now
            self._refresh()

    def close(self) -> None:
        """Show the last state."""
        if self._display is not None:
            self._refresh()

    def _refresh(self) -> None:
        from IPython.display import display

        shown = {"text/plain": self._text(), "text/html": self._html()}
        if self._display is None:
            self._display = display(shown, raw=True, display_id=True)
        else:
            self._display.update(shown, raw=True)

    def _text(self) -> str:
        done, total, left_out = self._state
        seconds = time.monotonic() - self._started
        lost = f", {left_out:,} left out" if left_out else ""
        return f"{done:,} of {total:,} {self._noun}{lost}, {seconds:.1f} s"

    def _html(self) -> str:
        done, total, _ = self._state
        bar = f'<progress value="{done}" max="{max(total, 1)}" style="width:16em;vertical-align:middle"></progress>'
        return f"<div>{bar} {html.escape(self._text())}</div>"


def _bar(noun: str) -> Any:
    if in_notebook():
        return NotebookBar(noun)
    from h5split.system.console import Bar

    return Bar(f" {noun}", quiet=False, leave=True)
