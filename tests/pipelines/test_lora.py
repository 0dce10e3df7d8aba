"""Adapters as diffusers' scripts write them for Stable Diffusion, of the text encoder too."""

import copy
import threading

import numpy as np
import pytest
from diffusers import StableDiffusionPipeline
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig, get_peft_model_state_dict
from tiny import text_to_image, write_clip_tokenizer
from transformers import CLIPTextConfig, CLIPTextModel

from latentdiff import InputError, TextToImagePipeline

TARGETS = {"unet": ["to_q", "to_v"], "text_encoder": ["q_proj", "v_proj"]}


def test_an_adapter_of_unet_and_text_encoder(tmp_path):
    tokenizer = write_clip_tokenizer(tmp_path)
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=16,
    )
    plain = text_to_image(tmp_path)
    parts = {"vae": plain.vae, "unet": plain.unet, "scheduler": plain.scheduler, "tokenizer": tokenizer}
    pipe = TextToImagePipeline(text_encoder=CLIPTextModel(config).eval(), **parts)
    pipe.set_progress_bar_config(disable=True)

    def image():
        return pipe("a cat", num_inference_steps=2, seed=0, output_type="np").images

    before, kept, layers = image(), {name: copy.deepcopy(getattr(pipe, name)) for name in TARGETS}, {}
    for name, targets in TARGETS.items():
        part = getattr(pipe, name)
        part.add_adapter(LoraConfig(r=2, lora_alpha=2, target_modules=targets, init_lora_weights=False))
        layers[name] = convert_state_dict_to_diffusers(get_peft_model_state_dict(part))
    full = image()
    StableDiffusionPipeline.save_lora_weights(
        tmp_path / "both", unet_lora_layers=layers["unet"], text_encoder_lora_layers=layers["text_encoder"]
    )
    pipe.register_modules(**kept)
    assert np.array_equal(image(), before) and np.abs(full - before).max() > 1e-3
    pipe.load_lora_weights(tmp_path / "both", adapter_name="both")
    assert np.allclose(image(), full, atol=1e-5)
    pipe.set_adapters(["both"], [0.0])
    assert np.allclose(image(), before, atol=1e-5)


@pytest.mark.thorough
def test_the_scale_is_that_of_the_call(tmp_path):
    """Threads on one pipeline have each its own, and a call in a callback has none of the call around it."""
    pipe = text_to_image(tmp_path)
    pipe.set_progress_bar_config(disable=True)
    pipe.unet.add_adapter(LoraConfig(r=2, lora_alpha=2, target_modules=["to_q", "to_v"], init_lora_weights=False))

    def image(scale, **options):
        adapters = None if scale is None else {"scale": scale}
        options = {"num_inference_steps": 8, "seed": 0, "output_type": "np", **options}
        return pipe("a cat", cross_attention_kwargs=adapters, **options).images[0]

    scales = [None, 0.0, 0.5, 3.0]
    alone = [image(scale) for scale in scales]
    assert all(np.abs(alone[0] - other).max() > 1e-4 for other in alone[1:])
    assert np.array_equal(alone[0], image(1.0))
    together, barrier = [[] for _ in scales], threading.Barrier(len(scales))

    def work(place):
        barrier.wait()
        together[place] = [image(scales[place]) for _ in range(3)]

    threads = [threading.Thread(target=work, args=(place,)) for place in range(len(scales))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for right, made in zip(alone, together, strict=True):
        assert len(made) == 3 and all(np.allclose(right, other, atol=1e-6) for other in made)

    inner = []

    def call_again(pipe, step, timestep, tensors):
        if step == 1:
            inner.append(image(None))
        return tensors

    assert np.allclose(image(3.0, callback_on_step_end=call_again), alone[3], atol=1e-6)
    assert np.allclose(inner[0], alone[0], atol=1e-6)


@pytest.mark.parametrize("scale", ["0.5", float("nan"), True])
def test_a_scale_that_is_no_number(scale, tmp_path):
    pipe = text_to_image(tmp_path)
    pipe.unet.add_adapter(LoraConfig(r=2, target_modules=["to_q"]))
    with pytest.raises(InputError, match="scale"):
        pipe("a cat", num_inference_steps=1, cross_attention_kwargs={"scale": scale})


MISTAKES = {
    "an unknown name": (lambda pipe: pipe.set_adapters("b"), "there is no adapter 'b'; known: a"),
    "an unknown name among others": (lambda pipe: pipe.set_adapters(["a", "b"]), "there is no adapter 'b'"),
    "a strength too many": (lambda pipe: pipe.set_adapters(["a"], [1, 2]), "2 adapter_weights are given for 1"),
    "a text as strength": (lambda pipe: pipe.set_adapters(["a"], ["x"]), "adapter_weights is 'x'"),
    "no number as strength": (lambda pipe: pipe.set_adapters("a", float("nan")), "adapter_weights is nan"),
    "a strength of another component": (lambda pipe: pipe.set_adapters("a", {"vae": 1}), "'vae' takes no adapters"),
    "deleting an unknown one": (lambda pipe: pipe.delete_adapters("b"), "there is no adapter 'b'"),
    "fusing an unknown one": (lambda pipe: pipe.fuse_lora(adapter_names=["b"]), "there is no adapter 'b'"),
    "fusing another component": (lambda pipe: pipe.fuse_lora(["vae"]), "'vae' takes no adapters"),
    "fusing with no number": (lambda pipe: pipe.fuse_lora(lora_scale="x"), "lora_scale is 'x'"),
}


def test_mistakes_with_adapters_are_one_line(tmp_path):
    pipe = text_to_image(tmp_path)
    with pytest.raises(InputError, match="there is no adapter 'a'; none is loaded"):
        pipe.set_adapters("a")
    pipe.unet.add_adapter(LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False), adapter_name="a")
    for name, (mistake, message) in MISTAKES.items():
        with pytest.raises(InputError) as error:
            mistake(pipe)
        assert message in str(error.value) and "\n" not in str(error.value), name


def test_fusing_needs_no_names(tmp_path):
    """diffusers' own default has a text encoder, which not every pipeline has as a component with adapters."""
    pipe = text_to_image(tmp_path)
    pipe.set_progress_bar_config(disable=True)
    plain = pipe("a cat", num_inference_steps=2, seed=0, output_type="np").images
    pipe.unet.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
    adapted = pipe("a cat", num_inference_steps=2, seed=0, output_type="np").images
    pipe.fuse_lora()
    assert np.allclose(pipe("a cat", num_inference_steps=2, seed=0, output_type="np").images, adapted, atol=1e-5)
    pipe.unfuse_lora()
    assert np.allclose(pipe("a cat", num_inference_steps=2, seed=0, output_type="np").images, adapted, atol=1e-5)
    pipe.unload_lora_weights()
    assert np.allclose(pipe("a cat", num_inference_steps=2, seed=0, output_type="np").images, plain, atol=1e-5)
