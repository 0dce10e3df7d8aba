"""Several conditions at once: from a list in a recipe to a pipeline that is asked for each of them."""

import pytest
import torch
import toy
from tiny import randomise

from latentdiff import ConfigError, DiffusionPipeline, InputError
from latentdiff.config import load_recipe
from latentdiff.conversion import describe
from latentdiff.conversion.to_diffusers import save_diffusers
from latentdiff.data.images import ImageFolder
from latentdiff.guidance.several import GuidanceOfSeveral
from latentdiff.pipelines.hybrid import HybridPipeline
from latentdiff.pipelines.hybrid_conditions import CONDITIONS
from latentdiff.seeding import SampleGenerators, array_generator
from latentdiff.training.data import check_condition, open_to_check
from latentdiff.training.diffusion.build import make_conditioner
from latentdiff.training.diffusion.conditioners.options import HybridOptions, InpaintOptions
from latentdiff.training.diffusion.task import DiffusionTask
from latentdiff.training.recipes import DiffusionRecipe

PAIRS = [
    ("class-to-image", "layout-to-image"),
    ("text-to-image", "semantic-to-image"),
    ("class-to-image", "inpaint"),
    ("semantic-to-image", "super-resolution"),
    ("text-to-image", "layout-to-image", "super-resolution"),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return toy.write(tmp_path_factory.mktemp("data") / "images")


@pytest.fixture(scope="module")
def vae(tmp_path_factory):
    torch.manual_seed(0)
    return toy.write_vae(tmp_path_factory.mktemp("model") / "vae")


def parts_of(data, tasks, **more):
    """A recipe's list of conditionings."""
    vocabulary = {"text-to-image": {"vocabulary": str(data / "vocab.txt")}}
    return [{"type": task, **toy.TASKS[task], **vocabulary.get(task, {}), **more} for task in tasks]


def conditioner_of(data, vae, tasks, **more):
    torch.manual_seed(0)
    recipe = toy.recipe("hybrid", data, vae, "unused", conditioning=parts_of(data, tasks, **more))
    images = ImageFolder(data, toy.SIDE)
    conditioner = make_conditioner(recipe, images)
    for name in conditioner.trains:
        randomise(getattr(conditioner.pipeline, name))
    randomise(conditioner.pipeline.unet)
    conditioner.pipeline.set_progress_bar_config(disable=True)
    rows = conditioner.rows(images)
    parts = [rows(index, toy.SQUARE, array_generator(0, index)) for index in (3, 17)]
    return conditioner, {name: torch.stack([part[name] for part in parts]) for name in parts[0]}, recipe


def inputs_of(data, tasks, batch, rows=None):
    """What a call gives of the same images."""
    rows = [toy.lines(data)[index] for index in (3, 17)] if rows is None else rows
    given = {
        "text-to-image": lambda: {"prompt": [row["text"] for row in rows]},
        "class-to-image": lambda: {"class_labels": [row["label"] for row in rows]},
        "layout-to-image": lambda: {"layouts": [row["objects"] for row in rows], "image_size": (16, 16)},
        "semantic-to-image": lambda: {"label_map": [data / row["label_map"] for row in rows]},
        "super-resolution": lambda: {"image": list((batch["small"] + 1) / 2)},
        "inpaint": lambda: {
            "image": [data / row["file_name"] for row in rows],
            "mask_image": list(batch["holes"].bool()),
        },
    }
    return {name: value for task in tasks for name, value in given[task]().items()}


def seen_by(unet, run):
    seen = []

    def hook(_, args, kwargs):
        context = kwargs.get("encoder_hidden_states")
        seen.append((args[0][:, 4:].detach(), [] if context is None else [key.detach() for key in context.keys]))

    handle = unet.register_forward_pre_hook(hook, with_kwargs=True)
    run()
    handle.remove()
    return seen[0]


@pytest.mark.parametrize("tasks", PAIRS)
def test_training_shows_the_network_what_sampling_does(data, vae, tasks):
    conditioner, batch, recipe = conditioner_of(data, vae, tasks)
    pipe, task = conditioner.pipeline, DiffusionTask(conditioner, recipe).eval()
    training = {"moments": torch.zeros(2, 8, 8, 8), **batch}
    channels, keys = seen_by(pipe.unet, lambda: task(training, SampleGenerators(0, range(2))))
    inputs = inputs_of(data, tasks, batch)
    options = {"num_inference_steps": 1, "seed": 0, "guidance_scale": 1, "output_type": "np"}
    others, other_keys = seen_by(pipe.unet, lambda: pipe(**inputs, **options))
    assert channels.numel() or keys
    for one, other in zip([channels, *keys], [others, *other_keys], strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


@pytest.mark.parametrize("tasks", PAIRS)
def test_each_condition_is_dropped_by_itself(data, vae, tasks):
    conditioner, batch, _ = conditioner_of(data, vae, tasks, dropout=0.5)
    pipe, draws = conditioner.pipeline, SampleGenerators(0, range(2))
    for place, name in enumerate(tasks):
        dropped = torch.zeros(2, len(tasks), dtype=torch.bool)
        dropped[1, place] = True
        kept = conditioner(batch, torch.zeros_like(dropped), draws)
        found = conditioner(batch, dropped, draws)
        null = CONDITIONS[name].null(pipe.part(name), (16, 16))
        for part, others, nothing in (
            (found.context, kept.context, null.context),
            (found.concat, kept.concat, null.concat),
        ):
            if part is None:
                continue
            assert torch.equal(part[0], others[0])
            same = (part[1] == others[1]).flatten(1).all(1)  # tokens, or channels
            assert same.any() or nothing is not None
            assert nothing is None or not same.all()
            if nothing is not None:
                assert any(
                    torch.allclose(part[1, at : at + nothing.shape[1]], nothing[0], rtol=0, atol=1e-5)
                    for at in range(part.shape[1] - nothing.shape[1] + 1)
                )


def test_shares_that_are_dropped_together_and_apart(data, vae):
    parts = parts_of(data, PAIRS[0])
    parts[0]["dropout"], parts[1]["dropout"] = 0.2, 0.4
    conditioning = {"type": "hybrid", "parts": parts, "dropout": 0.25}
    conditioner = make_conditioner(
        toy.recipe("hybrid", data, vae, "unused", conditioning=conditioning), ImageFolder(data, 16)
    )
    drawn = conditioner.draw_dropped(SampleGenerators(0, range(4000))).float()
    assert drawn.shape == (4000, 2)
    assert drawn.mean(0).tolist() == pytest.approx([0.25 + 0.75 * 0.2, 0.25 + 0.75 * 0.4], abs=0.03)
    assert drawn.prod(1).mean().item() == pytest.approx(0.25 + 0.75 * 0.08, abs=0.03)
    assert conditioner.dropout == pytest.approx(0.25 + 0.75 * 0.08) and conditioner.knows_null


@pytest.mark.thorough
def test_a_list_becomes_a_pipeline_that_goes_on(data, vae, tmp_path):
    tasks = PAIRS[0]
    given = {"validation.steps": 2, "validation.samples": 2, "validation.inference_steps": 2}
    output = toy.train("hybrid", data, vae, tmp_path / "a", conditioning=parts_of(data, tasks), **given)
    assert (output / "validation" / "samples-4.png").is_file()
    longer = {**given, "max_train_steps": 5, "resume_from_checkpoint": "latest"}
    toy.train("hybrid", data, vae, tmp_path / "a", conditioning=parts_of(data, tasks), **longer)
    pipe = DiffusionPipeline.from_pretrained(output / "pipeline")
    assert type(pipe) is HybridPipeline and pipe.conditions == tasks
    pipe.set_progress_bar_config(disable=True)
    inputs = inputs_of(data, tasks, None)
    options = {"num_inference_steps": 2, "output_type": "np"}
    together = pipe(**inputs, **options, seed=0).images
    assert together.shape == (2, 16, 16, 3)
    alone = pipe(**inputs_of(data, tasks, None, [toy.lines(data)[17]]), **options, seed=1).images
    assert abs(alone[0] - together[1]).max() < 1e-4
    pipe.save_pretrained(tmp_path / "again")
    again = DiffusionPipeline.from_pretrained(tmp_path / "again")
    again.set_progress_bar_config(disable=True)
    assert (again(**inputs, **options, seed=0).images == together).all()
    pretrained = {"pretrained_model_name_or_path": str(output / "pipeline"), "unet": {}, "noise_schedule": {}}
    more = toy.train("hybrid", data, None, tmp_path / "more", conditioning=None, **pretrained, max_train_steps=1)
    assert DiffusionPipeline.from_pretrained(more / "pipeline").conditions == tasks
    with pytest.raises(ConfigError, match="the pretrained pipeline has class-to-image, layout-to-image; give the same"):
        toy.train("hybrid", data, None, tmp_path / "no", conditioning=parts_of(data, tasks[::-1]), **pretrained)


@pytest.mark.thorough
def test_it_starts_from_another_model_and_is_distilled(data, vae, tmp_path):
    def go_on(name, start, conditioning=None, first_stage=None, **options):
        given = {"pretrained_model_name_or_path": str(start / "pipeline"), "unet": {}, "noise_schedule": {}, **options}
        given |= {"conditioning": conditioning, "max_train_steps": 1}
        return toy.train("hybrid", data, first_stage, tmp_path / name, **given)

    plain = toy.train("unconditional", data, vae, tmp_path / "plain", max_train_steps=1)
    tasks = ("class-to-image", "semantic-to-image")
    both = go_on("both", plain, parts_of(data, tasks))
    config = DiffusionPipeline.from_pretrained(both / "pipeline").unet.config
    assert (config.in_channels, config.cross_attention_dim) == (7, 16)
    runs = {
        "elsewhere": go_on("elsewhere", both, first_stage=vae),
        "few": go_on("few", both, distill={"method": "trajectory"}),
    }
    for run in runs.values():
        assert DiffusionPipeline.from_pretrained(run / "pipeline").conditions == tasks
    assert (go_on("adapter", both, lora={"rank": 2}) / "lora").is_dir()


def test_strengths_of_each_condition(data, vae):
    tasks = PAIRS[0]
    conditioner, batch, _ = conditioner_of(data, vae, tasks)
    pipe, inputs = conditioner.pipeline, inputs_of(data, tasks, batch)
    options = {"num_inference_steps": 2, "seed": 0, "output_type": "np"}

    def made(scale, **more):
        return torch.from_numpy(pipe(**{**inputs, **more}, **options, guidance_scale=scale).images)

    both, nothing = made(3.0), {"class_labels": None, "layouts": None, "num_images_per_prompt": 2}
    close = {"rtol": 0, "atol": 1e-4}
    torch.testing.assert_close(made(dict.fromkeys(tasks, 3.0)), both, **close)
    torch.testing.assert_close(made(dict.fromkeys(tasks, 1.0)), made(1), **close)
    torch.testing.assert_close(made({"class-to-image": 1.0}), made(1), **close)
    assert abs(made({"class-to-image": 3.0}) - both).max() > 1e-3
    assert abs(made({"class-to-image": 3.0}) - made({"layout-to-image": 3.0})).max() > 1e-3
    torch.testing.assert_close(made(dict.fromkeys(tasks, 0.0)), made(1, **nothing), **close)
    torch.testing.assert_close(made({"class-to-image": 0.0}), made(1, class_labels=None), **close)


def test_captions_beside_channels_have_a_pipeline_of_their_own(data, vae):
    recipe = toy.recipe("inpaint", data, vae, "out", conditioning=parts_of(data, ("text-to-image", "inpaint")))
    assert type(recipe.conditioning) is InpaintOptions and recipe.conditioning.text.text_encoder
    recipe = toy.recipe("inpaint", data, vae, "out", conditioning=["text-to-image", "class-to-image"])
    assert type(recipe.conditioning) is HybridOptions
    assert [part.type for part in recipe.conditioning.parts] == ["text-to-image", "class-to-image"]
    assert recipe.conditioning.captions is recipe.conditioning.parts[0]
    conditioner, batch, _ = conditioner_of(data, vae, ("text-to-image", "inpaint"), dropout=0.5)
    drawn = conditioner.draw_dropped(SampleGenerators(0, range(400)))
    assert drawn.shape == (400, 2) and 0.4 < (drawn[:, 0] != drawn[:, 1]).float().mean() < 0.6
    draws = SampleGenerators(0, range(2))
    kept, found = (conditioner(batch, torch.tensor([[False, False], [False, x]]), draws) for x in (False, True))
    assert torch.equal(kept.context, found.context) and torch.equal(kept.concat[0], found.concat[0])
    assert not torch.equal(kept.concat[1], found.concat[1]) and (found.concat[1, 0] == 1).all()  # all a hole


BAD = {
    "one alone": (["inpaint"], r"conditioning.parts has \['inpaint'\] alone; give at least two"),
    "twice": (["inpaint", "inpaint"], "conditioning.parts has 'inpaint' twice"),
    "of different images": (["inpaint", "super-resolution"], "are of different images"),
    "nothing": ([], "conditioning.parts is empty"),
    "none": (["unconditional", "inpaint"], "conditioning.parts is .*; it must be a list of 'text-to-image' or "),
    "an option of another": (
        [{"type": "inpaint", "degradation": "bsr"}, "class-to-image"],
        "unknown option 'conditioning.parts.degradation'",
    ),
    "no name": ([{"masks": {"box": 1}}, "class-to-image"], "conditioning.parts"),
    "a wrong value": (
        [{"type": "class-to-image", "dropout": 2}, "inpaint"],
        "conditioning.parts.dropout is 2; it must be from 0 to 1",
    ),
    "text in a part": (
        [{"type": "inpaint", "text": {}}, "class-to-image"],
        "has 'inpaint' with text; give text-to-image as a part of its own",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_lists_that_are_refused(case):
    given, words = BAD[case]
    values = {"output_dir": "out", "data": {"train_data_dir": "x"}, "vae": "vae", "unet": {"layers_per_block": 1}}
    with pytest.raises(ConfigError, match=words) as error:
        load_recipe(DiffusionRecipe, None, {**values, "conditioning": given})
    assert "\n" not in str(error.value) and len(str(error.value)) < 400, str(error.value)


def test_what_does_not_fit_is_said_before_the_first_step(data, vae, tmp_path):
    parts = parts_of(data, PAIRS[0])
    wider = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "attention_head_dim": 12}
    with pytest.raises(ConfigError, match=r"width 16 \(class-to-image\) and 24 \(layout-to-image\); give"):
        toy.train("hybrid", data, vae, tmp_path / "a", conditioning=[parts[0], {**parts[1], "layout_encoder": wider}])
    with pytest.raises(ConfigError, match=r"conditioning\.parts is missing"):
        toy.train("hybrid", data, vae, tmp_path / "b", conditioning="hybrid")
    bare = toy.rewritten(data, tmp_path / "bare", dropped=["objects"])
    both = {"data.train_data": [{"dir": str(data)}, {"dir": str(bare)}], "data.train_data_dir": None}
    for number, where in enumerate(({"data.train_data_dir": str(bare)}, both)):
        recipe = toy.recipe("hybrid", data, vae, tmp_path / str(number), conditioning=parts, **where)
        errors, _ = check_condition(open_to_check(recipe.data, recipe), recipe)
        assert len(errors) == 1 and "has no objects" in errors[0]


def test_it_has_no_other_form(data, vae, tmp_path):
    pipe = conditioner_of(data, vae, PAIRS[0])[0].pipeline
    with pytest.raises(ConfigError, match="pipeline has several conditions of its own; the original code can make one"):
        describe._conditioning(pipe.components)
    with pytest.raises(ConfigError, match="diffusers has no pipeline for hybrid; use --to latentdiff"):
        save_diffusers("hybrid", pipe.components, tmp_path / "out")


def test_calls_that_are_refused(data, vae):
    tasks = ("class-to-image", "inpaint")
    conditioner, batch, _ = conditioner_of(data, vae, tasks)
    pipe, inputs = conditioner.pipeline, inputs_of(data, tasks, batch)
    for changed, words in {
        "prompt": ({"prompt": "a star"}, "prompt is given, but this model's conditions are class-to-image, inpaint"),
        "no mask": ({"mask_image": None}, "mask_image is missing, which inpaint needs beside image"),
        "size": ({"height": 32}, "inpaint is of images of 16x16 pixels .* and 32x16 are asked for"),
        "rows": ({"class_labels": ["red"] * 3}, "inpaint is given 2 times, another condition 3 times"),
        "scale": ({"guidance_scale": {"layout-to-image": 2}}, "guidance_scale has 'layout-to-image', which this call"),
        "left out": ({"class_labels": None, "guidance_scale": {"class-to-image": 2}}, "doesn't give; it gives inpaint"),
        "no number": ({"guidance_scale": {"inpaint": "x"}}, "guidance_scale of inpaint is 'x'"),
    }.values():
        with pytest.raises(InputError, match=words):
            pipe(**{**inputs, **changed}, num_inference_steps=1)
    with pytest.raises(ConfigError, match="conditions has ''"):
        HybridPipeline(pipe.vae, pipe.unet, pipe.scheduler)
    with pytest.raises(ConfigError, match="class-to-image, which needs class_embedder; give it"):
        HybridPipeline(pipe.vae, pipe.unet, pipe.scheduler, "class-to-image, inpaint")
    with pytest.raises(InputError, match="1 scales are given for 2 conditionings"):
        GuidanceOfSeveral([conditioner(batch, torch.zeros(2).bool(), SampleGenerators(0, range(2)))] * 2, [1.0])
