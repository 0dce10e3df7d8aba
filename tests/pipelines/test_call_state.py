"""A call owns its state: threads, shared components and calls inside of calls give the images that each gives alone."""

import threading

import diffusers
import numpy as np
import pytest
import torch
from accelerate import cpu_offload, cpu_offload_with_hook
from tiny import text_to_image

from latentdiff import ImageToImagePipeline, InputError, TextToImagePipeline
from latentdiff.pipelines.call_state import copy_for_call
from latentdiff.registry import SCHEDULERS

pytestmark = pytest.mark.thorough

STEPS = 6
JOBS = [("a red apple", 0), ("a blue dog", 1), ("a big cat", 2), ("a green pear", 3)]
STOCK = [
    *("DDIM", "DDPM", "PNDM", "EulerDiscrete", "EulerAncestralDiscrete", "HeunDiscrete", "KDPM2Discrete", "TCD", "LCM"),
    *("DPMSolverMultistep", "DPMSolverSinglestep", "DEISMultistep", "UniPCMultistep", "SASolver"),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return text_to_image(tmp_path_factory.mktemp("call_state"))


@pytest.fixture
def pipe(model):
    """A pipeline of its own, whose scheduler a test may change."""
    return TextToImagePipeline.from_pipe(model)


def make(pipe, prompt, seed, **options):
    options = {"num_inference_steps": STEPS, "output_type": "np"} | options
    return pipe(prompt, seed=seed, **options).images[0]


def at_once(functions):
    """The results of functions that start at the same moment, each in a thread of its own."""
    results, barrier = [None] * len(functions), threading.Barrier(len(functions))

    def work(number):
        barrier.wait()
        try:
            results[number] = functions[number]()
        except Exception as error:
            results[number] = error

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(functions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        if isinstance(result, Exception):
            raise result
    return results


@pytest.mark.parametrize("scheduler", [*SCHEDULERS.names(), *(f"{name}Scheduler" for name in STOCK)])
def test_threads_and_calls_inside_of_calls_give_the_images_of_each_alone(pipe, scheduler):
    pipe.set_scheduler(scheduler if scheduler in SCHEDULERS else getattr(diffusers, scheduler))
    alone = [make(pipe, *job) for job in JOBS]
    found = at_once([lambda job=job: make(pipe, *job) for job in JOBS])
    assert all(np.array_equal(image, expected) for image, expected in zip(found, alone, strict=True))

    inner = []

    def call_again(pipeline, step, timestep, tensors):
        if step == 2:
            inner.append(make(pipeline, *JOBS[1]))
        return {}

    outer = make(pipe, *JOBS[0], callback_on_step_end=call_again)
    assert np.array_equal(outer, alone[0]) and np.array_equal(inner[0], alone[1])


@pytest.mark.parametrize("scheduler", ["heun", "plms", "unipc"])
def test_pipelines_of_shared_components_in_threads(pipe, scheduler):
    """Also another task's pipeline, whose runs start midway, and runs of other lengths."""
    pipe.set_scheduler(scheduler)
    second, change = TextToImagePipeline.from_pipe(pipe), ImageToImagePipeline.from_pipe(pipe)
    assert second.scheduler is change.scheduler is pipe.scheduler
    start = np.full((16, 16, 3), 0.5)
    calls = [
        lambda: make(pipe, *JOBS[0]),
        lambda: make(second, *JOBS[1], num_inference_steps=9),
        lambda: change(start, "a big cat", strength=0.5, num_inference_steps=STEPS, seed=2, output_type="np").images[0],
        lambda: make(pipe, *JOBS[3], num_inference_steps=3),
    ]
    alone = [call() for call in calls]
    for image, expected in zip(at_once(calls), alone, strict=True):
        assert np.array_equal(image, expected)


def test_a_callback_sees_the_scheduler_of_its_own_call(pipe):
    def lengths(steps):
        seen = set()

        def look(pipeline, step, timestep, tensors):
            assert timestep == pipeline.scheduler.timesteps[step]
            seen.add(len(pipeline.scheduler.timesteps))
            return {}

        make(pipe, *JOBS[0], num_inference_steps=steps, callback_on_step_end=look)
        return seen

    assert at_once([lambda steps=steps: lengths(steps) for steps in (3, 5, 7, 9)]) == [{3}, {5}, {7}, {9}]


def test_a_call_leaves_the_pipelines_scheduler_as_it_is(pipe):
    scheduler = pipe.scheduler
    scheduler.set_timesteps(3)
    before = dict(vars(scheduler))
    make(pipe, *JOBS[0])
    assert pipe.scheduler is scheduler
    assert all(vars(scheduler)[name] is value for name, value in before.items())
    with pytest.raises(RuntimeError, match="on purpose"):
        make(pipe, *JOBS[0], callback_on_step_end=_fail)
    assert pipe.scheduler is scheduler


def test_a_loop_of_ones_own_over_the_pipelines_scheduler_is_not_disturbed(pipe):
    pipe.set_scheduler("unipc")
    x = torch.ones(1, 4, 8, 8)

    def loop(between):
        pipe.scheduler.set_timesteps(STEPS)
        sample = x
        for timestep in pipe.scheduler.timesteps:
            between()
            sample = pipe.scheduler.step(0.1 * sample, timestep, sample).prev_sample
        return sample

    assert torch.equal(loop(lambda: None), loop(lambda: make(pipe, *JOBS[0], num_inference_steps=3)))


@pytest.mark.parametrize("scheduler", ["ddim", "heun", diffusers.UniPCMultistepScheduler])
def test_the_pipelines_scheduler_shows_the_latest_calls_timesteps(pipe, scheduler):
    pipe.set_scheduler(scheduler)
    for steps in (4, 7):
        make(pipe, *JOBS[0], num_inference_steps=steps)
        assert pipe.scheduler.num_inference_steps == steps
        image = make(pipe, *JOBS[0])
        assert np.array_equal(make(pipe, *JOBS[0]), image)


def _fail(*arguments):
    raise RuntimeError("on purpose")


def test_a_scheduler_set_in_a_callback_is_the_next_calls(pipe):
    """The running call goes on with its own; a call inside of it, and those after it, take the new one."""
    expected = make(pipe, *JOBS[0])
    pipe.set_scheduler("heun")
    heun = make(pipe, *JOBS[1])
    pipe.set_scheduler("ddim")
    inner = []

    def change(pipeline, step, timestep, tensors):
        if step == 1:
            pipeline.set_scheduler("heun")
            assert type(pipeline.scheduler).__name__ == "HeunScheduler"
            inner.append(make(pipeline, *JOBS[1]))
        return {}

    assert np.array_equal(make(pipe, *JOBS[0], callback_on_step_end=change), expected)
    assert np.array_equal(inner[0], heun) and np.array_equal(make(pipe, *JOBS[1]), heun)


def test_a_pipeline_made_in_a_callback_is_like_any(pipe):
    expected, inner = make(pipe, *JOBS[1]), []

    def call_another(pipeline, step, timestep, tensors):
        if step == 1:
            inner.append(make(TextToImagePipeline.from_pipe(pipeline), *JOBS[1]))
        return {}

    plain = make(pipe, *JOBS[0])
    assert np.array_equal(make(pipe, *JOBS[0], callback_on_step_end=call_another), plain)
    assert np.array_equal(inner[0], expected)


@pytest.mark.parametrize("name", ["heun", "plms", "unipc"])
def test_a_copy_has_a_state_of_its_own(name):
    scheduler = SCHEDULERS.get(name)()
    scheduler.lock = threading.Lock()  # what can't be copied is shared
    scheduler.history = [1]
    scheduler.set_timesteps(5)
    x = torch.ones(1, 4, 2, 2)
    scheduler.step(x, scheduler.timesteps[0], x)
    other = copy_for_call(scheduler)
    assert other.lock is scheduler.lock and other.config is scheduler.config
    other.history.append(2)
    expected = copy_for_call(scheduler).step(x, scheduler.timesteps[1], x).prev_sample
    other.step(2 * x, other.timesteps[1], x)
    other.set_timesteps(3)
    assert scheduler.history == [1] and len(scheduler.timesteps) != len(other.timesteps)
    assert torch.equal(scheduler.step(x, scheduler.timesteps[1], x).prev_sample, expected)


def offload_models(pipe):
    """What `enable_model_cpu_offload` does, from the CPU to the CPU."""
    pipe.remove_all_hooks()
    hook = None
    for network in (pipe.text_encoder, pipe.unet, pipe.vae):
        _, hook = cpu_offload_with_hook(network, "cpu", prev_module_hook=hook)


def offload_weights(pipe):
    """What `enable_sequential_cpu_offload` does: weights are elsewhere but while their layer computes."""
    pipe.remove_all_hooks()
    for network in (pipe.text_encoder, pipe.unet, pipe.vae):
        cpu_offload(network, "cpu", offload_buffers=len(network._parameters) > 0)


@pytest.mark.parametrize("called", [True, False])
@pytest.mark.parametrize("ways", [(offload_models, offload_weights), (offload_weights, offload_models)])
def test_one_way_of_offloading_may_follow_another(pipe, ways, called):
    expected = make(pipe, *JOBS[0])
    for way in ways:
        way(pipe)
        if called or way is ways[1]:
            assert np.array_equal(make(pipe, *JOBS[0]), expected)
    pipe.remove_all_hooks()
    assert np.array_equal(make(pipe, *JOBS[0]), expected)


def test_offloaded_calls_take_turns(pipe, monkeypatch):
    """Components that move between devices can't serve two calls at once; here both devices are the CPU."""
    plain = [make(pipe, *job) for job in JOBS]
    hook = None
    for network in (pipe.text_encoder, pipe.unet, pipe.vae):
        _, hook = cpu_offload_with_hook(network, "cpu", prev_module_hook=hook)
    alone = [make(pipe, *job) for job in JOBS]
    assert all(np.array_equal(image, expected) for image, expected in zip(alone, plain, strict=True))
    inside, most, generate = [], [], type(pipe)._generate

    def watched(self, *arguments, **options):
        inside.append(1)
        most.append(len(inside))
        try:
            return generate(self, *arguments, **options)
        finally:
            inside.pop()

    monkeypatch.setattr(type(pipe), "_generate", watched)
    try:
        found = at_once([lambda job=job: make(pipe, *job) for job in JOBS])
    finally:
        pipe.remove_all_hooks()
    assert max(most) == 1
    assert all(np.array_equal(image, expected) for image, expected in zip(found, alone, strict=True))


def test_an_overlong_prompt_in_one_thread_leaves_the_others_as_they_are(pipe):
    """A fast tokenizer keeps the padding of its last call."""
    alone = make(pipe, *JOBS[0])

    def refused():
        for _ in range(20):
            with pytest.raises(InputError, match="does not fit"):
                pipe("a red apple " * 5)

    def made():
        return [make(pipe, *JOBS[0], num_inference_steps=STEPS) for _ in range(3)]

    for images in at_once([made, refused, made, refused])[::2]:
        assert all(np.array_equal(image, alone) for image in images)
