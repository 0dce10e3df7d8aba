"""Which evaluations of a run are full, by the timesteps of real solvers, and what a cache keeps between them."""

import re
from pathlib import Path

import diffusers
import pytest
import torch

from latentdiff import InputError
from latentdiff.caching import CacheOptions, CacheSchedule, FeatureCache
from latentdiff.schedulers import make_scheduler

CONFIG = {"beta_start": 0.0015, "beta_end": 0.0195, "beta_schedule": "scaled_linear"}


def sources(name, steps, interval, **options):
    scheduler = make_scheduler(name, CONFIG, **options)
    scheduler.set_timesteps(steps)
    return scheduler.timesteps.tolist(), CacheSchedule.uniform(scheduler.timesteps, interval).sources


@pytest.mark.parametrize(
    ("interval", "expected"),
    [
        (1, (0, 1, 2, 3, 4, 5, 6)),
        (2, (0, 0, 2, 2, 4, 4, 6)),
        (3, (0, 0, 0, 3, 3, 3, 6)),
        (6, (0, 0, 0, 0, 0, 0, 6)),
        (7, (0, 0, 0, 0, 0, 0, 0)),
        (50, (0, 0, 0, 0, 0, 0, 0)),
    ],
)
def test_one_of_so_many_evaluations_is_full(interval, expected):
    assert sources("ddim", 7, interval)[1] == expected


def test_the_two_evaluations_of_a_step_of_heun_count_as_two():
    timesteps, found = sources("heun", 4, 3)
    assert timesteps[1] == timesteps[2] and found == (0, 0, 0, 3, 3, 3, 6)


@pytest.mark.parametrize("interval", [2, 100])
def test_added_noise_asks_for_new_features(interval):
    timesteps, found = sources("restart", 12, interval, num_restarts=2)
    rises = [n for n in range(1, len(timesteps)) if timesteps[n] > timesteps[n - 1]]
    assert len(rises) == 2 and all(found[n] == n for n in rises)
    assert all(
        n - source < interval and source >= max((r for r in rises if r <= n), default=0)
        for n, source in enumerate(found)
    )
    assert interval == 2 or set(found) == {0, *rises}


def feature(value):
    return torch.full((1, 1), float(value))


def test_features_are_kept_until_the_next_full_evaluation():
    cache = FeatureCache(CacheSchedule(0, (0, 0, 0, 3, 3, 3, 6)))
    for number, source in enumerate(cache.schedule.sources):
        assert cache.begin(number / 7) == source / 7
        for window in range(2):
            found = cache.take()
            assert (found is None) == (number == source)
            if found is None:
                cache.keep(feature(10 * number + window))
            else:
                assert found == 10 * source + window


def test_a_full_evaluation_that_is_asked_for_twice_is_full_twice():
    cache = FeatureCache(CacheSchedule(0, (0, 0, 2)))
    for value in (1, 2):
        cache.begin(0.0)
        assert cache.take() is None
        cache.keep(feature(value))
    cache.begin(1 / 3)
    assert cache.take() == 2


def test_a_network_that_missed_a_full_evaluation_makes_up_for_it():
    cache = FeatureCache(CacheSchedule(0, (0, 0, 0, 3, 3, 3)))
    cache.begin(0.0), cache.take(), cache.keep(feature(0))
    assert cache.begin(4 / 6) == 4 / 6 and cache.take() is None
    cache.keep(feature(4))
    assert cache.begin(5 / 6) == 4 / 6 and cache.take() == 4


def test_features_that_are_kept_hold_no_graph():
    cache = FeatureCache(CacheSchedule(0, (0, 0)))
    cache.begin(0.0), cache.take()
    cache.keep(feature(1).requires_grad_() * 2)
    cache.begin(0.5)
    assert not cache.take().requires_grad


class Network:
    cache_branches = 4


STOCK = diffusers.UNet2DModel(
    sample_size=8,
    block_out_channels=(32,),
    down_block_types=("DownBlock2D",),
    up_block_types=("UpBlock2D",),
    layers_per_block=1,
)


CENTERED = [  # worked out by hand: evaluations, interval, center, power, full ones
    (50, 5, 0.3, 1.4, (0, 5, 10, 13, 15, 19, 24, 29, 35, 42)),
    (50, 5, 0.3, 1.0, (0, 5, 10, 15, 20, 25, 30, 35, 40, 45)),
    (50, 5, 0.0, 2.0, (0, 1, 2, 4, 8, 12, 18, 24, 32, 40)),  # 50 (k / 10)^2, of which the second is 0, too
    (50, 5, 1.0, 2.0, (0, 9, 18, 25, 32, 37, 42, 45, 48, 49)),  # 50 - 50 ((10 - k) / 10)^2
    (7, 7, 0.5, 1.4, (0,)),
    (7, 50, 0.5, 1.4, (0,)),
    (4, 2, 1.0, 9.0, (0, 3)),
    (4, 1, 0.5, 3.0, (0, 1, 2, 3)),
    (5, 2, 0.0, 9.0, (0, 1, 2)),
]


