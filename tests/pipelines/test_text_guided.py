"""Models that see channels and a prompt at once: text-guided inpainting and super-resolution."""

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import (
    tiny_inpaint,
    tiny_super_resolution,
    tiny_text_inpaint,
    tiny_text_super_resolution,
    tiny_text_to_image,
    tiny_unconditional,
)

from latentdiff import ClassifierFreeGuidance, Conditioning, DiffusionPipeline, InpaintPipeline, SuperResolutionPipeline
from latentdiff.cli.main import main
from latentdiff.errors import ConfigError, InputError
from latentdiff.pipelines import codec

pytestmark = pytest.mark.thorough

OPTIONS = {"num_inference_steps": 3, "seed": 0, "output_type": "np"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {"inpaint": tiny_text_inpaint(folder), "super-resolution": tiny_text_super_resolution(folder)}


def load(folder):
    pipe = DiffusionPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def inpaint(folders):
    return load(folders["inpaint"])


@pytest.fixture
def upscale(folders):
    return load(folders["super-resolution"])


@pytest.fixture
def inputs():
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    mask = np.zeros((16, 16), dtype=np.uint8)
    mask[4:12, 4:12] = 255
    return Image.fromarray(pixels), Image.fromarray(mask)


def test_folders_are_loaded_as_their_tasks(inpaint, upscale):
    assert type(inpaint) is InpaintPipeline and inpaint.text_encoder is not None and inpaint.tokenizer is not None
    assert type(upscale) is SuperResolutionPipeline and upscale.text_encoder is not None


def test_what_the_network_sees(inpaint, inputs):
    """Stable Diffusion's way: the mask first, 1 in holes and 0 elsewhere, then scaled latents with holes of 0."""
    image = torch.tensor(np.array(inputs[0])).permute(2, 0, 1)[None] / 127.5 - 1
    holes = (torch.tensor(np.array(inputs[1]))[None, None] > 0).float()
    inpaint.vae.register_to_config(scaling_factor=0.3)
    shown = inpaint.encode_masked(image, holes)
    expected = codec.encode(inpaint.vae, image * (holes < 0.5), scaled=True)
    assert torch.equal(shown[:, 1:], expected) and shown.shape[1] == 5
    assert torch.equal(shown[:, :1], torch.nn.functional.interpolate(holes, size=(8, 8)))


def test_a_model_without_text_sees_the_papers_way(tmp_path, inputs):
    pipe = load(tiny_inpaint(tmp_path))
    assert pipe.text_encoder is None and pipe.tokenizer is None
    image = torch.tensor(np.array(inputs[0])).permute(2, 0, 1)[None] / 127.5 - 1
    holes = (torch.tensor(np.array(inputs[1]))[None, None] > 0).float()
    shown = pipe.encode_masked(image, holes)
    expected = codec.encode(pipe.vae, torch.where(holes > 0, -1.0, image), scaled=False)
    assert torch.equal(shown[:, :-1], expected)
    assert torch.equal(shown[:, -1:], torch.nn.functional.interpolate(2 * holes - 1, size=(8, 8)))


def test_guidance_acts_on_the_text_alone(inpaint, inputs):
    """The call is `generate_from` with the channels in both conditionings."""
    options = {**OPTIONS, "output_type": "pt"}
    found = inpaint(*inputs, "a red apple", guidance_scale=3.0, negative_prompt="a dog", **options)
    image = torch.tensor(np.array(inputs[0])).permute(2, 0, 1)[None] / 127.5 - 1
    holes = (torch.tensor(np.array(inputs[1]))[None, None] > 0).float()
    shown = inpaint.encode_masked(image, holes)
    apple, dog = (Conditioning(inpaint.encode_prompt(text), shown) for text in ("a red apple", "a dog"))
    guidance = [ClassifierFreeGuidance(dog, 3.0)]
    made = inpaint.generate_from(apple, 16, 16, guidance=guidance, **options).images
    inside = holes[0].bool().expand(3, -1, -1)
    torch.testing.assert_close(found.images[0][inside], made[0][inside], rtol=0, atol=1e-6)
    known = torch.tensor(np.array(inputs[0])).permute(2, 0, 1) / 255
    torch.testing.assert_close(found.images[0][~inside], known[~inside], rtol=0, atol=1e-6)


def test_the_prompt_and_the_mask_both_matter(inpaint, inputs):
    image, mask = inputs
    apple = inpaint(image, mask, prompt="a red apple", **OPTIONS).images
    assert np.array_equal(apple, inpaint(image, mask, prompt="a red apple", **OPTIONS).images)
    assert not np.array_equal(apple, inpaint(image, mask, prompt="a dog", **OPTIONS).images)
    assert not np.array_equal(apple, inpaint(image, mask, prompt="", **OPTIONS).images)
    assert not np.array_equal(apple, inpaint(image, mask, prompt="a red apple", guidance_scale=1, **OPTIONS).images)
    other = Image.fromarray(255 - np.array(image))
    assert not np.array_equal(
        apple[0, 5:11, 5:11], inpaint(other, mask, "a red apple", **OPTIONS).images[0, 5:11, 5:11]
    )


def test_batches_are_their_single_images(inpaint, inputs):
    """As many prompts as images, one prompt for all, several prompts for one image, and several images of each."""
    image, mask = inputs
    other = Image.fromarray(255 - np.array(image))
    options = {**OPTIONS, "output_type": "pil"}

    def alone(image, prompt, seed):
        return np.array(inpaint(image, mask, prompt, **{**options, "seed": seed}).images[0])

    def check(made, expected):
        assert len(made) == len(expected)
        for found, wanted in zip(made, expected, strict=True):
            assert abs(np.array(found).astype(int) - alone(*wanted).astype(int)).max() <= 1

    prompts = ["a dog", "a cat"]
    check(inpaint([image, other], mask, prompts, **options).images, [(image, "a dog", 0), (other, "a cat", 1)])
    check(inpaint([image, other], mask, "a dog", **options).images, [(image, "a dog", 0), (other, "a dog", 1)])
    check(inpaint(image, mask, prompts, **options).images, [(image, "a dog", 0), (image, "a cat", 1)])
    two = inpaint(image, mask, prompts, num_images_per_prompt=2, **options).images
    check(two, [(image, "a dog", 0), (image, "a dog", 1), (image, "a cat", 2), (image, "a cat", 3)])
    with pytest.raises(InputError, match="3 prompts are given for 2 images; give one each, or one for all"):
        inpaint([image, other], mask, ["a dog"] * 3, **options)


def test_states_serve_as_prompts(inpaint, inputs):
    expected = inpaint(*inputs, "a red apple", guidance_scale=4.0, **OPTIONS).images
    states, negative = inpaint.encode_prompt("a red apple", "cpu", 1, True)
    found = inpaint(
        *inputs, prompt_embeds=states, negative_prompt_embeds=negative, guidance_scale=4.0, **OPTIONS
    ).images
    assert np.array_equal(found, expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, 'prompt is missing, which this model takes; say what to show, or give ""'),
        ({"prompt": "  "}, "prompt is empty"),
        ({"prompt": "a dog " * 20}, "does not fit, shorten it"),
        ({"prompt": "a dog", "prompt_embeds": torch.zeros(1, 12, 16)}, "give either prompt or prompt_embeds"),
        ({"prompt": "a dog", "guidance_scale": float("nan")}, "guidance_scale"),
        ({"prompt": "a dog", "negative_prompt": "a cat", "guidance_scale": 1}, "negative_prompt has no effect"),
        ({"prompt": "a dog", "clip_skip": 1}, "clip_skip is for CLIP text encoders"),
    ],
)
def test_what_a_model_of_text_refuses(inpaint, upscale, inputs, options, message):
    for call in (lambda: inpaint(*inputs, **options, **OPTIONS), lambda: upscale(inputs[0], **options, **OPTIONS)):
        with pytest.raises(InputError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("prompt", "a dog"),
        ("prompt", ""),
        ("negative_prompt", "a dog"),
        ("prompt_embeds", torch.zeros(1, 12, 16)),
        ("guidance_scale", 3.0),
        ("truncate_prompt", True),
        ("clip_skip", 0),
    ],
)
def test_what_a_model_without_text_refuses(tmp_path, inputs, name, value):
    inpaint, upscale = load(tiny_inpaint(tmp_path)), load(tiny_super_resolution(tmp_path))
    for call in (lambda o: inpaint(*inputs, **o, **OPTIONS), lambda o: upscale(inputs[0], **o, **OPTIONS)):
        with pytest.raises(InputError, match=f"{name} is given, but this model has no text encoder; leave it out"):
            call({name: value})


