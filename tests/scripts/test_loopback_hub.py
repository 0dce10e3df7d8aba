"""scripts/loopback_hub.py, as one would start it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import tiny_unconditional

SCRIPT = Path(__file__).parents[2] / "scripts" / "loopback_hub.py"
LOAD = "from latentdiff import DiffusionPipeline as P; print(len(P.from_pretrained('me/tiny').components))"


@pytest.mark.thorough
def test_another_process_loads_what_it_was_started_with(tmp_path):
    folder = tiny_unconditional(tmp_path / "tiny")
    words = [sys.executable, SCRIPT, "--port", "0", "--add", f"me/tiny={folder}"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
        try:
            line = server.stdout.readline()
            environment = dict(re.findall(r"(\w+)=(\S+)", line)) | {"HF_HOME": str(tmp_path / "cache")}
            assert environment.keys() >= {"HF_ENDPOINT", "HF_TOKEN", "HF_HUB_DISABLE_XET"}
            loaded = subprocess.run(
                [sys.executable, "-c", LOAD],
                env={**os.environ, **environment},
                capture_output=True,
                text=True,
                check=False,
            )
            assert (loaded.returncode, loaded.stdout) == (0, "3\n"), loaded.stderr
        finally:
            server.terminate()


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("words", "message"),
    [(["--add", "tiny"], "give OWNER/NAME=FOLDER"), (["--add", "me/tiny=nowhere"], "give OWNER/NAME=FOLDER")],
)
def test_what_it_cannot_serve_is_one_line(words, message):
    found = subprocess.run([sys.executable, SCRIPT, "--port", "0", *words], capture_output=True, text=True, check=False)
    assert found.returncode == 1 and message in found.stderr and found.stderr.count("\n") == 1
