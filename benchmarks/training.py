"""Training steps beside a plain torch loop: a first stage, and a diffusion model with and without cached latents.

Ours is `latentdiff.training.engine.loop.train`, as the commands call it; "plain torch" is the shortest loop that does
the same work on the same networks: AdamW, clipped gradients, EMA, and autocast as --mixed-precision says. They take
turns in one process; a step's time is that from one forward pass to the next. Memory is what each takes above what its
process held with the networks built, in a process of its own. On CUDA the networks are larger and memory is the most
that torch has allocated.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from PIL import Image
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from benchmarks.measuring import Row, Settings, in_process, peak_memory, rows_of
from latentdiff.bench.timing import most_memory
from latentdiff.cli.console import quiet_libraries
from latentdiff.data.bad_files import BadFiles
from latentdiff.data.encoding import LatentEncoding
from latentdiff.data.images import ImageFolder
from latentdiff.data.latent_cache import Columns, LatentRows
from latentdiff.training.diffusion.build import make_conditioner
from latentdiff.training.diffusion.task import DiffusionTask
from latentdiff.training.engine.loop import train
from latentdiff.training.engine.session import open_session
from latentdiff.training.first_stage.task import FirstStageTask
from latentdiff.training.recipes import DiffusionRecipe, FirstStageRecipe

IMAGES, WARM_UP = 64, 2
STEPS, QUICK_STEPS = 10, 3  # of a round, those that count
NOISE = {"beta_schedule": "scaled_linear", "beta_start": 0.0015, "beta_end": 0.0195}


@dataclasses.dataclass(frozen=True)
class Shape:
    """How large the networks are, and how many images a batch has.

    Attributes:
        side: Pixels a side of the images.
        channels: Of the first stage's levels.
        latent_channels: Of its latents.
        unet: The options of the UNet.
        first_stage_batch: Images of a batch of the first stage.
        diffusion_batch: Images of a batch of the diffusion model.
    """

    side: int
    channels: tuple[int, ...]
    latent_channels: int
    unet: dict[str, object]
    first_stage_batch: int
    diffusion_batch: int

    @property
    def vae(self) -> dict[str, object]:
        """The options of the first stage."""
        return {
            "block_out_channels": list(self.channels),
            "down_block_types": ["DownEncoderBlock2D"] * len(self.channels),
            "up_block_types": ["UpDecoderBlock2D"] * len(self.channels),
            "latent_channels": self.latent_channels,
            "norm_num_groups": 8,
        }


SMALL = Shape(
    side=64,
    channels=(32, 64, 128),
    latent_channels=8,
    unet={
        "block_out_channels": [64, 128, 128],
        "layers_per_block": 1,
        "attention_levels": [False, True, True],
        "num_head_channels": 32,
    },
    first_stage_batch=8,
    diffusion_batch=32,
)
LDM_4 = Shape(  # the paper's class-conditional model without its classes, and its first stage
    side=256,
    channels=(128, 256, 512),
    latent_channels=3,
    unet={
        "block_out_channels": [192, 384, 576, 960],
        "layers_per_block": 2,
        "attention_levels": [False, True, True, True],
        "num_head_channels": 32,
    },
    first_stage_batch=8,
    diffusion_batch=32,
)


@dataclasses.dataclass(frozen=True)
class Asked:
    """What a workload is made of."""

    folder: Path
    shape: Shape
    steps: int
    device: torch.device
    mixed_precision: str

    def options(self, batch_size: int) -> dict[str, object]:
        """The options that both stages share."""
        return {
            "data": {"train_data_dir": str(self.folder / "images"), "resolution": self.shape.side},
            "output_dir": str(self.folder / "run"),
            "train_batch_size": batch_size,
            "max_train_steps": self.steps,
            "logging_steps": 5,
            "overwrite_output_dir": True,
            "mixed_precision": self.mixed_precision,
        }


class FirstStage:
    """An autoencoder by its absolute error and KL."""

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.recipe = FirstStageRecipe(**asked.options(asked.shape.first_stage_batch), model=asked.shape.vae)
        self.items = self.plain_items = ImageFolder(asked.folder / "images", asked.shape.side)
        self.task = FirstStageTask(AutoencoderKL(**asked.shape.vae), self.recipe).to(asked.device)

    def floor(self, pixels: torch.Tensor) -> torch.Tensor:
        """The loss in plain torch."""
        posterior = self.task.vae.encode(pixels).latent_dist
        decoded = self.task.vae.decode(posterior.sample()).sample
        return F.l1_loss(decoded, pixels) + self.recipe.loss.kl_weight * posterior.kl().mean()


class Diffusion:
    """A UNet on latents that the cache holds."""

    def __init__(self, asked: Asked) -> None:
        self.asked, folder = asked, asked.folder
        options = asked.options(asked.shape.diffusion_batch)
        self.recipe = DiffusionRecipe(**options, vae=str(folder / "vae"), unet=asked.shape.unet, noise_schedule=NOISE)
        images = ImageFolder(folder / "images", asked.shape.side)
        conditioner = make_conditioner(self.recipe, images)
        self.vae = conditioner.pipeline.vae.requires_grad_(False).to(asked.device)
        self.alphas_cumprod = conditioner.pipeline.scheduler.alphas_cumprod.float().to(asked.device)
        with quiet_libraries(quiet=True):
            bad = BadFiles(folder, len(images), 0)
            work = LatentEncoding(folder / "latents", self.vae, images, bad, random_flip=False)
            work.begin(replace=True)
            work.do(work.shards(), lambda told: None)
            work.finish()
            cache = work.cache()
        self.set_up(conditioner, cache, images)
        self.task.to(asked.device)

    def set_up(self, conditioner, cache, images) -> None:
        self.task = DiffusionTask(conditioner, self.recipe)
        self.items, self.plain_items = LatentRows(cache, Columns()), cache

    def moments(self, moments: torch.Tensor) -> torch.Tensor:
        return moments

    def floor(self, batch: torch.Tensor) -> torch.Tensor:
        """The loss in plain torch."""
        mean, logvar = self.moments(batch).float().chunk(2, dim=1)
        latents = mean + (0.5 * logvar).exp() * torch.randn_like(mean)
        noise = torch.randn_like(latents)
        timesteps = torch.randint(0, 1000, (len(latents),), device=latents.device)
        alphas = self.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
        noisy = alphas.sqrt() * latents + (1 - alphas).sqrt() * noise
        return F.mse_loss(self.task.unet(noisy, timesteps).sample, noise)


class Uncached(Diffusion):
    """The same, but the first stage encodes each batch of images."""

    def set_up(self, conditioner, cache, images) -> None:
        encode = self.moments

        class Encoding(DiffusionTask):
            def forward(self, batch, rng):
                return super().forward({"moments": encode(batch["pixels"])}, rng)

        self.task, self.plain_items = Encoding(conditioner, self.recipe), images
        self.items = LatentRows(cache, lambda image, mirrored, rng: {"pixels": images[image]})

    @torch.no_grad()
    def moments(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.vae.encode(pixels).latent_dist.parameters


WORKLOADS = {"first stage": FirstStage, "diffusion, cached": Diffusion, "diffusion, not cached": Uncached}


def ours(workload, mark) -> None:
    hook = workload.task.register_forward_pre_hook(lambda *_: mark())
    with quiet_libraries(quiet=True), open_session(workload.recipe) as session:
        train(workload.task, workload.items, workload.recipe, session)
    hook.remove()


def plain(workload, mark) -> None:
    recipe, device = workload.recipe, workload.asked.device
    live = torch.nn.ParameterList(p for p in workload.task.parameters() if p.requires_grad)
    optimizer = torch.optim.AdamW(live, lr=recipe.optimizer.learning_rate)
    average = AveragedModel(live, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema.decay))
    loader = DataLoader(workload.plain_items, batch_size=recipe.train_batch_size, shuffle=True, drop_last=True)
    batches = itertools.chain.from_iterable(itertools.repeat(loader))
    dtype = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}[recipe.mixed_precision]
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
    for batch in itertools.islice(batches, recipe.max_train_steps):
        mark()
        with torch.autocast(device.type, dtype, enabled=dtype is not None):
            loss = workload.floor(batch.to(device))
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(live, recipe.optimizer.max_grad_norm)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        average.update_parameters(live)


BASE = "plain torch"
SIDES = {"latentdiff": ours, BASE: plain}


def write_inputs(folder: Path, shape: Shape) -> None:
    """Images and an untrained first stage."""
    (folder / "images").mkdir()
    drawn = np.random.default_rng(0).integers(0, 256, (IMAGES, shape.side, shape.side, 3), np.uint8)
    for number, pixels in enumerate(drawn):
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
    torch.manual_seed(0)
    AutoencoderKL(**shape.vae).save_pretrained(folder / "vae")


def seconds(side: str, workload) -> list[float]:
    """Of each step but the first ones, in which memory is allocated."""
    marks: list[float] = []

    def mark() -> None:
        if workload.asked.device.type != "cpu":
            torch.accelerator.synchronize(workload.asked.device)
        marks.append(time.perf_counter())

    SIDES[side](workload, mark)
    return np.diff(marks)[WARM_UP:].tolist()


def lifted(side: str, name: str, shape: Shape, mixed_precision: str) -> int:
    """The bytes by which three steps raise this process's peak, on a CPU."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_inputs(folder, shape)
        workload = WORKLOADS[name](Asked(folder, shape, 3, torch.device("cpu"), mixed_precision))
        before = peak_memory()
        SIDES[side](workload, lambda: None)
        return peak_memory() - before


