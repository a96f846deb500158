"""What needs what: proved in fresh interpreters, and read from every import in the source."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from conftest import PATIENCE, needs_keras

ROOT = Path(__file__).parents[1]
SOURCES = {
    "h5split": ROOT / "loader" / "h5split",
    "pack_images": ROOT / "packer" / "pack_images",
    "tools": ROOT / "tools",
}

# The direction of imports. A module may import what is in its own folder and what is named on an earlier line: folders,
# and modules at the top of the package; "*" stands for all other modules at the top. Names on one line do not import
# each other. An import counts wherever it is written: at the top, in a function, or for type checkers only.
LAYERS = {
    "h5split": (
        "about errors",  # the version; what every module raises
        "system",  # the machine and the terminal
        "notebook",  # what a notebook shows: HTML and PNG, of no pack
        "writing",  # how files are written
        "remote",  # packs elsewhere, and their copies here, as bytes
        "file",  # a pack as a file
        "order",  # which rows, in which order
        "alike",  # which images are alike
        "batch",  # one batch
        "*",  # sequences, splits, tf.data and torch
        "commands",  # what `h5split` does
        "cli view",  # the doors to them
        "start __init__",
    ),
    "pack_images": (
        "about errors",  # what is known before anything is loaded
        "functions",  # of the user
        "settings foreign",  # what a user chooses; names of files that are not packed
        "find decode",  # what there is; bytes -> a row
        "versions plan summary journal reading",  # what will be written where; a record for each row; a file as a whole
        "partial fill",  # the file in the making; a range of its rows
        "output",  # what was there before
        "run",  # who does tasks
        "*",  # job, packing
        "cli",
        "start __init__",
    ),
}


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def without(*modules: str) -> str:
    """Code that makes modules impossible to import."""
    return f"import sys; sys.modules.update(dict.fromkeys({modules!r}))\n"


PACK = without("keras", "tensorflow", "torch", "jax") + (
    "from pack_images import pack\nfrom conftest import write_classes\nfrom pathlib import Path\n"
    "import tempfile\n"
    "if __name__ == '__main__':\n"
    "    folder = Path(tempfile.mkdtemp())\n"
    "    write_classes(folder / 'data', {'cat': 2})\n"
    "    print(pack([folder / 'data'], folder / 'out.h5', workers=1).rows)\n"
)


def test_packing_needs_no_keras(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(f"import sys; sys.path.insert(0, {__file__.rpartition('/')[0]!r})\n{PACK}")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "2\n"), done.stderr


def test_reading_needs_no_keras_no_h5py_no_pillow_and_no_packer(packed):
    done = python(
        without("keras", "tensorflow", "h5py", "PIL", "simplejpeg", "pack_images")
        + f"from h5split import SplitSequence\nprint(sum(len(x) for x, y in SplitSequence({str(packed)!r})))"
    )
    assert (done.returncode, done.stdout) == (0, "100\n"), done.stderr


def test_without_keras_the_sequence_says_what_to_install():
    done = python(without("keras") + "from h5split import H5SplitSequence")
    assert done.returncode == 1
    assert "ImportError: H5SplitSequence needs Keras 3" in done.stderr
    assert "pip install 'pack-images[tensorflow]'" in done.stderr


@pytest.mark.parametrize(
    ("code", "forbidden"),
    [
        ("import h5split", ("numpy", "h5py", "keras", "pack_images")),
        ("import pack_images", ("numpy", "h5py", "PIL", "h5split")),
        ("import pack_images.cli", ("numpy", "h5py", "PIL", "tqdm", "multiprocessing")),
        ("import h5split.cli", ("numpy", "h5py", "PIL", "tqdm", "jinja2")),
        ("from h5split.view import report", ("keras", "tensorflow", "jinja2", "pack_images")),
        ("from h5split import PackedImages", ("h5py", "keras", "tensorflow", "PIL", "simplejpeg", "pack_images")),
        ("import pack_images.packing", ("keras", "tensorflow")),
    ],
)
def test_an_import_brings_only_what_it_needs(code, forbidden):
    done = python(f"import sys\n{code}\nprint(*sorted({set(forbidden)!r} & set(sys.modules)))")
    assert done.stdout.strip() == "", done.stderr


@needs_keras
def test_public_names_are_there():
    done = python(
        "import h5split, pack_images\n"
        "for module in (h5split, pack_images):\n"
        "    for name in module.__all__: getattr(module, name)\n"
        "    assert set(module.__all__) <= set(dir(module))\n"
        "    assert not hasattr(module, 'nonsense')\n"
    )
    assert done.returncode == 0, done.stderr


def test_a_script_without_a_main_guard_is_told_so(tmp_path, root):
    script = tmp_path / "script.py"
    script.write_text(f"from pack_images import pack\npack([{str(root)!r}], {str(tmp_path / 'out.h5')!r}, workers=1)\n")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode != 0
    assert 'which must be a file and call pack() under `if __name__ == "__main__":`' in done.stderr.splitlines()[-1]
    assert not (tmp_path / "out.h5").exists()


# --- every import in the source ---------------------------------------------------------------------------------------

Imports = Mapping[tuple[str, str], int]  # (module, imported module) -> line


def modules_of(package: str, folder: Path) -> dict[str, Path]:
    """Module name -> file, of a package and everything below it."""
    found = {}
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        found[".".join([package, *parts]).removesuffix(".__init__")] = path
    return found


def names_imported(tree: ast.AST, package: str) -> Iterator[tuple[list[str], int]]:
    """For each import in a module, wherever it is: the names it may be of, the longest first, and the line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield [alias.name], node.lineno
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                yield [f"{base}.{alias.name}", base], node.lineno
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            yield [str(name.value) for name in node.args[:1] if isinstance(name, ast.Constant)], node.lineno


