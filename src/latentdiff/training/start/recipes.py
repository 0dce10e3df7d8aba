"""The recipes of both stages for a data set, by a survey of it, a preset and the machine; written with remarks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from importlib.util import find_spec

from latentdiff.config import check, from_mapping
from latentdiff.data.options import DataOptions
from latentdiff.reading import parse_yaml
from latentdiff.registry import nearest
from latentdiff.training.diffusion.conditioners.options import BUILT_IN
from latentdiff.training.engine.dry_run import DryRun
from latentdiff.training.recipes import DiffusionRecipe, FirstStageRecipe
from latentdiff.training.start.commented import commented_yaml
from latentdiff.training.start.machine import Machine
from latentdiff.training.start.presets import Preset, StagePreset
from latentdiff.training.start.survey import Survey
from latentdiff.types import JSON

SMALLEST, LARGEST = 16, 1024  # sides of training images that are proposed
SMALLEST_CROP = 0.5  # share of a shorter side that a random part has at least, more where that were too few pixels
FEWEST_STEPS = 40
LOOKS = 4  # validations in a run, the last at its end
HELD_OUT = 0.05  # share of the images, but no more than this many:
MOST_HELD_OUT = 500
MEASURED = 500  # samples of a validation
SHOWN = 16
INFERENCE_STEPS = 25  # of the samples that are looked at and measured
FEATURES = "efficientnet_lite0"  # which need no download


@dataclass(frozen=True)
class Plan:
    """What the recipes are made of.

    Attributes:
        name: The data's name, which the runs' folders have.
        survey: What is known of the images.
        preset: The sizes of the networks.
        machine: What trains.
        task: The conditioning.
        resolution: Side of the training images in pixels.
        steps: Steps of the first stage and of the diffusion model.
        told: What the head of each recipe says of its run.
    """

    name: str
    survey: Survey
    preset: Preset
    machine: Machine
    task: str
    resolution: int
    steps: tuple[int, int]
    told: tuple[str, str] = ("", "")

    @property
    def first_stage(self) -> FirstStageRecipe:
        """The recipe of the autoencoder."""
        return from_mapping(FirstStageRecipe, _as_mapping(self.texts()[0]))

    @property
    def diffusion(self) -> DiffusionRecipe:
        """The recipe of the diffusion model."""
        return from_mapping(DiffusionRecipe, _as_mapping(self.texts()[1]))

    def with_steps(self, first_stage: int, diffusion: int) -> Plan:
        """The same with other lengths of the runs."""
        return replace(self, steps=(in_looks(first_stage), in_looks(diffusion)))

    def timed(self, measured: Sequence[DryRun]) -> Plan:
        """The same with the times that steps of each stage take here."""
        runs = zip(measured, self.steps, strict=True)
        first, second = (
            f"{run.parameters / 1e6:.1f} million parameters; {steps:,} steps take "
            f"{timedelta(seconds=round(run.seconds * steps))} as measured here, without validation."
            for run, steps in runs
        )
        return replace(self, told=(first, second))

    def texts(self) -> tuple[str, str]:
        """Both recipes as YAML."""
        first, second = self.preset.first_stage, self.preset.diffusion
        folder = f"runs/{self.name}"
        data, of_data = self._data()
        of_run = {
            "max_train_steps": "of train_batch_size x gradient_accumulation_steps images",
            "optimizer.learning_rate": "a loss that jumps wants less",
            "ema.decay": "the average over about 1 / (1 - decay) steps is what the run ends with",
        }
        f = 2 ** (len(first.network["block_out_channels"]) - 1)
        side, deep = self.resolution // f, first.network["latent_channels"]
        autoencoder: JSON = {
            "output_dir": f"{folder}/first-stage",
            "data": data,
            "model": first.network,
            "loss": first.loss,
            **self._run(first, self.steps[0]),
            "validation": {"steps": self.steps[0] // LOOKS, "share": self._share()},
            "report": {},
        }
        remarks = {
            **of_data,
            **of_run,
            "model": f"f = {f}: images of {self.resolution} pixels a side become latents of {side} x {side} x {deep}",
            "loss": "sharper images take loss.lpips and loss.adversarial, docs/training.md",
            "validation.share": "of the images, which are not trained on",
            "report": "at the end: report.md, report.json and report.png",
        }
        head = [
            f"The first stage of {self.name}: an autoencoder, in whose latents the diffusion model works.",
            f"{self.preset.name} networks, by latentdiff init; all options: latentdiff train first-stage --help",
        ]
        text = commented_yaml([*head, *filter(None, self.told[:1])], autoencoder, remarks)
        model: JSON = {
            "output_dir": f"{folder}/diffusion",
            "data": {name: value for name, value in data.items() if name in DataOptions.model_fields},
            "vae": f"{folder}/first-stage/vae",
            "conditioning": self._conditioning(f),
            "unet": second.network,
            "noise_schedule": self.preset.noise_schedule,
            **self._run(second, self.steps[1]),
            "validation": self._looks(),
        }
        others = [task for task in self.survey.tasks if task != self.task]
        remarks = {
            **of_data,
            **of_run,
            "vae": "what the first stage's recipe ends as",
            "conditioning.type": f"these images would do for {', '.join(others)}, too",
            "validation.metrics": "lower is better, and best/ has the weights of the lowest",
        }
        head = [
            f"The diffusion model of {self.name}, {self.task}.",
            f"{self.preset.name} networks, by latentdiff init; all options: latentdiff train diffusion --help",
        ]
        return text, commented_yaml([*head, *filter(None, self.told[1:])], model, remarks)

    def _data(self) -> tuple[JSON, dict[str, str]]:
        """The part `data`, and remarks on it."""
        survey = self.survey
        given = survey.options.model_dump(exclude_unset=True, mode="json")
        data: JSON = {name: value for name, value in given.items() if value is not None}
        data["resolution"] = self.resolution
        data.setdefault("random_flip", self.task in ("unconditional", "super-resolution", "inpaint"))
        short, middle, long = survey.sides
        if middle > self.resolution and not {"crop", "buckets"} & set(data):
            data["crop"] = "random"
            data.setdefault("min_crop", max(SMALLEST_CROP, math.ceil(100 * self.resolution / middle) / 100))
        remarks = {
            "data.crop": "another part at each visit; centre would leave out what lies around the centre square",
            "data.min_crop": "the part's least side, as a share of the image's shorter one",
            "data.resolution": f"the images' shorter sides have {short} to {long} pixels, median {middle}",
            "data.random_flip": "true mirrors half of them; not for writing, or captions that say left and right",
            "data.value_range": f"these become -1 and 1; {survey.kind}",
        }
        if survey.channels != 3:
            data["channels"] = survey.channels
        return data, remarks

    def _run(self, stage: StagePreset, steps: int) -> JSON:
        """The parts that say how a stage is trained."""
        pixels = (self.resolution / self.preset.resolution) ** 2
        size = stage.micro_batch(self.machine.memory, pixels) or 1
        run: JSON = {
            "optimizer": {
                "learning_rate": stage.learning_rate,
                "lr_scheduler": "cosine",
                "lr_warmup_steps": min(steps // 20, 1000),
            },
            "ema": {"decay": stage.ema},
            "train_batch_size": size,
        }
        if size < stage.batch:
            run["gradient_accumulation_steps"] = stage.batch // size
        if self.machine.bfloat16:
            run["mixed_precision"] = "bf16"
        return {**run, "max_train_steps": steps, "checkpoint": {"steps": max(1, min(steps // LOOKS, 5000))}}

    def _share(self) -> float:
        """The share that the first stage holds out, of two images at least."""
        count = len(self.survey.images)
        return math.ceil(1e4 * max(min(HELD_OUT, MOST_HELD_OUT / count), 2 / count)) / 1e4

    def _looks(self) -> JSON:
        """The part `validation` of the diffusion model."""
        looks: JSON = {
            "steps": self.steps[1] // LOOKS,
            "samples": SHOWN if self.task == "unconditional" else SHOWN // 2,
            "inference_steps": INFERENCE_STEPS,
        }
        if self.survey.plain and find_spec("efficientnet_lite_pytorch"):
            looks["metrics"] = [f"frechet[{FEATURES}]"]
            looks["count"] = min(MEASURED, len(self.survey.images))
        return looks

    def _conditioning(self, f: int) -> JSON:
        """The part `conditioning`."""
        wide, deep = self.preset.context, self.preset.context_layers
        transformer = {"hidden_size": wide, "num_hidden_layers": deep}
        options: dict[str, JSON] = {
            "text-to-image": {"text_encoder": transformer, "unfit_captions": "cut"},
            "class-to-image": {"class_embedder": {"embed_dim": wide}},
            "layout-to-image": {"layout_encoder": transformer},
            "semantic-to-image": {"segmentation_encoder": {"out_channels": 3}},
            "super-resolution": {"degradation": "bsr_light" if f in (2, 4) else "bicubic"},
        }
        return {"type": self.task, **options.get(self.task, {})}


def make_plan(
    name: str,
    survey: Survey,
    preset: Preset,
    machine: Machine,
    task: str | None = None,
) -> Plan:
    """The plan for a data set, with the preset's own steps.

    Args:
        name: What the runs are called.
        survey: What is known of the images.
        preset: The sizes of the networks.
        machine: What trains.
        task: The conditioning; by default the first of the survey's.

    Raises:
        ConfigError: If nothing that such a model needs is known of the images, or their resolution doesn't go with the
            preset.
    """
    chosen = task or survey.tasks[0]
    check(chosen in BUILT_IN, f"task is {chosen!r}; {nearest(chosen, BUILT_IN)}")
    check(
        chosen in survey.tasks,
        f"task is {chosen!r}, but nothing of that kind is known of the images; there is enough for "
        f"{', '.join(survey.tasks)}",
    )
    options = survey.options
    resolution = options.resolution if options.given("resolution") else _resolution(survey.sides[1], preset.resolution)
    multiple = 2 ** (len(preset.first_stage.network["block_out_channels"]) - 1)
    multiple *= 2 ** (len(preset.diffusion.network["block_out_channels"]) - 1)
    check(
        resolution % multiple == 0 and SMALLEST <= resolution <= LARGEST,
        f"resolution is {resolution}; {preset.name!r} networks take multiples of {multiple} from "
        f"{max(SMALLEST, multiple)} to {LARGEST}",
    )
    steps = in_looks(preset.first_stage.steps), in_looks(preset.diffusion.steps)
    return Plan(name, survey, preset, machine, chosen, resolution, steps)


def in_looks(steps: int) -> int:
    """A number of steps near this one, at least `FEWEST_STEPS`, of which a validation is at the last."""
    unit = LOOKS * int(10 ** max(0, len(str(steps)) - 3))
    return max(FEWEST_STEPS, steps // unit * unit)


def _resolution(side: int, most: int) -> int:
    """The largest power of two that images of a shorter side fill, at most the preset's."""
    return max(SMALLEST, min(most, 1 << (side.bit_length() - 1)))


def _as_mapping(text: str) -> JSON:
    """What a recipe's text says."""
    values = parse_yaml(text)
    assert isinstance(values, dict)
    return values
