# The other scripts source this file, in the project's folder. use_environment makes .venv unless it exists, installs the
# project into it with the given extras, and sets $python.

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
