"""Tuned timesteps in a scheduler's config: kept, found, and refused where they are for something else."""

import dataclasses
import json
import warnings

import diffusers
import pytest

from latentdiff import ConfigError, DDIMScheduler, DEISScheduler, DPMSolverPP2MScheduler, InputError
from latentdiff.errors import LatentDiffWarning
from latentdiff.schedulers import tuned
from latentdiff.schedulers.select import make_scheduler

MODEL = {"beta_start": 0.0015, "beta_end": 0.0195, "beta_schedule": "scaled_linear"}


def entry(scheduler, timesteps=(999, 600, 20), scale=1.0):
    return tuned.TunedTimesteps(
        solver=type(scheduler).__name__,
        options=tuned.solver_options(scheduler),
        noise_schedule=tuned.fingerprint(scheduler.config),
        guidance_scale=scale,
        timesteps=timesteps,
        method="GITS",
        distance=0.1,
        untuned={"trailing": 0.2},
    )


def keeping(scheduler, *entries):
    for added in entries:
        scheduler.register_to_config(**{tuned.FIELD: tuned.with_tuned(scheduler.config, added)})
    return scheduler


def test_a_folder_keeps_them_for_both_packages(tmp_path, caplog):
    made = entry(DPMSolverPP2MScheduler(**MODEL))
    keeping(DPMSolverPP2MScheduler(**MODEL), made).save_pretrained(tmp_path)
    own = DPMSolverPP2MScheduler.from_pretrained(tmp_path)
    stock = diffusers.DPMSolverMultistepScheduler.from_pretrained(tmp_path)
    assert tuned.read_tuned(own.config) == [made]
    assert not caplog.records
    for scheduler in (own, stock):
        scheduler.set_timesteps(
            timesteps=json.loads((tmp_path / "scheduler_config.json").read_text())[tuned.FIELD][0]["timesteps"]
        )
        assert scheduler.timesteps.tolist() == [999, 600, 20]
    stock.save_pretrained(tmp_path / "again")
    assert tuned.read_tuned(DPMSolverPP2MScheduler.from_pretrained(tmp_path / "again").config) == [made]


def test_another_solver_takes_its_own_from_the_models_config():
    model = keeping(DDIMScheduler(**MODEL), entry(DDIMScheduler(**MODEL)), entry(DEISScheduler(**MODEL), (999, 300, 3)))
    deis = make_scheduler("deis", model.config)
    assert tuned.planned(deis, {"num_inference_steps": "tuned:3"}, 1.0) == {"timesteps": [999, 300, 3]}
    assert tuned.planned(model, {"num_inference_steps": "tuned:3"}, 1.0) == {"timesteps": [999, 600, 20]}
    assert tuned.planned(model, {"num_inference_steps": 3}, 1.0) == {"num_inference_steps": 3}


def test_new_ones_replace_those_of_the_same_solver_count_and_guidance():
    solver = DDIMScheduler(**MODEL)
    others = [entry(solver, (999, 5)), entry(solver, scale=2.0), entry(DEISScheduler(**MODEL))]
    keeping(solver, entry(solver), *others, entry(solver, (999, 601, 21)))
    assert tuned.read_tuned(solver.config) == [*others, entry(solver, (999, 601, 21))]


@pytest.mark.parametrize(
    ("scheduler", "text", "message"),
    [
        (DPMSolverPP2MScheduler(**MODEL), "tuned:3", "there are no such timesteps for DPMSolverPP2MScheduler"),
        (DEISScheduler(**MODEL), "tuned:4", "tuned: DEISScheduler 3"),
        (DEISScheduler(**MODEL, solver_order=3), "tuned:3", "for DEISScheduler with these options"),
        (
            DEISScheduler(**MODEL, prediction_type="v_prediction"),
            "tuned:3",
            "another noise schedule or prediction type",
        ),
        (DEISScheduler(**{**MODEL, "beta_end": 0.0196}), "tuned:3", "another noise schedule or prediction type"),
        (DEISScheduler(**MODEL), "tuned:03", "'tuned:03'; choose an integer from 1, or one like 'tuned:10'"),
        (DEISScheduler(**MODEL), "3", "'3'; choose an integer from 1, or one like 'tuned:10'"),
    ],
)
def test_for_something_else(scheduler, text, message):
    with pytest.raises(InputError) as error:
        tuned.find_tuned(keeping(scheduler, entry(DEISScheduler(**MODEL))), text)
    assert message in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(InputError, match="has no tuned timesteps; latentdiff tune-steps MODEL --steps 3 makes some"):
        tuned.find_tuned(DEISScheduler(**MODEL), "tuned:3")


def test_spacing_is_no_part_of_the_solver():
    kept = keeping(DEISScheduler(**MODEL, timestep_spacing="trailing", steps_offset=1), entry(DEISScheduler(**MODEL)))
    assert tuned.find_tuned(kept, "tuned:3") == [entry(DEISScheduler(**MODEL))]


def test_karras_levels_give_way():
    plain, karras = DEISScheduler(**MODEL), DEISScheduler(**MODEL, use_karras_sigmas=True)
    plain.set_timesteps(timesteps=[999, 600, 20])
    karras.set_timesteps(**tuned.planned(keeping(karras, entry(plain)), {"num_inference_steps": "tuned:3"}, 1.0))
    assert karras.timesteps.tolist() == [999, 600, 20]
    assert karras.grid.sigma == pytest.approx(plain.grid.sigma, rel=1e-12)


def test_another_guidance_is_told():
    solver = DDIMScheduler(**MODEL)
    keeping(solver, entry(solver, scale=1.0), entry(solver, (999, 7, 6), scale=5.0))
    steps = {"num_inference_steps": "tuned:3"}
    with pytest.warns(LatentDiffWarning, match=r"tuned at guidance scale 5 and is used at 7\.5"):
        assert tuned.planned(solver, steps, 7.5) == {"timesteps": [999, 7, 6]}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert tuned.planned(solver, steps, 5.0) == {"timesteps": [999, 7, 6]}
        assert tuned.planned(solver, steps, 1.0) == {"timesteps": [999, 600, 20]}


@pytest.mark.parametrize("damage", [[{}], [3], 3, [{**dataclasses.asdict(entry(DDIMScheduler())), "timesteps": ["x"]}]])
def test_a_damaged_config(damage):
    solver = DDIMScheduler(**MODEL)
    solver.register_to_config(**{tuned.FIELD: damage})
    with pytest.raises(ConfigError, match=r"_tuned_timesteps of the scheduler's config is damaged"):
        tuned.find_tuned(solver, "tuned:3")
