#!/usr/bin/env bash
# Has axe-core look for faults of accessibility in the page of `latentdiff demo`: every task, light and dark.
#   scripts/check_accessibility.sh [PYTHON]     by default ./.venv/bin/python
# It needs npm, which fetches axe-core (MPL-2.0, no part of this repository), chromium, playwright and latentdiff[demo].
set -euo pipefail
cd "$(dirname "$0")/.."
python="${1:-.venv/bin/python}"
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
npm install --silent --no-audit --no-fund --prefix "$folder" axe-core@4
AXE="$folder/node_modules/axe-core/axe.min.js" "$python" -m pytest -q tests/demo/test_accessibility.py