def imports_of(sources: Mapping[str, Path]) -> dict[tuple[str, str], int]:
    """Every import of one module of these packages by another.

    The packages that a module is in, which Python loads before it, do not count: they import nothing that matters
    (`test_a_folder_imports_nothing`).
    """
    modules = {name: path for package, folder in sources.items() for name, path in modules_of(package, folder).items()}
    found: dict[tuple[str, str], int] = {}
    for module, path in modules.items():
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        # The folder of a script is on sys.path: `import job` in tools/peers/run.py is tools.peers.job.
        beside = ["tools.", f"{package}."] if module.startswith("tools.") else []
        for names, line in names_imported(ast.parse(path.read_bytes()), package):
            known = [prefix + name for name in names for prefix in ["", *beside] if prefix + name in modules]
            if known and known[0] != module:
                found.setdefault((module, known[0]), line)
    return found


def circles(imports: Imports) -> list[str]:
    """Every import that leads back to its module, as the shortest way back, such as `a (line 3) -> b (line 7) -> a`."""
    followers: dict[str, list[str]] = {}
    for module, imported in sorted(imports):
        followers.setdefault(module, []).append(imported)
    found = set()
    for module, imported in sorted(imports):
        way = shortest_way(followers, imported, module)
        if way:
            first = way.index(min(way))
            way = [*way[first:], *way[:first]]
            steps = zip(way, [*way[1:], way[0]], strict=True)
            found.add(" -> ".join([*(f"{step[0]} (line {imports[step]})" for step in steps), way[0]]))
    return sorted(found)


def shortest_way(followers: Mapping[str, list[str]], start: str, end: str) -> list[str]:
    """The modules from `start` to `end`, both included; none if there is no way."""
    ways, seen = [[start]], {start}
    for way in ways:  # the list grows
        if way[-1] == end:
            return way
        new = [module for module in followers.get(way[-1], []) if module not in seen]
        seen.update(new)
        ways += [[*way, module] for module in new]
    return []


def against_layers(imports: Imports, package: str, layers: tuple[str, ...]) -> list[str]:
    """The imports within a package that run against its layers."""
    level = {name: number for number, names in enumerate(layers) for name in names.split()}

    def place(module: str) -> str:
        name = module.split(".")[1] if "." in module else "__init__"
        return name if name in level else "*"

    return [
        f"{module} (line {line}) imports {imported}"
        for (module, imported), line in sorted(imports.items())
        if {module.split(".")[0], imported.split(".")[0]} == {package}
        and place(module) != place(imported)
        and level[place(imported)] >= level[place(module)]
    ]


@pytest.fixture(scope="module")
def imports() -> dict[tuple[str, str], int]:
    found = imports_of(SOURCES)
    assert len(found) > 200
    return found


