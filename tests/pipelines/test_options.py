"""The shared options of every call, which are completed once, and images of a conditioning that is ready."""

import dataclasses
import inspect

import pytest
import tiny
import torch

from latentdiff import (
    ClassifierFreeGuidance,
    Conditioning,
    DiffusionPipeline,
    InputError,
    SamplingKeywords,
    SamplingOptions,
    Windows,
)
from latentdiff.pipelines.options import shared_parameters
from latentdiff.registry import PIPELINES

FAST = {"num_inference_steps": 3, "seed": 5, "output_type": "pt"}
CALLS = [*(PIPELINES.get(task).__call__ for task in PIPELINES.names()), DiffusionPipeline.generate_from]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return tiny.text_to_image(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module")
def unconditional(tmp_path_factory):
    return tiny.unconditional(tmp_path_factory.mktemp("unconditional"))


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    folder = tiny.tiny_super_resolution(tmp_path_factory.mktemp("large"))
    return tiny._quiet(DiffusionPipeline.from_pretrained(folder))


def test_keywords_and_options_are_the_same_fields():
    fields = {field.name: field.type for field in dataclasses.fields(SamplingOptions)}
    keywords = {name: hint.__forward_arg__ for name, hint in SamplingKeywords.__annotations__.items()}
    assert list(fields) == list(keywords)
    assert {name for name in fields if fields[name] != keywords[name]} == {"windows"}  # in pixels, in latent pixels


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.__qualname__)
def test_every_call_shows_and_describes_the_options(call):
    shown = inspect.signature(call).parameters
    options = shared_parameters()
    assert [shown[option.name] for option in options] == options
    assert not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in shown.values())
    described = [line.strip().partition(":")[0] for line in inspect.getdoc(call).splitlines()]
    assert [name for name in described if name in shown] == [name for name in shown if name != "self"]
    assert "**keywords" not in call.__doc__


def test_options_are_frozen_and_have_their_defaults():
    options = SamplingOptions(eta=0.5)
    assert (options.eta, options.num_inference_steps, options.output_type, options.guidance) == (0.5, 50, "pil", ())
    assert options.schedule == {"num_inference_steps": 50}
    assert SamplingOptions(sigmas=[1.0, 0.0]).schedule == {"sigmas": [1.0, 0.0]}
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.eta = 1.0
    with pytest.raises(InputError, match="output_type is 'pill'; did you mean 'pil'"):
        SamplingOptions(output_type="pill")


def test_what_generates_receives_completed_options(text, monkeypatch):
    seen = []
    generate = type(text)._generate
    monkeypatch.setattr(
        type(text), "_generate", lambda self, *args, **more: (seen.append(args[2]), generate(self, *args, **more))[1]
    )
    text("a cat", **FAST, windows=16)
    text("a cat", **FAST, height=32, windows=Windows(16, 4))
    assert [options.windows for options in seen] == [Windows(8, 2), Windows(8, 2)]
    assert all(isinstance(options, SamplingOptions) and options.num_images_per_prompt == 1 for options in seen)


def test_a_ready_conditioning_gives_the_same_images(text):
    prompts = ["a red apple", "a green pear"]
    context, empty = text.encode_prompt(prompts), text.encode_prompt(["", ""], may_be_empty=True)
    guidance = [ClassifierFreeGuidance(Conditioning(empty), 3.0)]
    found = text.generate_from(Conditioning(context), guidance=guidance, **FAST).images
    assert torch.equal(found, text(prompts, guidance_scale=3.0, **FAST).images)
    found = text.generate_from(Conditioning(context), num_images_per_prompt=2, **FAST).images
    assert torch.equal(found, text(prompts, guidance_scale=1.0, num_images_per_prompt=2, **FAST).images)


def test_an_empty_conditioning_and_sizes(unconditional):
    assert torch.equal(
        unconditional.generate_from(Conditioning(), batch_size=3, **FAST).images, unconditional(3, **FAST).images
    )
    found = unconditional.generate_from(Conditioning(), 32, 24, windows=16, **FAST).images
    assert found.shape == (1, 3, 32, 24)
    assert torch.equal(found, unconditional(1, 32, 24, windows=16, **FAST).images)


def test_channels_beside_the_latents(large):
    small = torch.rand(2, 3, 8, 8)
    found = large.generate_from(Conditioning(concat=small * 2 - 1), **FAST).images
    assert torch.equal(found, large(small, **FAST).images)


def test_a_conditioning_that_does_not_fit_is_refused_in_one_line(text, unconditional, large):
    context = Conditioning(text.encode_prompt("a cat"))
    empty = Conditioning(text.encode_prompt(["", ""], may_be_empty=True))
    concat = Conditioning(concat=torch.zeros(1, 3, 8, 8))
    for pipe, arguments, message in (
        (text, {"conditioning": context, "batch_size": 2}, "batch_size is 2, but the conditioning has 1 rows"),
        (text, {"conditioning": context, "guidance": [ClassifierFreeGuidance(empty, 2.0)]}, "unconditional has 2 rows"),
        (text, {"conditioning": Conditioning()}, "encoder_hidden_states is missing"),
        (text, {"conditioning": context, "height": 17}, "height is 17"),
        (unconditional, {"conditioning": concat}, r"concat of the conditioning is \(1, 3, 8, 8\).* takes None"),
        (unconditional, {"conditioning": Conditioning(), "batch_size": 0}, "batch_size is 0"),
        (large, {"conditioning": Conditioning()}, r"is None; this network takes \(B, 3, 8, 8\)"),
        (large, {"conditioning": concat, "height": 32}, r"takes \(B, 3, 16, 8\) at this size"),
        (large, {"conditioning": concat, "num_inference_step": 3}, "did you mean 'num_inference_steps'"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            pipe.generate_from(**{**FAST, **arguments})
        assert "\n" not in str(caught.value)
