#!/usr/bin/env bash
# Makes ./.venv with the package as CI pins it, then checks style, types and behaviour. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")"
[ -x .venv/bin/python ] || "${PYTHON:-python3}" -m venv .venv
# torch first and by its exact version: whatever comes after then finds it there and fetches no other build.
.venv/bin/pip install --quiet --disable-pip-version-check "$(grep '^torch==' constraints.txt)"
.venv/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,emoji,training,datasets,tiff]'
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
.venv/bin/python -m pytest "$@"
