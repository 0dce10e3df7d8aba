"""Every pipeline, scheduler and kind of guidance computes on a GPU, in half precision, what it computes on the CPU.

Other cases that bear the marker `gpu` are of tests that make the same assertions in each place: tests/placements.py.
"""

import copy
import functools

import numpy as np
import pytest
import tiny
import torch
from counterparts import MODEL
from placements import Placement
from toy import write_vae

from latentdiff import (
    AdaptiveProjectedGuidance,
    AutoGuidance,
    CFGPlusPlus,
    ClassifierGuidance,
    DiffusionPipeline,
    ImageGuidance,
    ImageToImagePipeline,
    NoisyLatentClassifier,
    VQModel,
    Windows,
)
from latentdiff.guidance.image import masking
from latentdiff.registry import PIPELINES, SCHEDULERS
from latentdiff.testing.gaussian import run_scheduler

pytestmark = pytest.mark.thorough

PICTURE = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
HOLE = np.zeros((16, 16), dtype=bool)
HOLE[4:12, 4:12] = True
LAYOUT = [{"class": 1, "box": (0.1, 0.1, 0.6, 0.5)}]
TASKS = {
    "text-to-image": (tiny.tiny_text_to_image, {"prompt": "a red apple", "negative_prompt": "a dog"}),
    "image-to-image": (tiny.tiny_text_to_image, {"image": PICTURE, "prompt": "a red apple", "strength": 0.8}),
    "unconditional": (tiny.tiny_unconditional, {}),
    "class-to-image": (tiny.tiny_class_to_image, {"class_labels": "dog", "guidance_scale": 2.0}),
    "layout-to-image": (tiny.tiny_layout_to_image, {"layouts": LAYOUT, "guidance_scale": 2.0}),
    "semantic-to-image": (tiny.tiny_semantic_to_image, {"label_map": np.full((16, 16), 2)}),
    "super-resolution": (tiny.tiny_super_resolution, {"image": PICTURE[:8, :8]}),
    "inpaint": (tiny.tiny_inpaint, {"image": PICTURE, "mask_image": HOLE}),
    "hybrid": (tiny.tiny_hybrid, {"class_labels": "dog", "layouts": LAYOUT, "guidance_scale": 2.0}),
}
OPTIONS = {"num_inference_steps": 4, "seed": 3}


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    """Loads the tiny pipeline of a task."""

    @functools.cache
    def folder(make):
        return make(tmp_path_factory.mktemp("model"))

    def call(task, **options):
        pipe = tiny._quiet(DiffusionPipeline.from_pretrained(folder(TASKS[task][0]), **options))
        return ImageToImagePipeline.from_pipe(pipe) if task == "image-to-image" else pipe

    return call


def test_every_task_has_its_case():
    assert set(TASKS) == set(PIPELINES.names())


@pytest.mark.parametrize("task", TASKS)
def test_images_are_those_of_the_cpu(gpu, load, task):
    given = {**TASKS[task][1], **OPTIONS, "output_type": "pt"}
    here = load(task, dtype=gpu.dtype).to(gpu.device)
    found = here(**given).images
    gpu.assert_close(found, load(task)(**given).images)
    assert found.device.type == gpu.device.type and here.unet.dtype == gpu.dtype


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("way", ["enable_model_cpu_offload", "enable_sequential_cpu_offload", "enable_group_offload"])
@pytest.mark.gpu
def test_offloaded_pipelines_make_the_same_images(cuda, load, task, way):
    given = {**TASKS[task][1], **OPTIONS, "output_type": "np"}
    expected = load(task).to(cuda)(**given).images
    pipe = load(task)
    blocks = {"onload_device": cuda, "offload_type": "leaf_level"}
    getattr(pipe, way)(**(blocks if way == "enable_group_offload" else {}))
    for _ in range(2):  # the second call finds networks where the first left them
        assert np.abs(pipe(**given).images - expected).max() < 1e-5


@pytest.mark.parametrize("first", ["enable_model_cpu_offload", "enable_sequential_cpu_offload"])
@pytest.mark.parametrize("second", ["enable_model_cpu_offload", "enable_sequential_cpu_offload", "remove_all_hooks"])
@pytest.mark.parametrize("called", [True, False])
@pytest.mark.gpu
def test_one_way_of_offloading_may_follow_another(cuda, load, first, second, called):
    given = {**TASKS["text-to-image"][1], **OPTIONS, "output_type": "np"}
    expected = load("text-to-image").to(cuda)(**given).images
    pipe = load("text-to-image")
    getattr(pipe, first)()
    if called:
        assert np.abs(pipe(**given).images - expected).max() < 1e-5
    getattr(pipe, second)()
    if second == "remove_all_hooks":
        pipe.to(cuda)
    for _ in range(2):
        assert np.abs(pipe(**given).images - expected).max() < 1e-5


