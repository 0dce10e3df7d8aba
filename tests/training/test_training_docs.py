"""The recipes of docs/training.md are recipes."""

import re
from pathlib import Path

import pytest
import yaml

from latentdiff.config import from_mapping
from latentdiff.registry import CONDITIONERS
from latentdiff.training.recipes import DiffusionRecipe, FirstStageRecipe

TEXT = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")


def blocks(kind):
    return [yaml.safe_load(block) for block in re.findall(rf"```yaml {kind}\n(.*?)```", TEXT, re.DOTALL)]


def test_first_stage():
    assert from_mapping(FirstStageRecipe, blocks("first-stage")[0]).resolution == 256


@pytest.mark.parametrize("condition", blocks("condition"), ids=lambda block: block["conditioning"])
def test_conditions(condition):
    recipe = from_mapping(DiffusionRecipe, {**blocks("diffusion")[0], **condition})
    recipe.check_used(recipe.conditioning, CONDITIONERS.get(recipe.conditioning).options)


def test_every_condition_is_told():
    told = {block["conditioning"] for block in [*blocks("condition"), *blocks("diffusion")]}
    assert told == set(CONDITIONERS.names())
