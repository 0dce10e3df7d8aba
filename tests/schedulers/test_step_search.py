"""Schedules are compared with brute force, closed forms and real runs."""

import itertools

import numpy as np
import pytest
import torch

from latentdiff import ConfigError, DDIMScheduler
from latentdiff.registry import SCHEDULERS
from latentdiff.schedulers import step_search as search
from latentdiff.schedulers.select import make_scheduler

MODEL = {"beta_start": 0.0015, "beta_end": 0.0195, "beta_schedule": "scaled_linear", "prediction_type": "v_prediction"}
DETERMINISTIC = ("ddim", "plms", "euler", "heun", "dpmpp_2m", "unipc", "deis")


@pytest.mark.parametrize(("gamma", "steps"), itertools.product((0.8, 1.0, 1.3), (1, 2, 4, 6)))
def test_no_path_is_cheaper(gamma, steps):
    costs = np.triu(np.random.default_rng(steps).random((6, 7)), 1)
    costs[np.tril_indices(6, m=7)] = np.inf

    def cost(path):
        return sum(gamma**step * costs[level] for step, level in enumerate(itertools.pairwise([*path, 6])))

    paths = [(0, *rest) for rest in itertools.combinations(range(1, 6), steps - 1)]
    found = search.cheapest_path(costs, steps, gamma)
    assert tuple(found) == min(paths, key=cost)


@pytest.mark.parametrize("steps", [0, 7])
def test_more_steps_than_levels(steps):
    with pytest.raises(ConfigError, match=f"num_inference_steps is {steps}; choose 1 to 6"):
        search.cheapest_path(np.ones((6, 7)), steps, 1.0)


def test_cost_is_the_distance_that_an_euler_step_misses():
    sigmas = np.array([4.0, 3.0, 1.0, 0.0])
    states = (sigmas**2)[:, None, None] * np.array([[3.0, 4.0], [0.0, 1.0]])  # of two images; slopes are 2 sigma
    slopes = 2 * sigmas[:-1, None, None] * np.array([[3.0, 4.0], [0.0, 1.0]])
    costs = search.gits_costs(sigmas, states, slopes)
    missed = 3 * (sigmas[None] - sigmas[:-1, None]) ** 2  # (a - b)^2 times the mean of the lengths 5 and 1
    later = np.triu(np.ones((3, 4), bool), 1)
    np.testing.assert_allclose(costs[later], missed[later])
    assert np.isinf(costs[~later]).all()


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ([998.6, 400.4, 10.0], (999, 400, 10)),
        ([900.0, 900.0, 899.7], (999, 900, 899)),
        ([999.0, 0.0, 0.0], (999, 1, 0)),
        ([5.0], (999,)),
    ],
)
def test_whole_timesteps_fall_strictly(given, made):
    assert search.whole(given, 1000) == made


def test_usual_schedules_are_valid_for_any_number_of_steps():
    schedule = DDIMScheduler(**MODEL).schedule
    for steps in (1, 2, 10, 100, 999):
        for name, timesteps in search.untuned_timesteps(schedule, steps).items():
            assert len(timesteps) == steps and timesteps[0] == 999 and timesteps[-1] >= 0, name
            assert (np.diff(timesteps) < 0).all(), name
    assert search.untuned_timesteps(schedule, 4)["trailing"] == (999, 749, 499, 249)


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_weights_are_those_of_a_real_run(name):
    scheduler = search.for_bound(make_scheduler(name, DDIMScheduler(**MODEL).config))  # with the option of DDIM's end
    timesteps = (999, 700, 420, 200, 60, 9)
    search.model_free_bound(scheduler, timesteps)  # which sets the timesteps
    levels = [*scheduler._calls, len(timesteps)]
    alphas, sigmas = np.array(scheduler.grid.alpha), np.array(scheduler.grid.sigma)
    scale = alphas if scheduler.variance_exploding else np.ones_like(alphas)
    estimates = torch.randn(len(scheduler.timesteps), 5, dtype=torch.float64)
    sample = start = torch.randn(5, dtype=torch.float64) * float(scheduler.init_noise_sigma)
    for timestep, estimate in zip(scheduler.timesteps, estimates, strict=True):
        sample = scheduler.step(estimate, timestep, sample).prev_sample
    added = sample * scale[levels[-1]] / sigmas[levels[-1]] - start * scale[0] / sigmas[0]
    weights = search.step_weights(scheduler)
    np.testing.assert_allclose(weights.sum(axis=0) @ estimates.numpy(), added, rtol=1e-9)


def test_bound_of_ddim_in_closed_form():
    scheduler = DDIMScheduler(**MODEL)
    timesteps = [999, 500, 20]
    alpha = np.sqrt(scheduler.schedule.alphas_cumprod[[*timesteps, 0]])
    sigma = np.sqrt(1 - alpha**2)
    expected = np.sum(np.diff(alpha / sigma) * sigma[:-1] ** 2 / alpha[:-1])
    assert search.model_free_bound(search.for_bound(scheduler), timesteps) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", ["ddim", "dpmpp_2m"])
def test_no_neighbour_of_the_model_free_schedule_is_better(name):
    scheduler = SCHEDULERS.get(name)(**MODEL)
    start = search.untuned_timesteps(scheduler.schedule, 5)["logsnr"]
    found, solver = search.model_free_timesteps(scheduler, start), search.for_bound(scheduler)
    bound = search.model_free_bound(solver, found)
    assert bound < 0.9 * search.model_free_bound(solver, search._above_zero(start))
    for place, change in itertools.product(range(1, 5), (-40, 40)):
        moved = [t + change * (number == place) for number, t in enumerate(found)]
        if 1 <= moved[place] < moved[place - 1] and moved[place] > [*moved, 0][place + 1]:
            assert search.model_free_bound(solver, moved) > bound


def test_descent_finds_the_least_squares():
    wanted = np.array([700.0, 480.0, 90.0])
    mixed = np.random.default_rng(0).normal(size=(20, 3)) / 300
    calls = []

    def residual(timesteps):
        calls.append(timesteps)
        change = np.array(timesteps[1:]) - wanted
        return mixed @ (change + 1e-4 * change**2)

    found, least = search.descend((999, 749, 499, 249), residual, 1000, rounds=12)
    assert np.abs(np.array(found[1:]) - wanted).max() <= 2
    assert least == pytest.approx(np.mean(residual(found) ** 2)) and least < 1e-4
    assert all(timesteps[0] == 999 and (np.diff(timesteps) < 0).all() for timesteps in calls)


def test_descent_of_no_rounds_is_its_start():
    assert search.descend((999, 500), lambda timesteps: np.full(3, 2.0), 1000, rounds=0) == ((999, 500), 4.0)
