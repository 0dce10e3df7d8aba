"""The snippets of docs/guidance.md run, in order, as one program; its recipe is one."""

import re
from pathlib import Path

import pytest
import yaml
from PIL import Image
from tiny import text_to_image, unconditional

from latentdiff import NoisyLatentClassifier
from latentdiff.config import from_mapping
from latentdiff.training.recipes import ClassifierRecipe

TEXT = (Path(__file__).parents[2] / "docs" / "guidance.md").read_text(encoding="utf-8")


@pytest.mark.thorough
def test_snippets_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    unconditional(tmp_path).save_pretrained("my-model")
    unconditional(tmp_path).save_pretrained("my-earlier-model")
    text_to_image(tmp_path).save_pretrained("my-text-model")
    options = yaml.safe_load(re.search(r"```yaml\n(.*?)```", TEXT, re.DOTALL)[1])
    recipe = from_mapping(ClassifierRecipe, options)
    small = {"block_out_channels": [8, 8, 8, 8], "layers_per_block": 1, "num_head_channels": 8, "norm_num_groups": 4}
    names = {"num_classes": 2, "class_names": ["cat", "dog"], "sample_size": 8}
    NoisyLatentClassifier(**{**recipe.classifier, **small, **names}).save_pretrained("my-run/classifier")
    Image.new("RGB", (4, 4), "red").save("small.png")
    exec("\n".join(re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)), {})
