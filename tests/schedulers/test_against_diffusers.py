import inspect

import diffusers
import pytest
import torch
from counterparts import COUNTERPARTS, ENDS_WITH_NOISE, KARRAS, MODEL

from latentdiff.errors import ConfigError
from latentdiff.registry import SCHEDULERS
from latentdiff.testing.gaussian import GaussianData, noise_level, run_scheduler

CASES = [
    (name, kind, spacing, karras)
    for name in SCHEDULERS.names()
    for kind in ("epsilon", "v_prediction", "sample")
    for spacing in ("leading", "trailing", "linspace")
    for karras in (False, True)
    if name in COUNTERPARTS
    and not (karras and name not in KARRAS)
    and not (kind == "sample" and name in ("plms", "euler_ancestral"))  # not in diffusers
    and not (kind == "v_prediction" and name == "plms")  # of first order in diffusers, see test_plms_on_v
    and not (spacing == "linspace" and name in ("ddim", "plms"))  # see test_uneven_steps_reach_the_next_timestep
    and not (spacing != "leading" and name in ("lcm", "tcd"))  # plays no part
]


def pair(name, **options):
    stock_class, fixed = COUNTERPARTS[name]
    return SCHEDULERS.get(name)(**MODEL, **options), stock_class(**MODEL, **options, **fixed)


def trajectories(schedulers, outputs, sample, eta=0.0):
    """Samples after every step of each scheduler, fed with the same outputs, and with the same noise in each step."""
    for scheduler in schedulers:
        x, states, generator = sample * float(scheduler.init_noise_sigma), [], torch.Generator()
        known = inspect.signature(scheduler.step).parameters
        options = {"generator": generator} if "generator" in known else {}
        options |= {"eta": eta} if "eta" in known else {}
        for step, (timestep, output) in enumerate(zip(scheduler.timesteps, outputs, strict=False)):
            generator.manual_seed(step)
            scheduler.scale_model_input(x, timestep)
            x = scheduler.step(output, timestep, x, **options).prev_sample
            states.append(x)
        yield torch.stack(states)


def in_float64(stock):
    """Let diffusers' DEIS compute its weights in float64: as differences in float32 they are off by up to 1e-4."""
    stock.sigmas = stock.sigmas.double()


def relative(a, b):
    return float((a - b).flatten(1).abs().amax(1).div(b.flatten(1).abs().amax(1)).max())


@pytest.mark.parametrize(("name", "kind", "spacing", "karras"), CASES)
def test_same_trajectory(name, kind, spacing, karras):
    options = {"prediction_type": kind}
    options.update(
        {} if name in ("lcm", "tcd") else {"timestep_spacing": spacing}, **{"use_karras_sigmas": True} if karras else {}
    )
    for steps in (4, 20, 50):
        ours, stock = pair(name, **options)
        for scheduler in (ours, stock):
            scheduler.set_timesteps(steps)
        assert ours.timesteps.shape == stock.timesteps.shape
        if karras and name in ("euler", "heun"):  # real-valued, from float32 sigmas in diffusers
            torch.testing.assert_close(ours.timesteps, stock.timesteps, rtol=1e-5, atol=2e-3)
        else:
            assert ours.timesteps.tolist() == stock.timesteps.tolist()
        shared = len(ours.timesteps) - (name in ENDS_WITH_NOISE)
        if hasattr(stock, "sigmas"):
            torch.testing.assert_close(ours.sigmas[: shared + 1], stock.sigmas[: shared + 1], rtol=2e-5, atol=0)
        if name == "deis":
            in_float64(stock)
        outputs = torch.randn(len(ours.timesteps), 2, 4, 4, 4, generator=torch.Generator().manual_seed(1))
        got, expected = (states[:shared] for states in trajectories((ours, stock), outputs, torch.ones(2, 4, 4, 4)))
        # diffusers keeps alpha_bar in float32: at timestep 0 its sigma is off by 1.3e-5, which x0 predictions divide by
        assert relative(got, expected) < (2e-5 if kind == "sample" else 1e-5)


