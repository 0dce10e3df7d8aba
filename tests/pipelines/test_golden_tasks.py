"""The tasks' pipelines, from the user's input to the image, against the original code."""

import numpy as np
import pytest
import torch
from golden_models import load_case
from golden_weights import files

from latentdiff import ConfigError, DiffusionPipeline, LayoutTokenizer

RELATIVE = 1e-4


def load(name, **options):
    pipe = DiffusionPipeline.from_original(*files(name), ema=False, **options)
    pipe.set_progress_bar_config(disable=True)
    return pipe, load_case(name).io


def run(pipe, io, *inputs, **options):
    """The original's run: its timesteps and its noise."""
    assert not pipe.scheduler.config.set_alpha_to_one
    timesteps = io["ddim.timesteps"].flip(0).tolist()
    return pipe(*inputs, timesteps=timesteps, latents=io["x_T"], **options).images


def test_inpainting_is_the_originals_to_the_byte_image():
    pipe, io = load("ldm_inpainting")
    image, mask = io["inpaint.image_u8"].numpy(), io["inpaint.mask_u8"].numpy()
    found = run(pipe, io, image, mask, output_type="np")[0]
    # The original truncates where we round; the comparison is on its terms.
    difference = np.abs((found * 255 + 1e-3).astype(np.uint8).astype(int) - io["inpaint.result_u8"].numpy())
    assert difference.max() <= 1
    assert np.array_equal(np.round(found * 255)[mask < 128], image[mask < 128])
    made = np.round(found * 255)[mask >= 128].astype(int)
    assert np.abs(made - image[mask >= 128]).mean() > 10  # the hole was filled with something else


def test_inpainting_shows_the_network_what_the_original_did():
    pipe, io = load("ldm_inpainting")
    image = io["inpaint.image_u8"].permute(2, 0, 1)[None].float() / 255 * 2 - 1  # rounded as the original did
    holes = (io["inpaint.mask_u8"] >= 128).float()[None, None]
    found = pipe.encode_masked(image, holes)
    assert (found - io["cond"]).abs().max() <= 1e-5


def test_classes_are_the_originals():
    pipe, io = load("ldm_cin")
    labels = io["class_label"].tolist()
    assert torch.equal(pipe.encode_labels(labels), io["cond"])
    assert torch.equal(pipe.encode_labels(io["uncond_label"]), io["uncond"])
    guided = {"guidance_scale": float(io["cfg.scale"]), "negative_class_labels": int(io["uncond_label"][0])}
    image = run(pipe, io, labels, output_type="pt", **guided)
    assert (image - io["cfg.image"].add(1).div(2).clamp(0, 1)).abs().max() <= RELATIVE


def test_layouts_are_the_originals():
    tokenizer = LayoutTokenizer(num_classes=4, num_tokens=64, max_objects=5)
    pipe, io = load("ldm_layout2img", tokenizer=tokenizer)
    states = pipe.layout_encoder(io["tokens"]).last_hidden_state
    assert (states - io["cond"]).abs().max() <= 1e-5
    objects = [{"class": 1, "box": (0.1, 0.2, 0.3, 0.4)}]
    images = pipe([objects, []], num_inference_steps=2, seed=0, output_type="np").images
    assert np.abs(images[0] - images[1]).max() > 1e-3


def test_what_a_layout_checkpoint_lacks_is_asked_for():
    with pytest.raises(ConfigError, match=r"give tokenizer, a latentdiff\.LayoutTokenizer"):
        load("ldm_layout2img")
