"""What every task's pipeline does alike, on tiny models with random weights."""

import inspect

import numpy as np
import pytest
import tiny
import torch
from no_float64 import DEVICE, NoFloat64

from latentdiff import DiffusionPipeline, InputError, SamplingOptions, Windows
from latentdiff.registry import PIPELINES

RNG = np.random.default_rng(0)
PICTURES = [RNG.integers(0, 256, (16, 24, 3), dtype=np.uint8) for _ in range(3)]
HOLE = np.zeros((16, 24), dtype=bool)
HOLE[4:12, 6:18] = True
MAPS = [np.full((16, 24), number) for number in range(3)]
LAYOUTS = [[{"class": number, "box": (0.1, 0.1, 0.2 + 0.2 * number, 0.5)}] for number in range(3)]

# Maker of the folder, positional inputs of a list of three conditions, and keyword inputs.
TASKS = {
    "text-to-image": (tiny.tiny_text_to_image, (["a red apple", "a green pear", "big dog"],), {}),
    "class-to-image": (tiny.tiny_class_to_image, ([0, 1, tiny.CLASSES[2]],), {}),
    "layout-to-image": (tiny.tiny_layout_to_image, (LAYOUTS,), {"guidance_scale": 2.0}),
    "semantic-to-image": (tiny.tiny_semantic_to_image, (MAPS,), {}),
    "super-resolution": (tiny.tiny_super_resolution, (PICTURES,), {}),
    "inpaint": (tiny.tiny_inpaint, (PICTURES, [HOLE] * 3), {}),
}
FAST = {"num_inference_steps": 3, "output_type": "np"}


@pytest.fixture(scope="module")
def pipes(tmp_path_factory, placement):
    made = {}
    for task, (make, _, _) in TASKS.items():
        folder = make(tmp_path_factory.mktemp(task))
        pipe = DiffusionPipeline.from_pretrained(folder, dtype=placement.dtype).to(placement.device)
        made[task] = tiny._quiet(pipe)
    return made


@pytest.fixture(params=TASKS)
def task(request):
    return request.param


def test_folder_names_its_pipeline(pipes, task):
    assert type(pipes[task]) is PIPELINES.get(task)


@pytest.mark.thorough
def test_image_of_a_batch_equals_the_image_made_alone(pipes, task, placement):
    _, inputs, options = TASKS[task]
    batch = pipes[task](*inputs, **options, **FAST, seed=5).images
    assert len(batch) == 3
    for i in range(3):
        alone = pipes[task](*(part[i] for part in inputs), **options, **FAST, seed=5 + i).images
        placement.assert_close(alone[0], batch[i])


def test_conditions_reach_the_image(pipes, task):
    _, inputs, options = TASKS[task]
    images = pipes[task](*inputs, **options, **FAST, seed=[7, 7, 7]).images
    assert min(np.abs(images[a] - images[b]).max() for a, b in ((0, 1), (0, 2), (1, 2))) > 1e-3


def test_two_runs_give_equal_bytes(pipes, task, placement):
    _, inputs, options = TASKS[task]
    first, second = (pipes[task](*inputs, **options, **FAST, seed=1).images for _ in range(2))
    placement.assert_same(first, second)


def test_several_images_of_each_input(pipes, task, placement):
    _, inputs, options = TASKS[task]
    images = pipes[task](*inputs, **options, **FAST, seed=0, num_images_per_prompt=2).images
    assert len(images) == 6
    second = pipes[task](*(part[1] for part in inputs), **options, **FAST, seed=[2, 3], num_images_per_prompt=2).images
    placement.assert_close(images[2:4], second)


@pytest.mark.thorough
def test_windows_make_large_images(pipes, task):
    _, inputs, options = TASKS[task]
    if task in ("text-to-image", "class-to-image", "layout-to-image"):
        options = {**options, "height": 32, "width": 48}
    pipe, windows = pipes[task], Windows(16, 8)
    assert (
        pipe(*inputs, **options, **FAST, seed=0, windows=windows).images.shape
        == pipe(*inputs, **options, **FAST).images.shape
    )
    sizes = []
    hook = pipe.unet.register_forward_pre_hook(lambda _module, given: sizes.append(tuple(given[0].shape[-2:])))
    pipe(*inputs, **options, **FAST, seed=0, windows=16)
    hook.remove()
    assert set(sizes) == {(8, 8)}


@pytest.mark.thorough
def test_half_precision(pipes, task, tmp_path):
    make, inputs, options = TASKS[task]
    pipe = tiny._quiet(DiffusionPipeline.from_pretrained(make(tmp_path), dtype=torch.bfloat16))
    assert np.isfinite(pipe(*inputs, **options, **FAST, seed=0).images).all()


def test_options_are_shown_and_others_refused(pipes, task):
    _, inputs, options = TASKS[task]
    assert set(SamplingOptions.__annotations__) <= set(inspect.signature(type(pipes[task]).__call__).parameters)
    with pytest.raises(InputError, match=r"takes no 'num_inference_step'; did you mean 'num_inference_steps'"):
        pipes[task](*inputs, **options, num_inference_step=3)
    for wrong, words in {
        "output_type": "did you mean",
        "num_images_per_prompt": "at least 1",
        "windows": "windows is",
        "num_inference_steps": "integer from 1",
    }.items():
        with pytest.raises(InputError, match=words):
            pipes[task](*inputs, **options, **{wrong: "nil"})


@pytest.mark.parametrize("task", ["text-to-image", "class-to-image", "layout-to-image"])
def test_impossible_sizes(pipes, task):
    _, inputs, _ = TASKS[task]
    with pytest.raises(InputError, match="height is 1; it must be a multiple of 4, such as 4 or 8"):
        pipes[task](*inputs, height=1, width=1)
    with pytest.raises(
        InputError, match=r"an image of 200000x200000 needs about .* GiB, .* GiB are free; make it smaller"
    ):
        pipes[task](*inputs, height=200_000, width=200_000)


@pytest.mark.thorough
def test_devices_without_float64_will_do(task, tmp_path):
    make, inputs, _ = TASKS[task]
    pipe = tiny._quiet(DiffusionPipeline.from_pretrained(make(tmp_path))).to(DEVICE)
    unguided = {"guidance_scale": 1.0} if "guidance_scale" in inspect.signature(pipe.__call__).parameters else {}
    with NoFloat64():
        latents = pipe(*inputs, **unguided, num_inference_steps=3, output_type="latent", seed=0).images
    assert latents.device == DEVICE and len(latents) == 3
