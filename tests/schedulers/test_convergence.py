import math

import numpy as np
import pytest
import torch

from latentdiff.registry import SCHEDULERS
from latentdiff.testing import GaussianData, measure_order
from latentdiff.testing.gaussian import noise_level

ORDERS = {
    "ddim": (0.9, 1.1),
    "euler": (0.9, 1.1),
    "heun": (1.8, 2.3),
    "dpmpp_2m": (1.8, 2.4),
    "plms": (1.8, 3.0),
    "unipc": (2.7, 4.2),
    "deis": (1.8, 2.4),
}


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_order(name, kind):
    scheduler_class = SCHEDULERS.get(name)
    order = measure_order(lambda: scheduler_class(prediction_type=kind))
    print(f"{name} {kind}: order {order:.2f}")
    low, high = ORDERS[name]
    assert low < order < high


@pytest.mark.parametrize(
    ("name", "options", "low", "high"),
    [
        ("deis", {"solver_type": "t"}, 1.8, 2.2),
        ("deis", {"solver_order": 3}, 2.7, 3.6),
        ("deis", {"solver_order": 3, "solver_type": "t"}, 2.5, 3.3),
        ("sa_solver", {"tau": 0.0}, 1.8, 2.2),
        ("restart", {"num_restarts": 0}, 1.8, 2.3),
    ],
)
def test_order_with_options(name, options, low, high):
    order = measure_order(lambda: SCHEDULERS.get(name)(**options))
    print(f"{name} {options}: order {order:.2f}")
    assert low < order < high


def er_sde_slope(sigma):
    """d log phi / d log sigma."""
    power = sigma**0.3
    return 1 + 0.3 * power * np.exp(power) / (np.exp(power) + 10)


# x / alpha goes along d x / d sigma = (phi' / phi) (x - x0) in the mean (Cui et al. 2023), where
# phi = sigma^(1 + tau^2) is the SDE of SA-Solver. At tau = 1, x0 is constant along the mean, and any step exact.
MEANS = {
    "er_sde": ({}, er_sde_slope, (1.8, 2.3)),
    "sa_solver": ({"tau": 0.5, "tau_low": 0.0, "tau_high": 1.0}, lambda sigma: np.full_like(sigma, 1.25), (1.8, 2.4)),
}


@pytest.mark.parametrize("name", MEANS)
def test_order_in_the_mean(name):
    """With the noise left out, a run's result is the mean, as the perfect model of Gaussian data is linear."""
    options, slope, (low, high) = MEANS[name]
    data, errors, counts = GaussianData(), [], (10, 20, 40, 80)
    points, weights = np.polynomial.legendre.leggauss(100)
    for steps in counts:
        scheduler = SCHEDULERS.get(name)(**options)
        scheduler.set_timesteps(timesteps=list(range(500, 99, -400 // steps)))
        (alpha, sigma), (alpha_end, sigma_end) = (noise_level(scheduler, timestep) for timestep in (500, 100))
        x, model = torch.linspace(-1, 2, 4, dtype=torch.float64).reshape(1, 1, 2, 2), data.model(scheduler)
        first, last = math.log(sigma / alpha), math.log(sigma_end / alpha_end)
        sigmas = np.exp(last + (first - last) * (points + 1) / 2)
        rate = slope(sigmas) * sigmas**2 / (data.std**2 + sigmas**2)
        exact = data.mean + math.exp(-(first - last) / 2 * (weights @ rate)) * (x / alpha - data.mean)
        for timestep in scheduler.timesteps[:-1]:
            x = scheduler.step(model(x, timestep), timestep, x, temperature=0.0).prev_sample
        errors.append(float((x / alpha_end - exact).abs().max()))
    order = -float(np.polyfit(np.log(counts), np.log(errors), 1)[0])
    print(f"{name}: order {order:.2f} in the mean")
    assert low < order < high
