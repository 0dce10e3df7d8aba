"""Calls as diffusers' users write them: callbacks, prompts, encoded prompts, and switches."""

import warnings

import numpy as np
import pytest
import tiny
import torch
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig, get_peft_model_state_dict
from transformers import CLIPTextConfig, CLIPTextModel

from latentdiff import (
    CheckpointError,
    ClassifierFreeGuidance,
    Conditioning,
    InputError,
    TextToImagePipeline,
)
from latentdiff.errors import LatentDiffWarning

pytestmark = pytest.mark.thorough


@pytest.fixture
def pipe(tmp_path):
    return tiny.text_to_image(tmp_path)


@pytest.fixture
def clip_pipe(tmp_path):
    """A pipeline with a CLIP text encoder of three layers, as Stable Diffusion has one."""
    plain, tokenizer = tiny.text_to_image(tmp_path), tiny.write_clip_tokenizer(tmp_path)
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        max_position_embeddings=16,
        bos_token_id=len(tokenizer) - 2,
        eos_token_id=len(tokenizer) - 1,
    )
    parts = {"vae": plain.vae, "unet": plain.unet, "scheduler": plain.scheduler, "tokenizer": tokenizer}
    made = TextToImagePipeline(text_encoder=CLIPTextModel(config).eval(), **parts)
    made.set_progress_bar_config(disable=True)
    return made


def make(pipe, prompt="a cat", steps=4, **options):
    return pipe(prompt, num_inference_steps=steps, seed=0, output_type="np", **options).images


@pytest.mark.parametrize("value", [7.5, 5, True])
def test_a_number_as_guidance_names_guidance_scale(pipe, value):
    with pytest.raises(InputError, match="did you mean guidance_scale"):
        pipe("a cat", guidance=value)


@pytest.mark.parametrize("value", ["5", [5.0], {"scale": 5}])
def test_guidance_that_is_no_list_of_objects(pipe, value):
    with pytest.raises(InputError, match="give a list of guidance objects"):
        pipe("a cat", guidance=value)


def test_a_guidance_object_alone_is_no_list(pipe):
    guide = ClassifierFreeGuidance(Conditioning(torch.zeros(1, 12, 16)), 2.0)
    with pytest.raises(InputError, match="give a list of guidance objects"):
        pipe("a cat", guidance=guide)


def test_callbacks_may_return_none_or_nothing_new(pipe):
    plain = make(pipe)
    for result in (None, {}):
        assert np.array_equal(make(pipe, callback_on_step_end=lambda *_, result=result: result), plain)
    assert np.array_equal(make(pipe, callback_on_step_end=lambda _, __, ___, tensors: tensors), plain)


def test_a_callback_that_changes_the_dict_in_place(pipe):
    def change(_, __, ___, tensors):
        tensors["latents"] = tensors["latents"] * 0

    def replace(_, __, ___, tensors):
        return {"latents": tensors["latents"] * 0}

    changed = make(pipe, callback_on_step_end=change)
    assert np.array_equal(changed, make(pipe, callback_on_step_end=replace))
    assert not np.array_equal(changed, make(pipe))


@pytest.mark.parametrize("result", [torch.zeros(1), 3, "latents"])
def test_a_callback_that_returns_something_else(pipe, result):
    with pytest.raises(InputError, match="return the dict of tensors to go on with, or None"):
        make(pipe, callback_on_step_end=lambda *_: result)


def test_a_callback_ends_the_run(pipe):
    calls = []

    def interrupt(pipeline, step, _, tensors):
        calls.append((step, pipeline.interrupt))
        pipeline._interrupt = step == 1
        return tensors

    image = make(pipe, callback_on_step_end=interrupt)
    assert calls == [(0, False), (1, False)] and pipe.interrupt
    seen = []
    make(pipe, callback_on_step_end=lambda p, s, t, x: seen.append(x["latents"]))
    assert len(seen) == 4 and not pipe.interrupt  # the next run is whole again
    kept = pipe("a cat", num_inference_steps=4, seed=0, output_type="latent", callback_on_step_end=interrupt).images
    assert torch.equal(kept, seen[1]) and image.shape == (1, 16, 16, 3)


def test_what_a_pipeline_says_of_the_run(pipe):
    shown = []

    def note(pipeline, *_):
        shown.append((pipeline.guidance_scale, pipeline.num_timesteps, pipeline.do_classifier_free_guidance))

    make(pipe, callback_on_step_end=note, guidance_scale=3.0)
    make(pipe, callback_on_step_end=note, guidance_scale=1.0, steps=2)
    assert shown == [(3.0, 4, True)] * 4 + [(1.0, 2, False)] * 2


