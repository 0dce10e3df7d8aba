"""From a folder of photographs to a model on the hub, by what docs/start.md says and nothing else."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image, ImageFilter

from latentdiff.cli.main import main

TEXT = (Path(__file__).parents[2] / "docs" / "start.md").read_text(encoding="utf-8")
SMALL = {
    "model": {
        "block_out_channels": [8, 8, 8],
        "norm_num_groups": 4,
        "down_block_types": ["DownEncoderBlock2D"] * 3,
        "up_block_types": ["UpDecoderBlock2D"] * 3,
    },
    "unet": {
        "block_out_channels": [8, 8],
        "layers_per_block": 1,
        "attention_levels": [False, False],
        "num_head_channels": 8,
        "norm_num_groups": 4,
    },
}
FEW = {"train_batch_size": 2, "max_train_steps": 2, "mixed_precision": "no", "report_to": "none"}


def commands(text):
    """The lines of the page's fences of shell commands."""
    fences = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    return [line for fence in fences for line in fence.splitlines()]


def shell(line):
    """Run a command, whose patterns stand for the files that fit."""
    _, *words = shlex.split(line)
    expanded = [sorted(map(str, Path().glob(word))) if "*" in word else [word] for word in words]
    assert main([word for found in expanded for word in found]) == 0, line


def take_photographs(folder):
    folder.mkdir()
    for number in range(16):
        pixels = np.random.default_rng(number).integers(0, 256, (40 + number, 60 - number, 3), dtype=np.uint8)
        Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(4)).save(folder / f"{number:02d}.jpg")


def shrink(folder):
    """Have the recipes that `init` wrote take no time."""
    for path in folder.glob("photos-*.yaml"):
        recipe = yaml.safe_load(path.read_text())
        recipe |= {name: part for name, part in SMALL.items() if name in recipe}
        recipe["validation"] |= {"steps": 2} | ({"samples": 2, "inference_steps": 1} if "unet" in recipe else {})
        for costly in ("metrics", "count"):
            recipe["validation"].pop(costly, None)
        path.write_text(yaml.safe_dump({**recipe, **FEW}))


@pytest.mark.thorough
def test_the_page_leads_to_the_hub(hub, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    take_photographs(tmp_path / "photos")
    init, train, sample = commands(TEXT)
    shell(f"{init} --unmeasured")
    shrink(tmp_path)
    shell(train)
    (push,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    exec(push, {})
    files = hub.repos["me/photos"].commits[-1][1]
    assert {"README.md", "model_index.json", "gallery/1.png", "gallery/4.png"} <= files.keys()
    assert b"license: cc-by-4.0" in files["README.md"] and b"| ![](gallery/1.png) | seed 0 |" in files["README.md"]
    capsys.readouterr()
    shell(f"{sample} --steps 2")
    made = [Path(line.split("\t")[0]) for line in capsys.readouterr().out.splitlines()]
    assert len(made) == 4 and all(Image.open(path).size == (32, 32) for path in made)
