"""Feature caching in pipelines: what it costs in evaluations, and all that it has to go together with."""

import copy
import threading

import diffusers
import numpy as np
import pytest
import torch
from peft import LoraConfig
from tiny import (
    _quiet,
    text_to_image,
    tiny_class_to_image,
    tiny_inpaint,
    tiny_layout_to_image,
    tiny_semantic_to_image,
    tiny_super_resolution,
    tiny_text_inpaint,
    unconditional,
)

from latentdiff import (
    AdaptiveProjectedGuidance,
    AutoGuidance,
    CFGPlusPlus,
    DiffusionPipeline,
    ImageGuidance,
    ImageToImagePipeline,
    InputError,
    TextToImagePipeline,
    UNet2DConditionModel,
    Windows,
)
from latentdiff.caching import CacheOptions, CacheSchedule
from latentdiff.registry import SCHEDULERS

STEPS = 6
OPTIONS = {"num_inference_steps": STEPS, "seed": 0, "output_type": "latent"}
FULL = {1: 6, 2: 3, 3: 2, 5: 2, 6: 1, 7: 1}  # of six evaluations, by the interval


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return text_to_image(tmp_path_factory.mktemp("caching"))


@pytest.fixture
def pipe(model):
    """A pipeline of its own, whose scheduler a test may change."""
    return TextToImagePipeline.from_pipe(model)


class Evaluations:
    """The batch sizes of the network's evaluations, and of those that reach its middle, which are the full ones."""

    def __init__(self, unet):
        self.all, self.full = [], []
        self.hooks = [
            unet.register_forward_hook(lambda unet, given, made: self.all.append(len(made.sample))),
            unet.mid_block.register_forward_hook(lambda block, given, made: self.full.append(len(made))),
        ]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for hook in self.hooks:
            hook.remove()


@pytest.mark.thorough
@pytest.mark.parametrize("interval", FULL)
def test_one_of_so_many_evaluations_is_full(pipe, interval):
    with Evaluations(pipe.unet) as made:
        found = pipe("a cat", cache_interval=interval, **OPTIONS).images
    assert (len(made.all), len(made.full)) == (STEPS, FULL[interval])
    exact = pipe("a cat", **OPTIONS).images
    assert torch.equal(found, exact) if interval == 1 else (found - exact).abs().max() > 1e-3


def test_a_run_is_the_loop_that_one_would_write(pipe):
    """DDIM with guidance, by the network alone."""
    unet, scheduler = pipe.unet, copy.deepcopy(pipe.scheduler)
    contexts, latents, features = torch.randn(2, 5, 16), torch.randn(1, 4, 8, 8), None
    found = pipe(
        prompt_embeds=contexts[1:],
        negative_prompt_embeds=contexts[:1],
        latents=latents,
        cache_interval=2,
        cache_branch=1,
        guidance_scale=3.0,
        num_inference_steps=STEPS,
        output_type="latent",
    ).images
    scheduler.set_timesteps(STEPS)
    with torch.no_grad():
        for step, timestep in enumerate(scheduler.timesteps):
            given = features if step % 2 else None
            made = unet(latents, timestep, contexts, cache_branch=1, cached_features=given)
            features, (weak, strong) = made.features, made.sample.chunk(2)
            latents = scheduler.step(weak + 3.0 * (strong - weak), timestep, latents).prev_sample
    torch.testing.assert_close(found, latents, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("center", "full"), [(0.0, [0, 1, 2]), (0.5, [0, 2, 3]), (1.0, [0, 3, 5])])
def test_full_evaluations_around_a_center(pipe, center, full):
    steps = []

    def count(pipeline, step, timestep, tensors):
        steps.append(len(made.full))
        return {}

    options = {**OPTIONS, "cache_interval": 2, "cache_center": center, "cache_power": 2.5}
    with Evaluations(pipe.unet) as made:
        pipe("a cat", callback_on_step_end=count, **options)
    assert [step for step in range(STEPS) if steps[step] > (steps[step - 1] if step else 0)] == full


def test_a_schedule_in_which_all_are_full_changes_no_bit(pipe):
    """As every evaluation keeps features and none takes any."""
    exact = pipe("a cat", **OPTIONS).images
    with pytest.MonkeyPatch.context() as patch:
        full = lambda options, timesteps: CacheSchedule(0, tuple(range(len(timesteps))))  # noqa: E731
        patch.setattr(CacheOptions, "schedule", full)
        assert torch.equal(pipe("a cat", cache_interval=2, **OPTIONS).images, exact)


