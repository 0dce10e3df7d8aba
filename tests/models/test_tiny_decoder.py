"""The tiny decoder: its shape, its folder, and how it takes the place of a first stage."""

import json

import numpy as np
import pytest
import torch
from tiny import tiny_inpaint, unconditional

from latentdiff import CheckpointError, ConfigError, DiffusionPipeline, InputError, TinyDecoder
from latentdiff.models.tiny_decoder import ResidualBlock

SHAPE = {"latent_channels": 4, "block_out_channels": [8, 12], "layers_per_block": 1}


@pytest.fixture
def pipe(tmp_path):
    return unconditional(tmp_path)


def decoder(**options):
    torch.manual_seed(0)
    return TinyDecoder(**{**SHAPE, **options}).eval()


def test_it_has_the_published_layout():
    """TAESD's decoder: 64 channels, three blocks a level and one at the end, levels joined by nearest upsampling."""
    made = TinyDecoder(block_out_channels=(64,) * 4, layers_per_block=3)
    kinds = [type(layer).__name__ for layer in made.decoder]
    level = ["ResidualBlock"] * 3 + ["Upsample", "Conv2d"]
    assert kinds == ["Conv2d", "ReLU", *level * 3, "ResidualBlock", "Conv2d"]
    assert sum(p.numel() for p in made.parameters()) == 1222531  # as diffusers' AutoencoderTiny counts its decoder
    hidden = torch.randn(1, 8, 3, 3)
    block = ResidualBlock(8)
    first, _, second, _, third = block.layers
    expected = torch.relu(hidden + third(torch.relu(second(torch.relu(first(hidden))))))
    torch.testing.assert_close(block(hidden), expected)


def test_latents_are_bounded_softly_at_their_own_scale():
    made = decoder(latent_scale=0.25)
    seen = []
    made.decoder[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    made.decode(torch.full((1, 4, 2, 2), 4.0))
    made.decode(torch.full((1, 4, 2, 2), 4e4))
    assert seen[0].unique().item() == pytest.approx(3 * np.tanh(1 / 3))
    assert seen[1].unique().item() == pytest.approx(3)


def test_decoding_doubles_the_sides_at_every_level_but_the_first():
    for levels in (1, 2, 3):
        made = decoder(block_out_channels=[8] * levels, out_channels=1)
        images = made.decode(torch.zeros(2, 4, 3, 5)).sample
        assert images.shape == (2, 1, 3 * 2 ** (levels - 1), 5 * 2 ** (levels - 1))
        assert torch.equal(images, made.decode(torch.zeros(2, 4, 3, 5), return_dict=False)[0])


def test_in_the_place_of_a_first_stage_it_takes_over_its_scale(pipe, tmp_path, caplog):
    pipe.vae.register_to_config(scaling_factor=0.5, shift_factor=0.25)
    made = decoder()
    made.save_pretrained(tmp_path / "tiny" / "decoder")
    latents = pipe(num_inference_steps=2, seed=0, output_type="latent").images
    expected = made.decode(latents / 0.5 + 0.25).sample.add(1).div(2).clamp(0, 1).detach()
    for given in (tmp_path / "tiny", str(tmp_path / "tiny" / "decoder"), made):
        other = unconditional(tmp_path)
        other.vae.register_to_config(scaling_factor=0.5, shift_factor=0.25)
        other.set_decoder(given)
        images = other(num_inference_steps=2, seed=0, output_type="pt").images
        torch.testing.assert_close(images, expected)
    half = unconditional(tmp_path).to(dtype=torch.bfloat16)
    caplog.clear()
    half.set_decoder(tmp_path / "tiny")
    assert half.vae.dtype == torch.bfloat16 and not caplog.records


def test_a_pipeline_with_it_is_saved_and_loaded(pipe, tmp_path):
    pipe.set_decoder(decoder())
    pipe.fit_preview()
    pipe.save_pretrained(tmp_path / "saved")
    index = json.loads((tmp_path / "saved" / "model_index.json").read_text())
    assert index["vae"] == ["latentdiff", "TinyDecoder"]
    again = DiffusionPipeline.from_pretrained(tmp_path / "saved")
    images = [p(num_inference_steps=2, seed=0, output_type="pt").images for p in (pipe, again)]
    assert torch.equal(*images)
    latents = torch.randn(1, 4, 8, 8)
    assert np.array_equal(*(np.asarray(p.preview(latents)[0]) for p in (pipe, again)))


def test_what_encodes_images_is_refused(tmp_path):
    pipe = DiffusionPipeline.from_pretrained(tiny_inpaint(tmp_path))
    pipe.set_decoder(decoder())
    image, mask = np.zeros((16, 16, 3), np.uint8), np.ones((16, 16), bool)
    with pytest.raises(InputError, match="a TinyDecoder decodes latents and encodes no images"):
        pipe(image, mask, num_inference_steps=1, seed=0)
    with pytest.raises(InputError, match="quantize_denoised is for models with a VQ first stage"):
        pipe(image, mask, num_inference_steps=1, seed=0, quantize_denoised=True)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"latent_channels": 3}, "the decoder has 3 latent_channels, this model 4; give one that was distilled"),
        ({"out_channels": 1}, "1 out_channels, this model 3"),
        ({"block_out_channels": [8]}, "1 pixels along a latent's side, this model 2"),
        ({"block_out_channels": [8, 8, 8]}, "4 pixels along a latent's side, this model 2"),
    ],
)
def test_decoders_of_other_latents_are_refused(pipe, options, line):
    before = pipe.vae
    with pytest.raises(ConfigError, match=line):
        pipe.set_decoder(decoder(**options))
    assert pipe.vae is before and pipe.components["vae"] is before


def test_what_is_no_decoder_is_one_line(pipe, tmp_path):
    with pytest.raises(CheckpointError, match="no such folder nowhere; distil one: latentdiff train first-stage"):
        pipe.set_decoder("nowhere")
    with pytest.raises(CheckpointError, match="vae is a AutoencoderKL; give the folder of a TinyDecoder"):
        pipe.set_decoder(tmp_path / "unconditional" / "vae")
    with pytest.raises(CheckpointError, match="is no component; give the folder of a TinyDecoder"):
        pipe.set_decoder(tmp_path)
    made = decoder()
    made.save_pretrained(tmp_path / "tiny")
    (tmp_path / "tiny" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="has no weights"):
        pipe.set_decoder(tmp_path / "tiny")
    for options in ({"block_out_channels": []}, {"layers_per_block": 0}, {"out_channels": -1}):
        with pytest.raises(ConfigError, match="must be positive integers"):
            decoder(**options)
