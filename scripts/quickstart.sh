#!/usr/bin/env bash
# Environment, then: train, validate and show a small model on photographs that scikit-image brings along.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
enter_environment
cd "$root"
python scripts/quickstart.py "$@"
