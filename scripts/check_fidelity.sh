#!/usr/bin/env bash
# Compare our numbers with torch-fidelity's. Usage: scripts/check_fidelity.sh [FOLDER] [OPTIONS of check_fidelity.py]
#
# FOLDER, by default .fidelity, becomes an environment of its own: torch-fidelity 0.4 and the torchvision that belongs to
# the installed torch, both without their dependencies, beside the packages of the environment that `python` is of
# (torch, numpy, Pillow and tqdm). Nothing is added to that one. torchvision's compiled part needs a build of torch with
# CUDA; without it the check declares the two operators whose absence keeps torchvision from being imported.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:-.fidelity}
shift || true
python=${PYTHON:-python}
if [ ! -x "$folder/bin/python" ]; then
    "$python" -m venv --without-pip "$folder"
    site=$("$folder/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    "$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > "$site/outer.pth"
    # torch 2.N belongs to torchvision 0.(N + 15).
    minor=$("$python" -c 'import torch; print(int(torch.__version__.split(".")[1]) + 15)')
    "$python" -m pip install --quiet --no-deps --target "$site" "torch-fidelity==0.4.*" "torchvision==0.$minor.*"
fi
PYTHONPATH=src "$folder/bin/python" scripts/check_fidelity.py "$@"