def test_a_callback_changes_the_guidance_scale(pipe):
    def change(to, at):
        def callback(pipeline, step, *_):
            if step == at:
                pipeline._guidance_scale = to

        return callback

    plain, other = make(pipe, guidance_scale=3.0), make(pipe, guidance_scale=9.0)
    assert np.array_equal(make(pipe, guidance_scale=3.0, callback_on_step_end=change(3.0, 0)), plain)
    changed = make(pipe, guidance_scale=3.0, callback_on_step_end=change(9.0, 1))
    assert not np.array_equal(changed, plain) and not np.array_equal(changed, other)
    off = make(pipe, guidance_scale=3.0, callback_on_step_end=change(0.0, 1))
    half = make(pipe, guidance_scale=3.0, guidance_interval=(0.0, 0.5))
    assert np.allclose(off, half, atol=1e-5)
    with pytest.raises(InputError, match="without classifier-free guidance"):
        make(pipe, guidance_scale=1.0, callback_on_step_end=change(3.0, 0))
    assert np.array_equal(make(pipe, guidance_scale=3.0), plain)


def test_a_stock_callback_that_wants_other_tensors(pipe):
    from diffusers.callbacks import SDCFGCutoffCallback

    with pytest.raises(InputError, match=r"has \['prompt_embeds'\]; allowed"):
        make(pipe, callback_on_step_end=SDCFGCutoffCallback(cutoff_step_ratio=0.5))


def test_encode_prompt_as_diffusers_has_it(pipe):
    plain = make(pipe, ["a cat", "a dog"], guidance_scale=3.0)
    states, negative = pipe.encode_prompt(["a cat", "a dog"], pipe.device, 1, True)
    embeds = {"prompt_embeds": states, "negative_prompt_embeds": negative}
    assert np.array_equal(make(pipe, None, guidance_scale=3.0, **embeds), plain)
    twice, none = pipe.encode_prompt("a cat", "cpu", 2, False)
    assert none is None and torch.equal(twice, pipe.encode_prompt("a cat").repeat(2, 1, 1))
    away = pipe.encode_prompt("a cat", None, 1, True, "a dog")[1]
    assert torch.equal(away, pipe.encode_prompt("a dog"))
    assert torch.equal(pipe.encode_prompt(None, None, 1, True, prompt_embeds=states)[0], states)


def test_encoded_prompts_that_do_not_fit(pipe):
    pair = pipe.encode_prompt("a cat", None, 1, True)
    with pytest.raises(InputError, match="prompt_embeds is a pair; give its first"):
        make(pipe, None, prompt_embeds=pair)
    with pytest.raises(InputError, match=r"prompt_embeds is a tensor \(12, 16\)"):
        make(pipe, None, prompt_embeds=pair[0][0])
    with pytest.raises(InputError, match="prompt_embeds is a list"):
        make(pipe, None, prompt_embeds=[1])
    with pytest.raises(InputError, match="one of the two"):
        make(pipe, "a cat", prompt_embeds=pair[0])
    with pytest.raises(InputError, match="do_classifier_free_guidance"):
        pipe.encode_prompt("a cat", negative_prompt="a dog")


def test_the_empty_prompt_is_the_empty_caption(pipe):
    empty = pipe.encode_prompt("", may_be_empty=True)
    assert np.array_equal(make(pipe, "", guidance_scale=1.0), make(pipe, None, prompt_embeds=empty, guidance_scale=1.0))
    assert len(make(pipe, ["", "a cat"])) == 2
    for blank in (" ", "\n", ["a cat", "  "]):
        with pytest.raises(InputError, match="prompt is empty"):
            make(pipe, blank)


def test_long_prompts_are_cut_on_request(pipe):
    long = "a red apple and a green pear and a big dog"
    with pytest.raises(InputError, match="'dog' does not fit, shorten it or pass truncate_prompt=True"):
        make(pipe, long)
    with pytest.warns(LatentDiffWarning, match="'dog' is left out"):
        cut = make(pipe, long, truncate_prompt=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error", LatentDiffWarning)
        assert np.array_equal(cut, make(pipe, long.removesuffix(" dog"), truncate_prompt=True))


def test_clip_skip_leaves_out_layers(clip_pipe):
    plain = make(clip_pipe)
    assert np.allclose(make(clip_pipe, clip_skip=0), plain, atol=1e-6)
    for skip in (1, 2):
        full = clip_pipe.text_encoder
        inner = getattr(full, "text_model", full)
        layers = inner.encoder.layers
        skipped = make(clip_pipe, clip_skip=skip)
        inner.encoder.layers = layers[: len(layers) - skip]
        assert np.allclose(make(clip_pipe), skipped, atol=1e-6) and not np.array_equal(skipped, plain)
        inner.encoder.layers = layers
    for skip in (-1, 3, 1.5, True):
        with pytest.raises(InputError, match="choose 0 to 2"):
            make(clip_pipe, clip_skip=skip)


def test_clip_skip_of_another_text_encoder(pipe):
    with pytest.raises(InputError, match="clip_skip is for CLIP text encoders, this model has a LDMTextEncoder"):
        make(pipe, clip_skip=1)


def adapter(network, targets):
    network.add_adapter(LoraConfig(r=2, lora_alpha=2, target_modules=targets, init_lora_weights=False))
    layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(network))
    network.delete_adapters("default")
    return {f"unet.{name}": tensor for name, tensor in layers.items()}


