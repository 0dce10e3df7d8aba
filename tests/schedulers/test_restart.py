import itertools
import math

import pytest
import torch
from counterparts import MODEL
from tiny import text_to_image

from latentdiff import ConfigError, HeunScheduler, ImageToImagePipeline, RestartScheduler
from latentdiff.testing import GaussianData
from latentdiff.testing.gaussian import run_scheduler


def run(steps=20, **options):
    scheduler = RestartScheduler(**MODEL, **options)
    scheduler.set_timesteps(steps)
    return scheduler


def rises(scheduler):
    """The pairs of sigmas between which the run goes up."""
    levels = [sigma / alpha for alpha, sigma in zip(scheduler.grid.alpha, scheduler.grid.sigma, strict=True)]
    return [(low, high) for low, high in itertools.pairwise(levels) if high > low]


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 7, 20, 50])
@pytest.mark.parametrize("times", [0, 1, 2])
def test_as_many_steps_as_asked_for(steps, times):
    scheduler = run(steps, num_restarts=times)
    assert len(scheduler.timesteps) == 2 * steps - 1 and scheduler.num_inference_steps == steps


def test_the_run_goes_up_from_the_level_nearest_to_the_lowest():
    scheduler = run(num_restarts=2, restart_steps=4, use_karras_sigmas=True)
    plain = HeunScheduler(**MODEL, use_karras_sigmas=True)
    plain.set_timesteps(12)
    nearest = min(plain.sigmas[1:-1:2].tolist(), key=lambda sigma: abs(sigma - 0.1))
    assert [end for rise in rises(scheduler) for end in rise] == pytest.approx([nearest, 2.0] * 2, rel=1e-5)
    assert (scheduler.timesteps.diff() > 0).sum() == 2


def test_noise_is_added_up_to_the_level_and_nowhere_else():
    scheduler = run(num_restarts=2, restart_steps=4)
    noisy = {
        call: dict(row["prev"])["noise"]
        for call, row in enumerate(scheduler._rows(0.0))
        if "noise" in dict(row["prev"])
    }
    ((low, high), _) = rises(scheduler)
    assert list(noisy.values()) == pytest.approx([math.sqrt(high**2 - low**2)] * 2)
    assert all(call % 2 for call in noisy) and scheduler.adds_noise()


def test_without_restarts_it_is_heun():
    scheduler, plain = run(num_restarts=0), HeunScheduler(**MODEL)
    plain.set_timesteps(20)
    assert torch.equal(scheduler.timesteps, plain.timesteps) and scheduler._rows(0.0) == plain._rows(0.0)
    assert not scheduler.adds_noise()


def test_a_run_too_short_for_restarts_is_heun():
    scheduler, plain = run(1), HeunScheduler(**MODEL)
    plain.set_timesteps(1)
    assert scheduler._rows(0.0) == plain._rows(0.0)


def test_restarts_are_added_to_a_run_of_given_levels():
    scheduler = RestartScheduler(**MODEL, restart_steps=3)
    for argument, values, steps in (
        ("timesteps", [999, 500, 200, 10], 4),
        ("sigmas", [14.0, 3.0, 0.5, 0.2, 0.0], 4),
    ):
        scheduler.set_timesteps(**{argument: values})
        assert scheduler.num_inference_steps == steps + 3 and len(rises(scheduler)) == 1


def test_no_restart_goes_above_the_levels_of_training():
    scheduler = run(restart_max=500.0)
    assert rises(scheduler)[0][1] == pytest.approx(scheduler.schedule.sigmas[-1])
    assert scheduler.timesteps.max() == 999


def test_errors_of_the_steps_so_far_shrink():
    """The start is off by a tenth; noise and a second fall make up for most of it."""
    data, errors = GaussianData(), []
    for scheduler in (run(40, num_restarts=0), run(40, restart_steps=20)):
        generator = torch.Generator().manual_seed(0)
        x = 1.1 * torch.randn(1, 1, 64, 64, generator=generator) * scheduler.init_noise_sigma
        x = run_scheduler(scheduler, data.model(scheduler), x, generator=generator)
        errors.append(abs(float(x.std()) - data.std))
    assert errors[1] < errors[0] / 2


@pytest.mark.parametrize(
    ("options", "steps", "match"),
    [
        ({"num_restarts": -1}, 20, "num_restarts is -1"),
        ({"restart_steps": 0}, 20, "restart_steps is 0"),
        ({"restart_steps": 2.5}, 20, "restart_steps is 2.5"),
        ({"restart_min": 0.0}, 20, "restart_min and restart_max are 0 and 2"),
        ({"restart_min": 2.0}, 20, "restart_min and restart_max are 2 and 2"),
        ({"restart_max": float("inf")}, 20, "restart_min and restart_max are 0.1 and inf"),
        ({"restart_steps": 10, "num_restarts": 2}, 20, "2 restarts of 10 steps take 20 of them"),
        ({}, 1001, "num_inference_steps is 1001"),
        ({}, 0, "num_inference_steps is 0"),
    ],
)
def test_restarts_that_cannot_be(options, steps, match):
    with pytest.raises(ConfigError, match=match) as raised:
        run(steps, **options)
    assert "\n" not in str(raised.value)


def test_the_last_number_that_still_fits():
    assert run(21, restart_steps=10, num_restarts=2).num_inference_steps == 21


def test_image_to_image_makes_its_share_of_the_steps(tmp_path):
    pipe, calls = ImageToImagePipeline.from_pipe(text_to_image(tmp_path)), []
    pipe.set_scheduler("restart", restart_steps=2)
    pipe.unet.register_forward_hook(lambda *args: calls.append(1))
    image = torch.zeros(3, 16, 16)
    options = {"guidance_scale": 1.0, "seed": 0, "num_inference_steps": 8, "output_type": "latent"}
    for strength, steps in ((1.0, 8), (0.5, 4), (0.25, 2)):
        calls.clear()
        assert pipe(image, "a cat", strength=strength, **options).images.isfinite().all()
        assert len(calls) == 2 * steps - 1
