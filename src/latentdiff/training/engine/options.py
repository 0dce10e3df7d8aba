"""The parts of a recipe that the training loop reads, which every stage has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal, Self

from pydantic import model_validator

from latentdiff.config import Part, check, option
from latentdiff.data.options import DataOptions
from latentdiff.registry import nearest
from latentdiff.types import JSON


class OptimizerOptions(Part):
    """The optimiser, its learning rate and the clipping of gradients."""

    name: str = "adamw"
    """The optimiser: "adamw", "adamw_fused" (the same in one kernel), or a class of torch.optim by its name."""
    options: JSON = option({})
    """Further constructor arguments of the optimiser."""
    learning_rate: float = option(1e-4, gt=0, resume="remedy")
    """Learning rate after the warm-up and before any decay."""
    scale_lr: bool = False
    """Multiply the learning rate by the images of a step, those of all processes, as the original code did."""
    lr_scheduler: str = option("constant_with_warmup", resume="remedy")
    """Schedule of the learning rate: one of `diffusers.optimization.get_scheduler`, or of the original code,
    warmup_linear or warmup_cosine."""
    lr_scheduler_options: JSON = option({})
    """Further arguments of the schedule, such as power of polynomial."""
    lr_warmup_steps: int = option(0, ge=0, resume="remedy")
    """Steps in which the learning rate rises from 0."""
    beta1: float = 0.9
    """Decay of AdamW's mean of gradients."""
    beta2: float = 0.999
    """Decay of AdamW's mean of squared gradients."""
    weight_decay: float = 0.01
    """Decoupled weight decay, relative to the learning rate."""
    max_grad_norm: float = option(1.0, gt=0, infinite=True, resume="remedy", note="inf leaves gradients as they are")
    """Gradients of a larger norm are scaled down to it; inf leaves them as they are."""


WIDEST = 12**-0.5
"""The width sigma_rel of the plain mean of all weights, which is that of the widest power-function average."""


class EMAOptions(Part):
    """The exponential moving average of the weights, which is what a run ends with."""

    decay: float = option(0.9999, ge=0, lt=1, note="0 turns EMA off")
    """Upper bound of the decay, which warms up as (1 + n) / (10 + n); 0 turns EMA off."""
    profiles: list[float] = option([])
    """Widths sigma_rel of power-function averages that are followed beside it, such as [0.05, 0.1], and stored in
    `ema/`; `latentdiff ema` puts an average of any width together of them (Karras et al. 2024, arXiv 2312.02696)."""
    snapshot_steps: int | None = option(None, ge=1)
    """Steps between the times at which they are stored."""
    snapshot_dtype: Literal["float16", "float32"] = "float16"
    """Precision in which they are stored."""

    @model_validator(mode="after")
    def _check_profiles(self) -> Self:
        for width in self.profiles:
            check(0 < width < WIDEST, f"profiles has {width:g}; give widths above 0 and below {WIDEST:.4f}")
        check(len({*self.profiles}) == len(self.profiles), f"profiles is {self.profiles}; give each width once")
        check(not self.profiles or self.decay > 0, "profiles is given, but decay is 0, which turns EMA off; drop one")
        check(
            bool(self.profiles) == (self.snapshot_steps is not None),
            "profiles and snapshot_steps belong together; give both, such as [0.05, 0.1] and 1000, or neither",
        )
        check(not self.given("snapshot_dtype") or bool(self.profiles), "snapshot_dtype is given without profiles")
        return self


class CheckpointOptions(Part):
    """Checkpoints, from which a run goes on."""

    steps: int = option(1000, ge=1)
    """Steps between checkpoints."""
    total_limit: int = option(2, ge=1)
    """Number of the newest checkpoints that are kept."""
    export_steps: list[int] = option([])
    """Steps after which the weights, averaged where EMA is on, are kept as `steps/STEP`, such as the weak model of
    autoguidance."""

    @model_validator(mode="after")
    def _check_exports(self) -> Self:
        check(all(step > 0 for step in self.export_steps), f"export_steps is {self.export_steps}; steps count from 1")
        return self


class ValidationOptions(Part):
    """Looks at the weights while they are trained: values go to the log, pictures to `validation/`."""

    steps: int = option(0, ge=0, note="0 is never")
    """Steps between validations, 0 for none."""
    data_dir: str | None = None
    """Folder of images that are not trained on, whose loss is measured at the same draws every time."""
    best: str | None = None
    """What chooses the weights that are kept in `best/`: one of `metrics`, or "loss"; by default the first metric, else
    the loss. Whether lower or higher is better is the metric's own."""
    stop_after: int | None = option(None, ge=1)
    """Number of validations in a row without a better value of `best` after which the run ends; null for never."""

    @property
    def choices(self) -> list[str]:
        """What can choose the best weights, the default first."""
        return ["loss"] if self.data_dir else []

    @model_validator(mode="after")
    def _check_choice(self) -> Self:
        known = self.choices
        if not self.steps:
            return self
        check(
            self.best is None or self.best in known,
            f"best is {self.best!r}, which is not measured; {nearest(self.best, known)}",
        )
        check(
            self.stop_after is None or bool(known),
            f"stop_after is {self.stop_after}, but nothing is measured that could gain; give data_dir"
            + (", or metrics" if "metrics" in type(self).model_fields else ""),
        )
        return self

    def unused(self) -> Iterator[str]:
        """The options that are given and of no use, as validation is turned off."""
        if not self.steps:
            yield from sorted(self.model_fields_set - {"steps"})


