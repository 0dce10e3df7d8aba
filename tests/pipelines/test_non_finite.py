"""Latents and images that are not finite are an error with the likely cause, or made in float32; never a black file."""

import copy
import warnings

import numpy as np
import pytest
import torch
from tiny import text_to_image, tiny_inpaint, unconditional

from latentdiff import InpaintPipeline, InputError, TextToImagePipeline
from latentdiff.errors import LatentDiffWarning, NonFiniteError
from latentdiff.pipelines import codec
from latentdiff.windows import Windows

OPTIONS = {"num_inference_steps": 2, "seed": 0}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return text_to_image(tmp_path_factory.mktemp("non_finite"))


@pytest.fixture
def pipe(model):
    """A pipeline with networks of its own, which a test may damage."""
    return TextToImagePipeline.from_pipe(model, vae=copy.deepcopy(model.vae), unet=copy.deepcopy(model.unet))


def overflowing(vae):
    """A first stage whose decoder is beyond float16's range inside, in float16."""
    with torch.no_grad():
        vae.decoder.conv_in.weight.mul_(3e4)
    return vae.half()


@pytest.mark.parametrize("windows", [None, Windows(4, 2)])
def test_a_decoder_that_overflows_in_float16_decodes_in_float32(pipe, windows):
    vae = overflowing(pipe.vae)
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)).half()
    expected = codec.decode(copy.deepcopy(vae).float(), latents, windows=windows)
    with pytest.warns(LatentDiffWarning, match="2 of 2 images"):
        found = codec.decode(vae, latents, windows=windows)
    torch.testing.assert_close(found, expected)
    assert expected.std() > 0.1
    assert vae.dtype == torch.float16, "the first stage itself is left as it is"


def test_only_the_image_that_overflows_is_decoded_in_float32(pipe):
    """So that an image doesn't depend on its batch."""
    vae = overflowing(pipe.vae)
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)).half()
    latents[1] = 0
    with pytest.warns(LatentDiffWarning, match="1 of 2 images"):
        both = codec.decode(vae, latents)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.testing.assert_close(both[1:], codec.decode(vae, latents[1:]), rtol=1e-3, atol=1e-3)


def test_an_encoder_that_overflows_in_float16_encodes_in_float32(pipe):
    with torch.no_grad():
        pipe.vae.encoder.conv_in.weight.mul_(1e5)
    images = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    vae = pipe.vae.half()
    vae.encoder.conv_in.weight.data.clamp_(-6e4, 6e4)
    with pytest.warns(LatentDiffWarning, match="1 of 1 images"):
        found = codec.encode(vae, images, scaled=True)
    expected = codec.encode(copy.deepcopy(vae).float(), images, scaled=True)
    torch.testing.assert_close(found.float(), expected, rtol=1e-2, atol=1e-2)


def test_the_networks_overflow_is_an_error_that_names_float16(pipe):
    with torch.no_grad():
        pipe.unet.conv_in.weight.mul_(3e4)
    pipe.unet.half()
    for output_type in ("pil", "latent"):
        with pytest.raises(NonFiniteError, match=r"latents of 2 of 2 images.*bfloat16") as raised:
            pipe(["a cat", "a dog"], output_type=output_type, **OPTIONS)
        assert isinstance(raised.value, InputError) and "\n" not in str(raised.value)


def test_too_much_guidance_is_an_error_that_names_it(pipe):
    with pytest.raises(NonFiniteError, match="lower guidance scale"):
        pipe("a cat", guidance_scale=1e38, **OPTIONS)


def test_damaged_weights_of_the_first_stage_are_an_error(pipe):
    with torch.no_grad():
        pipe.vae.decoder.conv_out.bias[0] = torch.nan
    with pytest.raises(NonFiniteError, match="check its weights"):
        pipe("a cat", **OPTIONS)
    pipe.vae.half()
    with pytest.raises(NonFiniteError, match="check its weights"), warnings.catch_warnings():
        warnings.simplefilter("ignore", LatentDiffWarning)
        pipe("a cat", **OPTIONS)


def test_an_infinite_image_is_no_white_one(pipe):
    """Infinity would be cut to 1, which looks like an image."""
    with torch.no_grad():
        pipe.vae.decoder.conv_out.bias[:] = torch.inf
    with pytest.raises(NonFiniteError):
        pipe("a cat", **OPTIONS)
    assert (codec.decode(pipe.vae, torch.zeros(1, 4, 8, 8), must_be_finite=False) == 1).all()


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_inputs_that_are_not_finite(pipe, tmp_path, value):
    latents = torch.zeros(1, 4, 8, 8)
    latents[0, 0, 0, 0] = value
    with pytest.raises(InputError, match="latents hold numbers"):
        pipe("a cat", latents=latents, **OPTIONS)
    states = pipe.encode_prompt("a cat").detach().clone()
    states[0, 0, 0] = value
    with pytest.raises(NonFiniteError):
        pipe(prompt_embeds=states, **OPTIONS)
    with pytest.raises(InputError):
        unconditional(tmp_path)(latents=latents, **OPTIONS)


def test_pixels_beside_a_hole_do_not_hide_it(tmp_path):
    """Known pixels are pasted into the result, which hides nothing of what was made."""
    pipe = InpaintPipeline.from_pretrained(tiny_inpaint(tmp_path))
    pipe.set_progress_bar_config(disable=True)
    with torch.no_grad():
        pipe.unet.conv_in.weight.mul_(3e38)
    mask = np.zeros((16, 16), np.uint8)
    mask[4:8, 4:8] = 255
    with pytest.raises(NonFiniteError):
        pipe(np.zeros((16, 16, 3)), mask, **OPTIONS)
