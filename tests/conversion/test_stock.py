"""Folders for plain diffusers: of every family, its classes compute what ours do, or the model is refused."""

import json

import diffusers
import pytest
import torch
from twins import CONTEXT, Twin, narrow_clip

from latentdiff import TextToImagePipeline
from latentdiff.conversion import load_original, networks
from latentdiff.conversion.to_diffusers import save_diffusers
from latentdiff.conversion.zoo import ZOO_FIRST_STAGES, ZOO_MODELS
from latentdiff.errors import ConfigError

pytestmark = pytest.mark.thorough

REFUSED = {
    "lsun_churches256": "heads of one width",
    "inpainting_big": "heads of one width",
    "semantic_synthesis256": "no pipeline for semantic-to-image",
    "semantic_synthesis512": "no pipeline for semantic-to-image",
    "cin256": "no pipeline for class-to-image",
    "cin256-v2": "no pipeline for class-to-image",
    "layout2img-openimages256": "no pipeline for layout-to-image",
    "rdm768": "no pipeline for retrieval-augmented",
    "text2img256": "an eighth of the image's sides",
}
EXACT = {"rtol": 0.0, "atol": 1e-5}


@pytest.fixture(autouse=True)
def small_clip(monkeypatch):
    monkeypatch.setattr(networks, "make_clip", narrow_clip(networks.make_clip, vocab_size=60))


def loaded(name):
    twin = Twin(name)
    return load_original(twin.state, twin.node)


def check_first_stage(ours, theirs):
    images = torch.rand(1, 3, 64, 64) * 2 - 1
    found, expected = theirs.encode(images), ours.encode(images)
    if isinstance(theirs, diffusers.AutoencoderKL):
        found, expected = found.latent_dist, expected.latent_dist
        torch.testing.assert_close(found.parameters, expected.parameters, **EXACT)
        latents = expected.mean
    else:
        latents = expected.latents
        torch.testing.assert_close(found.latents, latents, **EXACT)
    torch.testing.assert_close(theirs.decode(latents).sample, ours.decode(latents).sample, **EXACT)
    assert theirs.config.scaling_factor == ours.config.scaling_factor


@pytest.mark.parametrize("name", ZOO_FIRST_STAGES)
@torch.no_grad()
def test_first_stages(tmp_path, name):
    vae = loaded(name).components["vae"]
    save_diffusers(None, {"vae": vae}, tmp_path / "vae")
    stock = diffusers.VQModel if ZOO_FIRST_STAGES[name].codes else diffusers.AutoencoderKL
    check_first_stage(vae, stock.from_pretrained(tmp_path / "vae"))


@pytest.mark.parametrize("name", [name for name in ZOO_MODELS if name not in REFUSED])
@torch.no_grad()
def test_models(tmp_path, name):
    model = loaded(name)
    save_diffusers(model.task, model.components, tmp_path / "out")
    index = json.loads((tmp_path / "out" / "model_index.json").read_text())
    unet = getattr(diffusers, index["unet"][1]).from_pretrained(tmp_path / "out" / "unet")
    assert type(unet).__module__.startswith("diffusers.")
    sample = torch.randn(2, unet.config.in_channels, 16, 16)
    inputs = (sample, torch.tensor([3, 777])) + (
        (torch.randn(2, 5, CONTEXT),) if "text_encoder" in model.components else ()
    )
    torch.testing.assert_close(unet(*inputs).sample, model.components["unet"](*inputs).sample, **EXACT)
    first_stage = "vqvae" if "vqvae" in index else "vae"
    stock = getattr(diffusers, index[first_stage][1]).from_pretrained(tmp_path / "out" / first_stage)
    check_first_stage(model.components["vae"], stock)
    pipe = getattr(diffusers, index["_class_name"])
    assert pipe.load_config(tmp_path / "out")["_class_name"] == index["_class_name"]


@pytest.mark.parametrize(("name", "reason"), REFUSED.items())
def test_refusals(tmp_path, name, reason):
    model = loaded(name)
    with pytest.raises(ConfigError, match=reason):
        save_diffusers(model.task, model.components, tmp_path / "out")
    assert not list(tmp_path.iterdir())


@torch.no_grad()
def test_stable_diffusion_runs_in_plain_diffusers(tmp_path, monkeypatch):
    """Its own pipeline loads the folder, tokenizer included, and draws what ours draws."""
    monkeypatch.undo()
    monkeypatch.setattr(networks, "make_clip", narrow_clip(networks.make_clip))
    model = loaded("sd-1")
    save_diffusers(model.task, model.components, tmp_path / "out")
    theirs = diffusers.StableDiffusionPipeline.from_pretrained(tmp_path / "out")
    ours = TextToImagePipeline(**model.components)
    options = {"height": 64, "width": 64, "num_inference_steps": 3, "output_type": "np", "guidance_scale": 3.0}
    latents = torch.randn(1, 4, 8, 8)
    for pipe in (ours, theirs):
        pipe.set_progress_bar_config(disable=True)
    expected = ours("a photo of a cat", latents=latents, **options).images
    found = theirs("a photo of a cat", latents=latents, **options).images
    assert abs(found - expected).max() < 1e-4
