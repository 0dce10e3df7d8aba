"""First stage: the autoencoder that makes the latent space (section 3.1 of the paper)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from accelerate.utils import DistributedType
from torch import Tensor
from torch.utils.data import Dataset, Subset

from latentdiff.config import check
from latentdiff.data.bad_files import BadFiles, SkipBadFiles
from latentdiff.data.images import Images, Visits
from latentdiff.data.records import Records
from latentdiff.io.stored import Stored
from latentdiff.models.lpips import PerceptualDistance
from latentdiff.models.tiny_decoder import TinyDecoder
from latentdiff.pipelines.codec import decode, encode, factor
from latentdiff.seeding import SampleGenerators, generator
from latentdiff.training.data import open_bad_files, open_held_out, open_training_images
from latentdiff.training.engine.ema import EMA
from latentdiff.training.engine.export import export_folder
from latentdiff.training.engine.loop import Run, train
from latentdiff.training.engine.resume_check import FIRST_STAGE
from latentdiff.training.engine.session import Session, open_session
from latentdiff.training.engine.task import Task
from latentdiff.training.first_stage.adversarial import LARGEST_WEIGHT, Adversarial
from latentdiff.training.first_stage.autoencoder import Autoencoder, make_first_stage
from latentdiff.training.first_stage.bottlenecks import KLBottleneck, VQBottleneck, make_bottleneck
from latentdiff.training.first_stage.colours import fit_colours
from latentdiff.training.first_stage.discriminator import PatchDiscriminator
from latentdiff.training.first_stage.distillation import Teacher, make_tiny_decoder
from latentdiff.training.first_stage.held_out import HeldOut, Tensors, check_held_out
from latentdiff.training.first_stage.measured import make_measures
from latentdiff.training.first_stage.options import FirstStageLossOptions
from latentdiff.training.first_stage.reconstruction import Reconstruction, load_perceptual
from latentdiff.training.recipes import FirstStageRecipe

CODEBOOK = "vae.quantize.embedding.weight"


class FirstStageTask(Task[torch.Tensor]):
    """Reconstruction in pixels and features, a penalty on the latents, and a discriminator (appendix G, eq. 25).

    Args:
        vae: KL or VQ; encodes images (B, C, H, W) in [-1, 1].
        recipe: Gives the terms and their weights, and what is trained.
        perceptual: On the device of the run; needed for `loss.perceptual_weight`.
        held_out: Images (C, H, W) in [-1, 1] that validation looks at.
        images: Some images (C, H, W) in [-1, 1], on which the map from latents to colours is fitted.

    Raises:
        ConfigError: If an option is for another kind of first stage, or the discriminator can't be built.
    """

    def __init__(
        self,
        vae: Autoencoder,
        recipe: FirstStageRecipe,
        perceptual: PerceptualDistance | None = None,
        held_out: Tensors = (),
        images: Tensors = (),
    ) -> None:
        super().__init__()
        self.vae, self.recipe, self.images = vae, recipe, images
        self.bottleneck = make_bottleneck(vae, recipe.loss, recipe.gradient_accumulation_steps)
        if recipe.trainable == "all":
            _check_used(type(vae).__name__, self.bottleneck.option, recipe.loss)
        else:
            _check_used(f"{type(vae).__name__}'s decoder", None, recipe.loss)
            vae.requires_grad_(False)
            for part in (vae.decoder, vae.post_quant_conv):
                if part is not None:
                    part.requires_grad_(True)
        self.reconstruction = Reconstruction(recipe.loss, perceptual)
        self.held_out = HeldOut(held_out, recipe.train_batch_size, self.reconstruction)
        self.adversarial = None
        if recipe.loss.adversarial is not None:
            channels, resolution = vae.config.out_channels, recipe.data.resolution
            discriminator = PatchDiscriminator(channels, **recipe.loss.adversarial.discriminator.model_dump())
            check(
                resolution >= discriminator.smallest,
                f"data.resolution is {resolution}, but the discriminator needs {discriminator.smallest}; give it fewer "
                "layers",
            )
            elements = channels * resolution**2 if self.bottleneck.summed else 1
            self.adversarial = Adversarial(discriminator, recipe.loss.adversarial, LARGEST_WEIGHT / elements)

    def forward(self, batch: torch.Tensor, draws: SampleGenerators) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss of images (B, C, H, W)."""
        batch = _flipped(batch, draws) if self.recipe.data.random_flip else batch
        decoded, penalty, values = self.bottleneck(self.vae, batch, draws)
        loss, more = self.reconstruction(decoded, batch)
        values = {**more, **values}
        if self.adversarial is not None:
            adversarial, more = self.adversarial(batch, decoded, loss, self.vae.decoder.conv_out.weight, self.step)
            loss, values = loss + adversarial, {**values, **more}
        return loss + penalty if self.recipe.trainable == "all" else loss, values

    def after_step(self, ema: EMA | None, rng: torch.Generator) -> None:
        """Restart codes that nothing chooses."""
        codebooks = [self.get_parameter(CODEBOOK)] if isinstance(self.bottleneck, VQBottleneck) else []
        averaged = [ema.shadow[CODEBOOK]] if ema and CODEBOOK in ema.shadow else []
        self.bottleneck.after_step(self.step + 1, codebooks + averaged, rng)

    def validate(self, folder: Path, step: int) -> dict[str, float]:
        """Measure and show the reconstructions of the images held out."""
        return self.held_out.look(self._reconstructed, folder / f"reconstructions-{step}.png")

    def _reconstructed(self, images: Tensor) -> tuple[Tensor, Tensor]:
        decoded = decode(self.vae, encode(self.vae, images, scaled=True), must_be_finite=False)
        return images.to(self.vae.device), decoded.to(self.vae.device)

    def export(self, folder: Path) -> None:
        """Write the autoencoder as `folder/vae`, with its map from latents to colours."""
        fit_colours(self.vae, self.images)
        export_folder(folder / "vae", self.vae.save_pretrained)


