#!/usr/bin/env bash
# Makes ./.venv with the package as CI pins it, then checks style, types and behaviour.
#   ./check.sh                          everything that CI checks
#   ./check.sh --quick                  without the tests marked `thorough`: for the loop while writing
#   ./check.sh tests/schedulers -k ddim arguments go to pytest
set -euo pipefail
cd "$(dirname "$0")"
unset PYTHONDONTWRITEBYTECODE # else every process of the tests compiles all of them anew, which takes seconds

installed() { # what .venv was made from, as far as it is here to be compared
    pwd
    cat check.sh pyproject.toml constraints.txt
}
[ -x .venv/bin/python ] || "${PYTHON:-python3}" -m venv .venv
if ! installed | cmp -s - .venv/installed; then
    # torch first and by its exact version: whatever comes after then finds it there and fetches no other build.
    .venv/bin/pip install --quiet --disable-pip-version-check "$(grep '^torch==' constraints.txt)"
    .venv/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,emoji,evaluation,training,datasets,tiff,study,docs,demo]'
    installed >.venv/installed
fi

.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
if [ "${1:-}" = --quick ]; then
    shift
    set -- -m 'not slow and not gpu and not thorough' "$@"
fi
.venv/bin/python -m pytest -n auto --dist worksteal "$@"
