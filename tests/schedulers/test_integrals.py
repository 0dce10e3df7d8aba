"""DEIS and ER-SDE-Solver beside their papers' formulas, with integrals as fine sums."""

import numpy as np
import pytest
import torch
from counterparts import MODEL

from latentdiff import ConfigError, DEISScheduler, ERSDEScheduler
from latentdiff.registry import SCHEDULERS

POINTS = 20001


def polynomials(nodes, at):
    """Lagrange polynomials by solving for their coefficients."""
    coefficients = np.linalg.solve(np.vander(nodes), np.eye(len(nodes)))
    return np.vander(at, len(nodes)) @ coefficients


@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("solver_type", ["logrho", "t"])
@pytest.mark.parametrize("karras", [False, True])
def test_deis_weights_are_integrals_of_polynomials(order, solver_type, karras):
    scheduler = DEISScheduler(**MODEL, solver_order=order, solver_type=solver_type, use_karras_sigmas=karras)
    scheduler.set_timesteps(20)
    rho = np.divide(scheduler.grid.sigma, scheduler.grid.alpha)
    table, numbers = np.append(0.0, scheduler.schedule.sigmas), np.arange(-1.0, 1000.0)
    axis = np.log if solver_type == "logrho" else (lambda levels: np.interp(levels, table, numbers))
    for call in (2, 10, 18):
        levels = np.linspace(rho[call], rho[call + 1], POINTS)
        values = polynomials(axis(rho[call - order + 1 : call + 1][::-1]), axis(levels))
        expected = np.trapezoid(values, levels, axis=0)
        np.testing.assert_allclose(scheduler._weights(call, order), expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(("solver_type", "kept"), [("logrho", 1), ("t", 3)])
def test_the_step_to_noise_free_images(solver_type, kept):
    scheduler = DEISScheduler(**MODEL, solver_order=3, solver_type=solver_type)
    scheduler.set_timesteps(20)
    assert scheduler._order(19, 19) == kept
    assert scheduler._weights(19, kept).sum() == pytest.approx(-scheduler.grid.sigma[19] / scheduler.grid.alpha[19])


def test_runs_of_less_than_fifteen_steps_end_with_lower_order():
    for steps, orders in ((14, [3, 2, 1]), (15, [3, 3, 3])):
        scheduler = DEISScheduler(**MODEL, solver_order=3, solver_type="t")
        scheduler.set_timesteps(steps)
        assert [scheduler._order(call, call) for call in range(steps - 3, steps)] == orders


@pytest.mark.parametrize(
    ("name", "options", "match"),
    [
        ("deis", {"solver_order": 1}, "solver_order is 1; choose 2 or 3"),
        ("deis", {"solver_order": 4}, "solver_order is 4; choose 2 or 3"),
        ("deis", {"solver_type": "rho"}, "solver_type is 'rho'; choose logrho or t"),
        ("sa_solver", {"tau": -0.1}, "tau is -0.1"),
        ("sa_solver", {"tau": float("inf")}, "tau is inf"),
        ("sa_solver", {"tau_low": 0.9}, "tau_low and tau_high are 0.9 and 0.8"),
        ("sa_solver", {"tau_high": 1.01}, "tau_low and tau_high are 0.2 and 1.01"),
        ("sa_solver", {"predictor_order": 3}, "predictor_order is 3"),
    ],
)
def test_options_out_of_range(name, options, match):
    with pytest.raises(ConfigError, match=match):
        SCHEDULERS.get(name)(**options)


def test_another_solvers_order_and_type_are_not_deis():
    for name in ("dpmpp_2m", "unipc"):
        made = DEISScheduler.from_config(SCHEDULERS.get(name)(**MODEL).config)
        assert (made.config.solver_order, made.config.solver_type) == (2, "logrho")
    made = DEISScheduler.from_config(DEISScheduler(**MODEL, solver_order=3, solver_type="t").config)
    assert (made.config.solver_order, made.config.solver_type) == (3, "t")


@pytest.mark.parametrize("karras", [False, True])
def test_er_sde_is_the_papers_third_stage(karras):
    """The VE form of the paper's solver on x / alpha and sigma / alpha, with Riemann sums."""
    scheduler = ERSDEScheduler(**MODEL, use_karras_sigmas=karras, prediction_type="sample")
    scheduler.set_timesteps(12)
    rho = np.divide(scheduler.grid.sigma, scheduler.grid.alpha)
    outputs, noises = torch.randn(2, 12, 1, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = torch.ones(1, 1, 4, 4, dtype=torch.float64)
    y, estimates, slopes = x / scheduler.grid.alpha[0], [], []

    def phi(sigma):
        return sigma * (np.exp(sigma**0.3) + 10)

    for call, timestep in enumerate(scheduler.timesteps):
        x = scheduler.step(outputs[call], timestep, x, variance_noise=noises[call]).prev_sample
        sigma, following = rho[call : call + 2]
        estimates.append(outputs[call])
        if following == 0:
            y = estimates[-1]
        else:
            kept = phi(following) / phi(sigma)
            y = kept * y + (1 - kept) * estimates[-1]
            levels = np.geomspace(following, sigma, POINTS)
            if call >= 1:
                slopes.append((estimates[-1] - estimates[-2]) / (sigma - rho[call - 1]))
                whole = np.trapezoid(1 / phi(levels), levels)
                y = y + (following - sigma + phi(following) * whole) * slopes[-1]
            if call >= 2:
                curvature = (slopes[-1] - slopes[-2]) / ((sigma - rho[call - 2]) / 2)
                whole = np.trapezoid((levels - sigma) / phi(levels), levels)
                y = y + ((following - sigma) ** 2 / 2 + phi(following) * whole) * curvature
            y = y + (following**2 - sigma**2 * kept**2) ** 0.5 * noises[call]
        torch.testing.assert_close(x, scheduler.grid.alpha[call + 1] * y, rtol=1e-6, atol=1e-6)
