"""The parts of a recipe that first stages alone have."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from latentdiff.config import Part, check, option
from latentdiff.data.options import DataOptions
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
    norm: Literal["batch", "act"] = "batch"
    """Normalisation: "batch", as in the published models, or "act" for ActNorm."""


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
    """Steps from there over which its weight rises to the full."""


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

    @model_validator(mode="after")
    def _check_lpips(self) -> Self:
        check(
            self.lpips is not None or not self.perceptual_weight,
            f"perceptual_weight is {self.perceptual_weight}, but lpips is missing; give the files of its weights, as "
            "lpips: {vgg16: FILE, heads: FILE}, or set perceptual_weight to 0",
        )
        return self


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
