"""The recipes' classes: what their options say of themselves, which mistakes are one line with the place, and types."""

import json
import subprocess
import sys

import pytest
import toy
import yaml

from latentdiff import ConfigError
from latentdiff.config import from_mapping, json_schema, load_recipe, options_of, trait
from latentdiff.errors import LatentDiffWarning
from latentdiff.registry import CONDITIONERS
from latentdiff.tasks import TASKS
from latentdiff.training.diffusion.conditioners.options import (
    BUILT_IN,
    ConditionOptions,
    InpaintOptions,
    TextOptions,
    condition_options,
)
from latentdiff.training.diffusion.conditioners.unconditional import NoCondition
from latentdiff.training.engine.resume_check import check_same, identity
from latentdiff.training.recipes import ClassifierRecipe, DiffusionRecipe, FirstStageRecipe, Recipe

RECIPES = [FirstStageRecipe, DiffusionRecipe, ClassifierRecipe]
FIRST_STAGE = {"output_dir": "out", "data": {"train_data_dir": "images"}}
DIFFUSION = {**FIRST_STAGE, "vae": "vae", "unet": {"layers_per_block": 1}}
OF_DATA = {"train_data_dir", "dataset_name", "annotations", "label_maps", "max_bad_share", "num_workers"}


def of(cls, what, value):
    """The options that say this of themselves, or lie in a part that does."""
    parts = [name for name, field in cls.model_fields.items() if trait(field, what) == value]
    found = [known.name for known in options_of(cls) if trait(known.field, what) == value]
    return {*found, *(known.name for known in options_of(cls) if known.name.partition(".")[0] in parts)}


@pytest.mark.parametrize("cls", RECIPES)
def test_every_option_is_described_by_a_sentence(cls):
    for known in options_of(cls):
        assert known.description.endswith(".") and known.description[0] != known.description[0].lower(), known.name


def test_what_may_change_when_a_run_goes_on():
    free = {
        "output_dir",
        "resume_from_checkpoint",
        "overwrite_output_dir",
        "train_batch_size",
        "gradient_accumulation_steps",
        "report_to",
    }
    free |= {"max_train_steps", "gradient_checkpointing", "logging_steps", "max_skipped_steps"}
    free |= {f"data.{name}" for name in OF_DATA} | {"max_hours"}
    free |= {f"checkpoint.{name}" for name in ("steps", "total_limit", "export_steps", "keep_best")}
    free |= {f"validation.{name}" for name in ("steps", "data_dir", "best", "stop_after")}
    assert of(Recipe, "resume", "free") == free
    own = {"validation.samples", "validation.prompts", "validation.inference_steps", "validation.guidance_scale"}
    own |= {f"validation.{name}" for name in ("denoising", "metrics", "count", "reference", "reference_count")}
    assert of(DiffusionRecipe, "resume", "free") == free | own | {"vae", "push_to_hub", "latents_dir", "lora.merge"}
    remedies = {f"optimizer.{name}" for name in ("learning_rate", "lr_scheduler", "lr_warmup_steps", "max_grad_norm")}
    assert of(Recipe, "resume", "remedy") == remedies | {"mixed_precision"}


def test_what_a_pretrained_pipeline_brings_along():
    own = {"text_encoder", "vocabulary", "class_embedder", "layout_encoder", "layout_tokenizer", "segmentation_encoder"}
    own |= {"text.text_encoder", "text.vocabulary"}
    expected = {"unet", "noise_schedule", "latent_scale_images", *(f"conditioning.{name}" for name in own)}
    assert of(DiffusionRecipe, "of_pipeline", True) == expected


def test_every_conditioner_has_its_options():
    assert set(BUILT_IN) == {name for name, spec in TASKS.items() if spec.conditioner is not None}
    for name, kind in BUILT_IN.items():
        assert CONDITIONERS.get(name).options_class is kind is condition_options(name) and kind(type=name).type == name


def test_a_name_is_short_for_its_type():
    short, long = (
        from_mapping(DiffusionRecipe, {**DIFFUSION, "conditioning": given})
        for given in ("inpaint", {"type": "inpaint"})
    )
    assert short == long and isinstance(short.conditioning, InpaintOptions)
    assert from_mapping(DiffusionRecipe, DIFFUSION).conditioning is None
    masks = load_recipe(DiffusionRecipe, None, {**DIFFUSION, "conditioning": "inpaint", "conditioning.masks.thin": "2"})
    assert masks.conditioning.masks == {"thin": 2.0}


