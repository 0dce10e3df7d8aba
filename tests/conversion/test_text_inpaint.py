"""Stable Diffusion's inpainting models, 1.x and 2.x: loaded, sampled, and converted in every direction."""

import re

import diffusers
import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from twins import Twin, narrow_clip

from latentdiff import AutoPipeline, DiffusionPipeline, InpaintPipeline
from latentdiff.cli.main import main
from latentdiff.conversion import load_original, networks
from latentdiff.conversion.plan import make_conversion_plan
from latentdiff.conversion.zoo import zoo_config
from latentdiff.errors import CheckpointError, ConfigError, InputError
from latentdiff.io.tensor_files import open_tensors

pytestmark = pytest.mark.thorough

NAMES = ["sd-1-inpaint", "sd-2-inpaint"]
OPTIONS = {"num_inference_steps": 3, "guidance_scale": 3.0}


@pytest.fixture(autouse=True)
def small_clip(monkeypatch):
    monkeypatch.setattr(networks, "make_clip", narrow_clip(networks.make_clip))


@pytest.fixture
def inputs():
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    mask = np.zeros((64, 64), dtype=np.uint8)
    mask[8:40, 16:56] = 255
    return Image.fromarray(pixels), Image.fromarray(mask)


def write(twin, folder):
    torch.save({"state_dict": twin.state, "global_step": 5}, folder / "model.ckpt")
    (folder / "config.yaml").write_text(yaml.safe_dump({"model": twin.node}))
    return folder / "model.ckpt", folder / "config.yaml"


@pytest.mark.parametrize("name", NAMES)
def test_every_direction(tmp_path, name, inputs):
    twin = Twin(name)
    checkpoint, config = map(str, write(twin, tmp_path))
    ours, stock, back, again = (str(tmp_path / step) for step in ("ours", "stock", "back", "again"))
    for command in (
        ["convert", checkpoint, ours, "--config", config],
        ["convert", checkpoint, stock, "--config", config, "--to", "diffusers"],
        ["convert", ours, back, "--to", "original"],
        ["convert", stock, again, "--to", "original"],
    ):
        assert main(command) == 0
    for folder in (back, again):
        written = yaml.safe_load((tmp_path / folder / "config.yaml").read_text())["model"]
        assert written["target"].endswith(".LatentInpaintDiffusion")
        assert written["params"]["conditioning_key"] == "hybrid"
        file = open_tensors(f"{folder}/model.ckpt")
        assert set(file.keys()) == set(twin.kept)
        for key, tensor in twin.kept.items():
            assert file.read(key).numpy().tobytes() == tensor.numpy().tobytes(), key
        assert torch.load(f"{folder}/model.ckpt", weights_only=True, mmap=True)["global_step"] == 0
    pipes = [
        DiffusionPipeline.from_original(checkpoint, config),
        *map(DiffusionPipeline.from_pretrained, (ours, stock)),
    ]
    theirs = diffusers.StableDiffusionInpaintPipeline.from_pretrained(stock)
    theirs.set_progress_bar_config(disable=True)
    latents = torch.randn(1, 4, 8, 8)
    image, mask = inputs
    pixels = torch.tensor(np.array(image)).permute(2, 0, 1)[None] / 127.5 - 1
    holes = (torch.tensor(np.array(mask))[None, None] > 0).float()
    # Theirs would sample the posterior of the masked image; the original's script does, too.
    masked = pipes[0].encode_masked(pixels, holes)[:, 1:]
    expected = theirs(
        "a photo of a cat",
        image,
        mask,
        masked_image_latents=masked,
        latents=latents,
        height=64,
        width=64,
        output_type="np",
        negative_prompt="a dog",
        **OPTIONS,
    ).images
    inside = np.array(mask) > 0
    for pipe in pipes:
        assert type(pipe) is InpaintPipeline
        pipe.set_progress_bar_config(disable=True)
        made = pipe(
            image, mask, "a photo of a cat", latents=latents, output_type="np", negative_prompt="a dog", **OPTIONS
        ).images
        assert abs(made - expected)[0][inside].max() < 1e-4
        assert np.array_equal((made[0] * 255).round().astype(np.uint8)[~inside], np.array(image)[~inside])


