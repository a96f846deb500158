"""What needs what, proved in fresh interpreters."""

from __future__ import annotations

import subprocess
import sys

import pytest

from conftest import PATIENCE, needs_keras


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
