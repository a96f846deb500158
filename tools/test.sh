#!/bin/sh
# Every check a change must pass: format, lint, types, tests.
set -eu
cd "$(dirname "$0")/.."
. tools/environment.sh

use_environment dev,backends
"$python" -m ruff format --check .
"$python" -m ruff check .
"$python" -m mypy
"$python" -m pytest "$@"
