"""Tests of H5SplitSequence with Keras' other backends, one process per backend: a process can load only one."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import PATIENCE

HERE = Path(__file__).parent
FILES = "test_sequence.py", "test_targets.py", "test_pairs.py", "test_mapping.py"
# Tests that never reach Keras' backend, but load another framework. They took 16 s of 57 on JAX, 14 s of 37 on torch.
SAME_ON_EVERY_BACKEND = ("torch", "tf_data", "tensors_become_arrays", "is_told_of_map")


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_the_sequence_tests_pass_with_backend(backend):
    for package in ("keras", backend):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"needs {package}: pip install 'pack-images[{backend}]'")
    options = ["-p", "no:cacheprovider", "--color=no", "-k", f"not ({' or '.join(SAME_ON_EVERY_BACKEND)})"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *(str(HERE / name) for name in FILES)],
        cwd=HERE.parent,
        env={**os.environ, "KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    summary = done.stdout.splitlines()[-1]
    passed = re.match(r"(\d+) passed, \d+ deselected", summary)
    assert passed, summary
    assert int(passed[1]) >= 350, summary
    assert "skipped" not in summary
