"""The recipes of the stages, in parts that stand beside the code that reads them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import model_validator

from latentdiff.config import check, option
from latentdiff.hub.index import INDEX
from latentdiff.hub.weight_files import ADAPTER
from latentdiff.training.diffusion.conditioners.options import Conditioning
from latentdiff.training.diffusion.options import (
    DiffusionLossOptions,
    DiffusionValidationOptions,
    DistillationOptions,
    LoraOptions,
    TimestepOptions,
)
from latentdiff.training.engine.options import Recipe
from latentdiff.training.first_stage.options import (
    PRETRAINED,
    FirstStageDataOptions,
    FirstStageLossOptions,
    FirstStageReportOptions,
    FirstStageValidationOptions,
    PhaseOptions,
)
from latentdiff.training.first_stage.phases import check_phases
from latentdiff.types import JSON

UNUSED_BY_DISTILLATION = ("kl_weight", "codebook", "adversarial", "equivariance")

__all__ = ["ClassifierRecipe", "DiffusionRecipe", "FirstStageRecipe", "Recipe"]


class FirstStageRecipe(Recipe):
    """The autoencoder, KL or VQ (section 3.1 of the paper, appendix G)."""

    results: ClassVar[Mapping[str, str]] = {"vae": "config.json", "decoder": "config.json"}

    data: FirstStageDataOptions
    """The images that are trained on."""
    model: JSON = option({})
    """Constructor arguments of `diffusers.AutoencoderKL`, or with `_class_name: VQModel` of `latentdiff.VQModel`, or of
    FSQModel or ResidualVQModel; in_channels and out_channels are the data's. Or `pretrained_model_name_or_path` alone
    to go on."""
    trainable: Literal["all", "decoder"] = "all"
    """What is trained: "all", or the "decoder" alone, which leaves encoder, codebook and so the latents as they are."""
    distill_decoder: bool = False
    """Train a tiny decoder of the latents of the pretrained `model`, which stays as it is; it ends as `decoder/`."""
    decoder: JSON = option({})
    """Constructor arguments of `latentdiff.TinyDecoder`, for `distill_decoder`, such as block_out_channels; what
    follows from the model may be left out."""
    loss: FirstStageLossOptions = FirstStageLossOptions()
    """The terms of the loss and their weights."""
    phases: list[PhaseOptions] = option([])
    """Phases of the run that follow each other, each with what it trains and which terms of the loss count."""
    report: FirstStageReportOptions | None = option(None, resume="free")
    """A report at the end on the images that validation holds out, as `report.md`, `report.json` and `report.png`; null
    for none."""
    validation: FirstStageValidationOptions = option(FirstStageValidationOptions(), resume="free")
    """Looks at the weights while they are trained."""

    @model_validator(mode="after")
    def _check_lpips(self) -> Self:
        used = self.loss.perceptual_weight > 0 or self.validation.steps > 0
        check(
            self.loss.lpips is None or used,
            "loss.lpips is given, but neither loss.perceptual_weight nor validation.steps is; give one of them",
        )
        return self

    @model_validator(mode="after")
    def _check_phases(self) -> Self:
        adversarial = self.loss.adversarial
        check(
            not self.phases or adversarial is None or not adversarial.given("start_step"),
            "loss.adversarial.start_step is given, but phases say when the discriminator comes in; leave it out",
        )
        check_phases(self.phases, self.trainable, self.loss, self.max_train_steps)
        return self

    @property
    def parts_rest(self) -> bool:
        """Whether some of what is trained gets no gradient in some steps."""
        return bool(self.phases)

    @model_validator(mode="after")
    def _check_equivariance(self) -> Self:
        check(
            self.loss.equivariance is None or self.trainable == "all",
            "loss.equivariance is given, but trainable is 'decoder', which leaves the latents alone; leave it out",
        )
        return self

    @model_validator(mode="after")
    def _check_report(self) -> Self:
        check(
            self.report is None or self.validation.steps > 0,
            "report is given, but no image is held out; give validation.steps with validation.share or data_dir",
        )
        return self

    @model_validator(mode="after")
    def _check_distillation(self) -> Self:
        if not self.distill_decoder:
            check(not self.decoder, "decoder is given, but distill_decoder is false; leave it out, or set that to true")
            return self
        check(
            [*self.model] == [PRETRAINED],
            f"distill_decoder needs the first stage to learn from; give model: {{{PRETRAINED}: FOLDER}} alone",
        )
        unused = {
            "trainable": self.given("trainable"),
            "gradient_checkpointing": self.gradient_checkpointing,
            "phases": bool(self.phases),
            "report": self.report is not None,
            "validation.metrics": bool(self.validation.metrics),
            **{f"loss.{name}": self.loss.given(name) for name in UNUSED_BY_DISTILLATION},
        }
        for name, given in unused.items():
            check(not given, f"{name} is given, but distill_decoder does not use it; leave it out")
        return self


class DiffusionRecipe(Recipe):
    """The latent diffusion model, conditional or not (section 3.2, eq. 2 and 3 of the paper)."""

    results: ClassVar[Mapping[str, str]] = {"pipeline": INDEX, "lora": ADAPTER}

    vae: str | None = option(None, resume="free")  # the latent cache compares its weights
    """The trained first stage: its folder, or the name of a built-in model ("builtin:NAME") or of one on the hub that
    has it or is it."""
    pretrained_model_name_or_path: str | None = None
    """A pipeline whose networks are the start, in place of unet, noise_schedule and the condition's networks. With
    another `conditioning`, or `vae`, it becomes one of that: the UNet's weights go on where they fit."""
    latents_dir: str | None = option(None, resume="free")
    """Folder of latents that `latentdiff encode` made of the same data; null to encode them into `output_dir`."""
    unet: JSON = option({}, of_pipeline=True)
    """Constructor arguments of `latentdiff.UNet2DConditionModel`; its sample_size, in_channels, out_channels and
    cross_attention_dim follow from the first stage and the conditioning, and may be left out."""
    noise_schedule: JSON = option({}, of_pipeline=True)
    """Arguments of `latentdiff.DDIMScheduler`, such as beta_start, beta_end and prediction_type; a flow_prediction
    makes a `latentdiff.FlowMatchEulerScheduler`, with num_train_timesteps and shift."""
    conditioning: Conditioning | None = None
    """The task, by its name, or a mapping with that as `type` and with the task's options; by default that of the
    pretrained pipeline, else unconditional."""
    lora: LoraOptions | None = None
    """Train an adapter of the UNet and nothing else; it ends as `lora/`, or in `pipeline/`. Needs the package peft."""
    freeze: list[str] = option([])
    """Names of weights or of modules that stay as they are, such as `unet.down_blocks.*` or `text_encoder`."""
    distill: DistillationOptions | None = None
    """Distil the pretrained pipeline into one of 1 to 8 steps, rather than train it on."""
    timesteps: TimestepOptions = TimestepOptions()
    """How often each timestep is trained on."""
    loss: DiffusionLossOptions = DiffusionLossOptions()
    """The terms of the loss and their weights."""
    validation: DiffusionValidationOptions = option(DiffusionValidationOptions(), resume="free")
    """Looks at the weights while they are trained."""
    torch_compile: bool = False
    """Compile the UNet, which takes minutes at the first step and makes the others faster."""
    latent_scale: float | None = option(None, gt=0)
    """Factor of the latents, in place of 1 / std: a larger one lets less noise in (section D.1 of the paper); null to
    measure it."""
    latent_scale_images: int = option(4096, ge=1, of_pipeline=True)
    """Number of images over which the latent scale 1 / std is measured."""
    push_to_hub: str | None = option(None, resume="free")
    """Name on the hub, "owner/name", to which the pipeline is uploaded at the end, with a card that has the recipe and
    the losses."""

    @model_validator(mode="after")
    def _check_start(self) -> Self:
        _check_latents_dir(self.latents_dir, self.output_dir)
        captions = None if self.conditioning is None else self.conditioning.captions
        pretrained = self.pretrained_model_name_or_path is not None
        trained = None if captions is None else captions.train_text_encoder
        check(pretrained or self.vae is not None, "vae is missing; give the folder of a trained first stage")
        check(pretrained or bool(self.unet), "unet is empty; give the UNet's configuration")
        check(
            pretrained or trained is not False,
            "conditioning.train_text_encoder is false, but the text encoder would be a new one; leave it out",
        )
        if self.lora is not None:
            check(pretrained, "lora is given without pretrained_model_name_or_path; give the pipeline to adapt")
            check(not trained, "lora trains the UNet's adapter alone; leave conditioning.train_text_encoder out")
            apart = not self.lora.merge and self.push_to_hub
            check(not apart, "push_to_hub uploads a pipeline, and lora trains none; leave it out, or set lora.merge")
        if self.distill is not None:
            check(pretrained, "distill is given without pretrained_model_name_or_path; give the pipeline to distil")
            for name in ("loss", "timesteps"):
                check(not self.given(name), f"{name} is given, but distill has its own; leave it out")
            check(not trained, "distill trains the UNet alone; leave conditioning.train_text_encoder out")
        if self.latent_scale is not None:
            check(
                not self.given("latent_scale_images"), "latent_scale and latent_scale_images are both given; drop one"
            )
            check(
                not pretrained or self.vae is not None,
                "latent_scale is given, but the pretrained pipeline has its own; leave it out",
            )
        return self


class ClassifierRecipe(Recipe):
    """The classifier of noisy latents that guides a diffusion model (appendix C of the paper)."""

    results: ClassVar[Mapping[str, str]] = {"classifier": "config.json"}

    pretrained_model_name_or_path: str = option(note="give the pipeline that is to be guided")
    """The pipeline to be guided; its first stage makes the latents, its noise schedule the noise. It stays as it is."""
    latents_dir: str | None = option(None, resume="free")
    """Folder of latents that `latentdiff encode` made of the same data; null to encode them into `output_dir`."""
    classifier: JSON = option({})
    """Constructor arguments of `latentdiff.NoisyLatentClassifier`; those of latents and classes are the pipeline's and
    the images'."""

    @model_validator(mode="after")
    def _check_places(self) -> Self:
        _check_latents_dir(self.latents_dir, self.output_dir)
        return self


def _check_latents_dir(latents_dir: str | None, output_dir: str) -> None:
    """ConfigError if a run would write its own files among the latents that it reads."""
    check(
        latents_dir is None or Path(latents_dir).resolve() != Path(output_dir).resolve(),
        f"output_dir is {output_dir}, the folder of latents_dir; give a folder of the run's own",
    )