@pytest.mark.parametrize("branch", range(4))
def test_branches_differ(pipe, branch):
    found = pipe("a cat", cache_interval=3, cache_branch=branch, **OPTIONS).images
    least = pipe("a cat", cache_interval=3, **OPTIONS).images
    assert torch.equal(found, least) == (branch == 0)


PICTURE = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
HOLE = np.zeros((16, 16), dtype=bool)
HOLE[4:12, 6:14] = True
LAYOUT = [{"class": 1, "box": (0.1, 0.1, 0.6, 0.5)}]
TASKS = {
    "unconditional": (unconditional, (), {}),
    "class": (tiny_class_to_image, (["dog", "cat"],), {}),
    "layout": (tiny_layout_to_image, ([LAYOUT, LAYOUT],), {"guidance_scale": 2.0}),
    "semantic": (tiny_semantic_to_image, ([np.full((16, 16), 1)] * 2,), {}),
    "upscale": (tiny_super_resolution, ([PICTURE[:8, :8]] * 2,), {}),
    "inpaint": (tiny_inpaint, ([PICTURE] * 2, [HOLE] * 2), {}),
    "inpaint by text": (tiny_text_inpaint, ([PICTURE] * 2, [HOLE] * 2, ["a cat", "a dog"]), {}),
}


@pytest.mark.thorough
@pytest.mark.parametrize("task", TASKS)
def test_every_task(task, tmp_path):
    make, inputs, options = TASKS[task]
    made = make(tmp_path)
    pipe = made if isinstance(made, DiffusionPipeline) else _quiet(DiffusionPipeline.from_pretrained(made))
    options = {**options, "num_inference_steps": STEPS, "output_type": "np"}
    options |= {} if inputs else {"batch_size": 2}
    exact = pipe(*inputs, seed=0, **options).images
    assert np.array_equal(pipe(*inputs, seed=0, **options, cache_interval=1).images, exact)
    with Evaluations(pipe.unet) as evaluations:
        both = pipe(*inputs, seed=0, **options, cache_interval=2).images
    assert (len(evaluations.all), len(evaluations.full)) == (STEPS, 3)
    assert np.abs(both - exact).max() > 1e-3
    alone = {**options, **({} if inputs else {"batch_size": 1})}
    again = pipe(*(part[1] for part in inputs), seed=1, **alone, cache_interval=2).images
    assert np.abs(again[0] - both[1]).max() <= 1 / 255


STOCK = ["HeunDiscreteScheduler", "KDPM2DiscreteScheduler", "DPMSolverSinglestepScheduler", "EulerDiscreteScheduler"]


@pytest.mark.thorough
@pytest.mark.parametrize("name", [*SCHEDULERS.names(), *STOCK])
def test_every_solver(pipe, name):
    pipe.set_scheduler(name if name in SCHEDULERS else getattr(diffusers, name))
    scheduler = copy.deepcopy(pipe.scheduler)
    scheduler.set_timesteps(STEPS)
    levels = scheduler.timesteps.tolist()
    expected, last = 0, None  # full evaluations: each third, counted anew from where the noise rises
    for number, level in enumerate(levels):
        if last is None or number - last == 3 or level > levels[number - 1]:
            expected, last = expected + 1, number
    with Evaluations(pipe.unet) as made:
        found = pipe("a cat", cache_interval=3, **OPTIONS).images
    assert (len(made.all), len(made.full)) == (len(levels), expected)
    assert found.isfinite().all()


@pytest.mark.parametrize(("strength", "full"), [(1.0, 3), (0.5, 2), (0.34, 1)])
def test_image_to_image_counts_the_steps_that_are_made(pipe, strength, full):
    made = _quiet(ImageToImagePipeline.from_pipe(pipe))
    for mask in ({}, {"mask_image": HOLE}):
        with Evaluations(made.unet) as evaluations:
            made(PICTURE, "a cat", strength=strength, cache_interval=2, **OPTIONS, **mask)
        assert (len(evaluations.all), len(evaluations.full)) == (int(STEPS * strength + 1e-9), full)


