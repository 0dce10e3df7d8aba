"""Previews: colours that a linear map gives to latents, fitted once and kept with the first stage."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from device_reads import CountReads
from diffusers import AutoencoderKL
from diffusers.utils import logging
from tiny import unconditional

from latentdiff import ConfigError, DiffusionPipeline, InputError
from latentdiff.cli.main import main
from latentdiff.conversion.to_diffusers import save_diffusers
from latentdiff.models.autoencoder_vq import VQModel
from latentdiff.models.latent_colours import BIAS, FACTORS, LatentColours
from latentdiff.pipelines import codec
from latentdiff.pipelines.preview import chosen_for_fit, drawn_latents

MAP = torch.tensor([[0.3, -0.1, 0.0], [0.2, 0.5, -0.4], [0.0, 0.1, 0.2], [-0.3, 0.0, 0.1]])
OFFSET = torch.tensor([0.1, -0.2, 0.05])


@pytest.fixture
def pipe(tmp_path):
    return unconditional(tmp_path)


def vq(**options):
    torch.manual_seed(0)
    stage = {"block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4, "num_vq_embeddings": 16}
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    return VQModel(**stage, **blocks, **options).eval()


def colours(latents):
    """What MAP and OFFSET give, in [-1, 1] or beyond."""
    return torch.einsum("bchw,ck->bkhw", latents, MAP) + OFFSET[:, None, None]


def test_the_fit_is_that_of_least_squares():
    latents = torch.randn(3, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    fitted = LatentColours.fit(latents, colours(latents))
    torch.testing.assert_close(fitted.factors, MAP)
    torch.testing.assert_close(fitted.bias, OFFSET)
    assert fitted.explained(latents, colours(latents)) == pytest.approx(1, abs=1e-9)
    other = colours(latents) + torch.randn(3, 3, 5, 6, generator=torch.Generator().manual_seed(1))
    rows = torch.cat([latents.movedim(1, -1).reshape(-1, 4), torch.ones(90, 1)], dim=1)
    targets = other.movedim(1, -1).reshape(-1, 3)
    expected = torch.linalg.pinv(rows.double()) @ targets.double()
    fitted = LatentColours.fit(latents, other)
    torch.testing.assert_close(torch.cat([fitted.factors, fitted.bias[None]]), expected.float())
    residual = (rows.double() @ expected - targets.double()).square().sum()
    total = (targets - targets.mean(0)).double().square().sum()
    assert fitted.explained(latents, other) == pytest.approx(float(1 - residual / total))


def test_one_and_the_same_latent_has_its_colour():
    """There is no one solution then, but every one of them gives that colour."""
    latents = torch.ones(1, 4, 2, 2)
    fitted = LatentColours.fit(latents, colours(latents))
    assert fitted.factors.isfinite().all()
    torch.testing.assert_close(fitted.factors.sum(0) + fitted.bias, MAP.sum(0) + OFFSET)


def test_pixels_are_those_of_the_unscaled_latents(pipe):
    LatentColours(MAP, OFFSET).store(pipe.vae)
    pipe.vae.register_to_config(scaling_factor=0.5, shift_factor=0.3)
    latents = torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(0))
    pictures = pipe.preview(latents)
    expected = ((colours(latents / 0.5 + 0.3) + 1) * 127.5).clamp(0, 255).round()
    assert [picture.size for picture in pictures] == [(5, 3)] * 2 and pictures[0].mode == "RGB"
    for picture, wanted in zip(pictures, expected, strict=True):
        assert np.abs(np.asarray(picture).astype(float) - wanted.movedim(0, -1).numpy()).max() <= 1
        assert np.mean(np.asarray(picture) == wanted.movedim(0, -1).numpy()) > 0.95


@pytest.mark.parametrize("stage", ["kl", "vq", "grey"])
def test_a_fit_says_how_much_of_the_shrunk_images_it_explains(pipe, stage):
    if stage != "kl":
        channels = {"in_channels": 1, "out_channels": 1} if stage == "grey" else {}
        pipe.register_modules(vae=vq(latent_channels=4, **channels))
    images = torch.rand(6, pipe.vae.config.in_channels, 16, 16, generator=torch.Generator().manual_seed(0))
    explained = pipe.fit_preview(images)
    latents = codec.encode(pipe.vae, images * 2 - 1, scaled=True)
    shrunk = F.avg_pool2d(codec.decode(pipe.vae, latents), 2)
    shown = [np.asarray(picture, float) / 255 for picture in pipe.preview(latents)]
    shown = torch.tensor(np.stack(shown)).view(6, 8, 8, -1).movedim(-1, 1)
    means = shrunk.mean(dim=(0, 2, 3), keepdim=True)
    expected = 1 - (shown - shrunk).square().sum() / (shrunk - means).square().sum()
    assert 0 < explained <= 1 and explained == pytest.approx(float(expected), abs=0.02)
    assert pipe.preview(latents)[0].mode == ("L" if stage == "grey" else "RGB")


def test_without_images_latents_are_drawn(pipe):
    latents = drawn_latents(pipe.vae)
    assert latents.shape[1:] == (4, 16, 16) and torch.equal(latents, drawn_latents(pipe.vae))
    assert latents.numel() / 4 >= 16 * 5
    assert float(latents.std()) == pytest.approx(1)
    near, far = ((latents[..., step:] * latents[..., :-step]).mean() for step in (1, 8))
    assert near > 0.5 and near > 2 * far  # as neighbours in images are
    assert 0 < pipe.fit_preview() <= 1
    assert len(pipe.preview(latents)) == len(latents)


def test_the_built_in_model_has_a_map():
    pipe = DiffusionPipeline.from_pretrained("builtin:emoji")
    pipe.set_progress_bar_config(disable=True)
    latents = pipe("a red apple", num_inference_steps=8, seed=0, output_type="latent").images
    shown = np.asarray(pipe.preview(latents)[0], float) / 255
    decoded = F.avg_pool2d(codec.decode(pipe.vae, latents), 4)[0].movedim(0, -1).numpy()
    explained = 1 - ((shown - decoded) ** 2).sum() / ((decoded - decoded.mean((0, 1))) ** 2).sum()
    assert explained > 0.6


def test_the_map_is_kept_wherever_the_first_stage_goes(pipe, tmp_path):
    pipe.fit_preview()
    expected = [getattr(pipe.vae.config, name) for name in (FACTORS, BIAS)]
    pipe.save_pretrained(tmp_path / "saved")
    again = DiffusionPipeline.from_pretrained(tmp_path / "saved")
    again.save_pretrained(tmp_path / "again")
    stream = []
    handler = type("Handler", (logging.logging.Handler,), {"emit": lambda _, record: stream.append(record)})()
    logging.add_handler(handler)
    try:
        stock = AutoencoderKL.from_pretrained(tmp_path / "again" / "vae")
    finally:
        logging.remove_handler(handler)
    assert not stream  # diffusers warns of nothing
    stock.save_pretrained(tmp_path / "stock")
    assert main(["convert", str(tmp_path / "again"), str(tmp_path / "ours"), "--quiet"]) == 0
    places = ["saved/vae", "again/vae", "stock", "ours/vae"]
    for place in places:
        config = json.loads((tmp_path / place / "config.json").read_text())
        assert [config[name] for name in (FACTORS, BIAS)] == expected, place
    last = DiffusionPipeline.from_pretrained(tmp_path / "ours")
    latents = torch.randn(1, 4, 8, 8)
    assert np.array_equal(np.asarray(last.preview(latents)[0]), np.asarray(pipe.preview(latents)[0]))


def test_the_map_is_kept_by_a_conversion_for_plain_diffusers(pipe, tmp_path):
    pipe.fit_preview()
    save_diffusers(None, {"vae": pipe.vae}, tmp_path / "stock")
    config = json.loads((tmp_path / "stock" / "config.json").read_text())
    assert [config[name] for name in (FACTORS, BIAS)] == [getattr(pipe.vae.config, name) for name in (FACTORS, BIAS)]
    assert "_name_or_path" not in config


def test_a_callback_may_preview_and_nothing_is_read_without_one(pipe):
    pipe.fit_preview()
    seen = []

    def look(pipe, step, timestep, tensors):
        seen.append(pipe.preview(tensors["pred_original_sample"])[0])

    options = {"num_inference_steps": 3, "seed": 0, "output_type": "latent"}
    plain = pipe(**options).images
    looked = pipe(
        callback_on_step_end=look, callback_on_step_end_tensor_inputs=["pred_original_sample"], **options
    ).images
    assert torch.equal(plain, looked) and [picture.size for picture in seen] == [(8, 8)] * 3
    with CountReads() as count:
        pipe(**options)
    with CountReads() as longer:
        pipe(**options | {"num_inference_steps": 6})
    first, second = ([read for read in counted.reads if "_to_copy" not in read] for counted in (count, longer))
    assert first == second  # those before and after the loop


def test_what_has_no_map_or_a_damaged_one_is_one_line(pipe, tmp_path):
    latents = torch.randn(1, 4, 8, 8)
    with pytest.raises(ConfigError, match=r"has no map from latents to colours; call pipe.fit_preview\(\) once"):
        pipe.preview(latents)
    LatentColours(MAP, OFFSET).store(pipe.vae)
    for bad in (torch.randn(1, 3, 8, 8), torch.randn(4, 8, 8)):
        with pytest.raises(InputError, match=r"preview takes \(B, 4, h, w\)"):
            pipe.preview(bad)
    for entries in ({FACTORS: MAP[:3].tolist()}, {BIAS: [0.0, 0.0]}, {FACTORS: "red"}, {BIAS: None}, {FACTORS: [[1]]}):
        LatentColours(MAP, OFFSET).store(pipe.vae)
        pipe.vae.register_to_config(**entries)
        with pytest.raises(ConfigError, match="are no map of 4 channels to 1 or 3; call fit_preview"):
            pipe.preview(latents)
    with pytest.raises(InputError, match="images are 15x16 pixels; their sides must be multiples of 2"):
        pipe.fit_preview(torch.zeros(1, 3, 16, 15))


def test_images_of_a_fit_are_spread_over_all():
    assert list(chosen_for_fit(100, 2**9)) == [0, 12, 25, 37, 50, 62, 75, 87]  # large images: eight will do
    assert list(chosen_for_fit(3, 64)) == [0, 1, 2]
    assert len(list(chosen_for_fit(10**6, 64))) == 32