def test_the_scale_of_adapters_in_a_call(pipe):
    before = make(pipe)
    with pytest.raises(InputError, match="no adapter is loaded"):
        make(pipe, cross_attention_kwargs={"scale": 0.5})
    pipe.load_lora_weights(adapter(pipe.unet, ["to_q", "to_v"]), adapter_name="one")
    full = make(pipe)
    assert np.array_equal(make(pipe, cross_attention_kwargs={"scale": 1.0}), full)
    assert np.allclose(make(pipe, cross_attention_kwargs={"scale": 0.0}), before, atol=1e-5)
    third = make(pipe, cross_attention_kwargs={"scale": 0.3})
    pipe.set_adapters(["one"], [0.3])
    assert np.allclose(make(pipe), third, atol=1e-5)
    pipe.set_adapters(["one"], [1.0])
    assert np.array_equal(make(pipe), full)  # a scale leaves nothing behind, not even in the last bit
    for wrong in ({"scales": 1.0}, 0.5):
        with pytest.raises(InputError, match="the one entry is"):
            make(pipe, cross_attention_kwargs=wrong)


@pytest.mark.parametrize(
    ("source", "options", "error", "message"),
    [
        ({}, {}, CheckpointError, "it is for nothing"),
        ({"a": 1}, {}, CheckpointError, "it is for a, not for the unet"),
        (3, {}, InputError, "not a int"),
        (None, {}, InputError, "not a NoneType"),
        ({"unet.x.lora_A.weight": torch.zeros(1, 1)}, {"adapter_name": "a.b"}, InputError, "without dots"),
        ({"unet.x.lora_A.weight": torch.zeros(1, 1)}, {"adapter_name": 3}, InputError, "without dots"),
    ],
)
def test_what_is_no_adapter_is_one_line(pipe, source, options, error, message):
    with pytest.raises(error, match=message) as caught:
        pipe.load_lora_weights(source, **options)
    assert "\n" not in str(caught.value)


def test_adapters_that_do_not_fit_are_one_line(pipe, tmp_path):
    with pytest.raises(CheckpointError, match="is no file or folder"):
        pipe.load_lora_weights(tmp_path / "nothing")
    key = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    wrong = {f"{key}.lora_A.weight": torch.zeros(2, 99), f"{key}.lora_B.weight": torch.zeros(99, 2)}
    with pytest.raises(CheckpointError, match="size mismatch") as caught:
        pipe.load_lora_weights(wrong)
    assert "\n" not in str(caught.value)


def test_the_components_that_take_adapters(pipe, clip_pipe):
    assert TextToImagePipeline._lora_loadable_modules == ["unet", "text_encoder"]
    assert pipe._lora_loadable_modules == ["unet"]  # diffusers' functions know no text encoder of another library
    assert clip_pipe._lora_loadable_modules == ["unet", "text_encoder"]


def test_switches_that_do_nothing_say_so(pipe):
    plain = make(pipe)
    for switch in ("enable_attention_slicing", "enable_xformers_memory_efficient_attention"):
        with pytest.warns(LatentDiffWarning, match=f"{switch} has no effect: "):
            getattr(pipe, switch)()
    assert np.array_equal(make(pipe), plain)


def test_switches_of_the_first_stage(pipe):
    plain = make(pipe, ["a cat", "a dog"])
    pipe.enable_vae_slicing()
    pipe.enable_vae_tiling()
    assert pipe.vae.use_slicing and pipe.vae.use_tiling
    assert np.allclose(make(pipe, ["a cat", "a dog"]), plain, atol=1e-5)
    pipe.disable_vae_slicing()
    pipe.disable_vae_tiling()
    assert not pipe.vae.use_slicing and not pipe.vae.use_tiling


def test_a_notebook_shows_a_table(pipe):
    html = pipe._repr_html_()
    assert html.startswith("<table>") and html.endswith("</table>") and html.count("<tr>") == html.count("</tr>") == 6
    for part in ("TextToImagePipeline", "LDMTextEncoder", "DDIMScheduler", "float32", "cpu"):
        assert part in html


@pytest.mark.parametrize("name", ["prompt_embeds", "negative_prompt_embeds", "latent"])
def test_a_callback_that_returns_what_a_run_does_not_take(pipe, name):
    """It would have changed nothing."""
    with pytest.raises(InputError, match=f"returned {name}, which a run does not take; return of latents"):
        make(pipe, callback_on_step_end=lambda _, __, ___, tensors: {**tensors, name: tensors["latents"]})


@pytest.mark.parametrize("latents", [None, [1.0], np.zeros((1, 4, 8, 8), np.float32)])
def test_a_callback_whose_latents_are_no_tensor(pipe, latents):
    with pytest.raises(InputError, match=f"returned {type(latents).__name__} as latents; return a tensor"):
        make(pipe, callback_on_step_end=lambda *_: {"latents": latents})
