"""What can be trained, and every option of it."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from latentdiff.config import check, from_mapping
from latentdiff.errors import ConfigError
from latentdiff.tasks import NUM_INFERENCE_STEPS
from latentdiff.training.recipes.lora import check_lora
from latentdiff.training.recipes.run import MAY_CHANGE, REMEDIES, Recipe, as_dict

__all__ = [
    "CONDITION_FIELDS",
    "MAY_CHANGE",
    "REMEDIES",
    "ClassifierRecipe",
    "DiffusionRecipe",
    "FirstStageRecipe",
    "Recipe",
    "as_dict",
    "load_recipe",
]
LATENT_SCALE_IMAGES = 4096
HUBER_C = 0.1  # of diffusers' training scripts
R = TypeVar("R", bound=Recipe)
NOT_NEGATIVE = ("perceptual_weight", "kl_weight", "codebook_weight", "codebook_beta", "codebook_restart")
ADVERSARIAL_NUMBERS = ("adversarial_weight", "disc_start", "disc_warmup_steps")


@dataclass(frozen=True)
class FirstStageRecipe(Recipe):
    """The autoencoder, KL or VQ (section 3.1 of the paper, appendix G). All losses are means over images and elements.

    Attributes:
        channels: Of the images: 1 is grey, 3 are RGB, others what the files have; by default the data's own, where
            photos of 8 bits are RGB.
        model: Constructor arguments of `diffusers.AutoencoderKL`, or with `_class_name: VQModel` of
            `latentdiff.VQModel`; in_channels and out_channels are the data's. Or `pretrained_model_name_or_path` alone
            to go on.
        trainable: "decoder" leaves encoder, codebook and so the latents as they are.
        reconstruction: The distance in pixels.
        perceptual_weight: Weight of LPIPS beside it.
        lpips: Files of its weights: `{vgg16: FILE, heads: FILE}`, arguments of `latentdiff.LPIPS.from_files`, or
            `{vgg16: FILE, preprocessing: caffe}`, of `latentdiff.PerceptualDistance.from_file`.
        kl_weight: Weight of the KL term, summed over an image's latents, against the distance, summed over its pixels.
        codebook_weight: Weight of the codebook loss.
        codebook_loss: Which of its terms has codebook_beta for weight: that which pulls latents to codes ("corrected",
            van den Oord et al. 2017), or the other, as in the released models ("legacy").
        codebook_beta: See there.
        codebook_restart: Steps in which nothing has to choose a code for it to be moved to a latent; 0 for never.
        discriminator: Arguments of `latentdiff.training.first_stage.discriminator.PatchDiscriminator`: layers,
            channels, norm. Empty for none.
        adversarial_loss: The discriminator's loss.
        adversarial_weight: Weight of the adversarial loss, or of its share where adaptive_weight is true: then its
            gradient in the decoder's last layer is made as long as that of the reconstruction.
        adaptive_weight: See there.
        disc_start: Step at which the discriminator comes in.
        disc_warmup_steps: Steps from there over which its weight rises to the full.
        validation_share: Share of train_data_dir that is held out for validation, in place of validation_data_dir.
    """

    channels: int | None = None
    model: dict[str, Any] = field(default_factory=dict)
    trainable: Literal["all", "decoder"] = "all"
    reconstruction: Literal["l1", "l2"] = "l1"
    perceptual_weight: float = 0.0
    lpips: dict[str, Any] = field(default_factory=dict)
    kl_weight: float = 1e-6
    codebook_weight: float = 1.0
    codebook_loss: Literal["legacy", "corrected"] = "legacy"
    codebook_beta: float = 0.25
    codebook_restart: int = 0
    discriminator: dict[str, Any] = field(default_factory=dict)
    adversarial_loss: Literal["hinge", "vanilla"] = "hinge"
    adversarial_weight: float = 0.5
    adaptive_weight: bool = True
    disc_start: int = 0
    disc_warmup_steps: int = 0
    validation_share: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in (*NOT_NEGATIVE, *ADVERSARIAL_NUMBERS):
            check(getattr(self, name) >= 0, f"{name} is {getattr(self, name)}; it must be at least 0")
        for name in ("adversarial_loss", "adaptive_weight", *ADVERSARIAL_NUMBERS):
            check(
                bool(self.discriminator) or not self.given(name),
                f"{name} is given, but there is no discriminator; give one, such as discriminator: {{layers: 3}}",
            )
        check(
            bool(self.lpips) or not self.perceptual_weight,
            f"perceptual_weight is {self.perceptual_weight}, but lpips is missing; give the files of its weights, as "
            "lpips: {vgg16: FILE, heads: FILE}, or set perceptual_weight to 0",
        )
        check(
            not self.lpips or self.perceptual_weight > 0 or self.validation_steps > 0,
            "lpips is given, but neither perceptual_weight nor validation_steps is; give one of them",
        )
        check(0 <= self.validation_share < 1, f"validation_share is {self.validation_share}; it must be in [0, 1)")
        sources = [name for name in ("validation_data_dir", "validation_share") if self.given(name)]
        check(len(sources) < 2, "validation_data_dir and validation_share are both given; give one of them")
        check(
            bool(sources) or not self.validation_steps,
            f"validation_steps is {self.validation_steps}, but no validation image is given; give validation_data_dir "
            "or validation_share",
        )


@dataclass(frozen=True)
class DiffusionRecipe(Recipe):
    """The latent diffusion model, conditional or not (section 3.2, eq. 2 and 3 of the paper).

    Attributes:
        conditioning: The task, a name of the registry `CONDITIONERS`; by default that of the pretrained pipeline, else
            text-to-image where there is a text encoder, else unconditional.
        pretrained_model_name_or_path: A pipeline folder whose networks are the start, in place of vae, unet,
            noise_schedule and the condition's networks. An unconditional one may become one of super-resolution,
            inpaint or semantic-to-image.
        lora: Train an adapter of the UNet's attention and nothing else: rank, alpha and target_modules (Hu et al. 2021,
            arXiv 2106.09685); it ends as `lora/`. Needs the package peft.
        vae: Folder of the trained first stage.
        unet: Constructor arguments of `latentdiff.UNet2DConditionModel`; its sample_size, in_channels, out_channels and
            cross_attention_dim follow from the first stage and the conditioning, and may be left out.
        text_encoder: Constructor arguments of `latentdiff.LDMTextEncoder`, for text-to-image.
        train_text_encoder: Whether the text encoder is trained with the UNet; by default it is, but for lora. If not,
            what it says of each caption is computed once and kept in `captions/`.
        vocabulary: WordPiece vocabulary file (`vocab.txt`) of the tokenizer, for text-to-image.
        class_embedder: embed_dim of `latentdiff.ClassEmbedder`, and class_names if the data's aren't meant; for
            class-to-image.
        layout_encoder: Constructor arguments of `latentdiff.LDMTextEncoder`, but for its sizes, which are the
            tokenizer's; for layout-to-image.
        layout_tokenizer: Constructor arguments of `latentdiff.LayoutTokenizer`; the classes are the data's by default.
        box_format: Of the boxes in the data, "xywh" (left, top, width, height) or "xyxy" (left, top, right, bottom);
            annotations have their own, else it is "xywh".
        box_units: "pixels" of the image file, as COCO has them, or "relative" to the image; else "pixels".
        segmentation_encoder: out_channels of `latentdiff.SegmentationEncoder`; class_names, and palette and in_channels
            (the number of classes) if those of the data aren't meant; for semantic-to-image.
        degradation: What makes the small images for super-resolution, a name of the registry `DEGRADATIONS`.
        masks: Names of the registry `MASKS` to how often each is drawn for inpaint, relative to each other.
        condition: Options of a conditioner of your own.
        noise_schedule: Arguments of `latentdiff.DDIMScheduler`, such as beta_start, beta_end and prediction_type.
        condition_dropout: Share of conditions replaced by the null condition (the empty caption, the null class, the
            empty layout, the map without classes), which classifier-free guidance needs; null is the task's default.
        caption_dropout: The older name of condition_dropout, for text-to-image.
        torch_compile: Compile the UNet, which takes minutes at the first step and makes the others faster.
        loss: Between prediction and target: squares, absolute values, or Huber's, which is squares near 0 (Khrapov et
            al. 2024, arXiv 2403.16728).
        huber_c: Where Huber's becomes linear at the noisiest timestep; towards the cleanest it grows to 1.
        elbo_weight: Weight of the variational bound beside the loss, 0 in the paper; `original_elbo_weight` there.
        learn_logvar: Learn the variance of the errors at each timestep and divide them by it, so that those that are
            large anyway count less; a logarithm that is added keeps it from growing.
        logvar_init: The logarithm of these variances at the start.
        noise_offset: Standard deviation of a constant that the noise of each channel gets, such as 0.1, for models that
            make dark and bright images (Guttenberg 2023).
        snr_gamma: Min-SNR weighting of the loss (Hang et al. 2023, arXiv 2303.09556); null for the paper's L_simple.
        validation_samples: Images made at each validation, below those whose conditions they have.
        validation_prompts: Captions of the images made at validation, in place of the data's; for text-to-image.
        validation_inference_steps: Of the solver.
        validation_guidance_scale: Classifier-free guidance at validation; by default 3 where conditions are dropped.
        push_to_hub: Upload the pipeline at the end, to hub_model_id, with a card that has the recipe and the losses.
        hub_model_id: "owner/name" on the hub.
        latent_scale: What latents are multiplied by, in place of 1 / std: larger lets less noise in (section D.1 of the
            paper); null to measure it.
        latent_scale_images: Images over which the latent scale 1 / std is measured.
    """

    pretrained_model_name_or_path: str | None = None
    lora: dict[str, Any] = field(default_factory=dict)
    vae: str | None = None
    conditioning: str | None = None
    unet: dict[str, Any] = field(default_factory=dict)
    text_encoder: dict[str, Any] = field(default_factory=dict)
    train_text_encoder: bool | None = None
    vocabulary: str | None = None
    class_embedder: dict[str, Any] = field(default_factory=dict)
    layout_encoder: dict[str, Any] = field(default_factory=dict)
    layout_tokenizer: dict[str, Any] = field(default_factory=dict)
    box_format: Literal["xywh", "xyxy"] | None = None
    box_units: Literal["pixels", "relative"] | None = None
    segmentation_encoder: dict[str, Any] = field(default_factory=dict)
    degradation: str = "bicubic"
    masks: dict[str, Any] = field(default_factory=lambda: dict.fromkeys(("thin", "medium", "thick", "box"), 1))
    condition: dict[str, Any] = field(default_factory=dict)
    noise_schedule: dict[str, Any] = field(default_factory=dict)
    condition_dropout: float | None = None
    caption_dropout: float | None = None
    torch_compile: bool = False
    loss: Literal["l2", "l1", "huber"] = "l2"
    huber_c: float = HUBER_C
    elbo_weight: float = 0.0
    learn_logvar: bool = False
    logvar_init: float = 0.0
    noise_offset: float = 0.0
    snr_gamma: float | None = None
    validation_samples: int = 4
    validation_prompts: list[str] = field(default_factory=list)
    validation_inference_steps: int = NUM_INFERENCE_STEPS
    validation_guidance_scale: float | None = None
    push_to_hub: bool = False
    hub_model_id: str | None = None
    latent_scale: float | None = None
    latent_scale_images: int = LATENT_SCALE_IMAGES

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("condition_dropout", "caption_dropout"):
            value = getattr(self, name)
            check(value is None or 0 <= value <= 1, f"{name} is {value}; it must be in [0, 1], or null")
        check(
            self.condition_dropout is None or self.caption_dropout is None,
            "condition_dropout and caption_dropout are both given; give condition_dropout",
        )
        check(
            self.huber_c == HUBER_C or self.loss == "huber",
            f"huber_c is given, but loss is {self.loss!r}; leave it out",
        )
        check(0 < self.huber_c <= 1, f"huber_c is {self.huber_c}; it must be above 0 and at most 1")
        check(
            self.learn_logvar or not self.logvar_init,
            "logvar_init is given, but learn_logvar is false; leave it out, or set learn_logvar",
        )
        for name in ("elbo_weight", "noise_offset"):
            check(getattr(self, name) >= 0, f"{name} is {getattr(self, name)}; it must be 0 (none) or more")
        check(
            self.snr_gamma is None or self.snr_gamma > 0, f"snr_gamma is {self.snr_gamma}; it must be above 0, or null"
        )
        check(self.validation_samples >= 0, f"validation_samples is {self.validation_samples}; it must be 0 or more")
        if self.lora:
            check_lora(self.lora)
            pretrained = self.pretrained_model_name_or_path is not None
            check(not self.train_text_encoder, "lora trains the UNet's adapter alone; leave train_text_encoder out")
            check(pretrained, "lora is given without pretrained_model_name_or_path; give the pipeline to adapt")
        check(
            self.push_to_hub == (self.hub_model_id is not None),
            "push_to_hub and hub_model_id belong together; give true and owner/name, or neither",
        )
        check(not (self.lora and self.push_to_hub), "push_to_hub uploads a pipeline, and lora trains none; drop it")
        images = self.latent_scale_images
        check(images > 0, f"latent_scale_images is {images}; it must be at least 1")
        scale = self.latent_scale
        check(scale is None or 0 < scale < math.inf, f"latent_scale is {scale}; it must be above 0, or null")
        measured = self.latent_scale_images == LATENT_SCALE_IMAGES
        check(scale is None or measured, "latent_scale and latent_scale_images are both given; drop one")
        if self.pretrained_model_name_or_path is not None:
            check(scale is None, "latent_scale is given, but the pretrained pipeline has its own; leave it out")
        if self.pretrained_model_name_or_path is None:
            frozen = self.train_text_encoder is False
            check(not frozen, "train_text_encoder is false, but the text encoder would be a new one; leave it out")
            check(self.vae is not None, "vae is missing; give the folder of a trained first stage")
            check(bool(self.unet), "unet is empty; give the UNet's configuration")

    def replaced(self, whole: bool) -> list[str]:
        """The options that are given for what a pretrained pipeline has already.

        Args:
            whole: Whether it is used as it is, and not given another condition.
        """
        return [name for name in (*OF_PIPELINE, *(OF_CONDITION if whole else ())) if self.given(name)]

    @property
    def dropout(self) -> float | None:
        """Share of conditions to drop, None where nothing is said."""
        return self.condition_dropout if self.caption_dropout is None else self.caption_dropout

    def check_used(self, task: str, used: Collection[str]) -> None:
        """Refuse what the task doesn't use; `used` are the fields of `CONDITION_FIELDS` that it does."""
        for name in CONDITION_FIELDS:
            check(
                not self.given(name) or name in used,
                f"{name} is given, but conditioning {task!r} does not use it; "
                f"{'it uses ' + ', '.join(used) if used else 'leave it out'}",
            )


