#!/bin/sh
# List known vulnerabilities of every package that the tests run on. pip-audit asks the package index for them.
# Exits with status 1 if there are any, or if the index gives no answer.
set -eu
cd "$(dirname "$0")/.."
. tools/environment.sh

use_environment dev,backends
auditor=build/audit
[ -x "$auditor/bin/pip-audit" ] || {
    python3 -m venv --clear "$auditor"
    "$auditor/bin/python" -m pip install --quiet --disable-pip-version-check pip-audit
}
"$python" -m pip freeze --disable-pip-version-check --exclude-editable >"$auditor/frozen.txt"
"$auditor/bin/pip-audit" --strict --no-deps --disable-pip --requirement "$auditor/frozen.txt"
