"""The parts of a recipe that first stages alone have."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from latentdiff.config import Part, check, option
from latentdiff.data.options import DataOptions
from latentdiff.registry import nearest
from latentdiff.training.engine.options import MeasuredValidationOptions

PRETRAINED = "pretrained_model_name_or_path"  # the entry of `model` that names a trained first stage


class FirstStageDataOptions(DataOptions):
    """The images, whose channels a first stage may choose."""

    channels: int | None = option(None, ge=1)
    """Channels of the images: 1 is grey, 3 are RGB, others what the files have; by default the data's own, where photos
    of 8 bits are RGB."""

    @model_validator(mode="after")
    def _check_crops(self) -> Self:
        check(
            not self.given("crops_per_image"),
            "crops_per_image is given, but a first stage sees new crops at every visit; leave it out",
        )
        return self


class LPIPSOptions(Part):
    """The files of a perceptual distance: of LPIPS, or with `preprocessing` of one without learned weights."""

    vgg16: str
    """File of a VGG16 with torchvision's names, or a checkpoint of an original first stage, which holds all of
    LPIPS."""
    heads: str | None = None
    """File of LPIPS's heads, `lpips/weights/v0.1/vgg.pth`, unless the first file holds them."""
    preprocessing: Literal["torchvision", "caffe"] | None = None
    """How images are shown to a VGG16 without heads; see `latentdiff.PerceptualDistance`."""

    @model_validator(mode="after")
    def _check_kind(self) -> Self:
        without = self.preprocessing is None or self.heads is None
        check(without, "heads is given, but with preprocessing the distance has no learned weights; give one of them")
        return self


class CodebookOptions(Part):
    """The codebook's loss, for `VQModel`."""

    weight: float = option(1.0, ge=0)
    """Weight of the codebook's loss."""
    loss: Literal["legacy", "corrected"] = "legacy"
    """The term that has `beta` for weight: that which pulls latents to codes ("corrected", van den Oord et al. 2017),
    or the other, as in the released models ("legacy")."""
    beta: float = option(0.25, ge=0)
    """Weight of that term."""
    restart: int = option(0, ge=0)
    """Number of steps after which codes that nothing has chosen meanwhile are moved to latents; 0 for never."""


class DiscriminatorOptions(Part):
    """The patch discriminator (Isola et al. 2017, arXiv 1611.07004)."""

    layers: int = option(3, ge=1)
    """Number of layers that halve the resolution: three see patches of 70 pixels a side, two of 34."""
    channels: int = option(64, ge=1)
    """Channels of the first layer; they double with every layer up to eightfold."""
    norm: Literal["batch", "act", "group"] = "batch"
    """Normalisation: "batch", as in the published models, "act" for ActNorm, or "group" for GroupNorm, which looks at
    each image by itself."""


class AdversarialOptions(Part):
    """The discriminator, and the adversarial loss."""

    discriminator: DiscriminatorOptions = DiscriminatorOptions()
    """The patch discriminator."""
    loss: Literal["hinge", "vanilla"] = "hinge"
    """The discriminator's loss."""
    weight: float = option(0.5, ge=0)
    """Weight of the adversarial loss, or of its share where adaptive_weight is true."""
    adaptive_weight: bool = True
    """Make the gradient of the adversarial loss in the decoder's last layer as long as that of the reconstruction."""
    start_step: int = option(0, ge=0)
    """Step at which the discriminator comes in."""
    warmup_steps: int = option(0, ge=0)
    """Steps over which the adversarial loss's weight rises to the full, from the first step at which it counts."""
    r1_weight: float = option(0.0, ge=0)
    """Weight of R1 regularisation (Mescheder et al. 2018), 0 for none: half the squared gradient of the discriminator's
    mean logit by the pixels of real images."""
    lecam_weight: float = option(0.0, ge=0)
    """Weight of LeCAM regularisation (Tseng et al. 2021), 0 for none: it holds the logits of either side near the
    average of the other's, which helps where there are few images."""


class EquivarianceOptions(Part):
    """EQ-VAE regularisation (Kouzelis et al. 2025): a scaled or turned latent is to be decoded to the image scaled or
    turned alike."""

    probability: float = option(0.5, ge=0, le=1)
    """Share of the steps in which latents and images are scaled and turned, by the same draw for a whole step."""
    smallest_scale: float = option(0.25, gt=0, le=1)
    """Smallest factor, drawn for height and width by itself; 1 turns only."""
    turns: bool = True
    """Turn by 0, 90, 180 or 270 degrees as well."""

    @model_validator(mode="after")
    def _check_moves(self) -> Self:
        check(
            self.turns or self.smallest_scale < 1,
            "smallest_scale is 1 and turns is false, which leaves latents as they are; change one of them",
        )
        return self


