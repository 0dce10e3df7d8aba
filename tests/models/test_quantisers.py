"""First stages with other quantisers than a codebook's nearest code: finite scalar and residual quantisation."""

import math

import pytest
import torch

from latentdiff import ConfigError, FSQModel, InputError, ResidualVQModel, VQModel
from latentdiff.conversion.convert import to_original
from latentdiff.conversion.to_diffusers import save_diffusers
from latentdiff.inspection.folder import load_folder
from latentdiff.models.autoencoder_fsq import FiniteScalarQuantizer
from latentdiff.models.autoencoder_rvq import ResidualQuantizer
from latentdiff.pipelines.codec import decode, encode, quantizer
from latentdiff.training.first_stage.autoencoder import load_first_stage

TINY = {
    "block_out_channels": [8, 16],
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
    "norm_num_groups": 4,
    "sample_size": 16,
}


def fsq(**options):
    torch.manual_seed(0)
    return FSQModel(**TINY, **{"levels": [5, 4, 3], **options}).eval()


def residual(**options):
    torch.manual_seed(0)
    model = ResidualVQModel(**TINY, **{"latent_channels": 4, "num_vq_embeddings": 16, "num_quantizers": 3, **options})
    model.quantize.embedding.weight.data.normal_()
    return model.eval()


MODELS = {"FSQModel": fsq, "ResidualVQModel": residual}


@pytest.fixture(params=MODELS)
def vae(request):
    return MODELS[request.param]()


@pytest.fixture
def images():
    return torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


@torch.no_grad()
def test_images_become_codes_and_codes_images(vae, images):
    indices = vae.encode_to_indices(images)
    depth = (3,) if isinstance(vae, ResidualVQModel) else ()
    assert indices.shape == (2, 8, 8, *depth) and indices.dtype == torch.int64
    assert indices.min() >= 0 and indices.max() < vae.config.num_vq_embeddings
    shown = vae.decode_indices(indices)
    torch.testing.assert_close(shown, vae(images).sample, rtol=0, atol=1e-5)
    latents = encode(vae, images, scaled=True)
    torch.testing.assert_close(decode(vae, latents), ((shown + 1) / 2).clamp(0, 1), rtol=0, atol=1e-5)
    assert quantizer(vae, torch.device("cpu"))(latents).shape == latents.shape
    with pytest.raises(InputError, match=r"indices are torch.float32 of shape .*; give int64 \(B, h, w"):
        vae.decode_indices(indices.float())


def test_gradients_pass_straight_through_the_codes(vae, images):
    latents = vae.encode(images).latents.detach().requires_grad_()
    codes, _, _ = vae.quantize(latents)
    assert not torch.equal(codes, latents)
    weights = torch.randn(codes.shape, generator=torch.Generator().manual_seed(1))
    (gradient,) = torch.autograd.grad((codes * weights).sum(), latents)
    torch.testing.assert_close(gradient, weights, rtol=0, atol=1e-6)
    vae(images).sample.square().mean().backward()
    assert vae.encoder.conv_in.weight.grad.abs().max() > 0


@torch.no_grad()
def test_a_folder_loads_as_it_was_saved(vae, images, tmp_path, caplog):
    vae.register_to_config(scaling_factor=1.5)
    vae.save_pretrained(tmp_path)
    for again in (
        type(vae).from_pretrained(tmp_path),
        load_first_stage(str(tmp_path)),
        load_folder(str(tmp_path), None),
    ):
        assert type(again) is type(vae) and again.config.scaling_factor == 1.5
        assert torch.equal(again.eval()(images).sample, vae(images).sample)
    kept = {name: value for name, value in vae.config.items() if not name.startswith("_")}
    assert kept == {name: value for name, value in again.config.items() if not name.startswith("_")}
    assert not caplog.records


