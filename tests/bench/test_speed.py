"""Phases of a call, by a clock that the networks drive; nothing here depends on how fast the machine is."""

import pytest
import torch
from tiny import (
    tiny_inpaint,
    tiny_layout_to_image,
    tiny_semantic_to_image,
    tiny_super_resolution,
    tiny_text_inpaint,
    tiny_text_super_resolution,
)

from latentdiff import DiffusionPipeline
from latentdiff.bench import speed, timing
from latentdiff.bench.flops import Flops, Peak
from latentdiff.bench.inputs import example_inputs
from latentdiff.bench.speed import measure_speed, weight_bytes
from latentdiff.bench.timing import Phases, most_memory, network_calls, timed_call


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only when a network is called: `clock(network, seconds)` says how many."""
    now = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])

    def drive(network, seconds):
        def passes(*_):
            now[0] += seconds

        network.register_forward_hook(passes)

    return drive


def test_phases_are_what_the_networks_take(text_pipe, clock):
    clock(text_pipe.text_encoder, 7.0), clock(text_pipe.unet, 2.0), clock(text_pipe.vae.decoder, 100.0)
    found = timed_call(text_pipe, 5, {"prompt": ["a cat"], "guidance_scale": 1.0})
    assert found == Phases(condition=7.0, step=2.0, decode=100.0, total=117.0)


def test_solvers_that_call_the_network_twice_a_step(text_pipe, clock):
    text_pipe.set_scheduler("heun")
    clock(text_pipe.unet, 2.0)
    assert network_calls(text_pipe, 4) == 7
    found = timed_call(text_pipe, 4, {"prompt": ["a cat"], "guidance_scale": 1.0})
    assert (found.step, found.total) == (2.0, 14.0)


def test_speeds_are_of_the_median_call(text_pipe, clock, monkeypatch):
    clock(text_pipe.unet, 1.0), clock(text_pipe.vae.decoder, 4.0)
    monkeypatch.setattr(speed, "measure_peak", lambda *_: Peak(100.0, 50.0, "float32"))
    monkeypatch.setattr(speed, "count_flops", lambda *_: Flops(3, 40, 500))
    found = measure_speed(text_pipe, 4, batch_size=2, rounds=3, load_seconds=9.0)
    assert (found.first_image_seconds, found.image_seconds, found.load_seconds) == (8.0, 8.0, 9.0)
    assert (found.samples_per_second, found.steps_per_second, found.network_calls) == (2 / 8, 1.0, 4)
    assert found.operations() == {"condition": 3, "step": 40, "decode": 500, "total": 663}
    assert found.shares() == {"step": 0.8, "decode": 2 * 500 / 4 / 100, "total": 2 * 663 / 8 / 100}
    assert found.weights == weight_bytes(text_pipe) and found.peak_memory > 2**20


def test_weights_are_counted_in_bytes(plain_pipe):
    numbers = sum(p.numel() for part in (plain_pipe.vae, plain_pipe.unet) for p in part.parameters())
    assert weight_bytes(plain_pipe) == 4 * numbers
    plain_pipe.to(torch.bfloat16)
    assert weight_bytes(plain_pipe) == 2 * numbers


def test_memory_that_is_held_for_a_moment_counts():
    with most_memory(torch.device("cpu")) as nothing:
        pass
    with most_memory(torch.device("cpu")) as held:
        kept = torch.ones(2**25)
        timing.time.sleep(0.05)
    assert held.peak > nothing.peak + 100 * 2**20 and kept.sum() == 2**25


@pytest.mark.thorough
@pytest.mark.parametrize(
    "make",
    [
        tiny_layout_to_image,
        tiny_semantic_to_image,
        tiny_super_resolution,
        tiny_text_super_resolution,
        tiny_inpaint,
        tiny_text_inpaint,
    ],
)
def test_models_of_every_task_are_measured(make, tmp_path, text_pipe):
    pipe = DiffusionPipeline.from_pretrained(make(tmp_path))
    found = measure_speed(pipe, 2, batch_size=3, rounds=1)
    assert found.flops.step > 0 and found.flops.decode > 0 and found.flops.condition >= 0
    assert len(pipe(**example_inputs(pipe, 3), num_inference_steps=2).images) == 3