@pytest.mark.parametrize("options", [{"solver_order": 3}, {"solver_order": 3, "use_karras_sigmas": True}])
@pytest.mark.parametrize("steps", [4, 14, 15, 40])
def test_deis_of_third_order(options, steps):
    ours, stock = pair("deis", **options)
    for scheduler in (ours, stock):
        scheduler.set_timesteps(steps)
    in_float64(stock)
    outputs = torch.randn(steps, 2, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    got, expected = trajectories((ours, stock), outputs, torch.ones(2, 4, 4, 4))
    assert relative(got[:-1], expected[:-1]) < 1e-5


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.3])
def test_sa_solver_with_another_share_of_noise(tau):
    ours = SCHEDULERS.get("sa_solver")(**MODEL, tau=tau, tau_low=0.0, tau_high=0.6)
    stock = diffusers.SASolverScheduler(**MODEL, tau_func=lambda t: tau * (t <= 600))
    for scheduler in (ours, stock):
        scheduler.set_timesteps(20)
    outputs = torch.randn(20, 2, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    got, expected = trajectories((ours, stock), outputs, torch.ones(2, 4, 4, 4))
    assert relative(got[:-1], expected[:-1]) < 1e-5


@pytest.mark.parametrize("eta", [0.3, 0.9, 1.0])
def test_tcd_goes_below_the_next_timestep_and_back(eta):
    ours, stock = pair("tcd")
    for scheduler in (ours, stock):
        scheduler.set_timesteps(8)
    outputs = torch.randn(8, 2, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    got, expected = trajectories((ours, stock), outputs, torch.ones(2, 4, 4, 4), eta)
    assert relative(got[:-1], expected[:-1]) < 1e-5 and ours.adds_noise(eta) and not ours.adds_noise(0.0)
    with pytest.raises(ConfigError, match=r"eta is 1.1; choose 0 to 1"):
        ours.set_timesteps(8)
        ours.step(outputs[0], ours.timesteps[0], outputs[0], 1.1)


@pytest.mark.parametrize("name", sorted(ENDS_WITH_NOISE))
def test_the_last_step_leaves_no_noise(name):
    """Theirs ends at the level of timestep 0, so the noise of that level stays in the image."""
    data, left = GaussianData(std=0.01), []
    for scheduler in pair(name):
        scheduler.set_timesteps(50)
        x = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
        x = run_scheduler(scheduler, data.model(scheduler), x, generator=torch.Generator().manual_seed(0))
        left.append(float(x.std()))
    assert left[0] < 0.011 and left[1] > 0.02


@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_ddim_with_noise(eta):
    ours, stock = pair("ddim", set_alpha_to_one=False, steps_offset=1)
    got, expected = torch.ones(2, 2, 4, 4, 4)
    generators = [torch.Generator().manual_seed(0) for _ in range(2)]
    for scheduler in (ours, stock):
        scheduler.set_timesteps(20)
    for timestep in stock.timesteps:
        output = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(int(timestep)))
        got = ours.step(output, timestep, got, eta=eta, generator=generators[0]).prev_sample
        expected = stock.step(output, timestep, expected, eta=eta, generator=generators[1]).prev_sample
        assert relative(got, expected) < 1e-5


def test_ddpm_fixed_large():
    ours, stock = pair("ddpm", variance_type="fixed_large")
    for scheduler in (ours, stock):
        scheduler.set_timesteps(20)
    got, expected = trajectories((ours, stock), torch.randn(20, 2, 4, 4, 4), torch.ones(2, 4, 4, 4))
    assert relative(got, expected) < 1e-5


@pytest.mark.parametrize("name", ["ddim", "ddpm", "euler", "euler_ancestral", "dpmpp_2m", "unipc", "lcm"])
def test_zero_terminal_snr(name):
    spacing = {} if name in ("lcm", "tcd") else {"timestep_spacing": "trailing"}
    ours, stock = pair(name, rescale_betas_zero_snr=True, prediction_type="v_prediction", **spacing)
    for scheduler in (ours, stock):
        scheduler.set_timesteps(10)
    outputs = torch.randn(10, 2, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    got, expected = trajectories((ours, stock), outputs, torch.ones(2, 4, 4, 4))
    assert relative(got, expected) < 5e-5  # diffusers rescales in float32


@pytest.mark.parametrize("name", ["euler", "dpmpp_2m", "heun", "ddpm", "lcm"])
def test_custom_timesteps(name):
    ours, stock = pair(name)
    timesteps = [999, 850, 736, 645, 545, 455, 343, 233, 124, 24]
    ours.set_timesteps(timesteps=timesteps)
    stock.set_timesteps(timesteps=timesteps)
    outputs = torch.randn(19, 2, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    got, expected = trajectories((ours, stock), outputs, torch.ones(2, 4, 4, 4))
    assert len(got) == len(ours.timesteps) and relative(got, expected) < 1e-5


def test_custom_sigmas():
    ours, stock = pair("euler")
    sigmas = [14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.0]
    ours.set_timesteps(sigmas=sigmas)
    stock.set_timesteps(sigmas=sigmas)
    torch.testing.assert_close(ours.timesteps, stock.timesteps, rtol=1e-5, atol=2e-3)
    got, expected = trajectories((ours, stock), torch.randn(10, 2, 4, 4, 4), torch.ones(2, 4, 4, 4))
    assert relative(got, expected) < 1e-5


@pytest.mark.parametrize("name", ["euler", "dpmpp_2m", "unipc", "heun", "ddim"])
def test_start_in_the_middle(name):
    torch.manual_seed(0)
    ours, stock = pair(name)
    for scheduler in (ours, stock):
        scheduler.set_timesteps(20)
        begin = 8 * scheduler.order
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(begin)
    x, noise = torch.randn(2, 1, 4, 4, 4)
    got, expected = (s.add_noise(x, noise, s.timesteps[begin : begin + 1]) for s in (ours, stock))
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
    for timestep, theirs in zip(ours.timesteps[begin:], stock.timesteps[begin:], strict=True):
        output = torch.randn(1, 4, 4, 4)
        ours.scale_model_input(got, timestep), stock.scale_model_input(expected, theirs)
        got = ours.step(output, timestep, got).prev_sample
        expected = stock.step(output, theirs, expected).prev_sample
        assert relative(got, expected) < 1e-5


def test_uneven_steps_reach_the_next_timestep():
    """Where the next timestep is not T // steps away, diffusers' DDIM steps to a level that the run never visits."""
    data, errors = GaussianData(), []
    for scheduler in pair("ddim", timestep_spacing="linspace"):
        scheduler.set_timesteps(150)  # 6 for T // steps, 6.7 between the timesteps
        x = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
        x = run_scheduler(scheduler, data.model(scheduler), (x - x.mean()) / x.std())
        errors.append(abs(float(x.std()) - data.std) / data.std)
    assert errors[0] < 0.04 and errors[1] > 0.1


def test_plms_on_v():
    """Averaging v itself, as diffusers does, is of first order: v belongs to the level that it was predicted at."""
    data, ours, stock = GaussianData(), [], []
    for errors, index in ((ours, 0), (stock, 1)):
        for steps in (100, 200):
            scheduler = pair("plms", prediction_type="v_prediction", timestep_spacing="trailing")[index]
            scheduler.set_timesteps(steps)
            timesteps = scheduler.timesteps[: scheduler.timesteps.tolist().index(199)]
            x = torch.linspace(-1, 2, 4, dtype=torch.float64).reshape(1, 1, 2, 2)
            exact = data.flow(x, noise_level(scheduler, 999), noise_level(scheduler, 199))
            errors.append(
                float((run_scheduler(scheduler, data.model(scheduler), x, timesteps=timesteps) - exact).abs().max())
            )
    assert ours[0] / ours[1] > 2**1.7 and stock[0] / stock[1] < 2**1.3
    assert ours[1] < stock[1] / 10


@pytest.mark.parametrize("name", list(COUNTERPARTS))
def test_folders_interchange(name, tmp_path):
    stock_class, _ = COUNTERPARTS[name]
    kind = "epsilon" if name == "plms" else "v_prediction"
    options = {"prediction_type": kind, **({} if name in ("lcm", "tcd") else {"timestep_spacing": "trailing"})}
    ours, stock = pair(name, **options)
    ours.save_pretrained(tmp_path / "ours")
    stock.save_pretrained(tmp_path / "stock")
    loaded = (type(ours).from_pretrained(tmp_path / "stock"), stock_class.from_pretrained(tmp_path / "ours"))
    for scheduler in (ours, stock, *loaded):
        scheduler.set_timesteps(10)
    outputs = torch.randn(19, 2, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    shared = len(ours.timesteps) - (name in ENDS_WITH_NOISE)
    both = trajectories((ours, stock, *loaded), outputs, torch.ones(2, 4, 4, 4))
    first, *others = (states[:shared] for states in both)
    assert all(relative(first, other) < 1e-5 for other in others)


def test_any_diffusers_config_keeps_the_noise_schedule():
    for stock_class in {stock for stock, _ in COUNTERPARTS.values()} | {diffusers.DEISMultistepScheduler}:
        stock = stock_class()  # every value left at the class's default
        for name in SCHEDULERS.names():
            ours = SCHEDULERS.get(name).from_config(stock.config)
            torch.testing.assert_close(ours.betas, stock.betas, rtol=1e-5, atol=0)
