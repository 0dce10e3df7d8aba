"""What a first stage makes of images: the Python side of `latentdiff evaluate first-stage`.

Reconstructions are written as files, so that processes can share the work, an interrupted run goes on, and whatever
compares images compares them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from latentdiff import __version__
from latentdiff.bulk.shards import Shard, Tell, Told, split
from latentdiff.bulk.threads import map_in_threads
from latentdiff.data.records import Records
from latentdiff.errors import CheckpointError, InputError
from latentdiff.evaluation.features import FeatureExtractor, load_extractor
from latentdiff.evaluation.image_sets import ChosenImages, FileImages, ImageSet, counted, open_images
from latentdiff.evaluation.pairs import USUAL_FILES, Perceptual, choose, evaluate_pairs
from latentdiff.evaluation.protocols import Report, Result
from latentdiff.evaluation.references import Reference
from latentdiff.evaluation.samples import DEFAULT_FEATURES, SamplesEvaluation
from latentdiff.evaluation.set_metrics import check_names
from latentdiff.hub.component_folder import CONFIG_FILES, ComponentFolder
from latentdiff.hub.components import FIRST_STAGES
from latentdiff.hub.find import local_path, model_of_run
from latentdiff.hub.index import INDEX, IndexEntry
from latentdiff.hub.networks import load_alone
from latentdiff.io.files import atomic_file
from latentdiff.pipelines.base import DiffusionPipeline
from latentdiff.pipelines.codec import decode, encode, factor
from latentdiff.types import Array, FirstStage

BLOCK = 8  # images that are encoded at once: always as many, as the last bits depend on it
PLAN = "reconstruction.json"
OF_SETS = {"rfid": "fid", "rfrechet": "frechet", "ris": "is"}
"""Metrics of reconstructions as a set, and what they are called of samples."""


def first_stage_of(model: str) -> FirstStage:
    """The first stage of a model, or one that lies by itself, in float32.

    Args:
        model: "builtin:NAME", a pipeline's folder, that of a first stage or of a training run, or a hub id.

    Raises:
        CheckpointError: If there is none, or it can't be loaded.
        HubError: If the hub doesn't know it or can't be reached.
    """
    folder = local_path(model_of_run(model))
    alone = folder / "vae" if (folder / INDEX).is_file() and (folder / "vae" / CONFIG_FILES[0]).is_file() else folder
    if (alone / CONFIG_FILES[0]).is_file():
        part = ComponentFolder.open(alone)
        kind = part.class_name or "AutoencoderKL"
        if kind not in FIRST_STAGES:
            raise CheckpointError(f"{alone} is a {kind}, no first stage; give one, or a model that has one")
        stage: FirstStage = load_alone(part, IndexEntry(alone.name, FIRST_STAGES[kind], kind), torch.float32)
        return stage
    if folder.is_dir() and not (folder / INDEX).is_file():
        raise CheckpointError(
            f"{folder} holds no {INDEX} and no {CONFIG_FILES[0]}; give the folder of a model or of a first stage"
        )
    pipeline = DiffusionPipeline.from_pretrained(model)
    found: FirstStage = pipeline.components["vae"]
    return found


class FirstStageEvaluation:
    """An evaluation in three steps, of which processes can share the first two: `do` the shards of images, compute
    the features of `sets`, then `report`.

    Args:
        model: A model or first stage, as `first_stage_of` takes it, or a loaded one.
        data: Images, as `open_images` takes them.
        output: The folder of the reconstructions, in which those that are there are kept.
        metrics: Those of `evaluate_pairs`, and "rfid", "rfrechet", "ris" and "codebook"; None computes whatever can be.
        features: The extractor for the first three, as `load_extractor` takes it; None leaves them out.
        perceptual: Files of weights.
        count: How many images, from the first on; None takes all.
        resolution: The side of the squares that images are cropped and resized to; None takes them as they are.
        device: Where networks compute.
        cache: Where features are kept.

    Raises:
        InputError: If images don't fit the first stage, or the folder has reconstructions of something else.
        CheckpointError: If weights that are asked for are missing or damaged.
    """

    def __init__(
        self,
        model: str | FirstStage,
        data: str | Path | ImageSet,
        output: str | Path,
        *,
        metrics: Sequence[str] | None = None,
        features: str | FeatureExtractor | None = DEFAULT_FEATURES,
        perceptual: Perceptual = USUAL_FILES,
        count: int | None = None,
        resolution: int | None = None,
        device: torch.device | str = "cpu",
        cache: str | Path | None = None,
    ) -> None:
        self.images = open_images(data, resolution) if isinstance(data, (str, Path)) else data
        self.count = counted(self.images, count)
        self.output, self.metrics, self.features = Path(output), metrics, features
        self.perceptual, self.device, self.cache = perceptual, torch.device(device), cache
        self.vae = first_stage_of(model) if isinstance(model, str) else model
        self.vae.to(self.device)
        self.name = model if isinstance(model, str) else type(model).__name__
        self.weights = _hash(self.vae)
        self.codes = getattr(self.vae.config, "num_vq_embeddings", None)
        if metrics is not None:
            check_names([OF_SETS[name] for name in metrics if name in OF_SETS] or ["fid"])
            if "codebook" in metrics and self.codes is None:
                raise InputError(f"codebook is asked for, but {self.name} is no VQ first stage; leave it out")
        self._sets: SamplesEvaluation | None = None
        self._check_size()
        self._check_plan()
        if self.count < 2:
            if asked := [name for name in metrics or () if name in OF_SETS]:
                raise InputError(f"{asked[0]} compares sets of images, and {self.count} is given; give at least 2")
            self.features = None
        if isinstance(self.features, str) and self._of_sets() != []:
            self.features = load_extractor(self.features, self.device)
        if of_pairs := self._of_pairs():
            choose(of_pairs, perceptual, min(self.images.pixels(0).shape[:2]), self.device)

    def shards(self) -> list[Shard]:
        """The blocks of images that are encoded at once."""
        return split(self.count, BLOCK)

    def is_done(self, shard: Shard) -> bool:
        """Whether the reconstructions of a block are there."""
        return self._is_there(shard.items)

    def do(self, shards: Sequence[Shard], tell: Tell) -> None:
        """Write the reconstructions of some blocks."""
        self.output.mkdir(parents=True, exist_ok=True)
        with atomic_file(self.output / PLAN) as aside:
            aside.write_text(json.dumps(self._plan(), indent=2))
        blocks = [shard.items for shard in shards]
        for block, _ in zip(blocks, map_in_threads(self._write, blocks, self.device), strict=True):
            tell(Told(len(block)))

    def sets(self) -> SamplesEvaluation | None:
        """The comparison of the reconstructions, all of which must be there, with the images as sets, if one is due.

        Processes share its features as those of samples.
        """
        of_sets = self._of_sets()
        if of_sets == [] or self.features is None:
            return None
        if self._sets is None:
            self._sets = SamplesEvaluation(
                self._made(),
                Reference(Path(self.images.name).stem, ChosenImages(self.images, range(self.count))),
                metrics=["frechet"] if of_sets is None else of_sets,
                features=self.features,
                device=self.device,
                cache=self.cache,
            )
        return self._sets

    def report(self, done: Callable[[int], None] = lambda images: None) -> Report:
        """Compare the reconstructions with the images; all of them, and the features of `sets`, must be there.

        Args:
            done: Hears how many images each step of a comparison one by one had.
        """
        of_pairs = self._of_pairs()
        results: list[Result] = []
        notes: list[str] = []
        sets = self.sets()
        if self.count < 2 and self.metrics is None:
            notes.append("the distance of the sets left out: 1 image is given, and it needs 2")
        if sets is not None:
            results += [Result(f"r{r.metric}", r.protocol, r.value, r.std) for r in sets.report().results]
        if of_pairs != []:
            originals = ChosenImages(self.images, range(self.count))
            pairs = evaluate_pairs(
                self._made(), originals, metrics=of_pairs, perceptual=self.perceptual, device=self.device, done=done
            )
            results, notes = [*results, *pairs.results], [*notes, *pairs.notes]
        if self.codes is not None and (self.metrics is None or "codebook" in self.metrics):
            results += codebook_use(self._counts(), str(self.count))
        facts = {"first_stage": self.name, "downsampling": factor(self.vae), **self._plan(), "torch": torch.__version__}
        return Report(results, facts, notes)

    def _of_sets(self) -> list[str] | None:
        """The metrics of sets that are asked for, by what they are called of samples; None for all that can be."""
        return None if self.metrics is None else [OF_SETS[name] for name in self.metrics if name in OF_SETS]

    def _of_pairs(self) -> list[str] | None:
        """Likewise of images one by one."""
        return None if self.metrics is None else [n for n in self.metrics if n not in OF_SETS and n != "codebook"]

    def _made(self) -> FileImages:
        """The reconstructions."""
        files = [self.output / f"{number:06d}.png" for number in range(self.count)]
        return FileImages(Records(self.output, files, watched=files), None)

    def _is_there(self, block: range) -> bool:
        codes = self.codes is None or self._code_file(block).is_file()
        return codes and all((self.output / f"{number:06d}.png").is_file() for number in block)

    def _code_file(self, block: range) -> Path:
        return self.output / "codes" / f"{block.start:06d}.npy"

    @torch.no_grad()
    def _write(self, block: range) -> None:
        """Write the reconstructions of a block, and how often each code is used in it."""
        pixels = np.stack([self.images.pixels(number) for number in block])
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div(127.5).sub(1)
        images = torch.cat([images, images[-1:].expand(BLOCK - len(block), -1, -1, -1)])
        latents = encode(self.vae, images, scaled=True)
        if self.codes is not None:
            own = latents[: len(block)] / self.vae.config.scaling_factor
            used = self.vae.indices(own).flatten().cpu().numpy()  # type: ignore[attr-defined]  # of a VQ model
            with atomic_file(self._code_file(block)) as aside, open(aside, "wb") as stream:
                np.save(stream, np.bincount(used, minlength=self.codes))
        for number, image in zip(block, decode(self.vae, latents), strict=False):
            made = image.mul(255).round().to(torch.uint8).permute(1, 2, 0).numpy()
            with atomic_file(self.output / f"{number:06d}.png") as aside:
                Image.fromarray(made).save(aside, "PNG")

    def _counts(self) -> Array:
        """How often each code is used."""
        blocks = [shard.items for shard in self.shards()]
        total: Array = sum(np.load(self._code_file(block), allow_pickle=False) for block in blocks)
        return total

    def _check_size(self) -> None:
        height, width, channels = self.images.pixels(0).shape
        if self.vae.config.in_channels != channels:
            raise InputError(f"{self.name} is of images with {self.vae.config.in_channels} channels, not RGB")
        if height % factor(self.vae) or width % factor(self.vae):
            raise InputError(
                f"{self.images.name} has images of {width}x{height}, which the first stage's factor "
                f"{factor(self.vae)} doesn't divide; give a resolution that it divides"
            )

    def _plan(self) -> dict[str, object]:
        """What the reconstructions depend on."""
        return {"weights": self.weights, "data": self.images.name, "images": self.images.fingerprint(), "block": BLOCK,
                "count": self.count, "device": self.device.type, "latentdiff": __version__}  # fmt: skip

    def _check_plan(self) -> None:
        path = self.output / PLAN
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            if self.output.is_dir() and any(self.output.iterdir()):
                raise InputError(f"{self.output} has other files; choose another output folder") from None
            return
        except (OSError, ValueError) as error:
            raise InputError(f"{path} can't be read ({error}); choose another output folder") from None
        for name, value in self._plan().items():
            if found.get(name) != value:
                raise InputError(
                    f"{self.output} has reconstructions with {name} {found.get(name)!r}, but this run has {value!r}; "
                    "choose another output folder"
                )


def codebook_use(counts: Array, images: str) -> list[Result]:
    """How a codebook is used: the perplexity of the codes' shares, and the share of codes that are used at all.

    Args:
        counts: How often each code is used (K,).
        images: The number of images, for the numbers' names.
    """
    shares = counts[counts > 0] / counts.sum()
    protocol = (images, f"{len(counts)} codes")
    perplexity = float(np.exp(-(shares * np.log(shares)).sum()))
    return [
        Result("codebook_perplexity", protocol, perplexity),
        Result("codebook_used", protocol, float((counts > 0).mean())),
    ]


def _hash(network: FirstStage) -> str:
    """A hash of all weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