def rows(settings: Settings) -> Iterator[Row]:
    """Measure all workloads."""
    on_cpu = settings.device.type == "cpu"
    if on_cpu:
        os.environ["ACCELERATE_USE_CPU"] = "true"  # it would take an accelerator where there is one
    shape, steps = SMALL if on_cpu else LDM_4, QUICK_STEPS if settings.quick else STEPS
    sides = [side for side in SIDES if settings.wants(side)]
    for name, kind in WORKLOADS.items():
        rounds: dict[str, list[float]] = {side: [] for side in sides}
        memory: dict[str, int] = {}
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            write_inputs(folder, shape)
            asked = Asked(folder, shape, steps + WARM_UP + 1, settings.device, settings.mixed_precision)
            workload = kind(asked)
            for number in range(settings.rounds):
                for side in sorted(sides, reverse=bool(number % 2)):  # neither always comes first
                    with most_memory(settings.device) if not on_cpu else nullcontext() as most:
                        rounds[side].append(statistics.median(seconds(side, workload)))
                    if most is not None:
                        memory[side] = most.peak
        if on_cpu and not settings.quick:
            memory = {side: in_process(lifted, side, name, shape, settings.mixed_precision) for side in sides}
        batch = workload.recipe.train_batch_size
        what = f"{name}, batch {batch}, {shape.side} pixels, mixed precision {settings.mixed_precision}"
        yield from rows_of("training", what, rounds, BASE, images=batch, memory=memory)