def test_numbers_are_numbers_at_any_depth(tmp_path):
    text = """
        output_dir: out
        data: {train_data_dir: images, max_bad_share: 1e-2, value_range: [-1e3, 3e3]}
        vae: vae
        unet: {dropout: 1e-1}
        noise_schedule: {beta_start: 1e-4}
        conditioning: {type: inpaint, masks: {thin: 1e-9, box: 1}}
        optimizer: {learning_rate: 1e-4, options: {eps: 1e-6, betas: [9e-1, 0.99]}}
        max_train_steps: 1e4
        mixed_precision: no
    """
    (tmp_path / "recipe.yaml").write_text(text.replace("        ", ""))
    recipe = load_recipe(DiffusionRecipe, tmp_path / "recipe.yaml")
    assert recipe.data.max_bad_share == 0.01 and recipe.data.value_range == (-1000, 3000)
    assert recipe.unet == {"dropout": 0.1} and recipe.noise_schedule == {"beta_start": 1e-4}
    assert recipe.conditioning.masks == {"thin": 1e-9, "box": 1}
    assert recipe.optimizer.learning_rate == 1e-4
    assert recipe.optimizer.options == {"eps": 1e-6, "betas": [0.9, 0.99]}
    assert recipe.max_train_steps == 10_000 and recipe.mixed_precision == "no"