@pytest.mark.parametrize("levels", [(8, 5, 5, 5), (2,), (3, 2), (7, 6)])
def test_every_code_is_reached_and_is_its_own_nearest(levels):
    quantize = FiniteScalarQuantizer(levels)
    count = math.prod(levels)
    codes = quantize.embedding(torch.arange(count))
    assert codes.shape == (count, len(levels)) and len(codes.unique(dim=0)) == count
    assert codes.min() == -1 and codes.max() <= 1
    latents = codes.T[None, :, :, None].contiguous()
    found, loss, (_, _, indices) = quantize(latents)
    assert torch.equal(found, latents) and loss == 0 and torch.equal(indices, torch.arange(count))
    torch.manual_seed(0)
    bounded = quantize.bounded(5 * torch.randn(4, len(levels), 64, 64))
    found, _, (_, _, indices) = quantize(bounded)
    halves = torch.tensor([level // 2 for level in levels])[:, None, None]
    assert ((found - bounded).abs() * halves <= 0.501).all()  # the nearest of the grid
    assert len(indices.unique()) == count or count > 500
    with pytest.raises(InputError, match=f"indices go from 0 to {count}; there are codes 0 to {count - 1}"):
        quantize.embedding(torch.tensor([0, count]))


def test_zero_is_a_level_of_every_channel():
    quantize = FiniteScalarQuantizer((8, 5))
    torch.testing.assert_close(quantize.bounded(torch.zeros(1, 2, 1, 1)), torch.zeros(1, 2, 1, 1), rtol=0, atol=1e-6)


@torch.no_grad()
def test_each_further_code_comes_nearer():
    torch.manual_seed(0)
    latents = torch.randn(2, 4, 8, 8)
    errors, before = [], None
    for depth in (1, 2, 4):
        torch.manual_seed(1)
        quantize = ResidualQuantizer(64, 4, depth)
        quantize.embedding.weight.normal_().mul_(torch.linspace(0.05, 1, 64)[:, None])
        sums, _, (_, _, indices) = quantize(latents)
        indices = indices.view(-1, depth)
        assert before is None or torch.equal(indices[:, : before.shape[1]], before)
        before = indices
        errors.append((sums - latents).square().mean().item())
    assert errors[0] > 1.5 * errors[1] > 1.5**2 * errors[2]


def test_one_code_is_the_codebook_of_a_vq_model(images):
    torch.manual_seed(0)
    plain = VQModel(**TINY, latent_channels=4, num_vq_embeddings=16).eval()
    one = residual(num_quantizers=1)
    one.load_state_dict(plain.state_dict())
    for legacy in (True, False):
        plain.quantize.legacy = one.quantize.legacy = legacy
        (sums, loss, (*_, indices)), (codes, expected, (*_, numbers)) = (
            model.quantize(model.encode(images).latents) for model in (one, plain)
        )
        torch.testing.assert_close(sums, codes)
        torch.testing.assert_close(loss, expected)
        assert torch.equal(indices, numbers)
        gradients = [
            torch.autograd.grad(value, model.quantize.embedding.weight)[0]
            for value, model in ((loss, one), (expected, plain))
        ]
        torch.testing.assert_close(*gradients)


def test_what_is_no_quantiser_is_refused():
    for levels in ([], [1], [0, 5], [5.0], "85", [True, 5]):
        with pytest.raises(ConfigError, match=r"levels is .*; give a number of at least 2 for each channel"):
            FSQModel(**TINY, levels=levels)
    for depth in (0, -1, 1.5, True):
        with pytest.raises(ConfigError, match=r"num_quantizers is .*; it must be an integer of at least 1"):
            ResidualVQModel(**TINY, num_quantizers=depth)
    with pytest.raises(ConfigError, match="FSQModel has no option 'num_vq_embeddings'"):
        FSQModel(**TINY, num_vq_embeddings=8)


def test_they_have_no_other_form(vae, tmp_path):
    with pytest.raises(ConfigError, match=f"{type(vae).__name__}"):
        to_original({"vae": vae})
    with pytest.raises(ConfigError, match=f"diffusers has no {type(vae).__name__}; use --to latentdiff"):
        save_diffusers(None, {"vae": vae}, tmp_path / "out")
    assert not (tmp_path / "out").exists()