@torch.no_grad()
def test_the_masked_image_is_theirs_but_for_the_posterior(inputs):
    """Stock samples the posterior of what ours takes the mode of; where its variance is least, both are the same."""
    twin = Twin("sd-1-inpaint")
    pipe = DiffusionPipeline.from_original(twin.state, twin.node)
    with torch.no_grad():  # the second half of the moments is the log variance
        pipe.vae.quant_conv.weight[4:] = 0
        pipe.vae.quant_conv.bias[4:] = -30
    parts = {name: pipe.components[name] for name in ("vae", "text_encoder", "tokenizer", "unet", "scheduler")}
    theirs = diffusers.StableDiffusionInpaintPipeline(
        **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
    image, mask = inputs
    pixels = theirs.image_processor.preprocess(image)
    holes = theirs.mask_processor.preprocess(mask)
    found = theirs.prepare_mask_latents(
        holes, pixels * (holes < 0.5), 1, 64, 64, torch.float32, torch.device("cpu"), None, False
    )
    torch.testing.assert_close(pipe.encode_masked(pixels, holes), torch.cat(found, dim=1), rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_stock_folders_without_optional_parts(tmp_path, dtype, inputs):
    """A folder as diffusers itself writes it, with its own scheduler."""
    twin = Twin("sd-1-inpaint")
    parts = load_original(twin.state, twin.node).components
    parts["scheduler"] = diffusers.PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1
    )
    stock = diffusers.StableDiffusionInpaintPipeline(
        **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
    stock.to(dtype).save_pretrained(tmp_path / "stock")
    pipe = DiffusionPipeline.from_pretrained(tmp_path / "stock")
    assert type(pipe) is InpaintPipeline and type(pipe.scheduler).__name__ == "PNDMScheduler"
    pipe.set_progress_bar_config(disable=True)
    assert pipe(*inputs, "a cat", **OPTIONS).images[0].size == (64, 64)
    shared = AutoPipeline.from_pipe(stock)
    assert type(shared) is InpaintPipeline and shared.text_encoder is stock.text_encoder


def test_a_text_encoder_without_its_tokenizer(monkeypatch, inputs):
    """Of a vocabulary that the package has not got: from_original asks for it, and so does a call."""
    monkeypatch.undo()
    monkeypatch.setattr(networks, "make_clip", narrow_clip(networks.make_clip))
    twin = Twin("sd-1-inpaint")
    parts = load_original(twin.state, twin.node).components
    pipe = InpaintPipeline(**parts | {"tokenizer": None})
    with pytest.raises(InputError, match="has a text encoder, but no tokenizer; load it with tokenizer="):
        pipe(*inputs, "a cat", **OPTIONS)
    text = Twin("txt2img-1p4B")
    node = text.node
    node["params"]["unet_config"]["params"]["in_channels"] = 9
    node["params"]["conditioning_key"] = "hybrid"
    state = dict(text.state)
    for key in ("model.diffusion_model.input_blocks.0.0.weight", "model_ema.diffusion_modelinput_blocks00weight"):
        if key in state:
            state[key] = torch.zeros(len(state[key]), 9, 3, 3)
    with pytest.raises(ConfigError, match=r"no tokenizer is in .*; give tokenizer, such as latentdiff"):
        DiffusionPipeline.from_original(state, node)


def node_of(name="sd-1-inpaint", **params):
    node = Twin(name).node
    node["params"] |= params
    return node


@pytest.mark.parametrize(
    ("channels", "more", "task"),
    [
        (4, {"conditioning_key": "crossattn"}, "text-to-image"),
        (9, {"conditioning_key": "hybrid"}, "inpaint"),
        (9, {"conditioning_key": "hybrid", "concat_keys": ["mask", "masked_image"]}, "inpaint"),
        (7, {"conditioning_key": "hybrid"}, "super-resolution"),
    ],
)
def test_channels_tell_the_task(channels, more, task):
    node = node_of("sd-1", **more)
    node["params"]["unet_config"]["params"]["in_channels"] = channels
    assert make_conversion_plan(node).task == task


@pytest.mark.parametrize(
    ("class_name", "channels", "more", "message"),
    [
        ("LatentInpaintDiffusion", 4, {}, "takes 0 channels beside latents and text; known: 5 for inpaint, 3 for"),
        ("LatentDiffusion", 4, {}, "takes 0 channels beside latents and text"),
        ("LatentInpaintDiffusion", 7, {}, "takes 3 channels beside latents and text"),
        ("LatentDiffusion", 6, {}, "takes 2 channels beside latents and text"),
        ("LatentDiffusion", 5, {}, "as the depth-guided model of Stable Diffusion 2 does; use diffusers'"),
        ("LatentDiffusion", 8, {}, "as InstructPix2Pix, which follows instructions to change images does"),
        ("LatentInpaintDiffusion", 9, {"conditioning_key": "crossattn"}, "conditioning_key is 'crossattn', but"),
        ("LatentInpaintDiffusion", 9, {"concat_keys": ["masked_image", "mask"]}, "only ['mask', 'masked_image'] can"),
        ("LatentInpaintDiffusion", 9, {"concat_keys": 3}, "concat_keys is 3; only"),
        ("LatentDepth2ImageDiffusion", 5, {}, "'LatentDepth2ImageDiffusion', which is the depth-guided model"),
        ("LatentUpscaleDiffusion", 7, {}, "'LatentUpscaleDiffusion', which is the x4 upscaler"),
        ("ControlLDM", 4, {}, "'ControlLDM', which is a ControlNet"),
    ],
)
def test_what_is_no_model_of_this_package(tmp_path, capsys, class_name, channels, more, message):
    """Refused by its name, before anything is written."""
    node = node_of(**more)
    node["target"] = f"ldm.models.diffusion.ddpm.{class_name}"
    node["params"]["unet_config"]["params"]["in_channels"] = channels
    with pytest.raises(ConfigError, match=re.escape(message)):
        make_conversion_plan(node)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"model": node}))
    torch.save({"a": torch.ones(2)}, tmp_path / "model.ckpt")
    source, out, config = (str(tmp_path / name) for name in ("model.ckpt", "out", "config.yaml"))
    for to in ("latentdiff", "diffusers", "original"):
        assert main(["convert", source, out, "--config", config, "--to", to]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.yaml", "model.ckpt"]


def test_both_contexts_need_text():
    node = zoo_config("cin256")
    node["params"]["conditioning_key"] = "hybrid"
    with pytest.raises(ConfigError, match="LatentDiffusion with both contexts at once needs a text encoder"):
        make_conversion_plan(node)


@pytest.mark.parametrize("channels", [5, 8])
def test_wide_checkpoints_without_a_config(channels):
    """The depth-guided model and InstructPix2Pix, which differ from Stable Diffusion in one shape."""
    twin = Twin("sd-1")
    state = dict(twin.state)
    state["model.diffusion_model.input_blocks.0.0.weight"] = torch.zeros(32, channels, 3, 3)
    if channels == 5:
        state["depth_model.model.pretrained.act_postprocess3.3.weight"] = torch.zeros(2)
    what = {5: "the depth-guided model of Stable Diffusion 2", 8: "InstructPix2Pix"}[channels]
    with pytest.raises(CheckpointError, match=f"the state dict is {what}"):
        load_original(state)


@pytest.mark.parametrize("name", ["sd-1", "sd-1-inpaint"])
@pytest.mark.parametrize("config", [True, False])
def test_clip_without_its_prefix(name, config):
    """As transformers 5 and some trainers write a CLIP text model: no text_model. in the names."""
    twin = Twin(name)
    short = {key.replace("transformer.text_model.", "transformer."): tensor for key, tensor in twin.state.items()}
    assert short.keys() != twin.state.keys()
    loaded, expected = load_original(short, twin.node), load_original(twin.state, twin.node)
    assert loaded.notes == tuple(note.replace("text_model.", "") for note in expected.notes)
    wanted = expected.components["text_encoder"].state_dict()
    for key, tensor in loaded.components["text_encoder"].state_dict().items():
        assert torch.equal(tensor, wanted[key])


def test_clip_with_half_of_its_prefixes():
    twin = Twin("sd-1")
    state = dict(twin.state)
    key = "cond_stage_model.transformer.text_model.final_layer_norm.weight"
    state[key.replace("text_model.", "")] = state.pop(key)
    load_original(state, twin.node)
    state.pop(key.replace("text_model.", ""))
    with pytest.raises(CheckpointError, match=r"text_encoder .* 1 missing .*text_model\.final_layer"):
        load_original(state, twin.node)
