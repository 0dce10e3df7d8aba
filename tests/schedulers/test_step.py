"""What every scheduler of the registry promises about a step, beyond its numbers."""

from contextlib import nullcontext

import pytest
import torch
from counterparts import MODEL
from device_reads import CountReads

from latentdiff import ConfigError
from latentdiff.registry import SCHEDULERS
from latentdiff.testing.gaussian import run_scheduler

NAMES = SCHEDULERS.names()


def model(y, t):
    return torch.tanh(y)


def ready(name, steps=6, device=None, **options):
    scheduler = SCHEDULERS.get(name)(**MODEL, **options)
    scheduler.set_timesteps(steps, device=device)
    return scheduler


@pytest.mark.parametrize("name", NAMES)
def test_no_step_reads_a_tensor(name, placement):
    scheduler, generator = ready(name, device=placement.device), torch.Generator(placement.device).manual_seed(0)
    start = placement.put(torch.ones(2, 4, 8, 8))
    with CountReads() as counter:
        run_scheduler(scheduler, model, start, generator=generator)
    assert counter.reads == []


@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
def test_no_step_waits_for_the_gpu(cuda, name):
    scheduler = SCHEDULERS.get(name)(**MODEL)
    scheduler.set_timesteps(6, device=cuda)
    x, generator = torch.ones(2, 4, 8, 8, device=cuda), torch.Generator(cuda).manual_seed(0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        x = run_scheduler(scheduler, model, x, generator=generator)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert x.isfinite().all()


@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
def test_a_run_is_one_cuda_graph(cuda, name):
    scheduler = SCHEDULERS.get(name)(**MODEL)
    scheduler.set_timesteps(6, device=cuda)
    start = torch.ones(2, 4, 8, 8, device=cuda)
    if any("noise" in dict(row["prev"]) for row in scheduler._rows(0.0)):
        pytest.skip("draws noise")
    expected = run_scheduler(scheduler, model, start)
    scheduler.set_begin_index(0)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = run_scheduler(scheduler, model, start)
    graph.replay()
    torch.testing.assert_close(captured, expected)


@pytest.mark.thorough
@pytest.mark.parametrize("name", NAMES)
def test_a_run_compiles_to_one_graph(name):
    scheduler, start, noise = ready(name), torch.ones(1, 4, 8, 8), torch.randn(1, 4, 8, 8)

    def loop(x):
        for timestep in scheduler.timesteps:
            output = model(scheduler.scale_model_input(x, timestep), timestep)
            x = scheduler.step(output, timestep, x, variance_noise=noise, return_dict=False)[0]
        return x

    expected = loop(start)
    scheduler.set_begin_index(0)
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(loop, backend="eager", fullgraph=True)(start), expected)


@pytest.mark.parametrize("name", NAMES)
def test_the_sample_is_left_alone(name, placement):
    scheduler, x = ready(name), placement.put(torch.ones(2, 4, 8, 8))
    before, version = x.clone(), x._version
    run_scheduler(scheduler, model, x, generator=torch.Generator().manual_seed(0))
    assert x._version == version and torch.equal(x, before)


@pytest.mark.parametrize("name", NAMES)
def test_timesteps_may_be_elements_numbers_or_copies(name, placement):
    x = placement.put(torch.ones(1, 4, 8, 8))
    results = []
    for timesteps in (lambda t: t, lambda t: t.tolist(), lambda t: [v.clone() for v in t]):
        scheduler = ready(name, device=placement.device)
        generator = torch.Generator().manual_seed(0)
        given = timesteps(scheduler.timesteps)
        results.append(run_scheduler(scheduler, model, x, generator=generator, timesteps=given))
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


@pytest.mark.parametrize("name", NAMES)
def test_a_later_start_needs_no_begin_index(name, placement):
    x, results = placement.put(torch.ones(1, 4, 8, 8)), []
    for begin in (None, 4):
        scheduler = ready(name, 10, placement.device)
        if begin is not None:
            scheduler.set_begin_index(begin)
        generator = torch.Generator().manual_seed(0)
        results.append(run_scheduler(scheduler, model, x, generator=generator, timesteps=scheduler.timesteps[4:]))
    assert torch.equal(*results)


