#!/usr/bin/env bash
# Environment, then: train, validate and show a small model on photographs that scikit-image brings along.
set -euo pipefail
if [ $# -gt 0 ]; then
    echo 'Usage: bash scripts/quickstart.sh   (no arguments; minutes at first for .venv, then about two for the training)'
    [[ $1 =~ ^(-h|--help)$ ]] && exit || exit 2
fi
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
enter_environment
cd "$root"
python scripts/quickstart.py
