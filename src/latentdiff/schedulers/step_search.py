"""Which timesteps a run should visit: the schedules of two papers, and a descent on the error of the solver itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from latentdiff.errors import ConfigError
from latentdiff.schedulers.base import TableScheduler
from latentdiff.schedulers.noise_schedule import NoiseSchedule, karras_sigmas, spaced_timesteps
from latentdiff.schedulers.sigma import SigmaScheduler
from latentdiff.types import Float64Array

Timesteps = tuple[int, ...]
"""The timesteps of a run, falling strictly from the last of training."""

MIN_ALPHA = 1e-3  # at zero SNR, where what an estimate of x0 is wrong by has no bound


def untuned_timesteps(schedule: NoiseSchedule, steps: int) -> dict[str, Timesteps]:
    """The usual schedules of a number of steps, by name, as whole timesteps.

    Returns:
        "trailing" and "linspace", evenly spaced timesteps; "karras", the levels of Karras et al. (2022, eq. 5) over
        all of training; and "logsnr", which is evenly spaced in log(alpha / sigma) (Lu et al. 2022, arXiv 2206.00927).
    """
    if schedule.first:
        raise ConfigError("timesteps are tuned for models of betas, and this predicts a flow; choose a number of steps")
    total, (lowest, highest) = len(schedule), _ends(schedule)
    return {
        "trailing": whole(spaced_timesteps("trailing", steps, total), total),
        "linspace": whole(spaced_timesteps("linspace", steps, total), total),
        "karras": whole(schedule.timestep_at(karras_sigmas(lowest, highest, steps)), total),
        "logsnr": whole(schedule.timestep_at(np.geomspace(highest, lowest, steps)), total),
    }


def _ends(schedule: NoiseSchedule) -> tuple[float, float]:
    """The least and the greatest finite sigma of training."""
    finite = schedule.sigmas[np.isfinite(schedule.sigmas)]
    return float(finite[0]), float(finite[-1])


def whole(timesteps: Sequence[float] | Float64Array, total: int) -> Timesteps:
    """The nearest whole timesteps that fall strictly, begin with T - 1 and end at 0 or above.

    Args:
        timesteps: As many falling timesteps as steps, at most `total`.
        total: The number of training timesteps T.
    """
    count, made = len(timesteps), list[int]()
    for place, value in enumerate(timesteps):
        highest = made[-1] - 1 if made else total - 1
        made.append(int(np.clip(round(float(value)), count - 1 - place, highest)) if place else total - 1)
    return tuple(made)


# -- Chen et al. 2024, "On the trajectory regularity of ODE-based diffusion sampling" (arXiv 2405.11326) ---------------


def gits_costs(sigmas: Float64Array, states: Float64Array, slopes: Float64Array) -> Float64Array:
    """The local truncation error of every Euler step that leads from one level of a teacher's trajectory to another.

    Args:
        sigmas: The levels (M + 1,) of the trajectory, falling, at unit image scale; the last is that of the result.
        states: The samples (M + 1, B, D) at these levels, at unit image scale.
        slopes: dx/dsigma (M, B, D) at all but the last.

    Returns:
        The mean distance (M, M + 1) from the teacher's sample at level j after one step from its sample at level i;
        infinite where j does not come after i.
    """
    count = len(slopes)
    costs = np.full((count, count + 1), np.inf)
    for start in range(count):
        widths = (sigmas[start + 1 :] - sigmas[start])[:, None, None]
        missed = states[start] + widths * slopes[start] - states[start + 1 :]
        costs[start, start + 1 :] = np.linalg.norm(missed, axis=-1).mean(axis=-1)
    return costs


def cheapest_path(costs: Float64Array, steps: int, gamma: float) -> list[int]:
    """The levels that `steps` steps visit for the least cost, by dynamic programming (algorithm 1 of the paper).

    The cost of a path is that of its first step plus `gamma` times that of the rest, so that at a gamma above 1 an
    error costs more the later it is made.

    Args:
        costs: The cost (M, M + 1) of a step from level i to level j.
        steps: The number of steps, at most M.
        gamma: The coefficient of the paper.

    Returns:
        The indices (steps,) of the levels, rising from 0; the last step goes on to level M.

    Raises:
        ConfigError: If there are more steps than levels.
    """
    count = len(costs)
    if not 1 <= steps <= count:
        raise ConfigError(f"num_inference_steps is {steps}; choose 1 to {count}, the number of the teacher's steps")
    rest, choices = costs[:, -1], list[np.ndarray]()
    for _ in range(steps - 1):
        total = costs[:, :-1] + gamma * rest
        choices.append(total.argmin(axis=1))
        rest = total.min(axis=1)
    path = [0]
    for choice in reversed(choices):
        path.append(int(choice[path[-1]]))
    return path


# -- Xue et al. 2024, "Accelerating diffusion sampling with optimized time steps" (arXiv 2402.17376) -------------------


def step_weights(scheduler: TableScheduler) -> Float64Array:
    """The weights of the network's estimates of x0 in what each call of a run adds to x / sigma.

    A solver that takes estimates of x0 leaves the weight of the initial sample in x / sigma as it is (eq. 5 of the
    paper), so that a row is what this step contributes to the result.

    Args:
        scheduler: A deterministic solver of prediction type "sample", its timesteps set; it lands above sigma 0.

    Returns:
        A row for each call, a column for each estimate: (calls, calls).
    """
    rows, levels = scheduler._rows(0.0), [*scheduler._calls, len(scheduler.grid.timesteps)]
    basis = np.eye(1 + len(rows))
    scaled = [basis[0] / scheduler.grid.sigma[0]]
    sample, memory = basis[0], dict[str, Float64Array]()
    alpha = np.array(scheduler.grid.alpha) if scheduler.variance_exploding else np.ones(len(scheduler.grid.alpha))
    sample = sample / alpha[0]
    for call, row in enumerate(rows):
        known: Mapping[str, Float64Array] = {**memory, "x": sample, "out": basis[1 + call]}
        values = {name: np.sum([weight * known[term] for term, weight in terms], axis=0) for name, terms in row.items()}
        sample, memory = values.pop("prev"), values
        level = levels[call + 1]
        scaled.append(sample * alpha[level] / scheduler.grid.sigma[level])
    return np.diff(np.stack(scaled)[:, 1:], axis=0)


def model_free_bound(scheduler: TableScheduler, timesteps: Timesteps) -> float:
    """The bound of the error of a run that the paper minimises, from the solver's weights alone.

    An estimate of x0 is taken to be wrong by sigma^2 / alpha of its level, independently of the others, as the paper
    recommends for latent space. The errors of a step are added as squares, and those of the steps as they are. The
    paper lets the weights of later steps cancel each other instead; among whole timesteps, trials with that put almost
    all steps at the end. The run lands at the lowest level of training, since at
    a noise-free image only the last estimate would count.

    Args:
        scheduler: A solver made by `for_bound`.
        timesteps: The timesteps of a run, the last at least 1.
    """
    if isinstance(scheduler, SigmaScheduler):
        scheduler.set_timesteps(sigmas=scheduler.schedule.sigma_at(np.array([*timesteps, 0])).tolist())
    else:
        scheduler.set_timesteps(timesteps=timesteps)
    levels = scheduler._calls
    alpha, sigma = np.array(scheduler.grid.alpha)[levels], np.array(scheduler.grid.sigma)[levels]
    errors = step_weights(scheduler) * sigma**2 / np.maximum(alpha, MIN_ALPHA)
    return float(np.linalg.norm(errors, axis=1).sum())


def for_bound(scheduler: TableScheduler) -> TableScheduler:
    """A scheduler of the same solver and noise schedule whose weights are those of estimates of x0."""
    lands = {} if isinstance(scheduler, SigmaScheduler) else {"set_alpha_to_one": False}
    made: TableScheduler = type(scheduler).from_config(scheduler.config, prediction_type="sample", **lands)
    return made


def model_free_timesteps(scheduler: TableScheduler, start: Timesteps, most: int = 400) -> Timesteps:
    """The timesteps that minimise `model_free_bound` near `start`.

    Each timestep in turn moves towards its neighbours, and those below it move along; that is what is left of the
    paper's constrained trust region where timesteps are whole.

    Args:
        scheduler: The solver.
        start: Timesteps to begin with.
        most: How many schedules are tried at most.
    """
    solver, total = for_bound(scheduler), len(scheduler.schedule)
    best = _above_zero(start)
    least, tried = model_free_bound(solver, best), 1
    for share in (0.5, 0.25, 0.1, 0.04, 0.02):
        improved = True
        while improved and tried < most:
            improved = False
            for moved in _moves(best, share, total):
                bound = model_free_bound(solver, _above_zero(moved))
                tried += 1
                if bound < least:
                    best, least, improved = _above_zero(moved), bound, True
                    break
    return best


def _above_zero(timesteps: Timesteps) -> Timesteps:
    """The timesteps, moved up where it takes that to end at 1."""
    count = len(timesteps)
    return tuple(max(value, count - place) for place, value in enumerate(timesteps))


def _moves(timesteps: Timesteps, share: float, total: int) -> list[Timesteps]:
    """Schedules that differ in one timestep, or in it and all below, by a share of its distance to a neighbour."""
    made = []
    edges = [*timesteps, -1]
    for place in range(1, len(timesteps)):
        for neighbour in (edges[place - 1], edges[place + 1]):
            value = timesteps[place] + share * (neighbour - timesteps[place])
            scale = (value + 1) / (timesteps[place] + 1)
            below = [scale * (t + 1) - 1 for t in timesteps[place + 1 :]]
            for rest in (timesteps[place + 1 :], below):
                moved = whole([*timesteps[:place], value, *rest], total)
                if moved != timesteps:
                    made.append(moved)
    return made


# -- the solver's own error --------------------------------------------------------------------------------------------

Residual = Callable[[Timesteps], Float64Array]
"""How far from the teacher's results a run over some timesteps ends, (D,)."""