@pytest.mark.parametrize("name", NAMES)
def test_a_second_run_equals_the_first(name, placement):
    scheduler, x, results = ready(name, device=placement.device), placement.put(torch.ones(1, 4, 8, 8)), []
    for _ in range(2):
        results.append(run_scheduler(scheduler, model, x, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(*results)


@pytest.mark.parametrize("begin", [1, 2, 3])
@pytest.mark.parametrize("name", ["plms", "heun"])
def test_start_between_the_two_calls_of_a_step(name, begin):
    """Whatever the index, the run ends at the noise-free level of a constant image."""
    scheduler = ready(name, 8, prediction_type="sample")
    scheduler.set_begin_index(begin)
    image = torch.full((1, 1, 2, 2), 0.5)
    noise = torch.randn(1, 1, 2, 2)
    x = scheduler.add_noise(image, noise, scheduler.timesteps[begin : begin + 1])
    x = run_scheduler(scheduler, lambda y, t: image, x, timesteps=scheduler.timesteps[begin:])
    expected = scheduler.grid.alpha[-1] * image + scheduler.grid.sigma[-1] * noise
    torch.testing.assert_close(x, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_is_combined_in_float32(name, placement):
    for dtype in (torch.float16, torch.bfloat16):
        output, x = torch.randn(2, 2, 4, 8, 8).to(placement.device, dtype)
        noise = torch.randn(2, 4, 8, 8).to(placement.device)
        narrow, wide = ready(name), ready(name)
        got = narrow.step(output, narrow.timesteps[0], x, variance_noise=noise)
        expected = wide.step(output.float(), wide.timesteps[0], x.float(), variance_noise=noise)
        assert torch.equal(got.prev_sample, expected.prev_sample.to(dtype))
        assert torch.equal(got.pred_original_sample, expected.pred_original_sample.to(dtype))


@pytest.mark.parametrize("name", NAMES)
def test_velocity_and_noise_agree(name):
    scheduler = ready(name, prediction_type="v_prediction")
    x0, noise = torch.randn(2, 3, 4, 8, 8, dtype=torch.float64)
    timestep = scheduler.timesteps[2]
    many = timestep.repeat(3)
    x = scheduler.add_noise(x0, noise, many)
    scheduler.set_begin_index(2)
    estimate = scheduler.step(scheduler.get_velocity(x0, noise, many), timestep, x).pred_original_sample
    if name != "lcm":  # whose estimate also obeys a boundary condition
        torch.testing.assert_close(estimate, x0, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_misuse_is_named(name):
    scheduler, x = SCHEDULERS.get(name)(), torch.ones(1, 4, 8, 8)
    # DDPM visits all training timesteps where nothing else is said, as diffusers' does.
    unplanned = pytest.raises(ConfigError, match="call set_timesteps first") if name != "ddpm" else nullcontext()
    with unplanned:
        scheduler.step(x, 1, x)
    with pytest.raises(ConfigError, match="exactly one"):
        scheduler.set_timesteps()
    with pytest.raises(ConfigError, match="exactly one"):
        scheduler.set_timesteps(5, timesteps=[1])
    for timesteps in ([], [5, 5], [1, 5], [1000], [-1]):
        with pytest.raises(ConfigError, match="timesteps"):
            scheduler.set_timesteps(timesteps=timesteps)
    for steps in (0, -3, 1001):
        with pytest.raises(ConfigError, match="num_inference_steps is"):
            scheduler.set_timesteps(steps)
    scheduler.set_timesteps(5)
    with pytest.raises(ConfigError, match="not in this run"):
        scheduler.step(x, 7.25, x)
    for begin in (-1, 99):
        with pytest.raises(ConfigError, match="begin_index"):
            scheduler.set_begin_index(begin)
    if scheduler.has_eta:
        with pytest.raises(ConfigError, match="choose 0 to 1"):
            scheduler.step(x, scheduler.timesteps[0], x, eta=1.5)
    else:
        with pytest.raises(ConfigError, match="has no eta"):
            scheduler.step(x, scheduler.timesteps[0], x, eta=1.0)


def test_generators_are_counted():
    scheduler, x = ready("ddpm"), torch.ones(2, 4, 8, 8)
    with pytest.raises(ConfigError, match="1 generators were given for 2 images"):
        scheduler.step(x, scheduler.timesteps[0], x, generator=[torch.Generator()])
    with pytest.raises(ConfigError, match="give one"):
        scheduler.step(x, scheduler.timesteps[0], x, generator=torch.Generator(), variance_noise=x)


def test_noise_prediction_at_zero_snr_is_refused():
    scheduler = SCHEDULERS.get("ddim")(**MODEL, rescale_betas_zero_snr=True, timestep_spacing="trailing")
    with pytest.raises(ConfigError, match="zero SNR"):
        scheduler.set_timesteps(5)