WRONG = {
    "a misspelled option three levels deep": (
        FirstStageRecipe,
        {**FIRST_STAGE, "loss": {"adversarial": {"discriminator": {"layrs": 3}}}},
        "unknown option 'loss.adversarial.discriminator.layrs'; did you mean 'loss.adversarial.discriminator.layers'?",
    ),
    "a string for a number": (
        DiffusionRecipe,
        {**DIFFUSION, "optimizer": {"learning_rate": "fast"}},
        "optimizer.learning_rate is 'fast'; it must be a number above 0",
    ),
    "a string for a number three levels deep": (
        FirstStageRecipe,
        {**FIRST_STAGE, "loss": {"adversarial": {"discriminator": {"layers": "three"}}}},
        "loss.adversarial.discriminator.layers is 'three'; it must be an integer of at least 1",
    ),
    "two conditioners' options": (
        DiffusionRecipe,
        {**DIFFUSION, "conditioning": {"type": "inpaint", "masks": {"thin": 1}, "degradation": "bsr"}},
        "conditioning.degradation is given, but type is 'inpaint', which takes text, dropout, masks; it is an "
        "option of 'super-resolution'",
    ),
    "no type": (
        DiffusionRecipe,
        {**DIFFUSION, "conditioning": {"masks": {"thin": 1}}},
        "conditioning is {'masks': {'thin': 1}}; it must be 'text-to-image' or 'class-to-image' or "
        "'layout-to-image' or 'semantic-to-image' or 'super-resolution' or 'inpaint' or 'unconditional' or 'hybrid', "
        "or a mapping with that as its type, or null",
    ),
    "a check across options": (
        DiffusionRecipe,
        {**DIFFUSION, "loss": {"huber_c": 0.5}},
        "loss.huber_c is given, but type is 'l2'; leave it out",
    ),
    "a check across parts": (
        FirstStageRecipe,
        {**FIRST_STAGE, "loss": {"lpips": {"vgg16": "a"}}},
        "loss.lpips is given, but neither loss.perceptual_weight nor validation.steps is; give one of them",
    ),
    "a run's folder that is another's": (
        ClassifierRecipe,
        {**FIRST_STAGE, "pretrained_model_name_or_path": "model", "latents_dir": "./out"},
        "output_dir is out, the folder of latents_dir; give a folder of the run's own",
    ),
    "an old name": (
        DiffusionRecipe,
        {**DIFFUSION, "adam_beta1": 0.9},
        "unknown option 'adam_beta1'; did you mean 'optimizer.beta1'?",
    ),
    "an old part": (
        DiffusionRecipe,
        {**DIFFUSION, "loss": "l1"},
        "loss is 'l1'; it must be a mapping of type, huber_c, elbo_weight, learn_logvar, logvar_init, noise_offset, "
        "snr_gamma",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_is_one_line_with_the_place(name, tmp_path):
    cls, values, message = WRONG[name]
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(ConfigError) as caught:
        load_recipe(cls, path)
    assert str(caught.value) == f"{path}: {message}"
    with pytest.raises(ConfigError) as caught:
        cls(**values)
    assert str(caught.value) == message


class OwnOptions(ConditionOptions):
    column: str = "small"
    """The column."""
    strength: float = 1.0
    """The strength."""


def test_a_conditioner_of_one_s_own_has_options_of_its_own():
    CONDITIONERS.register("own")(type("Own", (NoCondition,), {"task": "unconditional", "options_class": OwnOptions}))
    try:
        made = {**DIFFUSION, "conditioning": {"type": "own", "strength": "1e-1"}}
        recipe = from_mapping(DiffusionRecipe, made)
        assert isinstance(recipe.conditioning, OwnOptions) and recipe.conditioning.type == "own"
        assert recipe.model_dump()["conditioning"] == {"type": "own", "column": "small", "strength": 0.1}
        assert recipe.replace(seed=1).conditioning is recipe.conditioning
        for wrong, message in (
            ({"strenth": 1}, r"unknown option 'conditioning\.strenth'; did you mean 'conditioning\.strength'"),
            ({"strength": "x"}, r"conditioning\.strength is 'x'; it must be a number"),
            ({"masks": {}}, r"conditioning\.masks is given, but type is 'own', which takes column, strength"),
        ):
            with pytest.raises(ConfigError, match=message):
                from_mapping(DiffusionRecipe, {**DIFFUSION, "conditioning": {"type": "own", **wrong}})
    finally:
        CONDITIONERS._entries.pop("own", None)


def resumed(first, second, tmp_path):
    """What is said where a run of the first recipe goes on with the second."""
    made = [from_mapping(FirstStageRecipe, {**FIRST_STAGE, **values}) for values in (first, second)]
    theirs, ours = (json.loads(json.dumps(identity(recipe, 16, 100))) for recipe in made)
    check_same(tmp_path, theirs, ours, made[1])


def test_a_part_that_was_null_is_another_recipe(tmp_path):
    """Even where all options of the part have their defaults."""
    with pytest.raises(ConfigError, match=r"loss\.adversarial\.weight is 0\.5, was None"):
        resumed({}, {"loss": {"adversarial": {}}}, tmp_path)
    with pytest.raises(ConfigError, match=r"loss\.adversarial\.weight is None, was 0\.5"):
        resumed({"loss": {"adversarial": {}}}, {}, tmp_path)
    resumed({"loss": {"kl_weight": 1e-6}}, {"max_train_steps": 7, "validation": {"share": 0.5}}, tmp_path)
    with pytest.warns(LatentDiffWarning, match=r"but optimizer\.learning_rate is 1\.0, was 0\.0001"):
        resumed({}, {"optimizer": {"learning_rate": 1}}, tmp_path)


def test_the_schema_takes_what_the_recipes_take():
    json.dumps(json_schema(*RECIPES), allow_nan=False)
    schema = json_schema(DiffusionRecipe)
    names, tasks, several, null = schema["properties"]["conditioning"]["anyOf"]
    joinable = set(BUILT_IN) - {"unconditional", "hybrid"}
    name, one = several["items"]["anyOf"]
    assert several["type"] == "array" and set(name["enum"]) == joinable and len(one["oneOf"]) == len(joinable)
    assert set(names["enum"]) == set(BUILT_IN) and null == {"type": "null"}
    kinds = [schema["$defs"][place["$ref"].rpartition("/")[2]] for place in tasks["oneOf"]]
    assert {kind["properties"]["type"]["const"] for kind in kinds} == set(BUILT_IN)
    dropout = schema["$defs"][TextOptions.__name__]["properties"]["dropout"]
    assert (dropout["minimum"], dropout["maximum"], dropout["default"]) == (0, 1, 0.1) and dropout["description"]


def test_recipes_are_read_without_torch():
    code = "import sys; from latentdiff.training.recipes import DiffusionRecipe; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_toy_recipe_says_what_was_given(tmp_path):
    recipe = toy.recipe("class-to-image", tmp_path, tmp_path, tmp_path, **{"conditioning.dropout": 0.1})
    assert recipe.conditioning.given("dropout") and recipe.given("vae") and not recipe.given("lora")
    assert not toy.recipe("class-to-image", tmp_path, tmp_path, tmp_path).conditioning.given("dropout")