class FirstStageLossOptions(Part):
    """The loss of a first stage. All its terms are means over images and elements."""

    reconstruction: Literal["l1", "l2"] = "l1"
    """The distance in pixels."""
    perceptual_weight: float = option(0.0, ge=0)
    """Weight of the perceptual distance beside it."""
    lpips: LPIPSOptions | None = None
    """The perceptual distance, null for none."""
    kl_weight: float = option(1e-6, ge=0)
    """Weight of the KL term, summed over an image's latents, against the distance, summed over its pixels."""
    codebook: CodebookOptions = CodebookOptions()
    """The codebook's loss, for `VQModel`."""
    adversarial: AdversarialOptions | None = None
    """The discriminator and its loss, null for none."""
    equivariance: EquivarianceOptions | None = None
    """EQ-VAE regularisation, null for none."""

    @model_validator(mode="after")
    def _check_lpips(self) -> Self:
        check(
            self.lpips is not None or not self.perceptual_weight,
            f"perceptual_weight is {self.perceptual_weight}, but lpips is missing; give the files of its weights, as "
            "lpips: {vgg16: FILE, heads: FILE}, or set perceptual_weight to 0",
        )
        return self


TERMS = ("reconstruction", "perceptual", "kl", "codebook", "equivariance", "adversarial", "discriminator")
"""The terms of the loss: "adversarial" is what the autoencoder learns of the discriminator, and "discriminator" what
that learns itself."""


class PhaseOptions(Part):
    """A part of a run, which lasts until the next one starts."""

    name: str
    """What messages call it."""
    start_step: int | None = option(None, ge=0)
    """Step at which it starts; 0 for the first one, where it may be left out."""
    start_share: float | None = option(None, ge=0, lt=1)
    """The same as a share of max_train_steps."""
    trainable: Literal["all", "decoder", "discriminator"] = "all"
    """What is trained: "all", the "decoder" with the discriminator, or the "discriminator" alone."""
    weights: dict[str, float] = option({})
    """Factors of the loss's terms, 1 for those that are left out. With adversarial 0 a discriminator learns, but nobody
    learns of it; with discriminator 0 it rests. That of equivariance is one of its probability."""

    @model_validator(mode="after")
    def _check_numbers(self) -> Self:
        check(
            self.start_step is None or self.start_share is None,
            f"start_step is {self.start_step}, and start_share is given too; give one of them",
        )
        for term, factor in self.weights.items():
            check(term in TERMS, f"weights has {term!r}, which is no term of the loss; {nearest(term, TERMS)}")
            check(factor >= 0, f"weights.{term} is {factor:g}; it must be at least 0")
        check(
            self.weights.get("equivariance", 0) <= 1,
            f"weights.equivariance is {self.weights.get('equivariance')}; it must be at most 1, raise the probability",
        )
        return self

    def start(self, steps: int) -> int:
        """The step of a run of so many steps at which it starts."""
        return self.start_step or 0 if self.start_share is None else round(self.start_share * steps)


class FirstStageReportOptions(Part):
    """The report on the trained first stage, of the images that are held out."""

    features: str | None = None
    """Features by which reconstructions and originals are compared as sets, as `latentdiff evaluate` takes them, such
    as inception (rFID) or efficientnet_lite0; null leaves that out."""


class FirstStageValidationOptions(MeasuredValidationOptions):
    """Looks at the reconstructions of images that are not trained on."""

    share: float = option(0.0, ge=0, lt=1)
    """Share of the training images that is held out for validation, in place of data_dir."""
    count: int | None = option(None, ge=2)
    """Number of held-out images whose reconstructions `metrics` are of, from the first on; null for all."""

    @property
    def choices(self) -> list[str]:
        """What can choose the best weights, the default first."""
        return [*self.metrics, "loss"]

    @model_validator(mode="after")
    def _check_images(self) -> Self:
        sources = [name for name in ("data_dir", "share") if getattr(self, name)]
        check(len(sources) < 2, "data_dir is given, and share too; give one of them")
        check(
            bool(sources) or not self.steps,
            f"steps is {self.steps}, but no image is held out; give data_dir or share, or set steps to 0",
        )
        check(not self.given("count") or bool(self.metrics), "count is given without metrics; give both, or neither")
        return self
