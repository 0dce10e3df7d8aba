"""The recipes of docs/training.md fit together, and its conditioner trains."""

import json
import re
from pathlib import Path

import pytest
import torch
import toy
import yaml
from PIL import Image

from latentdiff import (
    ConfigError,
    DiffusionPipeline,
    InputError,
    PerceptualDistance,
    SuperResolutionPipeline,
    TinyDecoder,
    UNet2DConditionModel,
)
from latentdiff.cli.commands.train import STAGES
from latentdiff.config import flat, from_mapping, named
from latentdiff.data.options import DataOptions
from latentdiff.registry import CONDITIONERS
from latentdiff.training.diffusion.conditioners.options import condition_options
from latentdiff.training.first_stage.autoencoder import make_first_stage
from latentdiff.training.first_stage.task import FirstStageTask
from latentdiff.training.recipes import DiffusionRecipe, FirstStageRecipe

TEXT = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
LATENTS = 3


def blocks(kind):
    return [yaml.safe_load(block) for block in re.findall(rf"```yaml {kind}\n(.*?)```", TEXT, re.DOTALL)]


def of_first_stage(option):
    """The block of a first stage that shows an option."""
    return next(block for block in blocks("first-stage") if option in flat(block) or option in block)


@pytest.mark.parametrize(
    "option",
    [
        "phases",
        "report",
        "loss.equivariance.probability",
        "model.downsampling_factor",
        "model.levels",
        "distill_decoder",
    ],
)
def test_blocks_of_a_first_stage_fit(option):
    plain, lines = blocks("first-stage")[0], of_first_stage(option)
    recipe = from_mapping(FirstStageRecipe, {**plain, **lines})
    if not recipe.distill_decoder:
        with torch.device("meta"):
            FirstStageTask(make_first_stage(recipe.model, 3, recipe.data.resolution), recipe)
    assert len(blocks("first-stage")) == 8


def test_first_stage():
    plain, full = blocks("first-stage")[:2]
    recipe = from_mapping(FirstStageRecipe, {**plain, **full})
    adversarial = full["loss"]["adversarial"]
    assert recipe.data.resolution == 256 and recipe.loss.adversarial.start_step == adversarial["start_step"]
    with torch.device("meta"):
        FirstStageTask(make_first_stage(recipe.model, 3, recipe.data.resolution), recipe, PerceptualDistance())


def test_a_tiny_decoder():
    plain, tiny = blocks("first-stage")[0], of_first_stage("distill_decoder")
    recipe = from_mapping(FirstStageRecipe, {**plain, **tiny})
    assert recipe.distill_decoder and recipe.model["pretrained_model_name_or_path"] == f"{plain['output_dir']}/vae"
    with torch.device("meta"):
        assert len(TinyDecoder(**recipe.decoder).config.block_out_channels) == 4


def test_several_data_sets():
    (data,) = blocks("data")
    assert [(one.dir, one.weight) for one in from_mapping(DataOptions, data).train_data] == [
        ("photos", 3),
        ("paintings", 1),
    ]


def test_every_stage_is_in_the_table_of_commands():
    assert re.findall(r"^\| `latentdiff train ([\w-]+)` \|", TEXT, re.MULTILINE) == list(STAGES)


def test_every_task_has_a_recipe_and_a_line_of_the_table():
    rows = re.findall(r"^\| `([\w-]+)` \|", TEXT.partition("## The data")[2], re.MULTILINE)
    assert rows[0] == "conditioning" and sorted(rows[1:]) == sorted(toy.TASKS)
    assert sorted(map(task_of, blocks("diffusion") + blocks("condition"))) == sorted(toy.TASKS)


def task_of(lines):
    return named(lines["conditioning"])["type"]


