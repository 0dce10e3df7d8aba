"""Every command line of the documentation is run, with a tiny model and its inputs."""

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import CLASSES

from latentdiff.cli.commands import IMAGE_COMMANDS

TEXT = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
LINES = [line for line in TEXT.splitlines() if line.startswith("latentdiff ")]
CHANGED = {"50000": "2", "tench": CLASSES[0], "207": "2", "0-9": "3-4"}  # too many, or not known to the tiny model


@pytest.fixture
def inputs(tmp_path):
    """What the command lines name."""
    grey = np.tile(np.arange(8, dtype=np.uint8), (8, 1))
    for name, pixels in (("photos/a", 30 * grey), ("apple", 30 * grey), ("masks/a", 36 * grey), ("maps/a", grey // 2)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    (tmp_path / "boxes.json").write_text(json.dumps({"objects": [{"class": CLASSES[0], "box": [0, 0, 1, 1]}]}))


@pytest.mark.thorough
@pytest.mark.usefixtures("inputs")
@pytest.mark.parametrize("line", LINES, ids=lambda line: line.split()[1])
def test_line(run, models, tmp_path, line):
    _, command, *words = shlex.split(line)
    words = [CHANGED.get(word, word) for word in words]
    code, out, err = run(command, *words, "--model", models[command], "--steps", 2, "--overwrite")
    assert (code, err) == (0, [])
    assert out and all((tmp_path / printed.split("\t")[0]).is_file() for printed in out)


def test_there_is_one_for_every_image_command():
    assert {line.split()[1] for line in LINES} == set(IMAGE_COMMANDS)