@pytest.mark.parametrize("name", SCHEDULERS.names())
def test_runs_of_schedulers_are_those_of_the_cpu(gpu, name):
    def run(x):
        scheduler = SCHEDULERS.get(name)(**MODEL)
        scheduler.set_timesteps(6, device=x.device)
        generator = torch.Generator().manual_seed(0)
        return run_scheduler(scheduler, lambda y, t: torch.tanh(y), x, generator=generator)

    start = torch.randn(2, 4, 8, 8)
    found = run(gpu.put(start))
    assert (found.device.type, found.dtype) == (gpu.device.type, gpu.dtype)
    gpu.assert_close(found, run(start))


def classifier():
    torch.manual_seed(2)
    model = NoisyLatentClassifier(
        sample_size=8,
        num_classes=3,
        block_out_channels=(8, 16),
        layers_per_block=1,
        attention_levels=(False, True),
        num_head_channels=8,
        norm_num_groups=4,
    )
    tiny.randomise(model)
    return model.eval()


def weak(pipe):
    """The same network before some training."""
    other = copy.deepcopy(pipe.unet)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(0.9)
    return other


LEFT_HALF = torch.cat([torch.ones(1, 1, 16, 8), torch.zeros(1, 1, 16, 8)], dim=3)
TARGET = torch.linspace(-1, 1, 3 * 16 * 16).reshape(1, 3, 16, 16)
GUIDANCE = {  # the options of a call, for a pipeline and a placement
    "classifier-free": lambda pipe, place: {"guidance_scale": 3.0},
    "classifier-free, rescaled": lambda pipe, place: {"guidance_scale": 3.0, "guidance_rescale": 0.7},
    "classifier-free, in an interval": lambda pipe, place: {"guidance_scale": 3.0, "guidance_interval": (0.2, 0.8)},
    "projected": lambda pipe, place: {"guidance_scale": 3.0, "guidance": [AdaptiveProjectedGuidance()]},
    "CFG++": lambda pipe, place: {"guidance_scale": 0.6, "guidance": [CFGPlusPlus()]},
    "autoguidance": lambda pipe, place: {"guidance_scale": 1.0, "guidance": [AutoGuidance(weak(pipe), 2.0)]},
    "classifier": lambda pipe, place: {"guidance": [ClassifierGuidance(place.put(classifier()), 1, 5.0)]},
    "image": lambda pipe, place: {"guidance": [ImageGuidance(pipe.vae, TARGET, 0.1)]},
    "image, linear part": lambda pipe, place: {
        "guidance": [ImageGuidance(pipe.vae, TARGET, 0.1, through_network=False)]
    },
    "image, masked": lambda pipe, place: {
        "guidance": [ImageGuidance(pipe.vae, TARGET * LEFT_HALF, 0.1, transform=masking(LEFT_HALF.to(place.device)))]
    },
    "windows": lambda pipe, place: {"height": 24, "width": 32, "windows": Windows(16, 8)},
    "cached features": lambda pipe, place: {"cache_interval": 2},
}


@pytest.mark.parametrize("name", GUIDANCE)
def test_guidance_is_that_of_the_cpu(gpu, load, name):
    images = []
    for place in (gpu, Placement(torch.device("cpu"), torch.float32)):
        pipe = load("text-to-image", dtype=place.dtype).to(place.device)
        options = {**OPTIONS, "output_type": "latent", **GUIDANCE[name](pipe, place)}
        images.append(pipe("a red apple", **options).images)
    gpu.assert_close(*images)


def test_weights_of_8_bits_are_those_of_the_cpu(gpu, load):
    given = {"prompt": "a red apple", **OPTIONS, "output_type": "latent"}
    here, there = (load("text-to-image", dtype=gpu.dtype, quantize="int8") for _ in range(2))
    gpu.assert_close(here.to(gpu.device)(**given).images, there.to(torch.float32)(**given).images)


@pytest.mark.parametrize("kind", ["kl", "vq"])
def test_first_stages_are_those_of_the_cpu(gpu, tmp_path, kind):
    if kind == "kl":
        from diffusers import AutoencoderKL

        make = functools.partial(AutoencoderKL.from_pretrained, write_vae(tmp_path))
    else:
        options = {"block_out_channels": (8, 16), "latent_channels": 4, "norm_num_groups": 4, "num_vq_embeddings": 64}
        blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
        VQModel(**options, **blocks).save_pretrained(tmp_path)
        make = functools.partial(VQModel.from_pretrained, tmp_path)
    with torch.no_grad():
        latents = torch.randn(2, 4, 8, 8)
        gpu.assert_close(gpu.put(make()).decode(gpu.put(latents)).sample, make().decode(latents).sample)
