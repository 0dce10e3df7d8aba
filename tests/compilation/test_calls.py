"""Calls of networks as tensors: a program of them is the call."""

import pytest
import tiny
import torch

from latentdiff.compilation.calls import flatten_simple, flatten_unet

GENERATOR = torch.Generator().manual_seed(0)
LATENTS, CONTEXT = torch.randn(1, 4, 8, 8, generator=GENERATOR), torch.randn(2, 3, 16, generator=GENERATOR)


@pytest.fixture(scope="module")
def pipe(tmp_path_factory):
    return tiny.text_to_image(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def contexts(pipe):
    with torch.no_grad():
        return {"context": CONTEXT, "keys and values": pipe.unet.prepare_context(CONTEXT)}


@torch.no_grad()
@pytest.mark.parametrize("kind", ["context", "keys and values"])
@pytest.mark.parametrize("when", [7, torch.tensor(7), torch.tensor([7.5])])
def test_the_program_of_a_call_of_the_unet_is_that_call(pipe, contexts, kind, when):
    call = flatten_unet(pipe.unet, LATENTS, when, contexts[kind])
    expected = pipe.unet(LATENTS, when, encoder_hidden_states=contexts[kind])
    found = call.result(call.program(*call.tensors))
    assert type(found) is type(expected) and torch.equal(found.sample, expected.sample)
    call = flatten_unet(pipe.unet, LATENTS, when, contexts[kind], False)
    [found] = call.result(call.program(*call.tensors))
    assert torch.equal(found, expected.sample)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["context", "keys and values"])
def test_the_program_of_a_call_with_cached_features_is_that_call(pipe, contexts, kind):
    given = {"encoder_hidden_states": contexts[kind], "cache_branch": 1}
    expected = pipe.unet(LATENTS, 7, **given)
    full = flatten_unet(pipe.unet, LATENTS, 7, **given)
    found = full.result(full.program(*full.tensors))
    assert torch.equal(found.sample, expected.sample) and torch.equal(found.features, expected.features)
    given["cached_features"] = expected.features + 1
    expected = pipe.unet(LATENTS, 8, **given)
    short = flatten_unet(pipe.unet, LATENTS, 8, **given)
    found = short.result(short.program(*short.tensors))
    assert torch.equal(found.sample, expected.sample) and torch.equal(found.features, expected.features)
    plain = flatten_unet(pipe.unet, LATENTS, 8, contexts[kind])
    other = flatten_unet(pipe.unet, LATENTS, 8, **{**given, "cache_branch": 0})
    assert len({call.signature for call in (full, short, plain, other)}) == 4


@torch.no_grad()
def test_the_program_of_a_decoder_s_call_is_that_call(pipe):
    call = flatten_simple(pipe.vae.decoder, LATENTS, None)
    assert torch.equal(call.result(call.program(*call.tensors)), pipe.vae.decoder(LATENTS))
    assert flatten_simple(pipe.vae.decoder, LATENTS, torch.ones(1)) is None
    assert flatten_simple(pipe.vae.decoder, "latents") is None
    assert flatten_simple(pipe.vae.decoder) is None
