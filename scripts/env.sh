# Sourced by the other scripts: enters the repository's virtual environment .venv, made and filled where it is not.
# A second run starts working at once; an interrupted installation is taken up again.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

find_python() {
    local candidate
    for candidate in python3.13 python3.12 python3.11 python3.10 python3 python; do
        # A shim of a version manager can be there and not run.
        if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1; then
            echo "$candidate"
            return
        fi
    done
    echo 'No Python from 3.10 on with venv found: install one.' >&2
    return 1
}

install_all() {
    python -m ensurepip && # an interrupted venv may lack pip
        python -m pip install --upgrade pip setuptools wheel cython numpy &&
        # torch first: BasicSR's build needs it, and an isolated build would fetch it a second time.
        python -m pip install torch torchvision &&
        # BasicSR's own setup.py fails from Python 3.13 on without this folder.
        PYTHONPATH="$root/scripts/python313" python -m pip install --no-build-isolation -e "$root[all]"
} >"$log" 2>&1

enter_environment() {
    local python
    if [ ! -x "$root/.venv/bin/python" ]; then
        python=$(find_python) || return 1
        echo "Making .venv with $("$python" --version)"
        "$python" -m venv "$root/.venv" || return 1
    fi
    # Not bin/activate: after a move of the repository, that would leave `python` to be the system's.
    export VIRTUAL_ENV="$root/.venv" PATH="$root/.venv/bin:$PATH"
    hash -r
    local stamp log="$root/.venv/install.log"
    stamp=$(cat "$root/setup.py" <(python --version) <(echo "$root") | cksum)
    if [ "$(cat "$root/.venv/installed" 2>/dev/null)" != "$stamp" ]; then
        echo 'Installing torch, BasicSR and the rest into .venv (minutes and some GB, once) ...'
        if ! install_all; then
            tail -n 15 "$log" | sed -E 's#[a-z+]+://[^ ]+#<address>#g' >&2
            echo "The installation failed; all it said is in $log. Mend the cause and run this again." >&2
            return 1
        fi
        if ! python -c 'import cv2' 2>/dev/null; then
            python -c 'import cv2' 2>&1 | tail -n 1 >&2
            echo 'OpenCV lacks a system library; on Debian and Ubuntu: apt-get install libgl1 libglib2.0-0' >&2
            return 1
        fi
        echo "$stamp" >"$root/.venv/installed"
    fi
}
