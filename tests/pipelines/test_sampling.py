"""What a call promises: seeds, batches, schedulers, callbacks, output types."""

import numpy as np
import pytest
import torch
from tiny import text_to_image, unconditional

import latentdiff
from latentdiff.errors import InputError
from latentdiff.registry import SCHEDULERS

STEPS = 4


@pytest.fixture(scope="module")
def pipe(tmp_path_factory):
    return text_to_image(tmp_path_factory.mktemp("pipe"))


@pytest.mark.thorough
@pytest.mark.parametrize("scheduler", SCHEDULERS.names())
def test_image_does_not_depend_on_its_batch(pipe, scheduler):
    pipe.set_scheduler(scheduler)
    prompts = ["a red apple", "a green pear", "a cat", "a blue cat", "the big star"]

    def make(n):
        return pipe(prompts[:n], num_inference_steps=STEPS, seed=7, output_type="np").images

    alone = [pipe(p, num_inference_steps=STEPS, seed=7 + i, output_type="np").images[0] for i, p in enumerate(prompts)]
    for n in (1, 2, 5):
        assert np.abs(make(n) - np.stack(alone[:n])).max() <= 1 / 255
    pipe.set_scheduler("ddim")


def test_two_runs_give_equal_bytes(pipe):
    first, second = (pipe(["a cat"] * 2, num_inference_steps=STEPS, seed=1, eta=1.0).images for _ in range(2))
    assert [image.tobytes() for image in first] == [image.tobytes() for image in second]


def test_seeds_and_prompts_change_the_image(pipe):
    base = pipe("a cat", num_inference_steps=STEPS, seed=1, output_type="pt").images
    assert not torch.equal(base, pipe("a cat", num_inference_steps=STEPS, seed=2, output_type="pt").images)
    assert not torch.equal(base, pipe("a star", num_inference_steps=STEPS, seed=1, output_type="pt").images)


def test_several_images_of_a_prompt_stand_next_to_each_other(pipe):
    found = pipe(
        ["a cat", "a star"], num_images_per_prompt=2, num_inference_steps=STEPS, seed=0, output_type="pt"
    ).images
    single = pipe("a star", num_inference_steps=STEPS, seed=[3], output_type="pt").images[0]
    assert (found[3] - single).abs().max() <= 1 / 255


def test_output_types_agree(pipe):
    pil, array, tensor = (
        pipe("a cat", num_inference_steps=STEPS, seed=0, output_type=kind).images for kind in ("pil", "np", "pt")
    )
    assert pil[0].size == (16, 16) and array.shape == (1, 16, 16, 3) and tensor.shape == (1, 3, 16, 16)
    assert np.array_equal(np.round(array[0] * 255).astype(np.uint8), np.array(pil[0]))
    assert np.array_equal(tensor.permute(0, 2, 3, 1).numpy(), array)
    latents = pipe("a cat", num_inference_steps=STEPS, seed=0, output_type="latent", return_dict=False)[0]
    assert latents.shape == (1, 4, 8, 8)


def test_guidance_interval_and_scale_one_are_what_they_say(pipe):
    options = {"num_inference_steps": STEPS, "seed": 0, "output_type": "latent"}
    plain = pipe("a cat", guidance_scale=1.0, **options).images
    late = pipe("a cat", guidance_scale=4.0, guidance_interval=(0.99, 1.0), **options).images
    full = pipe("a cat", guidance_scale=4.0, **options).images
    assert torch.equal(plain, late) and not torch.equal(plain, full)
    rescaled = pipe("a cat", guidance_scale=4.0, guidance_rescale=1.0, **options).images
    assert not torch.equal(full, rescaled)


def test_guidance_rescale_restores_the_conditional_deviation():
    from latentdiff.guidance.two_predictions import rescaled

    guided, conditional = torch.randn(3, 4, 8, 8) * 5, torch.randn(3, 4, 8, 8)
    found = rescaled(guided, conditional, 1.0).std(dim=(1, 2, 3))
    assert torch.allclose(found, conditional.std(dim=(1, 2, 3)))


def test_callback_sees_and_changes_latents(pipe):
    seen = []

    def zero_at_the_end(pipeline, step, timestep, tensors):
        assert pipeline is pipe
        seen.append((step, int(timestep)))
        return {"latents": tensors["latents"] * (step < STEPS - 1)}

    result = pipe(
        "a cat", num_inference_steps=STEPS, seed=0, output_type="latent", callback_on_step_end=zero_at_the_end
    ).images
    assert [step for step, _ in seen] == list(range(STEPS)) and not result.any()


def test_context_is_projected_once_a_call(pipe, monkeypatch):
    """Keys and values of the context are constant over the steps; a fifth step must not project them again."""
    attentions = list(pipe.unet._cross_attentions())
    calls = []
    handles = [a.to_k.register_forward_hook(lambda *_: calls.append(1)) for a in attentions]
    pipe("a cat", num_inference_steps=5, guidance_scale=1.0, seed=0, output_type="latent")
    for handle in handles:
        handle.remove()
    assert len(calls) == len(attentions)


