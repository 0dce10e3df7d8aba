#!/usr/bin/env bash
# Runs the fast tests with the lowest versions that pyproject.toml allows, in an environment that is removed afterwards.
# Arguments go to pytest. torch is that of constraints.txt, as there are no CPU builds of older ones on PyPI; where its
# GPU build may be fetched, `TORCH=2.10.0 scripts/check_lowest.sh` tests the lowest torch, too.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
pip=("$folder/venv/bin/pip" --disable-pip-version-check)

"$folder/venv/bin/python" - >"$folder/lowest.txt" <<'END'
import re
import tomllib

with open("pyproject.toml", "rb") as file:
    project = tomllib.load(file)["project"]
for requirement in sum(project["optional-dependencies"].values(), project["dependencies"]):
    bound = re.match(r"([\w-]+)>=([\w.]+)", requirement)
    if bound and bound[1] != "torch":
        print(f"{bound[1]}=={bound[2]}")
    elif not bound and requirement in project["dependencies"]:
        raise SystemExit(f"{requirement} has no lower bound")
END

"${pip[@]}" install --quiet "torch==${TORCH:-$(sed -n 's/^torch==//p' constraints.txt)}"
"${pip[@]}" install --quiet --constraint "$folder/lowest.txt" '.[emoji,evaluation,training,datasets,tiff,study]' pytest scikit-image
"${pip[@]}" check
cat "$folder/lowest.txt"
env -u PYTHONPATH OMP_NUM_THREADS=1 "$folder/venv/bin/python" -m pytest -p no:cacheprovider "$@"