# What belongs to the conditioning; each task uses some of them.
CONDITION_FIELDS = (
    "text_encoder",
    "vocabulary",
    "train_text_encoder",
    "caption_dropout",
    "condition_dropout",
    "validation_prompts",
    "class_embedder",
    "layout_encoder",
    "layout_tokenizer",
    "box_format",
    "box_units",
    "segmentation_encoder",
    "degradation",
    "masks",
    "condition",
)

# What a pretrained pipeline has: always, and where its condition stays.
OF_PIPELINE = ("vae", "unet", "noise_schedule", "latent_scale_images")
OF_CONDITION = (
    "text_encoder",
    "vocabulary",
    "class_embedder",
    "layout_encoder",
    "layout_tokenizer",
    "segmentation_encoder",
)

FROM_DATA = ("sample_size", "in_channels", "num_classes", "class_names")


@dataclass(frozen=True)
class ClassifierRecipe(Recipe):
    """The classifier of noisy latents that guides a diffusion model (appendix C of the paper).

    Attributes:
        pretrained_model_name_or_path: The pipeline to be guided; its first stage makes the latents, its noise schedule
            the noise. It stays as it is.
        classifier: Constructor arguments of `latentdiff.NoisyLatentClassifier`; those of latents and classes are the
            pipeline's and the images'.
    """

    pretrained_model_name_or_path: str | None = None
    classifier: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        check(
            self.pretrained_model_name_or_path is not None,
            "pretrained_model_name_or_path is missing; give the pipeline that is to be guided",
        )
        given = [name for name in FROM_DATA if name in self.classifier]
        check(not given, f"classifier has {given}, which come from the pipeline and the images; leave them out")


def load_recipe(cls: type[R], path: str | Path, overrides: Mapping[str, Any] | None = None) -> R:
    """Read a YAML recipe; `overrides` win over the file.

    Raises:
        ConfigError: If the file is missing, isn't a mapping, or has an unknown or ill-typed option.
    """
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"recipe {path} cannot be read ({error}); give a YAML file") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"recipe {path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"recipe {path} holds no options; it must be a YAML mapping of option: value")
    return from_mapping(cls, {**values, **(overrides or {})}, str(path))