def test_super_resolution_by_text(upscale, inputs):
    small = inputs[0]
    apple = upscale(small, prompt="a red apple", **OPTIONS).images
    assert apple.shape == (1, 32, 32, 3)
    assert not np.array_equal(apple, upscale(small, prompt="a dog", **OPTIONS).images)
    two = upscale(small, ["a red apple", "a dog"], **OPTIONS).images
    np.testing.assert_allclose(two[:1], apple, rtol=0, atol=1e-5)
    upscale.set_scheduler("dpmpp_2m")
    assert upscale(small, "a dog", windows=16, guidance_rescale=0.5, **OPTIONS).images.shape == (1, 32, 32, 3)


def test_networks_of_other_tasks_do_not_fit(tmp_path, folders):
    """A context without a text encoder, a text encoder without a context, and other channels."""
    text = load(tiny_text_to_image(tmp_path))
    with pytest.raises(ConfigError, match="gives its network 9 channels, but this one takes 4"):
        InpaintPipeline.from_pipe(text)
    guided = load(folders["inpaint"])
    parts = {name: guided.components[name] for name in ("vae", "unet", "scheduler")}
    InpaintPipeline(**parts).save_pretrained(tmp_path / "bare")
    with pytest.raises(ConfigError, match="gives its network no context, but this one takes one"):
        InpaintPipeline.from_pretrained(tmp_path / "bare")
    plain = load(tiny_inpaint(tmp_path))
    plain.register_modules(text_encoder=guided.text_encoder, tokenizer=guided.tokenizer)
    plain.save_pretrained(tmp_path / "crossed")
    with pytest.raises(ConfigError, match="gives its network a context, but this one takes none"):
        InpaintPipeline.from_pretrained(tmp_path / "crossed")
    with pytest.raises(ConfigError, match="needs"):
        SuperResolutionPipeline.from_pipe(load(tiny_unconditional(tmp_path)), unet=None)


