"""The classifier of noisy latents for guidance (appendix C of the paper)."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F

from latentdiff.config import check
from latentdiff.data.bad_files import SkipBadFiles
from latentdiff.data.images import Images
from latentdiff.data.latent_cache import Columns, LatentRows
from latentdiff.errors import InputError
from latentdiff.models.classifier import NoisyLatentClassifier
from latentdiff.pipelines.base import DiffusionPipeline
from latentdiff.schedulers.ddim import DDIMScheduler
from latentdiff.seeding import SampleGenerators
from latentdiff.training.data import encode_latents, open_bad_files, open_held_out, open_training_images
from latentdiff.training.diffusion.conditioners.base import build
from latentdiff.training.diffusion.conditioners.classes import labels_of
from latentdiff.training.diffusion.losses import draw_noisy
from latentdiff.training.engine.export import export_folder
from latentdiff.training.engine.loop import Run, train
from latentdiff.training.engine.resume_check import FIRST_STAGE, check_before_caches
from latentdiff.training.engine.session import Session, open_session
from latentdiff.training.engine.task import Task
from latentdiff.training.recipes import ClassifierRecipe


class ClassifierTask(Task[dict[str, torch.Tensor]]):
    """Cross-entropy of log p(y | z_t, t) at timesteps that are all as likely.

    Args:
        classifier: Trained in place.
        pipeline: The pipeline whose latents and noise schedule it is for.
        first_stage: What tells its first stage from others, as the latent cache says it.
    """

    def __init__(
        self, classifier: NoisyLatentClassifier, pipeline: DiffusionPipeline, first_stage: str | None = None
    ) -> None:
        super().__init__()
        self.first_stage = first_stage
        self.classifier = classifier.train()
        self.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
        self.vae_config = pipeline.vae.config

    def forward(
        self, batch: dict[str, torch.Tensor], draws: SampleGenerators
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss of posterior parameters `moments` (B, 2c, h, w) and classes `labels` (B,)."""
        latents, noise, timesteps = draw_noisy(batch["moments"], self.vae_config, self.scheduler, draws)
        logits = self.classifier(self.scheduler.add_noise(latents, noise, timesteps), timesteps).float()
        accuracy = (logits.argmax(dim=1) == batch["labels"]).float().mean()
        return F.cross_entropy(logits, batch["labels"]), {"accuracy": accuracy}

    def export(self, folder: Path) -> None:
        """Write the classifier as `folder/classifier`."""
        export_folder(folder / "classifier", self.classifier.save_pretrained)

    def identity(self) -> dict[str, object]:
        """The first stage, whose latents are classified."""
        return {FIRST_STAGE: self.first_stage}


def make_classifier(recipe: ClassifierRecipe, pipeline: DiffusionPipeline, images: Images) -> NoisyLatentClassifier:
    """A new classifier of the pipeline's latents into the classes of the images.

    Raises:
        InputError: If the images have fewer than two classes.
        ConfigError: If the recipe's options don't fit.
    """
    if images.num_classes < 2:
        raise InputError(
            f"{images.root} has {images.num_classes} classes; sort the images into sub-folders by class, or give "
            "'label' in metadata.jsonl"
        )
    classifier: NoisyLatentClassifier = build(
        NoisyLatentClassifier,
        "classifier",
        recipe.classifier,
        sample_size=images.resolution // pipeline.vae_scale_factor,
        in_channels=pipeline.vae.config.latent_channels,
        num_classes=images.num_classes,
        class_names=images.class_names,
    )
    return classifier


def train_classifier(recipe: ClassifierRecipe, run: Run = train, limit: int | None = None) -> Path:
    """Train a classifier on a folder of images by class; returns the output folder, which holds `classifier/`.

    Args:
        recipe: What is to be trained, and how.
        run: `train`, or a rehearsal.
        limit: The number of images whose latents are encoded; None for all.

    Raises:
        ConfigError: If the recipe doesn't fit together, or doesn't fit the images.
        CheckpointError: If the pipeline can't be loaded.
        InputError: If there are no images, or fewer than two classes of them.
    """
    with open_session(recipe) as session:
        return run(*_prepared(recipe, session, limit))


def _prepared(
    recipe: ClassifierRecipe, session: Session, limit: int | None
) -> tuple[
    ClassifierTask,
    SkipBadFiles[dict[str, torch.Tensor]],
    ClassifierRecipe,
    Session,
    SkipBadFiles[dict[str, torch.Tensor]] | None,
]:
    """What is run: the task, its data, and the held out data that validation looks at."""
    one_size = recipe.data.buckets is None
    check(one_size, "data.buckets is given, but a classifier is of latents of one size; leave it out")
    torch.manual_seed(recipe.seed)
    pipeline = DiffusionPipeline.from_pretrained(recipe.pretrained_model_name_or_path)
    images = open_training_images(recipe, pipeline.vae.config.in_channels)
    classifier = make_classifier(recipe, pipeline, images)
    check_before_caches(session.checkpoint, recipe, len(images))
    bad_files = open_bad_files(recipe, images, session.accelerator)
    held_out = None
    if unseen := open_held_out(recipe, images.channels):
        labels = labels_of(unseen, images.class_names, images.num_classes)
        latents = encode_latents(session, pipeline.vae, unseen, bad_files, limit, held_out=True)
        held_out = SkipBadFiles(LatentRows(latents, Columns(labels=labels)), unseen.files, bad_files, recipe.seed)
    latents = encode_latents(session, pipeline.vae, images, bad_files, limit, latents_dir=recipe.latents_dir)
    rows = LatentRows(latents, Columns(labels=torch.tensor(images.labels)))
    items = SkipBadFiles(rows, images.files, bad_files, recipe.seed)
    return ClassifierTask(classifier, pipeline, latents.first_stage), items, recipe, session, held_out
