"""Rectified flow: the levels and steps of diffusers' class, our other solvers on its models, and what is refused."""

import json

import diffusers
import pytest
import torch

from latentdiff import (
    ConfigError,
    DDIMScheduler,
    DPMSolverPP2MScheduler,
    FlowMatchEulerScheduler,
    HeunScheduler,
    LCMScheduler,
    PLMSScheduler,
)
from latentdiff.registry import SCHEDULERS
from latentdiff.schedulers.noise_schedule import NoiseSchedule
from latentdiff.schedulers.predictions import FLOW
from latentdiff.schedulers.select import make_scheduler
from latentdiff.testing import GaussianData, check_scheduler, measure_order
from latentdiff.testing.gaussian import noise_level, run_scheduler

STEPS = 7


def test_eulers_method_conforms():
    check_scheduler(FlowMatchEulerScheduler).raise_for_failures()
    check_scheduler(FlowMatchEulerScheduler, shift=3.0, timestep_spacing="trailing").raise_for_failures()


@pytest.mark.parametrize("shift", [1.0, 3.0, 0.5])
@pytest.mark.parametrize("steps", [1, 4, 28])
def test_same_trajectory_as_diffusers(shift, steps):
    """Ours keeps samples variance-preserving, so they are compared in the network's scale."""
    ours, theirs = FlowMatchEulerScheduler(shift=shift), diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    ours.set_timesteps(steps)
    theirs.set_timesteps(steps)
    torch.testing.assert_close(ours.timesteps, theirs.timesteps, rtol=1e-6, atol=1e-3)
    generator = torch.Generator().manual_seed(0)
    x = y = torch.randn(2, 4, 8, 8, generator=generator)
    for mine, other in zip(ours.timesteps, theirs.timesteps, strict=True):
        output = torch.randn(x.shape, generator=generator)
        torch.testing.assert_close(ours.scale_model_input(x, mine), y, rtol=1e-4, atol=1e-5)
        x = ours.step(output, mine, x).prev_sample
        y = theirs.step(output, other, y, return_dict=False)[0]
    torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-5)


def test_configs_go_both_ways(tmp_path):
    FlowMatchEulerScheduler(num_train_timesteps=500, shift=3.0).save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "scheduler_config.json").read_text())
    theirs = diffusers.FlowMatchEulerDiscreteScheduler.from_pretrained(tmp_path)
    assert (theirs.config.shift, theirs.config.num_train_timesteps) == (3.0, 500) == (saved["shift"], 500)
    ours = FlowMatchEulerScheduler.from_config(theirs.config)
    assert (ours.config.shift, ours.config.prediction_type) == (3.0, FLOW)
    with pytest.raises(ConfigError, match="use_dynamic_shifting is True"):
        FlowMatchEulerScheduler.from_config({**theirs.config, "use_dynamic_shifting": True})


def test_a_config_of_diffusers_multistep_solver_is_a_flows():
    stock = diffusers.DPMSolverMultistepScheduler(prediction_type=FLOW, use_flow_sigmas=True, flow_shift=2.0)
    ours = DPMSolverPP2MScheduler.from_config(stock.config)
    assert (ours.config.flow_shift, ours.config.use_flow_sigmas) == (2.0, True)
    with pytest.raises(ConfigError, match="use_flow_sigmas is True"):
        DPMSolverPP2MScheduler.from_config({**stock.config, "prediction_type": "epsilon", "flow_shift": 1.0})