def test_adapters(tmp_path, inpaint, inputs):
    pytest.importorskip("peft")
    from peft import LoraConfig

    before = inpaint(*inputs, "a dog", **OPTIONS).images
    inpaint.unet.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
    changed = inpaint(*inputs, "a dog", **OPTIONS).images
    assert not np.array_equal(changed, before)
    without = inpaint(*inputs, "a dog", cross_attention_kwargs={"scale": 0.0}, **OPTIONS).images
    np.testing.assert_allclose(without, before, rtol=0, atol=1e-5)


def test_commands(tmp_path, monkeypatch, capsys, folders, inpaint, inputs):
    monkeypatch.chdir(tmp_path)
    inputs[0].save("photo.png"), inputs[1].save("mask.png")
    shared = ["--steps", "3", "--seed", "0", "--model"]
    command = [
        "inpaint",
        "photo.png",
        "--mask",
        "mask.png",
        "--prompt",
        "a dog",
        "-o",
        "a.png",
        "--guidance-scale",
        "2",
    ]
    assert main([*command, *shared, str(folders["inpaint"])]) == 0
    expected = inpaint(*inputs, "a dog", num_inference_steps=3, seed=0, guidance_scale=2).images[0]
    assert np.array_equal(np.array(Image.open("a.png")), np.array(expected))
    capsys.readouterr()
    assert main(["info", "a.png"]) == 0
    assert "--prompt 'a dog'" in capsys.readouterr().out
    upscale = ["upscale", "photo.png", "-o", "b.png", "--overwrite"]
    assert main([*upscale, "--prompt", "a dog", *shared, str(folders["super-resolution"])]) == 0
    assert main([*upscale, *shared, str(folders["super-resolution"])]) == 2
    assert "needs --prompt; say what to show" in capsys.readouterr().err
    plain = str(tiny_super_resolution(tmp_path))
    assert main([*upscale, "--prompt", "a dog", *shared, plain]) == 2
    assert "has no use for --prompt; leave it out" in capsys.readouterr().err
