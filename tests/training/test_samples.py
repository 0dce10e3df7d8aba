"""Samples while training: what the pipeline would make of the averaged weights, for the same conditions and seeds."""

import json

import numpy as np
import pytest
import toy
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from latentdiff import ConfigError, DiffusionPipeline, InputError
from latentdiff.viz.grid import image_grid

pytestmark = pytest.mark.thorough

VALIDATION = {"validation.steps": 2, "validation.inference_steps": 3, "max_train_steps": 4, "seed": 5}


def sheet(output, step=4):
    return np.asarray(Image.open(output / "validation" / f"samples-{step}.png"))


def loaded(output):
    pipe = DiffusionPipeline.from_pretrained(output / "pipeline")
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.parametrize("scale", [None, 1.0])
def test_prompts_are_drawn_by_the_pipeline(data, vae, tmp_path, scale):
    prompts = ["a red star", "a blue star", "a green star"]
    options = {"validation.prompts": prompts, "validation.guidance_scale": scale}
    output = toy.train("text-to-image", data, vae, tmp_path, **options, **VALIDATION)
    images = loaded(output)(prompts, num_inference_steps=3, seed=5, guidance_scale=scale or 3.0).images
    assert np.array_equal(sheet(output), np.asarray(image_grid(images, columns=3, captions=prompts)))
    assert not np.array_equal(sheet(output), sheet(output, 2))


@pytest.mark.parametrize(("task", "scale"), [("class-to-image", 3.0), ("super-resolution", None)])
def test_conditions_of_the_data_stand_above_their_samples(data, vae, tmp_path, task, scale):
    output = toy.train(task, data, vae, tmp_path, **{"validation.samples": 3}, **VALIDATION)
    rows = [toy.lines(data)[number] for number in (0, 8, 16)]  # of 24
    options = {"output_type": "pil", "num_inference_steps": 3, "seed": 5} | ({"guidance_scale": scale} if scale else {})
    samples = toy.call(task, loaded(output), data, rows, **options)
    originals = [Image.open(data / row["file_name"]) for row in rows]
    assert np.array_equal(sheet(output), np.asarray(image_grid([*originals, *samples], columns=3)))


@pytest.mark.parametrize("task", toy.TASKS)
def test_every_task_has_samples_and_a_loss_of_held_out_images(data, vae, tmp_path, task):
    held_out = toy.write(tmp_path / "held_out", grounds=[0])
    options = {"validation.data_dir": str(held_out), "validation.samples": 2, **VALIDATION, "max_train_steps": 2}
    output = toy.train(task, data, vae, tmp_path / "run", **options)
    rows = 1 if task == "unconditional" else 2
    assert sheet(output, 2).shape[:2] == (rows * toy.SIDE, 2 * toy.SIDE) or task == "text-to-image"  # it has captions
    lines = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    (loss,) = [line["validation/loss"] for line in lines if "validation/loss" in line]
    assert 0 < loss < 10
    DiffusionPipeline.from_pretrained(output / "best" / "pipeline")


def test_validation_drops_no_condition_and_draws_the_same_every_time(data, vae, tmp_path):
    """With a learning rate that changes nothing the held-out loss stays, whatever share training drops."""
    options = {
        "validation.data_dir": str(toy.write(tmp_path / "held_out")),
        "validation.samples": 0,
        **VALIDATION,
        "optimizer.learning_rate": 1e-30,
    }
    losses = []
    for share in (0.5, 1.0):
        output = toy.train(
            "class-to-image", data, vae, tmp_path / str(share), **{"conditioning.dropout": share}, **options
        )
        lines = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
        losses.append([line["validation/loss"] for line in lines if "validation/loss" in line])
        assert not (output / "validation").is_dir() or not any((output / "validation").iterdir())
    assert losses[0][0] == losses[0][1] == losses[1][0]


BAD = {
    "prompts of classes": (
        "class-to-image",
        {"validation.prompts": ["a red star"], "validation.steps": 1},
        ConfigError,
        "validation.prompts is given, but conditioning 'class-to-image' does not use it",
    ),
    "guidance without a null condition": (
        "super-resolution",
        {"validation.guidance_scale": 2, "validation.steps": 1},
        ConfigError,
        "validation.guidance_scale is 2.0, but this model knows no null condition",
    ),
    "long prompt": (
        "text-to-image",
        {"validation.prompts": ["a red star " * 9], "validation.steps": 1},
        InputError,
        "prompt has .* tokens",
    ),
    "no held-out images": (
        "unconditional",
        {"validation.data_dir": "/nowhere", "validation.steps": 1},
        InputError,
        "not a",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_options_are_one_line_and_write_nothing(data, vae, tmp_path, name):
    task, options, kind, message = BAD[name]
    with pytest.raises(kind, match=message) as caught:
        toy.train(task, data, vae, tmp_path / "out", **options)
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_the_course_of_denoising_is_drawn_beside_the_samples(data, vae, tmp_path):
    options = {"validation.steps": 4, "validation.samples": 2, "validation.inference_steps": 5}
    denoising = {"validation.denoising": 3, "report_to": "tensorboard"}
    output = toy.train("unconditional", data, vae, tmp_path / "run", **options, **denoising)
    events = EventAccumulator(str(output / "logs" / "latentdiff")).Reload()
    assert sorted(events.Tags()["images"]) == ["denoising", "samples"]
    with Image.open(output / "validation" / "denoising-4.png") as picture:
        columns = [0, 2, 4]  # every second of five steps, and the last
        assert picture.width == len(columns) * (toy.SIDE + 4) + 4 and picture.height >= 2 * toy.SIDE
    plain = toy.train("unconditional", data, vae, tmp_path / "plain", **options)
    names = [sorted(path.name for path in (folder / "validation").iterdir()) for folder in (output, plain)]
    assert names == [["denoising-4.png", "samples-4.png"], ["samples-4.png"]]
    samples = [(folder / "validation" / "samples-4.png").read_bytes() for folder in (output, plain)]
    assert samples[0] == samples[1]
    toy.train("unconditional", data, vae, tmp_path / "run", overwrite_output_dir=True)
    assert not (output / "validation").exists()


def test_more_steps_than_there_are_cannot_be_drawn(data, vae, tmp_path):
    options = {"validation.steps": 4, "validation.inference_steps": 5, "validation.denoising": 6}
    with pytest.raises(ConfigError, match="denoising is 6, but inference_steps is 5; give at most as many"):
        toy.train("unconditional", data, vae, tmp_path / "run", **options)
