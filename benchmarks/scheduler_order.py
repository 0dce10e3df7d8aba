"""Measured order of convergence of every deterministic solver: python -m benchmarks scheduler-order."""

from collections.abc import Sequence
from functools import partial

from benchmarks.measuring import parser_of
from latentdiff.registry import SCHEDULERS
from latentdiff.testing import flow_error, measure_order

COUNTS = (20, 40, 80, 160)
STOCHASTIC = {"ddpm", "dpmpp_2m_sde", "er_sde", "euler_ancestral", "lcm"}
WITHOUT_NOISE = {"sa_solver": {"tau": 0.0}, "restart": {"num_restarts": 0}, "tcd": {"original_inference_steps": 1000}}


def main(words: Sequence[str]) -> None:
    parser_of(__doc__).parse_args(words)
    print(f"{'error after':12}" + "".join(f"{count:>11}" for count in COUNTS) + f"{'order':>8}")
    for name in SCHEDULERS.names():
        if name not in STOCHASTIC:
            make = partial(SCHEDULERS.get(name), **WITHOUT_NOISE.get(name, {}))
            errors = "".join(f"{flow_error(make, count):11.2e}" for count in COUNTS)
            print(f"{name:12}{errors}{measure_order(make, COUNTS):8.2f}")
