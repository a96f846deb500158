#!/bin/sh
# Every check a change must pass: format, lint, types, tests.
#
#   sh tools/test.sh                          all tests, in one process per core, but at most 8
#   sh tools/test.sh tests/test_rows.py -n 0  arguments go to pytest; -n 0 means one process
set -eu
cd "$(dirname "$0")/.."
. tools/environment.sh
unset PYTHONDONTWRITEBYTECODE # tests start Python hundreds of times, and compiling all modules takes 50 ms each time

use_environment dev,backends
"$python" -m ruff format --check .
"$python" -m ruff check .
# Windows reads and trains (docs/windows.md). Beside the other, with a cache of its own: either would discard the other's.
"$python" -m mypy --platform win32 --package h5split --cache-dir build/mypy-win32 &
for_windows=$!
"$python" -m mypy
wait "$for_windows"
"$python" -m pytest --numprocesses logical --maxprocesses 8 --dist worksteal "$@"