class MeasuredValidationOptions(ValidationOptions):
    """Looks that measure images as `latentdiff evaluate` does."""

    metrics: list[str] = option([])
    """Metrics of `latentdiff evaluate`, such as `frechet[efficientnet_lite0]`, with the features in brackets; without
    them those are Inception's."""

    @property
    def choices(self) -> list[str]:
        """What can choose the best weights, the default first."""
        return [*self.metrics, *super().choices]

    @property
    def measures(self) -> bool:
        """Whether there is something to measure."""
        return bool(self.steps and self.metrics)

    @model_validator(mode="after")
    def _check_metrics(self) -> Self:
        twice = sorted({name for name in self.metrics if self.metrics.count(name) > 1})
        check(not twice, f"metrics has {', '.join(twice)} twice; name each once")
        return self


class Recipe(Part):
    """The options that all training stages share.

    Attributes:
        results: The folders in `output_dir` that a run may end as, each with the file by which it is known.
    """

    results: ClassVar[Mapping[str, str]] = {}

    output_dir: str = option(resume="free")
    """Folder of the checkpoints, the log and the trained weights."""
    data: DataOptions
    """The images that are trained on."""
    optimizer: OptimizerOptions = OptimizerOptions()
    """The optimiser, its learning rate and the clipping of gradients."""
    ema: EMAOptions = EMAOptions()
    """The exponential moving average of the weights."""
    checkpoint: CheckpointOptions = option(CheckpointOptions(), resume="free")
    """Checkpoints, from which a run goes on."""
    validation: ValidationOptions = option(ValidationOptions(), resume="free")
    """Looks at the weights while they are trained."""
    max_train_steps: int = option(100_000, ge=1, resume="free")
    """Optimiser steps in all, those before a resume included."""
    train_batch_size: int = option(16, ge=1, resume="free")
    """Images per process and micro-step."""
    gradient_accumulation_steps: int = option(1, ge=1, resume="free")
    """Micro-steps of an optimiser step; their gradients are averaged."""
    mixed_precision: Literal["no", "bf16", "fp16"] = option("no", resume="remedy")
    """Precision of the networks' passes; weights, EMA and optimiser stay in fp32."""
    gradient_checkpointing: bool = option(False, resume="free")
    """Compute activations twice rather than keep them: a third more time, far less memory."""
    logging_steps: int = option(50, ge=1, resume="free")
    """Steps between lines of `log.jsonl`, each the mean over them."""
    report_to: str = option("auto", resume="free")
    """Tracker of accelerate beside `log.jsonl`, such as wandb; "auto" is tensorboard if installed, in `logs/`; "none"
    for none."""
    max_skipped_steps: int = option(20, ge=1, resume="free")
    """Number of steps in a row whose loss or gradient isn't finite, and which are skipped, that ends the run."""
    seed: int = option(0, ge=0)
    """Seed of the run: all that is drawn for a sample depends on it and on the sample's number in the run."""
    resume_from_checkpoint: str | None = option(None, resume="free")
    """Checkpoint to go on from: "latest", a checkpoint's folder, or null to start anew in a folder without a run."""
    overwrite_output_dir: bool = option(False, resume="free")
    """Remove the checkpoints, log and results of an earlier run in `output_dir` when all is checked and the first step
    is next; other files there stay."""

    @model_validator(mode="after")
    def _check_snapshots(self) -> Self:
        every = self.ema.snapshot_steps
        check(
            every is None or 2 * every <= self.max_train_steps,
            f"ema.snapshot_steps is {every}, so max_train_steps {self.max_train_steps} leave fewer than two snapshots, "
            "which can't be combined; give fewer",
        )
        late = [step for step in self.checkpoint.export_steps if step > self.max_train_steps]
        check(not late, f"checkpoint.export_steps has {late}, after max_train_steps {self.max_train_steps}; drop them")
        return self

    @model_validator(mode="after")
    def _check_start_anew(self) -> Self:
        both = self.overwrite_output_dir and self.resume_from_checkpoint is not None
        check(not both, "overwrite_output_dir is true, and resume_from_checkpoint is given too; drop one")
        return self