class DistillationTask(Task[torch.Tensor]):
    """A tiny decoder of a trained first stage's latents, which learns to decode as that does, in pixels and features.

    Args:
        teacher: The trained first stage.
        decoder: What is trained.
        recipe: Gives the terms of the loss.
        perceptual: On the device of the run; needed for `loss.perceptual_weight`.
        held_out: Images (C, H, W) in [-1, 1] that validation looks at.
    """

    def __init__(
        self,
        teacher: Teacher,
        decoder: TinyDecoder,
        recipe: FirstStageRecipe,
        perceptual: PerceptualDistance | None = None,
        held_out: Tensors = (),
    ) -> None:
        super().__init__()
        self.teacher, self.decoder, self.recipe = teacher, decoder, recipe
        self.reconstruction = Reconstruction(recipe.loss, perceptual)
        self.held_out = HeldOut(held_out, recipe.train_batch_size, self.reconstruction)
        self.first_stage = teacher.fingerprint()

    def forward(self, batch: torch.Tensor, draws: SampleGenerators) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss of images (B, C, H, W)."""
        batch = _flipped(batch, draws) if self.recipe.data.random_flip else batch
        latents = self.teacher.latents(batch, draws)
        targets = self.teacher.decode(latents).to(batch.dtype)
        return self.reconstruction(self.decoder(latents).to(batch.dtype), targets)

    def identity(self) -> dict[str, object]:
        """The teacher, whose latents are learned."""
        return {FIRST_STAGE: self.first_stage}

    def validate(self, folder: Path, step: int) -> dict[str, float]:
        """Measure and show what the decoder makes of held-out images' latents, against what the teacher does."""
        return self.held_out.look(self._reconstructed, folder / f"reconstructions-{step}.png")

    def _reconstructed(self, images: Tensor) -> tuple[Tensor, Tensor]:
        vae = self.teacher.vae
        latents = encode(vae, images, scaled=True)
        first, second = (decode(stage, latents, must_be_finite=False).to(vae.device) for stage in (vae, self.decoder))
        return first * 2 - 1, second

    def export(self, folder: Path) -> None:
        """Write the decoder as `folder/decoder`."""
        export_folder(folder / "decoder", self.decoder.save_pretrained)


def _flipped(images: Tensor, draws: SampleGenerators) -> Tensor:
    """Images (B, C, H, W), each of them mirrored or not by its own draw."""
    mirrored = draws.uniform().to(images.device) < 0.5
    return torch.where(mirrored[:, None, None, None], images.flip(-1), images)


def _check_used(trained: str, used: str | None, loss: FirstStageLossOptions) -> None:
    """Refuse the options of other bottlenecks than the one that is trained, whose option is `used`."""
    for name in (KLBottleneck.option, VQBottleneck.option):
        fits = name == used or not loss.given(name)
        check(fits, f"loss.{name} is given, but training this {trained} does not use it; leave it out")


