"""Run the notebooks of examples/ from top to bottom, and store them with their outputs.

    python tools/notebooks.py examples/*.ipynb             store them where they are
    python tools/notebooks.py examples/*.ipynb --to DIR    store them in another folder

Outputs that depend on the machine are not stored: log lines of libraries on stderr, times of cells, the version of
Python. An error in a cell ends the run, and stores nothing.
"""

from __future__ import annotations

import argparse
import os
from typing import Any

import nbformat
from nbclient import NotebookClient

CELL_SECONDS = 600
# TensorFlow's C++ code writes these lines before any setting can silence it.
LOG_LINES = ("WARNING: All log messages before absl::InitializeLog()", "I0000 ", "W0000 ", "E0000 ")


def is_log(output: Any) -> bool:
    """Whether an output is nothing but log lines of libraries."""
    lines = [line for line in output.get("text", "").splitlines() if line.strip()]
    return output.get("name") == "stderr" and all(line.startswith(LOG_LINES) for line in lines)


def run(path: str) -> Any:
    """Run a notebook, and return it with its outputs.

    Raises:
        CellExecutionError: A cell fails.
    """
    notebook = nbformat.read(path, as_version=4)
    folder = os.path.dirname(os.path.abspath(path))
    options = {"timeout": CELL_SECONDS, "record_timing": False, "coalesce_streams": True}
    client = NotebookClient(notebook, resources={"metadata": {"path": folder}}, **options)
    client.execute()
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if not is_log(output)]
    return notebook


def main() -> None:
    parser = argparse.ArgumentParser(description="Run notebooks, and store them with their outputs.")
    parser.add_argument("notebooks", nargs="+")
    parser.add_argument("--to", help="the folder to store them in (where they are)")
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for path in arguments.notebooks:
        notebook = run(path)
        target = path if arguments.to is None else os.path.join(arguments.to, os.path.basename(path))
        nbformat.write(notebook, target)
        print(f"{target}: {os.path.getsize(target) / 1e3:,.0f} kB")


if __name__ == "__main__":
    main()
