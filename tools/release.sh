#!/bin/sh
# Build the wheel and the sdist in dist/, and prove them: the wheel packs and reads in a bare environment, and the tests
# pass from the unpacked sdist, on what it installs.
#
#   sh tools/release.sh                             all tests that need no backend
#   sh tools/release.sh tests/test_rows.py          arguments go to pytest
#   PYTHON=python3.14 sh tools/release.sh           with another Python
#   EXTRAS=dev,backends sh tools/release.sh         also the tests that need TensorFlow, JAX and torch
#
# The environments are made in build/, anew each time.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
extras=${EXTRAS:-dev}
folder=$PWD/build/release

install() {
    environment=$1
    shift
    "$python" -m venv --clear "$folder/$environment"
    "$folder/$environment/bin/python" -m pip install --quiet --disable-pip-version-check "$@"
}

rm -rf "$folder" dist
mkdir -p "$folder"
install building build
"$folder/building/bin/python" -m build --outdir dist . >"$folder/build.log" || {
    cat "$folder/build.log"
    exit 1
}
ls -l dist

echo "the wheel, in a bare environment"
install bare dist/*.whl
here=$PWD
cd "$folder"
"bare/bin/python" "$here/tools/make_images.py" images --count 200 --roots 2
bare/bin/pack-images images/* -o made.h5 --size 32 --quiet
bare/bin/h5split info made.h5
bare/bin/h5split verify made.h5 --sources --quiet
bare/bin/python -c "
import h5split, pack_images
test, train = h5split.SplitSequence('made.h5').split(0.2)
assert sum(len(images) for images, labels in train) == 160
assert h5split.__version__ == pack_images.__version__
"
for program in pack-images h5split; do "bare/bin/$program" --version; done

echo "the sdist, by its own tests"
mkdir sdist
tar -xzf "$here"/dist/*.tar.gz -C sdist --strip-components 1
install testing "$folder/sdist[$extras]"
cd sdist
../testing/bin/python -m pytest --numprocesses logical --maxprocesses 8 --dist worksteal "$@"
