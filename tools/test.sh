#!/bin/sh
# Every check a change must pass: format, lint, types, tests.
#
#   sh tools/test.sh                          all tests, in a process for each core, of which there are at most 8
#   sh tools/test.sh tests/test_rows.py -n 0  what comes after the name goes to pytest; -n 0 is one process
set -eu
cd "$(dirname "$0")/.."
. tools/environment.sh
unset PYTHONDONTWRITEBYTECODE # tests start Python hundreds of times: compiling every module each time takes 50 ms

use_environment dev,backends
"$python" -m ruff format --check .
"$python" -m ruff check .
"$python" -m mypy
"$python" -m pytest --numprocesses logical --maxprocesses 8 --dist worksteal "$@"
