"""Which evaluations of a run are full, by the timesteps of real solvers, and what a cache keeps between them."""

import re
from pathlib import Path

import diffusers
import pytest
import torch

from latentdiff import InputError
from latentdiff.caching import CacheSchedule, FeatureCache, check_caching
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


@pytest.mark.parametrize(
    ("unet", "interval", "branch", "message"),
    [
        (Network(), 0, None, "cache_interval is 0; it must be an integer of at least 1"),
        (Network(), True, None, "cache_interval is True; it must be"),
        (Network(), 2.0, None, "cache_interval is 2.0; it must be"),
        (Network(), 1, 0, "cache_branch is 0, but cache_interval is 1, which caches nothing"),
        (Network(), 2, 4, "cache_branch is 4, but this network has the branches 0 to 3"),
        (Network(), 2, -1, "cache_branch is -1, but this network has the branches 0 to 3"),
        (Network(), 2, True, "cache_branch is True, but this network"),
        (STOCK, 2, None, "this network, UNet2DModel of diffusers, has no feature caching; leave cache_interval out"),
    ],
)
def test_options_that_can_not_be(unet, interval, branch, message):
    with pytest.raises(InputError, match=message) as raised:
        check_caching(unet, interval, branch)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("interval", "branch"), [(1, None), (2, None), (2, 0), (50, 3)])
def test_options_that_can_be(interval, branch):
    check_caching(Network(), interval, branch)
    check_caching(STOCK, 1, None)


@pytest.mark.thorough
def test_the_example_of_the_documentation():
    text = (Path(__file__).parents[1] / "docs" / "caching.md").read_text(encoding="utf-8")
    made = {}
    exec(re.search(r"```python\n(.*?)```", text, re.DOTALL)[1], made)
    assert made["image"].size == (64, 64)
