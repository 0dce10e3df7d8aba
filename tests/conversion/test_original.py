"""Every golden case loads from the original's own file and YAML, computes what the original did, and goes back."""

import pytest
import torch
import yaml
from golden_models import AVERAGED
from golden_weights import GOLDEN, files, state_dict
from safetensors.torch import load_file

from latentdiff.conversion import load_original
from latentdiff.conversion.convert import to_original
from latentdiff.conversion.inventory import BUFFERS

EXACT = {"rtol": 0.0, "atol": 1e-5}
TASKS = {
    "fs_kl_f8": None,
    "fs_kl_f16": None,
    "fs_vq_f4": None,
    "fs_vq_f4_noattn": None,
    "ldm_uncond": "unconditional",
    "ldm_churches": "unconditional",
    "ldm_cin": "class-to-image",
    "ldm_txt2img": "text-to-image",
    "ldm_layout2img": "layout-to-image",
    "ldm_inpainting": "inpaint",
}


@pytest.fixture(scope="module", params=TASKS)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def io(name):
    return load_file(GOLDEN / name / "io.safetensors")


@pytest.fixture(scope="module")
def loaded(name):
    return load_original(*files(name), ema=False)


def test_task(name, loaded):
    assert loaded.task == TASKS[name]
    assert ("scheduler" in loaded.components) == (TASKS[name] is not None)


@torch.no_grad()
def test_first_stage(loaded, io):
    vae = loaded.components["vae"]
    encoded = vae.encode(io["image"])
    if "moments" in io:
        torch.testing.assert_close(encoded.latent_dist.parameters, io["moments"], **EXACT)
    else:
        torch.testing.assert_close(encoded.latents, io["prequant"], **EXACT)
        assert torch.equal(vae.encode_to_indices(io["image"]).flatten(), io["indices"])
        torch.testing.assert_close(vae.quantize(io["prequant"])[0], io["quantised"], **EXACT)
        torch.testing.assert_close(vae.decode(io["prequant"]).sample, io["recon"], **EXACT)
        unquantised = vae.decode(io["prequant"], force_not_quantize=True).sample
        torch.testing.assert_close(unquantised, io["recon_noquant"], **EXACT)
    for latents, image in (("z", "recon"), ("z_mode", "recon_mode"), ("z_sample", "recon_sample")):
        if latents in io and image in io:
            scale = vae.config.scaling_factor if latents == "z" else 1.0
            torch.testing.assert_close(vae.decode(io[latents] / scale).sample, io[image], **EXACT)


@pytest.mark.parametrize("name", ["fs_vq_f4", "fs_vq_f4_noattn"], scope="module")
@torch.no_grad()
def test_codes_are_decoded(loaded, io):
    vae = loaded.components["vae"]
    codes = io["indices"].view(-1, *io["prequant"].shape[2:])
    torch.testing.assert_close(vae.decode_indices(codes), io["decode_code"], **EXACT)


@pytest.mark.parametrize("name", ["fs_kl_f8", "fs_kl_f16"], scope="module")
@torch.no_grad()
def test_posterior(loaded, io):
    posterior = loaded.components["vae"].encode(io["image"]).latent_dist
    torch.testing.assert_close(posterior.mode(), io["z_mode"], **EXACT)
    torch.testing.assert_close(posterior.mean + posterior.std * io["noise"], io["z_sample"], **EXACT)
    torch.testing.assert_close(posterior.kl(), io["kl"], rtol=1e-5, atol=0.0)
    torch.testing.assert_close(posterior.nll(io["z_sample"]), io["nll_of_sample"], rtol=1e-5, atol=0.0)
    assert torch.equal(type(posterior)(io["clamp_moments"]).logvar, io["clamp_logvar"])


@torch.no_grad()
def test_conditioning(loaded, io):
    components = loaded.components
    for name in ("text_encoder", "layout_encoder"):
        for tokens, context in (("tokens", "cond"), ("uncond_tokens", "uncond")):
            if name in components:
                torch.testing.assert_close(components[name](io[tokens]).last_hidden_state, io[context], **EXACT)
    for labels, context in (("class_label", "cond"), ("uncond_label", "uncond")):
        if "class_embedder" in components:
            torch.testing.assert_close(components["class_embedder"](io[labels]), io[context], **EXACT)


@torch.no_grad()
def test_unet(name, loaded, io):
    if TASKS[name] is None:
        pytest.skip("a first stage alone")
    context, sample = io.get("cond"), io["unet.x"]
    if context is not None and context.ndim == 4:
        sample, context = torch.cat([sample, context], dim=1), None
    found = loaded.components["unet"](sample, io["unet.t"], context).sample
    torch.testing.assert_close(found, io["unet.eps"], **EXACT)


@pytest.mark.parametrize("name", AVERAGED)
@torch.no_grad()
def test_averaged_weights_are_the_default(name):
    io = load_file(GOLDEN / name / "io.safetensors")
    unet = load_original(*files(name)).components["unet"]
    found = unet(io["unet.x"], io["unet.t"]).sample
    torch.testing.assert_close(found, io["unet.eps_ema"], rtol=0.0, atol=AVERAGED[name])


def twin(key):
    """Where the original keeps the average of a UNet's tensor."""
    return "model_ema." + key.removeprefix("model.").replace(".", "") if key.startswith("model.") else key


@pytest.mark.thorough
@pytest.mark.parametrize("ema", [False, True])
def test_way_back_is_byte_identical(name, ema):
    stored = state_dict(name)
    config, state = to_original(load_original(*files(name), ema=ema, dtype=None).components)
    averaged = ema and name in AVERAGED
    absent = {key for key in state if (twin(key) if averaged else key) not in stored}
    assert absent <= BUFFERS  # the copies of two cases were cut to what tests need
    for key in state.keys() - absent:
        tensor, source = state[key], stored[twin(key) if averaged else key]
        assert source.dtype == tensor.dtype, key
        assert torch.equal(source, tensor), key
    lost = {key for key in stored.keys() - state.keys() if not key.startswith(("model_ema.", "loss."))}
    assert lost <= {
        "scale_factor",  # the config says it instead
        "cond_stage_model.transformer.to_logits.weight",
        "cond_stage_model.transformer.to_logits.bias",
    }
    again = load_original(state, yaml.safe_load(yaml.safe_dump(config)))
    assert again.task == TASKS[name]
