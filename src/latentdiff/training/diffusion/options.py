"""The parts of a recipe that diffusion models alone have, but for the conditioning."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from latentdiff.config import Part, check, option
from latentdiff.tasks import NUM_INFERENCE_STEPS
from latentdiff.training.engine.options import MeasuredValidationOptions

ATTENTION_LAYERS = ["to_q", "to_k", "to_v", "to_out.0"]


class LoraOptions(Part):
    """An adapter of the UNet (Hu et al. 2021, arXiv 2106.09685)."""

    rank: int = option(ge=1)
    """Rank of the matrices that are added."""
    alpha: float | None = option(None, gt=0, note="null is the rank")
    """Scale of what the matrices add, times the rank; by default the rank."""
    target_modules: list[str] = option(ATTENTION_LAYERS)
    """Ends of the names of the layers that get such matrices: by default those of attention. `conv1` and `conv2` are
    the convolutions of residual blocks."""
    merge: bool = option(False, resume="free")
    """End as a whole pipeline that has the adapter in its weights, rather than as the adapter alone."""

    @model_validator(mode="after")
    def _check_targets(self) -> Self:
        check(
            bool(self.target_modules),
            f"target_modules is empty; give ends of names of layers, such as {ATTENTION_LAYERS}",
        )
        return self


class DiffusionLossOptions(Part):
    """The loss of a diffusion model (eq. 2 of the paper)."""

    type: Literal["l2", "l1", "huber"] = "l2"
    """Distance between prediction and target: squares, absolute values, or Huber's, which is squares near 0 (Khrapov et
    al. 2024, arXiv 2403.16728)."""
    huber_c: float = option(0.1, gt=0, le=1)  # the default of diffusers' training scripts
    """Error at which Huber's loss becomes linear at the noisiest timestep; towards the cleanest it grows to 1."""
    elbo_weight: float = option(0.0, ge=0)
    """Weight of the variational bound beside the loss, 0 in the paper; `original_elbo_weight` there."""
    learn_logvar: bool = False
    """Learn the variance of the errors at each timestep and divide them by it, so that those that are large anyway
    count less; a logarithm that is added keeps it from growing."""
    logvar_init: float = 0.0
    """The logarithm of these variances at the start."""
    noise_offset: float = option(0.0, ge=0)
    """Standard deviation of a constant that the noise of each channel gets, such as 0.1, for models that make dark and
    bright images (Guttenberg 2023)."""
    snr_gamma: float | None = option(None, gt=0)
    """Min-SNR weighting of the loss (Hang et al. 2023, arXiv 2303.09556); null for the paper's L_simple."""

    @model_validator(mode="after")
    def _check_used(self) -> Self:
        used = self.type == "huber" or not self.given("huber_c")
        check(used, f"huber_c is given, but type is {self.type!r}; leave it out")
        used = self.learn_logvar or not self.given("logvar_init")
        check(used, "logvar_init is given, but learn_logvar is false; leave it out, or set learn_logvar")
        return self


class DistillationOptions(Part):
    """Consistency distillation of a trained pipeline into few steps (Luo et al. 2023, arXiv 2310.04378)."""

    method: Literal["consistency", "trajectory"] = "consistency"
    """What is to be the same at both ends of a step: the estimate of the image (LCM), or the latents at any timestep
    further down (TCD, Zheng et al. 2024, arXiv 2402.19159), by which more steps are no worse."""
    teacher: str | None = None
    """Pipeline folder of the model to learn from, by default the pretrained pipeline itself; its latents, noise
    schedule, prediction type and condition have to be those of the pretrained one."""
    guidance_scale: float | None = None
    """Strength of the teacher's classifier-free guidance, which the student learns along; by default that of the
    pipeline's calls, 1 for a model without a null condition. The student is called with guidance_scale 1."""
    solver_steps: int = option(50, ge=2)
    """Steps of the teacher's solver, DDIM; two neighbours of these are what the student is to be consistent at, and
    its runs visit some of them."""
    huber_c: float = option(0.001, gt=0)
    """Difference at which the pseudo-Huber loss turns from squares to absolute values."""


class TimestepOptions(Part):
    """How often each timestep is trained on (Esser et al. 2024, arXiv 2403.03206, section 3.1)."""

    density: Literal["uniform", "logit_normal", "mode", "cosmap"] = "uniform"
    """All timesteps alike; a normal distribution of the logit of the share of the way to pure noise, which prefers the
    middle; one with heavier ends; or the cosine schedule's, for a flow. The names are those of diffusers' scripts."""
    logit_mean: float = 0.0
    """Mean of logit_normal; above 0 there are more noisy timesteps."""
    logit_std: float = option(1.0, gt=0)
    """Standard deviation of logit_normal."""
    mode_scale: float = option(1.29, ge=-1, le=1.75)
    """Strength of mode: above 0 the middle is drawn more often, below 0 the ends."""

    @model_validator(mode="after")
    def _check_used(self) -> Self:
        for name, kind in (("logit_mean", "logit_normal"), ("logit_std", "logit_normal"), ("mode_scale", "mode")):
            used = self.density == kind or not self.given(name)
            check(used, f"{name} is given, but density is {self.density!r}; leave it out, or set density to {kind!r}")
        return self


class DiffusionValidationOptions(MeasuredValidationOptions):
    """Looks at samples, and at the loss of images that are not trained on."""

    samples: int = option(4, ge=0)
    """Number of images made at each validation, which are shown below those whose conditions they have."""
    prompts: list[str] = option([])
    """Captions of the images made at validation, in place of the data's; for text-to-image."""
    inference_steps: int = option(NUM_INFERENCE_STEPS, ge=1)
    """Steps of the solver."""
    guidance_scale: float | None = None
    """Scale of classifier-free guidance at validation; by default 3 where conditions are dropped, else 1."""
    count: int = option(1000, ge=2)
    """Number of samples that `metrics` are of, beside the few that are shown."""
    reference: Literal["held-out", "train"] | None = None
    """What they are compared with, and whose conditions they have: the images of `data_dir`, or those that are trained
    on; by default the former, if there are any."""
    reference_count: int | None = option(None, ge=2)
    """Number of images of the reference, from the first on; null for all."""
    denoising: int = option(0, ge=0)
    """Number of the solver's steps that are shown as `denoising-STEP.png`: what each takes the clean images for, by the
    first stage's map from latents to colours; 0 for none."""

    @property
    def compared_with(self) -> str:
        """The reference, as numbers call it."""
        return self.reference or ("held-out" if self.data_dir else "train")

    @model_validator(mode="after")
    def _check_reference(self) -> Self:
        check(
            self.reference != "held-out" or self.data_dir is not None,
            "reference is 'held-out', but no image is held out; give data_dir, or 'train'",
        )
        for name in ("count", "reference", "reference_count"):
            check(not self.given(name) or bool(self.metrics), f"{name} is given without metrics; give both, or neither")
        return self

    @model_validator(mode="after")
    def _check_denoising(self) -> Self:
        check(
            self.denoising <= self.inference_steps,
            f"denoising is {self.denoising}, but inference_steps is {self.inference_steps}; give at most as many",
        )
        return self
