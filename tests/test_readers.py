"""Readers written by users (--reader) are found by module or file, and their mistakes give one-line errors."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from conftest import assert_rows_are_who_they_say, write_classes
from h5split import PackedImages
from pack_images import PackError, pack
from pack_images.cli import main

READER = """
import os

def read(path):
    names = sorted(os.path.join(path, c, f) for c in os.listdir(path) for f in os.listdir(os.path.join(path, c)))
    return names, [int("/dog/" in name) for name in names], ["cat", "dog"], [0, 1]
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    write_classes(tmp_path / "d", {"cat": 3, "dog": 2})
    yield tmp_path
    for name, module in [*sys.modules.items()]:
        if str(getattr(module, "__file__", "")).startswith(f"{tmp_path}/"):
            del sys.modules[name]


def run(*arguments):
    """Run the installed command: unlike `python -m`, it does not put the working folder first on sys.path."""
    return subprocess.run(
        [Path(sys.executable).with_name("pack-images"), *arguments], capture_output=True, text=True, timeout=120
    )


def pack_returned(returned, root="d"):
    return pack([root], "o.h5", reader=lambda path: returned, workers=1)


@pytest.mark.parametrize(
    "given", ["own:read", "own.py:read", "./own.py:read", "./own:read", "sub/other.py:read", "sub.other:read"]
)
def test_a_reader_is_found_by_module_or_file_name(here, given):
    (here / "own.py").write_text(READER)
    (here / "sub").mkdir()
    (here / "sub/other.py").write_text(READER)
    assert main(["d", "--reader", given, "-o", "o.h5", "--quiet"]) == 0
    packed = PackedImages("o.h5")
    assert_rows_are_who_they_say(packed.images, [packed.class_names[at] for at in packed.labels], packed.filenames)


