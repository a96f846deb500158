# Sourced by the scripts beside it, in the project's folder: makes .venv, or takes the one there is, and installs the
# project into it with the extras named. Sets $python.

fail() {
    echo "$1" >&2
    exit 1
}

use_environment() {
    python=.venv/bin/python
    if ! [ -x "$python" ]; then
        echo "making .venv"
        python3 -m venv .venv || {
            rm -rf .venv
            fail "python3 -m venv failed: expected Python 3.11 or newer with venv and pip"
        }
    fi
    stamp=".venv/installed-$1"
    wanted=$(cat pyproject.toml tools/environment.sh | cksum)
    if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
        echo "installing pack-images[$1] into .venv"
        "$python" -m pip install --quiet --disable-pip-version-check --editable ".[$1]" ||
            fail "pip could not install pack-images[$1]: see its message above; nothing else was run"
        echo "$wanted" >"$stamp"
    fi
}