@pytest.mark.parametrize("name", [name for name in SCHEDULERS.names() if name != "plms"])
def test_a_changed_solver_keeps_the_flow(name):
    own = FlowMatchEulerScheduler(num_train_timesteps=400, shift=2.0, timestep_spacing="trailing")
    made = make_scheduler(name, own.config)
    assert (made.config.prediction_type, made.config.num_train_timesteps) == (FLOW, 400)
    back = make_scheduler(FlowMatchEulerScheduler, made.config)
    if name not in ("lcm", "tcd"):  # which choose their own timesteps
        assert (made.config.flow_shift, back.config.shift) == (2.0, 2.0)
    made.set_timesteps(5)
    expected = torch.tensor([2 * s / (1 + s) * 400 for s in (1.0, 0.8, 0.6, 0.4, 0.2)])
    if name not in (
        "lcm",
        "tcd",
        "heun",
        "restart",
        "dpmpp_2m",
        "dpmpp_2m_sde",
        "unipc",
        "deis",
        "sa_solver",
        "er_sde",
    ):
        torch.testing.assert_close(made.timesteps, expected)
    assert float(made.timesteps[0]) == pytest.approx(400, abs=1e-3)


def test_ddim_is_eulers_method():
    flow = FlowMatchEulerScheduler(timestep_spacing="trailing", shift=3.0)
    ddim = make_scheduler("ddim", flow.config)
    ends, x = [], torch.linspace(-1, 1, 4).reshape(1, 1, 2, 2)
    for scheduler in (flow, ddim):
        scheduler.set_timesteps(STEPS)
        ends.append(run_scheduler(scheduler, GaussianData().model(scheduler), x))
    torch.testing.assert_close(*ends)


ORDERS = {FlowMatchEulerScheduler: 1, HeunScheduler: 2, DPMSolverPP2MScheduler: 2}


@pytest.mark.parametrize(("kind", "order"), ORDERS.items())
def test_order_on_gaussian_data(kind, order):
    assert order - 0.2 < measure_order(lambda: kind(prediction_type=FLOW)) < order + 0.5


def test_the_level_of_a_timestep_is_its_share_of_t():
    for timestep in (1.0, 250.0, 999.5):
        assert noise_level(FlowMatchEulerScheduler(shift=5.0), timestep) == pytest.approx(
            (1 - timestep / 1000, timestep / 1000), abs=1e-9
        )
    schedule = NoiseSchedule.from_config(FlowMatchEulerScheduler().config, 2.0**-24)
    for sigma in (0.001, 1.0, 100.0):
        share = schedule.timestep_at(torch.tensor([sigma]).double().numpy()) / 1000
        assert share / (1 - share) == pytest.approx(sigma)


def test_what_is_not_a_flows_is_refused():
    with pytest.raises(ConfigError, match="prediction_type is 'epsilon', and FlowMatchEulerScheduler"):
        FlowMatchEulerScheduler(prediction_type="epsilon")
    with pytest.raises(ConfigError, match="PLMS averages"):
        PLMSScheduler(prediction_type=FLOW)
    with pytest.raises(ConfigError, match="flow_shift is 2"):
        DDIMScheduler(flow_shift=2.0)
    with pytest.raises(ConfigError, match="shift is 0"):
        FlowMatchEulerScheduler(shift=0.0)
    with pytest.raises(ConfigError, match=r"within 1 \.\. 1000"):
        FlowMatchEulerScheduler().set_timesteps(timesteps=[1001.0, 500.0])
    with pytest.raises(ConfigError, match="has no scale_model_input"):
        make_scheduler(diffusers.FlowMatchEulerDiscreteScheduler, FlowMatchEulerScheduler().config)
    with pytest.raises(ConfigError, match="not made for flow_prediction"):
        make_scheduler(diffusers.DDIMScheduler, FlowMatchEulerScheduler().config)
    made = make_scheduler(diffusers.UniPCMultistepScheduler, FlowMatchEulerScheduler(shift=2.0).config)
    assert (made.config.use_flow_sigmas, made.config.flow_shift) == (True, 2.0)


def test_consistency_models_of_a_flow_visit_their_timesteps():
    scheduler = LCMScheduler(prediction_type=FLOW, original_inference_steps=50)
    scheduler.set_timesteps(4)
    assert scheduler.timesteps.tolist() == [1000, 760, 500, 260]
