"""Consistency distillation in latent space (Luo et al. 2023, arXiv 2310.04378), guidance included, and that along
trajectories (Zheng et al. 2024, arXiv 2402.19159).
"""

from __future__ import annotations

import copy
from typing import Self

import torch
from torch import nn

from latentdiff.conditioning import Conditioning
from latentdiff.config import check
from latentdiff.errors import ConfigError
from latentdiff.guidance.auto import same_levels, same_weights
from latentdiff.pipelines.base import DiffusionPipeline
from latentdiff.pipelines.run_state import default_guidance_scale
from latentdiff.sampling import Denoiser
from latentdiff.schedulers.ddim import DDIMScheduler
from latentdiff.schedulers.lcm import boundary_weights, distilled_timesteps
from latentdiff.schedulers.parametrization import Parametrization
from latentdiff.schedulers.select import make_scheduler
from latentdiff.seeding import SampleGenerators
from latentdiff.training.diffusion.conditioners.base import Conditioner
from latentdiff.training.diffusion.conditioners.options import ConditionOptions
from latentdiff.training.diffusion.losses import draw_latents, noisy_latents
from latentdiff.training.diffusion.options import DistillationOptions
from latentdiff.types import DenoisingNetwork

SOLVERS = {"consistency": "lcm", "trajectory": "tcd"}  # what samples a student, by the method