def descend(start: Timesteps, residual: Residual, total: int, rounds: int) -> tuple[Timesteps, float]:
    """Lower the mean square of a run's distance from its teacher by the Levenberg-Marquardt method.

    A round tries a change of each timestep by itself, for the Jacobian, and then steps of several lengths along the
    solution of the damped least squares problem.

    Args:
        start: Timesteps to begin with; the first stays.
        residual: Makes a run and compares it.
        total: The number of training timesteps T.
        rounds: The most rounds; it ends before, when none of a round's steps is of use.

    Returns:
        The best timesteps, and their mean square distance.
    """
    best, missed = start, residual(start)
    least = float(np.mean(missed**2))
    for _ in range(rounds if len(start) > 1 else 0):
        gaps = -np.diff([*best, -1])[:-1]
        columns, lengths = [], []
        for place, gap in enumerate(gaps, start=1):
            moved = list(best)
            moved[place] = best[place] + max(1, round(0.15 * gap))
            tried = whole(moved, total)
            change = tried[place] - best[place]
            columns.append((residual(tried) - missed) / change * gap if change else 0 * missed)
            lengths.append(float(gap))
        jacobian = np.stack(columns, axis=1)
        normal, gradient = jacobian.T @ jacobian, jacobian.T @ missed
        found = False
        for damping in (0.01, 0.1, 1.0):
            step = -np.linalg.solve(normal + damping * np.diag(normal.diagonal() + 1e-12), gradient)
            step *= min(1.0, 0.6 / max(np.abs(step).max(), 1e-12))
            tried = whole([best[0], *np.array(best[1:]) + step * lengths], total)
            result = residual(tried)
            value = float(np.mean(result**2))
            if value < least:
                best, missed, least, found = tried, result, value, True
                break
        if not found:
            break
    return best, least