@pytest.mark.parametrize("lines", [*blocks("diffusion"), *blocks("condition")], ids=task_of)
def test_recipes_fit(lines):
    recipe = from_mapping(DiffusionRecipe, {**blocks("diffusion")[0], **lines})
    kind, task = CONDITIONERS.get(recipe.conditioning.type), recipe.conditioning.type
    assert type(recipe.conditioning) is condition_options(task) is kind.options_class
    options = {"in_channels": LATENTS, "out_channels": LATENTS} | kind.unet_options(recipe.conditioning, LATENTS)
    with torch.device("meta"):
        unet = UNet2DConditionModel(**options, **recipe.unet)
    more = {"inpaint": 4, "super-resolution": 3, "semantic-to-image": 3}
    assert unet.config.in_channels - LATENTS == more.get(task, 0)


@pytest.mark.thorough
def test_the_conditioner_of_the_documentation(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    try:
        exec(code, {})
        data, torch_vae = toy.write(tmp_path / "data"), toy.write_vae(tmp_path / "vae")
        rows = toy.lines(data)
        for row in rows:
            row["measured"] = f"maps/small_{row['file_name']}"
            Image.fromarray(toy.small(data / row["file_name"])).save(data / row["measured"])
        (data / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
        options = {"conditioning.column": "measured", "max_train_steps": 1, "data.random_flip": True}
        output = toy.train("measured-pairs", data, torch_vae, tmp_path / "run", **options)
        pipe = DiffusionPipeline.from_pretrained(output / "pipeline")
        assert type(pipe) is SuperResolutionPipeline
        again = {**options, "pretrained_model_name_or_path": str(output / "pipeline")}
        toy.train("measured-pairs", data, torch_vae, tmp_path / "again", **again)
        with pytest.raises(InputError, match="has no 'small' in some lines"):
            toy.train("measured-pairs", data, torch_vae, tmp_path / "bad", **options | {"conditioning.column": "small"})
        with pytest.raises(ConfigError, match=r"unknown option 'conditioning\.colum'; did you mean 'cond\w+\.column'"):
            toy.train("measured-pairs", data, torch_vae, tmp_path / "bad", **{"conditioning.colum": "small"})
    finally:
        CONDITIONERS._entries.pop("measured-pairs", None)


@pytest.mark.parametrize("lines", blocks("option"), ids=lambda lines: next(iter(lines)))
def test_options_fit(lines):
    recipe = from_mapping(DiffusionRecipe, {**blocks("diffusion")[0], **lines})
    said = flat(recipe.model_dump())
    if isinstance(several := lines.get("conditioning"), list):
        parts = zip(several, recipe.conditioning.parts, strict=True)
        assert all(flat(given).items() <= flat(part.model_dump()).items() for given, part in parts)
        return
    assert all(said[name] == value for name, value in flat(lines).items())


def test_a_recipe_in_python():
    (code,) = re.findall(r"```python recipe\n(.*?)```", TEXT, re.DOTALL)
    made = {}
    exec(code, made)
    assert made["recipe"].optimizer.learning_rate == 5e-5 and made["longer"].max_train_steps == 200_000
    assert made["longer"].optimizer is made["recipe"].optimizer


@pytest.mark.parametrize("line", re.findall(r"^recipe\.yaml: .*", TEXT, re.MULTILINE))
def test_messages_are_those_of_the_documentation(line):
    kind = FirstStageRecipe if "adversarial" in line else DiffusionRecipe
    wrong = {
        "fast": {"optimizer": {"learning_rate": "fast"}},
        "layrs": {"loss": {"adversarial": {"discriminator": {"layrs": 3}}}},
        "option 'learning_rate'": {"learning_rate": 1e-4},
        "masks": {"conditioning": {"type": "unconditional", "masks": {"thin": 1}}},
    }
    (values,) = [values for text, values in wrong.items() if text in line]
    with pytest.raises(ConfigError) as caught:
        from_mapping(kind, {"output_dir": "out", "data": {"train_data_dir": "data"}, **values}, "recipe.yaml")
    assert str(caught.value) == line
