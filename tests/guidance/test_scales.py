"""Guidance scales, intervals and rescaling in every form in which they are given."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from tiny import text_to_image, tiny_class_to_image, tiny_layout_to_image

from latentdiff import (
    ClassifierFreeGuidance,
    ClassifierGuidance,
    ClassToImagePipeline,
    Conditioning,
    ImageGuidance,
    ImageToImagePipeline,
    InputError,
    LayoutToImagePipeline,
)

NO_NUMBERS = [
    *("7.5", "", None, True, [7.5], 1j, 10**400, 1e300, float("nan"), float("inf"), -float("inf"), np.float32("inf")),
    *(np.bool_(True), torch.ones(2), torch.tensor([2.0]), torch.tensor(torch.nan), torch.tensor(True)),
]
NUMBERS = [
    *(3, 3.0, Fraction(3), np.float32(3), np.float64(3), np.int64(3), np.array(3), torch.tensor(3.0), torch.tensor(3)),
]
INTERVALS = [
    *(None, "01", 0.5, (0.5,), (0, 0.5, 1), (0.0, float("nan")), (None, 1.0), ("0", "1"), (False, True), (0.5, 0.5)),
]
RESCALES = (None, "0.5", float("nan"), True, -0.1, 1.1, [0.5])
OPTIONS = {"num_inference_steps": 2, "seed": 0, "output_type": "latent"}


@pytest.fixture(scope="module")
def calls(tmp_path_factory):
    """A call of every pipeline that takes a guidance scale."""
    path = tmp_path_factory.mktemp("scales")
    text = text_to_image(path)
    classes = ClassToImagePipeline.from_pretrained(tiny_class_to_image(path))
    layouts = LayoutToImagePipeline.from_pretrained(tiny_layout_to_image(path))
    for pipe in (classes, layouts):
        pipe.set_progress_bar_config(disable=True)
    change, grey = ImageToImagePipeline.from_pipe(text), np.full((16, 16, 3), 0.5)
    layout = [{"class": "cat", "box": (0.1, 0.1, 0.5, 0.5)}]
    return {
        "text": lambda **options: text("a cat", **OPTIONS, **options).images,
        "class": lambda **options: classes("cat", **OPTIONS, **options).images,
        "layout": lambda **options: layouts(layout, **OPTIONS, **options).images,
        "image": lambda **options: change(grey, "a cat", strength=1, **OPTIONS, **options).images,
    }


GUIDED = ("text", "class", "layout", "image")


@pytest.mark.parametrize("pipeline", GUIDED)
def test_what_is_no_finite_number_is_refused(calls, pipeline):
    for scale in NO_NUMBERS:
        if scale is None and pipeline in ("class", "image"):
            continue  # the default there
        with pytest.raises(InputError, match="guidance_scale is") as raised:
            calls[pipeline](guidance_scale=scale)
        assert "\n" not in str(raised.value)


@pytest.mark.thorough
@pytest.mark.parametrize("pipeline", GUIDED)
def test_every_form_of_a_number_is_that_number(calls, pipeline):
    expected = calls[pipeline](guidance_scale=3.0)
    for scale in NUMBERS:
        assert torch.equal(calls[pipeline](guidance_scale=scale), expected), repr(scale)


@pytest.mark.parametrize("pipeline", GUIDED)
@pytest.mark.parametrize("scale", [1, 3])
def test_intervals_and_rescaling_are_checked_with_and_without_guidance(calls, pipeline, scale):
    for interval in INTERVALS:
        with pytest.raises(InputError, match="guidance_interval is"):
            calls[pipeline](guidance_scale=scale, guidance_interval=interval)
    for rescale in RESCALES:
        with pytest.raises(InputError, match="guidance_rescale is"):
            calls[pipeline](guidance_scale=scale, guidance_rescale=rescale)


@pytest.mark.parametrize("pipeline", GUIDED)
def test_intervals_may_be_lists_or_arrays(calls, pipeline):
    expected = calls[pipeline](guidance_scale=3, guidance_interval=(0.0, 0.5))
    for interval in ([0, 0.5], np.array([0, 0.5]), torch.tensor([0, 0.5])):
        assert torch.equal(calls[pipeline](guidance_scale=3, guidance_interval=interval), expected)


OBJECTS = {
    "free": lambda scale=1.0, **options: ClassifierFreeGuidance(Conditioning(torch.zeros(1, 2, 4)), scale, **options),
    "classifier": lambda scale=1.0, **options: ClassifierGuidance(
        lambda latents, timestep: latents, 0, scale, **options
    ),
    "image": lambda scale=1.0, **options: ImageGuidance(None, torch.zeros(1, 3, 4, 4), scale, **options),
}


@pytest.mark.parametrize("name", OBJECTS)
def test_guidance_objects_check_theirs(name):
    for scale in NO_NUMBERS:
        with pytest.raises(InputError, match="scale is"):
            OBJECTS[name](scale)
    for interval in INTERVALS:
        with pytest.raises(InputError, match="guidance_interval is"):
            OBJECTS[name](interval=interval)
    for scale in NUMBERS:
        assert OBJECTS[name](scale, interval=[0, 1]).scale == 3.0


def test_free_guidance_checks_its_rescaling():
    for rescale in RESCALES:
        with pytest.raises(InputError, match="guidance_rescale is"):
            OBJECTS["free"](rescale=rescale)


@pytest.mark.parametrize("name", ["eta", "temperature"])
def test_other_numbers_of_a_call(calls, name):
    for value in NO_NUMBERS:
        with pytest.raises(InputError, match=f"{name} is"):
            calls["text"](**{name: value})
    with pytest.raises(InputError, match=f"{name} is"):
        calls["text"](**{name: -0.5})
