#!/bin/sh
# Run the tests on the lowest version that pyproject.toml allows of each package it names.
#
#   sh tools/lowest.sh dev                     without a backend
#   sh tools/lowest.sh dev,tensorflow,jax      with two backends
#
# Arguments after the extras go to pytest. The environment is made in build/, anew each time.
set -eu
cd "$(dirname "$0")/.."
extras=${1:-dev}
[ $# = 0 ] || shift
environment=build/lowest-$extras
python3 -m venv --clear "$environment"
"$environment/bin/python" - >"$environment/constraints.txt" <<'END'
import re
import tomllib

with open("pyproject.toml", "rb") as file:
    project = tomllib.load(file)["project"]
for requirement in {*project["dependencies"], *sum(project["optional-dependencies"].values(), [])}:
    if bound := re.fullmatch(r"([\w-]+)(?:\[.*])?>=([\d.]+)", requirement):
        print(f"{bound[1]}=={bound[2]}")
END
"$environment/bin/python" -m pip install --quiet --disable-pip-version-check \
    --constraint "$environment/constraints.txt" --editable ".[$extras]"
"$environment/bin/python" -m pip list --disable-pip-version-check
"$environment/bin/python" -m pytest --numprocesses logical --maxprocesses 8 --dist worksteal "$@"
