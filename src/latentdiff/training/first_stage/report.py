"""The report at the end of a first stage's run: figures of the images that are held out, and a picture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from latentdiff.config import check
from latentdiff.data.bad_files import BadFiles
from latentdiff.data.records import Records
from latentdiff.evaluation.features import FeatureExtractor, load_extractor
from latentdiff.evaluation.first_stage import FirstStageEvaluation
from latentdiff.evaluation.image_sets import FileImages
from latentdiff.evaluation.pairs import USUAL_FILES, Perceptual
from latentdiff.evaluation.protocols import Report, Result
from latentdiff.evaluation.reports import as_json, as_markdown
from latentdiff.io.files import write_json, write_text
from latentdiff.io.staging import ASIDE, make_entry, remove_entry
from latentdiff.pipelines.codec import decode, encode, factor
from latentdiff.training.engine.belongings import REPORT
from latentdiff.training.engine.measures import NamedImages
from latentdiff.training.first_stage.autoencoder import Autoencoder, load_first_stage
from latentdiff.training.first_stage.held_out import HeldOut
from latentdiff.training.first_stage.measured import HELD_OUT, readable
from latentdiff.training.recipes import FirstStageRecipe

PICTURE = f"{REPORT}.png"


@dataclass
class FirstStageReport:
    """A report that can be made when the run has ended.

    Attributes:
        held_out: The images as training reads them, and what measures them.
        images: The same as pixels of RGB; None for images of other kinds, whose figures are those of validation.
        features: What they are compared by as sets, if so.
        perceptual: Files of weights.
        device: Where networks compute.
    """

    held_out: HeldOut
    images: FileImages | None
    features: FeatureExtractor | None
    perceptual: Perceptual
    device: torch.device

    def write(self, folder: Path) -> None:
        """Measure the first stage in `folder/vae`, and write `report.md`, `report.json` and `report.png` there."""
        vae = load_first_stage(str(folder / "vae")).to(self.device)
        looked = self.held_out.look(lambda images: _reconstructed(vae, images), folder / PICTURE)
        count = str(len(self.held_out.images))
        report = self._evaluate(vae, folder)
        known = {result.metric for result in report.results} | {"loss"}
        seen = [Result(name, (count, HELD_OUT), value) for name, value in looked.items() if name not in known]
        results = [*report.results, *seen, *latent_statistics(vae, self.held_out, count)]
        found = Report(results, report.facts, report.notes)
        write_json(folder / f"{REPORT}.json", as_json(found))
        write_text(folder / f"{REPORT}.md", f"{as_markdown(found)}\n![originals above reconstructions]({PICTURE})\n")

    def _evaluate(self, vae: Autoencoder, folder: Path) -> Report:
        """What `latentdiff evaluate first-stage` says of the images, of those that it can read."""
        if self.images is None:
            return Report([], {"first_stage": type(vae).__name__, "downsampling": factor(vae)})
        aside = make_entry(folder / REPORT, ASIDE)
        try:
            evaluation = FirstStageEvaluation(
                vae,
                NamedImages(self.images, HELD_OUT),
                aside / "images",
                features=self.features,
                perceptual=self.perceptual,
                device=self.device,
                cache=aside / "features",
            )
            evaluation.do(evaluation.shards(), lambda told: None)
            if (sets := evaluation.sets()) is not None:
                sets.compute()
            return evaluation.report()
        finally:
            remove_entry(aside)


def make_report(
    recipe: FirstStageRecipe, held_out: HeldOut, records: Records, rgb: bool, bad: BadFiles, device: torch.device
) -> FirstStageReport:
    """What makes the report, all of whose weights are there.

    Args:
        recipe: Gives the features, and the files of LPIPS if it names them.
        held_out: The images that are held out.
        records: The same as records.
        rgb: Whether they are RGB images of 8 bits.
        bad: Hears of images that can't be decoded.
        device: Where networks compute.

    Raises:
        ConfigError: If images of other kinds are to be compared by features of RGB.
        CheckpointError: If weights of features are missing.
    """
    assert recipe.report is not None
    features, lpips = recipe.report.features, recipe.loss.lpips
    check(rgb or features is None, "report.features are of RGB images of 8 bits, which these are not; leave it out")
    return FirstStageReport(
        held_out,
        readable(FileImages(records, recipe.data.resolution), None, bad) if rgb else None,
        None if features is None else load_extractor(features, device),
        USUAL_FILES if lpips is None or lpips.preprocessing else Perceptual(lpips.vgg16, lpips.heads),
        device,
    )


@torch.no_grad()
def latent_statistics(vae: Autoencoder, held_out: HeldOut, count: str) -> list[Result]:
    """Mean and standard deviation of latents, also the least and largest of a channel, and of KL its nats an image.

    Args:
        vae: KL or VQ, whose latents are taken unscaled: posterior means, or what is quantised.
        held_out: The images.
        count: Their number, for the numbers' names.
    """
    sums, pixels, nats, images = torch.zeros(2, vae.config.latent_channels, dtype=torch.float64), 0, 0.0, 0
    for batch in _batches(held_out):
        output = vae.encode(batch.to(vae.device))
        posterior = getattr(output, "latent_dist", None)
        latents = (output.latents if posterior is None else posterior.mode()).double().cpu()
        sums += torch.stack([latents.sum((0, 2, 3)), latents.square().sum((0, 2, 3))])
        pixels, images = pixels + latents[:, 0].numel(), images + len(batch)
        nats += 0.0 if posterior is None else float(posterior.kl().sum())
    mean, square = sums / pixels
    stds = (square - mean**2).clamp(min=0).sqrt()
    std = float((square.mean() - mean.mean() ** 2).clamp(min=0).sqrt())
    found = {"latent_mean": float(mean.mean()), "latent_std": std}
    found |= {"latent_std_least_channel": float(stds.min()), "latent_std_largest_channel": float(stds.max())}
    found |= {"kl": nats / images} if nats else {}
    return [Result(name, (count, HELD_OUT), value) for name, value in found.items()]


def _batches(held_out: HeldOut) -> Iterator[Tensor]:
    for start in range(0, len(held_out.images), held_out.batch_size):
        numbers = range(start, min(start + held_out.batch_size, len(held_out.images)))
        yield torch.stack([held_out.images[number] for number in numbers])


def _reconstructed(vae: Autoencoder, images: Tensor) -> tuple[Tensor, Tensor]:
    """The images, and what the first stage makes of them in [0, 1], on its device."""
    decoded = decode(vae, encode(vae, images, scaled=True), must_be_finite=False)
    return images.to(vae.device), decoded.to(vae.device)