def test_files_beside_a_reader_do_not_shadow_other_modules(here):
    """This holds in the workers too. A reader may be named like a module and import modules beside it."""
    for name in ("selectors", "random", "numpy", "PIL", "simplejpeg", "xxhash", "tqdm"):
        (here / f"{name}.py").write_text("raise RuntimeError('not this one')\n")
    (here / "helper_of_mine.py").write_text("ready = True\n")
    (here / "json.py").write_text(f"import random, helper_of_mine, dataclasses\n{READER}")
    for given in ("json:read", "json.py:read"):
        done = run("d", "--reader", given, "-o", f"{given}.h5", "--workers", "2", "--quiet")
        assert (done.returncode, done.stderr) == (0, "")
        assert len(PackedImages(f"{given}.h5")) == 5


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("own.py", "expected MODULE:FUNCTION or FILE.py:FUNCTION, such as mine.py:read"),
        ("own:", "expected MODULE:FUNCTION or FILE.py:FUNCTION"),
        (":read", "expected MODULE:FUNCTION or FILE.py:FUNCTION"),
        ("nowhere:read", "expected the module nowhere, or a file nowhere.py, found neither"),
        ("./nowhere.py:read", r"expected the module \./nowhere\.py, or a file \./nowhere\.py, found neither"),
        (".own:read", r"expected the module \.own, or a file \.own\.py, found neither"),
        ("own:nothing", "expected a function nothing in own, found none"),
        ("own:number", "expected a function number in own, found int"),
        (
            "bad:read",
            r"bad cannot be imported \(ModuleNotFoundError: No module named 'not_there_'; .*/bad\.py, line 2\)",
        ),
        ("divides:read", r"divides cannot be imported \(ZeroDivisionError: .*; .*/divides\.py, line 3\)"),
        ("wrong:read", r"wrong cannot be imported \(SyntaxError: .*wrong\.py, line 1"),
        ("leaves:read", r"leaves cannot be imported \(SystemExit: usage: leaves; .*leaves\.py, line 2\)"),
        ("deep:read", r"deep cannot be imported \(JSONDecodeError: .*; .*/deep\.py, line 3\)"),
    ],
)
def test_a_reader_that_cannot_be_loaded_gives_a_one_line_error(here, capsys, given, message):
    (here / "own.py").write_text(f"number = 3\n{READER}")
    (here / "bad.py").write_text("\nimport not_there_\n")
    (here / "divides.py").write_text("def read():\n    pass\n1 / 0\n")
    (here / "wrong.py").write_text("def read(:\n")
    (here / "leaves.py").write_text("import sys\nsys.exit('usage: leaves')\n")
    (here / "deep.py").write_text("import json\n\njson.loads('{')\n")
    assert main(["d", "--reader", given, "-o", "o.h5", "--quiet"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(rf"^pack-images: --reader {re.escape(given)}: {message}", error), error


def test_a_reader_that_raises_gives_a_one_line_error_with_file_and_line(here, capsys):
    (here / "own.py").write_text("import json\n\n\ndef read(path):\n    return json.loads('{')\n")
    (here / "ends.py").write_text("def read(path):\n    raise SystemExit('no data')\n")
    assert main(["d", "--reader", "own:read", "-o", "o.h5", "--quiet"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("pack-images: --reader read, for d: it raised JSONDecodeError: ")
    assert error.endswith(f"; {here}/own.py, line 5\n")
    assert main(["d", "--reader", "ends:read", "-o", "o.h5", "--quiet"]) == 1
    assert capsys.readouterr().err == (
        f"pack-images: --reader read, for d: it raised SystemExit: no data; {here}/ends.py, line 2\n"
    )


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (None, r"expected the tuple \(names, classes, classnames, classindices\) to be returned, found None"),
        ((name for name in "abcd"), "to be returned, found generator"),
        ((["x"], [0]), "to be returned, found tuple of 2"),
        ({"names": 1}, "to be returned, found dict"),
        (("x.png", [0], ["cat"], [0]), "expected a list as names, found str"),
        ((["x"], 0, ["cat"], [0]), "expected a list as classes, found int"),
        ((["x"], [0], None, [0]), "expected a list as classnames, found None"),
        (([b"x"], [0], ["cat"], [0]), "expected names of files as text, found b'x'"),
        (([3], [0], ["cat"], [0]), "expected names of files as text, found 3"),
        ((["x"], [0.5], ["cat"], [0]), r"expected whole numbers as classes \('float' object"),
        ((["x"], ["0"], ["cat"], [0]), r"expected whole numbers as classes \('str' object"),
        ((["x"], [0], ["cat"], ["0"]), r"expected whole numbers as classindices \('str' object"),
        ((["x"], [0], [7], [0]), "expected classnames of text, found 7"),
        ((["x"], [0], [""], [0]), "expected classnames of text, found ''"),
        ((["x"], [0], ["cat", "dog"], [0]), "expected a number for each of 2 classnames, found 1"),
        ((["x"], [0], ["cat", "dog"], [0, 0]), "expected one name for class 0, found 'cat' and 'dog'"),
        ((["x"], [0], ["cat", "cat"], [0, 1]), "expected one number for class 'cat', found 0 and 1"),
        ((["x"], [0, 1], ["cat", "dog"], [0, 1]), "a named class for each of 1 names, found 2 classes"),
        ((["x"], [7], ["cat"], [0]), "found class 7, which has no name"),
        (
            (["x.png"], [0], ["cat"], [0]),
            "expected names that lead to files from here, found 'x.png', which is not there$",
        ),
        ((["cat"], [0], ["cat"], [0]), r"which is not there; it is in the folder: return os\.path\.join\(path, name\)"),
    ],
)
def test_an_invalid_return_value_of_a_reader_is_an_error(here, returned, message):
    with pytest.raises(PackError, match=f"^--reader <lambda>, for d: .*{message}"):
        pack_returned(returned)


@pytest.mark.parametrize("kind", [list, tuple, iter, np.array])
def test_a_reader_may_return_any_iterables(here, kind):
    names = [f"d/{name}/d-{name}-{at}.png" for name, count in (("cat", 3), ("dog", 2)) for at in range(count)]
    pack_returned((kind(names), kind([1, 1, 1, 5, 5]), kind(["cat", "dog"]), kind([1, 5])))
    packed = PackedImages("o.h5")
    assert_rows_are_who_they_say(packed.images, [packed.class_names[at] for at in packed.labels], packed.filenames)
    assert pack_returned(([Path(name) for name in names], [0] * 5, ["cat"], [0])).rows == 5


def test_a_class_without_images_keeps_its_number(here):
    summary = pack_returned((["d/dog/d-dog-0.png"], [1], ["cat", "dog"], [0, 1]))
    assert summary.classes == {"cat": 0, "dog": 1}
    assert list(summary.warnings) == ["classes without images, which keep their numbers: cat"]