@pytest.mark.parametrize(
    ("interval", "batches", "full"),
    [
        ((0.0, 1.0), [2, 2, 2, 2, 2, 2], [2, 2]),
        ((0.5, 1.0), [1, 1, 1, 2, 2, 2], [1, 2, 2]),  # guidance sets in at step 3, where it has no features yet
        ((0.0, 0.5), [2, 2, 2, 1, 1, 1], [2, 1, 1]),
        ((0.2, 0.6), [1, 1, 2, 2, 1, 1], [1, 2, 1]),
    ],
)
def test_a_guidance_interval(pipe, interval, batches, full):
    """Steps outside cost half, and features are those of the halves that are evaluated."""
    with Evaluations(pipe.unet) as made:
        pipe("a cat", cache_interval=4, guidance_interval=interval, **OPTIONS)
    assert (made.all, made.full) == (batches, full)


def test_guidance_that_a_callback_turns_off_costs_half(pipe):
    def off(pipeline, step, timestep, tensors):
        if step == 2:
            pipeline._guidance_scale = 1.0
        return {}

    with Evaluations(pipe.unet) as made:
        pipe("a cat", guidance_scale=3.0, callback_on_step_end=off, **OPTIONS)
    assert made.all == [2, 2, 2, 1, 1, 1]


GUIDANCE = {
    "rescale": ({"guidance_rescale": 0.7}, []),
    "projected": ({}, [AdaptiveProjectedGuidance()]),
    "plus plus": ({"guidance_scale": 0.6}, [CFGPlusPlus()]),
}


@pytest.mark.parametrize("name", GUIDANCE)
def test_guidance(pipe, name):
    options, guidance = GUIDANCE[name]
    options = {"guidance_scale": 3.0} | options
    results = []
    for extra in ({}, {"cache_interval": 2}):
        with Evaluations(pipe.unet) as made:
            results.append(pipe("a cat", guidance=guidance, **options, **extra, **OPTIONS).images)
        assert made.all == [2] * STEPS and len(made.full) == (3 if extra else STEPS)
    plain = pipe("a cat", guidance_scale=3.0, cache_interval=2, **OPTIONS).images
    assert (results[0] - results[1]).abs().max() > 1e-3 and (results[1] - plain).abs().max() > 1e-3


@pytest.mark.parametrize("through_network", [True, False])
def test_image_guidance(pipe, through_network):
    """Gradients go through what a step evaluates, and never into the step that made the features."""
    guide = ImageGuidance(pipe.vae, torch.zeros(1, 3, 16, 16), 0.1, through_network=through_network)
    with Evaluations(pipe.unet) as made:
        found = pipe("a cat", guidance=[guide], cache_interval=2, **OPTIONS).images
    assert len(made.full) == 3 and found.isfinite().all()
    assert (found - pipe("a cat", cache_interval=2, **OPTIONS).images).abs().max() > 1e-3


def test_the_guiding_network_has_a_cache_of_its_own(tmp_path):
    pipe = unconditional(tmp_path)
    weak = copy.deepcopy(pipe.unet)
    with torch.no_grad():
        for parameter in weak.parameters():
            parameter.mul_(0.9)
    with Evaluations(pipe.unet) as strong_made, Evaluations(weak) as weak_made:
        found = pipe(guidance=[AutoGuidance(weak, 2.0, (0.5, 1.0))], cache_interval=2, **OPTIONS).images
    assert (len(strong_made.all), len(strong_made.full)) == (STEPS, 3)
    assert (len(weak_made.all), len(weak_made.full)) == (3, 2)  # first asked at step 3, between two full ones
    assert (found - pipe(cache_interval=2, **OPTIONS).images).abs().max() > 1e-3


def test_a_guiding_network_without_the_branch(tmp_path):
    pipe = unconditional(tmp_path)
    small = UNet2DConditionModel.from_config(
        {**pipe.unet.config, "block_out_channels": (8,), "attention_levels": (True,)}
    )
    kinds = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",)}
    stock = diffusers.UNet2DModel(8, 4, 4, block_out_channels=(8,), layers_per_block=1, norm_num_groups=4, **kinds)
    for weak, message in (
        (small, "cache_branch is 2, but the guiding network has the branches 0 to 1"),
        (stock, "the guiding network, UNet2DModel of diffusers, has no feature caching; leave cache_interval out"),
    ):
        with pytest.raises(InputError, match=message):
            pipe(guidance=[AutoGuidance(weak, 2.0)], cache_interval=2, cache_branch=2, **OPTIONS)


