import diffusers
import pytest
import torch

from latentdiff import DDIMScheduler, EulerScheduler
from latentdiff.registry import SCHEDULERS
from latentdiff.schedulers.linear_combination import X
from latentdiff.schedulers.predictions import FLOW, PREDICTION_TYPES
from latentdiff.testing import ConformanceError, check_scheduler


@pytest.mark.parametrize("name", SCHEDULERS.names())
@pytest.mark.parametrize("kind", PREDICTION_TYPES)
def test_every_registered_scheduler_conforms(name, kind):
    if (name, kind) == ("plms", FLOW):
        pytest.skip("which PLMS refuses, see test_flow")
    options = {"original_inference_steps": 500} if name == "tcd" else {}  # which visits timesteps of a distillation
    report = check_scheduler(SCHEDULERS.get(name), consistency=name == "lcm", prediction_type=kind, **options)
    report.raise_for_failures()
    assert len(report.checks) == 8 and str(report).count("ok") == 8


@pytest.mark.parametrize("name", ["DDIMScheduler", "DDPMScheduler"])
def test_stock_schedulers_only_read_the_device(name):
    report = check_scheduler(getattr(diffusers, name))
    assert report.failures == ["no device reads"]


class Wrong(EulerScheduler):
    """Goes a tenth too far, forgets its prediction type and its batch."""

    def _row(self, call, history, eta):
        row = super()._row(call, history, eta)
        return {**row, "prev": row["prev"] * 1.1 - 0.1 * X}

    def step(self, model_output, timestep, sample, **options):
        return super().step(model_output.mean(0, keepdim=True).expand_as(sample), timestep, sample, **options)

    def add_noise(self, original_samples, noise, timesteps):
        return original_samples + noise

    @classmethod
    def from_config(cls, config, **options):
        return cls()


def test_a_broken_scheduler_is_told_what_is_wrong():
    report = check_scheduler(Wrong)
    assert {"config keeps the noise schedule", "determinism and batch independence", "add_noise"} <= set(
        report.failures
    )
    assert "FAIL  add_noise: at timestep" in str(report)
    with pytest.raises(ConformanceError, match="an image depends on the others"):
        report.raise_for_failures()
    with pytest.raises(AssertionError):
        report.raise_for_failures()


def test_wrong_numbers_and_types_show():
    class Double(DDIMScheduler):
        def step(self, *args, **options):
            return tuple(value.double() for value in super().step(*args, **options))

    class Loud(DDIMScheduler):
        def _row(self, call, history, eta):
            row = super()._row(call, history, eta)
            return {**row, "prev": row["prev"] * 1.01}

    class Reader(DDIMScheduler):
        def step(self, model_output, timestep, sample, **options):
            return super().step(model_output, int(timestep), sample, **options)

    class Raises(DDIMScheduler):
        def set_timesteps(self, *args, **options):
            raise RuntimeError("never")

    assert check_scheduler(Double).failures == ["shape and dtype"]
    assert check_scheduler(Loud).failures == ["convergence on Gaussian data"]
    assert check_scheduler(Reader).failures == ["no device reads"]
    assert "RuntimeError: never" in str(check_scheduler(Raises))
    assert torch.get_default_dtype() == torch.float32
