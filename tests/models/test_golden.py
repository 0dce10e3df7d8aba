"""One pass of every network equals the original code's."""

import pytest
import torch
from golden_models import AVERAGED, CASES, load_case

EXACT = {"rtol": 0.0, "atol": 1e-5}


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_unet(name):
    case = load_case(name)
    inputs = case.io["unet.x"], case.io["unet.t"], case.io.get("cond")
    torch.testing.assert_close(case.unet(*inputs).sample, case.io["unet.eps"], **EXACT)
    if case.unet_ema is not None:
        found = case.unet_ema(*inputs).sample
        torch.testing.assert_close(found, case.io["unet.eps_ema"], rtol=0.0, atol=AVERAGED[name])


@torch.no_grad()
def test_text_encoder():
    case = load_case("ldm_txt2img")
    for tokens, context in (("tokens", "cond"), ("uncond_tokens", "uncond")):
        out = case.text_encoder(case.io[tokens]).last_hidden_state
        torch.testing.assert_close(out, case.io[context], **EXACT)


@pytest.mark.parametrize("name", ["ldm_txt2img", "ldm_churches"])
@torch.no_grad()
def test_kl_first_stage(name):
    case = load_case(name)
    posterior = case.vae.encode(case.io["image"]).latent_dist
    torch.testing.assert_close(posterior.parameters, case.io["moments"], **EXACT)
    latents = case.scale_factor * (posterior.mean + posterior.std * case.io["posterior_noise"])
    torch.testing.assert_close(latents, case.io["z"], **EXACT)
    recon = case.vae.decode(case.io["z"] / case.scale_factor).sample
    torch.testing.assert_close(recon, case.io["recon"], **EXACT)


@torch.no_grad()
def test_vq_first_stage():
    case = load_case("ldm_uncond")
    torch.testing.assert_close(case.vae.encode(case.io["image"]).latents, case.io["prequant"], **EXACT)
    torch.testing.assert_close(case.vae.quantize(case.io["prequant"])[0], case.io["quantised"], **EXACT)
    torch.testing.assert_close(case.vae.decode(case.io["z"]).sample, case.io["recon"], **EXACT)