@pytest.mark.parametrize(("steps", "interval", "center", "power", "expected"), CENTERED)
def test_full_evaluations_around_a_center(steps, interval, center, power, expected):
    timesteps = torch.arange(steps, 0, -1)
    found = CacheSchedule.centered(timesteps, interval, center, power).sources
    assert tuple(number for number, source in enumerate(found) if source == number) == expected
    assert found == tuple(max(full for full in expected if full <= number) for number in range(steps))


@pytest.mark.parametrize("steps", [1, 2, 3, 20, 999])
def test_a_center_moves_full_evaluations_and_leaves_their_number(steps):
    timesteps = torch.arange(steps, 0, -1)
    for interval in (1, 2, 3, 7, 1000):
        even = CacheSchedule.uniform(timesteps, interval)
        for center in (0, 0.2, 0.5, 0.97, 1):
            for power in (1, 1.2, 2, 50):
                found = CacheSchedule.centered(timesteps, interval, center, power)
                assert len(set(found.sources)) == len(set(even.sources)) and found.sources[0] == 0
                assert interval > 1 or found == even


def test_added_noise_asks_for_new_features_around_a_center_too():
    scheduler = make_scheduler("restart", CONFIG, num_restarts=2)
    scheduler.set_timesteps(12)
    timesteps = scheduler.timesteps.tolist()
    rises = {n for n in range(1, len(timesteps)) if timesteps[n] > timesteps[n - 1]}
    found = CacheSchedule.centered(scheduler.timesteps, 100, 0.5).sources
    assert len(rises) == 2 and set(found) == {0, *rises}


@pytest.mark.parametrize(
    ("unet", "options", "message"),
    [
        (Network(), (0,), "cache_interval is 0; it must be an integer of at least 1"),
        (Network(), (True,), "cache_interval is True; it must be"),
        (Network(), (2.0,), "cache_interval is 2.0; it must be"),
        (Network(), (1, 0), "cache_branch is 0, but cache_interval is 1, which caches nothing"),
        (Network(), (1, None, 0.5), "cache_center is 0.5, but cache_interval is 1, which caches nothing"),
        (Network(), (1, None, None, 2), "cache_power is 2, but cache_interval is 1, which caches nothing"),
        (Network(), (2, 4), "cache_branch is 4, but this network has the branches 0 to 3"),
        (Network(), (2, -1), "cache_branch is -1, but this network has the branches 0 to 3"),
        (Network(), (2, True), "cache_branch is True, but this network"),
        (Network(), (2, None, -0.1), "cache_center is -0.1; it must be a share of the run"),
        (Network(), (2, None, 1.1), "cache_center is 1.1; it must be a share of the run"),
        (Network(), (2, None, True), "cache_center is True; it must be a share of the run"),
        (Network(), (2, None, float("nan")), "cache_center is nan; it must be a share of the run"),
        (Network(), (2, None, None, 1.4), "cache_power is 1.4, but there is no cache_center; give both or none"),
        (Network(), (2, None, 0.3, 0.9), "cache_power is 0.9; it must be at least 1"),
        (Network(), (2, None, 0.3, float("inf")), "cache_power is inf; it must be at least 1"),
        (Network(), (2, None, 0.3, "2"), "cache_power is '2'; it must be at least 1"),
        (STOCK, (2,), "this network, UNet2DModel of diffusers, has no feature caching; leave cache_interval out"),
    ],
)
def test_options_that_can_not_be(unet, options, message):
    with pytest.raises(InputError, match=message) as raised:
        CacheOptions(*options).check(unet)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "options", [(1,), (2,), (2, 0), (50, 3), (2, None, 0), (2, 1, 1.0), (2, None, 0.3, 1), (2, None, 0.3, 4.0)]
)
def test_options_that_can_be(options):
    CacheOptions(*options).check(Network())
    CacheOptions().check(STOCK)


def test_the_schedule_that_options_ask_for():
    timesteps = torch.arange(50, 0, -1)
    assert CacheOptions().schedule(timesteps) is None
    assert CacheOptions(3, 2).schedule(timesteps) == CacheSchedule.uniform(timesteps, 3, 2)
    assert CacheOptions(3, None, 0.3).schedule(timesteps) == CacheSchedule.centered(timesteps, 3, 0.3, 1.4)
    assert CacheOptions(3, 1, 0.3, 2).schedule(timesteps) == CacheSchedule.centered(timesteps, 3, 0.3, 2, branch=1)


@pytest.mark.thorough
def test_the_example_of_the_documentation():
    text = (Path(__file__).parents[1] / "docs" / "caching.md").read_text(encoding="utf-8")
    made = {}
    exec(re.search(r"```python\n(.*?)```", text, re.DOTALL)[1], made)
    assert made["image"].size == (64, 64)
