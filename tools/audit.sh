#!/bin/sh
# Known vulnerabilities of every package that the tests run on, by pip-audit, which asks the package index for them.
# Status 1 if there are any, or if the index does not tell.
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
