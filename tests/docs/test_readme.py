"""Commands of README and docs/from-original.md are ones that there are; those under pictures make images."""

import re
import shlex
from pathlib import Path

import pytest
from PIL import Image
from readme_pictures import ENTRY, PICTURES, ROOT, commands, picture, write_badges

import latentdiff
from latentdiff.cli.main import make_app
from latentdiff.tasks import TASKS

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
FENCED = [
    line.partition(" #")[0].strip().removeprefix(".venv/bin/")
    for fence in re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL)
    for line in re.split(r"\n|&&", fence)
    if re.match(r" *(\.venv/bin/)?latentdiff ", line)
]


SIDE_BY_SIDE = re.findall(r"`(latentdiff [^`]+)`", (ROOT / "docs" / "from-original.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize("line", [*FENCED, *(line for _, line in ENTRY.findall(TEXT)), *SIDE_BY_SIDE])
def test_the_command_line_takes_it(line):
    words = shlex.split(line)[1:]
    if words[0] == "train" and words[1].endswith(".yaml"):
        return  # which tests/hub/test_newcomer.py runs
    make_app().parse_args(words, print_error=False, exit_on_error=False)


def test_every_task_is_in_the_table():
    rows = re.findall(r"^\| [\w -]+ \| `(\w+)` \| `([\w-]+)` \|", TEXT, re.MULTILINE)
    assert sorted(rows) == sorted((spec.pipeline_class, spec.command) for spec in TASKS.values() if spec.command)


def test_built_in_models_are_those_of_the_package():
    folder = Path(latentdiff.__file__).parent / "builtin"
    there = {f"builtin:{path.parent.name}" for path in folder.glob("*/model_index.json")}
    table = TEXT.partition("## Tasks")[2].partition("## Train")[0]
    assert set(re.findall(r"builtin:[\w-]+", table)) == there


@pytest.mark.thorough
@pytest.mark.parametrize("name", commands())
def test_the_command_under_a_picture_makes_it(name, monkeypatch):
    monkeypatch.chdir(ROOT)

    made = picture([*commands()[name], "--steps", "2"])
    assert made.size == Image.open(PICTURES / f"{name}.png").size


def test_badges_say_what_the_project_says(tmp_path):
    write_badges(tmp_path)
    badges = sorted(re.findall(r"docs/pictures/(badge-\w+\.svg)", TEXT))
    assert badges == sorted(path.name for path in tmp_path.iterdir())
    assert all((tmp_path / name).read_bytes() == (PICTURES / name).read_bytes() for name in badges)


def test_it_is_short():
    assert len(TEXT.splitlines()) <= 180
