#!/usr/bin/env bash
# Environment, then the linter and the tests. --full adds the long suites; other arguments go to pytest.
set -euo pipefail
if [[ ${1-} =~ ^(-h|--help)$ ]]; then
    echo 'Usage: bash scripts/test.sh [--full] [arguments of pytest]   (--full adds the long suites)'
    exit
fi
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
enter_environment
cd "$root"
export OMP_NUM_THREADS=1 # toy tensors gain nothing from threads, and forked processes cannot use their parent's
ruff check .
lint-imports --no-logo --no-cache
mypy
python -m pytest "$@"