def train_first_stage(recipe: FirstStageRecipe, run: Run = train, limit: int | None = None) -> Path:
    """Train an autoencoder on a folder of images; returns the output folder, which holds `vae/`, or else `decoder/`.

    Args:
        recipe: What is to be trained, and how.
        run: `train`, or a rehearsal.
        limit: Unused, as no latents are encoded; it is there for all stages to be called alike.

    Raises:
        ConfigError: If the recipe doesn't fit together, or doesn't fit the images.
        CheckpointError: If weights can't be loaded.
        InputError: If there are no images.
    """
    with open_session(recipe) as session:
        return run(*_prepared(recipe, session))


def _prepared(
    recipe: FirstStageRecipe, session: Session
) -> tuple[Task[torch.Tensor], SkipBadFiles[torch.Tensor], FirstStageRecipe, Session]:
    """What is run: the task and its data."""
    accelerator, loss = session.accelerator, recipe.loss
    act = loss.adversarial is not None and loss.adversarial.discriminator.norm == "act"
    check(
        accelerator.distributed_type is not DistributedType.DEEPSPEED or not (loss.codebook.restart or act),
        "a first stage with codebook.restart or a discriminator with norm: act is not trained by DeepSpeed, which has "
        "copies of the weights that they write into; launch without it",
    )
    check(
        accelerator.distributed_type is not DistributedType.FSDP or not (loss.adversarial or loss.codebook.restart),
        "a first stage with a discriminator or codebook.restart is not trained by FSDP, as both look at whole weights; "
        "launch without it, first stages fit one device",
    )
    torch.manual_seed(recipe.seed)
    images = open_training_images(recipe, recipe.data.channels)
    bad_files = open_bad_files(recipe, images, accelerator)
    trained, held_out, records = _parts(recipe, images, bad_files)
    perceptual = None
    if loss.lpips is not None:
        perceptual = load_perceptual(loss.lpips, images.channels, images.resolution).to(accelerator.device)
    vae, buckets = make_first_stage(recipe.model, images.channels, images.resolution), recipe.data.buckets
    check(
        buckets is None or buckets.multiple % factor(vae) == 0,
        f"data.buckets.multiple is {buckets and buckets.multiple}; this first stage needs a multiple of {factor(vae)}",
    )
    if recipe.distill_decoder:
        decoder = make_tiny_decoder(recipe.decoder, vae, trained)
        teacher = Teacher(vae.to(accelerator.device))
        return DistillationTask(teacher, decoder, recipe, perceptual, held_out), trained, recipe, session
    task = FirstStageTask(vae, recipe, perceptual, held_out, trained)
    if recipe.validation.measures:
        task.measures = make_measures(task.vae, records, images.channels, recipe, bad_files, accelerator)
    return task, trained, recipe, session


def _parts(
    recipe: FirstStageRecipe, images: Images, bad_files: BadFiles
) -> tuple[SkipBadFiles[torch.Tensor], Tensors, Records]:
    """The images to train on, those held out (of a folder of their own, or a share of the same), and their records."""

    def readable(items: Dataset[torch.Tensor], files: Sequence[Stored]) -> SkipBadFiles[torch.Tensor]:
        return SkipBadFiles(items, files, bad_files, recipe.seed)

    visits = Visits(images, recipe.seed)
    trained, unseen = readable(visits, images.files), open_held_out(recipe, images.channels)
    if not recipe.validation.steps:
        return trained, (), images.records.subset([])
    held_out: SkipBadFiles[torch.Tensor]
    if unseen is not None:
        held_out, records = readable(unseen, unseen.files), unseen.records
    else:
        order = torch.randperm(len(images), generator=generator(recipe.seed)).tolist()
        cut, keys = round(recipe.validation.share * len(images)), images.records.keys()
        seen = {keys[place] for place in order[:cut]}  # metadata may name an image twice
        kept, rest = sorted(order[:cut]), sorted(place for place in order[cut:] if keys[place] not in seen)
        held_out = readable(Subset(images, kept), [images.files[place] for place in kept])
        trained = readable(Visits(images, recipe.seed, rest), [images.files[place] for place in rest])
        records = images.records.subset(kept)
    check_held_out(held_out, images.resolution)
    share = recipe.validation.share
    check(len(trained) > 0, f"validation.share is {share}, which leaves no image to train on; lower it")
    return trained, held_out, records