class Consistency(nn.Module):
    """The student's estimate of the clean latents is to be the same at both ends of a step of the teacher's solver.

    With the method "trajectory" it is the latents at a third timestep, further down, that are to be the same (eq. 10 of
    Zheng et al.). The target at the step's end is the student's own, without a gradient (Song & Dhariwal 2023, arXiv
    2310.14189, section 3.2).

    Args:
        conditioner: Makes the conditions of both networks; its pipeline has the solver that samples the student.
        options: How it is distilled.
        teacher: The network to learn from, which stays as it is.
    """

    def __init__(
        self, conditioner: Conditioner[ConditionOptions], options: DistillationOptions, teacher: nn.Module
    ) -> None:
        super().__init__()
        self.conditioner, self.options, self.teacher = conditioner, options, teacher
        self.guidance_scale = guidance_scale_of(conditioner, options)
        solver = conditioner.pipeline.scheduler
        self.scheduler = DDIMScheduler.from_config(solver.config)
        most, first = solver.config.num_train_timesteps, self.scheduler.schedule.first
        steps = distilled_timesteps(options.solver_steps, most, first)
        visited = [0, *sorted(steps)]  # the last step ends at the image
        self.visited: torch.Tensor
        self.register_buffer("visited", torch.tensor(visited, dtype=torch.long), persistent=False)
        self.boundary: torch.Tensor | None
        weights = None
        if options.method == "consistency":
            weights = torch.tensor([boundary_weights(time * solver.config.timestep_scaling) for time in visited])
        self.register_buffer("boundary", weights, persistent=False)

    def train(self, mode: bool = True) -> Self:
        """Set the mode of all but the teacher, which is always evaluated."""
        super().train(mode)
        self.teacher.eval()
        return self

    def forward(
        self, student: DenoisingNetwork, batch: dict[str, torch.Tensor], draws: SampleGenerators
    ) -> torch.Tensor:
        """The loss () (eq. 17 of Luo et al.) of `moments` (B, 2c or c, h, w) and the conditioner's own rows."""
        latents, noise = draw_latents(batch["moments"], self.conditioner.pipeline.vae.config, draws)
        end = draws.integers(self.options.solver_steps).to(latents.device)
        start, levels = end + 1, Parametrization.of(self.scheduler, latents.device)
        crop = batch.get("crop")
        kept = torch.zeros(len(latents), dtype=torch.bool, device=latents.device)
        conditioning = self.conditioner(batch, kept, draws)
        noisy = noisy_latents(self.scheduler, latents, noise, self.visited[start])
        further = None
        if self.options.method == "trajectory":  # any of the timesteps from the step's end down to the image
            further = self.visited[(draws.uniform().to(latents.device) * (end + 1)).long()]

        def consistent(latents: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
            """The consistency function of the student, as `LCMScheduler` or `TCDScheduler` has it."""
            timesteps = self.visited[place]
            prediction = Denoiser(student, conditioning, crop=crop)(latents, timesteps, 0.0).float()
            x0 = levels.x0(latents, prediction, timesteps)
            if further is not None:
                alpha, sigma = levels.levels(further, latents)
                return alpha * x0 + sigma * levels.epsilon(latents, prediction, timesteps)
            assert self.boundary is not None
            skip, gain = self.boundary[place].reshape(-1, 2, 1, 1, 1).unbind(1)
            return gain * x0 + skip * latents

        with torch.no_grad():
            timesteps = self.visited[start]
            prediction = self._taught(noisy, timesteps, conditioning, batch, draws)
            alpha, sigma = levels.levels(self.visited[end], latents)
            x0, epsilon = levels.x0(noisy, prediction, timesteps), levels.epsilon(noisy, prediction, timesteps)
            target = consistent(alpha * x0 + sigma * epsilon, end)
        error, width = consistent(noisy, start) - target, self.options.huber_c
        return ((error.square() + width**2).sqrt() - width).mean()

    def _taught(
        self,
        noisy: torch.Tensor,
        timesteps: torch.Tensor,
        conditioning: Conditioning,
        batch: dict[str, torch.Tensor],
        draws: SampleGenerators,
    ) -> torch.Tensor:
        """The teacher's prediction (B, c, h, w) with guidance (eq. 14 of the paper)."""
        teacher: DenoisingNetwork = self.teacher  # type: ignore[assignment]
        denoiser = Denoiser(teacher, conditioning, crop=batch.get("crop"))
        if self.guidance_scale == 1:
            return denoiser(noisy, timesteps, 0.0).float()
        dropped = torch.ones(len(noisy), dtype=torch.bool, device=noisy.device)
        null = self.conditioner(batch, dropped, draws)
        both = denoiser.with_unconditional(Conditioning(null.context, conditioning.concat))
        unconditional, conditional = both(noisy, timesteps, 0.0).float().chunk(2)
        return torch.lerp(unconditional, conditional, self.guidance_scale)


def guidance_scale_of(conditioner: Conditioner[ConditionOptions], options: DistillationOptions) -> float:
    """The strength of the teacher's guidance.

    Raises:
        ConfigError: If it is not 1 and the model knows no null condition.
    """
    given, knows_null = options.guidance_scale, conditioner.knows_null or conditioner.dropout > 0
    check(
        given in (None, 1.0) or knows_null,
        f"distill.guidance_scale is {given}, but this model knows no null condition; leave it out",
    )
    if given is not None:
        return given
    return (default_guidance_scale(conditioner.pipeline.components) or 1.0) if knows_null else 1.0


def prepare_distillation(conditioner: Conditioner[ConditionOptions], options: DistillationOptions) -> Consistency:
    """What a student learns by; its pipeline gets the solver of consistency models.

    Raises:
        ConfigError: If the teacher is of other latents, noise or conditions, or the options don't fit the model.
        CheckpointError: If the teacher can't be loaded.
    """
    pipeline = conditioner.pipeline
    steps, most = options.solver_steps, pipeline.scheduler.config.num_train_timesteps
    check(steps <= most, f"distill.solver_steps is {steps}; it must be 2 to {most}, which this model knows")
    teacher = pipeline
    if options.teacher is not None:
        teacher = DiffusionPipeline.from_pretrained(options.teacher)
        _check_teacher(teacher, pipeline, options.teacher)
    network = copy.deepcopy(teacher.unet)
    assert isinstance(network, nn.Module)
    solver = SOLVERS[options.method]
    pipeline.scheduler = make_scheduler(solver, pipeline.scheduler.config, original_inference_steps=steps)
    return Consistency(conditioner, options, network.requires_grad_(False).eval())


def _check_teacher(teacher: DiffusionPipeline, student: DiffusionPipeline, name: str) -> None:
    """ConfigError unless a teacher and the student see the same latents, noise and conditions."""
    wrong = None
    theirs, ours = (pipeline.scheduler.config.get("prediction_type") for pipeline in (teacher, student))
    if theirs != ours:
        wrong = f"predicts {theirs}, the pretrained pipeline {ours}"
    elif not same_levels(*(getattr(pipe.scheduler, "alphas_cumprod", None) for pipe in (teacher, student))):
        wrong = "has another noise schedule than the pretrained pipeline"
    for part, component in student.components.items():
        network = isinstance(component, nn.Module) and part != "unet"
        if wrong is None and network and not same_weights(teacher.components.get(part), component):
            wrong = f"has another {part} than the pretrained pipeline"
    for option in ("in_channels", "out_channels", "cross_attention_dim", "crop_condition"):
        theirs, ours = (getattr(pipeline.unet.config, option, None) for pipeline in (teacher, student))
        if wrong is None and theirs != ours:
            wrong = f"has a UNet with {option} {theirs}, the pretrained pipeline's has {ours}"
    if wrong is not None:
        raise ConfigError(f"distill.teacher {name} {wrong}; give a teacher of the same, or leave it out")
