"""The snippet of docs/bench.md runs, and its command lines are ones that the command takes."""

import re
import shlex
from pathlib import Path

import pytest

from latentdiff.cli.main import make_app

TEXT = (Path(__file__).parents[2] / "docs" / "bench.md").read_text(encoding="utf-8")
LINES = [line for line in TEXT.splitlines() if line.startswith("latentdiff bench ") and "MODEL" not in line]


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore::latentdiff.errors.LatentDiffWarning")
def test_the_snippet(tmp_path, monkeypatch, capsys, text_folder, make_reference):
    monkeypatch.chdir(tmp_path)
    make_reference("train-images")
    (snippet,) = re.findall(r"```py\n(.*?)```", TEXT, re.S)
    for written, here in {'"faces"': repr(str(text_folder)), "count=1000": "count=4", '"inception"': '"small"'}.items():
        assert written in snippet
        snippet = snippet.replace(written, here)
    exec(snippet, {})
    assert "('unipc', 10, " in capsys.readouterr().out


@pytest.mark.parametrize("line", LINES)
def test_the_command_takes_every_line(line):
    command, bound, _ = make_app().parse_args(shlex.split(line)[1:], print_error=False, exit_on_error=False)
    assert command.__name__ == "bench" and bound.args[0] in line
