"""Inpainting, super-resolution, semantic maps and image to image: sizes, masks, and what is not an input."""

import numpy as np
import pytest
import tiny
from PIL import Image

from latentdiff import (
    AutoPipeline,
    ConfigError,
    DiffusionPipeline,
    ImageToImagePipeline,
    InpaintPipeline,
    InputError,
    UnconditionalPipeline,
)

FAST = {"num_inference_steps": 4, "seed": 3}


def load(make, folder):
    return tiny._quiet(DiffusionPipeline.from_pretrained(make(folder)))


@pytest.fixture(scope="module")
def inpaint(tmp_path_factory):
    return load(tiny.tiny_inpaint, tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    return load(tiny.tiny_super_resolution, tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def semantic(tmp_path_factory):
    return load(tiny.tiny_semantic_to_image, tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return load(tiny.tiny_text_to_image, tmp_path_factory.mktemp("models"))


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


SIZES = [(h, w) for h in (5, 8, 13, 31) for w in (4, 7, 16, 19, 33)]


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_untouched_pixels_stay_to_the_bit(inpaint, height, width):
    image, hole = picture(height, width, height * width), np.zeros((height, width), dtype=bool)
    hole[height // 3 : height // 3 * 2 + 1, 1 : width // 2] = True
    found = np.asarray(inpaint(Image.fromarray(image), hole, **FAST).images[0])
    assert found.shape == image.shape
    assert np.array_equal(found[~hole], image[~hole])
    assert not np.array_equal(found[hole], image[hole])


def test_the_hole_s_content_is_not_seen(inpaint):
    image, hole = picture(16, 16), np.zeros((16, 16), dtype=bool)
    hole[4:12, 4:12] = True
    other = np.where(hole[..., None], 255 - image, image)
    first, second = (np.asarray(inpaint(given, hole, **FAST).images[0]) for given in (image, other))
    assert np.array_equal(first, second)


def test_a_full_mask_makes_all_anew_and_an_empty_one_is_an_error(inpaint):
    image = picture(16, 16)
    found = np.asarray(inpaint(image, np.ones((16, 16), dtype=bool), **FAST).images[0])
    assert (found != image).any(-1).mean() > 0.9
    with pytest.raises(InputError, match="black everywhere, so nothing is to be filled"):
        inpaint(image, np.zeros((16, 16), dtype=bool))


def test_masks_that_do_not_fit(inpaint):
    with pytest.raises(InputError, match="mask is 8x16 pixels, the image 16x16"):
        inpaint(picture(16, 16), np.ones((16, 8), dtype=bool))
    with pytest.raises(InputError, match="2 masks are given for 3 images"):
        inpaint([picture(16, 16)] * 3, [np.ones((16, 16), dtype=bool)] * 2)
    with pytest.raises(InputError, match="one is 16x16 pixels, another 16x8"):
        inpaint([picture(16, 16), picture(8, 16)], np.ones((16, 16), dtype=bool))
    assert len(inpaint([picture(16, 16)] * 2, np.ones((16, 16), dtype=bool), **FAST).images) == 2


@pytest.mark.parametrize("mode", ["RGBA", "P", "L", "CMYK", "1", "I;16"])
def test_files_of_every_kind(inpaint, tmp_path, mode):
    grey = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    image = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257) if mode == "I;16" else grey.convert(mode)
    path = tmp_path / ("image.jpg" if mode == "CMYK" else "image.png")
    image.save(path)
    hole = Image.fromarray(np.eye(16, dtype=np.uint8) * 255)
    assert inpaint(path, hole, **FAST).images[0].size == (16, 16)


def test_damaged_file(inpaint, tmp_path):
    (tmp_path / "image.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"no")
    with pytest.raises(InputError, match=r"image\.png .*"):
        inpaint(tmp_path / "image.png", np.ones((16, 16), dtype=bool))


@pytest.mark.parametrize(("height", "width"), SIZES[:6])
def test_any_size_is_enlarged(large, height, width):
    assert large.upscale_factor == 2
    assert large(picture(height, width), **FAST).images[0].size == (2 * width, 2 * height)


def test_maps_of_any_size_and_from_files(semantic, tmp_path):
    labels = np.arange(13 * 18).reshape(13, 18) % len(tiny.CLASSES)
    Image.fromarray(labels.astype(np.uint8)).save(tmp_path / "map.png")
    coloured = Image.fromarray(np.array(tiny.PALETTE, dtype=np.uint8)[labels])
    found = [np.asarray(semantic(given, **FAST).images[0]) for given in (labels, tmp_path / "map.png", coloured)]
    assert found[0].shape == (13, 18, 3)
    assert np.array_equal(found[0], found[1]) and np.array_equal(found[0], found[2])
    assert semantic(labels, height=32, width=16, **FAST).images[0].size == (16, 32)


def test_unknown_labels(semantic):
    labels = np.zeros((16, 16), dtype=np.int64)
    labels[3, 5] = 200
    with pytest.raises(InputError, match=r"the value 200 at x 5, y 3; allowed: 0 to"):
        semantic(labels)
    labels[3, 5] = 255
    assert semantic(labels, ignore_index=255, **FAST).images[0].size == (16, 16)


def test_at_full_strength_only_the_prompt_counts(text):
    change = ImageToImagePipeline.from_pipe(text)
    alone = np.asarray(text("a red apple", **FAST).images[0])
    assert np.array_equal(np.asarray(change(picture(16, 16), "a red apple", strength=1, **FAST).images[0]), alone)


def test_strength_leads_away_from_the_image(text):
    change = ImageToImagePipeline.from_pipe(text)
    image = picture(16, 16)
    options = {"num_inference_steps": 20, "seed": 3, "output_type": "latent", "guidance_scale": 1}
    clean = change(image, "a red apple", strength=0.05, **options).images
    made = [change(image, "a red apple", strength=strength, **options).images for strength in (0.1, 0.4, 0.8)]
    distances = [float((latents - clean).norm()) for latents in made]
    assert distances == sorted(distances) and distances[0] < 0.5 * distances[-1]


@pytest.mark.parametrize("scheduler", ["ddim", "heun", "euler_ancestral", "dpmpp_2m", "plms", "unipc", "lcm"])
def test_every_solver_starts_from_an_image(text, scheduler):
    change = ImageToImagePipeline.from_pipe(text)
    change.set_scheduler(scheduler)
    found = change(
        picture(16, 16), "a red apple", num_inference_steps=10, strength=0.5, seed=0, output_type="np"
    ).images
    assert np.isfinite(found).all()


def test_masks_keep_the_rest(text):
    change = ImageToImagePipeline.from_pipe(text)
    image, hole = picture(13, 18), np.zeros((13, 18), dtype=bool)
    hole[:, 9:] = True
    found = np.asarray(change(image, "a red apple", mask_image=hole, strength=1, **FAST).images[0])
    assert np.array_equal(found[~hole], image[~hole]) and not np.array_equal(found[hole], image[hole])


def test_models_without_a_text_encoder(tmp_path):
    plain = load(tiny.tiny_unconditional, tmp_path)
    change = ImageToImagePipeline.from_pipe(plain)
    assert change(picture(16, 16), strength=0.5, **FAST).images[0].size == (16, 16)
    with pytest.raises(InputError, match="prompt or its negative is given, but this model takes none"):
        change(picture(16, 16), "a red apple")
    classes = ImageToImagePipeline.from_pipe(load(tiny.tiny_class_to_image, tmp_path))
    assert len(classes(picture(16, 16), class_labels=[0, 1], strength=0.5, **FAST).images) == 2
    with pytest.raises(InputError, match="class_labels is missing"):
        classes(picture(16, 16))


@pytest.mark.parametrize("strength", [0, 1.5, "much", True, float("nan")])
def test_bad_strength(text, strength):
    with pytest.raises(InputError, match="it must be above 0 and at most 1"):
        ImageToImagePipeline.from_pipe(text)(picture(16, 16), "a red apple", strength=strength)


def test_strength_of_less_than_a_step(text):
    with pytest.raises(InputError, match=r"strength 0\.1 of 4 steps is less than one step"):
        ImageToImagePipeline.from_pipe(text)(picture(16, 16), "a red apple", strength=0.1, **FAST)


def test_components_are_shared(text, tmp_path):
    change = AutoPipeline.from_pipe(text, "image-to-image")
    assert all(change.components[name] is part for name, part in text.components.items())
    change.save_pretrained(tmp_path / "change")
    again = DiffusionPipeline.from_pretrained(tmp_path / "change")
    assert type(again) is ImageToImagePipeline and again.class_embedder is None
    loaded = AutoPipeline.from_pretrained(tmp_path / "change", task="text-to-image")
    assert loaded.tokenizer.get_vocab() == text.tokenizer.get_vocab()


def test_what_a_pipeline_lacks_is_named(text):
    with pytest.raises(ConfigError, match="LayoutToImagePipeline needs layout_encoder, TextToImagePipeline has none"):
        AutoPipeline.from_pipe(text, "layout-to-image")
    for task in ("inpaint", "super-resolution"):
        with pytest.raises(ConfigError, match="but this one takes 4, being of another task"):
            AutoPipeline.from_pipe(text, task)
    with pytest.raises(ConfigError, match="unknown pipeline 'inpainting'; did you mean 'inpaint'"):
        AutoPipeline.from_pipe(text, "inpainting")
    with pytest.raises(ConfigError, match="has no component 'vea'; did you mean 'vae'"):
        InpaintPipeline.from_pipe(text, vea=None)
    assert type(UnconditionalPipeline.from_pipe(text)) is UnconditionalPipeline