def test_cached_context_is_exact(pipe):
    from latentdiff.conditioning import Conditioning
    from latentdiff.sampling import Denoiser

    context, x = torch.randn(2, 12, 16), torch.randn(2, 4, 8, 8)
    with torch.no_grad():
        cached = Denoiser(pipe.unet, Conditioning(context))(x, torch.tensor(500), 0.0)
        direct = pipe.unet(x, torch.tensor(500), encoder_hidden_states=context).sample
    assert torch.equal(cached, direct)


@pytest.mark.parametrize(
    "stock", ["EulerDiscreteScheduler", "DPMSolverMultistepScheduler", "DDIMScheduler", "PNDMScheduler"]
)
def test_stock_scheduler_plugs_in(pipe, stock):
    import diffusers

    own = {"EulerDiscreteScheduler": "euler", "DPMSolverMultistepScheduler": "dpmpp_2m", "DDIMScheduler": "ddim"}
    pipe.set_scheduler(getattr(diffusers, stock))
    theirs = pipe("a cat", num_inference_steps=STEPS, seed=0, output_type="latent").images
    if stock in own:
        pipe.set_scheduler(own[stock])
        ours = pipe("a cat", num_inference_steps=STEPS, seed=0, output_type="latent").images
        assert (ours - theirs).abs().max() <= 1e-4 * theirs.abs().max()
    pipe.set_scheduler("ddim")


def test_unconditional(tmp_path):
    pipe = unconditional(tmp_path)
    images = pipe(batch_size=3, num_inference_steps=STEPS, seed=0, output_type="pt").images
    alone = pipe(num_inference_steps=STEPS, seed=2, output_type="pt").images
    assert (images[2] - alone[0]).abs().max() <= 1 / 255


BAD_CALLS = {
    "empty": ({"prompt": "  "}, "empty"),
    "not a string": ({"prompt": 3}, "string"),
    "list with a number": ({"prompt": ["a cat", 3]}, "string"),
    "no prompt": ({"prompt": None}, "prompt_embeds"),
    "empty list": ({"prompt": []}, "empty list"),
    "overlong": ({"prompt": "a red apple " * 4 + "and a star"}, "does not fit"),
    "control character": ({"prompt": "a\x00cat"}, r"U\+0000"),
    "lone surrogate": ({"prompt": "a \ud800 cat"}, r"U\+D800"),
    "unknown script": ({"prompt": "猫"}, "vocabulary"),
    "height": ({"height": 18}, "16 or 20"),
    "width": ({"width": -8}, "multiple of 4"),
    "steps": ({"num_inference_steps": 0}, "1 to 1000"),
    "many steps": ({"num_inference_steps": 1001}, "1 to 1000"),
    "steps of another type": ({"num_inference_steps": 2.5}, "integer"),
    "negative seed": ({"seed": -1}, "2\\*\\*63"),
    "large seed": ({"seed": 2**63}, "2\\*\\*63"),
    "seed type": ({"seed": 1.5}, "integer"),
    "number of seeds": ({"seed": [1, 2]}, "2 seeds are given for 1 images"),
    "seed and generator": ({"seed": 1, "generator": torch.Generator()}, "one of them"),
    "output": ({"output_type": "pill"}, "did you mean 'pil'"),
    "latents": ({"latents": torch.zeros(1, 4, 4, 4)}, "shape"),
    "images": ({"num_images_per_prompt": 0}, "at least 1"),
    "negative prompts": ({"negative_prompt": ["a", "the"]}, "2 negative prompts"),
    "idle negative prompt": ({"negative_prompt": "a star", "guidance_scale": 1.0}, "no effect"),
    "interval": ({"guidance_interval": (0.5, 0.2)}, "start < end"),
    "rescale": ({"guidance_rescale": 2.0}, r"\[0, 1\]"),
    "callback tensors": ({"callback_on_step_end_tensor_inputs": ["noise"]}, "allowed"),
    "timesteps and sigmas": ({"timesteps": [5], "sigmas": [1.0]}, "one of them"),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_bad_call_is_refused_in_one_line_before_the_first_step(pipe, name, monkeypatch):
    arguments, message = BAD_CALLS[name]
    monkeypatch.setattr(pipe.scheduler, "step", None)
    with pytest.raises(InputError, match=message) as caught:
        pipe(**{"prompt": "a cat", "num_inference_steps": 2, **arguments})
    assert "\n" not in str(caught.value)


def test_unknown_scheduler_names_its_neighbours(pipe):
    with pytest.raises(latentdiff.ConfigError, match="dpmpp_2m"):
        pipe.set_scheduler("dpmpp2m")


def test_eta_without_effect_is_refused(pipe):
    pipe.set_scheduler("euler")
    with pytest.raises(latentdiff.LatentDiffError, match="eta"):
        pipe("a cat", num_inference_steps=2, eta=0.5)
    pipe.set_scheduler("ddim")