def test_an_adapter(model):
    pipe = TextToImagePipeline.from_pipe(model, unet=copy.deepcopy(model.unet))
    pipe.set_progress_bar_config(disable=True)
    options = {**OPTIONS, "cache_interval": 2}
    before = pipe("a cat", **options).images
    targets = ["to_q", "to_k", "to_v", "conv1", "time_emb_proj"]
    pipe.unet.add_adapter(LoraConfig(r=2, lora_alpha=2, target_modules=targets, init_lora_weights=False))
    adapted = pipe("a cat", **options).images
    assert (adapted - before).abs().max() > 1e-3
    nothing = pipe("a cat", cross_attention_kwargs={"scale": 0.0}, **options).images
    torch.testing.assert_close(nothing, before, rtol=1e-4, atol=1e-4)
    pipe.fuse_lora()
    torch.testing.assert_close(pipe("a cat", **options).images, adapted, rtol=1e-3, atol=1e-3)


@pytest.mark.thorough
def test_windows_stay_until_their_features_are_made_anew(pipe):
    windows, places = Windows(16, 4), []
    cut = Windows.apply

    def apply(self, function, *inputs, phase=0.0, **options):
        places.append(phase)
        return cut(self, function, *inputs, phase=phase, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Windows, "apply", apply)
        with Evaluations(pipe.unet) as made:
            found = pipe("a cat", 32, 32, windows=windows, cache_interval=3, **OPTIONS).images
    assert len(made.all) > STEPS and found.isfinite().all()
    assert places[0] == places[1] == places[2] != places[3] == places[4] == places[5]
    assert len(made.full) == len(made.all) / 3
    exact = pipe("a cat", 32, 32, windows=windows, **OPTIONS).images
    assert torch.equal(pipe("a cat", 32, 32, windows=windows, cache_interval=1, **OPTIONS).images, exact)


@pytest.mark.thorough
def test_threads_and_calls_inside_of_calls_have_caches_of_their_own(pipe):
    jobs = [("a red apple", 1), ("a blue dog", 2), ("a big cat", 3), ("a green pear", 5)]

    def make(prompt, interval, **more):
        return pipe(prompt, cache_interval=interval, **OPTIONS, **more).images

    alone, found, barrier = [make(*job) for job in jobs], [None] * len(jobs), threading.Barrier(len(jobs))

    def work(number):
        barrier.wait()
        found[number] = make(*jobs[number])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(one, other) for one, other in zip(alone, found, strict=True))

    inner = []

    def call_again(pipeline, step, timestep, tensors):
        if step == 1:
            inner.append(make(*jobs[1]))
        return {}

    assert torch.equal(make(*jobs[2], callback_on_step_end=call_again), alone[2]) and torch.equal(inner[0], alone[1])


def test_networks_and_branches_that_can_not_be(pipe):
    stock = diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=16,
        attention_head_dim=2,
    )
    other = TextToImagePipeline.from_pipe(pipe, unet=stock)
    for made, options, message in (
        (other, {"cache_interval": 2}, "UNet2DConditionModel of diffusers, has no feature caching"),
        (pipe, {"cache_interval": 2, "cache_branch": 4}, "cache_branch is 4, but this network has the branches 0 to 3"),
        (pipe, {"cache_branch": 1}, "cache_branch is 1, but cache_interval is 1"),
        (pipe, {"cache_interval": 0}, "cache_interval is 0"),
        (pipe, {"cache_interval": 2, "cache_center": 2}, "cache_center is 2; it must be a share of the run"),
    ):
        with Evaluations(pipe.unet) as evaluations, pytest.raises(InputError, match=message):
            made("a cat", **options, **OPTIONS)
        assert not evaluations.all
    other("a cat", cache_interval=1, **OPTIONS)


def test_what_both_halves_of_guidance_share_is_computed_once_beside_channels_too(tmp_path):
    pipe = _quiet(DiffusionPipeline.from_pretrained(tiny_text_inpaint(tmp_path)))
    rows = []
    pipe.unet.conv_in.register_forward_hook(lambda layer, given, made: rows.append(len(made)))
    found = pipe(PICTURE, HOLE, ["a cat", "a dog"], num_images_per_prompt=2, **OPTIONS).images
    assert rows == [4] * STEPS
    pipe.unet.__class__ = type("Other", (UNet2DConditionModel,), {"prepare_context": property()})
    assert not hasattr(pipe.unet, "prepare_context")
    rows.clear()
    again = pipe(PICTURE, HOLE, ["a cat", "a dog"], num_images_per_prompt=2, **OPTIONS).images
    assert rows == [8] * STEPS
    torch.testing.assert_close(found, again, rtol=1e-4, atol=1e-4)
