"""Tests of the exceptions of both packages: each has one root, and its docstring shows the tree."""

from __future__ import annotations

import inspect
import re

import pytest

import h5split.errors
import pack_images.errors
from h5split import H5SplitError, SplitSequence, leaks
from pack_images import PackError, pack

ROOTS = {h5split.errors: H5SplitError, pack_images.errors: PackError}


@pytest.mark.parametrize("module", ROOTS, ids=lambda module: module.__name__)
def test_every_error_derives_from_the_root_and_is_in_the_documented_tree(module):
    errors = {name: one for name, one in vars(module).items() if inspect.isclass(one)}
    assert all(issubclass(one, ROOTS[module]) for one in errors.values())
    drawn = dict(re.findall(r"^[ |+-]*([A-Z]\w+Error)\b *(?:\((\w+)\))?", module.__doc__, flags=re.M))
    assert drawn.keys() == errors.keys()
    for name, builtin in drawn.items():
        assert not builtin or builtin in {one.__name__ for one in errors[name].__mro__}


@pytest.mark.parametrize(
    "mistake",
    [
        pytest.param(lambda sequence: sequence.set(batch_size=0), id="an invalid setting"),
        pytest.param(lambda sequence: sequence.split(2), id="an invalid split point"),
        pytest.param(lambda sequence: sequence.split([0.5]), id="a list of split points"),
        pytest.param(lambda sequence: sequence[99], id="a batch out of range"),
        pytest.param(lambda sequence: sequence.select([1000]), id="a row out of range"),
        pytest.param(lambda sequence: sequence.split_by("nothing"), id="an unknown column"),
        pytest.param(lambda sequence: sequence.add_file(sequence.packs.packs[0].path), id="a pack twice"),
        pytest.param(lambda sequence: sequence.add_file(__file__), id="a file that is not a pack"),
        pytest.param(lambda sequence: sequence.read_split(__file__), id="a file that is not a table"),
        pytest.param(lambda sequence: sequence.mistakes([[1]]), id="invalid predictions"),
        pytest.param(lambda sequence: sequence.restore({}), id="an invalid state"),
        pytest.param(lambda sequence: leaks([sequence]), id="a list of sequences"),
    ],
)
def test_h5split_error_catches_every_mistake_with_a_sequence(packed, mistake):
    with pytest.raises(H5SplitError):
        mistake(SplitSequence(packed))


@pytest.mark.parametrize("source", ["nothing there", "damaged.h5", "other.txt"])
def test_pack_error_catches_every_source_that_cannot_be_packed(tmp_path, source):
    (tmp_path / "damaged.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(5000))
    (tmp_path / "other.txt").write_text("text")
    with pytest.raises(PackError):
        pack([tmp_path / source], tmp_path / "out.h5", size=8, workers=1)
    assert not (tmp_path / "out.h5").exists()
