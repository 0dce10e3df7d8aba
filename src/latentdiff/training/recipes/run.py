"""What every stage of training has to be told."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from latentdiff.config import check
from latentdiff.data.options import DataOptions

# What may differ when a run goes on from a checkpoint: it doesn't change what is computed, or, like max_train_steps,
# how far. The split of a batch is free where its size stays, and the place of the data where their number does.
MAY_CHANGE = (
    "train_data_dir",
    "vae",  # whose weights the cache of latents compares
    "dataset_name",
    "annotations",
    "label_maps",
    "max_bad_share",
    "output_dir",
    "resume_from_checkpoint",
    "train_batch_size",
    "gradient_accumulation_steps",
    "max_train_steps",
    "dataloader_num_workers",
    "gradient_checkpointing",
    "checkpointing_steps",
    "checkpoints_total_limit",
    "logging_steps",
    "max_skipped_steps",
    "report_to",
    "push_to_hub",
    "hub_model_id",
)  # and what begins with validation_
# What may be changed on purpose to help a run that diverges.
REMEDIES = ("learning_rate", "lr_scheduler", "lr_warmup_steps", "max_grad_norm", "mixed_precision")


@dataclass(frozen=True, kw_only=True)
class Recipe(DataOptions):
    """Options that all training stages share, beside those of the data.

    Attributes:
        output_dir: Where checkpoints and the trained weights go.
        random_flip: Mirror half of the images.
        train_batch_size: Images per process and micro-step.
        gradient_accumulation_steps: Micro-steps of an optimiser step; their gradients are averaged.
        max_train_steps: Optimiser steps in all, those before a resume included.
        learning_rate: After the warm-up and before any decay.
        optimizer: "adamw", "adamw_fused", or a class of torch.optim by its name.
        optimizer_options: Further arguments of that class.
        scale_lr: Multiply the learning rate by the images of a step, those of all processes, as the original code did.
        lr_scheduler: A schedule of `diffusers.optimization.get_scheduler`, or of the original code: warmup_linear,
            warmup_cosine.
        lr_scheduler_options: Its further arguments, such as power of polynomial.
        lr_warmup_steps: Steps in which the learning rate rises from 0.
        adam_beta1: Decay of AdamW's mean of gradients.
        adam_beta2: Decay of AdamW's mean of squared gradients.
        adam_weight_decay: Decoupled weight decay, relative to the learning rate.
        max_grad_norm: Gradients of a larger norm are scaled down to it; inf leaves them as they are.
        ema_decay: Upper bound of the EMA decay, which warms up as (1 + n) / (10 + n); 0 turns EMA off.
        mixed_precision: Precision of the networks' passes; weights, EMA and optimiser stay in fp32.
        gradient_checkpointing: Compute activations twice rather than keep them: a third more time, far less memory.
        dataloader_num_workers: Processes that read and prepare images; 0 reads them in the training process.
        validation_steps: Steps between validations, 0 for none: values go to the log, pictures to `validation/`.
        validation_data_dir: Images that are not trained on, of which validation has the loss, at the same draws every
            time; the weights with the lowest are kept in `best/`.
        checkpointing_steps: Steps between checkpoints.
        checkpoints_total_limit: The newest checkpoints that are kept.
        resume_from_checkpoint: "latest", a checkpoint folder, or null to start anew.
        logging_steps: Steps between lines of `log.jsonl`, each the mean over them.
        report_to: A tracker of accelerate beside `log.jsonl`, such as wandb; "auto" is tensorboard if installed, in
            `logs/`; "none" for none.
        max_skipped_steps: Steps whose loss or gradient isn't finite are skipped; this many in a row end the run.
        seed: All that is drawn for a sample comes from the seed and the sample's number in the run.
    """

    output_dir: str
    random_flip: bool = False
    train_batch_size: int = 16
    gradient_accumulation_steps: int = 1
    max_train_steps: int = 100_000
    optimizer: str = "adamw"
    optimizer_options: dict[str, Any] = field(default_factory=dict)
    learning_rate: float = 1e-4
    scale_lr: bool = False
    lr_scheduler: str = "constant_with_warmup"
    lr_scheduler_options: dict[str, Any] = field(default_factory=dict)
    lr_warmup_steps: int = 0
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    ema_decay: float = 0.9999
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    gradient_checkpointing: bool = False
    dataloader_num_workers: int = 0
    validation_steps: int = 0
    validation_data_dir: str | None = None
    checkpointing_steps: int = 1000
    checkpoints_total_limit: int = 2
    resume_from_checkpoint: str | None = None
    logging_steps: int = 50
    report_to: str = "auto"
    max_skipped_steps: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in (
            "train_batch_size",
            "gradient_accumulation_steps",
            "max_train_steps",
            "checkpointing_steps",
            "checkpoints_total_limit",
            "logging_steps",
            "max_skipped_steps",
        ):
            check(getattr(self, name) > 0, f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("dataloader_num_workers", "seed"):
            check(getattr(self, name) >= 0, f"{name} is {getattr(self, name)}; it must be at least 0")
        check(
            self.max_grad_norm > 0,
            f"max_grad_norm is {self.max_grad_norm}; it must be above 0, and inf leaves gradients as they are",
        )
        check(self.validation_steps >= 0, f"validation_steps is {self.validation_steps}; it must be 0 (none) or more")
        check(self.learning_rate > 0, f"learning_rate is {self.learning_rate}; it must be above 0")
        check(0 <= self.ema_decay < 1, f"ema_decay is {self.ema_decay}; it must be in [0, 1), 0 turns EMA off")

    def unused(self) -> list[str]:
        """Lines on what is given and of no use, as validation is turned off."""
        given = [name for name in self.__dataclass_fields__ if name.startswith("validation_") and self.given(name)]
        return [] if self.validation_steps else [f"{name} goes unused, as validation_steps is 0" for name in given]

    def given(self, name: str) -> bool:
        """Whether an option differs from its default."""
        return bool(getattr(self, name) != default_of(type(self).__dataclass_fields__[name]))


def default_of(option: dataclasses.Field[Any]) -> Any:
    """The default of a recipe's option, MISSING if it has none."""
    return option.default_factory() if callable(option.default_factory) else option.default


def as_dict(recipe: Recipe) -> dict[str, Any]:
    """The recipe's options, as YAML would hold them."""
    return dataclasses.asdict(recipe)
