"""An adapter is trained alone, and loads into the pipeline that it was trained on."""

import json

import numpy as np
import pytest
import torch
import toy
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny import tiny_class_to_image, tiny_text_to_image, tiny_unconditional

from latentdiff import CheckpointError, ConfigError, DiffusionPipeline
from latentdiff.viz.grid import image_grid

pytestmark = pytest.mark.thorough

LORA = {"lora": {"rank": 2, "alpha": 6}, "unet": {}}
STARTS = {
    "text-to-image": (tiny_text_to_image, {"conditioning.vocabulary": None, "conditioning.text_encoder": {}}),
    "class-to-image": (tiny_class_to_image, {"conditioning.class_embedder": {}}),
    "unconditional": (tiny_unconditional, {}),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return toy.rewritten(
        toy.write(tmp_path_factory.mktemp("data") / "images"),
        tmp_path_factory.mktemp("apples") / "images",
        label="apple",
    )


@pytest.fixture(scope="module")
def starts(tmp_path_factory):
    return {task: make(tmp_path_factory.mktemp("start")) for task, (make, _) in STARTS.items()}


def train(task, data, starts, output, **options):
    start = {"pretrained_model_name_or_path": str(starts[task])}
    options = {**LORA, **STARTS[task][1], **start, "optimizer.learning_rate": 0.02, **options}
    return toy.train(task, data, options.pop("vae", None), output, **options)


def same(first, second):
    """Up to rounding: kernels are chosen by memory layouts, which wrapped layers change."""
    return np.allclose(first, second, rtol=0, atol=1e-5)


def call(task, pipe, data):
    pipe.set_progress_bar_config(disable=True)
    return toy.call(task, pipe, data, toy.lines(data)[:3], num_inference_steps=3, seed=5)


@pytest.mark.parametrize("task", STARTS)
def test_it_loads_into_the_pipeline_and_has_a_strength(task, data, starts, tmp_path):
    output = train(task, data, starts, tmp_path)
    assert sorted(path.name for path in (output / "lora").iterdir()) == ["pytorch_lora_weights.safetensors"]
    assert not (output / "pipeline").exists()
    pipe = DiffusionPipeline.from_pretrained(starts[task])
    plain = call(task, pipe, data)
    pipe.load_lora_weights(output / "lora", adapter_name="trained")
    full = call(task, pipe, data)
    assert np.abs(full - plain).max() > 0.01
    pipe.set_adapters(["trained"], [0.0])
    assert same(call(task, pipe, data), plain)
    pipe.set_adapters(["trained"], [1.0])
    assert same(call(task, pipe, data), full)
    pipe.unload_lora_weights()
    assert same(call(task, pipe, data), plain)


def test_what_loads_is_what_was_validated(data, starts, tmp_path):
    """The rank and alpha come with the file: the adapter's strength is that of training."""
    options = {"validation.steps": 4, "validation.inference_steps": 3, "validation.prompts": ["a red star"], "seed": 5}
    output = train("text-to-image", data, starts, tmp_path, **options)
    pipe = DiffusionPipeline.from_pretrained(starts["text-to-image"])
    pipe.load_lora_weights(str(output / "lora" / "pytorch_lora_weights.safetensors"))
    images = pipe("a red star", num_inference_steps=3, seed=5, guidance_scale=3.0).images
    sheet = np.asarray(Image.open(output / "validation" / "samples-4.png"))
    assert np.array_equal(sheet, np.asarray(image_grid(images, columns=1, captions=["a red star"])))


def test_checkpoints_hold_the_adapter_alone_and_resume(data, starts, tmp_path, placement):
    options = {"mixed_precision": placement.mixed_precision}
    whole = train("class-to-image", data, starts, tmp_path / "whole", **options)
    kept = load_file(whole / "checkpoint-4" / "model.safetensors")
    assert kept and all("lora_" in name for name in kept)
    train("class-to-image", data, starts, tmp_path / "parts", max_train_steps=2, **options)
    parts = train("class-to-image", data, starts, tmp_path / "parts", resume_from_checkpoint="latest", **options)
    first, second = (load_file(run / "lora" / "pytorch_lora_weights.safetensors") for run in (whole, parts))
    assert first.keys() == second.keys()
    for name in first:
        placement.assert_same(first[name], second[name])
    assert json.loads((whole / "log.jsonl").read_text().splitlines()[0])["loss"] > 0


def test_layers_are_those_that_are_named(data, starts, tmp_path):
    output = train("unconditional", data, starts, tmp_path, lora={"rank": 1, "target_modules": ["to_q"]})
    names = load_file(output / "lora" / "pytorch_lora_weights.safetensors")
    assert names and all(".to_q." in name for name in names)


def test_convolutions_take_adapters_too(data, starts, tmp_path):
    layers = ["to_q", "conv1", "conv2"]
    output = train("unconditional", data, starts, tmp_path, lora={"rank": 2, "target_modules": layers})
    names = load_file(output / "lora" / "pytorch_lora_weights.safetensors")
    assert any(".conv1." in name for name in names) and any(".to_q." in name for name in names)
    pipe = DiffusionPipeline.from_pretrained(starts["unconditional"])
    plain = call("unconditional", pipe, data)
    pipe.load_lora_weights(output / "lora")
    assert np.abs(call("unconditional", pipe, data) - plain).max() > 0.01


def test_a_merged_adapter_is_the_pipeline_with_it(data, starts, tmp_path):
    lora = {"rank": 2, "alpha": 6, "target_modules": ["to_q", "to_out.0", "conv1"]}
    apart = train("class-to-image", data, starts, tmp_path / "apart", lora=lora)
    merged = train("class-to-image", data, starts, tmp_path / "merged", lora={**lora, "merge": True})
    assert not (merged / "lora").exists() and not (apart / "pipeline").exists()
    whole = DiffusionPipeline.from_pretrained(merged / "pipeline")
    pipe = DiffusionPipeline.from_pretrained(starts["class-to-image"])
    plain = call("class-to-image", pipe, data)
    pipe.load_lora_weights(apart / "lora")
    assert same(call("class-to-image", whole, data), call("class-to-image", pipe, data))
    assert np.abs(call("class-to-image", whole, data) - plain).max() > 0.01


BAD = {
    "no start": (
        {"pretrained_model_name_or_path": None, "vae": "v", "unet": toy.UNET},
        "lora is given without pretrained",
    ),
    "no rank": ({"lora": {"alpha": 1}}, "lora.rank is missing; it must be an integer of at least 1"),
    "alpha": ({"lora": {"rank": 1, "alpha": 0}}, "lora.alpha is 0; it must be above 0, or null; null is the rank"),
    "unknown": ({"lora": {"rank": 1, "r": 2}}, "unknown option 'lora.r'; did you mean 'lora.rank'"),
    "no layers": ({"lora": {"rank": 1, "target_modules": []}}, "lora.target_modules is empty; give ends of names"),
    "layers": (
        {"lora": {"rank": 1, "target_modules": ["to_x"]}},
        r"lora.target_modules is \['to_x'\], which this UNet has no",
    ),
    "new channels": ({"conditioning": "inpaint"}, "lora trains no new channels, which conditioning 'inpaint' needs"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_options_are_one_line(name, data, starts, tmp_path):
    options, message = BAD[name]
    with pytest.raises(ConfigError, match=message) as caught:
        train("unconditional", data, starts, tmp_path / "out", **options)
    assert "\n" not in str(caught.value)


def test_adapters_for_something_else_are_refused(data, starts, tmp_path):
    output = train("class-to-image", data, starts, tmp_path, lora={"rank": 2}, max_train_steps=1)
    state = load_file(output / "lora" / "pytorch_lora_weights.safetensors")
    wider = {
        name: torch.cat([tensor, tensor], 1) if "lora_A" in name or "down" in name else tensor
        for name, tensor in state.items()
    }
    cases = {
        "no adapter for this ClassToImagePipeline: ": {str(tmp_path): None, "wide": wider},
        "it is for transformer, not for the unet": {"other": {f"transformer.{name}": t for name, t in state.items()}},
        "it is for a text encoder too": {"text": state | {f"text_encoder.{name}": t for name, t in state.items()}},
    }
    pipe = DiffusionPipeline.from_pretrained(starts["class-to-image"])
    plain = call("class-to-image", pipe, data)
    for message, sources in cases.items():
        for name, tensors in sources.items():
            with pytest.raises(CheckpointError, match=message) as caught:
                pipe.load_lora_weights(tensors or name)
            assert "\n" not in str(caught.value)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "pytorch_lora_weights.safetensors").write_bytes(b"nonsense")
    save_file(state, tmp_path / "whole.safetensors")
    with pytest.raises(CheckpointError, match="damaged is no adapter"):
        pipe.load_lora_weights(tmp_path / "damaged")
    assert same(call("class-to-image", pipe, data), plain)