def test_no_module_imports_one_that_imports_it(imports):
    found = circles(imports)
    assert not found, "\n".join(found)


@pytest.mark.parametrize("package", LAYERS)
def test_imports_run_one_way(imports, package):
    found = against_layers(imports, package, LAYERS[package])
    assert not found, "\n".join(found)


def test_every_folder_of_a_package_has_its_place():
    for package in ("h5split", "pack_images"):
        named = {name for names in LAYERS[package] for name in names.split()}
        folders = {path.parent.name for path in SOURCES[package].glob("*/*.py")}
        assert folders <= named, package


def test_the_reader_never_imports_the_packer(imports):
    assert [pair for pair in imports if pair[0].startswith("h5split") and not pair[1].startswith("h5split")] == []


def test_a_package_never_imports_tools(imports):
    assert [pair for pair in imports if not pair[0].startswith("tools") and pair[1].startswith("tools")] == []


def test_a_folder_imports_nothing():
    """Else to import one of its modules would load more than that module needs."""
    for package in ("h5split", "pack_images"):
        for path in SOURCES[package].glob("*/**/__init__.py"):
            tree = ast.parse(path.read_bytes())
            assert ast.get_docstring(tree), path
            assert len(tree.body) == 1, path


# --- the test of these tests: small trees that are wrong --------------------------------------------------------------

TREE = {
    "__init__.py": "",
    "low/__init__.py": '"""Low."""',
    "low/one.py": "import os",
    "low/two.py": "from p.low import one",
    "top.py": "from p.low.two import name",
}


def tree(folder: Path, changes: Mapping[str, str]) -> dict[tuple[str, str], int]:
    """The imports of a small package `p`."""
    for name, text in (TREE | changes).items():
        path = folder / "p" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return imports_of({"p": folder / "p"})


def test_a_tree_without_a_circle_has_none(tmp_path):
    found = tree(tmp_path, {})
    assert found == {("p.low.two", "p.low.one"): 1, ("p.top", "p.low.two"): 1}
    assert circles(found) == []
    assert against_layers(found, "p", ("low", "*", "__init__")) == []


@pytest.mark.parametrize(
    "text",
    [
        "import p.low.two",
        "from p.low import two",
        "from p.low.two import name",
        "from . import two",
        "from .two import name",
        "from ..low.two import name",
        "import os; import p.low.two as other",
        "def f(): from p.low.two import name",
        "class A:\n def f(self):\n  from p.low import two",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING: from p.low import two",
        "try: from p.low import two\nexcept ImportError: pass",
        "import importlib\nimportlib.import_module('p.low.two')",
    ],
)
def test_a_circle_is_found_however_it_is_written(tmp_path, text):
    found = circles(tree(tmp_path, {"low/one.py": text}))
    assert [circle.replace("line 2", "line 1").replace("line 3", "line 1") for circle in found] == [
        "p.low.one (line 1) -> p.low.two (line 1) -> p.low.one"
    ]


def test_a_circle_of_three_is_named_once(tmp_path):
    found = circles(tree(tmp_path, {"low/one.py": "\n\ndef f():\n    import p.top"}))
    assert found == ["p.low.one (line 4) -> p.top (line 1) -> p.low.two (line 1) -> p.low.one"]


def test_an_import_against_the_layers_is_found(tmp_path):
    found = tree(tmp_path, {"other.py": "", "low/one.py": "def f(): from p.other import name"})
    assert circles(found) == []
    assert against_layers(found, "p", ("low", "*", "__init__")) == ["p.low.one (line 1) imports p.other"]


def test_folders_on_one_line_import_nothing_of_each_other(tmp_path):
    found = tree(tmp_path, {"side/a.py": "import p.low.one"})
    assert against_layers(found, "p", ("low side", "*", "__init__")) == ["p.side.a (line 1) imports p.low.one"]
    assert against_layers(found, "p", ("low", "side", "*", "__init__")) == []


def test_scripts_find_each_other_by_their_folder(tmp_path):
    (tmp_path / "peers").mkdir()
    (tmp_path / "peers" / "run.py").write_text("import job")
    (tmp_path / "peers" / "job.py").write_text("from peers import run")
    found = circles(imports_of({"tools": tmp_path}))
    assert found == ["tools.peers.job (line 1) -> tools.peers.run (line 1) -> tools.peers.job"]
