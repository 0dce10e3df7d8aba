import diffusers
import pytest
import torch
from counterparts import MODEL

from latentdiff import ConfigError, DDIMScheduler, DPMSolverPP2MScheduler, EulerScheduler, PLMSScheduler
from latentdiff.registry import SCHEDULERS
from latentdiff.schedulers.select import make_scheduler

STOCK = [
    diffusers.DDIMScheduler,
    diffusers.DDPMScheduler,
    diffusers.PNDMScheduler,
    diffusers.EulerDiscreteScheduler,
    diffusers.HeunDiscreteScheduler,
    diffusers.DPMSolverMultistepScheduler,
    diffusers.UniPCMultistepScheduler,
    diffusers.LCMScheduler,
]
TARGETS = [*SCHEDULERS.names(), *STOCK]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("source", [*STOCK, *map(SCHEDULERS.get, SCHEDULERS.names())])
def test_noise_schedule_stays(source, target):
    for options in ({}, {**MODEL, "prediction_type": "v_prediction", "num_train_timesteps": 500}):
        model = source(**options)
        made = make_scheduler(target, model.config)
        torch.testing.assert_close(made.betas, model.betas, rtol=1e-5, atol=0)
        for name in ("prediction_type", "num_train_timesteps"):
            assert made.config[name] == model.config[name]


@pytest.mark.parametrize("target", TARGETS)
def test_betas_that_diffusers_has_no_name_for(target):
    model = DDIMScheduler(beta_schedule="sqrt", beta_start=1e-4, beta_end=1e-3, num_train_timesteps=50)
    config = {"original_inference_steps": 10} if any(kind in str(target).lower() for kind in ("lcm", "tcd")) else {}
    made = make_scheduler(target, model.config, **config)
    torch.testing.assert_close(made.betas, model.betas, rtol=1e-5, atol=0)


def test_shared_options_carry_over_and_defaults_do_not():
    config = EulerScheduler(**MODEL, use_karras_sigmas=True).config
    made = make_scheduler("dpmpp_2m", config)
    assert isinstance(made, DPMSolverPP2MScheduler) and made.config.use_karras_sigmas
    stable_diffusion = diffusers.PNDMScheduler(**MODEL, steps_offset=1, timestep_spacing="leading", skip_prk_steps=True)
    made = make_scheduler("euler", stable_diffusion.config)
    assert made.config.steps_offset == 1 and made.config.timestep_spacing == "leading"
    assert make_scheduler("euler", diffusers.DDIMScheduler().config).config.timestep_spacing == "linspace"


def test_options_take_precedence_and_unknown_ones_are_refused():
    config = DDIMScheduler(**MODEL).config
    assert make_scheduler("dpmpp_2m", config, use_karras_sigmas=True).config.use_karras_sigmas
    assert make_scheduler("ddim", config, prediction_type="sample").config.prediction_type == "sample"
    with pytest.raises(ConfigError, match="use_karas_sigmas"):
        make_scheduler("euler", config, use_karas_sigmas=True)
    with pytest.raises(ConfigError, match="clip_sample is True"):
        make_scheduler("ddim", config, clip_sample=True)


def test_latents_are_not_clipped():
    assert make_scheduler(diffusers.DDIMScheduler, EulerScheduler().config).config.clip_sample is False
    assert (
        make_scheduler(diffusers.DDIMScheduler, diffusers.EulerDiscreteScheduler().config).config.clip_sample is False
    )
    assert make_scheduler("ddim", diffusers.DDPMScheduler().config).config.clip_sample is False  # by default only
    with pytest.raises(ConfigError, match="clip_sample is True"):
        make_scheduler("ddim", diffusers.DDPMScheduler(clip_sample=True).config)


def test_another_solvers_options_do_not_bind(tmp_path):
    sde = diffusers.DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++", solver_order=3)
    sde.save_pretrained(tmp_path)
    loaded = diffusers.DPMSolverMultistepScheduler.from_pretrained(tmp_path)
    assert make_scheduler("dpmpp_2m", loaded.config).config.algorithm_type == "dpmsolver++"
    assert make_scheduler("unipc", sde.config).config.solver_type == "bh2"
    made = make_scheduler("dpmpp_2m", make_scheduler("unipc", MODEL_CONFIG).config)
    assert made.config.solver_type == "midpoint"
    assert make_scheduler("dpmpp_2m", make_scheduler("dpmpp_2m_sde", MODEL_CONFIG).config)


MODEL_CONFIG = DDIMScheduler(**MODEL).config


def test_counterparts_options_do_bind_when_loading(tmp_path):
    diffusers.DPMSolverMultistepScheduler(solver_order=3).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="solver_order is 3 in the config; DPMSolverPP2MScheduler offers 2 only"):
        DPMSolverPP2MScheduler.from_pretrained(tmp_path)
    diffusers.EulerDiscreteScheduler(use_exponential_sigmas=True).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="use_exponential_sigmas is True"):
        EulerScheduler.from_pretrained(tmp_path)
    diffusers.PNDMScheduler(skip_prk_steps=False).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="skip_prk_steps is False"):
        PLMSScheduler.from_pretrained(tmp_path)


def test_a_name_is_looked_up():
    with pytest.raises(ConfigError, match="did you mean"):
        make_scheduler("dpmpp2m", MODEL_CONFIG)
    with pytest.raises(ConfigError, match="is not a scheduler"):
        make_scheduler(dict, MODEL_CONFIG)
    with pytest.raises(ConfigError, match="is not a scheduler"):
        make_scheduler(3, MODEL_CONFIG)


def test_an_instance_is_used_as_it_is():
    for instance in (EulerScheduler(**MODEL), diffusers.EulerDiscreteScheduler(**MODEL)):
        assert make_scheduler(instance, MODEL_CONFIG) is instance
    by_hand = DDIMScheduler(trained_betas=DDIMScheduler(**MODEL).schedule.betas.tolist())
    assert make_scheduler(by_hand, MODEL_CONFIG) is by_hand
    with pytest.raises(ConfigError, match="use_karras_sigmas cannot be set on an instance"):
        make_scheduler(by_hand, MODEL_CONFIG, use_karras_sigmas=True)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({**MODEL, "prediction_type": "v_prediction"}, "prediction_type"),
        ({**MODEL, "num_train_timesteps": 500}, "num_train_timesteps"),
        ({**MODEL, "beta_end": 0.02}, "beta_end"),
        ({}, "beta_start, beta_end, beta_schedule"),
    ],
)
def test_an_instance_for_another_model_is_refused(options, field):
    with pytest.raises(ConfigError, match=field):
        make_scheduler(EulerScheduler(**options), MODEL_CONFIG)
    with pytest.raises(ConfigError):
        make_scheduler(diffusers.FlowMatchEulerDiscreteScheduler(), MODEL_CONFIG)
